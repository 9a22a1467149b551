"""What JSON and YAML files must hold, checked where they are read: whoever works with it need not ask again.

A JSON file is compared with a `Shape`; the keys of a YAML file, which somebody wrote by hand, are taken one by one and
made into what is needed. Either way all problems are told at once, and no key may stand twice.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nnunet_attenscribble.errors import AttenScribbleError, refuse

_ABSENT = object()
_TOLD = 6  # problems of one file
_SHOWN = 60  # letters of a value
_MOST = 1 << 31  # nothing that is counted here comes near it, and more would not be a number to other libraries


# --- JSON ---


@dataclass(frozen=True)
class Shape:
    """What a value must be.

    Attributes:
        expected: in words, as behind "it must be".
        accept: whether the value itself is of this kind.
        inside: the shapes of what such a value holds: place, shape and value each.
    """

    expected: str
    accept: Callable[[Any], bool]
    inside: Callable[[Any], Iterator[tuple[str, Shape, Any]]] = lambda value: iter(())


def read_json(file: Path, advice: str) -> Any:
    """The content of a JSON file, in which no key may stand twice: Python would silently take the last.

    Raises:
        AttenScribbleError: where it cannot be read, with what to do then.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=unique_keys)
    except OSError as error:
        raise AttenScribbleError(f"{file}: cannot be read ({error.strerror}): {advice}") from None
    except (ValueError, RecursionError) as error:
        raise AttenScribbleError(f"{file}: is no JSON ({error}): write it again, or {advice}") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, as an `object_pairs_hook`; raises ValueError where a key stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the key '{twice}' stands twice")
    return found


def read_shaped(file: Path, shape: Shape, advice: str) -> Any:
    """The content of a JSON file that has this shape.

    Args:
        file: to read.
        shape: of its content.
        advice: what to do where it has not, for the end of a sentence.

    Raises:
        AttenScribbleError: it cannot be read, or every place that is of another shape.
    """
    content = read_json(file, advice)
    check_shape(content, shape, file, advice)
    return content


def read_if_shaped(file: Path, shape: Shape) -> dict[str, Any]:
    """The keys of a JSON file that may be there; none where it is not, or not of this shape."""
    try:
        return read_shaped(file, shape, "")
    except AttenScribbleError:
        return {}


def check_shape(content: Any, shape: Shape, file: Path, advice: str) -> None:
    """Refuse content, of a file, that has not this shape; raises as `read_shaped`."""
    refuse(f"{file}: {problem}: {advice}" for problem in islice(shape_problems(content, shape), _TOLD))


def shape_problems(value: Any, shape: Shape, place: str = "") -> Iterator[str]:
    """A sentence about every place of another shape."""
    if not shape.accept(value):
        told = repr(value)
        told = told if len(told) <= _SHOWN else f"{told[:_SHOWN]}..."
        yield f"'{place}' is {told}: it must be {shape.expected}" if place else f"is not {shape.expected}"
        return
    for inner, inner_shape, entry in shape.inside(value):
        where = inner if not place else f"{place}{inner}" if inner.startswith("[") else f"{place}.{inner}"
        if entry is _ABSENT:
            yield f"has no '{where}': it must be {inner_shape.expected}"
        else:
            yield from shape_problems(entry, inner_shape, where)


def mapping(
    required: Mapping[str, Shape] | None = None,
    optional: Mapping[str, Shape] | None = None,
    *,
    each: Shape | None = None,
    expected: str = "an object of keys and values",
) -> Shape:
    """A JSON object.

    Args:
        required: shapes of keys that must be there.
        optional: of keys that may be there.
        each: of the values of all keys.
        expected: what it is, in words.
    """

    def inside(value: dict) -> Iterator[tuple[str, Shape, Any]]:
        for key, shape in (required or {}).items():
            yield key, shape, value.get(key, _ABSENT)
        for key, shape in (optional or {}).items():
            if key in value:
                yield key, shape, value[key]
        if each is not None:
            for key, entry in value.items():
                yield str(key), each, entry

    return Shape(expected, lambda value: isinstance(value, dict), inside)


