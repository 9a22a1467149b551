"""The command line. One module per subcommand; heavy imports happen inside the commands, so that `--help` is quick."""

from __future__ import annotations

import os
import sys

from nnunet_attenscribble.cli import (  # noqa: F401 - they register
    benchmark,
    configure,
    convert_acdc,
    convert_chaos,
    convert_folder,
    convert_h5,
    convert_mscmr,
    convert_scribblebench,
    demo,
    evaluate,
    inspect,
    postprocess,
    pretrained,
    report,
    scribble,
    trainers,
)
from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["main"]


def main() -> None:
    """Run `attenscribble`; an input error becomes one line per problem on stderr and exit code 2."""
    debug = "--debug" in sys.argv or bool(os.environ.get("ATTENSCRIBBLE_DEBUG"))
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]  # accepted behind a subcommand too
    try:
        app(arguments)
    except AttenScribbleError as error:
        if debug:
            raise
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
