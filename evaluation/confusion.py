"""Which class is taken for which: counts of voxels in a case, and shares of the true volumes over all cases.

There is one table where no two structures share a label. Regions that overlap have none: a voxel is then in several
classes at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnunet_attenscribble.evaluation.structures import Structure

__all__ = ["BACKGROUND", "Counts", "average_counts", "compute_confusion_shares", "count_confusion", "list_classes"]

BACKGROUND = "background"
#: Voxels by true class, then by predicted class, in the order of `list_classes`; of several runs the mean.
Counts = tuple[tuple[float, ...], ...]


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


def average_counts(counts: Sequence[Counts]) -> Counts:
    """The mean of one case's counts over several runs."""
    return tuple(map(tuple, np.mean(counts, axis=0).tolist()))


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
