"""The options of `attenscribble convert folder` as data, and as a YAML file that repeats a conversion."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from nnunet_attenscribble.common.shapes import Keys, count, number, pattern, read_keys, text, texts, truth
from nnunet_attenscribble.common.text import has_control_character
from nnunet_attenscribble.dataset_conversion.codings import PRESETS, choose_coding
from nnunet_attenscribble.dataset_conversion.folder import convert_folder
from nnunet_attenscribble.dataset_conversion.meanings import check_classes, parse_mark, parse_marks
from nnunet_attenscribble.dataset_conversion.raw_dataset import WrittenDatasets
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["FolderOptions", "encode_options", "read_options"]

_FOLDERS = ("images", "scribbles", "dense", "test_images", "test_labels")
_ADVICE = "write it again with attenscribble start"


@dataclass(frozen=True)
class FolderOptions:
    """What `convert folder` is told; see `convert_folder` for what is not described here."""

    images: Path
    dataset_id: int
    name: str
    labels: Mapping[str, int | str | None]
    """Class to what marks it in the files, a value, a name or a colour; None: see `Marks`."""
    scribbles: Path | None = None
    dense: Path | None = None
    test_images: Path | None = None
    test_labels: Path | None = None
    undrawn_as_test: bool = False
    channels: Sequence[str] = ("MRI",)
    subject: str | None = None
    spacing: Sequence[float] | None = None
    link: bool = False
    dense_id: int | None = None
    coding: str | None = None
    """One of `codings.PRESETS`."""
    unlabelled: int | str | None = None
    """Value, name or colour of what nobody drew on."""
    background_scribble: int | str | None = None
    """Of background strokes."""
    dense_slices: str | None = None
    axis: int | None = None
    annotated: Path | None = None
    trust_scribbles: bool = False

    def convert(self, **writing: Any) -> WrittenDatasets:
        """Convert with these options; `writing` are fields of `Writing`, raises as `convert_folder`."""
        rest = (self.unlabelled, self.background_scribble)
        values = [mark if isinstance(mark, int) else None for mark in rest]
        names = [mark if isinstance(mark, str) else None for mark in rest]
        is_coded = self.coding is not None or values != [None, None]
        return convert_folder(
            self.images,
            self.scribbles,
            classes=self.labels,
            coding=choose_coding(self.coding, *values) if is_coded else None,
            unlabelled=names[0],
            background=names[1],
            **{name: getattr(self, name) for name in _AS_THEY_ARE},
            **writing,
        )


_AS_THEY_ARE = tuple(
    field.name
    for field in fields(FolderOptions)
    if field.name not in ("images", "scribbles", "labels", "coding", "unlabelled", "background_scribble")
)


def encode_options(options: FolderOptions, file: Path) -> str:
    """The content of a YAML file that lies at `file`; folders are told from there."""
    home = Path(os.path.abspath(file)).parent
    content: dict[str, Any] = {}
    for field in fields(options):
        value = getattr(options, field.name)
        if value == field.default:
            continue
        if isinstance(value, Path):
            value = _tell_folder(Path(os.path.abspath(value)), home)
        elif isinstance(value, Mapping):
            value = dict(value)
        elif isinstance(value, tuple):
            value = list(value)
        content[field.name] = value
    head = (
        f"# attenscribble start --plan {file.name} converts again: options of attenscribble convert folder.\n"
        "# Folders are told from this file on.\n"
    )
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _tell_folder(folder: Path, home: Path) -> str:
    try:
        return Path(os.path.relpath(folder, home)).as_posix()
    except ValueError:  # on another drive of Windows
        return folder.as_posix()


def read_options(file: Path) -> FolderOptions:
    """Read such a file.

    Raises:
        AttenScribbleError: every problem of it, one sentence each.
    """
    problems: list[str] = []
    keys = read_keys(file, problems, _ADVICE)
    keys.check_names([field.name for field in fields(FolderOptions)])

    def folder(value: Any) -> Path | None:
        told = text(value)
        if told is None or has_control_character(told):
            return None
        place = Path(os.path.normpath(file.parent / told))
        return None if place.resolve().parent == place.resolve() else place  # a whole disk is no folder of images

    found: dict[str, Any] = {"labels": _take_labels(keys, problems)}
    found["images"] = keys.take("images", folder, "a folder, from this file on")
    for name in _FOLDERS[1:]:
        found[name] = keys.take(name, folder, "a folder, from this file on", None)
    found["dataset_id"] = keys.take("dataset_id", count, "a whole number from 1")
    found["name"] = keys.take("name", text, "the name of the dataset")
    found["channels"] = keys.take("channels", _read_channels, "a list of names", ("MRI",))
    for name in ("subject", "dense_slices"):
        found[name] = keys.take(name, pattern, "a regular expression", None)
    found["spacing"] = keys.take("spacing", _read_spacing, "three numbers above 0, mm along x, y and z", None)
    for name in ("undrawn_as_test", "link", "trust_scribbles"):
        found[name] = keys.take(name, truth, "true or false", False)
    found["dense_id"] = keys.take("dense_id", count, "a whole number from 1", None)
    found["coding"] = keys.take("coding", _one_of(tuple(PRESETS)), f"one of {', '.join(PRESETS)}", None)
    for name in ("unlabelled", "background_scribble"):
        found[name] = keys.take(name, _read_mark, "a value, a name or a colour", None)
    found["annotated"] = keys.take("annotated", folder, "a CSV file, from this file on", None)
    found["axis"] = keys.take("axis", _one_of((0, 1, 2)), "0, 1 or 2 (z, y, x)", None)
    if problems:
        raise AttenScribbleError(f"{file}: {problem}" for problem in dict.fromkeys(problems))
    return FolderOptions(**found)


def _take_labels(keys: Keys, problems: list[str]) -> dict[str, int | str | None]:
    expected = "classes, each with what marks it in the files: a value, a name, a colour, or null for its position"

    def read(value: Any) -> list[tuple[str, int | str | None]] | None:
        if isinstance(value, str):
            return list(parse_marks(value).items())
        if not isinstance(value, Mapping | list) or not value:
            return None
        entries = list(value.items()) if isinstance(value, Mapping) else [(name, None) for name in value]
        pairs = [(text(name), None if mark is None else _read_mark(mark)) for name, mark in entries]
        known = [(name, mark) for name, mark in pairs if name is not None]
        wrong = any(mark is not None and read is None for (_, mark), (_, read) in zip(entries, pairs, strict=True))
        return None if wrong or len(known) < len(pairs) else known

    try:
        pairs = keys.take("labels", read, expected)
        return {} if pairs is None else check_classes(pairs, "'labels'")
    except AttenScribbleError as error:
        problems += error.problems
        return {}


def _read_mark(value: Any) -> int | str | None:
    if isinstance(value, str):
        told = text(value)
        return None if told is None or has_control_character(told) else parse_mark(told)
    return number(value)


def _read_channels(value: Any) -> tuple[str, ...] | None:
    return texts([part.strip() for part in value.split(",")] if isinstance(value, str) else value) or None


def _read_spacing(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, list) or len(value) != 3 or any(isinstance(step, bool) for step in value):
        return None
    steps = tuple(float(step) for step in value if isinstance(step, int | float) and abs(step) < 1e9)
    return steps if len(steps) == 3 and all(math.isfinite(step) and step > 0 for step in steps) else None


def _one_of(known: Sequence[Any]) -> Callable[[Any], Any]:
    return lambda value: value if not isinstance(value, bool) and value in known else None
