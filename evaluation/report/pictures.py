"""Cases as pictures: a row of scans with what was drawn, predicted and true; a slice with everything that is known of
it (scan, dense label, scribble, predictions); and the best, the median and the worst case of a row of the benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke

from nnunet_attenscribble.common.figures import (
    BACKGROUND_COLOUR,
    add_legend,
    background_patch,
    choose_colour,
    draw_outline,
    edge_background,
    encode_png,
    escape_name,
    find_box,
    new_figure,
    show_scan,
    wrap_name,
)
from nnunet_attenscribble.common.files import replaced_file
from nnunet_attenscribble.common.formats import holds_place
from nnunet_attenscribble.common.grids import Grid, Placed, geometry_problems, place_on, turn_upright
from nnunet_attenscribble.common.nnunet import read_drawn_axis
from nnunet_attenscribble.common.readers import Reader, find_reader, read_channels
from nnunet_attenscribble.common.shapes import read_json
from nnunet_attenscribble.common.text import format_csv, format_number
from nnunet_attenscribble.common.volumes import slice_axis
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.evaluation.metrics import compute_dice, select_structure
from nnunet_attenscribble.evaluation.protocols import find_volume
from nnunet_attenscribble.evaluation.report.data import Part, Picture, ReportData, ReportRow, Section
from nnunet_attenscribble.evaluation.scoring import ENDINGS, LabelImage, read_label_image
from nnunet_attenscribble.evaluation.structures import Structure
from nnunet_attenscribble.evaluation.summary import Summary

_WIDTH, _SLICE_WIDTH = 2.6, 2.4  # inches of a panel, and of a picture of a case
_DPI = 110
_TRUTH = "#FFFFFF"
_DASHES = (0, (2.5, 2.5))


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
    drawn = [Structure(name, (value,)) for name, value in structures.items()]
    section = image[position].astype(float)
    height, width = section.shape[0] * spacing[1], section.shape[1] * spacing[2]
    lines = max((panel.title.count("\n") + 1 for panel in panels), default=1)
    margins = 0.30 + 0.19 * lines + 0.35  # title, panel titles, legend: inches
    figure = new_figure(_WIDTH * height / width + margins, width=_WIDTH * len(panels))
    figure.set_dpi(_DPI)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.set_title(escape_name(panel.title), fontsize=8)
        axes.set_axis_off()
        show_scan(axes, section, spacing[1] / spacing[2])
        if panel.labels is not None:
            if panel.unlabelled is None:
                _paint_labels(axes, panel.labels[position], drawn)
            else:
                _paint_scribble(axes, panel.labels[position], drawn, panel.unlabelled)
            axes.set_aspect(spacing[1] / spacing[2])  # which painting resets
    if title:
        figure.suptitle(escape_name(title), fontsize=9)
    legend = [Patch(color=choose_colour(i), label=escape_name(name)) for i, name in enumerate(structures)]
    if any(panel.unlabelled is not None for panel in panels):
        legend.append(background_patch())
    figure.legend(handles=legend, loc="outside lower center", ncols=len(legend), fontsize=8, frameon=False)
    with replaced_file(file) as part:
        part.write_bytes(encode_png(figure))


def find_largest_slice(labels: np.ndarray, axis: int = 0) -> int:
    """Index of the slice across an axis with most foreground, all but 0; the middle one if there is none at all."""
    area = np.count_nonzero(labels, axis=tuple(number for number in range(labels.ndim) if number != axis))
    return int(area.argmax()) if area.any() else len(area) // 2


def _paint_labels(axes: Axes, section: np.ndarray, structures: Sequence[Structure]) -> None:
    overlay = np.zeros((*section.shape, 4))
    for i, structure in enumerate(structures):
        mask = select_structure(section, structure.values)
        overlay[mask] = to_rgba(choose_colour(i), 0.45)
        draw_outline(axes, mask, colors=[choose_colour(i)], linewidths=0.9)
    axes.imshow(overlay, interpolation="nearest")


@dataclass(frozen=True, eq=False)
class CaseSlice:
    """One slice of a case, turned as radiologists look at it, cut to what is drawn on it.

    Attributes:
        image: (Y, X), one channel.
        dense: (Y, X) true labels.
        scribble: (Y, X), or None where the dataset has no scribble of this case.
        predictions: (Y, X) by the row's name.
        dice: of the case whose slice it is in these predictions, by row and structure.
        spacing: millimetres along y and x.
        position: of the slice, from 0.
    """

    image: np.ndarray
    dense: np.ndarray
    scribble: np.ndarray | None
    predictions: Mapping[str, np.ndarray]
    dice: Mapping[str, Mapping[str, float]]
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
        AttenScribbleError: image, dense label or a prediction are not there or cannot be read, or do not lie on each
            other.
    """
    volume = find_volume(case, protocol)
    places = [(_find(images, f"{volume}_0000"), labels) for images, labels in data.test_folders.values()]
    image_file, labels = next(((file, labels) for file, labels in places if file is not None), (None, None))
    if image_file is None or labels is None:
        raise AttenScribbleError(f"there is no image of {volume} in the folders of test images")
    dense_file = _find(labels, volume)
    if dense_file is None:
        raise AttenScribbleError(f"there is no dense label of {volume} in {labels}")
    reader = _find_reader(data, image_file)
    truth = read_label_image(dense_file, reader)
    scan = _read_image(image_file, reader)
    _check(truth, scan, image_file, dense_file)
    image, spacing = _as_volume(place_on(scan, truth.grid))  # on which the case was scored
    scored = int(case.rpartition("_slice")[2]) if case != volume else None
    dense = truth.labels.reshape(image.shape)
    folder, ending, unlabelled = data.scribbles
    # Protocols take slices along the first.
    axis = slice_axis(image.shape, spacing, read_drawn_axis(folder.parent)) if scored is None else 0
    scribble_file = folder / f"{volume}{ending}"
    position = find_largest_slice(_select_any(dense, structures), axis) if scored is None else scored

    def cut_labels(file: Path) -> np.ndarray:
        # Right away: the whole volumes of all rows would fill the memory.
        return np.take(_read_labels(file, dense_file, truth, reader), position, axis)

    scribble = cut_labels(scribble_file) if scribble_file.is_file() else None
    predictions, dice = {}, {}
    for row in data.scored:
        for cell in data.done(row):
            file = _find(cell.folder / "predictions", volume)
            if file is not None:
                predictions[row.name] = cut_labels(file)
                dice[row.name] = {name: entry.dice for name, entry in cell.summary.cases[case].items()}
                break

    sections = [np.take(image, position, axis).astype(float), np.take(dense, position, axis), *predictions.values()]
    sections += [] if scribble is None else [scribble]
    known = truth.grid if holds_place(dense_file) else None
    cut, steps = turn_upright(sections, spacing, axis, known)
    own = None if scribble is None else cut.pop()
    drawn = [_select_any(array, structures) for array in cut[1:]]
    if own is not None:
        drawn.append(_select_any(own, structures) if unlabelled is None else own != unlabelled)
    box = find_box(np.any(drawn, axis=0))
    return CaseSlice(
        cut[0][box],
        cut[1][box],
        None if own is None else own[box],
        {name: array[box] for name, array in zip(predictions, cut[2:], strict=True)},
        dice,
        steps,
        position,
    )


