"""Reading what may be broken, and comparing grids."""

from __future__ import annotations

import gzip
import re
import shutil
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunet_attenscribble.common import soundness
from nnunet_attenscribble.common.formats import is_sheared
from nnunet_attenscribble.common.grids import geometry_problems
from nnunet_attenscribble.common.volumes import (
    count_values,
    has_consistent_header,
    label_values,
    read_volume,
    write_volume,
)
from nnunet_attenscribble.errors import AttenScribbleError


def _shorten(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def _flip_a_byte(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("ending", "damage", "told"),
    [
        pytest.param(".nii.gz", _shorten, "truncated or corrupt", id="truncated gzip"),
        pytest.param(".nii.gz", _flip_a_byte, "truncated or corrupt", id="flipped byte"),
        pytest.param(".nii.gz", lambda data: data[:12] + b"x" * 99, "truncated or corrupt", id="damaged at its start"),
        pytest.param(".nii.gz", lambda data: data[:-9], "truncated or corrupt", id="end of checksum missing"),
        pytest.param(".nii.gz", gzip.decompress, "is not gzip data", id="not gzip"),
        pytest.param(".nii.gz", lambda data: b"", "is empty", id="empty"),
        pytest.param(".nii.gz", lambda data: gzip.compress(b"x" * 500), "not an image", id="no image inside"),
        pytest.param(
            ".nii.gz",
            lambda data: gzip.compress(_shorten(gzip.decompress(data))),
            "ends before its last voxel",
            id="truncated, then compressed",
        ),
        pytest.param(".nii", _shorten, "ends before its last voxel", id="truncated plain file"),
        pytest.param(".NII.GZ", _shorten, "truncated or corrupt", id="truncated gzip in capitals"),
        pytest.param(".NII", _shorten, "ends before its last voxel", id="truncated plain file in capitals"),
        pytest.param(".nii", lambda data: b"hello", "not an image", id="text"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, scan, capfd, ending, damage, told):
    file = tmp_path / f"scan ä{ending}"
    sitk.WriteImage(scan(0), tmp_path / f"whole{ending.lower()}")  # ITK writes no capitals
    (tmp_path / f"whole{ending.lower()}").rename(file)
    read_volume(file, str(file))
    file.write_bytes(damage(file.read_bytes()))
    with suppress(AttenScribbleError):  # it passes over what lies behind the header
        read_volume(file, str(file), thorough=False)
    with pytest.raises(AttenScribbleError) as caught:
        read_volume(file, str(file))
    assert str(file) in str(caught.value)
    assert told in str(caught.value)
    assert capfd.readouterr().err == ""  # nothing from C++ between the lines


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for file, told in [(tmp_path / "no.nii.gz", "does not exist"), (tmp_path, "cannot be read")]:
        with pytest.raises(AttenScribbleError, match=told):
            read_volume(file, str(file))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_an_ending_in_capitals_is_read_or_told(tmp_path, scan, capfd, ending):
    sitk.WriteImage(scan(0), tmp_path / f"a{ending}")
    for written in {ending.upper(), ending.title(), f"{ending[:-1]}{ending[-1].upper()}"}:
        file = tmp_path / f"b{written}"
        shutil.copyfile(tmp_path / f"a{ending}", file)
        if soundness.known_ending(file) is None:
            np.testing.assert_array_equal(*map(sitk.GetArrayFromImage, (read_volume(file, str(file)), scan(0))))
        else:
            with pytest.raises(AttenScribbleError, match=f"SimpleITK does not know this .*: rename it to b{ending}"):
                read_volume(file, str(file))
        assert not is_sheared(file)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("orientation", [None, 1, 3, 6])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_a_picture_that_its_camera_says_to_turn_is_refused(tmp_path, orientation, order, name):
    file, note = tmp_path / name, Image.Exif()
    note.endian = order
    note[0x10F] = "A camera"
    if orientation is not None:
        note[0x112] = orientation
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(file, exif=note)
    if orientation in (None, 1):
        assert read_volume(file, str(file)).GetSize() == (8, 8)
        return
    with pytest.raises(AttenScribbleError, match=r"a\.(jpg|tif): a note in it \(EXIF\) asks viewers to turn it"):
        read_volume(file, str(file))


@pytest.mark.parametrize("kept", [4, 8, 12, 18])
def test_a_damaged_note_of_a_camera_says_nothing(tmp_path, kept):
    note = b"Exif\0\0" + b"II*\0" + struct.pack("<IHHHIHH", 8, 1, 0x112, 3, 1, 6, 0)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.jpg", exif=note[: 6 + kept])
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: content.index(b"Exif") + 6 + kept])
    assert soundness.examine(tmp_path / "a.jpg")[0] is None
    assert "EXIF" not in str(soundness.examine(tmp_path / "a.jpg"))


def test_several_gzip_streams_and_padding_are_fine(tmp_path, scan):
    file = tmp_path / "a.nii.gz"
    sitk.WriteImage(scan(0), file)
    plain = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(plain[:400]) + gzip.compress(plain[400:]) + b"\0" * 512)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(file, "")), sitk.GetArrayFromImage(scan(0)))


