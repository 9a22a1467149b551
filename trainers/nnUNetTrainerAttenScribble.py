"""AttenScribble and the rungs of the paper's ablation below it, each the one before it and a term more."""

from nnunet_attenscribble.trainers.nnUNetTrainerScribble import nnUNetTrainerScribble


class nnUNetTrainerPartialCE(nnUNetTrainerScribble):
    """Partial cross-entropy on the scribbles: the first rung of the paper's ablation."""


class nnUNetTrainerPartialDiceCE(nnUNetTrainerPartialCE):
    """PartialCE plus nnU-Net's Dice on the scribbles: its own partial loss, with the padding setting."""

    with_dice = True


class nnUNetTrainerMaskedCRF(nnUNetTrainerPartialDiceCE):
    """PartialDiceCE plus the masked CRF on the unlabelled pixels."""

    with_crf = True


class nnUNetTrainerAttention(nnUNetTrainerMaskedCRF):
    """MaskedCRF plus the spatial self-attention block in the encoder."""

    with_attention = True


class nnUNetTrainerAttenScribble(nnUNetTrainerAttention):
    """The whole method: Attention plus the attentive similarity loss."""

    with_similarity = True
