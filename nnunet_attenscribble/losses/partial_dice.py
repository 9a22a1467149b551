"""Soft Dice and cross-entropy on the annotated pixels, as nnU-Net combines them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnunet_attenscribble.losses.partial_cross_entropy import PartialCrossEntropyLoss
from nnunet_attenscribble.losses.partial_regions import PartialBinaryCrossEntropyLoss


class PartialDiceCrossEntropyLoss(nn.Module):
    """Weighted sum of a soft Dice loss and cross-entropy, both blind to pixels without annotation.

    Args:
        cross_entropy: partial, of classes or of regions.
        dice: loss called as dice(logits, target, loss_mask=weights) with labels (N, 1, *S) or regions (N, R, *S);
            nnU-Net's own is meant. Without weights the sum then equals nnU-Net's loss for datasets with an `ignore`
            label.
        dice_weight: of the Dice loss in the sum.
    """

    def __init__(
        self,
        cross_entropy: PartialCrossEntropyLoss | PartialBinaryCrossEntropyLoss,
        dice: nn.Module,
        dice_weight: float = 1.0,
    ):
        super().__init__()
        self.cross_entropy = cross_entropy
        self.dice = dice
        self.dice_weight = dice_weight

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the loss; arguments as those of the cross-entropy."""
        if isinstance(self.cross_entropy, PartialBinaryCrossEntropyLoss):
            labels, annotated = self.cross_entropy.split(target)
        else:
            annotated = target != self.cross_entropy.ignore_label
            labels = torch.where(annotated, target, 0)
        mask = annotated if weight is None else annotated * weight
        dice = self.dice(logits, labels, loss_mask=mask)
        return self.dice_weight * dice + self.cross_entropy(logits, target, weight)
