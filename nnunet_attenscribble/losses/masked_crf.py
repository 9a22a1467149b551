"""The masked CRF: unlabelled pixels agree with their neighbours of similar intensity."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from nnunet_attenscribble.kernels import kernels_take
from nnunet_attenscribble.windows import (
    at_least_float32,
    check_radius,
    half_window,
    overlap_shape,
    pair_slices,
    per_axis,
    position_exponents,
    position_weight,
    sum_dtype,
)

# Pixels per pass on the CPU: probabilities, their gradient and the buffers of so many pixels stay in a core's cache.
_CPU_PIXELS = 1 << 16
# Intensity of pixels outside the image, in units of sqrt(2) sigma: far from any real one, and its square is still
# finite.
_FAR_AWAY = 1e6


class MaskedCRFLoss(nn.Module):
    """Gated CRF energy with Potts compatibility that only unlabelled pixels receive.

        L_crf = 1 / sum_i m_i * sum_i m_i * sum_{j in W_r(i), j != i} k_ij * (1 - sum_c p_ic p_jc)
        k_ij  = exp(-|pos_i - pos_j|^2 / (2 sigma_position^2) - |x_i - x_j|^2 / (2 sigma_intensity^2))

    W_r(i) is the box of radius r around i, inside the image. A pixel with m_i = 0 has no term of its own; those of its
    neighbours pull at it, too. The kernel carries no gradient; memory is a few times that of the probabilities,
    whatever the radius.

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

        probabilities = at_least_float32(probabilities)
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
    # A GPU wants few launches on much data, a CPU wants a working set that fits its cache.
    pixels = prod(probabilities.shape[2:])
    step = max(1, _CPU_PIXELS // pixels) if probabilities.device.type == "cpu" else len(probabilities)
    weights = probabilities.new_empty(step * pixels)
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
        i, j = pair_slices(offset, shape)
        size = (len(p), *overlap_shape(offset, shape))
        w, d = (buffer[: prod(size)].view(size) for buffer in buffers)
        # Few operations, as each is a pass over memory: the positional Gaussian, one number per offset, joins last.
        gaussian = position_weight(offset, exponents)
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
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # or backward would fill zeros for it
    ctx.save_for_backward(output[1])


def _backward(ctx, grad_loss, _):
    if grad_loss is None:
        return (None,) * 5
    (gradient,) = ctx.saved_tensors
    return gradient * grad_loss, None, None, None, None


_energy.register_autograd(_backward, setup_context=_setup)
