"""Scribbles drawn into dense labels, slice by slice: by what rules, and the drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args
from zlib import crc32

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, label

from nnunet_attenscribble.common.shapes import SIZE, read_keys
from nnunet_attenscribble.common.volumes import slice_axis
from nnunet_attenscribble.dataset_conversion import Style
from nnunet_attenscribble.dataset_conversion.strokes import (
    MARGIN,
    deepest_point,
    draw_line,
    level_lines,
    measure_line,
    part_of_line,
    skeleton,
    smooth_noise,
    spline_through,
    stroke_along_border,
    stroke_inside,
    surrounds,
    zigzag,
)
from nnunet_attenscribble.errors import AttenScribbleError, refuse

STYLES: tuple[str, ...] = get_args(Style)
_EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner are one component

Box = tuple[slice, slice]  # rows and columns of a slice
_Stroke = tuple[int, np.ndarray, np.ndarray]  # slice, rows and columns of its pixels


@dataclass(frozen=True)
class ScribbleRules:
    """What is drawn into each slice.

    The defaults follow the expert scribbles of ACDC (`python -m tools.timing.scribbles`).

    Attributes:
        style: `interior`, one smooth stroke inside each component; `interior+border`, with one more along a stretch of
            its outline; `skeleton`, its whole skeleton; `points`, its deepest pixel.
        thickness: of strokes, in pixels.
        coverage: share of a component's pixels under its interior stroke; less where the curve is not as long.
        background_distance: from the foreground to the stroke around it, as a share of the foreground's width (the
            root of its area), lowest and highest.
        background_wander: by how much of its distance that stroke comes nearer and goes farther on its way, as the
            standard deviation of the distance's logarithm; 0 keeps the distance.
        border_share: lowest and highest share of the outline that a border stroke takes.
        border_depth: pixels from the outline to a border stroke, lowest and highest.
        slices: share of each case's slices that are annotated at all, of those with and of those without foreground.
        classes: share of the classes in an annotated slice that get strokes; always one at least.
        strokes: share of each class's strokes in a case that are drawn; always one at least.
        all_components: strokes in every component of a class, or in one drawn by area.
        dense_slices: with a number n, every n-th slice is labelled as a whole and the others not at all, in place of
            strokes; the first of them is drawn so that one shows foreground, where any does.
        axis: of the array (z, y, x), across which slices are cut; None: see `slice_axis`.
        spline_points: with a number, interior strokes are B-splines through so many random points of the component,
            as ScribbleBench draws them, and those of the background are drawn like those of any class.
        seed: of everything drawn.
    """

    style: str = "interior"
    thickness: float = 1.25
    coverage: float = 0.16
    background_distance: tuple[float, float] = (0.1, 0.45)
    background_wander: float = 0.4
    border_share: tuple[float, float] = (0.07, 0.15)
    border_depth: tuple[float, float] = (2.0, 5.0)
    slices: float = 1.0
    classes: float = 1.0
    strokes: float = 1.0
    all_components: bool = True
    dense_slices: int | None = None
    axis: int | None = None
    spline_points: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values out of range, all of them at once."""
        problems = []
        if self.style not in STYLES:
            problems.append(f"style is {self.style!r}: choose one of {', '.join(STYLES)}")
        if not 0 < self.thickness < float("inf"):
            problems.append(f"thickness is {self.thickness}: give a number of pixels above 0")
        for name in ("coverage", "slices", "classes", "strokes"):
            if not 0 < getattr(self, name) <= 1:
                problems.append(f"{name} is {getattr(self, name)}: give a share above 0, 1 at most")
        low, high = self.background_distance
        if not 0 < low <= high < float("inf"):
            problems.append(f"background_distance is {low} to {high}: give two shares above 0, the lower first")
        if not 0 <= self.background_wander < 1:
            problems.append(f"background_wander is {self.background_wander}: give a number from 0, below 1")
        if not 0 < self.border_share[0] <= self.border_share[1] <= 1:
            problems.append(f"border_share is {self.border_share}: give two shares above 0, the lower first")
        if not 0 <= self.border_depth[0] <= self.border_depth[1] < float("inf"):
            problems.append(f"border_depth is {self.border_depth}: give two numbers of pixels, the lower first")
        if self.axis not in (None, 0, 1, 2):
            problems.append(f"axis is {self.axis}: give 0, 1 or 2 (z, y, x)")
        if self.spline_points is not None and self.spline_points < 3:
            problems.append(f"spline_points is {self.spline_points}: a quadratic curve needs 3 at least")
        if self.dense_slices is not None:
            if self.dense_slices < 2:
                problems.append(f"dense_slices is {self.dense_slices}: give 2 at least, every second slice")
            strokes = [
                field.name
                for field in fields(self)
                if field.name not in ("dense_slices", "axis", "seed") and getattr(self, field.name) != field.default
            ]
            if strokes:
                problems.append(f"dense_slices labels slices as a whole: leave out {', '.join(strokes)}")
        if self.seed < 0:
            problems.append(f"seed is {self.seed}: give a whole number from 0")
        refuse(problems)


