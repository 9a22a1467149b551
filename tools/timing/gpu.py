"""What the method costs on a GPU, beside stock nnU-Net in the same call: `python -m tools.timing.gpu [--dataset ID]`.

A training step of real trainers on random data, compiled as nnU-Net compiles, and each term of the loss alone, held to
float64 on the processor. The trainers are made ready side by side, which is what takes minutes, and measured one after
the other.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch

from nnunet_attenscribble.common.nnunet import dataset_folder
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.settings import KEY
from tools.timing.workloads import NAME, Step, crf, make_configuration, name_preprocessed, prepare_folders, write_plans

QUARTER = "2d_quarter"
#: (trainer, configuration, most times the time of nnUNetTrainer, most share of further memory)
STEPS = [
    ("nnUNetTrainer", "2d", None, None),
    ("nnUNetTrainerMaskedCRF", "2d", 1.10, 0.05),
    ("nnUNetTrainerAttenScribble", "2d", 1.20, 0.15),
    ("nnUNetTrainerAttenScribble", QUARTER, 1.35, None),
    ("nnUNetTrainer", "3d_fullres", None, None),
    ("nnUNetTrainerMaskedCRF", "3d_fullres", 1.15, 0.05),
    ("nnUNetTrainerAttenScribble", "3d_fullres", 1.20, 0.15),
]
#: Batch and patch of the made-up plans.
PLANNED = {"2d": (54, [256, 224]), "3d_fullres": (3, [16, 256, 224])}
#: What each trainer may need while the others are ready too.
BYTES_A_TRAINER = 10 * 2**30


def prepare(folder: Path, dataset: str | None) -> dict[str, str]:
    """nnU-Net's variables for a folder with nothing but plans: those of a dataset, or as nnU-Net makes them for 35
    patients of ACDC.
    """
    preprocessed = name_preprocessed(folder)
    if dataset is None:
        write_plans(preprocessed, {name: make_configuration(name, *made) for name, made in PLANNED.items()})
    else:
        source = dataset_folder("nnUNet_preprocessed", dataset)
        preprocessed.mkdir(parents=True)
        for name in ("nnUNetPlans.json", "dataset.json"):
            shutil.copy(source / name, preprocessed)
    file = preprocessed / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    settings = plans["configurations"]["2d"].get(KEY, {})
    plans["configurations"][QUARTER] = {"inherits_from": "2d", KEY: {**settings, "attention_max_tokens": 4096}}
    plans["dataset_name"] = NAME
    file.write_text(json.dumps(plans))
    return prepare_folders(folder)


def measure(run: Callable[[], Any], repeats: int = 20) -> dict[str, float]:
    """Median time in ms, the device's queue emptied after each, and peak memory in MB above what was there."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    base = torch.cuda.memory_allocated()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated()
    return {"ms": 1e3 * sorted(times)[repeats // 2], "MB": (peak - base) / 2**20, "total_MB": peak / 2**20}


def count_waits(run: Callable[[], Any]) -> int:
    """How often a run has the processor wait for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def _precision(device: str) -> torch.dtype:
    return torch.float64 if device == "cpu" else torch.float32


def compare_with_float64(run: Callable[[str], tuple[torch.Tensor, torch.Tensor]]) -> str:
    """How far value and gradient on the GPU are from those of float64 on the processor."""
    (value, gradient), (exact, exact_gradient) = (([x.double().cpu() for x in run(d)]) for d in ("cuda", "cpu"))
    off = (gradient - exact_gradient).norm() / exact_gradient.norm()
    return f"value {abs(value / exact - 1).item():.0e}, gradient {off.item():.0e} from float64"


def make_similarity(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and gradient of the similarity loss."""
    from nnunet_attenscribble.losses import AttentiveSimilarityLoss
    from nnunet_attenscribble.similarity import WindowSimilarity
    from nnunet_attenscribble.windows import pair_count

    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 32, 28, generator=generator).softmax(1)
    values = torch.rand(2, pair_count((32, 28), (5, 5)), generator=generator)
    q, values = (x.to(device, _precision(device)) for x in (q, values))
    q.requires_grad_()
    value = AttentiveSimilarityLoss()(q, WindowSimilarity(values, (32, 28), (5, 5)))
    return value.detach(), torch.autograd.grad(value, q)[0]


def make_log_attention(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A weighted sum of log A of the window, and the gradient of the half-precision queries."""
    from nnunet_attenscribble.similarity import window_log_attention

    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, 32 * 28, 128, generator=generator).half().to(device) for _ in range(2))
    if device == "cpu":
        query, key = query.double(), key.double()
    query.requires_grad_()
    one, other = window_log_attention(query, key, (32, 28), (5, 5), 128**-0.5)
    value = (one * torch.linspace(-1, 2, one.shape[1], device=device) + other).sum()
    return value.detach(), torch.autograd.grad(value, query)[0]


#: Parts of the attention block for `make_block_part`.
BLOCK_PARTS = ("depthwise convolution", "depthwise convolution of a contiguous copy", "LayerNorm", "attention")


def make_block_part(part: str, samples: int, channels: int, grid: list[int], device: str) -> Callable[[], torch.Tensor]:
    """One of `BLOCK_PARTS`, from tokens to tokens as the block calls it and in the precision that autocast gives it.

    Returns:
        forward and backward, which returns the tokens' gradient.
    """
    from nnunet_attenscribble.network import SpatialSelfAttention

    block = SpatialSelfAttention(channels, len(grid)).to(device)
    convolution = block.mlp_dwconv.half()
    width = 4 * channels if "convolution" in part else channels
    precision = torch.float32 if part == "LayerNorm" else torch.float16
    tokens = torch.randn(samples, prod(grid), width, device=device, dtype=precision, requires_grad=True)
    gradient = torch.randn_like(tokens)

    def run() -> torch.Tensor:
        tokens.grad = None
        block.zero_grad(set_to_none=True)
        if part == "LayerNorm":
            out = block.norm2(tokens)
        elif part == "attention":
            out, _ = block._attend(tokens, tokens, tokens, tuple(grid))
        else:
            maps = tokens.transpose(1, 2).unflatten(2, grid)
            maps = maps.contiguous() if part.endswith("copy") else maps
            out = convolution(maps).flatten(2).transpose(1, 2)
        out.backward(gradient)
        assert tokens.grad is not None
        return tokens.grad

    return run


def measure_parts() -> list[dict[str, Any]]:
    """Each term alone, forward and backward; the goal is a time in ms, or that of another part."""
    from nnunet_attenscribble.losses import AttentiveSimilarityLoss
    from nnunet_attenscribble.losses.intensities import rank_intensities, rescale_intensities
    from nnunet_attenscribble.network import SpatialSelfAttention

    parts = []

    def add(name: str, goal: float | None, run: Callable[[], Any], told: str = "", repeats: int = 20) -> None:
        parts.append({"name": name, "goal": goal, "told": told, **measure(run, repeats)})
        torch.cuda.empty_cache()

    told = compare_with_float64(lambda device: crf([2, 4, 48, 40], device=device, dtype=_precision(device))())
    add("masked CRF, 54 x 4 x 256 x 224", 1.0, crf([54, 4, 256, 224], device="cuda"), told)
    add("masked CRF, 12 x 4 x 256 x 224", 0.4, crf([12, 4, 256, 224], device="cuda"))
    try:
        unfolded = crf([12, 4, 256, 224], reference=True, device="cuda")
        add("the same, unfolded as published", None, unfolded, repeats=5)
    except torch.OutOfMemoryError:
        print("the unfolded CRF does not fit into this GPU", flush=True)
    add("masked CRF, 2 x 4 x 128 x 128 x 128", 15.0, crf([2, 4, 128, 128, 128], device="cuda"), repeats=5)
    image = torch.randn(54, 1, 256, 224)
    here, inside = image.cuda(), torch.ones(image.shape, dtype=torch.bool, device="cuda")
    off = (rescale_intensities(here, inside).cpu() - rescale_intensities(image.double())).abs().max().item()
    add("intensities, 54 x 1 x 256 x 224", 1.0, lambda: rescale_intensities(here, inside), f"{off:.0e} from float64")
    annotated = torch.rand(here.shape, device="cuda") < 0.02
    exact = rank_intensities(image.double(), annotated.cpu())
    off = (rank_intensities(here, annotated, inside).cpu() - exact).abs().max().item()
    add("the same as ranks", 1.0, lambda: rank_intensities(here, annotated, inside), f"{off:.0e} from float64")
    told, of_attention = compare_with_float64(make_similarity), compare_with_float64(make_log_attention)
    for samples, grid, channels, radius, agreement in (
        (54, (32, 28), 256, 2, told),
        (54, (64, 56), 128, 5, f"log A: {of_attention}"),
        (3, (8, 16, 14), 320, (1, 2, 2), ""),
    ):
        block = SpatialSelfAttention(channels, len(grid), "anchored", radius).cuda()
        loss = AttentiveSimilarityLoss(radius, 3.0, None, True, 0.5)
        features = torch.randn(samples, channels, *grid, device="cuda", requires_grad=True)
        p = torch.randn(samples, 4, *(4 * size for size in grid), device="cuda").softmax(1).requires_grad_()

        def run(block=block, loss=loss, features=features, p=p) -> None:
            features.grad = p.grad = None
            with torch.autocast("cuda"):
                out, similarity = block(features)
            (loss(p, similarity) + similarity.values.mean() + out.float().square().mean()).backward()

        add(f"block and similarity, {samples} x {' x '.join(map(str, grid))}", None, run, agreement)
    # Where the block's time goes: at a quarter in 2D, and in 3D.
    for samples, channels, *cells in ((54, 128, 64, 56), (3, 320, 8, 16, 14)):
        for part in BLOCK_PARTS:
            size = " x ".join(map(str, (samples, 4 * channels if "convolution" in part else channels, *cells)))
            add(f"{part}, {size}", None, make_block_part(part, samples, channels, cells, "cuda"))
    return parts


@contextmanager
def begin_worker(arguments: list[str], variables: dict[str, str]) -> Iterator[subprocess.Popen]:
    """A worker that waits for its turn; ended where the measurement ends."""
    command = [sys.executable, "-m", "tools.timing.gpu", "--worker", *arguments]
    environment = {**os.environ, **variables}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        try:
            yield worker
        finally:
            worker.kill()


def read(worker: subprocess.Popen, prefix: str) -> str:
    """What follows the prefix in the worker's next line that begins with it."""
    for line in worker.stdout or ():
        if line.startswith(prefix):
            return line[len(prefix) :]
    raise SystemExit("bench-gpu: a trainer failed, see above")


def work(trainer: str, configuration: str) -> None:
    """A worker: make ready, wait for the turn, measure, tell."""
    step = Step(trainer, configuration, "cuda")
    for _ in range(6):
        step()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    print("READY", flush=True)
    sys.stdin.readline()
    result = measure(step)
    print("RESULT" + json.dumps(result | {"waits": count_waits(step)}), flush=True)


def measure_steps(variables: dict[str, str], configurations: list[str]) -> list[dict[str, Any]]:
    """Time, memory and waits of each trainer's step, and their ratios to nnUNetTrainer's."""
    rows = [row for row in STEPS if row[1] in configurations]
    together = max(1, torch.cuda.get_device_properties(0).total_memory // BYTES_A_TRAINER)
    results: list[dict[str, Any]] = []
    stock: dict[str, dict[str, float]] = {}
    for start in range(0, len(rows), together):
        some = rows[start : start + together]
        with ExitStack() as stack:
            workers = [stack.enter_context(begin_worker(list(row[:2]), variables)) for row in some]
            for worker in workers:
                read(worker, "READY")
            for (trainer, configuration, goal, memory_goal), worker in zip(some, workers, strict=True):
                print("go", file=worker.stdin, flush=True)
                result = json.loads(read(worker, "RESULT"))
                base = stock.setdefault(configuration.replace(QUARTER, "2d"), result)  # the first row is nnUNetTrainer
                ratios = {"ratio": result["ms"] / base["ms"], "more_memory": result["total_MB"] / base["total_MB"] - 1}
                goals = {"goal": goal, "memory_goal": memory_goal}
                results.append({"name": f"{trainer}, {configuration}", **goals, **result, **ratios})
    return results


def show(steps: list[dict[str, Any]], parts: list[dict[str, Any]]) -> str:
    """Both tables, as docs/losses.md has them."""
    lines = ["|training step|ms|x nnUNetTrainer|goal|peak MB|more than nnUNetTrainer|waits for the GPU|"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for row in steps:
        goal = "" if row["goal"] is None else f"{row['goal']:.2f}"
        lines.append(
            f"|{row['name']}|{row['ms']:.1f}|{row['ratio']:.2f}|{goal}|{row['total_MB']:,.0f}|"
            f"{100 * row['more_memory']:.0f} %|{row['waits']}|"
        )
    lines += ["", "|part, forward and backward|ms|goal|MB|agreement|", "|---|---:|---:|---:|---|"]
    for row in parts:
        goal = "" if row["goal"] is None else f"{row['goal']:g}"
        lines.append(f"|{row['name']}|{row['ms']:.2f}|{goal}|{row['MB']:,.0f}|{row['told']}|")
    return "\n".join(lines)


def main() -> None:
    """Measure everything, or one worker's share of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--dataset", metavar="ID", help="ID of a planned scribble dataset; default: plans made up as those of ACDC"
    )
    parser.add_argument("--output", type=Path, help="JSON file for all figures")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("bench-gpu: PyTorch finds no CUDA GPU on this machine, so there is nothing to measure.")
    if arguments.worker:
        work(*arguments.worker)
        return
    begin = time.time()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench_gpu_") as folder:
        try:
            variables = prepare(Path(folder), arguments.dataset)
        except (AttenScribbleError, OSError) as error:
            raise SystemExit(f"bench-gpu: {error}") from None
        plans = name_preprocessed(Path(folder)) / "nnUNetPlans.json"
        parts = measure_parts()
        torch.cuda.empty_cache()
        steps = measure_steps(variables, list(json.loads(plans.read_text())["configurations"]))
    print(show(steps, parts))
    print(f"{time.time() - begin:.0f} s in all")
    if arguments.output:
        arguments.output.write_text(
            json.dumps({"device": torch.cuda.get_device_name(), "steps": steps, "parts": parts}, indent=2)
        )


if __name__ == "__main__":
    main()
