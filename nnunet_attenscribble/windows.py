"""Pairs of grid positions that see each other through a window, each pair once.

A window of radius (r_1, ..., r_D) holds (2 r_1 + 1) ... (2 r_D + 1) positions. Of the offsets from its centre one
half mirrors the other, so a loss over unordered pairs visits the lexicographically positive half and serves both ends
at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import exp, prod
from typing import Any

import torch
from torch import Tensor

Offset = tuple[int, ...]
Index = tuple[Any, ...]  # of a grid's axes, behind whatever others a tensor has


def half_window(radius: Sequence[int], shape: Sequence[int]) -> list[Offset]:
    """Offsets of one half of the window that fit into a grid of this shape, in lexicographic order.

    Args:
        radius: per axis, in grid positions; 0 switches an axis off.
        shape: grid, so that offsets which no pair on it has are left out.
    """
    reach = [min(r, size - 1) for r, size in zip(radius, shape, strict=True)]
    zero = (0,) * len(reach)
    return [offset for offset in product(*(range(-r, r + 1) for r in reach)) if offset > zero]


def pair_slices(offset: Offset, shape: Sequence[int]) -> tuple[Index, Index]:
    """Index the positions i and their partners j = i + offset; both views have the same shape.

    Returns:
        (index of i, index of j), one slice per axis of the grid, the last of a tensor.
    """
    first = (slice(max(0, -o), size - max(0, o)) for o, size in zip(offset, shape, strict=True))
    second = (slice(max(0, o), size - max(0, -o)) for o, size in zip(offset, shape, strict=True))
    return (..., *first), (..., *second)


def overlap_shape(offset: Offset, shape: Sequence[int]) -> tuple[int, ...]:
    """Shape of the set of positions whose partner at this offset lies on the grid."""
    return tuple(size - abs(o) for o, size in zip(offset, shape, strict=True))


def pair_count(grid: Sequence[int], radius: Sequence[int]) -> int:
    """Number of unordered in-window pairs on the grid."""
    return sum(prod(overlap_shape(offset, grid)) for offset in half_window(radius, grid))


@lru_cache(maxsize=4)
def pair_indices(grid: tuple[int, ...], radius: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Flat positions (i, j) of all in-window pairs, offset by offset as `half_window` lists them.

    Returns:
        two int64 tensors of shape (P,), P as `pair_count`. They depend on nothing but the arguments and must not be
        written to.
    """
    positions = torch.arange(prod(grid), device=device).view(grid)
    slices = [pair_slices(offset, grid) for offset in half_window(radius, grid)]
    nothing = positions.new_empty(0)  # as there may be no pairs
    first = torch.cat([nothing, *(positions[i].flatten() for i, _ in slices)])
    second = torch.cat([nothing, *(positions[j].flatten() for _, j in slices)])
    return first, second


def per_axis(value: float | Sequence[float], ndim: int, name: str) -> tuple:
    """One value for all axes, or one per axis, as a tuple of length `ndim`."""
    values = (value,) * ndim if isinstance(value, (int, float)) else tuple(value)
    if len(values) != ndim:
        raise ValueError(f"{name} has {len(values)} entries for {ndim} spatial axes: {values}")
    return values


def check_radius(radius: int | Sequence[int]) -> None:
    """Refuse a radius that is negative or not whole."""
    values = (radius,) if isinstance(radius, (int, float)) else tuple(radius)
    if any(r < 0 or int(r) != r for r in values):
        raise ValueError(f"radius must be whole and not negative, got {radius}")


def in_plane_share(radius: Sequence[int], sigma: float, spacing: Sequence[float]) -> float:
    """What the positions of the plane weigh of the whole window, by the positional Gaussian.

    Args:
        radius: per axis.
        sigma, spacing: see `position_exponents`.

    Returns:
        between 0 and 1; 1 for images in 2D, for a window that is flat, and for one that has none of the plane.
    """
    exponents = position_exponents(sigma, spacing)

    def weigh(reach: Sequence[int]) -> float:
        offsets = product(*(range(-r, r + 1) for r in reach))
        return sum(position_weight(offset, exponents) for offset in offsets) - 1

    in_plane = weigh([0] * (len(radius) - 2) + list(radius[-2:]))
    return in_plane / weigh(radius) if in_plane > 0 else 1.0


def position_weight(offset: Sequence[int], exponents: Sequence[float]) -> float:
    """The positional Gaussian of an offset, see `position_exponents`."""
    return exp(-sum(e * o * o for e, o in zip(exponents, offset, strict=True)))


def position_exponents(sigma: float, spacing: Sequence[float]) -> list[float]:
    """Per axis, the factor e such that the positional Gaussian of an offset o is exp(-sum_d e_d o_d^2).

    Sigma counts positions in the plane, of the last two axes: of the finer spacing, where the two differ.
    """
    in_plane = min(spacing[-2:])
    return [(s / in_plane) ** 2 / (2 * sigma**2) for s in spacing]


def at_least_float32(x: Tensor) -> Tensor:
    """Float32 of whatever is less precise; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def sum_dtype(device: torch.device) -> torch.dtype:
    """What to sum in: float64, or float32 on Apple GPUs, which have nothing finer."""
    return torch.float32 if device.type == "mps" else torch.float64


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
    table = torch.zeros([2 * r + 1 for r in reach], dtype=torch.int32, device=device)
    *offsets, starts = offset_table(grid, radius, device)[:, -len(grid) - 1 :].unbind(1)
    table[tuple(o.long() + r for o, r in zip(offsets, reach, strict=True))] = starts
    return table.flatten()
