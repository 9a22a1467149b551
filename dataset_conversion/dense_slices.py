"""Volumes of which single slices are labelled as a whole, and the others not at all."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.volumes import slice_axis
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["complete_slices"]


def complete_slices(
    values: np.ndarray, ignore: int, rest: str, axis: int | None, label: sitk.Image, name: str
) -> tuple[np.ndarray, bool]:
    """Make background of what is in no class in the slices that show one, and leave the other slices unlabelled.

    Args:
        values: (z, y, x) or (y, x), background 0, then classes, then `ignore`.
        ignore: of unlabelled voxels.
        rest: what the file calls voxels in no class: `background` or `unlabelled`.
        axis: across which slices are cut; None: the coarsest.
        label: with the spacing.
        name: for errors.

    Returns:
        the values, and whether they were labelled so at all: a file with strokes in the background, or with unlabelled
        voxels where its rest is background, stays as it is.

    Raises:
        AttenScribbleError: where the axis is not told, and none is the coarsest.
    """
    if (values == (ignore if rest == "background" else 0)).any():
        return values, False
    if values.ndim == 3:
        across = _coarsest(label, name) if axis is None else axis
        others = tuple({0, 1, 2} - {across})
    else:
        others = (0, 1)
    shows = ((values > 0) & (values < ignore)).any(axis=others, keepdims=True)
    completed = np.where(shows, np.where(values == ignore, 0, values), ignore)
    return completed.astype(values.dtype), True


def _coarsest(label: sitk.Image, name: str) -> int:
    shape, spacing = label.GetSize()[::-1], label.GetSpacing()[::-1]
    first, second = sorted(spacing, reverse=True)[:2]
    if first < 1.01 * second and shape.count(1) != 1:
        raise AttenScribbleError(
            f"{name}: no axis has the largest spacing: say across which one its slices are labelled, --axis 0, 1 or 2 "
            "(z, y, x)"
        )
    return slice_axis(shape, spacing)
