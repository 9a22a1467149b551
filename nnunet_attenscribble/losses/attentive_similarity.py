"""The attentive similarity loss: positions that the attention finds alike are predicted alike."""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_attenscribble.kernels import kernels_take
from nnunet_attenscribble.similarity import WindowSimilarity
from nnunet_attenscribble.windows import (
    at_least_float32,
    check_radius,
    half_window,
    overlap_shape,
    pair_indices,
    pair_slices,
    per_axis,
    position_exponents,
    position_weight,
    sum_dtype,
)

#: Ways in which `AttentiveSimilarityLoss` measures disagreement.
DISAGREEMENTS = ("distance", "potts")


class AttentiveSimilarityLoss(nn.Module):
    """Pairwise energy of the prediction under the learned similarity of neighbours.

        L_as = 1 / (N T) * sum_n sum_i sum_{j in W_r(i), j != i} s_ij * g_ij * d(q_i, q_j)
        g_ij = exp(-|pos_i - pos_j|^2 / (2 sigma_position^2))

    with q the prediction resized linearly to the feature grid of T positions, and d one of

        potts      1 - q_i . q_j, as published
        distance   1/2 |q_i - q_j|^2, which goes beyond the paper

    The two are equal where both positions are wholly of one class. A position of the coarse grid that a border runs
    through is of several, however sure the prediction is of every pixel. Between two such positions `potts` has a
    cost that only vanishes when the border leaves them, so it moves borders and wears thin structures away; `distance`
    has none. A sample with one visible class adds
    nothing (it still counts in N) and gives no gradient.

    Args:
        radius: of the window in grid positions; must equal the similarity's.
        sigma_position: in in-plane positions of the grid (of the finer in-plane spacing, where the two differ).
        spacing: of the grid per axis, in any unit; only ratios matter. None: isotropic.
        detach_similarity: whether the prediction follows a fixed similarity (mode `anchored`) or both learn (`paper`).
        floor: similarities up to here count as 0 and those above as (s - floor) / (1 - floor). A similarity that
            learned from annotated pairs is the probability that two positions are of one class; at a half or below
            nothing asks for the same prediction (beyond the paper, whose floor is 0).
        disagreement: d, see above.

    Reference: Tian, Yang, Gao, "AttenScribble", arXiv 2312.06614, L_as.
    """

    def __init__(
        self,
        radius: int | Sequence[int] = 5,
        sigma_position: float = 6.0,
        spacing: Sequence[float] | None = None,
        detach_similarity: bool = False,
        floor: float = 0.0,
        disagreement: str = "potts",
    ):
        super().__init__()
        if disagreement not in DISAGREEMENTS:
            raise ValueError(f"disagreement must be one of {', '.join(DISAGREEMENTS)}, got {disagreement!r}")
        check_radius(radius)
        if not 0 <= floor < 1:
            raise ValueError(f"floor must be at least 0 and below 1, got {floor}")
        if sigma_position <= 0:
            raise ValueError(f"sigma_position must be positive, got {sigma_position}")
        self.radius = radius
        self.sigma_position = sigma_position
        self.spacing = spacing
        self.detach_similarity = detach_similarity
        self.floor = floor
        self.disagreement = disagreement

    def forward(
        self,
        probabilities: Tensor,
        similarity: WindowSimilarity,
        single_class: Tensor | None = None,
        inside: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            probabilities: (N, C, *S) at any resolution.
            similarity: of the feature grid.
            single_class: (N,) bool, samples whose scribbles show at most one class. None: none of them.
            inside: (N, 1, *S), true inside the image. Grid cells that lie outside by more than half form no pair and
                do not count. None: all inside.

        Returns:
            scalar, float32 (float64 for float64 probabilities).
        """
        ndim = probabilities.ndim - 2
        radius = tuple(int(r) for r in per_axis(self.radius, ndim, "radius"))
        if radius != similarity.radius:
            raise ValueError(f"the loss has radius {radius}, the similarity was computed with {similarity.radius}")
        spacing = per_axis(1.0 if self.spacing is None else self.spacing, ndim, "spacing")
        resized = resize_to_grid(at_least_float32(probabilities), similarity.grid)
        values = similarity.values.detach() if self.detach_similarity else similarity.values
        if self.floor > 0:
            values = (values - self.floor).clamp(min=0) / (1 - self.floor)
        weight = resized.new_ones(len(resized), *similarity.grid)
        if inside is not None:
            weight = (_pool("mean", inside.bool(), similarity.grid) >= 0.5).to(resized.dtype)
        count = weight.sum()
        if single_class is not None:
            weight = weight * (~single_class).view(-1, *(1,) * ndim)
        exponents = position_exponents(self.sigma_position, spacing)
        loss, _, _ = _energy(
            resized,
            values.to(resized.dtype),
            weight,
            count,
            list(radius),
            exponents,
            self.disagreement == "distance",
            values.requires_grad,
        )
        return loss


class AnnotatedPairs(NamedTuple):
    """In-window pairs by what the scribbles know of them, each (N, P).

    Attributes:
        same: bool, annotated at both ends with the same class.
        different: bool, annotated at both ends with two classes.
        first, second: int16, the labels of the ends, negative where unknown.
    """

    same: Tensor
    different: Tensor
    first: Tensor
    second: Tensor


class SimilarityPairLoss(nn.Module):
    """Teach the similarity what the scribbles know, on pairs of annotated positions. Goes beyond the paper.

        1/2 mean over same-class pairs of -log s_ij + 1/2 mean over different-class pairs of -log(1 - s_ij)

    So that a class which fills the image has no more of a voice than a thin one, each of the two means is that of the
    means of every class, or every two classes, that is there; it is 0 where there is no pair. Where the loss is least,
    s_ij is the probability that the two positions are of one class.
    """

    def forward(self, values: Tensor, pairs: AnnotatedPairs, counts: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            values: (N, P), the similarities of the in-window pairs.
            pairs: what is known of them.
            counts: (K, K), how many are of two of K classes: see `count_pairs`.

        Returns:
            scalar.
        """
        # Over all pairs, those of unknown ends with weight 0: a GPU would be waited for to pick out the known ones.
        there = counts > 0
        of_one = torch.eye(len(there), dtype=torch.bool, device=there.device)
        combinations = torch.where(of_one, (there & of_one).sum(), (there & ~of_one).sum() / 2)
        table = torch.where(there, 0.5 / (counts * combinations), 0).to(values.dtype)
        first, second = (end.clamp(min=0).int() for end in (pairs.first, pairs.second))
        known = pairs.same | pairs.different
        weight = table.flatten()[first * len(there) + second] * known
        likelihood = torch.where(pairs.same, values, 1 - values).where(known, 1)
        # Not torch's own, which stops a training for a NaN: on a GPU the whole process, where nnU-Net skips a step.
        return -(weight * _log(likelihood)).sum()


def _log(likelihood: Tensor) -> Tensor:
    # Bounded before it is taken: the gradient of log(0), bounded behind it, is NaN.
    return likelihood.clamp(min=torch.finfo(likelihood.dtype).tiny).log()


def count_pairs(labels: Tensor, classes: int, radius: Sequence[int]) -> Tensor:
    """How many in-window pairs are of two classes.

    Args:
        labels: (N, *grid), 0..classes-1, or negative where unknown.
        classes: K.
        radius: of the window, per axis.

    Returns:
        (K, K) float64, symmetric: pairs of classes a and b at [a, b] and at [b, a].
    """
    exact = sum_dtype(labels.device)
    numbers = torch.arange(classes, device=labels.device).view(-1, *(1,) * (labels.ndim - 1))
    drawn = (labels[:, None] == numbers).float()
    around = drawn
    for axis, r in enumerate(radius, start=2):
        positions = torch.arange(labels.shape[axis - 1], device=labels.device)
        near = ((positions[:, None] - positions).abs() <= r).float()
        around = (around.movedim(axis, -1) @ near).movedim(-1, axis)
    # Every ordered pair, and every position with itself. Whole numbers below 2^24, so float32 is exact.
    ordered = (drawn.flatten(2) @ around.flatten(2).transpose(1, 2)).sum(dim=0, dtype=exact)
    ordered = ordered - drawn.flatten(2).sum(dim=2).sum(dim=0, dtype=exact).diag()
    return torch.where(torch.eye(classes, dtype=torch.bool, device=labels.device), ordered / 2, ordered)


def annotated_pairs(similarity: WindowSimilarity, labels: Tensor) -> AnnotatedPairs:
    """Look up both ends of every in-window pair.

    Args:
        similarity: of the feature grid.
        labels: (N, *grid), the class of a position or a negative value where it is unknown: see `grid_labels`.
    """
    first, second = pair_indices(similarity.grid, similarity.radius, labels.device)
    labels = labels.flatten(1).to(torch.int16)  # gathering is what takes the time
    one, other = labels.index_select(1, first), labels.index_select(1, second)
    known, equal = (one >= 0).logical_and_(other >= 0), one == other
    same, different = known & equal, known.logical_and_(equal.logical_not_())
    return AnnotatedPairs(same, different, one, other)


def grid_labels(target: Tensor, grid: Sequence[int], classes: int) -> tuple[Tensor, Tensor]:
    """Scribbles on the feature grid: the class of each cell in which exactly one class is drawn, -1 elsewhere.

    Args:
        target: (N, 1, *S) labels; values outside 0..classes-1 are no annotation.
        grid: to which S is reduced.
        classes: number of classes.

    Returns:
        (N, *grid) int64, and (N,) bool: whether the scribbles of a sample show one class at most.
    """
    labels = target.to(torch.int16)
    drawn = (labels >= 0) & (labels < classes)
    highest = _pool("amax", torch.where(drawn, labels, -1), grid)
    lowest = -_pool("amax", torch.where(drawn, -labels, -classes), grid)
    single = highest.flatten(1).amax(dim=1) <= lowest.flatten(1).amin(dim=1)  # the cells cover every pixel
    return torch.where(highest == lowest, highest, -1).long(), single


def resize_to_grid(probabilities: Tensor, grid: Sequence[int]) -> Tensor:
    """Resize (N, C, *S) linearly to (N, C, *grid)."""
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    return F.interpolate(probabilities, size=tuple(grid), mode=mode, align_corners=False)


def _pool(kind: str, values: Tensor, grid: Sequence[int]) -> Tensor:
    """The largest ("amax") or, of booleans, the mean value ("mean") of each cell: (N, 1, *S) to (N, *grid)."""
    shape = values.shape[2:]
    if any(size % cells for size, cells in zip(shape, grid, strict=True)):
        pool = getattr(F, f"adaptive_{'max' if kind == 'amax' else 'avg'}_pool{len(grid)}d")
        return pool(values.float(), tuple(grid))[:, 0]
    # Those pools take twice as long on a CPU, and on a GPU are few blocks with long loops. Axis by axis, as a reduction
    # over several at once is slower yet.
    values = values[:, 0]
    for axis, cells in enumerate(grid, start=1):
        if values.shape[axis] == cells:
            continue
        values = values.unflatten(axis, (cells, -1))
        values = values.amax(axis + 1) if kind == "amax" else values.sum(axis + 1, dtype=torch.int32)
    return values if kind == "amax" else values / (prod(shape) // prod(grid))


@torch.library.custom_op("attenscribble::attentive_similarity", mutates_args=())
def _energy(
    q: Tensor,
    values: Tensor,
    weight: Tensor,
    count: Tensor,
    radius: list[int],
    exponents: list[float],
    distance: bool,
    values_need_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Energy and its gradients with respect to the prediction and (if needed) the similarities, in one pass.

    A pair of positions weighs weight_i * weight_j; `count` is what the sum is divided by.
    """
    if kernels_take(q):
        from nnunet_attenscribble.triton_kernels import fused_similarity_energy

        return fused_similarity_energy(q, values, weight, count, radius, exponents, distance, values_need_gradient)
    shape = q.shape[2:]
    q, values = q.contiguous(), values.contiguous()
    half_norm = q.square().sum(dim=1).div_(2) if distance else None
    grad_q = torch.zeros_like(q)
    grad_values = torch.zeros_like(values) if values_need_gradient else values.new_empty(0)
    total = torch.zeros((), dtype=sum_dtype(q.device), device=q.device)
    start = 0
    for offset in half_window(radius, shape):
        i, j = pair_slices(offset, shape)
        size = overlap_shape(offset, shape)
        here = slice(start, start + prod(size))
        start = here.stop
        # Twice, because the sum over i and j meets every unordered pair twice.
        gaussian = 2 * position_weight(offset, exponents)
        factor = weight[i] * weight[j] * gaussian
        disagreement = (q[i] * q[j]).sum(dim=1).neg_()
        disagreement = disagreement.add_(1) if half_norm is None else disagreement.add_(half_norm[i]).add_(half_norm[j])
        disagreement.mul_(factor)
        if values_need_gradient:
            grad_values[:, here] = disagreement.flatten(1)
        similarity = values[:, here].view(-1, *size)
        total += (similarity * disagreement).sum(dtype=total.dtype)
        w = (similarity * factor).unsqueeze(1)
        grad_q[i].addcmul_(w, q[j], value=-1)
        grad_q[j].addcmul_(w, q[i], value=-1)
        if half_norm is not None:
            grad_q[i].addcmul_(w, q[i])
            grad_q[j].addcmul_(w, q[j])
    count = count.where(count > 0, 1)
    return (total / count).to(q.dtype), grad_q.div_(count), grad_values.div_(count)


@_energy.register_fake
def _(q, values, weight, count, radius, exponents, distance, values_need_gradient):
    like_values = torch.empty_like(values, memory_format=torch.contiguous_format)
    grad_values = like_values if values_need_gradient else values.new_empty(0)
    return q.new_empty(()), torch.empty_like(q, memory_format=torch.contiguous_format), grad_values


def _setup(ctx, inputs, output):
    ctx.values_need_gradient = inputs[7]
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.set_materialize_grads(False)  # or backward would fill zeros for them
    ctx.save_for_backward(output[1], output[2])


def _backward(ctx, grad_loss, _, __):
    if grad_loss is None:
        return (None,) * 8
    grad_q, grad_values = ctx.saved_tensors
    grad_values = grad_values * grad_loss if ctx.values_need_gradient else None
    return grad_q * grad_loss, grad_values, None, None, None, None, None, None


_energy.register_autograd(_backward, setup_context=_setup)
