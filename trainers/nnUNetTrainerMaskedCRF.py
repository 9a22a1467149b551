"""PartialCE plus the masked CRF on the unlabelled pixels."""

from nnunet_attenscribble.trainers.nnUNetTrainerPartialCE import nnUNetTrainerPartialCE


class nnUNetTrainerMaskedCRF(nnUNetTrainerPartialCE):
    """PartialCE plus the masked CRF on the unlabelled pixels."""

    with_crf = True
