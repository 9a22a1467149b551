"""What several test folders need."""

from __future__ import annotations

import gzip
import shutil
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import settings

from nnunet_attenscribble.common import workers
from tests.tiny import make_dense, make_scan, make_strokes, make_volume

ROOT = Path(__file__).resolve().parents[1]
CODE = ("nnunet_attenscribble", "trainers", "dataset_conversion", "evaluation")
BUILT_FROM = ("pyproject.toml", "setup.py", "README.md", "LICENSE")  # besides

# Tests run several at a time; more threads than that only get in each other's way.
torch.set_num_threads(1)

# A loaded machine is slow, and no fault.
settings.register_profile("attenscribble", deadline=None)
settings.load_profile("attenscribble")

# A suite begun with nohup, or in the background of a script, inherits that these are ignored; so would its commands.
if sys.platform != "win32" and threading.current_thread() is threading.main_thread():
    for one, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(one) is signal.SIG_IGN:
            signal.signal(one, handler)


@pytest.fixture(autouse=True)
def _nnunet_folders_unset(monkeypatch):
    """No test depends on, or writes to, the folders of whoever runs it."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    """Where `worker_map` is not told how many, it starts no workers: each takes seconds to import what it needs."""
    monkeypatch.setattr(workers, "default_workers", lambda: 1)


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Reference values and real scans beside the checkout; tests that need them are skipped elsewhere."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip("no reference values or real scans beside the checkout")
    return folder


@pytest.fixture(scope="session")
def distributions(tmp_path_factory) -> tuple[Path, Path]:
    """Sdist, and the wheel built from it."""
    source = copy_sources(tmp_path_factory.mktemp("source") / "clone")
    out = tmp_path_factory.mktemp("dist")
    build(source, out)
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


def copy_sources(folder: Path) -> Path:
    """What the package is built from, in a new folder."""
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, folder)
    return folder


def build(source: Path, out: Path, *options: str) -> None:
    """Sdist and wheel of it, or what the options ask for."""
    command = [sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture
def volume():
    """Factory of small volumes, oblique and anisotropic unless told otherwise."""
    return make_volume


@pytest.fixture
def scan():
    """Factory of noise images."""
    return make_scan


@pytest.fixture
def negative_step():
    """Writes an image as .nii.gz whose header says a negative voxel size along y, as older SimpleITK did."""

    def write(image: sitk.Image, file: Path) -> None:
        sitk.WriteImage(image, str(file))
        content = bytearray(gzip.decompress(file.read_bytes()))
        struct.pack_into("<f", content, 84, -image.GetSpacing()[1])  # pixdim[2]
        file.write_bytes(gzip.compress(bytes(content)))

    return write


@pytest.fixture
def dense() -> np.ndarray:
    """A dense label with the classes 0 to 3, (z, y, x)."""
    return make_dense()


@pytest.fixture
def strokes() -> np.ndarray:
    """Its scribble: 4 is unlabelled."""
    return make_strokes()
