"""Stock nnU-Net commands run one after the other: logged, with live progress, stoppable and resumable.

What has been done is read from what nnU-Net left behind, never from a list kept elsewhere: a model that somebody
trained by hand counts, and one whose files were deleted does not.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from nnunet_attenscribble.errors import AttenScribbleError

__all__ = [
    "Execution",
    "Model",
    "Step",
    "StepBusyError",
    "command_step",
    "find_command",
    "is_whole",
    "nnunet_environment",
    "predict_step",
    "run_steps",
    "train_step",
]

_TAIL = 15  # lines of a log that an error shows
_GRACE = 10.0  # seconds between asking a process group to end and ending it
_POLL = 0.2  # seconds

# As nnU-Net prints them, behind a time stamp. Epochs count from 0.
_EPOCH = re.compile(r": Epoch (\d+)\s*$")
_VALIDATION = re.compile(r": predicting \S+")


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: what a reader of the progress sees.
        command: program and arguments; a bare program name is looked up by `find_command`.
        log: file that its output is appended to.
        is_done: whether there is nothing left to do; asked before, to skip, and after, to believe the exit code.
        epochs: that a training will print, for the progress.
        prepare: called right before the command, to clear away what an interrupted run left half-written.
        mark: file that gets the command's text when it ended without an error, for `is_done` to look at.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    is_done: Callable[[], bool]
    epochs: int | None = None
    prepare: Callable[[], None] | None = None
    mark: Path | None = None


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


@dataclass(frozen=True)
class Model:
    """A training, named as nnU-Net names its folder.

    Attributes:
        dataset: `DatasetNNN_Name`.
        configuration: of the plans file.
        trainer: name of the class.
        fold: `all` or a number.
        plans: plans identifier.
    """

    dataset: str
    configuration: str
    trainer: str
    fold: str = "0"
    plans: str = "nnUNetPlans"

    def folder(self, results: Path) -> Path:
        """Where nnU-Net puts this fold below nnUNet_results."""
        return results / self.dataset / f"{self.trainer}__{self.plans}__{self.configuration}" / f"fold_{self.fold}"


# --- the commands -----------------------------------------------------------------------------------------------------


def command_step(name: str, command: Sequence[str], log: Path, outputs: Sequence[Path] = ()) -> Step:
    """A step whose files do not tell whether it ended: a mark beside the log does, as long as its `outputs` exist.

    The mark holds the command: with other arguments it is another step.
    """
    mark = log.with_suffix(".done")

    def is_done() -> bool:
        same = mark.is_file() and mark.read_text() == shlex.join(command)
        return same and all(output.exists() for output in outputs)

    return Step(name, tuple(command), log, is_done, mark=mark)


def train_step(
    name: str, model: Model, results: Path, log: Path, *, epochs: int | None = None, device: str = "cpu"
) -> Step:
    """`nnUNetv2_train ... --c`: done when the final checkpoint and the validation's summary are there."""
    folder = model.folder(results)
    command = ["nnUNetv2_train", model.dataset, model.configuration, model.fold]
    command += ["-tr", model.trainer, "-p", model.plans, "-device", device, "--c"]

    def is_done() -> bool:
        return is_whole(folder / "checkpoint_final.pth") and _is_json(folder / "validation" / "summary.json")

    def prepare() -> None:
        # nnU-Net would fail to continue from a checkpoint that was cut off while it was being written.
        for checkpoint in folder.glob("checkpoint_*.pth"):
            if not is_whole(checkpoint):
                checkpoint.unlink()

    return Step(name, tuple(command), log, is_done, epochs, prepare)


def predict_step(
    name: str,
    model: Model,
    results: Path,
    images: Path,
    output: Path,
    log: Path,
    *,
    device: str = "cpu",
    options: Sequence[str] = (),
) -> Step:
    """`nnUNetv2_predict` of a folder of images with one fold; done when it ended with a prediction for every image.

    `options` are further ones of nnUNetv2_predict.
    """
    command = ["nnUNetv2_predict", "-i", str(images), "-o", str(output), "-d", model.dataset, "-c", model.configuration]
    command += ["-f", model.fold, "-tr", model.trainer, "-p", model.plans, "-device", device]
    if device == "cpu":
        command += ["-npp", "0", "-nps", "0"]  # helper processes would only compete for the processor
    command += options
    ending = re.compile(r"_\d{4}(\.[^/]+)$")  # of an image: channel and file type
    predictions = [output / ending.sub(r"\1", image.name) for image in sorted(images.glob("*_0000.*"))]
    step = command_step(name, command, log, [*predictions, model.folder(results) / "checkpoint_final.pth"])
    return step


