"""CHAOS from made-up DICOM series and from the real patient."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from nnunet_attenscribble.dataset_conversion.chaos import convert_chaos
from nnunet_attenscribble.dataset_conversion.meanings import PRESETS
from nnunet_attenscribble.errors import AttenScribbleError
from tests.dataset_conversion.downloads import STEP, organ_strokes, organs, with_writing, write_chaos
from tests.tiny import DIRECTION, ORIGIN, SPACING, make_scan


@pytest.fixture
def convert(tmp_path):
    defaults = {"raw_folder": tmp_path / "raw", "dataset_id": 521, "workers": 1}
    return lambda folder, scribbles, **options: convert_chaos(
        folder, scribbles, **with_writing(**{**defaults, **options})
    )


def _read(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(file))


def test_scribbles_images_and_dense_labels_share_the_geometry_of_the_slices(tmp_path, convert):
    written = convert(*write_chaos(tmp_path))
    assert (written.scribble.name, written.dense.name) == ("Dataset521_CHAOST1IN", "Dataset522_CHAOST1INDense")
    for patient in (1, 2, 3):
        case = f"chaos{patient:02d}_t1in"
        image = written.scribble / "imagesTr" / f"{case}_0000.nii.gz"
        labels = [folder / "labelsTr" / f"{case}.nii.gz" for folder in (written.scribble, written.dense)]
        np.testing.assert_array_equal(_read(image), sitk.GetArrayFromImage(make_scan(10 * patient)))
        np.testing.assert_array_equal(_read(labels[1]), organs(patient))
        strokes = organ_strokes(patient)
        np.testing.assert_array_equal(_read(labels[0]), np.array([5, 1, 2, 3, 4, 0])[strokes])
        for file in (image, *labels):
            grid = sitk.ReadImage(file)
            np.testing.assert_allclose(grid.GetSpacing(), (*SPACING[:2], STEP), rtol=1e-7)
            np.testing.assert_allclose(grid.GetOrigin(), ORIGIN, atol=1e-5)
            np.testing.assert_allclose(grid.GetDirection(), DIRECTION, atol=1e-6)
    assert json.loads((written.scribble / "dataset.json").read_text())["labels"]["ignore"] == 5
    assert [len(fold["val"]) for fold in json.loads((written.scribble / "splits_final.json").read_text())] == [1, 1, 1]
    inputs = json.loads((written.scribble / "provenance.json").read_text())["inputs"]["chaos01_t1in"]
    assert [entry["file"] for entry in inputs["scribble"]] == ["patient1_t1_scb.nii.gz"]
    assert len(inputs["further"]) == 8  # four slices, four pictures


def test_the_folder_of_a_single_patient_is_enough_from_within_too(tmp_path, convert, monkeypatch):
    folder, _ = write_chaos(tmp_path, (1,))
    monkeypatch.chdir(folder / "1" / "T1DUAL")
    written = convert(Path(), None)
    assert [file.name for file in (written.dense / "labelsTr").iterdir()] == ["chaos01_t1in.nii.gz"]


def test_sequences(tmp_path, convert):
    folder, scribbles = write_chaos(tmp_path, (1, 2))
    out = convert(folder, scribbles, sequence="t1-out", dataset_id=531)
    channels = convert(folder, scribbles, sequence="t1", dataset_id=541)
    both = convert(folder, scribbles, sequence="t1-both", dataset_id=551)
    assert json.loads((channels.scribble / "dataset.json").read_text())["channel_names"] == {"0": "T1in", "1": "T1out"}
    assert both.training == 4
    for written, case, channel, seed in (
        (out, "chaos02_t1out", 0, 21),
        (channels, "chaos02_t1", 0, 20),
        (channels, "chaos02_t1", 1, 21),
        (both, "chaos02_t1in", 0, 20),
        (both, "chaos02_t1out", 0, 21),
    ):
        image = written.scribble / "imagesTr" / f"{case}_{channel:04d}.nii.gz"
        np.testing.assert_array_equal(_read(image), sitk.GetArrayFromImage(make_scan(seed)))
        np.testing.assert_array_equal(_read(written.dense / "labelsTr" / f"{case}.nii.gz"), organs(2))
    folds = json.loads((both.scribble / "splits_final.json").read_text())
    assert folds[0] == {"train": ["chaos02_t1in", "chaos02_t1out"], "val": ["chaos01_t1in", "chaos01_t1out"]}


def test_t2(tmp_path, convert):
    written = convert(*write_chaos(tmp_path, (1, 2), t2=True), sequence="t2")
    assert written.scribble.name == "Dataset521_CHAOST2"
    np.testing.assert_array_equal(_read(written.dense / "labelsTr" / "chaos02_t2.nii.gz"), organs(2))


def test_without_scribbles_the_dense_labels_are_written_alone(tmp_path, convert):
    folder, _ = write_chaos(tmp_path, (1,))
    written = convert(folder / "1", None)  # the folder of a single patient
    assert (written.scribble, written.dense) == (None, tmp_path / "raw" / "Dataset521_CHAOST1IN")
    assert "ignore" not in json.loads((written.dense / "dataset.json").read_text())["labels"]
    assert written.notes == ("one patient makes no folds: train with `all` in place of nnU-Net's fold number",)
    assert [entry.name for entry in (tmp_path / "raw").iterdir()] == ["Dataset521_CHAOST1IN"]


@pytest.mark.parametrize(
    ("split", "validated"), [("pacingpseudo", [36, 33, 15, 20, 31]), ("attenscribble", [8, 15, 36])]
)
def test_splits_of_the_papers(tmp_path, convert, split, validated):
    folder, scribbles = write_chaos(tmp_path, sorted({*validated, 8}))
    folds = json.loads((convert(folder, scribbles, split=split).scribble / "splits_final.json").read_text())
    for patient, fold in zip(validated, folds, strict=True):
        assert f"chaos{patient:02d}_t1in" in fold["val"]
        assert f"chaos{patient:02d}_t1in" not in fold["train"]


def test_the_coding_of_acdc_is_found_out(tmp_path, convert):
    with pytest.raises(
        AttenScribbleError, match=r"8\d % of its voxels would be background strokes .* swapped"
    ) as caught:
        convert(*write_chaos(tmp_path), coding=PRESETS["acdc"])
    assert len(caught.value.problems) == 3


def test_the_real_patient(shared_folder, convert):
    folder = shared_folder / "data" / "CHAOS" / "Train_Sets"
    if not folder.is_dir():
        pytest.skip("needs CHAOS in ../shared/data")
    written = convert(folder, None, sequence="t1")
    place = folder / "MR" / "10" / "T1DUAL"
    label = sitk.ReadImage(written.dense / "labelsTr" / "chaos10_t1.nii.gz")
    assert label.GetSpacing() == (1.89453125, 1.89453125, 5.5)
    for channel, phase in enumerate(("InPhase", "OutPhase")):
        image = sitk.ReadImage(written.dense / "imagesTr" / f"chaos10_t1_{channel:04d}.nii.gz")
        assert image.GetSize() == label.GetSize() == (256, 256, 50)
        assert image.GetOrigin() == label.GetOrigin()
        for file in (place / "DICOM_anon" / phase).iterdir():
            header = pydicom.dcmread(file)
            index = image.TransformPhysicalPointToIndex([float(value) for value in header.ImagePositionPatient])
            assert index[:2] == (0, 0)
            np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image)[index[2]], header.pixel_array)
            if channel == 0:
                grey = sitk.GetArrayFromImage(sitk.ReadImage(place / "Ground" / f"{file.stem}.png"))
                np.testing.assert_array_equal(sitk.GetArrayViewFromImage(label)[index[2]], grey // 63)
