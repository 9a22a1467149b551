"""A network as nnU-Net plans it, with the attention block in its encoder or with a second decoder, and plain
checkpoints made to fit it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_attenscribble.attention import SIMILARITIES, SpatialSelfAttention
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.plans import check_network
from nnunet_attenscribble.settings import AttenScribbleSettings
from nnunet_attenscribble.similarity import WindowSimilarity

_BLOCK, _GATE = "attention.", "attention_gate"

_DROPOUT = 0.5  # of the features that the second decoder sees, as published


class SpatialAttentionUNet(nn.Module):
    """A U-Net whose encoder features of one stage pass through an attention block, on their way down and to the
    decoder.

    The parameters of the planned network keep their names; those of the block are new, under `attention`, with
    `attention_gate` beside them.

    Args:
        network: with an encoder of `stages` (and perhaps a `stem`) and a decoder that takes the list of their features.
        attention: block for the features of the stage.
        stage: index of the stage.
        gated: add the block's output to the features, times a factor per channel that starts at 0, so that the network
            begins as the planned one, whether its weights are new or trained already. Otherwise the output replaces
            the features, as published.
    """

    def __init__(self, network: nn.Module, attention: SpatialSelfAttention, stage: int, gated: bool = True):
        super().__init__()
        self.encoder: Any = network.encoder  # what nnU-Net's architectures have in common has no type
        self.decoder: Any = network.decoder
        self.attention = attention
        self.attention_stage = stage
        self.attention_gate = nn.Parameter(torch.zeros(attention.channels)) if gated else None

    def forward(self, x: Tensor) -> Tensor | list[Tensor] | tuple[list[Tensor] | Tensor, WindowSimilarity]:
        """Predict.

        Returns:
            logits (N, C, *S), or with deep supervision the list of them from fine to coarse; in training, and if the
            block has a similarity, the pair (logits, similarity).
        """
        skips, similarity = [], None
        if getattr(self.encoder, "stem", None) is not None:
            x = self.encoder.stem(x)
        for index, stage in enumerate(self.encoder.stages):
            x = stage(x)
            if index == self.attention_stage:
                x, similarity = self._attend(x)
            skips.append(x)
        logits = self.decoder(skips)
        return logits if similarity is None else (logits, similarity)

    def _attend(self, features: Tensor) -> tuple[Tensor, WindowSimilarity | None]:
        out, similarity = self.attention(features)
        if self.attention_gate is not None:
            gate = self.attention_gate.view(-1, *[1] * self.attention.ndim)
            out = features + gate.to(features.dtype) * out
        return out, similarity

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Size of all convolutions' feature maps, as nnU-Net's planner counts it; the block's hidden maps included."""
        size = self.encoder.compute_conv_feature_map_size(input_size)
        size += self.decoder.compute_conv_feature_map_size(input_size)
        grid = grid_shape(self.encoder.strides, input_size, self.attention_stage)
        return size + self.attention.mlp_fc1.out_features * prod(grid)


class SecondPrediction(NamedTuple):
    """What the second decoder predicts.

    Attributes:
        logits: (N, C, *S), or with deep supervision the list of them from fine to coarse.
    """

    logits: Tensor | list[Tensor]


class TwoDecoderUNet(nn.Module):
    """A U-Net with a second decoder, which sees the encoder's features through dropout, in training alone.

    The parameters of the planned network keep their names; those of the second decoder are new, under
    `second_decoder`.

    Args:
        network: with an encoder and a decoder that takes the list of its features.
        second: as planned too, of which the decoder is taken.
    """

    def __init__(self, network: nn.Module, second: nn.Module):
        super().__init__()
        self.encoder: Any = network.encoder  # what nnU-Net's architectures have in common has no type
        self.decoder: Any = network.decoder
        self.second_decoder: Any = second.decoder
        if hasattr(self.second_decoder, "encoder"):  # a decoder keeps its encoder, to ask it for sizes
            self.second_decoder.encoder = self.encoder

    def forward(self, x: Tensor) -> Tensor | list[Tensor] | tuple[Tensor | list[Tensor], SecondPrediction]:
        """Predict: logits (N, C, *S), or with deep supervision the list of them; in training with the second's."""
        skips = self.encoder(x)
        logits = self.decoder(skips)
        if not self.training:
            return logits
        return logits, SecondPrediction(self.second_decoder([F.dropout(skip, _DROPOUT) for skip in skips]))

    def compute_conv_feature_map_size(self, input_size) -> int:
        """Size of all convolutions' feature maps, as nnU-Net's planner counts it."""
        decoders = 2 * self.decoder.compute_conv_feature_map_size(input_size)
        return self.encoder.compute_conv_feature_map_size(input_size) + decoders


