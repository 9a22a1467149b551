"""What ITK would read without a word, and what must not be taken for it."""

from __future__ import annotations

import gzip
import io
import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from PIL import Image

from nnunet_attenscribble.common import soundness, volumes
from nnunet_attenscribble.common.readers import as_reader, read_label
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


@pytest.mark.parametrize(("name", "behind"), [("a.mha", b"LOCAL\n"), ("a.seg.nrrd", b"\n\n")])
def test_a_corrupt_compressed_file_is_refused_wherever_it_is(tmp_path, scan, name, behind):
    file = tmp_path / name
    content = _metaimage(scan, file, compressed=True)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(file, "")), sitk.GetArrayFromImage(scan(0)))
    start = content.index(behind) + len(behind) + (10 if name.endswith(".nrrd") else 0)  # gzip notes a time, unchecked
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


def test_every_channel_of_a_metaimage_has_to_be_there(tmp_path, scan):
    file = tmp_path / "a.mha"
    sitk.WriteImage(sitk.Compose([scan(channel) for channel in range(3)]), file)
    assert soundness.examine(file) == (None, [])
    content = file.read_bytes()
    file.write_bytes(content[: -scan(0).GetNumberOfPixels() * 2])  # of one channel
    with pytest.raises(EOFError):
        soundness.examine(file)


def test_what_stands_in_front_of_compressed_voxels_is_left_to_itk(tmp_path, scan):
    file, data = tmp_path / "a.mhd", tmp_path / "a.zraw"
    sitk.WriteImage(scan(0), file, useCompression=True)
    file.write_text(file.read_text().replace("ElementDataFile", "HeaderSize = 10\nElementDataFile"))
    data.write_bytes(bytes(10) + data.read_bytes())
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(file, "")), sitk.GetArrayFromImage(scan(0)))


@pytest.mark.parametrize(
    ("field", "lines", "skipped"),
    [(f"line{space}skip: 1", b"a line\n", b"") for space in ("", " ")]
    + [(f"byte{space}skip: 7", b"", bytes(7)) for space in ("", " ")],
)
def test_what_an_nrrd_skips_is_no_corruption(tmp_path, scan, field, lines, skipped):
    file = tmp_path / "a.nrrd"
    sitk.WriteImage(scan(0), file, useCompression=True)
    header, _, packed = file.read_bytes().partition(b"\n\n")
    file.write_bytes(header + f"\n{field}\n\n".encode() + lines + gzip.compress(skipped + gzip.decompress(packed)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(file, "")), sitk.GetArrayFromImage(scan(0)))


@pytest.mark.parametrize("key", ["data file", "datafile"])
def test_an_nrrd_whose_voxels_lie_elsewhere_is_small(tmp_path, scan, monkeypatch, key):
    sitk.WriteImage(scan(0), tmp_path / "a.nhdr")
    file = tmp_path / "a.nrrd"
    file.write_text((tmp_path / "a.nhdr").read_text().replace("data file", key))
    monkeypatch.setattr(soundness, "_HARMLESS", 0)
    monkeypatch.setattr(soundness, "_MOST_PACKED", 0)
    assert soundness.examine(file) == (None, [])


def test_compressed_voxels_beside_an_nrrd_header(tmp_path, scan):
    sitk.WriteImage(scan(0), tmp_path / "a.nhdr", useCompression=True)
    file, data = tmp_path / "a.nhdr", tmp_path / "a.raw.gz"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(file, "")), sitk.GetArrayFromImage(scan(0)))
    content = data.read_bytes()
    data.write_bytes(content[:-6] + bytes(6))
    assert _read_error(file) == f"{file}: is truncated or corrupt: copy or download it again"


@pytest.mark.parametrize(("name", "options"), [("a.jpg", {}), ("a.jpeg", {"progressive": True}), ("a.bmp", {})])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_truncated_picture_is_told_as_any_other_file(tmp_path, name, options, mode):
    file = tmp_path / name
    shades = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(shades).convert(mode).save(file, **options)
    assert soundness.examine(file) == (None, [])
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 55 // 100])
    assert _read_error(file) == f"{file}: is truncated or corrupt: copy or download it again"


@pytest.mark.parametrize("content", [b"hello", b"\0\xff" * 500, b"NDims = 3\nElementDataFile = LOCAL\n"])
def test_what_is_no_metaimage_is_left_to_itk(tmp_path, content):
    file = tmp_path / "a.mha"
    file.write_bytes(content)
    assert "not an image that SimpleITK can read" in _read_error(file)


# --- headers in files of their own ---


