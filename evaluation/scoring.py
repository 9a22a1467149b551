"""One case from two files to scores; the part of an evaluation that worker processes run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.case_pairs import CasePair
from nnunet_attenscribble.evaluation.metrics import StructureScores, select_structure
from nnunet_attenscribble.evaluation.protocols import Protocol, name_slice, score_structure
from nnunet_attenscribble.evaluation.structures import LabelCoding

__all__ = ["CaseScores", "LabelImage", "read_label_image", "score_case"]

_SPACING_TOLERANCE = 1e-3  # relative; headers round, and single precision is the rule in them


@dataclass(frozen=True)
class LabelImage:
    """A label map and its place in space.

    Attributes:
        labels: integers, (Y, X) or (Z, Y, X).
        spacing: millimetres per axis of `labels`.
        frame: origin and direction, as SimpleITK gives them.
    """

    labels: np.ndarray
    spacing: tuple[float, ...]
    frame: tuple[float, ...]


@dataclass(frozen=True)
class CaseScores:
    """The scores of one case, or what keeps it from being scored.

    Attributes:
        case: its identifier.
        shape: voxels per axis, (Y, X) or (Z, Y, X), of what one row is about.
        spacing: millimetres per axis of that, from the dense label.
        scores: by what one row is about, the case itself or its slices, then by the structure's name.
        same_frame: origin and direction of the two files agree.
        identical: the two files hold the same labels in every voxel.
        problems: empty if the case was scored.
    """

    case: str
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    scores: dict[str, dict[str, StructureScores]] = field(default_factory=dict)
    same_frame: bool = True
    identical: bool = False
    problems: tuple[str, ...] = ()


def read_label_image(file: Path) -> LabelImage:
    """Read a label map, with the spacing that nnU-Net gives it.

    Raises:
        ValueError: unreadable, truncated, not 2D or 3D, several components per voxel, or values that are not whole
            numbers.
    """
    import SimpleITK as sitk

    from nnunet_attenscribble.common.volumes import read_volume

    try:
        image = read_volume(file, str(file), label=True)
    except AttenScribbleError as error:
        raise ValueError("; ".join(error.problems)) from error
    voxels = sitk.GetArrayFromImage(image)
    labels = voxels if np.issubdtype(voxels.dtype, np.integer) else np.nan_to_num(voxels, nan=-1).round().astype(int)
    if not np.array_equal(labels, voxels):
        raise ValueError(f"{file} holds values that are not whole numbers: it is not a label map; is it an image?")
    # GetArrayFromImage turns the axes round, (x, y, z) to (z, y, x); the spacing must follow.
    return LabelImage(labels, image.GetSpacing()[::-1], (*image.GetOrigin(), *image.GetDirection()))


def score_case(pair: CasePair, coding: LabelCoding, protocol: Protocol) -> CaseScores:
    """Read a pair of files, check that they can be compared, and score every structure by the protocol.

    What is wrong with the files is returned, not raised, so that the problems of all cases come together.
    """
    images, problems = [], []
    for file in (pair.prediction, pair.dense):
        try:
            images.append(read_label_image(file))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        return CaseScores(pair.case, problems=tuple(problems))
    prediction, dense = images
    problems = _check_values(pair, prediction, dense, coding) + _check_geometry(pair, prediction, dense)
    if problems:
        return CaseScores(pair.case, problems=tuple(problems))
    rows = {pair.case: (prediction.labels, dense.labels)}
    shape, spacing = dense.labels.shape, dense.spacing
    if protocol.unit == "slice":
        # An image of two axes is called a slice too, so that no case's own name is taken for that of a slice.
        shape, spacing = shape[-2:], spacing[-2:]
        stacks = (image.labels.reshape(-1, *shape) for image in images)
        rows = {name_slice(pair.case, position): slices for position, slices in enumerate(zip(*stacks, strict=True))}
    scores = {
        name: {
            structure.name: score_structure(
                select_structure(own, structure.values), select_structure(true, structure.values), spacing, protocol
            )
            for structure in coding.structures
        }
        for name, (own, true) in rows.items()
    }
    return CaseScores(
        case=pair.case,
        shape=shape,
        spacing=spacing,
        scores=scores,
        same_frame=bool(np.allclose(prediction.frame, dense.frame, rtol=1e-3, atol=1e-2)),
        identical=bool(np.array_equal(prediction.labels, dense.labels)),
    )


def _check_values(pair: CasePair, prediction: LabelImage, dense: LabelImage, coding: LabelCoding) -> list[str]:
    problems = []
    for image, file, role in ((prediction, pair.prediction, "prediction"), (dense, pair.dense, "dense label")):
        strange = sorted(set(np.unique(image.labels).tolist()) - coding.allowed)
        if not strange:
            continue
        if role == "dense label" and coding.ignore in strange:
            problems.append(
                f"dense label {file} holds {coding.ignore}, the value of unlabelled voxels: these are scribbles, and a "
                "score on scribbles says little; give the folder of dense labels"
            )
            continue
        # nnU-Net wants `ignore` to be the highest value; the dataset.json of dense labels knows nothing of it.
        is_scribble = role == "dense label" and strange == [max(coding.allowed) + 1]
        problems.append(
            f"{role} {file} holds {list_some(list(map(str, strange)))}; the labels of dataset.json are "
            f"{', '.join(map(str, sorted(coding.allowed)))}: give labels of the same coding, or the right file with "
            "--dataset-json" + ("; if it marks unlabelled voxels, these are scribbles" if is_scribble else "")
        )
    return problems


def _check_geometry(pair: CasePair, prediction: LabelImage, dense: LabelImage) -> list[str]:
    names = f"prediction {pair.prediction} and dense label {pair.dense}"
    if prediction.labels.shape != dense.labels.shape:
        sizes = " and ".join("x".join(map(str, image.labels.shape[::-1])) for image in (prediction, dense))
        return [f"{names} differ in size, {sizes} voxels: predict the image that the dense label was drawn on"]
    if not np.allclose(prediction.spacing, dense.spacing, rtol=_SPACING_TOLERANCE, atol=0):
        steps = " and ".join("x".join(f"{step:.4g}" for step in image.spacing[::-1]) for image in (prediction, dense))
        return [f"{names} differ in spacing, {steps} mm: give both files the spacing of the image"]
    return []
