"""Cases: which two files belong together, and their scores; the part of an evaluation that worker processes run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunet_attenscribble.common.grids import Grid, geometry_problems, is_turned, turn_onto
from nnunet_attenscribble.common.soundness import DETACHED
from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.evaluation.metrics import StructureScores, select_structure
from nnunet_attenscribble.evaluation.protocols import Protocol, name_slice, score_structure
from nnunet_attenscribble.evaluation.structures import Counts, LabelCoding, Structure, count_confusion, list_classes

if TYPE_CHECKING:
    from SimpleITK import Image

    from nnunet_attenscribble.common.readers import Reader

#: Of images that nnU-Net reads; a dense label may be stored in another format than the prediction.
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff", *DETACHED)
_SEGMENTATION = ".seg.nrrd"  # of 3D Slicer


@dataclass(frozen=True)
class CasePair:
    """A case's identifier and its two files."""

    case: str
    prediction: Path
    dense: Path


def check_folders(predictions: Path, dense: Path) -> None:
    """Refuse what are no two folders.

    Raises:
        AttenScribbleError: one is missing, or they are one.
    """
    problems = []
    if not predictions.is_dir():
        problems.append(f"no predictions to score: {predictions} is not a folder; give the output of nnUNetv2_predict")
    if not dense.is_dir():
        problems.append(f"no dense labels to compare with: {dense} is not a folder; give a folder of dense labels")
    refuse(problems)
    if predictions.resolve() == dense.resolve():
        raise AttenScribbleError(
            f"{predictions} was given as predictions and as dense labels: the truth would be compared with itself; "
            "give the output of nnUNetv2_predict first and the dense labels second"
        )


def pair_cases(predictions: Path, dense: Path, file_ending: str) -> tuple[list[CasePair], list[str]]:
    """Find a dense label for each prediction.

    Args:
        predictions: folder of files named CASE + `file_ending`.
        dense: folder of dense labels named CASE + any image ending.
        file_ending: with its dot, as in dataset.json.

    Returns:
        The pairs in order of their names, and the cases that have a dense label but no prediction.

    Raises:
        AttenScribbleError: a folder is missing or empty, a prediction has no dense label or is its own dense label.
    """
    check_folders(predictions, dense)
    problems = []
    predicted = list_cases(predictions, (file_ending,))
    true = list_labels(dense, file_ending)
    if not predicted:
        problems.append(
            f"no predictions found: {predictions} has no file that ends in {file_ending}; "
            "give the output folder of nnUNetv2_predict, or fold_0/validation of a trained model"
        )
    if not true:
        held = list_some(sorted(file.name for file in dense.iterdir() if not file.name.startswith("."))) or "nothing"
        problems.append(
            f"no dense labels to compare with: {dense} has no label file, such as CASE{file_ending}; it holds {held}"
        )
    refuse(problems)
    if not predicted.keys() & true.keys():
        raise AttenScribbleError(
            f"no prediction in {predictions} is called as a dense label in {dense}: these are called "
            f"{list_some(list(true))}, predictions {list_some(list(predicted))}"
            f"{_tell_ends(list(predicted), list(true))}: call both CASE{file_ending}"
        )
    problems = [
        problem
        for case, files in predicted.items()
        if (problem := _pair_problem(case, files[0], true.get(case, []), dense / f"{case}{file_ending}"))
    ]
    refuse(problems)
    pairs = [CasePair(case, files[0], true[case][0]) for case, files in predicted.items()]
    return pairs, [case for case in true if case not in predicted]


def _pair_problem(case: str, prediction: Path, dense: list[Path], expected: Path) -> str | None:
    """What keeps a prediction from being compared with the dense labels that are called as it is."""
    if not dense:
        return (
            f"prediction {prediction} has no dense label: {expected.parent} has no {expected.name}; "
            "add the label, or move the prediction elsewhere"
        )
    if len(dense) > 1:
        names = ", ".join(file.name for file in dense)
        return f"case {case} has several dense labels in {expected.parent}: {names}; keep one"
    if dense[0].samefile(prediction):
        return (
            f"prediction {prediction} is the same file as its dense label {dense[0]}: the truth would be "
            "compared with itself; give the output of nnUNetv2_predict"
        )
    return None


def _tell_ends(predicted: list[str], true: list[str]) -> str:
    """What is behind the names that predictions share with dense labels, in words; nothing where they share none."""
    ends = sorted(
        ((one, other) for one in _shared_ends(predicted) for other in _shared_ends(true)),
        key=lambda pair: sum(map(len, pair)),
    )
    for one, other in ends:
        if {case[: len(case) - len(one)] for case in predicted} <= {case[: len(case) - len(other)] for case in true}:
            return f", which are the same but for {' and '.join(repr(end) for end in (other, one) if end)} at the end"
    return ""


