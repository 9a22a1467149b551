"""A benchmark of toy data whose commands are small scripts: they leave what nnU-Net's would, and note what they saw."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

import numpy as np
import SimpleITK as sitk
import yaml
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark import cells, checks, execution, run
from nnunet_attenscribble.evaluation.benchmark.checks import Budget
from nnunet_attenscribble.evaluation.metrics import StructureScores
from nnunet_attenscribble.evaluation.structures import Structure
from nnunet_attenscribble.evaluation.summary import SUMMARY_FILE, Summary, write_summary

SCRIBBLE, DENSE, FEW = "Dataset501_Toy", "Dataset502_ToyDense", "Dataset503_Few"
TRAINING, VALIDATION = ["a", "b"], ["c", "d"]

_COMMON = """
    import json, os, sys, time, zipfile
    from pathlib import Path
    def option(name): return sys.argv[sys.argv.index(name) + 1]
    results = Path(os.environ["nnUNet_results"])
    work = results.parent.parent
    def note(**entry):
        with open(os.environ["FAKE_EVENTS"], "a") as file: file.write(json.dumps(entry) + "\\n")
    def seen(fold):
        place = work / "test" / f"fold_{fold}"
        found = {kind: place / kind for kind in ("images", "labels")}
        return {kind: sorted(os.listdir(path)) if path.exists() else None for kind, path in found.items()}
"""
_TRAIN = """
    dataset, configuration, fold, trainer = *sys.argv[1:4], option("-tr")
    folder = results / dataset / f"{trainer}__{option('-p')}__{configuration}" / f"fold_{fold}"
    folder.mkdir(parents=True, exist_ok=True)
    note(command="train", trainer=trainer, configuration=configuration, seen=seen(fold), arguments=sys.argv[1:],
         threads=os.environ.get("OMP_NUM_THREADS"), augmentation=os.environ.get("nnUNet_n_proc_DA"))
    plans = Path(os.environ["nnUNet_preprocessed"]) / dataset / "nnUNetPlans.json"
    (folder.parent / "plans.json").write_text(plans.read_text())
    with zipfile.ZipFile(folder / "checkpoint_latest.pth", "w") as file: file.writestr("data", b"0")
    if os.environ.get("FAKE_FAIL") == trainer:
        print("the reason of the failure"); sys.exit(3)
    if os.environ.get("FAKE_WAIT") == trainer:
        (work / "waiting").write_text(str(os.getpid()))
        while not (work / "go").exists(): time.sleep(0.02)
    (folder / "debug.json").write_text(json.dumps({"torch_version": "9.9"}))
    (folder / "loss_terms.csv").write_text("epoch,crf\\n0,1.5\\n")
    log = "2026-01-01 00:00:00.1: Epoch 0 \\n2026-01-01 00:00:01.1: train_loss -0.5 \\n"
    (folder / "training_log_2026.txt").write_text(log)
    (folder / "checkpoint_latest.pth").rename(folder / "checkpoint_final.pth")
    splits = plans.parent / "splits_final.json"
    if fold != "all" and splits.exists():
        cases = [{"prediction_file": f"{case}.nii.gz"} for case in json.loads(splits.read_text())[int(fold)]["val"]]
        (folder / "validation").mkdir(exist_ok=True)
        (folder / "validation" / "summary.json").write_text(json.dumps({"metric_per_case": cases}))
"""
_PREDICT = """
    images, output = Path(option("-i")), Path(option("-o"))
    output.mkdir(parents=True, exist_ok=True)
    note(command="predict", trainer=option("-tr"), images=sorted(os.listdir(images)), seen=seen(option("-f")),
         arguments=sys.argv[1:])
    for image in images.iterdir(): (output / image.name.replace("_0000", "")).write_text("prediction")
