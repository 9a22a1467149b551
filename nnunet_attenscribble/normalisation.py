"""What unlabelled voxels do to nnU-Net's normalisation, and how to find out.

nnU-Net takes every label above 0 for foreground, `ignore` as well, which has the highest value and nearly all voxels:

- CT is clipped and scaled by the intensities of the foreground. With scribbles these are those of the whole image, air
  included, and soft tissue is left with hardly any contrast.
- Where cropping to the voxels that are not zero makes images a quarter smaller (a skull-stripped brain), nnU-Net takes
  mean and standard deviation of MR within the voxels that are not zero. In prediction it finds those voxels in the
  image, in training in the labels, where zeros around the object are -1 if they are background and inside if they are
  unlabelled: training and prediction see differently normalised images.

`attenscribble fingerprint`, before planning, prevents both. Whether CT was scaled so is seen in the values: plans may
be older than the fingerprint, or come from another dataset, and later versions of nnU-Net may leave unlabelled voxels
out themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_attenscribble.common.nnunet import FINGERPRINT as SHAPE
from nnunet_attenscribble.common.shapes import read_shaped

FINGERPRINT = "dataset_fingerprint.json"  # nnU-Net's name
MARK = "attenscribble"  # the key with what a fingerprint was made from
SMALLEST_WITHOUT_MASK = 0.75  # nnU-Net's planner: images that cropping makes smaller are normalised within a mask

_ENOUGH, _MOST = 3, 12  # cases with strokes to look at, and cases to look for them in
_SAMPLE = 10**7  # voxels of a case that tell as much as all, at a tenth of the memory
_FAR = 0.5  # from mean 0 and standard deviation 1, summed
_ONE_VALUE = 1e-3  # of a standard deviation; resampling leaves a constant constant but for rounding


def read_fingerprint(folder: Path) -> dict[str, Any] | None:
    """The fingerprint in a dataset's preprocessed folder; None where there is none.

    Raises:
        AttenScribbleError: it is damaged.
    """
    file = folder / FINGERPRINT
    return read_shaped(file, SHAPE, "remove it, and plan again") if file.exists() else None


def list_ct_channels(configuration: Mapping[str, Any]) -> list[int]:
    """The channels that a configuration, with what it inherits, normalises by the intensities of the foreground."""
    schemes = configuration.get("normalization_schemes", ())
    return [channel for channel, scheme in enumerate(schemes) if scheme == "CTNormalization"]


def is_scaled_by_unlabelled(
    cases: Iterable[tuple[np.ndarray, np.ndarray]], channels: Sequence[int], ignore: int
) -> bool:
    """Whether a channel was scaled by the intensities of all that has a label above 0, `ignore` among them.

    Intensities have mean 0 and standard deviation 1 over the voxels that they were scaled by. So those of the drawn
    classes have, up to what clipping takes, if the scaling is right; if it is not, they lie far from that, and those of
    all labels above 0 close to it.

    Args:
        cases: images (C, *S), normalised, and their labels (*S); a few are looked at.
        channels: to look at.
        ignore: value of unlabelled voxels.
    """
    drawn, every = np.zeros((len(channels), 3)), np.zeros((len(channels), 3))
    found = 0
    for looked, (images, labels) in enumerate(cases, start=1):
        classes = (labels > 0) & (labels != ignore)
        found += bool(classes.any())
        some, step = _thin_out(labels)
        for row, channel in enumerate(channels):
            drawn[row] += _moments(images[channel][classes])
            every[row] += step * _moments(_thin_out(images[channel])[0][some > 0])
        if found == _ENOUGH or looked == _MOST:
            break
    if not found:
        return False
    distances = [(_distance(a), _distance(b)) for a, b in zip(drawn, every, strict=True)]
    return any(of_drawn > _FAR and of_drawn > 2 * of_every for of_drawn, of_every in distances)


def _thin_out(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Every n-th voxel, in one row, and n, which is odd: rows mostly have an even number of voxels."""
    step = -(-values.size // _SAMPLE) | 1
    return values.reshape(-1)[::step], step


def _moments(values: np.ndarray) -> np.ndarray:
    """Number, sum and sum of squares."""
    values = values.astype(np.float64)
    return np.array([values.size, values.sum(), (values**2).sum()])


def _distance(moments: np.ndarray) -> float:
    """From mean 0 and standard deviation 1."""
    count, total, squares = moments
    mean = total / count
    return abs(mean) + abs(max(squares / count - mean**2, 0.0) ** 0.5 - 1)


def has_unlabelled_zeros(images: np.ndarray, labels: np.ndarray, ignore: int) -> bool:
    """Whether zeros around the object may be unlabelled, in a case as nnU-Net preprocesses it within a mask.

    Zeros that are labelled, as background, are -1 there. Where there are some, the rest may still be unlabelled: it is
    then one value below all others, and so are the 1st and the 5th percentile of the unlabelled voxels.

    Args:
        images: (C, *S), normalised.
        labels: (*S).
        ignore: value of unlabelled voxels.
    """
    if not (labels < 0).any():
        return True
    unlabelled = _thin_out(labels)[0] == ignore
    if not unlabelled.any():
        return False
    percentiles = [np.percentile(_thin_out(image)[0][unlabelled], (1, 5)) for image in images]
    return all(high - low < _ONE_VALUE for low, high in percentiles)


def normalisation_problems(
    configuration: Mapping[str, Any], *, scaled_by_unlabelled: bool, unlabelled_zeros: bool
) -> list[str]:
    """What is wrong with the normalisation of a scribble dataset, a sentence each.

    Args:
        configuration: of the plans, with what it inherits.
        scaled_by_unlabelled: see `is_scaled_by_unlabelled`.
        unlabelled_zeros: see `has_unlabelled_zeros`.
    """
    problems = []
    if scaled_by_unlabelled:
        problems.append(
            "CT is clipped and scaled by the intensities of unlabelled voxels, which nnU-Net takes for foreground: "
            "soft tissue is left with hardly any contrast"
        )
    if unlabelled_zeros and any(configuration.get("use_mask_for_norm", ())):
        problems.append(
            "images are normalised within their voxels that are not zero, which nnU-Net finds in prediction, but not "
            "in training where those around the object are unlabelled: predictions will be poor"
        )
    return problems
