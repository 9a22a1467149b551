"""What Triton kernels need to know of the pairs of a window."""

from __future__ import annotations

from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from nnunet_attenscribble.windows import half_window, overlap_shape


@lru_cache(maxsize=4)
def offset_table(grid: tuple[int, ...], radius: tuple[int, ...], device: torch.device) -> Tensor:
    """The offsets of `half_window` along three axes (0 for the first of two), and where their pairs start among those
    of `pair_indices`: int32 (K, 4)."""
    rows, start = [], 0
    for offset in half_window(radius, grid):
        rows.append([0] * (3 - len(grid)) + [*offset, start])
        start += prod(overlap_shape(offset, grid))
    return torch.tensor(rows, dtype=torch.int32, device=device).view(-1, 4)


@lru_cache(maxsize=4)
def start_table(grid: tuple[int, ...], radius: tuple[int, ...], device: torch.device) -> Tensor:
    """Where the pairs of an offset start, by the offset's place in the whole window in lexicographic order: int32; only
    those of `half_window` are ever read."""
    reach = [min(r, size - 1) for r, size in zip(radius, grid, strict=True)]
    table = torch.zeros([2 * r + 1 for r in reach], dtype=torch.int32)
    start = 0
    for offset in half_window(radius, grid):
        table[tuple(o + r for o, r in zip(offset, reach, strict=True))] = start
        start += prod(overlap_shape(offset, grid))
    return table.flatten().to(device)
