"""Which slices to draw on next: those of which a model is least sure, spread over the cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["CaseSlices", "ChosenSlice", "choose_slices", "find_drawing_axis", "measure_slices"]

_LEAST = 0.01  # added to the foreground of a slice: where nothing is predicted yet, doubt alone decides
_LEVEL = 0.2  # of a case's length: slices of different cases that lie closer show much the same
_NEIGHBOUR = 0.5  # of the score of a slice beside one that is drawn or chosen
_DECISIVE = 2.0  # times as many strokes go on along another axis


@dataclass(frozen=True, eq=False)
class CaseSlices:
    """The slices of one case along an axis of its array.

    Attributes:
        axis: across which they are cut, of the array (z, y, x).
        entropy, disagreement: (N,), mean over each slice.
        foreground: (N,), share of each slice that is predicted as a structure.
        unsure: (N,), the class predicted where most of a slice's entropy is; background only where no other is.
        drawn: (N,), whether a slice holds a stroke.
    """

    axis: int
    entropy: np.ndarray
    disagreement: np.ndarray
    foreground: np.ndarray
    unsure: np.ndarray
    drawn: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """By which slices are ranked, before they are spread: doubt, where there is something to draw.

        By doubt alone, slices beyond the ends of an organ come first, whose strokes teach little but background.
        """
        return (self.entropy + self.disagreement) * (self.foreground + _LEAST)

    @property
    def levels(self) -> np.ndarray:
        """Where each slice lies along the case, from 0 to 1."""
        return (np.arange(len(self.drawn)) + 0.5) / len(self.drawn)


@dataclass(frozen=True)
class ChosenSlice:
    """A slice to draw on: its place on the array's axis, from 0, and the score with which it was chosen."""

    case: str
    position: int
    score: float


def measure_slices(
    entropy: np.ndarray, disagreement: np.ndarray, labels: np.ndarray, strokes: np.ndarray, axis: int
) -> CaseSlices:
    """The slices of a case.

    Args:
        entropy, disagreement: maps (Z, Y, X), see `trained_model`.
        labels: (Z, Y, X) predicted.
        strokes: (Z, Y, X), whether a voxel is under a stroke.
        axis: across which slices are cut.
    """
    within = tuple(other for other in range(3) if other != axis)
    classes = np.unique(labels)
    by_class = np.stack([np.where(labels == value, entropy, 0).sum(axis=within) for value in classes])
    by_class[classes == 0] = 0  # it surrounds all others, and is always unsure along them
    return CaseSlices(
        axis,
        entropy.mean(axis=within, dtype=float),
        disagreement.mean(axis=within, dtype=float),
        (labels > 0).mean(axis=within),
        classes[by_class.argmax(axis=0)],
        np.asarray(strokes.any(axis=within)),
    )


def choose_slices(cases: Mapping[str, CaseSlices], count: int) -> list[ChosenSlice]:
    """The slices to draw on next, the best first; none that is drawn on already.

    One after the other, that of the highest score: entropy and disagreement of the slice times its foreground, divided
    by one more than the slices of its case that are chosen already, and by one more than those at its level in all
    cases (less as they lie farther off); halved beside a slice that is drawn or chosen. Of equal ones, the first by
    case and position.
    """
    base = {case: np.where(slices.drawn, -1.0, slices.scores) for case, slices in sorted(cases.items())}
    taken = {case: slices.drawn.copy() for case, slices in cases.items()}
    numbers = dict.fromkeys(cases, 0)
    levels: list[float] = []
    chosen: list[ChosenSlice] = []
    while len(chosen) < count:
        best: ChosenSlice | None = None
        for case, scores in base.items():
            free = ~taken[case]
            if not free.any():
                continue
            crowd = np.clip(1 - np.abs(np.subtract.outer(cases[case].levels, levels)) / _LEVEL, 0, None).sum(axis=1)
            spread = scores * np.where(_beside(taken[case]), _NEIGHBOUR, 1.0) / ((1 + numbers[case]) * (1 + crowd))
            position = int(np.where(free, spread, -np.inf).argmax())
            if best is None or spread[position] > best.score:
                best = ChosenSlice(case, position, float(spread[position]))
        if best is None:
            break
        chosen.append(best)
        taken[best.case][best.position] = True
        numbers[best.case] += 1
        levels.append(float(cases[best.case].levels[best.position]))
    return chosen


def _beside(taken: np.ndarray) -> np.ndarray:
    beside = np.zeros_like(taken)
    beside[1:] |= taken[:-1]
    beside[:-1] |= taken[1:]
    return beside


def find_drawing_axis(strokes: Iterable[np.ndarray]) -> int | None:
    """The axis across which strokes were drawn; None where they do not tell.

    A stroke goes on from pixel to pixel within its slice, and rarely from slice to slice.

    Args:
        strokes: of each case, (Z, Y, X), whether a voxel is under a stroke.
    """
    going_on = np.zeros(3)
    for drawn in strokes:
        for axis in range(3):
            along = np.moveaxis(drawn, axis, 0)
            going_on[axis] += np.count_nonzero(along[1:] & along[:-1])
    least, next_one = np.sort(going_on)[:2]
    return int(going_on.argmin()) if next_one > _DECISIVE * least else None
