"""Intensities on the common scale that the CRF's sigma refers to."""

from __future__ import annotations

import torch
from torch import Tensor

#: Quantiles closer than this share of a channel's whole range are one value but for rounding.
_ONE_VALUE = 1e-5
# Values sorted at once on a GPU; sorting takes ten times their memory.
_SORTED_AT_ONCE = 1 << 22


def rescale_intensities(image: Tensor, inside: Tensor | None = None, low: float = 0.01, high: float = 0.99) -> Tensor:
    """Map each channel of each sample so that two of its quantiles become 0 and 1, and clip.

    Where more than 98 % of the pixels have one value v, both quantiles are v, and whatever small structure there is
    would be clipped away. There (quantiles closer than 1e-5 of the distance from the smallest to the largest value) the
    quantiles of the pixels that differ from v (by more than that) count instead, and v itself counts as one of them: 0
    is the smaller of v and their lower quantile, 1 the larger of v and their upper one.

    Args:
        image: (N, M, *S).
        inside: (N, 1, *S), true inside the image; pixels outside do not enter the quantiles. None: all inside.
        low, high: the quantiles.

    Returns:
        (N, M, *S) in [0, 1], float32 (float64 for float64 input); a constant channel becomes 0.
    """
    out = image.detach().to(image.dtype if image.dtype == torch.float64 else torch.float32, copy=True)
    if out.device.type == "cuda":
        bottom, top = _ranges_at_once(out, inside, low, high)
        return _rescale(out, bottom, top)
    for n, sample in enumerate(out):
        for channel in sample:
            values = channel.flatten() if inside is None else channel[inside[n, 0]]
            if len(values) == 0:
                channel.zero_()
            else:
                _rescale(channel, *_range(values, low, high))
    return out


def _rescale(x: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
    width = top - bottom
    return x.sub_(bottom).div_(width.where(width > 0, torch.inf)).clamp_(0, 1)


def _range(values: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """What becomes 0 and what 1 of a channel's values, (K,)."""
    (bottom, smallest), (top, largest) = (_quantile(values, q) for q in (low, high))
    margin = _ONE_VALUE * (largest - smallest)
    if top - bottom <= margin:
        others = values[(values < bottom - margin) | (values > top + margin)]
        if len(others):
            bottom, top = bottom.minimum(_quantile(others, low)[0]), top.maximum(_quantile(others, high)[0])
    return bottom, top


def _quantile(values: Tensor, q: float) -> tuple[Tensor, Tensor]:
    """A quantile, and the smallest value, or the largest where q > 0.5."""
    # torch.quantile sorts everything and refuses more than 2^24 values, which a large 3D patch has; the few values
    # beyond a tail's quantile are found faster.
    rank = q * (len(values) - 1)
    from_top = q > 0.5
    lower, upper = int(rank), min(int(rank) + 1, len(values) - 1)
    count = len(values) - lower if from_top else upper + 1
    tail = values.topk(count, largest=from_top).values  # from the outermost inwards
    positions = (len(values) - 1 - lower, len(values) - 1 - upper) if from_top else (lower, upper)
    return torch.lerp(tail[positions[0]], tail[positions[1]], rank - lower), tail[0]


def _ranges_at_once(image: Tensor, inside: Tensor | None, low: float, high: float) -> tuple[Tensor, Tensor]:
    """`_range` of every channel of every sample, each (N, M, 1, ...): no loop over them, and nothing for which a GPU
    has to be waited for."""
    shape = (*image.shape[:2], *(1,) * (image.ndim - 2))
    rows = image.flatten(0, 1).flatten(1)
    if inside is None:
        count = torch.full((len(rows),), rows.shape[1], device=image.device)
    else:
        inside = inside.expand(-1, image.shape[1], *image.shape[2:]).flatten(0, 1).flatten(1)
        count = inside.sum(dim=1)
    several = max(1, _SORTED_AT_ONCE // rows.shape[1])
    ranges = []
    for start in range(0, len(rows), several):
        some = slice(start, start + several)
        values = rows[some] if inside is None else rows[some].masked_fill(~inside[some], torch.inf)
        ranges.append(_ranges_of_sorted(values.sort(dim=1).values, count[some], low, high))
    bottom, top = (torch.cat(ends).view(shape) for ends in zip(*ranges, strict=True))
    return bottom, top


def _ranges_of_sorted(rows: Tensor, count: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """`_range` of the first `count` values of each row, (R,) each; 0 and 0 of a row without any."""
    last = (count - 1).clamp(min=0)

    def quantile(q: float, last: Tensor, gap: Tensor, gap_size: Tensor) -> Tensor:
        rank = q * last.double()
        lower = rank.long()
        ends = torch.stack([lower, (lower + 1).minimum(last)], dim=1)
        ends = ends + (ends >= gap[:, None]) * gap_size[:, None]
        one, other = rows.gather(1, ends.clamp(max=rows.shape[1] - 1)).unbind(1)
        return one.lerp(other, (rank - lower).to(rows.dtype))

    none = torch.zeros_like(count)
    bottom, top = (quantile(q, last, none, none) for q in (low, high))
    margin = _ONE_VALUE * (rows.gather(1, last[:, None])[:, 0] - rows[:, 0])
    # The others are those before and those behind the stretch of one value.
    start = torch.searchsorted(rows, (bottom - margin)[:, None])[:, 0]
    stop = torch.searchsorted(rows, (top + margin)[:, None], right=True)[:, 0]
    stretch = (stop - start).clamp(min=0)
    others = count - stretch
    last_other = (others - 1).clamp(min=0)
    one_value = (top - bottom <= margin) & (others > 0)
    bottom, top = (
        torch.where(one_value, extreme(whole, quantile(q, last_other, start, stretch)), whole)
        for q, whole, extreme in ((low, bottom, torch.minimum), (high, top, torch.maximum))
    )
    return bottom.where(count > 0, 0), top.where(count > 0, 0)
