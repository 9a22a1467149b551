from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nnunet_attenscribble.evaluation.benchmark.run import format_ranges
from tests.evaluation.benchmark.fake_nnunet import Toy

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SLURM runs on POSIX")

# What a cluster does with a job array, one job after the other.
SBATCH = """#!{python}
import os, re, subprocess, sys
script = open(sys.argv[1]).read()
open({record!r}, "a").write(script)
if "REFUSE" in os.environ: sys.exit("sbatch: error: invalid partition specified: gpu")
array = re.search(r"--array=([0-9,-]+)", script)[1]
cpus = re.search(r"--cpus-per-task=(\\d+)", script)[1]
for part in array.split(","):
    first, _, last = part.partition("-")
    for number in range(int(first), int(last or first) + 1):
        environment = {{**os.environ, "SLURM_ARRAY_TASK_ID": str(number), "SLURM_CPUS_PER_TASK": cpus}}
        subprocess.run(["bash", sys.argv[1]], env=environment, stdout=open({output!r}, "a"), stderr=subprocess.STDOUT)
print("Submitted batch job 1")
"""


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Toy:
    toy = Toy(tmp_path, monkeypatch)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    code = SBATCH.format(python=sys.executable, record=str(tmp_path / "submitted"), output=str(tmp_path / "output"))
    (bin_folder / "sbatch").write_text(code)
    (bin_folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("nnUNet_results", "a/b")  # which the scripts look at
    toy.write(
        slurm={
            "partition": "gpu",
            "gpus": "a100:1",
            "cpus": 6,
            "memory": "32G",
            "time": "12:00:00",
            "at_once": 2,
            "options": ["--constraint=volta", "--account=x"],
            "setup": [f"echo set up >> {tmp_path / 'setup'}"],
        }
    )
    return toy


def test_an_array_runs_the_missing_cells_and_collect_finds_them(toy):
    toy.call("--only", "partial")
    told = toy.call("--executor", "slurm")
    assert "Submitted batch job 1: 2 of 3 cells" in told
    assert (toy.folder / "setup").read_text() == "set up\n" * 2
    assert toy.trained() == ["nnUNetTrainerPartialCE", "nnUNetTrainer_5epochs", "nnUNetTrainerMaskedCRF"]
    assert [entry["augmentation"] for entry in toy.events("train")] == ["1", "6", "6"]
    assert "Submitted" not in toy.call("--executor", "slurm")
    toy.call("collect")
    assert (toy.work / "collected" / "missing.txt").read_text() == ""


def test_what_follows_the_evaluation_is_submitted_too(toy):
    toy.call("--only", "crf")
    toy.write(postprocess=True)
    assert "1 of 3 cells" in toy.call("--executor", "slurm", "--only", "crf")
    assert "postprocess" in [entry["command"] for entry in toy.events()]
    (runs,) = toy.work.glob("slurm/*/runs.txt")
    runs.write_text("")
    script = ["bash", str(runs.with_name("array.sbatch"))]
    assert subprocess.run(script, env={**os.environ, "SLURM_ARRAY_TASK_ID": "1"}).returncode == 1


def test_printed_commands_can_be_pasted_with_paths_that_hold_spaces(toy):
    toy.work, toy.file = toy.folder / "my work", toy.folder / "my toy.yaml"
    toy.write(prepare=[{"name": "convert", "command": "true", "creates": []}])
    (problem,) = toy.problems("--executor", "slurm")
    assert f"`attenscribble benchmark '{toy.file}' --work '{toy.work}' --prepare` first" in problem
    toy.call("--prepare")
    told = toy.call("--executor", "slurm")
    assert f"When the jobs have ended: attenscribble benchmark collect '{toy.file}' --work '{toy.work}'\n" in told


def test_the_script_asks_for_what_the_file_says(toy):
    toy.call("--only", "partial")
    toy.call("--executor", "slurm")
    lines = (toy.folder / "submitted").read_text().splitlines()
    (folder,) = (toy.work / "slurm").iterdir()
    assert lines[:13] == [
        "#!/bin/bash",
        "#SBATCH --job-name=toy",
        "#SBATCH --array=1,3%2",
        "#SBATCH --partition=gpu",
        "#SBATCH --gres=gpu:a100:1",
        "#SBATCH --cpus-per-task=6",
        "#SBATCH --mem=32G",
        "#SBATCH --time=12:00:00",
        f"#SBATCH --output={folder}/%A_%a.log",
        "#SBATCH --open-mode=append",
        "#SBATCH --requeue",
        "#SBATCH --constraint=volta",
        "#SBATCH --account=x",
    ]
    runs = (folder / "runs.txt").read_text().splitlines()
    assert [line.split()[-1] for line in runs] == [f"seed_0/fold_0/{row}" for row in ("dense", "partial_ce", "crf")]


def test_every_job_runs_its_commands_behind_the_prefix(toy):
    toy.call("--executor", "slurm", "--prefix", f'sh -c \'echo "$0" >> {toy.folder}/prefixed; exec "$0" "$@"\'')
    assert len(toy.events()) == 9
    prefixed = (toy.folder / "prefixed").read_text().splitlines()
    assert [os.path.basename(line) for line in prefixed] == ["nnUNetv2_train", "nnUNetv2_predict", "attenscribble"] * 3


def test_jobs_of_an_earlier_submission_keep_their_lines(toy):
    toy.call("--only", "dense", "--executor", "slurm")
    (first,) = (toy.work / "slurm").iterdir()
    before = (first / "runs.txt").read_text()
    toy.write(rows=toy.content["rows"][::-1])
    toy.call("--only", "crf", "--executor", "slurm")
    assert (first / "runs.txt").read_text() == before
    assert len(list((toy.work / "slurm").iterdir())) == 2


def test_what_is_missing_after_a_failed_job_is_submitted_again(toy, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "nnUNetTrainerMaskedCRF")
    toy.call("--executor", "slurm")
    assert "the reason of the failure" in (toy.folder / "output").read_text()
    assert "missing: seed_0/fold_0/crf (training)" in toy.call("collect")
    monkeypatch.delenv("FAKE_FAIL")
    assert "1 of 3 cells" in toy.call("--executor", "slurm")
    assert "missing:" not in toy.call("collect")


def test_no_job_is_submitted_for_a_cell_that_would_be_refused(toy):
    toy.call("--only", "crf")
    toy.change_settings()
    told = toy.call("--executor", "slurm", code=1)
    assert "Submitted batch job 1: 2 of 3 cells" in told
    assert "error: seed_0/fold_0/crf: " in told
    assert toy.trained() == ["nnUNetTrainerMaskedCRF", "nnUNetTrainer_5epochs", "nnUNetTrainerPartialCE"]


def test_a_refusal_is_told(toy, monkeypatch):
    monkeypatch.setenv("REFUSE", "1")
    (problem,) = toy.problems("--executor", "slurm")
    assert "sbatch: error: invalid partition specified: gpu" in problem


def test_without_sbatch_the_script_is_there_to_be_submitted_elsewhere(toy, monkeypatch):
    monkeypatch.setenv("PATH", str(toy.folder / "programs"))
    (problem,) = toy.problems("--executor", "slurm")
    assert "sbatch is not on the PATH" in problem
    assert list((toy.work / "slurm").rglob("array.sbatch"))


def test_data_sets_are_prepared_before_an_array_is_submitted(toy):
    toy.write(prepare=[{"name": "convert", "command": "true", "creates": []}])
    (problem,) = toy.problems("--executor", "slurm")
    assert "--prepare` first" in problem
    toy.call("--prepare")
    assert "Submitted" in toy.call("--executor", "slurm")


@pytest.mark.parametrize(
    ("numbers", "text"), [([1], "1"), ([1, 2, 3], "1-3"), ([1, 3, 4, 9], "1,3-4,9"), ([2, 3], "2-3"), ([], "")]
)
def test_ranges(numbers, text):
    assert format_ranges(numbers) == text