def list_of(each: Shape, *, expected: str = "a list", at_least: int = 0) -> Shape:
    """A JSON array of values of one shape, with at least so many of them."""

    def inside(value: list) -> Iterator[tuple[str, Shape, Any]]:
        return ((f"[{number}]", each, entry) for number, entry in enumerate(value))

    return Shape(expected, lambda value: isinstance(value, list) and len(value) >= at_least, inside)


def nullable(shape: Shape) -> Shape:
    """The same, or null."""
    return Shape(
        f"{shape.expected}, or null",
        lambda value: value is None or shape.accept(value),
        lambda value: iter(()) if value is None else shape.inside(value),
    )


def is_whole(value: Any) -> bool:
    """Whether it is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


ANYTHING = Shape("anything", lambda value: True)
TEXT = Shape("text", lambda value: isinstance(value, str))
TRUTH = Shape("true or false", lambda value: isinstance(value, bool))
NUMBER = Shape("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool))
COUNT = Shape("a whole number from 0", lambda value: is_whole(value) and 0 <= value < _MOST)
SIZE = Shape("a whole number from 1", lambda value: is_whole(value) and 1 <= value < _MOST)


# --- YAML ---


def read_keys(file: Path, problems: list[str], advice: str) -> Keys:
    """The keys of a YAML file.

    Args:
        file: holds a mapping.
        problems: gets what is wrong with the values, as they are taken.
        advice: what to do about a file that is none.

    Raises:
        AttenScribbleError: no file, no YAML, or no mapping.
    """
    import yaml

    class UniqueKeys(yaml.SafeLoader):
        """YAML whose mappings may not hold a key twice; PyYAML would silently take the last."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
            keys: list = []
            for entry, _ in node.value:
                key = self.construct_object(entry, deep=True)
                if key in keys:
                    told = f"the key {key!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, told, entry.start_mark)
                keys.append(key)
            return super().construct_mapping(node, deep)

    try:
        content = yaml.load(file.read_text(encoding="utf-8"), UniqueKeys)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise AttenScribbleError(f"{file} cannot be read as YAML ({reason}): {advice}") from error
    if not isinstance(content, Mapping):
        raise AttenScribbleError(f"{file} holds no keys: {advice}")
    return Keys(content, "", problems)


@dataclass
class Keys:
    """One mapping of a YAML file; notes down what is wrong with it instead of raising."""

    content: Mapping
    where: str
    problems: list[str]

    def check_names(self, known: Sequence[str]) -> None:
        """Refuse keys that are none of these."""
        for key in self.content:
            if key not in known:
                self.problems.append(f"unknown key '{self.where}{key}'; there are {', '.join(known)}")

    def take(self, key: str, convert: Callable[[Any], Any], expected: str, default: Any = _ABSENT) -> Any:
        """The value of a key as `convert` makes it; a ValueError or None from it is a problem."""
        if self.content.get(key) is None:
            if default is _ABSENT:
                self.problems.append(f"'{self.where}{key}' is missing: it must be {expected}")
                return None
            return default
        try:
            value = convert(self.content[key])
        except (ValueError, TypeError):
            value = None
        if value is None:
            self.problems.append(f"'{self.where}{key}' is {self.content[key]!r}: it must be {expected}")
            return None if default is _ABSENT else default
        return value

    def take_shape(self, key: str, shape: Shape, default: Any = _ABSENT) -> Any:
        """The value of a key, where it is of this shape; what it holds is not looked at."""
        return self.take(key, lambda value: value if shape.accept(value) else None, shape.expected, default)

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


def text(value: Any) -> str | None:
    """One line of text, or a whole number as text."""
    if is_whole(value):
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
