"""The table of settings, read off `AttenScribbleSettings`, so that it cannot drift."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields

from nnunet_attenscribble import settings
from nnunet_attenscribble.settings import AttenScribbleSettings

PLACE = "<!-- generated: settings -->"


def fill_in(markdown: str) -> str:
    """A page with the table in its place."""
    return markdown.replace(PLACE, make_table()) if PLACE in markdown else markdown


def make_table() -> str:
    """A row per field: name, default, what is allowed, meaning."""
    meanings = read_meanings()
    rows = [
        f"| `{field.name}` | `{json.dumps(field.default)}` | {_allowed(field.name)} | {meanings[field.name]} |"
        for field in fields(AttenScribbleSettings)
    ]
    return "\n".join(["| field | default | allowed | meaning |", "|---|---|---|---|", *rows])


def read_meanings() -> dict[str, str]:
    """What the docstring of the class says of each field."""
    text = inspect.cleandoc(AttenScribbleSettings.__doc__ or "").partition("Attributes:\n")[2]
    meanings = {}
    for entry in re.split(r"\n(?= {4}\w)", inspect.cleandoc(text) if not text.startswith("    ") else text):
        names, _, meaning = entry.strip().partition(": ")
        for name in names.split(", "):
            meanings[name] = " ".join(meaning.split())
    return meanings


def _allowed(name: str) -> str:
    """What the class itself says to a value of no use."""
    message = settings._problem(name, object())
    assert message is not None  # it takes no such value for any field
    return message.rpartition("must be ")[2]
