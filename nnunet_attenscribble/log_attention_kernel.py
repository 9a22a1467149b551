"""log A at the in-window pairs as Triton kernels; see `losses/masked_crf_kernel.py`.

q k^T is formed tile by tile on tensor cores and never leaves the multiprocessor: forward keeps the logarithm of each
row's sum and the entries of the window, backward forms the tiles again, once for the queries and once for the keys.
The products of half-precision entries are exact in float32, in which they are added. In backward the gradients of the
logits are rounded to the half precision that the result is rounded to, as shares of the largest gradient, so that they
neither overflow nor vanish.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nnunet_attenscribble.windows import offset_table, pair_count, pair_indices, start_table


def _arguments(query: Tensor, grid: list[int], radius: list[int]) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Sizes, and what the kernels are compiled for."""
    depth, height, width = (1,) * (3 - len(grid)) + tuple(grid)
    reach = [0] * (3 - len(grid)) + [min(r, size - 1) for r, size in zip(radius, grid, strict=True)]
    channels = query.shape[2]
    block = max(16, triton.next_power_of_2(channels))
    options = dict(zip(("REACH_Z", "REACH_Y", "REACH_X"), reach, strict=True))
    options |= {"CHANNELS": channels, "CHANNEL_BLOCK": block, "TILE": 64, "STEP": 32, "num_warps": 4, "num_stages": 3}
    return (pair_count(grid, radius), depth, height, width), options


def fused_log_attention(
    query: Tensor, key: Tensor, grid: list[int], radius: list[int], factor: float
) -> tuple[Tensor, Tensor]:
    """As `log_attention._log_attention`, of half-precision query and key; both results are float32."""
    query, key = query.contiguous(), key.contiguous()
    samples, tokens, _ = query.shape
    sizes, options = _arguments(query, grid, radius)
    pairs = sizes[0]
    entries = torch.empty(samples, 2 * pairs, device=query.device)
    normaliser = torch.empty(samples, tokens, device=query.device)
    starts = start_table(tuple(grid), tuple(radius), query.device)
    with torch.cuda.device_of(query):
        _forward[(triton.cdiv(tokens, options["TILE"]), samples)](
            query, key, starts, entries, normaliser, factor, *sizes, **options
        )
    for half, rows in enumerate(pair_indices(tuple(grid), tuple(radius), query.device)):
        entries[:, half * pairs : (half + 1) * pairs] -= normaliser.index_select(1, rows)
    return entries, normaliser


def fused_log_attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, normaliser: Tensor, grid: list[int], radius: list[int], factor: float
) -> tuple[Tensor, Tensor]:
    """As `log_attention._log_attention_backward`, of half-precision query and key."""
    if gradient.numel() == 0:  # no pairs
        return torch.zeros_like(query), torch.zeros_like(key)
    query, key, gradient = query.contiguous(), key.contiguous(), gradient.contiguous()
    samples, tokens, _ = query.shape
    sizes, options = _arguments(query, grid, radius)
    starts = start_table(tuple(grid), tuple(radius), query.device)
    offsets = offset_table(tuple(grid), tuple(radius), query.device)
    grad_query, grad_key, row_sums = torch.empty_like(query), torch.empty_like(key), torch.empty_like(normaliser)
    largest = torch.linalg.vector_norm(gradient, torch.inf).clamp_(min=1e-30)
    with torch.cuda.device_of(query):
        _sum_rows[(triton.cdiv(tokens, 128), samples)](gradient, offsets, row_sums, len(offsets), *sizes, BLOCK=128)
        for own, other, out, of_key in ((query, key, grad_query, False), (key, query, grad_key, True)):
            _backward[(triton.cdiv(tokens, options["TILE"]), samples)](
                own,
                other,
                starts,
                gradient,
                largest,
                normaliser,
                row_sums,
                out,
                factor,
                *sizes,
                OF_KEY=of_key,
                **options,
            )
    return grad_query, grad_key


