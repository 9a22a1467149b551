"""How figures look: colours that colour-blind readers tell apart, markers beside them, scans and outlines."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text

# Okabe and Ito's palette without yellow, which is hardly seen on white, and without black, which is the reference's.
_COLOURS = ("#E69F00", "#0072B2", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
_BLACK = "#000000"
# On scans: with yellow, and without black, which scans are full of.
_ON_SCANS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
# Of CSS, from the eighth class on: each as far as can be from all before it, but not from all of them to the
# colour-blind. None is grey, nor so dark that scans hide it.
_FURTHER = (
    *("darkviolet", "springgreen", "olive", "crimson", "turquoise", "salmon", "mediumpurple", "mediumvioletred"),
    *("green", "magenta", "teal", "lightpink", "darkseagreen"),
)
_OF_CLASSES = (*_ON_SCANS, *_FURTHER, *map(to_hex, colormaps["tab20b"](range(20))))
BACKGROUND_COLOUR = "#FFFFFF"
_NO_SIGN = "\N{WHITE SQUARE}"
_OF_BOXES = "lastresort"  # in the names of fonts that have a box for every sign
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


def choose_colour(position: int) -> str:
    """The colour on scans of the class at a position, from 0; the first 40 differ."""
    return _OF_CLASSES[position % len(_OF_CLASSES)]


def background_patch() -> Patch:
    """A legend's entry for strokes of background."""
    return Patch(facecolor=BACKGROUND_COLOUR, edgecolor="black", linewidth=0.5, label="background stroke")


def show_scan(axes: Axes, scan: np.ndarray, aspect: float, **look: Any) -> None:
    """A slice (Y, X) in grey, whose pixels are `aspect` times as high as wide, with what `Axes.imshow` takes."""
    black, white = np.percentile(scan, (0.5, 99.5))
    axes.imshow(scan, cmap="gray", vmin=black, vmax=max(white, black + 1e-6), aspect=aspect, **look)


def draw_outline(axes: Axes, mask: np.ndarray, **look: Any) -> QuadContourSet | None:
    """The outline of a mask (Y, X) over a scan, with what `Axes.contour` takes; None where the mask is empty."""
    if not mask.any():
        return None
    shown = axes.axis()
    # A rim of background, so that what reaches the border of the picture is outlined there too.
    rows, columns = (np.arange(-1, length + 1) for length in mask.shape)
    drawn = axes.contour(columns, rows, np.pad(mask.astype(float), 1), levels=[0.5], **look)
    axes.axis(shown)  # which the rim widens
    return drawn


def edge_background(axes: Axes, mask: np.ndarray) -> None:
    """A dark edge around strokes of background, which are white as much tissue is."""
    draw_outline(axes, mask, colors=["black"], linewidths=0.4)


def find_box(mask: np.ndarray, margin: float = 0.1) -> tuple[slice, slice]:
    """Rows and columns of a mask (Y, X) with so much of the slice around it; all of them where it is empty."""
    if not mask.any():
        return slice(None), slice(None)
    around = math.ceil(margin * max(mask.shape))
    ends = [np.flatnonzero(mask.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]
    rows, columns = (slice(max(0, int(first) - around), int(last) + 1 + around) for first, last in ends)
    return rows, columns


def add_legend(
    figure: Figure,
    handles: Sequence[Artist],
    place: Literal["outside lower center", "outside upper center"] = "outside lower center",
    **look: Any,
) -> None:
    """A legend outside of everything, of as many columns as fit, for which the figure grows."""
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(handles=handles, loc=place, ncols=columns, fontsize=8, frameon=False, **look)
        _choose_fonts(legend)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + legend.get_window_extent().height / figure.dpi)


def new_figure(height: float, *, width: float = _WIDTH) -> Figure:
    """An empty figure of so many inches, independent of any display."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def encode_png(figure: Figure) -> bytes:
    """The figure as PNG; the same bytes for the same figure."""
    _choose_fonts(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _choose_fonts(drawn: Artist) -> None:
    """Behind matplotlib's own, give every text of a figure, or of a part, the installed fonts that have its signs."""
    for text in drawn.findobj(Text):
        assert isinstance(text, Text)
        found = {_find_font(sign) for sign in text.get_text() if not sign.isspace()}
        if further := sorted(filter(None, found - {*text.get_fontfamily()})):
            text.set_fontfamily([*text.get_fontfamily(), *further])


def wrap_name(name: str, width: int = 24) -> str:
    """A name in lines of so many letters, by default as few as legends have room for."""
    return escape_name(textwrap.fill(name, width))


def escape_name(text: str) -> str:
    """For matplotlib, which takes what stands between dollars for a formula, and leaves `_name` out of legends; a box
    stands for a sign that no installed font has.
    """
    shown = "".join(_NO_SIGN if not sign.isspace() and _find_font(sign) is None else sign for sign in text)
    return f"{' ' * shown.startswith('_')}{shown}".replace("$", r"\$")


@cache
def _find_font(sign: str) -> str | None:
    """A font that has it, empty where it is matplotlib's own; None where there is none."""
    if _has_sign(font_manager.findfont(font_manager.FontProperties()), sign):
        return ""
    for font in font_manager.fontManager.ttflist:
        if _OF_BOXES not in font.name.casefold().replace(" ", "") and _has_sign(font.fname, sign):
            return font.name
    return None


def _has_sign(file: str, sign: str) -> bool:
    try:
        return font_manager.get_font(file).get_char_index(ord(sign)) > 0
    except (OSError, RuntimeError):  # a font that is gone or damaged
        return False
