"""Steps run one after the other, or some at once: logged, with live progress, stoppable and resumable.

Each is a command in a process group of its own, whose output is followed and of which nothing outlives its end.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from nnunet_attenscribble.common.files import naming, try_lock
from nnunet_attenscribble.common.text import format_duration
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark.workspace import Step

_TAIL = 15  # lines of a log that an error shows
_GRACE = 10.0  # seconds between asking a process group to end and ending it
_POLL = 0.2  # seconds
# What ends a process, besides Ctrl-C: a cluster's, or a terminal's that is closed.
_ENDING = [signal.SIGTERM, signal.SIGHUP] if os.name == "posix" else []
# As nnU-Net prints them, behind a time stamp. Epochs count from 0.
_EPOCH = re.compile(r": Epoch (\d+)\s*$")
_VALIDATION = re.compile(r": predicting \S+")
# On a CPU nnU-Net takes as many threads as there are processors, which nothing else can tell it.
_COUNTED = """
import os, sys
from importlib.metadata import entry_points
count = int(os.environ["PYTHON_CPU_COUNT"])
os.cpu_count = lambda: count
entry = list(entry_points(group="console_scripts", name=sys.argv[1]))[0]
del sys.argv[0]
sys.exit(entry.load()())
"""


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
    console: Console,
    *,
    prefix: Sequence[str] = (),
    record: Callable[[Execution], None] | None = None,
) -> None:
    """Run every step that is not done yet, in order; one that fails stops the others.

    Interrupted (Ctrl-C, SIGTERM, a closed terminal), it ends the command with all its worker processes; called again,
    it continues where nnU-Net can.

    Args:
        steps: in order; each is asked `is_done` when its turn comes.
        environment: of the commands, complete (see `nnunet_environment`).
        console: where progress goes.
        prefix: put before every command, such as `taskset -c 0`.
        record: called after every command that was run, whatever became of it.

    Raises:
        AttenScribbleError: a step failed; with the end of its log. A `StepBusyError` if another process runs it.
    """
    for step in steps:
        _run_step(step, environment, console, prefix, record)


def run_at_once(steps: Sequence[Step], environment: Mapping[str, str], console: Console, count: int) -> None:
    """Run steps that do not need each other, `count` at a time; interrupted, or when one fails, all are ended.

    Args:
        steps: the longest first.
        environment, console: see `run_steps`.
        count: of processes.

    Raises:
        AttenScribbleError: of the first step that failed.
    """
    stopped = threading.Event()
    with ThreadPoolExecutor(count) as pool, signals_as_exceptions():
        running = [pool.submit(_run_step, step, environment, console, (), None, stopped) for step in steps]
        try:
            for future in as_completed(running):
                future.result()
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_step(
    step: Step,
    environment: Mapping[str, str],
    console: Console,
    prefix: Sequence[str],
    record: Callable[[Execution], None] | None,
    stopped: threading.Event | None = None,
) -> None:
    if step.is_done():
        console.print(f"[green]is done[/green]  {escape(step.name)}", soft_wrap=True)
        return
    command = [*_find_program(step.command[0], environment), *step.command[1:]]
    if prefix:
        command = [find_command(prefix[0]), *prefix[1:], *command]
    started, clock, code = time.time(), time.monotonic(), None
    step.log.parent.mkdir(parents=True, exist_ok=True)
    with step.log.open("ab") as log:
        # As long as the command lives: its output goes there, so it inherits the lock with the file.
        if not try_lock(log):
            raise StepBusyError(
                f"{step.name} is being run by another process, which writes {step.log}: wait for it, or end it"
            )
        if step.is_done():  # another process finished it in the meantime
            return
        with naming(step.log):
            log.write(f"$ {shlex.join(step.command)}\n".encode())
            log.flush()
        if step.mark is not None:  # of the time before: what is made from here on may be left half-made
            step.mark.unlink(missing_ok=True)
        if step.prepare is not None:
            step.prepare()
        try:
            with show_epochs(step, console, live=stopped is None) as update:
                code = run_command(command, environment, log, update, stopped)
        except (KeyboardInterrupt, SystemExit):
            console.print(f"[yellow]stopped[/yellow]  {escape(step.name)}", soft_wrap=True)
            raise
        finally:
            if record is not None:
                record(Execution(step, started, time.monotonic() - clock, code))
        if code == 0:
            step.write_mark()
    if code != 0 or not step.is_done():
        raise AttenScribbleError(_describe_failure(step, code))
    took = format_duration(time.monotonic() - clock)
    console.print(f"[green]done[/green]     {escape(step.name)} ({took})", soft_wrap=True)


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


def _find_program(name: str, environment: Mapping[str, str]) -> list[str]:
    """How a command is started: nnU-Net's obey `PYTHON_CPU_COUNT`, which Python itself does from 3.13 on."""
    program = find_command(name)
    ours = name.startswith("nnUNetv2_") and Path(program).parent == Path(sys.executable).parent
    if sys.version_info >= (3, 13) or "PYTHON_CPU_COUNT" not in environment or not ours:
        return [program]
    return [sys.executable, "-c", _COUNTED, name]


