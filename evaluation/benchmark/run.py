"""Running a benchmark: what prepares the datasets, then cell after cell what is not done yet, here or as one job array
of SLURM; and what the commands see of the machine, nnU-Net's folders, processes and threads.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from nnunet_attenscribble.common.files import try_lock, write_texts
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.evaluation.benchmark.cells import Cell, Plan
from nnunet_attenscribble.evaluation.benchmark.execution import StepBusyError, find_command, run_steps
from nnunet_attenscribble.evaluation.benchmark.file import Benchmark, Preparation, name_folder
from nnunet_attenscribble.evaluation.benchmark.provenance import append_command, complete_provenance, read_commands
from nnunet_attenscribble.evaluation.benchmark.state import CellState
from nnunet_attenscribble.evaluation.benchmark.workspace import Step, Workspace, nnunet_environment
from nnunet_attenscribble.plans import read_plans

_TRAINERS, _AUGMENTATION = "nnUNet_extTrainer", "nnUNet_n_proc_DA"


@dataclass
class Outcome:
    """What became of the cells.

    Attributes:
        done: complete now, some of them before.
        busy: being run by another process.
        failed: problems by the cell's name.
    """

    done: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    failed: dict[str, list[str]] = field(default_factory=dict)


def list_preparations(benchmark: Benchmark, workspace: Workspace, *, check: bool = True) -> list[Step]:
    """The commands of `prepare` as steps.

    Args:
        benchmark: what was asked for.
        workspace: where.
        check: refuse variables that are not set in commands that are to be run; otherwise they stay as they are.

    Raises:
        AttenScribbleError: every such variable.
    """
    steps, problems = [], []
    for preparation in benchmark.prepare:
        try:
            steps.append(_make_step(preparation, workspace, check))
        except AttenScribbleError as error:
            problems += error.problems
    refuse(dict.fromkeys(problems))
    return steps


def run_preparations(
    steps: Sequence[Step],
    workspace: Workspace,
    environment: Mapping[str, str],
    console: Console,
    prefix: Sequence[str] = (),
) -> None:
    """Run the preparations that are not done; one process at a time does so, others wait for it.

    Raises:
        AttenScribbleError: one failed.
    """
    with (workspace.work / "prepare.lock").open("a") as lock:
        if not try_lock(lock):
            console.print("waiting for another process that prepares the datasets", soft_wrap=True)
            try_lock(lock, wait=True)
        record = partial(append_command, workspace.commands, "prepare")
        run_steps(steps, environment, console, prefix=prefix, record=record)


def run_cells(
    plan: Plan,
    cells: Sequence[Cell],
    environments: Mapping[int, Mapping[str, str]],
    console: Console,
    prefix: Sequence[str] = (),
) -> Outcome:
    """Run cells one after the other. A failed one does not stop the others.

    Args:
        plan: of the benchmark.
        cells: in order.
        environments: of the commands, by the number of the repetition.
        console: where progress goes.
        prefix: put before every command.
    """
    outcome = Outcome()
    for number, cell in enumerate(cells, start=1):
        console.print(f"\n[bold]{escape(cell.name)}[/bold]  ({number} of {len(cells)})", soft_wrap=True)
        try:
            _run_cell(plan, cell, environments[cell.seed], console, prefix)
        except StepBusyError as error:
            console.print(f"[yellow]busy[/yellow]     {escape(str(error))}", soft_wrap=True)
            outcome.busy.append(cell.name)
        except AttenScribbleError as error:
            console.print(f"[red]failed[/red]   {escape(str(error))}", soft_wrap=True)
            outcome.failed[cell.name] = error.problems
        else:
            outcome.done.append(cell.name)
    return outcome


def _run_cell(plan: Plan, cell: Cell, environment: Mapping[str, str], console: Console, prefix: Sequence[str]) -> None:
    state = CellState(plan, cell)
    if state.problems:
        raise AttenScribbleError(state.problems)
    steps = plan.steps(cell)
    if state.is_complete:
        console.print("[green]is done[/green]", soft_wrap=True)
        return
    record = partial(append_command, plan.workspace.commands, cell.name)
    run = partial(run_steps, environment=environment, console=console, prefix=prefix, record=record)
    if state.lacks is not None:
        run([steps.train])
        plan.open_images(cell.fold)
        run([plan.steps(cell).predict])  # asked for again, now that it is known which images there are
        plan.open_labels(cell.fold)
        run([steps.evaluate])
        state = CellState(plan, cell)
        complete_provenance(state, state.steps.evaluate, read_commands(plan.workspace.commands))
    run(steps.extras)


def _make_step(preparation: Preparation, workspace: Workspace, check: bool) -> Step:
    log = workspace.work / "logs" / f"{name_folder(preparation.name)}.log"
    mark = log.with_suffix(".done")
    created = [workspace.expand_created(path) for path in preparation.creates]

    def is_done() -> bool:
        return all(_is_created(*path, log, mark) for path in created) and (bool(created) or mark.is_file())

    step = Step(f"prepare: {preparation.name}", preparation.command, log, is_done, mark=mark)
    done = is_done()
    if done:
        _refuse_another_command(preparation, mark, log)
    if not check or done:
        return step
    return replace(step, command=tuple(workspace.expand(word) for word in preparation.command))


def _refuse_another_command(preparation: Preparation, mark: Path, log: Path) -> None:
    """What a command has made stays, and is not what another command of the same name would make."""
    if not mark.is_file():
        return
    then, now = shlex.split(mark.read_text(encoding="utf-8")), preparation.command
    # What variables stand for may have changed; $$ is the sign itself.
    patterns = [re.sub(r"\\\$(\w+|\\{\w+\\})", ".*", re.escape(word)).replace(r"\$\$", r"\$") for word in now]
    if len(then) != len(now) or not all(map(re.fullmatch, patterns, then)):
        raise AttenScribbleError(
            f"'prepare: {preparation.name}' was done by `{shlex.join(then)}`, now it is `{shlex.join(now)}`: undo the "
            f"change, or give it and what it makes another name; if both make the same, remove {mark} and {log}"
        )


def _is_created(file: Path, configuration: str, log: Path, mark: Path) -> bool:
    """Whether something is there and whole. A file or a configuration is written at once. A folder that this benchmark
    began and did not end may lack files; one that it never touched was made by hand.
    """
    if not file.exists():
        return False
    if configuration:
        return configuration in read_plans(file)["configurations"]
    return mark.is_file() or not log.is_file() or file.is_file()


def make_environment(benchmark: Benchmark, workspace: Workspace, trainers: Path, seed: int = 0) -> dict[str, str]:
    """The environment of a repetition's commands.

    Args:
        benchmark: names threads and workers.
        workspace: names the folders.
        trainers: for nnUNet_extTrainer, in front of those that are in the environment already.
        seed: of the repetition.
    """
    environment = nnunet_environment(
        raw=workspace.raw,
        preprocessed=workspace.preprocessed,
        results=workspace.results(seed),
        trainers=trainers,
        workers=benchmark.workers,
    )
    own = os.environ.get(_TRAINERS, "").split(os.pathsep)
    others = [path for path in own if path and Path(path) != trainers]
    environment[_TRAINERS] = os.pathsep.join([str(trainers), *others])
    augmentation = benchmark.augmentation_workers
    if augmentation is None and benchmark.device == "cpu":
        augmentation = 1
    if augmentation is not None:  # as for nnU-Net itself, what the environment says goes before everything else
        environment.setdefault(_AUGMENTATION, str(augmentation))
    # Threads that wait for each other by spinning are slow wherever something else runs too.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if benchmark.threads is not None:
        for variable in ("OMP", "MKL", "OPENBLAS"):
            environment[f"{variable}_NUM_THREADS"] = str(benchmark.threads)
        environment["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(benchmark.threads)
        # nnU-Net sets torch's threads to multiprocessing.cpu_count(); see `execution` for Python before 3.13.
        environment["PYTHON_CPU_COUNT"] = str(benchmark.threads)
    return environment


# --- SLURM ---


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
        '[ -n "$command" ] || { echo "runs.txt has no line $SLURM_ARRAY_TASK_ID: submit again" >&2; exit 1; }',
        "# In place of this shell, so that what SLURM signals reaches it.",
        'eval "exec $command"',
    ]
