"""Label files that hold more than one value per voxel of the image: named segments, layers, a cut-out, colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.formats import is_tiff
from nnunet_attenscribble.common.grids import Grid, are_whole, measure_steps, place_on
from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.common.volumes import (
    Source,
    describe,
    label_values,
    read_pixels,
    read_volume,
)
from nnunet_attenscribble.dataset_conversion.legends import Legend
from nnunet_attenscribble.dataset_conversion.meanings import Colour, format_colour
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["ColourLabel", "NamedLabel", "Unreadable", "count_colours", "is_picture", "split_layers"]

_PICTURES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
_MOST_COLOURS = 16  # beyond, they are shades


def is_picture(file: Path) -> bool:
    """Whether it may hold colours."""
    return file.name.lower().endswith(_PICTURES)


def count_colours(file: Path) -> int:
    """Values per pixel by its header; 1 where that cannot be read, as will be told elsewhere."""
    if is_tiff(file):
        return _count_samples(file)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return 1
    return reader.GetNumberOfComponents()


def _count_samples(file: Path) -> int:
    """As `read_tiff` reads them: a volume of three slices has no colours, whatever its tags say."""
    import tifffile

    try:
        with tifffile.TiffFile(file) as content:
            series = content.series[0]
            return series.shape[-1] if series.axes.endswith("S") else 1
    except Exception:  # as in read_tiff
        return 1


@dataclass(frozen=True)
class Unreadable:
    """A label file of which something is wrong that is known before it is read."""

    file: Path
    problems: tuple[str, ...]

    def __call__(self) -> sitk.Image:
        """Raises AttenScribbleError."""
        raise AttenScribbleError(self.problems)


@dataclass(frozen=True)
class NamedLabel:
    """A label file whose values have names, as a source of one value per voxel on the grid of its image.

    Attributes:
        file: read when called.
        legend: its names.
        targets: value for each segment of the legend; None: no class is called so.
        rest: value of voxels in no segment.
        is_sure: whether `rest` was told; otherwise a file that names unlabelled voxels too cannot be read.
        unlabelled: value of unlabelled voxels, to know such a segment by; None in dense labels.
        classes: that there are, for messages.
        image: on whose grid it lies; a part of it where 3D Slicer has cut off what is empty.
    """

    file: Path
    legend: Legend
    targets: tuple[int | None, ...]
    rest: int
    is_sure: bool
    unlabelled: int | None
    classes: str
    image: Source

    def __call__(self) -> sitk.Image:
        """The label; raises AttenScribbleError where it cannot be read as one."""
        pixels = read_pixels(self.file)
        layers, grid = split_layers(pixels, str(self.file))
        merged = sitk.GetImageFromArray(self._merge(layers))
        merged.CopyInformation(grid)
        return self._place(merged) if self.legend.source == self.file else merged

    def _merge(self, layers: np.ndarray) -> np.ndarray:
        """(z, y, x) from (layers, z, y, x): every segment's value where it is, `rest` elsewhere."""
        merged = np.full(layers.shape[1:], self.rest, np.int32)
        taken = np.zeros(merged.shape, bool)
        known = np.zeros(layers.shape, bool)
        owner: dict[int, str] = {}
        unknown, problems = [], []
        for segment, target in zip(self.legend.segments, self.targets, strict=True):
            if segment.layer >= len(layers):
                continue  # told as empty by 3D Slicer, or voxels without a name will be missed
            mask = layers[segment.layer] == segment.value
            known[segment.layer] |= mask
            if (segment.value == 0 and len(layers) > 1) or not mask.any():
                continue
            if target is None:
                unknown.append(segment.name)
                continue
            clash = mask & taken & (merged != target)
            if clash.any():
                other = owner[int(merged[clash][0])]
                problems.append(
                    f"{self.file}: {int(clash.sum())} voxels are {segment.name} as well as {other}: take them out of "
                    "one of the two (3D Slicer: Segment Editor, Masking, 'Modify other segments: Overwrite all'; "
                    "MITK: one group), and save again"
                )
            merged[mask], taken[mask] = target, True
            owner[target] = segment.name
        strange = np.unique(layers[~known & (layers != 0)])
        if strange.size:
            problems.append(
                f"{self.file}: {self.legend.source.name} has no name for its values "
                f"{list_some([str(value) for value in strange])}: name them, or correct the file"
            )
        if unknown:
            every = ", ".join(f"{segment.name} ({segment.value})" for segment in self.legend.segments)
            problems.append(
                f"{self.file}: holds {list_some(unknown)}; its names are {every}, the classes {self.classes}: rename "
                f"one of the two, or say which is which, as --labels CLASS={unknown[0]} or --background-scribble NAME"
            )
        if not self.is_sure and self.unlabelled in owner and not taken.all():
            problems.append(
                f"{self.file}: calls a value {owner[self.unlabelled]}, and 0 nothing: say what 0 is, by "
                "--background-scribble 0 or --unlabelled 0"
            )
        if problems:
            raise AttenScribbleError(problems)
        return merged

    def _place(self, label: sitk.Image) -> sitk.Image:
        """The label on the grid of its image, `rest` around it."""
        grid = Grid.of(read_volume(self.image, str(self.image), thorough=False, whole=False))
        if label.GetDimension() != len(grid.size):
            return label  # whoever compares grids will tell
        label = place_on(label, grid)
        offset = _offset(label, grid, str(self.file), describe(self.image, "its image"))
        if offset is None:
            return label
        values = sitk.GetArrayFromImage(label)
        placed = np.full(grid.size[::-1], self.rest, values.dtype)
        low = np.array(offset[::-1])
        start, stop = np.maximum(low, 0), np.minimum(low + values.shape, placed.shape)
        stop = np.maximum(stop, start)
        inside = tuple(slice(*ends) for ends in zip(start - low, stop - low, strict=True))
        outside = int((values != self.rest).sum() - (values[inside] != self.rest).sum())
        if outside:
            raise AttenScribbleError(
                f"{self.file}: {outside} of its drawn voxels lie outside {describe(self.image, 'its image')}: is it of "
                "another image?"
            )
        placed[tuple(slice(*ends) for ends in zip(start, stop, strict=True))] = values[inside]
        image = sitk.GetImageFromArray(placed)
        image.SetSpacing(grid.spacing)
        image.SetOrigin(grid.origin)
        image.SetDirection(grid.direction)
        return image