def read_scribblebench(file: Path, seed: int = 0) -> ScribbleRules:
    """ScribbleBench's `scribble_conf.yml` in the terms of this package.

    One component per class and slice, drawn by area, gets a spline and, if so configured, a stroke along its outline.
    The strokes are not those that ScribbleBench's own unseeded script draws, but drawn by the same rules.

    Raises:
        AttenScribbleError: for every part that is not understood; nothing is passed over.
    """
    problems: list[str] = []
    keys = read_keys(file, problems, "give ScribbleBench's scribble_conf.yml")
    keys.check_names(("filter", "foreground", "background", "generation_properties"))
    keys.mapping("filter").take("min_area", _only(0), "0: here every component counts", 0)
    foreground = keys.mapping("foreground")
    if keys.content.get("foreground") != keys.content.get("background"):
        problems.append("foreground and background differ: only equal settings are understood")
    foreground.take("class_probabilities", _only(1), "1: every class of a slice is drawn", 1)
    slices = foreground.take("num_slice_range", _real, "one number here, not a range", 1.0)
    scribbles = foreground.mapping("scribbles")
    scribbles.check_names(("nurbs", "contour"))
    nurbs, contour = scribbles.mapping("nurbs"), scribbles.mapping("contour")
    for entry in (nurbs, contour):
        entry.take("num_scribbles", _only(1), "1", 1)
    if scribbles.content.get("nurbs") is None:
        problems.append("needs 'foreground.scribbles.nurbs'")
    points = nurbs.mapping("params").take_shape("num_control_points", SIZE, 4)
    params = contour.mapping("params")
    share = params.take("scribble_length_range", _pair, "two numbers", (0.07, 0.15))
    depth = params.take("disk_size_range", _pair, "two numbers", (1.0, 4.0))
    thickness = keys.mapping("generation_properties").take("scribble_thickness", _real, "a number of pixels", 3.0)
    border: dict[str, Any] = {}
    if scribbles.content.get("contour") is not None:
        border = {"style": "interior+border", "border_share": share, "border_depth": depth}
    if not problems:
        try:
            return ScribbleRules(
                thickness=thickness, slices=slices, all_components=False, spline_points=points, seed=seed, **border
            )
        except AttenScribbleError as error:
            problems = error.problems
    raise AttenScribbleError(f"{file}: {problem}" for problem in problems)


def _only(value: int) -> Callable[[Any], int | None]:
    return lambda given: value if given == value else None


