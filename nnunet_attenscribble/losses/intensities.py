"""The intensities that the losses compare: a channel's range, or the ranks in it, becomes 0 to 1."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_attenscribble.kernels import kernels_take
from nnunet_attenscribble.windows import at_least_float32

# One of so many values lies beyond the quantiles that become 0 and 1, on either side.
_TAIL = 100
# Quantiles closer than this share of the distance between a channel's outermost thousandths are one value but for
# rounding. Not of its whole range, or one wrong pixel would flatten the others.
_ONE_VALUE, _OUTERMOST, _ROUNDING = 1e-5, 1000, 1e-6
_CONSTANTS = {"TAIL": _TAIL, "OUTERMOST": _OUTERMOST, "ONE_VALUE": _ONE_VALUE, "ROUNDING": _ROUNDING}
#: Annotated pixels of a sample from which its ranks are read, at most; and how many there must be.
KNOTS, FEWEST = 1024, 64


def rescale_intensities(image: Tensor, inside: Tensor | None = None) -> Tensor:
    """Map each channel of each sample so that its 1st and 99th percentile become 0 and 1, and clip.

    Where more than 98 % of the pixels have one value v, both percentiles are v, and whatever small structure there is
    would be clipped away. There (percentiles closer than 1e-5 of the distance between the outermost thousandths, or
    than 1e-6 of themselves) the percentiles of the pixels that differ from v (by more than that) count instead, and v
    itself counts as one of them: 0 is the smaller of v and their 1st percentile, 1 the larger of v and their 99th.

    Args:
        image: (N, M, *S).
        inside: (N, 1, *S), true inside the image; pixels outside do not enter the percentiles. None: all inside.

    Returns:
        (N, M, *S) in [0, 1], float32 (float64 for float64 input); a constant channel becomes 0.
    """
    # All samples and channels at once, and nothing for which a GPU would have to be waited for.
    rows = at_least_float32(image.detach()).flatten(0, 1).flatten(1)
    if inside is not None:
        inside = inside.bool().expand(-1, image.shape[1], *image.shape[2:]).flatten(0, 1).flatten(1)
    # torch.quantile sorts everything and refuses more than 2^24 values, which a large 3D patch has. The few values
    # beyond a quantile, from the outermost inwards, are found faster; a row with fewer values needs fewer.
    few = min(rows.shape[1], rows.shape[1] // _TAIL + 2)
    lowest = _fill(rows, inside, torch.inf).topk(few, largest=False).values
    highest = _fill(rows, inside, -torch.inf).topk(few).values
    # The upper end is the lower one of the negated values: what is done to one is done to both.
    tails = torch.stack([lowest, -highest])
    count = torch.full_like(rows[:, 0], rows.shape[1], dtype=torch.long) if inside is None else inside.sum(dim=1)
    if kernels_take(rows):
        from nnunet_attenscribble.triton_kernels import fused_rescaling

        return fused_rescaling(rows, tails, count, _CONSTANTS).view(image.shape)
    return _rescale(rows, tails, count).view(image.shape)


def rank_intensities(image: Tensor, annotated: Tensor, inside: Tensor | None = None) -> Tensor:
    """Map each channel of each sample to the share of its annotated pixels that are darker.

    Bright blood varies twice as much as dark muscle, and a kernel of intensities draws the border into the blood. Ranks
    vary alike, and an increasing map of the intensities, as augmentation applies, hardly changes them. Between
    annotated intensities the share is linear, below and above them 0 and 1. Of more than `KNOTS` annotated pixels so
    many are taken, evenly in the order of memory; of a sample with fewer than `FEWEST` all pixels inside count.

    Args:
        image: (N, M, *S).
        annotated: (N, 1, *S), true on scribbles.
        inside: (N, 1, *S), true inside the image; pixels outside do not count. None: all inside.

    Returns:
        (N, M, *S) in [0, 1], float32 (float64 for float64 input); 0 where no pixel is inside.
    """
    values = at_least_float32(image.detach()).flatten(2).contiguous()
    everywhere = torch.ones_like(annotated, dtype=torch.bool) if inside is None else inside.bool()
    everywhere, known = everywhere.flatten(1), (annotated.bool() & everywhere).flatten(1)
    known = known.where(known.sum(dim=1, keepdim=True) >= FEWEST, everywhere)

    # As in `rescale_intensities`: all samples at once, and nothing for which a GPU would have to be waited for.
    known_so_far = known.cumsum(dim=1)
    count = known_so_far[:, -1:]
    used = count.clamp(max=KNOTS)
    knot = torch.arange(KNOTS, device=image.device)
    # Before the k-th of U knots lie k C / U of the C pixels, rounded up.
    pixel = torch.searchsorted(known_so_far, (knot * count + used - 1) // used.clamp(min=1) + 1)
    pixel = pixel.clamp_(max=values.shape[2] - 1)[:, None].expand(-1, values.shape[1], -1)
    knots = values.gather(2, pixel).where((knot < used)[:, None], torch.inf).sort(dim=2).values
    if kernels_take(values):
        from nnunet_attenscribble.triton_kernels import fused_ranks

        return fused_ranks(values, knots, used).view(image.shape)
    return _ranks(values, knots, used).view(image.shape)


def _fill(rows: Tensor, inside: Tensor | None, value: float) -> Tensor:
    return rows if inside is None else rows.masked_fill(~inside, value)


def _rescale(rows: Tensor, tails: Tensor, count: Tensor) -> Tensor:
    """Rescale rows whose outermost values are known.

    Args:
        rows: (R, K).
        tails: (2, R, T), ascending: the lowest values that count of each row, and of each row negated.
        count: (R,), how many values of each row count.

    Returns:
        (R, K); 0 in a row of which none count.
    """
    ends = _quantile(tails, (count - 1).clamp(min=0).expand(2, -1))
    # Where these are one value, all others lie in the tails.
    outermost = tails.gather(2, (count // _OUTERMOST).expand(2, -1)[..., None])[..., 0]
    margin = (-_ONE_VALUE * outermost.sum(dim=0)).maximum(_ROUNDING * ends.abs().amax(dim=0))
    beyond = (tails < (ends - margin)[..., None]).sum(dim=2)
    others = beyond.sum(dim=0)
    # Those of one end from the outermost inwards; what is left of the way to the other end, from there.
    of_others = _quantile(torch.cat([tails, -tails.flip(0)], dim=2), (others - 1).clamp(min=0).expand(2, -1), beyond)
    one_value = (-ends.sum(dim=0) <= margin) & (others > 0)
    ends = ends.minimum(of_others).where(one_value, ends).where(count > 0, 0)
    width = -ends.sum(dim=0)
    return (rows - ends[0, :, None]).div_(width.where(width > 0, torch.inf)[:, None]).clamp_(0, 1)


def _quantile(values: Tensor, last: Tensor, near: Tensor | None = None) -> Tensor:
    """The value with one in `_TAIL` before it, between two of them linearly.

    Args:
        values: (2, R, K) by either end, ascending; with `near` in two halves, ascending from either end.
        last: (2, R), the rank of the last value.
        near: (2, R), how many values the first half holds; those behind are counted back from the other end.

    Returns:
        (2, R).
    """
    lower = last // _TAIL
    ranks = torch.stack([lower, (lower + 1).minimum(last)], dim=2)
    if near is not None:
        ranks = ranks.where(ranks < near[..., None], values.shape[2] // 2 + last[..., None] - ranks)
    one, other = values.gather(2, ranks).unbind(2)
    return one.lerp(other, (last % _TAIL).to(values.dtype) / _TAIL)


def _ranks(values: Tensor, knots: Tensor, used: Tensor) -> Tensor:
    """The share of the knots that are below each value.

    Args:
        values: (N, M, K).
        knots: (N, M, KNOTS), ascending; infinite where fewer are used.
        used: (N, 1), how many are.

    Returns:
        (N, M, K); 0 where none is.
    """
    last = (used - 1).clamp(min=1)[:, None]
    upper = torch.searchsorted(knots, values).clamp(min=1).minimum(last)
    low, high = knots.gather(2, upper - 1), knots.gather(2, upper)
    between = torch.where(high > low, (values - low) / (high - low), (values > low).to(values.dtype))
    ranks = (upper - 1 + between.clamp(0, 1)) / last
    return ranks.where(used[:, None] > 0, 0)
