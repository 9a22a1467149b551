"""Whether anything was drawn at all, and what was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.dataset_conversion.cases import IGNORE, Case, CheckedCase, Coding

__all__ = ["drawing_notes", "nothing_drawn_problems"]


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