def _find(folder: Path, stem: str) -> Path | None:
    """The file of that name with an ending that images and labels have."""
    return next((file for ending in ENDINGS if (file := folder / f"{stem}{ending}").is_file()), None)


def _find_reader(data: ReportData, image: Path) -> Reader:
    """Of nnU-Net, of the dataset that the rows were trained on."""
    try:
        return find_reader(read_json(data.scribbles[0].parent / "dataset.json", ""), image)
    except AttenScribbleError:  # the dataset is elsewhere now
        return None


def _read_image(file: Path, reader: Reader) -> sitk.Image:
    """The first channel, or the mean of a picture's colours."""
    images = read_channels(file, reader)
    mean = sitk.Cast(images[0], sitk.sitkFloat32)
    for image in images[1:]:
        mean += sitk.Cast(image, sitk.sitkFloat32)
    return mean / len(images)


def _as_volume(image: sitk.Image) -> tuple[np.ndarray, tuple[float, ...]]:
    """(Z, Y, X), one slice for an image of two axes, and millimetres per axis."""
    array, spacing = sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]
    # An image of two axes gets a third, of the greatest spacing, so that it is the one to look along.
    return (array[None], (math.inf, *spacing)) if array.ndim == 2 else (array, spacing)


def _check(truth: LabelImage, other: Placed | Grid, file: Path, dense_file: Path) -> None:
    problems = geometry_problems(truth.grid, other, str(file), str(dense_file))
    refuse(problems)


