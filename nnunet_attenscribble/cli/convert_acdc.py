"""`attenscribble convert acdc`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_attenscribble.cli.convert import (
    AcdcSplit,
    BackgroundScribble,
    Coding,
    DatasetId,
    DenseId,
    Preprocessed,
    Raw,
    Trust,
    Unlabelled,
    Workers,
    chosen_coding,
    convert,
    report_written,
    writing_options,
)


@convert.command()
def acdc(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The unpacked ACDC download, official layout or flat.")],
    scribbles: Annotated[
        Path, typer.Option("--scribbles", "-s", metavar="ZIP_OR_DIR", help="Its expert scribbles, as released.")
    ],
    dataset_id: DatasetId,
    dense_id: DenseId = None,
    dense: Annotated[bool, typer.Option("--dense/--no-dense", help="Write the dense twin.")] = True,
    name: Annotated[str, typer.Option(help="Name of the dataset; the twin's name is this and Dense.")] = "ACDC",
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
    coding: Coding = None,
    unlabelled: Unlabelled = None,
    background_scribble: BackgroundScribble = None,
    trust_scribbles: Trust = False,
    workers: Workers = None,
    raw: Raw = None,
    preprocessed: Preprocessed = None,
) -> None:
    """ACDC (cine MRI of the heart) with the expert scribbles of Valvano et al.

    Writes the scribble dataset, its dense twin sharing the images, and splits_final.json by patient. Nothing is written
    unless every file is in order.

    Example:  attenscribble convert acdc ACDC/database/training --scribbles acdc_scribbles.zip -d 501 --split maag
    """
    from nnunet_attenscribble.dataset_conversion.acdc import convert_acdc

    written = convert_acdc(
        folder,
        scribbles,
        dense_id=dense_id,
        dense=dense,
        name=name,
        split=split.value,
        test=test,
        coding=chosen_coding(coding, unlabelled, background_scribble),
        **writing_options(dataset_id, workers, raw, preprocessed, trust_scribbles),
    )
    report_written(written, raw=raw, preprocessed=preprocessed)
