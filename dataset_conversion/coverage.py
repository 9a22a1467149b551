"""How much of each class its scribbles cover, and which of its pieces have none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label

__all__ = ["ClassCoverage", "measure_coverage", "sum_coverage"]


@dataclass(frozen=True)
class ClassCoverage:
    """Of one class, in one case or in several.

    Attributes:
        scribbled: voxels under its scribbles.
        wrong: voxels scribbled as this class that the dense label gives to another.
        voxels: of the class in the dense label.
        slices: that show the class.
        slices_without: of these, without a scribble of it.
        pieces: components of the class in single slices, corners joining.
        pieces_without: of these, without a scribble of it.
    """

    scribbled: int = 0
    wrong: int = 0
    voxels: int = 0
    slices: int = 0
    slices_without: int = 0
    pieces: int = 0
    pieces_without: int = 0


def measure_coverage(scribble: np.ndarray, dense: np.ndarray, value: int, axis: int = 0) -> ClassCoverage:
    """Coverage of one class in one case.

    Args:
        scribble: (Z, Y, X) or (Y, X) labels.
        dense: of the same shape.
        value: of the class.
        axis: of a volume, across which slices are cut.
    """
    if dense.ndim == 2:
        scribble, dense, axis = scribble[None], dense[None], 0
    strokes, mask = (np.moveaxis(array == value, axis, 0) for array in (scribble, dense))
    slices = slices_without = pieces = pieces_without = 0
    for drawn, section in zip(strokes, mask, strict=True):
        components, count = label(section, np.ones((3, 3)))
        if not count:
            continue
        touched = np.unique(components[drawn & section])
        slices += 1
        slices_without += not touched.size
        pieces += count
        pieces_without += count - touched.size
    wrong = int((strokes & ~mask).sum())
    return ClassCoverage(int(strokes.sum()), wrong, int(mask.sum()), slices, slices_without, pieces, pieces_without)


def sum_coverage(parts: Sequence[ClassCoverage]) -> ClassCoverage:
    """Of several cases together."""
    totals = np.sum([list(vars(part).values()) for part in parts], axis=0).tolist() if parts else []
    return ClassCoverage(*totals)