def _read_labels(file: Path, dense_file: Path, truth: LabelImage, reader: Reader) -> np.ndarray:
    found = read_label_image(file, reader)
    _check(truth, found.grid, file, dense_file)
    labels = found.on(truth).labels
    return labels[None] if labels.ndim == 2 else labels


def _select_any(labels: np.ndarray, structures: Sequence[Structure]) -> np.ndarray:
    return select_structure(labels, [value for structure in structures for value in structure.values])


def choose_row(data: ReportData, name: str | None) -> ReportRow | None:
    """The row whose cases are shown: as named, or else the last row on scribbles, on further ones where no row trains
    on the first, or else the reference.

    Raises:
        AttenScribbleError: no such row, or it has no whole repetition.
    """
    if name is None:
        on_scribbles = [row for row in data.scored if row.labels != "dense"]
        on_those_shown = [row for row in on_scribbles if row.labels == "scribble"]
        return next(iter([*on_those_shown[::-1], *on_scribbles[::-1], *data.scored]), None)
    known = {row.name: row for row in data.scored}
    if name not in known:
        raise AttenScribbleError(
            f"there is no result of a row '{name}' to choose cases by; there are {', '.join(known) or 'none'}"
        )
    return known[name]


def choose_cases(summary: Summary) -> dict[str, tuple[str, float]]:
    """The best, the median and the worst case by the mean Dice over the structures, with that value.

    Of equal ones the first by name; the median of an even number is the lower one. With fewer than three cases, those
    that there are.
    """
    means = {}
    for case, scores in summary.cases.items():
        known = [entry.dice for entry in scores.values() if not math.isnan(entry.dice)]
        if known:
            means[case] = sum(known) / len(known)
    ranked = sorted(means, key=lambda case: (-means[case], case))
    chosen = {"best": ranked[:1], "median": ranked[len(ranked) // 2 :][:1], "worst": ranked[-1:]}
    shown: dict[str, tuple[str, float]] = {}
    for word, found in chosen.items():
        if found and all(found[0] != case for case, _ in shown.values()):
            shown[word] = (found[0], means[found[0]])
    return shown


def describe_pictures_section(data: ReportData, row: ReportRow | None) -> Section:
    """Pictures of the three cases. A case whose files are not where they were is told instead of shown.

    Args:
        data: of the benchmark.
        row: whose best, median and worst case these are; None if there is none.
    """
    title = "Best, median and worst case"
    if row is None:
        return Section("pictures", title, [])
    intro = (
        f"Cases are chosen by the mean Dice of '{row.name}' over the structures, for display alone. Each is shown in "
        "the slice with most foreground in its dense label, turned as radiologists look at it and cut to everything "
        "that is drawn there. Solid lines in colour are the prediction, dashed white ones the dense label. Of several "
        "repetitions, the first is shown, with its own Dice."
    )
    structures = row.scores.structures
    parts = [Part(text=[intro], pictures=[_describe_legend(structures)])]
    numbers: list[tuple] = []
    for word, (case, dice) in choose_cases(row.scores).items():
        name = f"{word.capitalize()}: {case}, mean Dice {format_number(dice, 3)}"
        try:
            found = read_slice(data, case, structures, row.scores.protocol)
        except AttenScribbleError as error:
            parts.append(Part(name, [f"Not shown: {problem}" for problem in error.problems]))
            continue
        for shown in data.scored:
            if shown.name in found.predictions:
                numbers += _list_numbers(word, case, shown, found, structures)
        text = f"Slice {found.position + 1}; the Dice below each picture is that of the whole case."
        parts.append(Part(name, [text], pictures=_describe_case(data, word, case, found, structures)))
    header = ["choice", "case", "row", "slice", "structure", "dice", "dice_of_slice"]
    files = {"pictures.csv": format_csv(header, numbers)} if numbers else {}
    return Section("pictures", title, [*parts, *([Part(files=files)] if files else [])])


# --- numbers and pictures ---


def _list_numbers(
    word: str, case: str, row: ReportRow, found: CaseSlice, structures: Sequence[Structure]
) -> list[tuple]:
    prediction = found.predictions[row.name]
    return [
        (
            word,
            case,
            row.name,
            found.position + 1,
            structure.name,
            found.dice[row.name][structure.name],
            compute_dice(
                select_structure(prediction, structure.values), select_structure(found.dense, structure.values)
            ),
        )
        for structure in structures
    ]


def _describe_legend(structures: Sequence[Structure]) -> Picture:
    return Picture(
        "legend",
        "Colours",
        "Legend: " + ", ".join(structure.name for structure in structures) + "; dashed: dense label.",
        partial(_draw_legend, structures),
        small=True,
    )


def _describe_case(
    data: ReportData, word: str, case: str, found: CaseSlice, structures: Sequence[Structure]
) -> list[Picture]:
    unlabelled = data.scribbles[2]
    pictures = [Picture(f"{word}_scan", "Scan", f"Scan of {case}.", partial(_draw_picture, found), small=True)]
    if found.scribble is not None:
        drawn = partial(_draw_picture, found, scribble=found.scribble, structures=structures, unlabelled=unlabelled)
        pictures.append(Picture(f"{word}_scribble", "Scribble", f"Scribble of {case}.", drawn, small=True))
    for row in data.scored:
        if row.name not in found.predictions:
            continue
        dice = ", ".join(
            f"{structure.name} {format_number(found.dice[row.name][structure.name], 2)}" for structure in structures
        )
        drawn = partial(_draw_picture, found, prediction=found.predictions[row.name], structures=structures)
        description = f"Prediction of {row.name} and dense label of {case}; Dice {dice}."
        pictures.append(Picture(f"{word}_prediction_{row.slug}", f"{row.name}: {dice}", description, drawn, small=True))
    return pictures


def _draw_picture(
    found: CaseSlice,
    *,
    structures: Sequence[Structure] = (),
    scribble: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    unlabelled: int | None = None,
) -> Figure:
    height, width = (length * step for length, step in zip(found.image.shape, found.spacing, strict=True))
    figure = new_figure(_SLICE_WIDTH * min(max(height / width, 0.3), 3.0), width=_SLICE_WIDTH)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    show_scan(axes, found.image, 1.0)
    if scribble is not None:
        _paint_scribble(axes, scribble, structures, unlabelled)
    if prediction is not None:
        for i, structure in enumerate(structures):
            _draw_contour(axes, select_structure(prediction, structure.values), choose_colour(i), dashed=False)
        for structure in structures:
            _draw_contour(axes, select_structure(found.dense, structure.values), _TRUTH, dashed=True)
    axes.set_aspect(found.spacing[0] / found.spacing[1])
    return figure


def _paint_scribble(axes: Axes, scribble: np.ndarray, structures: Sequence[Structure], unlabelled: int | None) -> None:
    overlay = np.zeros((*scribble.shape, 4))
    if unlabelled is not None:
        overlay[scribble == 0] = to_rgba(BACKGROUND_COLOUR)
        edge_background(axes, scribble == 0)
    for i, structure in enumerate(structures):
        overlay[select_structure(scribble, structure.values)] = to_rgba(choose_colour(i))
    axes.imshow(overlay, interpolation="nearest")


def _draw_contour(axes: Axes, mask: np.ndarray, colour: str, *, dashed: bool) -> None:
    drawn = draw_outline(axes, mask, colors=[colour], linewidths=0.9 if dashed else 1.6)
    if drawn is None:
        return
    if dashed:
        drawn.set_linestyle(_DASHES)
    drawn.set_path_effects([Stroke(linewidth=1.6 if dashed else 2.4, foreground="black"), Normal()])


def _draw_legend(structures: Sequence[Structure]) -> Figure:
    lines = [
        Line2D([], [], color=choose_colour(i), linewidth=3, label=wrap_name(structure.name))
        for i, structure in enumerate(structures)
    ]
    lines.append(Line2D([], [], color="white", linewidth=1.5, linestyle=_DASHES, label="dense label"))
    lines.append(Line2D([], [], color=BACKGROUND_COLOUR, linewidth=4, label="background stroke"))
    figure = new_figure(0.1, width=_SLICE_WIDTH)
    figure.set_facecolor("0.25")
    add_legend(figure, lines, labelcolor="white")
    return figure
