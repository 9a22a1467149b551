from __future__ import annotations

import json
import math
import os
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.common.nnunet import FOLDERS
from nnunet_attenscribble.evaluation.benchmark.provenance import read_training_log
from nnunet_attenscribble.evaluation.benchmark.status import list_dataset_states, list_result_states, list_trainings
from nnunet_attenscribble.evaluation.evaluate import evaluate_folder
from nnunet_attenscribble.evaluation.summary import SUMMARY_FILE, write_summary

NAME = "Dataset501_Heart"
MODEL = "nnUNetTrainerAttenScribble__nnUNetPlans__2d"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    return [tmp_path / name for name in FOLDERS]


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def write_training(results, *, epochs=1000, done=2, begun=True, seconds=30.0, age=0.0, fold="0", finished=False):
    """A fold's folder as nnU-Net leaves it in the midst of epoch `done`."""
    folder = results / NAME / MODEL / f"fold_{fold}"
    write_json(folder / "debug.json", {"num_epochs": str(epochs)})
    lines = []
    for epoch in range(done):
        lines += [f"2026-01-01 10:00:0{epoch}: Epoch {epoch} ", f"2026-01-01 10:01:00.0: Epoch time: {seconds} s"]
    lines.append(f"2026-01-01 10:02:00.0: Epoch {done} ")
    if begun:
        log = folder / "training_log_2026_1_1_10_00_00.txt"
        log.write_text("\n".join(lines) + "\n")
        os.utime(log, (1000 - age, 1000 - age))
    if finished:
        (folder / "checkpoint_final.pth").write_bytes(b"")
    return folder


def test_datasets_and_what_is_preprocessed(folders):
    raw, preprocessed, _ = folders
    write_json(raw / NAME / "dataset.json", {"labels": {"background": 0, "RV": 1, "ignore": 2}, "numTraining": 7})
    write_json(raw / "Dataset502_Dense" / "dataset.json", {"labels": {"background": 0, "RV": 1}, "numTraining": 8})
    (raw / "Dataset503_Broken").mkdir()
    (raw / "notes").mkdir()
    plans = {
        "2d": {"data_identifier": "nnUNetPlans_2d"},
        "2d_b": {"inherits_from": "2d"},
        "3d": {"data_identifier": "x"},
    }
    write_json(preprocessed / NAME / "nnUNetPlans.json", {"plans_name": "nnUNetPlans", "configurations": plans})
    write_json(preprocessed / NAME / "dataset_fingerprint.json", {})
    (preprocessed / NAME / "nnUNetPlans_2d").mkdir()
    for case in "abcdef":
        (preprocessed / NAME / "nnUNetPlans_2d" / f"{case}.pkl").write_bytes(b"")
    assert list_dataset_states(raw, preprocessed)[0].plans == {"nnUNetPlans": ()}  # the seventh is not done
    (preprocessed / NAME / "nnUNetPlans_2d" / "g.pkl").write_bytes(b"")
    states = list_dataset_states(raw, preprocessed)
    assert [(state.name, state.labels, state.cases) for state in states] == [
        (NAME, "scribbles", 7),
        ("Dataset502_Dense", "dense", 8),
        ("Dataset503_Broken", "unknown", None),
    ]
    assert states[0].plans == {"nnUNetPlans": ("2d", "2d_b")}
    assert states[1].plans == {}


def test_a_running_training_tells_what_is_left(folders):
    folder = write_training(folders[2], epochs=100, done=4, seconds=30)
    (folder / "loss_terms.csv").write_text("epoch,total,crf,similarity\n0,2,1,1\n1,1.5,,nan\n")
    (state,) = list_trainings(folders[2], now=1000)
    assert (state.dataset, state.model, state.fold) == (NAME, MODEL, "0")
    assert (state.state, state.epoch, state.epochs) == ("running", 4, 100)
    assert state.seconds_left == 96 * 30
    assert state.terms == {"total": 1.5}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"age": 599.0}, "running"),
        ({"age": 601.0}, "stopped"),  # an epoch takes half a minute: ten minutes are the least patience
        ({"age": 899.0, "seconds": 300.0}, "running"),
        ({"age": 901.0, "seconds": 300.0}, "stopped"),
        ({"begun": False, "done": 0}, "not begun"),
        ({"age": 9000.0, "finished": True}, "finished"),
    ],
)
def test_states(folders, options, expected):
    write_training(folders[2], **options)
    (state,) = list_trainings(folders[2], now=1000)
    assert state.state == expected
    assert (state.seconds_left is not None) == (expected == "running")
    if expected == "finished":
        assert state.epoch == state.epochs == 1000


def test_behind_the_last_epoch_nothing_is_told_to_be_left(folders):
    """nnU-Net's validation has no epochs, and no time would be wrong."""
    write_training(folders[2], epochs=4, done=4)
    (state,) = list_trainings(folders[2], now=1000)
    assert (state.state, state.epoch, state.seconds_left) == ("running", 4, None)


@pytest.mark.parametrize(("name", "expected"), [("2099_9_30_08_00_00", "stopped"), ("1969_1_1_08_00_00", "finished")])
def test_a_training_behind_a_final_checkpoint_is_not_at_its_end(folders, name, expected):
    folder = write_training(folders[2], finished=True, age=9000.0)
    (folder / "training_log_2026_1_1_10_00_00.txt").rename(folder / f"training_log_{name}.txt")
    assert [state.state for state in list_trainings(folders[2], now=9000)] == [expected]


