"""How far a step has got: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from nnunet_attenscribble.common.text import format_duration
from nnunet_attenscribble.evaluation.benchmark.steps import Step

__all__ = ["show_epochs"]

# As nnU-Net prints them, behind a time stamp. Epochs count from 0.
_EPOCH = re.compile(r": Epoch (\d+)\s*$")
_VALIDATION = re.compile(r": predicting \S+")


@contextmanager
def show_epochs(step: Step, console: Console) -> Iterator[Callable[[str], None]]:
    """Yields a function that takes the lines of the log."""
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
        return f", about {format_duration(seconds)} left" if seconds >= 1 else ""
