"""`attenscribble attention`: what the attention block of a trained model sees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.common.progress import print_table
from nnunet_attenscribble.common.text import format_mean_sd
from nnunet_attenscribble.errors import AttenScribbleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from nnunet_attenscribble.evaluation.attention_folder import PairMean
    from nnunet_attenscribble.evaluation.structures import Structure
    from nnunet_attenscribble.trained_model import CaseFiles, TrainedModel


@app.command()
def attention(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Folder TRAINER__PLANS__CONFIGURATION of nnUNet_results.")
    ],
    images: Annotated[
        Path, typer.Option("--images", "-i", help="Folder of images, as for nnUNetv2_predict: CASE_0000.nii.gz ...")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; an older one is replaced.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            "-l",
            help="Folder of dense labels of these cases, for the similarity of same and of different classes. "
            "Without it, positions are chosen by the prediction.",
        ),
    ] = None,
    case: Annotated[
        list[str] | None, typer.Option("--case", help="Only this case; may be given several times.")
    ] = None,
    structure: Annotated[
        str | None, typer.Option(help="Show a position in this structure; by default the first that a case has.")
    ] = None,
    fold: Annotated[str, typer.Option("--fold", "-f", help="Fold of the model.")] = "0",
    checkpoint: Annotated[str, typer.Option(help="File of the fold's folder.")] = "checkpoint_final.pth",
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
) -> None:
    """Show the attention map of one position per case, and its similarity to its neighbours.

    Cases are preprocessed by nnU-Net and shown as the network sees them. Per case a PNG, and an NPZ with the numbers.
    With dense labels also similarity.csv: how alike the block finds neighbours of the same class and of different ones;
    dense labels are read here alone, after the training.

    Example:  attenscribble attention nnUNetTrainerAttenScribble__nnUNetPlans__2d -i imagesTs -l labelsTs -o attention
    """
    from nnunet_attenscribble.common.files import replaced_folder
    from nnunet_attenscribble.common.progress import show_progress
    from nnunet_attenscribble.evaluation.attention_folder import ATTENTION_FILE
    from nnunet_attenscribble.network import SpatialAttentionUNet
    from nnunet_attenscribble.trained_model import TrainedModel, read_device

    output = output.absolute()
    if output.exists() and not (output / ATTENTION_FILE).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise AttenScribbleError(f"{output} holds something else: give another folder with -o")
    loaded = TrainedModel(model, fold, checkpoint, read_device(device))
    if not isinstance(loaded.network, SpatialAttentionUNet):
        typer.echo(f"{model.name} has no attention block: there is nothing to show, and nothing was written")
        return
    files = loaded.find_cases(images, labels, case)
    shown = _choose_structures(loaded, structure)
    with replaced_folder(output) as part:
        pairs: list[PairMean] = []
        done = show_progress(files.items(), total=len(files), description="reading cases")
        for name, own in done:
            pairs += _show_case(loaded, name, own, shown, part)
        _write_record(loaded, files, labels is not None, pairs, part)
    _tell(pairs)
    typer.echo(f"wrote {output}")


def _choose_structures(model: TrainedModel, name: str | None) -> list[Structure]:
    from nnunet_attenscribble.evaluation.structures import read_label_coding

    structures = read_label_coding(model.folder / "dataset.json").structures
    chosen = [structure for structure in structures if name in (None, structure.name)]
    if not chosen:
        known = ", ".join(structure.name for structure in structures)
        raise AttenScribbleError(f"--structure {name} is none of the model's: {known}")
    return chosen


def _show_case(
    model: TrainedModel, name: str, files: CaseFiles, structures: list[Structure], folder: Path
) -> list[PairMean]:
    """Write the files of one case.

    Returns:
        its similarities by classes; none without dense labels or without a similarity.
    """
    from nnunet_attenscribble.attention_reading import choose_voxel, read_case, read_position
    from nnunet_attenscribble.common.figures import encode_png
    from nnunet_attenscribble.evaluation.report.attention import AttentionView, draw_view, turn_view, write_view

    case = model.prepare(files.images, files.labels)
    found = read_case(model, case)
    labels = found.predicted if case.labels is None else case.labels
    voxel, at = choose_voxel(labels.numpy(), [structure.values for structure in structures])
    names = [structure.name for structure in structures]
    what = f"no {' or '.join(names)}, the middle of the image" if at is None else names[at]
    view = AttentionView(case=name, structure=what, spacing=case.spacing, **vars(read_position(model, case, voxel)))
    view = turn_view(view, case.axis, case.grid)
    write_view(view, folder / f"{name}.npz")
    (folder / f"{name}.png").write_bytes(encode_png(draw_view(view)))
    return _list_pairs(name, model.label_names, found.similarities)


def _list_pairs(case: str, names: list[str], similarities: Mapping[str, tuple[Tensor, Tensor]]) -> list[PairMean]:
    from nnunet_attenscribble.evaluation.attention_folder import PairMean

    return [
        PairMean(case, kind, names[one], names[other], int(count), float(sums[one, other] / count))
        for kind, (sums, counts) in similarities.items()
        for one in range(len(names))
        for other in range(one, len(names))
        if (count := counts[one, other]) > 0
    ]


def _write_record(
    model: TrainedModel, files: dict[str, CaseFiles], with_labels: bool, pairs: list[PairMean], folder: Path
) -> None:
    from nnunet_attenscribble.common.provenance import list_versions
    from nnunet_attenscribble.evaluation.attention_folder import write_record
    from nnunet_attenscribble.network import grid_shape

    block = model.network.attention
    content = {
        "provenance": model.describe(),
        "versions": list_versions(),
        "labels": "dense" if with_labels else "predicted",
        "block": {
            "similarity": block.similarity,
            "radius": block.radius if block.similarity else None,
            "grid": grid_shape(model.network.encoder.strides, model.patch_size, model.network.attention_stage),
        },
        "cases": list(files),
    }
    write_record(folder, content, pairs)


def _tell(pairs: list[PairMean]) -> None:
    from nnunet_attenscribble.evaluation.attention_folder import average_pairs

    rows = [
        [entry.neighbours, entry.pairs, str(entry.cases), format_mean_sd(entry.mean, entry.sd, 3)]
        for entry in average_pairs(pairs)
    ]
    if rows:
        print_table(["neighbours", "pairs", "cases", "similarity"], rows)
