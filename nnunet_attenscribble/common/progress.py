"""Progress on stderr: a bar on a terminal, a few plain lines in a log."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

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


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False, quiet=bool(os.environ.get(QUIET)))
