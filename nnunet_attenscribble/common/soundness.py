"""What ITK passes over in silence: data that did not arrive whole, voxels that are no numbers, impossible spacing."""

from __future__ import annotations

import math
import re
import struct
import warnings
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.grids import TIFFS, read_header
from nnunet_attenscribble.common.text import format_vector

CHUNK = 1 << 20  # bytes
#: Headers in files of their own: of MetaImage, NRRD and NIfTI-1.
DETACHED = (".mhd", ".nhdr", ".hdr")
NOT_FINITE = "{}: holds NaN or infinite voxels, which nnU-Net refuses: replace them"

_GZIP, _ANY = 31, 47  # zlib's window bits: of gzip alone, and of whichever of its formats there is
_GZIP_BEGINS = b"\x1f\x8b"
_NIFTI1, _NIFTI2 = 348, 540  # bytes of their headers, which begin with this number
_NIFTI_FLOATS = {16: "f4", 64: "f8"}  # by datatype; ITK reads no others, but complex ones, which are refused
_NIFTI_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}  # by datatype, too
_METAIMAGE_BYTES = {
    **{"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_LONG": 4},
    **{"MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8},
}
_LONGEST_LINE = 1 << 15  # bytes
_SHORT = 1 << 10  # bytes that hold a header
_HARMLESS = 1 << 28  # bytes that any machine has room for
_MOST_PACKED = 1100  # times that deflate makes zeros smaller, and a little; what packs better does not come near it
_FILLED = (".jpg", ".jpeg", ".bmp")  # by ITK, where something is missing; other kinds it refuses
_ORIENTATION, _UPRIGHT = 0x112, 1  # of EXIF
_NRRD_DATA_FILE = re.compile(rb"^data ?file:", re.IGNORECASE | re.MULTILINE)
_PLAIN_NAME = re.compile(r"(?!LIST\b|LOCAL$|SKIPLIST\b)[^%]*", re.IGNORECASE)  # of one file; others are of many


def examine(path: Path) -> tuple[int | None, list[str]]:
    """Read a file to its end, where that tells something that ITK does not.

    ITK does not ask for the checksum of a .nii.gz or a compressed MetaImage or NRRD, and fills what is missing, of JPEG
    and BMP too, with whatever it has. In NIfTI it makes voxels that are NaN or infinite 0, and such a spacing, or one
    of 0, 1 mm. It does not see that a NIfTI file ends before its last voxel, or that a JPEG or TIFF notes how it is to
    be turned.

    Returns:
        the bytes of NIfTI without their compression, None of another format; and what is wrong, one sentence each.

    Raises:
        EOFError, zlib.error: it is truncated or corrupt.
        OSError: it cannot be read.
    """
    name = path.name.lower()
    if name.endswith((".gz", ".nii")):
        return _examine_nifti(path)
    if name.endswith(DETACHED):
        voxels = voxels_file(path)
        if voxels is None:
            return None, [f"{path}: says of no single file that it holds its voxels: save it as NIfTI in one file"]
        if not voxels.is_file():
            return None, [f"{path}: its voxels are missing, {voxels.name}: put that file beside it"]
        if name.endswith(".hdr"):
            return _examine_nifti_pair(path, voxels)
    if name.endswith((".mha", ".mhd")):
        _examine_metaimage(path)
    if name.endswith((".nrrd", ".nhdr")):
        _examine_nrrd(path)
    if name.endswith((*_FILLED, *TIFFS)) and _examine_picture(path) not in (None, _UPRIGHT):
        return None, [
            f"{path}: a note in it (EXIF) asks viewers to turn it, and a drawing may lie on it turned or not: save it "
            "without, as PNG, so that all show it alike, and look whether the drawing fits"
        ]
    try:
        told = _read_told_bytes(path)
    except Exception:  # what is wrong is told where it is read
        return None, []
    return None, room_problems(path, told)


def room_problems(path: Path, told: int) -> list[str]:
    """A sentence where a header tells of more bytes than its file can hold, which readers would make room for first."""
    held = (voxels_file(path) or path).stat().st_size
    if told <= max(_HARMLESS, held * _MOST_PACKED):
        return []
    return [
        f"{path}: its header tells of {told / 2**30:.3g} GiB of voxels, which {held} bytes cannot hold: it is corrupt: "
        "copy or download it again"
    ]


def _read_told_bytes(path: Path) -> int:
    """Of all voxels, by a header that stands in front of them."""
    if path.suffix.lower() in TIFFS:
        import tifffile

        with tifffile.TiffFile(path) as content:
            return max(max(series.nbytes, series.pages[0].nbytes) for series in content.series)
    with path.open("rb") as file:
        if path.suffix.lower() not in DETACHED and _NRRD_DATA_FILE.search(file.read(_LONGEST_LINE)):
            return 0
    reader = read_header(path)
    components = reader.GetNumberOfComponents()
    pixel = sitk.Image([1, 1], reader.GetPixelID(), components if components > 1 else 0)
    return math.prod(reader.GetSize()) * components * pixel.GetSizeOfPixelComponent()


def voxels_file(path: Path) -> Path | None:
    """The file that holds the voxels of a `DETACHED` header, there or not; None where it names none, or several."""
    if path.suffix.lower() == ".hdr":
        endings = (".IMG", ".IMG.GZ") if path.suffix.isupper() else (".img", ".img.gz")  # as ITK looks for them
        plain, packed = map(path.with_suffix, endings)
        return packed if packed.is_file() and not plain.is_file() else plain
    if path.suffix.lower() not in DETACHED:
        return None
    separator = ":" if path.suffix.lower() == ".nhdr" else "="
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST_LINE).decode("utf-8", "surrogateescape")
    except OSError:
        return None  # whoever reads it will tell
    for line in text.splitlines():
        key, _, name = line.partition(separator)
        if key.strip().lower() in ("elementdatafile", "data file", "datafile"):
            name = name.strip()
            return path.parent / name if name and _PLAIN_NAME.fullmatch(name) else None
    return None


