"""nnU-Net's normalisation of scribble datasets, with its own fingerprint and with that of what was drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from nnunet_attenscribble import normalisation
from nnunet_attenscribble.cli import app
from nnunet_attenscribble.cli.datasets import planning_commands
from nnunet_attenscribble.cli.doctor import NOTE, PROBLEM
from nnunet_attenscribble.cli.doctor_datasets import check_dataset
from nnunet_attenscribble.common import files
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.normalisation import (
    FINGERPRINT,
    MARK,
    is_scaled_by_unlabelled,
    list_ct_channels,
    normalisation_problems,
    read_fingerprint,
)
from tests.quick_nnunet import quick_nnunet

NAME = "Dataset711_Tiny"
IGNORE = 2
STROKE = slice(10, 20)
INTENSITIES = "foreground_intensity_properties_per_channel"


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Iterator[Path]:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")  # nnU-Net plans with as many threads
    with quick_nnunet():
        yield tmp_path


def write_raw(folder: Path, channel: str, image: np.ndarray, around: int = IGNORE) -> None:
    """Two equal cases of 32 x 32; a stroke of background and one of the organ, of ten pixels each.

    Args:
        around: the label of pixels that are 0 in the image.
    """
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    label = np.full(image.shape, IGNORE, np.uint8)
    label[image == 0] = around
    label[:, 12, STROKE], label[:, 16, STROKE] = 0, 1
    for case in ("a", "b"):
        sitk.WriteImage(sitk.GetImageFromArray(image.astype(np.float32)), folder / f"imagesTr/{case}_0000.nii.gz")
        sitk.WriteImage(sitk.GetImageFromArray(label), folder / f"labelsTr/{case}.nii.gz")
    description = {
        "channel_names": {"0": channel},
        "labels": {"background": 0, "organ": 1, "ignore": IGNORE},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))


def ct() -> np.ndarray:
    """Air of -1000 HU; where the organ is drawn, 100 and 120 HU in turn."""
    image = np.full((4, 32, 32), -1000.0)
    image[:, 16, STROKE] = [100, 120] * 5
    return image


def masked() -> np.ndarray:
    """Noise in a disk of 20 pixels, 0 around it."""
    rows, columns = np.mgrid[:32, :32] - 15.5
    image = np.random.default_rng(0).normal(5, 1, (4, 32, 32))
    image[:, np.hypot(rows, columns) > 10] = 0
    return image


def extract(clean: bool = False) -> dict:
    """What `nnUNetv2_plan_and_preprocess` does first; it leaves alone what is there."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprint_dataset

    return extract_fingerprint_dataset(711, num_processes=1, clean=clean, show_progress_bar=False)


def plan() -> dict:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset

    return plan_experiment_dataset(711)[0]


def run(*arguments: str):
    return CliRunner().invoke(app, ["fingerprint", *arguments, "--workers", "1"])


def test_ct_is_scaled_by_what_was_drawn(folders):
    write_raw(folders / "nnUNet_raw" / NAME, "CT", ct())
    (finding,) = [found for found in check_dataset("711") if found.found == "is not planned yet"]
    assert (finding.status, finding.advice.split(" &&")[0]) == (NOTE, "attenscribble fingerprint 711")
    stock = extract()["foreground_intensity_properties_per_channel"]
    assert min(channel["min"] for channel in stock.values()) == -1000  # unlabelled air

    result = run("711")
    assert result.exit_code == 0, result.output
    kept = extract()["foreground_intensity_properties_per_channel"]["0"]
    assert {key: kept[key] for key in ("min", "max", "percentile_00_5", "percentile_99_5")} == {
        "min": 100,
        "max": 120,
        "percentile_00_5": 100,
        "percentile_99_5": 120,
    }
    assert kept["mean"] == pytest.approx(110, abs=0.5)  # sampled
    assert kept["std"] == pytest.approx(10, abs=0.1)
    assert read_fingerprint(folders / "nnUNet_preprocessed" / NAME)[MARK]["foreground"] == "drawn"


