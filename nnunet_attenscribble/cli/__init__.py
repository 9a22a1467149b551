"""The command line. A module per subject; heavy imports happen inside the commands, so that `--help` is quick."""

from __future__ import annotations

import inspect
import os
import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nnunet_attenscribble.common.progress import QUIET
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["QUIET", "app", "main"]


class _Root(TyperGroup):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _join_lines(self)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; Ctrl-C becomes `typer.Abort`, where typer would end without a word."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Abort from None

    def list_commands(self, ctx: Any) -> list[str]:
        """By name, wherever they are defined."""
        return sorted(super().list_commands(ctx))


def _join_lines(command: Any) -> None:
    """A docstring's lines are no lines of a terminal: typer keeps their breaks behind the first paragraph."""
    if command.help:
        blocks = inspect.cleandoc(command.help).split("\n\n")
        command.help = "\n\n".join(block.replace("\n", " ") for block in blocks)
    for below in getattr(command, "commands", {}).values():
        _join_lines(below)


app = typer.Typer(
    cls=_Root,
    name="attenscribble",
    help="Train nnU-Net from scribbles: data in, stock nnU-Net commands in the middle, an honest comparison out.\n\n"
    "Example:  attenscribble doctor        (is everything in order, and what comes next?)",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _print_version(value: bool) -> None:
    if value:
        from nnunet_attenscribble import __version__

        print(__version__)
        raise typer.Exit()


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every subcommand."""


# Behind `app`, on which they hang their commands.
from nnunet_attenscribble.cli import (  # noqa: E402, F401
    attention,
    benchmark,
    convert,
    datasets,
    demo,
    doctor,
    evaluate,
    next_slices,
    start,
    training,
)

_EVERYWHERE = ("--debug", "--quiet")  # accepted behind a subcommand too


def main() -> None:
    """Run `attenscribble`; whatever is wrong with the input becomes one line per problem on stderr and exit code 2."""
    if isinstance(sys.stdout, TextIOWrapper):  # as stderr does: a name that a console cannot show is no error
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = [argument for argument in sys.argv[1:] if argument not in _EVERYWHERE]
    debug = "--debug" in sys.argv or bool(os.environ.get("ATTENSCRIBBLE_DEBUG"))
    if "--quiet" in sys.argv:
        os.environ[QUIET] = "1"
    try:
        code = app(arguments, prog_name="attenscribble", standalone_mode=False)
    except AttenScribbleError as error:
        if debug:
            raise
        _tell(error.problems)
        sys.exit(2)
    except typer.Abort:
        _tell(["stopped"])
        sys.exit(130)
    except OSError as error:  # what cannot be read; whatever is written tells its own errors
        if debug:
            raise
        _tell([f"{error.strerror}: {error.filename}" if error.filename and error.strerror else str(error)])
        sys.exit(2)
    except Exception as error:
        # What typer says of a call that it cannot read; its class has no public name in all supported versions.
        if debug or not hasattr(error, "format_message"):
            raise
        sys.exit(_refuse_call(error))
    sys.exit(code if isinstance(code, int) else 0)


def _tell(problems: list[str]) -> None:
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)


def _refuse_call(error: Exception) -> int:
    """Say in one line what is wrong with a call, and where its help is; a call of a mere group gets its help."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        return 2
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    where = context.command_path if context is not None else "attenscribble"
    _tell([f"{message}{'' if message.endswith(('.', '?')) else '.'} See {where} --help"])
    return 2
