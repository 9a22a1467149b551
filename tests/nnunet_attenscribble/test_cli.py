from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from nnunet_attenscribble import __version__, cli
from nnunet_attenscribble.cli.app import app
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
    assert "Example:" in result.output


def test_the_commands_are_those_that_the_documentation_names():
    assert {"configure", "convert acdc", "demo", "evaluate", "compare", "trainers"} <= set(COMMANDS)


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
    ]


def test_version():
    assert CliRunner().invoke(app, ["--version"]).output.strip() == __version__


@pytest.fixture
def failing(monkeypatch):
    def fail(_):
        raise AttenScribbleError(["a.nii.gz is torn: get it again", "b.nii.gz is empty: get it again"])

    monkeypatch.setattr(cli, "app", fail)


def test_an_input_error_is_a_line_per_problem_and_no_traceback(failing, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["attenscribble", "convert"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ("error: a.nii.gz is torn: get it again\nerror: b.nii.gz is empty: get it again\n")


def test_debug_shows_the_traceback(failing, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["attenscribble", "convert", "--debug"])
    with pytest.raises(AttenScribbleError):
        cli.main()


def test_debug_is_taken_behind_a_subcommand_too():
    command = [sys.executable, "-c", "from nnunet_attenscribble.cli import main; main()", "trainers", "--debug"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert "trainers" in done.stdout


def test_help_does_not_import_torch():
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from nnunet_attenscribble.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
