"""PartialDiceCE plus pseudo labels of whoever of network and teacher fits the scribbles better."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_attenscribble.losses import PartialCrossEntropyLoss
from nnunet_attenscribble.losses.rival import RivalTerm, is_inside, mean_over, pseudo_dice
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerRival import nnUNetTrainerTeacher

_SURE = 0.5  # tau of the publication
_SHRINKING = 2e-4  # of the network's weights after every step, in the release


class CompetingLabelsLoss(RivalTerm):
    """L = (CE(z, y) + Dice(p, y)) / 2 over the pixels of which the winner is surer than 0.5.

    y = argmax of the winner's probabilities: the teacher's where its cross-entropy on the batch's scribbles is lower
    than the student's, otherwise the student's own. No gradient flows through y.

    Reference: Wang et al., "ScribbleVS: Scribble-supervised medical image segmentation via dynamic competitive pseudo
    label selection", arXiv 2411.10237, with the weights of its release.
    """

    name = "competition"
    weight = 1.0

    def forward(self, logits: Tensor, target: Tensor, image: Tensor, ignore_label: int, companion: Any) -> Tensor:
        """See `RivalTerm`; the companion are the teacher's logits (N, C, *S)."""
        inside = is_inside(target)
        with torch.no_grad():
            teacher = companion.to(logits.dtype)
            scribbles = PartialCrossEntropyLoss(ignore_label)
            known = target.masked_fill(~inside, ignore_label)
            teacher_wins = scribbles(logits, known) > scribbles(teacher, known)
            winner = torch.where(teacher_wins, teacher, logits).softmax(dim=1)
            most, labels = winner.max(dim=1, keepdim=True)
            where = (most > _SURE) & inside
        cross_entropy = F.cross_entropy(logits, labels[:, 0], reduction="none")[:, None]
        return 0.5 * (mean_over(cross_entropy, where) + pseudo_dice(logits.softmax(dim=1), labels, where))


class nnUNetTrainerScribbleVS(nnUNetTrainerTeacher):
    """PartialDiceCE plus pseudo labels of whoever of network and teacher fits the scribbles better (ScribbleVS)."""

    term = CompetingLabelsLoss
    rise = 0.2

    def train_step(self, batch: dict) -> dict:
        """The teacher's step, after which the network's weights shrink."""
        told = super().train_step(batch)
        with torch.no_grad():
            torch._foreach_mul_([p.data for p in self.network.parameters()], 1 - _SHRINKING)
        return told

    def ask_teacher(self, images: Tensor) -> Tensor:
        """Its logits."""
        return self.predict_with_teacher(images)
