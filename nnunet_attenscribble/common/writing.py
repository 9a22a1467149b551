"""Files and folders that appear whole or not at all, and locks that go with their process."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from errno import EISDIR
from pathlib import Path
from typing import IO, Any

from nnunet_attenscribble.errors import AttenScribbleError

__all__ = [
    "encode_json",
    "encode_numbers",
    "naming",
    "replaced_file",
    "replaced_files",
    "replaced_folder",
    "write_json",
    "write_text",
    "write_texts",
]

_LOCKED_BYTE, _PATIENCE = (1 << 31) - 1, 0.2  # the last that 32 bits tell; seconds


def write_text(file: Path, text: str) -> None:
    """Write UTF-8 with the line ends that `text` has; raises as `replaced_file`."""
    write_texts({file: text})


def write_texts(texts: Mapping[Path, str]) -> None:
    """Write several files, all of them or none; raises as `replaced_file`."""
    with ExitStack() as parts:
        for file, text in texts.items():
            parts.enter_context(replaced_file(file)).write_text(text, encoding="utf-8", newline="\n")


def write_json(file: Path, content: object, *, indent: int | None = 4) -> None:
    """Write JSON; raises as `replaced_file`."""
    write_text(file, encode_json(content, indent=indent))


def encode_json(content: object, *, indent: int | None = 4) -> str:
    """JSON as the text of a file."""
    return json.dumps(content, indent=indent, ensure_ascii=False) + "\n"


def encode_numbers(value: Any) -> Any:
    """Replace NaN by None and infinity by "inf" or "-inf", throughout nested dicts and lists: JSON has neither."""
    if isinstance(value, Mapping):
        return {key: encode_numbers(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [encode_numbers(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of writing to `path`, told with its name, which those of a full disk do not hold.

    Raises:
        AttenScribbleError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise AttenScribbleError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextmanager
def replaced_file(file: Path) -> Iterator[Path]:
    """A hidden name beside `file` to write to; it takes the place of `file` at the end, or is removed.

    Folders that are missing are made, and taken away again where nothing came of it. To write several files or none,
    enter one such context inside the other.

    Raises:
        AttenScribbleError: where it cannot be written, on a full disk for instance.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    made = _list_missing(file.absolute().parent)
    try:
        with naming(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.is_dir():
                raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
            yield part
            os.replace(part, file)
            made = []
    finally:
        with suppress(OSError):
            part.unlink()
        _remove_empty(made)


@contextmanager
def replaced_files(*folders: Path) -> Iterator[Callable[[Path], Path]]:
    """For writers that go by a name's ending: files that take their places together at the end, or none of them.

    Args:
        folders: in which the files will lie, at whatever depth; each gets a hidden folder, of the same file system.

    Yields:
        a function from where a file shall lie to where to write it. They are moved in the order of its calls, each with
        what its writer has put beside it.

    Raises:
        AttenScribbleError: where one cannot be written.
    """
    hidden = {folder: folder / f".{os.getpid()}.part" for folder in folders}
    staged: list[tuple[Path, Path]] = []
    missing = [place for folder in folders for place in _list_missing(folder.absolute())]
    moved: list[tuple[Path, Path]] = []

    def stage(place: Path) -> Path:
        home = next(folder for folder in folders if folder in place.parents)
        part = hidden[home] / str(len(staged)) / place.name
        part.parent.mkdir()
        staged.append((part.parent, place))
        return part

    def move(source: Path, target: Path) -> None:
        source.rename(target)
        moved.append((target, source))

    try:
        with naming(folders[0]):
            for place in hidden.values():
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir(parents=True)
            yield stage
            try:
                for part, place in staged:
                    missing = [*_list_missing(place.absolute().parent), *missing]
                    place.parent.mkdir(parents=True, exist_ok=True)
                    for file in sorted(part.iterdir()):
                        target = place.with_name(file.name)
                        if os.path.lexists(target):
                            move(target, file.with_name(f"{file.name}.old"))
                        move(file, target)
            except BaseException:
                for now, before in reversed(moved):
                    now.rename(before)
                raise
            missing = []
    finally:
        for place in hidden.values():
            shutil.rmtree(place, ignore_errors=True)
        _remove_empty(missing)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """An empty hidden folder beside `folder`; it takes the place of `folder` at the end, or is removed.

    Raises:
        AttenScribbleError: where it cannot be written.
    """
    place = Path(os.path.abspath(folder))
    part, old = (place.with_name(f".{place.name}.{os.getpid()}.{what}") for what in ("part", "old"))
    made = _list_missing(place.parent)
    shutil.rmtree(part, ignore_errors=True)
    try:
        with naming(folder):
            part.mkdir(parents=True)
            yield part
            if place.exists():
                place.rename(old)
            try:
                part.rename(place)
            except OSError:
                if old.exists():
                    old.rename(place)
                raise
            made = []
            shutil.rmtree(old, ignore_errors=True)
    except AttenScribbleError as error:  # of a file in it: told by the name that it would have had
        raise AttenScribbleError(problem.replace(str(part), str(folder)) for problem in error.problems) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        _remove_empty(made)


def _list_missing(folder: Path) -> list[Path]:
    """The folder and those above it that are not there, the innermost first."""
    return [place for place in (folder, *folder.parents) if not place.exists()]


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def try_lock(file: IO, *, wait: bool = False) -> bool:
    """Hold the lock of an open file as long as it stays open, here and (not on Windows) in processes that inherit it.

    Args:
        file: open for writing.
        wait: until whoever holds it lets go.

    Returns:
        whether nobody else holds it; true as well where there are no locks, as on some file systems.
    """
    try:
        _lock(file, wait)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def _lock(file: IO, wait: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        # Windows locks bytes, which nobody else can write then: one that no file here reaches.
        before = os.lseek(file.fileno(), 0, os.SEEK_CUR)
        try:
            while True:
                os.lseek(file.fileno(), _LOCKED_BYTE, os.SEEK_SET)
                try:
                    msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                    return
                except PermissionError:
                    if not wait:
                        raise
                time.sleep(_PATIENCE)
        finally:
            os.lseek(file.fileno(), before, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
