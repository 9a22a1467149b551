from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from rich.console import Console

from nnunet_attenscribble.common.text import format_duration
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark import execution
from nnunet_attenscribble.evaluation.benchmark.execution import find_command, run_at_once, run_steps
from nnunet_attenscribble.evaluation.benchmark.workspace import (
    Model,
    Step,
    command_step,
    nnunet_environment,
    predict_step,
    train_step,
)
from tests.evaluation.benchmark.fake_nnunet import wait_until

MODEL = Model("Dataset007_Heart", "2d", "nnUNetTrainerX", "1")
posix = pytest.mark.skipif(os.name != "posix", reason="process groups are those of POSIX")


def script(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", code


def make_step(folder: Path, code: str, name: str = "a step", **kwargs) -> Step:
    """A step that is done when its file `<name>.out` is there."""
    return Step(name, script(code), folder / "logs" / f"{name}.log", (folder / f"{name}.out").exists, **kwargs)


def run(*steps: Step, **kwargs) -> str:
    """Run steps; what was printed, as to a file."""
    console = Console(file=io.StringIO(), width=200)
    run_steps(steps, dict(os.environ), console, **kwargs)
    return console.file.getvalue()


def touch(folder: Path, name: str = "a step") -> str:
    return f"import pathlib; pathlib.Path({str(folder / (name + '.out'))!r}).touch();"


# --- one command after the other ---


def test_output_goes_to_the_log_below_the_command(tmp_path):
    step = make_step(tmp_path, touch(tmp_path) + "import sys; print('to stdout'); print('to stderr', file=sys.stderr)")
    told = run(step)
    lines = step.log.read_text().splitlines()
    assert lines[0].startswith("$ ")
    assert sys.executable in lines[0]
    assert sorted(lines[1:]) == ["to stderr", "to stdout"]
    assert "running  a step" in told
    assert "done     a step (0 s)" in told or "done     a step (1 s)" in told


def test_a_finished_step_is_not_run_again(tmp_path):
    step = make_step(tmp_path, "raise SystemExit(1)")
    (tmp_path / "a step.out").touch()
    assert run(step) == "is done  a step\n"
    assert not step.log.exists()


def test_whether_a_step_is_done_is_asked_when_its_turn_comes(tmp_path):
    first = make_step(tmp_path, touch(tmp_path, "first") + touch(tmp_path, "second"), "first")
    second = make_step(tmp_path, "raise SystemExit(1)", "second")
    assert "is done  second" in run(first, second)


def test_the_environment_is_the_given_one_only(tmp_path, monkeypatch):
    monkeypatch.setenv("NOT_FOR_CHILDREN", "1")
    code = touch(tmp_path) + "import os; print(os.environ['GIVEN'], 'NOT_FOR_CHILDREN' in os.environ)"
    step = make_step(tmp_path, code)
    environment = {name: value for name, value in os.environ.items() if name != "NOT_FOR_CHILDREN"}
    run_steps([step], environment | {"GIVEN": "x"}, Console(file=io.StringIO()))
    assert "x False" in step.log.read_text()


def test_epochs_are_told_as_they_come(tmp_path):
    code = touch(tmp_path) + (
        "stamp = '2026-01-01 00:00:00.123: '\n"
        "for i in range(3): print(stamp + f'Epoch {i}'); print(stamp + f'Epoch time: {i} s')\n"
        "print(stamp + 'predicting a'); print(stamp + 'predicting b')"
    )
    told = run(make_step(tmp_path, code, epochs=3)).splitlines()
    assert [line.strip() for line in told[1:-1]] == [
        "a step: epoch 1 of 3",
        "a step: epoch 2 of 3",
        "a step: epoch 3 of 3",
        "a step: validation",
    ]


def test_the_time_left_is_that_of_the_epochs_seen(tmp_path):
    told, times = [], iter([100.0, 130.0, 160.0])
    step = make_step(tmp_path, "", epochs=6)
    read = execution._Epochs(step, lambda done, text: told.append((done, text)), clock=lambda: next(times))
    for line in (": Epoch 2", "noise", ": Epoch 3", ": Epoch 4"):  # a training that continues from its third epoch
        read(line)
    assert told == [
        (2, "epoch 3 of 6"),
        (3, "epoch 4 of 6, about 1 min 30 s left"),
        (4, "epoch 5 of 6, about 1 min 00 s left"),
    ]


def test_progress_on_a_terminal_leaves_one_line_behind(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=100, highlight=False)
    run_steps([make_step(tmp_path, touch(tmp_path) + "print(': Epoch 0')", epochs=2)], dict(os.environ), console)
    assert "epoch 1 of 2" in console.file.getvalue()
    assert console.file.getvalue().rstrip().splitlines()[-1].endswith("s)")


# --- failure ---


def test_a_failure_tells_the_end_of_the_log_and_where_it_is(tmp_path):
    step = make_step(tmp_path, "for i in range(40): print('line', i)\nraise SystemExit(3)")
    step.log.parent.mkdir()
    step.log.write_text("of an earlier run\n")
    with pytest.raises(AttenScribbleError) as error:
        run(step)
    (problem,) = error.value.problems
    lines = problem.splitlines()
    assert lines[0].startswith(f"a step failed with exit code 3; the end of {step.log}")
    assert [line.strip() for line in lines[1:]] == [f"line {i}" for i in range(25, 40)]


def test_a_failure_does_not_show_what_an_earlier_run_said(tmp_path):
    step = make_step(tmp_path, "print('the reason'); raise SystemExit(1)")
    step.log.parent.mkdir()
    step.log.write_text("$ before\nof an earlier run\n")
    with pytest.raises(AttenScribbleError, match="the reason") as error:
        run(step)
    assert "earlier" not in str(error.value)


def test_success_without_results_is_a_failure(tmp_path):
    with pytest.raises(AttenScribbleError, match="not all of its results are there"):
        run(make_step(tmp_path, "print('all is well')"))


@posix
def test_a_kill_from_outside_is_called_by_its_name(tmp_path):
    with pytest.raises(AttenScribbleError, match=r"ended by signal 9 .*memory"):
        run(make_step(tmp_path, "import os; os.kill(os.getpid(), 9)"))


def test_the_first_failure_stops_the_others(tmp_path):
    after = make_step(tmp_path, touch(tmp_path, "after"), "after")
    with pytest.raises(AttenScribbleError):
        run(make_step(tmp_path, "raise SystemExit(1)"), after)
    assert not after.is_done()


def test_a_program_that_is_nowhere_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AttenScribbleError, match=r"nnUNetv2_nothing is neither beside .* nor on the PATH"):
        find_command("nnUNetv2_nothing")


