"""`attenscribble trainers`: where nnU-Net finds the trainers."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from nnunet_attenscribble.cli.app import app

_BASE = "nnUNetTrainerScribble"  # what the others share; it does not train itself


def trainers_folder() -> Path:
    """The installed folder that `nnUNet_extTrainer` must name."""
    spec = find_spec("nnunet_attenscribble.trainers")
    assert spec is not None  # it is part of this very package
    assert spec.origin is not None
    return Path(spec.origin).parent


def tell_training(*arguments: str) -> None:
    """Print the training command that comes next, and before it the export that nnU-Net finds its trainer by."""
    exported = [Path(folder) for folder in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep)]  # noqa: SIM112
    if trainers_folder() not in exported:
        typer.echo('Next: export nnUNet_extTrainer="$(attenscribble trainers)"')
    typer.echo(f"Next: nnUNetv2_train {' '.join(arguments)}")


@app.command()
def trainers(
    names: Annotated[bool, typer.Option("--names", help="Print the names for `nnUNetv2_train -tr` instead.")] = False,
) -> None:
    """Print the folder of the trainers, for nnU-Net's environment variable.

    Example:  export nnUNet_extTrainer="$(attenscribble trainers)"
    """
    folder = trainers_folder()
    if names:
        for file in sorted(folder.glob("nnUNetTrainer*.py")):
            if file.stem != _BASE:
                typer.echo(file.stem)
    else:
        typer.echo(folder)
