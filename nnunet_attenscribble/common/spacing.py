"""Whether a file says how far apart its voxels are, or leaves readers to assume 1 mm."""

from __future__ import annotations

from pathlib import Path

from nnunet_attenscribble.common.grids import Placed
from nnunet_attenscribble.common.tiff import is_tiff, stated_spacing

__all__ = ["holds_place", "states_spacing"]

_PICTURES = (".png", ".bmp", ".jpg", ".jpeg")
_KEYS = {".nrrd": (b"spacings:", b"space directions:"), ".mha": (b"ElementSpacing", b"ElementSize")}
_HEADER = 1 << 14  # bytes


def holds_place(file: Path | None) -> bool:
    """Whether a file's format can say where its voxels lie; None, for what is no file, can."""
    return file is None or not (is_tiff(file) or file.suffix.lower() in _PICTURES)


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
    if file.suffix.lower() in _PICTURES:
        return False
    keys = _KEYS.get(file.suffix.lower())
    if keys is None:
        return True
    with file.open("rb") as stream:
        lines = stream.read(_HEADER).split(b"\n")
    return any(line.startswith(keys) and b"nan" not in line.lower() for line in lines)
