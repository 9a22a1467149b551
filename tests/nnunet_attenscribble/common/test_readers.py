"""Files of a dataset, seen as nnU-Net sees them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from PIL import Image

from nnunet_attenscribble.common import volumes
from nnunet_attenscribble.common.readers import (
    _OWN_ENDINGS,
    DatasetFile,
    find_reader,
    keeps_files,
    open_files,
    read_label,
    write_label,
)
from nnunet_attenscribble.common.volumes import label_values, read_image, read_volume, unscale_label
from nnunet_attenscribble.errors import AttenScribbleError

LABELS = np.random.default_rng(0).integers(0, 3, (3, 4, 5)).astype(np.uint8)  # z, y, x
SHEARED = np.array([[1.0, 0.3, 0, 5], [0, 1.2, 0, 6], [0, 0, 8, 7], [0, 0, 0, 1]])
TURNED = np.array([[0, -1.5, 0, 5], [1.0, 0, 0, 6], [0, 0, 8, 7], [0, 0, 0, 1]])


def write_nifti(file: Path, affine: np.ndarray, kind: type = nibabel.Nifti1Image, labels: np.ndarray = LABELS) -> Path:
    nibabel.save(kind(labels.transpose(), affine), file)
    return file


def write_picture(file: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(file)
    return file


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("SimpleITKIO", None),
        ("NibabelIO", NibabelIO),
        ("NibabelIOWithReorient", NibabelIOWithReorient),
        ("None", None),
        ("NoSuchIO", None),  # nnU-Net goes by the ending then
        (None, None),
    ],
)
def test_the_reader_is_the_one_that_nnunet_takes(tmp_path, named, expected):
    example = write_nifti(tmp_path / "a.nii.gz", TURNED)
    described = {"file_ending": ".nii.gz"} | ({} if named is None else {"overwrite_image_reader_writer": named})
    assert find_reader(described, example) is expected


def test_our_own_reading_is_for_the_files_of_simpleitkio():
    assert set(_OWN_ENDINGS) == set(SimpleITKIO.supported_file_endings)
    assert LIST_OF_IO_CLASSES.index(NaturalImage2DIO) == 0  # the only one that is tried before, and knows none of them
    assert LIST_OF_IO_CLASSES.index(SimpleITKIO) == 1
    assert not set(_OWN_ENDINGS) & set(NaturalImage2DIO.supported_file_endings)


def test_the_reader_depends_on_what_can_be_read(tmp_path, capfd):
    assert find_reader({"file_ending": ".nii.gz"}, write_nifti(tmp_path / "a.nii.gz", SHEARED)) is NibabelIO
    assert find_reader({"file_ending": ".nii"}, write_nifti(tmp_path / "a.nii", TURNED)) is NibabelIO
    for shape, expected in (((6, 7), NaturalImage2DIO), ((5, 6, 7), Tiff3DIO)):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint8))
        assert find_reader({"file_ending": ".tif"}, tmp_path / "a.tif") is expected
    (tmp_path / "a.png").write_bytes(b"hello")
    assert find_reader({"file_ending": ".png"}, tmp_path / "a.png") is NaturalImage2DIO
    for named in (5, ["NibabelIO"]):
        with pytest.raises(AttenScribbleError, match="its overwrite_image_reader_writer is"):
            find_reader({"file_ending": ".png", "overwrite_image_reader_writer": named}, tmp_path / "a.png")
    with pytest.raises(AttenScribbleError, match="no reader join for files"):
        find_reader({"file_ending": ".png", "overwrite_image_reader_writer": "join"}, tmp_path / "a.png")
    with pytest.raises(AttenScribbleError, match=r"no reader +for files that end in '\.xyz'"):
        find_reader({"file_ending": ".xyz"}, tmp_path / "a.xyz")
    assert capfd.readouterr() == ("", "")  # without nnU-Net's tracebacks of readers that it tried


@pytest.mark.parametrize("reader", [NibabelIO, NibabelIOWithReorient, SimpleITKIO])
@pytest.mark.parametrize("affine", [SHEARED, TURNED], ids=["sheared", "turned"])
def test_nifti_is_seen_as_nnunet_sees_it(tmp_path, reader, affine):
    if reader is SimpleITKIO and affine is SHEARED:
        pytest.skip("which SimpleITK refuses")
    file = write_nifti(tmp_path / "a.nii.gz", affine)
    expected, properties = reader().read_images([str(file)])
    (source,) = open_files([file], None if reader is SimpleITKIO else reader)
    image = read_volume(source, "a")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected[0])
    np.testing.assert_allclose(image.GetSpacing(), properties["spacing"][::-1], rtol=1e-6)
    # The first voxel's neighbours lie where the affine puts them, in SimpleITK's world.
    found = nibabel.load(file)
    seen = found.as_reoriented(nibabel.io_orientation(found.affine)) if reader is NibabelIOWithReorient else found
    for index in ((0, 0, 0), (2, 1, 1)):
        place = (seen.affine @ (*index, 1))[:3] * (-1, -1, 1)
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), place, atol=1e-5)


def test_truth_values_are_0_and_1(tmp_path):
    mask = LABELS[0] > 0
    for ending in (".png", ".bmp"):
        file = write_picture(tmp_path / f"a{ending}", mask)
        label = read_label(file, NaturalImage2DIO)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(label), mask)
    # A PNG without a dataset around it, too; one that holds 0 and 255 does so.
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(tmp_path / "a.png")), mask)
    file = write_picture(tmp_path / "b.png", mask.astype(np.uint8) * 255)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(file)), mask * 255)


def test_a_colour_picture_has_three_channels_or_four(tmp_path):
    for count in (3, 4):
        colours = np.random.default_rng(count).integers(0, 255, (4, 5, count)).astype(np.uint8)
        file = write_picture(tmp_path / "a.png", colours)
        sources = open_files([file], NaturalImage2DIO, channels=count)
        assert len(sources) == count
        for channel, source in enumerate(sources):
            image = read_volume(source, "a")
            assert (image.GetDimension(), image.GetSpacing(), image.GetPixelID()) == (2, (1, 1), sitk.sitkUInt8)
            np.testing.assert_array_equal(sitk.GetArrayFromImage(image), colours[..., channel])
    with pytest.raises(AttenScribbleError, match=r"a\.png: has several components.*one value per voxel"):
        read_label(file, NaturalImage2DIO)


def test_a_colour_picture_is_decoded_once_for_all_channels(tmp_path, monkeypatch):
    decoded = []
    for place, name in ((NaturalImage2DIO, "read_images"), (volumes, "read_image")):
        read = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *given, read=read: [decoded.append(given), read(*given)][1])
    for size in (4, 6):  # the file changes
        colours = np.random.default_rng(size).integers(0, 255, (size, 5, 3)).astype(np.uint8)
        file = write_picture(tmp_path / "a.png", colours)
        found = open_files([file], NaturalImage2DIO, channels=3)
        assert decoded == []  # to count them
        for sources in (found, [DatasetFile(file, None, channel, 3) for channel in range(3)]):
            images = [source() for source in sources]
            np.testing.assert_array_equal(np.stack([*map(sitk.GetArrayFromImage, images)], axis=-1), colours)
            images[0].SetSpacing((3, 3))
            assert sources[0]().GetSpacing() == (1, 1)
            assert len(decoded) == 1
            decoded.clear()


def test_a_tiff_has_the_spacing_that_nnunet_takes_or_is_refused(tmp_path):
    file, sidecar = tmp_path / "a_0000.tif", tmp_path / "a.json"
    stated = {"spacing": 3, "unit": "mm", "axes": "ZYX"}
    tifffile.imwrite(file, LABELS, imagej=True, resolution=(2, 2), metadata=stated)
    (source,) = open_files([file], Tiff3DIO)
    with pytest.raises(
        AttenScribbleError, match=r"nnU-Net takes \(1\.0, 1\.0, 1\.0\) mm: write .*\[3\.0, 0\.5, 0\.5\]"
    ):
        read_volume(source, "a")
    sidecar.write_text(json.dumps({"spacing": [3, 0.5, 0.5]}))
    assert read_volume(source, "a").GetSpacing() == (0.5, 0.5, 3)


def test_what_a_reader_does_not_know_is_read_as_usual(tmp_path):
    image = sitk.GetImageFromArray(LABELS)
    image.SetOrigin((1, 2, 3))
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    for reader in (NibabelIO, NaturalImage2DIO, None):
        label = read_label(tmp_path / "a.mha", reader)
        assert label.GetOrigin() == (1, 2, 3)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(label), LABELS)


def test_nifti2_is_for_nibabel_alone(tmp_path):
    file = write_nifti(tmp_path / "a.nii.gz", TURNED, nibabel.Nifti2Image)
    (source,) = open_files([file], NibabelIO, label=True)
    np.testing.assert_array_equal(label_values(read_volume(source, "a"), "a"), LABELS)
    with pytest.raises(AttenScribbleError, match=r"is NIfTI-2, which nnU-Net's SimpleITKIO does not read: save it as"):
        open_files([file], None)
    assert find_reader({"file_ending": ".nii.gz"}, file) is NibabelIO


def test_our_own_checks_come_first(tmp_path):
    file = write_nifti(tmp_path / "a.nii.gz", TURNED)
    file.write_bytes(file.read_bytes()[:-9])
    (source,) = open_files([file], NibabelIO)
    with pytest.raises(AttenScribbleError, match=r"a\.nii\.gz: is truncated or corrupt"):
        read_volume(source, "a")
    flat = write_nifti(tmp_path / "b.nii.gz", TURNED, labels=LABELS[0])
    (source,) = open_files([flat], NibabelIO)
    with pytest.raises(
        AttenScribbleError, match=r"b\.nii\.gz: .*not an image that nnU-Net's NibabelIO can read \(only 3d"
    ):
        read_volume(source, "b")


@pytest.mark.parametrize(("name", "label"), [("a_0000.tif", False), ("a.tif", True)])
def test_json_of_other_things_where_nnunet_looks_for_a_spacing_is_named(tmp_path, name, label):
    tifffile.imwrite(tmp_path / name, LABELS, photometric="minisblack")
    (tmp_path / "a.json").write_text('{"shapes": []}')
    (source,) = open_files([tmp_path / name], Tiff3DIO, label=label)
    with pytest.raises(AttenScribbleError) as caught:
        read_volume(source, "a")
    assert caught.value.problems == [
        f"{tmp_path / 'a.json'}: tells other things, where nnU-Net looks for the spacing of {name}: add "
        '"spacing": [z, y, x], in mm, or move it elsewhere'
    ]


def test_scaled_labels_are_named(tmp_path):
    image = nibabel.Nifti1Image(np.array([[[0, 1, 2, 4.0]]]), np.eye(4))
    image.set_data_dtype(np.uint8)
    nibabel.save(image, tmp_path / "a.nii.gz")
    (source,) = open_files([tmp_path / "a.nii.gz"], NibabelIO, label=True)
    label = read_volume(source, "a")
    rounded, is_rounded = unscale_label(label)
    assert is_rounded
    assert label_values(rounded, "a").ravel().tolist() == [0, 1, 2, 4]
    with pytest.raises(AttenScribbleError, match=r"a: its header scales values by 0\.015\d+ \(scl_slope\)"):
        label_values(label, "a")


@pytest.mark.parametrize("reader", [NibabelIO, NibabelIOWithReorient])
@pytest.mark.parametrize("affine", [SHEARED, TURNED], ids=["sheared", "turned"])
def test_labels_are_written_where_they_were_read(tmp_path, reader, affine):
    file = write_nifti(tmp_path / "a.nii.gz", affine)
    label = read_label(file, reader)
    write_label(sitk.GetArrayFromImage(label), file, tmp_path / "b.nii.gz", reader)
    one, other = nibabel.load(file), nibabel.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(one.dataobj, other.dataobj)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)
    assert keeps_files(reader)
    assert not keeps_files(None)
    assert not keeps_files(NaturalImage2DIO)
