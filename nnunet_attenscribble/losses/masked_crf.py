"""The masked CRF: unlabelled pixels agree with their neighbours of similar intensity; and the scale of intensities."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, prod

import torch
from torch import Tensor, nn

from nnunet_attenscribble.kernels import kernels_take
from nnunet_attenscribble.windows import (
    check_radius,
    half_window,
    overlap_shape,
    pair_slices,
    per_axis,
    position_exponents,
    sum_dtype,
)

#: The quantiles that become 0 and 1.
LOW, HIGH = 0.01, 0.99
# Quantiles closer than this share of a channel's whole range are one value but for rounding.
_ONE_VALUE = 1e-5
#: Annotated pixels of a sample from which its ranks are read, at most; and how many there must be.
KNOTS, FEWEST = 1024, 64
# Pixels per pass on the CPU: probabilities, their gradient and the buffers of so many pixels stay in a core's cache.
_CPU_PIXELS = 1 << 16
# Intensity of pixels outside the image, in units of sqrt(2) sigma: far from any real one, and its square is still
# finite.
_FAR_AWAY = 1e6


class MaskedCRFLoss(nn.Module):
    """Gated CRF energy with Potts compatibility that only unlabelled pixels receive.

        L_crf = 1 / sum_i m_i * sum_i m_i * sum_{j in W_r(i), j != i} k_ij * (1 - sum_c p_ic p_jc)
        k_ij  = exp(-|pos_i - pos_j|^2 / (2 sigma_position^2) - |x_i - x_j|^2 / (2 sigma_intensity^2))

    W_r(i) is the box of radius r around i, inside the image. A pixel with m_i = 0 influences its neighbours and is not
    influenced. The kernel carries no gradient; memory is a few times that of the probabilities, whatever the radius.

    Args:
        radius: of the window in pixels, for all axes or per axis; 0 switches an axis off.
        sigma_position: in in-plane pixels (of the finer in-plane spacing, where the two differ).
        sigma_intensity: in units of the image, which is expected in [0, 1].
        spacing: of the voxels per axis, in any unit; only ratios matter. None: isotropic.

    References: Tian, Yang, Gao, "AttenScribble", arXiv 2312.06614, L_crf; Obukhov et al., "Gated CRF Loss for Weakly
    Supervised Semantic Image Segmentation", arXiv 1906.04651.
    """

    def __init__(
        self,
        radius: int | Sequence[int] = 5,
        sigma_position: float = 6.0,
        sigma_intensity: float = 0.1,
        spacing: Sequence[float] | None = None,
    ):
        super().__init__()
        check_radius(radius)
        if sigma_position <= 0 or sigma_intensity <= 0:
            raise ValueError(f"sigmas must be positive, got {sigma_position=} and {sigma_intensity=}")
        self.radius = radius
        self.sigma_position = sigma_position
        self.sigma_intensity = sigma_intensity
        self.spacing = spacing

    def forward(self, probabilities: Tensor, image: Tensor, mask: Tensor, inside: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            probabilities: (N, C, *S), 2D or 3D; the only input that receives a gradient.
            image: (N, M, *S), intensities in [0, 1].
            mask: (N, 1, *S), 1 (or true) where a pixel is regularised, 0 on scribbles.
            inside: (N, 1, *S), true inside the image. Pixels outside form no pair and do not count. None: all inside.

        Returns:
            scalar, float32 (float64 for float64 probabilities); exactly 0 where the mask is empty.
        """
        ndim = probabilities.ndim - 2
        shape = (probabilities.shape[0], *probabilities.shape[2:])
        for name, tensor in (("image", image), ("mask", mask), ("inside", inside)):
            if tensor is not None and (tensor.shape[0], *tensor.shape[2:]) != shape:
                raise ValueError(
                    f"{name} {tuple(tensor.shape)} does not fit {tuple(probabilities.shape)} probabilities"
                )
        radius = [int(r) for r in per_axis(self.radius, ndim, "radius")]
        spacing = per_axis(1.0 if self.spacing is None else self.spacing, ndim, "spacing")
        exponents = position_exponents(self.sigma_position, spacing)

        probabilities = probabilities if probabilities.dtype == torch.float64 else probabilities.float()
        dtype = probabilities.dtype
        # In units of sqrt(2) sigma the exponent of the intensity kernel is just the squared difference.
        features = image.detach().to(dtype) / (2**0.5 * self.sigma_intensity)
        weight = mask.detach().to(dtype)
        if inside is not None:
            inside = inside.bool()
            features = features.masked_fill(~inside, _FAR_AWAY)
            weight = weight * inside
        loss, _ = _energy(probabilities, features, weight, radius, exponents)
        return loss


