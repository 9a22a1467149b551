"""Reading keys of a YAML file so that every problem is told at once."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["Keys", "count", "is_number", "number", "pattern", "read_keys", "text", "texts", "truth", "words"]

_REQUIRED = object()


def read_keys(file: Path, problems: list[str], advice: str) -> Keys:
    """The keys of a YAML file.

    Args:
        file: holds a mapping.
        problems: gets what is wrong with the values, as they are taken.
        advice: what to do about a file that is none.

    Raises:
        AttenScribbleError: no file, no YAML, or no mapping.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _UniqueKeys)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise AttenScribbleError(f"{file} cannot be read as YAML ({reason}): {advice}") from error
    if not isinstance(content, Mapping):
        raise AttenScribbleError(f"{file} holds no keys: {advice}")
    return Keys(content, "", problems)


class _UniqueKeys(yaml.SafeLoader):
    """YAML whose mappings may not hold a key twice; PyYAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys: list = []
        for entry, _ in node.value:
            key = self.construct_object(entry, deep=True)
            if key in keys:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", entry.start_mark)
            keys.append(key)
        return super().construct_mapping(node, deep)


@dataclass
class Keys:
    """One mapping of the file; notes down what is wrong with it instead of raising."""

    content: Mapping
    where: str
    problems: list[str]

    def check_names(self, known: Sequence[str]) -> None:
        """Refuse keys that are none of these."""
        for key in self.content:
            if key not in known:
                self.problems.append(f"unknown key '{self.where}{key}'; there are {', '.join(known)}")

    def take(self, key: str, convert: Callable[[Any], Any], expected: str, default: Any = _REQUIRED) -> Any:
        """The value of a key as `convert` makes it; a ValueError or None from it is a problem."""
        if self.content.get(key) is None:
            if default is _REQUIRED:
                self.problems.append(f"'{self.where}{key}' is missing: it must be {expected}")
                return None
            return default
        try:
            value = convert(self.content[key])
        except (ValueError, TypeError):
            value = None
        if value is None:
            self.problems.append(f"'{self.where}{key}' is {self.content[key]!r}: it must be {expected}")
            return None if default is _REQUIRED else default
        return value

    def mapping(self, key: str) -> Keys:
        """The keys below a key; none if it is not there."""
        content = self.take(key, lambda value: value if isinstance(value, Mapping) else None, "a mapping of keys", {})
        return Keys(content, f"{self.where}{key}.", self.problems)

    def mappings(self, key: str) -> list[Keys]:
        """The entries of a list of mappings; none if it is not there."""
        entries = self.take(key, lambda value: value if isinstance(value, list) else None, "a list", [])
        found = []
        for number, entry in enumerate(entries, start=1):
            where = f"{self.where}{key}[{number}]"
            if isinstance(entry, Mapping):
                found.append(Keys(entry, f"{where}.", self.problems))
            else:
                self.problems.append(f"'{where}' is {entry!r}: it must be a mapping of keys")
        return found


def is_number(value: Any) -> bool:
    """Whether it is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def text(value: Any) -> str | None:
    """One line of text, or a whole number as text."""
    if is_number(value):
        return str(value)
    return value.strip() if isinstance(value, str) and value.strip() and "\n" not in value.strip() else None


def texts(value: Any) -> tuple[str, ...] | None:
    """A list of such."""
    if not isinstance(value, list):
        return None
    found = [entry for entry in map(text, value) if entry is not None]
    return tuple(found) if len(found) == len(value) else None


def words(value: Any) -> tuple[str, ...] | None:
    """Words of a command: a list, or one line as the shell would split it."""
    if isinstance(value, str):
        return tuple(shlex.split(value))
    if isinstance(value, list) and all(isinstance(entry, str | int | float) for entry in value):
        return tuple(str(entry) for entry in value)
    return None


def pattern(value: Any) -> str | None:
    """A regular expression."""
    try:
        re.compile(value)
    except re.error:
        return None
    return value


def count(value: Any) -> int | None:
    """A whole number from 1."""
    return value if is_number(value) and value >= 1 else None


def number(value: Any) -> int | None:
    """A whole number from 0."""
    return value if is_number(value) and value >= 0 else None


def truth(value: Any) -> bool | None:
    """true or false."""
    return value if isinstance(value, bool) else None
