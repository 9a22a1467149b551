"""The table of settings in docs/settings.md, read off `AttenScribbleSettings`.

`python -m tools.site.settings_table` writes it anew; a test tells when it has drifted.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields
from pathlib import Path

from nnunet_attenscribble.settings import AttenScribbleSettings

_BEGINS, _ENDS = "<!-- generated: settings -->\n", "<!-- end -->\n"


def fill_in(markdown: str) -> str:
    """The page with the table of today between its marks."""
    head, begins, rest = markdown.partition(_BEGINS)
    _, ends, tail = rest.partition(_ENDS)
    return f"{head}{begins}{make_table()}\n{ends}{tail}"


def make_table() -> str:
    """A row per field: name, default, what is allowed, meaning."""
    meanings = read_meanings()
    rows = []
    for field in fields(AttenScribbleSettings):
        allowed = field.metadata["allowed"].text
        rows.append(f"|`{field.name}`|`{json.dumps(field.default)}`|{allowed}|{_cell(meanings[field.name])}|")
    return "\n".join(["|field|default|allowed|meaning|", "|---|---|---|---|", *rows])


def read_meanings() -> dict[str, str]:
    """What the docstring of the class says of each field."""
    text = inspect.cleandoc(AttenScribbleSettings.__doc__ or "").partition("Attributes:\n")[2]
    meanings = {}
    for entry in re.split(r"\n(?= {4}\w)", inspect.cleandoc(text) if not text.startswith("    ") else text):
        names, _, meaning = entry.strip().partition(": ")
        for name in names.split(", "):
            meanings[name] = " ".join(meaning.split())
    return meanings


def _cell(text: str) -> str:
    """Bars within a cell, as in |p - q|, would end it."""
    return text.replace("|", r"\|")


if __name__ == "__main__":
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    page.write_text(fill_in(page.read_text(encoding="utf-8")), encoding="utf-8")
