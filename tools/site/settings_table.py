"""The table of settings, read off `AttenScribbleSettings`."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields

from nnunet_attenscribble.settings import AttenScribbleSettings


def tabulate_settings() -> str:
    """A row per field: name, default, what is allowed, meaning."""
    meanings = read_meanings()
    rows = []
    for field in fields(AttenScribbleSettings):
        allowed = field.metadata["allowed"].expected
        rows.append(f"|`{field.name}`|`{json.dumps(field.default)}`|{allowed}|{_cell(meanings[field.name])}|")
    return "\n".join(["|field|default|allowed|meaning|", "|---|---|---|---|", *rows])


def read_meanings() -> dict[str, str]:
    """What the docstring of the class says of each field."""
    text = inspect.cleandoc(AttenScribbleSettings.__doc__ or "").partition("Attributes:\n")[2]
    meanings = {}
    for entry in re.split(r"\n(?= {4}\w)", text):
        names, _, meaning = entry.strip().partition(": ")
        for name in names.split(", "):
            meanings[name] = " ".join(meaning.split())
    return meanings


def _cell(text: str) -> str:
    """Bars within a cell, as in |p - q|, would end it."""
    return text.replace("|", r"\|")
