"""How scribbles are drawn into dense labels: the options, and ScribbleBench's configuration in their terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["STYLES", "ScribbleRules", "read_scribblebench"]

STYLES = ("interior", "interior+border", "skeleton", "points")


@dataclass(frozen=True)
class ScribbleRules:
    """What is drawn into each slice.

    The defaults follow the expert scribbles of ACDC (`python -m benchmarks.scribbles`).

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
        all_components: strokes in every component of a class, or in one drawn by area.
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
    all_components: bool = True
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
        for name in ("coverage", "background_length", "slices", "classes"):
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
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise AttenScribbleError(f"{file}: cannot be read as YAML ({reason}): give scribble_conf.yml") from None
    if not isinstance(content, Mapping):
        raise AttenScribbleError(f"{file}: holds no settings: give ScribbleBench's scribble_conf.yml")
    problems: list[str] = []
    known = {"filter", "foreground", "background", "generation_properties"}
    problems += [f"{file}: '{key}' is unknown: expected {', '.join(sorted(known))}" for key in set(content) - known]
    if content.get("filter", {}).get("min_area", 0) != 0:
        problems.append(f"{file}: filter.min_area must be 0: here every component counts")
    foreground, background = content.get("foreground"), content.get("background")
    if not isinstance(foreground, Mapping) or not isinstance(background, Mapping):
        raise AttenScribbleError([*problems, f"{file}: needs 'foreground' and 'background'"])
    if foreground != background:
        problems.append(f"{file}: foreground and background differ: only equal settings are understood")
    if foreground.get("class_probabilities", 1) != 1:
        problems.append(f"{file}: class_probabilities must be 1: every class of a slice is drawn")
    slices = foreground.get("num_slice_range", 1.0)
    if isinstance(slices, list):
        problems.append(f"{file}: num_slice_range must be one number here, not a range")
    scribbles = dict(foreground.get("scribbles", {}))
    nurbs, contour = scribbles.pop("nurbs", None), scribbles.pop("contour", None)
    problems += [f"{file}: scribbles '{name}' are unknown: expected nurbs and contour" for name in scribbles]
    for name, entry in (("nurbs", nurbs), ("contour", contour)):
        if entry is not None and entry.get("num_scribbles", 1) != 1:
            problems.append(f"{file}: {name}.num_scribbles must be 1")
    if nurbs is None:
        problems.append(f"{file}: needs 'nurbs' scribbles")
    if problems:
        raise AttenScribbleError(problems)
    rules = ScribbleRules(
        thickness=float(content.get("generation_properties", {}).get("scribble_thickness", 3)),
        slices=float(slices),
        all_components=False,
        spline_points=int(nurbs.get("params", {}).get("num_control_points", 4)),
        seed=seed,
    )
    if contour is None:
        return rules
    params = contour.get("params", {})
    nearest, deepest = params.get("disk_size_range", (1, 4))
    return replace(
        rules,
        style="interior+border",
        border_share=tuple(params.get("scribble_length_range", (0.07, 0.15))),
        border_depth=(float(nearest), float(deepest)),
    )
