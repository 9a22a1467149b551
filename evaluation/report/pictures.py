"""One case as pictures: a slice with everything that is known of it (scan, dense label, scribble, predictions), and a
row of scans with what was drawn, predicted and true.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunet_attenscribble.common.figures import escape_dollars
from nnunet_attenscribble.common.files import read_json
from nnunet_attenscribble.common.grids import Grid, Placed, geometry_problems, place_on
from nnunet_attenscribble.common.readers import Reader, find_reader, open_files
from nnunet_attenscribble.common.volumes import read_volume, slice_axis
from nnunet_attenscribble.common.writing import replaced_file
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.metrics import select_structure
from nnunet_attenscribble.evaluation.protocols import find_volume
from nnunet_attenscribble.evaluation.report.data import ReportData
from nnunet_attenscribble.evaluation.scoring import LabelImage, read_label_image
from nnunet_attenscribble.evaluation.structures import Structure

__all__ = ["CaseSlice", "Panel", "draw_case", "find_largest_slice", "read_slice"]

# Okabe and Ito's palette, which colour-blind readers can tell apart; without black, which scans are full of.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
_BACKGROUND_STROKE = "#FFFFFF"
_WIDTH = 2.6  # inches of a panel
_DPI = 110
_MARGIN = 0.1  # of the slice, around everything that is drawn


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of the row.

    Attributes:
        title: above it; may have several lines.
        labels: (Z, Y, X) integers to paint over the scan; None for the bare scan.
        unlabelled: for scribbles: the value of pixels without a stroke. Strokes are opaque, and those in the
            background, 0, are painted too.
    """

    title: str
    labels: np.ndarray | None = None
    unlabelled: int | None = None


def draw_case(
    file: Path,
    image: np.ndarray,
    panels: Sequence[Panel],
    *,
    spacing: Sequence[float],
    structures: Mapping[str, int],
    position: int,
    title: str = "",
) -> None:
    """Write one slice of a case as a PNG with a panel beside the other.

    Args:
        file: to write; an existing one is replaced.
        image: (Z, Y, X), one channel.
        panels: from left to right.
        spacing: of a voxel along z, y, x (mm): the slice is drawn in its true proportions.
        structures: name to label value, without the background, for colours and legend.
        position: index of the slice.
        title: above the row.

    Raises:
        ValueError: labels of another shape than the image.
    """
    for panel in panels:
        if panel.labels is not None and panel.labels.shape != image.shape:
            raise ValueError(f"'{panel.title}' has labels of shape {panel.labels.shape}, the image has {image.shape}")
    section = image[position].astype(float)
    height, width = section.shape[0] * spacing[1], section.shape[1] * spacing[2]
    lines = max((panel.title.count("\n") + 1 for panel in panels), default=1)
    margins = 0.30 + 0.19 * lines + 0.35  # title, panel titles, legend: inches
    figure = Figure(figsize=(_WIDTH * len(panels), _WIDTH * height / width + margins), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    black, white = np.percentile(section, (0.5, 99.5))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.set_title(escape_dollars(panel.title), fontsize=8)
        axes.set_axis_off()
        axes.imshow(section, cmap="gray", vmin=black, vmax=max(white, black + 1e-6), aspect=spacing[1] / spacing[2])
        if panel.labels is not None:
            _paint(axes, panel.labels[position], structures, panel.unlabelled)
            axes.set_aspect(spacing[1] / spacing[2])  # which painting resets
    if title:
        figure.suptitle(escape_dollars(title), fontsize=9)
    legend = [Patch(color=colour, label=escape_dollars(name)) for name, (_, colour) in _coloured(structures).items()]
    if any(panel.unlabelled is not None for panel in panels):
        legend.append(Patch(facecolor=_BACKGROUND_STROKE, edgecolor="black", linewidth=0.5, label="background stroke"))
    figure.legend(handles=legend, loc="outside lower center", ncols=len(legend), fontsize=8, frameon=False)
    with replaced_file(file) as part:
        figure.savefig(part, format="png")


def find_largest_slice(labels: np.ndarray) -> int:
    """Index of the slice (Z, Y, X) with most foreground; the middle one if there is none at all."""
    area = np.count_nonzero(labels > 0, axis=(1, 2))
    return int(area.argmax()) if area.any() else len(labels) // 2


def _paint(axes, section: np.ndarray, structures: Mapping[str, int], unlabelled: int | None) -> None:
    overlay = np.zeros((*section.shape, 4))
    scribble = unlabelled is not None
    if scribble:
        overlay[section == 0] = (*to_rgb(_BACKGROUND_STROKE), 1.0)
    for value, colour in _coloured(structures).values():
        mask = section == value
        overlay[mask] = (*to_rgb(colour), 1.0 if scribble else 0.45)
        if not scribble and mask.any() and not mask.all():
            axes.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=0.9)
    axes.imshow(overlay, interpolation="nearest")


