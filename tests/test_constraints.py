"""What is written down twice is the same: oldest versions, and pins of the tools."""

from __future__ import annotations

import re
from importlib.metadata import requires

import pytest
import yaml
from packaging.requirements import Requirement

from tests.conftest import ROOT

REQUIRED = [Requirement(text) for text in requires("nnunet-attenscribble")]
NEEDED = {entry.name.lower(): entry for entry in REQUIRED if entry.marker is None}


def oldest() -> dict[str, str]:
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    return {
        name.lower(): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", "\n".join(lines), re.MULTILINE)
    }


@pytest.mark.parametrize("name", NEEDED)
def test_the_oldest_versions_are_the_lower_bounds(name):
    bounds = [entry.version for entry in NEEDED[name].specifier if entry.operator == ">="]
    assert bounds, f"{name} has no lower bound"
    found = oldest()[name]
    assert NEEDED[name].specifier.contains(found)
    assert found.startswith(bounds[0])


def test_the_oldest_versions_name_nothing_else():
    assert set(oldest()) - set(NEEDED) == {"torchvision"}


def test_precommit_and_ci_have_the_same_pins():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    pinned = {pin for hook in hooks for pin in hook["additional_dependencies"]}
    assert pinned == {str(entry).split(";")[0].strip() for entry in REQUIRED if entry.name == "ruff"}


def test_ci_runs_what_is_there():
    targets = re.findall(r"^make ([a-z-]+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert targets == ["lint", "typecheck", "docs", "test"]
    assert set(targets) <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
