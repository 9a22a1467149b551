"""A planned network with a second decoder, for the rivals that mix the predictions of two."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

_DROPOUT = 0.5  # of the features that the second decoder sees, as published


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