@pytest.mark.parametrize(("begun", "done"), [(0, 3), (2, 5), (5, 8)])
def test_epochs_of_a_training_that_was_given_up_are_not_done(folders, begun, done):
    """31 epochs, then another beginning at `begun`, which is in the midst of its fourth epoch."""
    folder = write_training(folders[2], epochs=100, done=31, seconds=30)
    lines = []
    for epoch in range(begun, done):
        lines += [f"2026-01-02 10:00:00.0: Epoch {epoch} ", "2026-01-02 10:01:00.0: Epoch time: 10.0 s"]
    again = folder / "training_log_2026_1_2_10_00_00.txt"
    again.write_text("\n".join([*lines, f"2026-01-02 10:02:00.0: Epoch {done} \n"]))
    os.utime(again, (1000, 1000))
    (state,) = list_trainings(folders[2], now=1000)
    assert (state.state, state.epoch) == ("running", done)
    each = [30] * begun + [10] * 3
    assert state.seconds_left == pytest.approx((100 - done) * sum(each) / len(each))
    assert list(read_training_log(folder)) == list(range(done + 1))


def test_logs_are_read_in_the_order_of_their_dates(tmp_path):
    for day, loss in (("9_30", "1.0"), ("10_1", "2.0")):
        text = f"2026-01-01 10:00:00.1: Epoch 0 \n2026-01-01 10:00:00.2: train_loss {loss} \n"
        (tmp_path / f"training_log_2026_{day}_10_00_00.txt").write_text(text)
    assert read_training_log(tmp_path)[0]["train_loss"] == 2


def test_predictions_and_scores(folders, tmp_path, write_labels):
    results = folders[2]
    validation = write_training(results, finished=True) / "validation"
    labels = np.zeros((2, 6, 6), np.uint8)
    labels[:, 1:4, 1:4] = 1
    write_labels(validation / "a.nii.gz", labels)
    write_labels(tmp_path / "dense" / "a.nii.gz", labels)
    write_json(validation / "summary.json", {})
    own = results / NAME / MODEL / "predicted"
    for case in "ab":
        write_labels(own / f"{case}.nii.gz", labels)
    write_json(own / "predict_from_raw_data_args.json", {})
    write_json(own / "dataset.json", {"labels": {"background": 0, "RV": 1}, "file_ending": ".nii.gz"})
    states = list_result_states(results)
    assert [(state.folder, state.predictions, state.dice) for state in states] == [
        (validation, 1, None),
        (own, 2, None),
    ]
    write_json(validation / "dataset.json", {"file_ending": 5})
    assert list_result_states(results)[0].predictions == 1
    write_json(validation / "dataset.json", {"labels": {"background": 0, "RV": 1}, "file_ending": ".nii.gz"})
    write_summary(evaluate_folder(validation, tmp_path / "dense"), validation)
    assert list_result_states(results)[0].dice == 1.0
    written = json.loads((validation / SUMMARY_FILE).read_text())
    for content, dice in (({"mean": 0.7}, 0.7), ({"mean": None}, math.nan), ({"mean": "x"}, None), ({}, None)):
        write_json(validation / SUMMARY_FILE, written | {"aggregate": {"foreground_mean": {"dice": content}}})
        assert repr(list_result_states(results)[0].dice) == repr(dice)
        shown = CliRunner().invoke(app, ["status", "--json"]).output
        told = json.loads(shown, parse_constant=pytest.fail)["results"][0]["dice"]
        assert told == (None if dice is None or math.isnan(dice) else dice)
    write_json(validation / SUMMARY_FILE, written | {"schema_version": 2})
    assert list_result_states(results)[0].dice is None
    (validation / SUMMARY_FILE).write_text("{")
    assert list_result_states(results)[0].dice is None


def test_the_command(folders):
    raw, preprocessed, results = folders
    write_json(raw / NAME / "dataset.json", {"labels": {"background": 0, "RV": 1, "ignore": 2}, "numTraining": 7})
    write_json(raw / "Dataset502_Dense" / "dataset.json", {"labels": {"background": 0}, "numTraining": 8})
    write_training(results, finished=True)
    shown = CliRunner().invoke(app, ["status"])
    assert shown.exit_code == 0, shown.output
    assert "Dataset502_Dense" in shown.output
    assert "1000 of 1000" in shown.output
    assert "Predictions: none" in shown.output
    only = CliRunner().invoke(app, ["status", "501", "--json"])
    content = json.loads(only.output)
    assert [entry["name"] for entry in content["datasets"]] == [NAME]
    assert [entry["state"] for entry in content["trainings"]] == ["finished"]
    (raw / NAME).rename(preprocessed / NAME)
    assert json.loads(CliRunner().invoke(app, ["status", "501", "--json"]).output) == content
    shutil.rmtree(preprocessed / NAME)
    moved = json.loads(CliRunner().invoke(app, ["status", "501", "--json"]).output)
    assert moved == content | {"datasets": []}
    assert "no dataset 503 in" in str(CliRunner().invoke(app, ["status", "503"]).exception)


def test_without_a_folder_it_says_which(monkeypatch):
    assert "nnUNet_raw is not set" in str(CliRunner().invoke(app, ["status"]).exception)


def test_nothing_there_is_no_error(folders):
    shown = CliRunner().invoke(app, ["status"])
    assert shown.exit_code == 0
    assert shown.output.split("\n\n")[:2] == ["Datasets: none", "Trainings: none"]
