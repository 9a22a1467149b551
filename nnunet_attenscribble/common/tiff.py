"""TIFF as nnU-Net reads it: the voxels as they lie in the file, the spacing from a JSON file beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

__all__ = ["TiffError", "find_sidecar", "is_tiff", "read_tiff"]

_CHANNEL = re.compile(r"_\d{4}$")


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
    """Read a TIFF, without the resolution among its tags, which is for printing and knows two axes.

    Returns:
        An image of as many axes as the array in the file, with the spacing of its sidecar if it has three, else 1 mm.

    Raises:
        TiffError: the file holds several images, or its sidecar no three positive numbers.
        RuntimeError: the file cannot be read.
    """
    import tifffile

    try:
        with tifffile.TiffFile(file) as content:
            separate = len(content.series)
            voxels, colours = content.asarray(), content.series[0].axes.endswith("S")
        image = sitk.GetImageFromArray(voxels.astype(np.uint8) if voxels.dtype == bool else voxels, isVector=colours)
    except Exception as error:  # what the codecs raise has nothing in common
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
    if separate > 1:  # slices written one by one, of which only the first was read
        raise TiffError(f"{file}: holds {separate} separate images: save it as one stack")
    sidecar = find_sidecar(file)
    if sidecar is not None and image.GetDimension() == 3:
        image.SetSpacing(_read_spacing(sidecar)[::-1])
    return image


def _read_spacing(file: Path) -> list[float]:
    """mm along z, y, x."""
    try:
        spacing = [float(step) for step in json.loads(file.read_text(encoding="utf-8"))["spacing"]]
    except (OSError, ValueError, KeyError, TypeError):
        spacing = []
    if len(spacing) != 3 or not all(0 < step < float("inf") for step in spacing):
        raise TiffError(
            f'{file} lies beside a TIFF and does not tell its spacing: write {{"spacing": [z, y, x]}} into it, in mm'
        )
    return spacing
