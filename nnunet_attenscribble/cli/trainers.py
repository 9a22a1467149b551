"""`attenscribble trainers`: where nnU-Net finds the trainers."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.common.nnunet import PLANS, VARIABLE, exported_folders, list_trainers, trainers_folder


def tell_training(dataset: str, configuration: str, plans_name: str, *options: str) -> None:
    """Print the training command that comes next, and before it the export that nnU-Net finds its trainer by."""
    if trainers_folder() not in exported_folders():
        typer.echo(f'Next: export {VARIABLE}="$(attenscribble trainers)"')
    plans = () if plans_name == PLANS else ("-p", plans_name)
    arguments = (dataset, configuration, "0", "-tr", "nnUNetTrainerAttenScribble", *plans, *options)
    typer.echo(f"Next: nnUNetv2_train {' '.join(arguments)}")


@app.command()
def trainers(
    names: Annotated[bool, typer.Option("--names", help="Print the names for `nnUNetv2_train -tr` instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print folder and names as JSON.")] = False,
) -> None:
    """Print the folder of the trainers, for nnU-Net's environment variable.

    Example:  export nnUNet_extTrainer="$(attenscribble trainers)"
    """
    if as_json:
        content = {"folder": str(trainers_folder()), "trainers": list_trainers(), "rivals": list_trainers(rivals=True)}
        typer.echo(json.dumps(content, indent=2))
    elif names:
        typer.echo("\n".join([*list_trainers(), *list_trainers(rivals=True)]))
    else:
        typer.echo(trainers_folder())
