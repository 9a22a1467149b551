"""Segmentation losses on the annotated pixels: cross-entropy of classes and of regions, and either with soft Dice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_attenscribble.windows import at_least_float32

#: Target value of pixels outside the image.
PADDING = -1


class PartialCrossEntropyLoss(nn.Module):
    """Cross-entropy averaged over the pixels that carry a label.

        L_seg = sum_i w_i CE(z_i, t_i) / sum_i w_i        over i with t_i != ignore_label

    with w_i = 1 unless weights are given. Exactly 0, with a gradient of 0, where no pixel is annotated.

    Args:
        ignore_label: target value of the pixels without annotation.

    Reference: Tian, Yang, Gao, "AttenScribble", arXiv 2312.06614, L_seg.
    """

    def __init__(self, ignore_label: int):
        super().__init__()
        self.ignore_label = ignore_label

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            logits: (N, C, *S).
            target: (N, 1, *S), labels 0..C-1 or `ignore_label`.
            weight: (N, 1, *S), not negative; annotated pixels only count.

        Returns:
            scalar, float32 (float64 for float64 logits).
        """
        logits = at_least_float32(logits)
        labels = target[:, 0].long()
        losses = F.cross_entropy(logits, labels, ignore_index=self.ignore_label, reduction="none")
        return _mean_over_annotated(losses[:, None], target != self.ignore_label, weight)


class PartialBinaryCrossEntropyLoss(nn.Module):
    """Partial cross-entropy for nnU-Net's region-based training.

        L_seg = sum_i w_i sum_r BCE(z_ir, [t_i in region r]) / sum_i w_i        over i with t_i != ignore_label

    with w_i = 1 unless weights are given, as nnU-Net's own loss weighs it. Exactly 0, with a gradient of 0, where no
    pixel is annotated.

    Args:
        ignore_label: target value of the pixels without annotation; the labels are 0..ignore_label-1.
        regions: the labels of each, one number or several.
    """

    membership: Tensor

    def __init__(self, ignore_label: int, regions: Sequence[int | Sequence[int]]):
        super().__init__()
        self.ignore_label = ignore_label
        membership = torch.zeros(ignore_label + 1, len(regions))
        for index, labels in enumerate(regions):
            membership[labels if isinstance(labels, int) else list(labels), index] = 1
        self.register_buffer("membership", membership, persistent=False)

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            logits: (N, R, *S).
            target: see `split`.
            weight: (N, 1, *S), not negative; annotated pixels only count.

        Returns:
            scalar, float32 (float64 for float64 logits).
        """
        logits = at_least_float32(logits)
        inside, annotated = self.split(target)
        losses = F.binary_cross_entropy_with_logits(logits, inside.to(logits.dtype), reduction="none")
        return _mean_over_annotated(losses, annotated, weight)

    def split(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """What lies in which region, and what is annotated.

        Args:
            target: labels (N, 1, *S), or, as nnU-Net's validation gives it, (N, R + 1, *S) with a channel per region
                and the unlabelled pixels in the last.

        Returns:
            (N, R, *S), 1 or true inside a region, and (N, 1, *S) bool.
        """
        if target.shape[1] > 1:
            return target[:, :-1], target[:, -1:] == 0
        inside = F.embedding(target[:, 0].long(), self.membership.to(target.device)).movedim(-1, 1)
        return inside, target != self.ignore_label


def _mean_over_annotated(losses: Tensor, annotated: Tensor, weight: Tensor | None) -> Tensor:
    weights = annotated.to(losses.dtype)
    if weight is not None:
        weights = weights * weight.to(losses.dtype)
    total = weights.sum()
    # Where nothing is annotated the numerator is 0 too, so any positive denominator gives exactly 0.
    return (losses * weights).sum() / total.where(total > 0, 1)


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
