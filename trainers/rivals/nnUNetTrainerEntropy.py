"""PartialDiceCE plus entropy minimisation on the unlabelled pixels."""

from __future__ import annotations

from math import log
from typing import Any

from torch import Tensor

from nnunet_attenscribble.losses.rival import RivalTerm, mean_over
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerRival import nnUNetTrainerRival


class EntropyLoss(RivalTerm):
    """L = mean over unlabelled pixels i of -sum_c p_ic log p_ic / log C.

    Reference: Grandvalet, Bengio, "Semi-supervised learning by entropy minimization", NeurIPS 2004; with scribbles, and
    with this weight, in WSL4MIS (Luo et al. 2022), there over all pixels.
    """

    name = "entropy"
    weight = 0.1

    def forward(self, logits: Tensor, target: Tensor, image: Tensor, ignore_label: int, companion: Any) -> Tensor:
        """See `RivalTerm`."""
        logs = logits.log_softmax(dim=1)
        entropy = -(logs.exp() * logs).sum(dim=1, keepdim=True) / log(logits.shape[1])
        return mean_over(entropy, target == ignore_label)


class nnUNetTrainerEntropy(nnUNetTrainerRival):
    """PartialDiceCE plus entropy minimisation on the unlabelled pixels."""

    term = EntropyLoss
