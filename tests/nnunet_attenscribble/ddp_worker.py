"""One of several processes that train a step together: `ddp_worker.py RANK WORLD PORT OUT`."""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_attenscribble.losses import (
    AttenScribbleLoss,
    AttentiveSimilarityLoss,
    MaskedCRFLoss,
    PartialCrossEntropyLoss,
    SimilarityPairLoss,
)
from nnunet_attenscribble.network import add_spatial_attention
from nnunet_attenscribble.objective import ScribbleObjective
from nnunet_attenscribble.targets import PADDING

IGNORE, PER_PROCESS = 3, 2


def make_network() -> nn.Module:
    """The same weights in every process. The coarsest output is left out, as it gets no weight in the loss."""
    torch.manual_seed(0)
    features = [4, 8, 12]
    network = PlainConvUNet(
        1, 3, features, nn.Conv2d, 3, [1, 2, 2], 1, num_classes=3, n_conv_per_stage_decoder=1,
        norm_op=nn.InstanceNorm2d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, deep_supervision=True,
    )  # fmt: skip
    return add_spatial_attention(network, (16, 16), similarity="anchored", radius=1)


def make_objective() -> ScribbleObjective:
    """The whole method; the weights of nnU-Net's scales under DDP, none of them 0."""
    regularised = AttenScribbleLoss(
        IGNORE,
        MaskedCRFLoss(2),
        AttentiveSimilarityLoss(1, detach_similarity=True),
        SimilarityPairLoss(),
        pair_weight=10.0,
    )
    return ScribbleObjective(PartialCrossEntropyLoss(IGNORE), [0.7, 0.3], regularised, "balanced")


def make_batch(process: int) -> tuple[Tensor, list[Tensor]]:
    """Images of a process; every process draws the same scribbles, so that all count the same pixels."""
    labels = torch.Generator().manual_seed(1)
    target = torch.randint(0, IGNORE + 1, (PER_PROCESS, 1, 16, 16), generator=labels)
    target[..., 14:] = PADDING
    image = torch.randn(PER_PROCESS, 1, 16, 16, generator=torch.Generator().manual_seed(2 + process))
    return image, [target, target[..., ::2, ::2]]


def gradients(network: nn.Module, image: Tensor, target: list[Tensor]) -> dict[str, Tensor | None]:
    """Of one step."""
    objective = make_objective()
    with objective.given(image):
        objective(network(image), target).backward()
    return {name.removeprefix("module."): p.grad for name, p in network.named_parameters()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, world, port, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    distributed = DistributedDataParallel(make_network())
    found = gradients(distributed, *make_batch(rank))
    if rank == 0:
        torch.save(found, out)
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # what is left of gloo's threads has ended a process with SIGABRT while Python cleared up