def look_for_command(name: str) -> str | None:
    """A program of this Python installation, or else of the PATH; a path is taken as it is."""
    if os.path.dirname(name):
        return name
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def find_command(name: str) -> str:
    """The same; raises AttenScribbleError if it is in neither."""
    found = look_for_command(name)
    if found is None:
        raise AttenScribbleError(
            f"{name} is neither beside {sys.executable} nor on the PATH: install nnU-Net into this environment "
            "(pip install nnunetv2)"
        )
    return found


def run_command(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: BinaryIO,
    update: Callable[[str], None],
    stopped: threading.Event | None = None,
) -> int:
    """Run a command in a process group of its own, none of which is left alive, and return its exit code.

    Args:
        command: a program that can be found, and its arguments.
        environment: complete.
        log: a file open for appending, which gets the output.
        update: called with every line of it.
        stopped: set where the command is to be ended, which threads but the main one are not told by signals: a
            KeyboardInterrupt, as Ctrl-C is in that one.
    """
    with Path(log.name).open("rb") as reader, signals_as_exceptions():
        reader.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group that can be ended as one, and that Ctrl-C reaches through us only
        )
        rest = b""
        try:
            while True:
                code = process.poll()
                # Progress bars return to the line's start instead of ending it.
                *lines, rest = (rest + reader.read()).replace(b"\r", b"\n").split(b"\n")
                for line in lines:
                    update(line.decode(errors="replace"))
                if code is not None:
                    return code
                if stopped is not None and stopped.is_set():
                    raise KeyboardInterrupt
                time.sleep(_POLL)
        finally:
            # A second signal must not keep the first from its work, which takes seconds at most.
            with _handling([signal.SIGINT, *_ENDING], signal.SIG_IGN):
                _end_group(process)


def _end_group(process: subprocess.Popen) -> None:
    """End a command and its workers, who may outlive it when it fails."""
    if os.name != "posix":  # there are no process groups to signal
        process.kill()
        process.wait()
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = _signal_group(process, number)
        deadline = time.monotonic() + _GRACE
        while alive and time.monotonic() < deadline:
            time.sleep(_POLL / 4)
            alive = _signal_group(process, 0)
        if not alive:
            break
    process.wait()


def _signal_group(process: subprocess.Popen, number: int) -> bool:
    """Send a signal, 0 for none, to a process group; False if nothing of it is left."""
    process.poll()  # collects the command itself, which would count as alive otherwise
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS says the latter where only zombies are left
        return False
    return True


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Let SIGTERM and a closed terminal unwind the stack as Ctrl-C does, so that commands are ended too: SystemExit."""

    def leave(number: int, _frame) -> None:
        raise SystemExit(128 + number)

    # What is ignored stays ignored: that is how `nohup` works.
    with _handling([number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN], leave):
        yield


@contextmanager
def _handling(numbers: Sequence[int], handler) -> Iterator[None]:
    """Handle signals so for a while; only the main thread may, elsewhere nothing changes."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers} if main else {}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def show_epochs(step: Step, console: Console, *, live: bool = True) -> Iterator[Callable[[str], None]]:
    """Yields a function that takes the lines of the log.

    Args:
        step: whose log it is.
        console: a terminal or not.
        live: whether a terminal shows a bar, of which there is one at a time.
    """
    total = None if step.epochs is None else step.epochs + 1  # the validation behind the epochs
    if not (console.is_terminal and live):
        console.print(f"running  {escape(step.name)}", soft_wrap=True)
        yield _Epochs(step, lambda done, text: console.print(f"         {escape(step.name)}: {text}", soft_wrap=True))
        return
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(step.name, total=total, state="")
        yield _Epochs(step, lambda done, text: bar.update(task, completed=done, state=text))


@dataclass
class _Epochs:
    """Reads nnU-Net's log lines; tells the epochs done, and the state in words."""

    step: Step
    tell: Callable[[int, str], None]
    clock: Callable[[], float] = time.monotonic
    first: tuple[int, float] | None = None
    validating: bool = False

    def __call__(self, line: str) -> None:
        """Take one line."""
        if self.step.epochs is None:
            return
        match = _EPOCH.search(line)
        if match:
            done = int(match[1])
            self.tell(done, f"epoch {done + 1} of {self.step.epochs}{self._remaining(done)}")
        elif _VALIDATION.search(line) and not self.validating:
            self.validating = True
            self.tell(self.step.epochs, "validation")

    def _remaining(self, done: int) -> str:
        # A training that continues starts late; its first epoch here is where the clock starts.
        self.first = self.first or (done, self.clock())
        passed = done - self.first[0]
        if passed < 1 or self.step.epochs is None:
            return ""
        seconds = (self.clock() - self.first[1]) / passed * (self.step.epochs - done)
        return f", about {format_duration(seconds)} left" if seconds >= 1 else ""
