"""A plain nnU-Net checkpoint as pretrained weights for a network with the attention block."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunet_attenscribble.attention import SIMILARITIES, SpatialSelfAttention
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.network import attention_stage
from nnunet_attenscribble.settings import AttenScribbleSettings

_BLOCK, _GATE = "attention.", "attention_gate"


def initial_block(configuration: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights of the block that this configuration's network starts with, by their names in the network.

    Args:
        configuration: of a plans file, inheritance resolved.
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
