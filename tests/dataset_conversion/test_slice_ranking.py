from __future__ import annotations

import numpy as np
import pytest

from nnunet_attenscribble.dataset_conversion.slice_ranking import (
    CaseSlices,
    choose_slices,
    find_drawing_axis,
    measure_slices,
)


def slices(*entropy: float, drawn: tuple[int, ...] = ()) -> CaseSlices:
    count = len(entropy)
    return CaseSlices(
        0, np.array(entropy), np.zeros(count), np.zeros(count, int), np.isin(np.arange(count), np.array(drawn, int))
    )


def choose(cases: dict[str, CaseSlices], count: int) -> list[tuple[str, int]]:
    return [(chosen.case, chosen.position) for chosen in choose_slices(cases, count)]


def test_a_slice_is_measured_by_its_means():
    entropy, disagreement = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    entropy[1] = [[0.3, 0.1, 0.1], [0.2, 0.2, 0.3]]
    disagreement[0, :, 1] = 0.3
    labels = np.array([[[0, 1, 1], [0, 0, 0]], [[2, 1, 1], [0, 0, 0]]])
    strokes = np.zeros((2, 2, 3), bool)
    strokes[0, 1, 2] = True
    found = measure_slices(entropy, disagreement, labels, strokes, 0)
    assert found.entropy.tolist() == pytest.approx([0, 0.2])  # 1.2 over 6 pixels
    assert found.disagreement.tolist() == pytest.approx([0.1, 0])
    assert found.unsure.tolist() == [0, 2]  # 0.3 against 0.2 of class 1; background, 0.7, always is along the others
    assert found.drawn.tolist() == [True, False]
    across = measure_slices(entropy, disagreement, labels, strokes, 2)
    assert across.entropy.tolist() == pytest.approx([0.125, 0.075, 0.1])
    assert across.drawn.tolist() == [False, False, True]


def test_the_surest_slices_come_last_and_drawn_ones_never():
    assert choose({"a": slices(0.1, 0.9, 0.2, 0.8, drawn=(1,))}, 10) == [("a", 3), ("a", 2), ("a", 0)]
    assert choose({"a": slices(0.5, drawn=(0,))}, 10) == []


def test_slices_are_spread_over_cases():
    # 0.9 first; 0.8 of the same case counts half, so 0.5 of another goes before it; then 0.7 / 3 before 0.3 / 2.
    cases = {"a": slices(0.9, 0, 0.8, 0, 0.7), "b": slices(0.5, 0, 0.3)}
    assert choose(cases, 4) == [("a", 0), ("b", 0), ("a", 2), ("a", 4)]


def test_a_slice_beside_another_counts_half():
    # Beside the drawn slice 0.6 becomes 0.3, less than the 0.4 farther off.
    assert choose({"a": slices(0, 0.6, 0.4, drawn=(0,))}, 1) == [("a", 2)]
    assert choose({"a": slices(0, 0.9, 0.4, drawn=(0,))}, 1) == [("a", 1)]


def test_equal_scores_go_by_case_and_position_whatever_the_order():
    cases = {"b": slices(0.5, 0.5), "a": slices(0.5, 0.5), "c": slices(0.5, 0.5)}
    expected = [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1), ("c", 1)]
    assert choose(cases, 6) == expected
    assert choose(dict(reversed(cases.items())), 6) == expected
    assert choose({"a": slices(0, 0, 0)}, 3) == [("a", 0), ("a", 1), ("a", 2)]  # where nothing is unsure, too


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_strokes_tell_the_axis_across_which_they_were_drawn(axis):
    drawn = np.zeros((6, 6, 6), bool)
    drawn[::2, 1, 1:5] = drawn[::2, 1:5, 4] = True  # in every second slice, along both other axes
    assert find_drawing_axis([np.moveaxis(drawn, 0, axis)]) == axis


def test_points_and_three_orthogonal_planes_tell_no_axis():
    points = np.zeros((6, 6, 6), bool)
    points[2, 2, 2] = points[4, 1, 3] = True
    planes = np.zeros((7, 7, 7), bool)
    planes[3, 3, :] = planes[3, :, 3] = planes[:, 3, 3] = True
    assert find_drawing_axis([]) is find_drawing_axis([points]) is find_drawing_axis([planes]) is None
