"""What stands around a training: `attenscribble trainers`, `configure`, `pretrained`, `prepare` and `status`."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.cli.datasets import Workers
from nnunet_attenscribble.common.files import encode_numbers, naming, replaced_file, reserved, write_json
from nnunet_attenscribble.common.nnunet import (
    FOLDERS,
    PLANS,
    VARIABLE,
    dataset_folder,
    exported_folders,
    find_folder,
    list_trainers,
    nnunet_folder,
    read_dataset_json,
    trainers_folder,
)
from nnunet_attenscribble.common.progress import print_table, show_waiting
from nnunet_attenscribble.common.shapes import unique_keys
from nnunet_attenscribble.common.text import counted, format_duration, format_number, list_some
from nnunet_attenscribble.errors import AttenScribbleError, refuse

if TYPE_CHECKING:
    from nnunet_attenscribble.evaluation.benchmark.status import DatasetState, ResultState, TrainingState

_SHOWN = ("total", "segmentation", "crf", "similarity")  # terms, where there are so many


def list_exports() -> list[str]:
    """The command by which nnU-Net finds the trainers; none where it does."""
    return [] if trainers_folder() in exported_folders() else [f'export {VARIABLE}="$(attenscribble trainers)"']


def tell_training(
    dataset: str,
    configuration: str,
    plans_name: str,
    *options: str,
    trainer: str = "nnUNetTrainerAttenScribble",
    fold: str = "0",
) -> None:
    """Print the training command that comes next, and before it the export that nnU-Net finds its trainer by."""
    plans = () if plans_name == PLANS else ("-p", plans_name)
    arguments = (dataset, configuration, fold, "-tr", trainer, *plans, *options)
    for command in (*list_exports(), shlex.join(["nnUNetv2_train", *arguments])):
        typer.echo(f"Next: {command}")


def tell_preprocessing(dataset: str, configuration: str, plans_name: str) -> None:
    """Print the command that preprocesses a dataset in nnUNet_raw for a configuration."""
    plans = () if plans_name == PLANS else ("-plans_name", plans_name)
    arguments = ("-d", str(int(dataset[7:10])), *plans, "-c", configuration)
    typer.echo(f"Next: {shlex.join(['nnUNetv2_preprocess', *arguments])}")


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


def read_assignments(assignments: list[str]) -> dict[str, Any]:
    """`name=value` pairs; values are JSON where they read as such, text otherwise."""
    values: dict[str, Any] = {}
    problems = []
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name:
            problems.append(f"--set '{assignment}' is not of the form name=value")
            continue
        if name in values:
            problems.append(f"--set {name} is given twice: leave one of them out")
        try:
            values[name] = json.loads(text, object_pairs_hook=unique_keys)
        except (json.JSONDecodeError, RecursionError):
            values[name] = text
        except ValueError as error:
            problems.append(f"--set {name}: {error}: correct it")
    refuse(dict.fromkeys(problems))
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
            help="The published loss and block: dice_weight=0, crf_intensities=range, similarity_mode=paper, "
            "attention_gated=false, warmup_epochs=0.",
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
    from nnunet_attenscribble.plans import (
        add_configuration,
        add_cpu_configuration,
        describe_difference,
        name_plans_file,
        nearest_labels,
        read_plans,
        resolve_configuration,
    )
    from nnunet_attenscribble.settings import PAPER, AttenScribbleSettings

    for_cpu: dict[str, Any] = {"spacing_factor": spacing_factor, "batch_size": batch_size}
    for_cpu = {option: value for option, value in for_cpu.items() if value is not None}
    if not cpu:
        refuse(f"--{option.replace('_', '-')} is only for --cpu: give --cpu too, or leave it out" for option in for_cpu)
    settings = (dict(PAPER) if paper else {}) | read_assignments(assignments or [])
    file = name_plans_file(dataset_folder("nnUNet_preprocessed", dataset), plans_name)
    labels = read_dataset_json(file.with_name("dataset.json"), labels_only=True)["labels"]
    if settings and "ignore" not in labels:
        raise AttenScribbleError(
            f"{file.parent.name} has no `ignore` label, so its labels are dense, and nnU-Net's own trainers, which "
            "they are for, read no settings: leave out --set and --paper"
        )
    # Calls at the same time would each write without what the others add.
    with naming(file), reserved(file.parent, [file.name], "plans", wait=True):
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
        configured = AttenScribbleSettings.from_configuration(resolve_configuration(plans, name))
        if configured.class_weights:
            configured.weigh_labels(labels)
        write_json(file, plans)

    typer.echo(f"{file.name} of {file.parent.name} has a configuration '{name}', which differs from '{base}' in")
    for line in describe_difference(plans, base, name):
        typer.echo(f"  {line}")
    if cpu or thin_strokes:
        tell_preprocessing(file.parent.name, name, plans_name)
    else:
        tell_training(dataset, name, plans_name)


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
    from nnunet_attenscribble.plans import check_network, name_plans_file, read_plans, resolve_configuration

    problems = []
    if not checkpoint.is_file():
        problems.append(f"{checkpoint}: there is no such file")
    if output.exists():
        problems.append(f"{output} exists already: give another name with -o")
    if not output.parent.is_dir():
        problems.append(f"{output.parent}, where {output.name} shall go, does not exist")
    file = name_plans_file(dataset_folder("nnUNet_preprocessed", dataset), plans_name)
    plans = read_plans(file)
    resolved = resolve_configuration(plans, configuration)
    refuse(problems)
    check_network(resolved, configuration)

    with show_waiting("Making the block"):
        import torch

        from nnunet_attenscribble.network import add_block, initial_block, list_misfits

        block = initial_block(resolved)
        content = add_block(checkpoint, block)
        described = read_dataset_json(file.with_name("dataset.json"))
        if misfits := list_misfits(content["network_weights"], block, plans, configuration, described):
            raise AttenScribbleError(
                f"{checkpoint}: its network is not that of '{configuration}' in {file} ({list_some(misfits)} are "
                "absent or of another shape): give one trained with this network and as many input channels"
            )
        with replaced_file(output) as part, part.open("wb") as stream:
            torch.save(content, stream)
    typer.echo(f"{output} holds the network of {checkpoint.name} with an attention block for '{configuration}'.")
    tell_training(dataset, configuration, plans_name, "-pretrained_weights", str(output))


@app.command()
def prepare(
    dataset: Annotated[
        str, typer.Argument(help="ID or name of the dataset trained with, or the folder of a model or dataset.")
    ],
    images: Annotated[
        Path, typer.Option("--images", "-i", metavar="DIR", help="Images, named and stored as for `convert folder`.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where they are written to.")],
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="X Y Z", help="Of files that state none, such as TIFF (mm; of pictures X and Y)."),
    ] = None,
    workers: Workers = None,
) -> None:
    """Name and store images as those of a dataset are, for nnUNetv2_predict.

    nnU-Net's prediction finds images by CASE_0000 and the dataset's file ending, and nothing else. They are checked as
    images to train with are, and nothing is written unless every file is in order.

    Example:  attenscribble prepare 601 -i new_images -o prepared
    """
    from nnunet_attenscribble.dataset_conversion.prediction_images import prepare_images

    folder = _find_description(dataset)
    cases, notes = prepare_images(images, output, folder, spacing=spacing, workers=workers, progress=True)
    name = Path(os.path.abspath(folder)).name  # `.` has none; a link keeps its own
    typer.echo(f"{output} holds {counted(len(cases), 'case')}, as {name} has its images.")
    for note in notes:
        typer.echo(f"Note: {note}.")
    of_dataset = ["-d", name if Path(dataset) == folder else dataset, "-c", "CONFIGURATION", "-tr", "TRAINER"]
    program, options = "nnUNetv2_predict", of_dataset
    if (folder / "plans.json").is_file():  # of a model
        program, options = "nnUNetv2_predict_from_modelfolder", ["-m", dataset]
    command = [program, "-i", str(output), "-o", "PREDICTIONS", *options, "-f", "FOLD"]
    typer.echo(f"\nNext:\n  {shlex.join(command)}")


def _find_description(dataset: str) -> Path:
    """The folder with the dataset.json: given, or of a raw or else a preprocessed dataset."""
    if (Path(dataset) / "dataset.json").is_file():
        return Path(dataset)
    # A model may have come without the images that it has learnt from.
    return _find_dataset(dataset, "nnUNet_raw", "nnUNet_preprocessed")


def _find_dataset(dataset: str, *variables: str) -> Path:
    """Its folder in the first of nnU-Net's folders that has it; where none has, the first one's error."""
    errors = []
    for variable in variables:
        try:
            return dataset_folder(variable, dataset)
        except AttenScribbleError as error:
            errors.append(error)
    raise errors[0]


@app.command()
def status(
    dataset: Annotated[str | None, typer.Argument(help="ID or name: only this dataset.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, with every loss term.")] = False,
) -> None:
    """Show datasets, trainings (epoch, minutes left, last losses), predictions and scores in nnU-Net's folders.

    Example:  attenscribble status 501
    """
    from nnunet_attenscribble.evaluation.benchmark.status import (
        list_dataset_states,
        list_result_states,
        list_trainings,
    )

    raw = nnunet_folder("nnUNet_raw")
    preprocessed, results = map(find_folder, ("nnUNet_preprocessed", "nnUNet_results"))
    name = _find_dataset(dataset, *FOLDERS).name if dataset else None
    datasets = [state for state in list_dataset_states(raw, preprocessed) if name in (None, state.name)]
    trainings = list_trainings(results, name) if results else []
    found = list_result_states(results, name) if results else []
    if as_json:
        content = {
            "datasets": [asdict(state) for state in datasets],
            "trainings": [asdict(state) for state in trainings],
            "results": [asdict(state) | {"folder": str(state.folder)} for state in found],
        }
        typer.echo(json.dumps(encode_numbers(content), indent=2, allow_nan=False))
        return
    _print_datasets(datasets)
    _print_trainings(trainings)
    if results:
        _print_results(found, results)


def _print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    if not rows:
        typer.echo(f"{title}: none\n")
        return
    typer.echo(title)
    print_table(header, rows)
    typer.echo()


def _print_datasets(states: list[DatasetState]) -> None:
    rows = []
    for state in states:
        plans = "; ".join(f"{name}: {', '.join(done) or 'planned'}" for name, done in state.plans.items())
        rows.append(
            [state.name, state.labels, "?" if state.cases is None else str(state.cases), plans or "not planned"]
        )
    _print_table("Datasets", ["name", "labels", "cases", "preprocessed"], rows)


def _print_trainings(states: list[TrainingState]) -> None:
    rows = []
    for state in states:
        of = "?" if state.epochs is None else str(state.epochs)
        left = "" if state.seconds_left is None else format_duration(state.seconds_left)
        terms = ", ".join(f"{name} {state.terms[name]:.3f}" for name in _SHOWN if name in state.terms)
        rows.append(
            [f"{state.dataset} {state.model} fold {state.fold}", state.state, f"{state.epoch} of {of}", left, terms]
        )
    _print_table("Trainings", ["model", "state", "epoch", "left", "last loss terms"], rows)


def _print_results(states: list[ResultState], results: Path) -> None:
    rows = [
        [
            str(state.folder.relative_to(results)),
            str(state.predictions),
            "not scored with dense labels" if state.dice is None else format_number(state.dice, 3),
        ]
        for state in states
    ]
    _print_table("Predictions", ["folder in nnUNet_results", "files", "mean Dice"], rows)