def add_spatial_attention(
    network: nn.Module,
    patch_size: Sequence[int],
    *,
    stride: int = 4,
    max_tokens: int = 2048,
    similarity: str | None = None,
    radius: int | Sequence[int] = 5,
    gated: bool = True,
) -> SpatialAttentionUNet:
    """Plug the attention block into a planned network.

    Args:
        network: with `encoder.stages`, `encoder.strides`, `encoder.output_channels` and a decoder.
        patch_size: of the network's input.
        stride, max_tokens: see `attention_stage`.
        similarity, radius: see `SpatialSelfAttention`.
        gated: see `SpatialAttentionUNet`.

    Raises:
        AttenScribbleError: for an architecture without an encoder of stages.
    """
    check_encoder(network)
    encoder: Any = network.encoder
    stage = attention_stage(encoder.strides, patch_size, stride, max_tokens)
    block = SpatialSelfAttention(encoder.output_channels[stage], len(patch_size), similarity, radius)
    return SpatialAttentionUNet(network, block, stage, gated)


def check_encoder(network: nn.Module) -> None:
    """Refuse what `add_spatial_attention` cannot plug the block into.

    Raises:
        AttenScribbleError: for an architecture without an encoder of stages.
    """
    encoder: Any = getattr(network, "encoder", None)
    if not all(hasattr(encoder, name) for name in ("stages", "strides", "output_channels")) or not hasattr(
        network, "decoder"
    ):
        raise AttenScribbleError(
            f"network {type(network).__name__} has no encoder of stages for the attention block; use plans with "
            "PlainConvUNet or ResidualEncoderUNet, or nnUNetTrainerMaskedCRF, which needs no block"
        )


def attention_stage(
    strides: Sequence[int | Sequence[int]], patch_size: Sequence[int], stride: int, max_tokens: int
) -> int:
    """First encoder stage whose in-plane stride reaches `stride` and whose grid has at most `max_tokens` positions.

    In-plane are the last two axes. The deepest stage serves where no other does.
    """
    for stage in range(len(strides)):
        in_plane = total_stride(strides, len(patch_size), stage)[-2:]
        if min(in_plane) >= stride and prod(grid_shape(strides, patch_size, stage)) <= max_tokens:
            return stage
    return len(strides) - 1


def total_stride(strides: Sequence[int | Sequence[int]], ndim: int, stage: int) -> tuple[int, ...]:
    """Stride of a stage's grid against the input, per axis."""
    each = [(s,) * ndim if isinstance(s, int) else tuple(s) for s in strides[: stage + 1]]
    return tuple(prod(s[axis] for s in each) for axis in range(ndim))


def grid_shape(strides: Sequence[int | Sequence[int]], patch_size: Sequence[int], stage: int) -> tuple[int, ...]:
    """Grid of a stage's features for an input of this size."""
    total = total_stride(strides, len(patch_size), stage)
    return tuple(ceil(size / s) for size, s in zip(patch_size, total, strict=True))


def initial_block(configuration: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights of the block that this configuration's network starts with, by their names in the network.

    Args:
        configuration: of a plans file, inheritance resolved.

    Raises:
        AttenScribbleError: as `plans.check_network`.
    """
    check_network(configuration, "of the network")
    settings = AttenScribbleSettings.from_configuration(configuration)
    architecture = configuration["architecture"]["arch_kwargs"]
    patch_size = configuration["patch_size"]
    stage = attention_stage(
        architecture["strides"], patch_size, settings.attention_stride, settings.attention_max_tokens
    )
    # With the similarity's two scalars, whatever the mode: trainers without them pass them over.
    block = SpatialSelfAttention(architecture["features_per_stage"][stage], len(patch_size), next(iter(SIMILARITIES)))
    weights = {_BLOCK + name: weight for name, weight in block.state_dict().items()}
    return weights | {_GATE: torch.zeros(block.channels)} if settings.attention_gated else weights


def add_block(checkpoint: Path, block: Mapping[str, Tensor]) -> dict[str, Any]:
    """A checkpoint's network with the block in it, as `nnUNetv2_train -pretrained_weights` reads it.

    Args:
        checkpoint: written by an nnU-Net trainer without the block.
        block: see `initial_block`.

    Returns:
        what to `torch.save`.

    Raises:
        AttenScribbleError: if the file is no such checkpoint, or has a block already.
    """
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=False)
    except Exception as error:  # torch has no exception of its own for what is no checkpoint
        raise AttenScribbleError(f"{checkpoint} cannot be read as a checkpoint ({error})") from error
    weights = content.get("network_weights") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not any(name.startswith("encoder.") for name in weights):
        raise AttenScribbleError(
            f"{checkpoint} holds no weights of an nnU-Net with an encoder: give checkpoint_final.pth"
        )
    if any(name.startswith(_BLOCK) for name in weights):
        raise AttenScribbleError(f"{checkpoint} has an attention block already: give it to nnUNetv2_train as it is")
    return {"network_weights": {**weights, **block}}
