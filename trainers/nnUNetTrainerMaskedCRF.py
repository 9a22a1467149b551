"""PartialDiceCE plus the masked CRF on the unlabelled pixels."""

from nnunet_attenscribble.trainers.nnUNetTrainerPartialDiceCE import nnUNetTrainerPartialDiceCE


class nnUNetTrainerMaskedCRF(nnUNetTrainerPartialDiceCE):
    """PartialDiceCE plus the masked CRF on the unlabelled pixels."""

    with_crf = True
