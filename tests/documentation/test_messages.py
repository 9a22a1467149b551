"""docs/troubleshooting.md quotes messages that the code really has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import CODE, ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^> `(.*)`$", PAGE, flags=re.MULTILINE)
OF_TORCH = {"CUDA out of memory"}  # from its compiled part


def read_texts(folders: Iterable[Path]) -> set[str]:
    """All string constants and f-strings of the modules there, white space made one blank, `...` what is filled in."""
    texts = set()
    for folder in folders:
        for file in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.add(" ".join(node.value.split()))
                elif isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
                    texts.add(" ".join("".join(map(str, parts)).split()))
    return texts


@pytest.fixture(scope="module")
def texts() -> set[str]:
    nnunet = Path(find_spec("nnunetv2").origin).parent
    return read_texts([ROOT / folder for folder in CODE] + [nnunet])


def test_there_are_messages():
    assert len(MESSAGES) > 25


@pytest.mark.parametrize("message", [message for message in MESSAGES if message not in OF_TORCH])
def test_the_message_is_in_the_code(texts, message):
    assert any(message in text for text in texts)


def test_a_message_that_nobody_says_is_found_out(texts):
    assert not any("no dataset ... in ... (of ...)" in text for text in texts)
