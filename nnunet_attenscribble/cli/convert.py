"""`attenscribble convert`: published datasets into nnU-Net raw folders."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.cli.folders import FOLDERS, nnunet_folder

if TYPE_CHECKING:
    from nnunet_attenscribble.dataset_conversion.raw_dataset import WrittenDatasets

convert = typer.Typer(
    help="Convert a published dataset and its scribbles to nnU-Net's raw format.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.add_typer(convert, name="convert")


class AcdcSplit(str, Enum):
    """The names of `acdc.SPLITS`, here without importing that module."""

    nnunet = "nnunet"
    contiguous = "contiguous"
    maag = "maag"


@convert.command()
def acdc(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The unpacked ACDC download, official layout or flat.")],
    scribbles: Annotated[
        Path, typer.Option("--scribbles", "-s", metavar="ZIP_OR_DIR", help="Its expert scribbles, as released.")
    ],
    dataset_id: Annotated[int, typer.Option("--dataset-id", "-d", metavar="ID", help="ID of the scribble dataset.")],
    dense_id: Annotated[
        int | None,
        typer.Option(metavar="ID", help="ID of the dense twin. Without it -d plus 1, where there are dense labels."),
    ] = None,
    dense: Annotated[bool, typer.Option("--dense/--no-dense", help="Write the dense twin.")] = True,
    name: Annotated[str, typer.Option(help="Name of the dataset; the twin is called so with Dense behind.")] = "ACDC",
    split: Annotated[
        AcdcSplit,
        typer.Option(
            help="Folds, always by patient. nnunet: nnU-Net's own five. contiguous: five, validating patients 1-20, "
            "21-40 and so on. maag: one fold, 35 patients to train with and 15 to validate."
        ),
    ] = AcdcSplit.nnunet,
    test: Annotated[
        str | None,
        typer.Option(
            metavar="PATIENTS",
            help="Patients kept out of training (imagesTs, labelsTs): maag-validation, maag-test, or a list: 1-20,84.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; without it one per processor, 8 at most.")
    ] = None,
    raw: Annotated[Path | None, typer.Option(metavar="FOLDER", help="In place of $nnUNet_raw.")] = None,
    preprocessed: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="In place of $nnUNet_preprocessed.")
    ] = None,
) -> None:
    """ACDC (cine MRI of the heart) with the expert scribbles of Valvano et al.

    Writes the scribble dataset, its dense twin sharing the images, and splits_final.json by patient. Nothing is written
    unless every file is in order.

    Example:  attenscribble convert acdc ACDC/database/training --scribbles acdc_scribbles.zip -d 501 --split maag
    """
    from nnunet_attenscribble.dataset_conversion.acdc import convert_acdc

    in_environment = {variable: Path(value) for variable in FOLDERS if (value := os.environ.get(variable))}
    written = convert_acdc(
        folder,
        scribbles,
        raw_folder=raw or nnunet_folder("nnUNet_raw"),
        dataset_id=dataset_id,
        dense_id=dense_id,
        dense=dense,
        name=name,
        split=split.value,
        test=test,
        preprocessed_folder=preprocessed or in_environment.get("nnUNet_preprocessed"),
        results_folder=in_environment.get("nnUNet_results"),
        workers=workers,
        progress=True,
    )
    _report(written, raw=raw, preprocessed=preprocessed, planning="-c 2d")


def _report(written: WrittenDatasets, *, raw: Path | None, preprocessed: Path | None, planning: str) -> None:
    """Tell what was written and what to type next."""
    cases = f"{written.training} training cases" + (f", {written.test} test cases" if written.test else "")
    typer.echo(f"Scribbles:     {written.scribble}  ({cases})")
    if written.dense is not None:
        typer.echo(f"Dense twin:    {written.dense}  (shares the images)")
    every = sum(written.scribble_voxels.values())
    labelled = {label: count for label, count in written.scribble_voxels.items() if label != "ignore"}
    of_class = bool(written.dense_voxels)
    shares = [
        f"{label} {_percent(count, written.dense_voxels[label] if of_class else every)}"
        for label, count in labelled.items()
    ]
    typer.echo(
        f"Scribbled:     {_percent(sum(labelled.values()), every)} of all voxels; "
        f"{'of each class' if of_class else 'by class'}: {', '.join(shares)}"
    )
    for note in written.notes:
        typer.echo(f"Note:          {note}.")
    typer.echo("\nNext:")
    for variable, folder in (("nnUNet_raw", raw), ("nnUNet_preprocessed", preprocessed)):
        if folder is not None:
            typer.echo(f'  export {variable}="{folder.absolute()}"')
    ids = [folder.name[7:10] for folder in (written.scribble, written.dense) if folder is not None]
    typer.echo(f"  nnUNetv2_plan_and_preprocess -d {' '.join(ids)} {planning} --verify_dataset_integrity")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"
