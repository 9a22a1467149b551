"""`attenscribble convert`: published datasets, and a user's own, into nnU-Net raw folders."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.cli.fingerprint import planning_commands
from nnunet_attenscribble.cli.folders import FOLDERS, nnunet_folder

if TYPE_CHECKING:
    from nnunet_attenscribble.dataset_conversion.codings import ScribbleCoding
    from nnunet_attenscribble.dataset_conversion.raw_dataset import WrittenDatasets

convert = typer.Typer(
    help="Convert a dataset and its scribbles to nnU-Net's raw format.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.add_typer(convert, name="convert")


class CodingName(str, Enum):
    """`codings.PRESETS`, here without importing that module."""

    acdc = "acdc"
    chaos = "chaos"
    prostatex = "prostatex"


class AcdcSplit(str, Enum):
    """The names of `acdc.SPLITS`, here without importing that module."""

    nnunet = "nnunet"
    contiguous = "contiguous"
    maag = "maag"


DatasetId = Annotated[int, typer.Option("--dataset-id", "-d", metavar="ID", help="ID of the dataset.")]
DenseId = Annotated[
    int | None,
    typer.Option(metavar="ID", help="ID of the dense twin. Without it -d plus 1, where there are dense labels."),
]
Coding = Annotated[
    CodingName | None,
    typer.Option(
        help="What the values of scribbles mean. acdc: 0 a background stroke, one more than the highest class "
        "unlabelled. chaos: these two swapped. prostatex: 0 a background stroke, 255 unlabelled."
    ),
]
Unlabelled = Annotated[
    int | None, typer.Option(metavar="VALUE", help="Of voxels nobody drew on, in place of the coding's.")
]
BackgroundScribble = Annotated[
    int | None, typer.Option(metavar="VALUE", help="Of strokes in the background, in place of the coding's.")
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-scribbles", help="Also where no voxel is unlabelled, or one class has more than half of all voxels."
    ),
]
Subject = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help="Finds the subject in a case's name, as its first group or the whole match: cases of one subject stay on "
        "one side of every fold.",
    ),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; without it one per processor, 8 at most.")]
Raw = Annotated[Path | None, typer.Option(metavar="FOLDER", help="In place of $nnUNet_raw.")]
Preprocessed = Annotated[Path | None, typer.Option(metavar="FOLDER", help="In place of $nnUNet_preprocessed.")]


def writing_options(
    dataset_id: int, workers: int | None, raw: Path | None, preprocessed: Path | None, trust: bool = False
) -> dict[str, Any]:
    """What every converter passes on to `write_raw_datasets`."""
    in_environment = {variable: Path(value) for variable in FOLDERS if (value := os.environ.get(variable))}
    return {
        "dataset_id": dataset_id,
        "raw_folder": raw or nnunet_folder("nnUNet_raw"),
        "preprocessed_folder": preprocessed or in_environment.get("nnUNet_preprocessed"),
        "results_folder": in_environment.get("nnUNet_results"),
        "trust_scribbles": trust,
        "workers": workers,
        "progress": True,
    }


def chosen_coding(
    name: CodingName | None, unlabelled: int | None, background: int | None, *, default: str = "acdc"
) -> ScribbleCoding:
    """The coding of `--coding`, `--unlabelled` and `--background-scribble`."""
    from nnunet_attenscribble.dataset_conversion.codings import choose_coding

    return choose_coding(name.value if name else None, unlabelled, background, default=default)


def report_written(
    written: WrittenDatasets, *, raw: Path | None, preprocessed: Path | None, planning: str = "-c 2d "
) -> None:
    """Tell what was written and what to type next."""
    cases = f"{written.training} training cases" + (f", {written.test} test cases" if written.test else "")
    if written.scribble is not None:
        typer.echo(f"Scribbles:     {written.scribble}  ({cases})")
        if written.dense is not None:
            typer.echo(f"Dense twin:    {written.dense}  (shares the images)")
        typer.echo(f"Scribbled:     {_coverage(written)}")
    else:
        typer.echo(f"Dense labels:  {written.dense}  ({cases})")
    for note in written.notes:
        typer.echo(f"Note:          {note}.")
    typer.echo("\nNext:")
    for variable, folder in (("nnUNet_raw", raw), ("nnUNet_preprocessed", preprocessed)):
        if folder is not None:
            typer.echo(f'  export {variable}="{folder.absolute()}"')
    ids = [str(int(folder.name[7:10])) for folder in (written.scribble, written.dense) if folder is not None]
    if written.scribble is None:
        typer.echo(f"  attenscribble scribble {ids[0]} -o ID    # draws scribbles, as a dataset of their own")
        typer.echo(f"  nnUNetv2_plan_and_preprocess -d {' '.join(ids)} {planning}--verify_dataset_integrity")
        return
    for command in planning_commands(written.scribble, " ".join(ids), planning):
        typer.echo(f"  {command}")


def _coverage(written: WrittenDatasets) -> str:
    every = sum(written.scribble_voxels.values())
    labelled = {label: count for label, count in written.scribble_voxels.items() if label != "ignore"}
    of_class = bool(written.dense_voxels)
    shares = [
        f"{label} {_percent(count, written.dense_voxels[label] if of_class else every)}"
        for label, count in labelled.items()
    ]
    return (
        f"{_percent(sum(labelled.values()), every)} of all voxels; "
        f"{'of each class' if of_class else 'by class'}: {', '.join(shares)}"
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"
