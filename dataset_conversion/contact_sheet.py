"""Many cases at a glance: one slice of each, with its scribbles over the scan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunet_attenscribble.common.figures import (
    BACKGROUND_COLOUR,
    background_patch,
    choose_colour,
    draw_outline,
    encode_png,
    escape_dollars,
    find_box,
    show_scan,
)
from nnunet_attenscribble.common.files import replaced_file
from nnunet_attenscribble.common.grids import place_on
from nnunet_attenscribble.common.volumes import Source, read_volume, slice_axis

_COLUMNS = 5
_WIDTH = 2.4  # inches of a tile
_DPI = 160


def draw_contact_sheet(
    file: Path,
    cases: Mapping[str, tuple[Source, Source, Source | None]],
    *,
    labels: Mapping[str, int],
    ignore: int | None,
    title: str,
    axis: int | None = None,
) -> None:
    """Write a PNG with a tile per case: the slice with most classes drawn, and of these with most strokes.

    Args:
        file: to write; an existing one is replaced.
        cases: image, label and perhaps dense label of each, read already once without an error.
        labels: name to value, background included.
        ignore: value of unlabelled voxels; None: labels are dense, and the background stays bare.
        title: above all tiles.
        axis: across which of z, y, x slices were drawn on; None: see `slice_axis`.
    """
    figure, tiles = _lay_out(len(cases))
    painted = {name: value for name, value in labels.items() if value > 0}
    colours = {value: choose_colour(i) for i, value in enumerate(painted.values())}
    if ignore is not None:
        colours[0] = BACKGROUND_COLOUR
    for axes, (case, files) in zip(tiles, cases.items(), strict=False):
        _draw_tile(axes, case, files, colours, ignore, axis)
    legend = [Patch(color=colours[value], label=escape_dollars(name)) for name, value in painted.items()]
    if ignore is not None:
        legend.append(background_patch())
    _finish(figure, legend, title)
    with replaced_file(file) as part:
        figure.savefig(part, format="png")


@dataclass(frozen=True, eq=False)
class Section:
    """One slice to show.

    Attributes:
        title: above it.
        scan, labels: (Y, X).
        aspect: of its pixels, height to width.
    """

    title: str
    scan: np.ndarray
    labels: np.ndarray
    aspect: float


def draw_sections(sections: Sequence[Section], *, labels: Mapping[str, int], title: str) -> bytes:
    """A PNG with a tile for each slice: the outlines of its labels over the scan.

    Args:
        sections: to show.
        labels: name to value, background included.
        title: above all tiles.
    """
    figure, tiles = _lay_out(len(sections))
    colours = {value: choose_colour(value - 1) for value in labels.values() if value > 0}
    for axes, section in zip(tiles, sections, strict=False):
        show_scan(axes, section.scan, section.aspect)
        _outline(axes, section.labels, colours)
        axes.set_title(escape_dollars(section.title), fontsize=6, pad=2)
    legend = [Patch(color=colours[value], label=escape_dollars(name)) for name, value in labels.items() if value > 0]
    _finish(figure, legend, title)
    return encode_png(figure)


def _lay_out(count: int) -> tuple[Figure, Sequence[Axes]]:
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(_WIDTH * columns, (_WIDTH + 0.25) * rows + 0.8), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    tiles = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in tiles:
        axes.set_axis_off()
    return figure, list(tiles)


def _finish(figure: Figure, legend: Sequence[Patch], title: str) -> None:
    figure.suptitle(escape_dollars(title), fontsize=9)
    columns = min(len(legend), _COLUMNS + 1)
    figure.legend(handles=legend, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def _outline(axes: Axes, labels: np.ndarray, colours: Mapping[int, str]) -> None:
    for value, colour in colours.items():
        if value > 0:
            draw_outline(axes, labels == value, colors=[colour], linewidths=0.6)


def _draw_tile(
    axes,
    case: str,
    files: tuple[Source, Source, Source | None],
    colours: Mapping[int, str],
    ignore: int | None,
    axis: int | None,
) -> None:
    spacing, scan, label, dense = _read(files)
    axis = slice_axis(scan.shape, spacing, axis)
    scan, label = np.moveaxis(scan, axis, 0), np.moveaxis(label, axis, 0)
    dense = None if dense is None else np.moveaxis(dense, axis, 0)
    position = _busiest(label, ignore)
    window = find_box(label[position] != (0 if ignore is None else ignore))
    down, across = (edge for i, edge in enumerate(spacing) if i != axis)
    section = scan[position][window].astype(float)
    show_scan(axes, section, down / across)
    if dense is not None:
        _outline(axes, dense[position][window], colours)
    overlay = np.zeros((*section.shape, 4))
    for value, colour in colours.items():
        overlay[label[position][window] == value] = (*to_rgb(colour), 1.0 if ignore is not None else 0.45)
    axes.imshow(overlay, interpolation="nearest", aspect=down / across)
    axes.set_title(f"{escape_dollars(case)}, slice {position + 1} of {len(label)}", fontsize=6, pad=2)


def _read(files: Sequence[Source | None]) -> tuple[tuple[float, ...], np.ndarray, np.ndarray, np.ndarray | None]:
    """Spacing (z, y, x), and each volume, (Z, Y, X)."""
    images = [None if file is None else read_volume(file, "", thorough=False) for file in files]
    assert images[0] is not None  # the scan and its label are there
    placed = [None if image is None else place_on(image, images[0]) for image in images]
    arrays = [None if image is None else sitk.GetArrayFromImage(image) for image in placed]
    spacing = images[0].GetSpacing()[::-1]
    if len(spacing) == 2:
        spacing = (math.inf, *spacing)
        arrays = [None if array is None else array[None] for array in arrays]
    return spacing, *arrays


def _busiest(label: np.ndarray, ignore: int | None) -> int:
    def rank(section: np.ndarray) -> tuple[int, int]:
        values, counts = np.unique(section, return_counts=True)
        drawn = (values != ignore) if ignore is not None else (values > 0)
        return int(drawn.sum()), int(counts[drawn].sum())

    ranks = [rank(section) for section in label]
    return ranks.index(max(ranks))
