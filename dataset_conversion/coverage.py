"""How much of each class its scribbles cover, which of its pieces have none, and whether anything was drawn at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label

from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.dataset_conversion.cases import IGNORE, Case, CheckedCase, Coding

__all__ = ["ClassCoverage", "drawing_notes", "measure_coverage", "nothing_drawn_problems", "sum_coverage"]


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


def nothing_drawn_problems(cases: Sequence[Case], checked: Sequence[CheckedCase], coding: Coding) -> list[str]:
    """Of scribbles in which no class has a stroke, in any case; none where they are trusted."""
    drawn = [result.scribble_voxels for case, result in zip(cases, checked, strict=True) if case.scribbled]
    if coding.trusted or not drawn or any(any(voxels[1 : coding.ignore]) for voxels in drawn):
        return []
    strokes = "a stroke of a class" if any(voxels[0] for voxels in drawn) else "a stroke"
    return [
        f"none of the {len(drawn)} scribbles holds {strokes}: draw first, or say which value is unlabelled "
        "(--unlabelled, --coding) and which are classes (--labels); --trust-scribbles takes them as they are"
    ]


def drawing_notes(cases: Sequence[Case], checked: Sequence[CheckedCase], voxels: Mapping[str, int]) -> list[str]:
    """Of classes that are drawn nowhere, and of cases in which nothing is.

    Args:
        cases: with what was found when they were checked.
        checked: the same.
        voxels: of all training cases together by label: of scribbles, where `ignore` is among them, or of dense labels.
    """
    scribbles = IGNORE in voxels
    never = [label for label, count in voxels.items() if not count and label not in ("background", IGNORE)]
    notes = [
        f"WARNING: {label} {'has no stroke in any case' if scribbles else 'is in no dense label'}: nothing teaches it"
        for label in never
    ]
    if not scribbles:
        return notes
    if not voxels["background"]:
        notes.append("no scribble marks background: a network cannot learn from them where its classes end")
    used = [(case, result) for case, result in zip(cases, checked, strict=True) if case.scribbled]
    empty = [case.identifier for case, result in used if not any(result.scribble_voxels[:-1])]
    if empty:
        notes.append(f"{len(empty)} of {len(used)} scribbles hold no stroke: {list_some(empty)}")
    return notes
