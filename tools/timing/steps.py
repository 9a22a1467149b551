"""What a training step of each trainer costs on a processor, beside stock nnU-Net in the same call:
`python -m tools.timing.steps DATASET CONFIGURATION TRAINER... --output FILE.csv`.

One thread, real trainers on random data. Rounds in which every trainer makes a step in turn, so that whatever else the
machine does weighs on all alike; a trainer's figure is the median over the rounds of its processor time by that of
nnUNetTrainer in the same round.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median

import torch

from nnunet_attenscribble.errors import AttenScribbleError
from tools.timing.gpu import prepare
from tools.timing.workloads import Step

STOCK = "nnUNetTrainer"


def measure(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Each trainer's processor time a step by that of `STOCK`."""
    for step in steps.values():
        step()
    ratios: dict[str, list[float]] = {trainer: [] for trainer in steps}
    for _ in range(rounds):
        seconds = {}
        for trainer, step in steps.items():
            start = time.process_time()
            step()
            seconds[trainer] = time.process_time() - start
        for trainer, value in seconds.items():
            ratios[trainer].append(value / seconds[STOCK])
    return {trainer: median(values) for trainer, values in ratios.items()}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="ID of a planned scribble dataset")
    parser.add_argument("configuration")
    parser.add_argument("trainers", nargs="+")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="CSV file: trainer, ratio")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bench_steps_") as folder:
        try:
            os.environ.update(prepare(Path(folder), arguments.dataset), nnUNet_compile="f")
        except (AttenScribbleError, OSError) as error:
            sys.exit(f"steps: {error}")
        trainers = dict.fromkeys([STOCK, *arguments.trainers])
        with redirect_stdout(io.StringIO()):  # nnU-Net tells where it finds trainers
            steps = {trainer: Step(trainer, arguments.configuration, "cpu") for trainer in trainers}
        ratios = measure(steps, arguments.rounds)
    for trainer, ratio in ratios.items():
        print(f"{trainer:40} {ratio:.2f}")
    if arguments.output:
        with arguments.output.open("w", encoding="utf-8", newline="") as lines:
            csv.writer(lines, lineterminator="\n").writerows(
                [("trainer", "ratio"), *((trainer, f"{ratio:.3f}") for trainer, ratio in ratios.items())]
            )


if __name__ == "__main__":
    main()
