"""PartialDiceCE plus pseudo labels of whoever of network and teacher fits the scribbles better."""

from torch import Tensor

from nnunet_attenscribble.losses.rivals import CompetingLabelsLoss
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerTeacher import nnUNetTrainerTeacher


class nnUNetTrainerScribbleVS(nnUNetTrainerTeacher):
    """PartialDiceCE plus pseudo labels of whoever of network and teacher fits the scribbles better (ScribbleVS)."""

    def build_term(self) -> CompetingLabelsLoss:
        """See `CompetingLabelsLoss`."""
        return CompetingLabelsLoss()

    def ask_teacher(self, images: Tensor) -> Tensor:
        """Its logits."""
        return self.predict_with_teacher(images)
