"""`attenscribble prepare`: images of one's own, as nnU-Net's prediction wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.common.nnunet import dataset_folder
from nnunet_attenscribble.errors import AttenScribbleError


@app.command()
def prepare(
    dataset: Annotated[
        str, typer.Argument(help="ID or name of the dataset trained with, or the folder of a model or dataset.")
    ],
    images: Annotated[
        Path, typer.Option("--images", "-i", metavar="DIR", help="Images, named and stored as for `convert folder`.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where they are written to.")],
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="X Y Z", help="Of files that state none, such as TIFF (mm; of pictures X and Y)."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; without it one per processor, 8 at most.")
    ] = None,
) -> None:
    """Name and store images as those of a dataset are, for nnUNetv2_predict.

    nnU-Net's prediction finds images by CASE_0000 and the dataset's file ending, and nothing else. They are checked as
    images to train with are, and nothing is written unless every file is in order.

    Example:  attenscribble prepare 601 -i new_images -o prepared
    """
    from nnunet_attenscribble.dataset_conversion.prediction_images import prepare_images

    folder = _find_description(dataset)
    cases = prepare_images(images, output, folder, spacing=spacing, workers=workers, progress=True)
    typer.echo(f"{output} holds {len(cases)} case{'' if len(cases) == 1 else 's'}, as {folder.name} has its images.")
    typer.echo(
        f"\nNext:\n  nnUNetv2_predict -i {output} -o PREDICTIONS -d {dataset} -c CONFIGURATION -f FOLD -tr TRAINER"
    )


def _find_description(dataset: str) -> Path:
    """The folder with the dataset.json: given, or of a raw or else a preprocessed dataset."""
    if (Path(dataset) / "dataset.json").is_file():
        return Path(dataset)
    try:
        return dataset_folder("nnUNet_raw", dataset)
    except AttenScribbleError as error:
        try:  # a model may have come without the images that it has learnt from
            return dataset_folder("nnUNet_preprocessed", dataset)
        except AttenScribbleError:
            raise error from None
