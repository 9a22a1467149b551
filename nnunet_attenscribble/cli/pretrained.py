"""`attenscribble pretrained`: a plain nnU-Net checkpoint for the trainers with the attention block."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.cli.trainers import tell_training
from nnunet_attenscribble.common.nnunet import PLANS
from nnunet_attenscribble.common.progress import show_waiting
from nnunet_attenscribble.errors import AttenScribbleError


@app.command()
def pretrained(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint_final.pth of a training with nnUNetTrainer.")],
    dataset: Annotated[str, typer.Option("-d", "--dataset", help="ID or name of the dataset to train on.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    configuration: Annotated[str, typer.Option("-c", "--configuration", help="Configuration to train.")] = "2d",
    plans_name: Annotated[str, typer.Option("-p", "--plans", help="Plans identifier.")] = PLANS,
) -> None:
    """Add the attention block's initial weights to a checkpoint, so that nnU-Net accepts it as pretrained weights.

    nnU-Net asks a pretrained checkpoint for every weight of the network but the last layers. The block's gate starts
    at 0, so that the network begins with the pretrained features (not with attention_gated false).

    Example:  attenscribble pretrained checkpoint_final.pth -d 501 -c 2d -o with_block.pth
    """
    from nnunet_attenscribble.common.nnunet import dataset_folder
    from nnunet_attenscribble.plans import read_plans, resolve_configuration

    problems = []
    if not checkpoint.is_file():
        problems.append(f"{checkpoint}: there is no such file")
    if output.exists():
        problems.append(f"{output} exists already: give another name with -o")
    if not output.parent.is_dir():
        problems.append(f"{output.parent}, where {output.name} shall go, does not exist")
    file = dataset_folder("nnUNet_preprocessed", dataset) / f"{plans_name}.json"
    resolved = resolve_configuration(read_plans(file), configuration)
    if problems:
        raise AttenScribbleError(problems)

    with show_waiting("Making the block"):
        import torch

        from nnunet_attenscribble.pretrained import add_block, initial_block

        content = add_block(checkpoint, initial_block(resolved))
        partial = output.with_name(f".{output.name}.partial")
        try:
            torch.save(content, partial)
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
    typer.echo(f"{output} holds the network of {checkpoint.name} with an attention block for '{configuration}'.")
    tell_training(dataset, configuration, plans_name, "-pretrained_weights", str(output))