def normalised(folders: Path, label: bool) -> np.ndarray:
    """Case a behind nnU-Net's preprocessing, as in training (with its label) or as in prediction."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    raw, target = folders / "nnUNet_raw" / NAME, folders / "nnUNet_preprocessed" / NAME
    plans = PlansManager(str(target / "nnUNetPlans.json"))
    configuration = plans.get_configuration("2d")
    data, _, _ = configuration.preprocessor_class(verbose=False).run_case(
        [str(raw / "imagesTr/a_0000.nii.gz")],
        str(raw / "labelsTr/a.nii.gz") if label else None,
        plans,
        configuration,
        json.loads((raw / "dataset.json").read_text()),
    )
    return data


def test_images_with_zeros_around_are_normalised_alike_in_training_and_prediction(folders):
    write_raw(folders / "nnUNet_raw" / NAME, "MRI", masked())
    measured = extract()["median_relative_size_after_cropping"]
    assert plan()["configurations"]["2d"]["use_mask_for_norm"] == [True]
    assert np.abs(normalised(folders, True) - normalised(folders, False)).max() > 0.3
    (finding,) = [found for found in check_dataset("711") if found.status == PROBLEM]
    assert "normalised within" in finding.found
    assert finding.advice.startswith("attenscribble fingerprint 711, then plan")

    result = run(NAME)
    assert result.exit_code == 0, result.output
    assert "39 % of the images" in result.output
    assert "nnUNetPlans.json" in result.output
    assert extract()[MARK]["median_relative_size_after_cropping"] == pytest.approx(measured)
    assert plan()["configurations"]["2d"]["use_mask_for_norm"] == [False]
    np.testing.assert_array_equal(normalised(folders, True), normalised(folders, False))
    assert not [found for found in check_dataset("711") if found.status == PROBLEM]


def test_zeros_that_are_labelled_as_background_are_in_order(folders):
    write_raw(folders / "nnUNet_raw" / NAME, "MRI", masked(), around=0)
    extract()
    assert plan()["configurations"]["2d"]["use_mask_for_norm"] == [True]
    assert not [found for found in check_dataset("711") if found.status == PROBLEM]


@pytest.mark.parametrize(
    ("configuration", "scaled", "zeros", "problems"),
    [
        ({"use_mask_for_norm": [False]}, True, True, 1),
        ({"use_mask_for_norm": [False, True]}, True, True, 2),
        ({"use_mask_for_norm": [True]}, False, False, 0),
        ({}, False, True, 0),
    ],
)
def test_what_is_wrong_is_told(configuration, scaled, zeros, problems):
    found = normalisation_problems(configuration, scaled_by_unlabelled=scaled, unlabelled_zeros=zeros)
    assert len(found) == problems


def test_ct_is_judged_by_its_values(monkeypatch):
    """Of 2 x 8 voxels all are unlabelled but four of a class, whose intensities are 2 higher and half as wide."""
    labels = np.full((2, 8), IGNORE)
    labels[:, 2:4] = 1
    spread = np.tile([-1.0, 1.0], 8).reshape(2, 8)
    right = np.where(labels == 1, spread, 4 * spread - 4)  # by the class: its mean is 0 and its deviation 1
    every = right[labels > 0]
    wrong = (right - every.mean()) / every.std()
    assert not is_scaled_by_unlabelled([(right[None], labels)], [0], IGNORE)
    assert is_scaled_by_unlabelled([(wrong[None], labels)], [0], IGNORE)
    with monkeypatch.context() as few:  # voxels of the foreground: every third
        few.setattr(normalisation, "_SAMPLE", 6)
        assert not is_scaled_by_unlabelled([(right[None], labels)], [0], IGNORE)
        assert is_scaled_by_unlabelled([(wrong[None], labels)], [0], IGNORE)
    # The channel that is asked for; and a case without strokes tells nothing.
    both = np.stack([right, wrong])
    assert not is_scaled_by_unlabelled([(both, labels)], [0], IGNORE)
    assert is_scaled_by_unlabelled([(both, np.full_like(labels, IGNORE)), (both, labels)], [0, 1], IGNORE)
    assert not is_scaled_by_unlabelled([(both, np.full_like(labels, IGNORE))], [0, 1], IGNORE)
    assert list_ct_channels({"normalization_schemes": ["ZScoreNormalization", "CTNormalization"]}) == [1]
    assert list_ct_channels({}) == []


def test_a_disk_that_is_full_leaves_the_fingerprint_of_before(folders, monkeypatch):
    """ITK says nothing of what it could not write; and nnU-Net removes what it could not write whole."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    write_raw(folders / "nnUNet_raw" / NAME, "CT", ct())
    extract()
    file = folders / "nnUNet_preprocessed" / NAME / FINGERPRINT
    before, write = file.read_bytes(), SimpleITKIO.write_seg

    def write_half(reader, labels, name, properties):
        write(reader, labels, name, properties)
        whole = Path(name).read_bytes()
        Path(name).write_bytes(whole[: len(whole) // 2])

    monkeypatch.setattr(SimpleITKIO, "write_seg", write_half)
    result = run("711")
    assert "a.nii.gz was not written completely: is the disk full?" in str(result.exception)
    monkeypatch.setattr(SimpleITKIO, "write_seg", write)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", fail)
    assert str(run("711").exception) == f"{file}: cannot be written (No space left on device)"
    assert file.read_bytes() == before
    assert [entry.name for entry in file.parent.iterdir()] == [FINGERPRINT]


def told_of_ct() -> list[str]:
    return [found.advice for found in check_dataset("711") if "CT is clipped" in found.found]


def test_plans_are_judged_as_they_are_whatever_became_of_the_fingerprint(folders):
    """Also plans of other names, moved ones, and those of an nnU-Net that leaves `ignore` out of the foreground."""
    write_raw(folders / "nnUNet_raw" / NAME, "CT", ct())
    place = folders / "nnUNet_preprocessed" / NAME
    stock = extract()
    plan()
    (place / "nnUNetPlans.json").rename(place / "mine.json")
    (advice,) = told_of_ct()
    assert advice.startswith("attenscribble fingerprint 711, then plan and preprocess again")
    result = run("711")
    assert "Plans of before (mine.json)" in result.output
    (advice,) = told_of_ct()  # they are as wrong as before
    assert advice == "plan and preprocess again (nnUNetv2_plan_and_preprocess -d 711)"
    plans = json.loads((place / "mine.json").read_text())
    drawn = read_fingerprint(place)
    plans[INTENSITIES] = drawn[INTENSITIES]
    (place / "mine.json").write_text(json.dumps(plans))
    assert told_of_ct() == []
    # As nnU-Net's pull request 3068 will write it: the drawn classes alone, and no mark of ours.
    (place / FINGERPRINT).write_text(json.dumps({key: value for key, value in drawn.items() if key != MARK}))
    assert told_of_ct() == []
    # Plans that were moved from the dense twin, whose organ is a little wider and brighter than its strokes.
    plans[INTENSITIES]["0"] |= {"mean": 115.0, "std": 12.0, "percentile_00_5": 90.0, "percentile_99_5": 135.0}
    (place / "mine.json").write_text(json.dumps(plans))
    assert told_of_ct() == []
    plans[INTENSITIES] = json.loads(json.dumps(stock[INTENSITIES]))
    (place / "mine.json").write_text(json.dumps(plans))
    assert len(told_of_ct()) == 1


def test_dense_labels_and_labels_without_a_class_are_refused(folders):
    raw = folders / "nnUNet_raw" / NAME
    write_raw(raw, "CT", ct())
    for label in (raw / "labelsTr").iterdir():
        image = sitk.ReadImage(label)
        sitk.WriteImage(sitk.ChangeLabel(image, {1: IGNORE}), label)
    result = run("711")
    assert "no case has a stroke of any class but background" in str(result.exception)
    description = json.loads((raw / "dataset.json").read_text())
    description["labels"]["ignore"] = 255
    (raw / "dataset.json").write_text(json.dumps(description))
    told = f"dataset.json: `ignore` is 255: set it to {IGNORE}, one more than the highest label, in dataset.json and in"
    assert told in str(run("711").exception)
    del description["labels"]["ignore"]
    (raw / "dataset.json").write_text(json.dumps(description))
    assert "its labels are dense" in str(run("711").exception)
    assert not list((folders / "nnUNet_preprocessed").rglob("*.json"))


def test_scaled_and_truncated_labels_are_told_at_once_before_nnunet_cuts_them(folders):
    """1.0039 and 1.9922 would both become 1."""
    write_raw(folders / "nnUNet_raw" / NAME, "MRI", masked())
    file = folders / "nnUNet_raw" / NAME / "labelsTr" / "a.nii.gz"
    loaded = nibabel.load(file)
    voxels = loaded.get_fdata()
    voxels[0, 0, 0] = 4  # of 255 levels
    nibabel.save(nibabel.Nifti1Image(voxels, loaded.affine, loaded.header), file)
    other = file.with_name("b.nii.gz")
    other.write_bytes(other.read_bytes()[:-9])
    result = CliRunner().invoke(app, ["fingerprint", "711"])
    assert isinstance(result.exception, AttenScribbleError)
    scaled, truncated = result.exception.problems
    assert "its header scales values by 0.0156863 (scl_slope)" in scaled
    assert f"{other}: is truncated or corrupt" in truncated
    assert not (folders / "nnUNet_preprocessed" / NAME).exists()


@pytest.mark.parametrize("case", ["/elsewhere/a", "../a", "..", ""])
def test_a_case_that_is_no_file_name_is_refused(folders, case):
    """nnU-Net takes the keys of `dataset` as they are, and files are written by their names."""
    raw = folders / "nnUNet_raw" / NAME
    write_raw(raw, "MRI", masked())
    own = {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}
    described = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps(described | {"dataset": {case: own}}))
    for command in ("fingerprint", "inspect"):
        result = CliRunner().invoke(app, [command, "711"])
        assert "each CASE a file name" in str(result.exception)


def test_the_commands_that_come_next_begin_with_the_fingerprint_of_ct(tmp_path):
    for name, expected in (("MRI", 1), ("ct", 2), ("CT", 2)):
        (tmp_path / NAME).mkdir(exist_ok=True)
        described = {"channel_names": {"0": name}, "labels": {"background": 0, "a": 1, "ignore": 2}}
        described["file_ending"] = ".nii.gz"
        (tmp_path / NAME / "dataset.json").write_text(json.dumps(described))
        commands = planning_commands(tmp_path / NAME, tmp_path / "Dataset712_Twin")
        assert commands[-1] == "nnUNetv2_plan_and_preprocess -d 711 712 -c 2d --verify_dataset_integrity"
        assert [command.partition("    ")[0] for command in commands[:-1]] == ["attenscribble fingerprint 711"] * (
            expected - 1
        )
