"""What ITK would read without a word, and what must not be taken for it."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_attenscribble.common import soundness
from nnunet_attenscribble.common.volumes import read_volume
from nnunet_attenscribble.errors import AttenScribbleError


def _read_error(file) -> str:
    with pytest.raises(AttenScribbleError) as caught:
        read_volume(file, str(file))
    return str(caught.value)


# --- MetaImage ---


def _metaimage(scan, file, *, compressed: bool) -> bytes:
    sitk.WriteImage(scan(0), file, useCompression=compressed)
    return file.read_bytes()


@pytest.mark.parametrize("compressed", [True, False])
def test_a_truncated_metaimage_is_told_as_any_other_file(tmp_path, scan, compressed):
    file = tmp_path / "a.mha"
    content = _metaimage(scan, file, compressed=compressed)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(file, "")), sitk.GetArrayFromImage(scan(0)))
    for kept in (len(content) * 2 // 3, len(content) - 1):
        file.write_bytes(content[:kept])
        assert _read_error(file) == f"{file}: is truncated or corrupt: copy or download it again"


def test_a_corrupt_compressed_metaimage_is_refused_wherever_it_is(tmp_path, scan):
    file = tmp_path / "a.mha"
    content = _metaimage(scan, file, compressed=True)
    start = content.index(b"LOCAL\n") + 6
    for place in range(start, len(content), 7):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        assert "is truncated or corrupt" in _read_error(file)


def test_a_metaimage_that_holds_less_than_its_header_says(tmp_path, scan):
    file = tmp_path / "a.mha"
    content = _metaimage(scan, file, compressed=True)
    file.write_bytes(content.replace(b"DimSize = 6 5 4", b"DimSize = 6 5 9"))
    assert "is truncated or corrupt" in _read_error(file)


def test_the_voxels_of_a_metaimage_may_lie_beside_it(tmp_path, scan):
    sitk.WriteImage(scan(0), tmp_path / "a.mhd", useCompression=True)
    file, data = (tmp_path / "a.mhd").rename(tmp_path / "a.mha"), tmp_path / "a.zraw"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(file, "")), sitk.GetArrayFromImage(scan(0)))
    content = data.read_bytes()
    data.write_bytes(content[:-6] + bytes(6))
    assert _read_error(file) == f"{file}: is truncated or corrupt: copy or download it again"
    data.unlink()
    assert "not an image that SimpleITK can read" in _read_error(file)


@pytest.mark.parametrize("content", [b"hello", b"\0\xff" * 500, b"NDims = 3\nElementDataFile = LOCAL\n"])
def test_what_is_no_metaimage_is_left_to_itk(tmp_path, content):
    file = tmp_path / "a.mha"
    file.write_bytes(content)
    assert "not an image that SimpleITK can read" in _read_error(file)


# --- NIfTI ---


def _nifti(dtype: str, values=1, *, order="<", sizes=(5, 4, 3), edges=(1.5, 1.25, 8.0), slope=1.0, behind=b"") -> bytes:
    """A NIfTI file with 16 bytes of extension in front of its voxels, which would be NaN."""
    kinds = {"u1": (2, 8), "i2": (4, 16), "f4": (16, 32), "f8": (64, 64)}
    header = bytearray(348)
    struct.pack_into(f"{order}i", header, 0, 348)
    struct.pack_into(f"{order}8h", header, 40, len(sizes), *sizes, *[1] * (7 - len(sizes)))
    struct.pack_into(f"{order}2h", header, 70, *kinds[dtype])
    struct.pack_into(f"{order}8f", header, 76, 1, *edges, *[0] * (7 - len(edges)))
    struct.pack_into(f"{order}3f", header, 108, 368, slope, 0)
    struct.pack_into(f"{order}2h", header, 252, 1, 0)  # qform_code, sform_code
    header[344:348] = b"n+1\0"
    voxels = np.broadcast_to(np.asarray(values, f"{order}{dtype}"), sizes).tobytes(order="F")
    extension = struct.pack(f"{order}2i", 16, 6) + b"\xff" * 8
    return bytes(header) + b"\1\0\0\0" + extension + voxels + behind


def _write(file, content: bytes):
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return file


def _with_one(value: float) -> np.ndarray:
    values = np.ones((5, 4, 3))
    values[4, 3, 2] = value  # the last voxel of all
    return values


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_voxels_that_itk_makes_0(tmp_path, ending, dtype, order, value):
    file = _write(tmp_path / f"a{ending}", _nifti(dtype, _with_one(value), order=order, slope=2.0))
    assert sitk.GetArrayFromImage(sitk.ReadImage(file))[2, 3, 4] == 0  # or the check were for nothing
    assert _read_error(file) == f"{file}: holds NaN or infinite voxels, which nnU-Net refuses: replace them"


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
def test_only_voxels_are_looked_at(tmp_path, ending, dtype, order):
    file = _write(tmp_path / f"a{ending}", _nifti(dtype, 3, order=order, slope=2.0, behind=b"\xff" * 24))
    assert (sitk.GetArrayFromImage(read_volume(file, "")) == 6).all()


@pytest.mark.parametrize("chunk", [1, 7, 350])
def test_voxels_across_pieces(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(soundness, "CHUNK", chunk)
    for ending in (".nii", ".nii.gz"):
        sound, bad = (_write(tmp_path / f"{v}{ending}", _nifti("f8", _with_one(v))) for v in (2.0, np.nan))
        read_volume(sound, "")
        assert "holds NaN" in _read_error(bad)
        bad.write_bytes(bad.read_bytes()[:-9])
        assert "is truncated" in _read_error(bad)  # which comes first: what is there may be anything


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("edge", "told"), [(0.0, "0"), (np.nan, "nan"), (np.inf, "inf")])
def test_a_spacing_that_itk_makes_1_mm(tmp_path, ending, edge, told):
    file = _write(tmp_path / f"a{ending}", _nifti("u1", edges=(1.5, 1.25, edge)))
    assert sitk.ReadImage(file).GetSpacing() == (1.5, 1.25, 1)  # or the check were for nothing
    assert _read_error(file) == f"{file}: its header says a spacing of (1.5, 1.25, {told}): correct it"


@pytest.mark.parametrize(
    ("sizes", "edges"),
    [((5, 4, 3), (1.5, 1.25, -8.0)), ((5, 4, 3, 1), (1.5, 1.25, 8.0, 0.0)), ((5, 4), (1.5, 1.25))],
    ids=["negative", "time of one frame", "two axes"],
)
def test_a_spacing_that_is_one(tmp_path, sizes, edges):
    file = _write(tmp_path / "a.nii", _nifti("u1", sizes=sizes, edges=edges))
    axes = min(len(sizes), 3)
    assert read_volume(file, "").GetSpacing() == tuple(map(abs, edges[:axes]))


def test_a_label_with_nan_is_not_read_as_background(tmp_path):
    file = _write(tmp_path / "label.nii.gz", _nifti("f4", _with_one(np.nan)))
    with pytest.raises(AttenScribbleError, match="holds NaN"):
        read_volume(file, str(file), label=True)


def test_a_quick_reading_asks_for_none_of_it(tmp_path):
    file = _write(tmp_path / "a.nii.gz", _nifti("f4", _with_one(np.nan)))
    read_volume(file, "", thorough=False)  # of what has been read thoroughly before
