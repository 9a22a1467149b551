"""PartialDiceCE plus entropy minimisation on the unlabelled pixels."""

from nnunet_attenscribble.losses.rivals import EntropyLoss
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerRival import nnUNetTrainerRival


class nnUNetTrainerEntropy(nnUNetTrainerRival):
    """PartialDiceCE plus entropy minimisation on the unlabelled pixels."""

    def build_term(self) -> EntropyLoss:
        """See `EntropyLoss`."""
        return EntropyLoss()
