"""PartialDiceCE plus the gated CRF on all pixels: MaskedCRF without its mask."""

from nnunet_attenscribble.losses.rivals import GatedCRFLoss
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerRival import nnUNetTrainerRival


class nnUNetTrainerGatedCRF(nnUNetTrainerRival):
    """PartialDiceCE plus the gated CRF on all pixels: MaskedCRF without its mask."""

    def build_term(self) -> GatedCRFLoss:
        """With the window, the sigmas and the weight that MaskedCRF would have."""
        return GatedCRFLoss(*self._build_crf())
