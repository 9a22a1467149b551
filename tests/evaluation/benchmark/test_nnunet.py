"""The benchmark with nnU-Net itself, on a dataset of a few voxels."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.common.files import write_json
from nnunet_attenscribble.common.nnunet import trainers_folder
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.attention_folder import read_record
from nnunet_attenscribble.evaluation.benchmark.checks import Budget, resolve_budgets
from nnunet_attenscribble.evaluation.benchmark.workspace import Model, nnunet_environment
from nnunet_attenscribble.evaluation.summary import read_summary
from nnunet_attenscribble.plans import read_plans
from tests.trainers.conftest import ITERATIONS, NAME, prepared  # noqa: F401 - a fixture

DENSE = "Dataset702_TinyDense"
TEST_CASE = "case3"
pytestmark = pytest.mark.xdist_group("benchmark with nnU-Net")


@pytest.fixture
def twins(prepared, tmp_path) -> Path:  # noqa: F811
    """nnU-Net's folders with a dense twin, none of whose training cases has a label that could be opened."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(prepared / variable / NAME, tmp_path / variable / NAME)
    raw, preprocessed = tmp_path / "nnUNet_raw" / DENSE, tmp_path / "nnUNet_preprocessed" / DENSE
    (raw / "labelsTr").mkdir(parents=True)
    preprocessed.mkdir()
    content = json.loads((tmp_path / "nnUNet_raw" / NAME / "dataset.json").read_text())
    del content["labels"]["ignore"]
    cases = [f"case{number}" for number in range(4)]
    content["dataset"] = {
        case: {"images": [f"../{NAME}/imagesTr/{case}_0000.nii.gz"], "label": f"labelsTr/{case}.nii.gz"}
        for case in cases
    }
    for folder in (raw, preprocessed):
        (folder / "dataset.json").write_text(json.dumps(content))
    plans = json.loads((tmp_path / "nnUNet_preprocessed" / NAME / "nnUNetPlans.json").read_text())
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans | {"dataset_name": DENSE}))
    shutil.copy(tmp_path / "nnUNet_preprocessed" / NAME / "splits_final.json", preprocessed)
    image = sitk.ReadImage(str(tmp_path / "nnUNet_raw" / NAME / "imagesTr" / f"{TEST_CASE}_0000.nii.gz"))
    label = sitk.GetImageFromArray((sitk.GetArrayFromImage(image) > 1).astype(np.uint8))
    label.CopyInformation(image)
    sitk.WriteImage(label, str(raw / "labelsTr" / f"{TEST_CASE}.nii.gz"))
    for case in cases[:3]:
        (raw / "labelsTr" / f"{case}.nii.gz").symlink_to("nowhere.nii.gz")
    return tmp_path


def make_environment(folder: Path) -> dict[str, str]:
    return nnunet_environment(
        raw=folder / "nnUNet_raw",
        preprocessed=folder / "nnUNet_preprocessed",
        results=folder / "results",
        trainers=trainers_folder(),
    )


def write_guard(twins: Path) -> Path:
    """A program that takes away, while a command runs, what the command has no business with: all raw images and labels
    and the dense twin while nnUNetv2_train does, all dense labels while nnUNetv2_predict does.
    """
    file = twins / "guard.sh"
    file.write_text(
        f"""#!/bin/sh
case "$*" in
  *nnUNetv2_train*) name=nnUNetv2_train hidden="{twins}/nnUNet_raw {twins}/nnUNet_preprocessed/{DENSE}" ;;
  *nnUNetv2_predict*) name=nnUNetv2_predict hidden="{twins}/nnUNet_raw/{DENSE}" ;;
  *) exec "$@" ;;
esac
for folder in $hidden; do mv "$folder" "$folder.away" || exit 99; done
"$@"
code=$?
for folder in $hidden; do test -e "$folder" && exit 98; mv "$folder.away" "$folder"; done
echo "$name $code" >> {twins}/guarded
exit $code
"""
    )
    file.chmod(0o755)
    return file


