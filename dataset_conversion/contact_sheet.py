"""Many cases at a glance: one slice of each, with its scribbles over the scan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nnunet_attenscribble.common.figures import (
    BACKGROUND_COLOUR,
    add_legend,
    background_patch,
    choose_colour,
    draw_outline,
    edge_background,
    encode_png,
    find_box,
    new_figure,
    show_scan,
    wrap_name,
)
from nnunet_attenscribble.common.files import replaced_file
from nnunet_attenscribble.common.formats import holds_place
from nnunet_attenscribble.common.grids import Grid, place_on, turn_upright
from nnunet_attenscribble.common.progress import show_progress
from nnunet_attenscribble.common.volumes import Source, count_values, file_of, read_volume, slice_axis

_COLUMNS = 5
_WIDTH = 2.4  # inches of a tile
_LETTERS = 42  # of its title in a line


def draw_contact_sheet(
    file: Path,
    cases: Mapping[str, tuple[Source, Source, Source | None]],
    *,
    labels: Mapping[str, int],
    ignore: int | None,
    title: str,
    axis: int | None = None,
    progress: bool = False,
) -> None:
    """Write a PNG with a tile per case: the slice with most classes drawn, and of these with most strokes.

    Args:
        file: to write; an existing one is replaced.
        cases: image, label and perhaps dense label of each, read already once without an error.
        labels: name to value, background included.
        ignore: value of unlabelled voxels; None: labels are dense, and the background stays bare.
        title: above all tiles.
        axis: across which of z, y, x slices were drawn on; None: see `slice_axis`.
        progress: shown on stderr.
    """
    figure, tiles = _lay_out(len(cases))
    painted = {name: value for name, value in labels.items() if value > 0}
    colours = {value: choose_colour(i) for i, value in enumerate(painted.values())}
    if ignore is not None:
        colours[0] = BACKGROUND_COLOUR
    shown = show_progress(cases.items(), total=len(cases), description="Drawing", enabled=progress)
    for (case, files), axes in zip(shown, tiles, strict=False):
        _draw_tile(axes, case, files, colours, ignore, axis)
    legend: list[Artist] = [Patch(color=colours[value], label=wrap_name(name)) for name, value in painted.items()]
    if ignore is not None:
        legend.append(background_patch())
    if any(dense is not None for _, _, dense in cases.values()):
        legend.append(_outline_entry("dense label"))
    _finish(figure, legend, title)
    with replaced_file(file) as part:
        part.write_bytes(encode_png(figure))


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


def draw_sections(sections: Sequence[Section], *, labels: Mapping[str, int], outlined: str, title: str) -> bytes:
    """A PNG with a tile for each slice: the outlines of its labels over the scan.

    Args:
        sections: to show.
        labels: name to value, background included.
        outlined: what the outlines are of, for the legend.
        title: above all tiles.
    """
    figure, tiles = _lay_out(len(sections))
    colours = {value: choose_colour(value - 1) for value in labels.values() if value > 0}
    for axes, section in zip(tiles, sections, strict=False):
        show_scan(axes, section.scan, section.aspect)
        _outline(axes, section.labels, colours)
        axes.set_title(wrap_name(section.title, _LETTERS), fontsize=6, pad=2)
    legend = [Patch(color=colours[value], label=wrap_name(name)) for name, value in labels.items() if value > 0]
    _finish(figure, [*legend, _outline_entry(outlined)], title)
    return encode_png(figure)


def _lay_out(count: int) -> tuple[Figure, Sequence[Axes]]:
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    width = _WIDTH * max(columns, 2)  # of one tile for a legend and a title too
    figure = new_figure((_WIDTH + 0.25) * rows + 0.5, width=width)
    tiles = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in tiles:
        axes.set_axis_off()
    return figure, list(tiles)


def _finish(figure: Figure, legend: Sequence[Artist], title: str) -> None:
    figure.suptitle(wrap_name(title, int(13 * figure.get_figwidth())), fontsize=9)
    add_legend(figure, legend)


def _outline_entry(what: str) -> Line2D:
    return Line2D([], [], color="0.5", linewidth=1, label=f"outline: {what}")


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
    grid, volumes = _read(files)
    spacing = (math.inf, *grid.spacing[::-1])[-3:]  # (z, y, x)
    axis = slice_axis(volumes[0].shape, spacing, axis)
    volumes = [np.moveaxis(volume, axis, 0) for volume in volumes]
    position = _busiest(volumes[1], ignore)
    known = grid if holds_place(file_of(files[0])) else None
    cut, (down, across) = turn_upright([volume[position] for volume in volumes], spacing, axis, known)
    scan, label, *dense = cut
    # So much around it shows whether a drawing is displaced or mirrored.
    window = find_box(label != (0 if ignore is None else ignore), margin=0.25)
    section = scan[window].astype(float)
    show_scan(axes, section, down / across)
    for truth in dense:
        _outline(axes, truth[window], colours)
    overlay = np.zeros((*section.shape, 4))
    for value, colour in colours.items():
        overlay[label[window] == value] = (*to_rgb(colour), 1.0 if ignore is not None else 0.45)
    axes.imshow(overlay, interpolation="nearest", aspect=down / across)
    if ignore is not None:
        edge_background(axes, label[window] == 0)
    axes.set_title(wrap_name(f"{case}, slice {position + 1} of {len(volumes[1])}", _LETTERS), fontsize=6, pad=2)


def _read(files: Sequence[Source | None]) -> tuple[Grid, list[np.ndarray]]:
    """Where the voxels lie, and each volume that there is, (Z, Y, X)."""
    images = [read_volume(file, "", thorough=False) for file in files if file is not None]
    volumes = [sitk.GetArrayFromImage(place_on(image, images[0])) for image in images]
    return Grid.of(images[0]), [volume.reshape((-1, *volume.shape[-2:])) for volume in volumes]


def _busiest(label: np.ndarray, ignore: int | None) -> int:
    def rank(section: np.ndarray) -> tuple[int, int]:
        counts = count_values(section[None])
        drawn = [n for value, n in counts.items() if (value > 0 if ignore is None else value != ignore)]
        return len(drawn), sum(drawn)

    ranks = [rank(section) for section in label]
    return ranks.index(max(ranks))
