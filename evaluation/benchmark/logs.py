"""What a benchmark's commands leave behind them: its log of commands, one line of JSON each, and nnU-Net's own."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from nnunet_attenscribble.common.provenance import find_commit, list_versions
from nnunet_attenscribble.common.writing import naming
from nnunet_attenscribble.evaluation.benchmark.execution import Execution

__all__ = ["append_command", "read_commands", "read_training_log", "write_training_log"]

_LINE = re.compile(r"^\S+ \S+: (.*?)\s*$")
_EPOCH = re.compile(r"Epoch (\d+)")
_VALUES = {
    "learning_rate": re.compile(r"Current learning rate: (\S+)"),
    "train_loss": re.compile(r"train_loss (\S+)"),
    "val_loss": re.compile(r"val_loss (\S+)"),
    "seconds": re.compile(r"Epoch time: (\S+) s"),
}
_DICE = re.compile(r"Pseudo dice \[(.*)\]")
_NUMBER = re.compile(r"nan|[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE)


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
    with naming(file), file.open("a", encoding="utf-8") as log:
        log.write(json.dumps(entry) + "\n")


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


def read_training_log(folder: Path) -> dict[int, dict[str, float]]:
    """Values by epoch, from 0: learning_rate, train_loss, val_loss, seconds, and pseudo_dice_1 and so on per class.

    Args:
        folder: nnU-Net's `fold_X`. A training that was continued has several logs; an epoch that was begun again counts
            as in the last of them.
    """
    epochs: dict[int, dict[str, float]] = {}
    values: dict[str, float] = {}
    for file in sorted(folder.glob("training_log_*.txt")):  # named by time
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            match = _LINE.match(line)
            text = match[1] if match else ""
            if epoch := _EPOCH.fullmatch(text):
                values = epochs[int(epoch[1])] = {}
            for name, pattern in _VALUES.items():
                if found := pattern.fullmatch(text):
                    values[name] = float(found[1])
            if dice := _DICE.fullmatch(text):
                # numpy 2 prints np.float32(0.49), numpy 1 only 0.49
                numbers = _NUMBER.findall(re.sub(r"np\.float\d+", "", dice[1]))
                values |= {f"pseudo_dice_{number}": float(value) for number, value in enumerate(numbers, start=1)}
    return {epoch: epochs[epoch] for epoch in sorted(epochs)}


def write_training_log(epochs: Mapping[int, Mapping[str, float]], file: Path) -> None:
    """One line per epoch; nothing where there are no epochs."""
    if not epochs:
        return
    columns = list(dict.fromkeys(name for values in epochs.values() for name in values))
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["epoch", *columns], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({"epoch": epoch, **values} for epoch, values in epochs.items())
