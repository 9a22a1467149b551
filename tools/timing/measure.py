"""One measurement in a process of its own: `python -m tools.timing.measure NAME JSON`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from tools.timing.workloads import TINY, WORKLOADS


def memory(key: str) -> int:
    """A figure of this process in bytes: VmRSS (now) or VmHWM (its peak)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {key} in /proc/self/status: memory is measured on Linux only")


def measure(name: str, options: dict) -> dict:
    """Time and peak memory above the baseline of forward and backward.

    A run on a tiny input loads what is loaded late. The next gives the memory, the best of the others the time, which
    is that of the processor.
    """
    torch.manual_seed(0)
    torch.set_num_threads(options.pop("threads", 1))
    repeats = options.pop("repeats", 3)
    if name in TINY:
        WORKLOADS[name](**options | TINY[name])()
    run = WORKLOADS[name](**options)
    baseline = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    found = run()
    peak = memory("VmHWM") - baseline
    times, walls = [], []
    for _ in range(repeats):
        start, wall = time.process_time(), time.perf_counter()
        run()
        times.append(time.process_time() - start)
        walls.append(time.perf_counter() - wall)
    told = {} if found is None else {"loss": found[0].item(), "gradient": found[1].double().norm().item()}
    return {"seconds": min(times), "wall": min(walls), "megabytes": peak / 2**20, **told}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], json.loads(sys.argv[2]))))
