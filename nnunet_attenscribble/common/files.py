"""Files: found in folders and archives as people have them, written whole or not at all, and locks that go with their
process.
"""

from __future__ import annotations

import glob
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from errno import EEXIST, EISDIR
from pathlib import Path, PurePosixPath
from typing import IO, Any

from nnunet_attenscribble.common.text import has_control_character
from nnunet_attenscribble.errors import AttenScribbleError, refuse

_LOCKED_BYTE, _PATIENCE = (1 << 31) - 1, 0.2  # the last that 32 bits tell; seconds
_LOCK = "lock"  # in a hidden folder: held as long as it is written to
_READY = "ready"  # in a hidden folder whose content is complete: the names to publish, one per line, in this order


def is_of_system(name: str) -> bool:
    """Whether macOS or Windows write files of this name by themselves."""
    return name in (".DS_Store", "Thumbs.db", "desktop.ini") or name.startswith("._")


def list_names(folder: Path) -> list[str]:
    """What a folder holds but for files of the system, sorted; nothing where there is none."""
    return sorted(file.name for file in folder.iterdir() if not is_of_system(file.name)) if folder.is_dir() else []


def find_files(folder: Path) -> list[Path]:
    """Every file below `folder`, sorted; links are followed, hidden files and macOS's shadow copies left out.

    Raises:
        AttenScribbleError: where `folder` is no folder, one below it cannot be listed, or a name is not UTF-8 or holds
            control characters.
    """
    if not folder.is_dir():
        raise AttenScribbleError(f"{folder}: {'is not a folder' if folder.exists() else 'does not exist'}")
    problems: list[str] = []
    seen: set[str] = set()  # links may lead back to a folder above
    files: list[Path] = []

    def report(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be listed ({error.strerror})")

    for here, subfolders, names in os.walk(folder, followlinks=True, onerror=report):
        real = os.path.realpath(here)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not _is_shadow(name))
        files += [Path(here, name) for name in names if not _is_shadow(name)]
    for file in files:
        try:
            str(file).encode()
        except UnicodeEncodeError:  # ITK ends the process
            name = os.fsencode(file).decode(errors="backslashreplace")
            problems.append(f"{name}: its name is not UTF-8: rename it")
            continue
        inside = str(file.relative_to(folder))
        if has_control_character(inside):
            name = ascii(str(file))[1:-1]
            problems.append(f"{name}: its name holds a line break or another control character: rename it")
        elif file.exists() and not file.is_file():  # reading it might wait for ever
            problems.append(f"{file}: is a pipe, a socket or a device: take it out of the folder")
    refuse(problems)
    return sorted(files)


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """A folder with the content of `source`, which is a folder itself or a zip archive.

    Raises:
        AttenScribbleError: where it is neither, or the archive is damaged.
    """
    import lzma
    import zipfile
    import zlib

    if source.is_dir():
        yield source
        return
    if not source.exists():
        raise AttenScribbleError(f"{source}: does not exist")
    with tempfile.TemporaryDirectory(prefix="attenscribble-") as temporary:
        folder = Path(temporary, source.name)  # so that errors about what it holds name the archive
        folder.mkdir()
        try:
            with zipfile.ZipFile(source) as archive:
                for member in archive.infolist():
                    if not any(_is_shadow(part) for part in PurePosixPath(member.filename).parts):
                        archive.extract(member, folder)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
            raise AttenScribbleError(
                f"{source}: is neither a folder nor a whole zip archive ({error}): download it again"
            ) from None
        except (RuntimeError, NotImplementedError, OSError) as error:  # a password, a rare compression, a full disk
            raise AttenScribbleError(f"{source}: cannot be unpacked ({error}): unpack it and give the folder") from None
        yield folder


