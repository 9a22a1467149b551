from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from nnunet_attenscribble import __version__, cli
from nnunet_attenscribble.cli import app
from nnunet_attenscribble.cli.training import read_assignments
from nnunet_attenscribble.common.nnunet import list_trainers
from nnunet_attenscribble.common.progress import show_progress
from nnunet_attenscribble.dataset_conversion.phantom import write_phantoms
from nnunet_attenscribble.errors import AttenScribbleError


def list_commands(group, *names: str) -> list[str]:
    """Every command that does something, by its full name."""
    found = []
    for name, command in group.commands.items():
        found += list_commands(command, *names, name) if hasattr(command, "commands") else [" ".join((*names, name))]
    return found


COMMANDS = list_commands(typer.main.get_command(app))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_with_an_example(command):
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    _, _, example = " ".join(result.output.split()).partition("Example:")
    assert f"attenscribble {command.removesuffix(' run')}" in example


@pytest.mark.parametrize("command", COMMANDS)
def test_a_help_is_broken_where_the_terminal_ends_not_where_the_source_does(command):
    found = typer.main.get_command(app)
    for name in command.split():
        found = found.commands[name]
    assert found.help.count("\n") == 2 * found.help.count("\n\n") > 0


def test_trainers_folder_and_names():
    folder = CliRunner().invoke(app, ["trainers"]).output.strip()
    assert (Path(folder) / "nnUNetTrainerAttenScribble.py").is_file()
    names = CliRunner().invoke(app, ["trainers", "--names"]).output.split()
    assert names == [
        "nnUNetTrainerAttenScribble",
        "nnUNetTrainerAttention",
        "nnUNetTrainerMaskedCRF",
        "nnUNetTrainerPartialCE",
        "nnUNetTrainerPartialDiceCE",
        *list_trainers(rivals=True),
    ]


def test_trainers_as_json():
    content = json.loads(CliRunner().invoke(app, ["trainers", "--json"]).output)
    assert (Path(content["folder"]) / f"{content['trainers'][0]}.py").is_file()
    assert (Path(content["folder"]) / "rivals" / f"{content['rivals'][0]}.py").is_file()


def test_version():
    assert CliRunner().invoke(app, ["--version"]).output.strip() == __version__


@pytest.fixture
def call(monkeypatch):
    """Runs the command line in this process; returns its exit code."""

    def run_main(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["attenscribble", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code

    return run_main


@pytest.fixture
def failing(monkeypatch):
    def fail(*_, **__):
        raise AttenScribbleError(["a.nii.gz is torn: get it again", "b.nii.gz is empty: get it again"])

    monkeypatch.setattr(cli, "app", fail)


def test_an_input_error_is_a_line_per_problem_and_no_traceback(failing, call, capsys):
    assert call("convert") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ("error: a.nii.gz is torn: get it again\nerror: b.nii.gz is empty: get it again\n")


def test_a_name_that_the_console_cannot_show_is_escaped(call, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "cp1252", write_through=True))
    monkeypatch.setattr(cli, "app", lambda *_, **__: print("u\u0308"))
    call()
    assert sys.stdout.buffer.getvalue().split() == [b"u\\u0308"]


def test_debug_shows_the_traceback(failing, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["attenscribble", "convert", "--debug"])
    with pytest.raises(AttenScribbleError):
        cli.main()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from nnunet_attenscribble.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def test_debug_is_taken_behind_a_subcommand_too():
    done = run("trainers", "--debug")
    assert done.returncode == 0
    assert "trainers" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluat"], "No such command 'evaluat'. Did you mean 'evaluate'? See attenscribble --help"),
        (["evaluate", "a"], "Missing argument"),
        (["trainers", "--nmaes"], "No such option: --nmaes"),
        (["compare", "a=b", "--reference"], "requires an argument"),
        (["configure", "1", "--batch-size", "0"], "Invalid value for '--batch-size'"),
    ],
)
def test_a_call_that_cannot_be_read_is_one_line_on_stderr(call, capsys, arguments, message):
    assert call(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["convert"], ["benchmark"]])
