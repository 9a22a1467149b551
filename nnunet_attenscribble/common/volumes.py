"""Reading images and labels from files that nobody has checked yet."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, overload

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.formats import (
    has_right_angles,
    is_grey_bmp,
    is_tiff,
    quiet,
    read_tiff,
    read_with_nibabel,
    write_with_nibabel,
)
from nnunet_attenscribble.common.grids import SPACING_TOLERANCE, read_header
from nnunet_attenscribble.common.soundness import CHUNK, decompressed_size, examine, is_nifti2, known_ending
from nnunet_attenscribble.errors import AttenScribbleError, refuse

# A file, an image in memory, or a call that makes the image when it is needed (picklable: it runs in worker processes).
Source = Path | sitk.Image | Callable[[], sitk.Image]
Opened = sitk.Image | sitk.ImageFileReader  # the reader, behind a header, answers for the grid as the image does

#: Hounsfield units, below which CT has air and nothing else has anything.
AIR = -900

_SCALARS = {sitk.sitkFloat32, sitk.sitkFloat64} | {
    getattr(sitk, f"sitk{sign}Int{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)
}  # of one component
_PNG = b"\x89PNG\r\n\x1a\n"
_WHITE = 255  # which SimpleITK makes of the 1 of a PNG of one bit per pixel
_ROUNDING = 1e-6  # relative, of single precision, in which SimpleITK scales
_UNIT_OF_SPACE, _MM = 7, 2  # NIfTI's: bits, and their value of mm
_TOO_LARGE = 2.0**63  # for an integer of 64 bits
_SHORT = 1 << 12  # bytes that hold what a PNG says of itself
_HEADER = 352  # bytes in front of the voxels of a NIfTI file
_CORRUPT = "{}: is truncated or corrupt: copy or download it again"


@overload
def read_volume(
    source: Source, name: str, *, thorough: bool = True, label: bool = False, whole: Literal[True] = True
) -> sitk.Image: ...
@overload
def read_volume(source: Source, name: str, *, thorough: bool = True, label: bool = False, whole: bool) -> Opened: ...
def read_volume(source: Source, name: str, *, thorough: bool = True, label: bool = False, whole: bool = True) -> Opened:
    """Read one scalar 2D or 3D image.

    Args:
        source: where it comes from.
        name: how errors call it, see `describe`.
        thorough: also look for what ITK passes over in silence, see `soundness.examine`.
        label: it holds classes; only errors differ.
        whole: False: where a NIfTI file is sound, or was looked at before, its header is enough: what comes back then
            is the reader, which has the grid as the image would.

    Raises:
        AttenScribbleError: naming the file and what is wrong with it.
    """
    if isinstance(source, Path):
        image = _read_file(source, thorough, whole)
    else:
        image = source() if callable(source) else source
    if image.GetDimension() not in (2, 3):
        channels = "" if label else ", or, of channels, give a file for each, _0000, _0001 and so on"
        raise AttenScribbleError(
            f"{name}: has {image.GetDimension()} dimensions, 2 or 3 are needed: extract one frame{channels}"
        )
    if isinstance(image, sitk.Image) and image.GetNumberOfComponentsPerPixel() != 1:
        told = f"{name}: has several components per voxel (colour or vectors)"
        if label:
            raise AttenScribbleError(f"{told}: save the label with one value per voxel, the number of its class")
        raise AttenScribbleError(f"{told}: give a file for each, as a channel, or its grey values")
    if image.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise AttenScribbleError(f"{name}: has complex voxels: give their magnitude")
    return image


def read_image(file: Path) -> sitk.Image:
    """Read an image file that is not checked any further.

    Raises:
        AttenScribbleError: it is a TIFF that is no volume, see `read_tiff`.
        RuntimeError: it cannot be read.
    """
    if is_tiff(file):
        return read_tiff(file)
    if is_nifti2(file):
        return read_with_nibabel(file)
    image = sitk.ReadImage(str(file))
    if is_grey_bmp(file):
        return sitk.VectorIndexSelectionCast(image, 0)
    return image == _WHITE if _is_one_bit(file) else image


def read_pixels(file: Path) -> sitk.Image:
    """Read an image of any number of axes and of values per voxel, as `read_volume` reads one value per voxel.

    Raises:
        AttenScribbleError: naming the file and what is wrong with it.
    """
    image = _read_file(file, thorough=True, whole=True)
    assert isinstance(image, sitk.Image)  # as it was asked for whole
    return image


def stamp(file: Path) -> tuple[int, int] | None:
    """What is another when a file has changed; None where there is none."""
    return (file.stat().st_mtime_ns, file.stat().st_size) if file.is_file() else None


def describe(source: Source, role: str) -> str:
    """How an error names this source: by the file or folder it is read from, else by its role (`image 0 of case a`)."""
    path = _path_of(source)
    return role if path is None else str(path)


def file_of(source: Source | None) -> Path | None:
    """The file that a source is, or is read from; None where there is none, or several."""
    path = _path_of(source)
    return None if path is None or path.is_dir() else path


def _path_of(source: Source | None) -> Path | None:
    return source if isinstance(source, Path) else getattr(source, "file", None)


def unscale_label(label: sitk.Image) -> tuple[sitk.Image, bool]:
    """A label with the integers that its values were before its header scaled them, and whether any is another now.

    A NIfTI file may hold its values divided by a slope, as nibabel writes numbers with a fraction: 1 is read as 1.0039
    then. Values that are integers but for half a step of the slope, which must be below 1, were integers. A label with
    any other stays as it is.
    """
    slope, values = _slope(label), sitk.GetArrayViewFromImage(label)
    if slope >= 1 or np.issubdtype(values.dtype, np.integer) or not (np.abs(values) < _TOO_LARGE).all():
        return label, False
    whole = np.round(values)
    away = np.abs(values - whole)
    if not away.any() or (away > slope / 2 + _ROUNDING * np.abs(values)).any():
        return label, False
    rounded = sitk.GetImageFromArray(whole)
    rounded.CopyInformation(label)
    for key in label.GetMetaDataKeys():
        rounded.SetMetaData(key, label.GetMetaData(key))
    return rounded, True


def _slope(label: sitk.Image) -> float:
    return abs(float(label.GetMetaData("scl_slope"))) if label.HasMetaDataKey("scl_slope") else 1.0


def label_values(label: sitk.Image, name: str) -> np.ndarray:
    """The voxels of a label as integers, in numpy's order (z, y, x).

    Args:
        label: as it was read; see `unscale_label` for those that nnU-Net, which cuts fractions off, does not read.
        name: how errors call it.

    Raises:
        AttenScribbleError: where a voxel is not an integer.
    """
    values = sitk.GetArrayFromImage(label)
    if not np.issubdtype(values.dtype, np.integer):
        # Plane by plane, for the memory that rounded copies take.
        whole = np.stack([(np.abs(plane) < _TOO_LARGE) & (plane == np.round(plane)) for plane in values])
        if not whole.all():
            found = ", ".join(str(value) for value in np.unique(values[~whole])[:5])
            if unscale_label(label)[1]:
                raise AttenScribbleError(
                    f"{name}: its header scales values by {_slope(label):g} (scl_slope), so that they are read as "
                    f"{found}, which nnU-Net cuts to integers: save it as integers, unscaled"
                )
            raise AttenScribbleError(
                f"{name}: label values that are not integers ({found}): was it resampled with interpolation? "
                "Export it again with nearest neighbour"
            )
        in_a_byte = values.min() >= 0 and values.max() <= np.iinfo(np.uint8).max  # as in most files of integers
        values = values.astype(np.uint8 if in_a_byte else np.int64)
    return values


def count_values(labels: np.ndarray) -> dict[int, int]:
    """Voxels by value, of integers."""
    if labels.dtype == np.uint8:  # where nothing need be sorted
        # Plane by plane, as each is copied to integers of eight bytes.
        counts = sum((np.bincount(plane.ravel(), minlength=256) for plane in labels), np.zeros(256, int))
        return {value: int(counts[value]) for value in np.flatnonzero(counts).tolist()}
    return {int(value): int(count) for value, count in zip(*np.unique(labels, return_counts=True), strict=True)}


def slice_axis(shape: Sequence[int], spacing: Sequence[float], drawn: int | None = None) -> int:
    """The axis across which a volume is cut into slices.

    Args:
        shape: voxels per axis.
        spacing: mm per axis, in the same order.
        drawn: the axis that slices were drawn on across, where that is known.

    Returns:
        The axis that is one voxel long, as that of a 2D scan saved as a volume, whose spacing along it means nothing;
        where none is, or several are, `drawn`, or that of the largest spacing, the first of those equal but for
        rounding.
    """
    single = [axis for axis, length in enumerate(shape) if length == 1]
    if len(single) == 1:
        return single[0]
    if drawn is not None:
        return drawn
    steps = np.asarray(spacing, dtype=float)
    return int(np.argmax(steps >= steps.max() * (1 - SPACING_TOLERANCE)))


def has_consistent_header(image: Opened) -> bool:
    """Whether every NIfTI reader will see the spacing that SimpleITK sees.

    Some files, ACDC's among them, carry an sform of unit scale beside the true voxel size. SimpleITK falls back to the
    latter (and warns at each reading), others do not. Nor do they all regard a unit other than mm. An image without
    NIfTI header fields is consistent.
    """
    if image.HasMetaDataKey("xyzt_units") and int(image.GetMetaData("xyzt_units")) & _UNIT_OF_SPACE not in (0, _MM):
        return False
    keys = ("srow_x", "srow_y", "srow_z", "sform_code", "pixdim[1]", "pixdim[2]", "pixdim[3]")
    if not all(image.HasMetaDataKey(key) for key in keys) or int(image.GetMetaData("sform_code")) == 0:
        return True
    rows = np.array([image.GetMetaData(f"srow_{axis}").split()[:3] for axis in "xyz"], dtype=float)
    edges = np.array([image.GetMetaData(f"pixdim[{axis}]") for axis in (1, 2, 3)], dtype=float)
    return bool(np.allclose(np.linalg.norm(rows, axis=0), edges, rtol=SPACING_TOLERANCE))


def write_volume(image: sitk.Image, path: Path) -> None:
    """Write a compressed image and make sure that it arrived whole.

    Raises:
        OSError: for instance on a full disk, which ITK's writer passes over in silence.
    """
    try:
        if has_right_angles(image) or not path.name.endswith((".nii", ".nii.gz")):  # NRRD holds any axes
            with quiet():
                sitk.WriteImage(image, str(path), useCompression=True)
        else:
            write_with_nibabel(image, path)
        voxels = image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel() * image.GetSizeOfPixelComponent()
        if not path.name.endswith(".gz"):
            # A single slice may come back without its third axis.
            found, expected = (sitk.GetArrayFromImage(each).ravel() for each in (read_image(path), image))
            if not np.array_equal(found, expected):
                raise EOFError
        # Otherwise it has another header than usual, or is not whole.
        elif _told_size(path) != (_HEADER + voxels) % 2**32 and decompressed_size(path) < voxels:
            raise EOFError
    except (RuntimeError, EOFError, zlib.error) as error:
        raise OSError(f"{path} was not written completely: is the disk full?") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check_file(path: Path, *, thorough: bool = True) -> int | None:
    """Refuse a file that did not arrive whole, see `soundness.examine`.

    Returns:
        the bytes of NIfTI without their compression, None of another format, or if not `thorough`.

    Raises:
        AttenScribbleError: naming the file and what is wrong with it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
        if not start:
            raise AttenScribbleError(f"{path}: is empty: copy or download it again")
        if (ending := known_ending(path)) is not None:
            known = f"{path.name[: -len(ending)]}{ending}"
            raise AttenScribbleError(f"{path}: SimpleITK does not know this ending in capitals: rename it to {known}")
        if path.suffix.lower() == ".gz" and start != b"\x1f\x8b":
            raise AttenScribbleError(f"{path}: is named .gz but is not gzip data: download it again or rename it")
        size, problems = examine(path) if thorough else (None, [])
    except FileNotFoundError:
        raise AttenScribbleError(f"{path}: does not exist") from None
    except (EOFError, zlib.error):
        raise AttenScribbleError(_CORRUPT.format(path)) from None
    except OSError as error:
        raise AttenScribbleError(f"{path}: cannot be read ({error.strerror or error})") from None
    refuse(problems)
    return size


