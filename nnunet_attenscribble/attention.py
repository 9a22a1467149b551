"""The spatial self-attention block that is plugged into the encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_attenscribble.similarity import (
    WindowSimilarity,
    attend_with_log_similarity,
    log_similarity,
    paper_similarity,
)
from nnunet_attenscribble.windows import per_axis

SIMILARITIES = {"paper": paper_similarity, "anchored": log_similarity}


class SpatialSelfAttention(nn.Module):
    """One-head self-attention over all positions of a feature map, with a depthwise-convolutional feed-forward part.

        u = LayerNorm(F)          q, k, v = Wq u, Wk u, Wv u
        G = F + Wo softmax(q k^T / sqrt(d)) v
        B = G + fc2(GELU(dwconv(fc1(LayerNorm(G)))))
        output = LayerNorm(B)

    In training, and with a similarity mode set, the block also yields the similarity of neighbouring positions.

    Args:
        channels: d of the features.
        ndim: 2 or 3 spatial axes.
        similarity: `paper`, `anchored`, or None for a block without one (it then has no parameters for it either).
        radius: of the similarity's window in grid positions, for all axes or per axis.

    Reference: Tian, Yang, Gao, "AttenScribble", arXiv 2312.06614, spatial self-attention module.
    """

    def __init__(self, channels: int, ndim: int, similarity: str | None = None, radius: int | Sequence[int] = 5):
        super().__init__()
        if similarity is not None and similarity not in SIMILARITIES:
            raise ValueError(f"similarity must be one of {', '.join(SIMILARITIES)} or None, got {similarity!r}")
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
        self.channels = channels
        self.ndim = ndim
        self.similarity = similarity
        self.radius = tuple(int(r) for r in per_axis(radius, ndim, "radius"))
        self.norm1 = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.proj = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp_fc1 = nn.Linear(channels, 4 * channels)
        self.mlp_dwconv = conv(4 * channels, 4 * channels, 3, padding=1, groups=4 * channels)
        self.mlp_fc2 = nn.Linear(4 * channels, channels)
        self.norm3 = nn.LayerNorm(channels)
        if similarity is not None:
            self.similarity_scale = nn.Parameter(torch.tensor(1.0))
            self.similarity_bias = nn.Parameter(torch.tensor(0.0))

    def forward(self, features: Tensor) -> tuple[Tensor, WindowSimilarity | None]:
        """Transform the features.

        Args:
            features: (N, d, *grid).

        Returns:
            features of the same shape, and the similarity in training (None otherwise, or where the block has none).
        """
        grid = tuple(features.shape[2:])
        tokens = features.flatten(2).transpose(1, 2)
        query, key, value = self._project(tokens)
        attended, similarity = self._attend(query, key, value, grid)
        tokens = tokens + self.proj(attended)
        hidden = self.mlp_fc1(self.norm2(tokens))
        hidden = self.mlp_dwconv(hidden.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
        tokens = self.norm3(tokens + self.mlp_fc2(F.gelu(hidden)))
        out = tokens.transpose(1, 2).unflatten(2, grid).to(features.dtype)
        return out, similarity

    def attention_map(self, features: Tensor, position: Sequence[int]) -> Tensor:
        """Attention paid by one position to all others, (N, *grid), summing to 1. For pictures."""
        grid = tuple(features.shape[2:])
        query, key, _ = self._project(features.flatten(2).transpose(1, 2))
        index = (slice(None), *position)
        query = query.unflatten(1, grid)[index]
        logits = torch.einsum("nd,ntd->nt", query, key) * query.shape[-1] ** -0.5
        return logits.softmax(dim=1).unflatten(1, grid)

    def compute_similarity(self, features: Tensor) -> WindowSimilarity:
        """The similarity that training reads off these features, (N, d, *grid), in any mode. For pictures.

        Raises:
            ValueError: for a block without a similarity.
        """
        if self.similarity is None:
            raise ValueError("this block was made without a similarity")
        grid = tuple(features.shape[2:])
        query, key, _ = self._project(features.flatten(2).transpose(1, 2))
        scalars = (self.similarity_scale, self.similarity_bias)
        return SIMILARITIES[self.similarity](query, key, grid, self.radius, *scalars)

    def _project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed = self.norm1(tokens)
        return self.query(normed), self.key(normed), self.value(normed)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, grid: tuple[int, ...]
    ) -> tuple[Tensor, WindowSimilarity | None]:
        if not self.training or self.similarity is None:
            return _attention(query, key, value), None
        with torch.autocast(query.device.type, enabled=False):
            window = (grid, self.radius, self.similarity_scale, self.similarity_bias)
            if self.similarity == "anchored" and query.device.type == "cpu":
                attended, similarity = attend_with_log_similarity(query, key, value, *window)
                return attended.to(query.dtype), similarity
            # Elsewhere the library's fused kernels, in whatever precision autocast chose, are worth a second q k^T.
            return _attention(query, key, value), SIMILARITIES[self.similarity](query, key, *window)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
