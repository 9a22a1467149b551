from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_attenscribble.trained_model import measure_doubt, voxel_entropy


def softmax(logits: torch.Tensor) -> torch.Tensor:
    return torch.softmax(logits, 0)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([1, 0], 0),
        ([0.5, 0.5], 1),
        ([0.25, 0.75], 0.811278),  # 0.25 * 2 bits + 0.75 * 0.415037 bits
        ([0.5, 0.5, 0, 0], 0.5),  # one of two bits
        ([0.25, 0.25, 0.25, 0.25], 1),
    ],
)
def test_the_entropy_of_classes(probabilities, expected):
    found = voxel_entropy(torch.tensor(probabilities)[:, None].float(), regions=False)
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_the_entropy_of_regions_is_the_mean_over_them():
    found = voxel_entropy(torch.tensor([[0.5], [1.0]]), regions=True)
    assert found.item() == pytest.approx(0.5)
    assert voxel_entropy(torch.tensor([[1.0], [1.0]]), regions=True).item() == 0  # both are there, without a doubt


def test_mirrorings_that_contradict_each_other():
    sure = torch.tensor([[50.0], [0.0]])
    _, entropy, disagreement = measure_doubt([sure, sure.flip(0)], softmax, regions=False)
    assert entropy.item() == pytest.approx(1)
    assert disagreement.item() == pytest.approx(1)
    # Nobody knows, in all mirrorings alike: that is no disagreement.
    _, entropy, disagreement = measure_doubt([torch.zeros(2, 1)] * 4, softmax, regions=False)
    assert (entropy.item(), disagreement.item()) == pytest.approx((1, 0))


@given(st.lists(st.lists(st.floats(-20, 20), min_size=3, max_size=3), min_size=1, max_size=8), st.booleans())
def test_doubt_is_that_of_its_formula_and_lies_between_0_and_1(logits, regions):
    maps = torch.tensor(logits)[..., None]
    nonlinearity = torch.sigmoid if regions else lambda each: each.softmax(dim=-2)
    mean, entropy, disagreement = measure_doubt(iter(maps), torch.sigmoid if regions else softmax, regions=regions)
    torch.testing.assert_close(mean, maps.mean(dim=0))
    torch.testing.assert_close(entropy, voxel_entropy(nonlinearity(mean), regions=regions))
    mixed = voxel_entropy(nonlinearity(maps).mean(dim=0), regions=regions)
    own = torch.stack([voxel_entropy(each, regions=regions) for each in nonlinearity(maps)])
    torch.testing.assert_close(disagreement, (mixed - own.mean(dim=0)).clamp(min=0), atol=1e-5, rtol=1e-4)
    for found in (entropy, disagreement):
        assert -1e-5 <= found.item() <= 1 + 1e-5
    if len(maps) == 1:
        assert disagreement.item() == pytest.approx(0, abs=1e-5)


def test_the_mean_of_halves_whose_sum_is_no_half():
    logits = torch.tensor([[9000.0, 40.03125], [-9000.0, 40.0]]).half()
    mean, *maps = measure_doubt([logits] * 8, softmax, regions=False)
    torch.testing.assert_close(mean, logits, atol=0, rtol=0)
    expected = voxel_entropy(softmax(logits.float()), regions=False)
    torch.testing.assert_close(maps, [expected, torch.zeros(2)], atol=1e-6, rtol=1e-6)


def test_one_mirroring_is_held_at_a_time():
    alive = []

    def predict():
        for _ in range(8):
            logits = torch.randn(3, 4)
            alive.append(weakref.ref(logits))
            yield logits
            del logits
            assert all(each() is None for each in alive)  # before the next one, only the sums are left

    measure_doubt(predict(), softmax, regions=False)
    assert len(alive) == 8


def test_halves_stay_halves_and_probabilities_are_made_plane_by_plane():
    made = []

    def nonlinearity(logits):
        made.append(tuple(logits.shape))
        return softmax(logits)

    logits = [torch.randn(3, 5, 2, 4).half() for _ in range(2)]
    mean, *maps = measure_doubt(iter(logits), nonlinearity, regions=False)
    assert mean.dtype == torch.half
    assert set(made) == {(3, 2, 4)}
    expected = measure_doubt([each.float() for each in logits], softmax, regions=False)
    for found, exact in zip((mean.float(), *maps), expected, strict=True):
        torch.testing.assert_close(found, exact, atol=2e-3, rtol=2e-3)
