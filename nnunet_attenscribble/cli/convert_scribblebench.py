"""`attenscribble convert scribblebench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_attenscribble.cli.convert import (
    DatasetId,
    DenseId,
    Preprocessed,
    Raw,
    Subject,
    Trust,
    Workers,
    convert,
    report_written,
    writing_options,
)


@convert.command()
def scribblebench(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="One dataset of it, with imagesTr and labelsTr.")],
    dataset_id: DatasetId,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; by default that of the folder.")] = None,
    labels: Annotated[str | None, typer.Option(help="Classes 1, 2, ..., in place of those of dataset.json.")] = None,
    channels: Annotated[str | None, typer.Option(help="Names, in place of those of dataset.json.")] = None,
    subject: Subject = None,
    dense_id: DenseId = None,
    trust_scribbles: Trust = False,
    workers: Workers = None,
    raw: Raw = None,
    preprocessed: Preprocessed = None,
) -> None:
    """A dataset of ScribbleBench, linked: labelsTr (scribbles), labelsTr_dense (the twin), imagesTs and labelsTs.

    Its files are checked and stay where they are; what nnU-Net could not read as it is gets rewritten in place of a
    link. Nothing is written unless every file is in order.

    Example:  attenscribble convert scribblebench ScribbleBench/ACDC -d 551 --subject 'patient[0-9]+'
    """
    from nnunet_attenscribble.dataset_conversion.folder import parse_labels
    from nnunet_attenscribble.dataset_conversion.scribblebench import convert_scribblebench

    written = convert_scribblebench(
        folder,
        classes=None if labels is None else parse_labels(labels),
        channels=None if channels is None else [channel.strip() for channel in channels.split(",")],
        name=name,
        subject=subject,
        dense_id=dense_id,
        **writing_options(dataset_id, workers, raw, preprocessed, trust_scribbles),
    )
    report_written(written, raw=raw, preprocessed=preprocessed, planning="")
