"""The parts of a report (text, tables, pictures, the numbers behind them), and the page that they become: HTML that
needs no network, and Markdown beside it.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from nnunet_attenscribble.common.text import format_markdown
from nnunet_attenscribble.evaluation.report.data import ReportData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Part", "Picture", "Section", "Table", "format_csv", "render_html", "render_markdown"]


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


def format_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV with `nan`, `inf` and empty cells for None; numbers with all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


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
    return _render("report.md.jinja", data, sections, escape=False, table_text=_format_table)


def _read_png_size(content: bytes) -> tuple[int, int]:
    """Width and height in pixels, which stand behind the signature and the head of the first chunk."""
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def _render(template: str, data: ReportData, sections: Sequence[Section], *, escape: bool, **values: object) -> str:
    text = files("nnunet_attenscribble.evaluation.report").joinpath(template).read_text(encoding="utf-8")
    environment = Environment(autoescape=escape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shown = [section for section in sections if section.parts]
    return environment.from_string(text).render(data=data, sections=shown, **values).rstrip() + "\n"


def _format_table(table: Table) -> str:
    return format_markdown(table.header, table.rows)
