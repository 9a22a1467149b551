"""Predictions: `attenscribble evaluate`, `compare` and `postprocess`."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.common.progress import print_table, show_waiting
from nnunet_attenscribble.common.text import count_rows, counted, format_mean_sd, format_number
from nnunet_attenscribble.errors import AttenScribbleError, refuse

if TYPE_CHECKING:
    from nnunet_attenscribble.evaluation.postprocessing import Postprocessed
    from nnunet_attenscribble.evaluation.summary import Summary

# The names of `protocols.PROTOCOLS` and `metrics.HD95_DEFINITIONS`, without importing these modules.
ProtocolName = Literal[
    "default", "nnunet", "acdc-wsl4mis", "acdc-wsl4mis-voxels", "chaos-pacingpseudo", "scribblebench"
]
Hd95 = Literal["monai", "union"]

_Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes; without it one per processor, at most 8 and a quarter of the cases."),
]


@app.command()
def evaluate(
    predictions: Annotated[
        Path, typer.Argument(help="Folder of predictions: the output of nnUNetv2_predict, or fold_X/validation.")
    ],
    dense_labels: Annotated[Path, typer.Argument(help="Folder of dense labels with the same file names.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the results; by default, that of the predictions.")
    ] = None,
    dataset_json: Annotated[
        Path | None,
        typer.Option(
            "--dataset-json",
            help="The dataset.json that names the labels; by default the one beside the predictions, in their model's "
            "folder or beside the dense labels.",
        ),
    ] = None,
    protocol: Annotated[
        ProtocolName,
        typer.Option(
            help="Whose definitions to score by. default: this package's own, which hide nothing. The others match the "
            "tables of a paper, with what they leave out; see docs/evaluation.md."
        ),
    ] = "default",
    hd95: Annotated[
        Hd95 | None,
        typer.Option(
            help="For the default and scribblebench. monai (if not given): the larger of the two directed 95th "
            "percentiles. union: the percentile of both directions pooled (MedPy)."
        ),
    ] = None,
    nsd: Annotated[
        float | None,
        typer.Option(
            metavar="MM",
            help="Also the normalised surface distance: the share of surface voxels within this tolerance.",
        ),
    ] = None,
    lesions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=IOU",
            help="Also the F1 of this label's connected components, matched from this IoU on, as in tumour=0.1. May be "
            "given several times.",
        ),
    ] = None,
    workers: _Workers = None,
    all_cases: Annotated[
        bool, typer.Option("--all-cases", help="Refuse if a dense label has no prediction (by default, a note).")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print attenscribble_summary.json in place of the table.")
    ] = False,
) -> None:
    """Score predictions against dense labels: Dice, IoU, HD95, ASSD, volume and confusion per case and label or region.

    Writes attenscribble_summary.json (means, rules and all cases) and attenscribble_metrics.csv (a row per case and
    label). nnU-Net's own summary.json is left alone: it is scored on the labels of training, which here are scribbles.

    Example:  attenscribble evaluate predictions/ "$nnUNet_raw/Dataset502_ACDCDense/labelsTr"
    """
    from nnunet_attenscribble.evaluation.evaluate import evaluate_folder
    from nnunet_attenscribble.evaluation.summary import write_summary

    thresholds = check_definitions(protocol, hd95, nsd, lesions or [])
    folder = output or predictions
    # A missing folder of predictions is reported as such by the evaluation itself.
    if output is not None or predictions.is_dir():
        _check_writable(folder)
    summary = evaluate_folder(
        predictions,
        dense_labels,
        dataset_json=dataset_json,
        protocol=protocol,
        hd95=hd95,
        nsd_mm=nsd,
        lesions=thresholds,
        workers=workers,
        all_cases=all_cases,
        progress=True,
    )
    files = write_summary(summary, folder)
    if as_json:
        typer.echo(files[0].read_text(encoding="utf-8").rstrip())
        return
    _print_summary(summary)
    for note in summary.notes:
        typer.echo(f"note: {note}")
    for file in files:
        typer.echo(f"wrote {file}")


@app.command()
def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=SUMMARY",
            help="A model's name and its results: attenscribble_summary.json or the folder that holds it. The folds "
            "and the random seeds of one model: the same name several times, or a row of kept scores, KEPT/ROW.",
        ),
    ],
    reference: Annotated[
        list[str],
        typer.Option("--reference", "-r", metavar="NAME=SUMMARY", help="The fully supervised model to compare with."),
    ],
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="Also write the table: .md, .csv or .json. May be given several times."),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            help="Regular expression for the subject in a case's name, where subjects have several cases: cases of one "
            "subject are then resampled and tested as one. By default, every case is a subject."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare models with a fully supervised one, on exactly the same cases, as a Markdown table.

    Folds of a model are put together; a case that several runs predicted (random seeds) is averaged over them first, as
    cases are independent of each other and runs on the same case are not.

    Example:  attenscribble compare AttenScribble=predictions/scribble --reference nnU-Net=predictions/dense
    --subject 'patient[0-9]+' -o table.md
    """
    from nnunet_attenscribble.common.files import write_texts
    from nnunet_attenscribble.evaluation.compare import compare_summaries
    from nnunet_attenscribble.evaluation.comparison_files import WRITERS

    outputs = output or []
    refuse(
        f"cannot tell the format of {file}: end its name in {', '.join(WRITERS)}"
        for file in outputs
        if file.suffix not in WRITERS
    )
    for file in outputs:
        _check_writable(file.parent)
    chosen, others = _read_models(reference), _read_models(models)
    if len(chosen) != 1:
        raise AttenScribbleError(f"--reference names several models ({', '.join(chosen)}): there can be one reference")
    name = next(iter(chosen))
    if name in others:
        raise AttenScribbleError(f"{name} is a model and the reference: give it another name or leave one of them out")
    with show_waiting("Comparing"):
        comparison = compare_summaries(chosen | others, name, subject=subject, seed=seed)
    write_texts({file: WRITERS[file.suffix](comparison) for file in outputs})
    typer.echo(WRITERS[".json" if as_json else ".md"](comparison))


