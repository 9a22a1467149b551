"""PartialDiceCE plus the gated CRF on all pixels: MaskedCRF without its mask."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nnunet_attenscribble.losses import MaskedCRFLoss, rescale_intensities
from nnunet_attenscribble.losses.rival import RivalTerm, is_inside
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerRival import nnUNetTrainerRival


class GatedCRFLoss(RivalTerm):
    """`MaskedCRFLoss` in which scribbled pixels, too, are pulled by their neighbours.

    Args:
        crf: with its window and sigmas.
        weight: of the energy; 0.1 for the window of the publication.

    Reference: Obukhov et al., "Gated CRF loss for weakly supervised semantic image segmentation", 2019; with scribbles
    in WSL4MIS (Luo et al. 2022).
    """

    name = "gated_crf"

    def __init__(self, crf: MaskedCRFLoss, weight: float = 0.1):
        super().__init__()
        self.crf = crf
        self.weight = weight

    def forward(self, logits: Tensor, target: Tensor, image: Tensor, ignore_label: int, companion: Any) -> Tensor:
        """See `RivalTerm`."""
        inside = is_inside(target)
        return self.crf(logits.softmax(dim=1), rescale_intensities(image, inside), inside, inside)


class nnUNetTrainerGatedCRF(nnUNetTrainerRival):
    """PartialDiceCE plus the gated CRF on all pixels: MaskedCRF without its mask."""

    def build_term(self) -> GatedCRFLoss:
        """With the window, the sigmas and the weight that MaskedCRF would have; intensities as published."""
        return GatedCRFLoss(*self._build_crf())
