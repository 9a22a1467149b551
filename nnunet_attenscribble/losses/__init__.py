"""The objectives of AttenScribble in plain PyTorch; they know nothing of nnU-Net."""

from nnunet_attenscribble.losses.attenscribble import AttenScribbleLoss, to_probabilities
from nnunet_attenscribble.losses.attentive_similarity import AttentiveSimilarityLoss, SimilarityPairLoss
from nnunet_attenscribble.losses.intensities import rank_intensities, rescale_intensities
from nnunet_attenscribble.losses.masked_crf import MaskedCRFLoss
from nnunet_attenscribble.losses.segmentation import (
    PartialBinaryCrossEntropyLoss,
    PartialCrossEntropyLoss,
    PartialDiceCrossEntropyLoss,
)

__all__ = [
    "AttenScribbleLoss",
    "AttentiveSimilarityLoss",
    "MaskedCRFLoss",
    "PartialBinaryCrossEntropyLoss",
    "PartialCrossEntropyLoss",
    "PartialDiceCrossEntropyLoss",
    "SimilarityPairLoss",
    "rank_intensities",
    "rescale_intensities",
    "to_probabilities",
]
