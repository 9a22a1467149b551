"""`attenscribble fingerprint`: nnU-Net's fingerprint of a scribble dataset, from what was drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.common.nnunet import dataset_folder, nnunet_folder


def planning_commands(folder: Path, ids: str, options: str = "") -> list[str]:
    """What to type next with a scribble dataset in nnUNet_raw, `ids` and its twin's; CT needs its fingerprint first."""
    channels = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["channel_names"].values()
    with_ct = any(str(channel).casefold() == "ct" for channel in channels)
    first = [f"attenscribble fingerprint {int(folder.name[7:10])}"] if with_ct else []
    return [*first, f"nnUNetv2_plan_and_preprocess -d {ids} {options}--verify_dataset_integrity"]


@app.command()
def fingerprint(
    dataset: Annotated[str, typer.Argument(help="ID or name of the scribble dataset in nnUNet_raw.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 4,
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

    planned = sorted(file.name for file in preprocessed.glob("*Plans.json"))
    written = write_fingerprint(raw, preprocessed, workers=workers)
    typer.echo(f"{preprocessed / FINGERPRINT}: intensities are those of the drawn classes.")
    size = written[MARK]["median_relative_size_after_cropping"]
    if size != written["median_relative_size_after_cropping"]:
        typer.echo(f"Cropping leaves {100 * size:.0f} % of the images: they will not be normalised within a mask.")
    if planned:
        typer.echo(f"Plans of before ({', '.join(planned)}) do not know of it: plan and preprocess again.")
    typer.echo(f"\nNext:\n  {planning_commands(raw, str(int(raw.name[7:10])))[-1]}")
