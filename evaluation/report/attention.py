"""What an attention block sees: from one position of a case (arrays, their file, the figures drawn of them), and the
report's section about it.

The arrays come from whoever has the network; nothing here knows one.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nnunet_attenscribble.common.figures import escape_name, new_figure, show_scan
from nnunet_attenscribble.common.grids import Grid, turn_upright
from nnunet_attenscribble.common.text import format_csv, format_mean_sd
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.attention_folder import (
    ATTENTION_FILE,
    PairMean,
    SimilarityMean,
    average_pairs,
    read_record,
)
from nnunet_attenscribble.evaluation.protocols import find_volume
from nnunet_attenscribble.evaluation.report.data import Part, Picture, ReportCell, ReportData, ReportRow, Section, Table

_MAP = "cividis"  # which those who see fewer colours see as others do
_WIDTH = 2.4  # inches of a picture
_DASHES = (0, (2.5, 2.5))
_MARK = "#D55E00"
_TITLES = {
    "scan": "Scan and the position",
    "attention": "Its attention (1: spread evenly)",
    "similarity": "Its similarity to its neighbours",
}
_HEADER = {
    "same class": "of one class",
    "same structure": "of one structure, no background",
    "different classes": "of different classes",
}
_NEIGHBOURS = {"window": "in the window", "adjacent": "that touch"}
Found = tuple[ReportCell, list[str], list[PairMean]]


@dataclass(frozen=True, eq=False)
class AttentionView:
    """One position of one case.

    Attributes:
        case: its identifier.
        structure: what lies at the position, in words.
        image: (H, W) float32, the plane of the network's input that the position lies in.
        attention: (h, w) float32, the attention that the position pays to every cell of the plane; over the whole grid
            it adds up to 1.
        similarity: (h, w) float32, the similarity to its neighbours; NaN at the position itself and beyond the window,
            and throughout where the block has none.
        position: row and column of its cell in the plane.
        cells: number of cells of the whole grid: attention spread evenly is 1 / cells.
        plane: index of the plane along the first axis of the preprocessed case, from 0.
        spacing: millimetres per pixel of `image`, down and across.
    """

    case: str
    structure: str
    image: np.ndarray
    attention: np.ndarray
    similarity: np.ndarray
    position: tuple[int, int]
    cells: int
    plane: int
    spacing: tuple[float, float]

    @property
    def has_similarity(self) -> bool:
        """Whether any neighbour has one."""
        return bool(np.isfinite(self.similarity).any())


def turn_view(view: AttentionView, axis: int, grid: Grid | None) -> AttentionView:
    """The same, turned as radiologists look at it; axis and grid as of `turn_upright`."""
    place = np.zeros(view.attention.shape, bool)
    place[view.position] = True
    spacing = [*view.spacing[:axis], math.inf, *view.spacing[axis:]]
    arrays, steps = turn_upright((view.image, view.attention, view.similarity, place), spacing, axis, grid)
    row, column = np.argwhere(arrays[3])[0].tolist()
    image, attention, similarity = arrays[:3]
    return replace(view, image=image, attention=attention, similarity=similarity, position=(row, column), spacing=steps)


def write_view(view: AttentionView, file: Path) -> None:
    """Write the arrays and what they are of as NPZ."""
    with file.open("wb") as stream:
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in asdict(view).items()}
        np.savez_compressed(stream, **arrays)


def read_view(file: Path) -> AttentionView:
    """Read what `write_view` wrote.

    Raises:
        AttenScribbleError: unreadable, or something else.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            found = {column.name: content[column.name] for column in fields(AttentionView)}
        shapes = [found[name].ndim for name in ("image", "attention", "similarity")]
        if shapes != [2, 2, 2] or found["attention"].shape != found["similarity"].shape:
            raise ValueError("arrays of other shapes than those of a view")
        for name in ("position", "spacing"):
            found[name] = tuple(found[name].tolist())
        for name in ("case", "structure", "cells", "plane"):
            found[name] = found[name].item()
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise AttenScribbleError(
            f"{file} cannot be read as a view of an attention block ({error!r}): run `attenscribble attention` again"
        ) from error
    return AttentionView(**found)


def list_cells(view: AttentionView) -> list[tuple[int, int, float, float | None]]:
    """The numbers of the pictures: row and column of every cell, its attention, its similarity or None."""
    return [
        (row, column, float(view.attention[row, column]), None if np.isnan(similarity) else float(similarity))
        for (row, column), similarity in np.ndenumerate(view.similarity)
    ]


def list_panels(view: AttentionView) -> list[str]:
    """The pictures there are: `scan`, `attention`, and `similarity` where the block has one."""
    return [name for name in _TITLES if name != "similarity" or view.has_similarity]


