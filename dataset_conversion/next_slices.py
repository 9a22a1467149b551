"""Which slices to draw on next: those of which a model is least sure, spread over the cases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_dilation

from nnunet_attenscribble.common.formats import holds_place
from nnunet_attenscribble.common.grids import turn_upright
from nnunet_attenscribble.common.progress import show_progress
from nnunet_attenscribble.common.volumes import describe, file_of, read_volume, slice_axis
from nnunet_attenscribble.dataset_conversion.contact_sheet import Section, draw_sections
from nnunet_attenscribble.dataset_conversion.next_drawings import as_volume, find_offset, tell_slice
from nnunet_attenscribble.dataset_conversion.next_folder import CaseToDraw, DrawnCase
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.trained_model import TrainedModel, predict_case

_LEAST = 0.01  # added to the foreground of a slice: where nothing is predicted yet, doubt alone decides
_LEVEL = 0.2  # of a case's length: slices of different cases that lie closer show much the same
_NEIGHBOUR = 0.5  # of the score of a slice beside one that is drawn or chosen
_COARSE = 2.0  # times the next spacing: nobody draws across another axis then
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
    entropy: np.ndarray, disagreement: np.ndarray, labels: np.ndarray, drawn: np.ndarray, axis: int
) -> CaseSlices:
    """The slices of a case.

    Args:
        entropy, disagreement: maps (Z, Y, X), see `trained_model`.
        labels: (Z, Y, X) predicted.
        drawn: (N,), whether a slice holds a stroke.
        axis: across which slices are cut.
    """
    within = _within(axis)
    planes = [np.moveaxis(voxels, axis, 0) for voxels in (labels, entropy)]
    count = int(labels.max()) + 1
    by_class = np.stack([np.bincount(of.ravel(), doubt.ravel(), count) for of, doubt in zip(*planes, strict=True)])
    by_class[:, 0] = 0  # it surrounds all others, and is always unsure along them
    return CaseSlices(
        axis,
        entropy.mean(axis=within, dtype=float),
        disagreement.mean(axis=within, dtype=float),
        (labels > 0).mean(axis=within),
        by_class.argmax(axis=1),
        drawn,
    )


def _within(axis: int) -> tuple[int, ...]:
    """The axes of an array (z, y, x) in a slice across this one."""
    return tuple(other for other in range(3) if other != axis)


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
            near = np.where(binary_dilation(taken[case]), _NEIGHBOUR, 1.0)
            spread = scores * near / ((1 + numbers[case]) * (1 + crowd))
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


@dataclass(frozen=True)
class Search:
    """What was found.

    Attributes:
        cases: that were predicted: those with a slice that nobody drew on.
        slices: of each.
        chosen: slices to draw on, the best first.
    """

    cases: Mapping[str, CaseToDraw]
    slices: Mapping[str, CaseSlices]
    chosen: Sequence[ChosenSlice]
    labels: Mapping[str, int]
    predictions: Path

    def list_rows(self, tool: str) -> list[dict[str, Any]]:
        """A row per slice, for tables."""
        names = {value: name for name, value in self.labels.items()}
        rows = []
        for rank, chosen in enumerate(self.chosen, start=1):
            slices = self.slices[chosen.case]
            grid = self.cases[chosen.case].read_grid()
            letter, offset = find_offset(slices.axis, chosen.position, grid)
            drawn = int(slices.drawn.sum())
            rows.append(
                {
                    "rank": rank,
                    "case": chosen.case,
                    "slice": tell_slice(tool, slices.axis, chosen.position, grid),
                    "axis": "zyx"[slices.axis],
                    "index_from_0": chosen.position,
                    "offset_mm": f"{letter} {offset:.2f}",
                    "entropy": round(float(slices.entropy[chosen.position]), 5),
                    "disagreement": round(float(slices.disagreement[chosen.position]), 5),
                    "reason": f"most unsure of {names.get(int(slices.unsure[chosen.position]), 'a label')}; "
                    f"{drawn or 'none'} of {len(slices.drawn)} drawn",
                }
            )
        return rows

    def list_drawn_cases(self) -> Iterator[DrawnCase]:
        """The cases with a chosen slice, in the order of their best one; each is read when it is asked for."""
        for name in dict.fromkeys(chosen.case for chosen in self.chosen):
            case = self.cases[name]
            yield DrawnCase(case, case.read_strokes(self.labels), self._read_prediction(name))

    def draw(self, tool: str, title: str) -> bytes:
        """A PNG of the chosen slices with what is predicted."""
        sections = []
        for rank, chosen in enumerate(self.chosen, 1):
            case, slices = self.cases[chosen.case], self.slices[chosen.case]
            scan = as_volume(sitk.GetArrayFromImage(read_volume(case.shown, "", thorough=False)))
            grid = case.read_grid()
            spacing = grid.spacing[::-1] if len(grid.size) == 3 else (1.0, *grid.spacing[::-1])
            cut = [np.take(each, chosen.position, slices.axis) for each in (scan, self._read_prediction(chosen.case))]
            # As the tool shows it: napari as it is stored.
            known = grid if tool != "napari" and holds_place(file_of(case.shown)) else None
            (section, labels), (down, across) = turn_upright(cut, spacing, slices.axis, known)
            told = f"{rank}: {chosen.case}, {tell_slice(tool, slices.axis, chosen.position, grid)}"
            sections.append(Section(told, section.astype(float), labels, down / across))
        return draw_sections(sections, labels=self.labels, outlined="prediction", title=title)

    def _read_prediction(self, name: str) -> np.ndarray:
        with np.load(self.predictions / f"{name}.npz") as file:
            return file["labels"]


def search_slices(
    model: TrainedModel,
    cases: Mapping[str, CaseToDraw],
    labels: Mapping[str, int],
    *,
    count: int,
    predictions: Path,
    axis: int | None = None,
    progress: bool = False,
) -> Search:
    """Predict every case with a slice that nobody drew on, and choose slices.

    Args:
        model: that predicts.
        cases: by their names.
        labels: name to value, background included.
        count: of slices to choose.
        predictions: an empty folder, which keeps them.
        axis: of the arrays (z, y, x), across which slices are cut; None: the coarsest, and where none is, that across
            which strokes were drawn.
        progress: shown on stderr.

    Raises:
        AttenScribbleError: every case that cannot be read or predicted.
    """
    problems: list[str] = []
    axes = _find_axes(cases, labels, axis, problems)
    refuse(problems)
    free: dict[str, np.ndarray] = {}
    for name, case in show_progress(cases.items(), total=len(cases), description="Reading strokes", enabled=progress):
        try:
            drawn = (case.read_strokes(labels) != len(labels)).any(axis=_within(axes[name]))
        except AttenScribbleError as error:
            problems += error.problems
            continue
        if not drawn.all():
            free[name] = drawn
    refuse(problems)
    looked: dict[str, CaseSlices] = {}
    for name, drawn in show_progress(free.items(), total=len(free), description="Predicting", enabled=progress):
        try:
            looked[name] = _look(model, cases[name], drawn, axes[name], predictions)
        except AttenScribbleError as error:
            problems += error.problems
    refuse(problems)
    return Search({name: cases[name] for name in looked}, looked, choose_slices(looked, count), labels, predictions)


def _find_axes(
    cases: Mapping[str, CaseToDraw], labels: Mapping[str, int], given: int | None, problems: list[str]
) -> dict[str, int]:
    """The axis of each case: the given one, the coarsest, or where none is that across which strokes were drawn."""
    axes: dict[str, int] = {}
    undecided = []
    for name, case in cases.items():
        try:
            grid = case.read_grid()
        except AttenScribbleError as error:
            problems += error.problems
            continue
        if len(grid.size) == 2:
            axes[name] = 0
            continue
        axes[name] = slice_axis(grid.size[::-1], grid.spacing[::-1]) if given is None else given
        if 1 not in grid.size and max(grid.spacing) <= _COARSE * sorted(grid.spacing)[-2]:
            undecided.append(name)
    if given is not None:
        return axes

    def read_drawn() -> Iterator[np.ndarray]:
        for name in undecided:
            if cases[name].label is not None:
                try:
                    yield cases[name].read_strokes(labels) != len(labels)
                except AttenScribbleError as error:
                    problems.extend(error.problems)

    across = find_drawing_axis(read_drawn())
    return axes if across is None else {**axes, **dict.fromkeys(undecided, across)}


def _look(model: TrainedModel, case: CaseToDraw, drawn: np.ndarray, axis: int, folder: Path) -> CaseSlices:
    """Predict a case, keep the labels, and measure its slices."""
    predicted = predict_case(model, list(case.images))
    maps = case.turn(predicted.labels, predicted.entropy, predicted.disagreement, to_nnunet=False)
    shape = (1, *case.read_grid().size[::-1])[-3:]
    if maps[0].shape != shape:
        name = describe(case.shown, f"case {case.identifier}")
        raise AttenScribbleError(f"{name}: nnU-Net reads {maps[0].shape} voxels (z, y, x) where {shape} are")
    # Of a thousand volumes few are drawn on, and labels are packed to a hundredth.
    np.savez_compressed(folder / f"{case.identifier}.npz", labels=maps[0])
    return measure_slices(maps[1], maps[2], maps[0], drawn, axis)