def _is_shadow(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


# --- written whole or not at all ---


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
    if os.path.isdir(file):  # `.` and `/` among them, which have no name
        raise AttenScribbleError(f"{file}: cannot be written ({os.strerror(EISDIR)})")
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    made = _list_missing(file.absolute().parent)
    try:
        with naming(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            yield part
            os.replace(part, file)
            made = []
    finally:
        _remove(part)
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
    hidden: dict[Path, Path] = {}
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
        moved.append((target, source))  # first: Ctrl-C may come behind the renaming
        source.rename(target)

    try:
        with naming(folders[0]):
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
                hidden[folder] = Path(tempfile.mkdtemp(".part", ".", folder))
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
                moved.clear()
            except BaseException:
                while moved:
                    now, before = moved[-1]
                    try:
                        if os.path.lexists(now):
                            now.rename(before)
                    except OSError as error:
                        raise AttenScribbleError(
                            f"{before}: could not be put back ({error.strerror}): it is {now}: move it there"
                            for now, before in moved
                            if os.path.lexists(now) and now.suffix == ".old"
                        ) from error
                    moved.pop()
                raise
            missing = []
    finally:
        for place in hidden.values() if not moved else ():  # what could not be put back lies there
            shutil.rmtree(place, ignore_errors=True)
        _remove_empty(missing)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """An empty folder in a hidden one beside `folder`; it takes the place of `folder` at the end, or is removed.

    Where an earlier call was killed before its folder had taken that place, what was there is put back first, and what
    it had written is removed.

    Raises:
        AttenScribbleError: where it cannot be written.
    """
    place = Path(os.path.realpath(folder))  # of a link, the folder: the link stays
    old = place.with_name(f".{place.name}.attenscribble-old")  # the same of every run: the next puts back what one left
    hidden, part, made = None, place, _list_missing(place.parent)
    try:
        with naming(folder):
            place.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(place)
            if old.exists() and not place.exists():
                old.rename(place)
            hidden = Path(tempfile.mkdtemp(".part", f".{place.name}.", place.parent))
            part = hidden / place.name
            part.mkdir()
            with (hidden / _LOCK).open("w") as lock:
                try_lock(lock)
                print(os.getpid(), file=lock, flush=True)
                yield part
                try:
                    if place.exists():
                        shutil.rmtree(old, ignore_errors=True)
                        place.rename(old)
                    part.rename(place)
                except BaseException:
                    if old.exists() and not place.exists():
                        old.rename(place)
                    raise
            made = []
            with suppress(OSError):  # by this name none of it could be taken for the folder that a call was to replace
                old.rename(part)
    except AttenScribbleError as error:  # of a file in it: told by the name that it would have had
        raise AttenScribbleError(problem.replace(str(part), str(folder)) for problem in error.problems) from error
    finally:
        if hidden is not None:
            shutil.rmtree(hidden, ignore_errors=True)
        _remove_empty(made)


def _remove_abandoned(place: Path) -> None:
    """Remove the hidden folders that killed runs of `replaced_folder` have left beside `place`."""
    for file in place.parent.glob(f".{glob.escape(place.name)}.*.part/{_LOCK}"):
        with suppress(OSError):  # somebody holds it, or nobody can tell
            if file.stat().st_size:  # it was held: its run is dead where it can be had now
                with file.open("r+") as lock:
                    _lock(lock, wait=False)
                shutil.rmtree(file.parent)


def _list_missing(folder: Path) -> list[Path]:
    """The folder and those above it that are not there, the innermost first."""
    return [place for place in (folder, *folder.parents) if not place.exists()]


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # it is not empty
            folder.rmdir()


# --- locks ---


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


# --- folders that several runs write to: under a hidden name beside their place, renamed at the end ---


@contextmanager
def reserved(parent: Path, keys: Iterable[str], what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold `keys` in a folder, so that no other run takes one of them; what was made for that goes again.

    Args:
        parent: made if it is not there, and removed again where nothing came to lie in it.
        keys: of what will be written, as `staged_folders` has them: `004` of a dataset.
        what: how errors call a key (`dataset ID`).
        wait: until whoever holds one of them lets go, unless it is another user.

    Raises:
        AttenScribbleError: where a run that is alive holds one of them, unless told to wait, or one of another user's
            has left its lock.
    """
    made = _list_missing(parent)
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            for key in sorted(set(keys)):
                file = _lock_file(parent, key)
                if is_held_by_another_user(parent, key):
                    raise AttenScribbleError(
                        f"{parent / f'.attenscribble-{key}*'}: belong to another user: have them removed where nothing "
                        "is running" + ("" if wait else f", or choose another {what}")
                    )
                stack.enter_context(_open_locked(file, f"{parent}: {what} {key}", wait))
                stack.callback(_remove, file)
            yield
    finally:
        _remove_empty(made)


def is_held_by_another_user(parent: Path, key: str) -> bool:
    """Whether the lock of a key in a folder is there and cannot be opened: their run is alive, or was killed."""
    return _is_foreign(_lock_file(parent, key))


def _lock_file(parent: Path, key: str) -> Path:
    return parent / f".attenscribble-{key}.lock"


def _is_foreign(path: Path) -> bool:
    return path.exists() and not os.access(path, os.W_OK)


def _open_locked(file: Path, name: str, wait: bool = False) -> IO:
    while True:
        lock = file.open("a")
        if not try_lock(lock, wait=wait):
            lock.close()
            raise AttenScribbleError(f"{name} is being written by another process: wait for it, or end it")
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), file.stat()):
                return lock
        lock.close()  # who held it has removed it meanwhile: the next to come would not see this one


def _remove(file: Path) -> None:
    with suppress(OSError):  # it is not there, or open, which Windows keeps
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
        `names`; left with one, it is removed. Stopped between the names, it stays for `finish_interrupted`.
    """
    parent.mkdir(parents=True, exist_ok=True)
    # A name of its own for every run: workers of another run, still alive, can never write into this one's folder.
    hidden = Path(tempfile.mkdtemp(prefix=_prefix(key), dir=parent))
    try:
        with _open_locked(hidden / _LOCK, f"{hidden}:"):
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
    except BaseException:
        if not (hidden / _READY).exists():  # else `finish_interrupted` publishes the rest
            shutil.rmtree(hidden, ignore_errors=True)
        raise
    shutil.rmtree(hidden, ignore_errors=True)


def finish_interrupted(parent: Path, key: str) -> list[Path]:
    """Clear up behind killed runs of `key`: what one had finished is put in its place. Those of other users stay.

    Returns:
        The hidden folders of those that had not finished; see `remove_leftovers`.

    Raises:
        AttenScribbleError: where a run of `key` is alive.
    """
    leftovers = []
    for hidden in sorted(parent.glob(_prefix(key) + "*")):
        if _is_foreign(hidden):  # which nobody else can look into
            continue
        try:
            with _open_locked(hidden / _LOCK, f"{hidden}:"):
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


def _publish(hidden: Path) -> None:
    for name in (hidden / _READY).read_text(encoding="utf-8").split("\n"):
        target = hidden.parent / name
        if (hidden / name).exists() and not target.exists():
            os.rename(hidden / name, target)


def _prefix(key: str) -> str:
    return f".attenscribble-{key}-"


def link_file(link: Path, file: Path, folder: Path | None = None) -> None:
    """Make a link to a file, or where there can be none (Windows, some file systems) a copy of it.

    Args:
        link: to make.
        file: it leads to.
        folder: in which `link` will lie in the end, for a relative link; None: an absolute one.
    """
    text = str(file)
    if folder is not None:
        text = os.path.realpath(file)
        with suppress(ValueError):  # on another drive of Windows
            text = os.path.relpath(text, os.path.realpath(folder))
    try:
        link.symlink_to(text)
    except OSError:
        shutil.copyfile(file, link)
