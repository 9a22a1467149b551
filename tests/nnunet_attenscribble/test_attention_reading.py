"""What is read off a trained block, on grids of a few positions."""

from __future__ import annotations

from math import nan

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunet_attenscribble.attention_reading import majority_labels, read_features, sum_by_classes
from nnunet_attenscribble.network import SpatialSelfAttention, add_spatial_attention
from nnunet_attenscribble.similarity import WindowSimilarity
from nnunet_attenscribble.windows import pair_count
from tests.nnunet_attenscribble import brute_force


@pytest.mark.parametrize("mode", ["paper", "anchored"])
def test_the_similarity_of_inference_is_that_of_training(mode):
    torch.manual_seed(0)
    block = SpatialSelfAttention(6, 2, mode, radius=2)
    features = torch.randn(2, 6, 4, 5)
    _, trained = block.train()(features)
    found = block.eval().compute_similarity(features)
    assert (found.grid, found.radius) == (trained.grid, trained.radius)
    torch.testing.assert_close(found.values, trained.values)


def test_a_block_without_a_similarity_has_none_to_tell():
    with pytest.raises(ValueError, match="without a similarity"):
        SpatialSelfAttention(4, 2).compute_similarity(torch.zeros(1, 4, 2, 2))


def test_features_are_those_that_enter_the_block():
    torch.manual_seed(0)
    plain = PlainConvUNet(1, 3, (4, 8, 8), nn.Conv2d, 3, (1, 2, 2), 1, 2, 1, deep_supervision=True)
    network = add_spatial_attention(plain, (16, 16), similarity="anchored").train()
    images = torch.randn(2, 1, 16, 16)
    logits, features = read_features(network, images)
    assert network.training
    assert features.shape == (2, 8, 4, 4)
    expected = images
    for stage in network.encoder.stages[: network.attention_stage + 1]:
        expected = stage.eval()(expected)
    torch.testing.assert_close(features, expected.detach())
    torch.testing.assert_close(logits, network.eval()(images)[0].detach())


def test_the_class_of_a_cell_is_that_of_most_of_its_pixels():
    labels = torch.tensor([[[0, 1, 2, 2], [1, 1, 2, 0], [-1, -1, -1, 0], [-1, 0, -1, 1]]])
    # 3 of 4 pixels are 1; 3 of 4 are 2; 1 of 4 is inside the image; 2 of 4 are, which is not most
    assert majority_labels(labels, (2, 2), 3).tolist() == [[[1, 2], [-1, -1]]]
    assert majority_labels(labels[:, :2], (1, 2), 3).tolist() == [[[1, 2]]]
    ignored = torch.tensor([[[0, 3], [0, 0]]])  # a value beyond the classes counts for none
    assert majority_labels(ignored, (1, 1), 3).item() == 0
    volume = labels[:, None].expand(1, 2, 4, 4)
    assert majority_labels(volume, (1, 2, 2), 3).tolist() == [[[[1, 2], [-1, -1]]]]


def test_similarities_are_summed_by_the_classes_of_their_ends():
    # A row of three: pairs (0, 1), (1, 2) touch, (0, 2) does not.
    dense = torch.tensor([[[nan, 0.9, 0.4], [0.9, nan, 0.1], [0.4, 0.1, nan]]])
    similarity = brute_force.from_matrix(dense, (1, 3), (0, 2))
    assert pair_count((1, 3), (0, 2)) == 3
    sums, counts = sum_by_classes(similarity, torch.tensor([[[1, 1, 0]]]), 2)
    assert counts.tolist() == [[0, 2], [0, 1]]  # the lower class first
    torch.testing.assert_close(sums, torch.tensor([[0.0, 0.5], [0.0, 0.9]], dtype=torch.float64))
    sums, counts = sum_by_classes(similarity, torch.tensor([[[1, 1, 0]]]), 2, adjacent=True)
    assert counts.tolist() == [[0, 1], [0, 1]]
    torch.testing.assert_close(sums, torch.tensor([[0.0, 0.1], [0.0, 0.9]], dtype=torch.float64))
    _, counts = sum_by_classes(similarity, torch.tensor([[[1, -1, 0]]]), 2)
    assert counts.tolist() == [[0, 1], [0, 0]]  # of what is unknown there are no pairs


def test_corners_touch_and_the_next_row_does_not():
    values = torch.arange(1, 1 + pair_count((3, 3), (2, 2)), dtype=torch.float64)[None]
    similarity = WindowSimilarity(values, (3, 3), (2, 2))
    _, counts = sum_by_classes(similarity, torch.zeros(1, 3, 3, dtype=torch.long), 1, adjacent=True)
    assert counts.item() == 6 + 6 + 4 + 4  # across, down, and both diagonals
