"""PartialDiceCE plus dynamically mixed pseudo labels, soft."""

from nnunet_attenscribble.losses.rivals import MixedLabelsLoss
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerTwoDecoders import nnUNetTrainerTwoDecoders


class nnUNetTrainerDMSPS(nnUNetTrainerTwoDecoders):
    """PartialDiceCE of two decoders plus the cross-entropy against their randomly mixed, soft pseudo labels (DMSPS)."""

    def build_term(self) -> MixedLabelsLoss:
        """See `MixedLabelsLoss`."""
        return MixedLabelsLoss(soft=True)
