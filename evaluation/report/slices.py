"""One slice of a case with everything that is known of it: scan, dense label, scribble and predictions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_attenscribble.common.volumes import slice_axis
from nnunet_attenscribble.evaluation.metrics import select_structure
from nnunet_attenscribble.evaluation.protocols import find_volume
from nnunet_attenscribble.evaluation.report.data import ReportData
from nnunet_attenscribble.evaluation.scoring import read_label_image
from nnunet_attenscribble.evaluation.structures import Structure

__all__ = ["CaseSlice", "read_slice"]

_MARGIN = 0.1  # of the slice, around everything that is drawn


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
        ValueError: they cannot be read, or have different shapes.
    """
    volume = find_volume(case, protocol)
    places = [(_find(images, f"{volume}_0000"), labels) for images, labels in data.test_folders.values()]
    image_file, labels = next(((file, labels) for file, labels in places if file is not None), (None, None))
    if image_file is None or labels is None:
        raise FileNotFoundError(f"there is no image of {volume} in the folders of test images")
    dense_file = _find(labels, volume)
    if dense_file is None:
        raise FileNotFoundError(f"there is no dense label of {volume} in {labels}")
    image, spacing = _read_image(image_file)
    scored = int(case.rpartition("_slice")[2]) if case != volume else None
    axis = slice_axis(image.shape, spacing) if scored is None else 0  # which protocols take slices along
    dense = _read_labels(dense_file, image.shape)
    folder, ending, _ = data.scribbles
    scribble_file = folder / f"{volume}{ending}"
    scribble = _read_labels(scribble_file, image.shape) if scribble_file.is_file() else None
    predictions = {}
    for row in data.scored:
        files = [_find(cell.place / "predictions", volume) for cell in data.done(row)]
        file = next((file for file in files if file is not None), None)
        if file is not None:
            predictions[row.name] = _read_labels(file, image.shape)

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


def _read_image(file: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """(Z, Y, X) of the first channel, one slice for an image of two axes, and millimetres per axis."""
    import SimpleITK as sitk

    from nnunet_attenscribble.common.volumes import read_image

    try:
        image = read_image(file)
    except RuntimeError as error:
        raise ValueError(f"{file} cannot be read ({str(error).strip().splitlines()[-1].strip()})") from error
    array = sitk.GetArrayFromImage(image).astype(float)
    if image.GetNumberOfComponentsPerPixel() > 1:  # colours
        array = array.mean(axis=-1)
    spacing = image.GetSpacing()[::-1]
    # An image of two axes gets a third, of the greatest spacing, so that it is the one to look along.
    return (array[None], (math.inf, *spacing)) if array.ndim == 2 else (array, spacing)


def _read_labels(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    labels = read_label_image(file).labels
    labels = labels[None] if labels.ndim == 2 else labels
    if labels.shape != shape:
        raise ValueError(f"{file} has the shape {labels.shape}, the image has {shape}")
    return labels


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
