"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["encode_numbers", "replaced_file", "replaced_folder", "write_json", "write_text"]


def write_text(file: Path, text: str) -> None:
    """Write UTF-8 with the line ends that `text` has; raises as `replaced_file`."""
    with replaced_file(file) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(file: Path, content: object, *, indent: int | None = 4) -> None:
    """Write JSON; the folder is made where it is missing. Raises as `replaced_file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


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
def replaced_file(file: Path) -> Iterator[Path]:
    """A hidden name beside `file` to write to; it takes the place of `file` at the end, or is removed.

    Raises:
        AttenScribbleError: where it cannot be written, on a full disk for instance.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, file)
    except OSError as error:
        raise AttenScribbleError(f"{file}: cannot be written ({error.strerror or error})") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """An empty hidden folder beside `folder`; it takes the place of `folder` at the end, or is removed.

    Raises:
        AttenScribbleError: where it cannot be written.
    """
    part, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{what}") for what in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise AttenScribbleError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
