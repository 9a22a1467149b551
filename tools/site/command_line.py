"""The page of all commands, which is what the commands say of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app

_WIDTH = "100"
_HEAD = """# Command line

What every command says to `--help`.

**Output.** Results go to stdout, progress and errors to stderr: bars on a terminal, a few plain lines elsewhere, none
with `--quiet`. An error is one line per problem, and nothing was written then. `--debug` shows where it came from. Both
are accepted in front of a command and behind it. `--json`, where a command has it, is for programs.

**Exit codes.** 0: done. 1: what was looked at is not in order (`doctor` found a problem, a cell of a benchmark failed).
2: the input or the call is wrong. 130: stopped by Ctrl-C (143: by SIGTERM).

**Completion.** `attenscribble --install-completion` teaches the shell (bash, zsh, fish, PowerShell) commands, options
and choices.
"""


def list_commands() -> dict[str, Any]:
    """Every command that does something, by its full name: typer's objects, whose parameters tell their options."""
    return dict(_walk(typer.main.get_command(app), ()))


def _walk(command: Any, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield " ".join(("attenscribble", *names)), command
        return
    for name in sorted(below):
        yield from _walk(below[name], (*names, name))


def describe_commands() -> str:
    """The page in Markdown."""
    return "\n".join([_HEAD, *(f"## {name}\n\n```text\n{read_help(name)}\n```\n" for name in list_commands())])


def read_help(name: str) -> str:
    """What a command prints for `--help`."""
    environment = {"TERMINAL_WIDTH": _WIDTH, "COLUMNS": _WIDTH, "NO_COLOR": "1", "TERM": "dumb"}
    result = CliRunner().invoke(
        app, [*name.split()[1:], "--help"], env=environment, prog_name="attenscribble", catch_exceptions=False
    )
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())
