"""The parts of a report, before they become a page: text, tables, pictures, and the numbers behind them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Part", "Picture", "Section", "Table", "format_csv"]


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
