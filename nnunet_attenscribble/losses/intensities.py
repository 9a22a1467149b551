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
            ordered = values.sort().values
            bottom, top = (_quantile(ordered, q) for q in (low, high))
            width = top - bottom
            channel.sub_(bottom).div_(width.where(width > 0, torch.inf)).clamp_(0, 1)
    return out


def _quantile(ordered: Tensor, q: float) -> Tensor:
    # torch.quantile refuses more than 2^24 values, which a large 3D patch has.
    rank = q * (len(ordered) - 1)
    lower = int(rank)
    upper = min(lower + 1, len(ordered) - 1)
    return torch.lerp(ordered[lower], ordered[upper], rank - lower)
