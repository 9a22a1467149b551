"""What there is of a cell, and whether it is of the training that is asked for: here, or kept elsewhere.

Results from elsewhere, made on another machine or published without the models, lie as `attenscribble benchmark
collect` leaves them, `seed_S/fold_F/ROW/attenscribble_summary.json`, or in the two files of `evaluation.kept_scores`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from nnunet_attenscribble.common.shapes import TEXT, list_of, mapping, read_if_shaped, read_shaped
from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.evaluation.benchmark.cells import Cell, Plan
from nnunet_attenscribble.evaluation.benchmark.test_set import read_fold
from nnunet_attenscribble.evaluation.benchmark.workspace import FOLD_FILE, Prepared
from nnunet_attenscribble.evaluation.kept_scores import POSTPROCESSED, is_kept, read_kept
from nnunet_attenscribble.evaluation.scoring import ENDINGS
from nnunet_attenscribble.evaluation.summary import SUMMARY_FILE, Summary, read_summary
from nnunet_attenscribble.plans import resolve_configuration

# Of nnU-Net's summary.json.
_VALIDATION = mapping({"metric_per_case": list_of(mapping({"prediction_file": TEXT}))})
_FOLD = mapping({"train": list_of(TEXT), "val": list_of(TEXT)})
# What a result may differ in and still be of the benchmark, in the words of its note.
_CHANGES = {"configuration_sha256": "other settings", "splits_sha256": "another splits_final.json"}
# What a result kept elsewhere must tell, and as the benchmark asks for it.
_TOLD = ("labels", "trainer", "seed", "fold", "epochs", "iterations_per_epoch")


class CellState:
    """What there is of a cell. Every file is read when it is first asked for, and once: after a command of the cell has
    run, its state is another one.

    Attributes:
        plan: of the benchmark.
        cell: whose state it is.
        steps: its commands.
        read: its summaries by their folder, each read once.
    """

    def __init__(self, plan: Plan, cell: Cell, prepared: Prepared | None = None):
        self.plan, self.cell = plan, cell
        self.read = cache(read_summary)
        self.steps = plan.steps(cell, self.read)
        self._model, self._model_folder = plan.model(cell), plan.model_folder(cell)
        self._prepared = prepared or Prepared(plan.workspace)
        self._place = plan.folder(cell)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """What its configuration holds now, with all that it inherits."""
        return self._prepared.resolve(self._model)

    @cached_property
    def asked(self) -> dict[str, str | None]:
        """The training that the benchmark asks for now, as a result tells it; None for what is not known."""
        configuration = json.dumps(self.configuration, sort_keys=True)
        budget = self.plan.budgets.get(self.cell.row.name)
        return {
            "labels": self.cell.row.labels,
            "dataset": self._model.dataset,
            "trainer": self._model.trainer,
            "configuration": self._model.configuration,
            "plans": self._model.plans,
            "fold": self._model.fold,
            "seed": str(self.cell.seed),
            "epochs": str(budget.epochs) if budget else None,
            "iterations_per_epoch": str(budget.iterations) if budget else None,
            "configuration_sha256": hashlib.sha256(configuration.encode()).hexdigest(),
            "splits_sha256": self._prepared.hash_splits(self._model.dataset),
        }

    def list_differing(self, summary: Summary) -> list[str]:
        """The keys of `asked` that a result tells otherwise, as far as both are known."""
        then = {key: summary.provenance.get(key) for key in self.asked}
        return [key for key, now in self.asked.items() if None not in (then[key], now) and then[key] != now]

    @cached_property
    def problems(self) -> list[str]:
        """Why what is there does not count: files that cannot be read, or another training than the benchmark asks for
        now, with what to do. A result tells what it is of, also when its model is gone.
        """
        problems: list[str] = []
        scored = (self._place / SUMMARY_FILE).is_file()
        for check in (self._list_other_contents, self._list_contradictions if scored else self._list_other_patients):
            try:
                problems += check()
            except AttenScribbleError as error:
                problems += error.problems
        return problems

    @cached_property
    def lacks(self) -> str | None:
        """What is to be done first (`training`, `predictions`, `evaluation`), or why what is there does not count; None
        for a complete cell.
        """
        return "; ".join(self.problems) if self.problems else self.steps.find_lacking()

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing left to do, of what follows the evaluation too."""
        return self.lacks is None and all(step.is_done() for step in self.steps.extras)

    def _list_other_contents(self) -> list[str]:
        """Whether the model was begun with another configuration than the one of that name now. One beside it counts as
        well: all folds share a plans.json, which the next training would replace.
        """
        model, before = self._model, self._model_folder.parent / "plans.json"
        if not any(before.parent.glob("fold_*/checkpoint_*.pth")) or not before.is_file():
            return []
        then, name = self._prepared.read_plans(before), model.configuration
        if name in then["configurations"] and resolve_configuration(then, name) == self.configuration:
            return []
        return [
            f"{before.parent} was trained with another configuration '{name}' than {model.plans}.json "
            f"of {model.dataset} holds now: give the new one another name, or remove the model"
        ]

    def _list_other_patients(self) -> list[str]:
        """Whether the model was begun, or validated at its end, with other patients than its fold has now."""
        model, folder = self._model, self._model_folder
        if model.fold == "all":
            return []
        fold = read_fold(self.plan.workspace, model.dataset, model.fold)
        for side, cases in self._read_patients(folder).items():
            if cases != set(fold[side]):
                did = "trained" if side == "train" else "validated"
                return [
                    f"{folder} was trained with another fold {model.fold} than splits_final.json has now (it {did} on "
                    f"{list_some(sorted(cases))}): undo the change, or remove that folder"
                ]
        return []

    def _read_patients(self, folder: Path) -> dict[str, set[str]]:
        """Those that a training was begun with, or else those that nnU-Net validated it on; none of one made by hand
        that has not ended."""
        found: dict[str, set[str]] = {}
        if any(folder.glob("checkpoint_*.pth")) and (folder / FOLD_FILE).is_file():
            begun = read_shaped(folder / FOLD_FILE, _FOLD, "remove it")
            found = {side: set(begun[side]) for side in ("val", "train")}
        content = read_if_shaped(folder / "validation" / "summary.json", _VALIDATION)
        if not content:
            return found
        # Of whoever trained it last, who need not have been this benchmark.
        files = [Path(entry["prediction_file"]).name for entry in content["metric_per_case"]]
        return found | {"val": {file.removesuffix(next(filter(file.endswith, ENDINGS), "")) for file in files}}

    def _list_contradictions(self) -> list[str]:
        """What the result says of itself that is not what is asked for."""
        summary, now, fold = self.read(self._place), self.asked, self.cell.fold
        then, differing = summary.provenance, self.list_differing(summary)
        told = [
            f"{key} changed" if key.endswith("_sha256") else f"{key} {then[key]}, now {now[key]}" for key in differing
        ]
        # Where the test set is a folder, other cases are predicted with the same model; here it may have trained with
        # them.
        odd = summary.volumes ^ set(self.plan.tests[fold].cases)
        if odd and self.plan.benchmark.test_images is None:
            told.append(f"other validation patients: {list_some(sorted(odd))}")
            if not differing and None not in (then.get("splits_sha256"), now["splits_sha256"]):
                # The model is the one that is asked for: nobody is sent to train it again.
                return [
                    f"{self._place / SUMMARY_FILE} holds scores of other cases than the validation patients of fold "
                    f"{fold} ({list_some(sorted(odd))}): remove that file, and run the benchmark again to have them "
                    "scored"
                ]
        if not told:
            return []
        of_another_model = {"dataset", "trainer", "configuration", "plans"} & set(differing)
        way = "give the row another name, or remove that folder"
        if not of_another_model:  # by another name, the row would still use the model
            way = f"undo the change, or remove that folder and {self._model_folder}"
        return [f"{self._place} holds the result of another training ({'; '.join(told)}): {way}"]