@pytest.mark.slow
def test_a_scribble_row_is_trained_without_dense_labels_and_predicts_without_them(twins, monkeypatch):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(variable, str(twins / variable))
    monkeypatch.setenv("nnUNet_compile", "f")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    rows = [
        {"name": "dense", "trainer": "nnUNetTrainer_5epochs", "labels": "dense"},
        {"name": "scribble", "trainer": "nnUNetTrainerAttenScribble", "labels": "scribble"},
    ]
    content = {
        "name": "tiny",
        "datasets": {"scribble": 701, "dense": 702},
        "configurations": ["tiny"],
        "test": "validation",
        "device": "cpu",
        "threads": 1,
        "predict": ["--disable_tta"],
        "prefix": [str(write_guard(twins))],
        "unequal_budgets": True,
        "rows": rows,
    }
    file = twins / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    work = twins / "work"

    result = CliRunner().invoke(app, ["benchmark", str(file), "--work", str(work), "--only", "seed_0/fold_0/scribble"])
    assert result.exit_code == 0, (result.output, result.exception)

    assert not any((twins / "nnUNet_raw" / DENSE / "labelsTr" / f"case{number}.nii.gz").exists() for number in range(3))
    assert not any(
        file.suffix in (".b2nd", ".npz", ".npy") for file in (twins / "nnUNet_preprocessed" / DENSE).rglob("*")
    )
    summary = read_summary(work / "cells" / "seed_0" / "fold_0" / "scribble")
    assert list(summary.cases) == [TEST_CASE]
    assert summary.provenance["trainer"] == "nnUNetTrainerAttenScribble"
    assert summary.provenance["epochs"] == "2"
    model = work / "seed_0" / "nnUNet_results" / NAME / "nnUNetTrainerAttenScribble__nnUNetPlans__tiny" / "fold_0"
    assert (model / "checkpoint_final.pth").is_file()
    assert os.listdir(work / "test" / "fold_0" / "labels") == [f"{TEST_CASE}.nii.gz"]
    guarded = [line.split() for line in (twins / "guarded").read_text().splitlines()]
    assert [(Path(program).name, code) for program, code in guarded] == [
        ("nnUNetv2_train", "0"),
        ("nnUNetv2_predict", "0"),
    ]
    cases, pairs = read_record(work / "cells" / "seed_0" / "fold_0" / "scribble" / "attention")
    assert cases == [TEST_CASE]
    assert pairs


def test_budgets_are_those_of_nnunets_trainer_classes(twins):
    models = {
        "stock": Model(DENSE, "tiny", "nnUNetTrainer_10epochs"),
        "settings": Model(NAME, "tiny", "nnUNetTrainerPartialCE"),
    }
    models["block"] = Model(NAME, "tiny", "nnUNetTrainerAttention")
    found = resolve_budgets(models, twins / "nnUNet_preprocessed", make_environment(twins))
    assert found == {
        "stock": Budget(10, 250, 3),
        "settings": Budget(2, ITERATIONS, 3),
        "block": Budget(2, ITERATIONS, 3, attention=True),
    }
    assert not (twins / "results").exists()


def test_rows_that_cannot_be_trained_are_told_before_any_is(twins, monkeypatch):
    models = {
        "no trainer": Model(NAME, "tiny", "nnUNetTrainerNobodyKnows"),
        "no configuration": Model(NAME, "huge", "nnUNetTrainer"),
        "dense labels": Model(DENSE, "tiny", "nnUNetTrainerMaskedCRF"),
        "cascade": Model(NAME, "tiny_cascade", "nnUNetTrainer"),
        "in order": Model(NAME, "tiny", "nnUNetTrainer"),
    }
    file = twins / "nnUNet_preprocessed" / NAME / "nnUNetPlans.json"
    plans = read_plans(file)
    plans["configurations"]["tiny_cascade"] = {"inherits_from": "tiny", "previous_stage": "tiny"}
    write_json(file, plans)
    # nnU-Net's trainers begin a run of Weights & Biases as soon as they are made.
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    with pytest.raises(AttenScribbleError) as error:
        resolve_budgets(models, twins / "nnUNet_preprocessed", make_environment(twins))
    first, second, third, fourth = error.value.problems
    assert "'no trainer' cannot be trained: Could not find requested nnunet trainer nnUNetTrainerNobodyKnows" in first
    assert "'no configuration' cannot be trained: nnUNetPlans of Dataset701_Tiny has no configuration huge" in second
    assert "has no `ignore` label" in third
    assert "'cascade' cannot be trained: tiny_cascade is the second stage of a cascade" in fourth
