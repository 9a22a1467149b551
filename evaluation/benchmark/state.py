"""What there is of a cell, and whether it is of the training that is asked for."""

from __future__ import annotations

import hashlib
import json
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from nnunet_attenscribble.common.shapes import TEXT, list_of, mapping, read_shaped
from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark.cells import Cell, Plan
from nnunet_attenscribble.evaluation.benchmark.test_set import read_fold
from nnunet_attenscribble.evaluation.benchmark.workspace import Prepared
from nnunet_attenscribble.evaluation.summary import SUMMARY_FILE, read_summary
from nnunet_attenscribble.plans import resolve_configuration

__all__ = ["CellState", "read_states"]

# Of nnU-Net's summary.json.
_VALIDATION = mapping({"metric_per_case": list_of(mapping({"prediction_file": TEXT}))})


class CellState:
    """What there is of a cell. Every file is read when it is first asked for, and once: after a command of the cell has
    run, its state is another one.

    Attributes:
        cell: whose state it is.
        steps: its commands.
        read: its summaries by their folder, each read once.
    """

    def __init__(self, plan: Plan, cell: Cell, prepared: Prepared | None = None):
        self.cell = cell
        self.read = cache(read_summary)
        self.steps = plan.steps(cell, self.read)
        self._plan, self._model = plan, plan.model(cell)
        self._prepared = prepared or Prepared(plan.workspace)
        self._place = plan.folder(cell)
        self._model_folder = self._model.folder(plan.workspace.results(cell.seed))

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """What its configuration holds now, with all that it inherits."""
        return self._prepared.resolve(self._model)

    @cached_property
    def asked(self) -> dict[str, str | None]:
        """The training that the benchmark asks for now, as a result tells it; None for what is not known."""
        configuration = json.dumps(self.configuration, sort_keys=True)
        budget = self._plan.budgets.get(self.cell.row.name)
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
        """Whether nnU-Net validated the model at its end on other patients than its fold has now, which it may also
        have trained with.
        """
        model, folder = self._model, self._model_folder
        if model.fold == "all":
            return []
        try:
            content = read_shaped(folder / "validation" / "summary.json", _VALIDATION, "")
            then = {Path(entry["prediction_file"]).name.split(".")[0] for entry in content["metric_per_case"]}
        except AttenScribbleError:
            return []  # not at its end yet
        now = {case.split(".")[0] for case in read_fold(self._plan.workspace, model.dataset, model.fold)["val"]}
        if then == now:
            return []
        return [
            f"{folder} was trained with another fold {model.fold} than splits_final.json has now (it validated on "
            f"{list_some(sorted(then))}): undo the change, or remove that folder"
        ]

    def _list_contradictions(self) -> list[str]:
        """What the result says of itself that is not what is asked for."""
        summary, now, fold = self.read(self._place), self.asked, self.cell.fold
        then = {key: summary.provenance.get(key) for key in now}
        differing = [key for key in now if None not in (then[key], now[key]) and then[key] != now[key]]
        told = [
            f"{key} changed" if key.endswith("_sha256") else f"{key} {then[key]}, now {now[key]}" for key in differing
        ]
        # Where the test set is a folder, other cases are predicted with the same model; here it may have trained with
        # them.
        odd = summary.volumes ^ set(self._plan.tests[fold].cases)
        if odd and self._plan.benchmark.test_images is None:
            told.append(f"other validation patients: {list_some(sorted(odd))}")
            if not differing and None not in (then["splits_sha256"], now["splits_sha256"]):
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
