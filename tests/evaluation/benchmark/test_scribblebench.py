"""The benchmark file of ScribbleBench on a toy of each of its sets, laid out as its authors do."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark import checks
from nnunet_attenscribble.evaluation.benchmark.file import read_benchmark
from tests.conftest import ROOT

FILE = ROOT / "examples" / "scribblebench.yaml"
# By set: channels, number of classes, cases to train with, a case to test with.
SETS = {
    "ACDC": (["MRI"], 3, ["patient001_frame01", "patient001_frame12", "patient002_frame01"], "patient101_frame01"),
    "MSCMR": (["MRI"], 3, ["subject5_DE", "subject10_DE"], "subject1_DE"),
    "WORD": (["CT"], 16, ["word_0002", "word_0003"], "word_0007"),
    "AMOS2022": (["CT"], 15, ["amos_0001", "amos_0507"], "amos_0008"),
    "KiTS2023": (["CT"], 3, ["case_00001", "case_00002"], "case_00007"),
    "LiTS": (["CT"], 2, ["liver_1", "liver_2"], "liver_0"),
    "BraTS2020": (["T1", "T1ce", "T2", "FLAIR"], 3, ["BraTS20_Training_001", "BraTS20_Training_002"], "BraTS20_005"),
}


def write_set(folder: Path, channels: list[str], classes: int, training: list[str], test: str) -> Path:
    rng = np.random.default_rng(0)

    def write(array: np.ndarray, file: Path) -> None:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((1.5, 1.25, 5.0))
        file.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(file))

    for case in (*training, test):
        part = "Ts" if case == test else "Tr"
        dense = np.zeros((3, 8, classes + 3), np.uint8)
        dense[1:, 2:6, 1 : classes + 1] = np.arange(1, classes + 1)
        for number in range(len(channels)):
            noise = rng.normal(0, 20, dense.shape).round().astype(np.int16)
            write(noise + 100 * dense, folder / f"images{part}" / f"{case}_{number:04d}.nii.gz")
        if case == test:
            write(dense, folder / "labelsTs" / f"{case}.nii.gz")
            continue
        scribble = np.full(dense.shape, classes + 1, np.uint8)
        scribble[:, 3] = dense[:, 3]
        write(scribble, folder / "labelsTr" / f"{case}.nii.gz")
        write(dense, folder / "labelsTr_dense" / f"{case}.nii.gz")
    labels = {"background": 0, **{f"class {value}": value for value in range(1, classes + 1)}, "ignore": classes + 1}
    content = {"channel_names": dict(enumerate(channels)), "labels": labels, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content | {"numTraining": len(training)}))
    return folder


@pytest.mark.parametrize(
    ("name", "steps"),
    # nnU-Net's fingerprint takes seconds, whatever the set.
    [*((name, 1) for name in SETS), pytest.param("KiTS2023", 2, marks=pytest.mark.slow, id="KiTS2023-fingerprint")],
)
def test_every_set_is_converted_and_ready_to_run(tmp_path, monkeypatch, name, steps):
    source = write_set(tmp_path / "ScribbleBench" / name, *SETS[name])
    raw, preprocessed = tmp_path / "raw", tmp_path / "preprocessed"
    for variable, value in {
        **{"SET": name, "SCRIBBLEBENCH": source, "nnUNet_raw": raw, "nnUNet_preprocessed": preprocessed}
    }.items():
        monkeypatch.setenv(variable, str(value))
    monkeypatch.setattr(checks, "ask_nnunet", lambda *_: [])
    arguments = ["benchmark", str(FILE), "--work", str(tmp_path / name), "--dry-run"]
    prepare = read_benchmark(FILE).prepare
    for step in prepare[:steps]:
        words = [word.replace("$SCRIBBLEBENCH", str(source)).replace("$SET", name) for word in step.command]
        run = CliRunner().invoke(app, [*words[1:], "--workers", "1"])
        assert run.exit_code == 0, (shlex.join(words), run.output, run.exception)
        for path in step.creates:
            path = path.replace("$nnUNet_raw", str(raw)).replace("$nnUNet_preprocessed", str(preprocessed))
            assert Path(path.replace("${SET}", name).replace("$SET", name)).exists()
    _, classes, training, test = SETS[name]
    description = json.loads((raw / f"Dataset561_{name}" / "dataset.json").read_text())
    assert (description["numTraining"], len(description["labels"])) == (len(training), classes + 2)
    after = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert after.exit_code == 0, after.output
    done = [f"# is done: {shlex.join(step.command[:2])}" in after.output for step in prepare]
    assert done == [number < steps for number in range(len(prepare))]
    assert after.output.count("nnUNetv2_train ") == len(read_benchmark(FILE).rows)
    assert f"nnUNetv2_train Dataset561_{name} 3d_fullres all -tr nnUNetTrainerAttenScribble" in after.output
    assert after.output.count("--protocol scribblebench") == len(read_benchmark(FILE).rows)
    assert str(raw / f"Dataset561_{name}" / "imagesTs") in after.output
    assert test not in {file.name.split(".")[0] for file in (raw / f"Dataset561_{name}" / "labelsTr").iterdir()}


def test_a_set_that_is_not_named_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("SET", raising=False)
    monkeypatch.setattr(checks, "ask_nnunet", lambda *_: [])
    with pytest.raises(AttenScribbleError, match="needs the variable SET"):
        CliRunner().invoke(
            app, ["benchmark", str(FILE), "--work", str(tmp_path / "w"), "--dry-run"], catch_exceptions=False
        )