def check_definitions(
    protocol: ProtocolName, hd95: Hd95 | None, nsd: float | None, lesions: list[str]
) -> dict[str, float]:
    """Refuse options that do not go together; the IoU of each label in `--lesions`."""
    from nnunet_attenscribble.evaluation.protocols import get_protocol

    problems = []
    thresholds: dict[str, float] = {}
    for entry in lesions:
        name, _, number = entry.rpartition("=")
        if not name or not re.fullmatch(r"\d*\.?\d+", number):
            problems.append(f"--lesions is {entry!r}: give a label and an IoU above 0 up to 1, as in tumour=0.1")
        elif thresholds.setdefault(name, float(number)) != float(number):
            problems.append(f"--lesions gives {name} two thresholds: give one")
    try:
        get_protocol(protocol, hd95, nsd_mm=nsd, lesions=thresholds)
    except AttenScribbleError as error:
        problems += error.problems
    refuse(problems)
    return thresholds


def _read_models(arguments: list[str]) -> dict[str, Summary]:
    from nnunet_attenscribble.evaluation.kept_scores import find_summaries
    from nnunet_attenscribble.evaluation.pooling import pool_runs

    folds: dict[str, list[Summary]] = {}
    problems = []
    for argument in arguments:
        name, separator, path = argument.partition("=")
        if not separator or not name or not path:
            problems.append(
                f"{argument!r} names no model: write NAME=SUMMARY, as in AttenScribble={argument or 'FOLDER'}"
            )
            continue
        try:
            folds.setdefault(name, []).extend(find_summaries(Path(path)))
        except AttenScribbleError as error:
            problems += error.problems
    refuse(problems)
    return {name: pool_runs(name, summaries) for name, summaries in folds.items()}


def _check_writable(folder: Path) -> None:
    existing = next((place for place in (folder, *folder.absolute().parents) if place.exists()), None)
    if existing is None:  # of Windows
        raise AttenScribbleError(f"{folder} is on a drive that is not there: give another place with --output")
    if not existing.is_dir():
        raise AttenScribbleError(f"{existing} is a file: give a folder to write into with --output")
    if not os.access(existing, os.W_OK):
        raise AttenScribbleError(f"{existing} cannot be written to: give another place with --output")