def _shared_ends(names: list[str]) -> list[str]:
    """What all names end in (`_seg`, `_0000`, `.seg`), or nothing; a number that is no channel's is of the case."""
    starts = [match.start() for match in re.finditer(r"(?<=.)[_. -](?!\d{1,3}$|\d{5,}$)", names[0])]
    ends = [names[0][start:] for start in starts]
    return ["", *(end for end in ends if all(name.endswith(end) and name != end for name in names))]


def list_cases(folder: Path, endings: tuple[str, ...]) -> dict[str, list[Path]]:
    """Files by the case they are named after, in order of their names; hidden files are passed over.

    Args:
        folder: to look in, not below.
        endings: with their dots; the first that fits is cut off.
    """
    cases: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        # Archives made on a Mac carry a "._name.nii.gz" beside every file, which is no image.
        if file.name.startswith(".") or not file.is_file():
            continue
        ending = next((ending for ending in endings if file.name.endswith(ending)), None)
        if ending is not None:
            cases.setdefault(file.name[: -len(ending)], []).append(file)
    return cases


def list_labels(folder: Path, file_ending: str = ENDINGS[0]) -> dict[str, list[Path]]:
    """The label files of a folder by case, as `list_cases`, whatever they end in; first those that end as told."""
    return list_cases(folder, (_SEGMENTATION, file_ending, *(ending for ending in ENDINGS if ending != file_ending)))


@dataclass(frozen=True)
class LabelImage:
    """A label map and its place in space.

    Attributes:
        labels: integers, (Y, X) or (Z, Y, X).
        spacing: millimetres per axis of `labels`.
        grid: where its voxels lie.
        rounded: values that the file's header scales were rounded, see `volumes.unscale_label`.
        names: of its values, where it says them itself (3D Slicer), in small letters.
    """

    labels: np.ndarray
    spacing: tuple[float, ...]
    grid: Grid
    rounded: bool = False
    names: Mapping[str, int] = field(default_factory=dict)

    def on(self, other: LabelImage) -> LabelImage:
        """The same in the order of axes of another, on which it lies."""
        return replace(
            self, labels=turn_onto(self.labels, self.grid, other.grid), spacing=other.spacing, grid=other.grid
        )


@dataclass(frozen=True)
class CaseScores:
    """The scores of one case.

    Attributes:
        case: its identifier.
        shape: voxels per axis, (Y, X) or (Z, Y, X), of what one row is about.
        spacing: millimetres per axis of that, from the dense label.
        scores: by what one row is about, the case itself or its slices, then by the structure's name.
        confusions: voxels by true and predicted class, by the same rows; empty where structures overlap.
        turned: the prediction is stored in another order of axes than the dense label, and was turned onto it.
        rounded: files whose scaled values were rounded.
        identical: the two files hold the same labels in every voxel.
    """

    case: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    scores: dict[str, dict[str, StructureScores]]
    confusions: dict[str, Counts]
    turned: bool
    rounded: tuple[str, ...]
    identical: bool


def read_label_image(file: Path, reader: Reader = None) -> LabelImage:
    """Read a label map.

    Args:
        file: to read.
        reader: of nnU-Net, by which files of its dataset are read; other kinds of files are read as it is usual.

    Raises:
        AttenScribbleError: unreadable, truncated, not 2D or 3D, several components per voxel, or values that are not
            whole numbers.
    """

    from nnunet_attenscribble.common.readers import read_label
    from nnunet_attenscribble.common.volumes import label_values, unscale_label

    image, rounded = unscale_label(read_label(file, reader))
    labels = label_values(image, str(file))
    # The array's axes are those of the file turned round, (x, y, z) to (z, y, x); the spacing must follow.
    return LabelImage(labels, image.GetSpacing()[::-1], Grid.of(image), rounded, _read_names(image))


def _read_names(image: Image) -> dict[str, int]:
    """The names of values in the header of a segmentation of 3D Slicer, in small letters."""
    keys = [key.removesuffix("_Name") for key in image.GetMetaDataKeys() if re.fullmatch(r"Segment\d+_Name", key)]
    return {
        image.GetMetaData(f"{key}_Name").strip().casefold(): int(image.GetMetaData(f"{key}_LabelValue"))
        for key in keys
        if image.HasMetaDataKey(f"{key}_LabelValue") and image.GetMetaData(f"{key}_LabelValue").isdecimal()
    }


