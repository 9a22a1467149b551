"""Overlap, surface distances, volume and lesions of one structure in one case; and many cases as a few numbers.

Masks are boolean arrays of any two or three axes; `spacing` is in millimetres, one number per axis in the order of the
array's axes (SimpleITK gives it in the opposite order). Where a mask is empty: absent in both is NaN, absent in one is
infinite. NaN enters no mean, infinity is counted beside it (see `protocols` for what is what).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

METRICS = ("dice", "iou", "hd95_mm", "assd_mm", "volume_difference_ml", "volume_share")
DISTANCES = ("hd95_mm", "assd_mm")
OPTIONAL_METRICS = ("nsd", "lesion_f1")  # only where they are asked for
LESION_COUNTS = ("lesions_found", "lesions_missed", "lesions_false")
STATUSES = ("present", "missed", "spurious", "absent")

HD95_DEFINITIONS = {
    "monai": "the larger of the two directed 95th percentiles (MONAI)",
    "union": "the 95th percentile of the distances of both directions pooled (MedPy, WSL4MIS)",
}

SURFACE_DEFINITIONS = {
    "symmetric": "the mean of the distances of both directions pooled (ASSD of MONAI, and of MedPy from 0.5 on)",
    "directed": "the mean distance from the predicted surface to the true one (ASD of MedPy)",
}

NSD_DEFINITION = (
    "the share of the surface voxels of both masks that lie within the tolerance of the other mask's surface (MONAI's "
    "surface Dice without subvoxels)"
)

LESION_DEFINITION = (
    "F1 of connected components (voxels that share at least a corner), matched one to one where their IoU reaches the "
    "threshold"
)


@dataclass(frozen=True)
class StructureScores:
    """The scores of one structure in one case.

    Attributes:
        status: `present` (in truth and prediction), `missed` (truth only), `spurious` (prediction only) or `absent`.
        dice: 0 to 1; 0 if missed or spurious; NaN if absent.
        iou: likewise.
        hd95_mm: 95 % Hausdorff distance; infinite if missed or spurious; NaN if absent. In voxels, not millimetres, if
            so asked (`compute_scores(in_voxels=True)`).
        assd_mm: average symmetric surface distance; likewise.
        volume_difference_ml: predicted minus true volume; NaN if absent, and for images of two axes.
        prediction_voxels: size of the predicted structure; of several runs the mean.
        dense_voxels: size of the true structure.
        nsd: normalised surface distance, 0 to 1; 0 if missed or spurious; NaN if absent; None if not asked for.
        lesion_f1: F1 of the structure's connected components; likewise.
        lesions_found: components found, of several runs the mean; None if not asked for.
        lesions_missed: components in the truth only; likewise.
        lesions_false: components in the prediction only; likewise.
    """

    status: str
    dice: float
    iou: float
    hd95_mm: float
    assd_mm: float
    volume_difference_ml: float
    prediction_voxels: float
    dense_voxels: int
    nsd: float | None = None
    lesion_f1: float | None = None
    lesions_found: float | None = None
    lesions_missed: float | None = None
    lesions_false: float | None = None

    @property
    def volume_share(self) -> float:
        """Predicted over true volume: 0 if missed; NaN where the dense label lacks the structure."""
        return self.prediction_voxels / self.dense_voxels if self.dense_voxels else float("nan")


def compute_scores(
    prediction: np.ndarray,
    dense: np.ndarray,
    spacing: Sequence[float],
    *,
    hd95: str | None = "monai",
    surface: str | None = "symmetric",
    in_voxels: bool = False,
    nsd_mm: float | None = None,
    lesion_iou: float | None = None,
) -> StructureScores:
    """Score one structure by the rule for empty masks that `StructureScores` states.

    Args:
        prediction: boolean mask, (Y, X) or (Z, Y, X).
        dense: the true mask, of the same shape.
        spacing: millimetres per axis of the array.
        hd95: a key of `HD95_DEFINITIONS`; None for NaN.
        surface: a key of `SURFACE_DEFINITIONS`; None for NaN.
        in_voxels: distances take every axis to have steps of 1, whatever the spacing; volumes do not.
        nsd_mm: tolerance of `compute_nsd`; None to leave it out.
        lesion_iou: from which `count_lesions` matches components; None to leave them out.

    Raises:
        ValueError: masks that are not boolean or differ in shape, spacing that does not fit, an unknown definition.
    """
    _check_masks(prediction, dense)
    _check_spacing(prediction, spacing)
    distances = np.empty(0), np.empty(0)
    if hd95 is not None or surface is not None or nsd_mm is not None:
        distances = compute_surface_distances(prediction, dense, (1.0,) * prediction.ndim if in_voxels else spacing)
    is_predicted, is_true = bool(prediction.any()), bool(dense.any())
    status = {(True, True): "present", (False, True): "missed", (True, False): "spurious", (False, False): "absent"}
    difference = compute_volume_ml(prediction, spacing) - compute_volume_ml(dense, spacing)
    scores = StructureScores(
        status=status[is_predicted, is_true],
        dice=compute_dice(prediction, dense),
        iou=compute_iou(prediction, dense),
        hd95_mm=float("nan") if hd95 is None else compute_hd95(distances, definition=hd95),
        assd_mm=float("nan") if surface is None else compute_assd(distances, definition=surface),
        volume_difference_ml=difference if is_predicted or is_true else float("nan"),
        prediction_voxels=int(np.count_nonzero(prediction)),
        dense_voxels=int(np.count_nonzero(dense)),
        nsd=None if nsd_mm is None else compute_nsd(distances, nsd_mm),
    )
    if lesion_iou is None:
        return scores
    counts = count_lesions(prediction, dense, lesion_iou)
    return replace(
        scores,
        lesion_f1=counts.f1,
        lesions_found=counts.found,
        lesions_missed=counts.missed,
        lesions_false=counts.false,
    )


def select_structure(labels: np.ndarray, values: int | Sequence[int]) -> np.ndarray:
    """The boolean mask of a label, or of a region: the union of several labels."""
    return np.isin(labels, np.atleast_1d(values))


def compute_dice(prediction: np.ndarray, dense: np.ndarray) -> float:
    """Dice, 2 |A and B| / (|A| + |B|); NaN if both masks are empty."""
    _check_masks(prediction, dense)
    total = np.count_nonzero(prediction) + np.count_nonzero(dense)
    return float(2 * np.count_nonzero(prediction & dense) / total) if total else float("nan")


def compute_iou(prediction: np.ndarray, dense: np.ndarray) -> float:
    """Intersection over union, |A and B| / |A or B|; NaN if both masks are empty."""
    _check_masks(prediction, dense)
    union = np.count_nonzero(prediction | dense)
    return float(np.count_nonzero(prediction & dense) / union) if union else float("nan")


def compute_volume_ml(mask: np.ndarray, spacing: Sequence[float]) -> float:
    """The volume in millilitres; NaN for a mask of two axes, which has an area."""
    _check_spacing(mask, spacing)
    return float(np.count_nonzero(mask) * np.prod(spacing) / 1000) if mask.ndim == 3 else float("nan")


def compute_surface_distances(
    prediction: np.ndarray, dense: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Distances from each surface voxel to the nearest surface voxel of the other mask, in millimetres.

    A surface voxel belongs to the mask and has a face neighbour that does not, or that lies outside the image (the
    definition of MONAI and MedPy). An axis of length one is dropped: a volume of a single slice is an image, in which
    not every voxel is surface.

    Returns:
        From the prediction to the truth, and from the truth to the prediction. A direction is empty if the mask it
        starts from is, and infinite throughout if only the mask it leads to is empty.
    """
    from scipy.ndimage import binary_erosion, find_objects
    from scipy.spatial import KDTree

    _check_masks(prediction, dense)
    _check_spacing(prediction, spacing)
    boxes = find_objects((prediction | dense).view(np.uint8))  # one around both masks
    if not boxes:
        return np.empty(0), np.empty(0)
    kept = [axis for axis, length in enumerate(prediction.shape) if length > 1] or [0]
    step = [float(spacing[axis]) for axis in kept]
    # Beyond the box, as beyond the image, there is nothing of the masks, so the crop has the same surface.
    cropped = [mask[boxes[0]].reshape([mask[boxes[0]].shape[axis] for axis in kept]) for mask in (prediction, dense)]
    own, other = (np.argwhere(mask & ~binary_erosion(mask)) * step for mask in cropped)
    if not (len(own) and len(other)):
        return np.full(len(own), np.inf), np.full(len(other), np.inf)
    # A tree rather than a distance transform, whose time and memory grow with the box: specks far off make it large.
    return KDTree(other, leafsize=32).query(own)[0], KDTree(own, leafsize=32).query(other)[0]


