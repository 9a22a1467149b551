"""The intensities that the losses compare: a channel's range, or the ranks in it, becomes 0 to 1."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_attenscribble.windows import at_least_float32, sum_dtype

#: The quantiles that become 0 and 1.
LOW, HIGH = 0.01, 0.99
# Quantiles closer than this share of the distance between a channel's outermost thousandths are one value but for
# rounding. Not of its whole range, or one wrong pixel would flatten the others.
_ONE_VALUE, _OUTERMOST, _ROUNDING = 1e-5, 1000, 1e-6
#: Annotated pixels of a sample from which its ranks are read, at most; and how many there must be.
KNOTS, FEWEST = 1024, 64


def scale_intensities(image: Tensor, annotated: Tensor, inside: Tensor, ranks: bool) -> Tensor:
    """`rank_intensities` or, without `ranks`, `rescale_intensities`."""
    return rank_intensities(image, annotated, inside) if ranks else rescale_intensities(image, inside)


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
    out = image.detach().to(torch.promote_types(image.dtype, torch.float32), copy=True)
    # All samples and channels at once, and nothing for which a GPU would have to be waited for.
    rows = out.flatten(0, 1).flatten(1)
    if inside is not None:
        inside = inside.expand(-1, out.shape[1], *out.shape[2:]).flatten(0, 1).flatten(1)
    bottom, top = (end.view(*out.shape[:2], *(1,) * (out.ndim - 2)) for end in _range(rows, inside))
    width = top - bottom
    return out.sub_(bottom).div_(width.where(width > 0, torch.inf)).clamp_(0, 1)


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
    count = known.sum(dim=1, keepdim=True)
    used = count.clamp(max=KNOTS)
    order = known.cumsum(dim=1) - 1
    slot, before = (index * used // count.clamp(min=1) for index in (order, order - 1))
    taken = known & (slot != before)
    knots = values.new_full((*values.shape[:2], KNOTS + 1), torch.inf)
    # What is not taken goes, as infinity, into one more slot.
    knots.scatter_(
        2, slot.where(taken, KNOTS)[:, None].expand_as(values), values.masked_fill(~taken[:, None], torch.inf)
    )
    knots = knots[..., :KNOTS].sort(dim=2).values

    last = (used - 1).clamp(min=1)[:, None]
    upper = torch.searchsorted(knots, values).clamp(min=1).minimum(last)
    low, high = knots.gather(2, upper - 1), knots.gather(2, upper)
    between = torch.where(high > low, (values - low) / (high - low), (values > low).to(values.dtype))
    ranks = (upper - 1 + between.clamp(0, 1)) / last
    return ranks.where(used[:, None] > 0, 0).view(image.shape)


def _range(rows: Tensor, inside: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What becomes 0 and what 1 of each row.

    Args:
        rows: (R, K).
        inside: (R, K), which of them count. None: all.

    Returns:
        two (R,); 0 and 0 of a row of which none count.
    """
    size = rows.shape[1]
    # torch.quantile sorts everything and refuses more than 2^24 values, which a large 3D patch has. The few values
    # beyond a tail's quantile, from the outermost inwards, are found faster; a row with fewer values needs fewer.
    lowest = _fill(rows, inside, torch.inf).topk(min(size, int(LOW * (size - 1)) + 2), largest=False).values
    highest = _fill(rows, inside, -torch.inf).topk(min(size, size - int(HIGH * (size - 1)) + 1)).values
    count = torch.full((len(rows),), size, device=rows.device) if inside is None else inside.sum(dim=1)
    last = (count - 1).clamp(min=0)

    rank, lower, upper = _ranks(LOW, last)
    bottom = _between(lowest, lower, upper, rank)
    rank, lower, upper = _ranks(HIGH, last)
    top = _between(highest, last - lower, last - upper, rank)

    # Where these are one value, all others lie in the tails.
    outermost = (count // _OUTERMOST)[:, None]
    margin = _ONE_VALUE * (highest.gather(1, outermost) - lowest.gather(1, outermost))[:, 0]
    margin = margin.maximum(_ROUNDING * bottom.abs().maximum(top.abs()))
    below = (lowest < (bottom - margin)[:, None]).sum(dim=1)
    above = (highest > (top + margin)[:, None]).sum(dim=1)
    others = torch.cat([lowest, highest], dim=1)

    def quantile_of_others(q: float) -> Tensor:
        rank, *ends = _ranks(q, (below + above - 1).clamp(min=0))
        # Those above from the innermost outwards.
        lower, upper = (torch.where(r < below, r, lowest.shape[1] + (below + above - 1 - r).clamp(min=0)) for r in ends)
        return _between(others, lower, upper, rank)

    one_value = (top - bottom <= margin) & (below + above > 0)
    bottom = torch.where(one_value, bottom.minimum(quantile_of_others(LOW)), bottom)
    top = torch.where(one_value, top.maximum(quantile_of_others(HIGH)), top)
    return bottom.where(count > 0, 0), top.where(count > 0, 0)


def _fill(rows: Tensor, inside: Tensor | None, value: float) -> Tensor:
    return rows if inside is None else rows.masked_fill(~inside, value)


def _ranks(q: float, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where among values 0..last a quantile lies, and the whole numbers around it."""
    rank = q * last.to(sum_dtype(last.device))
    lower = rank.long()
    return rank - lower, lower, (lower + 1).minimum(last)


def _between(rows: Tensor, lower: Tensor, upper: Tensor, weight: Tensor) -> Tensor:
    one, other = rows.gather(1, torch.stack([lower, upper], dim=1)).unbind(1)
    return one.lerp(other, weight.to(rows.dtype))