def _samples_per_pass(shape: torch.Size, device: torch.device) -> int:
    # A GPU wants few launches on much data, a CPU wants a working set that fits its cache.
    return shape[0] if device.type != "cpu" else max(1, _CPU_PIXELS // prod(shape[2:]))


@torch.library.custom_op("attenscribble::masked_crf", mutates_args=())
def _energy(
    probabilities: Tensor, features: Tensor, mask: Tensor, radius: list[int], exponents: list[float]
) -> tuple[Tensor, Tensor]:
    """Energy, and its gradient with respect to the probabilities, in one pass over the half window.

    Every unordered pair has the weight w_ij = (m_i + m_j) k_ij, and with g_i = sum_j w_ij p_j the energy is
    sum_pairs w_ij - 1/2 sum_i p_i g_i while its gradient is -g_i: the agreement p_i . p_j itself is never formed.
    """
    if kernels_take(probabilities):
        from nnunet_attenscribble.triton_kernels import fused_crf_energy

        return fused_crf_energy(probabilities, features, mask, radius, exponents)
    gradient = torch.empty_like(probabilities, memory_format=torch.contiguous_format)
    step = _samples_per_pass(probabilities.shape, probabilities.device)
    weights = probabilities.new_empty(step * prod(probabilities.shape[2:]))
    scratch = torch.empty_like(weights)
    total = torch.zeros((), dtype=sum_dtype(probabilities.device), device=probabilities.device)
    for start in range(0, len(probabilities), step):
        some = slice(start, start + step)
        total += _accumulate(
            probabilities[some].contiguous(),
            features[some],
            mask[some, 0],
            gradient[some].zero_(),
            (weights, scratch),
            (radius, exponents),
        )
    count = mask.sum()
    count = count.where(count > 0, 1)
    gradient.div_(-count)
    return (total / count).to(probabilities.dtype), gradient


def _accumulate(
    p: Tensor, x: Tensor, m: Tensor, g: Tensor, buffers: tuple[Tensor, Tensor], window: tuple[list[int], list[float]]
) -> Tensor:
    """Add sum_j w_ij p_j to g for some samples; returns their energy as a scalar of `sum_dtype`."""
    radius, exponents = window
    shape = p.shape[2:]
    total = torch.zeros((), dtype=sum_dtype(p.device), device=p.device)
    zero = p.new_zeros(())
    for offset in half_window(radius, shape):
        i, j = ((..., *s) for s in pair_slices(offset, shape))
        size = (len(p), *overlap_shape(offset, shape))
        w, d = (buffer[: prod(size)].view(size) for buffer in buffers)
        # Few operations, as each is a pass over memory: the positional Gaussian, one number per offset, joins last.
        gaussian = exp(-sum(e * o * o for e, o in zip(exponents, offset, strict=True)))
        torch.sub(x[:, 0][i], x[:, 0][j], out=d)
        torch.addcmul(zero, d, d, value=-1, out=w)
        for channel in range(1, x.shape[1]):
            torch.sub(x[:, channel][i], x[:, channel][j], out=d)
            w.addcmul_(d, d, value=-1)
        w.exp_().mul_(torch.add(m[i], m[j], out=d))
        total += gaussian * w.sum()
        w = w.unsqueeze(1)
        g[i].addcmul_(w, p[j], value=gaussian)
        g[j].addcmul_(w, p[i], value=gaussian)
    return total - 0.5 * (p * g).sum(dtype=total.dtype)


@_energy.register_fake
def _(probabilities, features, mask, radius, exponents):
    return probabilities.new_empty(()), torch.empty_like(probabilities, memory_format=torch.contiguous_format)


def _setup(ctx, inputs, output):
    ctx.save_for_backward(output[1])


def _backward(ctx, grad_loss, _):
    (gradient,) = ctx.saved_tensors
    return gradient * grad_loss, None, None, None, None


_energy.register_autograd(_backward, setup_context=_setup)


def rescale_intensities(image: Tensor, inside: Tensor | None = None) -> Tensor:
    """Map each channel of each sample so that its 1st and 99th percentile become 0 and 1, and clip.

    Where more than 98 % of the pixels have one value v, both percentiles are v, and whatever small structure there is
    would be clipped away. There (percentiles closer than 1e-5 of the distance from the smallest to the largest value)
    the percentiles of the pixels that differ from v (by more than that) count instead, and v itself counts as one of
    them: 0 is the smaller of v and their 1st percentile, 1 the larger of v and their 99th.

    Args:
        image: (N, M, *S).
        inside: (N, 1, *S), true inside the image; pixels outside do not enter the percentiles. None: all inside.

    Returns:
        (N, M, *S) in [0, 1], float32 (float64 for float64 input); a constant channel becomes 0.
    """
    out = image.detach().to(image.dtype if image.dtype == torch.float64 else torch.float32, copy=True)
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
    values = image.detach().to(image.dtype if image.dtype == torch.float64 else torch.float32).flatten(2)
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
    margin = _ONE_VALUE * (highest[:, 0] - lowest[:, 0])
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
