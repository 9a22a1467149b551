"""Label files as 3D Slicer, MITK and ITK-SNAP write them, headers included."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.tiny import DIRECTION, ORIGIN, SPACING

DESCRIPTION_HEAD = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
################################################
    0     0    0    0        0  0  0    "Clear Label"
"""


def describe_labels(*labels: tuple[int, str]) -> str:
    """The label descriptions that ITK-SNAP saves."""
    return DESCRIPTION_HEAD + "".join(
        f'{value:5d}   255    0    0        1  1  1    "{name}"\n' for value, name in labels
    )


def write_slicer(
    file: Path,
    layers: Sequence[np.ndarray],
    segments: Sequence[tuple[str, int, int]],
    *,
    cropped: bool = False,
    spacing=SPACING,
    origin=ORIGIN,
    direction=DIRECTION,
) -> None:
    """A `.seg.nrrd` of (z, y, x) layers, with the (name, value, layer) of each segment; cropped to what is drawn."""
    stacked = np.stack(layers)
    low, high = np.zeros(3, int), np.array(stacked.shape[1:])
    if cropped:
        drawn = np.argwhere((stacked != 0).any(axis=0))
        low, high = drawn.min(axis=0), drawn.max(axis=0) + 1
    part = stacked[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    offset = low[::-1]
    extra = {}
    for number, (name, value, layer) in enumerate(segments):
        extra |= {
            f"Segment{number}_Color": "0.5 0.7 0.3",
            f"Segment{number}_Extent": " ".join(str(edge) for n in part.shape[:0:-1] for edge in (0, n - 1)),
            f"Segment{number}_ID": f"Segment_{number + 1}",
            f"Segment{number}_LabelValue": str(value),
            f"Segment{number}_Layer": str(layer),
            f"Segment{number}_Name": name,
            f"Segment{number}_Tags": "Segmentation.Status:inprogress|",
        }
    extra |= {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": " ".join(map(str, offset)),
    }
    axes = np.reshape(direction, (3, 3)) * spacing
    write_nrrd(file, part, extra, axes, np.array(origin) + axes @ offset, kind="list")


def write_mitk(file: Path, layers: Sequence[np.ndarray], groups: Sequence[Sequence[tuple[str, int]]], **grid) -> None:
    """A multilabel segmentation with the (name, value) of the labels of each group."""
    told = [
        {
            "labels": [
                {"color": {"type": "ColorProperty", "value": [1.0, 0.0, 0.0]}, "locked": True, "name": name, "value": n}
                for name, n in group
            ]
        }
        for group in groups
    ]
    extra = {
        "modality": "org.mitk.multilabel.segmentation",
        "org.mitk.multilabel.segmentation.labelgroups": json.dumps(told),
        "org.mitk.multilabel.segmentation.version": "1",
    }
    axes = np.reshape(grid.get("direction", DIRECTION), (3, 3)) * grid.get("spacing", SPACING)
    write_nrrd(file, np.stack(layers), extra, axes, grid.get("origin", ORIGIN), kind="vector")


def write_old_mitk(file: Path, values: np.ndarray, labels: Sequence[tuple[str, int]]) -> None:
    """As MITK wrote it before 2022.10: a key with XML for each label, the exterior among them."""
    extra = {"modality": "org.mitk.image.multilabel", "layers": "1", "layer_000": str(len(labels) + 1)}
    for number, (name, value) in enumerate([("Exterior", 0), *labels]):
        extra[f"org.mitk.label_000_{number:05d}"] = (
            '<?xml version="1.0" ?><Label><property key="locked" type="BoolProperty"><bool value="true"/></property>'
            f'<property key="name" type="StringProperty"><string value="{name}"/></property>'
            f'<property key="value" type="IntProperty"><int value="{value}"/></property></Label>'
        )
    write_nrrd(file, values[None], extra, np.reshape(DIRECTION, (3, 3)) * SPACING, ORIGIN, kind="vector")


def write_nrrd(file: Path, layers: np.ndarray, extra: dict[str, str], axes: np.ndarray, origin, *, kind: str) -> None:
    """(layers, z, y, x) voxels and a header with further keys; `axes` has the step of x, y, z in its columns."""
    several = len(layers) > 1
    steps = " ".join("(" + ",".join(f"{part:.17g}" for part in column) + ")" for column in np.asarray(axes).T)
    sizes = " ".join(map(str, layers.shape[:0:-1]))
    lines = [
        "NRRD0005",
        "type: unsigned char",
        f"dimension: {3 + several}",
        "space: left-posterior-superior",
        f"sizes: {f'{len(layers)} ' if several else ''}{sizes}",
        f"space directions: {'none ' if several else ''}{steps}",
        f"kinds: {f'{kind} ' if several else ''}domain domain domain",
        "encoding: gzip",
        "space origin: (" + ",".join(f"{part:.17g}" for part in origin) + ")",
        *(f"{key}:={value}" for key, value in extra.items()),
    ]
    voxels = np.moveaxis(layers, 0, -1) if several else layers[0]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(("\n".join(lines) + "\n\n").encode() + gzip.compress(voxels.astype(np.uint8).tobytes()))


def recode(values: np.ndarray, coded: Sequence[int], rest: int = 0) -> np.ndarray:
    """Strokes with other values: `coded` by class, background first; `rest` where nobody drew."""
    return np.select([values == value for value in range(4)], coded, rest).astype(np.uint8)
