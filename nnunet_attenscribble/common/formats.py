"""What SimpleITK does not take or tell of image files: NIfTI through nibabel (NIfTI-2, sheared axes), TIFF through
tifffile, its voxels as nnU-Net reads them, and whether a file says how far apart its voxels are, or leaves readers to
assume 1 mm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.grids import PICTURES, TIFFS, Placed, read_header
from nnunet_attenscribble.common.soundness import known_ending, read_scaling
from nnunet_attenscribble.common.text import format_vector
from nnunet_attenscribble.errors import AttenScribbleError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

_NRRD_KEYS, _METAIMAGE_KEYS = (b"spacings:", b"space directions:"), (b"ElementSpacing", b"ElementSize")
_KEYS = {".nrrd": _NRRD_KEYS, ".nhdr": _NRRD_KEYS, ".mha": _METAIMAGE_KEYS, ".mhd": _METAIMAGE_KEYS}
_HEADER = 1 << 14  # bytes
# nibabel's axes point to right, anterior and superior, SimpleITK's first two away
_TO_LPS = np.array([-1.0, -1.0, 1.0])
_MM_OF_NIFTI = {"meter": 1e3, "micron": 1e-3}  # which SimpleITK regards and nibabel does not
_CHANNEL = re.compile(r"_\d{4}$")
_TOLERANCE = 1e-3  # relative, between two statements of one spacing
_MM_OF_TIFF = {
    **{"nm": 1e-6, "\u03bcm": 1e-3, "um": 1e-3, "micron": 1e-3, "microns": 1e-3, "mm": 1.0},
    **{"cm": 10.0, "m": 1e3, "in": 25.4, "inch": 25.4, "nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0},
}


@contextmanager
def quiet() -> Iterator[None]:
    """Without ITK's C++ warnings, which no caller can catch and which would bury our own messages."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def holds_place(file: Path | None) -> bool:
    """Whether a file's format can say where its voxels lie; None, for what is no file, can."""
    return file is None or not (is_tiff(file) or file.suffix.lower() in PICTURES)


def states_spacing(file: Path, image: Placed) -> bool:
    """Whether the spacing of an image along all of its axes stands in its file, or beside a TIFF.

    Args:
        file: that was read and found in order.
        image: what was read.
    """
    if is_tiff(file):
        return len(stated_spacing(file) or ()) >= len(image.GetSize())
    if any(step != 1 for step in image.GetSpacing()):
        return True
    if file.suffix.lower() in PICTURES:
        return False
    keys = _KEYS.get(file.suffix.lower())
    if keys is None:
        return True
    with file.open("rb") as stream:
        lines = stream.read(_HEADER).split(b"\n")
    return any(line.startswith(keys) and b"nan" not in line.lower() for line in lines)


# --- NIfTI ---


def read_with_nibabel(file: Path) -> sitk.Image:
    """Read a file of up to three axes; more than these, of one frame each, are dropped.

    Raises:
        RuntimeError: it cannot be read.
    """
    import nibabel

    try:
        loaded: Any = nibabel.load(file)
        voxels = np.asanyarray(loaded.dataobj)  # scaled where the header says so
        while voxels.ndim > 3 and voxels.shape[-1] == 1:
            voxels = voxels[..., 0]
        image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose()))
    except Exception as error:  # what nibabel raises has nothing in common
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
    note_slope([image], file)
    scale = _MM_OF_NIFTI.get(loaded.header.get_xyzt_units()[0], 1.0)
    affine = np.diag([scale, scale, scale, 1.0]) @ loaded.affine
    place(image, affine, [scale * float(step) for step in loaded.header.get_zooms()[: image.GetDimension()]])
    return image


def note_slope(channels: Iterable[sitk.Image], file: Path) -> None:
    """Tell, as SimpleITK does of what it reads, by which slope a readable file's voxels were scaled, if they were."""
    if scaling := read_scaling(file):
        for image in channels:
            image.SetMetaData("scl_slope", repr(scaling[0]))


def place(image: sitk.Image, affine: np.ndarray, spacing: Sequence[float]) -> None:
    """Give an image nibabel's grid.

    Args:
        image: of two or three axes; others are left as they are.
        affine: (4, 4), from indices to mm.
        spacing: mm along x, y, z: that of the header, which nnU-Net takes, and not always the length of the affine's
            columns.
    """
    count = image.GetDimension()
    if count > 3:
        return
    columns = (_TO_LPS[:, None] * affine[:3, :3])[:count, :count]
    image.SetSpacing([abs(float(step)) for step in spacing])
    image.SetOrigin((_TO_LPS * affine[:3, 3])[:count].tolist())
    if np.linalg.det(columns):
        image.SetDirection((columns / np.linalg.norm(columns, axis=0)).ravel().tolist())


