"""Label files that hold more than a plain value per voxel of the image: named segments, layers, a cut-out, colours;
and what they say of their values, in a header or in a description beside them."""

from __future__ import annotations

import codecs
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.files import find_files
from nnunet_attenscribble.common.grids import (
    Grid,
    are_whole,
    flatten_onto,
    geometry_problems,
    measure_steps,
    place_on,
    read_header,
)
from nnunet_attenscribble.common.readers import as_readable
from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.common.volumes import (
    Source,
    describe,
    label_values,
    read_pixels,
    read_volume,
    unscale_label,
)
from nnunet_attenscribble.dataset_conversion.pairing import stem
from nnunet_attenscribble.errors import AttenScribbleError, refuse

Colour = tuple[int, int, int]
#: As the tool of a label that is a folder, with a file for each class, called after it.
MASKS = "a file per class"
#: Endings of files whose header may name segments, which 3D Slicer puts in layers.
NRRD = (".nrrd", ".nhdr")
_PICTURES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
_MOST_COLOURS = 16  # beyond, they are shades
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
#: Of ITK-SNAP's label descriptions; `.txt` may be anything else as well.
_DESCRIPTION_ENDINGS = (".label", ".txt")
_ENTRY = re.compile(r'\s*(\d+)((\s+\d+){3})\s+[\d.eE+-]+\s+[01]\s+[01]\s+"(.*)"\s*')  # IDX R G B A VIS MSH "LABEL"
_SEGMENT = re.compile(r"Segment(\d+)_(?:Name|ID|LabelValue|Layer)")
_SEGMENTATION_KEYS = {f"Segmentation_{kind}Representation" for kind in ("Master", "Source")}
_MITK_GROUPS = "org.mitk.multilabel.segmentation.labelgroups"
_MITK_LABEL = re.compile(r"org\.mitk\.label_(\d+)_\d+")
_LONGEST = 1 << 20  # characters of a description
_NOTHING = {"", "clear label", "exterior"}  # what the tools call the value 0


@dataclass(frozen=True)
class Segment:
    """What one value of a label file is called."""

    name: str
    value: int
    layer: int = 0
    """Of files in which several label images lie on each other."""


@dataclass(frozen=True)
class Legend:
    """The names of a label file's values.

    Attributes:
        tool: that wrote them; or `MASKS`.
        source: where they stand: the file itself, or a description beside it.
        segments: by layer and value; 0 only where it is called something.
    """

    tool: str
    source: Path
    segments: tuple[Segment, ...]

    @property
    def says_nothing(self) -> bool:
        """Whether ITK-SNAP gave all names by itself: its files are read by their values then."""
        return self.tool == "ITK-SNAP" and all(one.name == f"Label {one.value}" for one in self.segments)


def read_legend(file: Path) -> Legend | None:
    """The names in an NRRD header, as 3D Slicer (`.seg.nrrd`) and MITK write them, or those of the files in a folder
    with one per class; None where there are none.

    Raises:
        AttenScribbleError: where they are damaged.
    """
    if file.is_dir():
        names = (re.sub(f"^{re.escape(file.name)}[_. -]+(?=.)", "", str(stem(mask))) for mask in list_masks(file))
        return Legend(MASKS, file, tuple(Segment(name, 1, layer) for layer, name in enumerate(names)))
    if file.suffix.lower() not in NRRD:
        return None
    try:
        reader = read_header(file)
    except RuntimeError:
        return None  # whoever reads it will tell
    header = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    for tool, read in (("3D Slicer", _read_slicer), ("MITK", _read_mitk)):
        try:
            segments = _named(read(header))
        except (ValueError, KeyError, TypeError, AttributeError, ElementTree.ParseError) as error:
            raise AttenScribbleError(
                f"{file}: its header does not say what its values mean ({type(error).__name__}: {error}): "
                f"save it again with {tool}"
            ) from None
        if segments or (tool == "3D Slicer" and header.keys() & _SEGMENTATION_KEYS):  # in which nothing may be drawn
            return Legend(tool, file, segments)
    return None


def _read_slicer(header: Mapping[str, str]) -> Iterator[Segment]:
    numbers = sorted({int(match[1]) for key in header if (match := _SEGMENT.fullmatch(key))})
    # Before Slicer 4.11 every segment was a layer of its own, with the value 1.
    layered = any(f"Segment{number}_LabelValue" in header for number in numbers)
    for position, number in enumerate(numbers):
        name = header.get(f"Segment{number}_Name") or header[f"Segment{number}_ID"]
        value = int(header.get(f"Segment{number}_LabelValue", 1))
        yield Segment(name, value, int(header.get(f"Segment{number}_Layer", 0 if layered else position)))