def test_what_the_library_says_is_told(tmp_path):
    file = tmp_path / "a.nii.gz"
    sitk.WriteImage(sitk.Image([4, 4, 4], sitk.sitkUInt8), file)
    header = bytearray(gzip.decompress(file.read_bytes()))
    header[252:256] = np.array([0, 1], np.int16).tobytes()  # qform_code, sform_code
    header[280:328] = np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], np.float32).tobytes()  # srow_x, _y, _z
    file.write_bytes(gzip.compress(bytes(header)))
    with pytest.raises(
        AttenScribbleError,
        match=r"not at right angles.*\(ITK only supports ortho.*: resample it, or if it is of an nnU-Net",
    ):
        read_volume(file, str(file))
    grey_and_opacity = tmp_path / "a.png"
    for mode, options in (("LA", {}), ("L", {"transparency": 0})):
        Image.new(mode, (4, 4)).save(grey_and_opacity, **options)
        with pytest.raises(AttenScribbleError, match=r"a\.png: has grey values and an opacity.*: save it without"):
            read_volume(grey_and_opacity, str(grey_and_opacity))


def test_frames_colours_and_complex_numbers_are_refused(tmp_path):
    for image, told in [
        (sitk.Image([3, 3, 3, 2], sitk.sitkUInt8), "4 dimensions"),
        (sitk.Image([3, 3], sitk.sitkVectorUInt8, 3), "several components"),
        (sitk.Image([3, 3, 3], sitk.sitkComplexFloat32), "complex voxels"),
    ]:
        with pytest.raises(AttenScribbleError, match=f"it: has {told}"):
            read_volume(image, "it")


@pytest.mark.parametrize("mode", ["P", "RGB"])
def test_a_label_in_colours_is_told_what_a_label_needs(tmp_path, mode):
    file = tmp_path / "label.png"
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.convert(mode).save(file)
    with pytest.raises(AttenScribbleError, match=r"\(colour or vectors\): save the label with one value per voxel"):
        read_volume(file, str(file), label=True)
    with pytest.raises(AttenScribbleError, match=r"\(colour or vectors\): give a file for each"):
        read_volume(file, str(file))


def test_label_values_must_be_integers(volume):
    for value, kind in ((2.0, np.uint8), (255.0, np.uint8), (256.0, np.int64), (-1.0, np.int64)):
        whole = label_values(volume(value, np.float32), "it")
        assert whole.dtype == kind  # a byte where it fits
        assert (whole == value).all()
    for value in (0.5, 0.9999999, 1e20, 2.0**63, np.nan, np.inf):
        for kind in (np.float32, np.float64):
            told = re.escape(f"it: label values that are not integers ({kind(value)!s})")
            with pytest.raises(AttenScribbleError, match=told):
                label_values(volume(value, kind), "it")
    scaled = volume(1e20, np.float64)
    scaled.SetMetaData("scl_slope", "0.5")
    with pytest.raises(AttenScribbleError, match=r"not integers \(1e\+20\)"):
        label_values(scaled, "it", [])


def test_values_are_counted_without_a_copy_of_the_volume():
    labels = np.random.default_rng(0).integers(0, 9, (50, 64, 64), np.uint8)
    tracemalloc.start()
    counts = count_values(labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts == {value: int((labels == value).sum()) for value in range(9)}
    assert peak < labels.nbytes


def write_scaled(file: Path, values: np.ndarray, kind: type) -> None:
    """As nibabel writes numbers with a fraction under a header of integers."""
    image = nibabel.Nifti1Image(values.astype(float), np.eye(4))
    image.set_data_dtype(kind)
    nibabel.save(image, file)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16])
@pytest.mark.parametrize("highest", [4, 14, 104])
def test_labels_that_a_header_scales_are_rounded_and_told(tmp_path, kind, highest):
    file, values = tmp_path / "a.nii.gz", np.arange(highest + 1).reshape(1, 1, -1)
    write_scaled(file, values, kind)
    label = read_volume(file, "a", label=True)
    assert (sitk.GetArrayFromImage(label).ravel() != values.ravel()).any()  # or it would show nothing
    notes: list[str] = []
    np.testing.assert_array_equal(label_values(label, "a", notes).ravel(), values.ravel())
    (note,) = notes
    assert note.startswith("a: its header scales values by ")
    assert note.endswith("rounded to integers")
    with pytest.raises(AttenScribbleError, match=r"\(scl_slope\), so that they are read as .*, which nnU-Net cuts"):
        label_values(label, "a")


