"""`attenscribble convert`: published datasets, and a user's own, into nnU-Net raw folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.cli.datasets import Workers, planning_commands, where_to_write
from nnunet_attenscribble.common.text import counted, format_percent
from nnunet_attenscribble.dataset_conversion import AcdcSplit, ChaosSequence, ChaosSplit, CodingName

if TYPE_CHECKING:
    from nnunet_attenscribble.dataset_conversion.raw_dataset import WrittenDatasets

convert = typer.Typer(
    help="Convert a dataset and its scribbles to nnU-Net's raw format.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.add_typer(convert, name="convert")

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
UnlabelledMark = Annotated[
    str | None, typer.Option("--unlabelled", metavar="MARK", help="Value, name or colour of what nobody drew on.")
]
BackgroundMark = Annotated[
    str | None,
    typer.Option("--background-scribble", metavar="MARK", help="Value, name or colour of background strokes."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-scribbles",
        help="Also where no voxel is unlabelled, one class has more than half of all voxels, or nothing is drawn.",
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
UndrawnAsTest = Annotated[
    bool,
    typer.Option("--undrawn-as-test", help="Images without a drawing become test cases (imagesTs), to predict on."),
]
TestImages = Annotated[Path | None, typer.Option(metavar="DIR", help="Cases kept out of training.")]
TestLabels = Annotated[Path | None, typer.Option(metavar="DIR", help="Their dense labels.")]
Raw = Annotated[Path | None, typer.Option(metavar="FOLDER", help="In place of $nnUNet_raw.")]
Preprocessed = Annotated[Path | None, typer.Option(metavar="FOLDER", help="In place of $nnUNet_preprocessed.")]


@convert.command()
def acdc(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The unpacked ACDC download, official layout or flat.")],
    scribbles: Annotated[
        Path, typer.Option("--scribbles", "-s", metavar="ZIP_OR_DIR", help="Its expert scribbles, as released.")
    ],
    dataset_id: DatasetId,
    dense_id: DenseId = None,
    name: Annotated[str, typer.Option(help="Name of the dataset; the twin's name is this and Dense.")] = "ACDC",
    split: Annotated[
        AcdcSplit,
        typer.Option(
            help="Folds, always by patient. nnunet: nnU-Net's own five. contiguous: five, validating patients 1-20, "
            "21-40 and so on. maag: one fold, 35 patients to train with and 15 to validate."
        ),
    ] = "nnunet",
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
    from nnunet_attenscribble.dataset_conversion.meanings import choose_coding

    written = convert_acdc(
        folder,
        scribbles,
        dense_id=dense_id,
        name=name,
        split=split,
        test=test,
        coding=choose_coding(coding, unlabelled, background_scribble),
        dataset_id=dataset_id,
        writing=where_to_write(workers, raw, preprocessed, trust_scribbles),
    )
    report_written(written, raw=raw, preprocessed=preprocessed)


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
        ChaosSequence,
        typer.Option(
            help="t1-in, t1-out: one phase. t1: both as channels of one case. t1-both: both as cases of their own, "
            "which share their patient's scribble. t2: T2-SPIR."
        ),
    ] = "t1-in",
    dense_id: DenseId = None,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; by default CHAOS with the sequence.")] = None,
    split: Annotated[
        ChaosSplit,
        typer.Option(
            help="Folds, always by patient. nnunet: nnU-Net's own five. pacingpseudo: the five of that paper. "
            "attenscribble: the three of that one."
        ),
    ] = "nnunet",
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
    from nnunet_attenscribble.dataset_conversion.meanings import choose_coding

    written = convert_chaos(
        folder,
        scribbles,
        sequence=sequence,
        dense_id=dense_id,
        name=name,
        split=split,
        coding=choose_coding(coding, unlabelled, background_scribble, default="chaos"),
        dataset_id=dataset_id,
        writing=where_to_write(workers, raw, preprocessed, trust_scribbles),
    )
    report_written(written, raw=raw, preprocessed=preprocessed)


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
    from nnunet_attenscribble.dataset_conversion.meanings import choose_coding
    from nnunet_attenscribble.dataset_conversion.mscmr import convert_mscmr

    written = convert_mscmr(
        folder,
        scribbles,
        dense_id=dense_id,
        name=name,
        coding=choose_coding(coding, unlabelled, background_scribble),
        dataset_id=dataset_id,
        writing=where_to_write(workers, raw, preprocessed, trust_scribbles),
    )
    report_written(written, raw=raw, preprocessed=preprocessed)


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
    ] = "nnunet",
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
    from nnunet_attenscribble.dataset_conversion.meanings import choose_coding

    written = convert_h5(
        folder,
        spacing=spacing,
        spacing_csv=spacing_csv,
        classes=None if labels is None else parse_labels(labels),
        dense_id=dense_id,
        name=name,
        split=split,
        subject=subject,
        coding=choose_coding(coding, unlabelled, background_scribble),
        dataset_id=dataset_id,
        writing=where_to_write(workers, raw, preprocessed, trust_scribbles),
    )
    report_written(written, raw=raw, preprocessed=preprocessed)


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
        dataset_id=dataset_id,
        writing=where_to_write(workers, raw, preprocessed, trust_scribbles),
    )
    report_written(written, raw=raw, preprocessed=preprocessed)


@convert.command()
def folder(
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES",
            help="NIfTI, MetaImage, NRRD, PNG, BMP, JPEG or TIFF files or DICOM folders, named by case.",
        ),
    ],
    dataset_id: DatasetId,
    name: Annotated[str, typer.Option(help="Name of the dataset; the twin's name is this and Dense.")],
    labels: Annotated[
        str,
        typer.Option(
            help="Classes 1, 2, ..., as RV,MYO,LV, or with what marks them in the files: a value (liver=63), a name "
            "(liver=Segment_1) or a colour ('liver=#ff0000')."
        ),
    ],
    scribbles: Annotated[
        Path | None,
        typer.Option("--scribbles", "-s", metavar="DIR", help="A file per case, named as it, or with a suffix."),
    ] = None,
    dense: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Dense labels, for the twin. Without --scribbles: these alone.")
    ] = None,
    test_images: TestImages = None,
    test_labels: TestLabels = None,
    undrawn_as_test: UndrawnAsTest = False,
    channels: Annotated[
        str, typer.Option(help="Names of the channels _0000, _0001, ...; CT is normalised as such, others by z-score.")
    ] = "MRI",
    subject: Subject = None,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="X Y Z", help="Of files that state none, such as TIFF (mm; of pictures X and Y)."),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Links in place of copies, where a file can be used as it is.")
    ] = False,
    dense_id: DenseId = None,
    coding: Coding = None,
    unlabelled: UnlabelledMark = None,
    background_scribble: BackgroundMark = None,
    dense_slices: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Found in the names of cases (`.`: in all) whose scribble is a dense label of single slices: those "
            "that show no class are unlabelled. Files with strokes stay as they are.",
        ),
    ] = None,
    axis: Annotated[
        int | None, typer.Option(min=0, max=2, help="Across which these are cut (0 z, 1 y, 2 x); else the coarsest.")
    ] = None,
    annotated: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Columns case,classes: which classes, with ; between them, were annotated in a case. Where that is "
            "not all of them, its background becomes unlabelled, unless `background` is named too.",
        ),
    ] = None,
    trust_scribbles: Trust = False,
    workers: Workers = None,
    raw: Raw = None,
    preprocessed: Preprocessed = None,
) -> None:
    """Your own folders of images and scribbles, of dense labels, or of all three.

    Images are named `case.nii.gz` or `case_0000.nii.gz`, labels `case.nii.gz` or with a suffix, such as
    `case_scribble.nii.gz`; or each patient has a folder. Segments of 3D Slicer, MITK and ITK-SNAP are found by their
    names. Nothing is written unless every file is in order.

    Example:  attenscribble convert folder images -s scribbles -d 601 --name Hearts --labels RV,MYO,LV --unlabelled 0
    --background-scribble 9

    Example:  attenscribble convert folder images --dense labels -d 4 --name Hippocampus --labels anterior,posterior
    """
    from nnunet_attenscribble.dataset_conversion.folder import FolderOptions
    from nnunet_attenscribble.dataset_conversion.meanings import parse_mark, parse_marks

    options = FolderOptions(
        images,
        dataset_id,
        name,
        parse_marks(labels),
        scribbles=scribbles,
        dense=dense,
        test_images=test_images,
        test_labels=test_labels,
        undrawn_as_test=undrawn_as_test,
        channels=[channel.strip() for channel in channels.split(",")],
        subject=subject,
        spacing=spacing,
        link=link,
        dense_id=dense_id,
        coding=coding,
        unlabelled=None if unlabelled is None else parse_mark(unlabelled),
        background_scribble=None if background_scribble is None else parse_mark(background_scribble),
        dense_slices=dense_slices,
        axis=axis,
        annotated=annotated,
        trust_scribbles=trust_scribbles,
    )
    written = options.convert(where_to_write(workers, raw, preprocessed))
    report_written(written, raw=raw, preprocessed=preprocessed)


def report_written(written: WrittenDatasets, *, raw: Path | None, preprocessed: Path | None) -> None:
    """Tell what was written and what to type next."""
    cases = counted(written.training, "training case")
    cases += f", {counted(written.test, 'test case')}" if written.test else ""
    if written.scribble is not None:
        typer.echo(f"Scribbles:     {written.scribble}  ({cases})")
        if written.dense is not None:
            typer.echo(f"Dense twin:    {written.dense}  (shares the images)")
        typer.echo(f"Scribbled:     {_coverage(written)}")
    else:
        typer.echo(f"Dense labels:  {written.dense}  ({cases})")
    for note in written.notes:
        typer.secho(f"Note:          {note}.", bold=note.startswith("WARNING"))
    # Not every shell takes comments behind a command.
    told = " (attenscribble scribble draws scribbles, as a dataset of their own)" if written.scribble is None else ""
    typer.echo(f"\nNext{told}:")
    for variable, folder in (("nnUNet_raw", raw), ("nnUNet_preprocessed", preprocessed)):
        if folder is not None:
            typer.echo(f'  export {variable}="{folder.absolute()}"')
    folders = [folder for folder in (written.scribble, written.dense) if folder is not None]
    commands = planning_commands(*folders)
    if written.scribble is None:
        commands.insert(0, f"attenscribble scribble {int(folders[0].name[7:10])} -o ID")
    for command in commands:
        typer.echo(f"  {command}")


def _coverage(written: WrittenDatasets) -> str:
    every = sum(written.scribble_voxels.values())
    labelled = {label: count for label, count in written.scribble_voxels.items() if label != "ignore"}
    of_class = bool(written.dense_voxels)
    shares = [
        f"{label} {format_percent(count, written.dense_voxels[label] if of_class else every)}"
        for label, count in labelled.items()
    ]
    return (
        f"{format_percent(sum(labelled.values()), every)} of all voxels; "
        f"{'of each class' if of_class else 'by class'}: {', '.join(shares)}"
    )
