"""Formulas as MathML: no script and no network where the documentation is read."""

from __future__ import annotations

import re
from html import unescape

from latex2mathml.converter import convert

# What pymdownx.arithmatex makes of $...$ and of blocks.
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def to_mathml(html: str) -> str:
    """A page with its formulas, which arithmatex marked, as MathML."""
    html = _BLOCK.sub(lambda match: convert(unescape(match[1]).strip(), display="block"), html)
    return _INLINE.sub(lambda match: convert(unescape(match[1]).strip()), html)
