"""Cross-entropy on the annotated pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


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
        if not logits.dtype.itemsize >= 4:
            logits = logits.float()
        labels = target[:, 0].long()
        losses = F.cross_entropy(logits, labels, ignore_index=self.ignore_label, reduction="none")
        weights = (labels != self.ignore_label).to(losses.dtype)
        if weight is not None:
            weights = weights * weight[:, 0].to(losses.dtype)
        total = weights.sum()
        # Where nothing is annotated the numerator is 0 too, so any positive denominator gives exactly 0.
        return (losses * weights).sum() / total.where(total > 0, 1)
