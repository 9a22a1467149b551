"""What is installed from a built distribution, as against a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import CODE, ROOT


def modules() -> set[str]:
    """Every module and template of the checkout, as it should be installed."""
    installed = set()
    for name in CODE:
        prefix = Path("nnunet_attenscribble") / ("" if name == CODE[0] else name)
        files = [file for ending in ("*.py", "*.jinja") for file in (ROOT / name).rglob(ending)]
        installed |= {str(prefix / file.relative_to(ROOT / name)) for file in files}
    return installed


@pytest.mark.xdist_group("packaging")
def test_the_wheel_holds_every_module_and_nothing_beside_the_package(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == modules()


@pytest.mark.xdist_group("packaging")
def test_the_sdist_holds_the_licence_and_the_sources(distributions):
    with tarfile.open(distributions[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "trainers/nnUNetTrainerAttenScribble.py"} <= names


@pytest.mark.xdist_group("packaging")
def test_nnunet_finds_the_trainers_of_an_installed_wheel(distributions, tmp_path):
    with zipfile.ZipFile(distributions[1]) as wheel:
        wheel.extractall(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    def run(code: str, **more: str) -> str:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment | more)
        return done.stdout.splitlines()[-1]

    folder = run("import sys; sys.argv[1:] = ['trainers']; from nnunet_attenscribble.cli import main; main()")
    assert Path(folder) == tmp_path / "nnunet_attenscribble" / "trainers"
    lookup = (
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "print(find('nnUNetTrainerAttenScribble').train_step.__code__.co_filename)"
    )
    assert Path(run(lookup, nnUNet_extTrainer=folder)).parent == Path(folder)
