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
