"""Strokes in a slice: lines that run through a mask as a hand would draw them, and the pixels they cover.

A mask may be a box cut out of a slice: no stroke depends on what is farther from it than `MARGIN` pixels.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import fft, irfft2, rfft, rfft2
from scipy.interpolate import BSpline
from scipy.ndimage import distance_transform_edt, gaussian_filter, gaussian_filter1d
from scipy.spatial import cKDTree
from skimage.draw import polygon
from skimage.measure import find_contours
from skimage.morphology import skeletonize

#: Pixels around a mask that its box needs, as far as the slice has them: `level_line` smooths over three.
MARGIN = 4
_UNSTEADY = 1.2  # pixels by which a hand strays, before it is smoothed over four points of the line


def stroke_inside(rng: np.random.Generator, mask: np.ndarray, share: float, width: float) -> np.ndarray:
    """A smooth stroke through the middle of a mask.

    It follows a line of equal depth about half-way to the deepest pixel: around a pool, along a wall. Its length varies
    by half, as that of people's does.

    Args:
        rng: drawn from.
        mask: (Y, X) bool, one component.
        share: of the mask's pixels that the stroke covers in the mean; less where the line is not as long.
        width: in pixels.

    Returns:
        (Y, X) bool, inside the mask and never empty.
    """
    depth = _depth(mask)
    line = level_line(depth, rng.uniform(0.3, 0.6) * float(depth.max()))
    stroke = draw_line(part_of_line(rng, line, rng.uniform(0.5, 1.5) * share * mask.sum() / width), width, mask)
    return stroke if stroke.any() else deepest_point(rng, mask)


def stroke_along_border(
    rng: np.random.Generator,
    mask: np.ndarray,
    share: tuple[float, float],
    depth: tuple[float, float],
    width: float,
) -> np.ndarray:
    """A stroke inside a mask along a stretch of its outline, as ScribbleBench's contour strokes.

    Args:
        rng: drawn from.
        mask: (Y, X) bool, one component.
        share: of the outline, lowest and highest.
        depth: pixels from the border to the stroke, lowest and highest.
        width: in pixels.

    Returns:
        (Y, X) bool, inside the mask; empty where the mask is too thin.
    """
    line = level_line(_depth(mask), rng.uniform(*depth) + width / 2)
    return draw_line(part_of_line(rng, line, rng.uniform(*share) * measure_line(line), unsteady=0.0), width, mask)


def spline_through(rng: np.random.Generator, mask: np.ndarray, points: int, width: float) -> np.ndarray:
    """A stroke along a quadratic B-spline whose control points are drawn from a mask, as ScribbleBench's NURBS strokes.

    Args:
        rng: drawn from.
        mask: (Y, X) bool, one component.
        points: control points, at least 3.
        width: in pixels.

    Returns:
        (Y, X) bool, the part of the stroke inside the mask; never empty.
    """
    control = rng.choice(np.argwhere(mask), points).astype(float)
    knots = np.concatenate(([0] * 2, np.linspace(0, 1, points - 1), [1] * 2))
    line = BSpline(knots, control, 2)(np.linspace(0, 1, 20 * points))
    stroke = draw_line(line, width, mask)
    return stroke if stroke.any() else deepest_point(rng, mask)


def deepest_point(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """One of the pixels of a mask, (Y, X) bool, that are farthest from its border."""
    depth = _depth(mask)
    point = np.zeros(mask.shape, bool)
    point[tuple(rng.choice(np.argwhere(mask & (depth == depth[mask].max()))))] = True
    return point


def skeleton(mask: np.ndarray) -> np.ndarray:
    """The mask's skeleton, (Y, X) bool; never empty where the mask is not."""
    thinned = skeletonize(mask)
    return thinned if thinned.any() else mask


def level_lines(field: np.ndarray, level: float) -> list[np.ndarray]:
    """(P, 2) rows and columns along every line where a (Y, X) field is `level`, the longest first.

    None where it never is, and in a field one pixel wide, which has room for no line.
    """
    if min(field.shape) < 2:
        return []
    return sorted(find_contours(gaussian_filter(field, 0.7), level), key=len, reverse=True)


