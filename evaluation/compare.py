"""Several models compared with a fully supervised one, on exactly the same cases; and how sure that is: bootstrap
intervals and paired tests, aware of missed organs and repeated subjects.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from nnunet_attenscribble.common.text import find_subject, list_some
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.evaluation.metrics import (
    collect_metric,
    count_statuses,
    mean_over_structures,
    mean_per_case,
    summarise_values,
    weigh_foreground,
)
from nnunet_attenscribble.evaluation.pooling import count_runs, depends_on_runs, list_differences, write_run_notes
from nnunet_attenscribble.evaluation.protocols import PROTOCOLS, find_volume
from nnunet_attenscribble.evaluation.structures import compute_confusion_shares
from nnunet_attenscribble.evaluation.summary import Summary

FOREGROUND = "foreground mean"
_CONFIDENCE = 0.95  # of the bootstrap intervals

# The difference that stands for "as bad as can be" in a test on ranks. Volume differences are signed, so that neither
# a larger nor a smaller one is better: they are told, not tested. A protocol may test fewer.
_WORST = {
    **dict.fromkeys(("dice", "iou", "nsd", "lesion_f1"), -1.0),
    **dict.fromkeys(("hd95_mm", "assd_mm"), float("inf")),
}


@dataclass(frozen=True)
class ComparisonRow:
    """One metric of one structure of one model.

    Attributes:
        model: its name.
        structure: its name, or `FOREGROUND`, the mean over all of them as the protocol has it.
        metric: one of `Summary.metrics`.
        n: finite values that the mean is over; `infinite` values are not in it. Both over all structures in FOREGROUND.
        infinite: distances of missed and spurious organs.
        mean: over the finite values.
        sd: standard deviation over cases.
        runs: random seeds that each case was averaged over.
        sd_runs: standard deviation of the mean over these runs; NaN for a single one.
        median: over finite and infinite values; in FOREGROUND over the cases' means over their structures, which are
            infinite where any structure is missed or spurious.
        low: lower end of the bootstrap interval of the mean; NaN where fewer than two subjects have a value, in
            FOREGROUND of any structure that is in the mean.
        high: upper end.
        missed: organs in the truth only.
        spurious: organs in the prediction only.
        share: the mean in per cent of the reference's; NaN for anything but Dice and IoU.
        difference: mean minus the reference's, over the pairs of values that are finite in both.
        difference_low: lower end of its bootstrap interval.
        difference_high: upper end.
        pairs: values that the difference is over.
        p: of Wilcoxon's signed-rank test against the reference; NaN for the reference itself, where the protocol does
            not test the metric, and where it depends on the number of runs (see `pooling.depends_on_runs`).
        p_holm: corrected for all tests of this metric in this comparison.
        rank_correlation: of what p tests, see `correlate_ranks`; its sign may not be that of `difference`, which lacks
            lost organs. NaN where p is.
    """

    model: str
    structure: str
    metric: str
    n: int
    infinite: int
    mean: float
    sd: float
    runs: int
    sd_runs: float
    median: float
    low: float
    high: float
    missed: int
    spurious: int
    share: float
    difference: float = float("nan")
    difference_low: float = float("nan")
    difference_high: float = float("nan")
    pairs: int = 0
    p: float = float("nan")
    p_holm: float = float("nan")
    rank_correlation: float = float("nan")


@dataclass(frozen=True)
class Comparison:
    """Rows of every model, the reference first, and what they rest on.

    Attributes:
        reference: name of the model that the others are compared with.
        models: names, the reference first.
        structures: names, without `FOREGROUND`.
        cases: identifiers of the cases.
        subjects: the number of subjects, which are what is resampled and tested.
        rows: one per model, structure and metric.
        hd95: definition that was used, a key of `metrics.HD95_DEFINITIONS`; None where the protocol has none.
        protocol: a key of `protocols.PROTOCOLS`.
        nsd_mm: tolerance of the normalised surface distance; None without.
        lesions: by structure whose components were counted, the IoU from which they match.
        confusion: by model, true class and predicted class, the share of the true volume
            (`structures.compute_confusion_shares`); without models that have none.
        lesion_counts: by model and structure, components `found`, `missed` and `false` in all cases.
        notes: of the summaries and their numbers of runs, each once.
        confidence: of the intervals.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        provenance: by model, what was compared with what, and the versions that did it.
    """

    reference: str
    models: tuple[str, ...]
    structures: tuple[str, ...]
    cases: tuple[str, ...]
    subjects: int
    rows: tuple[ComparisonRow, ...]
    hd95: str | None
    protocol: str
    notes: tuple[str, ...]
    confidence: float
    resamples: int
    seed: int
    provenance: Mapping[str, Mapping[str, object]]
    nsd_mm: float | None = None
    lesions: Mapping[str, float] = field(default_factory=dict)
    confusion: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    lesion_counts: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    @cached_property
    def _by_name(self) -> dict[tuple[str, str, str], ComparisonRow]:
        return {(row.model, row.structure, row.metric): row for row in self.rows}

    def structures_of(self, metric: str) -> tuple[str, ...]:
        """The structures that have a metric, as `Summary.names_of`, without `FOREGROUND`."""
        return tuple(name for name in self.structures if metric != "lesion_f1" or name in self.lesions)

    def get(self, model: str, structure: str, metric: str) -> ComparisonRow:
        """The row of a model's structure and metric; KeyError where there is none."""
        return self._by_name[model, structure, metric]


