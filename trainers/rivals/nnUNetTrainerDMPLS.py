"""PartialDiceCE plus dynamically mixed pseudo labels, hard."""

from nnunet_attenscribble.losses.rivals import MixedLabelsLoss
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerTwoDecoders import nnUNetTrainerTwoDecoders


class nnUNetTrainerDMPLS(nnUNetTrainerTwoDecoders):
    """PartialDiceCE of two decoders plus the Dice loss against their randomly mixed, hard pseudo labels (DMPLS)."""

    def build_term(self) -> MixedLabelsLoss:
        """See `MixedLabelsLoss`."""
        return MixedLabelsLoss(soft=False)
