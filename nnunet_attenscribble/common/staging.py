"""Folders that appear whole or not at all: written under a hidden name beside their place, renamed at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from errno import EEXIST
from pathlib import Path
from typing import IO

from nnunet_attenscribble.common.writing import try_lock
from nnunet_attenscribble.errors import AttenScribbleError

_LOCK = "lock"  # in a hidden folder: held as long as it is written to
_READY = "ready"  # in a hidden folder whose content is complete: the names to publish, one per line, in this order


@contextmanager
def reserved(parent: Path, keys: Iterable[str], what: str) -> Iterator[None]:
    """Hold `keys` in a folder, so that no other run takes one of them; what was made for that goes again.

    Args:
        parent: made if it is not there, and removed again where nothing came to lie in it.
        keys: of what will be written.
        what: how errors call a key (`dataset ID`).

    Raises:
        AttenScribbleError: where a run that is alive holds one of them.
    """
    made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            for key in sorted(set(keys)):
                file = parent / f".attenscribble-{key}.lock"
                stack.enter_context(_open_locked(file, f"{parent}: {what} {key}"))
                stack.callback(_remove, file)
            yield
    finally:
        with suppress(OSError):  # it is not empty
            for folder in made:
                folder.rmdir()


def _open_locked(file: Path, name: str) -> IO:
    while True:
        lock = file.open("a")
        if not try_lock(lock):
            lock.close()
            raise AttenScribbleError(f"{name} is being written by another process: wait for it, or end it")
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), file.stat()):
                return lock
        lock.close()  # who held it has removed it meanwhile: the next to come would not see this one


def _remove(file: Path) -> None:
    with suppress(OSError):  # Windows keeps what is open
        file.unlink()


@contextmanager
def staged_folders(parent: Path, names: Sequence[str], key: str) -> Iterator[Path]:
    """Write the folders `names` of `parent` so that they appear whole or not at all.

    Args:
        parent: made if it is not there.
        names: folders, made empty inside the hidden one.
        key: tells this job's hidden folders from those of others, see `finish_interrupted`.

    Yields:
        The hidden folder. Left without an exception, its folders are renamed to `parent / name`, in the order of
        `names`; left with one, it is removed.
    """
    parent.mkdir(parents=True, exist_ok=True)
    # A name of its own for every run: workers of another run, still alive, can never write into this one's folder.
    hidden = Path(tempfile.mkdtemp(prefix=_prefix(key), dir=parent))
    try:
        with _alone(hidden):
            for name in names:
                (hidden / name).mkdir()
            yield hidden
            for name in names:
                if (parent / name).exists():
                    raise FileExistsError(EEXIST, "appeared while it was being written", str(parent / name))
            part = hidden / f"{_READY}.part"
            part.write_text("\n".join(names), encoding="utf-8")
            part.rename(hidden / _READY)
            _publish(hidden)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def finish_interrupted(parent: Path, key: str) -> list[Path]:
    """Clear up behind killed runs of `key`: what one had finished is put in its place.

    Returns:
        The hidden folders of those that had not finished; see `remove_leftovers`.

    Raises:
        AttenScribbleError: where a run of `key` is alive.
    """
    leftovers = []
    for hidden in sorted(parent.glob(_prefix(key) + "*")):
        try:
            with _alone(hidden):
                ready = (hidden / _READY).exists()
                if ready:
                    _publish(hidden)
        except FileNotFoundError:  # its run ended by itself just now
            continue
        if ready:
            shutil.rmtree(hidden, ignore_errors=True)
        else:
            leftovers.append(hidden)
    return leftovers


def remove_leftovers(leftovers: Iterable[Path]) -> None:
    """Remove what killed runs have left behind."""
    for hidden in leftovers:
        shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def _alone(hidden: Path) -> Iterator[None]:
    """Hold the lock of a hidden folder."""
    with (hidden / _LOCK).open("a") as lock:
        if not try_lock(lock):
            raise AttenScribbleError(f"{hidden}: is being written by another process: wait for it, or end it")
        yield


def _publish(hidden: Path) -> None:
    for name in (hidden / _READY).read_text(encoding="utf-8").split("\n"):
        target = hidden.parent / name
        if (hidden / name).exists() and not target.exists():
            os.rename(hidden / name, target)


def _prefix(key: str) -> str:
    return f".attenscribble-{key}-"
