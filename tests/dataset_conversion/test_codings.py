from typing import get_args

import pytest

from nnunet_attenscribble.dataset_conversion import CodingName, Tool
from nnunet_attenscribble.dataset_conversion.meanings import (
    PRESETS,
    ScribbleCoding,
    choose_coding,
    dense_values,
    scribble_values,
)
from nnunet_attenscribble.dataset_conversion.next_drawings import TOOLS
from nnunet_attenscribble.errors import AttenScribbleError

LABELS = {"background": 0, "a": 1, "b": 2}


@pytest.mark.parametrize(("names", "table"), [(CodingName, PRESETS), (Tool, TOOLS)])
def test_options_have_the_names_of_what_there_is(names, table):
    assert get_args(names) == tuple(table)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((None, None, None), None),
        (("acdc", None, None), None),
        (("chaos", None, None), {0: 3, 3: 0, 1: 1, 2: 2}),
        (("prostatex", None, None), {255: 3, 0: 0, 1: 1, 2: 2}),
        ((None, 0, None), {0: 3, 3: 0, 1: 1, 2: 2}),  # 0 unlabelled: then a background stroke is the top value
        ((None, 9, None), {9: 3, 0: 0, 1: 1, 2: 2}),
        ((None, None, 8), {3: 3, 8: 0, 1: 1, 2: 2}),
        (("prostatex", None, 4), {255: 3, 4: 0, 1: 1, 2: 2}),
    ],
)
def test_what_was_asked_for(arguments, expected):
    assert scribble_values(LABELS, choose_coding(*arguments)) == expected


def test_classes_with_other_values():
    classes = {"a": 63, "b": 252}
    assert scribble_values(LABELS, ScribbleCoding(), classes) == {253: 3, 0: 0, 63: 1, 252: 2}
    assert dense_values(LABELS, classes) == {0: 0, 63: 1, 252: 2}
    assert dense_values(LABELS, {"a": 1, "b": 2}) is None


@pytest.mark.parametrize(
    ("coding", "told"),
    [
        (ScribbleCoding(0, 0), "value 0 cannot mean both unlabelled and a background stroke"),
        (ScribbleCoding(2, 0), "value 2 cannot mean both b and unlabelled"),
        (ScribbleCoding(None, 1), "value 1 cannot mean both a and a background stroke"),
    ],
)
def test_one_value_means_one_thing(coding, told):
    with pytest.raises(AttenScribbleError, match=told):
        scribble_values(LABELS, coding)


def test_an_unknown_preset():
    with pytest.raises(AttenScribbleError, match="coding 'x': choose one of acdc, chaos, prostatex"):
        choose_coding("x", None, None)
