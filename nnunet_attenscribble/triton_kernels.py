"""What takes longest as Triton kernels, loss and gradients in one; import them only where `kernels` says that they run.

What PyTorch's operations do in a few hundred passes over memory these do in one: the window loop runs inside the
kernel, and the neighbours come out of the cache.

Of log A at the in-window pairs, q k^T is formed tile by tile on tensor cores and never leaves the multiprocessor:
forward keeps the logarithm of each row's sum and the entries of the window, backward forms the tiles again, once for
the queries and once for the keys. The products of half-precision entries are exact in float32, in which they are added.
In backward the gradients of the logits are rounded to the half precision that the result is rounded to, as shares of
the largest gradient, so that they neither overflow nor vanish.
"""

from __future__ import annotations

from math import e as euler
from math import log2
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nnunet_attenscribble.windows import offset_table, pair_count, pair_indices, start_table

_PIXELS = 1024  # of a program that treats each by itself
_COLUMNS = 32  # of a tile: the lanes of one warp
_CLASSES_AT_ONCE = 8  # their sums stay in registers; more classes take another round
_LOG2_E = log2(euler)
_FUSED = {"enable_fp_fusion": True}  # a product and a sum as one instruction; from Triton 3.10 on not by default
_FAR_AWAY = tl.constexpr(1e6)  # as in masked_crf.py


def probe(device: torch.device) -> None:
    """Compile a kernel and launch it; raises whatever Triton raises where it cannot."""
    with torch.cuda.device(device) if device.type == "cuda" else torch.device(device):
        _probe[(1,)](torch.empty(1, device=device))


@triton.jit
def _probe(out):
    tl.store(out, 1.0)


# --- the intensities ---


def fused_rescaling(rows: Tensor, tails: Tensor, count: Tensor, constants: dict[str, float]) -> Tensor:
    """As `intensities._rescale`, of float32 rows; its constants are compiled in."""
    rows, out = rows.contiguous(), torch.empty_like(rows, memory_format=torch.contiguous_format)
    with torch.cuda.device_of(rows):
        _rescale[(triton.cdiv(rows.shape[1], _PIXELS), len(rows))](
            rows, tails, count, out, rows.shape[1], tails.shape[2],
            BLOCK=_PIXELS, **constants, **_FUSED,
        )  # fmt: skip
    return out


