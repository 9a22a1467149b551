"""Small folders of predictions and dense labels."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

LABELS = {"background": 0, "RV": 1, "MYO": 2, "ignore": 3}


@pytest.fixture
def write_labels():
    """write_labels(file, array in (z, y, x), spacing in (x, y, z))."""

    def write(file, labels, spacing=(1.0, 2.0, 10.0), origin=None):
        image = sitk.GetImageFromArray(np.asarray(labels))
        image.SetSpacing(spacing[: image.GetDimension()])
        if origin is not None:
            image.SetOrigin(origin)
        file.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(file))

    return write


@pytest.fixture
def write_dataset_json():
    def write(folder, labels=None, file_ending=".nii.gz"):
        folder.mkdir(parents=True, exist_ok=True)
        content = {"labels": LABELS if labels is None else labels, "file_ending": file_ending}
        (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")

    return write


@pytest.fixture
def two_slabs():
    """Labels (4, 6, 8): RV in z 0-1, MYO in z 2-3, over y 1-4 and x 2-5."""
    labels = np.zeros((4, 6, 8), np.uint8)
    labels[:2, 1:5, 2:6] = 1
    labels[2:, 1:5, 2:6] = 2
    return labels


@pytest.fixture
def folders(tmp_path, write_labels, write_dataset_json, two_slabs):
    """Predictions and dense labels of the cases a, b, c; in `predictions` the RV lies one voxel further along x."""
    moved = two_slabs.copy()
    moved[:2] = np.roll(two_slabs[:2], 1, axis=2)
    for case in "abc":
        write_labels(tmp_path / "dense" / f"{case}.nii.gz", two_slabs)
        write_labels(tmp_path / "predictions" / f"{case}.nii.gz", moved)
    write_dataset_json(tmp_path / "predictions")
    return tmp_path / "predictions", tmp_path / "dense"
