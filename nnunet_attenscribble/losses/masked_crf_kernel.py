"""The masked CRF's energy and gradient as one Triton kernel; import it only where `kernels_run_on` says that it runs.

What `masked_crf.py` does in a few hundred passes over memory this does in one: the window loop runs inside the kernel,
and the neighbours come out of the cache.
"""

from __future__ import annotations

from math import e as euler
from math import log2

import torch
import triton
import triton.language as tl
from torch import Tensor

_COLUMNS = 32  # of a tile: the lanes of one warp
_CLASSES_AT_ONCE = 8  # their sums stay in registers; more classes take another round
_LOG2_E = log2(euler)
_FAR_AWAY = tl.constexpr(1e6)  # as in masked_crf.py


def fused_energy(
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
        _kernel[(tiles, groups)](
            p, x, m, count, gradient, partial, tiles, depth, height, width,
            *(_LOG2_E * e for e in ([0.0, *exponents] if flat else exponents)),
            CLASSES=classes, CHANNELS=x.shape[1], GROUP=group, CHANNEL_BLOCK=triton.next_power_of_2(x.shape[1]),
            ROWS=rows, COLUMNS=_COLUMNS, REACH_Z=reach_z, REACH_Y=reach_y, REACH_X=reach_x,
            UNROLLED=2 * reach_x + 1 if reach_x <= 5 else 8,
            num_warps=1, maxnreg=128 if group <= 4 else 168,
        )  # fmt: skip
    return (partial.sum(dtype=torch.float64) / count).to(p.dtype), gradient


@triton.jit(do_not_specialize=["tiles", "depth", "height", "width"])
def _kernel(
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
                        valid = (column + dx >= 0) & (column + dx < width) & (dx <= REACH_X)
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
