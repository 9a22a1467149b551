"""Cells handed to SLURM as one job array."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from nnunet_attenscribble.common.writing import write_texts
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark.cells import Cell, Plan
from nnunet_attenscribble.evaluation.benchmark.execution import find_command
from nnunet_attenscribble.evaluation.benchmark.file import name_folder

__all__ = ["format_ranges", "submit", "write_array"]


def write_array(plan: Plan, cells: Sequence[Cell], file: Path, prefix: str | None = None) -> Path:
    """Write `runs.txt`, one command per cell of the benchmark, and the script of an array over the given ones.

    Both lie in a folder named after the content of `runs.txt`: a job that is requeued after the benchmark was extended
    still finds its own line.

    Args:
        plan: of the benchmark.
        cells: to run; the others have a line, and no job.
        file: the benchmark file, which every job reads again.
        prefix: for the jobs to put before every command, in place of the file's; None leaves that.

    Returns:
        The script.
    """
    program = find_command("attenscribble")
    options = ["--work", str(plan.workspace.work), *(() if prefix is None else ("--prefix", prefix))]
    lines = [
        shlex.join([program, "benchmark", "run", str(file.absolute()), *options, "--only", cell.name])
        for cell in plan.cells
    ]
    text = "".join(f"{line}\n" for line in lines)
    folder = plan.workspace.work / "slurm" / hashlib.sha256(text.encode()).hexdigest()[:8]
    numbers = [number for number, cell in enumerate(plan.cells, start=1) if cell in cells]
    script = folder / "array.sbatch"
    write_texts({folder / "runs.txt": text, script: "\n".join(_write_script(plan, folder, numbers)) + "\n"})
    return script


def submit(script: Path) -> str:
    """Hand a script to `sbatch`.

    Returns:
        What sbatch said.

    Raises:
        AttenScribbleError: there is no sbatch, or it refuses.
    """
    program = shutil.which("sbatch")
    if program is None:
        raise AttenScribbleError(
            f"sbatch is not on the PATH: submit {script} where it is, or leave out --executor slurm to run here"
        )
    answer = subprocess.run([program, str(script)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if answer.returncode != 0:
        reason = " ".join((answer.stderr or answer.stdout).split()) or f"exit code {answer.returncode}"
        raise AttenScribbleError(f"sbatch refused {script}: {reason}; mend 'slurm' in the benchmark file")
    return answer.stdout.strip()


def format_ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers as sbatch's --array takes them: 1-3,7."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)


def _write_script(plan: Plan, folder: Path, numbers: Sequence[int]) -> list[str]:
    wanted = plan.benchmark.slurm
    limit = f"%{wanted.at_once}" if wanted.at_once else ""
    options = {
        "job-name": name_folder(plan.benchmark.name) or "benchmark",
        "array": f"{format_ranges(numbers)}{limit}",
        "partition": wanted.partition,
        "gres": wanted.gpus and f"gpu:{wanted.gpus}",
        "cpus-per-task": str(wanted.cpus),
        "mem": wanted.memory,
        "time": wanted.time,
        "output": f"{folder}/%A_%a.log",
        "open-mode": "append",
    }
    return [
        "#!/bin/bash",
        *(f"#SBATCH --{name}={shlex.quote(value)}" for name, value in options.items() if value),
        "#SBATCH --requeue",
        *(f"#SBATCH {option}" for option in wanted.options),
        "",
        *wanted.setup,
        "# Processes that augment: as many as the job was given processors.",
        'export nnUNet_n_proc_DA="${SLURM_CPUS_PER_TASK:-1}"',
        f'command="$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {shlex.quote(str(folder / "runs.txt"))})"',
        "# In place of this shell, so that what SLURM signals reaches it.",
        'eval "exec $command"',
    ]
