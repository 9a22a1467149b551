"""What a JSON file must hold, checked where it is read: whoever works with it need not ask again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nnunet_attenscribble.common.files import read_json
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = [
    "ANYTHING",
    "COUNT",
    "NUMBER",
    "SIZE",
    "TEXT",
    "TRUTH",
    "Shape",
    "check_shape",
    "list_of",
    "mapping",
    "nullable",
    "read_shaped",
    "shape_problems",
]

_ABSENT = object()
_TOLD = 6  # problems of one file
_SHOWN = 60  # letters of a value
_MOST = 1 << 31  # nothing that is counted here comes near it, and more would not be a number to other libraries


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


def check_shape(content: Any, shape: Shape, file: Path, advice: str) -> None:
    """Refuse content, of a file, that has not this shape; raises as `read_shaped`."""
    problems = list(islice(shape_problems(content, shape), _TOLD))
    if problems:
        raise AttenScribbleError(f"{file}: {problem}: {advice}" for problem in problems)


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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


ANYTHING = Shape("anything", lambda value: True)
TEXT = Shape("text", lambda value: isinstance(value, str))
TRUTH = Shape("true or false", lambda value: isinstance(value, bool))
NUMBER = Shape("a number", _is_number)
COUNT = Shape("a whole number from 0", lambda value: _is_whole(value) and 0 <= value < _MOST)
SIZE = Shape("a whole number from 1", lambda value: _is_whole(value) and 1 <= value < _MOST)