def known_ending(path: Path) -> str | None:
    """The ending by which ITK would know a file; None of one that it knows by the ending that it has."""
    for ending in (".nii.gz", ".nii", ".mha", ".mhd"):
        written = path.name[-len(ending) :]
        if written.lower() == ending:
            known = (ending,) if ending in (".mha", ".mhd") else (ending, ending.upper())
            return None if written in known else ending
    return None


def _examine_picture(path: Path) -> int | None:
    """What EXIF says: 1 upright, 2 to 8 turned or mirrored; None where it says nothing. Raises EOFError where a picture
    of which ITK fills what is missing is not whole.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a note that is damaged says nothing
        try:
            picture = Image.open(path)
        except Exception:  # Pillow raises whatever its parsers do; a file that is no picture is told where it is read
            return None
        with picture:
            try:
                if path.suffix.lower() in _FILLED:
                    picture.load()
            except OSError as error:
                raise EOFError from error
            try:
                return picture.getexif().get(_ORIENTATION)
            except Exception:  # likewise
                return None


def decompressed_size(path: Path) -> int:
    """Bytes behind a gzip file, read to its end; zlib checks its checksum.

    Raises:
        EOFError, zlib.error: it is truncated or corrupt.
    """
    with path.open("rb") as file:
        return sum(map(len, _inflate(file)))


def _inflate(file: BinaryIO, chunk: int = CHUNK, *, to_end: bool = True) -> Iterator[bytes]:
    """What is behind gzip, in pieces; unless `to_end`, what follows and is no gzip is passed over, as zlib's own reader
    does it.
    """
    data = file.read(chunk)
    while data:  # a file may hold several streams
        data = yield from _inflate_stream(file, data, _GZIP, chunk)
        data = (data or file.read(chunk)).lstrip(b"\0")  # some writers pad the end with zeros
        if data and not to_end:
            data += file.read(1)  # there may have been one byte
            if not data.startswith(_GZIP_BEGINS):
                return


def _inflate_stream(file: BinaryIO, data: bytes, window_bits: int, chunk: int = CHUNK) -> Generator[bytes, None, bytes]:
    """What is behind one compressed stream, which begins with `data`; returns what was read beyond it."""
    stream = zlib.decompressobj(window_bits)
    while not stream.eof:
        data = data or file.read(chunk)
        if not data:
            raise EOFError
        yield stream.decompress(data, chunk)
        data = stream.unconsumed_tail
    return stream.unused_data


# --- NIfTI ---


@dataclass(frozen=True)
class _NiftiHeader:
    version: int
    spacing: tuple[float, ...]
    scaling: tuple[float, float]
    """Slope and intercept."""
    floats: np.dtype | None
    """Of voxels that can be NaN."""
    start: int
    """Byte of the first voxel."""
    stop: int
    """Byte behind the last."""


def is_nifti2(path: Path) -> bool:
    """Whether a readable file is NIfTI-2, which SimpleITK does not read."""
    header = _open_nifti_header(path)
    return header is not None and header.version == 2


def read_scaling(path: Path) -> tuple[float, float] | None:
    """Slope and intercept by which the voxels of a readable NIfTI file are scaled; None where they are not."""
    header = _open_nifti_header(path)
    if header is None or not all(map(math.isfinite, header.scaling)) or header.scaling[0] == 0:
        return None  # a slope of 0 says that there is none
    return None if header.scaling == (1, 0) else header.scaling


def _open_nifti_header(path: Path) -> _NiftiHeader | None:
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return None
    with path.open("rb") as file:
        return _read_nifti_header(_begin(_pieces(path, file, _SHORT)))


def _pieces(path: Path, file: BinaryIO, chunk: int = CHUNK) -> Iterator[bytes]:
    # Whether they hold all voxels, the header tells.
    packed = path.name.lower().endswith(".gz")
    return _inflate(file, chunk, to_end=False) if packed else iter(partial(file.read, chunk), b"")


def _begin(pieces: Iterator[bytes]) -> bytes:
    """The first pieces, until they hold a header."""
    begun = b""
    while len(begun) < _NIFTI2 and (piece := next(pieces, None)) is not None:
        begun += piece
    return begun


def _examine_nifti(path: Path) -> tuple[int, list[str]]:
    with path.open("rb") as file:
        pieces = _pieces(path, file)
        begun = _begin(pieces)
        header = _read_nifti_header(begun)
        if path.name.lower().endswith(".gz") or (header is not None and header.floats is not None):
            size, finite = _examine_voxels(chain([begun], pieces), header)
        else:
            size, finite = path.stat().st_size, True
    return size, _nifti_problems(path, header, size, finite)


def _examine_nifti_pair(path: Path, voxels: Path) -> tuple[int | None, list[str]]:
    with path.open("rb") as file:
        header = _read_nifti_header(file.read(_SHORT), magic=b"ni1\0")
    if header is None:
        return None, [
            f"{path}: is no NIfTI header, but one of Analyze or of another kind, which do not say where left is: save "
            "it as NIfTI with the tool that wrote it"
        ]
    with voxels.open("rb") as file:
        size, finite = _examine_voxels(_pieces(voxels, file), header)
    return size, _nifti_problems(path, header, size, finite)


def _nifti_problems(path: Path, header: _NiftiHeader | None, size: int, finite: bool) -> list[str]:
    problems = [] if finite else [NOT_FINITE.format(path)]
    if header is not None and size < header.stop:
        problems.append(f"{path}: is truncated: it ends before its last voxel: copy or download it again")
    if header is not None and not all(0 < abs(edge) < math.inf for edge in header.spacing):
        problems.append(f"{path}: its header says a spacing of {format_vector(header.spacing)}: correct it")
    return problems


def _read_nifti_header(begun: bytes, magic: bytes = b"n+1\0") -> _NiftiHeader | None:
    """None of anything but NIfTI-1 (of this magic number: in one file) and NIfTI-2 in one file."""
    for order in "<>":
        if begun[:4] == struct.pack(f"{order}i", _NIFTI1) and begun[344:348] == magic:
            axes, *sizes = struct.unpack_from(f"{order}8h", begun, 40)
            datatype, told = struct.unpack_from(f"{order}2h", begun, 70)
            spacing = struct.unpack_from(f"{order}7f", begun, 80)
            offset, *scaling = struct.unpack_from(f"{order}3f", begun, 108)
        elif begun[:4] == struct.pack(f"{order}i", _NIFTI2) and begun[4:8] == b"n+2\0" and len(begun) >= _NIFTI2:
            datatype, told = struct.unpack_from(f"{order}2h", begun, 12)
            axes, *sizes = struct.unpack_from(f"{order}8q", begun, 16)
            spacing = struct.unpack_from(f"{order}7d", begun, 112)
            offset, *scaling = struct.unpack_from(f"{order}q2d", begun, 168)
        else:
            continue
        if not 1 <= axes <= 7 or not math.isfinite(offset):
            return None
        length = struct.unpack(f"{order}i", begun[:4])[0]
        start = max(int(offset), length) if magic == b"n+1\0" else int(offset)  # from where its voxels' file begins
        bits = max(told, _NIFTI_BITS.get(datatype, 0))
        return _NiftiHeader(
            version=1 if length == _NIFTI1 else 2,
            spacing=spacing[: min(axes, 3)],  # further axes are none of space, and of one frame where that is accepted
            scaling=(scaling[0], scaling[1]),
            floats=np.dtype(order + _NIFTI_FLOATS[datatype]) if datatype in _NIFTI_FLOATS else None,
            start=start,
            stop=start + math.prod(max(size, 1) for size in sizes[:axes]) * bits // 8,
        )
    return None


def _examine_voxels(pieces: Iterator[bytes], header: _NiftiHeader | None) -> tuple[int, bool]:
    """The bytes of all pieces, and whether all voxels are finite; no two pieces are in memory together."""
    size, finite, begun = 0, True, b""  # the last: a voxel that goes on in the next piece
    for piece in pieces:
        if header is not None and header.floats is not None and finite:
            part = begun + piece[max(header.start - size, 0) : max(header.stop - size, 0)]
            whole = len(part) // header.floats.itemsize
            finite = bool(np.isfinite(np.frombuffer(part, header.floats, count=whole)).all())
            begun = part[whole * header.floats.itemsize :]
        size += len(piece)
    return size, finite


# --- NRRD and MetaImage ---


def _examine_nrrd(path: Path) -> None:
    """Whether compressed voxels are whole; raises EOFError or zlib.error where they are not."""
    fields: dict[bytes, bytes] = {}
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_LINE).strip():
            key, _, value = line.lower().partition(b":")
            fields[key.replace(b" ", b"")] = value.strip()  # `line skip` is also spelled `lineskip`
        # Lines are skipped in front of what is packed, bytes behind.
        if fields.get(b"encoding") not in (b"gzip", b"gz") or b"lineskip" in fields:
            return
        if b"datafile" not in fields:
            for _ in _inflate(file):
                pass
            return
    voxels = voxels_file(path)
    if voxels is not None and voxels.is_file():
        decompressed_size(voxels)


def _examine_metaimage(path: Path) -> None:
    """Whether the voxels are as many as the header says; raises EOFError or zlib.error where they are not."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while "ElementDataFile" not in fields:
            key, is_field, value = file.readline(_LONGEST_LINE).decode("utf-8", "surrogateescape").partition("=")
            if not is_field:
                return  # not a MetaImage, or not of the usual form: ITK will tell
            fields[key.strip()] = value.strip()
        start = file.tell()
    name = fields["ElementDataFile"]
    local = name.upper() == "LOCAL"
    data = path if local else path.parent / name
    packed = _is_true(fields.get("CompressedData"))
    if not data.is_file() or fields.get("HeaderSize", "0") != "0" or not (packed or _is_true(fields.get("BinaryData"))):
        return
    try:
        voxels = math.prod(map(int, fields["DimSize"].split())) * int(fields.get("ElementNumberOfChannels", "1"))
        expected = voxels * _METAIMAGE_BYTES[fields["ElementType"]]
    except (KeyError, ValueError):
        return
    with data.open("rb") as file:
        file.seek(start if local else 0)
        left = data.stat().st_size - file.tell()
        size = sum(map(len, _inflate_stream(file, b"", _ANY))) if packed else left
    if size < expected:
        raise EOFError


def _is_true(value: str | None) -> bool:
    return value is not None and value[:1] in ("T", "t", "1")
