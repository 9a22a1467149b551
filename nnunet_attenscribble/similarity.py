"""The similarity of neighbouring positions, read off a self-attention without ever storing its matrix.

q k^T is formed chunk by chunk, forgotten, and formed again in backward: memory grows with the number of positions T,
only the matrix products with T^2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import log, prod
from typing import NamedTuple

import torch
from torch import Tensor

from nnunet_attenscribble.kernels import tensor_cores_run_kernels
from nnunet_attenscribble.windows import at_least_float32, pair_count, pair_indices

_LARGEST_LOGIT = 15.0
# Entries of one chunk of q k^T. On the CPU it should stay in the cache, on a GPU it should fill the device.
_CHUNK_ENTRIES = {"cpu": 1 << 20, "other": 1 << 26}

_Chunk = tuple[slice, slice, Tensor, Tensor, Tensor]


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

    def around(self, position: Sequence[int]) -> Tensor:
        """Similarities of one position to its neighbours as (N, *grid) maps, zero elsewhere. For pictures."""
        first, second = pair_indices(self.grid, self.radius, self.values.device)
        token = torch.arange(prod(self.grid)).view(self.grid)[tuple(position)].item()
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


def window_log_attention(
    query: Tensor, key: Tensor, grid: Sequence[int], radius: Sequence[int], factor: float
) -> tuple[Tensor, Tensor]:
    """log A at the in-window pairs (i, j), in both directions, with A = softmax(factor q k^T) over all T positions.

    Args:
        query, key: (N, T, d); computed in float32 (float64 if given so).
        grid: shape of the feature grid, T = prod(grid).
        radius: of the window in grid positions, per axis.
        factor: on q k^T.

    Returns:
        log A_ij and log A_ji, each (N, P), float32 (float64 for float64); pairs in the order of `pair_indices`.
    """
    with torch.autocast(query.device.type, enabled=False):  # inside the operation, too, it would choose precisions
        entries, _ = _log_attention(query, key, list(grid), list(radius), factor)
    return entries.chunk(2, dim=1)


def attend_with_window(
    query: Tensor, key: Tensor, value: Tensor, grid: Sequence[int], radius: Sequence[int], factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A v and, out of the same q k^T, log A at the in-window pairs.

    Four of the eleven matrix products are saved against `scaled_dot_product_attention` and `window_log_attention` one
    after the other.

    Args:
        query, key, value: (N, T, d); computed in float32 (float64 if given so).
        grid, radius, factor: see `window_log_attention`.

    Returns:
        A v (N, T, d), and log A_ij and log A_ji, each (N, P).
    """
    query, key, value = (at_least_float32(x) for x in (query, key, value))
    with torch.autocast(query.device.type, enabled=False):
        attended, entries, _ = _attend(query, key, value, list(grid), list(radius), factor)
    return attended, *entries.chunk(2, dim=1)


def _kernels_take(query: Tensor, key: Tensor) -> bool:
    """Half precision, which tensor cores multiply exactly, is what autocast leaves here; see the kernels."""
    halves = query.dtype == key.dtype and query.dtype in (torch.float16, torch.bfloat16)
    return halves and tensor_cores_run_kernels(query.device)


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


