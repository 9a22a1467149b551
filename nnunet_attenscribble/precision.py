"""Sums over many pixels in the precision that the device has."""

import torch


def sum_dtype(device: torch.device) -> torch.dtype:
    """What to sum in: float64, or float32 on Apple GPUs, which have nothing finer."""
    return torch.float32 if device.type == "mps" else torch.float64
