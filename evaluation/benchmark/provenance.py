"""What is written beside a benchmark's numbers (which training they are of, what was selected on what), and what its
commands leave behind: its log of commands, one line of JSON each, and nnU-Net's own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from nnunet_attenscribble.common.files import naming, write_text
from nnunet_attenscribble.common.provenance import find_commit, list_versions
from nnunet_attenscribble.common.shapes import TEXT, TRUTH, list_of, mapping, read_if_shaped, read_shaped
from nnunet_attenscribble.common.text import format_csv
from nnunet_attenscribble.evaluation.benchmark.cells import Cell
from nnunet_attenscribble.evaluation.benchmark.execution import Execution
from nnunet_attenscribble.evaluation.benchmark.file import FINAL_CHECKPOINT, Benchmark
from nnunet_attenscribble.evaluation.benchmark.state import CellState
from nnunet_attenscribble.evaluation.benchmark.workspace import Step
from nnunet_attenscribble.evaluation.postprocessing import POSTPROCESSING_FILE
from nnunet_attenscribble.evaluation.summary import Summary, write_summary

#: What the provenance of postprocessed results tells of their postprocessing.
POSTPROCESSING = "postprocessing"
_DECISIONS = mapping({"decisions": list_of(mapping({"structure": TEXT, "keep_largest": TRUTH}))})
_LINE = re.compile(r"^\S+ \S+: (.*?)\s*$")
_EPOCH = re.compile(r"Epoch (\d+)")
_NUMBER = r"(nan|[-+]?(?:inf|\d+(?:\.\d*)?(?:e[-+]?\d+)?))"
_VALUES = {
    "learning_rate": re.compile(f"Current learning rate: {_NUMBER}"),
    "train_loss": re.compile(f"train_loss {_NUMBER}"),
    "val_loss": re.compile(f"val_loss {_NUMBER}"),
    "seconds": re.compile(f"Epoch time: {_NUMBER} s"),
}
_DICE = re.compile(r"Pseudo dice \[(.*)\]")


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


def complete_provenance(state: CellState, scored: Step, commands: Sequence[dict]) -> Summary:
    """The summary of a complete cell, with the training that it is of added to its provenance, and what was removed
    from postprocessed predictions; the cell's own file is brought to the same state.

    Args:
        state: of a cell with a complete evaluation.
        scored: its step whose scores these are, `evaluate` or `rescore`.
        commands: the log of commands.
    """
    plan, cell = state.plan, state.cell
    is_first = scored is state.steps.evaluate
    place = plan.folder(cell) if is_first else plan.postprocessed(cell)
    summary = state.read(place)
    training, scoring = (_find_last(commands, cell, step) for step in (state.steps.train, scored))
    # Results are passed on: where on this machine they were made is nobody's business.
    above = f"{plan.workspace.work.parent}{os.sep}"
    provenance = {
        **{key: value and value.removeprefix(above) for key, value in summary.provenance.items()},
        "benchmark": plan.benchmark.name,
        "cell": cell.name,
        "row": cell.row.name,
        # What it says of itself already stays: it is what was asked for when it was made.
        **{key: summary.provenance.get(key) or value for key, value in state.asked.items()},
        "checkpoint": plan.benchmark.checkpoint,
        "commit_training": training.get("commit"),
        "commit": scoring.get("commit") or summary.provenance.get("commit") or find_commit(),
        **({} if is_first else {POSTPROCESSING: _read_decisions(place)}),
    }
    trained_by = training.get("versions", {})
    versions = {
        **summary.versions,
        "nnunetv2": trained_by.get("nnunetv2", "unknown"),
        "torch": trained_by.get("torch") or _read_torch_version(plan.model_folder(cell)) or "unknown",
    }
    completed = replace(summary, provenance=provenance, versions=versions)
    if dict(summary.provenance) != provenance or dict(summary.versions) != versions:
        write_summary(completed, place)
    return completed


def _read_decisions(folder: Path) -> str:
    content = read_shaped(folder / POSTPROCESSING_FILE, _DECISIONS, "run `attenscribble postprocess` again")
    decisions = content["decisions"]
    names = [decision["structure"] for decision in decisions if decision["keep_largest"]]
    return f"largest component of {', '.join(names)}" if names else "nothing removed"


def _find_last(commands: Sequence[dict], cell: Cell, step: Step) -> dict:
    found = [entry for entry in commands if entry.get("cell") == cell.name and entry.get("step") == step.name]
    return found[-1] if found else {}


def _read_torch_version(folder: Path) -> str | None:
    """As nnU-Net noted it down when the training began."""
    return read_if_shaped(folder / "debug.json", mapping({"torch_version": TEXT})).get("torch_version")


def append_command(file: Path, cell: str, execution: Execution) -> None:
    """Add a command that was run to the log. One line in one write: several processes may share the file."""
    entry = {
        "cell": cell,
        "step": execution.step.name,
        "command": shlex.join(execution.step.command),
        "started": datetime.fromtimestamp(execution.started, timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(execution.seconds, 1),
        "exit_code": execution.code,
        "log": str(execution.step.log),
        "commit": find_commit(),
        "versions": list_versions(),
    }
    with naming(file), file.open("a+b") as log:
        log.seek(max(log.tell() - 1, 0))
        cut = log.read() not in (b"", b"\n")  # by a kill or a full disk
        log.write(b"\n" * cut + json.dumps(entry).encode() + b"\n")


def read_commands(file: Path) -> list[dict]:
    """The entries of the log; a line that was cut off is left out."""
    entries = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        entries += [entry] if isinstance(entry, dict) else []
    return entries


def list_training_logs(folder: Path) -> list[Path]:
    """nnU-Net's, the oldest first; their names hold the time, whose numbers have as many digits as they need."""
    return sorted(folder.glob("training_log_*.txt"), key=lambda file: [int(n) for n in re.findall(r"\d+", file.stem)])


def read_training_log(folder: Path) -> dict[int, dict[str, float]]:
    """Values by epoch, from 0: learning_rate, train_loss, val_loss, seconds, and pseudo_dice_1 and so on per class.

    Args:
        folder: nnU-Net's `fold_X`. A training that was continued has several logs; where one begins at an epoch again,
            that epoch and those behind it were abandoned, and do not count.
    """
    epochs: dict[int, dict[str, float]] = {}
    values: dict[str, float] = {}
    for file in list_training_logs(folder):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            match = _LINE.match(line)
            text = match[1] if match else ""
            if epoch := _EPOCH.fullmatch(text):
                begun = int(epoch[1])
                values = {}
                epochs = {number: kept for number, kept in epochs.items() if number < begun} | {begun: values}
            for name, pattern in _VALUES.items():
                if found := pattern.fullmatch(text):
                    values[name] = float(found[1])
            if dice := _DICE.fullmatch(text):
                # numpy 2 prints np.float32(0.49), numpy 1 only 0.49
                numbers = re.findall(_NUMBER, re.sub(r"np\.float\d+", "", dice[1]))
                values |= {f"pseudo_dice_{number}": float(value) for number, value in enumerate(numbers, start=1)}
    return epochs


def write_training_log(epochs: Mapping[int, Mapping[str, float]], file: Path) -> None:
    """One line per epoch; nothing where there are no epochs."""
    if not epochs:
        return
    columns = list(dict.fromkeys(name for values in epochs.values() for name in values))
    rows = ([epoch, *map(values.get, columns)] for epoch, values in epochs.items())
    write_text(file, format_csv(["epoch", *columns], rows))
