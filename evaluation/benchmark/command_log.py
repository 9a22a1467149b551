"""The log of the commands that a benchmark ran: one line of JSON each."""

from __future__ import annotations

import json
import shlex
from datetime import datetime, timezone
from pathlib import Path

from nnunet_attenscribble.common.provenance import find_commit, list_versions
from nnunet_attenscribble.evaluation.benchmark.execution import Execution

__all__ = ["append_command", "read_commands"]


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
    with file.open("a", encoding="utf-8") as log:
        log.write(json.dumps(entry) + "\n")


def read_commands(file: Path) -> list[dict]:
    """The entries of the log; a line that was cut off is left out."""
    entries = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries
