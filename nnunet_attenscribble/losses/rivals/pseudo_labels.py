"""Dice of predictions against labels that a network made, for the rivals that use it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_SMOOTH = 1e-5


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
