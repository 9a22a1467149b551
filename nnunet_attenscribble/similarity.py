"""The similarity of neighbouring positions, read off a self-attention without ever storing its matrix."""

from collections.abc import Sequence
from functools import lru_cache
from math import log, prod
from typing import NamedTuple

import torch
from torch import Tensor

from nnunet_attenscribble.windows import pair_count, pair_indices

# Entries of one chunk of q k^T. On the CPU it should stay in the cache, on a GPU it should fill the device.
_CHUNK_ENTRIES = {"cpu": 1 << 20, "other": 1 << 26}


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
    def from_dense(cls, matrix: Tensor, grid: Sequence[int], radius: Sequence[int]) -> "WindowSimilarity":
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
    logits = scale * (0.5 * (forward + backward) + log(prod(grid))) + bias
    return WindowSimilarity(torch.sigmoid(logits), tuple(grid), tuple(radius))


def window_log_attention(
    query: Tensor, key: Tensor, grid: Sequence[int], radius: Sequence[int], factor: float
) -> tuple[Tensor, Tensor]:
    """log softmax(factor q k^T) at the in-window pairs (i, j), in both directions.

    The softmax runs over all T positions: q k^T is formed chunk by chunk and formed again in backward, so that memory
        grows
    with T and time with T^2.

    Args:
        query, key: (N, T, d); computed in float32 (float64 if given so).
        grid, radius: T = prod(grid); see `WindowSimilarity`.
        factor: on q k^T.

    Returns:
        log A_ij and log A_ji, each (N, P).
    """
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    entries = _log_attention(query.to(dtype), key.to(dtype), list(grid), list(radius), factor)
    return entries.chunk(2, dim=1)


@lru_cache(maxsize=4)
def _entries_by_query(grid: tuple[int, ...], radius: tuple[int, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Both directions of all pairs, sorted by the query.

    Returns:
        (query, key, slot): flat positions, and where the entry belongs in the output [log A_ij | log A_ji]; and
        `ends`, such that the entries of queries before t are the first ends[t].
    """
    first, second = pair_indices(grid, radius, device)
    queries, order = torch.sort(torch.cat([first, second]), stable=True)
    keys = torch.cat([second, first])[order]
    ends = torch.searchsorted(queries, torch.arange(prod(grid) + 1, device=device)).cpu()
    return queries, keys, order, ends


def _chunks(query: Tensor, grid: list[int], radius: list[int]):
    """Samples and query rows of each chunk, with the entries that lie in it (relative to the chunk) and their slots."""
    tokens = query.shape[1]
    entries = _CHUNK_ENTRIES.get(query.device.type, _CHUNK_ENTRIES["other"])
    queries, keys, slots, ends = _entries_by_query(tuple(grid), tuple(radius), query.device)
    rows = min(tokens, max(1, entries // tokens))
    samples = max(1, entries // (rows * tokens))
    for row in range(0, tokens, rows):
        stop = min(row + rows, tokens)
        here = slice(int(ends[row]), int(ends[stop]))
        flat = (queries[here] - row) * tokens + keys[here]
        for sample in range(0, len(query), samples):
            yield slice(sample, sample + samples), slice(row, stop), flat, slots[here], queries[here] - row


@torch.library.custom_op("attenscribble::window_log_attention", mutates_args=())
def _log_attention(query: Tensor, key: Tensor, grid: list[int], radius: list[int], factor: float) -> Tensor:
    out = query.new_empty(len(query), 2 * pair_count(grid, radius))
    for n, rows, flat, slots, _ in _chunks(query, grid, radius):
        logits = torch.matmul(query[n, rows] * factor, key[n].transpose(1, 2))
        logits.sub_(logits.logsumexp(dim=2, keepdim=True))
        out[n] = out[n].index_copy_(1, slots, logits.flatten(1).index_select(1, flat))
    return out


@_log_attention.register_fake
def _(query, key, grid, radius, factor):
    return query.new_empty(len(query), 2 * pair_count(grid, radius))


@torch.library.custom_op("attenscribble::window_log_attention_backward", mutates_args=())
def _log_attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, grid: list[int], radius: list[int], factor: float
) -> tuple[Tensor, Tensor]:
    grad_query, grad_key = torch.zeros_like(query), torch.zeros_like(key)
    for n, rows, flat, slots, local in _chunks(query, grid, radius):
        scaled = query[n, rows] * factor
        attention = torch.matmul(scaled, key[n].transpose(1, 2)).softmax(dim=2)
        entries = gradient[n].index_select(1, slots)
        # d log A_ij / d logit_ik = [k = j] - A_ik, summed over the entries of row i.
        row_sums = gradient.new_zeros(len(entries), attention.shape[1]).index_add_(1, local, entries)
        attention.mul_(-row_sums.unsqueeze(2))
        attention.view(len(entries), -1).index_add_(1, flat, entries)
        grad_query[n, rows] = torch.matmul(attention, key[n]) * factor
        grad_key[n] += torch.matmul(attention.transpose(1, 2), scaled)
    return grad_query, grad_key


@_log_attention_backward.register_fake
def _(gradient, query, key, grid, radius, factor):
    return torch.empty_like(query), torch.empty_like(key)


def _setup(ctx, inputs, output):
    query, key, ctx.grid, ctx.radius, ctx.factor = inputs
    ctx.save_for_backward(query, key)


def _backward(ctx, gradient):
    query, key = ctx.saved_tensors
    grads = _log_attention_backward(gradient.contiguous(), query, key, ctx.grid, ctx.radius, ctx.factor)
    return *grads, None, None, None


_log_attention.register_autograd(_backward, setup_context=_setup)
