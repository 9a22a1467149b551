"""Every text in a program's code, with `...` for what is filled in."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path


def read_texts(folders: Iterable[Path]) -> set[str]:
    """All string constants and f-strings of the modules in these folders, white space made one blank."""
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
