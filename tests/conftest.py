"""What several test folders need."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

# Tests run several at a time; more threads than that only get in each other's way.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _nnunet_folders_unset(monkeypatch):
    """No test depends on, or writes to, the folders of whoever runs it."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Reference values and real scans beside the checkout; tests that need them are skipped elsewhere."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip("no reference values or real scans beside the checkout")
    return folder