def nnunet_environment(
    *, raw: Path, preprocessed: Path, results: Path, trainers: Path, workers: int = 1, augmentation_workers: int = 1
) -> dict[str, str]:
    """This process's environment with nnU-Net's variables replaced; `os.environ` itself stays as it is.

    Args:
        raw, preprocessed, results: nnU-Net's three folders.
        trainers: the folder for `nnUNet_extTrainer`.
        workers: processes for preprocessing, export of predictions, and the like.
        augmentation_workers: processes that augment while a network trains.
    """
    return {
        **os.environ,
        "nnUNet_raw": str(raw.absolute()),
        "nnUNet_preprocessed": str(preprocessed.absolute()),
        "nnUNet_results": str(results.absolute()),
        "nnUNet_extTrainer": str(trainers.absolute()),
        "nnUNet_def_n_proc": str(workers),
        "nnUNet_n_proc_DA": str(augmentation_workers),
        "PYTHONUNBUFFERED": "1",  # or progress would arrive in blocks of 8 kB
    }


def find_command(name: str) -> str:
    """A program of this Python installation, or else of the PATH.

    Raises:
        AttenScribbleError: if it is in neither.
    """
    if os.path.dirname(name):
        return name
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    found = beside or shutil.which(name)
    if found is None:
        raise AttenScribbleError(
            f"{name} is neither beside {sys.executable} nor on the PATH: install nnU-Net into this environment "
            "(pip install nnunetv2)"
        )
    return found


# --- running them -----------------------------------------------------------------------------------------------------


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
        if step.prepare is not None:
            step.prepare()
        try:
            with _progress(step, console) as update:
                code = _run_command(command, environment, log, update)
        finally:
            if record is not None:
                record(Execution(step, started, time.monotonic() - clock, code))
        if code == 0 and step.mark is not None:
            step.mark.write_text(shlex.join(step.command))
    if code != 0 or not step.is_done():
        raise AttenScribbleError(_describe_failure(step, code))
    console.print(f"[green]done[/green]     {escape(step.name)} ({_clock(time.monotonic() - clock)})", soft_wrap=True)


def _run_command(command: Sequence[str], environment: Mapping[str, str], log, update: Callable[[str], None]) -> int:
    """Exit code of a command in a process group of its own, none of which is left alive."""
    with Path(log.name).open("rb") as reader, _signals_as_exceptions():
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
                time.sleep(_POLL)
        finally:
            # A second Ctrl-C must not keep the first from its work, which takes seconds at most.
            with _handling([signal.SIGINT], signal.SIG_IGN):
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
def _signals_as_exceptions() -> Iterator[None]:
    """Let SIGTERM and a closed terminal unwind the stack as Ctrl-C does, so that the command is ended too."""

    def leave(number: int, _frame) -> None:
        raise SystemExit(128 + number)

    numbers = [signal.SIGTERM, signal.SIGHUP] if os.name == "posix" else []
    # What is ignored stays ignored: that is how `nohup` works.
    with _handling([number for number in numbers if signal.getsignal(number) != signal.SIG_IGN], leave):
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


def _lock(log, step: Step) -> None:
    """Hold the log as long as the command lives: its output goes there, so it inherits the lock with the file."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StepBusyError(
            f"{step.name} is being run by another process, which writes {step.log}: wait for it, or end it"
        ) from None
    except OSError:  # a file system without locks
        return


# --- progress and failure ---------------------------------------------------------------------------------------------


@contextmanager
def _progress(step: Step, console: Console) -> Iterator[Callable[[str], None]]:
    """Yields a function that takes the lines of the log: a bar on a terminal, a line per epoch elsewhere."""
    total = None if step.epochs is None else step.epochs + 1  # the validation behind the epochs
    if not console.is_terminal:
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
        return f", about {_clock(seconds)} left" if seconds >= 1 else ""


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


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def is_whole(checkpoint: Path) -> bool:
    """Whether torch finished writing it: its format is zip, whose directory comes last."""
    return checkpoint.is_file() and zipfile.is_zipfile(checkpoint)


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text())
    except (OSError, ValueError):
        return False
    return True