@pytest.mark.parametrize(("header", "data"), [("a.mhd", "a.raw"), ("a.nhdr", "a.raw"), ("a.hdr", "a.img")])
def test_what_is_wrong_with_voxels_in_a_file_of_their_own(tmp_path, scan, header, data):
    file, voxels = tmp_path / header, tmp_path / data
    sitk.WriteImage(sitk.Cast(scan(0), sitk.sitkFloat32), file)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(file, "")), sitk.GetArrayFromImage(scan(0)))
    whole = voxels.read_bytes()
    voxels.write_bytes(whole[:-1])
    assert f"{file}: is truncated" in _read_error(file)
    voxels.write_bytes(whole[:-4] + np.float32(np.nan).tobytes())
    problem = f"{file}: holds NaN or infinite voxels, which nnU-Net refuses: replace them"
    assert soundness.examine(file)[1] == ([problem] if data == "a.img" else [])  # of the others ITK keeps NaN
    voxels.unlink()
    assert _read_error(file) == f"{file}: its voxels are missing, {data}: put that file beside it"


@pytest.mark.parametrize(("header", "data"), [("a.hdr", "a.img.gz"), ("a.HDR", "a.IMG"), ("a.HDR", "a.IMG.GZ")])
def test_the_voxels_of_a_nifti_pair_as_itk_finds_them(tmp_path, scan, header, data):
    sitk.WriteImage(scan(0), tmp_path / "a.hdr")
    file, voxels = (tmp_path / "a.hdr").rename(tmp_path / header), tmp_path / data
    whole = (tmp_path / "a.img").read_bytes()
    (tmp_path / "a.img").unlink()
    pack = gzip.compress if data.lower().endswith(".gz") else bytes
    voxels.write_bytes(pack(whole))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(file, "")), sitk.GetArrayFromImage(scan(0)))
    voxels.write_bytes(pack(whole[:-1]))
    assert f"{file}: is truncated" in _read_error(file)
    if header == "a.hdr":  # of two, ITK takes the plain one
        (tmp_path / "a.img").write_bytes(whole)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(file, "")), sitk.GetArrayFromImage(scan(0)))


@pytest.mark.parametrize(
    ("header", "line", "many"),
    [
        ("a.mhd", "ElementDataFile = a.raw", "ElementDataFile = a%03d.raw 1 4 1"),
        ("a.mhd", "ElementDataFile = a.raw", "ElementDataFile = LIST"),
        ("a.mhd", "ElementDataFile = a.raw", ""),
        ("a.nhdr", "data file: a.raw", "data file: SKIPLIST 0 1"),
        ("a.nhdr", "data file: a.raw", "data file: a%d.raw 1 4 1"),
    ],
)
def test_a_header_of_no_single_file(tmp_path, scan, header, line, many):
    file = tmp_path / header
    sitk.WriteImage(scan(0), file)
    text = file.read_text()
    assert line in text
    file.write_text(text.replace(line, many))
    assert _read_error(file) == f"{file}: says of no single file that it holds its voxels: save it as NIfTI in one file"


@pytest.mark.parametrize("header", [b"ENVI\nsamples = 3\n", struct.pack("<i", 348).ljust(348, b"\0")])
def test_analyze_does_not_say_where_left_is(tmp_path, header):
    (tmp_path / "a.hdr").write_bytes(header)
    (tmp_path / "a.img").write_bytes(bytes(100))
    assert "a.hdr: is no NIfTI header, but one of Analyze" in _read_error(tmp_path / "a.hdr")


def test_no_room_is_made_for_voxels_that_a_second_file_cannot_hold(tmp_path, monkeypatch):
    (tmp_path / "a.nhdr").write_text(f"{_NRRD}raw\ndata file: a.raw\n")
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    monkeypatch.setattr(volumes, "read_image", lambda _: pytest.fail("room was made"))
    assert "which 1000 bytes cannot hold" in _read_error(tmp_path / "a.nhdr")


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


def _read_in_pieces(monkeypatch, size: int) -> None:
    pieces = soundness._pieces
    monkeypatch.setattr(soundness, "_pieces", lambda path, file, *_: pieces(path, file, size))


@pytest.mark.parametrize("chunk", [1, 7, 350])
def test_voxels_across_pieces(tmp_path, monkeypatch, chunk):
    _read_in_pieces(monkeypatch, chunk)
    for ending in (".nii", ".nii.gz"):
        sound, bad = (_write(tmp_path / f"{v}{ending}", _nifti("f8", _with_one(v))) for v in (2.0, np.nan))
        read_volume(sound, "")
        assert "holds NaN" in _read_error(bad)
        bad.write_bytes(bad.read_bytes()[:-9])
        assert "is truncated" in _read_error(bad)  # which comes first: what is there may be anything