def split_layers(pixels: sitk.Image, name: str) -> tuple[np.ndarray, sitk.Image]:
    """(layers, z, y, x) and an image on the grid of each."""
    if pixels.GetDimension() == 4:
        count = pixels.GetSize()[3]
        images = [pixels[:, :, :, layer] for layer in range(count)]
    else:
        count = pixels.GetNumberOfComponentsPerPixel()
        images = [pixels] if count == 1 else [sitk.VectorIndexSelectionCast(pixels, layer) for layer in range(count)]
    return np.stack([label_values(image, name) for image in images]), images[0]


def _offset(label: sitk.Image, grid: Grid, name: str, image_name: str) -> tuple[int, ...] | None:
    """Voxels (x, y, z) from the image's first to the label's; None where both are as large and lie on each other.

    Raises:
        AttenScribbleError: where voxels do not lie on voxels.
    """
    own = Grid.of(label)
    steps = measure_steps(grid, own)
    if steps is None:
        if own.size == grid.size:
            return None  # whoever compares grids will tell
        raise AttenScribbleError(
            f"{name}: has {own.size} voxels of {own.spacing} mm, another grid than {image_name}: make that image the "
            "source geometry (3D Slicer: Segment Editor, beside the source volume), and save again"
        )
    offset = np.round(steps)
    if not offset.any() and own.size == grid.size:
        return None
    if not are_whole(steps, grid):
        raise AttenScribbleError(
            f"{name}: begins {', '.join(f'{step:.3g}' for step in steps)} voxels (x, y, z) from the first of "
            f"{image_name}, between its voxels: make that image the source geometry, and save again"
        )
    return tuple(int(step) for step in offset)


@dataclass(frozen=True)
class ColourLabel:
    """A picture whose colours are classes, as a source of one value per pixel; grey values are taken as they are.

    Attributes:
        file: read when called.
        targets: value of each colour.
        rest: value of pixels that are wholly transparent.
        by_colour: whether grey values are colours too.
        classes: that there are, for messages.
    """

    file: Path
    targets: Mapping[Colour, int]
    rest: int
    by_colour: bool
    classes: str

    def __call__(self) -> sitk.Image:
        """The label; raises AttenScribbleError for colours that nobody named."""
        pixels = read_pixels(self.file)
        count = pixels.GetNumberOfComponentsPerPixel()
        if count == 1 and not self.by_colour:
            return pixels
        values = sitk.GetArrayFromImage(pixels)
        values = values[..., None].repeat(3, axis=-1) if count == 1 else values
        if values.dtype != np.uint8 and not (
            np.issubdtype(values.dtype, np.integer) and 0 <= values.min() <= values.max() < 256
        ):
            raise AttenScribbleError(f"{self.file}: its colours have more than 8 bits: save it as an 8-bit picture")
        visible = np.ones(values.shape[:-1], bool)
        if count in (2, 4):
            visible = values[..., -1] > 0
            if (values[..., -1][visible] < 255).any():
                raise AttenScribbleError(
                    f"{self.file}: has pixels that are transparent in part: draw with full opacity, or without alpha"
                )
            values = values[..., :-1] if count == 4 else values[..., :1].repeat(3, axis=-1)
        codes = values[..., :3].astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        label = np.full(codes.shape, self.rest, np.int32)
        unknown: list[tuple[int, Colour]] = []
        for code, pixels_of_it in zip(*np.unique(codes[visible], return_counts=True), strict=True):
            colour = (int(code) >> 16, int(code) >> 8 & 255, int(code) & 255)
            if colour in self.targets:
                label[visible & (codes == code)] = self.targets[colour]
            else:
                unknown.append((int(pixels_of_it), colour))
        if unknown:
            raise AttenScribbleError(self._tell(unknown, codes.size))
        image = sitk.GetImageFromArray(label)
        image.CopyInformation(pixels)
        return image

    def _tell(self, unknown: list[tuple[int, Colour]], size: int) -> str:
        found = [f"{format_colour(colour)} ({100 * n / size:.2g} %)" for n, colour in sorted(unknown, reverse=True)]
        named = ", ".join(map(format_colour, self.targets)) or "none"
        if len(unknown) > _MOST_COLOURS:
            return (
                f"{self.file}: has {len(unknown)} colours that are not named ({list_some(found)}): it is a photograph, "
                "or was drawn with soft edges or saved as JPEG: draw without antialiasing, and save as PNG"
            )
        return (
            f"{self.file}: has the colours {', '.join(found)} (named: {named}; classes: {self.classes}): name each, as "
            "--labels 'CLASS=#ff0000' --background-scribble '#00ff00' --unlabelled '#000000'"
        )