@posix
def test_programs_of_this_python_come_before_those_of_the_path(tmp_path, monkeypatch):
    for folder in ("own", "path"):
        (tmp_path / folder).mkdir()
        program = tmp_path / folder / "nnUNetv2_x"
        program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert find_command("nnUNetv2_x") == str(tmp_path / "path" / "nnUNetv2_x")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "own" / "python"))
    assert find_command("nnUNetv2_x") == str(tmp_path / "own" / "nnUNetv2_x")


@posix
@pytest.mark.parametrize("count", [None, 3])
def test_commands_of_nnunet_count_the_processors_they_are_given(tmp_path, monkeypatch, count):
    """Where nnU-Net takes its number of threads from: on a CPU it has no option for it."""
    info = tmp_path / "site" / "counting-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nnnUNetv2_count = counting:main\n")
    code = "import multiprocessing, sys\ndef main(): print(sys.argv[1:], multiprocessing.cpu_count(), 'processors')\n"
    (tmp_path / "site" / "counting.py").write_text(code)
    program = tmp_path / "own" / "nnUNetv2_count"
    program.parent.mkdir()
    (program.parent / "python").symlink_to(sys.executable)
    program.write_text(f"#!{sys.executable}\nfrom counting import main\nmain()\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program.parent / "python"))
    environment = {"PYTHONPATH": str(tmp_path / "site")} | ({"PYTHON_CPU_COUNT": str(count)} if count else {})
    step = command_step("counting", ["nnUNetv2_count", "-d", "1"], tmp_path / "count.log")
    run_steps([step], environment, Console(file=io.StringIO()))
    told = step.log.read_text().splitlines()
    assert told == ["$ nnUNetv2_count -d 1", f"['-d', '1'] {count or os.cpu_count()} processors"]


# --- stopping and going on ---

# Starts a worker as nnU-Net does, tells both process IDs, and waits; on its second run it ends well.
WAITING = """
import os, pathlib, subprocess, sys, time
folder = pathlib.Path({folder!r})
if (folder / 'ids').exists():
    (folder / 'a step.out').touch(); raise SystemExit
child = subprocess.Popen([sys.executable, '-c', {worker!r}])
(folder / 'part').write_text(f'{{os.getpid()}} {{child.pid}}'); (folder / 'part').rename(folder / 'ids')
time.sleep(600)
"""
# What a user's process does: `run_steps` in the main thread.
DRIVER = """
import os, sys
from pathlib import Path
from rich.console import Console
from nnunet_attenscribble.evaluation.benchmark import execution
from nnunet_attenscribble.evaluation.benchmark.execution import run_at_once, run_steps
from nnunet_attenscribble.evaluation.benchmark.workspace import Step
execution._GRACE = float(sys.argv[3])
folder = Path(sys.argv[1])
step = Step('a step', (sys.executable, '-c', sys.argv[2]), folder / 'a.log', (folder / 'a step.out').exists)
console = Console(stderr=True)
if sys.argv[4:]:
    run_at_once([step], dict(os.environ), console, 2)
else:
    run_steps([step], dict(os.environ), console)
"""
SLEEPING = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


class Driver:
    """`run_steps` in a process of its own, with a command that waits."""

    def __init__(self, folder: Path, worker: str = SLEEPING, grace: float = 10.0, at_once: bool = False):
        self.folder = folder
        code = WAITING.format(folder=str(folder), worker=worker)
        command = [sys.executable, "-c", DRIVER, str(folder), code, str(grace), *(["at once"] if at_once else [])]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def wait_for_ids(self) -> list[int]:
        wait_until((self.folder / "ids").exists)
        return [int(number) for number in (self.folder / "ids").read_text().split()]

    def end(self) -> str:
        return self.process.communicate(timeout=60)[1]


def is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{number}/stat")  # an orphan that nobody collects is a zombie
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


@posix
@pytest.mark.parametrize(
    ("number", "at_once"),
    [
        (signal.SIGINT, False),
        (signal.SIGTERM, False),
        (signal.SIGHUP, False),
        (signal.SIGINT, True),
        (signal.SIGTERM, True),
    ],
)
def test_interrupted_it_ends_the_command_and_its_workers_and_can_go_on(tmp_path, number, at_once):
    driver = Driver(tmp_path, at_once=at_once)
    ids = driver.wait_for_ids()
    driver.process.send_signal(number)
    assert "stopped  a step\n" in driver.end()
    assert driver.process.returncode != 0
    wait_until(lambda: not any(is_alive(number) for number in ids))

    again = Driver(tmp_path)
    again.end()
    assert again.process.returncode == 0
    assert (tmp_path / "a.log").read_text().count("\n$ ") + 1 == 2  # the log of the first attempt is kept


@posix
def test_workers_that_do_not_listen_are_killed(tmp_path):
    driver = Driver(tmp_path, STUBBORN, grace=0.5)
    ids = driver.wait_for_ids()
    time.sleep(1.0)  # until the worker ignores the signal; if it is slower, the test is easier, not flaky
    driver.process.send_signal(signal.SIGINT)
    driver.end()
    wait_until(lambda: not any(is_alive(number) for number in ids))


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interrupt_does_not_stop_the_first_from_ending_workers(tmp_path, number):
    driver = Driver(tmp_path, STUBBORN, grace=1.5)
    ids = driver.wait_for_ids()
    time.sleep(1.0)
    driver.process.send_signal(number)
    time.sleep(0.5)
    driver.process.send_signal(number)
    driver.end()
    wait_until(lambda: not any(is_alive(number) for number in ids))


@posix
def test_signals_that_are_ignored_stay_so(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        code = touch(tmp_path) + f"import os, time; os.kill({os.getpid()}, 1); time.sleep(0.5)"
        run(make_step(tmp_path, code))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@posix
def test_workers_of_a_failed_command_are_ended(tmp_path):
    code = (
        f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {SLEEPING!r}]);"
        f"open({str(tmp_path / 'id')!r}, 'w').write(str(child.pid)); raise SystemExit(1)"
    )
    with pytest.raises(AttenScribbleError):
        run(make_step(tmp_path, code))
    wait_until(lambda: not is_alive(int((tmp_path / "id").read_text())))


