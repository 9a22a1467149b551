"""Finding input files in folders and archives as people have them."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from nnunet_attenscribble.common.text import has_control_character
from nnunet_attenscribble.errors import AttenScribbleError


def read_json(file: Path, advice: str) -> Any:
    """The content of a JSON file, in which no key may stand twice: Python would silently take the last.

    Raises:
        AttenScribbleError: where it cannot be read, with what to do then.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_unique_keys)
    except OSError as error:
        raise AttenScribbleError(f"{file}: cannot be read ({error.strerror}): {advice}") from None
    except (ValueError, RecursionError) as error:
        raise AttenScribbleError(f"{file}: is no JSON ({error}): write it again, or {advice}") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the key '{twice}' stands twice")
    return found


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
    if problems:
        raise AttenScribbleError(problems)
    return sorted(files)


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """A folder with the content of `source`, which is a folder itself or a zip archive.

    Raises:
        AttenScribbleError: where it is neither, or the archive is damaged.
    """
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
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise AttenScribbleError(
                f"{source}: is neither a folder nor a whole zip archive ({error}): download it again"
            ) from None
        except (RuntimeError, NotImplementedError, OSError) as error:  # a password, a rare compression, a full disk
            raise AttenScribbleError(f"{source}: cannot be unpacked ({error}): unpack it and give the folder") from None
        yield folder


def _is_shadow(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
