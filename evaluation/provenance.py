"""What made a number: versions, the commit of this package, and the log of commands."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from nnunet_attenscribble.evaluation.runs import Execution

__all__ = ["append_command", "find_commit", "list_versions", "read_commands"]

_PACKAGES = ("nnunet-attenscribble", "nnunetv2", "torch")


@cache
def find_commit() -> str | None:
    """The commit of this package's source: of its git checkout, `-dirty` behind it where files were changed, or of the
    repository that it was installed from; None where neither is known.
    """
    folder = Path(__file__).resolve().parent
    try:
        commit = _ask_git(folder, "rev-parse", "HEAD")
        tracked = _ask_git(folder, "ls-files", "__init__.py")
        if tracked:  # not a checkout of something else that this package was installed into
            return commit + ("-dirty" if _ask_git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        pass
    try:
        source = distribution("nnunet-attenscribble").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    return json.loads(source).get("vcs_info", {}).get("commit_id") if source else None


@cache
def list_versions() -> dict[str, str]:
    """Versions of what trains, without importing it."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return versions


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


def _ask_git(folder: Path, *arguments: str) -> str:
    answer = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return answer.stdout.strip()
