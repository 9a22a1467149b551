"""What the attention block of a trained network sees: its features, and its similarities against known labels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_attenscribble.network import SpatialAttentionUNet
from nnunet_attenscribble.similarity import WindowSimilarity
from nnunet_attenscribble.windows import pair_indices, sum_dtype


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
    known = torch.stack([labels == label for label in range(classes)], dim=1)
    shares = pool(known.float(), tuple(grid))
    return torch.where(shares.sum(dim=1) > 0.5, shares.argmax(dim=1), -1)


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
        known &= _touch(first, second, similarity.grid)
    codes = (torch.minimum(one, other) * classes + torch.maximum(one, other))[known]
    precise = sum_dtype(labels.device)
    values = similarity.values.to(precise)[known]
    counts = torch.bincount(codes, minlength=classes**2).to(precise)
    sums = torch.bincount(codes, weights=values, minlength=classes**2)
    return sums.view(classes, classes), counts.view(classes, classes)


def _touch(first: Tensor, second: Tensor, grid: Sequence[int]) -> Tensor:
    touching = torch.ones_like(first, dtype=torch.bool)
    for axis, size in enumerate(grid):
        step = prod(grid[axis + 1 :])
        touching &= ((first // step) % size - (second // step) % size).abs() <= 1
    return touching
