"""PartialDiceCE plus total variation."""

from nnunet_attenscribble.losses.rivals import TotalVariationLoss
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerRival import nnUNetTrainerRival


class nnUNetTrainerTotalVariation(nnUNetTrainerRival):
    """PartialDiceCE plus total variation."""

    def build_term(self) -> TotalVariationLoss:
        """See `TotalVariationLoss`."""
        return TotalVariationLoss()
