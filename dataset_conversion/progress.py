"""Progress on stderr: a bar on a terminal, a few plain lines in a log."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")
#: Variable of the environment that leaves all progress out.
QUIET = "ATTENSCRIBBLE_QUIET"
_LINES = 10  # in a log


def show_progress(items: Iterable[Item], *, total: int, description: str, enabled: bool = True) -> Iterator[Item]:
    """Pass `items` on and tell how many of `total` have come."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if not enabled or os.environ.get(QUIET):
        yield from items
    elif console.is_terminal:
        yield from track(items, description=description, total=total, console=console, transient=True)
    else:
        told = 0
        for done, item in enumerate(items, start=1):
            yield item
            if done == total or done * _LINES // total > told:
                told = done * _LINES // total
                console.print(f"{description}: {done} of {total}")
