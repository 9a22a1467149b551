"""The whole method: Attention plus the attentive similarity loss."""

from nnunet_attenscribble.trainers.nnUNetTrainerAttention import nnUNetTrainerAttention


class nnUNetTrainerAttenScribble(nnUNetTrainerAttention):
    """The whole method: Attention plus the attentive similarity loss."""

    with_similarity = True
