"""What is written beside a benchmark's numbers: which training they are of, and what was selected on what; and whether
that training is the one which is asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_attenscribble.common.provenance import find_commit
from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark.cells import Cell, Plan
from nnunet_attenscribble.evaluation.benchmark.file import FINAL_CHECKPOINT, Benchmark
from nnunet_attenscribble.evaluation.benchmark.test_set import read_fold
from nnunet_attenscribble.evaluation.postprocess_folder import POSTPROCESSING_FILE
from nnunet_attenscribble.evaluation.summary import SUMMARY_FILE, Summary, read_summary, write_summary
from nnunet_attenscribble.plans import read_plans, resolve_configuration

__all__ = [
    "POSTPROCESSING",
    "check_training",
    "complete_postprocessed",
    "complete_provenance",
    "describe_selection",
    "describe_training",
    "find_lacking",
]

#: What the provenance of postprocessed results tells of their postprocessing.
POSTPROCESSING = "postprocessing"


def describe_selection(benchmark: Benchmark) -> list[str]:
    """What the test set is, and what was chosen by looking at which cases; one sentence or a few each."""
    # Only by subjects is it known that no other case of a test patient was trained with.
    who = "cases" if benchmark.subject is None else "patients"
    test = (
        f"The test set are the validation {who} of each fold. No row trains with them; nnU-Net computes its online "
        "'pseudo Dice' on them while it trains, which changes nothing in the training and selects nothing that is used "
        "here."
        if benchmark.test_images is None
        else f"The test set is a folder of its own; none of its {who} is in the data that any row trains or validates "
        "with."
    )
    if benchmark.subject is None:
        test += " Every case counts as a patient of its own: the benchmark file has no 'subject'."
    selected = {
        FINAL_CHECKPOINT: "the end of a training whose length was fixed before: no checkpoint was selected on any "
        "case.",
        "checkpoint_best.pth": "which nnU-Net selects by its pseudo Dice on the validation cases of the fold: on "
        "scribbles for rows trained from scribbles, on dense labels for the others.",
    }
    unknown = "neither nnU-Net's final checkpoint nor its best one: the benchmark cannot know what it was selected on."
    return [
        test,
        f"Predictions are those of {benchmark.checkpoint}, {selected.get(benchmark.checkpoint, unknown)}",
        "nnU-Net's plans (patch, spacing, network) follow from the images of the dataset, validation cases among "
        "them, and from no score. The benchmark cannot know on what the settings in the file were chosen by hand.",
        "nnU-Net does not set random seeds: a seed here is the number of a repetition, whose training cannot be "
        "repeated number by number.",
    ]


def find_lacking(plan: Plan, cell: Cell) -> str | None:
    """What is to be done first for a cell (`training`, `predictions`, `evaluation`), or why what is there does not
    count; None for a complete one.
    """
    try:
        check_training(plan, cell)
        return plan.steps(cell).find_lacking()
    except AttenScribbleError as error:
        return "; ".join(error.problems)


def check_training(plan: Plan, cell: Cell) -> None:
    """Refuse what is there of a cell if it is of another training than the benchmark asks for now. A result tells what
    it is of, also when its model is gone.

    Raises:
        AttenScribbleError: naming what differs and what to do.
    """
    problems: list[str] = []
    try:
        plan.check_model(cell)
    except AttenScribbleError as error:
        problems += error.problems
    place = plan.folder(cell)
    if (place / SUMMARY_FILE).is_file():
        problems += _list_contradictions(plan, cell, read_summary(place))
    else:
        problems += _list_other_patients(plan, cell)
    if problems:
        raise AttenScribbleError(problems)


def _list_other_patients(plan: Plan, cell: Cell) -> list[str]:
    """Whether nnU-Net validated the model at its end on other patients than its fold has now, which it may also have
    trained with.
    """
    model = plan.model(cell)
    if model.fold == "all":
        return []
    folder = model.folder(plan.workspace.results(cell.seed))
    try:
        validated = json.loads((folder / "validation" / "summary.json").read_text(encoding="utf-8"))["metric_per_case"]
        then = {Path(entry["prediction_file"]).name.split(".")[0] for entry in validated}
    except (OSError, ValueError, KeyError, TypeError):
        return []  # not at its end yet
    now = {case.split(".")[0] for case in read_fold(plan.workspace, model.dataset, model.fold)["val"]}
    if then == now:
        return []
    return [
        f"{folder} was trained with another fold {model.fold} than splits_final.json has now (it validated on "
        f"{list_some(sorted(then))}): undo the change, or remove that folder"
    ]


def _list_contradictions(plan: Plan, cell: Cell, summary: Summary) -> list[str]:
    place = plan.folder(cell)
    now = describe_training(plan, cell)
    then = {key: summary.provenance.get(key) for key in now}
    differing = [key for key in now if None not in (then[key], now[key]) and then[key] != now[key]]
    told = [f"{key} changed" if key.endswith("_sha256") else f"{key} {then[key]}, now {now[key]}" for key in differing]
    # Where the test set is a folder, other cases are predicted with the same model; here it may have trained with them.
    odd = summary.volumes ^ set(plan.tests[cell.fold].cases)
    if odd and plan.benchmark.test_images is None:
        told.append(f"other validation patients: {list_some(sorted(odd))}")
        if not differing and None not in (then["splits_sha256"], now["splits_sha256"]):
            # The model is the one that is asked for: nobody is sent to train it again.
            return [
                f"{place / SUMMARY_FILE} holds scores of other cases than the validation patients of fold {cell.fold} "
                f"({list_some(sorted(odd))}): remove that file, and run the benchmark again to have them scored"
            ]
    if not told:
        return []
    model = plan.model(cell).folder(plan.workspace.results(cell.seed))
    of_another_model = {"dataset", "trainer", "configuration", "plans"} & set(differing)
    way = "give the row another name, or remove that folder"
    if not of_another_model:  # by another name, the row would still use the model
        way = f"undo the change, or remove that folder and {model}"
    return [f"{place} holds the result of another training ({'; '.join(told)}): {way}"]


def complete_provenance(plan: Plan, cell: Cell, commands: Sequence[dict]) -> Summary:
    """The summary of a complete cell, with the training that it is of added to its provenance; the cell's own file is
    brought to the same state.

    Args:
        plan: of the benchmark.
        cell: with a complete evaluation.
        commands: the log of commands.
    """
    return _complete(plan, cell, commands, plan.folder(cell), "evaluation")


def complete_postprocessed(plan: Plan, cell: Cell, commands: Sequence[dict]) -> Summary:
    """The same for its postprocessed predictions; the provenance also tells what was removed from them."""
    place = plan.postprocessed(cell)
    return _complete(plan, cell, commands, place, "evaluation behind postprocessing", _read_decisions(place))


def _complete(
    plan: Plan, cell: Cell, commands: Sequence[dict], place: Path, scored_by: str, removed: str | None = None
) -> Summary:
    summary = read_summary(place)
    folder = plan.model(cell).folder(plan.workspace.results(cell.seed))
    training = _find_last(commands, cell, f"{cell.name}: training")
    scoring = _find_last(commands, cell, f"{cell.name}: {scored_by}")
    provenance = {
        **summary.provenance,
        "benchmark": plan.benchmark.name,
        "cell": cell.name,
        "row": cell.row.name,
        # What it says of itself already stays: it is what was asked for when it was made.
        **{key: summary.provenance.get(key) or value for key, value in describe_training(plan, cell).items()},
        "checkpoint": plan.benchmark.checkpoint,
        "commit_training": training.get("commit"),
        "commit": scoring.get("commit") or summary.provenance.get("commit") or find_commit(),
        **({} if removed is None else {POSTPROCESSING: removed}),
    }
    trained_by = training.get("versions", {})
    versions = {
        **summary.versions,
        "nnunetv2": trained_by.get("nnunetv2", "unknown"),
        "torch": trained_by.get("torch") or _read_torch_version(folder) or "unknown",
    }
    completed = replace(summary, provenance=provenance, versions=versions)
    if dict(summary.provenance) != provenance or dict(summary.versions) != versions:
        write_summary(completed, place)
    return completed


def describe_training(plan: Plan, cell: Cell) -> dict[str, str | None]:
    """What the benchmark asks for now, as a result tells it; None for what is not known."""
    model = plan.model(cell)
    prepared = plan.workspace.preprocessed / model.dataset
    configuration = resolve_configuration(read_plans(prepared / f"{model.plans}.json"), model.configuration)
    splits = prepared / "splits_final.json"
    budget = plan.budgets.get(cell.row.name)
    return {
        "labels": cell.row.labels,
        "dataset": model.dataset,
        "trainer": model.trainer,
        "configuration": model.configuration,
        "plans": model.plans,
        "fold": model.fold,
        "seed": str(cell.seed),
        "epochs": str(budget.epochs) if budget else None,
        "iterations_per_epoch": str(budget.iterations) if budget else None,
        "configuration_sha256": _hash(json.dumps(configuration, sort_keys=True).encode()),
        "splits_sha256": _hash(splits.read_bytes()) if splits.is_file() else None,
    }


def _read_decisions(folder: Path) -> str:
    decisions = json.loads((folder / POSTPROCESSING_FILE).read_text(encoding="utf-8"))["decisions"]
    names = [decision["structure"] for decision in decisions if decision["keep_largest"]]
    return f"largest component of {', '.join(names)}" if names else "nothing removed"


def _find_last(commands: Sequence[dict], cell: Cell, step: str) -> dict:
    found = [entry for entry in commands if entry.get("cell") == cell.name and entry.get("step") == step]
    return found[-1] if found else {}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_torch_version(folder: Path) -> str | None:
    """As nnU-Net noted it down when the training began."""
    try:
        return json.loads((folder / "debug.json").read_text(encoding="utf-8")).get("torch_version")
    except (OSError, ValueError):
        return None
