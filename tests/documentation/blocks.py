"""Commands in the documentation: blocks with what is said of them, and single commands in the text.

A block of commands has a mark, an HTML comment in the line above it:

    <!-- runs -->                   executed by a test as it stands, in one shell per page, on the phantom
    <!-- tested: tests/FILE.py -->  what it does is executed by that test, or by those of several files
    <!-- needs: a GPU -->           cannot be executed everywhere
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: What holds for all blocks without a mark of their own on these pages.
PAGES_AS_A_WHOLE = {
    "benchmark.md": "tested: tests/evaluation/benchmark/test_nnunet.py tests/evaluation/benchmark/test_collect.py "
    "tests/evaluation/report/test_build.py tests/evaluation/test_cli.py",
    "datasets.md": "tested: tests/dataset_conversion/test_scribble_dataset.py "
    "tests/dataset_conversion/test_convert_command.py tests/dataset_conversion/test_prediction_images.py "
    "tests/trainers/test_commands.py",
    "experiments.md": "needs: the ACDC download",
    "evaluation.md": "tested: tests/evaluation/test_cli.py tests/evaluation/test_postprocessing.py",
    "losses.md": "needs: minutes of an idle processor",
    "nnunet_features.md": "tested: tests/trainers/test_commands.py",
    "results.md": "needs: the ACDC download",
    "targets.md": "needs: the ACDC download",
}

_MARK = re.compile(r"<!-- (runs|tested: [^>]+?|needs: [^>]+?) -->")
_COMMANDS = ("attenscribble", "nnUNetv2_", "make", "pip", "python", "export", "source", "cd", "git")


@dataclass(frozen=True)
class Block:
    """A block of commands.

    Attributes:
        page: name of the file.
        line: its first, from 1.
        text: the commands.
        mark: what is said of it, or None.
    """

    page: str
    line: int
    text: str
    mark: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    """The blocks of a page that hold commands, fenced or indented."""
    found: list[tuple[int, list[str], str | None]] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    fence: str | None = None
    mark: str | None = None
    for number, line in enumerate(lines, start=1):
        opened = re.match(r"\s*(```+)(\w*)", line)
        if fence is not None:
            if line.strip() == fence:
                fence = None
            else:
                found[-1][1].append(line)
        elif opened:
            fence = opened[1]
            found.append((number + 1, [], mark if opened[2] in ("", "bash") else "output"))
            mark = None
        elif line.startswith("    ") and (number == 1 or not lines[number - 2].strip() or _continues(found, number)):
            if _continues(found, number):
                found[-1][1].append(line[4:])
            else:
                found.append((number, [line[4:]], mark))
                mark = None
        elif line.strip():
            given = _MARK.fullmatch(line.strip())
            mark = given[1] if given else None
    default = PAGES_AS_A_WHOLE.get(page.name)
    blocks = [Block(page.name, first, "\n".join(text), mark or default) for first, text, mark in found]
    return [block for block in blocks if block.mark != "output" and _holds_commands(block.text)]


def _continues(found: list[tuple[int, list[str], str | None]], number: int) -> bool:
    return bool(found) and found[-1][0] + len(found[-1][1]) == number


def _holds_commands(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return bool(lines) and lines[0].startswith(_COMMANDS)


def read_commands(text: str) -> Iterator[list[str]]:
    """The words of every command of a block, those in $(...) included."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for inner in re.findall(r"\$\(([^()]*)\)", joined):
        yield shlex.split(inner)
    for line in joined.splitlines():
        for part in re.split(r"&&|\|\||;(?!\s*\|)", re.sub(r"\$\([^()]*\)", "X", line)):
            words = shlex.split(part, comments=True)
            if words:
                yield words


def read_inline(page: Path) -> list[list[str]]:
    """Commands that are named in the text of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"`((?:attenscribble|nnUNetv2_)[^`\n]*(?:\n[^`\n]+)?)`", text)
    return [shlex.split(command.replace("...", "").replace("\n", " ")) for command in found if "'" not in command]
