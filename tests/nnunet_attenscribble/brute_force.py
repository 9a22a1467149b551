"""The formulas of the method, term by term, as slow and plain as they are written."""

from __future__ import annotations

from itertools import product
from math import exp, prod

import torch
from torch import Tensor

from nnunet_attenscribble.network import SpatialSelfAttention
from nnunet_attenscribble.similarity import WindowSimilarity
from nnunet_attenscribble.windows import pair_indices


def to_matrix(similarity: WindowSimilarity) -> Tensor:
    """The (N, T, T) matrix of a similarity, 0 for pairs outside the window."""
    first, second = pair_indices(similarity.grid, similarity.radius, similarity.values.device)
    tokens = prod(similarity.grid)
    matrix = similarity.values.new_zeros(len(similarity.values), tokens, tokens)
    matrix[:, first, second] = matrix[:, second, first] = similarity.values
    return matrix


def from_matrix(matrix: Tensor, grid, radius) -> WindowSimilarity:
    """The in-window entries of a symmetric (N, T, T) matrix."""
    grid, radius = tuple(grid), tuple(radius)
    first, second = pair_indices(grid, radius, matrix.device)
    return WindowSimilarity(matrix[:, first, second], grid, radius)


def window(position, radius, shape):
    """Partners of a position inside its window and the grid."""
    ranges = [range(max(0, p - r), min(size, p + r + 1)) for p, r, size in zip(position, radius, shape, strict=True)]
    return [partner for partner in product(*ranges) if partner != tuple(position)]


def squared_distance(one, other, spacing) -> float:
    """Squared distance in units of the finer in-plane spacing; in-plane are the last two axes."""
    return sum(((a - b) * s / min(spacing[-2:])) ** 2 for a, b, s in zip(one, other, spacing, strict=True))


def masked_crf(p: Tensor, image: Tensor, mask: Tensor, radius, sigma_position, sigma_intensity, spacing, inside=None):
    """L_crf."""
    shape = p.shape[2:]
    total, count = p.new_zeros(()), 0.0
    for n in range(len(p)):
        for i in product(*(range(size) for size in shape)):
            if inside is not None and not inside[(n, 0, *i)]:
                continue
            m = float(mask[(n, 0, *i)])
            count += m
            for j in window(i, radius, shape):
                if inside is not None and not inside[(n, 0, *j)]:
                    continue
                difference = image[(n, slice(None), *i)] - image[(n, slice(None), *j)]
                kernel = exp(
                    -squared_distance(i, j, spacing) / (2 * sigma_position**2)
                    - float((difference**2).sum()) / (2 * sigma_intensity**2)
                )
                total = total + m * kernel * (1 - (p[(n, slice(None), *i)] * p[(n, slice(None), *j)]).sum())
    return total / count if count else total


def attentive_similarity(
    q: Tensor, s: Tensor, radius, sigma_position, spacing, skipped=(), inside=None, disagreement="potts"
):
    """L_as for a prediction on the feature grid and a dense similarity (N, T, T)."""
    shape = q.shape[2:]
    positions = list(product(*(range(size) for size in shape)))
    total, count = q.new_zeros(()), 0
    for n in range(len(q)):
        for a, i in enumerate(positions):
            if inside is not None and not inside[(n, *i)]:
                continue
            count += 1
            if n in skipped:
                continue
            for j in window(i, radius, shape):
                if inside is not None and not inside[(n, *j)]:
                    continue
                gaussian = exp(-squared_distance(i, j, spacing) / (2 * sigma_position**2))
                one, other = q[(n, slice(None), *i)], q[(n, slice(None), *j)]
                apart = 1 - (one * other).sum() if disagreement == "potts" else 0.5 * ((one - other) ** 2).sum()
                total = total + s[n, a, positions.index(j)] * gaussian * apart
    return total / count


def attention_block(module: SpatialSelfAttention, features: Tensor) -> Tensor:
    """The block's output for (N, d, *grid), with its weights, sample by sample and offset by offset."""
    grid, d = features.shape[2:], features.shape[1]

    def linear(x, layer):
        return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)

    def layer_norm(x, layer):
        centred = x - x.mean(dim=-1, keepdim=True)
        return layer.weight * centred / ((centred**2).mean(dim=-1, keepdim=True) + layer.eps).sqrt() + layer.bias

    outputs = []
    for sample in features:
        tokens = sample.reshape(d, -1).T
        u = layer_norm(tokens, module.norm1)
        attention = torch.softmax(linear(u, module.query) @ linear(u, module.key).T / d**0.5, dim=1)
        tokens = tokens + linear(attention @ linear(u, module.value), module.proj)
        hidden = linear(layer_norm(tokens, module.norm2), module.mlp_fc1).view(*grid, 4 * d)
        around = hidden.new_zeros(*(size + 2 for size in grid), 4 * d)  # with zeros at the border
        around[tuple(slice(1, size + 1) for size in grid)] = hidden
        mixed = module.mlp_dwconv.bias + torch.zeros_like(hidden)
        for offset in product(range(3), repeat=len(grid)):
            there = around[tuple(slice(o, o + size) for o, size in zip(offset, grid, strict=True))]
            mixed = mixed + there * module.mlp_dwconv.weight[(slice(None), 0, *offset)]
        gelu = mixed * 0.5 * (1 + torch.erf(mixed / 2**0.5))
        tokens = layer_norm(tokens + linear(gelu.view(-1, 4 * d), module.mlp_fc2), module.norm3)
        outputs.append(tokens.T.view(d, *grid))
    return torch.stack(outputs)


def log_attention(query: Tensor, key: Tensor, factor: float) -> Tensor:
    """log softmax(factor q k^T), (N, T, T)."""
    return torch.log_softmax(factor * query @ key.transpose(1, 2), dim=2)
