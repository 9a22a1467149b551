"""Soft Dice and cross-entropy on the annotated pixels, as nnU-Net combines them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnunet_attenscribble.losses.partial_cross_entropy import PartialCrossEntropyLoss


class PartialDiceCrossEntropyLoss(nn.Module):
    """Sum of a soft Dice loss and cross-entropy, both blind to pixels without annotation.

    Args:
        ignore_label: target value of the pixels without annotation.
        dice: loss called as dice(logits, labels, loss_mask=weights); nnU-Net's own is meant. Without weights the sum
            then equals nnU-Net's loss for datasets with an `ignore` label.
    """

    def __init__(self, ignore_label: int, dice: nn.Module):
        super().__init__()
        self.ignore_label = ignore_label
        self.cross_entropy = PartialCrossEntropyLoss(ignore_label)
        self.dice = dice

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the loss; arguments as `PartialCrossEntropyLoss`."""
        annotated = target != self.ignore_label
        mask = annotated if weight is None else annotated * weight
        labels = torch.where(annotated, target, 0)
        return self.dice(logits, labels, loss_mask=mask) + self.cross_entropy(logits, target, weight)