def is_sheared(file: Path) -> bool:
    """Whether it is a NIfTI file whose axes SimpleITK refuses, as they are not at right angles."""
    if not file.name.lower().endswith((".nii", ".nii.gz")) or known_ending(file) is not None:
        return False
    try:
        with quiet():
            read_header(file)
    except RuntimeError as error:
        return "orthonormal" in str(error)
    return False


def has_right_angles(image: sitk.Image) -> bool:
    """Whether SimpleITK writes its axes as they are, and does not coerce them."""
    axes = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)
    return bool(np.allclose(axes.T @ axes, np.eye(len(axes)), atol=1e-4))


def write_with_nibabel(image: sitk.Image, file: Path) -> None:
    """Write a volume of three axes as NIfTI."""
    import nibabel

    axes = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine = np.eye(4)
    affine[:3, :3] = _TO_LPS[:, None] * axes
    affine[:3, 3] = _TO_LPS * np.array(image.GetOrigin())
    voxels = sitk.GetArrayFromImage(image).transpose()
    nibabel.save(nibabel.Nifti1Image(voxels, affine, dtype=voxels.dtype), file)


# --- TIFF ---


def is_tiff(file: Path) -> bool:
    """By its name."""
    return file.suffix.lower() in TIFFS


def is_grey_bmp(file: Path) -> bool:
    """Whether it holds grey values, which nnU-Net reads as one channel and SimpleITK as three of the same."""
    if file.suffix.lower() != ".bmp":
        return False
    from PIL.BmpImagePlugin import BmpImageFile

    try:
        with BmpImageFile(file) as picture:  # its header alone, however large: Image.open refuses very large pictures
            return picture.mode == "L"
    except (OSError, ValueError, SyntaxError):  # told where it is read
        return False


def find_sidecar(file: Path) -> Path | None:
    """The file that holds the spacing of a TIFF, `CASE.json` for a label and for every channel; None without one.

    JSON with other keys alone, as LabelMe and others put it beside pictures, is none.
    """
    names = (file.stem, _CHANNEL.sub("", file.stem)) if is_tiff(file) else ()
    places = (file.with_name(f"{name}.json") for name in names)
    return next((place for place in places if place.is_file() and not _tells_other_things(place)), None)


def _tells_other_things(file: Path) -> bool:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False  # whoever reads its spacing will tell
    return isinstance(content, dict) and bool(content) and "spacing" not in content


def read_tiff(file: Path) -> sitk.Image:
    """Read a TIFF.

    Returns:
        An image of as many axes as the array in the file, with its `stated_spacing`, or 1 mm where none is stated.

    Raises:
        AttenScribbleError: the file holds several images, or its spacing is stated in two ways or is no three positive
            numbers.
        RuntimeError: the file cannot be read.
    """
    with _open_stack(file) as content:
        axes = content.series[0].axes
        if "T" in axes and len(axes.removesuffix("S")) == 3:
            raise AttenScribbleError(
                f"{file}: says that it shows one plane at several times (axes {axes}): save each as a picture, or, "
                "where they are slices, call them so (Fiji: Image, Properties)"
            )
        if "C" in axes and len(axes) == 3:
            raise AttenScribbleError(
                f"{file}: says that it shows one plane in several channels (axes {axes}): save each as an image, "
                "CASE_0000.tif and so on, or, where they are slices, call them so (Fiji: Image, Properties)"
            )
        voxels, colours = content.asarray(), axes.endswith("S")
        if is_planar(content.series[0]):
            voxels, colours = np.moveaxis(voxels, 0, -1), True
        image = sitk.GetImageFromArray(voxels.astype(np.uint8) if voxels.dtype == bool else voxels, isVector=colours)
    spacing = stated_spacing(file) if image.GetDimension() in (2, 3) else None
    if spacing is not None and len(spacing) >= image.GetDimension():
        image.SetSpacing(spacing[: image.GetDimension()])
    return image


