"""What JSON must hold, told by its place."""

from __future__ import annotations

import json

import pytest

from nnunet_attenscribble.common.shapes import (
    COUNT,
    SIZE,
    TEXT,
    list_of,
    mapping,
    nullable,
    read_json,
    read_shaped,
    shape_problems,
)
from nnunet_attenscribble.errors import AttenScribbleError

SHAPE = mapping(
    {"name": TEXT, "folds": list_of(mapping({"val": list_of(TEXT)}), at_least=1)},
    {"size": nullable(SIZE)},
)


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        ({"name": "a", "folds": [{"val": []}], "size": None, "other": 1}, []),
        ([], ["is not an object of keys and values"]),
        ({}, ["has no 'name': it must be text", "has no 'folds': it must be a list"]),
        ({"name": "a", "folds": []}, ["'folds' is []: it must be a list"]),
        (
            {"name": 1, "folds": [{"val": ["x"]}, {"val": ["x", 2]}, {}], "size": 0},
            [
                "'name' is 1: it must be text",
                "'folds[1].val[1]' is 2: it must be text",
                "has no 'folds[2].val': it must be a list",
                "'size' is 0: it must be a whole number from 1, or null",
            ],
        ),
    ],
)
def test_every_place_of_another_shape_is_told(content, problems):
    assert list(shape_problems(content, SHAPE)) == problems


@pytest.mark.parametrize("value", [True, 1.0, "1", -1, 10**40, float("nan"), None])
def test_what_is_no_count(value):
    assert list(shape_problems(value, COUNT, "n"))


def test_of_very_many_places_a_few_are_told(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([0] * 1000))
    with pytest.raises(AttenScribbleError) as error:
        read_shaped(tmp_path / "a.json", list_of(TEXT), "write it again")
    assert len(error.value.problems) == 6
    assert error.value.problems[5] == f"{tmp_path / 'a.json'}: '[5]' is 0: it must be text: write it again"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands twice"),
        (b"[" * 100_000, "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"", "is no JSON"),
    ],
)
def test_json_that_python_would_take_or_choke_on(tmp_path, content, problem):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(AttenScribbleError, match=problem):
        read_json(tmp_path / "a.json", "write it again")
