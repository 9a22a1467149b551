"""Where the Triton kernels run. Triton comes with PyTorch for NVIDIA GPUs on Linux and is imported there only."""

from __future__ import annotations

import os
import warnings
from functools import lru_cache

import torch
from torch import Tensor


def kernels_take(tensor: Tensor) -> bool:
    """Whether the kernels compute with this tensor. They know single precision; what is float64 stays so elsewhere."""
    return tensor.dtype == torch.float32 and _run_on(tensor.device)


def tensor_cores_run_kernels(device: torch.device) -> bool:
    """Whether the kernels run, on tensor cores of Ampere (2020) or later: earlier ones have too little memory."""
    return _run_on(device) and (device.type == "cpu" or torch.cuda.get_device_capability(device) >= (8, 0))


@lru_cache
def _run_on(device: torch.device) -> bool:
    """Whether the kernels run on this device: an NVIDIA GPU, or the CPU under Triton's interpreter.

    Triton needs a C compiler the first time; where that or anything else is missing, PyTorch's own operations, which
    are slower, do the same. A warning says so.
    """
    if device.type == "cpu":
        if os.environ.get("TRITON_INTERPRET") != "1":
            return False
    elif device.type != "cuda" or torch.version.hip or torch.cuda.get_device_capability(device) < (7, 0):
        return False
    try:
        from nnunet_attenscribble.triton_kernels import probe

        probe(device)
    except Exception as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        warnings.warn(f"Triton does not work here, so the regularisers take longer: {told}", stacklevel=2)
        return False
    return True
