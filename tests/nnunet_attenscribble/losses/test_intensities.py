from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_attenscribble.losses import MaskedCRFLoss
from nnunet_attenscribble.losses.intensities import FEWEST, KNOTS, rank_intensities, rescale_intensities


def test_intensities_by_hand():
    image = torch.arange(101.0).view(1, 1, 1, 101)
    scaled = rescale_intensities(image)[0, 0, 0]
    assert scaled[1].item() == pytest.approx(0, abs=1e-6)
    assert scaled[99].item() == pytest.approx(1)
    assert scaled[50].item() == pytest.approx(0.5)
    assert (scaled[0], scaled[100]) == (0, 1)


def test_intensities_are_those_of_torchs_quantile_per_sample_and_channel():
    image = torch.randn(2, 3, 9, 7)
    low, high = (torch.quantile(image.flatten(2), q, dim=2)[..., None, None] for q in (0.01, 0.99))
    torch.testing.assert_close(rescale_intensities(image), ((image - low) / (high - low)).clamp(0, 1))
    torch.testing.assert_close(rescale_intensities(100 * image + 7), rescale_intensities(image))


def test_intensities_outside_do_not_enter():
    image = torch.randn(2, 1, 6, 6)
    inside = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    inside[:, :, :2] = False
    far = image.masked_fill(~inside, -1000.0)
    expected = rescale_intensities(image[:, :, 2:])
    torch.testing.assert_close(rescale_intensities(far, inside)[:, :, 2:], expected)
    assert (rescale_intensities(far, torch.zeros_like(inside)) == 0).all()


def test_a_constant_image_becomes_zero():
    assert (rescale_intensities(torch.full((1, 1, 4, 4), 5.0)) == 0).all()


def test_a_structure_of_less_than_a_hundredth_keeps_its_place():
    # Less than a hundredth on either side of what all others are.
    image = torch.full((10_000,), 7.0)
    image[:94], image[-95:] = 3.0, 12.0
    scaled = rescale_intensities(image.view(1, 1, 100, 100)).flatten()
    assert scaled.unique().tolist() == pytest.approx([0, 4 / 9, 1])
    alone = rescale_intensities(image[94:].view(1, 1, 2, -1)).flatten()  # the smaller end is then the common value
    assert alone.unique().tolist() == [0, 1]
    assert rescale_intensities(-image[94:].view(1, 1, 2, -1)).unique().tolist() == [0, 1]


def test_outliers_of_what_differs_are_clipped_as_elsewhere():
    image = torch.zeros(1, 1, 1, 100_000)
    image[..., :101] = torch.arange(1.0, 102.0)
    scaled = rescale_intensities(image)[0, 0, 0]
    torch.testing.assert_close(scaled[:101], (image[0, 0, 0, :101] / 100).clamp(max=1))


def test_one_value_but_for_rounding_is_one_value():
    image = 1 + 1e-7 * torch.rand(1, 1, 50, 50)
    image[0, 0, 20:24, 20:25] = 3.0
    scaled = rescale_intensities(image)
    assert scaled[image < 2].max() < 1e-6
    assert (scaled[image > 2] == 1).all()
    # Where the quantiles differ by as little as a ten-thousandth of the range, they count.
    image = torch.cat([torch.linspace(0, 1e-4, 10_000), torch.ones(20)]).view(1, 1, 1, -1)
    assert (rescale_intensities(image) == 1).sum() == pytest.approx(100, abs=2)


def test_the_right_prediction_of_a_small_structure_costs_nothing():
    image = torch.zeros(1, 1, 64, 64)
    image[0, 0, 30:34, 30:36] = 1.0
    right = torch.cat([1 - image, image], 1)
    wrong = torch.cat([torch.ones_like(image), torch.zeros_like(image)], 1)
    scaled, everywhere = rescale_intensities(image), torch.ones_like(image)
    assert MaskedCRFLoss()(right, scaled, everywhere).item() < 1e-4  # what single precision leaves
    half = 0.5 * (right + wrong)
    assert MaskedCRFLoss()(half, scaled, everywhere).item() > 1e-3


@given(
    shape=st.sampled_from([(1, 1), (3, 1), (6, 7), (40, 30), (3, 5, 4), (2, 9, 11)]),
    kind=st.sampled_from(["noise", "few values", "constant", "sparse"]),
    share=st.sampled_from([0.0, 0.1, 0.7, 1.0]),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=40)
def test_what_lies_outside_is_as_if_it_were_not_there(shape, kind, share, seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, 3, *shape, generator=generator)
    if kind == "few values":
        image = image.round()
    elif kind == "constant":
        image = torch.full_like(image, 5.0)
    elif kind == "sparse":
        image = image * (torch.rand(image.shape, generator=generator) < 0.01)
    inside = torch.rand(2, 1, *shape, generator=generator) < share
    scaled = rescale_intensities(image, inside)
    for n in range(2):
        for channel, ours in zip(image[n], scaled[n], strict=True):
            alone = channel[inside[n, 0]].view(1, 1, 1, -1)
            if alone.numel():
                torch.testing.assert_close(ours[inside[n, 0]], rescale_intensities(alone).flatten())
            else:
                assert (ours == 0).all()


@given(
    counts=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    common=st.integers(0, 1200),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=60)
