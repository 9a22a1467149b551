"""`attenscribble convert folder`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_attenscribble.cli.convert import (
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
def folder(
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="NIfTI, .mha, NRRD, PNG or TIFF files, named by case.")
    ],
    dataset_id: DatasetId,
    name: Annotated[str, typer.Option(help="Name of the dataset; the twin's name is this and Dense.")],
    labels: Annotated[
        str,
        typer.Option(help="Classes 1, 2, ..., as RV,MYO,LV, or with their values in the files: liver=63,spleen=252."),
    ],
    scribbles: Annotated[
        Path | None,
        typer.Option("--scribbles", "-s", metavar="DIR", help="A file per case, named as it, or with a suffix."),
    ] = None,
    dense: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Dense labels, for the twin. Without --scribbles: these alone.")
    ] = None,
    test_images: Annotated[Path | None, typer.Option(metavar="DIR", help="Cases kept out of training.")] = None,
    test_labels: Annotated[Path | None, typer.Option(metavar="DIR", help="Their dense labels.")] = None,
    channels: Annotated[
        str, typer.Option(help="Names of the channels _0000, _0001, ...; CT is normalised as such, others by z-score.")
    ] = "MRI",
    subject: Subject = None,
    link: Annotated[
        bool, typer.Option("--link", help="Links in place of copies, where a file can be used as it is.")
    ] = False,
    dense_id: DenseId = None,
    coding: Coding = None,
    unlabelled: Unlabelled = None,
    background_scribble: BackgroundScribble = None,
    trust_scribbles: Trust = False,
    workers: Workers = None,
    raw: Raw = None,
    preprocessed: Preprocessed = None,
) -> None:
    """Your own folders of images and scribbles, of dense labels, or of all three.

    Images are named `case.nii.gz` or `case_0000.nii.gz`, labels `case.nii.gz` or with a suffix, such as
    `case_scribble.nii.gz`. Nothing is written unless every file is in order.

    Example:  attenscribble convert folder images -s scribbles -d 601 --name Hearts --labels RV,MYO,LV --unlabelled 0
    --background-scribble 9

    Example:  attenscribble convert folder images --dense labels -d 4 --name Hippocampus --labels anterior,posterior
    """
    from nnunet_attenscribble.dataset_conversion.folder import convert_folder, parse_labels

    written = convert_folder(
        images,
        scribbles,
        classes=parse_labels(labels),
        dense=dense,
        test_images=test_images,
        test_labels=test_labels,
        channels=[channel.strip() for channel in channels.split(",")],
        subject=subject,
        dense_id=dense_id,
        coding=chosen_coding(coding, unlabelled, background_scribble),
        name=name,
        link=link,
        **writing_options(dataset_id, workers, raw, preprocessed, trust_scribbles),
    )
    report_written(written, raw=raw, preprocessed=preprocessed, planning="")
