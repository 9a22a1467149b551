"""`attenscribble convert chaos`."""

from __future__ import annotations

from enum import Enum
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


class Sequence(str, Enum):
    """`chaos.SEQUENCES`, here without importing that module."""

    t1_in = "t1-in"
    t1_out = "t1-out"
    t1 = "t1"
    t1_both = "t1-both"
    t2 = "t2"


class ChaosSplit(str, Enum):
    """`chaos.SPLITS`, here without importing that module."""

    nnunet = "nnunet"
    pacingpseudo = "pacingpseudo"
    attenscribble = "attenscribble"


@convert.command()
def chaos(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The unpacked CHAOS download, or its folder MR.")],
    dataset_id: DatasetId,
    scribbles: Annotated[
        Path | None,
        typer.Option(
            "--scribbles", "-s", metavar="DIR", help="Those of PacingPseudo. Without them: dense labels alone."
        ),
    ] = None,
    sequence: Annotated[
        Sequence,
        typer.Option(
            help="t1-in, t1-out: one phase. t1: both as channels of one case. t1-both: both as cases of their own, "
            "which share their patient's scribble. t2: T2-SPIR."
        ),
    ] = Sequence.t1_in,
    dense_id: DenseId = None,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; by default CHAOS with the sequence.")] = None,
    split: Annotated[
        ChaosSplit,
        typer.Option(
            help="Folds, always by patient. nnunet: nnU-Net's own five. pacingpseudo: the five of that paper. "
            "attenscribble: the three of that one."
        ),
    ] = ChaosSplit.nnunet,
    coding: Coding = None,
    unlabelled: Unlabelled = None,
    background_scribble: BackgroundScribble = None,
    trust_scribbles: Trust = False,
    workers: Workers = None,
    raw: Raw = None,
    preprocessed: Preprocessed = None,
) -> None:
    """CHAOS (abdominal MRI), from its DICOM series, with scribbles in the form of PacingPseudo (coding chaos).

    Writes the scribble dataset and its dense twin; without scribbles the dense dataset alone, into which `attenscribble
    scribble` draws. Nothing is written unless every file is in order.

    Example:  attenscribble convert chaos CHAOS/Train_Sets/MR -s scribble_data -d 521 --split pacingpseudo

    Example:  attenscribble convert chaos CHAOS/Train_Sets/MR -d 522 && attenscribble scribble 522 -o 521
    """
    from nnunet_attenscribble.dataset_conversion.chaos import convert_chaos

    written = convert_chaos(
        folder,
        scribbles,
        sequence=sequence.value,
        dense_id=dense_id,
        name=name,
        split=split.value,
        coding=chosen_coding(coding, unlabelled, background_scribble, default="chaos"),
        **writing_options(dataset_id, workers, raw, preprocessed, trust_scribbles),
    )
    report_written(written, raw=raw, preprocessed=preprocessed)