def _chunks(query: Tensor, grid: list[int], radius: list[int]) -> Iterator[_Chunk]:
    """Samples and query rows of each chunk; of the entries in it their positions in the flat chunk, their slots in the
    output, and their rows in the chunk.
    """
    tokens = query.shape[1]
    entries = _CHUNK_ENTRIES.get(query.device.type, _CHUNK_ENTRIES["other"])
    queries, keys, slots, ends = _entries_by_query(tuple(grid), tuple(radius), query.device)
    rows = min(tokens, max(1, entries // tokens))
    samples = max(1, entries // (rows * tokens))
    for row in range(0, tokens, rows):
        stop = min(row + rows, tokens)
        here = slice(int(ends[row]), int(ends[stop]))
        local = queries[here] - row
        flat = local * tokens + keys[here]
        for sample in range(0, len(query), samples):
            yield slice(sample, sample + samples), slice(row, stop), flat, slots[here], local


def _logits(query: Tensor, key: Tensor, factor: float) -> Tensor:
    return torch.matmul(query * factor, key.transpose(1, 2))


def _sum_by_row(entries: Tensor, local: Tensor, rows: int) -> Tensor:
    return entries.new_zeros(len(entries), rows).index_add_(1, local, entries)


@torch.library.custom_op("attenscribble::window_log_attention", mutates_args=())
def _log_attention(
    query: Tensor, key: Tensor, grid: list[int], radius: list[int], factor: float
) -> tuple[Tensor, Tensor]:
    """The entries of log A (N, 2 P), and log sum_j exp(logit_ij) (N, T), which backward needs."""
    if _kernels_take(query, key):
        from nnunet_attenscribble.triton_kernels import fused_log_attention

        return fused_log_attention(query, key, grid, radius, factor)
    query, key = (at_least_float32(x) for x in (query, key))
    entries = query.new_empty(len(query), 2 * pair_count(grid, radius))
    normaliser = query.new_empty(query.shape[:2])
    for n, rows, flat, slots, local in _chunks(query, grid, radius):
        logits = _logits(query[n, rows], key[n], factor)
        normaliser[n, rows] = logits.logsumexp(dim=2)
        at_pairs = logits.flatten(1).index_select(1, flat)
        at_pairs.sub_(normaliser[n, rows].index_select(1, local))
        entries[n].index_copy_(1, slots, at_pairs)
    return entries, normaliser


@_log_attention.register_fake
def _(query, key, grid, radius, factor):
    query = at_least_float32(query)
    return query.new_empty(len(query), 2 * pair_count(grid, radius)), query.new_empty(query.shape[:2])


@torch.library.custom_op("attenscribble::window_log_attention_backward", mutates_args=())
def _log_attention_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    normaliser: Tensor,
    grid: list[int],
    radius: list[int],
    factor: float,
) -> tuple[Tensor, Tensor]:
    if _kernels_take(query, key):
        from nnunet_attenscribble.triton_kernels import fused_log_attention_backward

        return fused_log_attention_backward(gradient, query, key, normaliser, grid, radius, factor)
    dtypes = query.dtype, key.dtype
    query, key = (at_least_float32(x) for x in (query, key))
    query, key = query.contiguous(), key.contiguous()
    grad_query, grad_key = torch.zeros_like(query), torch.zeros_like(key)
    for n, rows, flat, slots, local in _chunks(query, grid, radius):
        attention = _logits(query[n, rows], key[n], factor).sub_(normaliser[n, rows].unsqueeze(2)).exp_()
        entries = gradient[n].index_select(1, slots)
        # d log A_ij / d logit_ik = [k = j] - A_ik, summed over the entries of row i.
        attention.mul_(-_sum_by_row(entries, local, attention.shape[1]).unsqueeze(2))
        attention.view(len(entries), -1).index_add_(1, flat, entries)
        grad_query[n, rows] = torch.matmul(attention, key[n]) * factor
        grad_key[n] += torch.matmul(attention.transpose(1, 2), query[n, rows] * factor)
    return grad_query.to(dtypes[0]), grad_key.to(dtypes[1])


@_log_attention_backward.register_fake
def _(gradient, query, key, normaliser, grid, radius, factor):
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key))


def _setup_log_attention(ctx, inputs, output):
    query, key, ctx.grid, ctx.radius, ctx.factor = inputs
    ctx.save_for_backward(query, key, output[1])


def _backward_of_log_attention(ctx, gradient, _):
    with torch.autocast(gradient.device.type, enabled=False):  # backward may be called under one
        grads = _log_attention_backward(gradient.contiguous(), *ctx.saved_tensors, ctx.grid, ctx.radius, ctx.factor)
    return *grads, None, None, None


_log_attention.register_autograd(_backward_of_log_attention, setup_context=_setup_log_attention)


