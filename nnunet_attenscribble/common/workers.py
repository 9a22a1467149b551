"""Many cases at once: a process pool that starts, fails and dies cleanly."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from typing import TypeVar

from nnunet_attenscribble.common.progress import show_progress
from nnunet_attenscribble.errors import AttenScribbleError, refuse

Item = TypeVar("Item")
Result = TypeVar("Result")
Map = Callable[[Callable[[Item], Result], Iterable[Item]], Iterator[Result]]

_LIMIT = 61  # of processes in a pool on Windows; everywhere, so that it is tested
_MOST_WORKERS = 8  # beyond, reading and writing wait for the disk


def count_processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers() -> int:
    """As many as there are processors for this process, eight at most."""
    return min(count_processors(), _MOST_WORKERS)


@contextmanager
def worker_map(workers: int | None, tasks: int) -> Iterator[Map]:
    """A `map` in the order of its items, over `workers` processes, or in this process where one is enough.

    Processes are spawned, never forked: ITK and torch start threads. Function and items must be picklable.

    Args:
        workers: processes; None for `default_workers`.
        tasks: items of the longest call; there are never more processes.
    """
    workers = min(default_workers() if workers is None else workers, tasks, _LIMIT)
    if workers <= 1:
        yield map
        return
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_die_with_parent)
    try:
        yield pool.map
    except BrokenProcessPool:
        raise AttenScribbleError(
            f"a worker process died, perhaps for lack of memory: try again with fewer than {workers} workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def run_all(
    work: Callable[[Item], Result],
    items: Collection[Item],
    workers: int | None,
    description: str,
    *,
    progress: bool = True,
) -> list[Result]:
    """What `work` makes of every item, in their order; items and workers as in `worker_map`.

    Args:
        work: picklable; what it refuses of one item does not keep the others from being looked at.
        items: all of them.
        workers: processes; None for `default_workers`.
        description: of the progress on stderr.
        progress: whether there is any.

    Raises:
        AttenScribbleError: the problems of all items.
    """
    with worker_map(workers, len(items)) as run:
        results = run(partial(_try, work), items)
        found = list(show_progress(results, total=len(items), description=description, enabled=progress))
    refuse(problem for result in found if isinstance(result, AttenScribbleError) for problem in result.problems)
    return [result for result in found if not isinstance(result, AttenScribbleError)]


def _try(work: Callable[[Item], Result], item: Item) -> Result | AttenScribbleError:
    try:
        return work(item)
    except AttenScribbleError as error:
        return error


def _die_with_parent() -> None:
    """End this worker when its parent was killed: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # only ever called in a worker

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
