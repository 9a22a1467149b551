from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app, doctor
from nnunet_attenscribble.cli.doctor import NOTE, OK, PROBLEM
from nnunet_attenscribble.cli.doctor_datasets import check_dataset, check_labels, list_datasets
from nnunet_attenscribble.common.nnunet import FOLDERS, list_trainers, trainers_folder


def told(findings) -> list[tuple[str, str]]:
    """Status and text."""
    return [(finding.status, finding.found) for finding in findings]


def found_in(folder: object) -> dict:
    """What nnU-Net answers when it finds every trainer in a folder, on a machine without a GPU."""
    trainers = {name: {"folder": str(folder)} for name in list_trainers()}
    return {"gpus": [], "cuda": "13.0", "mps": False, "trainers": trainers, "broken": None}


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
    monkeypatch.setattr(doctor, "ask_nnunet", lambda: lambda: found_in(trainers_folder()))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # which is a note


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
REGIONS = {"background": 0, "all": [1, 2], "b": 2, "ignore": 3}


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
    assert [finding.status for finding in doctor.check_versions()] == [OK]
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: {"nnunetv2": "2.5.1", "pydicom": None}.get(name, real(name)))
    problems = {finding.found: finding.advice for finding in doctor.check_versions()}
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
    raw, preprocessed, results = doctor.check_folders()
    assert (raw.status, raw.advice) == (PROBLEM, 'mkdir -p "$nnUNet_raw"')
    assert (preprocessed.status, preprocessed.found) == (PROBLEM, f"{folders / 'file'} is a file")
    assert (results.status, results.advice) == (NOTE, f'export nnUNet_results="{folders / "nnUNet_results"}"')


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="whoever may write everywhere cannot tell")
def test_a_folder_that_cannot_be_written_to(folders):
    (folders / "nnUNet_results").chmod(0o500)
    assert doctor.check_folders()[2].found.endswith("cannot be written to")


def test_one_folder_for_two_things(folders, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(folders / "nnUNet_raw" / ".." / "nnUNet_raw"))
    assert doctor.check_folders()[-1].found == "two of nnU-Net's folders are the same"


# --- trainers ---


def test_trainers_that_are_not_exported(monkeypatch):
    lost = {"nnUNetTrainerAttenScribble": {"error": "RuntimeError: Could not find it (...)"}}
    answer = {"trainers": lost, "broken": None}
    (finding,) = doctor.check_trainers(answer)
    assert (finding.status, finding.advice) == (PROBLEM, 'export nnUNet_extTrainer="$(attenscribble trainers)"')
    monkeypatch.setenv("nnUNet_extTrainer", "gone")
    assert doctor.check_trainers(answer)[0].found == "nnUNet_extTrainer names no folder (gone)"


def test_other_folders_of_trainers_are_kept(folders, monkeypatch):
    (folders / "mine").mkdir()
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join(["gone", str(folders / "mine")]))
    lost = {"nnUNetTrainerAttenScribble": {"error": "RuntimeError: Could not find it (...)"}}
    (finding,) = doctor.check_trainers({"trainers": lost, "broken": None})
    assert finding.status == PROBLEM
    kept = f'export nnUNet_extTrainer="$(attenscribble trainers){os.pathsep}{folders / "mine"}"'
    assert finding.advice == kept
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join([str(trainers_folder()), "gone", str(folders / "mine")]))
    found, note = doctor.check_trainers(found_in(trainers_folder()))
    assert (found.status, note.status, note.advice) == (OK, NOTE, kept)


def test_the_folder_of_trainers_may_be_spelt_in_other_ways(folders, monkeypatch):
    link = folders / "link"
    link.symlink_to(trainers_folder())
    for spelt in (f"{trainers_folder()}/", f"{trainers_folder()}/../trainers", str(link)):
        monkeypatch.setenv("nnUNet_extTrainer", spelt)
        (finding,) = doctor.check_trainers(found_in(spelt))
        assert finding.status == OK