def draw_view(view: AttentionView) -> Figure:
    """All pictures beside each other."""
    names = list_panels(view)
    height, width = _measure(view.image.shape, view)
    figure = new_figure(_WIDTH * height / width + 1.1, width=_WIDTH * len(names) + 0.4)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        axes.set_title(_TITLES[name], fontsize=8)
        _draw(axes, view, name)
    figure.suptitle(escape_name(f"{view.case}, plane {view.plane + 1}: {view.structure}"), fontsize=9)
    return figure


def draw_panel(view: AttentionView, name: str, *, scan: bool = True) -> Figure:
    """One picture of `list_panels`, without a title.

    Args:
        view: to draw.
        name: of the picture.
        scan: show the scan under the similarity, where there is none.
    """
    top, bottom, left, right = _find_frame(view, name)
    height, width = _measure((bottom - top, right - left), view)
    drawn, below = _WIDTH * height / width, 0.0 if name == "scan" else 0.36  # inches
    figure = new_figure(drawn + below, width=_WIDTH)
    figure.set_layout_engine("none")  # pictures side by side are to be of one size
    total = drawn + below
    bar = figure.add_axes((0.06, 0.22 / total, 0.88, 0.09 / total)) if below else None
    _draw(figure.add_axes((0, below / total, 1, drawn / total)), view, name, scan=scan, bar=bar)
    return figure


def _measure(shape: Sequence[float], view: AttentionView) -> tuple[float, float]:
    """Height and width of so many pixels in millimetres, in proportions that a page can show."""
    height, width = (length * step for length, step in zip(shape, view.spacing, strict=True))
    return min(max(height, 0.3 * width), 3.0 * width), width


def _find_frame(view: AttentionView, name: str) -> tuple[float, float, float, float]:
    """Top, bottom, left and right of what a picture shows, in pixels: all, or the window and a cell around it."""
    rows, columns = view.image.shape
    if name != "similarity":
        return 0, rows, 0, columns
    height, width = _measure_cell(view)
    found = [
        np.append(axis, at) for axis, at in zip(np.nonzero(np.isfinite(view.similarity)), view.position, strict=True)
    ]
    (top, bottom), (left, right) = ((axis.min() - 1, axis.max() + 2) for axis in found)
    return max(0, top * height), min(rows, bottom * height), max(0, left * width), min(columns, right * width)


def _measure_cell(view: AttentionView) -> tuple[float, float]:
    """Height and width of a cell in pixels."""
    rows, columns = (size / cells for size, cells in zip(view.image.shape, view.attention.shape, strict=True))
    return rows, columns


def _draw(axes: Axes, view: AttentionView, name: str, *, scan: bool = True, bar: Axes | None = None) -> None:
    """One picture; the bar with its colours goes into axes of its own, or takes room from these."""
    rows, columns = view.image.shape
    extent = (0, columns, rows, 0)  # in pixels of the image, for all three
    aspect = view.spacing[0] / view.spacing[1]
    axes.set_axis_off()
    if name == "scan" or (name == "similarity" and scan):
        show_scan(axes, view.image, aspect, extent=extent)
    if name != "scan":
        values = view.attention * view.cells if name == "attention" else view.similarity
        highest = max(float(np.nanmax(values)), 1e-6) if name == "attention" else 1.0
        drawn = axes.imshow(
            np.ma.masked_invalid(values), cmap=_MAP, vmin=0, vmax=highest, extent=extent, interpolation="none"
        )
        place: dict[str, Any] = {"ax": axes, "location": "bottom", "shrink": 0.9, "pad": 0.03, "aspect": 25}
        if bar:
            place = {"cax": bar, "orientation": "horizontal"}
        axes.figure.colorbar(drawn, **place).ax.tick_params(labelsize=7)
    if name == "scan" and view.has_similarity:
        top, bottom, left, right = _find_frame(view, "similarity")
        box = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white", linestyle=_DASHES)
        axes.add_patch(box)
    _mark(axes, view)
    top, bottom, left, right = _find_frame(view, name)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.set_aspect(aspect)


def _mark(axes: Axes, view: AttentionView) -> None:
    """A frame around the position's cell."""
    height, width = _measure_cell(view)
    row, column = view.position
    place = (column * width, row * height), width, height
    axes.add_patch(Rectangle(*place, fill=False, edgecolor="white", linewidth=2.4))
    axes.add_patch(Rectangle(*place, fill=False, edgecolor=_MARK, linewidth=1.2))