def compute_hd95(distances: tuple[np.ndarray, np.ndarray], *, definition: str = "monai") -> float:
    """The 95 % Hausdorff distance in millimetres, linear interpolation between ranks.

    Args:
        distances: what `compute_surface_distances` returns.
        definition: a key of `HD95_DEFINITIONS`.

    Returns:
        NaN if there is no surface at all, infinite if only one mask has one.
    """
    if definition not in HD95_DEFINITIONS:
        raise ValueError(f"hd95 is {definition!r}; it must be one of {', '.join(HD95_DEFINITIONS)}")
    pooled = np.concatenate(distances)
    if pooled.size == 0 or np.isinf(pooled).any():
        return float("inf") if pooled.size else float("nan")
    if definition == "union":
        return float(np.percentile(pooled, 95))
    return float(max(np.percentile(direction, 95) for direction in distances))


def compute_assd(distances: tuple[np.ndarray, np.ndarray], *, definition: str = "symmetric") -> float:
    """The average surface distance in millimetres.

    Args:
        distances: what `compute_surface_distances` returns.
        definition: a key of `SURFACE_DEFINITIONS`.

    Returns:
        NaN if there is no surface at all, infinite if only one mask has one.
    """
    if definition not in SURFACE_DEFINITIONS:
        raise ValueError(f"surface is {definition!r}; it must be one of {', '.join(SURFACE_DEFINITIONS)}")
    pooled = np.concatenate(distances)
    if pooled.size == 0 or np.isinf(pooled).any():
        return float("inf") if pooled.size else float("nan")
    return float(pooled.mean() if definition == "symmetric" else distances[0].mean())