def score_case(
    pair: CasePair, coding: LabelCoding, protocol: Protocol, readers: tuple[Reader, Reader] = (None, None)
) -> CaseScores:
    """Read a pair of files, check that they can be compared, and score every structure by the protocol.

    Args:
        pair: the two files.
        coding: of both.
        protocol: by which they are scored.
        readers: of the prediction and of the dense label.

    Raises:
        AttenScribbleError: everything that is wrong with the files.
    """
    files = (pair.prediction, pair.dense)
    images, problems = [], []
    for file, reader in zip(files, readers, strict=True):
        try:
            images.append(read_label_image(file, reader))
        except AttenScribbleError as error:
            problems += error.problems
    refuse(problems)
    prediction, dense = images
    problems = _check_values(pair, prediction, dense, coding)
    problems += geometry_problems(
        dense.grid, prediction.grid, f"prediction {pair.prediction}", f"dense label {pair.dense}"
    )
    refuse(problems)
    turned = is_turned(dense.grid, prediction.grid)
    rounded = tuple(str(file) for file, image in zip(files, images, strict=True) if image.rounded)
    prediction = prediction.on(dense)
    rows = {pair.case: (prediction.labels, dense.labels)}
    shape, spacing = dense.labels.shape, dense.spacing
    if protocol.unit == "slice":
        # An image of two axes is called a slice too, so that no case's own name is taken for that of a slice.
        shape, spacing = shape[-2:], spacing[-2:]
        stacks = (image.labels.reshape(-1, *shape) for image in (prediction, dense))
        rows = {name_slice(pair.case, position): slices for position, slices in enumerate(zip(*stacks, strict=True))}
    scores = {name: score_structures(*labels, spacing, coding.structures, protocol) for name, labels in rows.items()}
    confusions = {}
    if list_classes(coding.structures):
        confusions = {name: count_confusion(own, true, coding.structures) for name, (own, true) in rows.items()}
    return CaseScores(
        case=pair.case,
        shape=shape,
        spacing=spacing,
        scores=scores,
        confusions=confusions,
        turned=turned,
        rounded=rounded,
        identical=bool(np.array_equal(prediction.labels, dense.labels)),
    )


def score_structures(
    prediction: np.ndarray,
    dense: np.ndarray,
    spacing: tuple[float, ...],
    structures: Sequence[Structure],
    protocol: Protocol,
) -> dict[str, StructureScores]:
    """Scores by the structure's name, each computed in the box around it, for the time that whole volumes take."""
    from scipy.ndimage import find_objects

    boxes = [find_objects(labels) for labels in (prediction, dense)]
    scores = {}
    for structure in structures:
        box = _join_boxes(structure.values, boxes)
        own, true = (select_structure(labels[box], structure.values) for labels in (prediction, dense))
        scores[structure.name] = score_structure(own, true, spacing, protocol, structure.name)
    return scores


def _join_boxes(values: tuple[int, ...], boxes: list[list]) -> tuple[slice, ...]:
    """One box around a structure in all label maps, given the boxes of each map's values from 1 on.

    It is a voxel wider, as far as the image goes: so a mask fills it only if it fills the image, and an axis has length
    one only if that of the image has, of both of which scores take note.
    """
    if 0 in values:  # a region may hold the background
        return ()
    found = [own[value - 1] for own in boxes for value in values if value <= len(own) and own[value - 1] is not None]
    return tuple(
        slice(max(min(side.start for side in sides) - 1, 0), max(side.stop for side in sides) + 1)
        for sides in zip(*found, strict=True)
    ) or (slice(1),)  # nothing of it anywhere


def _check_values(pair: CasePair, prediction: LabelImage, dense: LabelImage, coding: LabelCoding) -> list[str]:
    from nnunet_attenscribble.common.volumes import count_values

    problems = []
    for image, file, role in ((prediction, pair.prediction, "prediction"), (dense, pair.dense, "dense label")):
        problems += [
            f"{role} {file} says that {structure.name} is {own}, dataset.json that it is {structure.values[0]}: bring "
            "both to one coding"
            for structure in coding.structures
            if (own := image.names.get(structure.name.casefold())) is not None and (own,) != structure.values
        ]
        strange = sorted(count_values(image.labels).keys() - coding.allowed)
        if role == "dense label" and coding.ignore in strange:
            problems.append(
                f"dense label {file} holds {coding.ignore}, the value of unlabelled voxels: these are scribbles, and a "
                "score on scribbles says little; give the folder of dense labels"
            )
        elif strange:
            # nnU-Net wants `ignore` to be the highest value; the dataset.json of dense labels knows nothing of it.
            is_scribble = role == "dense label" and strange == [max(coding.allowed) + 1]
            problems.append(
                f"{role} {file} holds {list_some(list(map(str, strange)))}; the labels of dataset.json are "
                f"{', '.join(map(str, sorted(coding.allowed)))}: give labels of the same coding, or the right file "
                "with --dataset-json" + ("; if it marks unlabelled voxels, these are scribbles" if is_scribble else "")
            )
    return problems
