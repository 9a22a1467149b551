"""The table of how much of the scribbles reaches the loss."""

from __future__ import annotations

import numpy as np

from nnunet_attenscribble.common.nnunet import name_values
from tools.timing.survival import format_shares


def test_columns_are_called_by_the_value_that_they_count():
    assert name_values({"ring": 2, "background": 0, "core": 1, "ignore": 3}, 3) == ["background", "core", "ring"]
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    assert name_values(regions, 4) == ["background", "label 1", "label 2", "enhancing"]


def test_a_class_that_no_patch_showed_has_no_share():
    assert format_shares(np.array([1.0, 0.0, 0.0]), np.array([2.0, 4.0, 0.0])) == ["50.0 %", "0.0 %", "n/a"]