def describe_attention_section(data: ReportData, case: str | None, *, scans: bool = True) -> Section:
    """Pictures of one case for every row with an attention block, and a table of similarities.

    Args:
        data: of the benchmark.
        case: to show; the first one there is where it is None or has no view.
        scans: show the slice of the scan too.
    """
    title = "What the attention block sees"
    with_block = [row for row in data.scored if row.budget.get("attention")]
    found = {row.name: _read_records(data, row) for row in data.scored}
    lacking = [row.name for row in with_block if not found[row.name]]
    rows = [row for row in data.scored if found[row.name]]
    parts = [_describe_row(row, found[row.name], case, scans) for row in rows]
    tables, files = _tabulate({row.name: found[row.name] for row in rows})
    if parts:
        cells = [cell for _, numbers in parts for cell in numbers]
        header = ["row", "case", "plane", "structure", "position_row", "position_column"]
        files["attention.csv"] = format_csv([*header, "grid_row", "grid_column", "attention", "similarity"], cells)
    text = [
        "For one position, marked by a frame, the attention that it pays to all others and the similarity to its "
        "neighbours, as the network sees the case: preprocessed, one plane of its patch. Attention 1 is what an even "
        "spread over all positions would be; similarities are shown larger, for the dashed part of the scan. Of "
        "several trainings, the first is shown."
    ] * bool(parts)
    if tables:
        text.append(
            "The table has the mean similarity of neighbouring positions on the test cases, by the class that most "
            "pixels of a position have in the dense label: the mean over cases, ± SD. Neighbours of one class lie "
            "closer together than those of different ones, so read the rows of those that touch too. Training did not "
            "see these labels."
        )
    if lacking:
        text.append(
            f"Not drawn yet: {', '.join(lacking)}. `attenscribble benchmark` does so, without training again; collect "
            "and report behind it."
        )
    if not text:
        return Section("attention", title, [])
    pictures = [part for part, _ in parts]
    return Section(
        "attention", title, [Part(text=text, tables=tables), *pictures, *([Part(files=files)] if files else [])]
    )


def _read_records(data: ReportData, row: ReportRow) -> list[Found]:
    cells = [cell for cell in data.done(row) if (cell.folder / "attention" / ATTENTION_FILE).is_file()]
    return [(cell, *read_record(cell.folder / "attention")) for cell in cells]


def _describe_row(
    row: ReportRow, found: Sequence[Found], case: str | None, scans: bool
) -> tuple[Part, list[tuple[object, ...]]]:
    volume = None if case is None else find_volume(case, row.scores.protocol)
    cell, cases, _ = next((entry for entry in found if volume in entry[1]), found[0])
    shown = volume if volume in cases else cases[0]
    view = read_view(cell.folder / "attention" / f"{shown}.npz")
    pictures = [
        Picture(
            f"attention_{row.slug}_{name}",
            _TITLES[name],
            f"{_TITLES[name]}: {row.name}, {shown}, {view.structure}.",
            partial(draw_panel, view, name, scan=scans),
            small=True,
        )
        for name in list_panels(view)
        if scans or name != "scan"
    ]
    what = f"{shown}, plane {view.plane + 1}, a position in {view.structure}."
    if not view.has_similarity:
        what += " This row's block has no similarity."
    place: tuple[object, ...] = (view.case, view.plane + 1, view.structure, *view.position)
    numbers = [(row.name, *place, *entry) for entry in list_cells(view)]
    return Part(row.name, [what], pictures=pictures), numbers


def _tabulate(found: dict[str, list[Found]]) -> tuple[list[Table], dict[str, str]]:
    """The table of similarities, and the numbers behind it."""
    rows, means, pairs = [], [], []
    for name, own in found.items():
        averaged = average_pairs([entry for _, _, of_cell in own for entry in of_cell])
        means += [(name, *astuple(entry)) for entry in averaged]
        pairs += [(name, cell.seed, cell.fold, *astuple(entry)) for cell, _, of_cell in own for entry in of_cell]
        for neighbours, words in _NEIGHBOURS.items():
            kinds = {entry.pairs: entry for entry in averaged if entry.neighbours == neighbours}
            if kinds:
                rows.append([name, words, *(_format(kinds.get(kind)) for kind in _HEADER)])
    if not rows:
        return [], {}
    files = {
        "similarity_means.csv": format_csv(["row", *(column.name for column in fields(SimilarityMean))], means),
        "similarity_pairs.csv": format_csv(
            ["row", "seed", "fold", *(column.name for column in fields(PairMean))], pairs
        ),
    }
    return [Table("Mean similarity of neighbours", ["row", "neighbours", *_HEADER.values()], rows)], files


def _format(entry: SimilarityMean | None) -> str:
    return "n/a" if entry is None else format_mean_sd(entry.mean, entry.sd, 3)
