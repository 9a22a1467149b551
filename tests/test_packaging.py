"""What is installed from a built distribution, as against a checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.conftest import BUILT_FROM, CODE, ROOT, build, copy_sources


def modules() -> set[str]:
    """Every module and template of the checkout, as it should be installed."""
    installed = set()
    for name in CODE:
        prefix = Path("nnunet_attenscribble") / ("" if name == CODE[0] else name)
        files = [file for ending in ("*.py", "*.jinja", "py.typed") for file in (ROOT / name).rglob(ending)]
        installed |= {str(prefix / file.relative_to(ROOT / name)) for file in files}
    return installed


@pytest.mark.xdist_group("packaging")
def test_the_wheel_holds_every_module_and_nothing_beside_the_package(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == modules()


def test_a_wheel_of_a_clone_holds_no_module_of_an_earlier_build(tmp_path):
    source = copy_sources(tmp_path / "source")
    stale = source / "build" / "lib" / "nnunet_attenscribble" / "cli" / "app.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    build(source, tmp_path / "dist", "--wheel")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert "nnunet_attenscribble/cli/app.py" not in zipfile.ZipFile(wheel).namelist()


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


@pytest.fixture
def elsewhere(distributions, tmp_path) -> tuple[Path, dict[str, str]]:
    """A fresh environment with the wheel in it, an empty home, and nnU-Net's folders; nothing of the checkout.

    Dependencies are those of the running environment, without what that has installed as editable.

    Returns:
        the folder of its commands, and the variables of the environment.
    """
    venv.create(tmp_path / "venv", with_pip=False)
    commands = tmp_path / "venv" / "bin"
    packages = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    # A .pth line extends the path; the .pth files that it leads to, such as an editable install's, are not read.
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    install = ["install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", str(distributions[1])]
    pip = [sys.executable, "-m", "pip", "--python", str(commands / "python"), *install]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    folders = {name: str(tmp_path / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for folder in folders.values():
        Path(folder).mkdir()
    return commands, {"HOME": str(tmp_path), "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", **folders}


@pytest.mark.skipif(os.name != "posix", reason="commands lie elsewhere")
@pytest.mark.xdist_group("packaging")
def test_an_installed_wheel_passes_the_doctor(elsewhere, tmp_path):
    commands, variables = elsewhere

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess:
        command = [commands / "attenscribble", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=variables | more)

    folder = run("trainers").stdout.strip()
    assert Path(folder).is_relative_to(tmp_path / "venv")
    done = run("doctor", "--json", nnUNet_extTrainer=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (trainers,) = [finding for finding in json.loads(done.stdout)["findings"] if finding["subject"] == "trainers"]
    assert trainers["found"] == f"nnU-Net finds all 5 of them in {folder}"


@pytest.mark.xdist_group("packaging")
def test_the_archives_pass_the_checks_of_an_index(distributions):
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, distributions)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("git") is None, reason="asks git")
def test_the_version_is_the_tag_and_tells_of_commits_behind_it(tmp_path):
    def run(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout.strip()

    def commit() -> None:
        run("git", "-c", "user.name=A", "-c", "user.email=a@b.c", "commit", "--allow-empty", "-m", "C")

    ask = (sys.executable, "-m", "setuptools_scm")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert run(*ask) == "0.1.dev0"  # an archive, as the one that `distributions` are built from
    run("git", "init")
    run("git", "add", ".")
    commit()
    assert run(*ask).startswith(f"0.1.dev1+g{run('git', 'rev-parse', 'HEAD')[:7]}")
    run("git", "tag", "v1.2.3")
    assert run(*ask) == "1.2.3"
    commit()
    assert run(*ask).startswith("1.2.4.dev1+g")


def read_workflow(name: str) -> dict:
    return yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())


def test_the_oldest_python_is_tested_on_three_systems():
    matrix = read_workflow("tests")["jobs"]["tests"]["strategy"]["matrix"]
    assert f'requires-python = ">={matrix["python"][0]}"' in (ROOT / "pyproject.toml").read_text()
    assert {system.partition("-")[0] for system in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_only_what_passed_the_tests_is_published():
    jobs = read_workflow("release")["jobs"]
    assert (ROOT / jobs["tests"]["uses"]).is_file()
    assert set(jobs["publish"]["needs"]) == {"tests", "build"}
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}


def test_docker_is_sent_what_the_package_is_built_from():
    sent = (ROOT / ".dockerignore").read_text().split()
    assert sent[0] == "*"
    assert {line.removeprefix("!") for line in sent[1:]} == {*CODE, *BUILT_FROM}
