"""`attenscribble next`: where to draw next, and strokes drawn since."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.cli.training import tell_preprocessing, tell_training
from nnunet_attenscribble.common.nnunet import (
    dataset_folder,
    label_problems,
    nnunet_folder,
    read_dataset_json,
    read_drawn_axis,
)
from nnunet_attenscribble.common.progress import print_table
from nnunet_attenscribble.common.text import counted, format_csv
from nnunet_attenscribble.dataset_conversion import Tool
from nnunet_attenscribble.errors import AttenScribbleError, refuse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nnunet_attenscribble.common.readers import Reader
    from nnunet_attenscribble.dataset_conversion.description import Description
    from nnunet_attenscribble.dataset_conversion.next_folder import Addition, CaseToDraw, DatasetToDraw
    from nnunet_attenscribble.trained_model import ModelPlace, TrainedModel


@app.command("next")
def next_slices(
    dataset: Annotated[str, typer.Argument(help="ID or name of a scribble dataset with a trained model.")],
    images: Annotated[
        list[Path] | None,
        typer.Option("--images", "-i", help="Folder of further images, named as for nnUNetv2_predict; repeatable."),
    ] = None,
    trainer: Annotated[str | None, typer.Option("-tr", "--trainer", help="Of the model, if there are several.")] = None,
    plans: Annotated[str | None, typer.Option("-p", "--plans", help="Plans of the model.")] = None,
    configuration: Annotated[str | None, typer.Option("-c", "--configuration", help="Its configuration.")] = None,
    fold: Annotated[str | None, typer.Option("-f", "--fold", help="Its fold.")] = None,
    checkpoint: Annotated[
        str, typer.Option("-chk", "--checkpoint", help="File of the fold's folder.")
    ] = "checkpoint_final.pth",
    device: Annotated[
        str | None, typer.Option("-device", "--device", help="cpu, cuda or mps; by default cuda where there is one.")
    ] = None,
    slices: Annotated[int, typer.Option(min=1, help="How many to choose.")] = 10,
    axis: Annotated[
        int | None,
        typer.Option(
            min=0, max=2, help="Across which slices are cut (0 z, 1 y, 2 x); by default the coarsest, or as was drawn."
        ),
    ] = None,
    tool: Annotated[Tool, typer.Option(help="Drawn with; decides formats and slice numbers.")] = "slicer",
    folder: Annotated[
        Path | None, typer.Option(help="Folder to draw in; by default `next` beside the dataset's models.")
    ] = None,
) -> None:
    """Choose the slices to draw on next; called again, bring in what was drawn.

    The first call predicts all cases with slices that nobody drew on, ranks slices by the model's entropy and the
    disagreement of its mirrorings, and writes images, predictions and drawings for the tool. Save strokes over
    CASE_strokes, or correct CASE_prediction. The next call puts them into labelsTr, and says how to train on.

    Example:  attenscribble next 501 -i new_images --tool itk-snap
    """
    from nnunet_attenscribble.common.files import reserved
    from nnunet_attenscribble.dataset_conversion.description import read_description
    from nnunet_attenscribble.dataset_conversion.next_folder import (
        STATE_FILE,
        DatasetToDraw,
        note_read,
        read_additions,
        read_state,
    )
    from nnunet_attenscribble.trained_model import TrainedModel, find_model, read_device

    raw = dataset_folder("nnUNet_raw", dataset)
    _check_labels(raw / "dataset.json", read_description(raw))
    results = nnunet_folder("nnUNet_results") / raw.name
    place = find_model(
        results, trainer=trainer, plans=plans, configuration=configuration, fold=fold, checkpoint=checkpoint
    )
    folder = (folder or results / "next").absolute()
    with ExitStack() as alone:
        if os.access(raw.parent, os.W_OK):
            # From reading labels to writing them: a call for another folder would put old ones back.
            alone.enter_context(reserved(raw.parent, [raw.name[7:10]], "dataset ID", wait=True))
        state = read_state(folder, raw.name)
        own = DatasetToDraw.read(raw)
        if state is not None:
            additions, notes = read_additions(folder, state, own)
            for note in notes:
                typer.secho(f"Note: {note}.", bold=True)
            if additions:
                _bring_in(raw, additions, place, own.reader, read_device(device).type)
                note_read(folder, state, additions)
                return
            if not state.get("read"):
                left = counted(len(state["slices"]), "slice")
                typer.secho(f"Note: nothing was drawn in {folder} since the last call: {left} to draw on.", bold=True)
            elif place.file.stat().st_mtime < (folder / STATE_FILE).stat().st_mtime:
                typer.secho(f"Note: {place.file} is older than the strokes brought in: train on first.", bold=True)
    model = TrainedModel(place.folder, place.fold, place.checkpoint, read_device(device))
    axis = read_drawn_axis(raw) if axis is None else axis
    _choose(own, images or [], model, folder, state, tool=tool, count=slices, axis=axis)


def _check_labels(file: Path, description: Description) -> None:
    from nnunet_attenscribble.dataset_conversion.cases import Coding

    if description.ignore is None:
        raise AttenScribbleError(f"{file}: has no label `ignore`: its labels are dense, and there is nothing to draw")
    problems = [f"{told}: {advice}" for told, advice in label_problems(read_dataset_json(file)["labels"])]
    problems = problems or Coding(description.labels, None, None, False).problems()
    names = [" ".join(name.split()).casefold() for name in description.labels]
    if len(set(names)) < len(names):
        problems.append("two labels have the same name, in small letters and without blanks: rename one")
    refuse(f"{file}: {problem}" for problem in problems)


def _bring_in(raw: Path, additions: Sequence[Addition], place: ModelPlace, reader: Reader, device: str) -> None:
    from nnunet_attenscribble.dataset_conversion.next_folder import add_strokes

    add_strokes(raw, nnunet_folder("nnUNet_preprocessed") / raw.name, additions, reader)
    rows = []
    for addition in additions:
        told = ", ".join(f"{name} {count}" for name, count in addition.added.items() if count) or "none"
        state = "new" if addition.case.label is None else ""
        rows.append([addition.case.identifier, state, told, str(addition.changed or ""), str(addition.kept or "")])
    print_table(
        ["case", "", "voxels drawn since", "of another class before", "taken out, kept"],
        rows,
        left=("", "voxels drawn since"),
    )
    if any(addition.changed for addition in additions):
        typer.echo("A stroke over an older one counts.")
    if any(addition.kept for addition in additions):
        typer.echo("Strokes that were taken out stay: take them out of labelsTr, or draw another class over them.")
    trainer, plans, configuration = place.names
    typer.echo(f"\n{raw.name} has them. The plans stay as they are; preprocess again, and train on from the weights:")
    tell_preprocessing(raw.name, configuration, plans)
    options = ["-pretrained_weights", str(place.file)]
    options += [] if device == "cuda" else ["-device", device]
    tell_training(str(int(raw.name[7:10])), configuration, plans, *options, trainer=trainer, fold=place.fold)
    typer.echo("Then call this again.")


def _choose(
    dataset: DatasetToDraw,
    images: Sequence[Path],
    model: TrainedModel,
    folder: Path,
    before: Mapping[str, Any] | None,
    *,
    tool: str,
    count: int,
    axis: int | None,
) -> None:
    from tempfile import TemporaryDirectory

    from nnunet_attenscribble.dataset_conversion.next_drawings import TOOLS
    from nnunet_attenscribble.dataset_conversion.next_folder import list_seen, read_additions, write_folder
    from nnunet_attenscribble.dataset_conversion.next_slices import search_slices

    raw, labels = dataset.raw, dataset.description.labels
    further = _find_further(dataset, images, model)
    with TemporaryDirectory(prefix="attenscribble-") as predictions:
        found = search_slices(
            model,
            {**dataset.training, **further},
            labels,
            count=count,
            predictions=Path(predictions),
            axis=axis,
            progress=True,
        )
        if not found.chosen:
            typer.echo("Every slice of every case is drawn on: give further images with -i.")
            return
        seen = list_seen(folder, before)
        if before is not None and read_additions(folder, before, dataset)[0]:
            raise AttenScribbleError(f"{folder}: was drawn in meanwhile, nothing was written: call this again")
        rows = found.list_rows(tool)
        table = format_csv(list(rows[0]), map(dict.values, rows)).encode()
        write_folder(
            folder,
            found.list_drawn_cases(),
            tool=tool,
            labels=labels,
            state={"dataset": raw.name, "tool": tool, "model": model.describe(), "slices": rows},
            further={"next.csv": table, "next.png": found.draw(tool, f"{raw.name}: slices to draw next")},
            before=before,
            seen=seen,
        )
    cases = f"{len(found.cases)} cases with slices that nobody drew on"
    axes = "/".join(sorted({"zyx"[slices.axis] for slices in found.slices.values()}))
    typer.echo(f"{cases} were predicted; slices are cut across axis {axes} of the files (--axis takes another).")
    _print_slices(rows, tool)
    typer.echo(f"Pictures: {folder / 'next.png'}")
    typer.echo(f"Next: draw on these slices in {folder}/CASE/CASE_strokes{TOOLS[tool]} (labels: labels.label), or")
    typer.echo("correct CASE_prediction there, save, and call this again.")


def _find_further(dataset: DatasetToDraw, folders: Sequence[Path], model: TrainedModel) -> dict[str, CaseToDraw]:
    """The cases of further folders that are no training cases yet; a model of other labels is refused as well."""
    from nnunet_attenscribble.dataset_conversion.description import read_description
    from nnunet_attenscribble.dataset_conversion.next_folder import new_case_problems, stray_label_problems

    found: dict[str, list[Path]] = {}
    problems = []
    learnt = read_description(model.folder).labels
    if learnt != dataset.description.labels:
        problems.append(
            f"{model.folder}: was trained with the labels {', '.join(learnt)}, the dataset has "
            f"{', '.join(dataset.description.labels)}: train on it first"
        )
    for folder in folders:
        try:
            cases = model.find_cases(folder)
        except AttenScribbleError as error:
            problems += [f"{problem}; attenscribble prepare names images so" for problem in error.problems]
            continue
        for name, files in cases.items():
            if name in found:
                problems.append(f"case {name}: is in {found[name][0].parent} and in {folder}: leave one out")
            found[name] = files.images
    problems += new_case_problems(dataset.raw, found)
    new = [name for name in found if name not in dataset.training]
    problems += stray_label_problems(dataset.raw, new, dataset.description.ending)
    refuse(problems)
    return {name: dataset.open_further(name, found[name]) for name in new}


def _print_slices(rows: Sequence[Mapping[str, Any]], tool: str) -> None:
    table = [
        [
            str(row["rank"]),
            row["case"],
            row["slice"],
            f"{row['entropy']:.3f}",
            f"{row['disagreement']:.3f}",
            row["reason"],
        ]
        for row in rows
    ]
    print_table(["", "case", "slice", "entropy", "mirrors", "why"], table, left=("case", "slice", "why"))
    numbers = {
        "slicer": "voxels from 0 (Data Probe), millimetres at the slider",
        "itk-snap": "from 1 (Cursor Inspector)",
        "napari": "from 0 (slider)",
    }
    typer.echo(f"Slices are counted as {tool} shows them: {numbers[tool]}.")