def read_states(plan: Plan) -> dict[Cell, CellState]:
    """The state of every cell of a benchmark; they share what is read of the datasets."""
    prepared = Prepared(plan.workspace)
    return {cell: CellState(plan, cell, prepared) for cell in plan.cells}


# --- kept elsewhere ---


@dataclass(frozen=True)
class KeptResult:
    """A cell's result from elsewhere.

    Attributes:
        folder: where its summary lies, or would lie.
        other_settings: whether its configuration is known to have had other contents than that of the row has now.
        summary: of its evaluation.
        postprocessed: of its postprocessed predictions; None where there is none, or the benchmark asks for none.
    """

    folder: Path
    other_settings: bool
    summary: Summary
    postprocessed: Summary | None = None


def find_kept(
    plan: Plan, missing: Mapping[Cell, CellState], folders: Sequence[Path]
) -> tuple[dict[Cell, KeptResult], list[str]]:
    """Find results of cells that are not complete here.

    Args:
        plan: of the benchmark.
        missing: those cells, with their states.
        folders: in which to look: what `collect` wrote, or its folder `cells` under any name, or kept scores.

    Returns:
        The results, and what a reader of them should know.

    Raises:
        AttenScribbleError: results of another training than the benchmark asks for, of other cases, of a cell that
            two folders have, or a folder with no result of the benchmark; every problem.
    """
    problems: list[str] = []
    summaries: dict[Cell, list[Summary]] = {}  # of its predictions, then of the postprocessed ones
    places: dict[Cell, Path] = {}
    notes: list[str] = []
    for folder in folders:
        root = folder / "cells" if (folder / "cells").is_dir() else folder
        try:
            found = _find_results(root, plan.cells)
        except AttenScribbleError as error:
            problems += error.problems
            continue
        if not found:
            problems.append(
                f"{folder} has no result of a cell of this benchmark: give a folder that holds results as "
                f"{plan.cells[0].name}/{SUMMARY_FILE}, or kept scores of them"
            )
        used = [cell for cell in found if cell in missing]
        for cell in used:
            if cell in places:
                problems.append(f"{cell.name} is both in {places[cell].parents[2]} and in {root}: give one of them")
                continue
            places[cell] = root / cell.name
            for result in found[cell][: 1 + plan.benchmark.postprocess]:
                try:
                    summary = read_summary(result) if isinstance(result, Path) else result
                except AttenScribbleError as error:
                    problems += error.problems
                else:
                    summaries.setdefault(cell, []).append(summary)
                    problems += _list_refusals(missing[cell], summary)
        if used:
            notes.append(
                f"{len(used)} of {len(plan.cells)} cells are results kept elsewhere ({folder.name}), without "
                f"predictions and models: {list_some([cell.name for cell in used])}."
            )
    refuse(problems)
    changes = {cell: _list_changes(missing[cell], own[0]) for cell, own in summaries.items()}
    configurations = {cell: own[0].provenance.get("configuration") for cell, own in summaries.items()}
    renamed = {cell: name for cell, name in configurations.items() if name != cell.row.configuration}
    notes += [*_tell_renamed(renamed), *_tell_changed(changes, renamed)]
    results = {
        cell: KeptResult(places[cell], "configuration_sha256" in changes[cell], *own) for cell, own in summaries.items()
    }
    return results, notes


