"""The typer application that the subcommands hang on."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nnunet_attenscribble.common.progress import QUIET

__all__ = ["QUIET", "app"]


class _Root(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Run a command; Ctrl-C becomes `typer.Abort`, where typer would end without a word."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Abort from None

    def list_commands(self, ctx: Any) -> list[str]:
        """By name, wherever they are defined."""
        return sorted(super().list_commands(ctx))


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
