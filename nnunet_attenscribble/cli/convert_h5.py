"""`attenscribble convert h5`."""

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
    Subject,
    Trust,
    Unlabelled,
    Workers,
    chosen_coding,
    convert,
    report_written,
    writing_options,
)


@convert.command()
def h5(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="With .h5 files, such as ACDC_training_volumes.")],
    dataset_id: DatasetId,
    spacing_csv: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Columns case, sx, sy, sz (mm), and perhaps nx, ny, nz, which are checked."),
    ] = None,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="X Y Z", help="In place of a table: the spacing of every volume (mm)."),
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Classes 1, 2, ...; by default RV,MYO,LV.")] = None,
    dense_id: DenseId = None,
    name: Annotated[str, typer.Option(help="Name of the dataset; the twin's name is this and Dense.")] = "ACDCh5",
    split: Annotated[
        AcdcSplit,
        typer.Option(help="Folds by patient: nnU-Net's own five, or for ACDC's patients contiguous or maag."),
    ] = AcdcSplit.nnunet,
    subject: Subject = None,
    coding: Coding = None,
    unlabelled: Unlabelled = None,
    background_scribble: BackgroundScribble = None,
    trust_scribbles: Trust = False,
    workers: Workers = None,
    raw: Raw = None,
    preprocessed: Preprocessed = None,
) -> None:
    """h5 volumes of WSL4MIS and its followers, with `image`, `scribble` and perhaps `label` (z, y, x).

    They hold no spacing, which nnU-Net's plans depend on: it must be given, and is never made up. Origin and direction
    are unknown: 0 and not turned. Nothing is written unless every file is in order.

    Files of one patient stay on one side of every fold. A name tells the patient by beginning with `patient` or `case`
    and a number, or --subject finds it; other files count as a patient each.

    Example:  attenscribble convert h5 ACDC_training_volumes -d 541 --spacing-csv spacing.csv
    """
    from nnunet_attenscribble.dataset_conversion.folder import parse_labels
    from nnunet_attenscribble.dataset_conversion.h5 import convert_h5

    written = convert_h5(
        folder,
        spacing=spacing,
        spacing_csv=spacing_csv,
        classes=None if labels is None else parse_labels(labels),
        dense_id=dense_id,
        name=name,
        split=split.value,
        subject=subject,
        coding=chosen_coding(coding, unlabelled, background_scribble),
        **writing_options(dataset_id, workers, raw, preprocessed, trust_scribbles),
    )
    report_written(written, raw=raw, preprocessed=preprocessed)