"""
_ATTENSCRIBBLE = """
    import zlib
    if sys.argv[1] == "attention":
        output = Path(option("-o"))
        note(command="attention", model=sys.argv[2], arguments=sys.argv[1:], seen=seen(option("-f")))
        if os.environ.get("FAKE_BLIND"):
            print("no picture came out"); sys.exit(2)
        output.mkdir(exist_ok=True)
        (output / "attention.json").write_text("{}")
        sys.exit()
    if sys.argv[1] == "postprocess":
        source, output = Path(sys.argv[2]), Path(option("-o"))
        note(command="postprocess", arguments=sys.argv[1:])
        if os.environ.get("FAKE_PAIRED"):
            print("no rule was found"); sys.exit(2)
        output.mkdir()
        for file in source.iterdir(): (output / file.name).write_text("postprocessed")
        decisions = [{"structure": "heart", "keep_largest": True}, {"structure": "kidneys", "keep_largest": False}]
        (output / "attenscribble_postprocessing.json").write_text(json.dumps({"decisions": decisions}))
        sys.exit()
    if sys.argv[1] != "evaluate":
        sys.path.insert(0, os.environ["FAKE_ROOT"])
        from nnunet_attenscribble.cli import main
        from tests.evaluation.benchmark.fake_nnunet import patch
        patch(setattr, Path(sys.argv[0]).parent)
        main(); sys.exit()
    predictions, labels, output = Path(sys.argv[2]), Path(sys.argv[3]), Path(option("-o"))
    cases = sorted(file.name.removesuffix(".nii.gz") for file in predictions.glob("*.nii.gz"))
    note(command="evaluate", cell=str(output), labels=sorted(os.listdir(labels)), cases=cases, arguments=sys.argv[1:])
    summary = json.loads((Path(sys.argv[0]).parent / "summary.json").read_text())
    summary["provenance"]["predictions"] = str(predictions)
    template = json.dumps(summary["cases"].pop())
    if "chaos-pacingpseudo" in sys.argv:
        summary["protocol"] = "chaos-pacingpseudo"
        cases = [f"{case}_slice{position:03d}" for case in cases for position in (0, 1)]
    for case in cases:
        entry = json.loads(template)
        dice = 0.5 + zlib.crc32(f"{output.parts[-4:]} {case}".encode()) % 400 / 1000
        entry["case"], entry["structures"]["heart"]["dice"] = case, dice
        summary["cases"].append(entry)
    (output / "attenscribble_summary.json").write_text(json.dumps(summary))
