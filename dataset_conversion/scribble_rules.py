"""How scribbles are drawn into dense labels: the options, and ScribbleBench's configuration in their terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from nnunet_attenscribble.common.shapes import count, read_keys
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["STYLES", "ScribbleRules", "read_scribblebench"]

STYLES = ("interior", "interior+border", "skeleton", "points")


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
        background_length: share of the line around the foreground that the background stroke takes in the mean.
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
    background_length: float = 1.0
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
        for name in ("coverage", "background_length", "slices", "classes", "strokes"):
            if not 0 < getattr(self, name) <= 1:
                problems.append(f"{name} is {getattr(self, name)}: give a share above 0, 1 at most")
        low, high = self.background_distance
        if not 0 < low <= high < float("inf"):
            problems.append(f"background_distance is {low} to {high}: give two shares above 0, the lower first")
        if not 0 <= self.background_wander < 1:
            problems.append(f"background_wander is {self.background_wander}: give a number from 0, below 1")
        if not 0 < self.border_share[0] <= self.border_share[1] <= 1:
            problems.append(f"border_share is {self.border_share}: give two shares above 0, the lower first")
        if not 0 <= self.border_depth[0] <= self.border_depth[1]:
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
        if problems:
            raise AttenScribbleError(problems)

    def as_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


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
    points = nurbs.mapping("params").take("num_control_points", count, "a whole number", 4)
    params = contour.mapping("params")
    share = params.take("scribble_length_range", _pair, "two numbers", (0.07, 0.15))
    depth = params.take("disk_size_range", _pair, "two numbers", (1.0, 4.0))
    thickness = keys.mapping("generation_properties").take("scribble_thickness", _real, "a number of pixels", 3.0)
    if problems:
        raise AttenScribbleError(f"{file}: {problem}" for problem in problems)
    rules = ScribbleRules(thickness=thickness, slices=slices, all_components=False, spline_points=points, seed=seed)
    if scribbles.content.get("contour") is None:
        return rules
    return replace(rules, style="interior+border", border_share=share, border_depth=depth)


def _only(value: int) -> Callable[[Any], int | None]:
    return lambda given: value if given == value else None


def _real(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _pair(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = map(_real, value)
    return None if low is None or high is None else (low, high)