@triton.jit
def _slots(
    i, j, starts_ptr, pairs, depth, height, width,
    REACH_Z: tl.constexpr, REACH_Y: tl.constexpr, REACH_X: tl.constexpr,
):  # fmt: skip
    """Where log A_ij stands among a sample's 2 P entries, and whether it does, for positions i and j that broadcast."""
    iz, iy, ix = i // (height * width), (i // width) % height, i % width
    jz, jy, jx = j // (height * width), (j // width) % height, j % width
    dz, dy, dx = jz - iz, jy - iy, jx - ix
    near = (tl.abs(dz) <= REACH_Z) & (tl.abs(dy) <= REACH_Y) & (tl.abs(dx) <= REACH_X) & (i != j)
    tokens = depth * height * width
    near = near & (i < tokens) & (j < tokens)
    # On the flat grid the first position of a pair is the smaller one.
    swap = j < i
    sign = tl.where(swap, -1, 1)
    dz, dy, dx = sign * dz, sign * dy, sign * dx
    fz, fy, fx = tl.where(swap, jz, iz), tl.where(swap, jy, iy), tl.where(swap, jx, ix)
    box = ((dz + REACH_Z) * (2 * REACH_Y + 1) + dy + REACH_Y) * (2 * REACH_X + 1) + dx + REACH_X
    start = tl.load(starts_ptr + box, mask=near, other=0)
    fz, fy, fx = fz - tl.maximum(-dz, 0), fy - tl.maximum(-dy, 0), fx - tl.maximum(-dx, 0)
    pair = start + (fz * (height - tl.abs(dy)) + fy) * (width - tl.abs(dx)) + fx
    return pair + tl.where(swap, pairs, 0), near


@triton.jit
def _reaches(
    own, other, height, width, TILE: tl.constexpr, STEP: tl.constexpr,
    REACH_Z: tl.constexpr, REACH_Y: tl.constexpr, REACH_X: tl.constexpr,
):  # fmt: skip
    """Whether a tile from `own` on and one from `other` on may hold positions that see each other."""
    reach = (REACH_Z * height + REACH_Y) * width + REACH_X
    return (other <= own + TILE - 1 + reach) & (other + STEP - 1 >= own - reach)


@triton.jit(do_not_specialize=["pairs", "depth", "height", "width"])
def _forward(
    query_ptr, key_ptr, starts_ptr, entries_ptr, normaliser_ptr, factor, pairs, depth, height, width,
    REACH_Z: tl.constexpr, REACH_Y: tl.constexpr, REACH_X: tl.constexpr,
    CHANNELS: tl.constexpr, CHANNEL_BLOCK: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """One program: TILE rows of A; entries are still logits."""
    sample, first = tl.program_id(1).to(tl.int64), tl.program_id(0) * TILE
    tokens = depth * height * width
    query_ptr += sample * tokens * CHANNELS
    key_ptr += sample * tokens * CHANNELS
    entries_ptr += sample * 2 * pairs
    i = first + tl.arange(0, TILE)
    channels = tl.arange(0, CHANNEL_BLOCK)
    query = tl.load(
        query_ptr + i[:, None] * CHANNELS + channels[None, :],
        mask=(i[:, None] < tokens) & (channels[None, :] < CHANNELS), other=0.0,
    )  # fmt: skip
    largest = tl.full([TILE], float("-inf"), tl.float32)
    total = tl.zeros([TILE], tl.float32)
    for start in range(0, tokens, STEP):
        j = start + tl.arange(0, STEP)
        key = tl.load(
            key_ptr + j[None, :] * CHANNELS + channels[:, None],
            mask=(j[None, :] < tokens) & (channels[:, None] < CHANNELS), other=0.0,
        )  # fmt: skip
        logits = factor * tl.dot(query, key)
        if _reaches(first, start, height, width, TILE, STEP, REACH_Z, REACH_Y, REACH_X):
            slots, near = _slots(
                i[:, None], j[None, :], starts_ptr, pairs, depth, height, width, REACH_Z, REACH_Y, REACH_X
            )
            tl.store(entries_ptr + slots, logits, mask=near)
        logits = tl.where(j[None, :] < tokens, logits, float("-inf"))
        larger = tl.maximum(largest, tl.max(logits, axis=1))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(logits - larger[:, None]), axis=1)
        largest = larger
    tl.store(normaliser_ptr + sample * tokens + i, largest + tl.log(total), mask=i < tokens)


