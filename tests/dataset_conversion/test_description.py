"""Datasets that nnU-Net reads by another reader than SimpleITKIO, seen by every command as nnU-Net sees them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from PIL import Image
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.cli.doctor_datasets import check_dataset
from nnunet_attenscribble.dataset_conversion.description import find_cases, read_description
from nnunet_attenscribble.dataset_conversion.inspection import inspect_dataset
from nnunet_attenscribble.errors import AttenScribbleError
from tests.quick_nnunet import verify

SHEARED = np.array([[1.0, 0.3, 0, 5], [0, 1.2, 0, 6], [0, 0, 8, 7], [0, 0, 0, 1]])
TURNED = np.array([[0, -1.5, 0, 5], [1.0, 0, 0, 6], [0, 0, 8, 7], [0, 0, 0, 1]])


def write_dataset(raw: Path, affine: np.ndarray, *, scribbled: bool = False, ending: str = ".nii.gz", **keys) -> Path:
    """Dataset010_P: a block in three slices of 20 x 24, two cases."""
    folder = raw / "Dataset010_P"
    labels = {"background": 0, "A": 1, **({"ignore": 2} if scribbled else {})}
    block = np.zeros((24, 20, 3), np.uint8)  # x, y, z
    block[6:18, 5:14] = 1
    drawn = np.full_like(block, 2)
    drawn[2, 2:18], drawn[8:16, 9] = 0, 1
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case in range(2):
        image = (np.random.default_rng(case).normal(100, 10, block.shape) + 60 * block).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / "imagesTr" / f"c{case}_0000{ending}")
        label = drawn if scribbled else block
        nibabel.save(nibabel.Nifti1Image(label, affine), folder / "labelsTr" / f"c{case}{ending}")
    description = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 2, "file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(description | keys))
    return folder


@pytest.fixture
def raw(tmp_path, monkeypatch) -> Path:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path / "nnUNet_raw"


def scribble() -> str:
    result = CliRunner().invoke(app, ["scribble", "10", "-o", "11", "--workers", "1"], catch_exceptions=False)
    return result.output


@pytest.mark.parametrize(
    ("affine", "ending", "keys", "reader", "linked"),
    [
        (SHEARED, ".nii.gz", {"overwrite_image_reader_writer": "NibabelIO"}, "NibabelIO", True),
        (SHEARED, ".nii.gz", {}, "NibabelIO", True),  # which nnU-Net takes where SimpleITK fails
        (SHEARED, ".nii", {}, "NibabelIO", False),
        (SHEARED, ".nii.gz", {"overwrite_image_reader_writer": "NibabelIOWithReorient"}, "NibabelIOWithReorient", True),
        (TURNED, ".nii.gz", {"overwrite_image_reader_writer": "NibabelIOWithReorient"}, "NibabelIOWithReorient", True),
        (TURNED, ".nii.gz", {}, "SimpleITKIO", True),
    ],
)
def test_scribbles_lie_where_nnunet_reads_the_images(raw, affine, ending, keys, reader, linked):
    source = write_dataset(raw, affine, ending=ending, **keys)
    assert f"the images are {'links to' if linked else 'copies of those of'} Dataset010_P" in scribble()
    written = raw / "Dataset011_PScribble"
    assert json.loads((written / "dataset.json").read_text())["overwrite_image_reader_writer"] == reader
    verify(written)
    opened = recursive_find_reader_writer_by_name(reader)()
    for case in ("c0", "c1"):
        pixels, frame = opened.read_images([str(written / "imagesTr" / f"{case}_0000.nii.gz")])
        drawn, own = opened.read_seg(str(written / "labelsTr" / f"{case}.nii.gz"))
        dense, _ = opened.read_seg(str(source / "labelsTr" / f"{case}{ending}"))
        assert drawn.shape == pixels.shape == dense.shape
        assert set(np.unique(drawn)) == {0, 1, 2}
        assert (drawn == dense)[drawn != 2].all()
        np.testing.assert_allclose(own["spacing"], frame["spacing"], rtol=1e-5)
        files = (source / "imagesTr" / f"{case}_0000{ending}", written / "labelsTr" / f"{case}.nii.gz")
        if "WithReorient" not in reader:
            np.testing.assert_allclose(*(nibabel.load(file).affine for file in files), atol=1e-4)


@pytest.mark.parametrize("keys", [{}, {"overwrite_image_reader_writer": "NibabelIO"}])
def test_sheared_axes_are_no_fault_of_a_dataset_that_nnunet_reads(raw, keys):
    source = write_dataset(raw, SHEARED, scribbled=True, **keys)
    found = inspect_dataset(source, workers=1)
    assert found.cases["c0"].classes["A"].scribbled == 8 * 3
    assert found.cases["c0"].size == (24, 20, 3)
    np.testing.assert_allclose(found.cases["c0"].spacing, (1, np.hypot(0.3, 1.2), 8), rtol=1e-5)
    told = [finding.found for finding in check_dataset("10")]
    assert "every class has strokes, 5 % of the voxels are annotated" in told  # 8 + 16 of 480
    assert all(
        isinstance(label.reader, type(NibabelIO)) for _, label in find_cases(source, read_description(source)).values()
    )


def test_what_no_reader_of_the_dataset_opens_is_told(raw):
    """SimpleITKIO, by name, for sheared axes: nnU-Net could not train on it."""
    write_dataset(raw, SHEARED, scribbled=True, overwrite_image_reader_writer="SimpleITKIO")
    with pytest.raises(AttenScribbleError, match="its axes are not at right angles, which SimpleITK refuses"):
        inspect_dataset(raw / "Dataset010_P", workers=1)
    assert any("not at right angles" in finding.found for finding in check_dataset("10"))


def test_nnunet_pairs_voxels_as_they_are_stored(raw):
    """A label that was brought to RAS lies on its image, and nnU-Net would train on it mirrored."""
    source = write_dataset(raw, np.diag([-1.5, -1.5, 8, 1]), scribbled=True)
    file = source / "labelsTr" / "c0.nii.gz"
    sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(file)), "RAS"), str(file))
    with pytest.raises(AttenScribbleError) as caught:
        inspect_dataset(source, workers=1)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{file}: its voxels are stored in another order than those of ")
    description = json.loads((source / "dataset.json").read_text())
    description["overwrite_image_reader_writer"] = "NibabelIOWithReorient"  # brings both to RAS
    (source / "dataset.json").write_text(json.dumps(description))
    assert inspect_dataset(source, workers=1).cases["c0"].classes["A"].scribbled == 8 * 3


def test_a_folder_of_dense_labels_may_be_stored_in_another_order(raw, tmp_path):
    source = write_dataset(raw, np.diag([-1.5, -1.5, 8, 1]), scribbled=True)
    before = sitk.ReadImage(str(source / "labelsTr" / "c0.nii.gz"))
    dense = sitk.GetImageFromArray(np.where(sitk.GetArrayFromImage(before) == 1, 1, 0).astype(np.uint8))
    dense.CopyInformation(before)
    (tmp_path / "dense").mkdir()
    for case in ("c0", "c1"):
        sitk.WriteImage(sitk.DICOMOrient(dense, "RAI"), str(tmp_path / "dense" / f"{case}.nii.gz"))
    coverage = inspect_dataset(source, tmp_path / "dense", workers=1).cases["c0"].classes["A"]
    assert (coverage.scribbled, coverage.voxels, coverage.wrong) == (24, 24, 0)
    sheet = tmp_path / "sheet.png"
    result = CliRunner().invoke(
        app, ["inspect", "10", "--dense", str(tmp_path / "dense"), "-o", str(sheet), "--workers", "1"]
    )
    assert result.exit_code == 0, result.output
    assert sheet.is_file()


def test_nifti2_under_simpleitkio_is_told(raw):
    source = write_dataset(raw, TURNED, overwrite_image_reader_writer="SimpleITKIO")
    file = source / "labelsTr" / "c1.nii.gz"
    loaded = nibabel.load(file)
    nibabel.save(nibabel.Nifti2Image(np.asarray(loaded.dataobj), loaded.affine), file)
    for command in (lambda: inspect_dataset(source, workers=1), scribble):
        with pytest.raises(AttenScribbleError, match=r"c1\.nii\.gz: is NIfTI-2, which nnU-Net's SimpleITKIO does not"):
            command()


@pytest.mark.parametrize("bits", [1, 8])
def test_masks_of_one_bit(raw, bits):
    folder = raw / "Dataset010_P"
    mask = np.zeros((64, 60), bool)
    mask[20:44, 18:40] = True
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case in range(2):
        grey = np.random.default_rng(case).normal(90, 10, mask.shape) + 60 * mask
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / "imagesTr" / f"c{case}_0000.png")
        Image.fromarray(mask if bits == 1 else mask.astype(np.uint8)).save(folder / "labelsTr" / f"c{case}.png")
    description = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "A": 1}, "numTraining": 2}
    (folder / "dataset.json").write_text(json.dumps(description | {"file_ending": ".png"}))
    output = scribble()
    drawn = sitk.GetArrayFromImage(sitk.ReadImage(str(raw / "Dataset011_PScribble" / "labelsTr" / "c0.nii.gz")))
    assert set(np.unique(drawn)) == {0, 1, 2}
    assert mask[drawn == 1].all()
    assert not mask[drawn == 0].any()
    assert "state no spacing: 1 mm was taken, as nnU-Net does" in output
    assert inspect_dataset(folder, workers=1).cases["c0"].classes["A"].scribbled == mask.sum()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({}, ["has no label background that is 0", "names no class but the background"]),
        ({"background": 0}, ["names no class but the background"]),
        ({"background": 0, "ignore": 1}, ["names no class but the background"]),
        ({"A": 1}, ["has no label background that is 0"]),
        ({"background": 1, "A": 2}, ["has no label background that is 0"]),
        ({"background": 0, "A": 1, "Ignore": 2}, ["the label 'Ignore' is a class like others to nnU-Net: call it"]),
    ],
)
def test_labels_that_nnunet_would_refuse(raw, labels, told):
    source = write_dataset(raw, TURNED, labels=labels)
    for command in (lambda: read_description(source), lambda: inspect_dataset(source, workers=1), scribble):
        with pytest.raises(AttenScribbleError) as caught:
            command()
        assert len(caught.value.problems) == len(told)
        assert all(
            problem.startswith(f"{source / 'dataset.json'}: {what}")
            for problem, what in zip(caught.value.problems, told, strict=True)
        )
