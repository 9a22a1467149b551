"""Many cases at once: a process pool that starts, fails and dies cleanly."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TypeVar

from nnunet_attenscribble.errors import AttenScribbleError

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


def _die_with_parent() -> None:
    """End this worker when its parent was killed: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # only ever called in a worker

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
