"""PartialDiceCE plus total variation."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from nnunet_attenscribble.losses.rival import RivalTerm, is_inside, mean_over
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerRival import nnUNetTrainerRival


class TotalVariationLoss(RivalTerm):
    """L = mean over pixels and classes of relu(max3(min3(p)) - min3(p)), the soft contour of each class.

    min3 and max3 are the least and the largest value of a pixel's neighbourhood of 3 along every axis.

    Reference: soft contours of Javanmardi et al., "Unsupervised total variation loss for semi-supervised deep learning
    of semantic segmentation", 2016, with the weight and in the form of WSL4MIS (Luo et al. 2022).
    """

    name = "total_variation"
    weight = 0.01

    def forward(self, logits: Tensor, target: Tensor, image: Tensor, ignore_label: int, companion: Any) -> Tensor:
        """See `RivalTerm`."""
        pool = F.max_pool2d if logits.ndim == 4 else F.max_pool3d
        eroded = -pool(-logits.softmax(dim=1), 3, 1, 1)
        contour = (pool(eroded, 3, 1, 1) - eroded).relu()
        return mean_over(contour.mean(dim=1, keepdim=True), is_inside(target))


class nnUNetTrainerTotalVariation(nnUNetTrainerRival):
    """PartialDiceCE plus total variation."""

    term = TotalVariationLoss