def _read_file(path: Path, thorough: bool, whole: bool) -> Opened:
    size = check_file(path, thorough=thorough)
    is_nifti = size is not None or (not thorough and path.name.lower().endswith((".nii", ".nii.gz")))
    try:
        with quiet():
            image: Opened | None = None if whole or not is_nifti or is_nifti2(path) else read_header(path)
            if image is None or not image.HasMetaDataKey("bitpix") or image.GetPixelID() not in _SCALARS:
                image = read_image(path)
    except (EOFError, zlib.error):
        raise AttenScribbleError(_CORRUPT.format(path)) from None
    except RuntimeError as error:
        told = " ".join(str(error).rpartition("ERROR: ")[2].split())
        if "orthonormal" in told:
            raise AttenScribbleError(
                f"{path}: its axes are not at right angles, which SimpleITK refuses ({told}): "
                "resample it, or if it is of an nnU-Net dataset, name NibabelIO in its dataset.json "
                "(overwrite_image_reader_writer)"
            ) from None
        with path.open("rb") as file:
            start = file.read(_SHORT).partition(b"IDAT")[0]
        if start.startswith(_PNG) and (start[25:26] == b"\x04" or b"tRNS" in start):  # the kind of its pixels
            raise AttenScribbleError(
                f"{path}: has grey values and an opacity, which SimpleITK refuses: save it without opacity (alpha)"
            ) from None
        raise AttenScribbleError(f"{path}: is truncated, or not an image that SimpleITK can read ({told})") from None
    return image


def _is_one_bit(path: Path) -> bool:
    """Whether it is a grey PNG whose pixels are truth values, 0 and 1 to nnU-Net."""
    with path.open("rb") as file:
        start = file.read(26)
    return start.startswith(_PNG) and start[24:] == b"\x01\x00"  # bits, and the kind of its pixels


def _told_size(path: Path) -> int:
    """The last four bytes of a gzip file, its size before compression; anything else in one that is not whole."""
    with path.open("rb") as file:
        file.seek(max(file.seek(0, 2) - 4, 0))
        return int.from_bytes(file.read(4), "little")
