"""What stands behind a report's numbers: the course of every training, which training each cell is, with which
versions, and what is missing.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nnunet_attenscribble.common.figures import choose_look, new_figure, wrap_name
from nnunet_attenscribble.common.text import format_csv
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.report.data import Part, Picture, ReportCell, ReportData, ReportRow, Section, Table
from nnunet_attenscribble.evaluation.summary import Summary

_LOG, _TERMS = "training_log.csv", "loss_terms.csv"
_LOSSES = ("train_loss", "val_loss")
_DICE = "pseudo_dice_"
_MEASURED = {"similarity": re.compile(r".*_similarity"), "annotated share": re.compile(r"annotated(_.*)?")}
_MARKED = 12  # epochs of a curve that get a marker
Curves = Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]  # by quantity, a curve (epochs, values) per training
_KEYS = (
    *("trainer", "configuration", "plans", "dataset", "epochs", "iterations_per_epoch", "checkpoint"),
    *("plans_sha256", "splits_sha256", "commit_training", "commit"),
)
_VERSIONS = ("nnunet-attenscribble", "nnunetv2", "torch", "scipy", "python")
_SHORT = 12  # digits of a hash on the page; the CSV has them all


def describe_training_section(data: ReportData) -> Section:
    """One plot per row with its curves, a line per training."""
    pictures, logs, terms = [], [], []
    for row in data.rows:
        own_logs, own_terms = _read_all(data, row, _LOG), _read_all(data, row, _TERMS)
        logs += own_logs
        terms += own_terms
        if own_logs or own_terms:
            pictures.append(
                Picture(
                    f"training_{row.slug}",
                    row.name,
                    f"Losses, pseudo Dice and loss terms of {row.name} over the epochs.",
                    partial(_draw_training, row, _make_curves(own_logs), _make_curves(own_terms)),
                )
            )
    header = ["row", "seed", "fold", "epoch", "quantity", "value"]
    files = {
        name: format_csv(header, [(cell.row, cell.seed, cell.fold, *rest) for cell, *rest in entries])
        for name, entries in ((_LOG, logs), (_TERMS, terms))
        if entries
    }
    text = [
        "A line is a training. nnU-Net's pseudo Dice is computed on the validation patients' patches with the labels "
        "that the row was trained on: on scribbles, it says little about the rest of the image, and it compares with "
        "no row on dense labels. Losses of different rows do not compare either.",
        "Loss terms are means over an epoch, before their weights; 'total' is what was minimised. Similarities and the "
        "share of annotated pixels are measured, not minimised.",
    ]
    return Section("training", "Training", [Part(text=text, pictures=pictures, files=files)] if pictures else [])


def _read_all(data: ReportData, row: ReportRow, name: str) -> list[tuple[ReportCell, int, str, float]]:
    """(cell, epoch, quantity, value) of every training of a row, from the file of that name where there is one."""
    return [
        (cell, *entry)
        for cell in data.done(row)
        if (cell.folder / name).is_file()
        for entry in _read_columns(cell.folder / name)
    ]


def _read_columns(file: Path) -> list[tuple[int, str, float]]:
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return [
                (int(line["epoch"]), quantity, float(value))
                for line in csv.DictReader(stream)
                for quantity, value in line.items()
                if quantity != "epoch" and value
            ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AttenScribbleError(f"{file} is damaged ({error!r}): collect the benchmark again") from error


def _make_curves(entries: Sequence[tuple[ReportCell, int, str, float]]) -> Curves:
    points: dict[str, dict[str, dict[int, float]]] = {}
    for cell, epoch, quantity, value in entries:  # an epoch that was done again counts as the last time
        points.setdefault(quantity, {}).setdefault(cell.name, {})[epoch] = value
    return {
        quantity: [tuple(np.array(sorted(own.items())).T) for own in trainings.values()]
        for quantity, trainings in points.items()
    }


def _draw_training(row: ReportRow, logs: Curves, terms: Curves) -> Figure:
    dice = {name: curves for name, curves in logs.items() if name.startswith(_DICE)}
    names = row.summary.names if row.summary is not None and len(row.summary.names) == len(dice) else list(dice)
    panels = [
        ("loss", {name.replace("_", " "): logs[name] for name in _LOSSES if name in logs}),
        (f"pseudo Dice on\n{row.labels} labels", dict(zip(names, dice.values(), strict=True))),
        *_split_terms(terms, _name_labels(row)),
    ]
    panels = [(title, curves) for title, curves in panels if curves]
    heights = [1.3 + 0.14 * _count_lines(curves) for _, curves in panels]
    figure = new_figure(sum(heights) + 0.4)
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (title, curves) in zip(grid[:, 0], panels, strict=True):
        _draw_curves(axes, curves)
        axes.set_ylabel(title, fontsize=8)
    grid[-1, 0].set_xlabel("epoch", fontsize=8)
    grid[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    low, high = grid[-1, 0].get_xlim()
    grid[-1, 0].set_xlim(min(low, high - 1), max(high, low + 1))  # of a single epoch there would be no whole number
    return figure


def _split_terms(terms: Curves, labels: Mapping[str, str]) -> list[tuple[str, Curves]]:
    """The terms that are minimised, and the columns that only tell how it goes, each kind by itself."""
    kinds: dict[str, dict] = {"loss terms": {}}
    for name, curves in terms.items():
        kind = next((kind for kind, pattern in _MEASURED.items() if pattern.fullmatch(name)), "loss terms")
        kinds.setdefault(kind, {})[labels.get(name, name.replace("_", " "))] = curves
    return list(kinds.items())


def _name_labels(row: ReportRow) -> dict[str, str]:
    """Names for the columns annotated_0, annotated_1 and so on."""
    structures = () if row.summary is None else row.summary.structures
    single = {entry.values[0]: entry.name for entry in structures if len(entry.values) == 1}
    return {f"annotated_{value}": name for value, name in {0: "background", **single}.items()}


def _count_columns(curves: Curves) -> int:
    """Of a legend: as many as the longest name leaves room for."""
    return 2 if max(map(len, curves)) > 12 else 3


def _count_lines(curves: Curves) -> int:
    """Of a legend: of its highest column."""
    columns = np.array_split([wrap_name(name).count("\n") + 1 for name in curves], _count_columns(curves))
    return max(sum(lines) for lines in columns)


def _draw_curves(axes: Axes, curves: Curves) -> None:
    for position, (name, trainings) in enumerate(curves.items()):
        look = choose_look(position)
        for number, (epochs, values) in enumerate(trainings):
            step = -(-len(epochs) // _MARKED)
            axes.plot(
                epochs,
                values,
                color=look.colour,
                marker=look.marker,
                markevery=(position % step, step),
                markersize=4,
                linewidth=1.3,
                label=wrap_name(name) if number == 0 else None,
            )
    values = np.concatenate([values for trainings in curves.values() for _, values in trainings])
    known = values[np.isfinite(values)]
    if known.size and known.min() > 0 and known.max() > 30 * known.min():
        axes.set_yscale("log")
    axes.tick_params(labelsize=8)
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        fontsize=7.5,
        ncols=_count_columns(curves),
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.1,
        columnspacing=1.2,
    )


def describe_provenance_section(data: ReportData) -> Section:
    """Rows with their settings, complete cells with their provenance, and the cells that are missing."""
    rows = [
        [
            row.name,
            row.labels,
            row.trainer,
            row.configuration,
            f"{row.budget['epochs']} x {row.budget['iterations']} x {row.budget['batch_size']}"
            if row.budget
            else "n/a",
            _describe_settings(row.settings),
        ]
        for row in data.rows
    ]
    header = [
        "row",
        "labels",
        "trainer",
        "configuration",
        "epochs x iterations x batch",
        "settings in the configuration",
    ]
    shown = ["cell", "plans_sha256", "commit_training", "commit", *_VERSIONS]
    cells = [
        [
            cell.name,
            *(_shorten(cell.summary.provenance.get(key)) for key in shown[1:4]),
            *(cell.summary.versions.get(name, "unknown") for name in _VERSIONS),
        ]
        for cell in data.cells
    ]
    entries = [[cell.name, cell.row, cell.seed, cell.fold, *_list_provenance(cell.summary)] for cell in data.cells]
    files = {"trainings.csv": format_csv(["cell", "row", "seed", "fold", *_KEYS, *_VERSIONS], entries)}
    parts = [
        Part("Rows", tables=[Table("", header, rows, numeric=False)]),
        Part("Trainings", tables=[Table("", shown, cells, numeric=False)], files=files),
    ]
    if data.missing:
        table = Table("", ["cell", "lacks"], list(data.missing.items()), numeric=False)
        parts.append(Part("Missing", tables=[table], folded=len(data.missing) > 5))
    return Section("provenance", "Where the numbers come from", parts)


def _describe_settings(settings: Mapping[str, object] | None) -> str:
    if settings is None:
        return "unknown"
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in settings.items()) or "default"


def _list_provenance(summary: Summary) -> list[str | None]:
    return [*(summary.provenance.get(key) for key in _KEYS), *(summary.versions.get(name) for name in _VERSIONS)]


def _shorten(value: str | None) -> str:
    if not value:
        return "unknown"
    return value[:_SHORT] + ("-dirty" if value.endswith("-dirty") else "")
