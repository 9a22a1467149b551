"""The method as it is usually written: every window unfolded, every matrix stored."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_attenscribble.losses.attentive_similarity import resize_to_grid
from nnunet_attenscribble.network import SpatialSelfAttention


def unfold(x: Tensor, radius: int) -> Tensor:
    """Neighbours of every pixel, (N, C, (2r+1)^2, H, W), zero beyond the border."""
    size = 2 * radius + 1
    return F.unfold(x, size, padding=radius).view(x.shape[0], x.shape[1], size * size, *x.shape[2:])


def unfolded_crf(
    p: Tensor, image: Tensor, mask: Tensor, radius: int = 5, sigma_position: float = 6.0, sigma_intensity: float = 0.1
) -> Tensor:
    """L_crf in 2D, through unfolded copies of the image and the prediction."""
    offsets = torch.arange(-radius, radius + 1, device=p.device)
    squares = (offsets[:, None] ** 2 + offsets[None, :] ** 2).flatten().to(p.dtype)
    differences = unfold(image, radius) - image[:, :, None]
    inside = unfold(torch.ones_like(mask), radius)[:, 0]
    kernel = torch.exp(
        -squares[:, None, None] / (2 * sigma_position**2) - differences.square().sum(1) / (2 * sigma_intensity**2)
    )
    kernel = kernel * inside * (squares > 0)[:, None, None]
    agreement = (unfold(p, radius) * p[:, :, None]).sum(1)
    return (mask * kernel * (1 - agreement)).sum() / mask.sum()


def dense_block(block: SpatialSelfAttention, features: Tensor) -> tuple[Tensor, Tensor]:
    """The block's output and its (N, T, T) similarity, through stored attention matrices."""
    grid = tuple(features.shape[2:])
    tokens = features.flatten(2).transpose(1, 2)
    normed = block.norm1(tokens)
    query, key, value = block.query(normed), block.key(normed), block.value(normed)
    logits = query @ key.transpose(1, 2)
    tokens = tokens + block.proj(torch.softmax(logits * query.shape[-1] ** -0.5, dim=2) @ value)
    hidden = block.mlp_fc1(block.norm2(tokens))
    hidden = block.mlp_dwconv(hidden.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
    out = block.norm3(tokens + block.mlp_fc2(F.gelu(hidden))).transpose(1, 2).unflatten(2, grid)
    if block.similarity == "paper":
        attention = torch.softmax(logits, dim=2)
        total = attention + attention.transpose(1, 2)
    else:
        attention = torch.log_softmax(logits * query.shape[-1] ** -0.5, dim=2)
        total = 0.5 * (attention + attention.transpose(1, 2)) + torch.tensor(float(tokens.shape[1])).log()
    return out, torch.sigmoid(block.similarity_scale * total + block.similarity_bias)


def dense_similarity_loss(p: Tensor, similarity: Tensor, grid: tuple[int, int]) -> Tensor:
    """L_as in 2D, through the (T, T) matrix of all pairs."""
    radius, sigma = 5, 6.0
    rows, columns = (axis.flatten() for axis in torch.meshgrid(*(torch.arange(s) for s in grid), indexing="ij"))
    dy, dx = (axis[:, None] - axis[None, :] for axis in (rows, columns))
    window = (dy.abs() <= radius) & (dx.abs() <= radius) & ((dy != 0) | (dx != 0))
    gaussian = torch.exp(-(dy**2 + dx**2).to(p.dtype) / (2 * sigma**2)) * window
    q = resize_to_grid(p, grid).flatten(2)
    return (similarity * gaussian * (1 - q.transpose(1, 2) @ q)).sum() / (len(q) * q.shape[2])
