"""`attenscribble configure`: a configuration with settings of the method, or for the CPU, in a plans file."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.cli.trainers import tell_training
from nnunet_attenscribble.common.nnunet import PLANS
from nnunet_attenscribble.errors import AttenScribbleError


def read_assignments(assignments: list[str]) -> dict[str, Any]:
    """`name=value` pairs; values are JSON where they read as such, text otherwise."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name:
            raise AttenScribbleError(f"--set '{assignment}' is not of the form name=value")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


@app.command()
def configure(
    dataset: Annotated[str, typer.Argument(help="ID or name of the dataset, planned already.")],
    base: Annotated[str, typer.Option("-c", "--configuration", help="Configuration to inherit from.")] = "2d",
    name: Annotated[str | None, typer.Option("--name", help="Name of the new one (with --cpu: BASE_cpu).")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="A setting of the method; repeatable.")
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Coarser spacing, same field of view, small network.")] = False,
    spacing_factor: Annotated[
        float | None, typer.Option(min=1.0, help="With --cpu: by how much coarser in-plane (2 unless given).")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="With --cpu: patches per batch (12 unless given).")
    ] = None,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="The published loss and block: dice_weight=0, similarity_mode=paper, attention_gated=false, "
            "warmup_epochs=0.",
        ),
    ] = False,
    thin_strokes: Annotated[
        bool, typer.Option("--thin-strokes", help="Preprocess labels by the nearest voxel: for strokes one voxel wide.")
    ] = False,
    plans_name: Annotated[str, typer.Option("-p", "--plans", help="Plans identifier.")] = PLANS,
) -> None:
    """Write a configuration into the plans file; it never overwrites one.

    Example:  attenscribble configure 501 -c 2d --name 2d_crf05 --set crf_weight=0.05

    Example:  attenscribble configure 501 -c 2d --name 2d_paper --paper

    Example:  attenscribble configure 501 --cpu --set num_epochs=5
    """
    from nnunet_attenscribble.common.nnunet import dataset_folder
    from nnunet_attenscribble.plans import (
        add_configuration,
        add_cpu_configuration,
        describe_difference,
        nearest_labels,
        read_plans,
        write_plans,
    )
    from nnunet_attenscribble.settings import PAPER

    for_cpu: dict[str, Any] = {"spacing_factor": spacing_factor, "batch_size": batch_size}
    for_cpu = {option: value for option, value in for_cpu.items() if value is not None}
    if for_cpu and not cpu:
        raise AttenScribbleError(
            f"--{option.replace('_', '-')} is only for --cpu: give --cpu too, or leave it out" for option in for_cpu
        )
    settings = (dict(PAPER) if paper else {}) | read_assignments(assignments or [])
    file = dataset_folder("nnUNet_preprocessed", dataset) / f"{plans_name}.json"
    plans = read_plans(file)
    if cpu:
        name = f"{base}_cpu" if name is None else name
        plans = add_cpu_configuration(plans, base, name, **for_cpu, settings=settings, thin_strokes=thin_strokes)
    elif name is None:
        raise AttenScribbleError("give the new configuration a name with --name, or use --cpu")
    elif not settings and not thin_strokes:
        raise AttenScribbleError(
            f"configuration '{name}' would change nothing: give --set FIELD=VALUE, --paper, --thin-strokes or --cpu"
        )
    else:
        changes = nearest_labels(plans, base, name) if thin_strokes else {}
        plans = add_configuration(plans, base, name, settings, changes)
    write_plans(file, plans)

    typer.echo(f"{file.name} of {file.parent.name} has a configuration '{name}', which differs from '{base}' in")
    for line in describe_difference(plans, base, name):
        typer.echo(f"  {line}")
    if cpu or thin_strokes:
        plans_option = "" if plans_name == PLANS else f"-plans_name {plans_name} "
        typer.echo(f"Next: nnUNetv2_preprocess -d {int(file.parent.name[7:10])} {plans_option}-c {name}")
    else:
        tell_training(dataset, name, plans_name)