def test_the_range_is_that_of_its_definition(counts, common, seed):
    """By numpy's quantiles, on values of which one may be most of all."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([np.full(common, 0.5), *(rng.normal(size=n) + 0.1 * n for n in counts)]).astype(np.float32)
    low, high = np.quantile(values, [0.01, 0.99], method="linear")
    outermost = len(values) // 1000
    margin = 1e-5 * (np.sort(values)[len(values) - 1 - outermost] - np.sort(values)[outermost])
    margin = max(margin, 1e-6 * max(abs(low), abs(high)))
    others = values[(values < low - margin) | (values > high + margin)]
    if high - low <= margin and len(others):
        low, high = min(low, np.quantile(others, 0.01)), max(high, np.quantile(others, 0.99))
    image = torch.from_numpy(rng.permutation(values)).view(1, 1, 1, -1)
    expected = ((image.double() - low) / (high - low)).clamp(0, 1) if high > low else torch.zeros_like(image).double()
    torch.testing.assert_close(rescale_intensities(image).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("factor", [1e3, 1e5, 1e8])
def test_one_wrong_pixel_does_not_flatten_the_others(factor):
    image = torch.linspace(0, 1, 10_000).view(1, 1, 100, 100)
    expected = rescale_intensities(image)
    image[0, 0, 50, 50] = factor
    scaled = rescale_intensities(image)
    scaled[0, 0, 50, 50] = expected[0, 0, 50, 50]
    torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-3)


def test_rounding_of_a_common_value_is_no_range():
    image = 5 * (1 + 1e-7 * torch.rand(1, 1, 100, 100))
    image[0, 0, 50, 50:55] = 9  # fewer than a thousandth
    scaled = rescale_intensities(image)
    torch.testing.assert_close(scaled, (image == 9).float(), rtol=0, atol=1e-5)


def test_ranks_by_hand():
    """Of 100 annotated pixels, 0 to 99, an intensity of 30 has 30 below it, of 99 others."""
    image = torch.tensor([*range(100), 30.5, -7.0, 1000.0, 50.0]).view(1, 1, 2, 52)
    annotated = (torch.arange(104) < 100).view(1, 1, 2, 52)
    ranks = rank_intensities(image, annotated).flatten()
    torch.testing.assert_close(ranks[:100], torch.arange(100) / 99)
    torch.testing.assert_close(ranks[100:], torch.tensor([30.5 / 99, 0, 1, 50 / 99]))


@pytest.mark.parametrize("annotated", [63, 64])
def test_ranks_of_few_annotated_pixels_are_those_of_all(annotated):
    """Of 64 annotated pixels, 0 to 63, or of all 100."""
    image = torch.arange(100.0).view(1, 1, 10, 10)
    ranks = rank_intensities(image, image < annotated)
    torch.testing.assert_close(ranks, image / 99 if annotated == 63 else (image / 63).clamp(max=1))


def test_ranks_do_not_change_with_an_increasing_map_of_the_intensities():
    image, annotated = torch.rand(2, 2, 20, 20), torch.rand(2, 1, 20, 20) < 0.5
    ranks = rank_intensities(image, annotated)
    known = annotated.expand_as(image)
    torch.testing.assert_close(rank_intensities(image.exp() * 40 - 3, annotated)[known], ranks[known])


def test_equal_intensities_have_equal_ranks():
    image = torch.tensor([0.0] * 60 + [1.0] * 40 + [0.0, 1.0, 0.5]).view(1, 1, 1, -1)
    ranks = rank_intensities(image, torch.ones_like(image, dtype=torch.bool)).flatten()
    assert ranks.unique().numel() == 3
    assert (ranks[0], ranks[100]) == (0, 0)
    assert ranks[60] == ranks[101] > ranks[102] > 0
    assert (rank_intensities(torch.full((1, 1, 9, 9), 5.0), torch.ones(1, 1, 9, 9)) == 0).all()


@given(
    shape=st.sampled_from([(1, 1), (40, 30), (3, 5, 40), (12, 11, 13)]),
    shares=st.sampled_from([(0.0, 1.0), (0.05, 0.8), (0.6, 1.0), (1.0, 0.0), (1.0, 1.0)]),
    levels=st.sampled_from([2, 10, 10_000]),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=60)
def test_ranks_are_those_of_numpys_interpolation(shape, shares, levels, seed):
    generator = torch.Generator().manual_seed(seed)
    image = (torch.randn(2, 2, *shape, generator=generator, dtype=torch.float64) * levels).round() / levels
    annotated, inside = (torch.rand(2, 1, *shape, generator=generator) < share for share in shares)
    ranks = rank_intensities(image, annotated, inside)
    for n in range(2):
        known = annotated[n, 0] & inside[n, 0]
        known = known if known.sum() >= FEWEST else inside[n, 0]
        for channel, ours in zip(image[n], ranks[n], strict=True):
            values, count = channel[known].numpy(), int(known.sum())
            if count > KNOTS:
                values = values[[-(-slot * count // KNOTS) for slot in range(KNOTS)]]
            if len(values) < 2:
                assert (ours == 0).all()
                continue
            values, last = np.sort(values), len(values) - 1
            expected = np.interp(channel.numpy(), values, np.arange(last + 1) / last)
            lowest = np.searchsorted(values, channel.numpy()) / last  # of equal ones
            expected = np.where(np.isin(channel.numpy(), values), lowest, expected)
            np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("intensities", [rescale_intensities, lambda image: rank_intensities(image, image[:, :1] > 0)])
def test_float64_stays(intensities):
    image = torch.randn(1, 2, 6, 5, dtype=torch.float64)
    assert intensities(image).dtype == torch.float64
    torch.testing.assert_close(intensities(image).float(), intensities(image.float()))
    assert intensities(image.half()).dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_on_a_gpu(dtype):
    image = torch.randn(3, 2, 17, 13).to(dtype)
    inside, annotated = torch.rand(3, 1, 17, 13) < 0.8, torch.rand(3, 1, 17, 13) < 0.5
    for one in (rescale_intensities, lambda image, inside: rank_intensities(image, annotated.to(image.device), inside)):
        torch.testing.assert_close(one(image.cuda(), inside.cuda()).cpu(), one(image, inside))