def _real(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _pair(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = map(_real, value)
    return None if low is None or high is None else (low, high)


def draw_scribbles(
    labels: np.ndarray, spacing: Sequence[float], rules: ScribbleRules, ignore: int, case: str
) -> np.ndarray:
    """Scribbles of one case, which depend on nothing but the arguments.

    Of the same seed, those of a smaller share of slices or of strokes are among those of a larger one.

    Args:
        labels: (Z, Y, X) or (Y, X), background 0.
        spacing: per axis of `labels`.
        rules: what to draw.
        ignore: value of what is left unlabelled.
        case: its name, from which its random numbers come.

    Returns:
        uint8, like `labels`; no pixel has another class than there.
    """
    volume = labels if labels.ndim == 3 else labels[None]
    axis = choose_axis(labels.shape, spacing, rules) if labels.ndim == 3 else 0
    sections = np.moveaxis(volume, axis, 0)
    out = np.full(sections.shape, ignore, np.uint8)
    key = [rules.seed, crc32(case.encode())]
    if rules.dense_slices is not None:
        first = _choose_first(np.random.default_rng(key), sections, rules.dense_slices)
        out[first :: rules.dense_slices] = sections[first :: rules.dense_slices]
        return np.ascontiguousarray(np.moveaxis(out, 0, axis).reshape(labels.shape))
    box = _bounding_box(sections)
    drawn: dict[int, list[_Stroke]] = {}  # by class
    for position in _choose_slices(np.random.default_rng(key), sections, rules):
        section = sections[position]
        boxes = find_objects(section)
        for value in _choose_classes(np.random.default_rng([*key, position]), section, rules):
            rng = np.random.default_rng([*key, position, value])
            place = _widen(boxes[value - 1], section.shape) if value else (slice(None), slice(None))
            mask = section[place] == value
            for part, stroke in _draw_class(rng, value, mask, box, rules):
                pixels = np.nonzero(stroke & mask[part])
                if not pixels[0].size:  # a stroke along a border may find no room
                    continue
                rows, columns = (
                    own + (outer.start or 0) + (inner.start or 0)
                    for own, outer, inner in zip(pixels, place, part, strict=True)
                )
                drawn.setdefault(value, []).append((position, rows, columns))
    for value, strokes in drawn.items():
        for position, rows, columns in _choose_strokes(np.random.default_rng([*key, 0, value, 0]), strokes, rules):
            out[position, rows, columns] = value
    return np.ascontiguousarray(np.moveaxis(out, 0, axis).reshape(labels.shape))


def choose_axis(shape: Sequence[int], spacing: Sequence[float], rules: ScribbleRules) -> int:
    """The axis across which a volume is cut into slices: the one asked for, or see `slice_axis`."""
    return slice_axis(shape, spacing) if rules.axis is None else rules.axis


def _choose_slices(rng: np.random.Generator, sections: np.ndarray, rules: ScribbleRules) -> list[int]:
    shows = (sections > 0).any(axis=(1, 2))
    chosen: list[int] = []
    for group in (np.flatnonzero(shows), np.flatnonzero(~shows)):
        count = max(1, round(rules.slices * len(group))) if len(group) else 0
        chosen += rng.permutation(group)[:count].tolist()
    return sorted(chosen)


def _choose_first(rng: np.random.Generator, sections: np.ndarray, step: int) -> int:
    shows = np.flatnonzero((sections > 0).any(axis=(1, 2)))
    return int(rng.choice(np.unique((shows if shows.size else np.arange(len(sections))) % step)))


def _choose_classes(rng: np.random.Generator, section: np.ndarray, rules: ScribbleRules) -> list[int]:
    values = np.unique(section)
    count = max(1, round(rules.classes * len(values)))
    return np.sort(rng.permutation(values)[:count]).tolist()


def _choose_strokes(rng: np.random.Generator, strokes: Sequence[_Stroke], rules: ScribbleRules) -> list[_Stroke]:
    count = max(1, round(rules.strokes * len(strokes)))
    return [strokes[number] for number in rng.permutation(len(strokes))[:count]]


def _draw_class(
    rng: np.random.Generator, value: int, mask: np.ndarray, box: tuple[int, int, int, int], rules: ScribbleRules
) -> Iterator[tuple[Box, np.ndarray]]:
    """Boxes of the mask and what is drawn in them: each component takes the time of its own box, not of the slice."""
    if value == 0 and rules.spline_points is None:
        for stroke in _draw_background(rng, mask, box, rules):
            yield (slice(None), slice(None)), stroke
        return
    components, count = label(mask, _EIGHT)
    chosen = np.arange(1, count + 1)
    if not rules.all_components:
        areas = np.bincount(components.ravel())[1:]
        chosen = rng.choice(chosen, 1, p=areas / areas.sum())
    boxes = find_objects(components)
    for number in chosen:
        part = _widen(boxes[number - 1], mask.shape)
        component = components[part] == number
        yield part, _draw_interior(rng, component, rules)
        if rules.style == "interior+border":
            yield part, stroke_along_border(rng, component, rules.border_share, rules.border_depth, rules.thickness)


def _widen(box: Box, shape: tuple[int, ...]) -> Box:
    """A box with the margin that strokes need, as far as there are pixels."""
    rows, columns = (
        slice(max(side.start - MARGIN, 0), min(side.stop + MARGIN, length))
        for side, length in zip(box, shape, strict=True)
    )
    return rows, columns


def _draw_interior(rng: np.random.Generator, component: np.ndarray, rules: ScribbleRules) -> np.ndarray:
    if rules.style == "skeleton":
        return skeleton(component)
    if rules.style == "points":
        return deepest_point(rng, component)
    if rules.spline_points is not None:
        return spline_through(rng, component, rules.spline_points, rules.thickness)
    return stroke_inside(rng, component, rules.coverage, rules.thickness)


def _draw_background(
    rng: np.random.Generator, mask: np.ndarray, box: tuple[int, int, int, int], rules: ScribbleRules
) -> Iterator[np.ndarray]:
    """A stroke around every object; in a slice without any, one to and fro where other slices show some."""
    is_empty = bool(mask.all())
    if is_empty:
        parts = [zigzag(rng, box)]
    else:
        field = distance = distance_transform_edt(mask)
        breadth = float(np.sqrt((~mask).sum()))
        away = max(2.0, rng.uniform(*rules.background_distance) * breadth)
        if rules.background_wander:
            field = distance * np.exp(rules.background_wander * smooth_noise(rng, mask.shape, breadth / 4))
        parts = [
            part_of_line(rng, line, measure_line(line) * rng.uniform(0.8, 1.4))
            for line in _lines_around(field, min(away, 0.5 * float(field.max())), ~mask)
        ]
    thickness = rules.thickness
    if rules.style == "points":
        parts, thickness = [line[len(line) // 2 :][:1].round() for line in parts], 1.0
    stroke = np.any([draw_line(line, thickness, mask) for line in parts], axis=0)
    if not stroke.any():
        stroke = deepest_point(rng, mask)
    yield stroke
    if rules.style == "interior+border" and not is_empty:
        for line in _lines_around(distance, rng.uniform(*rules.border_depth) + rules.thickness / 2, ~mask):
            part = part_of_line(rng, line, rng.uniform(*rules.border_share) * measure_line(line))
            yield draw_line(part, rules.thickness, mask)


def _lines_around(field: np.ndarray, level: float, foreground: np.ndarray) -> list[np.ndarray]:
    """The longest line of a level and every other one that goes around foreground: each object has its own."""
    longest, *others = level_lines(field, level) or [np.empty((0, 2))]
    return [longest, *(line for line in others if surrounds(line, foreground))]


def _bounding_box(sections: np.ndarray) -> tuple[int, int, int, int]:
    """Rows and columns in which any slice shows foreground; of a case without any, the middle half."""
    shown = np.asarray((sections > 0).any(axis=0))
    if not shown.any():
        rows, columns = shown.shape
        return rows // 4, 3 * rows // 4, columns // 4, 3 * columns // 4
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
