"""Label files as drawing tools open and save them, and slices by the numbers that these tools show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from matplotlib.colors import to_rgb

from nnunet_attenscribble.common.figures import BACKGROUND_COLOUR, choose_colour
from nnunet_attenscribble.common.formats import holds_place
from nnunet_attenscribble.common.grids import Grid, flatten_onto, geometry_problems, place_on
from nnunet_attenscribble.common.readers import as_readable
from nnunet_attenscribble.common.volumes import Source, describe, read_volume, unscale_label, write_volume
from nnunet_attenscribble.dataset_conversion.cases import Coding
from nnunet_attenscribble.dataset_conversion.findings import find_reading
from nnunet_attenscribble.dataset_conversion.label_files import read_legend
from nnunet_attenscribble.dataset_conversion.meanings import BACKGROUND, PRESETS, Marks
from nnunet_attenscribble.errors import AttenScribbleError

#: The ending of label files by the tool that they are for.
TOOLS = {"slicer": ".seg.nrrd", "itk-snap": ".nii.gz", "napari": ".tif"}
_CODING = PRESETS["chaos"]  # tools have 0 where nothing is drawn; a stroke of background is one more than the classes
_LETTERS = "zyx"  # of an array's axes


def tell_slice(tool: str, axis: int, position: int, grid: Grid) -> str:
    """A slice as the tool shows it.

    Args:
        tool: of `TOOLS`.
        axis: of the array (z, y, x).
        position: on it, from 0.
        grid: of the image.
    """
    if tool == "slicer":  # its Data Probe counts voxels from 0, its slider has millimetres
        letter, offset = find_offset(axis, position, grid)
        return f"{'KJI'[axis]} {position} ({letter} {offset:.1f} mm)"
    if tool == "itk-snap":  # its Cursor Inspector counts from 1
        return f"{_LETTERS[axis]} {position + 1}"
    return f"axis {axis}, {position}"


def find_offset(axis: int, position: int, grid: Grid) -> tuple[str, float]:
    """The anatomical axis nearest to a slice's normal, and the slice's place on it: mm to the right, front or head.

    Args:
        axis, position, grid: as of `tell_slice`.
    """
    if len(grid.size) == 2:
        return "S", 0.0
    column = len(grid.size) - 1 - axis
    place = np.array(grid.origin) + grid.axes[:, column] * grid.spacing[column] * position
    turned = np.array((-1, -1, 1))[: len(place)]  # SimpleITK's axes run to the left, the back and the head
    across = np.linalg.inv(grid.axes)[column]  # the axis itself, but for one that is not at right angles to the others
    nearest = int(np.abs(across).argmax())
    normal = across / np.linalg.norm(across) * turned
    return "RAS"[nearest], float(normal @ (place * turned) * np.sign(normal[nearest]))


def describe_labels(labels: Mapping[str, int]) -> str:
    """ITK-SNAP's description of the values in drawings: classes, and one more for strokes of background."""
    entries = [(0, "Clear Label", (0.0, 0.0, 0.0))]
    entries += [(value, _clean(name), _colour(name, value)) for name, value in _strokes(labels).items()]
    lines = ["# ITK-SnAP Label Description File", "# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL"]
    for value, name, colour in entries:
        red, green, blue = (round(255 * part) for part in colour)
        shown = 1 if value else 0
        lines.append(f'{value:5d} {red:5d} {green:4d} {blue:4d} {shown:8d} {shown:2d} {shown:2d}    "{name}"')
    return "\n".join(lines) + "\n"


def write_drawing(file: Path, values: np.ndarray, grid: Grid, labels: Mapping[str, int], *, dense: bool) -> None:
    """Write a label file for the tool that its ending is of.

    Args:
        file: to write.
        values: (Z, Y, X) of the dataset: in a drawing, one more than the highest class where nobody drew.
        grid: of the image.
        labels: name to value, background included.
        dense: it is a prediction, and no drawing.
    """
    if not dense:
        values = np.where(values == 0, len(labels), np.where(values == len(labels), 0, values))
    values = values.astype(np.uint8)
    if file.suffix == ".tif":
        write_tiff(file, values if len(grid.size) == 3 else values[0])
        return
    image = sitk.GetImageFromArray(values)
    if len(grid.size) == 3:
        grid.put(image)
    else:  # one slice
        image.SetSpacing((*grid.spacing, 1.0))
        image.SetOrigin((*grid.origin, 0.0))
        image.SetDirection((*grid.direction[:2], 0.0, *grid.direction[2:], 0.0, 0.0, 0.0, 1.0))
    if file.name.endswith(TOOLS["slicer"]):
        drawn = {name: value for name, value in labels.items() if value} if dense else _strokes(labels)
        _name_segments(image, drawn)
    write_volume(image, file)


