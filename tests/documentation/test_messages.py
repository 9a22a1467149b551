"""docs/troubleshooting.md quotes messages that the code really has."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import CODE, ROOT
from tests.documentation.messages import read_texts

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^> `(.*)`$", PAGE, flags=re.MULTILINE)
OF_TORCH = {"CUDA out of memory"}  # from its compiled part


@pytest.fixture(scope="module")
def texts() -> set[str]:
    nnunet = Path(find_spec("nnunetv2").origin).parent
    return read_texts([ROOT / folder for folder in CODE] + [nnunet])


def quoted(message: str) -> str:
    return " ".join(message.split())


def test_there_are_messages():
    assert len(MESSAGES) > 25


@pytest.mark.parametrize("message", [message for message in MESSAGES if message not in OF_TORCH])
def test_the_message_is_in_the_code(texts, message):
    assert any(quoted(message) in text for text in texts)


def test_a_message_that_nobody_says_is_found_out(texts):
    assert not any("no dataset ... in ... (of ...)" in text for text in texts)
