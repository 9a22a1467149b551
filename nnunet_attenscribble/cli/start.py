"""`attenscribble start`: what a folder holds, found out or asked, for `convert folder`."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.cli.convert import (
    BackgroundMark,
    Preprocessed,
    Raw,
    Subject,
    TestImages,
    TestLabels,
    Trust,
    UnlabelledMark,
    report_written,
)
from nnunet_attenscribble.cli.datasets import Workers, choose_evenly, where_to_write
from nnunet_attenscribble.cli.training import list_exports
from nnunet_attenscribble.common.progress import print_table
from nnunet_attenscribble.common.text import counted
from nnunet_attenscribble.errors import AttenScribbleError, refuse

if TYPE_CHECKING:
    from nnunet_attenscribble.dataset_conversion.cases import Case, CheckedCase, Coding
    from nnunet_attenscribble.dataset_conversion.raw_dataset import Writing, WrittenDatasets
    from nnunet_attenscribble.dataset_conversion.start_beliefs import Beliefs
    from nnunet_attenscribble.dataset_conversion.start_doubts import Doubt, Given

_SHOWN = 12  # cases in the table
_TILES = 20  # of the contact sheet
_TRAINER = "nnUNetTrainerAttenScribble"


@app.command()
def start(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="With images and drawings, in any usual layout.")
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            metavar="YAML",
            help="With DIR: where what was agreed on is written; by default DIR_start.yaml beside DIR. Without: "
            "converts by it, unasked; further options replace its own.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: what is not clear is refused.")] = False,
    dataset_id: Annotated[
        int | None, typer.Option("--dataset-id", "-d", metavar="ID", help="By default the first free one from 601 on.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the dataset; by default that of DIR.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Classes, as for `convert folder`: RV,MYO, liver=63, LV=Segment_1.")
    ] = None,
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder of the images.")] = None,
    scribbles: Annotated[
        Path | None, typer.Option("--scribbles", "-s", metavar="DIR", help="That of scribbles.")
    ] = None,
    dense: Annotated[Path | None, typer.Option(metavar="DIR", help="That of dense labels.")] = None,
    test_images: TestImages = None,
    test_labels: TestLabels = None,
    channels: Annotated[
        str | None, typer.Option(help="Names of the channels, in order; CT is normalised as such.")
    ] = None,
    spacing: Annotated[
        tuple[float, float, float] | None, typer.Option(metavar="X Y Z", help="Of files that state none (mm).")
    ] = None,
    unlabelled: UnlabelledMark = None,
    background_scribble: BackgroundMark = None,
    subject: Subject = None,
    trust_scribbles: Trust = False,
    workers: Workers = None,
    raw: Raw = None,
    preprocessed: Preprocessed = None,
) -> None:
    """From a folder of images and drawings to a dataset: shows what it believes, asks what is not clear, converts.

    Finds out which file is of which case, what names, values and colours mean, and which images have no drawing: these
    become test cases, to predict on. Nothing is written before you agree. What was agreed on is kept as YAML, the
    options of `convert folder`, which does the rest.

    Example:  attenscribble start hearts

    Example:  attenscribble start --plan hearts_start.yaml -d 602
    """
    from nnunet_attenscribble.dataset_conversion.folder import read_options
    from nnunet_attenscribble.dataset_conversion.meanings import parse_mark, parse_marks

    said: dict[str, Any] = {
        "dataset_id": dataset_id,
        "name": name,
        "labels": None if labels is None else parse_marks(labels),
        "images": images,
        "scribbles": scribbles,
        "dense": dense,
        "test_images": test_images,
        "test_labels": test_labels,
        "channels": None if channels is None else tuple(channel.strip() for channel in channels.split(",")),
        "spacing": spacing,
        "unlabelled": None if unlabelled is None else parse_mark(unlabelled),
        "background_scribble": None if background_scribble is None else parse_mark(background_scribble),
        "subject": subject,
        "trust_scribbles": trust_scribbles or None,
    }
    said = {option: value for option, value in said.items() if value is not None}
    writing = where_to_write(workers, raw, preprocessed)
    if folder is not None:
        written = _start(folder, plan, yes, said, writing)
    elif plan is not None:
        written = replace(read_options(plan), **said).convert(writing)
    else:
        raise AttenScribbleError("nothing to start from: give a folder with images and drawings, or --plan YAML")
    report_written(written, raw=raw, preprocessed=preprocessed)
    _tell_training(written)


def _start(folder: Path, plan: Path | None, yes: bool, said: dict[str, Any], writing: Writing) -> WrittenDatasets:
    from nnunet_attenscribble.common.files import replaced_file, write_text
    from nnunet_attenscribble.dataset_conversion.folder import FolderOptions, encode_options
    from nnunet_attenscribble.dataset_conversion.plan_problems import name_problems, taken_id_problems
    from nnunet_attenscribble.dataset_conversion.start_beliefs import (
        Believer,
        free_id,
        name_dataset,
        names_fit,
        read_names,
    )
    from nnunet_attenscribble.dataset_conversion.start_doubts import Given

    home = Path(os.path.abspath(folder))
    file = home.parent / f"{home.name}_start.yaml" if plan is None else plan
    if file.is_dir():
        raise AttenScribbleError(f"{file}: is a folder: name the file for what is agreed on with --plan")
    sheet = file.with_suffix(".png")
    again = f"attenscribble start --plan {quote(str(file))}"
    problems = _kept_problems(file, sheet, again)
    folders = (writing.raw_folder, writing.preprocessed_folder, writing.results_folder)
    number, name = said.pop("dataset_id", free_id(folders)), said.pop("name", name_dataset(folder))
    # Told again where all is checked, but after every file was read and every question answered.
    problems += [*name_problems(name, number, None, False), *taken_id_problems({number}, folders)]
    refuse(problems)
    names, told = read_names(folder, said)
    own = {option: said.pop(option) for option in ("subject", "trust_scribbles") if option in said}
    defaults = FolderOptions(folder, number, name, {}, **own)
    believer = Believer(folder, defaults, workers=writing.workers, progress=True)
    beliefs = believer.believe(Given(**{**names, **said}))
    if names and not names_fit(names, beliefs):
        told, beliefs = [], believer.believe(Given(**said))
    for sentence in told:
        typer.echo(f"{sentence}.")
    asks = not yes and is_terminal()
    if beliefs.problems or beliefs.doubts:
        _show(folder, beliefs, None)
    beliefs = _settle(believer.believe, beliefs, asks)
    assert beliefs.options is not None  # as nothing is in doubt
    options = beliefs.options

    with tempfile.TemporaryDirectory(prefix="attenscribble-") as temporary:
        drawn = Path(temporary, sheet.name)

        def confirm(checked: Sequence[tuple[Case, CheckedCase]], coding: Coding) -> None:
            _show(folder, beliefs, ([result for _, result in checked], coding))
            if not yes and not asks:
                raise AttenScribbleError(
                    "nothing was written, as nobody could be asked: look at the table, and say --yes"
                )
            _draw_sheet(drawn, options.name, [case for case, _ in checked], coding)
            if asks:
                typer.echo(f"\nContact sheet: {drawn}")
                if not typer.confirm("Is all of this right, and is it to be converted?"):
                    raise AttenScribbleError(
                        "nothing was written: say what is otherwise by options, such as --labels, --scribbles, "
                        "--background-scribble or --channels (attenscribble start --help)"
                    )

        written = options.convert(replace(writing, confirm=confirm))
        try:
            with replaced_file(sheet) as part:
                shutil.copyfile(drawn, part)
                write_text(file, encode_options(options, file))
        except AttenScribbleError as error:
            raise AttenScribbleError(
                f"{written.scribble or written.dense} is complete, but what was agreed on could not be kept ({error}): "
                "give a place with --plan to convert again, once the dataset is deleted"
            ) from error
    typer.echo(f"\nAgreed on:     {file}  ({again} -d NEW_ID converts again)")
    typer.echo(f"Contact sheet: {sheet}")
    return written


def _kept_problems(file: Path, sheet: Path, again: str) -> list[str]:
    """What keeps plan and contact sheet from being written; `again` is the command that converts by the plan."""
    from nnunet_attenscribble.dataset_conversion.plan_problems import folder_problems

    problems = []
    if file.exists():
        problems.append(
            f"{file}: is there already: {again} converts by it, with -d NEW_ID where its ID is taken; or choose "
            "another with --plan"
        )
    if sheet.exists():
        problems.append(f"{sheet}: is there already: move it, or choose another place with --plan")
    return problems + [
        f"{problem}; what is agreed on is kept there: --plan FILE puts it elsewhere"
        for problem in folder_problems(file.absolute().parent, None)
    ]


def is_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin is not None and sys.stdin.isatty()  # None: it was closed


def _settle(believe: Callable[[Given], Beliefs], beliefs: Beliefs, asks: bool) -> Beliefs:
    """Ask until nothing is in doubt; raises AttenScribbleError for all doubts at once where nobody is to be asked."""
    while beliefs.problems or beliefs.doubts:
        if beliefs.problems or not asks:
            raise AttenScribbleError([*beliefs.problems, *dict.fromkeys(doubt.told for doubt in beliefs.doubts)])
        beliefs = believe(_ask(beliefs.doubts[0]))
    return beliefs


def _ask(doubt: Doubt) -> Given:
    typer.echo()
    choices = "".join(f"\n  {number} {choice}" for number, choice in enumerate(doubt.choices, 1))
    question = f"{doubt.question}{choices}\nAnswer" if choices else doubt.question
    while True:
        text = typer.prompt(question, default=doubt.default).strip()
        if doubt.choices:
            fitting = [choice for number, choice in enumerate(doubt.choices, 1) if text in (str(number), choice)]
            if not fitting:
                typer.echo(f"Answer with one of {', '.join(doubt.choices)}, or its number.")
                continue
            text = fitting[0]
        try:
            return doubt.answer(text)
        except AttenScribbleError as error:
            typer.echo("\n".join(error.problems))


def _show(folder: Path, beliefs: Beliefs, checked: tuple[Sequence[CheckedCase], Coding] | None) -> None:
    """Tables of cases and of marks; with figures where everything was checked."""

    def show(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        typer.echo()
        print_table(header, rows, left=header)

    if beliefs.cases is not None:
        show(*_case_rows(folder, beliefs))
    if beliefs.marks:
        show(*_mark_rows(beliefs, checked))
    for place, count in beliefs.unused.items():
        typer.echo(f"\nNot used: {place} ({counted(count, 'file')})")
    if checked is not None:
        options = beliefs.options
        assert options is not None  # as it was checked by them
        told = [f"Dataset{options.dataset_id:03d}_{options.name}", f"channels {', '.join(options.channels)}"]
        if options.spacing is not None:
            told.append(f"spacing {' x '.join(f'{step:g}' for step in options.spacing)} mm where files state none")
        typer.echo(f"\nBecomes: {', '.join(told)}")


def _case_rows(folder: Path, beliefs: Beliefs) -> tuple[list[str], list[list[str]]]:
    from nnunet_attenscribble.common.volumes import file_of

    assert beliefs.cases is not None  # or there would be nothing to show

    def tell(file: Path | None) -> str:
        inside = file is not None and folder in file.parents
        return "-" if file is None else str(file.relative_to(folder) if inside else file)

    cases = sorted(beliefs.cases.cases, key=lambda case: case.identifier)
    titles = {"scribble": "drawing" if beliefs.options is None else "scribble", "dense": "dense label"}
    roles = [role for role in titles if any(getattr(case, role) is not None for case in cases)]
    trains_with = "scribble" if any(case.scribble is not None for case in cases) else "dense"
    rows = []
    for case in cases:
        files = dict.fromkeys(
            file_of(source) or (case.inputs[0].parent if case.inputs else None) for source in case.images
        )
        labels = [getattr(case, role) for role in roles]
        is_test = case.test or getattr(case, trains_with) is None
        rows.append(
            [
                case.identifier,
                ", ".join(map(tell, files)),
                *(tell(None if label is None else label.file) for label in labels),
                "predict" if is_test else "train",
            ]
        )
    if len(rows) > _SHOWN:
        tests = sum(row[-1] == "predict" for row in rows[_SHOWN:])
        rest = len(rows) - _SHOWN
        more = ["...", f"and {rest} more", *("" for _ in roles), f"{rest - tests} train, {tests} predict"]
        rows = [*rows[:_SHOWN], more]
    return ["case", "image", *(titles[role] for role in roles), "to"], rows


def _mark_rows(
    beliefs: Beliefs, checked: tuple[Sequence[CheckedCase], Coding] | None
) -> tuple[list[str], list[list[str]]]:
    from nnunet_attenscribble.common.text import format_percent
    from nnunet_attenscribble.dataset_conversion.meanings import BACKGROUND, UNLABELLED

    told = {BACKGROUND: "background stroke", UNLABELLED: "unlabelled"}
    both = len({mark.role for mark in beliefs.marks}) > 1
    rows = []
    for mark in beliefs.marks:
        meaning, shown = mark.meaning, "no segment" if mark.is_rest else str(mark.mark)
        means = "?" if meaning is None else meaning if mark.role == "dense" else told.get(meaning, meaning)
        rows.append([shown, means, f"{len(mark.files)} of {mark.among}"])
        if both:
            rows[-1].append("scribbles" if mark.role == "scribble" else "dense labels")
        if checked is not None:
            results, coding = checked
            key = "scribble_voxels" if mark.role == "scribble" else "dense_voxels"
            value = coding.ignore if meaning == UNLABELLED else coding.labels.get(meaning or "", 0)
            counts = [found for result in results if (found := getattr(result, key))]
            total = format_percent(sum(found[value] for found in counts), sum(map(sum, counts)))
            rows[-1] += [f"{value} {'ignore' if meaning == UNLABELLED else meaning}", total]
    header = ["in the drawings", "means", "files", *(["of"] if both else [])]
    return header + ([] if checked is None else ["in the dataset", "voxels"]), rows


def _draw_sheet(file: Path, name: str, cases: Sequence[Case], coding: Coding) -> None:
    from nnunet_attenscribble.dataset_conversion.cases import WrittenImage, coded_label
    from nnunet_attenscribble.dataset_conversion.contact_sheet import draw_contact_sheet

    drawn = [case for case in cases if case.scribbled or (case.dense is not None and coding.with_dense)]
    chosen = choose_evenly(drawn, _TILES)
    sparse = any(case.scribbled for case in drawn)
    draw_contact_sheet(
        file,
        {case.identifier: (WrittenImage(case), partial(coded_label, case, coding), None) for case in chosen},
        labels=coding.labels,
        ignore=coding.ignore if sparse else None,
        title=f"{name}: {len(chosen)} of {len(drawn)} cases with a drawing",
        progress=True,
    )


def _tell_training(written: WrittenDatasets) -> None:
    """What comes after planning; on a machine without a GPU a small configuration."""
    if written.scribble is None:
        return

    import torch

    from nnunet_attenscribble.dataset_conversion.splits import NO_FOLDS

    number = int(written.scribble.name[7:10])
    fold = "all" if any(NO_FOLDS in note for note in written.notes) else "0"
    commands = list_exports()
    configuration, device = "2d", ""
    if not torch.cuda.is_available():
        configuration, device = "2d_cpu", " -device cpu"
        typer.echo("\nThen, on a processor, with few epochs for a first look:")  # not every shell takes comments
        configure = f"attenscribble configure {number} --cpu --set num_epochs=5"
        commands += [configure, f"nnUNetv2_preprocess -d {number} -c 2d_cpu"]
    how = f"-tr {_TRAINER}{device}"
    commands.append(f"nnUNetv2_train {number} {configuration} {fold} {how}")
    if written.test:
        images = quote(str(written.scribble / "imagesTs"))
        commands.append(f"nnUNetv2_predict -i {images} -o predictions -d {number} -c {configuration} -f {fold} {how}")
    for command in commands:
        typer.echo(f"  {command}")
