"""PartialDiceCE plus the Mumford-Shah functional."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnunet_attenscribble.losses.rival import RivalTerm, is_inside
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerRival import nnUNetTrainerRival


class MumfordShahLoss(RivalTerm):
    """L = (sum_i,c,m p_ic (x_im - mu_cm)^2 + sum over neighbours i, j of |p_i - p_j|_1) / (C times the pixels inside)

    with mu_cm the mean of channel m of a sample, weighted by p_c, and intensities x as nnU-Net normalises them.

    Reference: Kim, Ye, "Mumford-Shah loss functional for image segmentation with deep learning", IEEE TIP 2020; mean,
    weight and z-scored images as PyMIC (Wang et al. 2022) has them for ACDC.
    """

    name = "mumford_shah"
    weight = 0.05

    def forward(self, logits: Tensor, target: Tensor, image: Tensor, ignore_label: int, companion: Any) -> Tensor:
        """See `RivalTerm`."""
        inside = is_inside(target)
        p = logits.softmax(dim=1) * inside
        flat, values = p.flatten(2), image.to(p.dtype).flatten(2)
        mass = flat.sum(dim=2, keepdim=True).clamp(min=1e-6)  # (N, C, 1)
        means = torch.einsum("nct,nmt->ncm", flat, values) / mass
        # sum p (x - mu)^2 with mu the weighted mean, without a tensor of classes times channels times pixels.
        level = torch.einsum("nct,nmt->ncm", flat, values**2) - mass * means**2
        borders = p.new_zeros(())
        for axis in range(2, p.ndim):
            size = p.shape[axis]
            near, far = p.narrow(axis, 0, size - 1), p.narrow(axis, 1, size - 1)
            both = inside.narrow(axis, 0, size - 1) & inside.narrow(axis, 1, size - 1)
            borders = borders + ((near - far).abs() * both).sum()
        return (level.sum() + borders) / (p.shape[1] * inside.sum().clamp(min=1))


class nnUNetTrainerMumfordShah(nnUNetTrainerRival):
    """PartialDiceCE plus the Mumford-Shah functional."""

    term = MumfordShahLoss
