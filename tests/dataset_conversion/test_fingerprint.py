"""nnU-Net's normalisation of scribble datasets, with its own fingerprint and with that of what was drawn."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.cli.doctor.command import NOTE, PROBLEM
from nnunet_attenscribble.cli.doctor.datasets import check_dataset
from nnunet_attenscribble.cli.inspect import planning_commands
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.normalisation import MARK, normalisation_problems, read_fingerprint

NAME = "Dataset711_Tiny"
IGNORE = 2
STROKE = slice(10, 20)


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")  # nnU-Net plans with as many threads
    return tmp_path


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


INTENSITIES = "foreground_intensity_properties_per_channel"
OWN, OTHER = {INTENSITIES: {"0": {"mean": 1.0}}}, {INTENSITIES: {"0": {"mean": 2.0}}}
SCHEME = {"normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False]}


@pytest.mark.parametrize(
    ("plans", "configuration", "fingerprint", "problems"),
    [
        (OWN, SCHEME, OWN, 1),
        (OWN, SCHEME, {**OWN, MARK: {}}, 0),
        (OTHER, SCHEME, OWN, 0),  # plans that were moved here, of dense labels perhaps
        (OWN, SCHEME, None, 0),
        (OWN, {**SCHEME, "normalization_schemes": ["ZScoreNormalization"]}, OWN, 0),
        (OWN, {**SCHEME, "use_mask_for_norm": [False, True]}, OWN, 2),
        (OWN, {}, OWN, 0),
    ],
)
def test_what_is_wrong_is_told(plans, configuration, fingerprint, problems):
    assert len(normalisation_problems(plans, configuration, fingerprint)) == problems


def test_dense_labels_and_labels_without_a_class_are_refused(folders):
    raw = folders / "nnUNet_raw" / NAME
    write_raw(raw, "CT", ct())
    for label in (raw / "labelsTr").iterdir():
        image = sitk.ReadImage(label)
        sitk.WriteImage(sitk.ChangeLabel(image, {1: IGNORE}), label)
    result = run("711")
    assert "no case has a stroke of any class but background" in str(result.exception)
    description = json.loads((raw / "dataset.json").read_text())
    del description["labels"]["ignore"]
    (raw / "dataset.json").write_text(json.dumps(description))
    assert "its labels are dense" in str(run("711").exception)
    assert not list((folders / "nnUNet_preprocessed").rglob("*.json"))


def test_scaled_and_truncated_labels_are_told_before_nnunet_cuts_them(folders):
    """1.0039 and 1.9922 would both become 1."""
    write_raw(folders / "nnUNet_raw" / NAME, "MRI", masked())
    file = folders / "nnUNet_raw" / NAME / "labelsTr" / "a.nii.gz"
    loaded = nibabel.load(file)
    voxels = loaded.get_fdata()
    voxels[0, 0, 0] = 4  # of 255 levels
    nibabel.save(nibabel.Nifti1Image(voxels, loaded.affine, loaded.header), file)
    result = CliRunner().invoke(app, ["fingerprint", "711"])
    assert isinstance(result.exception, AttenScribbleError)
    assert "its header scales values by 0.0156863 (scl_slope)" in str(result.exception)
    file.write_bytes(file.read_bytes()[:-9])
    result = CliRunner().invoke(app, ["fingerprint", "711"])
    assert f"{file}: is truncated or corrupt" in str(result.exception)
    assert not (folders / "nnUNet_preprocessed" / NAME).exists()


def test_the_commands_that_come_next_begin_with_the_fingerprint_of_ct(tmp_path):
    for name, expected in (("MRI", 1), ("ct", 2), ("CT", 2)):
        (tmp_path / NAME).mkdir(exist_ok=True)
        (tmp_path / NAME / "dataset.json").write_text(json.dumps({"channel_names": {"0": name}}))
        commands = planning_commands(tmp_path / NAME, "711 712", "-c 2d ")
        assert commands[-1] == "nnUNetv2_plan_and_preprocess -d 711 712 -c 2d --verify_dataset_integrity"
        assert [command.partition("    ")[0] for command in commands[:-1]] == ["attenscribble fingerprint 711"] * (
            expected - 1
        )
