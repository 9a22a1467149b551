from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.cli.doctor import installation
from nnunet_attenscribble.cli.doctor.command import NOTE, OK, PROBLEM
from nnunet_attenscribble.cli.doctor.datasets import check_dataset, list_datasets
from nnunet_attenscribble.common.nnunet import FOLDERS, list_trainers, trainers_folder


def told(findings) -> list[tuple[str, str]]:
    """Status and text."""
    return [(finding.status, finding.found) for finding in findings]


def found_in(folder: object) -> dict:
    """What nnU-Net answers when it finds every trainer in a folder, on a machine without a GPU."""
    trainers = {name: {"folder": str(folder)} for name in list_trainers()}
    return {"gpus": [], "cuda": "13.0", "mps": False, "trainers": trainers}


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """nnU-Net's folders, and the trainers exported."""
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers_folder()))
    return tmp_path


@pytest.fixture
def answered(monkeypatch):
    """The command without torch and nnU-Net."""
    monkeypatch.setattr(installation, "ask_nnunet", lambda: found_in(trainers_folder()))


def write_dataset(raw: Path, label: np.ndarray, labels: dict, name: str = "Dataset501_Tiny", **changes) -> Path:
    folder = raw / name
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case in ("a", "b"):
        sitk.WriteImage(
            sitk.GetImageFromArray(np.zeros(label.shape, np.float32)), folder / f"imagesTr/{case}_0000.nii.gz"
        )
        sitk.WriteImage(sitk.GetImageFromArray(label.astype(np.uint8)), folder / f"labelsTr/{case}.nii.gz")
    description = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description | changes))
    return folder


def scribble() -> np.ndarray:
    """A stroke of each class in a stack that is unlabelled otherwise (2)."""
    label = np.full((2, 6, 6), 2)
    label[0, 1, 1:4], label[1, 4, 1:3] = 0, 1
    return label


LABELS = {"background": 0, "organ": 1, "ignore": 2}


# --- the command ---


def test_all_in_order_is_exit_code_0(folders, answered):
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    assert "problem" not in result.output


def test_problems_are_exit_code_1_and_every_one_says_what_to_do(answered):
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    lines = result.output.splitlines()
    problems = [number for number, line in enumerate(lines) if line.startswith("problem")]
    assert len(problems) == 4  # three folders, and the export
    assert all(lines[number + 1].startswith("        -> ") for number in problems)
    assert lines[-1] == "4 problems, 1 note."


def test_json_holds_the_same(folders, answered):
    plain = CliRunner().invoke(app, ["doctor"]).output
    content = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)
    assert content["ok"] is True
    assert all(f"{finding['subject']}: {finding['found']}" in plain for finding in content["findings"])
    assert {finding["status"] for finding in content["findings"]} <= {OK, NOTE, PROBLEM}


