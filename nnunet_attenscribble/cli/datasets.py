"""Raw datasets before they are planned: `attenscribble inspect`, `fingerprint` and `scribble`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.common.files import encode_json, replaced_file
from nnunet_attenscribble.common.nnunet import (
    dataset_folder,
    find_folder,
    nnunet_folder,
    read_dataset_json,
    read_drawn_axis,
)
from nnunet_attenscribble.common.progress import print_table
from nnunet_attenscribble.common.text import counted, format_percent, list_some
from nnunet_attenscribble.dataset_conversion import Style
from nnunet_attenscribble.errors import AttenScribbleError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnunet_attenscribble.dataset_conversion.inspection import ClassCoverage, Inspection
    from nnunet_attenscribble.dataset_conversion.raw_dataset import Writing
    from nnunet_attenscribble.dataset_conversion.scribble_dataset import ScribbledDataset

Item = TypeVar("Item")
_MUCH = 0.1  # share of a case's scribbled voxels that contradict its dense label

Workers = Annotated[int | None, typer.Option(min=1, help="Processes; without it one per processor, 8 at most.")]


@app.command()
def inspect(
    dataset: Annotated[str, typer.Argument(help="ID or name of a dataset in nnUNet_raw.")],
    dense: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET_OR_DIR",
            help="Dense labels to compare with, or `none`; by default those of its twin, if it has one.",
        ),
    ] = None,
    png: Annotated[
        Path | None, typer.Option("--png", "-o", help="Contact sheet; by default DATASET.png in this folder.")
    ] = None,
    cases: Annotated[int, typer.Option(min=0, help="Cases on the contact sheet, evenly chosen; 0 for no sheet.")] = 20,
    channel: Annotated[int, typer.Option(min=0, help="Channel that is shown.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure of every case.")] = None,
    workers: Workers = None,
) -> None:
    """Scribbles by class, slices without, disagreement with dense labels, sizes, intensities, and a contact sheet.

    The contact sheet shows a slice of each of some cases with the scribbles over the scan, and the outlines of the
    dense labels where there are any.

    Example:  attenscribble inspect 501

    Example:  attenscribble inspect 601 --dense labels -o sheet.png --cases 50
    """
    from nnunet_attenscribble.dataset_conversion.description import read_description
    from nnunet_attenscribble.dataset_conversion.inspection import find_twin, inspect_dataset

    source = dataset_folder("nnUNet_raw", dataset)
    channels = len(read_description(source).channels)
    if channel >= channels:
        raise AttenScribbleError(f"channel {channel}: {source.name} has the channels 0 to {channels - 1}")
    if dense is None:
        truth = find_twin(source)
    elif dense == "none":
        truth = None
    else:
        truth = Path(dense) if Path(dense).is_dir() else dataset_folder("nnUNet_raw", dense)
    found = inspect_dataset(source, truth, workers=workers, progress=True)
    _print_findings(source.name, found, None if truth is None else truth.absolute().name)
    target = png or Path(f"{source.name}.png")
    with ExitStack() as parts:  # both files or none
        if json_file is not None:
            content = encode_json({name: asdict(case) for name, case in found.cases.items()}, indent=2)
            parts.enter_context(replaced_file(json_file)).write_text(content, encoding="utf-8")
        if cases:
            _draw(target, source.name, found, cases, channel, read_drawn_axis(source))
    if cases:
        typer.echo(f"\nContact sheet: {target}")


def _print_findings(name: str, found: Inspection, dense: str | None) -> None:
    cases = found.cases.values()
    typer.echo(
        f"{name}: {counted(len(cases), 'training case')}, {counted(sum(case.slices for case in cases), 'slice')}; "
        + (f"dense labels: {dense}" if dense else "no dense labels to compare with")
    )
    _print_classes(found, with_dense=dense is not None)
    if found.description.ignore is not None:
        _print_strokes(found)
    _print_images(found)
    _print_warnings(found)


def _print_classes(found: Inspection, *, with_dense: bool) -> None:
    """What is drawn of each class, and where it agrees with dense labels."""
    from nnunet_attenscribble.dataset_conversion.inspection import sum_coverage

    cases = found.cases.values()
    voxels = sum(case.voxels for case in cases)
    rows = []
    for label in found.description.labels:
        total = sum_coverage([case.classes[label] for case in cases])
        shown = sum(case.shown[label] for case in cases)
        row = [label, str(total.scribbled), format_percent(total.scribbled, voxels), str(shown)]
        if with_dense:
            row += [
                format_percent(total.scribbled - total.wrong, total.voxels),
                f"{total.slices_without} of {total.slices}",
                f"{total.pieces_without} of {total.pieces}",
                f"{total.wrong} ({format_percent(total.wrong, total.scribbled)})",
            ]
        rows.append(row)
    header = ["class", "voxels" if found.description.ignore is None else "scribbled voxels", "of all", "slices with"]
    header += ["of the class", "slices without", "pieces without", "outside the class"] if with_dense else []
    typer.echo()
    print_table(header, rows)


def _print_strokes(found: Inspection) -> None:
    """Where none are, and how far those of background lie from the others."""
    import numpy as np

    without = {name: case.slices_without for name, case in found.cases.items()}
    slices = sum(case.slices for case in found.cases.values())
    typer.echo(f"\nSlices without any scribble: {sum(without.values())} of {slices}{_name_cases(without)}")
    away = [distance for case in found.cases.values() for distance in case.background_distances]
    if away:
        low, middle, high = np.percentile(away, (10, 50, 90))
        typer.echo(
            f"Background strokes to the nearest stroke of a structure: {middle:.3g} mm, "
            f"median of {len(away)} slices ({low:.3g} to {high:.3g} mm in 8 of 10)"
        )


def _print_images(found: Inspection) -> None:
    """Sizes, spacings and intensities."""
    import numpy as np

    from nnunet_attenscribble.dataset_conversion.inspection import PERCENTILES

    def spread(column: np.ndarray) -> tuple[float, float, float]:
        return column.min(), np.median(column), column.max()

    cases = found.cases.values()
    sizes, spacings = (np.array([getattr(case, part) for case in cases]) for part in ("size", "spacing"))
    rows = []
    for axis, letter in enumerate("xyz"[: sizes.shape[1]]):
        for what, values, digits in (("voxels", sizes, 0), ("mm", spacings, 4)):
            rows.append([f"{letter}, {what}", *(f"{part:.{digits}f}" for part in spread(values[:, axis]))])
    typer.echo()
    print_table(["size, spacing", "lowest", "median", "highest"], rows)
    rows = []
    for number, channel in enumerate(found.description.channels.values()):
        values = np.array([case.intensities[number] for case in cases])
        for share, column in zip(PERCENTILES, values.T, strict=True):
            rows.append([f"{channel}, {share} %", *(f"{part:.6g}" for part in spread(column))])
    typer.echo()
    print_table(["intensity percentile", "lowest case", "median case", "highest case"], rows)


def _print_warnings(found: Inspection) -> None:
    from nnunet_attenscribble.dataset_conversion.cases import tell_swapped

    if all(case.spacing == (1, 1, 1) for case in found.cases.values()):
        typer.echo("\nLook at:  every volume says 1 mm along every axis, or says nothing, and nnU-Net plans by that")
    if found.description.ignore is None:
        return
    bare = [name for name, case in found.cases.items() if not case.scribbled]
    much = {
        name: case.wrong / case.scribbled for name, case in found.cases.items() if case.wrong > _MUCH * case.scribbled
    }
    warnings = tell_swapped({name: case.swapped for name, case in found.cases.items()})
    warnings += [f"{len(bare)} cases have no scribble at all: {list_some(bare)}"] if bare else []
    warnings += [
        f"no case has a scribble of {label}: it cannot be learnt"
        for label in found.description.labels
        if not any(case.classes[label].scribbled for case in found.cases.values())
    ]
    if much:
        worst = sorted(much, key=much.__getitem__, reverse=True)
        warnings.append(
            f"in {len(much)} cases more than {100 * _MUCH:.0f} % of the scribbled voxels lie outside their class: "
            + list_some(worst)
        )
    if warnings:
        typer.echo()
    for warning in warnings:
        typer.echo(f"Look at:  {warning}")


def _draw(file: Path, name: str, found: Inspection, count: int, channel: int, axis: int | None) -> None:
    from nnunet_attenscribble.dataset_conversion.contact_sheet import draw_contact_sheet

    names = list(found.files)
    chosen = choose_evenly(names, count)
    draw_contact_sheet(
        file,
        {case: (found.files[case][0][channel], found.files[case][1], found.dense.get(case)) for case in chosen},
        labels=found.description.labels,
        ignore=found.description.ignore,
        title=f"{name}: {len(chosen)} of {len(names)} cases",
        axis=axis,
        progress=True,
    )


def choose_evenly(items: Sequence[Item], count: int) -> list[Item]:
    """So many of them, or all where they are fewer."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def _name_cases(counts: dict[str, int]) -> str:
    worst = sorted((name for name in counts if counts[name]), key=lambda name: (-counts[name], name))
    return f" (most in {list_some([f'{name}: {counts[name]}' for name in worst])})" if worst else ""