"""


def patch(set_attribute, programs: Path) -> None:
    """Let the benchmark find the scripts, and spare it the import of nnU-Net for the length of its trainings."""

    def find(name: str) -> str:
        return str(programs / name) if (programs / name).exists() else execution.shutil.which(name) or name

    set_attribute(execution, "find_command", find)
    set_attribute(checks, "ask_nnunet", lambda *_: [])
    set_attribute(run, "find_command", find)
    set_attribute(
        cells,
        "resolve_budgets",
        lambda models, *_: {
            name: Budget(5, 250, 2, attention="AttenScribble" in model.trainer) for name, model in models.items()
        },
    )


def write_programs(folder: Path) -> Path:
    folder.mkdir()
    scripts = {"nnUNetv2_train": _TRAIN, "nnUNetv2_predict": _PREDICT, "attenscribble": _ATTENSCRIBBLE}
    for name, code in scripts.items():
        (folder / name).write_text(f"#!{sys.executable}\n{dedent(_COMMON)}{dedent(code)}")
        (folder / name).chmod(0o755)
    scores = StructureScores("present", 0.0, 0.5, 3.0, 1.0, 0.1, 100, 100)
    summary = Summary(
        (Structure("heart", (1,)),),
        {"case": {"heart": scores}},
        {"case": (2, 3, 4)},
        {"case": (5.0, 1.0, 1.0)},
        provenance={"plans_sha256": "abc"},
        versions={"nnunet-attenscribble": "0"},
    )
    write_summary(summary, folder)
    (folder / SUMMARY_FILE).rename(folder / "summary.json")
    return folder


def write_data(raw: Path, preprocessed: Path) -> None:
    """Two datasets of four cases, whose files nobody opens."""
    configurations = {
        "2d": {"batch_size": 2, "patch_size": [4, 4], "data_identifier": "nnUNetPlans_2d"},
        "2d_crf": {"inherits_from": "2d", "attenscribble": {"crf_weight": 0.5}},
    }
    for name, labels in (
        (SCRIBBLE, {"background": 0, "heart": 1, "ignore": 2}),
        (DENSE, {"background": 0, "heart": 1}),
    ):
        for folder in (raw / name / "imagesTr", raw / name / "labelsTr", preprocessed / name / "nnUNetPlans_2d"):
            folder.mkdir(parents=True)
        cases = {}
        for case in TRAINING + VALIDATION:
            (raw / SCRIBBLE / "imagesTr" / f"{case}_0000.nii.gz").touch()
            (raw / name / "labelsTr" / f"{case}.nii.gz").touch()
            image = f"../{SCRIBBLE}/imagesTr/{case}_0000.nii.gz"
            cases[case] = {"images": [image], "label": f"labelsTr/{case}.nii.gz"}
        content = {"labels": labels, "file_ending": ".nii.gz", "channel_names": {"0": "MRI"}, "dataset": cases}
        for folder in (raw / name, preprocessed / name):
            (folder / "dataset.json").write_text(json.dumps(content))
        plans = {"plans_name": "nnUNetPlans", "configurations": configurations}
        (preprocessed / name / "nnUNetPlans.json").write_text(json.dumps(plans))
        splits = [{"train": TRAINING, "val": VALIDATION}, {"train": VALIDATION, "val": TRAINING}]
        (preprocessed / name / "splits_final.json").write_text(json.dumps(splits))


class Toy:
    """A benchmark file, its folders, and ways to call the command."""

    def __init__(self, folder: Path, monkeypatch):
        self.folder, self.work, self.file = folder, folder / "work", folder / "toy.yaml"
        self.raw, self.preprocessed = folder / "nnUNet_raw", folder / "nnUNet_preprocessed"
        write_data(self.raw, self.preprocessed)
        self.programs = write_programs(folder / "programs")
        monkeypatch.setenv("nnUNet_raw", str(self.raw))
        monkeypatch.setenv("nnUNet_preprocessed", str(self.preprocessed))
        monkeypatch.setenv("FAKE_EVENTS", str(folder / "events"))
        monkeypatch.setenv("FAKE_ROOT", str(Path(__file__).resolve().parents[3]))
        monkeypatch.setattr(execution, "_POLL", 0.02)
        monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
        patch(monkeypatch.setattr, self.programs)
        self.content = {
            "name": "toy",
            "datasets": {"scribble": 501, "dense": 502},
            "configurations": ["2d"],
            "test": "validation",
            "device": "cpu",
            "rows": [
                {"name": "Dense", "trainer": "nnUNetTrainer_5epochs", "labels": "dense"},
                {"name": "Partial CE", "trainer": "nnUNetTrainerPartialCE", "labels": "scribble"},
                {"name": "CRF", "trainer": "nnUNetTrainerMaskedCRF", "labels": "scribble", "configuration": "2d_crf"},
            ],
        }
        self.write()

    def write(self, **changes) -> None:
        self.content |= changes
        self.file.write_text(yaml.safe_dump(self.content, sort_keys=False))

    def write_splits(self, *splits: dict[str, list[str]]) -> None:
        for name in (SCRIBBLE, DENSE):
            (self.preprocessed / name / "splits_final.json").write_text(json.dumps(splits))

    def change_settings(self) -> None:
        """Those of the row CRF, whose configuration keeps its name."""
        for name in (SCRIBBLE, DENSE):
            file = self.preprocessed / name / "nnUNetPlans.json"
            file.write_text(file.read_text().replace('"crf_weight": 0.5', '"crf_weight": 0.7'))

    def add_test_folder(self, *cases: str, labels: Sequence[str] | None = None) -> None:
        """A test set of its own, of empty files; labels of the same cases unless they are told."""
        test = {kind: self.folder / "test" / kind for kind in ("images", "labels")}
        for kind, names in (("images", [f"{case}_0000" for case in cases]), ("labels", labels or cases)):
            test[kind].mkdir(parents=True)
            for name in names:
                (test[kind] / f"{name}.nii.gz").touch()
        self.write(test={kind: str(folder) for kind, folder in test.items()})

    def add_few(self, *labels: str) -> None:
        """Further scribbles of the same cases, called `few`, and a row that is trained on these labels."""
        for root in (self.raw, self.preprocessed):
            shutil.copytree(root / SCRIBBLE, root / FEW)
        rows = [self.content["rows"][0], self.content["rows"][1] | {"labels": list(labels)}]
        self.write(datasets={"scribble": 501, "few": 503, "dense": 502}, rows=rows)

    def draw(self, name: str, **voxels: list[tuple[int, int]]) -> None:
        """Write labels (3, 4, 4) of these cases: a voxel of class 1 at (slice, row) for each pair."""
        for case, places in voxels.items():
            labels = np.full((3, 4, 4), 2, np.uint8)
            for position, row in places:
                labels[position, row, 0] = 1
            sitk.WriteImage(sitk.GetImageFromArray(labels), str(self.raw / name / "labelsTr" / f"{case}.nii.gz"))

    def call(self, *arguments: str, code: int = 0) -> str:
        """`attenscribble benchmark` in this process; what it printed."""
        command = ["benchmark", *arguments, str(self.file), "--work", str(self.work)]
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.output

    def start(self, *arguments: str) -> subprocess.Popen:
        """The same in a process of its own."""
        command = [str(self.programs / "attenscribble"), "benchmark", "run", str(self.file), "--work", str(self.work)]
        environment = {**os.environ, "nnUNet_results": str(self.work / "seed_0" / "nnUNet_results")}
        return subprocess.Popen(
            [*command, *arguments],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def problems(self, *arguments: str) -> list[str]:
        try:
            self.call(*arguments)
        except AttenScribbleError as error:
            return error.problems
        raise AssertionError("nothing was refused")

    def events(self, command: str | None = None) -> list[dict]:
        file = self.folder / "events"
        entries = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [entry for entry in entries if command in (None, entry["command"])]

    def trained(self) -> list[str]:
        return [entry["trainer"] for entry in self.events("train")]


def wait_until(condition, seconds: float = 60.0) -> None:
    """AssertionError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
