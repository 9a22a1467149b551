"""`attenscribble scribble`: scribbles drawn into the dense labels of any nnU-Net dataset."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.cli.inspect import planning_commands
from nnunet_attenscribble.common.nnunet import FOLDERS, dataset_folder, nnunet_folder
from nnunet_attenscribble.errors import AttenScribbleError

if TYPE_CHECKING:
    from nnunet_attenscribble.dataset_conversion.inspection import ClassCoverage
    from nnunet_attenscribble.dataset_conversion.scribble_dataset import ScribbledDataset


class Style(str, Enum):
    """`scribbles.STYLES`, here without importing that module."""

    interior = "interior"
    interior_and_border = "interior+border"
    skeleton = "skeleton"
    points = "points"


@app.command()
def scribble(
    dataset: Annotated[str, typer.Argument(help="ID or name of a dataset in nnUNet_raw with dense labels.")],
    dataset_id: Annotated[int, typer.Option("--output", "-o", metavar="ID", help="ID of the scribble dataset.")],
    name: Annotated[str | None, typer.Option(help="Its name; by default that of the source with Scribble.")] = None,
    style: Annotated[
        Style, typer.Option(help="What is drawn into every piece of a class; interior follows ACDC's experts.")
    ] = Style.interior,
    thickness: Annotated[float, typer.Option(help="Of strokes, in pixels.")] = 1.25,
    coverage: Annotated[float, typer.Option(help="Share of a piece's pixels under its stroke.")] = 0.16,
    background_distance: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="LOW HIGH", help="From the foreground to the stroke around it, as shares of the foreground's width."
        ),
    ] = (0.1, 0.45),
    background_wander: Annotated[
        float, typer.Option(help="By what share of its distance that stroke comes nearer and goes farther.")
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
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; without it one per processor, 8 at most.")
    ] = None,
) -> None:
    """Draw scribbles into dense labels, as a dataset of its own that shares the images.

    Every class gets strokes, background included, in every slice; no stroke leaves its class. The source is the dense
    twin to compare with. Tells how much of each class is covered and which pieces were missed.

    Example:  attenscribble scribble 4 -o 504

    Example:  attenscribble scribble Dataset004_Hippocampus -o 504 --style interior+border --slices 0.5

    Example:  attenscribble scribble 4 -o 505 --name HippocampusSlices --dense-slices 5
    """
    from nnunet_attenscribble.dataset_conversion.scribble_dataset import scribble_dataset
    from nnunet_attenscribble.dataset_conversion.scribbles import ScribbleRules, read_scribblebench

    source = dataset_folder("nnUNet_raw", dataset)
    given: dict[str, Any] = {
        "style": style.value,
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
    in_environment = {variable: Path(value) for variable in FOLDERS if (value := os.environ.get(variable))}
    result = scribble_dataset(
        source,
        raw_folder=nnunet_folder("nnUNet_raw"),
        dataset_id=dataset_id,
        name=name or f"{source.name.partition('_')[2]}Scribble",
        rules=chosen,
        preprocessed_folder=in_environment.get("nnUNet_preprocessed"),
        results_folder=in_environment.get("nnUNet_results"),
        workers=workers,
        progress=True,
    )
    typer.echo(f"{result.written.scribble} holds {result.written.training} cases; {_tell_images(result, source.name)}.")
    print_coverage(result.coverage)
    for note in result.written.notes:
        typer.secho(f"Note: {note}.", bold=note.startswith("WARNING"))
    assert result.written.scribble is not None
    typer.echo("\nNext:")
    for command in planning_commands(result.written.scribble, str(dataset_id)):
        typer.echo(f"  {command}")


def _tell_images(result: ScribbledDataset, source: str) -> str:
    if result.links == result.images:
        return f"the images are links to {source}"
    if not result.links:
        return f"the images are copies of those of {source}, as .nii.gz"
    return f"{result.links} of {result.images} images are links to {source}, the others copies"


def print_coverage(coverage: dict[str, ClassCoverage]) -> None:
    """A row per class."""
    from nnunet_attenscribble.common.text import format_plain

    rows = [
        [
            name,
            str(entry.scribbled),
            f"{100 * entry.scribbled / entry.voxels:.2f} %" if entry.voxels else "-",
            f"{entry.slices_without} of {entry.slices}",
            f"{entry.pieces_without} of {entry.pieces}",
        ]
        for name, entry in coverage.items()
    ]
    typer.echo(format_plain(["class", "scribbled voxels", "of the class", "slices without", "pieces without"], rows))
