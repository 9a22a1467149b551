"""Small volumes, small copies of ACDC's layout, and the real data where they are."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_attenscribble.cli import main
from tests.tiny import make_dense, make_scan, make_strokes, make_volume


@pytest.fixture
def attenscribble(monkeypatch, capsys, tmp_path):
    """Run the command with nnU-Net's folders in `tmp_path`: (exit code, stdout, stderr)."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)  # they make rich take a file for a terminal

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["attenscribble", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return run


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
                sitk.WriteImage(make_scan(100 * patient + frame), folder / f"{stem}{ending}")
                if dense:
                    sitk.WriteImage(make_volume(make_dense()), folder / f"{stem}_gt{ending}")
                sitk.WriteImage(make_volume(make_strokes(), np.uint16), scribbles / f"{stem}_scribble{ending}")
            (folder / f"patient{patient:03d}_4d.nii.gz").write_bytes(b"never to be opened")
        return root, scribbles

    return write


@pytest.fixture
def acdc_subset(shared_folder, tmp_path) -> tuple[Path, Path]:
    """Links to four real ACDC patients, two of them MAAG's validation patients, and the archive of all scribbles."""
    data = shared_folder / "data"
    training, archive = data / "ACDC" / "database" / "training", data / "acdc_scribbles.zip"
    if not training.is_dir() or not archive.is_file():
        pytest.skip("needs ACDC and acdc_scribbles.zip in ../shared/data")
    folder = tmp_path / "subset" / "training"
    folder.mkdir(parents=True)
    for patient in (4, 6, 1, 84):
        (folder / f"patient{patient:03d}").symlink_to(training / f"patient{patient:03d}", target_is_directory=True)
    return folder.parent, archive
