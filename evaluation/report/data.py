"""What a report is made of: the folder of `attenscribble benchmark collect`, read and checked; and what becomes of it,
parts (text, tables, pictures, the numbers behind them) on a page: HTML that needs no network, and Markdown beside it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from nnunet_attenscribble.common.shapes import COUNT, TEXT, TRUTH, list_of, mapping, nullable
from nnunet_attenscribble.common.text import escape_markdown, format_markdown
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.evaluation.compare import Comparison
from nnunet_attenscribble.evaluation.comparison_files import read_comparison
from nnunet_attenscribble.evaluation.pooling import pool_runs
from nnunet_attenscribble.evaluation.summary import Summary, read_result, read_summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FILE = "collected.json"
_AGAIN = "run `attenscribble benchmark collect` again"
_BUDGET = {**dict.fromkeys(("epochs", "iterations", "batch_size"), COUNT), "attention": TRUTH}
_TABLES = nullable(mapping(dict.fromkeys(("json", "csv", "md"), TEXT)))
_COLLECTED = mapping(
    {
        "name": TEXT,
        "reference": TEXT,
        "datasets": mapping({"scribble": TEXT, "dense": TEXT}, each=TEXT),
        "test": mapping({"text": TEXT, "folds": mapping(each=mapping({"images": TEXT, "labels": TEXT}))}),
        "scribbles": mapping({"folder": TEXT, "file_ending": TEXT, "ignore": nullable(COUNT)}),
        "selection": list_of(TEXT),
        "notes": list_of(TEXT),
        "rows": list_of(
            mapping(
                {
                    **dict.fromkeys(("name", "slug", "labels", "trainer", "configuration"), TEXT),
                    "settings": nullable(mapping()),
                    "budget": nullable(mapping(_BUDGET)),
                    "compared": list_of(TEXT),
                }
            ),
            at_least=1,
        ),
        "cells": list_of(
            mapping(
                {
                    **dict.fromkeys(("cell", "row", "fold"), TEXT),
                    "seed": COUNT,
                    "folder": nullable(TEXT),
                    "lacks": nullable(TEXT),
                }
            )
        ),
        "comparison": _TABLES,
        "comparison_postprocessed": _TABLES,
    }
)


@dataclass(frozen=True)
class ReportRow:
    """A row of the benchmark.

    Attributes:
        name: as it stands in the tables.
        slug: the name, as that of a file.
        position: among the rows of the file, from 0; decides on colour and marker.
        labels: that it was trained on: `dense`, `scribble`, or the name of further scribbles of the same cases.
        trainer: nnU-Net's `-tr`.
        configuration: of the plans.
        settings: of the method; None where results kept elsewhere were trained with others than the plans hold.
        budget: `epochs`, `iterations` per epoch and `batch_size`, where they are known.
        summary: all compared folds and repetitions as one; None if there is no whole repetition.
    """

    name: str
    slug: str
    position: int
    labels: str
    trainer: str
    configuration: str
    settings: Mapping[str, object] | None
    budget: Mapping[str, int]
    summary: Summary | None

    @property
    def scores(self) -> Summary:
        """`summary` of a row that has one, as those of `ReportData.scored`."""
        assert self.summary is not None
        return self.summary


@dataclass(frozen=True)
class ReportCell:
    """A row, trained on one fold in one repetition and scored.

    Attributes:
        name: `seed_0/fold_0/ROW`.
        row: the row's name.
        seed: number of the repetition.
        fold: a number, or `all`.
        folder: of what was collected of it.
        summary: of its evaluation.
    """

    name: str
    row: str
    seed: int
    fold: str
    folder: Path
    summary: Summary


@dataclass(frozen=True)
class ReportData:
    """A benchmark as far as it was collected.

    Attributes:
        name: of the benchmark.
        reference: name of the fully supervised row.
        datasets: names, by `scribble` and `dense`.
        test: which cases the test set is, in words.
        test_folders: by fold, the folders of test images and of their dense labels.
        scribbles: the folder of scribble labels, the ending of its files and the value of unlabelled voxels.
        selection: what was selected on what.
        notes: what a reader of the numbers should know.
        rows: all of them, in the order of the benchmark file.
        cells: the complete ones.
        missing: by the name of each other cell, what it lacks: `training`, `predictions` or `evaluation`, or why what
            is there does not count.
        comparison: of the rows with the reference; None while there is nothing to compare.
        postprocessed: the comparison of the postprocessed predictions; None without.
    """

    name: str
    reference: str
    datasets: Mapping[str, str]
    test: str
    test_folders: Mapping[str, tuple[Path, Path]]
    scribbles: tuple[Path, str, int | None]
    selection: tuple[str, ...]
    notes: tuple[str, ...]
    rows: tuple[ReportRow, ...]
    cells: tuple[ReportCell, ...]
    missing: Mapping[str, str]
    comparison: Comparison | None
    postprocessed: Comparison | None

    @property
    def scored(self) -> list[ReportRow]:
        """The rows with a whole repetition, the reference first."""
        rows = [row for row in self.rows if row.summary is not None]
        return sorted(rows, key=lambda row: row.name != self.reference)

    def find_row(self, name: str) -> ReportRow:
        """The row of a name."""
        return next(row for row in self.rows if row.name == name)

    def done(self, row: ReportRow) -> list[ReportCell]:
        """The complete cells of a row, in order."""
        return [cell for cell in self.cells if cell.row == row.name]


def read_collected(folder: Path) -> ReportData:
    """Read a folder that `attenscribble benchmark collect` wrote.

    Raises:
        AttenScribbleError: no such folder, damaged files, or no complete cell in it.
    """
    content = _read_json(folder)
    try:
        data = _read(folder, content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise AttenScribbleError(f"{folder / _FILE} is damaged ({error!r}): {_AGAIN}") from error
    if not data.cells:
        raise AttenScribbleError(
            f"{folder} holds no complete cell, so there is nothing to report: run `attenscribble benchmark` first"
        )
    return data


def _read_json(folder: Path) -> dict:
    file = folder / _FILE
    if not file.is_file():
        raise AttenScribbleError(
            f"no {_FILE} in {folder}: give the folder that `attenscribble benchmark collect` wrote, WORK/collected"
        )
    content = read_result(file, "collected", _COLLECTED, _AGAIN)
    names = {row["name"] for row in content["rows"]}
    unknown = dict.fromkeys(
        name for name in (content["reference"], *(cell["row"] for cell in content["cells"])) if name not in names
    )
    if unknown:
        raise AttenScribbleError(f"{file}: {name!r} is the name of no row: {_AGAIN}" for name in unknown)
    return content


def _read(folder: Path, content: Mapping) -> ReportData:
    problems: list[str] = []
    cells = []
    for entry in content["cells"]:
        try:
            if entry["folder"] is not None:
                place = folder / entry["folder"]
                name, row, seed, fold = (entry[key] for key in ("cell", "row", "seed", "fold"))
                cells.append(ReportCell(name, row, seed, fold, place, read_summary(place)))
        except AttenScribbleError as error:
            problems += error.problems
    rows = tuple(_read_row(folder, position, entry, problems) for position, entry in enumerate(content["rows"]))
    tables = [content["comparison"] or {}, content["comparison_postprocessed"] or {}]
    files = [folder / path for own in tables for path in own.values()]
    problems += [f"{file} is missing: {_AGAIN}" for file in files if not file.is_file()]
    refuse(problems)
    comparison, postprocessed = (read_comparison(folder / own["json"]) if own else None for own in tables)
    folds = content["test"]["folds"]
    scribbles = content["scribbles"]
    return ReportData(
        name=content["name"],
        reference=content["reference"],
        datasets=content["datasets"],
        test=content["test"]["text"],
        test_folders={fold: (folder / entry["images"], folder / entry["labels"]) for fold, entry in folds.items()},
        scribbles=(Path(scribbles["folder"]), scribbles["file_ending"], scribbles["ignore"]),
        selection=tuple(content["selection"]),
        notes=tuple(content["notes"]),
        rows=rows,
        cells=tuple(cells),
        missing={entry["cell"]: entry["lacks"] for entry in content["cells"] if entry["lacks"] is not None},
        comparison=comparison,
        postprocessed=postprocessed,
    )


def _read_row(folder: Path, position: int, entry: Mapping, problems: list[str]) -> ReportRow:
    summary = None
    try:
        found = [read_summary(folder / path) for path in entry["compared"]]
        summary = pool_runs(entry["name"], found) if found else None
    except AttenScribbleError as error:
        problems += error.problems
    told = {key: entry[key] for key in ("name", "slug", "labels", "trainer", "configuration", "settings")}
    return ReportRow(**told, position=position, budget=entry["budget"] or {}, summary=summary)


# --- parts and page ---


@dataclass(frozen=True)
class Picture:
    """A picture that is yet to be drawn.

    Attributes:
        name: of its PNG file, without the ending.
        title: above it on the page.
        description: for those who do not see it.
        draw: makes the figure.
        small: one of many side by side, rather than a plot to be read closely.
    """

    name: str
    title: str
    description: str
    draw: Callable[[], Figure]
    small: bool = False


@dataclass(frozen=True)
class Table:
    """A table of text; the first column names the row.

    Attributes:
        title: above it; may be empty.
        header: of every column.
        rows: cells.
        numeric: the cells are numbers, to be read downwards, rather than words.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: bool = True


