"""The best, the median and the worst case of a row: scan, scribble, and what every row predicts there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke

from nnunet_attenscribble.common.figures import escape_dollars, new_figure
from nnunet_attenscribble.common.text import format_number
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.metrics import compute_dice, select_structure
from nnunet_attenscribble.evaluation.report.data import ReportData, ReportRow
from nnunet_attenscribble.evaluation.report.page import Part, Picture, Section, format_csv
from nnunet_attenscribble.evaluation.report.pictures import CaseSlice, read_slice
from nnunet_attenscribble.evaluation.structures import Structure
from nnunet_attenscribble.evaluation.summary import Summary

__all__ = ["choose_cases", "choose_row", "describe_pictures_section"]

# Okabe and Ito's palette without black, which scans are full of.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
_STROKE, _TRUTH = "#FFFFFF", "#FFFFFF"
_WIDTH = 2.4  # inches of a picture
_DASHES = (0, (2.5, 2.5))


def choose_row(data: ReportData, name: str | None) -> ReportRow | None:
    """The row whose cases are shown: as named, or else the last row on scribbles, or else the reference.

    Raises:
        AttenScribbleError: no such row, or it has no whole repetition.
    """
    known = {row.name: row for row in data.scored}
    if name is not None and name not in known:
        raise AttenScribbleError(
            f"there is no result of a row '{name}' to choose cases by; there are {', '.join(known) or 'none'}"
        )
    if name is not None:
        return known[name]
    on_scribbles = [row for row in data.scored if row.labels == "scribble"]
    return next(iter([*on_scribbles[::-1], *data.scored]), None)


def choose_cases(summary: Summary) -> dict[str, tuple[str, float]]:
    """The best, the median and the worst case by the mean Dice over the structures, with that value.

    Of equal ones the first by name; the median of an even number is the lower one. With fewer than three cases, those
    that there are.
    """
    means = {}
    for case, scores in summary.cases.items():
        known = [entry.dice for entry in scores.values() if not math.isnan(entry.dice)]
        if known:
            means[case] = sum(known) / len(known)
    ranked = sorted(means, key=lambda case: (-means[case], case))
    chosen = {"best": ranked[:1], "median": ranked[len(ranked) // 2 :][:1], "worst": ranked[-1:]}
    shown: dict[str, tuple[str, float]] = {}
    for word, found in chosen.items():
        if found and all(found[0] != case for case, _ in shown.values()):
            shown[word] = (found[0], means[found[0]])
    return shown


def describe_pictures_section(data: ReportData, row: ReportRow | None) -> Section:
    """Pictures of the three cases. A case whose files are not where they were is told instead of shown.

    Args:
        data: of the benchmark.
        row: whose best, median and worst case these are; None if there is none.
    """
    title = "Best, median and worst case"
    if row is None:
        return Section("pictures", title, [])
    intro = (
        f"Cases are chosen by the mean Dice of '{row.name}' over the structures, for display alone. Each is shown in "
        "the slice with most foreground in its dense label, cut to everything that is drawn there. Solid lines in "
        "colour are the prediction, dashed white ones the dense label. Of several repetitions, the first is shown."
    )
    structures = row.scores.structures
    parts = [Part(text=[intro], pictures=[_describe_legend(structures)])]
    numbers: list[tuple] = []
    for word, (case, dice) in choose_cases(row.scores).items():
        name = f"{word.capitalize()}: {case}, mean Dice {format_number(dice, 3)}"
        try:
            found = read_slice(data, case, structures, row.scores.protocol)
        except (ValueError, FileNotFoundError) as error:
            parts.append(Part(name, [f"Not shown: {error}"]))
            continue
        for shown in data.scored:
            if shown.name in found.predictions:
                numbers += _list_numbers(word, case, shown, found, structures)
        text = f"Slice {found.position + 1}; the Dice below each picture is that of the whole case."
        parts.append(Part(name, [text], pictures=_describe_case(data, word, case, found, structures)))
    header = ["choice", "case", "row", "slice", "structure", "dice", "dice_of_slice"]
    files = {"pictures.csv": format_csv(header, numbers)} if numbers else {}
    return Section("pictures", title, [*parts, *([Part(files=files)] if files else [])])


# --- numbers and pictures ---


def _list_numbers(
    word: str, case: str, row: ReportRow, found: CaseSlice, structures: Sequence[Structure]
) -> list[tuple]:
    prediction = found.predictions[row.name]
    return [
        (
            word,
            case,
            row.name,
            found.position + 1,
            structure.name,
            row.scores.cases[case][structure.name].dice,
            compute_dice(
                select_structure(prediction, structure.values), select_structure(found.dense, structure.values)
            ),
        )
        for structure in structures
    ]


def _describe_legend(structures: Sequence[Structure]) -> Picture:
    return Picture(
        "legend",
        "Colours",
        "Legend: " + ", ".join(structure.name for structure in structures) + "; dashed: dense label.",
        partial(_draw_legend, structures),
        small=True,
    )


def _describe_case(
    data: ReportData, word: str, case: str, found: CaseSlice, structures: Sequence[Structure]
) -> list[Picture]:
    unlabelled = data.scribbles[2]
    pictures = [Picture(f"{word}_scan", "Scan", f"Scan of {case}.", partial(_draw_picture, found), small=True)]
    if found.scribble is not None:
        drawn = partial(_draw_picture, found, scribble=found.scribble, structures=structures, unlabelled=unlabelled)
        pictures.append(Picture(f"{word}_scribble", "Scribble", f"Scribble of {case}.", drawn, small=True))
    for row in data.scored:
        if row.name not in found.predictions:
            continue
        dice = ", ".join(
            f"{structure.name} {format_number(row.scores.cases[case][structure.name].dice, 2)}"
            for structure in structures
        )
        drawn = partial(_draw_picture, found, prediction=found.predictions[row.name], structures=structures)
        description = f"Prediction of {row.name} and dense label of {case}; Dice {dice}."
        pictures.append(Picture(f"{word}_prediction_{row.slug}", f"{row.name}: {dice}", description, drawn, small=True))
    return pictures


def _draw_picture(
    found: CaseSlice,
    *,
    structures: Sequence[Structure] = (),
    scribble: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    unlabelled: int | None = None,
) -> Figure:
    height, width = (length * step for length, step in zip(found.image.shape, found.spacing, strict=True))
    figure = new_figure(_WIDTH * min(max(height / width, 0.3), 3.0), width=_WIDTH)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    black, white = np.percentile(found.image, (0.5, 99.5))
    axes.imshow(found.image, cmap="gray", vmin=black, vmax=max(white, black + 1e-6))
    if scribble is not None:
        _paint_scribble(axes, scribble, structures, unlabelled)
    if prediction is not None:
        for structure, colour in zip(structures, _cycle(structures), strict=True):
            _draw_contour(axes, select_structure(prediction, structure.values), colour, dashed=False)
        for structure in structures:
            _draw_contour(axes, select_structure(found.dense, structure.values), _TRUTH, dashed=True)
    rows, columns = found.image.shape
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))  # which contours widen
    axes.set_aspect(found.spacing[0] / found.spacing[1])
    return figure


def _paint_scribble(axes: Axes, scribble: np.ndarray, structures: Sequence[Structure], unlabelled: int | None) -> None:
    overlay = np.zeros((*scribble.shape, 4))
    if unlabelled is not None:
        overlay[scribble == 0] = to_rgba(_STROKE)
    for structure, colour in zip(structures, _cycle(structures), strict=True):
        overlay[select_structure(scribble, structure.values)] = to_rgba(colour)
    axes.imshow(overlay, interpolation="nearest")


def _draw_contour(axes: Axes, mask: np.ndarray, colour: str, *, dashed: bool) -> None:
    if not mask.any():
        return
    # A rim of background, so that what reaches the border of the picture is outlined there too.
    padded = np.pad(mask.astype(float), 1)
    rows, columns = (np.arange(-1, length + 1) for length in mask.shape)
    drawn = axes.contour(columns, rows, padded, levels=[0.5], colors=[colour], linewidths=0.9 if dashed else 1.6)
    if dashed:
        drawn.set_linestyle(_DASHES)
    else:
        drawn.set_path_effects([Stroke(linewidth=2.4, foreground="black"), Normal()])


def _draw_legend(structures: Sequence[Structure]) -> Figure:
    lines = [
        Line2D([], [], color=colour, linewidth=3, label=escape_dollars(structure.name))
        for structure, colour in zip(structures, _cycle(structures), strict=True)
    ]
    lines.append(Line2D([], [], color="white", linewidth=1.5, linestyle=_DASHES, label="dense label"))
    lines.append(Line2D([], [], color=_STROKE, linewidth=4, label="background stroke"))
    figure = new_figure(0.25 + 0.21 * len(lines), width=_WIDTH)
    figure.set_facecolor("0.25")
    legend = figure.legend(handles=lines, loc="center left", fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_color("white")
    return figure


def _cycle(structures: Sequence[Structure]) -> list[str]:
    return [_COLOURS[position % len(_COLOURS)] for position in range(len(structures))]