def test_a_dataset_with_a_problem_fails_it(folders, answered):
    write_dataset(folders / "nnUNet_raw", scribble(), LABELS | {"ignore": 7})
    result = CliRunner().invoke(app, ["doctor", "501", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ok"] is False


# --- versions ---


def test_versions_are_held_against_the_requirements(monkeypatch):
    assert [finding.status for finding in installation.check_versions()] == [OK]
    real = installation._version
    monkeypatch.setattr(
        installation, "_version", lambda name: {"nnunetv2": "2.5.1", "pydicom": None}.get(name, real(name))
    )
    problems = {finding.found: finding.advice for finding in installation.check_versions()}
    assert problems == {
        "nnunetv2 has version 2.5.1, <3,>=2.8 is needed": 'pip install "nnunetv2<3,>=2.8"',
        "pydicom is not installed": 'pip install "pydicom>=3"',
    }


# --- folders ---


def test_folders_that_are_no_folders(folders, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(folders / "nowhere"))
    (folders / "file").touch()
    monkeypatch.setenv("nnUNet_preprocessed", str(folders / "file"))
    monkeypatch.chdir(folders)
    monkeypatch.setenv("nnUNet_results", "nnUNet_results")
    raw, preprocessed, results = installation.check_folders()
    assert (raw.status, raw.advice) == (PROBLEM, 'mkdir -p "$nnUNet_raw"')
    assert (preprocessed.status, preprocessed.found) == (PROBLEM, f"{folders / 'file'} is a file")
    assert (results.status, results.advice) == (NOTE, f'export nnUNet_results="{folders / "nnUNet_results"}"')


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="whoever may write everywhere cannot tell")
def test_a_folder_that_cannot_be_written_to(folders):
    (folders / "nnUNet_results").chmod(0o500)
    assert installation.check_folders()[2].found.endswith("cannot be written to")


def test_one_folder_for_two_things(folders, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(folders / "nnUNet_raw" / ".." / "nnUNet_raw"))
    assert installation.check_folders()[-1].found == "two of nnU-Net's folders are the same"


# --- trainers ---


def test_trainers_that_are_not_exported(monkeypatch):
    answer = {"trainers": {"nnUNetTrainerAttenScribble": {"error": "RuntimeError: Could not find it (...)"}}}
    (finding,) = installation.check_trainers(answer)
    assert (finding.status, finding.advice) == (PROBLEM, 'export nnUNet_extTrainer="$(attenscribble trainers)"')
    monkeypatch.setenv("nnUNet_extTrainer", "gone")
    assert installation.check_trainers(answer)[0].found == "nnUNet_extTrainer names no folder (gone)"


def test_trainers_of_another_installation(folders, monkeypatch):
    other = folders / "copy"
    shutil.copytree(trainers_folder(), other)
    monkeypatch.setenv("nnUNet_extTrainer", f"{other}{os.pathsep}{trainers_folder()}")
    (finding,) = installation.check_trainers(found_in(other))
    assert finding.status == PROBLEM
    assert finding.found == f"nnU-Net takes them from {other}, not from this installation"
    assert installation.check_trainers(found_in(trainers_folder()))[0].status == OK


def test_nnunet_itself_is_asked(folders):
    answer = installation.ask_nnunet()
    assert "error" not in answer
    assert answer["trainers"] == found_in(trainers_folder())["trainers"]
    assert installation.check_trainers(answer)[0].status == OK


def test_an_installation_that_nnunet_cannot_start_in(monkeypatch):
    (finding,) = installation.check_trainers({"error": "ImportError: libcudart.so.13"})
    assert finding.status == PROBLEM
    assert "libcudart" in finding.found
    assert installation.check_device({"error": "ImportError"}) == []


# --- device and disk ---


def test_devices():
    answer = found_in("")
    (finding,) = installation.check_device(answer | {"gpus": [["NVIDIA A100", 80 << 30]]})
    assert (finding.status, finding.found) == (OK, "GPU: NVIDIA A100, 80 GB")
    assert "-device mps" in installation.check_device(answer | {"mps": True})[0].advice
    assert "-device cpu" in installation.check_device(answer)[0].advice


def test_a_driver_that_torch_does_not_fit(monkeypatch):
    monkeypatch.setattr(installation.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    problem = installation.check_device(found_in("") | {"cuda": None})[1]
    assert problem.found == "there is an NVIDIA driver, but torch, which is built without CUDA, sees no GPU"


@pytest.mark.parametrize(("free", "status"), [(1.5, PROBLEM), (10, NOTE), (100, OK)])
def test_disk(folders, monkeypatch, free, status):
    usage = type("Usage", (), {"free": free * (1 << 30), "total": 1 << 40})
    monkeypatch.setattr(installation.shutil, "disk_usage", lambda folder: usage)
    (finding,) = installation.check_disk()  # all three are on one disk
    assert finding.status == status
    assert finding.found.endswith("free for nnUNet_raw, nnUNet_preprocessed, nnUNet_results")


def test_little_shared_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(installation, "_SHARED_MEMORY", tmp_path)
    usage = type("Usage", (), {"free": 0, "total": 64 << 20})
    monkeypatch.setattr(installation.shutil, "disk_usage", lambda folder: usage)
    (finding,) = installation.check_disk()
    assert (finding.status, finding.found) == (NOTE, "only 64 MB of shared memory")


# --- datasets ---


def test_a_dataset_in_order(folders):
    write_dataset(folders / "nnUNet_raw", scribble(), LABELS)
    assert told(check_dataset("501")) == [
        (OK, "scribbles of background, organ; 2 is `ignore`"),
        (OK, "every class has strokes, 6.9 % of the voxels are annotated"),  # 5 of 72
        (NOTE, "is not planned yet"),
    ]


@pytest.mark.parametrize("ignore", [1, 3, [2]])
def test_ignore_has_to_be_the_highest_value(folders, ignore):
    write_dataset(folders / "nnUNet_raw", scribble(), LABELS | {"ignore": ignore})
    (finding,) = check_dataset("501")
    assert finding.status == PROBLEM
    assert "set it to 2" in finding.advice


def test_what_scribbles_lack(folders):
    label = scribble()
    label[label < 2] = 2
    label[0, 0, 0] = 9
    write_dataset(folders / "nnUNet_raw", label, LABELS)
    found = told(check_dataset("501"))
    assert (PROBLEM, "labels hold 9, not in dataset.json") in found
    assert (PROBLEM, "no case has a stroke of organ") in found
    assert (NOTE, "no case has a stroke of background") in found


def test_dense_labels_that_are_called_scribbles(folders):
    write_dataset(folders / "nnUNet_raw", scribble() % 2, LABELS)
    assert (PROBLEM, "no voxel is `ignore` (2): the labels are dense") in told(check_dataset("501"))


def test_a_dense_dataset_is_a_note(folders):
    write_dataset(folders / "nnUNet_raw", scribble() % 2, {"background": 0, "organ": 1})
    first, second, _ = check_dataset("501")
    assert first.status == NOTE
    assert "attenscribble scribble Dataset501_Tiny" in first.advice
    assert told([second]) == [(OK, "2 cases, every file is there")]


def test_files_that_are_missing_or_too_many(folders):
    folder = write_dataset(folders / "nnUNet_raw", scribble(), LABELS, numTraining=3)
    (folder / "labelsTr" / "b.nii.gz").unlink()
    (folder / "labelsTr" / "b.nii.gz").symlink_to("gone.nii.gz")
    found = told(check_dataset("501"))
    assert (PROBLEM, "numTraining is 3, there are 2 cases") in found
    assert (PROBLEM, "1 files are missing: b.nii.gz") in found


def test_a_damaged_label(folders):
    folder = write_dataset(folders / "nnUNet_raw", scribble(), LABELS)
    label = folder / "labelsTr" / "b.nii.gz"
    label.write_bytes(label.read_bytes()[:-20])
    assert (PROBLEM, f"{label}: is truncated or corrupt: copy or download it again") in told(check_dataset("501"))


@pytest.mark.parametrize("value", [1.4, np.nan])
def test_labels_that_are_not_integers(folders, value):
    folder = write_dataset(folders / "nnUNet_raw", scribble(), LABELS, file_ending=".mha")
    for file in list(folder.glob("*/*.nii.gz")):
        sitk.WriteImage(sitk.ReadImage(file), file.with_name(file.name.replace(".nii.gz", ".mha")))
        file.unlink()
    values = np.where(scribble() == 1, value, scribble()).astype(np.float32)
    label = folder / "labelsTr" / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(values), label)
    (finding,) = (finding for finding in check_dataset("501") if finding.status == PROBLEM)
    assert finding.found.startswith(f"{label}: label values that are not integers ({value:g})")
    sitk.WriteImage(sitk.GetImageFromArray(values), label.with_name("b.mha"))
    found = [finding.found for finding in check_dataset("501") if finding.status == PROBLEM]
    assert [text.partition(": ")[0] for text in found] == [str(label), str(label.with_name("b.mha"))]


def test_a_description_that_is_not_in_order(folders):
    folder = write_dataset(folders / "nnUNet_raw", scribble(), LABELS)
    written = json.loads((folder / "dataset.json").read_text())

    def described(**changes):
        return json.dumps(written | changes)

    for content, message in (
        ("{", "dataset.json is no JSON"),
        ("{}", "dataset.json has no labels, channel_names, file_ending, numTraining"),
        (described(labels=["background", "organ"]), f"{folder / 'dataset.json'}: its labels or channels are not"),
        (described(labels={"background": 0, "organ": "one"}), f"{folder / 'dataset.json'}: its labels or channels"),
        (described(labels={"background": 0, "ignore": []}), f"{folder / 'dataset.json'}: its labels or channels"),
        (described(file_ending=5), f"{folder / 'dataset.json'}: its file_ending is 5"),
    ):
        (folder / "dataset.json").write_text(content)
        (finding,) = check_dataset("501")
        assert finding.status == PROBLEM
        assert finding.found.startswith(message)
    (folder / "dataset.json").unlink()
    assert check_dataset("501")[0].found.startswith("dataset.json cannot be read")
    assert check_dataset("502")[0].found.startswith("no dataset 502")


def test_label_values_in_quotes_are_numbers_as_nnunet_takes_them(folders):
    write_dataset(folders / "nnUNet_raw", scribble(), {"background": "0", "organ": "1", "ignore": 2})
    assert told(check_dataset("501"))[:2] == [
        (OK, "scribbles of background, organ; 2 is `ignore`"),
        (OK, "every class has strokes, 6.9 % of the voxels are annotated"),
    ]


def test_plans(folders):
    write_dataset(folders / "nnUNet_raw", scribble(), LABELS)
    place = folders / "nnUNet_preprocessed" / "Dataset501_Tiny"
    place.mkdir()
    plans = {"configurations": {"2d": {"data_identifier": "nnUNetPlans_2d"}, "2d_b": {"inherits_from": "2d"}}}
    (place / "nnUNetPlans.json").write_text(json.dumps(plans))
    finding = check_dataset("501")[-1]
    assert (finding.status, finding.advice) == (NOTE, "nnUNetv2_preprocess -d 501 -plans_name nnUNetPlans -c 2d")
    (place / "nnUNetPlans_2d").mkdir()
    assert told(check_dataset("501")[-1:]) == [(OK, "nnUNetPlans: 2d, 2d_b preprocessed")]
    plans["configurations"]["2d_b"]["attenscribble"] = {"crf_weight": -1}
    (place / "nnUNetPlans.json").write_text(json.dumps(plans))
    (finding,) = check_dataset("501")[-1:]
    assert finding.status == PROBLEM
    assert "crf_weight is -1" in finding.found


def test_without_an_id_datasets_are_listed(folders):
    assert told(list_datasets()) == [(NOTE, "none in nnUNet_raw")]
    write_dataset(folders / "nnUNet_raw", scribble() % 2, {"background": 0, "organ": 1}, "Dataset502_Dense")
    assert told(list_datasets()) == [(NOTE, "Dataset502_Dense: dense labels, no scribbles")]
    write_dataset(folders / "nnUNet_raw", scribble(), 5, "Dataset503_Broken")  # which `doctor 503` tells
    write_dataset(folders / "nnUNet_raw", scribble(), LABELS)
    assert told(list_datasets()) == [(OK, "Dataset501_Tiny with scribbles")]
