"""Partial cross-entropy on the scribbles: the first rung of the paper's ablation."""

from nnunet_attenscribble.trainers.nnUNetTrainerScribble import nnUNetTrainerScribble


class nnUNetTrainerPartialCE(nnUNetTrainerScribble):
    """Partial cross-entropy on the scribbles: the first rung of the paper's ablation."""
