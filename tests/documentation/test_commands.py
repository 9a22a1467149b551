"""Every command that the documentation names exists with the options it is named with."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.documentation.blocks import PAGES, Block, read_blocks, read_commands, read_inline
from tools.site.command_line import list_commands

BLOCKS = [block for page in PAGES for block in read_blocks(page)]
EVERYWHERE = {"--help", "--debug", "--quiet", "--version", "--install-completion", "--show-completion"}
COMMANDS = list_commands()


@cache
def nnunet_options(command: str) -> set[str]:
    """Options of one of nnU-Net's commands, read off its source: asking it would import torch."""
    (entry,) = entry_points(group="console_scripts", name=command)
    spec = find_spec(entry.module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == entry.attr]
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    names = [argument for call in calls if call.func.attr == "add_argument" for argument in call.args]
    return {name.value for name in names if isinstance(name, ast.Constant)} | {"-h", "--help"}


def own_options(words: list[str]) -> set[str]:
    """Options of the command that these words call; the empty set if there is none."""
    for length in (3, 2):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return {name for option in COMMANDS[name].params for name in (*option.opts, *option.secondary_opts)}
    if words[:2] == ["attenscribble", "benchmark"]:
        return own_options(["attenscribble", "benchmark", "run"])
    return set()


def check(words: list[str]) -> None:
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    options = {word.partition("=")[0] for word in words[1:] if re.fullmatch(r"--?[A-Za-z][\w-]*(=.*)?", word)}
    if words[:1] == ["attenscribble"]:
        groups = {name.rpartition(" ")[0] for name in COMMANDS}
        known = own_options(words)
        assert known or options & EVERYWHERE or " ".join(words) in groups, f"no command {' '.join(words[:3])}"
        assert options <= known | EVERYWHERE, f"{' '.join(words[:3])} has no {options - known}"
    elif words and words[0].startswith("nnUNetv2_"):
        assert entry_points(group="console_scripts", name=words[0]), f"nnU-Net has no {words[0]}"
        known = nnunet_options(words[0])
        assert options <= known, f"{words[0]} has no {options - known}"
    elif words[:1] == ["make"]:
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
        assert {word for word in words[1:] if "=" not in word} <= targets, words
    elif words[:2] == ["python", "-m"] and words[2].split(".")[0] == "tools":
        module = ROOT / words[2].replace(".", "/")
        assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), words


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_commands_of_a_block_exist(block: Block):
    for words in read_commands(block.text):
        check(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_in_the_text_exist(page: Path):
    for words in read_inline(page):
        check([word for word in words if word])


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_executed_or_says_why_not(block: Block):
    assert block.mark is not None, f"{block} needs a mark: <!-- runs -->, <!-- tested: FILE --> or <!-- needs: WHAT -->"
    kind, _, what = block.mark.partition(": ")
    if kind != "tested":
        return
    text = "".join((ROOT / file).read_text(encoding="utf-8") for file in what.split())
    for command, *words in read_commands(block.text):
        assert command != "python", f"{block}: say what it needs"
        for name in words[: 2 if words[:1] == ["convert"] else 1] if command == "attenscribble" else ():
            called = re.search(rf"""["'(]{name}["' ]""", text)
            assert called, f"{block}: {what} does not call attenscribble {' '.join(words)}"


@pytest.mark.parametrize(
    "words",
    [
        ["attenscribble", "evalute", "a", "b"],
        ["attenscribble", "evaluate", "a", "b", "--protocoll", "nnunet"],
        ["nnUNetv2_trian", "501"],
        ["nnUNetv2_train", "501", "2d", "0", "--trainer", "X"],
        ["make", "everything"],
        ["python", "-m", "tools.timing.nothing"],
    ],
)
def test_what_does_not_exist_is_found_out(words):
    with pytest.raises(AssertionError):
        check(words)


def test_the_documentation_runs_something():
    assert {block.page for block in BLOCKS if block.mark == "runs"} >= {"README.md", "first_hour.md"}
