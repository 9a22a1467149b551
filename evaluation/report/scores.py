"""The scores of a report: tables with intervals, every case of every row, each row against full supervision, and Dice
against how much was annotated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from nnunet_attenscribble.common.figures import add_legend, choose_look, new_figure, wrap_name
from nnunet_attenscribble.common.text import counted, format_csv
from nnunet_attenscribble.evaluation.annotation import ANNOTATED, Annotation, average_annotation, find_annotation
from nnunet_attenscribble.evaluation.compare import FOREGROUND, Comparison
from nnunet_attenscribble.evaluation.comparison_files import (
    CONFUSION_RULE,
    VOLUME_RULE,
    describe_cases,
    list_titles,
    tabulate_confusion,
    tabulate_differences,
    tabulate_means,
    tabulate_structures,
    tabulate_volumes,
    to_csv,
    write_rules,
)
from nnunet_attenscribble.evaluation.metrics import DISTANCES, collect_metric
from nnunet_attenscribble.evaluation.protocols import name_metric
from nnunet_attenscribble.evaluation.report.data import Part, Picture, ReportData, ReportRow, Section, Table

_ROW_HEIGHT = 0.42  # inches of a row in a plot
_LINEAR = 3.0  # millimetres up to which a plot of distances has the ticks of small numbers
_APART = 0.12  # of an axis: ticks with room for their numbers
_HUGE = 1e12  # an infinite distance, as a number that quartiles can be computed with
_AXES = {
    "share": "annotated share of the voxels, %",
    "voxels": "annotated voxels per case",
    "strokes": "strokes per case",
    "slices": "annotated slices per case",
}


def describe_table_section(data: ReportData) -> Section:
    """Means with their intervals, structures, differences and how to read them."""
    comparison = data.comparison
    if comparison is None:
        text = [f"The row '{data.reference}' has no whole repetition yet, so there is nothing to compare with."]
        return Section("table", "Comparison", [Part(text=text)])
    level = f"{100 * comparison.confidence:g} %"
    tables = [Table("", *tabulate_means(comparison))]
    structures = [
        Table(f"{title}: mean ± SD, median", *tabulate_structures(comparison, metric, decimals))
        for metric, (title, decimals) in list_titles(comparison).items()
    ]
    differences = Table(
        f"Difference from {comparison.reference} [{level} interval], p of Wilcoxon's test, p after Holm",
        *tabulate_differences(comparison),
    )
    picture = Picture(
        "means_dice",
        f"Mean Dice over the structures, {level} interval",
        f"Mean Dice of {counted(len(comparison.models), 'row')} with bootstrap intervals; the numbers are those of the "
        "table.",
        partial(_draw_means, data, comparison),
    )
    return Section(
        "table",
        "Comparison",
        [
            Part(
                text=[f"All rows on the same {describe_cases(comparison)}, compared with {comparison.reference}."],
                tables=tables,
                pictures=[picture],
                files={"comparison.csv": to_csv(comparison)},
            ),
            *_describe_postprocessed(data),
            Part("Every structure", tables=structures),
            _describe_bias(comparison),
            *([Part("Differences and tests", tables=[differences])] if differences.rows else []),
            Part("How to read this", points=write_rules(comparison), folded=True),
        ],
    )


def _describe_bias(comparison: Comparison) -> Part:
    """What Dice does not tell: whether structures are too large or too small, and what they are taken for."""
    tables = [Table("Volume as a share of the true one, median", *tabulate_volumes(comparison))]
    text, files = [VOLUME_RULE], {}
    if comparison.confusion:
        tables.append(Table("What each class was taken for", *tabulate_confusion(comparison)))
        text.append(CONFUSION_RULE)
        shares = [
            (model, true, predicted, share)
            for model, table in comparison.confusion.items()
            for true, row in table.items()
            for predicted, share in row.items()
        ]
        files["confusion.csv"] = format_csv(["row", "true_class", "predicted_class", "share"], shares)
    return Part("Volume and confusion of classes", text, tables=tables, files=files)


def _describe_postprocessed(data: ReportData) -> list[Part]:
    """The same comparison behind postprocessing, where the benchmark has it."""
    comparison = data.postprocessed
    if comparison is None:
        return []
    title, decimals = list_titles(comparison)["dice"]
    dice = Table(f"{title}: mean ± SD, median", *tabulate_structures(comparison, "dice", decimals))
    told = [note for note in comparison.notes if note not in (*data.selection, *data.notes)]
    return [
        Part(
            "With postprocessing",
            told,
            tables=[Table("", *tabulate_means(comparison)), dice],
            files={"comparison_postprocessed.csv": to_csv(comparison)},
        )
    ]


def describe_cases_section(data: ReportData) -> Section:
    """One plot per metric and structure with a point per case, for every row."""
    comparison = data.comparison
    parts = []
    if comparison is None:
        return Section("cases", "Every case", [])
    for metric, (title, _) in list_titles(comparison).items():
        column = name_metric(metric, comparison.protocol)
        pictures = [
            Picture(
                f"cases_{column}_{position}",
                f"{title}, {structure}",
                f"{title} of {structure} in every case, for each row: points, quartiles and median.",
                partial(_draw_strips, data, metric, structure, title),
            )
            for position, structure in enumerate(comparison.structures, start=1)
            if structure in comparison.structures_of(metric) and _is_known(data, structure, metric)
        ]
        text = ["A point is a case, a box holds the quartiles, its line is the median."]
        if metric in DISTANCES and _has_infinite(data, metric):
            text.append(
                "Points at 'none' are structures that only the dense label or only the prediction holds: their "
                "distance is infinite. Quartiles and median count them."
            )
        parts.append(
            Part(title, text, pictures=pictures, files={f"cases_{column}.csv": _list_cases(data, metric, column)})
        )
    return Section("cases", "Every case", parts)


def describe_scatter_section(data: ReportData) -> Section:
    """One plot per row with the Dice of every case against that of full supervision."""
    others = [row for row in data.scored if row.name != data.reference]
    if data.comparison is None or not others:
        return Section("scatter", "Case by case against full supervision", [])
    pictures = [
        Picture(
            f"scatter_{row.slug}",
            row.name,
            f"Dice of {row.name} against {data.reference}, a point per case and structure.",
            partial(_draw_scatter, data, row),
        )
        for row in others
    ]
    text = f"Dice of the same case by {data.reference} (across) and by the row (up). Below the line, the row is worse."
    part = Part(text=[text], pictures=pictures, files={"scatter_dice.csv": _list_pairs(data, others)})
    return Section("scatter", "Case by case against full supervision", [part])


def _is_known(data: ReportData, structure: str, metric: str) -> bool:
    """Whether any case has a value: not of a structure that is nowhere."""
    values = [collect_metric(row.scores.cases, [structure], metric) for row in data.scored]
    return any(not np.isnan(own).all() for own in values)


def _has_infinite(data: ReportData, metric: str) -> bool:
    return any(np.isinf(collect_metric(row.scores.cases, row.scores.names, metric)).any() for row in data.scored)


# --- the numbers ---


def _list_cases(data: ReportData, metric: str, column: str) -> str:
    rows = [
        (row.name, structure, case, scores[structure].status, getattr(scores[structure], metric))
        for row in data.scored
        for structure in row.scores.names
        for case, scores in row.scores.cases.items()
    ]
    return format_csv(["row", "structure", "case", "status", column], rows)


def _list_pairs(data: ReportData, others: Sequence[ReportRow]) -> str:
    reference = data.find_row(data.reference).scores
    rows = [
        (row.name, structure, case, reference.cases[case][structure].dice, row.scores.cases[case][structure].dice)
        for row in others
        for structure in reference.names
        for case in reference.cases
    ]
    return format_csv(["row", "structure", "case", "dice_reference", "dice"], rows)


# --- the figures ---


def _draw_means(data: ReportData, comparison: Comparison) -> Figure:
    figure = new_figure(0.9 + _ROW_HEIGHT * len(comparison.models))
    axes = figure.subplots()
    for height, name in enumerate(comparison.models):
        found = comparison.get(name, FOREGROUND, "dice")
        look = choose_look(data.find_row(name).position, reference=name == data.reference)
        axes.plot([found.low, found.high], [height, height], color=look.colour, linewidth=2)
        axes.plot(found.mean, height, look.marker, color=look.colour, markersize=7, markeredgecolor="black")
    axes.axvline(comparison.get(data.reference, FOREGROUND, "dice").mean, color="0.6", linestyle=":", zorder=0)
    _name_rows(axes, comparison.models)
    axes.set_xlabel("Dice")
    return figure


def _draw_strips(data: ReportData, metric: str, structure: str, title: str) -> Figure:
    rows = data.scored
    figure = new_figure(0.9 + _ROW_HEIGHT * len(rows))
    axes = figure.subplots()
    values = {row.name: collect_metric(row.scores.cases, [structure], metric)[:, 0] for row in rows}
    finite = np.concatenate([own[np.isfinite(own)] for own in values.values()])
    distance = metric in DISTANCES
    # Where infinite distances stand: beyond everything that is finite.
    largest = max(float(finite.max()) if finite.size else 1.0, 1.0)
    beyond = 2.2 * largest
    lost = distance and any(np.isinf(own).any() for own in values.values())
    for height, row in enumerate(rows):
        own = values[row.name]
        known = own[~np.isnan(own)]
        look = choose_look(row.position, reference=row.name == data.reference)
        if known.size:
            quartiles = np.percentile(np.where(np.isinf(known), _HUGE, known), (25, 50, 75))
            low, middle, high = np.minimum(quartiles, beyond)
            axes.barh(height, high - low, left=low, height=0.62, color=look.colour, alpha=0.25, linewidth=0)
            axes.plot([middle, middle], [height - 0.31, height + 0.31], color=look.colour, linewidth=2)
        # Spread along the row in the order of the cases, so that equal values are seen and no figure needs chance.
        heights = height + 0.22 * np.sin(2.4 * np.arange(known.size))
        shown = np.where(np.isinf(known), beyond, known)
        axes.plot(
            shown,
            heights,
            look.marker,
            color=look.colour,
            markersize=3.5,
            markeredgecolor="black",
            markeredgewidth=0.3,
            clip_on=False,  # half a marker at 0 or 1
        )
    low, high = axes.get_xlim()
    axes.set_xlim(*((0, None) if distance else (max(low, 0), min(high, 1))))
    if distance and (lost or largest > _LINEAR):
        axes.set_xscale("symlog", linthresh=1.0, linscale=0.4)
        places = [0, *[0.5] * (largest <= _LINEAR), 1, 3, 10, 30, 100, 300, 1000]
        ticks = [tick for tick in places if tick <= (beyond / 2.5 if lost else largest)]  # or it would touch 'none'
        axes.set_xticks([*ticks, *([beyond] if lost else [])], [*map(str, ticks), *(["none"] if lost else [])])
        axes.minorticks_off()
    _name_rows(axes, [row.name for row in rows])
    axes.set_xlabel(title)
    return figure


def _draw_scatter(data: ReportData, row: ReportRow) -> Figure:
    figure = new_figure(4.0)
    axes = figure.subplots()
    reference = data.find_row(data.reference).scores
    axes.plot([0, 1], [0, 1], color="0.5", linewidth=1)
    lowest, handles = 1.0, []
    for position, structure in enumerate(reference.names):
        pairs = [
            (reference.cases[case][structure].dice, row.scores.cases[case][structure].dice) for case in reference.cases
        ]
        known = np.array([pair for pair in pairs if not any(map(math.isnan, pair))]).reshape(-1, 2)
        below = int((known[:, 1] < known[:, 0]).sum())
        look = choose_look(position)
        handles += axes.plot(
            *known.T,
            look.marker,
            color=look.colour,
            markersize=5,
            markeredgecolor="black",
            markeredgewidth=0.4,
            label=wrap_name(f"{structure}: {below} of {len(known)} below the line", 50),
        )
        lowest = min([lowest, *known.ravel()])
    start = max(0.0, math.floor(10 * lowest) / 10) - 0.02
    axes.set(
        xlim=(start, 1.02),
        ylim=(start, 1.02),
        xlabel=wrap_name(f"Dice, {data.reference}", 50),
        ylabel="Dice, this row",
    )
    axes.set_aspect("equal")
    add_legend(figure, handles, "outside upper center")
    return figure


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [wrap_name(name, 20) for name in names], fontsize=8.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color="0.9", zorder=-1)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


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
    trainings = {row.name: [cell.summary.provenance for cell in data.done(row)] for row in data.scored}
    points = [] if data.comparison is None else list_points(data.comparison, trainings)
    title = "Dice against annotation"
    if data.comparison is None or len({point.annotation for point in points}) < 2:
        return Section("annotation", title, [])
    dense = data.comparison.get(data.reference, FOREGROUND, "dice")
    text = (
        "Annotation is the mean over the cases that a row was trained with, counted in their labels; a stroke is a "
        "component of a class in one slice, and slices lie across the axis of the largest spacing. The dotted line is "
        f"'{data.reference}', bars are the intervals of the table."
    )
    methods = counted(len({point.method for point in points}), "method")
    pictures = [
        Picture(
            f"annotation_{name}",
            f"Dice against {axis.removesuffix(', %')}",
            f"Mean Dice of {methods} against {axis}; the numbers are those of annotation.csv.",
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
        beside = 1.02 ** (position - (len(methods) - 1) / 2)  # so that bars of one x do not cover each other
        ordered = sorted(own, key=lambda point: getattr(point.annotation, measure))
        across = [beside * factor * getattr(point.annotation, measure) for point in ordered]
        means = [point.dice for point in ordered]
        bars = [[point.dice - point.low for point in ordered], [point.high - point.dice for point in ordered]]
        line = axes.errorbar(across, means, bars, color=look.colour, marker=look.marker, capsize=2)
        line.set_label(wrap_name(method))
    axes.axhline(dense, color="black", linestyle=":", label="dense labels")
    found = sorted({value for point in points if (value := factor * getattr(point.annotation, measure)) > 0})
    ticks = found[:1]
    for value in found:  # those whose numbers have room beside the one before
        if value > ticks[-1] * (found[-1] / found[0]) ** _APART:
            ticks.append(value)
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(_AXES[measure])
    axes.set_ylabel("Dice, 95 % interval over subjects")
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
        known = [annotation for annotation in annotations if annotation is not None]
        if not known or len(known) < len(annotations):
            continue
        key = (told[0].get("trainer"), told[0].get("configuration"))
        method = methods.setdefault(key, _name_method(row, told[0].get("labels")))
        found = comparison.get(row, FOREGROUND, "dice")
        points.append(BudgetPoint(row, method, average_annotation(known), found.mean, found.low, found.high))
    return points


def _name_method(row: str, labels: str | None) -> str:
    """Without the scribbles' name, which a row of several has in brackets, see `benchmark.file`."""
    return row.removesuffix(f" ({labels})").replace(f" ({labels}, ", " (")
