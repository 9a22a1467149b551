"""The spatial self-attention block; a network as nnU-Net plans it, with that block in its encoder or with a second
decoder; and plain checkpoints made to fit it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_attenscribble.common.text import tell_error
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.settings import AttenScribbleSettings
from nnunet_attenscribble.similarity import (
    WindowSimilarity,
    attend_with_log_similarity,
    log_similarity,
    paper_similarity,
)
from nnunet_attenscribble.windows import per_axis

SIMILARITIES = {"paper": paper_similarity, "anchored": log_similarity}

_BLOCK, _GATE = "attention.", "attention_gate"
_DROPOUT = 0.5  # of the features that the second decoder sees, as published


class SpatialSelfAttention(nn.Module):
    """One-head self-attention over all positions of a feature map, with a depthwise-convolutional feed-forward part.

        u = LayerNorm(F)          q, k, v = Wq u, Wk u, Wv u
        G = F + Wo softmax(q k^T / sqrt(d)) v
        B = G + fc2(GELU(dwconv(fc1(LayerNorm(G)))))
        output = LayerNorm(B)

    In training, and with a similarity mode set, the block also yields the similarity of neighbouring positions.

    Args:
        channels: d of the features.
        ndim: 2 or 3 spatial axes.
        similarity: `paper`, `anchored`, or None for a block without one (it then has no parameters for it either).
        radius: of the similarity's window in grid positions, for all axes or per axis.

    Reference: Tian, Yang, Gao, "AttenScribble", arXiv 2312.06614, spatial self-attention module.
    """

    def __init__(self, channels: int, ndim: int, similarity: str | None = None, radius: int | Sequence[int] = 5):
        super().__init__()
        if similarity is not None and similarity not in SIMILARITIES:
            raise ValueError(f"similarity must be one of {', '.join(SIMILARITIES)} or None, got {similarity!r}")
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
        self.channels = channels
        self.ndim = ndim
        self.similarity = similarity
        self.radius = tuple(int(r) for r in per_axis(radius, ndim, "radius"))
        self.norm1 = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.proj = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp_fc1 = nn.Linear(channels, 4 * channels)
        self.mlp_dwconv = conv(4 * channels, 4 * channels, 3, padding=1, groups=4 * channels)
        self.mlp_fc2 = nn.Linear(4 * channels, channels)
        self.norm3 = nn.LayerNorm(channels)
        if similarity is not None:
            self.similarity_scale = nn.Parameter(torch.tensor(1.0))
            self.similarity_bias = nn.Parameter(torch.tensor(0.0))

    def forward(self, features: Tensor) -> tuple[Tensor, WindowSimilarity | None]:
        """Transform the features.

        Args:
            features: (N, d, *grid).

        Returns:
            features of the same shape, and the similarity in training (None otherwise, or where the block has none).
        """
        grid = tuple(features.shape[2:])
        tokens = features.flatten(2).transpose(1, 2)
        query, key, value = self._project(tokens)
        attended, similarity = self._attend(query, key, value, grid)
        tokens = tokens + self.proj(attended)
        hidden = self.mlp_fc1(self.norm2(tokens))
        hidden = self.mlp_dwconv(hidden.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
        tokens = self.norm3(tokens + self.mlp_fc2(F.gelu(hidden)))
        out = tokens.transpose(1, 2).unflatten(2, grid).to(features.dtype)
        return out, similarity

    def attention_map(self, features: Tensor, position: Sequence[int]) -> Tensor:
        """Attention paid by one position to all others, (N, *grid), summing to 1. For pictures."""
        grid = tuple(features.shape[2:])
        query, key, _ = self._project(features.flatten(2).transpose(1, 2))
        index = (slice(None), *position)
        query = query.unflatten(1, grid)[index]
        logits = torch.einsum("nd,ntd->nt", query, key) * query.shape[-1] ** -0.5
        return logits.softmax(dim=1).unflatten(1, grid)

    def compute_similarity(self, features: Tensor) -> WindowSimilarity:
        """The similarity that training reads off these features, (N, d, *grid), in any mode. For pictures.

        Raises:
            ValueError: for a block without a similarity.
        """
        if self.similarity is None:
            raise ValueError("this block was made without a similarity")
        grid = tuple(features.shape[2:])
        query, key, _ = self._project(features.flatten(2).transpose(1, 2))
        scalars = (self.similarity_scale, self.similarity_bias)
        return SIMILARITIES[self.similarity](query, key, grid, self.radius, *scalars)

    def _project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed = self.norm1(tokens)
        return self.query(normed), self.key(normed), self.value(normed)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, grid: tuple[int, ...]
    ) -> tuple[Tensor, WindowSimilarity | None]:
        if not self.training or self.similarity is None:
            return _attention(query, key, value), None
        with torch.autocast(query.device.type, enabled=False):
            window = (grid, self.radius, self.similarity_scale, self.similarity_bias)
            if self.similarity == "anchored" and query.device.type == "cpu":
                attended, similarity = attend_with_log_similarity(query, key, value, *window)
                return attended.to(query.dtype), similarity
            # Elsewhere the library's fused kernels, in whatever precision autocast chose, are worth a second q k^T.
            return _attention(query, key, value), SIMILARITIES[self.similarity](query, key, *window)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]


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


class SecondPrediction(NamedTuple):
    """What the second decoder predicts.

    Attributes:
        logits: (N, C, *S), or with deep supervision the list of them from fine to coarse.
    """

    logits: Tensor | list[Tensor]


class TwoDecoderUNet(nn.Module):
    """A U-Net with a second decoder, which sees the encoder's features through dropout of channels, in training alone.

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
        drop = F.dropout2d if x.ndim == 4 else F.dropout3d
        return logits, SecondPrediction(self.second_decoder([drop(skip, _DROPOUT) for skip in skips]))


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
        configuration: of a plans file, inheritance resolved, that `plans.check_network` has accepted.
    """
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
        checkpoint: written by an nnU-Net trainer without the block, or with a part of it (no similarity).
        block: see `initial_block`.

    Returns:
        what to `torch.save`.

    Raises:
        AttenScribbleError: if the file is no such checkpoint, or has a block already, or one that is added otherwise.
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
    if any(name.startswith(_BLOCK) for name in weights) and (_GATE in weights) != (_GATE in block):
        its, ours = ("with" if _GATE in each else "without" for each in (weights, block))
        raise AttenScribbleError(
            f"{checkpoint} has an attention block {its} a gate, the configuration one {ours}: give one whose "
            "'attention_gated' is that of its training"
        )
    if weights.keys() >= block.keys():
        raise AttenScribbleError(f"{checkpoint} has an attention block already: give it to nnUNetv2_train as it is")
    return {"network_weights": {**block, **weights}}


def list_misfits(
    weights: Mapping[str, Any],
    block: Mapping[str, Tensor],
    plans: Mapping[str, Any],
    configuration: str,
    dataset_json: Mapping[str, Any],
) -> list[str]:
    """Weights that nnU-Net asks for, all of the planned network and the block but the last layers, and that are absent
    or of another shape.

    Args:
        weights: of a checkpoint, by name.
        block: see `initial_block`.
        plans: content of a plans file.
        configuration: whose network is meant.
        dataset_json: content of the dataset's.

    Raises:
        AttenScribbleError: nnU-Net cannot build that network.
    """
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    try:
        manager = PlansManager(plans)
        planned = manager.get_configuration(configuration)
        with torch.device("meta"):  # shapes alone; how many classes there are concerns the last layers alone
            network = get_network_from_plans(
                planned.network_arch_class_name,
                planned.network_arch_init_kwargs,
                planned.network_arch_init_kwargs_req_import,
                determine_num_input_channels(manager, planned, dataset_json),
                2,
                allow_init=False,
            )
    except Exception as error:  # whatever a class raises at arguments that are none of its own
        told = tell_error(error)
        raise AttenScribbleError(
            f"plans: configuration '{configuration}': nnU-Net cannot build its network ({told}): plan again"
        ) from error
    return [
        name
        for name, weight in {**network.state_dict(), **block}.items()
        if ".seg_layers." not in name and getattr(weights.get(name), "shape", None) != weight.shape
    ]
