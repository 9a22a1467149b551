"""The objectives of AttenScribble in plain PyTorch; they know nothing of nnU-Net."""

from nnunet_attenscribble.losses.attenscribble import AttenScribbleLoss
from nnunet_attenscribble.losses.attentive_similarity import AttentiveSimilarityLoss, SimilarityPairLoss
from nnunet_attenscribble.losses.masked_crf import MaskedCRFLoss
from nnunet_attenscribble.losses.segmentation import PartialCrossEntropyLoss

__all__ = [
    "AttenScribbleLoss",
    "AttentiveSimilarityLoss",
    "MaskedCRFLoss",
    "PartialCrossEntropyLoss",
    "SimilarityPairLoss",
]
