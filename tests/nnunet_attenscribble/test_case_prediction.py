from __future__ import annotations

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
    entropy, disagreement = measure_doubt([sure, sure.flip(0)], softmax, regions=False)
    assert entropy.item() == pytest.approx(1)
    assert disagreement.item() == pytest.approx(1)
    # Nobody knows, in all mirrorings alike: that is no disagreement.
    entropy, disagreement = measure_doubt([torch.zeros(2, 1)] * 4, softmax, regions=False)
    assert (entropy.item(), disagreement.item()) == pytest.approx((1, 0))


@given(st.lists(st.lists(st.floats(-20, 20), min_size=3, max_size=3), min_size=1, max_size=8), st.booleans())
def test_both_lie_between_0_and_1(logits, regions):
    maps = [torch.tensor(each)[:, None] for each in logits]
    for found in measure_doubt(maps, torch.sigmoid if regions else softmax, regions=regions):
        assert -1e-5 <= found.item() <= 1 + 1e-5
    if len(maps) == 1:
        assert measure_doubt(maps, softmax, regions=False)[1].item() == pytest.approx(0, abs=1e-5)
