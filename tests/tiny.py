"""A scan of a few voxels, and its labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

SIZE = (6, 5, 4)  # x, y, z
SPACING = (1.5, 1.25, 8.0)
ORIGIN = (-103.5, 20.25, 7.0)
# A rotation by 30 degrees about x, after one by 90 about z: oblique, and no axis is where it usually is.
DIRECTION = (0.0, -1.0, 0.0, 0.75**0.5, 0.0, -0.5, 0.5, 0.0, 0.75**0.5)


def make_volume(
    values: object = 0,
    dtype: object = np.uint8,
    *,
    size=SIZE,
    spacing=SPACING,
    origin=ORIGIN,
    direction=DIRECTION,
) -> sitk.Image:
    array = np.zeros(size[::-1], dtype=dtype)
    array[...] = values
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    return image


def save(file: Path, image: sitk.Image | np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image if isinstance(image, sitk.Image) else make_volume(image), file)


def make_scan(seed: int, dtype: object = np.int16) -> sitk.Image:
    noise = np.random.default_rng(seed).normal(200, 50, SIZE[::-1])
    return make_volume(noise.astype(dtype), dtype)


def make_dense() -> np.ndarray:
    label = np.zeros(SIZE[::-1], np.uint8)
    label[1:3, 1:4, 1] = 1
    label[1:3, 1:4, 2:4] = 2
    label[1:3, 2, 3] = 3
    return label


def make_strokes() -> np.ndarray:
    dense = make_dense()
    strokes = np.full_like(dense, 4)
    strokes[:, 2] = dense[:, 2]  # one line through each slice
    return strokes
