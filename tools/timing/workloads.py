"""What is measured: each workload prepares its input and returns a function that runs forward and backward once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, nn

from nnunet_attenscribble.losses import (
    AttenScribbleLoss,
    AttentiveSimilarityLoss,
    MaskedCRFLoss,
    PartialCrossEntropyLoss,
    PartialDiceCrossEntropyLoss,
    SimilarityPairLoss,
)
from nnunet_attenscribble.network import SpatialSelfAttention, add_spatial_attention, attention_stage
from nnunet_attenscribble.objective import ScribbleObjective
from nnunet_attenscribble.settings import AttenScribbleSettings, similarity_window, window_radius
from tools.timing.references import dense_block, dense_similarity_loss, unfolded_crf

Run = Callable[[], dict]
CLASSES, IGNORE = 4, 4


def crf(shape: list[int], radius: int | list[int] = 5, reference: bool = False) -> Run:
    """Masked CRF on (N, C, *S) probabilities; the reference takes the slices of a volume as images."""
    p = torch.randn(shape).softmax(1).requires_grad_()
    image = torch.rand(shape[0], 1, *shape[2:])
    mask = (torch.rand(shape[0], 1, *shape[2:]) > 0.05).float()
    loss = unfolded_crf if reference else MaskedCRFLoss(radius)

    def slices(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(0, 1) if reference and x.ndim == 5 else x

    def run() -> dict:
        p.grad = None
        value = loss(slices(p), slices(image), slices(mask))
        value.backward()
        return {"loss": value.item(), "gradient": p.grad.double().norm().item()}

    return run


def similarity(samples: int, grid: list[int], channels: int = 64, mode: str = "paper", reference: bool = False) -> Run:
    """Attention block with its similarity, and the attentive similarity loss."""
    block = SpatialSelfAttention(channels, len(grid), mode)
    features = torch.randn(samples, channels, *grid, requires_grad=True)
    p = torch.randn(samples, CLASSES, *(4 * size for size in grid)).softmax(1).requires_grad_()
    loss = AttentiveSimilarityLoss()

    def run() -> dict:
        features.grad = p.grad = None
        if reference:
            out, dense = dense_block(block, features)
            value = dense_similarity_loss(p, dense, tuple(grid))
        else:
            out, compact = block(features)
            value = loss(p, compact)
        (value + out.square().mean()).backward()
        return {"loss": value.item(), "gradient": features.grad.double().norm().item()}

    return run


# nnU-Net 2.8's plans for ACDC (50 patients, their scribbles), and the CPU configuration derived from them;
# and a plan for volumes of equal spacing.
PLANS = {
    "2d": {
        "patch": [256, 224],
        "features": [32, 64, 128, 256, 512, 512],
        "strides": [[1, 1]] + [[2, 2]] * 5,
        "kernels": [[3, 3]] * 6,
        "spacing": [1.484, 1.484],
    },
    "2d_cpu": {
        "patch": [128, 112],
        "features": [16, 32, 64, 128, 128],
        "strides": [[1, 1]] + [[2, 2]] * 4,
        "kernels": [[3, 3]] * 5,
        "spacing": [2.969, 2.969],
        "settings": {"similarity_radius": 2, "similarity_sigma_position": 3.0},  # as `configure --cpu` writes them
    },
    "3d_fullres": {
        "patch": [10, 256, 224],
        "features": [32, 64, 128, 256, 320, 320],
        "strides": [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]],
        "kernels": [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
        "spacing": [10.0, 1.484, 1.484],
    },
    "3d_isotropic": {  # a network for 128 x 128 x 128, measured on smaller patches
        "patch": [128, 128, 128],
        "features": [32, 64, 128, 256, 320, 320],
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * 5,
        "kernels": [[3, 3, 3]] * 6,
        "spacing": [1.0, 1.0, 1.0],
    },
}


def iteration(plan: str, batch: int, full: bool, max_tokens: int | None = None, patch: list[int] | None = None) -> Run:
    """One training iteration: stock nnU-Net on scribbles, or the full method; `patch` in place of the plan's."""
    plans = PLANS[plan]
    patch, ndim = patch or plans["patch"], len(plans["patch"])
    network: nn.Module = _planned_network(plans)
    settings = AttenScribbleSettings.from_mapping(plans.get("settings", {}))
    max_tokens = max_tokens or settings.attention_max_tokens
    stages = len(plans["features"])
    weights = np.array([1 / 2**i for i in range(stages - 1)])
    weights[-1] = 0
    weights = weights / weights.sum()
    options = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    stock = DC_and_CE_loss(options, {}, ignore_label=IGNORE, dice_class=MemoryEfficientSoftDiceLoss)
    if full:
        total = np.cumprod(plans["strides"], axis=0)
        stage = attention_stage(plans["strides"], patch, settings.attention_stride, max_tokens)
        radius, sigma, grid_spacing = similarity_window(settings, plans["spacing"], total[stage].tolist())
        network = add_spatial_attention(
            network, patch, max_tokens=max_tokens, similarity=settings.similarity_mode, radius=radius
        )
        regularised = AttenScribbleLoss(
            IGNORE,
            MaskedCRFLoss(window_radius(settings.crf_radius, plans["spacing"]), spacing=plans["spacing"]),
            AttentiveSimilarityLoss(radius, sigma, grid_spacing, True, settings.similarity_floor),
            SimilarityPairLoss(),
            pair_weight=settings.pair_weight,
        )
        segmentation = PartialDiceCrossEntropyLoss(PartialCrossEntropyLoss(IGNORE), stock.dc, settings.dice_weight)
        loss = ScribbleObjective(segmentation, tuple(weights), regularised, settings.padding)
    else:
        loss = DeepSupervisionWrapper(stock, weights)
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)
    image = torch.randn(batch, 1, *patch)
    target = torch.where(torch.rand(batch, 1, *patch) < 0.01, torch.randint(0, CLASSES, (batch, 1, *patch)), IGNORE)
    scales = [[slice(None, None, int(s)) for s in step] for step in np.cumprod(plans["strides"], axis=0)[:-1]]
    targets: list[Tensor] = [target[(..., *scale)] for scale in scales]

    def run() -> dict:
        optimizer.zero_grad(set_to_none=True)
        if full:
            with loss.given(image):
                value = loss(network(image), targets)
        else:
            value = loss(network(image), targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        return {"loss": value.item(), "axes": ndim}

    return run


def _planned_network(plans: dict) -> PlainConvUNet:
    ndim, stages = len(plans["patch"]), len(plans["features"])
    return PlainConvUNet(
        1,
        stages,
        plans["features"],
        {2: nn.Conv2d, 3: nn.Conv3d}[ndim],
        plans["kernels"],
        plans["strides"],
        [2] * stages,
        CLASSES,
        [2] * (stages - 1),
        conv_bias=True,
        norm_op={2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[ndim],
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )


WORKLOADS = {"crf": crf, "similarity": similarity, "iteration": iteration}
#: Options of a run that only warms up.
TINY = {"crf": {"shape": [1, CLASSES, 16, 16], "radius": 5}, "similarity": {"samples": 1, "grid": [8, 8]}}