def stated_spacing(file: Path) -> tuple[float, ...] | None:
    """mm along x, y and z, or along x and y alone, as stated in the sidecar or among the tags of ImageJ or OME.

    The plain resolution of a TIFF, which is for printing, states nothing, and neither do pixels as a unit.

    Raises:
        AttenScribbleError: two of these places differ, the sidecar has no three positive numbers, or the file several
            images.
        RuntimeError: the file cannot be read.
    """
    found: dict[str, tuple[float, ...]] = {}
    sidecar = find_sidecar(file)
    if sidecar is not None:
        found[str(sidecar)] = _read_sidecar(sidecar)
    with _open_stack(file) as content:
        tags = {"its ImageJ tags": _read_imagej(content), "its OME metadata": _read_ome(content.ome_metadata)}
    found.update({place: spacing for place, spacing in tags.items() if spacing})
    places = list(found)
    for place in places[1:]:
        axes = min(len(found[places[0]]), len(found[place]))
        if not np.allclose(found[places[0]][:axes], found[place][:axes], rtol=_TOLERANCE, atol=0):
            told = " and ".join(f"{name} say {format_vector(found[name])}" for name in (places[0], place))
            raise AttenScribbleError(
                f"{file}: its spacing is stated in two ways, {told} mm along x, y, z: correct one of them"
            )
    return max(found.values(), key=len, default=None)


def is_planar(series: TiffPageSeries) -> bool:
    """Whether a picture's colours lie in it plane behind plane.

    tifffile, and so nnU-Net and napari, stores volumes of three and four slices just so; the note of their shape that
    it leaves with them, and other writers do not, tells them apart.
    """
    return series.axes == "SYX" and series.kind != "shaped"


@contextmanager
def _open_stack(file: Path) -> Iterator[TiffFile]:
    """A TIFF that holds one image; whatever goes wrong with it becomes one of the errors above."""
    import tifffile

    try:
        with tifffile.TiffFile(file) as content:
            separate = len(content.series)
            if separate > 1:  # slices written one by one, of which only the first would be read
                raise AttenScribbleError(f"{file}: holds {separate} separate images: save it as one stack")
            yield content
    except AttenScribbleError:
        raise
    except Exception as error:  # what the codecs raise has nothing in common
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _read_sidecar(file: Path) -> tuple[float, ...]:
    try:
        spacing = [float(step) for step in json.loads(file.read_text(encoding="utf-8-sig"))["spacing"]]
    except (OSError, ValueError, KeyError, TypeError):
        spacing = []
    if len(spacing) != 3 or not all(map(_is_length, spacing)):
        raise AttenScribbleError(
            f'{file} lies beside a TIFF and does not tell its spacing: write {{"spacing": [z, y, x]}} into it, in mm, '
            "or move it elsewhere"
        )
    return tuple(spacing[::-1])


def _read_imagej(content: TiffFile) -> tuple[float, ...] | None:
    described = content.imagej_metadata
    page = content.pages.first
    if not described or not {"XResolution", "YResolution"} <= {tag.name for tag in page.tags}:
        return None
    resolution = [page.tags[f"{axis}Resolution"].value for axis in "XY"]  # pixels per unit, as a fraction
    steps = [bottom / top if top else 0.0 for top, bottom in resolution]
    return _to_mm([*steps, described.get("spacing")], [described.get("unit")] * 3)


def _read_ome(text: str | None) -> tuple[float, ...] | None:
    try:
        pixels = ElementTree.fromstring(text or "").find(".//{*}Pixels")
    except ElementTree.ParseError:
        return None
    given: Mapping[str, str] = {} if pixels is None else pixels.attrib
    units = [given.get(f"PhysicalSize{axis}Unit", "\u00b5m") for axis in "XYZ"]  # its default
    return _to_mm([given.get(f"PhysicalSize{axis}") for axis in "XYZ"], units)


def _to_mm(steps: list, units: list) -> tuple[float, ...] | None:
    """As many axes from x on as have a length."""
    found: list[float] = []
    for step, unit in zip(steps, units, strict=True):
        try:
            written = str(unit).replace("\\u00B5", "\u00b5")  # as ImageJ escapes
            length = abs(float(step)) * _MM_OF_TIFF[written.strip().casefold()]
        except (TypeError, ValueError, KeyError):
            break
        if not _is_length(length):
            break
        found.append(length)
    return tuple(found) if len(found) >= 2 else None


def _is_length(step: float) -> bool:
    return 0 < step < float("inf")
