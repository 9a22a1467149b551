"""TIFF: the voxels as they lie in the file, as nnU-Net reads them, and the spacing from where it is stated."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import SimpleITK as sitk

if TYPE_CHECKING:
    from tifffile import TiffFile

__all__ = ["TiffError", "find_sidecar", "is_tiff", "read_tiff", "stated_spacing"]

_CHANNEL = re.compile(r"_\d{4}$")
_TOLERANCE = 1e-3  # relative, between two statements of one spacing
_MM = {
    **{"nm": 1e-6, "\u03bcm": 1e-3, "um": 1e-3, "micron": 1e-3, "microns": 1e-3, "mm": 1.0},
    **{"cm": 10.0, "m": 1e3, "in": 25.4, "inch": 25.4, "nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0},
}


class TiffError(RuntimeError):
    """What a TIFF, or the spacing beside it, lacks to be a volume; the message names the file."""


def is_tiff(file: Path) -> bool:
    """By its name."""
    return file.suffix.lower() in (".tif", ".tiff")


def find_sidecar(file: Path) -> Path | None:
    """The file that holds the spacing of a TIFF, `CASE.json` for a label and for every channel; None without one."""
    names = (file.stem, _CHANNEL.sub("", file.stem)) if is_tiff(file) else ()
    places = (file.with_name(f"{name}.json") for name in names)
    return next((place for place in places if place.is_file()), None)


def read_tiff(file: Path) -> sitk.Image:
    """Read a TIFF.

    Returns:
        An image of as many axes as the array in the file, with its `stated_spacing`, or 1 mm where none is stated.

    Raises:
        TiffError: the file holds several images, or its spacing is stated in two ways or is no three positive numbers.
        RuntimeError: the file cannot be read.
    """
    import tifffile

    try:
        with tifffile.TiffFile(file) as content:
            _check_stack(file, content)
            voxels, colours = content.asarray(), content.series[0].axes.endswith("S")
        image = sitk.GetImageFromArray(voxels.astype(np.uint8) if voxels.dtype == bool else voxels, isVector=colours)
    except TiffError:
        raise
    except Exception as error:  # what the codecs raise has nothing in common
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
    spacing = stated_spacing(file) if image.GetDimension() in (2, 3) else None
    if spacing is not None and len(spacing) >= image.GetDimension():
        image.SetSpacing(spacing[: image.GetDimension()])
    return image


def stated_spacing(file: Path) -> tuple[float, ...] | None:
    """mm along x, y and z, or along x and y alone, as stated in the sidecar or among the tags of ImageJ or OME.

    The plain resolution of a TIFF, which is for printing, states nothing, and neither do pixels as a unit.

    Raises:
        TiffError: two of these places differ, the sidecar has no three positive numbers, or the file several images.
        RuntimeError: the file cannot be read.
    """
    import tifffile

    found: dict[str, tuple[float, ...]] = {}
    sidecar = find_sidecar(file)
    if sidecar is not None:
        found[str(sidecar)] = _read_sidecar(sidecar)
    try:
        with tifffile.TiffFile(file) as content:
            _check_stack(file, content)
            tags = {"its ImageJ tags": _read_imagej(content), "its OME metadata": _read_ome(content.ome_metadata)}
    except TiffError:
        raise
    except Exception as error:  # see above
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
    found.update({place: spacing for place, spacing in tags.items() if spacing})
    places = list(found)
    for place in places[1:]:
        axes = min(len(found[places[0]]), len(found[place]))
        if not np.allclose(found[places[0]][:axes], found[place][:axes], rtol=_TOLERANCE, atol=0):
            told = " and ".join(f"{name} say {_tell(found[name])}" for name in (places[0], place))
            raise TiffError(f"{file}: its spacing is stated in two ways, {told} mm along x, y, z: correct one of them")
    return max(found.values(), key=len, default=None)


def _check_stack(file: Path, content: TiffFile) -> None:
    separate = len(content.series)
    if separate > 1:  # slices written one by one, of which only the first would be read
        raise TiffError(f"{file}: holds {separate} separate images: save it as one stack")


def _read_sidecar(file: Path) -> tuple[float, ...]:
    try:
        spacing = [float(step) for step in json.loads(file.read_text(encoding="utf-8"))["spacing"]]
    except (OSError, ValueError, KeyError, TypeError):
        spacing = []
    if len(spacing) != 3 or not all(map(_is_length, spacing)):
        raise TiffError(
            f'{file} lies beside a TIFF and does not tell its spacing: write {{"spacing": [z, y, x]}} into it, in mm'
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
            length = (
                abs(float(step)) * _MM[str(unit).replace("\\u00B5", "\u00b5").strip().casefold()]
            )  # as ImageJ escapes
        except (TypeError, ValueError, KeyError):
            break
        if not _is_length(length):
            break
        found.append(length)
    return tuple(found) if len(found) >= 2 else None


def _is_length(step: float) -> bool:
    return 0 < step < float("inf")


def _tell(spacing: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{step:.6g}" for step in spacing) + ")"
