"""How sure a comparison is: bootstrap intervals and paired tests, aware of missed organs and repeated subjects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["adjust_holm", "bootstrap_means", "compute_wilcoxon_p", "draw_case_weights", "pair_differences"]


def draw_case_weights(subjects: Sequence[str], *, resamples: int, seed: int) -> np.ndarray:
    """Draw subjects with replacement; all cases of a subject come along, since they are not independent.

    Args:
        subjects: the subject of each case.
        resamples: number of draws.
        seed: of the generator.

    Returns:
        How often each case is in each draw, float64, (resamples, cases).
    """
    _, index = np.unique(np.asarray(subjects), return_inverse=True)
    count = int(index.max()) + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return draws[:, index].astype(float)


def bootstrap_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of the structures' means over finite values, once per draw.

    Args:
        values: (cases, structures).
        weights: of `draw_case_weights`, (resamples, cases).

    Returns:
        (resamples,); NaN where a draw holds no finite value.
    """
    finite = np.isfinite(values)
    sums, counts = weights @ np.where(finite, values, 0.0), weights @ finite
    with np.errstate(invalid="ignore"):
        means = sums / counts
    known = ~np.isnan(means)
    with np.errstate(invalid="ignore"):
        return np.where(known, means, 0.0).sum(axis=1) / known.sum(axis=1)


def pair_differences(own: np.ndarray, other: np.ndarray, subjects: Sequence[str], *, worst: float) -> np.ndarray:
    """Differences own - other, one per subject, for a test on ranks.

    A missed organ's infinite distance makes an infinite difference, the largest rank there is; two infinite distances
    are a tie. Where one model predicts an organ that is absent and the other rightly does not, the first one is worse
    by `worst`. Differences are averaged over structures and over the cases of a subject.

    Args:
        own: scores of a model, (cases, structures), NaN where absent.
        other: scores of the model that it is compared with.
        subjects: the subject of each case.
        worst: the difference that stands for "as bad as can be": -1 for Dice, infinity for distances.

    Returns:
        (subjects with any structure,).
    """
    with np.errstate(invalid="ignore"):
        differences = own - other
    differences[np.isinf(own) & np.isinf(other)] = 0.0
    differences[~np.isnan(own) & np.isnan(other)] = worst
    differences[np.isnan(own) & ~np.isnan(other)] = -worst
    names = np.asarray(subjects)
    means = []
    for subject in dict.fromkeys(subjects):
        of_subject = differences[names == subject]
        known = of_subject[~np.isnan(of_subject)]
        if known.size:
            # Infinitely worse in one structure and infinitely better in another: a tie.
            opposed = np.isposinf(known).any() and np.isneginf(known).any()
            means.append(0.0 if opposed else known.mean())
    return np.array(means)


def compute_wilcoxon_p(differences: np.ndarray) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test; 1 if no difference differs from zero, NaN without any.

    As SciPy decides: exact for up to 50 differences without a tie and 13 with one, from the normal distribution beyond.

    Args:
        differences: (n,), may be infinite.
    """
    from scipy.stats import rankdata, wilcoxon

    rounded = np.round(differences, 12)  # 0.9 - 0.8 and 0.3 - 0.2 are a tie
    nonzero = rounded[rounded != 0]
    if not differences.size or not nonzero.size:
        return 1.0 if differences.size else float("nan")
    # The test sees ranks only; handing it ranks makes infinite differences as good as any.
    return float(wilcoxon(np.sign(nonzero) * rankdata(np.abs(nonzero))).pvalue)


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of the p-values of one family; NaN stays NaN and does not count."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    order = [index for index in np.argsort(p) if not np.isnan(p[index])]
    largest = 0.0
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - position) * p[index]))
        adjusted[index] = largest
    return adjusted.tolist()
