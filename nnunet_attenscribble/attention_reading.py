"""What the attention block of a trained network sees: its features, and its similarities against known labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_attenscribble.network import SpatialAttentionUNet
from nnunet_attenscribble.similarity import WindowSimilarity
from nnunet_attenscribble.trained_model import PreparedCase, TrainedModel, Window
from nnunet_attenscribble.windows import pair_indices, sum_dtype

_AT_ONCE = 8  # windows of two axes; of those of three the network holds one at a time


@dataclass(frozen=True)
class CaseReading:
    """What a model finds in a case.

    Attributes:
        predicted: (*S) int64, labels, each window by itself.
        similarities: by neighbourhood, `window` (all of the block's window) or `adjacent` (those that touch): see
            `sum_by_classes`, over all windows; empty without dense labels or without a similarity.
    """

    predicted: Tensor
    similarities: dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class PositionReading:
    """What the block sees from one position.

    Attributes:
        image: (H, W) float32, the plane of the network's input that the position lies in.
        attention: (h, w) float32, that it pays to every cell of the plane; over the whole grid it adds up to 1.
        similarity: (h, w) float32, to its neighbours; NaN where there is none.
        position: row and column of its cell in the plane.
        cells: number of cells of the whole grid.
        plane: index of the plane along the first axis of the case.
    """

    image: np.ndarray
    attention: np.ndarray
    similarity: np.ndarray
    position: tuple[int, int]
    cells: int
    plane: int


def read_case(model: TrainedModel, case: PreparedCase) -> CaseReading:
    """Run a model with the block over all windows of a case."""
    block, classes = model.network.attention, len(model.label_names)
    windows = list(model.list_windows(tuple(case.image.shape[1:])))
    flat = len(model.patch_size) == 2
    predicted = torch.zeros(case.image.shape[1:], dtype=torch.long)
    kinds = () if case.labels is None or block.similarity is None else ("window", "adjacent")
    totals = {kind: torch.zeros(2, classes, classes, dtype=torch.float64) for kind in kinds}
    at_once = _AT_ONCE if flat else 1
    for start in range(0, len(windows), at_once):
        chosen = windows[start : start + at_once]
        logits, features = read_features(model.network, _cut(model, case, chosen))
        for window, own in zip(chosen, logits, strict=True):
            labelled = model.predictor.label_manager.convert_logits_to_segmentation(own.cpu())
            predicted[window] = labelled[None].long() if flat else labelled.long()
        if case.labels is None or not totals:
            continue
        with torch.inference_mode():
            similarity = block.compute_similarity(features)
        known = torch.stack([case.labels[window] for window in chosen])
        cells = majority_labels((known[:, 0] if flat else known).to(features.device), similarity.grid, classes)
        for kind, total in totals.items():
            total += torch.stack(sum_by_classes(similarity, cells, classes, adjacent=kind == "adjacent")).cpu()
    return CaseReading(predicted, {kind: (total[0], total[1]) for kind, total in totals.items()})


def read_position(model: TrainedModel, case: PreparedCase, voxel: tuple[int, int, int]) -> PositionReading:
    """The attention of the position that a voxel of the case lies in, and its similarity to its neighbours."""
    window = _find_window(list(model.list_windows(tuple(case.image.shape[1:]))), voxel)
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
    return PositionReading(
        image=case.image[0][index].numpy(),
        attention=attended.astype(np.float32),
        similarity=near,
        position=position[-2:],
        cells=prod(grid),
        plane=int(voxel[0]),
    )


def choose_voxel(labels: np.ndarray, structures: Sequence[tuple[int, ...]]) -> tuple[tuple[int, int, int], int | None]:
    """A voxel to look at: in the plane with most of a structure, its pixel nearest to its centre.

    Args:
        labels: (*S), S of three axes.
        structures: the values of each; the first that is there counts.

    Returns:
        the voxel and the number of its structure; the middle and None where there is none of them.
    """
    for number, values in enumerate(structures):
        mask = np.isin(labels, values)
        if mask.any():
            plane = int(mask.sum(axis=(1, 2)).argmax())
            pixels = np.argwhere(mask[plane])
            row, column = pixels[((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1).argmin()]
            return (plane, int(row), int(column)), number
    plane, row, column = (size // 2 for size in labels.shape)
    return (plane, row, column), None


@torch.inference_mode()
def read_features(network: SpatialAttentionUNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """Run the network in inference, and keep what goes into its attention block.

    Args:
        network: with the block.
        images: (N, M, *S).

    Returns:
        logits (N, C, *S) of the full resolution, and the features (N, d, *grid).
    """
    kept: list[Tensor] = []
    hook = network.attention.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    was_training = network.training
    network.eval()
    try:
        logits = network(images)
    finally:
        hook.remove()
        network.train(was_training)
    return logits[0] if isinstance(logits, (list, tuple)) else logits, kept[0]


def majority_labels(labels: Tensor, grid: Sequence[int], classes: int) -> Tensor:
    """Dense labels on the feature grid: the class that most of a cell's pixels have, -1 where most have none.

    Unlike `losses.attentive_similarity.grid_labels`, which takes only cells that scribbles leave in no doubt.

    Args:
        labels: (N, *S); values outside 0..classes-1, such as padding, are no class.
        grid: to which S is reduced; of equal shares the lowest class counts.
        classes: number of classes.

    Returns:
        (N, *grid) int64.
    """
    pool: Any = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[len(grid)]
    most = torch.zeros(len(labels), *grid, device=labels.device)
    total, found = torch.zeros_like(most), torch.full_like(most, -1, dtype=torch.long)
    for label in range(classes):  # one at a time: the masks of a hundred are gigabytes
        share = pool((labels == label).float()[:, None], tuple(grid))[:, 0]
        found.masked_fill_(share > most, label)
        torch.maximum(most, share, out=most)
        total += share
    return found.masked_fill_(total <= 0.5, -1)


def sum_by_classes(
    similarity: WindowSimilarity, labels: Tensor, classes: int, *, adjacent: bool = False
) -> tuple[Tensor, Tensor]:
    """Sums of similarities by the classes of a pair's two ends, and the numbers of pairs.

    Args:
        similarity: of N grids.
        labels: (N, *grid), the class of each position, negative where it is unknown.
        classes: number of classes.
        adjacent: count only pairs that touch, by a face, an edge or a corner, in place of all in the window.

    Returns:
        sums and numbers, each (classes, classes) of `sum_dtype` with the lower class first; pairs once, N grids
        together.
    """
    first, second = pair_indices(similarity.grid, similarity.radius, labels.device)
    flat = labels.flatten(1)
    one, other = flat[:, first], flat[:, second]
    known = (one >= 0) & (other >= 0)
    if adjacent:
        ends = (torch.unravel_index(end, similarity.grid) for end in (first, second))
        known &= torch.stack([(one - other).abs() <= 1 for one, other in zip(*ends, strict=True)]).all(dim=0)
    codes = (torch.minimum(one, other) * classes + torch.maximum(one, other))[known]
    precise = sum_dtype(labels.device)
    values = similarity.values.to(precise)[known]
    counts = torch.bincount(codes, minlength=classes**2).to(precise)
    sums = torch.bincount(codes, weights=values, minlength=classes**2)
    return sums.view(classes, classes), counts.view(classes, classes)


def _find_window(windows: Sequence[Window], voxel: tuple[int, int, int]) -> Window:
    """Of the windows that hold a voxel the one with it closest to its centre."""

    def distance(window: Window) -> float:
        return sum(((part.start + part.stop - 1) / 2 - at) ** 2 for part, at in zip(window, voxel, strict=True))

    holding = [w for w in windows if all(part.start <= at < part.stop for part, at in zip(w, voxel, strict=True))]
    return min(holding, key=distance)


def _cut(model: TrainedModel, case: PreparedCase, windows: Sequence[Window]) -> Tensor:
    """(N, M, *patch), on the model's device."""
    indices: list[tuple[Any, ...]] = [(slice(None), *window) for window in windows]
    batch = torch.stack([case.image[index] for index in indices])
    return (batch[:, :, 0] if len(model.patch_size) == 2 else batch).to(model.device)
