"""The smallest kernel there is, to find out whether Triton compiles any."""

import torch
import triton
import triton.language as tl


def probe(device: torch.device) -> None:
    """Compile a kernel and launch it; raises whatever Triton raises where it cannot."""
    with torch.cuda.device(device) if device.type == "cuda" else torch.device(device):
        _kernel[(1,)](torch.empty(1, device=device))


@triton.jit
def _kernel(out):
    tl.store(out, 1.0)
