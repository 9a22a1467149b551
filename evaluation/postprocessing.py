"""Keep the largest component of a class, where the scribbles of the training cases show that it is one object.

nnU-Net's automatic postprocessing compares scores with and without the removal of smaller components. Scored on
scribbles it cannot see the components that lie where nobody drew, and scored on dense labels it would use labels that a
scribble-supervised method must not have. The rule here needs scribbles only: if the annotators' own strokes of a class,
joined where they lie close together, form one object in nearly every training case, the class is one object.

The removal is nnU-Net's own, `remove_all_but_largest_component_from_segmentation`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_attenscribble.evaluation.structures import Structure

__all__ = [
    "AGREEMENT",
    "FOREGROUND",
    "Decision",
    "StrokeEvidence",
    "apply_decisions",
    "choose_foreground",
    "decide",
    "join_strokes",
]

FOREGROUND = "foreground"

# The share of a class's strokes that its largest object must hold. Organs that come in pairs have about half of them in
# either; of one organ, strokes that are broken into pieces further apart than they can be joined leave a few per cent
# outside. So the value between them matters little, and no score was looked at to choose it.
AGREEMENT = 0.9
_FEWEST_CASES = 3


@dataclass(frozen=True)
class StrokeEvidence:
    """How the strokes of one class in one case hang together.

    Attributes:
        case: its identifier.
        structure: name of the class.
        strokes: pieces that touch within a slice, corners included.
        objects: groups of strokes after joining those that lie close together.
        voxels: of all strokes.
        largest_voxels: of the strokes of the largest object.
    """

    case: str
    structure: str
    strokes: int
    objects: int
    voxels: int
    largest_voxels: int


@dataclass(frozen=True)
class Decision:
    """Whether to keep the largest component of a class only, and why.

    Attributes:
        structure: name of the class, or of the whole foreground.
        values: its label values; all of them are removed together outside the largest component.
        keep_largest: the decision.
        cases: training cases with strokes of the class.
        single: those in which they form one object.
        share: of the strokes' voxels that lie in the largest object, averaged over these cases; NaN without any.
        reason: in words.
    """

    structure: str
    values: tuple[int, ...]
    keep_largest: bool
    cases: int
    single: int
    share: float
    reason: str


def join_strokes(strokes: np.ndarray, annotated: np.ndarray, spacing: Sequence[float]) -> tuple[int, int, int]:
    """Group the strokes of one class in one case into objects.

    Two strokes of a slice, or of two slices that follow each other, belong to one object if their in-plane distance is
    at most the distance between the slices (45 degrees), and at least two pixels count as close. Slices in which
    nothing at all was annotated are passed over; a slice that was annotated without this class ends the object.

    Args:
        strokes: boolean, (Y, X) or (Z, Y, X), slices along Z.
        annotated: boolean, (Z,): slices in which any class, background included, was drawn; ignored for (Y, X).
        spacing: millimetres per axis of `strokes`.

    Returns:
        the numbers of strokes and of objects, and the voxels of the largest object.
    """
    from scipy.ndimage import label
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    if strokes.ndim == 2:
        strokes, annotated, spacing = strokes[None], np.ones(1, bool), (0.0, *spacing)
    in_plane = np.asarray(spacing[1:], dtype=float)
    drawn = np.flatnonzero(annotated)
    total, sizes, pairs, before = 0, [], [], None
    for order, z in enumerate(drawn):
        pieces, count = label(strokes[z], np.ones((3, 3)))
        here = None
        if count:
            points = np.argwhere(pieces)
            numbers = pieces[tuple(points.T)] - 1 + total
            sizes += np.bincount(numbers - total, minlength=count).tolist()
            here = cKDTree(points * in_plane), numbers
            pairs += _list_close(here, here, max(spacing[0], 2 * in_plane.max()))
            if before is not None:
                distance = (z - drawn[order - 1]) * spacing[0]
                pairs += _list_close(here, before, max(distance, 2 * in_plane.max()))
            total += count
        before = here
    if not total:
        return 0, 0, 0
    first, second = np.array(pairs).T
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(total, total))
    objects, group = connected_components(graph, directed=False)
    return total, int(objects), int(np.bincount(group, weights=sizes).max())


def decide(
    evidence: Iterable[StrokeEvidence], structures: Sequence[Structure], *, agreement: float = AGREEMENT
) -> list[Decision]:
    """Decide for each class by the scribbles of the training cases.

    Args:
        evidence: of all training cases and classes; cases without a stroke of a class say nothing about it.
        structures: in the order in which they are to be applied.
        agreement: the share of the strokes' voxels that the largest object must hold on average.
    """
    found: dict[str, list[StrokeEvidence]] = {structure.name: [] for structure in structures}
    for entry in evidence:
        if entry.objects and entry.structure in found:
            found[entry.structure].append(entry)
    return [_decide_one(structure, found[structure.name], agreement) for structure in structures]


def apply_decisions(segmentation: np.ndarray, decisions: Sequence[Decision]) -> tuple[np.ndarray, list[int]]:
    """Remove all but the largest component of every class that is to be one object, in the order of `decisions`.

    Args:
        segmentation: integers, (Y, X) or (Z, Y, X); left as it is.
        decisions: of `decide`; one that is not to keep the largest component is passed over.

    Returns:
        the segmentation with what was removed as background, and the number of voxels that each decision removed.
    """
    remove = _import_removal()
    removed = []
    for decision in decisions:
        before = segmentation
        if decision.keep_largest:
            # nnU-Net takes a list of labels as one mask, and so the largest component of them together.
            segmentation = remove(segmentation, list(decision.values))
        removed.append(int(np.count_nonzero(segmentation != before)))
    return segmentation, removed


def choose_foreground(structures: Sequence[Structure]) -> Decision:
    """The choice to keep the largest component of all classes together, as nnU-Net tries first.

    It is the user's: scribbles do not show whether classes touch each other.
    """
    values = tuple(sorted({value for structure in structures for value in structure.values}))
    return Decision(FOREGROUND, values, True, 0, 0, float("nan"), "asked for, not derived from the scribbles")


def _list_close(one: tuple, other: tuple, reach: float) -> list[tuple[int, int]]:
    """Pairs of strokes with points no further apart than `reach`."""
    (tree, numbers), (other_tree, other_numbers) = one, other
    # Rounding must not separate what lies exactly at the limit.
    near = tree.query_ball_tree(other_tree, reach * (1 + 1e-6))
    return sorted({(int(numbers[point]), int(other_numbers[hit])) for point, hits in enumerate(near) for hit in hits})


def _decide_one(structure: Structure, evidence: Sequence[StrokeEvidence], agreement: float) -> Decision:
    single = sum(entry.objects == 1 for entry in evidence)
    shares = [entry.largest_voxels / entry.voxels for entry in evidence]
    share = float(np.mean(shares)) if shares else float("nan")
    if len(evidence) < _FEWEST_CASES:
        keep, reason = False, f"only {len(evidence)} training cases have strokes of it, fewer than {_FEWEST_CASES}"
    else:
        keep = share >= agreement
        reason = (
            f"the largest object holds {100 * share:.1f} % of the strokes on average over {len(evidence)} training "
            f"cases, {'at least' if keep else 'less than'} {100 * agreement:g} %"
        )
    return Decision(structure.name, structure.values, keep, len(evidence), single, share, reason)


def _import_removal():
    # nnU-Net prints about its folders, which are not needed here, as soon as it is imported.
    with contextlib.redirect_stdout(io.StringIO()):
        from nnunetv2.postprocessing.remove_connected_components import (
            remove_all_but_largest_component_from_segmentation,
        )
    return remove_all_but_largest_component_from_segmentation