def where_to_write(
    workers: int | None, raw: Path | None = None, preprocessed: Path | None = None, trust_scribbles: bool = False
) -> Writing:
    """nnU-Net's folders, by options or by its environment."""
    from nnunet_attenscribble.dataset_conversion.raw_dataset import Writing

    return Writing(
        raw or nnunet_folder("nnUNet_raw"),
        preprocessed or find_folder("nnUNet_preprocessed"),
        find_folder("nnUNet_results"),
        trust_scribbles,
        workers=workers,
        progress=True,
    )


def planning_commands(folder: Path, *twin: Path) -> list[str]:
    """What to type next with a dataset in nnUNet_raw, and its twin; scribbles on CT need their fingerprint first.

    All configurations are planned by that, and those of slices preprocessed, which every dataset has.
    """
    content = read_dataset_json(folder / "dataset.json")
    ids = [str(int(place.name[7:10])) for place in (folder, *twin)]
    needs_fingerprint = "ignore" in content["labels"] and any(
        channel.casefold() == "ct" for channel in content["channel_names"].values()
    )
    first = [f"attenscribble fingerprint {ids[0]}"] if needs_fingerprint else []
    return [*first, f"nnUNetv2_plan_and_preprocess -d {' '.join(ids)} -c 2d --verify_dataset_integrity"]


