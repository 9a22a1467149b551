"""A report as one HTML page that needs no network, and as Markdown beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from nnunet_attenscribble.common.text import format_markdown
from nnunet_attenscribble.evaluation.report.data import ReportData
from nnunet_attenscribble.evaluation.report.parts import Section, Table

__all__ = ["render_html", "render_markdown"]


def render_html(data: ReportData, sections: Sequence[Section], pictures: Mapping[str, bytes]) -> str:
    """The page, with every picture inside.

    Args:
        data: of the benchmark.
        sections: in order; those without parts are left out.
        pictures: PNG by the picture's name.
    """
    encoded = {name: base64.b64encode(content).decode() for name, content in pictures.items()}
    sizes = {name: _read_png_size(content) for name, content in pictures.items()}
    return _render("report.html.jinja", data, sections, escape=True, encoded=encoded, sizes=sizes)


def render_markdown(data: ReportData, sections: Sequence[Section]) -> str:
    """The same as Markdown, which shows the PNG files beside it."""
    return _render("report.md.jinja", data, sections, escape=False, table_text=_format_table)


def _read_png_size(content: bytes) -> tuple[int, int]:
    """Width and height in pixels, which stand behind the signature and the head of the first chunk."""
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def _render(template: str, data: ReportData, sections: Sequence[Section], *, escape: bool, **values: object) -> str:
    text = files("nnunet_attenscribble.evaluation.report").joinpath(template).read_text(encoding="utf-8")
    environment = Environment(autoescape=escape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shown = [section for section in sections if section.parts]
    return environment.from_string(text).render(data=data, sections=shown, **values).rstrip() + "\n"


def _format_table(table: Table) -> str:
    return format_markdown(table.header, table.rows)
