"""MaskedCRF plus the spatial self-attention block in the encoder."""

from nnunet_attenscribble.trainers.nnUNetTrainerMaskedCRF import nnUNetTrainerMaskedCRF


class nnUNetTrainerAttention(nnUNetTrainerMaskedCRF):
    """MaskedCRF plus the spatial self-attention block in the encoder."""

    with_attention = True