def _coloured(structures: Mapping[str, int]) -> dict[str, tuple[int, str]]:
    return {name: (value, _COLOURS[i % len(_COLOURS)]) for i, (name, value) in enumerate(structures.items())}


@dataclass(frozen=True, eq=False)
class CaseSlice:
    """One slice of a case, cut to what is drawn on it.

    Attributes:
        image: (Y, X), one channel.
        dense: (Y, X) true labels.
        scribble: (Y, X), or None where the dataset has no scribble of this case.
        predictions: (Y, X) by the row's name.
        spacing: millimetres along y and x.
        position: of the slice, from 0.
    """

    image: np.ndarray
    dense: np.ndarray
    scribble: np.ndarray | None
    predictions: Mapping[str, np.ndarray]
    spacing: tuple[float, float]
    position: int


def read_slice(data: ReportData, case: str, structures: Sequence[Structure], protocol: str) -> CaseSlice:
    """One slice of a case from all of its files.

    Args:
        data: of the benchmark.
        case: as its scores are called; where the protocol scores slices, that slice is read.
        structures: that are drawn.
        protocol: by which the case was scored.

    Raises:
        FileNotFoundError: of the image or of the dense label.
        ValueError: they cannot be read, or do not lie on each other.
    """
    volume = find_volume(case, protocol)
    places = [(_find(images, f"{volume}_0000"), labels) for images, labels in data.test_folders.values()]
    image_file, labels = next(((file, labels) for file, labels in places if file is not None), (None, None))
    if image_file is None or labels is None:
        raise FileNotFoundError(f"there is no image of {volume} in the folders of test images")
    dense_file = _find(labels, volume)
    if dense_file is None:
        raise FileNotFoundError(f"there is no dense label of {volume} in {labels}")
    reader = _find_reader(data, image_file)
    truth = read_label_image(dense_file, reader)
    scan = _read_image(image_file, reader)
    _check(truth, scan, image_file, dense_file)
    image, spacing = _as_volume(place_on(scan, truth.grid))  # on which the case was scored
    scored = int(case.rpartition("_slice")[2]) if case != volume else None
    axis = slice_axis(image.shape, spacing) if scored is None else 0  # which protocols take slices along
    dense = truth.labels.reshape(image.shape)
    folder, ending, _ = data.scribbles
    scribble_file = folder / f"{volume}{ending}"
    scribble = _read_labels(scribble_file, dense_file, truth, reader) if scribble_file.is_file() else None
    predictions = {}
    for row in data.scored:
        files = [_find(cell.place / "predictions", volume) for cell in data.done(row)]
        file = next((file for file in files if file is not None), None)
        if file is not None:
            predictions[row.name] = _read_labels(file, dense_file, truth, reader)

    position = _find_largest_slice(_select_any(dense, structures), axis) if scored is None else scored
    cut = [np.take(array, position, axis) for array in (image, dense, *predictions.values())]
    drawn = [_select_any(array, structures) for array in cut[1:]]
    own = None if scribble is None else np.take(scribble, position, axis)
    if own is not None:
        drawn.append(_select_any(own, structures))
    box = _find_box(np.any(drawn, axis=0))
    down, across = (length for number, length in enumerate(spacing) if number != axis)
    return CaseSlice(
        cut[0][box],
        cut[1][box],
        None if own is None else own[box],
        {name: array[box] for name, array in zip(predictions, cut[2:], strict=True)},
        (down, across),
        position,
    )


