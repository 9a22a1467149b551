import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from nnunet_attenscribble.dataset_conversion import strokes


def random_mask(seed, shape=(24, 30)):
    """A blob, a ring, a line or a single pixel."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    distance = np.hypot(rows - rng.uniform(0, shape[0]), columns - rng.uniform(0, shape[1]))
    masks = [distance < rng.uniform(3, 12), np.abs(distance - 8) < rng.uniform(0.6, 3), rows == columns, distance < 0]
    mask = masks[rng.integers(4)]
    mask[tuple(rng.integers(n) for n in shape)] = True
    return mask


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.5, 4), st.floats(0.01, 1))
def test_strokes_stay_inside_and_are_there(seed, width, share):
    mask = random_mask(seed)

    def rng():
        return np.random.default_rng(seed)

    for stroke in (
        strokes.stroke_inside(rng(), mask, share, width),
        strokes.spline_through(rng(), mask, 4, width),
        strokes.skeleton(mask),
        strokes.deepest_point(rng(), mask),
    ):
        assert stroke.any()
        assert not (stroke & ~mask).any()
    border = strokes.stroke_along_border(rng(), mask, (0.07, 0.15), (1, 4), width)
    assert not (border & ~mask).any()
    assert np.array_equal(
        strokes.stroke_inside(rng(), mask, share, width), strokes.stroke_inside(rng(), mask, share, width)
    )


def test_a_pixel_is_its_own_stroke():
    mask = np.zeros((5, 5), bool)
    mask[0, 4] = True
    rng = np.random.default_rng(0)
    for stroke in (strokes.stroke_inside(rng, mask, 0.1, 1), strokes.skeleton(mask), strokes.deepest_point(rng, mask)):
        assert np.array_equal(stroke, mask)
    assert not strokes.stroke_along_border(rng, mask, (0.1, 0.2), (2, 5), 1).any()


def test_a_mask_that_fills_the_image_has_its_border_there():
    mask = np.ones((21, 21), bool)
    point = strokes.deepest_point(np.random.default_rng(0), mask)
    assert np.argwhere(point).tolist() == [[10, 10]]


def test_width_and_coverage():
    rows, columns = np.indices((120, 120))
    mask = np.hypot(rows - 60, columns - 60) < 40
    for width in (1.0, 3.0):
        sizes = [strokes.stroke_inside(np.random.default_rng(seed), mask, 0.01, width).sum() for seed in range(60)]
        assert np.mean(sizes) == pytest.approx(0.01 * mask.sum(), rel=0.25)


def test_a_border_stroke_lies_as_deep_as_asked():
    rows, columns = np.indices((120, 120))
    distance = np.hypot(rows - 60, columns - 60)
    for seed in range(20):
        stroke = strokes.stroke_along_border(np.random.default_rng(seed), distance < 40, (0.1, 0.15), (3, 6), 1.0)
        assert 40 - distance[stroke].max() > 2
        assert 40 - distance[stroke].min() < 8
        assert 0.08 * 2 * np.pi * 33 < stroke.sum() < 0.2 * 2 * np.pi * 37


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(["inside", "border", "skeleton", "point"]))
def test_a_box_of_a_slice_gets_the_strokes_of_the_slice(seed, kind):
    mask = random_mask(seed, shape=(40, 46))
    drawn = {
        "inside": lambda rng, part: strokes.stroke_inside(rng, part, 0.16, 1.25),
        "border": lambda rng, part: strokes.stroke_along_border(rng, part, (0.07, 0.15), (0, 4), 1.25),
        "skeleton": lambda rng, part: strokes.skeleton(part),
        "point": strokes.deepest_point,
    }[kind]
    whole = drawn(np.random.default_rng(seed), mask)
    rows, columns = np.nonzero(mask)
    box = tuple(slice(max(side.min() - strokes.MARGIN, 0), side.max() + strokes.MARGIN + 1) for side in (rows, columns))
    assert np.array_equal(whole[box], drawn(np.random.default_rng(seed), mask[box]))
    assert whole.sum() == whole[box].sum()


@pytest.mark.parametrize(("shape", "scale"), [((17, 30), 2.0), ((24, 9), 30.0), ((1, 8), 1.0), ((6, 1), 0.5)])
def test_noise_is_normal_noise_smoothed_around_the_rim(shape, scale):
    smooth = gaussian_filter(np.random.default_rng(3).normal(size=shape), scale, mode="wrap")
    expected = (smooth - smooth.mean()) / smooth.std()
    np.testing.assert_allclose(strokes.smooth_noise(np.random.default_rng(3), shape, scale), expected, atol=1e-8)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.5, 6))
def test_a_line_covers_the_pixels_within_half_its_width(seed, width):
    rng = np.random.default_rng(seed)
    line, mask = rng.uniform(-3, 20, (rng.integers(1, 5), 2)), rng.random((16, 17)) < 0.8
    steps = np.linspace(0, len(line) - 1, 8 * len(line))
    dense = np.stack([np.interp(steps, np.arange(len(line)), axis) for axis in line.T], axis=1)
    away = np.hypot(*(np.indices(mask.shape)[:, None] - dense.T[:, :, None, None])).min(axis=0)
    assert np.array_equal(strokes.draw_line(line, width, mask), mask & (away <= width / 2))


def test_a_zigzag_crosses_its_box():
    for seed in range(20):
        rows, columns = strokes.zigzag(np.random.default_rng(seed), (5, 15, 30, 60)).T
        assert 5 <= rows.min() < 8
        assert 12 < rows.max() <= 15
        assert 30 <= columns.min() < 36
        assert 54 < columns.max() <= 60


def test_parts_of_a_closed_line_start_anywhere():
    angles = np.linspace(0, 2 * np.pi, 101)
    circle = 20 * np.stack((np.sin(angles), np.cos(angles)), axis=1)
    parts = [strokes.part_of_line(np.random.default_rng(seed), circle, 10, unsteady=0) for seed in range(40)]
    quarters = {(row > 0, column > 0) for (row, column), *_ in parts}
    assert len(quarters) == 4
    assert all(8 < strokes.measure_line(part) <= 10 for part in parts)