def level_line(field: np.ndarray, level: float) -> np.ndarray:
    """The longest of `level_lines`; empty where there is none."""
    return next(iter(level_lines(field, level)), np.empty((0, 2)))


def measure_line(line: np.ndarray) -> float:
    """Its length in pixels."""
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def surrounds(line: np.ndarray, mask: np.ndarray) -> bool:
    """Whether a line goes around a pixel of a (Y, X) mask."""
    return bool(mask[polygon(line[:, 0], line[:, 1], mask.shape)].any())


def part_of_line(
    rng: np.random.Generator, line: np.ndarray, length: float, *, unsteady: float = _UNSTEADY
) -> np.ndarray:
    """A stretch of a line, `length` pixels long, from a random start where it is closed, drawn by an unsteady hand."""
    if len(line) < 3:
        return line
    start = rng.integers(len(line))
    line = np.concatenate((line[start:], line[:start])) if np.allclose(line[0], line[-1]) else line
    travelled = np.concatenate(([0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))))
    line = line[travelled <= max(length, 1.0)]
    return line + gaussian_filter(rng.normal(0, 1.0, line.shape) * unsteady, (4, 0))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Normal noise of mean 0 and standard deviation 1, (Y, X) float, that changes within `scale` pixels."""
    noise = rng.normal(size=shape)
    # What gaussian_filter(noise, scale, mode="wrap") is, in a time that does not grow with the scale.
    rows, columns = (
        transform(gaussian_filter1d(np.eye(1, length)[0], scale, mode="wrap"))
        for transform, length in zip((fft, rfft), shape, strict=True)
    )
    noise = irfft2(rfft2(noise) * rows[:, None] * columns, shape)
    return (noise - noise.mean()) / max(float(noise.std()), np.finfo(float).tiny)


def zigzag(rng: np.random.Generator, box: tuple[int, int, int, int]) -> np.ndarray:
    """(P, 2) a line to and fro in a box (top, bottom, left, right): how experts mark a slice that shows nothing."""
    top, bottom, left, right = box
    turns = int(rng.integers(2, 4))
    progress = np.linspace(0, 1, 400)
    swing = 0.5 + 0.38 * np.sin(2 * np.pi * turns * progress + rng.uniform(0, np.pi))
    return np.stack((top + (bottom - top) * (0.15 + 0.7 * progress), left + (right - left) * swing), axis=1)


def draw_line(line: np.ndarray, width: float, mask: np.ndarray) -> np.ndarray:
    """Pixels of a (Y, X) mask whose centre lies within half a `width` of the line."""
    stroke = np.zeros(mask.shape, bool)
    if len(line):
        steps = np.linspace(0, len(line) - 1, 8 * len(line))  # denser than pixels, whatever the line's own points
        dense = np.stack([np.interp(steps, np.arange(len(line)), axis) for axis in line.T], axis=1)
        rows, columns = _pixels_around(dense, width, mask)
        near = cKDTree(dense).query(np.stack((rows, columns), axis=1), distance_upper_bound=width / 2)[0] <= width / 2
        stroke[rows[near], columns[near]] = True
    return stroke


def _pixels_around(points: np.ndarray, width: float, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels of a mask that can be within half a `width` of (P, 2) points, and some more."""
    reach = int(np.ceil(width / 2))
    cells = np.unique(np.floor(points).astype(int), axis=0)
    if len(cells) * (2 * reach + 2) ** 2 > mask.sum():
        rows, columns = np.nonzero(mask)  # no more than what is around the cells
        return rows, columns
    offsets = np.indices((2 * reach + 2,) * 2).reshape(2, -1).T - reach
    near = np.unique((cells[:, None] + offsets).reshape(-1, 2), axis=0)
    near = near[((near >= 0) & (near < mask.shape)).all(axis=1)]
    rows, columns = near[mask[near[:, 0], near[:, 1]]].T
    return rows, columns


def _depth(mask: np.ndarray) -> np.ndarray:
    # With a rim outside, so that a mask at the image's border has a border there.
    return distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