def compare_summaries(
    summaries: Mapping[str, Summary],
    reference: str,
    *,
    subject: str | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare models with a reference.

    Args:
        summaries: by the model's name, the reference among them.
        reference: name of the fully supervised model.
        subject: regular expression that finds the subject in a case's name, for data with several cases of one subject
            (`patient\\d+` in ACDC); its first group, or the whole match. None: every case is its own subject, and with
            it the slices that a protocol scores by themselves.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        AttenScribbleError: the summaries differ in cases, structures, dense labels or definitions, or a structure has
            the name of the foreground's mean; every problem.
    """
    first = summaries[reference]
    problems = [problem for name, own in summaries.items() for problem in list_differences(name, own, reference, first)]
    subjects, unknown = _find_subjects(first, subject)
    if unknown:
        problems.append(f"the pattern {subject!r} finds no subject in the cases {list_some(unknown)}: mend the pattern")
    elif subject is not None and len(set(subjects)) == 1 < len(subjects):
        problems.append(
            f"the pattern {subject!r} finds one and the same subject ({subjects[0]}) in all {len(subjects)} cases: "
            "mend the pattern, or compare on cases of several subjects"
        )
    if FOREGROUND in first.names:
        problems.append(
            f"a structure is called {FOREGROUND!r}, as the mean of all structures is: give it another name in "
            "dataset.json and evaluate again"
        )
    refuse(problems)
    models = (reference, *(name for name in summaries if name != reference))
    named, numbers = np.unique(subjects, return_inverse=True)
    weights = draw_weights(len(named), resamples=resamples, seed=seed)
    # In one order, so that pairs are pairs.
    cases = {name: {case: summaries[name].cases[case] for case in first.cases} for name in models}
    ordered = {name: replace(summaries[name], cases=cases[name]) for name in models}
    rows = []
    for metric in first.metrics:
        names = first.names_of(metric)
        of_metric = [
            _compare_structure(name, ordered[name], ordered[reference], metric, structure, numbers, weights)
            for name in models
            for structure in (*names, FOREGROUND)
        ]
        rows += _correct_family(of_metric)
    return Comparison(
        reference=reference,
        models=models,
        structures=tuple(first.names),
        cases=tuple(first.cases),
        subjects=len(named),
        rows=tuple(rows),
        hd95=first.hd95,
        protocol=first.protocol,
        notes=tuple(
            dict.fromkeys(
                [note for name in models for note in summaries[name].notes]
                + [note for name in models for note in write_run_notes(name, summaries[name], reference, first)]
            )
        ),
        confidence=_CONFIDENCE,
        resamples=resamples,
        seed=seed,
        provenance={name: {**summaries[name].provenance, "versions": summaries[name].versions} for name in models},
        nsd_mm=first.nsd_mm,
        lesions=first.lesions,
        confusion={name: _share_confusion(summaries[name]) for name in models if summaries[name].confusions},
        lesion_counts={name: _add_lesions(summaries[name]) for name in models if first.lesions},
    )


def _share_confusion(summary: Summary) -> dict[str, dict[str, float]]:
    shares = compute_confusion_shares(summary.confusions, summary.spacings).tolist()
    return {
        true: dict(zip(summary.classes, row, strict=True)) for true, row in zip(summary.classes, shares, strict=True)
    }


def _add_lesions(summary: Summary) -> dict[str, dict[str, float]]:
    return {
        name: {
            kind: sum(getattr(scores[name], f"lesions_{kind}") for scores in summary.cases.values())
            for kind in ("found", "missed", "false")
        }
        for name in summary.names_of("lesion_f1")
    }


def _find_subjects(summary: Summary, pattern: str | None) -> tuple[list[str], list[str]]:
    if pattern is None:
        return [find_volume(case, summary.protocol) for case in summary.cases], []
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise AttenScribbleError(f"the pattern of subjects {pattern!r} is no regular expression ({error})") from error
    subjects = [find_subject(compiled, find_volume(case, summary.protocol)) for case in summary.cases]
    return subjects, [case for case, own in zip(summary.cases, subjects, strict=True) if not own]


def _compare_structure(
    name: str,
    summary: Summary,
    reference: Summary,
    metric: str,
    structure: str,
    subjects: np.ndarray,
    weights: np.ndarray,
) -> ComparisonRow:
    names = reference.names_of(metric) if structure == FOREGROUND else [structure]
    foreground = PROTOCOLS[reference.protocol].foreground
    own, other = (collect_metric(scored.cases, names, metric) for scored in (summary, reference))
    counts = count_statuses(summary.cases, names)
    weighed, others = weigh_foreground(own, foreground), weigh_foreground(other, foreground)
    mean, reference_mean = mean_over_structures(weighed), mean_over_structures(others)
    per_case = mean_per_case(own)
    with_lost = np.where(np.isinf(own).any(axis=1), np.inf, per_case)
    low, high = _find_interval(bootstrap_means(weighed, subjects, weights), _count_subjects(weighed, subjects))
    row = ComparisonRow(
        model=name,
        structure=structure,
        metric=metric,
        n=int(np.isfinite(own).sum()),
        infinite=int(np.isinf(own).sum()),
        mean=mean,
        sd=summarise_values(per_case)["sd"],
        runs=count_runs(summary),
        sd_runs=_compute_sd_over_runs(summary, names, metric, foreground),
        median=summarise_values(with_lost)["median"],
        low=low,
        high=high,
        missed=counts["missed"],
        spurious=counts["spurious"],
        share=100 * (mean / reference_mean) if metric in ("dice", "iou") and reference_mean > 0 else float("nan"),
    )
    if summary is reference or metric not in PROTOCOLS[reference.protocol].tested:
        return row
    differences = pair_differences(own, other, subjects, worst=_WORST[metric])
    # A model that loses an organ in the hard cases must not gain from their absence.
    lost = ~(np.isfinite(own) & np.isfinite(other))
    own, other = (weigh_foreground(np.where(lost, np.nan, values), foreground) for values in (own, other))
    means = bootstrap_means(own, subjects, weights) - bootstrap_means(other, subjects, weights)
    low, high = _find_interval(means, _count_subjects(own, subjects))
    tested = not depends_on_runs(summary, reference, names, metric)
    return replace(
        row,
        difference=mean_over_structures(own) - mean_over_structures(other),
        difference_low=low,
        difference_high=high,
        pairs=int((~lost).sum()),
        p=compute_wilcoxon_p(differences) if tested else float("nan"),
        rank_correlation=correlate_ranks(differences) if tested else float("nan"),
    )


def _compute_sd_over_runs(summary: Summary, names: Sequence[str], metric: str, foreground: str) -> float:
    values = [weigh_foreground(collect_metric(run.cases, names, metric), foreground) for run in summary.runs]
    means = [mean_over_structures(own) for own in values]
    return float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")


def _count_subjects(values: np.ndarray, subjects: np.ndarray) -> int:
    """Subjects of the structure that the fewest have, of those that any has."""
    counts = [len(set(subjects[known].tolist())) for known in np.isfinite(values).T if known.any()]
    return min(counts, default=0)


def _find_interval(means: np.ndarray, count: int) -> tuple[float, float]:
    known = means[np.isfinite(means)]
    if count < 2 or not known.size:  # one subject can only be drawn again and again
        return float("nan"), float("nan")
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.percentile(known, (tail, 100 - tail))
    return float(low), float(high)


def find_family(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """Of a metric's rows those whose tests are corrected together; with one structure the foreground is it again."""
    single = len({row.structure for row in rows} - {FOREGROUND}) == 1
    return [row for row in rows if not (single and row.structure == FOREGROUND)]


def _correct_family(rows: list[ComparisonRow]) -> list[ComparisonRow]:
    family = find_family(rows)
    adjusted = {
        (row.model, row.structure): p for row, p in zip(family, adjust_holm([row.p for row in family]), strict=True)
    }
    first = rows[0].structure
    return [replace(row, p_holm=adjusted.get((row.model, row.structure), adjusted[row.model, first])) for row in rows]


def draw_weights(count: int, *, resamples: int, seed: int) -> np.ndarray:
    """Draw subjects with replacement.

    Args:
        count: of subjects.
        resamples: number of draws.
        seed: of the generator.

    Returns:
        How often each subject is in each draw, float64, (resamples, subjects).
    """
    generator, shares = np.random.default_rng(seed), np.full(count, 1 / count)
    # By columns: how products with it are rounded hangs on that, and kept tables on how they are rounded.
    weights = np.empty((resamples, count), order="F")
    for row in weights:  # draw by draw, for the memory that integers take beside it
        row[:] = generator.multinomial(count, shares)
    return weights


def bootstrap_means(values: np.ndarray, subjects: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of the structures' means over finite values, once per draw.

    All cases of a subject come along with it, since they are not independent.

    Args:
        values: (cases, structures).
        subjects: the number of each case's subject, from 0 on.
        weights: of `draw_weights`, (resamples, subjects).

    Returns:
        (resamples,); NaN where a draw lacks a structure that has finite values: without it, it is another mean.
    """
    finite = np.isfinite(values)
    sums, counts = np.zeros((2, weights.shape[1], values.shape[1]))  # of subjects: few where slices are scored
    np.add.at(sums, subjects, np.where(finite, values, 0.0))
    np.add.at(counts, subjects, finite)
    sums, counts = weights @ sums, weights @ counts
    known = finite.any(axis=0)
    with np.errstate(invalid="ignore"):
        means = sums / counts
        return np.where(known, means, 0.0).sum(axis=1) / known.sum()


def pair_differences(own: np.ndarray, other: np.ndarray, subjects: Iterable[Hashable], *, worst: float) -> np.ndarray:
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
    rows: dict[Hashable, list[int]] = {}
    for row, subject in enumerate(subjects):
        rows.setdefault(subject, []).append(row)
    means = []
    for own_rows in rows.values():
        of_subject = differences[own_rows]
        known = of_subject[~np.isnan(of_subject)]
        if known.size:
            infinite = np.sign(known[np.isinf(known)])
            # Infinitely worse in some structures and better in others: the more decide, as many are a tie.
            balance = infinite.sum()
            means.append((balance * np.inf if balance else 0.0) if infinite.size else known.mean())
    return np.array(means)


def compute_wilcoxon_p(differences: np.ndarray) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test; 1 if no difference differs from zero, NaN without any.

    As SciPy decides: exact for up to 50 differences without a tie and 13 with one, from the normal distribution beyond.

    Args:
        differences: (n,), may be infinite.
    """
    from scipy.stats import wilcoxon

    ranks = _rank_signed(differences)
    if not ranks.size:
        return 1.0 if differences.size else float("nan")
    # The test sees ranks only; handing it ranks makes infinite differences as good as any.
    return float(wilcoxon(ranks).pvalue)


def correlate_ranks(differences: np.ndarray) -> float:
    """The rank-biserial correlation of the test, -1 to 1; NaN if no difference, of (n,), differs from zero."""
    ranks = _rank_signed(differences)
    return float(ranks.sum() / np.abs(ranks).sum()) if ranks.size else float("nan")


def _rank_signed(differences: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    rounded = np.round(differences, 12)  # 0.9 - 0.8 and 0.3 - 0.2 are a tie
    nonzero = rounded[rounded != 0]
    return np.sign(nonzero) * rankdata(np.abs(nonzero))


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of the p-values of one family; NaN stays NaN and does not count."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN comes last
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.tolist()
