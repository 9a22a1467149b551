"""What the published rivals of this package's losses share: a term added to a segmentation loss, and its parts.

The rivals themselves stand in `trainers/rivals/`, each beside its trainer.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_attenscribble.losses.segmentation import PADDING
from nnunet_attenscribble.windows import at_least_float32

_SMOOTH = 1e-5  # of the Dice


class RivalTerm(nn.Module):
    """What a rival adds to the segmentation loss.

    Attributes:
        name: of the term, in the log.
        weight: as published.
    """

    name: str
    weight: float

    def forward(self, logits: Tensor, target: Tensor, image: Tensor, ignore_label: int, companion: Any) -> Tensor:
        """Compute the term.

        Args:
            logits: (N, C, *S), float32 or float64, at full resolution.
            target: (N, 1, *S), labels 0..ignore_label-1, `ignore_label`, or `PADDING` outside the image.
            image: (N, M, *S), any intensities.
            ignore_label: of the dataset.
            companion: what a teacher or a second decoder predicted, for those that have one.

        Returns:
            scalar; 0, with a gradient of 0, where there is no pixel that it looks at.
        """
        raise TypeError(f"{type(self).__name__} has no formula")


class RivalLoss(nn.Module):
    """L = L_seg + strength * weight * L_rival.

    Args:
        ignore_label: target value of unlabelled pixels.
        term: of the rival, which carries its weight.
    """

    def __init__(self, ignore_label: int, term: RivalTerm):
        super().__init__()
        self.ignore_label = ignore_label
        self.term = term
        #: Factor on the weight, for a warm-up.
        self.strength = 1.0

    def forward(
        self, segmentation_loss: Tensor, logits: Tensor, target: Tensor, image: Tensor, companion: Any = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum (scalar), and its unweighted terms by name, detached; arguments as those of `RivalTerm`."""
        with torch.autocast(logits.device.type, enabled=False):
            value = self.term(at_least_float32(logits), target, image, self.ignore_label, companion)
        total = segmentation_loss + self.strength * self.term.weight * value
        return total, {"segmentation": segmentation_loss.detach(), self.term.name: value.detach()}


def mean_over(values: Tensor, where: Tensor) -> Tensor:
    """Mean of (N, 1, *S) values over the pixels that are true in (N, 1, *S); 0 where none is."""
    return torch.where(where, values, 0).sum() / where.sum().clamp(min=1)


def is_inside(target: Tensor) -> Tensor:
    """Pixels inside the image, (N, 1, *S) bool."""
    return target != PADDING


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(N, 1, *S) labels 0..classes-1 as (N, classes, *S)."""
    return F.one_hot(labels[:, 0].long(), classes).movedim(-1, 1)


def pseudo_dice(probabilities: Tensor, labels: Tensor, where: Tensor) -> Tensor:
    """Mean over all classes, background too, of 1 - (2 sum p y + s) / (sum p^2 + sum y^2 + s) over a batch's pixels.

    Args:
        probabilities: (N, C, *S).
        labels: (N, 1, *S), 0..C-1.
        where: (N, 1, *S) bool, the pixels that count.
    """
    p, y = probabilities * where, one_hot(labels, probabilities.shape[1]).to(probabilities.dtype) * where
    axes = (0, *range(2, p.ndim))
    overlap = (2 * (p * y).sum(axes) + _SMOOTH) / (p.square().sum(axes) + y.square().sum(axes) + _SMOOTH)
    return (1 - overlap).mean()
