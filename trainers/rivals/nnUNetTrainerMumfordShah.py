"""PartialDiceCE plus the Mumford-Shah functional."""

from nnunet_attenscribble.losses.rivals import MumfordShahLoss
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerRival import nnUNetTrainerRival


class nnUNetTrainerMumfordShah(nnUNetTrainerRival):
    """PartialDiceCE plus the Mumford-Shah functional."""

    def build_term(self) -> MumfordShahLoss:
        """See `MumfordShahLoss`."""
        return MumfordShahLoss()
