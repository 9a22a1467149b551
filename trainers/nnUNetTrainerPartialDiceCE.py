"""nnU-Net's own partial Dice and cross-entropy on the scribbles, with the padding setting."""

from nnunet_attenscribble.trainers.nnUNetTrainerScribble import nnUNetTrainerScribble


class nnUNetTrainerPartialDiceCE(nnUNetTrainerScribble):
    """nnU-Net's own partial Dice and cross-entropy on the scribbles, with the padding setting."""

    with_dice = True