def test_steps_at_once_wait_for_no_other(tmp_path):
    """Each ends when both have begun."""
    code = "import pathlib, time; folder = pathlib.Path({folder!r}); (folder / 'begun {own}').touch()\n"
    code += "while not (folder / 'begun {other}').exists(): time.sleep(0.02)\n(folder / '{own}.out').touch()"
    steps = [
        make_step(tmp_path, code.format(folder=str(tmp_path), own=own, other=other), own)
        for own, other in (("one", "two"), ("two", "one"))
    ]
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    run_at_once(steps, dict(os.environ), console, 2)
    assert console.file.getvalue().count("done") == 2


@posix
def test_one_that_fails_ends_the_others(tmp_path):
    file = tmp_path / "id"
    begin = f"import os, pathlib, time; file = pathlib.Path({str(file)!r})\n"
    waiting = begin + "file.write_text(str(os.getpid())); time.sleep(600)"
    failing = begin + "while not file.exists(): time.sleep(0.02)\nraise SystemExit(3)"
    steps = [make_step(tmp_path, waiting, "waiting"), make_step(tmp_path, failing, "failing")]
    with pytest.raises(AttenScribbleError, match="failing failed with exit code 3"):
        run_at_once(steps, dict(os.environ), Console(file=io.StringIO()), 2)
    wait_until(lambda: not is_alive(int(file.read_text())))


