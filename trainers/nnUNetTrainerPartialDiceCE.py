"""PartialCE plus nnU-Net's Dice on the scribbles: its own partial loss, with the padding setting."""

from nnunet_attenscribble.trainers.nnUNetTrainerPartialCE import nnUNetTrainerPartialCE


class nnUNetTrainerPartialDiceCE(nnUNetTrainerPartialCE):
    """PartialCE plus nnU-Net's Dice on the scribbles: its own partial loss, with the padding setting."""

    with_dice = True
