"""The similarity of neighbouring positions, read off a self-attention without ever storing its matrix."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, prod
from typing import NamedTuple

import torch
from torch import Tensor

from nnunet_attenscribble.log_attention import attend_with_window, window_log_attention
from nnunet_attenscribble.windows import pair_indices

_LARGEST_LOGIT = 15.0


class WindowSimilarity(NamedTuple):
    """Symmetric similarities of the in-window pairs of a grid, each pair once.

    Attributes:
        values: (N, P), s_ij in (0, 1); pairs in the order of `pair_indices(grid, radius)`.
        grid: feature-grid shape, (h, w) or (d, h, w).
        radius: of the window, per axis.
    """

    values: Tensor
    grid: tuple[int, ...]
    radius: tuple[int, ...]

    def dense(self) -> Tensor:
        """The (N, T, T) matrix, T = prod(grid), zero for pairs outside the window. For tests and tiny grids."""
        first, second = pair_indices(self.grid, self.radius, self.values.device)
        tokens = prod(self.grid)
        matrix = self.values.new_zeros(len(self.values), tokens, tokens)
        matrix[:, first, second] = self.values
        matrix[:, second, first] = self.values
        return matrix

    @classmethod
    def from_dense(cls, matrix: Tensor, grid: Sequence[int], radius: Sequence[int]) -> WindowSimilarity:
        """The in-window entries of a symmetric (N, T, T) matrix."""
        grid, radius = tuple(grid), tuple(radius)
        first, second = pair_indices(grid, radius, matrix.device)
        return cls(matrix[:, first, second], grid, radius)

    def around(self, position: Sequence[int]) -> Tensor:
        """Similarities of one position to its neighbours as (N, *grid) maps, zero elsewhere. For pictures."""
        first, second = pair_indices(self.grid, self.radius, self.values.device)
        strides = [prod(self.grid[axis + 1 :]) for axis in range(len(self.grid))]
        token = sum(p * s for p, s in zip(position, strides, strict=True))
        maps = self.values.new_zeros(len(self.values), prod(self.grid))
        maps[:, second[first == token]] = self.values[:, first == token]
        maps[:, first[second == token]] = self.values[:, second == token]
        return maps.view(len(self.values), *self.grid)


def paper_similarity(query: Tensor, key: Tensor, grid, radius, scale: Tensor, bias: Tensor) -> WindowSimilarity:
    """s_ij = sigmoid(a (A_ij + A_ji) + b) with A = softmax(q k^T), as released.

    Args:
        query, key: (N, T, d), T = prod(grid).
        grid, radius: see `WindowSimilarity`.
        scale, bias: the scalars a and b.
    """
    forward, backward = window_log_attention(query, key, grid, radius, 1.0)
    return WindowSimilarity(torch.sigmoid(scale * (forward.exp() + backward.exp()) + bias), tuple(grid), tuple(radius))


def log_similarity(query: Tensor, key: Tensor, grid, radius, scale: Tensor, bias: Tensor) -> WindowSimilarity:
    """s_ij = sigmoid(a ((log A_ij + log A_ji) / 2 + log T) + b) with A = softmax(q k^T / sqrt(d)).

    Entries of A are of the order 1/T, so that a sigmoid of them is one constant; their logarithm has range.
    Arguments as `paper_similarity`.
    """
    forward, backward = window_log_attention(query, key, grid, radius, query.shape[-1] ** -0.5)
    return _squash(forward, backward, grid, radius, scale, bias)


def attend_with_log_similarity(
    query: Tensor, key: Tensor, value: Tensor, grid, radius, scale: Tensor, bias: Tensor
) -> tuple[Tensor, WindowSimilarity]:
    """The attention's output A v, (N, T, d), and `log_similarity`, which is read off the same A.

    Arguments as `paper_similarity`; value (N, T, d).
    """
    factor = query.shape[-1] ** -0.5
    attended, forward, backward = attend_with_window(query, key, value, grid, radius, factor)
    return attended, _squash(forward, backward, grid, radius, scale, bias)


def _squash(forward: Tensor, backward: Tensor, grid, radius, scale: Tensor, bias: Tensor) -> WindowSimilarity:
    logits = scale * (0.5 * (forward + backward) + log(prod(grid))) + bias
    # Beyond this single precision makes a sigmoid 1, and no gradient would ever come back from there. The clamp is of
    # the value alone: what pushes a logit back in is felt outside too.
    logits = logits + (logits.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT) - logits).detach()
    return WindowSimilarity(torch.sigmoid(logits), tuple(grid), tuple(radius))
