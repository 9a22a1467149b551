from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_attenscribble.cli import demo
from nnunet_attenscribble.errors import AttenScribbleError


def call(**changes) -> None:
    """The command with its defaults."""
    arguments = {"folder": Path("demo"), "acdc": None, "scribbles": None, "epochs": 10, "device": "cpu"}
    demo.demo(**(arguments | changes))


def problems_of(**changes) -> list[str]:
    with pytest.raises(AttenScribbleError) as error:
        call(**changes)
    return error.value.problems


@pytest.fixture(autouse=True)
def never_run(request, monkeypatch, tmp_path):
    """Fail if a refused call gets as far as doing something."""
    monkeypatch.chdir(tmp_path)
    if "slow" not in request.keywords:
        monkeypatch.setattr(demo._Demo, "run", lambda self: pytest.fail("it ran"))


def test_real_patients_need_scribbles_and_the_other_way_round(tmp_path):
    assert problems_of(acdc=tmp_path) == ["--acdc needs --scribbles: the released acdc_scribbles.zip, or its folder"]
    (problem,) = problems_of(scribbles=tmp_path)
    assert problem.startswith("--scribbles needs --acdc")


def test_all_problems_are_told_at_once_and_nothing_is_written(tmp_path):
    problems = problems_of(acdc=Path("no_folder"), scribbles=Path("no.zip"), device="tpu", epochs=7)
    assert [problem.split()[0] for problem in problems] == ["--acdc", "--scribbles", "--device", "--epochs"]
    assert str(tmp_path / "no.zip") in problems[1]
    assert not list(tmp_path.iterdir())


def test_epochs_are_those_that_nnunet_has_a_trainer_for():
    known = demo._stock_trainers()
    assert known[5] == "nnUNetTrainer_5epochs"
    assert known[1] == "nnUNetTrainer_1epoch"
    assert known[1000] == "nnUNetTrainer"
    (problem,) = problems_of(epochs=6)
    assert "it has 1, 5, 10, 20" in problem


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.tex").touch()
    assert problems_of() == ["--folder demo is not empty, and no demo made it: give another"]
    (tmp_path / "file").touch()
    assert problems_of(folder=Path("file")) == ["--folder file is a file: give another"]


def test_a_folder_made_with_other_options_is_refused(tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "demo.json").write_text(json.dumps({"acdc": None, "scribbles": None, "epochs": 1}))
    assert problems_of() == [
        "demo was made with other options (epochs 1, now 10): give another --folder, or remove that one"
    ]
    with pytest.raises(pytest.fail.Exception, match="it ran"):
        call(epochs=1)


def test_options_are_read_as_they_were_written_wherever_that_is(tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    options = {"acdc": "Schädel", "scribbles": None, "epochs": 10}
    (tmp_path / "demo" / "demo.json").write_text(json.dumps(options, ensure_ascii=False), encoding="utf-8")
    monkeypatch.setattr(io, "text_encoding", lambda encoding, *_: encoding or "ascii")  # what Python takes by itself
    assert "demo was made with other options (acdc Schädel, now None)" in problems_of()[0]


@pytest.mark.parametrize("content", ["{", "null", "[1]"])
def test_a_damaged_options_file_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "demo.json").write_text(content)
    (problem,) = problems_of()
    assert "demo.json" in problem


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_says_how_to_go_on(monkeypatch, capsys, number, code):
    monkeypatch.setattr(demo._Demo, "run", lambda _self: signal.raise_signal(number))
    # Tests that a shell started in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(demo.typer.Exit) as stopped:
            call()
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.exit_code == code
    assert "The same command continues" in capsys.readouterr().out


def test_the_users_own_folders_are_mentioned_and_not_used(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("nnUNet_raw", "/own/raw")
    monkeypatch.setattr(demo._Demo, "run", demo._Demo._introduce)
    call()
    assert "Your nnUNet_raw is left alone" in capsys.readouterr().out
    environment = demo._Demo(tmp_path, demo._Options(None, None, 10), "cpu", None).environment
    assert environment["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")
    assert os.environ["nnUNet_raw"] == "/own/raw"


def test_without_folders_of_their_own_nothing_is_said_of_them(monkeypatch, capsys):
    monkeypatch.setattr(demo._Demo, "run", demo._Demo._introduce)
    call()
    assert "left alone" not in capsys.readouterr().out


def test_predictions_of_a_model_that_is_trained_anew_are_made_anew(tmp_path):
    parts = demo._Demo(tmp_path, demo._Options(None, None, 10), "cpu", None).parts
    for own in parts.predict_steps():
        own.mark.parent.mkdir(parents=True, exist_ok=True)
        own.write_mark()
    parts.train_steps()[1].prepare()
    assert [own.is_marked() for own in parts.predict_steps()] == [True, False, True]


def run_command(*arguments: str) -> subprocess.Popen:
    code = "from nnunet_attenscribble.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Tests that a shell started in the background ignore Ctrl-C, and what they start would inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_the_whole_demo_stopped_and_continued(tmp_path):
    demo_folder = tmp_path / "attenscribble_demo"
    log = demo_folder / "logs" / "train_attenscribble.log"
    first = run_command("--epochs", "1")
    while first.poll() is None and not (log.exists() and ": Epoch 0" in log.read_text()):
        time.sleep(0.2)
    first.send_signal(signal.SIGINT)
    told = first.communicate(timeout=60)[0]
    assert first.returncode == 130, told
    assert told.endswith("The same command continues from here.\n")

    second = run_command("--epochs", "1")
    told = second.communicate()[0]
    assert second.returncode == 0, told
    assert "is done  nnU-Net's preprocessing" in told
    assert "running  AttenScribble" in told
    for model in ("AttenScribble", "partial CE", "nnU-Net on dense labels"):
        assert f"\n| {model} |" in told
    assert (demo_folder / "comparison.md").read_text()[:200] in told
    assert len(list((demo_folder / "pictures").glob("*.png"))) == 6
    checkpoints = list((demo_folder / "nnUNet_results").glob("*/*__nnUNetPlans__2d_cpu/fold_0/checkpoint_final.pth"))
    assert len(checkpoints) == 3

    before = time.monotonic()
    third = run_command("--epochs", "1")
    told = third.communicate()[0]
    assert third.returncode == 0, told
    assert "running" not in told
    assert time.monotonic() - before < 60
