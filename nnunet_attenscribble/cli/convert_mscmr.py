"""`attenscribble convert mscmr`."""

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
    Trust,
    Unlabelled,
    Workers,
    chosen_coding,
    convert,
    report_written,
    writing_options,
)


@convert.command()
def mscmr(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="MSCMR_dataset of CycleMix, with train, val and TestSet.")
    ],
    dataset_id: DatasetId,
    scribbles: Annotated[
        Path | None, typer.Option("--scribbles", "-s", metavar="DIR", help="Scribbles, where they lie elsewhere.")
    ] = None,
    dense_id: DenseId = None,
    name: Annotated[str, typer.Option(help="Name of the dataset; the twin's name is this and Dense.")] = "MSCMR",
    coding: Coding = None,
    unlabelled: Unlabelled = None,
    background_scribble: BackgroundScribble = None,
    trust_scribbles: Trust = False,
    workers: Workers = None,
    raw: Raw = None,
    preprocessed: Preprocessed = None,
) -> None:
    """MSCMRseg (late gadolinium enhanced MRI of the heart) with the scribbles of CycleMix.

    The 25 subjects of the literature's training set become training cases with nnU-Net's five folds; its 5 validation
    and 15 test subjects, which have dense labels and no scribbles, become test cases (imagesTs, labelsTs). To train
    with all 25, as the papers do, give nnU-Net `all` in place of the fold. Nothing is written unless every file is in
    order.

    Example:  attenscribble convert mscmr MSCMR_dataset --scribbles MSCMR_scribbles -d 531
    """
    from nnunet_attenscribble.dataset_conversion.mscmr import convert_mscmr

    written = convert_mscmr(
        folder,
        scribbles,
        dense_id=dense_id,
        name=name,
        coding=chosen_coding(coding, unlabelled, background_scribble),
        **writing_options(dataset_id, workers, raw, preprocessed, trust_scribbles),
    )
    report_written(written, raw=raw, preprocessed=preprocessed)
