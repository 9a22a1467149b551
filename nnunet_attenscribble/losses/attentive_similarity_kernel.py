"""The attentive similarity loss and its gradients as one Triton kernel; see `masked_crf_kernel.py`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from nnunet_attenscribble.windows import offset_table


def fused_energy(
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
        _kernel[(blocks, samples)](
            q, values, weight, count, table, grad_q, grad_values, partial,
            values.shape[1], len(table), depth, height, width, *([0.0, *exponents] if flat else exponents),
            CLASSES=classes, CLASS_BLOCK=class_block, BLOCK=block, DISTANCE=distance,
            VALUES_NEED_GRADIENT=values_need_gradient, num_warps=block // 32,
        )  # fmt: skip
    return (partial.sum(dtype=torch.float64) / count).to(q.dtype), grad_q, grad_values


@triton.jit(do_not_specialize=["pairs", "offsets", "depth", "height", "width"])
def _kernel(
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
