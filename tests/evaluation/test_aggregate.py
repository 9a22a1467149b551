import math

import numpy as np
import pytest

from nnunet_attenscribble.evaluation.metrics import (
    StructureScores,
    aggregate_scores,
    mean_over_structures,
    summarise_values,
)

NAN, INF = math.nan, math.inf


def make(status, dice, distance):
    return StructureScores(status, dice, dice, distance, distance, 0.0, 1, 1)


CASES = {
    "a": {"RV": make("present", 0.8, 2.0), "MYO": make("present", 0.6, 10.0)},
    "b": {"RV": make("present", 0.6, 4.0), "MYO": make("missed", 0.0, INF)},
    "c": {"RV": make("absent", NAN, NAN), "MYO": make("spurious", 0.0, INF)},
}


@pytest.mark.parametrize(
    ("values", "n", "infinite", "mean", "sd", "median"),
    [
        ([1, 2, 6], 3, 0, 3, math.sqrt(7), 2),
        ([2, NAN, 4], 2, 0, 3, math.sqrt(2), 3),
        # One perfect and one missed case: the mean is of the perfect one, the count tells, the median hides nothing.
        ([0, INF], 1, 1, 0, NAN, INF),
        ([2, 4, INF], 2, 1, 3, math.sqrt(2), 4),
        ([INF, INF], 0, 2, NAN, NAN, INF),
        ([NAN, NAN], 0, 0, NAN, NAN, NAN),
    ],
)
def test_summarise_values(values, n, infinite, mean, sd, median):
    found = summarise_values(np.array(values, float))
    assert (found["n"], found["infinite"]) == (n, infinite)
    for name, value in (("mean", mean), ("sd", sd), ("median", median)):
        assert found[name] == pytest.approx(value, nan_ok=True), name


def test_rule_for_absent_organs_by_hand():
    aggregate = aggregate_scores(CASES, ["RV", "MYO"])
    rv, myo = aggregate["structures"]["RV"], aggregate["structures"]["MYO"]
    assert [rv[status] for status in ("present", "missed", "spurious", "absent")] == [2, 0, 0, 1]
    assert [myo[status] for status in ("present", "missed", "spurious", "absent")] == [1, 1, 1, 0]
    assert (rv["dice"]["mean"], rv["dice"]["n"]) == (pytest.approx(0.7), 2)  # the absent one enters no mean
    assert (myo["dice"]["mean"], myo["dice"]["n"]) == (pytest.approx(0.2), 3)  # missed and spurious do, as 0
    assert (myo["hd95_mm"]["mean"], myo["hd95_mm"]["infinite"]) == (10, 2)
    assert myo["hd95_mm"]["median"] == INF


def test_foreground_mean_by_hand():
    foreground = aggregate_scores(CASES, ["RV", "MYO"])["foreground_mean"]
    assert foreground["dice"]["mean"] == pytest.approx((0.7 + 0.2) / 2)
    assert foreground["dice"]["sd"] == pytest.approx(np.std([0.7, 0.3, 0.0], ddof=1))
    assert foreground["hd95_mm"]["mean"] == pytest.approx((3 + 10) / 2)
    assert foreground["hd95_mm"]["structures"] == 2
    assert [foreground[status] for status in ("present", "missed", "spurious", "absent")] == [3, 1, 1, 1]


def test_a_structure_without_any_value_is_left_out_of_the_foreground_mean():
    cases = {"a": {"RV": make("present", 0.8, 2.0), "MYO": make("missed", 0.0, INF)}}
    foreground = aggregate_scores(cases, ["RV", "MYO"])["foreground_mean"]
    assert (foreground["hd95_mm"]["mean"], foreground["hd95_mm"]["structures"]) == (2, 1)
    assert foreground["dice"]["mean"] == pytest.approx(0.4)


def test_mean_over_structures_weighs_structures_alike():
    values = np.array([[1, 5], [1, NAN], [1, NAN], [1, INF]], float)
    assert mean_over_structures(values) == 3
    assert math.isnan(mean_over_structures(np.array([[NAN], [INF]])))