@posix
def test_a_step_is_not_run_twice_at_a_time(tmp_path):
    driver = Driver(tmp_path)
    driver.wait_for_ids()
    try:
        step = Step("a step", script(""), tmp_path / "a.log", lambda: False)
        with pytest.raises(AttenScribbleError, match=r"being run by another process, which writes .*a\.log"):
            run(step)
    finally:
        driver.process.send_signal(signal.SIGINT)
        driver.end()


def test_what_an_interrupted_run_left_is_prepared_only_if_the_step_runs(tmp_path):
    calls = []
    step = make_step(tmp_path, touch(tmp_path), prepare=lambda: calls.append(1))
    run(step)
    run(step)
    assert calls == [1]


# --- marks ---


def test_a_mark_tells_that_a_command_ended(tmp_path):
    output = tmp_path / "plans.json"
    code = f"open({str(output)!r}, 'w').close()"
    step = command_step("plan", script(code), tmp_path / "plan.log", [output])
    output.touch()
    assert not step.is_done()  # the file alone could be one that was cut off
    run(step)
    assert step.is_done()
    assert not command_step("plan", script(code + "#"), tmp_path / "plan.log", [output]).is_done()
    output.unlink()
    assert not step.is_done()


def test_a_mark_is_of_the_command_on_any_device_with_any_number_of_processes(tmp_path):
    def make(*words: str):
        return command_step("score", ["score", *words], tmp_path / "score.log")

    make("a", "--workers", "1", "-device", "cpu", "-npp", "0", "-nps", "0", "--hd95", "monai").write_mark()
    assert make("a", "--hd95", "monai").is_done()
    assert make("a", "--workers", "8", "--hd95", "monai", "--device", "cuda").is_done()
    assert not make("a", "--workers", "1", "--hd95", "nnunet").is_done()
    assert not make("b", "--workers", "1", "-device", "cpu", "-npp", "0", "-nps", "0", "--hd95", "monai").is_done()


def test_a_mark_is_read_as_it_was_written_wherever_that_is(tmp_path, monkeypatch):
    step = command_step("x", ["make", "Schädel"], tmp_path / "x.log")
    step.write_mark()
    monkeypatch.setattr(io, "text_encoding", lambda encoding, *_: encoding or "ascii")  # what Python takes by itself
    assert step.is_done()


def test_a_mark_goes_with_its_folder(tmp_path):
    def make(root: Path, other: str = "/elsewhere/labels"):
        root.mkdir(exist_ok=True)
        return command_step("score", ["score", f"{root}/a", other], root / "score.log", root=root)

    make(tmp_path / "here").write_mark()
    (tmp_path / "here").rename(tmp_path / "there")
    assert make(tmp_path / "there").is_done()
    assert not make(tmp_path / "there", "/another/labels").is_done()
    assert not make(tmp_path / "here").is_done()


