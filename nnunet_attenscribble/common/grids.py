"""Where the voxels of an image lie in space, and whether those of another lie on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.text import format_vector

SPACING_TOLERANCE = 1e-3  # relative
ORIGIN_TOLERANCE = 0.1  # of the smallest voxel edge: headers written by other tools round, a real shift is larger
DIRECTION_TOLERANCE = 1e-3  # per cosine: a quarter of a voxel across 256 voxels

PICTURES, TIFFS = (".png", ".bmp", ".jpg", ".jpeg"), (".tif", ".tiff")
_WITH_GEOMETRY = ".nii.gz, .mha or .nrrd"


class Placed(Protocol):
    """What tells its grid in SimpleITK's way, in the order x, y, z."""

    def GetSize(self) -> Sequence[int]: ...  # noqa: D102, N802
    def GetSpacing(self) -> Sequence[float]: ...  # noqa: D102, N802
    def GetOrigin(self) -> Sequence[float]: ...  # noqa: D102, N802
    def GetDirection(self) -> Sequence[float]: ...  # noqa: D102, N802


@dataclass(frozen=True)
class Grid:
    """Voxels along x, y and z, their steps in mm, the first one's position, and the axes' directions, row by row."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: Placed) -> Grid:
        """That of an image, or of a reader behind a header.

        Steps are positive, as SimpleITK makes them when it reads an image, and not when it reads a header alone.
        """
        spacing = np.array(image.GetSpacing(), dtype=float)
        axes = np.array(image.GetDirection(), dtype=float).reshape(len(spacing), -1) * np.sign(spacing)
        numbers = (np.abs(spacing), image.GetOrigin(), axes.ravel())
        return cls(tuple(image.GetSize()), *(tuple(float(value) for value in part) for part in numbers))

    def put(self, image: sitk.Image) -> sitk.Image:
        """The same image, whose steps, position and axes are now the grid's."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    @property
    def axes(self) -> np.ndarray:
        """A column for each axis."""
        return np.array(self.direction).reshape(len(self.size), -1)


# For each axis of a grid, x first, the axis of another that follows it, and 1, or -1 where that runs backwards.
_Order = list[tuple[int, int]]


def geometry_problems(
    image: Placed | Grid, other: Placed | Grid, name: str, image_name: str, *, as_stored: bool = False
) -> list[str]:
    """What keeps the voxels of `other` from lying on the image's: one sentence per difference, none where they do.

    They may be stored in another order, along axes that are exchanged or run backwards; `place_on` puts them in that of
    the image.

    Args:
        image: on which they have to lie.
        other: whose voxels these are.
        name: how a sentence calls it.
        image_name: and the image.
        as_stored: another order is a problem too, as it is to nnU-Net, which pairs voxels by their indices.
    """
    grid, own = _grid(image), _grid(other)
    if len(grid.size) != len(own.size):
        return [_differ("size", own.size, grid.size, name, image_name)]
    order = _find_order(grid, own)
    turned = not _is_identity(order)
    if turned:
        own = _in_order(own, order)
    if grid.size != own.size:
        return [_differ("size", own.size, grid.size, name, image_name)]
    checks = [  # with what is tolerated, relative and absolute
        ("spacing", grid.spacing, own.spacing, SPACING_TOLERANCE, 0.0),
        ("origin", grid.origin, own.origin, 0.0, ORIGIN_TOLERANCE * min(grid.spacing)),
        ("direction", grid.direction, own.direction, 0.0, DIRECTION_TOLERANCE),
    ]
    problems = [
        _differ(what, theirs, ours, name, image_name, turned)
        for what, ours, theirs, relative, absolute in checks
        if not np.allclose(theirs, ours, rtol=relative, atol=absolute)
    ]
    if problems:
        problems += [
            f"{file}: its header says a negative voxel size, for which SimpleITK turns an axis round: correct it"
            for file, placed in ((image_name, image), (name, other))
            if _has_negative_step(placed)
        ]
    if as_stored and turned and not problems:
        return [
            f"{name}: its voxels are stored in another order than those of {image_name} (other axes, or backwards), "
            "and nnU-Net pairs them as they are stored: write both in one orientation, as attenscribble convert does"
        ]
    return problems


def read_header(file: Path) -> sitk.ImageFileReader:
    """A file's header, which tells the grid as the image would; raises RuntimeError where it cannot be read."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    return reader


def measure_steps(grid: Grid, own: Grid) -> np.ndarray | None:
    """How many voxels (x, y, z) lie between the first of a grid and the first of another; None where their axes or
    spacings differ.
    """
    alike = len(own.size) == len(grid.size) and np.allclose(
        own.direction, grid.direction, rtol=0, atol=DIRECTION_TOLERANCE
    )
    if not alike or not np.allclose(own.spacing, grid.spacing, rtol=SPACING_TOLERANCE, atol=0):
        return None
    return np.linalg.solve(grid.axes, np.subtract(own.origin, grid.origin)) / grid.spacing


def are_whole(steps: np.ndarray, grid: Grid) -> bool:
    """Whether these steps go from voxel to voxel, within what geometry tolerates."""
    return bool(np.abs((steps - np.round(steps)) * grid.spacing).max() <= ORIGIN_TOLERANCE * min(grid.spacing))


def is_turned(image: Placed | Grid, other: Placed | Grid) -> bool:
    """Whether the voxels of `other`, which lie on the image's, are stored in another order."""
    grid, own = _grid(image), _grid(other)
    return len(grid.size) == len(own.size) and not _is_identity(_find_order(grid, own))


