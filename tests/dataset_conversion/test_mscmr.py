"""MSCMRseg in CycleMix's layout."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_attenscribble.dataset_conversion.mscmr import convert_mscmr
from nnunet_attenscribble.dataset_conversion.raw_dataset import Writing
from tests.dataset_conversion.downloads import write_mscmr
from tests.tiny import make_dense, make_strokes, make_volume


@pytest.fixture
def convert(tmp_path):
    return lambda folder, scribbles=None: convert_mscmr(
        folder, scribbles, dataset_id=531, writing=Writing(tmp_path / "raw", workers=1)
    )


def _names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_subjects_are_told_by_their_numbers(tmp_path, convert):
    written = convert(write_mscmr(tmp_path))
    assert (written.training, written.test, written.dense) == (3, 2, None)
    assert _names(written.scribble / "labelsTr") == ["subject02.nii.gz", "subject04.nii.gz", "subject06.nii.gz"]
    assert _names(written.scribble / "imagesTs") == ["subject01_0000.nii.gz", "subject03_0000.nii.gz"]
    for folder, file, values in (("labelsTr", "subject02", make_strokes()), ("labelsTs", "subject01", make_dense())):
        label = sitk.ReadImage(written.scribble / folder / f"{file}.nii.gz")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(label), values)
    assert json.loads((written.scribble / "provenance.json").read_text())["options"]["test"] == [3]
    assert len(json.loads((written.scribble / "splits_final.json").read_text())) == 3


def test_scribbles_elsewhere_and_the_dense_values_of_the_challenge(tmp_path, convert):
    folder = write_mscmr(tmp_path)
    moved = tmp_path / "MSCMR_scribbles"
    moved.mkdir()
    for file in folder.rglob("*_scribble.nii.gz"):
        shutil.move(file, moved)
    challenge = np.array([0, 600, 200, 500], np.int16)[make_dense()]
    for subject in (2, 4, 6):
        target = folder / "train" / "labels" / f"subject{subject}_DE_manual.nii.gz"
        sitk.WriteImage(make_volume(challenge, np.int16), target)
    written = convert(folder, moved)
    assert written.dense.name == "Dataset532_MSCMRDense"
    label = sitk.ReadImage(written.dense / "labelsTr" / "subject04.nii.gz")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), make_dense())


def test_the_real_subjects(shared_folder, convert):
    folder = shared_folder / "data" / "MSCMR"
    if not folder.is_dir():
        pytest.skip("needs MSCMR in ../shared/data")
    written = convert(folder)
    assert (written.training, written.test) == (1, 1)
    for new, old in (
        ("imagesTr/subject31_0000", "train/images/subject31_DE"),
        ("labelsTr/subject31", "train/labels/subject31_DE_scribble"),
        ("imagesTs/subject41_0000", "val/images/subject41_DE"),
        ("labelsTs/subject41", "val/labels/subject41_DE_manual"),
    ):
        one, other = (sitk.ReadImage(f / f"{n}.nii.gz") for f, n in ((written.scribble, new), (folder, old)))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(other))
        for part in ("Size", "Spacing", "Origin"):
            assert getattr(one, f"Get{part}")() == getattr(other, f"Get{part}")()
        # NIfTI stores an oblique direction as a float32 quaternion: no writer can do better.
        np.testing.assert_allclose(one.GetDirection(), other.GetDirection(), atol=2e-7, rtol=0)
