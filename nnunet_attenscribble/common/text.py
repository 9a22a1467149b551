"""Numbers and names as they are read: cells and rows of tables, lists in sentences, subjects in names."""

from __future__ import annotations

import csv
import io
import math
import re
import textwrap
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Collection, Iterable, Sequence
from itertools import compress, zip_longest
from pathlib import Path

from nnunet_attenscribble.errors import AttenScribbleError

_PLURALS = {"": "", "is": "are", "was": "were", "has": "have"}


def format_number(value: float, decimals: int) -> str:
    """A number with so many decimals; `n/a` for NaN."""
    return "n/a" if math.isnan(value) else f"{value:.{decimals}f}"


def format_mean_sd(mean: float, sd: float, decimals: int) -> str:
    """`mean ± sd`; the mean alone where there is no standard deviation."""
    return format_number(mean, decimals) + ("" if math.isnan(sd) else f" ± {sd:.{decimals}f}")


# What Markdown takes for markup (group 1), but for commands, intervals that begin no link, and numbers as `<0.001`.
_MARKUP = re.compile(
    r"`attenscribble [a-z ]+`|\[(?:[-+\d]|n/a|inf)[-+.,%/ a-z\d]*\](?![(\[:])"
    r"|([\\`*$\[\]|]|<(?!\d)|(?<![^\W_])_|_(?![^\W_])|^[-+#>](?= ))"
)


def escape_markdown(text: str) -> str:
    """Text with names in it, which Markdown shows as it is."""
    return _MARKUP.sub(lambda match: f"\\{match[1]}" if match[1] else match[0], text)


def format_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column aligned left, the others right."""
    lines = [[escape_markdown(cell) for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---"] + ["---:"] * (len(header) - 1))
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def format_plain(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[str] = ()) -> str:
    """A table of spaces, for files and pipes; the first column and those in `left` aligned left, the others right."""
    widths = [max(map(len, cells)) for cells in zip(header, *rows, strict=True)]
    is_left = [not number or title in left for number, title in enumerate(header)]
    lines = [
        "  ".join(
            cell.ljust(width) if first else cell.rjust(width)
            for cell, width, first in zip(row, widths, is_left, strict=True)
        )
        for row in (header, *rows)
    ]
    return "\n".join(line.rstrip() for line in lines)


def format_csv(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """CSV with `nan`, `inf` and empty cells for None; numbers with all their digits."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def list_some(names: Sequence[str]) -> str:
    """The first five names, for messages."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def tell_error(error: BaseException, width: int = 300) -> str:
    """What an error of other code says, in one line of so many letters that ends with a word; of none, its type."""
    return textwrap.shorten(str(error), width, placeholder=" ...") or type(error).__name__


def counted(number: int, noun: str, verb: str = "") -> str:
    """`1 case`, `3 cases`; behind them `is`, `was` or `has` as it must be, `3 cases have`."""
    verb = verb if number == 1 else _PLURALS[verb]
    return f"{number} {noun}{'' if number == 1 else 's'}{verb and f' {verb}'}"


def count_rows(number: int, unit: str) -> str:
    """So many cases, or slices where a protocol scores those."""
    return counted(number, "slice" if unit == "slice" else "case")


def format_vector(values: Iterable[float]) -> str:
    """Numbers in brackets, as short as they can be told."""
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def format_duration(seconds: float) -> str:
    """In minutes and seconds, or in seconds below a minute."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def format_percent(part: int, whole: int) -> str:
    """A share in percent; `-` of nothing."""
    return f"{100 * part / whole:.2f} %" if whole else "-"


def has_control_character(name: str) -> bool:
    """Whether a name holds a line break, a tabulator or the like, which breaks messages and lists of names."""
    return any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in name)


def normalise(name: str) -> str:
    """A name with accented letters as one sign, as not every system keeps them."""
    return unicodedata.normalize("NFC", name)


def read_table(file: Path, separator: str = ",") -> tuple[list[str], list[tuple[int, dict]]]:
    """Columns of a CSV, and its rows with the number of their line; what a row has too much stands under None.

    Emptied rows and columns, which spreadsheets save as commas alone, are left out. Text is UTF-8, or UTF-16 where the
    file begins as that does.

    Args:
        file: to read.
        separator: between columns.

    Raises:
        AttenScribbleError: where it cannot be read.
    """
    try:
        with file.open("rb") as content:
            wide = content.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE)
        with file.open(encoding="utf-16" if wide else "utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, skipinitialspace=True, delimiter=separator)
            header = next(reader, [])
            rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except (OSError, UnicodeError, csv.Error) as error:
        told = getattr(error, "strerror", None) or error
        raise AttenScribbleError(f"{file}: cannot be read as CSV ({told})") from None
    width = len(header)
    columns = zip_longest(header, *(row[:width] for _, row in rows), fillvalue="")
    kept = [any(map(str.strip, cells)) for cells in columns]
    names = list(compress(header, kept))
    return names, [(line, {**dict(zip_longest(names, compress(row, kept))), None: row[width:]}) for line, row in rows]


def find_subject(pattern: re.Pattern[str], name: str) -> str:
    """What a pattern finds in a name: its first group, or the whole match where it has none; empty for nothing."""
    match = pattern.search(name)
    return (match and match[1 if pattern.groups else 0]) or ""  # the group may take no part in a match