def compute_nsd(distances: tuple[np.ndarray, np.ndarray], tolerance: float) -> float:
    """The normalised surface distance: the share of both masks' surface voxels within a tolerance of the other surface.

    Surface voxels count, as in MONAI's `compute_surface_dice(use_subvoxels=False)`. DeepMind's surface-distance, and
    MONAI with `use_subvoxels=True`, weigh by the area of the surface in each voxel instead.

    Args:
        distances: what `compute_surface_distances` returns.
        tolerance: millimetres, included.

    Returns:
        0 to 1; 0 if only one mask has a surface, NaN if none has.
    """
    pooled = np.concatenate(distances)
    within = np.count_nonzero(pooled <= tolerance * (1 + 1e-6))  # 3 steps of 0.7 mm are 2.1 mm
    return within / pooled.size if pooled.size else float("nan")


def _check_masks(prediction: np.ndarray, dense: np.ndarray) -> None:
    if prediction.dtype != bool or dense.dtype != bool:
        raise ValueError(f"masks must be boolean, got {prediction.dtype} and {dense.dtype}")
    if prediction.shape != dense.shape:
        raise ValueError(f"masks must have one shape, got {prediction.shape} and {dense.shape}")


def _check_spacing(mask: np.ndarray, spacing: Sequence[float]) -> None:
    if len(spacing) != mask.ndim or not all(np.isfinite(step) and step > 0 for step in spacing):
        raise ValueError(f"spacing must be {mask.ndim} positive numbers, one per axis, got {tuple(spacing)}")


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
    # As bytes: of truth values on two axes cc3d 4.1.1 labels some that are false.
    (own, predicted), (other, true) = (
        cc3d.connected_components(
            np.ascontiguousarray(mask, np.uint8), connectivity=26 if mask.ndim == 3 else 8, return_N=True
        )
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


# --- many cases ---


def collect_metric(
    cases: Mapping[str, Mapping[str, StructureScores]], structures: Sequence[str], metric: str
) -> np.ndarray:
    """One metric of all cases, float64, (cases, structures); NaN where the structure is absent."""
    return np.array([[getattr(scores[name], metric) for name in structures] for scores in cases.values()], dtype=float)


def count_statuses(cases: Mapping[str, Mapping[str, StructureScores]], structures: Sequence[str]) -> dict[str, int]:
    """How often the structures together are `present`, `missed`, `spurious` and `absent`."""
    found = [scores[name].status for scores in cases.values() for name in structures]
    return {status: found.count(status) for status in STATUSES}


def summarise_values(values: np.ndarray) -> dict[str, float | int]:
    """Mean, standard deviation and median of one metric of one structure.

    Args:
        values: (cases,), NaN where absent, infinite where a distance is.

    Returns:
        `n` finite values with their `mean` and `sd`, the number of `infinite` values, and the `median` of both; NaN for
        what cannot be told.
    """
    known = values[~np.isnan(values)]
    finite = known[np.isfinite(known)]
    return {
        "n": int(finite.size),
        "infinite": int(known.size - finite.size),
        "mean": float(finite.mean()) if finite.size else float("nan"),
        "sd": float(finite.std(ddof=1)) if finite.size > 1 else float("nan"),
        # Not np.median: between a finite value and an infinite one lies an infinite one, without a warning.
        "median": median(known.tolist()) if known.size else float("nan"),
    }


def mean_over_structures(values: np.ndarray) -> float:
    """The mean of the structures' means over finite values of (cases, structures); NaN if there is none."""
    means = mean_per_case(values.T)
    return float(means[np.isfinite(means)].mean()) if np.isfinite(means).any() else float("nan")


def mean_per_case(values: np.ndarray) -> np.ndarray:
    """The mean of each row of (cases, structures) over its finite values; NaN where it has none."""
    return np.array([row[np.isfinite(row)].mean() if np.isfinite(row).any() else np.nan for row in values])


def weigh_foreground(values: np.ndarray, foreground: str) -> np.ndarray:
    """What the foreground's mean is taken of, for `mean_over_structures`.

    Args:
        values: of one metric, (cases, structures).
        foreground: `structures` to weigh structures alike, or `cases` to weigh cases alike (`Protocol.foreground`).

    Returns:
        The values themselves, or (cases, 1), each case's mean over its structures.
    """
    return values if foreground == "structures" else mean_per_case(values)[:, None]


def aggregate_scores(
    cases: Mapping[str, Mapping[str, StructureScores]],
    structures: Sequence[str],
    *,
    metrics: Sequence[str] = METRICS,
    foreground: str = "structures",
) -> dict[str, dict[str, Any]]:
    """Summarise metrics per structure and over the foreground, which is weighed as `weigh_foreground` tells.

    Returns:
        `structures`: by name, the counts of statuses and each metric as `summarise_values` gives it;
        `foreground_mean`: the counts over all structures and each metric's `mean`, `sd` and number of `structures`.
    """
    per_structure: dict[str, object] = {}
    overall: dict[str, object] = dict(count_statuses(cases, structures))
    for name in structures:
        per_structure[name] = dict(count_statuses(cases, [name])) | {
            metric: summarise_values(collect_metric(cases, [name], metric)[:, 0]) for metric in metrics
        }
    for metric in metrics:
        values = collect_metric(cases, structures, metric)
        overall[metric] = {
            "structures": int(np.isfinite(values).any(axis=0).sum()),
            "mean": mean_over_structures(weigh_foreground(values, foreground)),
            "sd": summarise_values(mean_per_case(values))["sd"],
        }
    return {"structures": per_structure, "foreground_mean": overall}
