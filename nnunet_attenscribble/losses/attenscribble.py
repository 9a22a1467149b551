"""The weighted sum of AttenScribble's objectives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnunet_attenscribble.losses.attentive_similarity import (
    AttentiveSimilarityLoss,
    SimilarityPairLoss,
    annotated_pairs,
    count_pairs,
    grid_labels,
)
from nnunet_attenscribble.losses.intensities import rank_intensities, rescale_intensities
from nnunet_attenscribble.losses.masked_crf import MaskedCRFLoss
from nnunet_attenscribble.losses.segmentation import PADDING
from nnunet_attenscribble.similarity import WindowSimilarity
from nnunet_attenscribble.windows import at_least_float32


class AttenScribbleLoss(nn.Module):
    """The regularisers of the full-resolution prediction, and their sum with a segmentation loss.

        L = L_seg + strength * (crf_weight * L_crf + similarity_weight * L_as) + pair_weight * L_pair

    L_pair is there when the similarity is anchored; it needs no warm-up, since it acts on the similarity alone. The CRF
    acts on the unlabelled pixels inside the image.

    Args:
        ignore_label: target value of unlabelled pixels.
        crf: the masked CRF, or None.
        similarity: the attentive similarity loss, or None.
        pairs: the loss that the similarity learns from, or None.
        crf_weight, similarity_weight, pair_weight: see above.
        regions: whether the logits are those of regions, which may overlap, rather than of classes.
        ranks: whether the CRF sees intensities by `rank_intensities`, or by `rescale_intensities`.

    Reference: Tian, Yang, Gao, "AttenScribble", arXiv 2312.06614.
    """

    def __init__(
        self,
        ignore_label: int,
        crf: MaskedCRFLoss | None = None,
        similarity: AttentiveSimilarityLoss | None = None,
        pairs: SimilarityPairLoss | None = None,
        crf_weight: float = 0.1,
        similarity_weight: float = 0.1,
        pair_weight: float = 1.0,
        regions: bool = False,
        ranks: bool = False,
    ):
        super().__init__()
        self.ignore_label = ignore_label
        self.crf = crf
        self.similarity = similarity
        self.pairs = pairs
        self.crf_weight = crf_weight
        self.similarity_weight = similarity_weight
        self.pair_weight = pair_weight
        self.regions = regions
        self.ranks = ranks
        #: Factor on the weights of what regularises the prediction, for a warm-up.
        self.strength = 1.0

    def forward(
        self,
        segmentation_loss: Tensor,
        logits: Tensor,
        target: Tensor,
        image: Tensor,
        similarity: WindowSimilarity | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the sum and its terms.

        Args:
            segmentation_loss: scalar, L_seg.
            logits: (N, C, *S) at full resolution.
            target: (N, 1, *S), labels 0..ignore_label-1, `ignore_label`, or `PADDING` outside the image.
            image: (N, M, *S), any intensities.
            similarity: from the attention block, where there is one.

        Returns:
            the sum (scalar), and by name each unweighted term and the similarities' means, detached.
        """
        total, terms = segmentation_loss, {"segmentation": segmentation_loss}
        if self.crf is None and self.similarity is None:
            return total, _detached(terms)
        with torch.autocast(logits.device.type, enabled=False):
            probabilities = to_probabilities(logits, self.regions)
            inside = target != PADDING
            if self.crf is not None:
                unlabelled = target == self.ignore_label
                scaled = (
                    rank_intensities(image, ~unlabelled, inside) if self.ranks else rescale_intensities(image, inside)
                )
                terms["crf"] = self.crf(probabilities, scaled, unlabelled, inside)
                total = total + self.strength * self.crf_weight * terms["crf"]
            if self.similarity is not None:
                if similarity is None:
                    raise ValueError("no similarity given: the network needs an attention block with one")
                labels, single = grid_labels(target, similarity.grid, self.ignore_label)
                pairs = annotated_pairs(similarity, labels)
                terms["similarity"] = self.similarity(probabilities, similarity, single, inside)
                total = total + self.strength * self.similarity_weight * terms["similarity"]
                if self.pairs is not None:
                    counts = count_pairs(labels, self.ignore_label, similarity.radius)
                    terms["pairs"] = self.pairs(similarity.values, pairs, counts)
                    total = total + self.pair_weight * terms["pairs"]
                terms |= similarity_means(similarity.values.detach(), pairs.same, pairs.different)
        return total, _detached(terms)


def to_probabilities(logits: Tensor, regions: bool = False) -> Tensor:
    """What the regularisers see of the prediction, in float32 (float64 for float64 logits).

    They measure agreement by scalar products p_i . p_j. Every region is a choice of its own between inside and outside;
    (s_1, 1 - s_1, ..., s_R, 1 - s_R) / sqrt(R) makes the product the mean of the regions' agreements.

    Args:
        logits: (N, C, *S).
        regions: see `AttenScribbleLoss`.

    Returns:
        (N, C, *S), for regions (N, 2 C, *S).
    """
    if not regions:  # on a GPU without a copy of the logits
        return logits.softmax(dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))
    logits = at_least_float32(logits)
    return torch.cat([logits.sigmoid(), (-logits).sigmoid()], dim=1) / logits.shape[1] ** 0.5


def similarity_means(values: Tensor, same: Tensor, different: Tensor) -> dict[str, Tensor]:
    """Mean similarity of all pairs, and of annotated pairs of the same and of different classes (NaN without any)."""
    return {
        "mean_similarity": values.mean(),
        "same_class_similarity": (values * same).sum() / same.sum(),
        "different_class_similarity": (values * different).sum() / different.sum(),
    }


def _detached(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: term.detach() for name, term in terms.items()}