@app.command()
def fingerprint(
    dataset: Annotated[str, typer.Argument(help="ID or name of the scribble dataset in nnUNet_raw.")],
    workers: Workers = None,
) -> None:
    """Make nnU-Net's fingerprint from what was drawn, before planning: for CT, and for images with zeros around.

    nnU-Net takes unlabelled voxels for foreground. CT would be clipped and scaled by the intensities of the whole
    image; and where much around the object is zero (skull-stripped brains), training and prediction would normalise
    differently. Planning keeps the fingerprint that it finds. For other images it changes nothing.

    Example:  attenscribble fingerprint 501 && nnUNetv2_plan_and_preprocess -d 501
    """
    raw = dataset_folder("nnUNet_raw", dataset)
    preprocessed = nnunet_folder("nnUNet_preprocessed") / raw.name

    from nnunet_attenscribble.dataset_conversion.fingerprint import write_fingerprint
    from nnunet_attenscribble.normalisation import FINGERPRINT, MARK
    from nnunet_attenscribble.plans import list_plans

    planned = [file.name for file in list_plans(preprocessed)]
    written = write_fingerprint(raw, preprocessed, workers=workers)
    typer.echo(f"{preprocessed / FINGERPRINT}: intensities are those of the drawn classes.")
    size = written[MARK]["median_relative_size_after_cropping"]
    if size != written["median_relative_size_after_cropping"]:
        typer.echo(f"Cropping leaves {100 * size:.0f} % of the images: they will not be normalised within a mask.")
    if planned:
        typer.echo(f"Plans of before ({', '.join(planned)}) do not know of it: plan and preprocess again.")
    typer.echo(f"\nNext:\n  {planning_commands(raw)[-1]}")


