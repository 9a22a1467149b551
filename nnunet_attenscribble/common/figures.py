"""How a report's figures look: colours that colour-blind readers can tell apart, and a marker beside every colour."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["Look", "choose_look", "encode_png", "escape_dollars", "new_figure", "wrap_name"]

# Okabe and Ito's palette without yellow, which is hardly seen on white, and without black, which is the reference's.
_COLOURS = ("#E69F00", "#0072B2", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
_BLACK = "#000000"
_MARKERS = ("s", "^", "D", "v", "P", "X", "<", "*", ">", "p", "h")  # 11 and 6: no pair comes twice before 66
_REFERENCE_MARKER = "o"
_WIDTH = 4.6  # inches: at 9 points, text is still read where a phone shows this in 370 pixels
_DPI = 160


@dataclass(frozen=True)
class Look:
    """Colour and marker of one thing in all figures."""

    colour: str
    marker: str


def choose_look(position: int, *, reference: bool = False) -> Look:
    """The look of the row, structure or loss term at a position, from 0; black circles are the reference."""
    if reference:
        return Look(_BLACK, _REFERENCE_MARKER)
    return Look(_COLOURS[position % len(_COLOURS)], _MARKERS[position % len(_MARKERS)])


def new_figure(height: float, *, width: float = _WIDTH) -> Figure:
    """An empty figure of so many inches, independent of any display."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def encode_png(figure: Figure) -> bytes:
    """The figure as PNG; the same bytes for the same figure."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def wrap_name(name: str) -> str:
    """A row's name in short lines, for the margin of a plot."""
    return escape_dollars(textwrap.fill(name, 20))


def escape_dollars(text: str) -> str:
    """A name for matplotlib, which takes what stands between dollar signs for a formula."""
    return text.replace("$", r"\$")
