import math
import tracemalloc

import numpy as np
import pytest
from scipy.stats import wilcoxon

from nnunet_attenscribble.evaluation.compare import (
    adjust_holm,
    bootstrap_means,
    compute_wilcoxon_p,
    draw_weights,
    pair_differences,
)

NAN, INF = math.nan, math.inf


def test_draws_are_as_many_as_there_are_subjects():
    weights = draw_weights(3, resamples=500, seed=0)
    assert weights.shape == (500, 3)
    np.testing.assert_array_equal(weights.sum(axis=1), 3)
    assert len(np.unique(weights, axis=0)) == 10  # all ways to draw three from three
    np.testing.assert_array_equal(weights, draw_weights(3, resamples=500, seed=0))
    assert not np.array_equal(weights, draw_weights(3, resamples=500, seed=1))


def test_draws_are_those_of_one_call_without_its_memory():
    expected = np.random.default_rng(3).multinomial(300, np.full(300, 1 / 300), size=200)
    expected = np.asfortranarray(expected, float)
    tracemalloc.start()
    weights = draw_weights(300, resamples=200, seed=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(weights, expected)
    assert weights.strides == expected.strides  # on which the last digits of products with it hang
    assert peak < 1.5 * weights.nbytes


def test_bootstrap_means_by_hand():
    values, subjects = np.array([[1, 10], [2, NAN], [6, INF]], float), np.arange(3)
    weights = np.array([[1, 1, 1], [0, 1, 2], [3, 0, 0], [0, 0, 3]], float)
    # Two draws lack the second structure.
    np.testing.assert_allclose(bootstrap_means(values, subjects, weights), [(3 + 10) / 2, NAN, (1 + 10) / 2, NAN])
    assert np.isnan(bootstrap_means(np.array([[NAN], [1.0]]), subjects[:2], np.array([[2.0, 0.0]]))).all()


def test_cases_of_a_subject_come_along():
    generator = np.random.default_rng(0)
    values, subjects = generator.normal(size=(40, 3)), generator.permutation(40) % 7
    values[generator.random(values.shape) < 0.2] = NAN
    weights = draw_weights(7, resamples=300, seed=0)
    cases = bootstrap_means(values, np.arange(40), weights[:, subjects])
    np.testing.assert_allclose(bootstrap_means(values, subjects, weights), cases, rtol=1e-12)


def test_bootstrap_interval_has_the_width_of_the_standard_error():
    values = np.random.default_rng(0).normal(5, 2, (200, 1))
    means = bootstrap_means(values, np.arange(200), draw_weights(200, resamples=5000, seed=0))
    assert means.mean() == pytest.approx(values.mean(), abs=0.02)
    assert means.std() == pytest.approx(values.std() / math.sqrt(200), rel=0.05)


def test_repeated_subjects_widen_the_interval():
    # Every subject measured four times over with the same result: four times the cases, none of the knowledge.
    values = np.repeat(np.random.default_rng(0).normal(size=(30, 1)), 4, axis=0)
    honest = bootstrap_means(values, np.arange(120) // 4, draw_weights(30, resamples=4000, seed=0)).std()
    naive = bootstrap_means(values, np.arange(120), draw_weights(120, resamples=4000, seed=0)).std()
    assert honest == pytest.approx(2 * naive, rel=0.1)


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (3.0, 1.0, 2.0),
        (INF, 1.0, INF),  # missed
        (1.0, INF, -INF),
        (INF, INF, 0.0),  # missed by both
        (INF, NAN, INF),  # spurious, where the other one was right
        (NAN, INF, -INF),
    ],
)
def test_differences_of_distances(own, other, expected):
    (found,) = pair_differences(np.array([[own]]), np.array([[other]]), ["a"], worst=INF)
    assert found == expected


def test_differences_of_dice():
    own, other = np.array([[0.0], [NAN], [0.5], [NAN]]), np.array([[NAN], [0.0], [0.75], [NAN]])
    assert pair_differences(own, other, list("abcd"), worst=-1).tolist() == [-1, 1, -0.25]  # d has the organ nowhere


def test_differences_are_averaged_per_subject():
    own, other = np.array([[1.0, 2.0], [3.0, 8.0], [5.0, NAN]]), np.zeros((3, 2))
    other[2, 1] = NAN
    assert pair_differences(own, other, ["p1", "p1", "p2"], worst=INF).tolist() == [3.5, 5.0]
    opposed = pair_differences(np.array([[INF, 1.0]]), np.array([[1.0, INF]]), ["a"], worst=INF)
    assert opposed.tolist() == [0.0]
    more = pair_differences(np.array([[INF, INF, 1.0]]), np.array([[1.0, 1.0, INF]]), ["a"], worst=INF)
    assert more.tolist() == [INF]  # two missed against one


def test_wilcoxon():
    # Six differences of one sign: 2 of the 2^6 sign patterns are as extreme.
    assert compute_wilcoxon_p(np.arange(1.0, 7.0)) == pytest.approx(2 / 64)
    assert compute_wilcoxon_p(-np.arange(1.0, 7.0)) == pytest.approx(2 / 64)
    # Seven equal ranks, one against six: 1 + 7 of the 2^7 sign patterns have at most one minus, 1 + 7 at most one plus.
    assert compute_wilcoxon_p(np.array([INF] * 6 + [-INF])) == pytest.approx(16 / 128)
    values = np.random.default_rng(3).normal(0.3, 1, 30)
    assert compute_wilcoxon_p(values) == pytest.approx(wilcoxon(values).pvalue)
    # The largest difference may as well be infinite.
    largest = np.where(values == np.abs(values).max(), INF, values)
    assert np.isinf(largest).any()
    assert compute_wilcoxon_p(largest) == pytest.approx(wilcoxon(values).pvalue)
    assert compute_wilcoxon_p(np.zeros(5)) == 1
    assert compute_wilcoxon_p(np.array([1e-16, -1e-17])) == 1
    assert math.isnan(compute_wilcoxon_p(np.array([])))


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.04; never below an earlier one.
    assert adjust_holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert adjust_holm([0.5, NAN, 0.9]) == pytest.approx([1.0, NAN, 1.0], nan_ok=True)
    assert adjust_holm([0.01]) == [0.01]
