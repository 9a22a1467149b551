"""PartialDiceCE plus dynamically mixed pseudo labels, hard."""

from __future__ import annotations

import random
from typing import Any

from torch import Tensor

from nnunet_attenscribble.losses.rival import RivalTerm, is_inside, mean_over, pseudo_dice
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerRival import nnUNetTrainerTwoDecoders


class MixedLabelsLoss(RivalTerm):
    """L = (D(p1, y) + D(p2, y)) / 2 with y = alpha p1 + (1 - alpha) p2, alpha drawn anew for every batch from (0, 1).

    Hard, y becomes its argmax and D is the Dice loss. Soft, D is the cross-entropy as the publication's code has it,
    with the softmax of p once more, D = -sum_c y_c log softmax(p)_c: it sharpens, which the cross-entropy of p would
    not, and its weight of 8 belongs to it. No gradient flows through y.

    Args:
        soft: which of the two.

    Reference: hard: Luo et al., "Scribble-supervised medical image segmentation via dual-branch network and dynamically
    mixed pseudo labels supervision", MICCAI 2022 (DMPLS). Soft: Han et al., "DMSPS: Dynamically mixed soft pseudo-label
    supervision for scribble-supervised medical image segmentation", Medical Image Analysis 2024.
    """

    def __init__(self, soft: bool):
        super().__init__()
        self.soft = soft
        self.name = "mixed_soft_labels" if soft else "mixed_labels"
        self.weight = 8.0 if soft else 0.5

    def forward(self, logits: Tensor, target: Tensor, image: Tensor, ignore_label: int, companion: Any) -> Tensor:
        """See `RivalTerm`; the companion are the second decoder's logits (N, C, *S)."""
        second = companion.to(logits.dtype)
        inside = is_inside(target)
        alpha = random.random()
        first_p, second_p = logits.softmax(dim=1), second.softmax(dim=1)
        mixed = (alpha * first_p + (1 - alpha) * second_p).detach()
        if self.soft:
            losses = [-(mixed * p.log_softmax(dim=1)).sum(dim=1, keepdim=True) for p in (first_p, second_p)]
            return 0.5 * (mean_over(losses[0], inside) + mean_over(losses[1], inside))
        labels = mixed.argmax(dim=1, keepdim=True)
        return 0.5 * (pseudo_dice(first_p, labels, inside) + pseudo_dice(second_p, labels, inside))


class nnUNetTrainerDMPLS(nnUNetTrainerTwoDecoders):
    """PartialDiceCE of two decoders plus the Dice loss against their randomly mixed, hard pseudo labels (DMPLS)."""

    def build_term(self) -> MixedLabelsLoss:
        """See `MixedLabelsLoss`."""
        return MixedLabelsLoss(soft=False)


class nnUNetTrainerDMSPS(nnUNetTrainerTwoDecoders):
    """PartialDiceCE of two decoders plus the cross-entropy against their randomly mixed, soft pseudo labels (DMSPS)."""

    def build_term(self) -> MixedLabelsLoss:
        """See `MixedLabelsLoss`."""
        return MixedLabelsLoss(soft=True)