def test_a_file_that_stops_the_search_is_named(folders, monkeypatch):
    """One that lies before the trainers of this package, and one behind them; nnU-Net itself is asked once."""
    mine, good = folders / "mine", folders / "good"
    for folder in (mine, good):
        folder.mkdir()
    # What it writes below Python is no part of the answer.
    content = "import os\nos.write(1, b'loaded \\xff')\nimport a_library_that_is_not_there\n"
    (mine / "nnUNetTrainerMine.py").write_text(content)
    exported = os.pathsep.join(map(str, (good, mine, trainers_folder())))
    monkeypatch.setenv("nnUNet_extTrainer", exported)
    answer = doctor.ask_nnunet()()
    (finding,) = doctor.check_trainers(answer)
    assert finding.status == PROBLEM
    assert f"nnUNetTrainerMine in {mine} cannot be imported" in finding.found
    assert "a_library_that_is_not_there" in finding.found
    assert finding.advice.endswith(f'export nnUNet_extTrainer="$(attenscribble trainers){os.pathsep}{good}"')
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join(map(str, (trainers_folder(), mine))))
    found, note = doctor.check_trainers(found_in(trainers_folder()) | {"broken": answer["broken"]})
    assert (found.status, note.status) == (OK, NOTE)
    assert note.found.endswith("nnU-Net's search ends there, behind the trainers of this package")


def test_trainers_of_another_installation(folders, monkeypatch):
    other = folders / "copy"
    shutil.copytree(trainers_folder(), other)
    monkeypatch.setenv("nnUNet_extTrainer", f"{other}{os.pathsep}{trainers_folder()}")
    (finding,) = doctor.check_trainers(found_in(other))
    assert finding.status == PROBLEM
    assert finding.found == f"nnU-Net takes them from {other}, not from this installation"
    assert doctor.check_trainers(found_in(trainers_folder()))[0].status == OK


def test_nnunet_itself_is_asked(folders):
    answer = doctor.ask_nnunet()()
    assert "error" not in answer
    assert answer["broken"] is None
    assert answer["trainers"] == found_in(trainers_folder())["trainers"]
    assert doctor.check_trainers(answer)[0].status == OK


@pytest.mark.parametrize("answer", ["no JSON", "5", ""])
def test_an_answer_that_is_none_is_an_error(tmp_path, monkeypatch, answer):
    (tmp_path / "python").write_text(f"#!/bin/sh\necho '{answer}'\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert "is not what was asked for" in doctor.ask_nnunet()()["error"]


def test_an_installation_that_nnunet_cannot_start_in(monkeypatch):
    (finding,) = doctor.check_trainers({"error": "ImportError: libcudart.so.13"})
    assert finding.status == PROBLEM
    assert "libcudart" in finding.found
    assert doctor.check_device({"error": "ImportError"}) == []


# --- device and disk ---


def test_devices():
    answer = found_in("")
    (finding,) = doctor.check_device(answer | {"gpus": [["NVIDIA A100", 80 << 30]]})
    assert (finding.status, finding.found) == (OK, "GPU: NVIDIA A100, 80 GB")
    assert "-device mps" in doctor.check_device(answer | {"mps": True})[0].advice
    assert "-device cpu" in doctor.check_device(answer)[0].advice


@pytest.mark.skipif(os.name != "posix", reason="the driver's program is a shell script here")
def test_a_driver_that_torch_does_not_fit(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA A100 (UUID: GPU-1)'\n")
    program.chmod(0o755)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: str(program))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    answer = found_in("") | {"cuda": None}
    problem = doctor.check_device(answer)[1]
    assert problem.status == PROBLEM
    assert problem.found == "there is an NVIDIA driver, but torch, which is built without CUDA, sees no GPU"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # as in a job that has a GPU
    assert doctor.check_device(answer)[1] == problem
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert told(doctor.check_device(answer)[1:]) == [(NOTE, "CUDA_VISIBLE_DEVICES is '', so torch sees no GPU")]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for login_node in ("echo 'No devices were found'", "echo 'GPU 0: lost'; exit 9"):
        program.write_text(f"#!/bin/sh\n{login_node}\n")
        assert len(doctor.check_device(answer)) == 1


@pytest.mark.parametrize(("free", "status"), [(1.5, PROBLEM), (10, NOTE), (100, OK)])
def test_disk(folders, monkeypatch, free, status):
    usage = type("Usage", (), {"free": free * (1 << 30), "total": 1 << 40})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage)
    (finding,) = doctor.check_disk()  # all three are on one disk
    assert finding.status == status
    assert finding.found.endswith("free for nnUNet_raw, nnUNet_preprocessed, nnUNet_results")