@app.command()
def scribble(
    dataset: Annotated[str, typer.Argument(help="ID or name of a dataset in nnUNet_raw with dense labels.")],
    dataset_id: Annotated[int, typer.Option("--output", "-o", metavar="ID", help="ID of the scribble dataset.")],
    name: Annotated[str | None, typer.Option(help="Its name; by default that of the source with Scribble.")] = None,
    style: Annotated[
        Style, typer.Option(help="What is drawn into every piece of a class; interior follows ACDC's experts.")
    ] = "interior",
    thickness: Annotated[float, typer.Option(help="Of strokes, in pixels.")] = 1.25,
    coverage: Annotated[float, typer.Option(help="Share of a piece's pixels under its stroke.")] = 0.16,
    background_distance: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="LOW HIGH", help="From the foreground to the stroke around it, as shares of the foreground's width."
        ),
    ] = (0.1, 0.45),
    background_wander: Annotated[
        float, typer.Option(help="Spread (SD of the logarithm) of that stroke's distance.")
    ] = 0.4,
    slices: Annotated[float, typer.Option(help="Share of slices that are annotated.")] = 1.0,
    classes: Annotated[float, typer.Option(help="Share of the classes of a slice that are drawn.")] = 1.0,
    strokes: Annotated[float, typer.Option(help="Share of each class's strokes in a case that are drawn.")] = 1.0,
    dense_slices: Annotated[
        int | None,
        typer.Option(metavar="N", help="In place of strokes: every N-th slice as a whole, the others not at all."),
    ] = None,
    axis: Annotated[
        int | None, typer.Option(help="Across which slices are cut (0 z, 1 y, 2 x); by default the coarsest.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="YML", help="ScribbleBench's scribble_conf.yml, in place of all these.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same strokes.")] = 0,
    workers: Workers = None,
) -> None:
    """Draw scribbles into dense labels, as a dataset of its own that shares the images.

    By default every class gets strokes, background included, in every slice; no stroke leaves its class. The source is
    the dense twin to compare with. Tells how much of each class is covered and which pieces were missed.

    Example:  attenscribble scribble 4 -o 504

    Example:  attenscribble scribble Dataset004_Hippocampus -o 504 --style interior+border --slices 0.5

    Example:  attenscribble scribble 4 -o 505 --name HippocampusSlices --dense-slices 5
    """
    from nnunet_attenscribble.dataset_conversion.scribble_dataset import scribble_dataset
    from nnunet_attenscribble.dataset_conversion.scribbles import ScribbleRules, read_scribblebench

    source = dataset_folder("nnUNet_raw", dataset)
    given: dict[str, Any] = {
        "style": style,
        "thickness": thickness,
        "coverage": coverage,
        "background_distance": background_distance,
        "background_wander": background_wander,
        "slices": slices,
        "classes": classes,
        "strokes": strokes,
    }
    chosen = ScribbleRules(**given, dense_slices=dense_slices, axis=axis, seed=seed)
    if config is not None:
        if chosen != ScribbleRules(seed=seed):
            raise AttenScribbleError("--config says how strokes are drawn: leave out the other options, but for --seed")
        chosen = read_scribblebench(config, seed)
    result = scribble_dataset(
        source,
        dataset_id=dataset_id,
        name=name or f"{source.name.partition('_')[2]}Scribble",
        rules=chosen,
        writing=where_to_write(workers),
    )
    typer.echo(f"{result.written.scribble} holds {result.written.training} cases; {_tell_images(result, source.name)}.")
    _print_coverage(result.coverage)
    for note in result.written.notes:
        typer.secho(f"Note: {note}.", bold=note.startswith("WARNING"))
    assert result.written.scribble is not None
    typer.echo("\nNext:")
    for command in planning_commands(result.written.scribble):
        typer.echo(f"  {command}")


def _tell_images(result: ScribbledDataset, source: str) -> str:
    if result.links == result.images:
        return f"the images are links to {source}"
    if not result.links:
        return f"the images are copies of those of {source}, as .nii.gz"
    return f"{result.links} of {result.images} images are links to {source}, the others copies"


def _print_coverage(coverage: dict[str, ClassCoverage]) -> None:
    """A row per class."""
    rows = [
        [
            name,
            str(entry.scribbled),
            format_percent(entry.scribbled, entry.voxels),
            f"{entry.slices_without} of {entry.slices}",
            f"{entry.pieces_without} of {entry.pieces}",
        ]
        for name, entry in coverage.items()
    ]
    print_table(["class", "scribbled voxels", "of the class", "slices without", "pieces without"], rows)
