"""Many cases to a few numbers: NaN enters no mean, infinity is counted beside it (see `protocols` for what is what)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_attenscribble.evaluation.metrics import METRICS, StructureScores

__all__ = [
    "aggregate_scores",
    "collect_metric",
    "count_statuses",
    "mean_over_structures",
    "mean_per_case",
    "summarise_values",
    "weigh_foreground",
]


def collect_metric(
    cases: Mapping[str, Mapping[str, StructureScores]], structures: Sequence[str], metric: str
) -> np.ndarray:
    """One metric of all cases, float64, (cases, structures); NaN where the structure is absent."""
    return np.array([[getattr(scores[name], metric) for name in structures] for scores in cases.values()], dtype=float)


def count_statuses(cases: Mapping[str, Mapping[str, StructureScores]], structures: Sequence[str]) -> dict[str, int]:
    """How often the structures together are `present`, `missed`, `spurious` and `absent`."""
    found = [scores[name].status for scores in cases.values() for name in structures]
    return {status: found.count(status) for status in ("present", "missed", "spurious", "absent")}


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
        "median": _compute_median(known),
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


def _compute_median(known: np.ndarray) -> float:
    if not known.size:
        return float("nan")
    # Not np.median: between a finite value and an infinite one lies an infinite one, without a warning.
    ranked = np.sort(known)
    lower, upper = ranked[(known.size - 1) // 2], ranked[known.size // 2]
    return float(lower if lower == upper else (lower + upper) / 2)
