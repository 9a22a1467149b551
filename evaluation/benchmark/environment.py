"""What the commands of a benchmark see of the machine: nnU-Net's folders, processes and threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunet_attenscribble.evaluation.benchmark.file import Benchmark
from nnunet_attenscribble.evaluation.benchmark.steps import nnunet_environment
from nnunet_attenscribble.evaluation.benchmark.workspace import Workspace

__all__ = ["list_thread_problems", "make_environment"]

_TRAINERS, _AUGMENTATION = "nnUNet_extTrainer", "nnUNet_n_proc_DA"
_PINNING = ("taskset", "numactl", "srun")  # what people put before a command to give it processors of its own


def make_environment(benchmark: Benchmark, workspace: Workspace, trainers: Path, seed: int = 0) -> dict[str, str]:
    """The environment of a repetition's commands.

    Args:
        benchmark: names threads and workers.
        workspace: names the folders.
        trainers: for nnUNet_extTrainer, in front of those that are in the environment already.
        seed: of the repetition.
    """
    environment = nnunet_environment(
        raw=workspace.raw,
        preprocessed=workspace.preprocessed,
        results=workspace.results(seed),
        trainers=trainers,
        workers=benchmark.workers,
    )
    own = os.environ.get(_TRAINERS, "").split(os.pathsep)
    others = [path for path in own if path and Path(path) != trainers]
    environment[_TRAINERS] = os.pathsep.join([str(trainers), *others])
    augmentation = os.environ.get(_AUGMENTATION)  # as for nnU-Net itself, it goes before everything else
    if augmentation is None and benchmark.augmentation_workers is not None:
        augmentation = str(benchmark.augmentation_workers)
    if augmentation is None and benchmark.device == "cpu":
        augmentation = "1"
    environment.pop(_AUGMENTATION, None)
    if augmentation is not None:
        environment[_AUGMENTATION] = augmentation
    # Threads that wait for each other by spinning are slow wherever something else runs too.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if benchmark.threads is not None:
        for variable in ("OMP", "MKL", "OPENBLAS"):
            environment[f"{variable}_NUM_THREADS"] = str(benchmark.threads)
        environment["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(benchmark.threads)
        # nnU-Net sets torch's threads to multiprocessing.cpu_count(), which obeys this from Python 3.13 on.
        environment["PYTHON_CPU_COUNT"] = str(benchmark.threads)
    return environment


def list_thread_problems(benchmark: Benchmark, prefix: Sequence[str]) -> list[str]:
    """What keeps nnUNetv2_train from the number of threads that the file asks for; see docs/benchmark.md, Threads."""
    if benchmark.threads is None or benchmark.device != "cpu" or sys.version_info >= (3, 13):
        return []
    if any(Path(word).name in _PINNING for word in prefix):
        return []
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    if len(processors) <= benchmark.threads:
        return []
    listed = ",".join(map(str, sorted(processors)[: benchmark.threads]))
    return [
        f"'threads: {benchmark.threads}' does not reach nnUNetv2_train -device cpu before Python 3.13 (this is "
        f"{sys.version_info[0]}.{sys.version_info[1]}): its threads take all {len(processors)} processors. Hold it on "
        f"some, as with --prefix 'taskset -c {listed}'."
    ]
