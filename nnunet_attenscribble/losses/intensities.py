"""Intensities on the common scale that the CRF's sigma refers to."""

from __future__ import annotations

import torch
from torch import Tensor


def rescale_intensities(image: Tensor, inside: Tensor | None = None, low: float = 0.01, high: float = 0.99) -> Tensor:
    """Map each channel of each sample so that two of its quantiles become 0 and 1, and clip.

    Args:
        image: (N, M, *S).
        inside: (N, 1, *S), true inside the image; pixels outside do not enter the quantiles. None: all inside.
        low, high: the quantiles.

    Returns:
        (N, M, *S) in [0, 1], float32 (float64 for float64 input); a constant channel becomes 0.
    """
    out = image.detach().to(image.dtype if image.dtype == torch.float64 else torch.float32, copy=True)
    for n, sample in enumerate(out):
        for channel in sample:
            values = channel.flatten() if inside is None else channel[inside[n, 0]]
            if len(values) == 0:
                channel.zero_()
                continue
            bottom, top = _quantile(values, low), _quantile(values, high)
            width = top - bottom
            channel.sub_(bottom).div_(width.where(width > 0, torch.inf)).clamp_(0, 1)
    return out


def _quantile(values: Tensor, q: float) -> Tensor:
    # torch.quantile sorts everything and refuses more than 2^24 values, which a large 3D patch has; the few values
    # beyond a tail's quantile are found faster.
    rank = q * (len(values) - 1)
    from_top = q > 0.5
    lower, upper = int(rank), min(int(rank) + 1, len(values) - 1)
    count = len(values) - lower if from_top else upper + 1
    tail = values.topk(count, largest=from_top).values  # from the outermost inwards
    positions = (len(values) - 1 - lower, len(values) - 1 - upper) if from_top else (lower, upper)
    return torch.lerp(tail[positions[0]], tail[positions[1]], rank - lower)
