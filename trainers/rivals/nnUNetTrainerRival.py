"""What the trainers of rival losses share."""

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.losses.rivals import RivalLoss, RivalTerm
from nnunet_attenscribble.trainers.nnUNetTrainerPartialDiceCE import nnUNetTrainerPartialDiceCE


class nnUNetTrainerRival(nnUNetTrainerPartialDiceCE):
    """Base of the rivals: PartialDiceCE plus one term, with the warm-up, targets and log of the method's trainers."""

    def _refuse_what_cannot_be_trained(self) -> None:
        super()._refuse_what_cannot_be_trained()
        if self.label_manager.has_regions:
            raise AttenScribbleError(
                f"{self.plans_manager.dataset_name} has regions, and {type(self).__name__} is published for classes "
                "that do not overlap: use nnUNetTrainerMaskedCRF or nnUNetTrainerAttenScribble"
            )

    def _build_regularised(self) -> RivalLoss:
        return RivalLoss(self.label_manager.ignore_label, self.build_term())

    def build_term(self) -> RivalTerm:
        """The rival's term."""
        raise TypeError(f"{type(self).__name__} has no term")
