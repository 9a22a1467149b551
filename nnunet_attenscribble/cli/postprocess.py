"""`attenscribble postprocess`: smaller components removed, where the scribbles say that a class is one object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.errors import AttenScribbleError

if TYPE_CHECKING:
    from nnunet_attenscribble.evaluation.postprocess_folder import Postprocessed


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
) -> None:
    """Keep only the largest component of every class that the training scribbles show to be one object.

    No dense label is used. Strokes of a class are joined where they lie close together, within a slice and from slice
    to slice. A class is taken for one object when its largest one holds at least --agreement of the strokes, averaged
    over the training cases that show it, of which there must be three. The decision and its evidence are printed and
    written beside the predictions, to attenscribble_postprocessing.json.

    Example:  attenscribble postprocess fold_0/validation "$nnUNet_raw/Dataset501_ACDC/labelsTr" -o postprocessed
    """
    from nnunet_attenscribble.common.progress import show_progress
    from nnunet_attenscribble.evaluation.postprocess_folder import postprocess_folder

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
        progress=lambda items, word: show_progress(items, total=len(items), description=word),
    )
    _print_decisions(result)
    typer.echo(f"wrote {len(result.removed)} predictions to {output}")


def _print_decisions(result: Postprocessed) -> None:
    from nnunet_attenscribble.common.text import format_number, format_plain

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
    typer.echo(format_plain(header, rows))
    for decision in result.decisions:
        typer.echo(f"{decision.structure}: {decision.reason}")
    if result.left_out:
        typer.echo(f"{len(result.left_out)} cases with scribbles are among the predictions and were not looked at")
