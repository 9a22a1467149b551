"""Results of a benchmark's cells that are kept elsewhere: made on another machine, or published without the models.

They lie as `attenscribble benchmark collect` leaves them, `seed_S/fold_F/ROW/attenscribble_summary.json`, or in the two
files of `evaluation.kept_scores`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark.cells import Cell, Plan
from nnunet_attenscribble.evaluation.benchmark.state import CellState
from nnunet_attenscribble.evaluation.kept_scores import POSTPROCESSED, is_kept, read_kept
from nnunet_attenscribble.evaluation.summary import SUMMARY_FILE, Summary, read_summary

__all__ = ["Kept", "find_kept"]

# What a result may differ in and still be of the benchmark, in the words of its note.
_SETTINGS, _SPLITS = "other settings", "another splits_final.json"


@dataclass(frozen=True)
class Kept:
    """What was found.

    Attributes:
        summaries: by cell.
        postprocessed: by cell, those of the postprocessed predictions, where there are some and the benchmark asks for
            them.
        folders: by cell, where its summary lies, or would lie.
        other_settings: cells whose configuration is known to have had other contents than that of the row has now.
        notes: what a reader of the results should know.
    """

    summaries: Mapping[Cell, Summary]
    postprocessed: Mapping[Cell, Summary]
    folders: Mapping[Cell, Path]
    other_settings: frozenset[Cell]
    notes: tuple[str, ...]


def find_kept(plan: Plan, missing: Mapping[Cell, CellState], folders: Sequence[Path]) -> Kept:
    """Find results of cells that are not complete here.

    Args:
        plan: of the benchmark.
        missing: those cells, with their states.
        folders: in which to look: what `collect` wrote, or its folder `cells` under any name, or kept scores.

    Raises:
        AttenScribbleError: results of another training than the benchmark asks for, of other cases, of a cell that
            two folders have, or a folder with no result of the benchmark; every problem.
    """
    problems: list[str] = []
    summaries: dict[Cell, Summary] = {}
    postprocessed: dict[Cell, Summary] = {}
    places: dict[Cell, Path] = {}
    notes: list[str] = []
    for folder in folders:
        root = folder / "cells" if (folder / "cells").is_dir() else folder
        try:
            whole = read_kept(root) if is_kept(root) else None
        except AttenScribbleError as error:
            problems += error.problems
            continue
        held = [cell for cell in plan.cells if _holds(root, whole, cell.name)]
        if not held:
            problems.append(
                f"{folder} has no result of a cell of this benchmark: give a folder that holds results as "
                f"{plan.cells[0].name}/{SUMMARY_FILE}, or kept scores of them"
            )
        used = [cell for cell in held if cell in missing]
        for cell in used:
            if cell in places:
                problems.append(f"{cell.name} is both in {places[cell].parents[2]} and in {root}: give one of them")
                continue
            places[cell] = root / cell.name
            wanted = [(cell.name, summaries)]
            processed = f"{cell.name}/{POSTPROCESSED}"
            if plan.benchmark.postprocess and _holds(root, whole, processed):
                wanted.append((processed, postprocessed))
            for name, found in wanted:
                try:
                    found[cell] = read_summary(root / name) if whole is None else whole[name]
                except AttenScribbleError as error:
                    problems += error.problems
                else:
                    problems += _list_contradictions(plan, cell, found[cell])
        if used:
            notes.append(
                f"{len(used)} of {len(plan.cells)} cells are results kept elsewhere ({folder.name}), without "
                f"predictions and models: {list_some([cell.name for cell in used])}."
            )
    if problems:
        raise AttenScribbleError(problems)
    changes = {cell: _list_changes(missing[cell], summary) for cell, summary in summaries.items()}
    other_settings = frozenset(cell for cell, found in changes.items() if _SETTINGS in found)
    renamed = _list_renamed(summaries)
    notes += [*_tell_renamed(summaries, renamed), *_tell_changed(changes, renamed)]
    return Kept(summaries, postprocessed, places, other_settings, tuple(notes))


def _holds(root: Path, whole: Mapping[str, Summary] | None, name: str) -> bool:
    return (root / name / SUMMARY_FILE).is_file() if whole is None else name in whole


def _list_contradictions(plan: Plan, cell: Cell, summary: Summary) -> list[str]:
    """What a result says of itself that is not what the benchmark asks for."""
    budget = plan.budgets.get(cell.row.name)
    expected = {
        "row": cell.row.name,
        "labels": cell.row.labels,
        "trainer": cell.row.trainer,
        "seed": str(cell.seed),
        "fold": cell.fold,
        **({} if budget is None else {"epochs": str(budget.epochs), "iterations_per_epoch": str(budget.iterations)}),
    }
    found = {key: summary.provenance.get(key) for key in expected}
    problems = [
        f"{cell.name} is kept with {key} {found[key]!r} and should have {value!r}: it is not of this benchmark"
        for key, value in expected.items()
        if found[key] != value
    ]
    test = plan.tests.get(cell.fold)
    odd = summary.volumes ^ set(test.cases) if test is not None else set()
    if odd:
        problems.append(f"{cell.name} is kept with other test cases than this benchmark's ({list_some(sorted(odd))})")
    return problems


def _list_changes(state: CellState, summary: Summary) -> list[str]:
    """What a result was trained with that is not what the dataset has now, as far as both are known."""
    now = state.asked
    kinds = {"configuration_sha256": _SETTINGS}
    if state.cell.fold != "all":  # which is trained with all cases, whatever the splits
        kinds["splits_sha256"] = _SPLITS
    then = {key: summary.provenance.get(key) for key in kinds}
    return [kind for key, kind in kinds.items() if None not in (then[key], now[key]) and then[key] != now[key]]


def _list_renamed(summaries: Mapping[Cell, Summary]) -> list[Cell]:
    return [
        cell for cell, summary in summaries.items() if summary.provenance.get("configuration") != cell.row.configuration
    ]


def _tell_renamed(summaries: Mapping[Cell, Summary], renamed: Sequence[Cell]) -> list[str]:
    """A configuration's name decides nothing, but its settings need not be those of today's."""
    if not renamed:
        return []
    told = (
        f"{cell.name} ({summaries[cell].provenance.get('configuration')}, not {cell.row.configuration})"
        for cell in renamed
    )
    return [f"Kept results of configurations with another name than the benchmark's: {', '.join(told)}."]


def _tell_changed(changes: Mapping[Cell, Sequence[str]], renamed: Sequence[Cell]) -> list[str]:
    # That the settings may be others is told already where the name is another one.
    found = {
        cell: [kind for kind in kinds if kind != _SETTINGS or cell not in renamed] for cell, kinds in changes.items()
    }
    told = [f"{cell.name} ({' and '.join(kinds)})" for cell, kinds in found.items() if kinds]
    return [f"Kept results that were trained with something else than there is now: {', '.join(told)}."] if told else []