@triton.jit(do_not_specialize=["offsets", "pairs", "depth", "height", "width"])
def _sum_rows(gradient_ptr, offsets_ptr, sums_ptr, offsets, pairs, depth, height, width, BLOCK: tl.constexpr):
    """sum_j of the gradients of log A_ij, for BLOCK positions i."""
    sample = tl.program_id(1).to(tl.int64)
    tokens = depth * height * width
    gradient_ptr += sample * 2 * pairs
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    z, y, x = i // (height * width), (i // width) % height, i % width
    total = tl.zeros([BLOCK], tl.float32)
    for t in range(offsets):
        dz, dy, dx = tl.load(offsets_ptr + 4 * t), tl.load(offsets_ptr + 4 * t + 1), tl.load(offsets_ptr + 4 * t + 2)
        start = tl.load(offsets_ptr + 4 * t + 3)
        for end in tl.static_range(2):
            sign = 1 - 2 * end
            jz, jy, jx = z + sign * dz, y + sign * dy, x + sign * dx
            valid = (i < tokens) & (jz >= 0) & (jz < depth) & (jy >= 0) & (jy < height) & (jx >= 0) & (jx < width)
            fz, fy, fx = z - end * dz, y - end * dy, x - end * dx
            fz, fy, fx = fz - tl.maximum(-dz, 0), fy - tl.maximum(-dy, 0), fx - tl.maximum(-dx, 0)
            pair = start + (fz * (height - tl.abs(dy)) + fy) * (width - tl.abs(dx)) + fx
            total += tl.load(gradient_ptr + end * pairs + pair, mask=valid, other=0.0)
    tl.store(sums_ptr + sample * tokens + i, total, mask=i < tokens)


@triton.jit(do_not_specialize=["pairs", "depth", "height", "width"])
def _backward(
    own_ptr, other_ptr, starts_ptr, gradient_ptr, largest_ptr, normaliser_ptr, row_sums_ptr, out_ptr,
    factor, pairs, depth, height, width,
    REACH_Z: tl.constexpr, REACH_Y: tl.constexpr, REACH_X: tl.constexpr,
    CHANNELS: tl.constexpr, CHANNEL_BLOCK: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr,
    OF_KEY: tl.constexpr,
):  # fmt: skip
    """One program: the gradient of TILE queries, or of TILE keys, from all keys, or queries.

    With e_ij the gradient of log A_ij, that of the logit is [j in window] e_ij - A_ij sum_l e_il.
    """
    sample, first = tl.program_id(1).to(tl.int64), tl.program_id(0) * TILE
    tokens = depth * height * width
    own_ptr += sample * tokens * CHANNELS
    other_ptr += sample * tokens * CHANNELS
    out_ptr += sample * tokens * CHANNELS
    gradient_ptr += sample * 2 * pairs
    normaliser_ptr += sample * tokens
    row_sums_ptr += sample * tokens
    here = first + tl.arange(0, TILE)
    channels = tl.arange(0, CHANNEL_BLOCK)
    at = here[:, None] * CHANNELS + channels[None, :]
    there = (here[:, None] < tokens) & (channels[None, :] < CHANNELS)
    own = tl.load(own_ptr + at, mask=there, other=0.0)
    out = tl.zeros([TILE, CHANNEL_BLOCK], tl.float32)
    largest = tl.load(largest_ptr)
    if not OF_KEY:  # rows of A are queries: their own
        normaliser = tl.load(normaliser_ptr + here, mask=here < tokens, other=float("inf"))[:, None]
        row_sums = tl.load(row_sums_ptr + here, mask=here < tokens, other=0.0)[:, None]
    for start in range(0, tokens, STEP):
        step = start + tl.arange(0, STEP)
        if OF_KEY:
            normaliser = tl.load(normaliser_ptr + step, mask=step < tokens, other=float("inf"))[None, :]
            row_sums = tl.load(row_sums_ptr + step, mask=step < tokens, other=0.0)[None, :]
        other = tl.load(
            other_ptr + step[:, None] * CHANNELS + channels[None, :],
            mask=(step[:, None] < tokens) & (channels[None, :] < CHANNELS), other=0.0,
        )  # fmt: skip
        attention = tl.exp(factor * tl.dot(own, tl.trans(other)) - normaliser)
        grad_logits = -attention * row_sums
        if _reaches(first, start, height, width, TILE, STEP, REACH_Z, REACH_Y, REACH_X):
            i, j = here[:, None], step[None, :]
            if OF_KEY:
                i, j = step[None, :], here[:, None]
            slots, near = _slots(i, j, starts_ptr, pairs, depth, height, width, REACH_Z, REACH_Y, REACH_X)
            grad_logits += tl.load(gradient_ptr + slots, mask=near, other=0.0)
        out = tl.dot((grad_logits * (1 / largest)).to(own.dtype), other, out)
    tl.store(out_ptr + at, (factor * largest * out).to(own.dtype), mask=there)