def write_tiff(file: Path, voxels: np.ndarray) -> None:
    """Write a compressed TIFF of grey values, a page for each slice."""
    import tifffile

    tifffile.imwrite(file, voxels, photometric="minisblack", compression="zlib")


def _name_segments(image: sitk.Image, labels: Mapping[str, int]) -> None:
    """3D Slicer's description of segments, all of them in one layer."""
    extent = " ".join(f"0 {length - 1}" for length in image.GetSize())
    for number, (name, value) in enumerate(labels.items()):
        told = {
            "ID": f"Segment_{value}",
            "Name": _clean(name),
            "Color": " ".join(f"{part:.6g}" for part in _colour(name, value)),
            "LabelValue": str(value),
            "Layer": "0",
            "Extent": extent,
            "Tags": "|",
        }
        for key, text in told.items():
            image.SetMetaData(f"Segment{number}_{key}", text)
    image.SetMetaData("Segmentation_MasterRepresentation", "Binary labelmap")
    image.SetMetaData("Segmentation_ContainedRepresentationNames", "Binary labelmap|")
    image.SetMetaData("Segmentation_ReferenceImageExtentOffset", "0 0 0")


def read_drawing(file: Path, image: Source, labels: Mapping[str, int], *, dense: bool) -> np.ndarray:
    """The voxels of a drawing, by the names of its segments where it has them.

    Args:
        file: of whatever tool.
        image: that it was drawn on.
        labels: name to value, background included.
        dense: it is a prediction that was corrected: what is in no class is background.

    Returns:
        (Z, Y, X) values of the dataset in the order of the image; one more than the highest where nobody drew.

    Raises:
        AttenScribbleError: it cannot be read, lies on another grid, or has values or names that are no class.
    """
    names = {_clean(name): None for name, value in labels.items() if value}
    marks = Marks(names, None if dense else _CODING, dense=dense)
    found = find_reading(file, image, read_legend(file), marks)
    drawn = read_volume(as_readable(found.source, label=True), str(file), label=True)
    grid = Grid.of(read_volume(image, describe(image, "its image"), thorough=False, whole=False))
    drawn = flatten_onto(drawn, grid)
    if not holds_place(file) and drawn.GetSize() == grid.size:
        grid.put(drawn)
    if problems := geometry_problems(grid, drawn, str(file), describe(image, "its image")):
        raise AttenScribbleError(problems)
    stroke = len(labels)  # of background; painted into a prediction it is no mistake
    known = {**{value: value for value in range(stroke)}, stroke: 0}
    coding = Coding(labels, marks.coded, known, with_dense=True, trusted=True)
    drawn = place_on(unscale_label(drawn)[0], grid)
    values = coding.dense(drawn, str(file)) if dense else coding.scribble(drawn, str(file))[0]
    return as_volume(values)


def as_volume(values: np.ndarray) -> np.ndarray:
    """Voxels as (Z, Y, X): a picture is a volume of one slice."""
    return values if values.ndim == 3 else values[None]


def _strokes(labels: Mapping[str, int]) -> dict[str, int]:
    """Name to value in a drawing."""
    return {**{name: value for name, value in labels.items() if value}, BACKGROUND: len(labels)}


def _colour(name: str, value: int) -> tuple[float, float, float]:
    return to_rgb(BACKGROUND_COLOUR if name == BACKGROUND else choose_colour(value - 1))


def _clean(name: str) -> str:
    """A name for headers, which end with the line, and for quotes."""
    return " ".join(name.replace('"', "'").split())
