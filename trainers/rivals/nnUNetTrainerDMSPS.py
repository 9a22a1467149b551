"""PartialDiceCE plus dynamically mixed pseudo labels, soft."""

from nnunet_attenscribble.trainers.rivals.nnUNetTrainerDMPLS import MixedLabelsLoss
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerRival import nnUNetTrainerTwoDecoders


class nnUNetTrainerDMSPS(nnUNetTrainerTwoDecoders):
    """PartialDiceCE of two decoders plus the cross-entropy against their randomly mixed, soft pseudo labels (DMSPS)."""

    def build_term(self) -> MixedLabelsLoss:
        """See `MixedLabelsLoss`."""
        return MixedLabelsLoss(soft=True)