def _find_results(root: Path, cells: Sequence[Cell]) -> dict[Cell, list[Summary | Path]]:
    """Of the cells that a folder has: the result, or the file that holds it, of the predictions and then, where there
    is one, of the postprocessed ones.
    """
    names = {cell: (cell.name, f"{cell.name}/{POSTPROCESSED}") for cell in cells}
    held: dict[str, Summary | Path] = {}
    if is_kept(root):
        held |= read_kept(root)
    else:
        files = {name: root / name / SUMMARY_FILE for own in names.values() for name in own}
        held |= {name: file for name, file in files.items() if file.is_file()}
    return {cell: [held[name] for name in own if name in held] for cell, own in names.items() if own[0] in held}


def _list_refusals(state: CellState, summary: Summary) -> list[str]:
    """What a result does not say of itself as the benchmark asks for it."""
    plan, cell = state.plan, state.cell
    expected = {"row": cell.row.name, **{key: state.asked[key] for key in _TOLD}}
    found = {key: summary.provenance.get(key) for key in expected}
    problems = [
        f"{cell.name} is kept with {key} {found[key]!r} and should have {value!r}: it is not of this benchmark"
        for key, value in expected.items()
        if value is not None and found[key] != value
    ]
    test = plan.tests.get(cell.fold)
    odd = summary.volumes ^ set(test.cases) if test is not None else set()
    if odd:
        problems.append(f"{cell.name} is kept with other test cases than this benchmark's ({list_some(sorted(odd))})")
    return problems


def _list_changes(state: CellState, summary: Summary) -> list[str]:
    """The keys of what a result was trained with and the dataset has otherwise now."""
    # A fold of all cases is trained with them whatever the splits.
    passed_over = "splits_sha256" if state.cell.fold == "all" else None
    return [key for key in state.list_differing(summary) if key in _CHANGES and key != passed_over]


def _tell_renamed(renamed: Mapping[Cell, str | None]) -> list[str]:
    """A configuration's name decides nothing, but its settings need not be those of today's."""
    told = ", ".join(f"{cell.name} ({name}, not {cell.row.configuration})" for cell, name in renamed.items())
    return [f"Kept results of configurations with another name than the benchmark's: {told}."] if told else []


def _tell_changed(changes: Mapping[Cell, Sequence[str]], renamed: Collection[Cell]) -> list[str]:
    # That the settings may be others is told already where the name is another one.
    found = {
        cell: [_CHANGES[key] for key in keys if key != "configuration_sha256" or cell not in renamed]
        for cell, keys in changes.items()
    }
    told = [f"{cell.name} ({' and '.join(kinds)})" for cell, kinds in found.items() if kinds]
    return [f"Kept results that were trained with something else than there is now: {', '.join(told)}."] if told else []
