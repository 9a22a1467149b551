"""Small volumes, small copies of ACDC's layout, and the real data where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

SIZE = (6, 5, 4)  # x, y, z
SPACING = (1.5, 1.25, 8.0)
ORIGIN = (-103.5, 20.25, 7.0)
# A rotation by 30 degrees about x, after one by 90 about z: oblique, and no axis is where it usually is.
DIRECTION = (0.0, -1.0, 0.0, 0.75**0.5, 0.0, -0.5, 0.5, 0.0, 0.75**0.5)


def _volume(
    values: object = 0,
    dtype: object = np.uint8,
    *,
    size=SIZE,
    spacing=SPACING,
    origin=ORIGIN,
    direction=DIRECTION,
) -> sitk.Image:
    array = np.zeros(size[::-1], dtype=dtype)
    array[...] = values
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    return image


def _scan(seed: int, dtype: object = np.int16) -> sitk.Image:
    noise = np.random.default_rng(seed).normal(200, 50, SIZE[::-1])
    return _volume(noise.astype(dtype), dtype)


def _dense() -> np.ndarray:
    label = np.zeros(SIZE[::-1], np.uint8)
    label[1:3, 1:4, 1] = 1
    label[1:3, 1:4, 2:4] = 2
    label[1:3, 2, 3] = 3
    return label


def _strokes() -> np.ndarray:
    dense = _dense()
    strokes = np.full_like(dense, 4)
    strokes[:, 2] = dense[:, 2]  # one line through each slice
    return strokes


@pytest.fixture
def volume():
    """Factory of small volumes, oblique and anisotropic unless told otherwise."""
    return _volume


@pytest.fixture
def scan():
    """Factory of noise images."""
    return _scan


@pytest.fixture
def dense() -> np.ndarray:
    """A dense label with the classes 0 to 3, (z, y, x)."""
    return _dense()


@pytest.fixture
def strokes() -> np.ndarray:
    """Its scribble: 4 is unlabelled."""
    return _strokes()


@pytest.fixture
def write_acdc(tmp_path):
    """Factory of made-up downloads: (folder of scans, folder of scribbles)."""

    def write(patients=(1, 2, 3, 4, 5), *, flat=False, ending=".nii.gz", inside="database/training", dense=True):
        root, scribbles = tmp_path / "ACDC", tmp_path / "scribbles"
        scribbles.mkdir(exist_ok=True)
        for patient in patients:
            folder = root if flat else root / inside / f"patient{patient:03d}"
            folder.mkdir(parents=True, exist_ok=True)
            for frame in (1, 10 + patient % 5):
                stem = f"patient{patient:03d}_frame{frame:02d}"
                sitk.WriteImage(_scan(100 * patient + frame), folder / f"{stem}{ending}")
                if dense:
                    sitk.WriteImage(_volume(_dense()), folder / f"{stem}_gt{ending}")
                sitk.WriteImage(_volume(_strokes(), np.uint16), scribbles / f"{stem}_scribble{ending}")
            (folder / f"patient{patient:03d}_4d.nii.gz").write_bytes(b"never to be opened")
        return root, scribbles

    return write


@pytest.fixture
def shared_data() -> Path:
    """The folder of real images beside the checkout; skips where it is absent."""
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real images in ../shared/data, which are not part of the project")
    return folder


@pytest.fixture
def acdc_subset(shared_data, tmp_path) -> tuple[Path, Path]:
    """Links to four real ACDC patients, two of them MAAG's validation patients, and the archive of all scribbles."""
    training, archive = shared_data / "ACDC" / "database" / "training", shared_data / "acdc_scribbles.zip"
    if not training.is_dir() or not archive.is_file():
        pytest.skip("needs ACDC and acdc_scribbles.zip in ../shared/data")
    folder = tmp_path / "subset" / "training"
    folder.mkdir(parents=True)
    for patient in (4, 6, 1, 84):
        (folder / f"patient{patient:03d}").symlink_to(training / f"patient{patient:03d}", target_is_directory=True)
    return folder.parent, archive
