"""The labels that a model knows, from the dataset.json that nnU-Net keeps beside it; and which is taken for which.

Classes are counted against each other where no two structures share a label. Regions that overlap have no such table: a
voxel is then in several classes at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_attenscribble.common.nnunet import entry_values, read_dataset_json
from nnunet_attenscribble.errors import AttenScribbleError

BACKGROUND = "background"
#: Voxels by true class, then by predicted class, in the order of `list_classes`; of several runs the mean.
Counts = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Structure:
    """A label, or a region of several labels, that is scored as one thing."""

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class LabelCoding:
    """What the voxels of a dataset may hold.

    Attributes:
        structures: what is scored: every label but background and `ignore` in the order of values, as nnU-Net has them
            whatever the file's order; or every region, in the file's order.
        allowed: every value that a dense label or a prediction may hold, background included.
        ignore: the value of unlabelled voxels in scribbles, or None.
        file_ending: of the dataset's files, with its dot.
        dataset_json: all of the file, which tells nnU-Net its reader.
    """

    structures: tuple[Structure, ...]
    allowed: frozenset[int]
    ignore: int | None
    file_ending: str
    dataset_json: Mapping[str, Any] = field(default_factory=dict)


def read_label_coding(file: Path) -> LabelCoding:
    """Read `labels` and `file_ending` of an nnU-Net dataset.json; regions are lists of values.

    Raises:
        AttenScribbleError: unreadable file, or entries that nnU-Net would not accept either.
    """
    content = read_dataset_json(file, "give the dataset.json of nnU-Net v2", labels_only=True)
    values_of = {name: tuple(sorted(set(entry_values(entry)))) for name, entry in content["labels"].items()}
    ignored = values_of.pop("ignore", None)
    structures = tuple(Structure(name, values) for name, values in values_of.items() if values != (0,))
    if all(len(structure.values) == 1 for structure in structures):
        structures = tuple(sorted(structures, key=lambda structure: structure.values))
    if not structures:
        raise AttenScribbleError(f"{file} names no label but the background: there is nothing to score")
    return LabelCoding(
        structures=structures,
        allowed=frozenset({0}.union(*values_of.values())),
        ignore=None if ignored is None else ignored[0],
        file_ending=content["file_ending"],
        dataset_json=content,
    )


def find_dataset_json(predictions: Path, dense: Path) -> Path:
    """The dataset.json that says which labels a folder of predictions holds.

    Looked for beside the predictions (`nnUNetv2_predict` copies it there), then in the model's folder, then in and
    beside the folder of dense labels.

    Raises:
        AttenScribbleError: there is none.
    """
    of_dense = (dense / "dataset.json", dense.resolve().parent / "dataset.json")
    found = find_model_file(predictions, "dataset.json") or next(filter(Path.is_file, of_dense), None)
    if found is not None:
        return found
    raise AttenScribbleError(
        f"no dataset.json beside the predictions ({predictions}), in their model's folder or beside the dense labels "
        f"({dense}): name it with --dataset-json, it says which labels there are"
    )


def find_model_file(predictions: Path, name: str) -> Path | None:
    """A file of the model, dataset.json or plans.json, where nnU-Net leaves it for a folder of its predictions: in the
    folder itself, or two levels above `fold_X/validation`. None where it is in neither.
    """
    fold = predictions.resolve().parent
    places = (predictions, fold.parent) if fold.name.startswith("fold_") else (predictions,)
    return next((place / name for place in places if (place / name).is_file()), None)


def list_classes(structures: Sequence[Structure]) -> tuple[str, ...]:
    """The background and every structure; empty where structures overlap."""
    values = [value for structure in structures for value in structure.values]
    return (BACKGROUND, *(entry.name for entry in structures)) if len(values) == len(set(values)) else ()


def count_confusion(prediction: np.ndarray, dense: np.ndarray, structures: Sequence[Structure]) -> Counts:
    """Count the voxels of each true class by what they were predicted as.

    Args:
        prediction: labels, integers from 0 on; what is in no structure is background.
        dense: the true labels, of the same shape.
        structures: without overlap.
    """
    number = 1 + len(structures)
    classes = np.zeros(1 + max(int(prediction.max()), int(dense.max())), dtype=np.int64)
    for position, structure in enumerate(structures, start=1):
        classes[[value for value in structure.values if value < classes.size]] = position
    pairs = np.zeros(number**2, dtype=np.int64)
    for own, true in zip(prediction, dense, strict=True):  # plane by plane, for the memory that codes of pairs take
        pairs += np.bincount((classes[true] * number + classes[own]).ravel(), minlength=number**2)
    return tuple(map(tuple, pairs.reshape(number, number).tolist()))


def compute_confusion_shares(counts: Mapping[str, Counts], spacings: Mapping[str, Sequence[float]]) -> np.ndarray:
    """The volume of each true class that was predicted as each class, as a share of a true volume, all cases together.

    Cases are added up, rather than averaged, because a share of a small structure has no bound, and what is made up in
    a case without the structure counts too.

    Args:
        counts: by case.
        spacings: millimetres per axis of each case.

    Returns:
        (true, predicted): shares of the true class's volume, which add up to 1 in each row; in the first row, of the
        background, shares of the volume of the class that it was taken for. NaN where that class is nowhere, and for
        background that was predicted as such.
    """
    volumes = np.sum([np.asarray(own) * np.prod(spacings[case]) for case, own in counts.items()], axis=0)
    true = volumes.sum(axis=1)
    whole = np.where(np.arange(len(true))[:, None] > 0, true[:, None], true[None])
    whole[0, 0] = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, volumes / whole, np.nan)
