"""`attenscribble attention`: what the attention block of a trained model sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.errors import AttenScribbleError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from nnunet_attenscribble.evaluation.attention_folder import AttentionRecord, PairMean
    from nnunet_attenscribble.evaluation.report.attention_views import AttentionView
    from nnunet_attenscribble.evaluation.structures import Structure
    from nnunet_attenscribble.trained_model import PreparedCase, TrainedModel, Window

_AT_ONCE = 8  # windows


@dataclass(frozen=True)
class _CaseFiles:
    images: list[Path]
    labels: Path | None


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
    from nnunet_attenscribble.common.progress import show_progress
    from nnunet_attenscribble.common.writing import replaced_folder
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
    files = _find_cases(loaded, images, labels, case)
    shown = _choose_structures(loaded, structure)
    with replaced_folder(output) as part:
        pairs: list[PairMean] = []
        done = show_progress(files.items(), total=len(files), description="reading cases")
        for name, own in done:
            pairs += _show_case(loaded, name, own, shown, part)
        record = _write_record(loaded, files, labels is not None, pairs, part)
    _tell(record)
    typer.echo(f"wrote {output}")


def _find_cases(
    model: TrainedModel, images: Path, labels: Path | None, chosen: list[str] | None
) -> dict[str, _CaseFiles]:
    from nnunetv2.utilities.utils import create_lists_from_splitted_dataset_folder

    ending = model.predictor.dataset_json["file_ending"]
    channels = len(model.predictor.dataset_json["channel_names"])
    problems = [
        f"{kind} {folder} is not a folder"
        for kind, folder in (("--images", images), ("--labels", labels))
        if folder is not None and not folder.is_dir()
    ]
    if problems:
        raise AttenScribbleError(problems)
    found = {
        Path(own[0]).name[: -len(f"_0000{ending}")]: [Path(file) for file in own]
        for own in create_lists_from_splitted_dataset_folder(str(images), ending)
    }
    if not found:
        problems.append(f"{images} has no file that ends like CASE_0000{ending}: give the folder of images")
    for name in chosen or ():
        if name not in found and found:
            problems.append(f"--case {name} has no image in {images}; there are {list_some(list(found))}")
    found = {name: own for name, own in found.items() if not chosen or name in chosen}
    for name, own in found.items():
        try:
            # A file may hold several channels, as a picture in colours does; only then need it be read to know.
            found_channels = len(own) if len(own) == channels else model.count_channels(own)
            if found_channels != channels:
                problems.append(f"{name} has {found_channels} channels in {images}, the model has {channels}")
        except AttenScribbleError as error:
            problems += error.problems
        if labels is not None and not (labels / f"{name}{ending}").is_file():
            problems.append(f"{name} has no dense label in {labels}: add {name}{ending}, or leave out --labels")
    if problems:
        raise AttenScribbleError(problems)
    return {name: _CaseFiles(own, labels and labels / f"{name}{ending}") for name, own in found.items()}


def _choose_structures(model: TrainedModel, name: str | None) -> list[Structure]:
    from nnunet_attenscribble.evaluation.structures import read_label_coding

    structures = read_label_coding(model.folder / "dataset.json").structures
    chosen = [structure for structure in structures if name in (None, structure.name)]
    if not chosen:
        known = ", ".join(structure.name for structure in structures)
        raise AttenScribbleError(f"--structure {name} is none of the model's: {known}")
    return chosen


def _show_case(
    model: TrainedModel, name: str, files: _CaseFiles, structures: list[Structure], folder: Path
) -> list[PairMean]:
    """Write the files of one case.

    Returns:
        its similarities by classes; none without dense labels or without a similarity.
    """
    from nnunet_attenscribble.common.figures import encode_png
    from nnunet_attenscribble.evaluation.report.attention_views import draw_view, write_view

    case = model.prepare(files.images, files.labels)
    windows = list(model.list_windows(tuple(case.image.shape[1:])))
    pairs, predicted = _read_windows(model, name, case, windows)
    view = _make_view(model, name, case, windows, structures, predicted if case.labels is None else case.labels)
    write_view(view, folder / f"{name}.npz")
    (folder / f"{name}.png").write_bytes(encode_png(draw_view(view)))
    return pairs


def _read_windows(
    model: TrainedModel, name: str, case: PreparedCase, windows: list[Window]
) -> tuple[list[PairMean], Tensor]:
    """Similarities by classes over all windows, and the predicted labels (*S)."""
    import torch

    from nnunet_attenscribble.attention_reading import majority_labels, read_features, sum_by_classes
    from nnunet_attenscribble.evaluation.attention_folder import PairMean

    block, names = model.network.attention, model.label_names
    flat = len(model.patch_size) == 2
    predicted = torch.zeros(case.image.shape[1:], dtype=torch.long)
    sums = {kind: torch.zeros(2, len(names), len(names), dtype=torch.float64) for kind in ("window", "adjacent")}
    for start in range(0, len(windows), _AT_ONCE):
        chosen = windows[start : start + _AT_ONCE]
        logits, features = read_features(model.network, _cut(model, case, chosen))
        for window, own in zip(chosen, logits, strict=True):
            labelled = model.predictor.label_manager.convert_logits_to_segmentation(own.cpu())
            predicted[window] = labelled[None].long() if flat else labelled.long()
        if case.labels is None or block.similarity is None:
            continue
        with torch.inference_mode():
            similarity = block.compute_similarity(features)
        known = torch.stack([case.labels[window] for window in chosen])
        cells = majority_labels((known[:, 0] if flat else known).to(features.device), similarity.grid, len(names))
        for kind, total in sums.items():
            total += torch.stack(sum_by_classes(similarity, cells, len(names), adjacent=kind == "adjacent")).cpu()
    pairs = [
        PairMean(name, kind, names[one], names[other], int(total[1, one, other]), float(total[0, one, other] / count))
        for kind, total in sums.items()
        for one in range(len(names))
        for other in range(one, len(names))
        if (count := total[1, one, other]) > 0
    ]
    return pairs, predicted


def _make_view(
    model: TrainedModel,
    name: str,
    case: PreparedCase,
    windows: list[Window],
    structures: list[Structure],
    labels: Tensor,
) -> AttentionView:
    import numpy as np
    import torch

    from nnunet_attenscribble.attention_reading import read_features
    from nnunet_attenscribble.evaluation.report.attention_views import AttentionView

    voxel, what = _choose_voxel(labels.numpy(), structures)
    window = _find_window(windows, voxel)
    features = read_features(model.network, _cut(model, case, [window]))[1]
    block, grid = model.network.attention, tuple(features.shape[2:])
    offset = [at - part.start for at, part in zip(voxel, window, strict=True)][-len(grid) :]
    position = tuple(at * cells // size for at, cells, size in zip(offset, grid, model.patch_size, strict=True))
    plane = position[:-2]  # of the grid; none in 2D
    with torch.inference_mode():
        attended = block.attention_map(features, position)[0][plane].cpu().numpy()
        near = np.full(attended.shape, np.nan, dtype=np.float32)
        if block.similarity is not None:
            around = block.compute_similarity(features).around(position)[0][plane].cpu().numpy()
            near = np.where(around > 0, around, np.nan).astype(np.float32)  # a sigmoid is never 0
    index: tuple[Any, ...] = (voxel[0], *window[1:])
    return AttentionView(
        case=name,
        structure=what,
        image=case.image[0][index].numpy(),
        attention=attended.astype(np.float32),
        similarity=near,
        position=position[-2:],
        cells=int(np.prod(grid)),
        plane=int(voxel[0]),
        spacing=case.spacing,
    )


def _choose_voxel(labels: np.ndarray, structures: list[Structure]) -> tuple[tuple[int, int, int], str]:
    """In the plane with most of a structure, its pixel nearest to its centre; the middle of a case without any."""
    import numpy as np

    for structure in structures:
        mask = np.isin(labels, structure.values)
        if mask.any():
            plane = int(mask.sum(axis=(1, 2)).argmax())
            pixels = np.argwhere(mask[plane])
            row, column = pixels[((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1).argmin()]
            return (plane, int(row), int(column)), structure.name
    middle = tuple(size // 2 for size in labels.shape)
    return middle, f"no {' or '.join(structure.name for structure in structures)}, the middle of the image"


def _find_window(windows: list[Window], voxel: tuple[int, int, int]) -> Window:
    """Of the windows that hold a voxel the one with it closest to its centre."""

    def distance(window: Window) -> float:
        return sum(((part.start + part.stop - 1) / 2 - at) ** 2 for part, at in zip(window, voxel, strict=True))

    holding = [w for w in windows if all(part.start <= at < part.stop for part, at in zip(w, voxel, strict=True))]
    return min(holding, key=distance)


def _cut(model: TrainedModel, case: PreparedCase, windows: list[Window]) -> Tensor:
    import torch

    indices: list[tuple[Any, ...]] = [(slice(None), *window) for window in windows]
    batch = torch.stack([case.image[index] for index in indices])
    return (batch[:, :, 0] if len(model.patch_size) == 2 else batch).to(model.device)


def _write_record(
    model: TrainedModel, files: dict[str, _CaseFiles], with_labels: bool, pairs: list[PairMean], folder: Path
) -> AttentionRecord:
    from nnunet_attenscribble.common.provenance import list_versions
    from nnunet_attenscribble.evaluation.attention_folder import AttentionRecord, write_record
    from nnunet_attenscribble.network import grid_shape

    block = model.network.attention
    record = AttentionRecord(
        provenance=model.describe(),
        versions=list_versions(),
        labels="dense" if with_labels else "predicted",
        block={
            "similarity": block.similarity,
            "radius": list(block.radius) if block.similarity else None,
            "grid": list(grid_shape(model.network.encoder.strides, model.patch_size, model.network.attention_stage)),
        },
        cases=tuple(files),
        pairs=tuple(pairs),
    )
    write_record(record, folder)
    return record


def _tell(record: AttentionRecord) -> None:
    from nnunet_attenscribble.common.text import format_mean_sd, format_plain

    if record.similarity:
        rows = [
            [entry.neighbours, entry.pairs, str(entry.cases), format_mean_sd(entry.mean, entry.sd, 3)]
            for entry in record.similarity
        ]
        typer.echo(format_plain(["neighbours", "pairs", "cases", "similarity"], rows))