def test_a_group_alone_shows_its_help(call, capsys, arguments):
    call(*arguments)
    captured = capsys.readouterr()
    assert "Usage:" in captured.out + captured.err
    assert "error:" not in captured.err


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out.csv"), 2, "error: No space left on device: out.csv\n"),
        (KeyboardInterrupt(), 130, "error: stopped\n"),
    ],
)
def test_what_is_no_error_of_the_program_shows_no_traceback(call, monkeypatch, capsys, raised, code, told):
    def fail():
        raise raised

    monkeypatch.setattr(cli.training, "trainers_folder", fail)
    assert call("trainers") == code
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("arguments", [["--quiet", "trainers"], ["trainers", "--quiet"]])
def test_quiet_leaves_progress_out_and_results_in(call, monkeypatch, capsys, arguments):
    monkeypatch.setenv(cli.QUIET, "")  # so that it is put back
    assert call(*arguments) == 0
    assert "trainers" in capsys.readouterr().out
    assert list(show_progress([1, 2], total=2, description="Counting")) == [1, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("attenscribble eva", "evaluate"),
        ("attenscribble convert ", "acdc"),
        ("attenscribble evaluate --protoc", "--protocol"),
        ("attenscribble scribble --style s", "skeleton"),
    ],
)
def test_the_shell_completes_commands_options_and_choices(words, expected):
    done = run(_ATTENSCRIBBLE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1))
    assert expected in done.stdout.split()


@pytest.mark.parametrize(
    ("shell", "file"), [("bash", ".bash_completions/attenscribble.sh"), ("zsh", ".zfunc/_attenscribble")]
)
def test_completion_can_be_installed(tmp_path, shell, file):
    done = run("--install-completion", shell, HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0, done.stderr
    assert "attenscribble" in (tmp_path / file).read_text()


def test_help_imports_what_it_shows_and_no_more():
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "before = set(sys.modules)\n"
        "from nnunet_attenscribble.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(*sys.modules.keys() - before, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = set(done.stderr.split())
    heavy = {"torch", "numpy", "SimpleITK", "yaml", "matplotlib", "nnunetv2", "importlib.metadata", "rich.progress"}
    assert "typer" in loaded
    assert not loaded & heavy
    # typer and rich, which write the page, are 290 of them.
    assert len(loaded) < 400


def measure_start(*command: str, limit: float = 0, **environment: str) -> float:
    """Processor seconds of a child, its own and the system's, to which no other process adds: the best of thirty, or
    the first below a limit. Beside busy neighbours a processor does less in a second.
    """
    best = float("inf")
    for _ in range(30):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | environment)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        best = min(best, used.ru_utime + used.ru_stime)
        if best < limit:
            break
    return best


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="no times of a single child on Windows")
@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--help"], {}),
        ([], {"_ATTENSCRIBBLE_COMPLETE": "complete_bash", "COMP_WORDS": "attenscribble eva", "COMP_CWORD": "1"}),
    ],
    ids=["help", "completion"],
)
def test_it_starts_within_04_seconds(arguments, environment):
    code = "import sys; sys.argv[0] = 'attenscribble'; from nnunet_attenscribble.cli import main; main()"
    limit = measure_start(sys.executable, "-c", "pass") + 0.4
    assert measure_start(sys.executable, "-c", code, *arguments, limit=limit, **environment) < limit


@pytest.mark.parametrize("plan", [".", "/"])
def test_start_refuses_a_folder_for_what_is_agreed_on(tmp_path, monkeypatch, call, capsys, plan):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert call("start", str(tmp_path), "--plan", plan) == 2
    assert capsys.readouterr().err.startswith(f"error: {plan}: is a folder: name the file")


def test_a_prefix_with_a_quote_that_does_not_end_is_refused(tmp_path, monkeypatch, call, capsys):
    file = Path(__file__).resolve().parents[3] / "examples" / "acdc_cpu.yaml"
    monkeypatch.chdir(tmp_path)
    assert call("benchmark", str(file), "--prefix", "nice 'taskset") == 2
    assert capsys.readouterr().err.startswith("error: --prefix nice 'taskset: cannot be split")
    assert not list(tmp_path.iterdir())


def test_dense_labels_in_the_folder_that_one_is_in_are_compared_with(tmp_path, monkeypatch, call, capsys):
    written = write_phantoms(raw_folder=tmp_path, dataset_id=1, dense_id=2, training=2, validation=1, test=1)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    monkeypatch.chdir(written.dense / "labelsTr")
    assert call("inspect", "1", "--dense", ".", "--cases", "0", "--workers", "1") == 0
    told = capsys.readouterr().out
    assert "dense labels: labelsTr" in told
    assert "outside the class" in told


def test_settings_given_twice_and_in_no_form_are_refused_together():
    with pytest.raises(AttenScribbleError) as error:
        read_assignments(["a=1", "b", "a=2", "=3", "c=[[1"])
    assert error.value.problems == [
        "--set 'b' is not of the form name=value",
        "--set a is given twice: leave one of them out",
        "--set '=3' is not of the form name=value",
    ]
    assert read_assignments(["a=1", "b=[0, 5]", "c=[[1", "d=" + "[" * 100_000])["b"] == [0, 5]