def test_little_shared_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_SHARED_MEMORY", tmp_path)
    usage = type("Usage", (), {"free": 0, "total": 64 << 20})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage)
    (finding,) = doctor.check_disk()
    assert (finding.status, finding.found) == (NOTE, "only 64 MB of shared memory")


# --- datasets ---


def test_a_dataset_in_order(folders):
    write_dataset(folders / "nnUNet_raw", scribble(), LABELS)
    assert told(check_dataset("501")) == [
        (OK, "scribbles of background, organ; 2 is `ignore`"),
        (OK, "every class has strokes, 6.94 % of the voxels are annotated"),  # 5 of 72
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


def test_values_that_are_swapped_are_a_note(folders):
    write_dataset(folders / "nnUNet_raw", np.array([2, 1, 0])[scribble()], LABELS)  # 0 where nobody drew
    (status, found) = told(check_dataset("501"))[2]
    assert status == NOTE
    assert found.startswith("in 2 of 2 cases more than half of the voxels are background, where strokes cover a few")
    assert "(a: 93 %, and 4.2 % `ignore`)" in found
    assert found.endswith("the two values are probably swapped")


def test_slices_labelled_as_a_whole_are_no_swapped_values(folders):
    label = scribble()
    label[0] = 0
    label[0, 2:4, 2:4] = 1
    write_dataset(folders / "nnUNet_raw", label, LABELS)
    assert not any("swapped" in found for _, found in told(check_dataset("501")))


def test_dense_labels_that_are_called_scribbles(folders):
    write_dataset(folders / "nnUNet_raw", scribble() % 2, LABELS)
    assert (PROBLEM, "no voxel is `ignore` (2): the labels are dense") in told(check_dataset("501"))


def test_a_dense_dataset_is_a_note(folders):
    folder = write_dataset(folders / "nnUNet_raw", scribble() % 2, {"background": 0, "organ": 1})
    first, second, _ = check_dataset("501")
    assert first.status == NOTE
    assert "attenscribble scribble Dataset501_Tiny" in first.advice
    assert told([second]) == [(OK, "2 cases, every file is there")]
    label = folder / "labelsTr/a.nii.gz"
    sitk.WriteImage(sitk.Flip(sitk.ReadImage(label), [True, False, False]), label)
    assert f"{label}: its voxels are stored in another order" in check_dataset("501")[1].found


def test_files_that_are_missing_or_too_many(folders):
    folder = write_dataset(folders / "nnUNet_raw", scribble(), LABELS, numTraining=3)
    (folder / "labelsTr" / "b.nii.gz").unlink()
    (folder / "labelsTr" / "b.nii.gz").symlink_to("gone.nii.gz")
    found = told(check_dataset("501"))
    assert (PROBLEM, "numTraining is 3, there are 2 cases") in found
    assert (PROBLEM, "1 file missing: b.nii.gz") in found
    sitk.WriteImage(sitk.GetImageFromArray(scribble()[:1].astype(np.uint8)), folder / "labelsTr" / "a.nii.gz")
    found = told(check_dataset("501"))
    assert any("a.nii.gz: size" in problem for _, problem in found)
    assert (PROBLEM, "1 file missing: b.nii.gz") in found


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


@pytest.mark.parametrize("part", ["imagesTr/a_0001", "labelsTr/a"])
def test_what_lies_elsewhere_than_the_first_image_of_its_case(folders, part):
    channels = {"channel_names": {"0": "T1", "1": "T2"}}
    folder = write_dataset(folders / "nnUNet_raw", scribble(), LABELS, **channels)
    for case in ("a", "b"):
        shutil.copyfile(folder / f"imagesTr/{case}_0000.nii.gz", folder / f"imagesTr/{case}_0001.nii.gz")
    assert all(finding.status != PROBLEM for finding in check_dataset("501"))
    file, first = folder / f"{part}.nii.gz", folder / "imagesTr/a_0000.nii.gz"
    volume = sitk.ReadImage(file)
    for changed, text in (
        (
            sitk.Flip(volume, [True, False, False]),
            f"{file}: its voxels are stored in another order than those of {first}",
        ),
        (
            sitk.ConstantPad(volume, [0, 0, 0], [0, 0, 1], 2),
            f"{file}: size (6, 6, 3) differs from (6, 6, 2) of {first}",
        ),
    ):
        sitk.WriteImage(changed, file)
        found = told(check_dataset("501"))
        (problem,) = (found for status, found in found if status == PROBLEM)
        assert problem.startswith(text)
        assert any("every class has strokes" in text for _, text in found) == (part == "imagesTr/a_0001")


def test_worker_processes_find_the_same_and_readers_that_print_leave_the_report_its_place(folders):
    write_dataset(folders / "nnUNet_raw", scribble(), LABELS, overwrite_image_reader_writer="NibabelIO")
    places = sys.stdout, sys.stderr
    found = check_dataset("501", workers=2)
    assert found == check_dataset("501")
    assert all(finding.status != PROBLEM for finding in found)
    assert (sys.stdout, sys.stderr) == places


def test_channels_of_two_names_that_differ(folders):
    write_dataset(folders / "nnUNet_raw", scribble(), LABELS, modality={"0": "CT"})
    (finding,) = check_dataset("501")
    assert "'channel_names' and 'modality', its old name, differ" in finding.found


def test_a_description_that_is_not_in_order(folders):
    folder = write_dataset(folders / "nnUNet_raw", scribble(), LABELS)
    written = json.loads((folder / "dataset.json").read_text())

    def described(**changes):
        return json.dumps(written | changes)

    for content, message in (
        ("{", "is no JSON"),
        (described(numTraining="2"), "'numTraining' is '2': it must be a whole number from 0"),
        (described(labels=["background", "organ"]), "'labels' is ['background', 'organ']: it must be names"),
        (described(labels={"background": 0, "organ": "one"}), "'labels.organ' is 'one': it must be a whole number"),
        (described(labels={"background": 0, "ignore": []}), "'labels.ignore' is []: it must be a whole number"),
        (described(labels={"0": "background", "1": "organ"}), "'labels.0' is 'background': it must be a whole number"),
        (described(channel_names={"T1": 0}), "'channel_names' is {'T1': 0}: it must be names by number"),
        (described(file_ending=5), "'file_ending' is 5: it must be text"),
        (described()[:-1] + ', "labels": {}}', "is no JSON (the key 'labels' stands twice)"),
    ):
        (folder / "dataset.json").write_text(content)
        findings = check_dataset("501")
        assert {finding.status for finding in findings} == {PROBLEM}
        assert findings[0].found.startswith(f"{folder / 'dataset.json'}: {message}")
    (folder / "dataset.json").write_text("{}")
    assert [finding.found.split(": ")[1] for finding in check_dataset("501")] == [
        f"has no '{key}'" for key in ("labels", "file_ending", "channel_names")
    ]
    (folder / "dataset.json").unlink()
    assert check_dataset("501")[0].found.startswith(f"{folder / 'dataset.json'}: cannot be read")
    assert check_dataset("502")[0].found.startswith("no dataset 502")


@pytest.mark.parametrize(
    "name", ["Ignore", "IGNORE", "unlabeled", "Unlabelled", "un-labelled", "unlabelled_", " ignore", "not annotated"]
)
def test_a_label_that_is_meant_as_ignore_is_named(folders, name):
    write_dataset(folders / "nnUNet_raw", scribble(), {"background": 0, "organ": 1, name: 2})
    (finding,) = check_dataset("501")
    assert finding.status == PROBLEM
    assert f"dataset.json: the label '{name}' is a class like others to nnU-Net: call it ignore" in finding.found
    assert told(list_datasets())[0] == (NOTE, "Dataset501_Tiny: dataset.json is not in order")


def test_classes_whose_names_are_alike_are_classes(folders):
    labels = {"background": 0, "ignored_lesion": 1, "signore": 2, "labelled": 3}
    write_dataset(folders / "nnUNet_raw", scribble() % 2, labels)
    assert check_dataset("501")[0].found == "has no label `ignore`: its labels are dense"


@pytest.mark.parametrize(
    ("labels", "order", "problem"),
    [
        ({"background": 0, "a": 1, "b": 3, "ignore": 4}, None, "no label is 2, and 3 is the next"),
        ({"background": 0, "a": 2, "ignore": 3}, None, "no label is 1, and 2 is the next"),
        ({"a": 1, "ignore": 2}, None, "has no label `background`"),
        ({"background": 1, "a": 2, "ignore": 3}, None, "`background` is 1"),
        (REGIONS, None, "has regions, and there is no regions_class_order"),
        (REGIONS, [1], "has regions, and regions_class_order is [1]"),
        (REGIONS, [1, 2], None),
        ({"background": 0, "a": 1, "b": [2], "ignore": 3}, None, None),
    ],
)
def test_labels_are_as_nnunet_wants_them(labels, order, problem):
    """Beside it stands what nnU-Net itself says."""
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    findings = check_labels("Dataset501_Tiny", {"labels": labels, "regions_class_order": order})
    assert [finding.found for finding in findings if finding.status == PROBLEM] == ([problem] if problem else [])
    try:
        manager = LabelManager(labels, order)
        accepted = manager.all_labels == list(range(len(manager.all_labels)))  # as `--verify_dataset_integrity` asks
    except (AssertionError, RuntimeError):
        accepted = False
    assert accepted == (problem is None)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha"])
def test_an_image_that_is_not_whole(folders, ending):
    folder = write_dataset(folders / "nnUNet_raw", scribble(), LABELS, file_ending=ending)
    for file in list(folder.glob("*/*.nii.gz")) if ending != ".nii.gz" else []:
        sitk.WriteImage(sitk.ReadImage(file), file.with_name(file.name.replace(".nii.gz", ending)))
        file.unlink()
    image = folder / "imagesTr" / f"b_0000{ending}"
    image.write_bytes(image.read_bytes()[: -20 if ending != ".nii.gz" else -10])
    (found,) = (finding.found for finding in check_dataset("501") if finding.status == PROBLEM)
    assert found.startswith(f"{image}: is truncated")


def test_a_copy_of_dataset_json_with_other_labels(folders):
    folder = write_dataset(folders / "nnUNet_raw", scribble(), LABELS)
    place = folders / "nnUNet_preprocessed" / "Dataset501_Tiny"
    place.mkdir()
    (place / "mine.json").write_text(json.dumps({"plans_name": "mine", "configurations": {}}))
    (place / "dataset.json").write_text((folder / "dataset.json").read_text())
    assert not [finding for finding in check_dataset("501") if finding.status == PROBLEM]
    (place / "dataset.json").write_text((folder / "dataset.json").read_text().replace("organ", "other"))
    (finding,) = (finding for finding in check_dataset("501") if finding.status == PROBLEM)
    assert finding.found == f"{place / 'dataset.json'} has other labels than the raw dataset"
    plan = "nnUNetv2_plan_and_preprocess -d 501 -c 2d --verify_dataset_integrity"  # as `convert` and `start` tell
    assert finding.advice == f"plan again: {plan}"
    (folder / "dataset.json").write_text((folder / "dataset.json").read_text().replace('"MRI"', '"CT"'))
    (finding,) = (finding for finding in check_dataset("501") if finding.status == PROBLEM)
    assert finding.advice == f"plan again: attenscribble fingerprint 501 && {plan}"


def test_plans_of_any_name_and_no_other_file(folders):
    write_dataset(folders / "nnUNet_raw", scribble(), LABELS)
    place = folders / "nnUNet_preprocessed" / "Dataset501_Tiny"
    place.mkdir()
    for name in ("dataset", "splits_final", "dataset_fingerprint", "notes"):
        (place / f"{name}.json").write_text('{"of": "mine"}')
    assert told(check_dataset("501"))[-1] == (NOTE, "is not planned yet")
    (place / "nnUNetResEncUNetPlans_80G.json").write_text(json.dumps({"plans_name": "p", "configurations": {}}))
    (place / "small.json").write_text(json.dumps({"plans_name": "small", "configurations": {}}))
    (place / "myplans.json").write_text("[]")
    assert told(check_dataset("501"))[-3:] == [
        (PROBLEM, "myplans.json: is not an object of keys and values: plan the dataset again"),
        (NOTE, "nnUNetResEncUNetPlans_80G: nothing is preprocessed yet"),
        (NOTE, "small: nothing is preprocessed yet"),
    ]


def test_label_values_in_quotes_are_numbers_as_nnunet_takes_them(folders):
    write_dataset(folders / "nnUNet_raw", scribble(), {"background": "0", "organ": "1", "ignore": 2})
    assert told(check_dataset("501"))[:2] == [
        (OK, "scribbles of background, organ; 2 is `ignore`"),
        (OK, "every class has strokes, 6.94 % of the voxels are annotated"),
    ]


def test_plans(folders):
    write_dataset(folders / "nnUNet_raw", scribble(), LABELS)
    place = folders / "nnUNet_preprocessed" / "Dataset501_Tiny"
    place.mkdir()
    plans = {"plans_name": "nnUNetPlans"} | {
        "configurations": {"2d": {"data_identifier": "nnUNetPlans_2d"}, "2d_b": {"inherits_from": "2d"}}
    }
    (place / "nnUNetPlans.json").write_text(json.dumps(plans))
    finding = check_dataset("501")[-1]
    assert (finding.status, finding.advice) == (NOTE, "nnUNetv2_preprocess -d 501 -plans_name nnUNetPlans -c 2d")
    (place / "nnUNetPlans_2d").mkdir()  # as preprocessing that was killed at once leaves it
    assert check_dataset("501")[-1] == finding
    (place / "nnUNetPlans_2d" / "a.pkl").touch()
    half = check_dataset("501")[-1]
    assert told([half]) == [(PROBLEM, "nnUNetPlans: 2d, 2d_b: only 1 of 2 cases are preprocessed")]
    assert half.advice.endswith(finding.advice)
    (place / "nnUNetPlans_2d" / "b.pkl").touch()
    assert told(check_dataset("501")[-1:]) == [(OK, "nnUNetPlans: 2d, 2d_b preprocessed")]
    plans["configurations"]["2d_b"]["attenscribble"] = {"crf_weight": -1}
    (place / "nnUNetPlans.json").write_text(json.dumps(plans))
    (finding,) = check_dataset("501")[-1:]
    assert finding.status == PROBLEM
    assert "crf_weight is -1" in finding.found


def test_every_wrong_configuration_is_named(folders):
    write_dataset(folders / "nnUNet_raw", scribble(), LABELS)
    place = folders / "nnUNet_preprocessed" / "Dataset501_Tiny"
    place.mkdir()
    configurations = {"2d": {"attenscribble": {"class_weights": {"heart": 2}}}, "2d_b": {"inherits_from": "2d"}}
    configurations |= {"2d_c": {"attenscribble": {"crf": 1}}, "2d_d": {"inherits_from": "3d"}}
    plans = {"plans_name": "nnUNetPlans", "configurations": configurations}
    (place / "nnUNetPlans.json").write_text(json.dumps(plans))
    found = [finding.found for finding in check_dataset("501") if finding.status == PROBLEM]
    assert [text.partition("; ")[0].partition(" (")[0] for text in found] == [
        "nnUNetPlans.json: 2d, 2d_b: settings: class_weights names 'heart'",
        "nnUNetPlans.json: 2d_c: settings: unknown field 'crf'",
        "nnUNetPlans.json: 2d_d: plans: no configuration '3d'",
    ]


def test_dense_labels_have_no_settings(folders):
    write_dataset(folders / "nnUNet_raw", scribble() % 2, {"background": 0, "organ": 1})
    place = folders / "nnUNet_preprocessed" / "Dataset501_Tiny"
    place.mkdir()
    configurations = {"2d": {"attenscribble": {"class_weights": {"organ": 2}}}}
    (place / "nnUNetPlans.json").write_text(json.dumps({"plans_name": "p", "configurations": configurations}))
    assert PROBLEM not in [finding.status for finding in check_dataset("501")]


def test_channels_may_go_by_their_old_name(folders):
    folder = write_dataset(folders / "nnUNet_raw", scribble(), LABELS)
    file = folder / "dataset.json"
    file.write_text(file.read_text().replace("channel_names", "modality"))
    assert PROBLEM not in [finding.status for finding in check_dataset("501")]


def test_without_an_id_datasets_are_listed(folders):
    (folders / "nnUNet_raw" / "Dataset501_Tiny.png").touch()  # as `inspect` writes
    assert told(list_datasets()) == [(NOTE, "none in nnUNet_raw")]
    write_dataset(folders / "nnUNet_raw", scribble() % 2, {"background": 0, "organ": 1}, "Dataset502_Dense")
    assert told(list_datasets()) == [(NOTE, "Dataset502_Dense: dense labels, no scribbles")]
    write_dataset(folders / "nnUNet_raw", scribble(), 5, "Dataset503_Broken")
    write_dataset(folders / "nnUNet_raw", scribble(), LABELS)
    assert told(list_datasets()) == [
        (NOTE, "Dataset503_Broken: dataset.json is not in order"),
        (OK, "Dataset501_Tiny with scribbles"),
    ]