@dataclass(frozen=True)
class Part:
    """Something with a heading of its own.

    Attributes:
        title: may be empty.
        text: paragraphs.
        points: a list of sentences behind the text.
        tables: in order.
        pictures: in order, behind the tables.
        files: the numbers behind tables and pictures, by the name of the CSV file.
        folded: shown only when it is asked for.
    """

    title: str = ""
    text: Sequence[str] = ()
    points: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A chapter of the report.

    Attributes:
        name: in addresses within the page.
        title: its heading.
        parts: in order.
    """

    name: str
    title: str
    parts: Sequence[Part]


def render_html(data: ReportData, sections: Sequence[Section], pictures: Mapping[str, bytes]) -> str:
    """The page, with every picture inside.

    Args:
        data: of the benchmark.
        sections: in order; those without parts are left out.
        pictures: PNG by the picture's name.
    """
    encoded = {name: base64.b64encode(content).decode() for name, content in pictures.items()}
    sizes = {name: _read_png_size(content) for name, content in pictures.items()}
    return _render("report.html.jinja", data, sections, escape=True, encoded=encoded, sizes=sizes)


def render_markdown(data: ReportData, sections: Sequence[Section]) -> str:
    """The same as Markdown, which shows the PNG files beside it."""
    shown = {"plain": escape_markdown, "format_markdown": format_markdown}
    return _render("report.md.jinja", data, sections, escape=False, **shown)


def _read_png_size(content: bytes) -> tuple[int, int]:
    """Width and height in pixels, which stand behind the signature and the head of the first chunk."""
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def _render(template: str, data: ReportData, sections: Sequence[Section], *, escape: bool, **values: object) -> str:
    text = files("nnunet_attenscribble.evaluation.report").joinpath(template).read_text(encoding="utf-8")
    environment = Environment(autoescape=escape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shown = [section for section in sections if section.parts]
    return environment.from_string(text).render(data=data, sections=shown, **values).rstrip() + "\n"
