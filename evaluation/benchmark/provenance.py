"""What is written beside a benchmark's numbers: which training they are of, and what was selected on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_attenscribble.common.provenance import find_commit
from nnunet_attenscribble.common.shapes import TEXT, mapping, read_shaped
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark.cells import Cell, Plan
from nnunet_attenscribble.evaluation.benchmark.file import FINAL_CHECKPOINT, Benchmark
from nnunet_attenscribble.evaluation.benchmark.state import CellState
from nnunet_attenscribble.evaluation.postprocess_folder import POSTPROCESSING_FILE
from nnunet_attenscribble.evaluation.result_shapes import POSTPROCESSING as POSTPROCESSING_SHAPE
from nnunet_attenscribble.evaluation.summary import Summary, write_summary

__all__ = ["POSTPROCESSING", "complete_postprocessed", "complete_provenance", "describe_selection"]

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


def complete_provenance(plan: Plan, state: CellState, commands: Sequence[dict]) -> Summary:
    """The summary of a complete cell, with the training that it is of added to its provenance; the cell's own file is
    brought to the same state.

    Args:
        plan: of the benchmark.
        state: of a cell with a complete evaluation.
        commands: the log of commands.
    """
    place = plan.folder(state.cell)
    return _complete(plan, state, commands, place, "evaluation")


def complete_postprocessed(plan: Plan, state: CellState, commands: Sequence[dict]) -> Summary:
    """The same for its postprocessed predictions; the provenance also tells what was removed from them."""
    place = plan.postprocessed(state.cell)
    return _complete(plan, state, commands, place, "evaluation behind postprocessing", _read_decisions(place))


def _complete(
    plan: Plan, state: CellState, commands: Sequence[dict], place: Path, scored_by: str, removed: str | None = None
) -> Summary:
    cell, summary = state.cell, state.read(place)
    folder = plan.model(cell).folder(plan.workspace.results(cell.seed))
    training = _find_last(commands, cell, f"{cell.name}: training")
    scoring = _find_last(commands, cell, f"{cell.name}: {scored_by}")
    provenance = {
        **summary.provenance,
        "benchmark": plan.benchmark.name,
        "cell": cell.name,
        "row": cell.row.name,
        # What it says of itself already stays: it is what was asked for when it was made.
        **{key: summary.provenance.get(key) or value for key, value in state.asked.items()},
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


def _read_decisions(folder: Path) -> str:
    content = read_shaped(folder / POSTPROCESSING_FILE, POSTPROCESSING_SHAPE, "run `attenscribble postprocess` again")
    decisions = content["decisions"]
    names = [decision["structure"] for decision in decisions if decision["keep_largest"]]
    return f"largest component of {', '.join(names)}" if names else "nothing removed"


def _find_last(commands: Sequence[dict], cell: Cell, step: str) -> dict:
    found = [entry for entry in commands if entry.get("cell") == cell.name and entry.get("step") == step]
    return found[-1] if found else {}


def _read_torch_version(folder: Path) -> str | None:
    """As nnU-Net noted it down when the training began."""
    try:
        return read_shaped(folder / "debug.json", mapping({"torch_version": TEXT}), "")["torch_version"]
    except AttenScribbleError:
        return None
