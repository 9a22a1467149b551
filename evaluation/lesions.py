"""Objects found, missed and made up: detection of lesions, tumours or nodules rather than of their voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["LesionCounts", "count_lesions"]


@dataclass(frozen=True)
class LesionCounts:
    """How many objects of a case are `found`, `missed` (in the truth only) and `false` (in the prediction only)."""

    found: int
    missed: int
    false: int

    @property
    def f1(self) -> float:
        """2 found / (2 found + missed + false); NaN where there is no object at all."""
        total = 2 * self.found + self.missed + self.false
        return 2 * self.found / total if total else float("nan")


def count_lesions(prediction: np.ndarray, dense: np.ndarray, iou: float) -> LesionCounts:
    """Match the objects of two masks one to one.

    An object is a connected component; voxels that share a corner are connected. Two objects may be matched if their
    intersection over union is at least `iou`; of all matchings one with the most pairs counts.

    Args:
        prediction: boolean mask, (Y, X) or (Z, Y, X).
        dense: the true mask, of the same shape.
        iou: above 0, at most 1. Above 0.5 no object has two partners to choose from.

    Raises:
        ValueError: another threshold.
    """
    import cc3d
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    if not 0 < iou <= 1:
        raise ValueError(f"iou is {iou}; it must be above 0 and at most 1")
    (own, predicted), (other, true) = (
        cc3d.connected_components(mask, connectivity=26 if mask.ndim == 3 else 8, return_N=True)
        for mask in (prediction, dense)
    )
    both = prediction & dense
    (first, second), shared = np.unique(np.stack([own[both], other[both]]), axis=1, return_counts=True)
    union = np.bincount(own.ravel())[first] + np.bincount(other.ravel())[second] - shared
    allowed = shared >= iou * union * (1 - 1e-9)  # which rounding must not decide
    pairs = csr_array(
        (np.ones(allowed.sum(), bool), (first[allowed] - 1, second[allowed] - 1)), shape=(predicted, true)
    )
    found = int((maximum_bipartite_matching(pairs, perm_type="column") >= 0).sum()) if predicted and true else 0
    return LesionCounts(found, true - found, predicted - found)