def _print_summary(summary: Summary) -> None:
    from nnunet_attenscribble.evaluation.comparison_files import list_titles
    from nnunet_attenscribble.evaluation.protocols import PROTOCOLS

    aggregate, columns = summary.aggregate(), list_titles(summary)
    rows = []
    for name, entry in [*aggregate["structures"].items(), ("foreground mean", aggregate["foreground_mean"])]:
        means = [
            format_mean_sd(entry[metric]["mean"], entry[metric]["sd"], decimals)
            for metric, (_, decimals) in columns.items()
        ]
        share = format_number(entry["volume_share"].get("median", math.nan), 2)
        rows.append([name, *means, share, *(str(entry[status]) for status in ("missed", "spurious", "absent"))])
    titles = [title for title, _ in columns.values()]
    header = ["label", *titles, "volume/true", "missed", "spurious", "absent"]
    rows_of = count_rows(len(summary.cases), PROTOCOLS[summary.protocol].unit)
    print_table(header, rows, title=f"{rows_of}, mean ± SD; volume: median")


@app.command()
def postprocess(
    predictions: Annotated[
        Path, typer.Argument(help="Folder of predictions: the output of nnUNetv2_predict, or fold_X/validation.")
    ],
    scribbles: Annotated[
        Path,
        typer.Argument(
            help="labelsTr of the scribble dataset. Cases that are among the predictions are not looked at."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the postprocessed predictions.")],
    dataset_json: Annotated[
        Path | None,
        typer.Option("--dataset-json", help="That of the scribble dataset; by default the one beside labelsTr."),
    ] = None,
    foreground: Annotated[
        bool,
        typer.Option(
            "--foreground",
            help="First keep the largest component of all classes together, as nnU-Net tries. Your own choice: "
            "scribbles do not show whether classes touch.",
        ),
    ] = False,
    per_class: Annotated[
        bool, typer.Option("--per-class/--no-per-class", help="Decide for each class by the scribbles.")
    ] = True,
    agreement: Annotated[
        float,
        typer.Option(
            min=0.5,
            max=1.0,
            help="Share of a class's strokes that its largest object must hold, on average.",
        ),
    ] = 0.9,
    workers: _Workers = None,
) -> None:
    """Keep only the largest component of every class that the training scribbles show to be one object.

    No dense label is used. Strokes of a class are joined where they lie close together, within a slice and from slice
    to slice. A class is taken for one object when its largest one holds at least --agreement of the strokes, averaged
    over the training cases that show it, of which there must be three. The decision and its evidence are printed and
    written beside the predictions, to attenscribble_postprocessing.json.

    Example:  attenscribble postprocess fold_0/validation "$nnUNet_raw/Dataset501_ACDC/labelsTr" -o postprocessed
    """
    from nnunet_attenscribble.evaluation.postprocessing import postprocess_folder

    if not foreground and not per_class:
        raise AttenScribbleError("--no-per-class without --foreground leaves nothing to do: leave out the former")
    result = postprocess_folder(
        predictions,
        scribbles,
        output,
        dataset_json=dataset_json,
        foreground=foreground,
        per_class=per_class,
        agreement=agreement,
        workers=workers,
        progress=True,
    )
    _print_decisions(result)
    typer.echo(f"wrote {counted(len(result.removed), 'prediction')} to {output}")


def _print_decisions(result: Postprocessed) -> None:
    rows = []
    for position, decision in enumerate(result.decisions):
        removed = [voxels[position] for voxels in result.removed.values()]
        rows.append(
            [
                decision.structure,
                "largest" if decision.keep_largest else "all",
                str(decision.cases),
                str(decision.single),
                format_number(decision.share, 3),
                str(sum(voxels > 0 for voxels in removed)),
                str(sum(removed)),
            ]
        )
    header = ["class", "kept", "scribbled cases", "in one object", "share", "predictions changed", "voxels removed"]
    print_table(header, rows)
    for decision in result.decisions:
        typer.echo(f"{decision.structure}: {decision.reason}")
    if result.left_out:
        cases = counted(len(result.left_out), "case", "was")
        typer.echo(f"{cases} not looked at: among the predictions, or labelled as a whole")
