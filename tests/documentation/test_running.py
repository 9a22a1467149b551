"""The blocks of commands that are marked so run as they stand, on phantoms, with trainings of two iterations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_attenscribble.dataset_conversion.phantom import write_phantoms
from tests.documentation.blocks import PAGES, read_blocks

RUNNING = {page.name: [block.text for block in read_blocks(page) if block.mark == "runs"] for page in PAGES}

# What a machine without a GPU and a test without hours need; commands and their other options stay as they are.
PREAMBLE = """
set -euo pipefail
on_cpu() { case " $* " in *" -device "*) command "$@" ;; *) command "$@" -device cpu ;; esac; }
nnUNetv2_train() { on_cpu nnUNetv2_train "$@"; }
nnUNetv2_predict() { on_cpu nnUNetv2_predict "$@" -npp 1 -nps 1; }
nnUNetv2_preprocess() { command nnUNetv2_preprocess "$@" -np 1; }
nnUNetv2_plan_and_preprocess() { command nnUNetv2_plan_and_preprocess "$@" -np 1 -npfp 1; python shorten.py; }
"""
SHORTEN = """
import json, os
from pathlib import Path
for file in Path(os.environ["nnUNet_preprocessed"]).glob("*/*Plans.json"):
    plans = json.loads(file.read_text())
    for configuration in plans["configurations"].values():
        if "inherits_from" not in configuration:
            configuration["batch_size"] = 2
            network = configuration["architecture"]["arch_kwargs"]
            network["features_per_stage"] = [8] * len(network["features_per_stage"])
            configuration["attenscribble"] = {
                "num_epochs": 1, "num_iterations_per_epoch": 2, "num_val_iterations_per_epoch": 1
            }
    file.write_text(json.dumps(plans))
"""


def run_blocks(page: str, folder: Path, **variables: str) -> str:
    """All blocks of a page in one shell."""
    (folder / "shorten.py").write_text(SHORTEN)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")} | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
        "nnUNet_compile": "f",
        "OMP_NUM_THREADS": "1",
    }
    script = "\n".join([PREAMBLE, *RUNNING[page]])
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def write_small_phantoms(raw: Path, name: str, scribble: int, dense: int) -> Path:
    written = write_phantoms(
        raw_folder=raw, dataset_id=scribble, dense_id=dense, name=name, training=4, validation=1, test=1
    )
    return written.scribble


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_readme(tmp_path):
    folders = {name: str(tmp_path / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for folder in folders.values():
        Path(folder).mkdir()
    scribble = write_small_phantoms(Path(folders["nnUNet_raw"]), "Heart", 3, 4)
    (tmp_path / "IMAGES").symlink_to(scribble / "imagesTs")
    (tmp_path / "LABELS").symlink_to(scribble / "labelsTs")
    told = run_blocks("README.md", tmp_path, **folders)
    assert "foreground mean" in told
    assert len(list((tmp_path / "PREDICTIONS").glob("*.nii.gz"))) == 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_first_hour(tmp_path):
    demo = tmp_path / "attenscribble_demo"
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (demo / name).mkdir(parents=True)
    write_small_phantoms(demo / "nnUNet_raw", "Phantom", 901, 902)
    told = run_blocks("first_hour.md", tmp_path)
    assert "nnU-Net finds all 5 of them" in told
    assert "every class has strokes" in told
    assert "foreground mean" in told


def test_the_pages_that_run_are_these():
    assert {page for page, blocks in RUNNING.items() if blocks} == {"README.md", "first_hour.md", "troubleshooting.md"}


def test_the_export_of_troubleshooting(tmp_path):
    run_blocks("troubleshooting.md", tmp_path)
