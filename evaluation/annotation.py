"""How much of a case is annotated, and what results tell of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from statistics import fmean

import cc3d
import numpy as np


@dataclass(frozen=True)
class Annotation:
    """Of one case, or the mean over several.

    Attributes:
        voxels: that are not `ignore`.
        share: these as a share of all voxels.
        strokes: components of a class in single slices, corners joining.
        slices: with a voxel that is not `ignore`, across the axis of the largest spacing.
    """

    voxels: float
    share: float
    strokes: float
    slices: float


#: By the attribute, the key under which the provenance of a result tells it.
ANNOTATED = {field.name: f"annotated_{field.name}" for field in fields(Annotation)}


def count_annotation(labels: np.ndarray, axis: int, ignore: int) -> Annotation:
    """Annotation of one case.

    Args:
        labels: (Z, Y, X) or (Y, X).
        axis: of a volume, across which slices are cut.
        ignore: value of what is not annotated.
    """
    sections = labels[None] if labels.ndim == 2 else np.moveaxis(labels, axis, 0)
    known = sections != ignore
    strokes = 0
    for section, drawn in zip(sections, known, strict=True):
        # All classes at once, the background too: 0 would be no stroke.
        values = np.where(drawn, section.astype(np.uint32) + 1, 0)
        strokes += cc3d.connected_components(values, connectivity=8, return_N=True)[1]
    return Annotation(float(known.sum()), float(known.mean()), float(strokes), float(known.any(axis=(1, 2)).sum()))


def average_annotation(annotations: Iterable[Annotation]) -> Annotation:
    """The mean over cases, or over trainings."""
    return Annotation(*map(fmean, zip(*map(astuple, annotations), strict=True)))


def find_annotation(provenance: Mapping[str, str | None]) -> Annotation | None:
    """What the provenance of a result tells, or None where it tells nothing."""
    try:
        return Annotation(*(float(provenance[key] or "") for key in ANNOTATED.values()))
    except (KeyError, ValueError):
        return None