@torch.library.custom_op("attenscribble::attend_with_window", mutates_args=())
def _attend(
    query: Tensor, key: Tensor, value: Tensor, grid: list[int], radius: list[int], factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A v (N, T, d), the entries of log A (N, 2 P), and log sum_j exp(logit_ij) (N, T), which backward needs."""
    attended = value.new_empty(value.shape)
    entries = query.new_empty(len(query), 2 * pair_count(grid, radius))
    normaliser = query.new_empty(query.shape[:2])
    for n, rows, flat, slots, local in _chunks(query, grid, radius):
        logits = _logits(query[n, rows], key[n], factor)
        at_pairs = logits.flatten(1).index_select(1, flat)
        largest = logits.amax(dim=2)
        attention = torch.softmax(logits, dim=2, out=logits)
        attended[n, rows] = torch.matmul(attention, value[n])
        # The largest probability is at least 1 / T: its logarithm loses nothing.
        normaliser[n, rows] = largest - attention.amax(dim=2).log()
        at_pairs.sub_(normaliser[n, rows].index_select(1, local))
        entries[n].index_copy_(1, slots, at_pairs)
    return attended, entries, normaliser


@_attend.register_fake
def _(query, key, value, grid, radius, factor):
    entries = query.new_empty(len(query), 2 * pair_count(grid, radius))
    return value.new_empty(value.shape), entries, query.new_empty(query.shape[:2])


@torch.library.custom_op("attenscribble::attend_with_window_backward", mutates_args=())
def _attend_backward(
    grad_attended: Tensor,
    grad_entries: Tensor,
    inputs: list[Tensor],
    attended: Tensor,
    normaliser: Tensor,
    grid: list[int],
    radius: list[int],
    factor: float,
) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = inputs
    grad_query, grad_key, grad_value = (torch.zeros_like(x) for x in inputs)
    inner = (grad_attended * attended).sum(dim=2)
    for n, rows, flat, slots, local in _chunks(query, grid, radius):
        scaled, back = query[n, rows] * factor, grad_attended[n, rows]
        attention = torch.matmul(scaled, key[n].transpose(1, 2)).sub_(normaliser[n, rows].unsqueeze(2)).exp_()
        grad_value[n].baddbmm_(attention.transpose(1, 2), back)
        at_pairs = grad_entries[n].index_select(1, slots)
        # d loss / d logit_ik = A_ik (dA_ik - sum_l A_il dA_il) + e_ik - A_ik sum_l e_il, with e the entries' gradients.
        row_sums = inner[n, rows] + _sum_by_row(at_pairs, local, attention.shape[1])
        grad_logits = torch.matmul(back, value[n].transpose(1, 2)).sub_(row_sums.unsqueeze(2)).mul_(attention)
        grad_logits.view(len(at_pairs), -1).index_add_(1, flat, at_pairs)
        grad_query[n, rows] = torch.matmul(grad_logits, key[n]) * factor
        grad_key[n].baddbmm_(grad_logits.transpose(1, 2), scaled)
    return grad_query, grad_key, grad_value


@_attend_backward.register_fake
def _(grad_attended, grad_entries, inputs, attended, normaliser, grid, radius, factor):
    return tuple(torch.empty_like(x) for x in inputs)


def _setup_attend(ctx, inputs, output):
    query, key, value, ctx.grid, ctx.radius, ctx.factor = inputs
    attended, _, normaliser = output
    ctx.save_for_backward(query, key, value, attended, normaliser)


def _backward_of_attend(ctx, grad_attended, grad_entries, _):
    query, key, value, attended, normaliser = ctx.saved_tensors
    inputs = [query, key, value]
    window = ctx.grid, ctx.radius, ctx.factor
    with torch.autocast(query.device.type, enabled=False):
        grads = _attend_backward(
            grad_attended.contiguous(), grad_entries.contiguous(), inputs, attended, normaliser, *window
        )
    return *grads, None, None, None


_attend.register_autograd(_backward_of_attend, setup_context=_setup_attend)
