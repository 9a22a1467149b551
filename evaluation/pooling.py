"""The results of one model's folds and random seeds as one, and what keeps results from being compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from nnunet_attenscribble.common.text import counted, list_some
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.evaluation.metrics import DISTANCES, StructureScores, count_statuses
from nnunet_attenscribble.evaluation.protocols import PROTOCOLS
from nnunet_attenscribble.evaluation.structures import list_classes
from nnunet_attenscribble.evaluation.summary import Summary, tell_not_predicted


def pool_runs(name: str, summaries: Sequence[Summary]) -> Summary:
    """The summaries of several folds and random seeds of one model as one.

    Cases of different folds are put together. A case that several runs predicted is averaged over them: runs on the
    same case are repeated measurements, only cases are independent. A run is all folds of one random seed; where the
    seeds are not known, the first summary that holds a case belongs to run 1, the second to run 2, and so on. The
    result keeps them apart in `Summary.runs`.

    Averages of a case: a structure that is absent in a run does not count there, and is absent if it is so in all; a
    structure that any run missed (or made up) has an infinite distance, as in that run, and counts as missed
    (spurious), so that no run's failure is averaged away. Beside a run that made it up an absent one counts with a
    volume difference of 0.

    Args:
        name: of the model, for messages.
        summaries: at least one.

    Raises:
        AttenScribbleError: they differ in structures, definitions or dense labels, the same results were given twice,
            or some cases have more runs than others.
    """
    first, *others = summaries
    problems = []
    for other in others:
        problems += list_differences(name, other, name, first, same_cases=False)
    if not problems:
        summaries = [_order_classes(summary, first) for summary in summaries]
    problems += _list_repetitions(name, summaries)
    if not any(summary.cases for summary in summaries):
        raise AttenScribbleError([*problems, f"{name}: holds the scores of no case: score its predictions again"])
    by_case: dict[str, list[Summary]] = {}
    for summary in summaries:
        for case in summary.cases:
            by_case.setdefault(case, []).append(summary)
    if all(_have_own_seeds(holders) for holders in by_case.values()):
        for holders in by_case.values():
            holders.sort(key=lambda holder: str(holder.provenance["seed"]))
    most = max(len(holders) for holders in by_case.values())
    fewer = [case for case, holders in by_case.items() if len(holders) < most]
    if fewer and not problems:
        problems.append(
            f"{name} has {most} summaries of some cases and fewer of others ({list_some(fewer)}): give every fold of "
            "every random seed, each once"
        )
    refuse(problems)
    runs = tuple(_put_together(summaries, {case: by_case[case][run] for case in by_case}) for run in range(most))
    if most == 1:
        return runs[0]
    averaged = {
        case: {structure: _average([run.cases[case][structure] for run in runs]) for structure in first.names}
        for case in by_case
    }
    confusions = {}
    if all(run.confusions for run in runs):
        means = {case: np.mean([run.confusions[case] for run in runs], axis=0).tolist() for case in by_case}
        confusions = {case: tuple(map(tuple, mean)) for case, mean in means.items()}
    return replace(
        runs[0],
        cases=averaged,
        confusions=confusions,
        notes=tuple(dict.fromkeys(note for run in runs for note in run.notes)),
        provenance=_list_provenance(summaries),
        runs=runs,
    )


def list_differences(name: str, own: Summary, other_name: str, other: Summary, *, same_cases: bool = True) -> list[str]:
    """What keeps two summaries from being compared, one sentence each.

    Args:
        name: of the first, for messages.
        own: the first.
        other_name: of the second.
        other: the second.
        same_cases: whether they must hold the same cases.
    """
    if own is other:
        return []
    both, again = f"{name} and {other_name}", "evaluate both in the same way"
    problems = []
    ways = [_describe_way(summary) for summary in (own, other)]
    if ways[0] != ways[1]:
        problems.append(f"{both} were scored by different definitions ({' and '.join(ways)}): {again}")
    if set(own.structures) != set(other.structures):
        labels = " and ".join(
            ", ".join(f"{structure.name}={'+'.join(map(str, structure.values))}" for structure in summary.structures)
            for summary in (own, other)
        )
        problems.append(f"{both} were scored on different labels ({labels}): {again}")
    if problems:
        return problems
    if same_cases:
        for here, there, one, two in ((own, other, name, other_name), (other, own, other_name, name)):
            lacking = [case for case in here.cases if case not in there.cases]
            if lacking:
                problems.append(
                    f"{counted(len(lacking), 'case', 'is')} in {one} but not in {two} ({list_some(lacking)}): "
                    "predict and evaluate the same cases with both"
                )
    moved = [case for case in own.cases if case in other.cases and not _has_same_truth(case, own, other)]
    if moved:
        problems.append(
            f"{both} were scored against different dense labels in {counted(len(moved), 'case')} ({list_some(moved)}): "
            f"{again}"
        )
    return problems


def _describe_way(summary: Summary) -> str:
    """The options that say how a summary was scored."""
    options = [f"--hd95 {summary.hd95}", f"protocol {summary.protocol}"]
    options += [] if summary.nsd_mm is None else [f"--nsd {summary.nsd_mm:g}"]
    options += [f"--lesions {name}={iou:g}" for name, iou in sorted(summary.lesions.items())]
    return ", ".join(options)


def depends_on_runs(own: Summary, other: Summary, names: Sequence[str], metric: str) -> bool:
    """Whether a metric of structures favours the one of two pooled summaries that has fewer runs.

    A distance is infinite as soon as one run misses an organ or makes one up, the Dice of an organ that the dense label
    lacks is 0 as soon as one run makes it up: the more runs, the more such cases. The Dice of a missed organ is 0 in
    that run alone.
    """
    counts = [count_statuses(summary.cases, names) for summary in (own, other)]
    bad: tuple[str, ...] = ("missed", "spurious")
    if metric not in DISTANCES:
        bad = ("spurious",) if math.isnan(PROTOCOLS[own.protocol].absent[0]) else ()
    return count_runs(own) != count_runs(other) and any(count[status] for count in counts for status in bad)


def write_run_notes(name: str, own: Summary, reference_name: str, reference: Summary) -> list[str]:
    """What the reader of a comparison should know of the numbers of runs, one sentence each."""
    notes = []
    for metric, tests in (("hd95_mm", "distances"), ("dice", "Dice and IoU")):
        found = [structure for structure in own.names if depends_on_runs(own, reference, [structure], metric)]
        if found and metric in PROTOCOLS[own.protocol].tested:
            notes.append(
                f"{name} stands for {counted(count_runs(own), 'run')} and {reference_name} for "
                f"{count_runs(reference)}, and {', '.join(found)} was "
                f"{'missed or ' if metric in DISTANCES else ''}falsely found: such cases count more often with more "
                f"runs, so there is no test of {tests} of these and of the foreground mean: give as many runs of each."
            )
    mixed = [structure for structure in own.names if _is_spurious_in_some_runs(own, structure)]
    if mixed:
        notes.append(
            f"Some of the {count_runs(own)} runs of {name}, but not all, falsely found {', '.join(mixed)} in a case "
            "that has none: its Dice counts as 0 there, as if all had."
        )
    return notes


def count_runs(summary: Summary) -> int:
    """How many trainings a pooled summary, or a single one, stands for."""
    return max(1, len(summary.runs))


def _is_spurious_in_some_runs(summary: Summary, structure: str) -> bool:
    dice = ([run.cases[case][structure].dice for run in summary.runs] for case in summary.cases)
    return any(0 < sum(map(math.isnan, values)) < len(values) for values in dice)


def _has_same_truth(case: str, own: Summary, other: Summary) -> bool:
    # The same dense label may be stored in another order of axes.
    here, there = (sorted(zip(summary.shapes[case], summary.spacings[case], strict=True)) for summary in (own, other))
    return (
        len(here) == len(there)
        and np.allclose(here, there, rtol=1e-3)
        and all(own.cases[case][name].dense_voxels == other.cases[case][name].dense_voxels for name in own.names)
    )


def _list_repetitions(name: str, summaries: Sequence[Summary]) -> list[str]:
    """Two trainings hardly predict every voxel alike, unless they predict nothing at all: equal results are one run
    given twice, where their provenance does not tell them apart.
    """
    for position, summary in enumerate(summaries):
        if not any(entry.prediction_voxels for scores in summary.cases.values() for entry in scores.values()):
            continue
        for other in summaries[:position]:
            if _are_told_apart(summary, other):
                continue
            # repr, because NaN does not equal itself
            if summary.cases.keys() & other.cases.keys() and repr(summary.cases) == repr(other.cases):
                return [
                    f"{name} has the same results twice, of the cases {list_some(list(summary.cases))}: give each "
                    "fold of each random seed once"
                ]
    return []


def _are_told_apart(summary: Summary, other: Summary) -> bool:
    named = ([one.provenance.get(key) for one in (summary, other)] for key in ("seed", "fold"))
    return any(None not in both and both[0] != both[1] for both in named)


def _have_own_seeds(holders: Sequence[Summary]) -> bool:
    seeds = {holder.provenance.get("seed") for holder in holders}
    return None not in seeds and len(seeds) == len(holders)


def _order_classes(summary: Summary, first: Summary) -> Summary:
    """The summary with the order of structures of another one that has the same structures."""
    if summary.structures == first.structures:
        return summary
    places = [summary.classes.index(name) for name in list_classes(first.structures)] if summary.classes else []
    confusions = {
        case: tuple(tuple(counts[true][predicted] for predicted in places) for true in places)
        for case, counts in summary.confusions.items()
    }
    return replace(summary, structures=first.structures, confusions=confusions)


def _put_together(summaries: Sequence[Summary], holders: dict[str, Summary]) -> Summary:
    used = [summary for summary in summaries if any(holder is summary for holder in holders.values())]
    not_predicted = sorted(set().union(*(summary.not_predicted for summary in summaries)) - set(holders))
    notes = [
        note for summary in used for note in summary.notes if note not in tell_not_predicted(summary.not_predicted)
    ]
    return replace(
        used[0],
        cases={case: holder.cases[case] for case, holder in holders.items()},
        confusions={case: holder.confusions[case] for case, holder in holders.items()}
        if all(holder.confusions for holder in used)
        else {},
        shapes={case: holder.shapes[case] for case, holder in holders.items()},
        spacings={case: holder.spacings[case] for case, holder in holders.items()},
        not_predicted=tuple(not_predicted),
        notes=tuple(dict.fromkeys([*tell_not_predicted(not_predicted), *notes])),
        provenance=used[0].provenance if len(used) == 1 else _list_provenance(used),
    )


def _list_provenance(summaries: Sequence[Summary]) -> dict[str, str | None]:
    keys = dict.fromkeys(key for summary in summaries for key in summary.provenance)
    found = {key: dict.fromkeys(summary.provenance.get(key) for summary in summaries) for key in keys}
    return {
        key: "; ".join("unknown" if value is None else str(value) for value in values) if any(values) else None
        for key, values in found.items()
    }


def _average(scores: Sequence[StructureScores]) -> StructureScores:
    """One structure of one case, averaged over runs."""
    statuses = [entry.status for entry in scores]
    status = next((name for name in ("missed", "spurious", "present") if name in statuses), "absent")
    means = {}
    for column in fields(StructureScores):
        if column.name in ("status", "dense_voxels"):
            continue
        found = [getattr(entry, column.name) for entry in scores]
        if None in found:
            continue
        values = np.array(found)
        known = values[~np.isnan(values)]
        if column.name == "volume_difference_ml" and known.size:
            known = np.nan_to_num(values)  # a run that rightly predicts nothing beside one that makes up an organ
        means[column.name] = float(known.mean()) if known.size else float("nan")
    return StructureScores(status=status, dense_voxels=scores[0].dense_voxels, **means)