def test_a_command_that_is_interrupted_leaves_no_mark_of_the_time_before(tmp_path):
    output = tmp_path / "output"
    run(command_step("plan", script(f"open({str(output)!r}, 'w').close()"), tmp_path / "plan.log", [output]))
    failing = command_step("plan", script("raise SystemExit(1)"), tmp_path / "plan.log", [output])
    with pytest.raises(AttenScribbleError):
        run(failing)
    assert not failing.mark.exists()  # or what it left half-made would count as made by the first


def test_a_failed_command_leaves_no_mark(tmp_path):
    step = command_step("plan", script("raise SystemExit(1)"), tmp_path / "plan.log")
    with pytest.raises(AttenScribbleError):
        run(step)
    assert not step.is_done()


# --- nnU-Net's commands ---


@pytest.fixture
def trained(tmp_path):
    """nnU-Net's results folder after a training."""
    folder = MODEL.folder(tmp_path / "results")
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "checkpoint_final.pth", "w") as checkpoint:
        checkpoint.writestr("archive/data.pkl", b"0" * 1000)
    return tmp_path / "results"


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-30])


def test_a_training_is_done_with_its_final_checkpoint(trained, tmp_path):
    step = train_step("x", MODEL, trained, tmp_path / "x.log")
    assert MODEL.folder(trained) == trained / "Dataset007_Heart" / "nnUNetTrainerX__nnUNetPlans__2d" / "fold_1"
    assert step.is_done()
    told = "nnUNetv2_train Dataset007_Heart 2d 1 -tr nnUNetTrainerX -p nnUNetPlans -device cpu --c"
    assert " ".join(step.command) == told


@pytest.mark.parametrize("damage", [cut_off, Path.unlink], ids=["cut off", "absent"])
def test_a_training_is_not_done_without_its_whole_final_checkpoint(trained, tmp_path, damage):
    damage(MODEL.folder(trained) / "checkpoint_final.pth")
    assert not train_step("x", MODEL, trained, tmp_path / "x.log").is_done()


def test_checkpoints_that_were_cut_off_make_way_for_whole_ones(trained, tmp_path):
    folder = MODEL.folder(trained)
    for name in ("best", "latest"):
        (folder / f"checkpoint_{name}.pth").write_bytes((folder / "checkpoint_final.pth").read_bytes())
    cut_off(folder / "checkpoint_final.pth")
    prepare = train_step("x", MODEL, trained, tmp_path / "x.log").prepare
    prepare()
    assert {file.name for file in folder.glob("*.pth")} == {"checkpoint_best.pth", "checkpoint_latest.pth"}
    # The best one alone was chosen on the validation cases: the training begins anew.
    cut_off(folder / "checkpoint_latest.pth")
    prepare()
    assert not list(folder.glob("*.pth"))


def test_a_prediction_is_done_with_every_image_predicted_after_the_model(trained, tmp_path):
    images, output = tmp_path / "imagesTs", tmp_path / "predictions"
    images.mkdir()
    output.mkdir()
    for name in ("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz", "readme.txt"):
        (images / name).touch()
    step = predict_step("x", MODEL, trained, images, output, tmp_path / "x.log")
    assert step.command[:5] == ("nnUNetv2_predict", "-i", str(images), "-o", str(output))
    step.mark.write_text(" ".join(step.command))
    (output / "a.nii.gz").touch()
    assert not step.is_done()
    (output / "b.nii.gz").touch()
    assert step.is_done()


def test_the_environment_names_the_folders_and_leaves_this_process_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "/the/user's/own")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    monkeypatch.chdir(tmp_path)
    environment = nnunet_environment(
        raw=Path("raw"), preprocessed=Path("pre"), results=Path("res"), trainers=Path("tr"), workers=3
    )
    assert environment["nnUNet_raw"] == str(tmp_path / "raw")
    assert environment["nnUNet_extTrainer"] == str(tmp_path / "tr")
    assert environment["nnUNet_def_n_proc"] == "3"
    assert environment["SOMETHING_ELSE"] == "kept"
    assert os.environ["nnUNet_raw"] == "/the/user's/own"


def test_durations_are_told_in_minutes_and_seconds():
    assert format_duration(59.4) == "59 s"
    assert format_duration(119.7) == "2 min 00 s"