@triton.jit(do_not_specialize=["size", "kept"])
def _rescale(
    rows_ptr, tails_ptr, count_ptr, out_ptr, size, kept,
    TAIL: tl.constexpr, OUTERMOST: tl.constexpr, ONE_VALUE: tl.constexpr, ROUNDING: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK pixels of a row, whose range every one of its programs finds anew."""
    row = tl.program_id(1).to(tl.int64)
    count = tl.load(count_ptr + row)
    lower_ptr = tails_ptr + row * kept
    upper_ptr = lower_ptr + tl.num_programs(1).to(tl.int64) * kept
    last = tl.maximum(count - 1, 0)
    # Both ends as `tails` has them: the upper one negated.
    lower = _quantile(lower_ptr, lower_ptr, last + 1, last, TAIL)
    upper = _quantile(upper_ptr, upper_ptr, last + 1, last, TAIL)
    spread = -tl.load(lower_ptr + count // OUTERMOST) - tl.load(upper_ptr + count // OUTERMOST)
    margin = tl.maximum(ONE_VALUE * spread, ROUNDING * tl.maximum(tl.abs(lower), tl.abs(upper)))
    if -lower - upper <= margin:
        below = tl.zeros([BLOCK], tl.int64)
        above = tl.zeros([BLOCK], tl.int64)
        for start in range(0, kept, BLOCK):
            at = start + tl.arange(0, BLOCK)
            below += (tl.load(lower_ptr + at, mask=at < kept, other=float("inf")) < lower - margin).to(tl.int64)
            above += (tl.load(upper_ptr + at, mask=at < kept, other=float("inf")) < upper - margin).to(tl.int64)
        near, far = tl.sum(below), tl.sum(above)
        if near + far > 0:
            lower = tl.minimum(lower, _quantile(lower_ptr, upper_ptr, near, near + far - 1, TAIL))
            upper = tl.minimum(upper, _quantile(upper_ptr, lower_ptr, far, near + far - 1, TAIL))
    lower = tl.where(count > 0, lower, 0.0)
    width = tl.where(count > 0, -upper, 0.0) - lower
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    pixels = tl.load(rows_ptr + row * size + at, mask=at < size, other=0.0)
    scaled = (pixels - lower) / tl.where(width > 0, width, float("inf"))
    tl.store(out_ptr + row * size + at, tl.minimum(tl.maximum(scaled, 0.0), 1.0), mask=at < size)


@triton.jit
def _quantile(near_ptr, far_ptr, near, last, TAIL: tl.constexpr):
    """As `intensities._quantile`, of one row: ranks from `near` on are counted back from the other end."""
    rank = last // TAIL
    following = tl.minimum(rank + 1, last)
    one = tl.load(near_ptr + rank, mask=rank < near, other=0.0)
    one -= tl.load(far_ptr + last - rank, mask=rank >= near, other=0.0)
    other = tl.load(near_ptr + following, mask=following < near, other=0.0)
    other -= tl.load(far_ptr + last - following, mask=following >= near, other=0.0)
    return one + (last % TAIL).to(tl.float32) / TAIL * (other - one)


def fused_ranks(values: Tensor, knots: Tensor, used: Tensor) -> Tensor:
    """As `intensities._ranks`, of float32 values."""
    samples, channels, pixels = values.shape
    knots, out = knots.contiguous(), torch.empty_like(values)
    with torch.cuda.device_of(values):
        _rank[(triton.cdiv(pixels, _PIXELS), samples * channels)](
            values, knots, used, out, pixels, channels, BITS=knots.shape[2].bit_length() - 1, BLOCK=_PIXELS, **_FUSED
        )
    return out


@triton.jit(do_not_specialize=["size", "channels"])
def _rank(values_ptr, knots_ptr, used_ptr, out_ptr, size, channels, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """One program: BLOCK pixels of a sample's channel, each by bisection of 2^BITS knots."""
    row = tl.program_id(1).to(tl.int64)
    used = tl.load(used_ptr + row // channels)
    knots_ptr += row << BITS
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(values_ptr + row * size + at, mask=at < size, other=0.0)
    darker = tl.zeros([BLOCK], tl.int32)  # knots; of the last one it does not matter
    for bit in tl.static_range(1, BITS + 1):
        step = 1 << (BITS - bit)
        darker += tl.where(tl.load(knots_ptr + darker + step - 1) < value, step, 0)
    last = tl.maximum(used - 1, 1).to(tl.int32)
    upper = tl.minimum(tl.maximum(darker, 1), last)
    low, high = tl.load(knots_ptr + upper - 1), tl.load(knots_ptr + upper)
    between = tl.where(high > low, (value - low) / (high - low), tl.where(value > low, 1.0, 0.0))
    share = (upper - 1 + tl.minimum(tl.maximum(between, 0.0), 1.0)) / last
    tl.store(out_ptr + row * size + at, tl.where(used > 0, share, 0.0), mask=at < size)


# --- the masked CRF ---


def fused_crf_energy(
    probabilities: Tensor, features: Tensor, mask: Tensor, radius: list[int], exponents: list[float]
) -> tuple[Tensor, Tensor]:
    """Energy and its gradient; arguments and results as those of `masked_crf._energy`, all float32."""
    p, x, m = (tensor.contiguous() for tensor in (probabilities, features, mask))
    samples, classes, *shape = p.shape
    flat = len(shape) == 2
    depth, height, width = (1, *shape) if flat else shape
    window = [0, *radius] if flat else radius
    reach_z, reach_y, reach_x = (min(r, size - 1) for r, size in zip(window, (depth, height, width), strict=True))
    # As many rows as a neighbour that is loaded once serves; more than the window is high would be idle mostly.
    rows = min(4 if reach_y >= 4 else 2 if reach_y >= 1 else 1, triton.next_power_of_2(height))
    group = min(triton.next_power_of_2(classes), _CLASSES_AT_ONCE)
    groups = triton.cdiv(classes, group)
    tiles = samples * depth * triton.cdiv(height, rows) * triton.cdiv(width, _COLUMNS)
    count = m.sum(dtype=torch.float64).clamp_(min=1e-30)  # where nothing is regularised, 0 is divided by it
    gradient, partial = torch.empty_like(p), p.new_empty(groups, tiles)
    # Triton launches on the current device, which need not be the tensors'.
    with torch.cuda.device_of(p):
        _crf[(tiles, groups)](
            p, x, m, count, gradient, partial, tiles, depth, height, width,
            *(_LOG2_E * e for e in ([0.0, *exponents] if flat else exponents)),
            CLASSES=classes, CHANNELS=x.shape[1], GROUP=group, CHANNEL_BLOCK=triton.next_power_of_2(x.shape[1]),
            ROWS=rows, COLUMNS=_COLUMNS, REACH_Z=reach_z, REACH_Y=reach_y, REACH_X=reach_x,
            UNROLLED=2 * reach_x + 1 if reach_x <= 5 else 8,
            num_warps=1, maxnreg=128 if group <= 4 else 168, **_FUSED,
        )  # fmt: skip
    return (partial.sum(dtype=torch.float64) / count).to(p.dtype), gradient


@triton.jit(do_not_specialize=["tiles", "depth", "height", "width"])
def _crf(
    p_ptr, x_ptr, m_ptr, count_ptr, gradient_ptr, partial_ptr, tiles, depth, height, width,
    factor_z, factor_y, factor_x,
    CLASSES: tl.constexpr, CHANNELS: tl.constexpr, GROUP: tl.constexpr, CHANNEL_BLOCK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    REACH_Z: tl.constexpr, REACH_Y: tl.constexpr, REACH_X: tl.constexpr, UNROLLED: tl.constexpr,
):  # fmt: skip
    """One program: a tile of ROWS x COLUMNS pixels of one slice, and the sums g_i = sum_j w_ij p_j of GROUP classes.

    No program writes where another does, so the result does not depend on their order. Axes of blocks: class or
    channel, row, column.
    """
    tile, group = tl.program_id(0), tl.program_id(1)
    across, down = tl.cdiv(width, COLUMNS), tl.cdiv(height, ROWS)
    x0, rest = (tile % across) * COLUMNS, tile // across
    y0, rest = (rest % down) * ROWS, rest // down
    z, sample = rest % depth, (rest // depth).to(tl.int64)
    size = depth * height * width
    p_ptr += sample * CLASSES * size
    gradient_ptr += sample * CLASSES * size
    x_ptr += sample * CHANNELS * size
    m_ptr += sample * size

    column = x0 + tl.arange(0, COLUMNS)[None, None, :]
    row = y0 + tl.arange(0, ROWS)[None, :, None]
    on_grid = (row < height) & (column < width)
    here = (z * height + row) * width + column
    classes = group * GROUP + tl.arange(0, GROUP)[:, None, None]
    channels = tl.arange(0, CHANNEL_BLOCK)[:, None, None]
    of_class = classes < CLASSES
    of_channel = channels < CHANNELS
    class_starts = classes.to(tl.int64) * size
    channel_starts = channels.to(tl.int64) * size

    mask = tl.load(m_ptr + here, mask=on_grid, other=0.0)
    scale = 1.2011224087864498  # sqrt(log2(e)): exponents are those of 2
    feature = scale * tl.load(x_ptr + channel_starts + here, mask=of_channel & on_grid, other=0.0)
    sums = tl.zeros([GROUP, ROWS, COLUMNS], tl.float32)
    weights = tl.zeros([1, ROWS, COLUMNS], tl.float32)

    end = tl.minimum(column + REACH_X + 1, width)  # of the neighbours in a row; the last round may run beyond
    for dz in range(-REACH_Z, REACH_Z + 1):
        if (z + dz >= 0) & (z + dz < depth):
            for near in range(tl.maximum(y0 - REACH_Y, 0), tl.minimum(y0 + ROWS + REACH_Y, height)):
                dy = near - row
                position = -(factor_z * dz * dz + factor_y * dy * dy)
                position = tl.where((dy >= -REACH_Y) & (dy <= REACH_Y), position, float("-inf"))
                there = ((z + dz) * height + near) * width + column
                m_line, x_line, p_line = m_ptr + there, x_ptr + channel_starts + there, p_ptr + class_starts + there
                for start in range(-REACH_X, REACH_X + 1, UNROLLED):
                    for step in tl.static_range(UNROLLED):
                        dx = start + step
                        valid = (column + dx >= 0) & (column + dx < end)
                        near_mask = tl.load(m_line + dx, mask=valid, other=0.0)
                        # Beyond the grid as outside the image: so far away that the kernel is 0.
                        near_feature = tl.load(
                            x_line + dx, mask=of_channel & valid, other=tl.where(of_channel, _FAR_AWAY, 0.0)
                        )
                        near_p = tl.load(p_line + dx, mask=of_class & valid, other=0.0)
                        square = (feature - scale * near_feature) * (feature - scale * near_feature)
                        if CHANNELS > 1:
                            square = tl.sum(square, axis=0, keep_dims=True)
                        exponent = position - factor_x * (dx * dx) - square
                        # A pixel is no neighbour of its own.
                        exponent = tl.where((dy == 0) & (dz == 0) & (dx == 0), float("-inf"), exponent)
                        weight = (mask + near_mask) * tl.exp2(exponent)
                        weights += weight
                        sums += weight * near_p

    where = of_class & on_grid
    at = class_starts + here
    count = tl.load(count_ptr)
    tl.store(gradient_ptr + at, -sums / count.to(tl.float32), mask=where)
    p = tl.load(p_ptr + at, mask=where, other=0.0)
    # Sums over j meet every unordered pair twice.
    energy = -0.5 * tl.sum(p * sums)
    if group == 0:
        energy += 0.5 * tl.sum(tl.where(on_grid, weights, 0.0))
    tl.store(partial_ptr + group * tiles + tile, energy)


# --- the attentive similarity ---


def fused_similarity_energy(
    q: Tensor,
    values: Tensor,
    weight: Tensor,
    count: Tensor,
    radius: list[int],
    exponents: list[float],
    distance: bool,
    values_need_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Energy and gradients; arguments and results as those of `attentive_similarity._energy`, all float32."""
    q, values, weight = (x.contiguous() for x in (q, values, weight))
    samples, classes, *grid = q.shape
    table = offset_table(tuple(grid), tuple(radius), q.device)
    flat = len(grid) == 2
    depth, height, width = (1, *grid) if flat else grid
    tokens = depth * height * width
    class_block = triton.next_power_of_2(classes)
    block = 64 if class_block <= 16 else 32
    blocks = triton.cdiv(tokens, block)
    grad_q, partial = torch.empty_like(q), q.new_empty(samples, blocks)
    grad_values = torch.empty_like(values) if values_need_gradient else values.new_empty(0)
    count = count.where(count > 0, 1)
    with torch.cuda.device_of(q):
        _similarity[(blocks, samples)](
            q, values, weight, count, table, grad_q, grad_values, partial,
            values.shape[1], len(table), depth, height, width, *([0.0, *exponents] if flat else exponents),
            CLASSES=classes, CLASS_BLOCK=class_block, BLOCK=block, DISTANCE=distance,
            VALUES_NEED_GRADIENT=values_need_gradient, num_warps=block // 32, **_FUSED,
        )  # fmt: skip
    return (partial.sum(dtype=torch.float64) / count).to(q.dtype), grad_q, grad_values


@triton.jit(do_not_specialize=["pairs", "offsets", "depth", "height", "width"])
def _similarity(
    q_ptr, values_ptr, weight_ptr, count_ptr, table_ptr, grad_q_ptr, grad_values_ptr, partial_ptr,
    pairs, offsets, depth, height, width, exponent_z, exponent_y, exponent_x,
    CLASSES: tl.constexpr, CLASS_BLOCK: tl.constexpr, BLOCK: tl.constexpr, DISTANCE: tl.constexpr,
    VALUES_NEED_GRADIENT: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK positions of one sample and all their partners, of which each is met from both ends."""
    sample = tl.program_id(1).to(tl.int64)
    tokens = depth * height * width
    q_ptr += sample * CLASSES * tokens
    grad_q_ptr += sample * CLASSES * tokens
    weight_ptr += sample * tokens
    values_ptr += sample * pairs
    grad_values_ptr += sample * pairs

    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    z, y, x = i // (height * width), (i // width) % height, i % width
    classes = tl.arange(0, CLASS_BLOCK)[:, None]
    q_lines = q_ptr + classes * tokens
    on_grid, of_class = i < tokens, classes < CLASSES
    q = tl.load(q_lines + i, mask=of_class & on_grid, other=0.0)
    weight = tl.load(weight_ptr + i, mask=on_grid, other=0.0)
    half_norm = 0.5 * tl.sum(q * q, axis=0, keep_dims=True)
    count = tl.load(count_ptr)
    grad_q = tl.zeros([CLASS_BLOCK, BLOCK], tl.float32)
    energy = tl.zeros([1, BLOCK], tl.float32)

    for t in range(offsets):
        dz, dy, dx = tl.load(table_ptr + 4 * t), tl.load(table_ptr + 4 * t + 1), tl.load(table_ptr + 4 * t + 2)
        start = tl.load(table_ptr + 4 * t + 3)
        # Twice, because the sum over i and j meets every unordered pair twice.
        gaussian = 2 * tl.exp(-(exponent_z * dz * dz + exponent_y * dy * dy + exponent_x * dx * dx))
        for end in tl.static_range(2):
            sign = 1 - 2 * end  # the partner of a pair's first position lies at the offset, that of its second opposite
            jz, jy, jx = z + sign * dz, y + sign * dy, x + sign * dx
            valid = on_grid & (jz >= 0) & (jz < depth) & (jy >= 0) & (jy < height) & (jx >= 0) & (jx < width)
            j = (jz * height + jy) * width + jx
            # Where the pair stands: its first position among those that have a partner at this offset.
            fz, fy, fx = z - end * dz, y - end * dy, x - end * dx
            fz, fy, fx = fz - tl.maximum(-dz, 0), fy - tl.maximum(-dy, 0), fx - tl.maximum(-dx, 0)
            pair = start + (fz * (height - tl.abs(dy)) + fy) * (width - tl.abs(dx)) + fx
            near_q = tl.load(q_lines + j, mask=of_class & valid, other=0.0)
            factor = gaussian * weight * tl.load(weight_ptr + j, mask=valid, other=0.0)
            w = factor * tl.load(values_ptr + pair, mask=valid, other=0.0)
            if DISTANCE:
                grad_q += w * (q - near_q)
            else:
                grad_q -= w * near_q
            if end == 0:
                disagreement = -tl.sum(q * near_q, axis=0, keep_dims=True)
                if DISTANCE:
                    disagreement += half_norm + 0.5 * tl.sum(near_q * near_q, axis=0, keep_dims=True)
                else:
                    disagreement += 1
                energy += w * disagreement
                if VALUES_NEED_GRADIENT:
                    tl.store(grad_values_ptr + pair, factor * disagreement / count, mask=valid)

    tl.store(grad_q_ptr + classes * tokens + i, grad_q / count, mask=of_class & on_grid)
    tl.store(partial_ptr + sample * tl.num_programs(0) + tl.program_id(0), tl.sum(energy))


# --- log A ---


def _attention_arguments(query: Tensor, grid: list[int], radius: list[int]) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Sizes, and what the kernels are compiled for."""
    depth, height, width = (1,) * (3 - len(grid)) + tuple(grid)
    reach = [0] * (3 - len(grid)) + [min(r, size - 1) for r, size in zip(radius, grid, strict=True)]
    channels = query.shape[2]
    # More than 256 at once do not fit into a multiprocessor.
    block = max(16, triton.next_power_of_2(channels)) if channels <= 256 else 128
    options = dict(zip(("REACH_Z", "REACH_Y", "REACH_X"), reach, strict=True))
    options |= {"CHANNELS": channels, "CHANNEL_BLOCK": block, "BLOCKS": triton.cdiv(channels, block)}
    options |= {"TILE": 64, "STEP": 32}
    options |= {"num_warps": 4, "num_stages": 3, **_FUSED}
    return (pair_count(grid, radius), depth, height, width), options


def fused_log_attention(
    query: Tensor, key: Tensor, grid: list[int], radius: list[int], factor: float
) -> tuple[Tensor, Tensor]:
    """As `similarity._log_attention`, of half-precision query and key; both results are float32."""
    query, key = query.contiguous(), key.contiguous()
    samples, tokens, _ = query.shape
    sizes, options = _attention_arguments(query, grid, radius)
    pairs = sizes[0]
    entries = torch.empty(samples, 2 * pairs, device=query.device)
    normaliser = torch.empty(samples, tokens, device=query.device)
    starts = start_table(tuple(grid), tuple(radius), query.device)
    with torch.cuda.device_of(query):
        _attention_forward[(triton.cdiv(tokens, options["TILE"]), samples)](
            query, key, starts, entries, normaliser, factor, *sizes, **options
        )
    for half, rows in enumerate(pair_indices(tuple(grid), tuple(radius), query.device)):
        entries[:, half * pairs : (half + 1) * pairs] -= normaliser.index_select(1, rows)
    return entries, normaliser


def fused_log_attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, normaliser: Tensor, grid: list[int], radius: list[int], factor: float
) -> tuple[Tensor, Tensor]:
    """As `similarity._log_attention_backward`, of half-precision query and key."""
    if gradient.numel() == 0:  # no pairs
        return torch.zeros_like(query), torch.zeros_like(key)
    query, key, gradient = query.contiguous(), key.contiguous(), gradient.contiguous()
    samples, tokens, _ = query.shape
    sizes, options = _attention_arguments(query, grid, radius)
    starts = start_table(tuple(grid), tuple(radius), query.device)
    offsets = offset_table(tuple(grid), tuple(radius), query.device)
    grad_query, grad_key, row_sums = torch.empty_like(query), torch.empty_like(key), torch.empty_like(normaliser)
    largest = torch.linalg.vector_norm(gradient, torch.inf).clamp_(min=1e-30)
    with torch.cuda.device_of(query):
        _sum_rows[(triton.cdiv(tokens, 128), samples)](gradient, offsets, row_sums, len(offsets), *sizes, BLOCK=128)
        for own, other, out, of_key in ((query, key, grad_query, False), (key, query, grad_key, True)):
            _attention_backward[(triton.cdiv(tokens, options["TILE"]), samples, options["BLOCKS"])](
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


@triton.jit
def _load_channels(ptr, positions, block, tokens, CHANNELS: tl.constexpr, CHANNEL_BLOCK: tl.constexpr):
    """A block of channels, for positions and channels that broadcast: (T, 1) rows, (1, T) columns."""
    channels = block * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)
    channels = channels[None, :] if positions.shape[1] == 1 else channels[:, None]
    there = (positions < tokens) & (channels < CHANNELS)
    return tl.load(ptr + positions * CHANNELS + channels, mask=there, other=0.0)


@triton.jit(do_not_specialize=["pairs", "depth", "height", "width"])
def _attention_forward(
    query_ptr, key_ptr, starts_ptr, entries_ptr, normaliser_ptr, factor, pairs, depth, height, width,
    REACH_Z: tl.constexpr, REACH_Y: tl.constexpr, REACH_X: tl.constexpr,
    CHANNELS: tl.constexpr, CHANNEL_BLOCK: tl.constexpr, BLOCKS: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """One program: TILE rows of A; entries are still logits."""
    sample, first = tl.program_id(1).to(tl.int64), tl.program_id(0) * TILE
    tokens = depth * height * width
    query_ptr += sample * tokens * CHANNELS
    key_ptr += sample * tokens * CHANNELS
    entries_ptr += sample * 2 * pairs
    i = first + tl.arange(0, TILE)
    query = _load_channels(query_ptr, i[:, None], 0, tokens, CHANNELS, CHANNEL_BLOCK)  # which stays
    largest = tl.full([TILE], float("-inf"), tl.float32)
    total = tl.zeros([TILE], tl.float32)
    for start in range(0, tokens, STEP):
        j = start + tl.arange(0, STEP)
        logits = tl.dot(query, _load_channels(key_ptr, j[None, :], 0, tokens, CHANNELS, CHANNEL_BLOCK))
        if BLOCKS > 1:
            for block in range(1, BLOCKS):
                more = _load_channels(query_ptr, i[:, None], block, tokens, CHANNELS, CHANNEL_BLOCK)
                key = _load_channels(key_ptr, j[None, :], block, tokens, CHANNELS, CHANNEL_BLOCK)
                logits = tl.dot(more, key, logits)
        logits *= factor
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
def _attention_backward(
    own_ptr, other_ptr, starts_ptr, gradient_ptr, largest_ptr, normaliser_ptr, row_sums_ptr, out_ptr,
    factor, pairs, depth, height, width,
    REACH_Z: tl.constexpr, REACH_Y: tl.constexpr, REACH_X: tl.constexpr,
    CHANNELS: tl.constexpr, CHANNEL_BLOCK: tl.constexpr, BLOCKS: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr,
    OF_KEY: tl.constexpr,
):  # fmt: skip
    """One program: the gradient of a block of channels of TILE queries, or of TILE keys, from all keys, or queries.

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
    kept = 0 if BLOCKS == 1 else tl.program_id(2)  # the block of channels of which the gradient is
    channels = kept * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)
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
        other = _load_channels(other_ptr, step[:, None], kept, tokens, CHANNELS, CHANNEL_BLOCK)
        logits = tl.dot(own, tl.trans(other))
        if BLOCKS > 1:
            for further in range(1, BLOCKS):
                block = (kept + further) % BLOCKS
                more = _load_channels(own_ptr, here[:, None], block, tokens, CHANNELS, CHANNEL_BLOCK)
                others = _load_channels(other_ptr, step[:, None], block, tokens, CHANNELS, CHANNEL_BLOCK)
                logits = tl.dot(more, tl.trans(others), logits)
        attention = tl.exp(factor * logits - normaliser)
        # Beyond the last position the logit is 0, and exp(-normaliser) may be infinite.
        grad_logits = tl.where((step < tokens)[None, :], -attention * row_sums, 0.0)
        if _reaches(first, start, height, width, TILE, STEP, REACH_Z, REACH_Y, REACH_X):
            i, j = here[:, None], step[None, :]
            if OF_KEY:
                i, j = step[None, :], here[:, None]
            slots, near = _slots(i, j, starts_ptr, pairs, depth, height, width, REACH_Z, REACH_Y, REACH_X)
            grad_logits += tl.load(gradient_ptr + slots, mask=near, other=0.0)
        out = tl.dot((grad_logits * (1 / largest)).to(own.dtype), other, out)
    tl.store(out_ptr + at, (factor * largest * out).to(own.dtype), mask=there)
