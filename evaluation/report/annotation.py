"""Dice against how much was annotated, where a benchmark's rows are trained on several sets of scribbles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from nnunet_attenscribble.common.figures import choose_look, escape_dollars, new_figure
from nnunet_attenscribble.evaluation.annotation import ANNOTATED, Annotation, find_annotation
from nnunet_attenscribble.evaluation.compare import FOREGROUND, Comparison
from nnunet_attenscribble.evaluation.report.data import ReportData
from nnunet_attenscribble.evaluation.report.page import Part, Picture, Section, format_csv

__all__ = ["BudgetPoint", "describe_annotation_section", "draw_budgets", "list_points"]

_AXES = {
    "share": "annotated share of the voxels, %",
    "voxels": "annotated voxels per case",
    "strokes": "strokes per case",
    "slices": "annotated slices per case",
}


@dataclass(frozen=True)
class BudgetPoint:
    """A row on one set of scribbles.

    Attributes:
        row: its name.
        method: what rows of the same trainer and configuration are called.
        annotation: mean over the cases that it was trained with.
        dice: mean over the structures.
        low, high: ends of the interval of `dice`.
    """

    row: str
    method: str
    annotation: Annotation
    dice: float
    low: float
    high: float


def describe_annotation_section(data: ReportData) -> Section:
    """One plot per way to count what was annotated; nothing where all rows have the same scribbles."""
    points = [] if data.comparison is None else list_points(data.comparison, _read_provenance(data))
    title = "Dice against annotation"
    if data.comparison is None or len({point.annotation for point in points}) < 2:
        return Section("annotation", title, [])
    dense = data.comparison.get(data.reference, FOREGROUND, "dice")
    text = (
        "Annotation is the mean over the cases that a row was trained with, counted in their labels; a stroke is a "
        "component of a class in one slice, and slices lie across the axis of the largest spacing. The dotted line is "
        f"'{data.reference}', bars are the intervals of the table."
    )
    pictures = [
        Picture(
            f"annotation_{name}",
            f"Dice against {axis.removesuffix(', %')}",
            f"Mean Dice of {len({point.method for point in points})} methods against {axis}; the numbers are those of "
            "annotation.csv.",
            partial(draw_budgets, points, name, dense.mean),
        )
        for name, axis in _AXES.items()
    ]
    header = ["row", "method", *ANNOTATED.values(), "dice", "dice_low", "dice_high"]
    rows = [
        (point.row, point.method, *astuple(point.annotation), point.dice, point.low, point.high) for point in points
    ]
    rows.append((data.reference, data.reference, *("" for _ in ANNOTATED), dense.mean, dense.low, dense.high))
    return Section(
        "annotation", title, [Part(text=[text], pictures=pictures, files={"annotation.csv": format_csv(header, rows)})]
    )


def draw_budgets(points: Sequence[BudgetPoint], measure: str, dense: float) -> Figure:
    """Dice against an attribute of `Annotation`, a line per method, dense labels as the line to reach."""
    figure = new_figure(3.4)
    axes = figure.subplots()
    factor = 100 if measure == "share" else 1
    methods: dict[str, list[BudgetPoint]] = {}
    for point in points:
        methods.setdefault(point.method, []).append(point)
    for position, (method, own) in enumerate(methods.items()):
        look = choose_look(position)
        ordered = sorted(own, key=lambda point: getattr(point.annotation, measure))
        across = [factor * getattr(point.annotation, measure) for point in ordered]
        means = [point.dice for point in ordered]
        bars = [[point.dice - point.low for point in ordered], [point.high - point.dice for point in ordered]]
        line = axes.errorbar(across, means, bars, color=look.colour, marker=look.marker, capsize=2)
        line.set_label(escape_dollars(method))
    axes.axhline(dense, color="black", linestyle=":", label="dense labels")
    found = sorted({factor * getattr(point.annotation, measure) for point in points})
    axes.set_xscale("log")
    axes.set_xticks(found, [f"{value:.3g}" for value in found])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(_AXES[measure])
    axes.set_ylabel("Dice")
    axes.legend(fontsize=7)
    return figure


def list_points(
    comparison: Comparison, trainings: Mapping[str, Sequence[Mapping[str, str | None]]]
) -> list[BudgetPoint]:
    """The points of rows whose trainings all tell how much was annotated, in the order of the rows.

    Args:
        comparison: of the rows.
        trainings: by row, the provenance of each of its trainings.
    """
    methods: dict[tuple[str | None, ...], str] = {}
    points = []
    for row, told in trainings.items():
        annotations = [find_annotation(provenance) for provenance in told]
        known = [astuple(annotation) for annotation in annotations if annotation is not None]
        if not known or len(known) < len(annotations):
            continue
        key = (told[0].get("trainer"), told[0].get("configuration"))
        method = methods.setdefault(key, _name_method(row, told[0].get("labels")))
        found = comparison.get(row, FOREGROUND, "dice")
        mean = Annotation(*map(fmean, zip(*known, strict=True)))
        points.append(BudgetPoint(row, method, mean, found.mean, found.low, found.high))
    return points


def _name_method(row: str, labels: str | None) -> str:
    """Without the scribbles' name, which a row of several has in brackets, see `benchmark.file`."""
    return row.removesuffix(f" ({labels})").replace(f" ({labels}, ", " (")


def _read_provenance(data: ReportData) -> dict[str, list[Mapping[str, str | None]]]:
    return {
        row.name: [{} if cell.summary is None else cell.summary.provenance for cell in data.done(row)]
        for row in data.rows
        if row.summary is not None
    }
