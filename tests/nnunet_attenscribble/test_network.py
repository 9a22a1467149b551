from __future__ import annotations

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.network import (
    SpatialAttentionUNet,
    add_spatial_attention,
    attention_stage,
    grid_shape,
    total_stride,
)


def planned(cls=PlainConvUNet, ndim=2, deep_supervision=True):
    torch.manual_seed(0)
    blocks = {"n_conv_per_stage": 1} if cls is PlainConvUNet else {"n_blocks_per_stage": 1}
    return cls(
        1,
        4,
        [4, 8, 12, 16],
        {2: nn.Conv2d, 3: nn.Conv3d}[ndim],
        3,
        [1, 2, 2, 2],
        **blocks,
        num_classes=3,
        n_conv_per_stage_decoder=1,
        norm_op={2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[ndim],
        norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU,
        deep_supervision=deep_supervision,
    )


@pytest.mark.parametrize("cls", [PlainConvUNet, ResidualEncoderUNet])
@pytest.mark.parametrize(("ndim", "size"), [(2, (32, 24)), (3, (8, 16, 16))])
def test_the_block_sits_at_a_quarter_of_the_resolution(cls, ndim, size):
    network = add_spatial_attention(planned(cls, ndim), size, similarity="anchored", radius=1)
    assert network.attention_stage == 2
    logits, similarity = network(torch.randn(2, 1, *size))
    assert [tuple(z.shape[2:]) for z in logits] == [tuple(s // f for s in size) for f in (1, 2, 4)]
    assert similarity.grid == tuple(s // 4 for s in size)


def test_inference_gives_logits_alone():
    network = add_spatial_attention(planned(), (32, 32), similarity="anchored").eval()
    assert len(network(torch.randn(1, 1, 32, 32))) == 3
    network.decoder.deep_supervision = False
    assert network(torch.randn(1, 1, 32, 32)).shape == (1, 3, 32, 32)


def test_training_without_a_similarity_gives_logits_alone():
    network = add_spatial_attention(planned(), (32, 32))
    assert isinstance(network(torch.randn(1, 1, 32, 32)), list)


def test_the_planned_parameters_keep_their_names():
    plain = planned()
    names = set(plain.state_dict())
    network = add_spatial_attention(plain, (32, 32), similarity="paper")
    new = set(network.state_dict()) - names
    assert names <= set(network.state_dict())
    assert new
    assert all(name.startswith("attention") for name in new)


@pytest.mark.parametrize("cls", [PlainConvUNet, ResidualEncoderUNet])
def test_starts_as_the_planned_network(cls):
    plain = planned(cls)
    image = torch.randn(1, 1, 32, 32)
    expected = plain(image)
    logits, _ = add_spatial_attention(plain, (32, 32), similarity="anchored")(image)
    for one, other in zip(logits, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("gated", "expected"), [(True, lambda x: x + 0.5 * (x - 1)), (False, lambda x: x - 1)])
def test_the_block_is_added_through_the_gate_or_replaces_the_features(gated, expected):
    class Block(nn.Module):
        channels, ndim = 12, 2

        def forward(self, features):
            return features - 1, None

    plain = planned()
    network = SpatialAttentionUNet(plain, Block(), 2, gated)
    if gated:
        nn.init.constant_(network.attention_gate, 0.5)
    image = torch.randn(1, 1, 32, 32)
    skips = plain.encoder(image)
    skips[2] = expected(skips[2])
    skips[3] = plain.encoder.stages[3](skips[2])
    for one, other in zip(network(image), plain.decoder(skips), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("gated", [True, False])
def test_every_parameter_gets_a_gradient(gated):
    network = add_spatial_attention(planned(), (16, 16), similarity="anchored", radius=1, gated=gated)
    logits, similarity = network(torch.randn(2, 1, 16, 16))
    (sum((z**2).sum() for z in logits) + (similarity.values**2).sum()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]


@pytest.mark.parametrize(
    ("strides", "patch", "stride", "budget", "expected"),
    [
        ([1, 2, 2, 2], (256, 224), 4, 4096, 2),
        ([1, 2, 2, 2], (512, 512), 4, 4096, 3),
        ([1, 2, 2, 2], (4096, 4096), 4, 4096, 3),  # no stage fits: the deepest
        (STRIDES, (16, 256, 224), 4, 4096, 3),
        (STRIDES, (16, 256, 224), 4, 10**6, 2),
        ([1, 4, 2], (64, 64), 4, 4096, 1),
    ],
)
def test_stage(strides, patch, stride, budget, expected):
    assert attention_stage(strides, patch, stride, budget) == expected


def test_strides_and_grids_by_hand():
    assert total_stride(STRIDES, 3, 3) == (4, 8, 8)
    assert grid_shape(STRIDES, (16, 256, 224), 3) == (4, 32, 28)
    assert grid_shape([1, 2, 2], (9, 10), 2) == (3, 3)


def test_refuses_a_network_without_stages():
    with pytest.raises(AttenScribbleError, match="no encoder of stages"):
        add_spatial_attention(nn.Conv2d(1, 3, 1), (32, 32))