def test_a_header_that_tells_no_place_of_its_voxels_has_them_behind_it(tmp_path):
    values = np.arange(60).reshape(5, 4, 3)
    content = bytearray(_nifti("i2", values))
    struct.pack_into("<f", content, 108, 0)
    content = bytes(content[:348] + content[368:])
    file = _write(tmp_path / "a.nii", content)
    assert (values == sitk.GetArrayFromImage(read_volume(file, "")).T).all()
    file.write_bytes(content[:-1])
    assert "is truncated: it ends before its last voxel" in _read_error(file)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_what_follows_the_gzip_of_a_nifti_is_passed_over_where_all_voxels_are_there(tmp_path, monkeypatch, chunk):
    _read_in_pieces(monkeypatch, chunk)
    content = _nifti("i2", 3)
    file = tmp_path / "a.nii.gz"
    for behind in (b"garbage", b"\0\0x", b"x", b"\0" * 9):
        file.write_bytes(gzip.compress(content[:300]) + gzip.compress(content[300:]) + behind)
        assert (sitk.GetArrayFromImage(read_volume(file, "")) == 3).all()
        file.write_bytes(gzip.compress(content[:-1]) + behind)
        assert "is truncated: it ends before its last voxel" in _read_error(file)
    file.write_bytes(gzip.compress(content) + b"\x1f\x8bgarbage")  # a stream that is none
    assert "is truncated or corrupt" in _read_error(file)


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


# --- headers that tell of more than there is ---

_HUGE = 100_000  # voxels along every axis
_NIFTI_HEADER = struct.pack("<i36x8h14x2h2x8ff", 348, 3, *[30_000] * 3, *[1] * 4, 4, 16, *[1.0] * 8, 352)
_NRRD = (
    f"NRRD0004\ntype: short\ndimension: 3\nspace: LPS\nsizes: {_HUGE} {_HUGE} {_HUGE}\nendian: little\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: "
)
_VECTORS = (
    _NRRD.replace("dimension: 3", "dimension: 4")
    .replace("directions:", "directions: none")
    .replace(f"sizes: {_HUGE} {_HUGE} {_HUGE}", "kinds: vector domain domain domain\nsizes: 3 500 500 400")
)
_MHA = (
    f"ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = {_HUGE} {_HUGE} {_HUGE}\nElementSpacing = 1 1 1\n"
    "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
)


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _tiff() -> bytes:
    """Of one strip, its width and length replaced."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.zeros((8, 8), np.uint8), metadata=None)
    content = bytearray(stream.getvalue())
    stream.seek(0)
    with tifffile.TiffFile(stream) as file:
        for name in ("ImageWidth", "ImageLength"):
            place = file.pages.first.tags[name].offset
            struct.pack_into("<H", content, place + 2, 4)  # of 32 bits
            struct.pack_into("<I", content, place + 8, _HUGE)
    return bytes(content)


_NII = _NIFTI_HEADER.ljust(344, b"\0") + b"n+1\0" + bytes(1004)
_SHORT_HEADERS = {
    "a.nii": _NII,
    "lying_bits.nii": _NII[:72] + b"\1\0" + _NII[74:],
    "a.nii.gz": gzip.compress(_NII),
    "a.mha": _MHA.encode() + bytes(1000),
    "raw.nrrd": f"{_NRRD}raw\n\n".encode() + bytes(1000),
    # One component of them alone would be what any machine has room for.
    "vectors.nrrd": f"{_VECTORS}raw\n\n".encode() + bytes(1000),
    "packed.nrrd": f"{_NRRD}gzip\n\n".encode() + gzip.compress(bytes(1000)),
    "a.png": b"\x89PNG\r\n\x1a\n"
    + _png_chunk(b"IHDR", struct.pack(">IIBBBBB", _HUGE, _HUGE, 8, 0, 0, 0, 0))
    + _png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    + _png_chunk(b"IEND", b""),
    "a.bmp": struct.pack("<2sI4xI", b"BM", 1142, 1078)
    + struct.pack("<IiiHHIIiiII", 40, _HUGE, _HUGE, 1, 8, 0, 0, 0, 0, 256, 0)
    + bytes(1088),
    "a.tif": _tiff(),
}


@pytest.mark.parametrize("name", _SHORT_HEADERS)
def test_no_room_is_made_for_voxels_that_cannot_be_there(tmp_path, monkeypatch, name):
    file = tmp_path / name
    file.write_bytes(_SHORT_HEADERS[name])
    monkeypatch.setattr(volumes, "read_image", lambda _: pytest.fail("room was made"))
    for reader in (None, as_reader(Tiff3DIO) if name == "a.tif" else as_reader(SimpleITKIO)):
        with pytest.raises(AttenScribbleError, match=r"truncated|cannot hold: it is corrupt"):
            read_label(file, reader)


def test_a_blank_volume_is_packed_well_and_sound(tmp_path):
    blank = sitk.Image([800, 800, 450], sitk.sitkUInt8)
    sitk.WriteImage(blank, tmp_path / "a.nrrd", useCompression=True)
    assert (tmp_path / "a.nrrd").stat().st_size < blank.GetNumberOfPixels() / 500
    assert soundness.examine(tmp_path / "a.nrrd") == (None, [])