def _read_mitk(header: Mapping[str, str]) -> Iterator[Segment]:
    if _MITK_GROUPS in header:
        for layer, group in enumerate(json.loads(header[_MITK_GROUPS])):
            for label in group.get("labels") or ():
                yield Segment(str(label["name"] or ""), int(label["value"]), layer)
    for key, text in sorted(header.items()):  # before 2022.10: XML, a key for each label
        if match := _MITK_LABEL.fullmatch(key):
            properties: dict[str | None, Any] = {
                entry.get("key"): next(iter(entry)).get("value")
                for entry in ElementTree.fromstring(text).iter("property")
            }
            yield Segment(properties["name"], int(properties["value"]), int(match[1]))


def _named(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """By layer and value; what has no name gets ITK-SNAP's. Raises ValueError for a name that is no text."""
    kept = []
    for segment in segments:
        name = " ".join(segment.name.split())
        if not name.isprintable():
            raise ValueError(f"the name {name!a} is not UTF-8, or holds control characters")
        if segment.value or name.casefold() not in _NOTHING:
            kept.append(replace(segment, name=name or f"Label {segment.value}"))
    return tuple(sorted(kept, key=lambda segment: (segment.layer, segment.value)))


def parse_description(text: str) -> tuple[Segment, ...] | None:
    """The labels of an ITK-SNAP label description; None of a text that is none.

    Raises:
        ValueError: it is one, and has a line that is no label.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    matches = [_ENTRY.fullmatch(line) for line in lines]
    if not any(matches):
        return None
    for line, match in zip(lines, matches, strict=True):
        if match is None:
            raise ValueError(f"the line {line.strip()!r} is no label of ITK-SNAP's")
    return _named(Segment(match[4], int(match[1])) for match in matches if match)


def find_legends(
    labels: Mapping[str, Path], images: Mapping[str, Sequence[Path]], files: Iterable[Path]
) -> tuple[dict[str, Legend], list[str]]:
    """The legend of each label file that has one, by case, and every problem.

    What stands in a file's header goes before a description of ITK-SNAP. Such a description belongs to the case that it
    is called as (`case.label` or `case.txt`, beside the label or the image), or else to all labels, or images, below
    its folder; the nearest counts.

    Args:
        labels: label file of each case.
        images: image files of each case.
        files: all that lies in the folders of both.
    """
    descriptions, problems = _read_descriptions(files)
    owners: dict[Path, set[str]] = {}
    for case, file in labels.items():
        names = {case, stem(file), *map(stem, images.get(case, ()))}
        for description in descriptions:
            if description.stem in names and _is_near(description, [file, *images.get(case, ())]):
                owners.setdefault(description, set()).add(case)
    found = {}
    for case, file in labels.items():
        try:
            header = read_legend(file)
        except AttenScribbleError as error:
            problems += error.problems
            continue
        if header is not None:
            found[case] = header
            continue
        near = [path for path in descriptions if case in owners.get(path, ())] or [
            path for path in descriptions if path not in owners and _is_near(path, [file, *images.get(case, ())])
        ]
        depth = max((len(path.parts) for path in near), default=0)
        nearest = [path for path in near if len(path.parts) == depth]
        if len({descriptions[path] for path in nearest}) > 1:
            problems.append(
                f"{file}: {' and '.join(map(str, nearest[:2]))} describe its labels differently: "
                "name one after each label, or remove one"
            )
        elif nearest:
            found[case] = Legend("ITK-SNAP", nearest[0], descriptions[nearest[0]])
    return found, problems


def _read_descriptions(files: Iterable[Path]) -> tuple[dict[Path, tuple[Segment, ...]], list[str]]:
    descriptions, problems = {}, []
    for file in dict.fromkeys(files):
        if not file.name.lower().endswith(_DESCRIPTION_ENDINGS):
            continue
        try:
            segments = _read_description(file)
        except OSError as error:
            problems.append(f"{file}: cannot be read ({error.strerror})")
            continue
        except ValueError as error:
            problems.append(f"{file}: {error}: mend that, and save the label descriptions again")
            continue
        if segments is not None:
            descriptions[file] = segments
        elif file.suffix.lower() == ".label":
            problems.append(f"{file}: is no label description of ITK-SNAP: save it again, or remove it")
    return descriptions, problems


def is_description(file: Path) -> bool:
    """Whether it is a label description of ITK-SNAP that can be read."""
    try:
        return file.name.lower().endswith(_DESCRIPTION_ENDINGS) and _read_description(file) is not None
    except (OSError, ValueError):
        return False


def _read_description(file: Path) -> tuple[Segment, ...] | None:
    with file.open("rb") as content:
        is_wide = content.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # as Windows' editors call Unicode
    with file.open(encoding="utf-16" if is_wide else "utf-8-sig", errors="surrogateescape") as content:
        return parse_description(content.read(_LONGEST))


def _is_near(description: Path, files: Iterable[Path]) -> bool:
    return any(description.parent in file.parents for file in files)


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
        merged = self._merge(*read_layers(self.file))
        return self._place(merged) if self.legend.source == self.file else merged

    def _merge(self, count: int, layers: Iterator[sitk.Image]) -> sitk.Image:
        """Of so many layers every segment's value where it is, `rest` elsewhere; one layer is in memory at a time."""
        first = next(layers)
        merged = np.full(first.GetSize()[::-1], self.rest, _smallest_type([self.rest, *filter(None, self.targets)]))
        taken = np.zeros(merged.shape, bool)
        owner: dict[int, str] = {}
        strange: set[int] = set()
        unknown, problems = [], []
        for layer, image in enumerate(chain([first], layers)):
            values = label_values(image, str(self.file))
            known = values == 0
            for segment, target in zip(self.legend.segments, self.targets, strict=True):
                if segment.layer != layer:
                    continue  # those of no layer are told as empty by 3D Slicer, or voxels without a name are missed
                mask = values == segment.value
                known |= mask
                if (segment.value == 0 and count > 1) or not mask.any():
                    continue
                if target is None:
                    unknown.append(segment.name)
                    continue
                clash = mask & taken & (merged != target)
                if clash.any():
                    other = owner[int(merged[clash][0])]
                    problems.append(
                        f"{self.file}: {int(clash.sum())} voxels are {segment.name} as well as {other}: take them out "
                        "of one of the two (3D Slicer: Segment Editor, Masking, 'Modify other segments: Overwrite "
                        "all'; MITK: one group), and save again"
                    )
                merged[mask], taken[mask] = target, True
                owner[target] = segment.name
            strange.update(np.unique(values[~known]).tolist())
        if strange:
            problems.append(
                f"{self.file}: {self.legend.source.name} has no name for its values "
                f"{list_some([str(value) for value in sorted(strange)])}: name them, or correct the file"
            )
        if unknown:
            every = ", ".join(f"{segment.name} ({segment.value})" for segment in self.legend.segments)
            problems.append(
                f"{self.file}: holds {list_some(unknown)}; its names are {every}, the classes {self.classes}: rename "
                f"one of the two, or tell `convert folder` by --labels CLASS={quote(unknown[0])} or "
                "--background-scribble NAME"
            )
        if not self.is_sure and self.unlabelled in owner and not taken.all():
            problems.append(
                f"{self.file}: calls a value {owner[self.unlabelled]}, and 0 nothing: say what 0 is, by "
                "--background-scribble 0 or --unlabelled 0"
            )
        refuse(problems)
        label = sitk.GetImageFromArray(merged)
        label.CopyInformation(first)
        return label

    def _place(self, label: sitk.Image) -> sitk.Image:
        """The label on the grid of its image, `rest` around it."""
        grid = Grid.of(read_volume(as_readable(self.image), str(self.image), thorough=False, whole=False))
        label = flatten_onto(label, grid)
        values = sitk.GetArrayViewFromImage(label)
        if values.size == 1 and (values == self.rest).all():  # 3D Slicer's, where nothing is drawn, and lies anywhere
            return grid.put(sitk.GetImageFromArray(np.full(grid.size[::-1], self.rest, values.dtype)))
        if label.GetDimension() != len(grid.size):
            return label  # whoever compares grids will tell
        label = place_on(label, grid)
        offset = _offset(label, grid, str(self.file), describe(self.image, "its image"))
        if offset is None:
            return label
        values = sitk.GetArrayViewFromImage(label)
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
        return grid.put(sitk.GetImageFromArray(placed))


def _smallest_type(values: Iterable[int]) -> np.dtype:
    """Of integers that hold these."""
    return np.result_type(*map(np.min_scalar_type, values))


def read_any(file: Path) -> sitk.Image:
    """Read a label file of any kind; raises as `read_pixels`."""
    source = as_readable(file, label=True)
    return source() if callable(source) else read_pixels(file)


def list_masks(folder: Path) -> list[Path]:
    """The files of a folder with one per class."""
    return [file for file in find_files(folder) if file.parent == folder and stem(file) is not None]


def read_layers(file: Path) -> tuple[int, Iterator[sitk.Image]]:
    """How many layers a label file of any kind has, and each; those of a folder with a file per class are read when
    they are asked for, the last of them tells every problem. Raises as `read_pixels`.
    """
    if file.is_dir():
        masks = list_masks(file)
        return len(masks), _read_masks(masks)
    return split_layers(read_any(file))


def _read_masks(files: Sequence[Path]) -> Iterator[sitk.Image]:
    """A layer for each, 1 where it holds anything."""
    first: sitk.Image | None = None
    problems: list[str] = []
    for file in files:
        try:
            mask = read_volume(read_any(file), str(file), label=True)
            if first is not None:
                mask = flatten_onto(mask, first)
                problems += geometry_problems(first, mask, str(file), str(files[0]))
                mask = mask if problems else place_on(mask, first)
            values = label_values(unscale_label(mask)[0], str(file))
            held = [str(value) for value in np.unique(values[values != 0])]
            if len(held) > 1 or read_legend(file) is not None:
                told = f"holds the values {list_some(held)}" if len(held) > 1 else "names its segments itself"
                raise AttenScribbleError(
                    f"{file}: {told}, and its folder holds {len(files)} labels of one case: keep one, with all classes "
                    "in it, or a file per class, called after it, and no image among them"
                )
            drawn = sitk.GetImageFromArray((values != 0).astype(np.uint8))
            drawn.CopyInformation(mask if first is None or problems else first)
            first = drawn if first is None else first
        except AttenScribbleError as error:
            problems += error.problems
        if not problems:
            yield drawn
    refuse(problems)


def split_layers(pixels: sitk.Image) -> tuple[int, Iterator[sitk.Image]]:
    """How many layers lie on each other in one file, and each."""
    if pixels.GetDimension() == 4:
        count = pixels.GetSize()[3]
        return count, (pixels[:, :, :, layer] for layer in range(count))
    count = pixels.GetNumberOfComponentsPerPixel()
    if count == 1:
        return 1, iter([pixels])
    return count, (sitk.VectorIndexSelectionCast(pixels, layer) for layer in range(count))


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


def is_picture(file: Path) -> bool:
    """Whether it may hold colours."""
    return file.name.lower().endswith(_PICTURES)


def is_colour(text: str) -> bool:
    """Whether it is a colour such as `#ff0000`."""
    return _COLOUR.fullmatch(text) is not None


def parse_colour(text: str) -> Colour:
    """Red, green and blue of `#ff0000`."""
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


def format_colour(colour: Colour) -> str:
    """The other way round."""
    return "#" + bytes(colour).hex()


def read_colour_codes(pixels: sitk.Image, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The colours of a picture as numbers, and which of its pixels are to be seen.

    Args:
        pixels: grey, grey and alpha, RGB or RGBA.
        name: for messages.

    Returns:
        0xRRGGBB per pixel, uint32 (..., Y, X), and a mask of that shape: what is not wholly transparent.

    Raises:
        AttenScribbleError: values of more than 8 bits, pixels that are transparent in part, or more bands than these.
    """
    count = pixels.GetNumberOfComponentsPerPixel()
    if count > 4:
        raise AttenScribbleError(f"{name}: has {count} values per pixel, more than a picture: save red, green and blue")
    values = sitk.GetArrayFromImage(pixels)
    values = values if count > 1 else values[..., None]
    if values.dtype != np.uint8 and not (
        np.issubdtype(values.dtype, np.integer) and 0 <= values.min() <= values.max() < 256
    ):
        raise AttenScribbleError(f"{name}: its colours have more than 8 bits: save it as an 8-bit picture")
    visible = np.ones(values.shape[:-1], bool)
    if count in (2, 4):
        visible = values[..., -1] > 0
        if (values[..., -1][visible] < 255).any():
            raise AttenScribbleError(
                f"{name}: has pixels that are transparent in part: draw with full opacity, or without alpha"
            )
    colours = values[..., :3] if count > 2 else values[..., :1].repeat(3, axis=-1)
    return colours.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32), visible


def decode_colour(code: int) -> Colour:
    """Red, green and blue of 0xRRGGBB."""
    return code >> 16, code >> 8 & 255, code & 255


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
        if pixels.GetNumberOfComponentsPerPixel() == 1 and not self.by_colour:
            return pixels
        codes, visible = read_colour_codes(pixels, str(self.file))
        label = np.full(codes.shape, self.rest, _smallest_type([self.rest, *self.targets.values()]))
        unknown: list[tuple[int, Colour]] = []
        for code, pixels_of_it in zip(*np.unique(codes[visible], return_counts=True), strict=True):
            colour = decode_colour(int(code))
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
        found = [f"{format_colour(colour)} ({100 * n / size:.3g} %)" for n, colour in sorted(unknown, reverse=True)]
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