@pytest.mark.parametrize(
    ("values", "slope"),
    [([0, 0.5, 4], None), ([0, 1, 2.4, 255], None), ([0, 1, 3], 1.5)],
    ids=["interpolated", "interpolated, coarse step", "step above 1"],
)
def test_what_is_between_integers_is_not_rounded(tmp_path, values, slope):
    file = tmp_path / "a.nii.gz"
    if slope is None:
        write_scaled(file, np.array([[values]]), np.uint16)
    else:
        image = nibabel.Nifti1Image(np.array([[values]], np.uint8), np.eye(4))
        image.header.set_slope_inter(slope, 0)
        nibabel.save(image, file)
    with pytest.raises(AttenScribbleError, match="label values that are not integers"):
        label_values(read_volume(file, "a", label=True), "a", [])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("dtype", "unit", "scale"),
    [
        (np.uint8, "mm", 1),
        (np.int16, "mm", 1),
        (np.float32, "micron", 1e3),
        (np.float64, "meter", 1e-3),
        (np.float64, "unknown", 1),
    ],
)
def test_nifti2_is_read_as_nifti1(tmp_path, ending, dtype, unit, scale):
    voxels = np.random.default_rng(0).normal(50, 20, (5, 4, 3)).astype(dtype)
    affine = np.array([[0, -1.5, 0, 5], [1.0, 0, 0, 6], [0, 0, 8, 7], [0, 0, 0, 1 / scale]]) * scale
    files = [tmp_path / f"{kind}{ending}" for kind in (1, 2)]
    for file, kind in zip(files, (nibabel.Nifti1Image, nibabel.Nifti2Image), strict=True):
        image = kind(voxels, affine)
        image.header.set_xyzt_units(unit)
        nibabel.save(image, file)
    one, other = (read_volume(file, "", whole=False) for file in files)
    assert other.GetSpacing() == pytest.approx((1, 1.5, 8))
    assert geometry_problems(one, other, "", "", as_stored=True) == []
    np.testing.assert_array_equal(*(sitk.GetArrayFromImage(read_volume(file, "")) for file in files))
    plain = files[1].read_bytes() if ending == ".nii" else gzip.decompress(files[1].read_bytes())
    cut = plain[:-1]
    files[1].write_bytes(cut if ending == ".nii" else gzip.compress(cut))
    with pytest.raises(AttenScribbleError, match="is truncated: it ends before its last voxel"):
        read_volume(files[1], "")


def test_the_spacing_of_nifti2_is_the_headers(tmp_path):
    """As nnU-Net takes it, whatever the length of the affine's columns."""
    image = nibabel.Nifti2Image(np.zeros((5, 4, 3), np.uint8), np.eye(4))
    image.header["pixdim"][1:4] = 3, 4, 5
    nibabel.save(image, tmp_path / "a.nii")
    assert read_volume(tmp_path / "a.nii", "").GetSpacing() == (3, 4, 5)


@pytest.mark.parametrize(("unit", "consistent"), [(0, True), (2, True), (10, True), (3, False), (1, False)])
def test_a_unit_that_readers_take_for_mm_is_noticed(tmp_path, volume, unit, consistent):
    file = tmp_path / "a.nii.gz"
    sitk.WriteImage(volume(), file)
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[123] = unit  # xyzt_units: micron is 3, metre 1, 8 is added for seconds
    file.write_bytes(gzip.compress(bytes(content)))
    assert has_consistent_header(read_volume(file, "")) == consistent


def test_an_sform_of_unit_scale_is_noticed(tmp_path, volume):
    file = tmp_path / "a.nii.gz"
    sitk.WriteImage(volume(), file)
    assert has_consistent_header(read_volume(file, ""))
    header = bytearray(gzip.decompress(file.read_bytes()))
    header[280:328] = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], np.float32).tobytes()  # srow_x, _y, _z
    file.write_bytes(gzip.compress(bytes(header)))
    image = read_volume(file, "")
    assert image.GetSpacing() == (1.5, 1.25, 8.0)
    assert not has_consistent_header(image)


@pytest.mark.parametrize(
    "arrived",
    [gzip.compress(b"x" * 1000)[:-10], gzip.compress(b"x" * 100), b"\x1f\x8b", b""],
    ids=["end missing", "too short", "two bytes", "empty"],
)
def test_a_file_that_did_not_arrive_whole_is_an_error(tmp_path, scan, monkeypatch, arrived):
    def write_half(image, path, **options):  # what ITK leaves on a full disk, in silence
        Path(path).write_bytes(arrived)

    monkeypatch.setattr(sitk, "WriteImage", write_half)
    with pytest.raises(OSError, match=r"a\.nii\.gz was not written completely: is the disk full\?"):
        write_volume(scan(0), tmp_path / "a.nii.gz")
