"""Steps run one after the other: logged, with live progress, stoppable and resumable."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from nnunet_attenscribble.common.locks import try_lock
from nnunet_attenscribble.common.text import format_duration
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark.processes import find_command, run_command
from nnunet_attenscribble.evaluation.benchmark.step_progress import show_epochs
from nnunet_attenscribble.evaluation.benchmark.steps import Step

__all__ = ["Execution", "StepBusyError", "run_steps"]

_TAIL = 15  # lines of a log that an error shows


@dataclass(frozen=True)
class Execution:
    """A command that was run.

    Attributes:
        step: what it belongs to.
        started: seconds since 1970.
        seconds: that it took.
        code: exit code; None if it was interrupted from here.
    """

    step: Step
    started: float
    seconds: float
    code: int | None


class StepBusyError(AttenScribbleError):
    """Another process is running this very step."""


def run_steps(
    steps: Sequence[Step],
    environment: Mapping[str, str],
    console: Console | None = None,
    *,
    keep_going: bool = False,
    prefix: Sequence[str] = (),
    record: Callable[[Execution], None] | None = None,
) -> None:
    """Run every step that is not done yet, in order.

    Interrupted (Ctrl-C, SIGTERM, a closed terminal), it ends the command with all its worker processes; called again,
    it continues where nnU-Net can.

    Args:
        steps: in order; each is asked `is_done` when its turn comes.
        environment: of the commands, complete (see `nnunet_environment`).
        console: where progress goes; by default standard error.
        keep_going: run the others if one fails, and tell of all failures at the end.
        prefix: put before every command, such as `taskset -c 0`.
        record: called after every command that was run, whatever became of it.

    Raises:
        AttenScribbleError: a step failed; with the end of its log. A `StepBusyError` if another process runs it.
    """
    console = console or Console(stderr=True, highlight=False)
    problems: list[str] = []
    for step in steps:
        try:
            _run_step(step, environment, console, prefix, record)
        except AttenScribbleError as error:
            if not keep_going:
                raise
            problems += error.problems
            console.print(f"[red]failed[/red]   {escape(step.name)}: see {escape(str(step.log))}", soft_wrap=True)
    if problems:
        raise AttenScribbleError(problems)


def _run_step(
    step: Step,
    environment: Mapping[str, str],
    console: Console,
    prefix: Sequence[str],
    record: Callable[[Execution], None] | None,
) -> None:
    if step.is_done():
        console.print(f"[green]is done[/green]  {escape(step.name)}", soft_wrap=True)
        return
    command = [find_command(step.command[0]), *step.command[1:]]
    if prefix:
        command = [find_command(prefix[0]), *prefix[1:], *command]
    started, clock, code = time.time(), time.monotonic(), None
    step.log.parent.mkdir(parents=True, exist_ok=True)
    with step.log.open("ab") as log:
        _lock(log, step)
        if step.is_done():  # another process finished it in the meantime
            return
        log.write(f"$ {shlex.join(step.command)}\n".encode())
        log.flush()
        if step.mark is not None:  # of the time before: what is made from here on may be left half-made
            step.mark.unlink(missing_ok=True)
        if step.prepare is not None:
            step.prepare()
        try:
            with show_epochs(step, console) as update:
                code = run_command(command, environment, log, update)
        finally:
            if record is not None:
                record(Execution(step, started, time.monotonic() - clock, code))
        if code == 0:
            step.write_mark()
    if code != 0 or not step.is_done():
        raise AttenScribbleError(_describe_failure(step, code))
    took = format_duration(time.monotonic() - clock)
    console.print(f"[green]done[/green]     {escape(step.name)} ({took})", soft_wrap=True)


def _lock(log, step: Step) -> None:
    """Hold the log as long as the command lives: its output goes there, so it inherits the lock with the file."""
    if not try_lock(log):
        raise StepBusyError(
            f"{step.name} is being run by another process, which writes {step.log}: wait for it, or end it"
        )


def _describe_failure(step: Step, code: int) -> str:
    if code < 0:
        reason = f"was ended by signal {-code}" + (" (for want of memory?)" if code == -9 else "")
    elif code > 0:
        reason = f"failed with exit code {code}"
    else:
        reason = "ended without an error, but not all of its results are there"
    *_, output = step.log.read_text(errors="replace").rpartition("\n$ ")
    lines = [line.rstrip() for line in output.replace("\r", "\n").splitlines() if line.strip()][-_TAIL:]
    return "\n".join(
        [f"{step.name} {reason}; the end of {step.log}, which holds the rest:", *(f"    {line}" for line in lines)]
    )
