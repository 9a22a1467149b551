"""nnU-Net without what makes small datasets wait.

A new process imports torch anew, and a fingerprint draws 10^8 intensities from however few voxels. Tests that run
nnU-Net's commands have both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

_WITH_WORKERS = (
    "evaluation.evaluate_predictions",
    "experiment_planning.dataset_fingerprint.fingerprint_extractor",
    "training.nnUNetTrainer.nnUNetTrainer",
)
_THREADS = SimpleNamespace(get_context=lambda _: SimpleNamespace(Pool=ThreadPool))
_INTENSITIES = 100_000


@contextmanager
def quick_nnunet() -> Iterator[None]:
    """Within this context worker processes are threads, and fingerprints draw 10^5 intensities."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    # Read-only: what nnU-Net's constructor assigns is dropped.
    intensities = property(lambda _: _INTENSITIES, lambda *_: None)
    with ExitStack() as stack:
        for module in _WITH_WORKERS:
            stack.enter_context(mock.patch(f"nnunetv2.{module}.multiprocessing", _THREADS))
        name = "num_foreground_voxels_for_intensitystats"
        stack.enter_context(mock.patch.object(DatasetFingerprintExtractor, name, intensities, create=True))
        yield


def verify(dataset: Path) -> None:
    """Raise what `nnUNetv2_plan_and_preprocess --verify_dataset_integrity` ends with."""
    from nnunetv2.experiment_planning import verify_dataset_integrity

    with mock.patch.object(verify_dataset_integrity, "multiprocessing", _THREADS):
        verify_dataset_integrity.verify_dataset_integrity(str(dataset), num_processes=1)