def flatten_onto(image: sitk.Image, grid: Placed | Grid) -> sitk.Image:
    """A volume of one slice without its third axis, where the grid is a picture's: most drawing tools save volumes."""
    return image[:, :, 0] if len(_grid(grid).size) == 2 and image.GetSize()[2:] == (1,) else image


def turn_onto(array: np.ndarray, own: Placed | Grid, grid: Placed | Grid) -> np.ndarray:
    """Voxels in the order of another grid, on which they lie: nothing is resampled.

    Args:
        array: (z, y, x) or (y, x).
        own: their grid.
        grid: see `geometry_problems`.
    """
    order = _find_order(_grid(grid), _grid(own))
    last = array.ndim - 1  # x is the last axis of an array, and the first of a grid
    turned = array.transpose([last - axis for axis, _ in reversed(order)])
    return turned[tuple(slice(None, None, sign) for _, sign in reversed(order))]


def turn_upright(
    sections: Sequence[np.ndarray], spacing: Sequence[float], axis: int, grid: Grid | None
) -> tuple[list[np.ndarray], tuple[float, float]]:
    """Slices as radiologists look at them: head or front above, the patient's right or front on the left.

    Args:
        sections: (H, W), of arrays (z, y, x).
        spacing: mm per axis of the arrays.
        axis: of the arrays, across which the slices are cut.
        grid: of the arrays; None: unknown, and as that of a picture nothing to turn by.

    Returns:
        the slices, and mm per pixel, down and across.
    """
    height, width = (step for other, step in enumerate(spacing) if other != axis)
    if grid is None or len(grid.size) == 2:
        return list(sections), (height, width)
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.direction)  # what x, y, z run to
    down, across = ("LRPAIS".index(code[2 - other]) for other in range(3) if other != axis)
    turned = [section[:: -1 if down % 2 else 1, :: -1 if across % 2 else 1] for section in sections]
    if down > across:
        return turned, (height, width)
    return [section.T for section in turned], (width, height)


def place_on(image: sitk.Image, grid: Placed | Grid) -> sitk.Image:
    """A scalar image whose voxels lie on a grid, see `geometry_problems`, in the grid's order; as it is in the same."""
    if not is_turned(grid, image):
        return image
    turned = sitk.GetImageFromArray(np.ascontiguousarray(turn_onto(sitk.GetArrayViewFromImage(image), image, grid)))
    own = _in_order(Grid.of(image), _find_order(_grid(grid), Grid.of(image)))
    own.put(turned)
    for key in image.GetMetaDataKeys():
        if key.startswith("scl_"):  # the only ones that are asked for, and true in any order
            turned.SetMetaData(key, image.GetMetaData(key))
    return turned


def _grid(image: Placed | Grid) -> Grid:
    return image if isinstance(image, Grid) else Grid.of(image)


def _has_negative_step(image: Placed | Grid) -> bool:
    if not isinstance(image, sitk.Image | sitk.ImageFileReader):
        return False
    keys = [f"pixdim[{axis}]" for axis in (1, 2, 3)]
    return any(image.HasMetaDataKey(key) and float(image.GetMetaData(key)) < 0 for key in keys)


def _find_order(grid: Grid, own: Grid) -> _Order:
    """How the axes of `own` follow those of a grid; as they are where they do not, up to the tolerances."""
    along = np.rint(np.linalg.solve(grid.axes, own.axes)).astype(int)  # row: an axis of the grid
    found = [int(axis) for axis in np.abs(along).argmax(axis=1)]
    if (np.abs(along).sum(axis=0) != 1).any() or (np.abs(along).sum(axis=1) != 1).any():
        return [(axis, 1) for axis in range(len(grid.size))]
    return [(axis, int(along[row, axis])) for row, axis in enumerate(found)]


def _is_identity(order: _Order) -> bool:
    return order == [(axis, 1) for axis in range(len(order))]


def _in_order(own: Grid, order: _Order) -> Grid:
    axes, steps = own.axes, np.array(own.spacing)
    origin = np.array(own.origin)
    for axis, sign in order:
        if sign < 0:  # its last voxel becomes the first
            origin = origin + axes[:, axis] * steps[axis] * (own.size[axis] - 1)
    turned = np.stack([sign * axes[:, axis] for axis, sign in order], axis=1)
    return Grid(
        tuple(own.size[axis] for axis, _ in order),
        tuple(own.spacing[axis] for axis, _ in order),
        tuple(map(float, origin)),
        tuple(map(float, turned.ravel())),
    )


def _differ(what: str, theirs: tuple, ours: tuple, name: str, image_name: str, turned: bool = False) -> str:
    own, other = format_vector(theirs), format_vector(ours)
    if what == "size":
        return f"{name}: size {own} differs from {other} of {image_name}: both must lie on the same voxels"
    how = ", its axes turned to follow the other's," if turned else ""
    return f"{name}: {what} {own}{how} differs from {other} of {image_name}: {_advise(what, name, image_name)}"


def _advise(what: str, *names: str) -> str:
    """How to mend it, by what the format of the files can hold."""
    for name in names:
        if name.lower().endswith(PICTURES):
            return f"a picture holds no {what} to correct: save {PurePath(name).name} as {_WITH_GEOMETRY}"
        if name.lower().endswith(TIFFS):
            if what == "spacing":
                return f'give that of {PurePath(name).name} in a JSON file beside it, {{"spacing": [z, y, x]}}'
            return f"a TIFF holds no {what} to correct: save {PurePath(name).name} as {_WITH_GEOMETRY}"
    return "correct the header, or resample one to the other"