def _find(folder: Path, stem: str) -> Path | None:
    """The file of that name with any ending."""
    if not folder.is_dir():
        return None
    pattern = re.compile(re.escape(stem) + r"\.[A-Za-z][^/]*")
    found = sorted(file for file in folder.iterdir() if pattern.fullmatch(file.name))
    return next((file for file in found if file.suffix not in (".json", ".npz", ".pkl")), None)


def _find_reader(data: ReportData, image: Path) -> Reader:
    """Of nnU-Net, of the dataset that the rows were trained on."""
    try:
        return find_reader(read_json(data.scribbles[0].parent / "dataset.json", ""), image)
    except AttenScribbleError:  # the dataset is elsewhere now
        return None


def _read_image(file: Path, reader: Reader) -> sitk.Image:
    """The first channel, or the mean of a picture's colours."""
    try:
        channels = open_files([file], reader, channels=2)  # more than there are files: then they are counted
        images = [read_volume(channel, str(file), thorough=False) for channel in channels]
    except AttenScribbleError as error:
        raise ValueError("; ".join(error.problems)) from error
    mean = sitk.Cast(images[0], sitk.sitkFloat32)
    for image in images[1:]:
        mean += sitk.Cast(image, sitk.sitkFloat32)
    return mean / len(images)


def _as_volume(image: sitk.Image) -> tuple[np.ndarray, tuple[float, ...]]:
    """(Z, Y, X), one slice for an image of two axes, and millimetres per axis."""
    array, spacing = sitk.GetArrayFromImage(image).astype(float), image.GetSpacing()[::-1]
    # An image of two axes gets a third, of the greatest spacing, so that it is the one to look along.
    return (array[None], (math.inf, *spacing)) if array.ndim == 2 else (array, spacing)


def _check(truth: LabelImage, other: Placed | Grid, file: Path, dense_file: Path) -> None:
    problems = geometry_problems(truth.grid, other, str(file), str(dense_file))
    if problems:
        raise ValueError("; ".join(problems))


def _read_labels(file: Path, dense_file: Path, truth: LabelImage, reader: Reader) -> np.ndarray:
    found = read_label_image(file, reader)
    _check(truth, found.grid, file, dense_file)
    labels = found.on(truth).labels
    return labels[None] if labels.ndim == 2 else labels


def _find_largest_slice(mask: np.ndarray, axis: int) -> int:
    """Index of the slice with most of a mask; the middle one if it is empty."""
    area = np.count_nonzero(mask, axis=tuple(number for number in range(mask.ndim) if number != axis))
    return int(area.argmax()) if area.any() else len(area) // 2


def _find_box(mask: np.ndarray) -> tuple[slice, slice]:
    """The box of a mask (Y, X) with a margin around it; everything if it is empty."""
    if not mask.any():
        return slice(None), slice(None)
    margin = math.ceil(_MARGIN * max(mask.shape))
    box = []
    for axis in (0, 1):
        (found,) = np.nonzero(mask.any(axis=1 - axis))
        box.append(slice(max(0, int(found[0]) - margin), int(found[-1]) + 1 + margin))
    return box[0], box[1]


def _select_any(labels: np.ndarray, structures: Sequence[Structure]) -> np.ndarray:
    return select_structure(labels, [value for structure in structures for value in structure.values])
