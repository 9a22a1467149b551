"""A command in a process group of its own, whose output is followed and of which nothing outlives its end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["find_command", "run_command"]

_GRACE = 10.0  # seconds between asking a process group to end and ending it
_POLL = 0.2  # seconds


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


def run_command(
    command: Sequence[str], environment: Mapping[str, str], log: BinaryIO, update: Callable[[str], None]
) -> int:
    """Run a command in a process group of its own, none of which is left alive, and return its exit code.

    Args:
        command: a program that can be found, and its arguments.
        environment: complete.
        log: a file open for appending, which gets the output.
        update: called with every line of it.
    """
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
