"""Progress on stderr, a bar on a terminal, a few plain lines in a log; and tables on stdout, in whole lines there."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from nnunet_attenscribble.common.text import format_plain

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")
#: Variable of the environment that leaves all progress out.
QUIET = "ATTENSCRIBBLE_QUIET"
_LINES = 10  # in a log


def show_progress(items: Iterable[Item], *, total: int, description: str, enabled: bool = True) -> Iterator[Item]:
    """Pass `items` on and tell how many of `total` have come."""
    console = _console()
    if not enabled or console.quiet:
        yield from items
    elif console.is_terminal:
        from rich.progress import Progress

        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(description, total=None)  # it moves even before the first is done
            for done, item in enumerate(items, start=1):
                yield item
                bar.update(task, completed=done, total=total)
    else:
        told = 0
        for done, item in enumerate(items, start=1):
            yield item
            if done == total or done * _LINES // total > told:
                told = done * _LINES // total
                console.print(f"{description}: {done} of {total}")


@contextmanager
def show_waiting(description: str) -> Iterator[None]:
    """Tell that something takes seconds, of which nobody knows how many are left."""
    console = _console()
    if not console.is_terminal:
        console.print(f"{description} ...")
        yield
        return
    with console.status(f"{description} ..."):
        yield


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[str] = (), title: str | None = None
) -> None:
    """Print a table on stdout: folded into the width of a terminal, as names that are cut off may read alike; in a log
    or a pipe a row stays a line.

    Args:
        header: titles of the columns.
        rows: of cells.
        left: titles of the columns that are aligned left, besides the first.
        title: above the table on a terminal.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        print(format_plain(header, rows, left=left))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title)
    for column in header:
        table.add_column(column, overflow="fold", justify="left" if column == header[0] or column in left else "right")
    for row in rows:
        table.add_row(*map(Text, row))  # no markup: names may hold brackets
    console.print(table)


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False, quiet=bool(os.environ.get(QUIET)))
