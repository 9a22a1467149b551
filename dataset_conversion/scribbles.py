"""Scribbles drawn into dense labels, slice by slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from zlib import crc32

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, label

from nnunet_attenscribble.common.volumes import slice_axis
from nnunet_attenscribble.dataset_conversion.scribble_rules import ScribbleRules
from nnunet_attenscribble.dataset_conversion.strokes import (
    MARGIN,
    deepest_point,
    draw_line,
    level_line,
    part_of_line,
    skeleton,
    smooth_noise,
    spline_through,
    stroke_along_border,
    stroke_inside,
    zigzag,
)

__all__ = ["choose_axis", "draw_scribbles"]

_EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner are one component

Box = tuple[slice, slice]  # rows and columns of a slice
_Stroke = tuple[int, np.ndarray, np.ndarray]  # slice, rows and columns of its pixels


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
        for stroke in _draw_background(rng, mask, bool(mask.all()), box, rules):
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
    rng: np.random.Generator, mask: np.ndarray, is_empty: bool, box: tuple[int, int, int, int], rules: ScribbleRules
) -> Iterator[np.ndarray]:
    """A stroke around the foreground; in a slice without any, one to and fro where other slices show it."""
    if is_empty:
        line = zigzag(rng, box)
    else:
        field = distance = distance_transform_edt(mask)
        breadth = float(np.sqrt((~mask).sum()))
        away = max(2.0, rng.uniform(*rules.background_distance) * breadth)
        if rules.background_wander:
            field = distance * np.exp(rules.background_wander * smooth_noise(rng, mask.shape, breadth / 4))
        line = level_line(field, min(away, 0.5 * float(field.max())))
        length = np.linalg.norm(np.diff(line, axis=0), axis=1).sum() if len(line) else 0.0
        line = part_of_line(rng, line, rules.background_length * length * rng.uniform(0.8, 1.4))
    if rules.style == "points":
        line = line[len(line) // 2 :][:1]
    stroke = draw_line(line, rules.thickness, mask)
    if not stroke.any():
        stroke = deepest_point(rng, mask)
    yield stroke
    if rules.style == "interior+border" and not is_empty:
        line = level_line(distance, rng.uniform(*rules.border_depth) + rules.thickness / 2)
        yield draw_line(part_of_line(rng, line, rng.uniform(*rules.border_share) * len(line)), rules.thickness, mask)


def _bounding_box(sections: np.ndarray) -> tuple[int, int, int, int]:
    """Rows and columns in which any slice shows foreground; of a case without any, the middle half."""
    shown = np.asarray((sections > 0).any(axis=0))
    if not shown.any():
        rows, columns = shown.shape
        return rows // 4, 3 * rows // 4, columns // 4, 3 * columns // 4
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
