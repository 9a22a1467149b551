"""What label files say of their own values: names of segments, in a header or in a description beside them."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from nnunet_attenscribble.dataset_conversion.pairing import stem
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["DESCRIPTION_ENDINGS", "Legend", "Segment", "find_legends", "parse_description", "read_header"]

#: Of ITK-SNAP's label descriptions; `.txt` may be anything else as well.
DESCRIPTION_ENDINGS = (".label", ".txt")
_ENTRY = re.compile(r'\s*(\d+)((\s+\d+){3})\s+[\d.eE+-]+\s+[01]\s+[01]\s+"(.*)"\s*')  # IDX R G B A VIS MSH "LABEL"
_SEGMENT = re.compile(r"Segment(\d+)_(?:Name|ID|LabelValue|Layer)")
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
        tool: that wrote them.
        source: where they stand: the file itself, or a description beside it.
        segments: by layer and value; 0 only where it is called something.
    """

    tool: str
    source: Path
    segments: tuple[Segment, ...]


def read_header(file: Path) -> Legend | None:
    """The names in an NRRD header, as 3D Slicer (`.seg.nrrd`) and MITK write them; None where there are none.

    Raises:
        AttenScribbleError: where they are damaged.
    """
    if file.suffix.lower() != ".nrrd":
        return None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None  # whoever reads it will tell
    header = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    for tool, read in (("3D Slicer", _read_slicer), ("MITK", _read_mitk)):
        try:
            segments = tuple(read(header))
        except (ValueError, KeyError, TypeError, AttributeError, ElementTree.ParseError) as error:
            raise AttenScribbleError(
                f"{file}: its header does not say what its values mean ({type(error).__name__}: {error}): "
                f"save it again with {tool}"
            ) from None
        if segments:
            return Legend(tool, file, _named(segments))
    return None


def _read_slicer(header: Mapping[str, str]) -> Iterator[Segment]:
    numbers = sorted({int(match[1]) for key in header if (match := _SEGMENT.fullmatch(key))})
    # Before Slicer 4.11 every segment was a layer of its own, with the value 1.
    layered = any(f"Segment{number}_LabelValue" in header for number in numbers)
    for position, number in enumerate(numbers):
        name = header.get(f"Segment{number}_Name") or header[f"Segment{number}_ID"]
        value = int(header.get(f"Segment{number}_LabelValue", 1))
        yield Segment(name.strip(), value, int(header.get(f"Segment{number}_Layer", 0 if layered else position)))


def _read_mitk(header: Mapping[str, str]) -> Iterator[Segment]:
    if _MITK_GROUPS in header:
        for layer, group in enumerate(json.loads(header[_MITK_GROUPS])):
            for label in group.get("labels") or ():
                yield Segment(str(label["name"]).strip(), int(label["value"]), layer)
    for key, text in sorted(header.items()):  # before 2022.10: XML, a key for each label
        if match := _MITK_LABEL.fullmatch(key):
            properties: dict[str | None, Any] = {
                entry.get("key"): next(iter(entry)).get("value")
                for entry in ElementTree.fromstring(text).iter("property")
            }
            yield Segment(properties["name"].strip(), int(properties["value"]), int(match[1]))


def _named(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    kept = [segment for segment in segments if segment.value or segment.name.casefold() not in _NOTHING]
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
            raise ValueError(f"the line {line.strip()!r} is no label")
    return _named(Segment(match[4].strip(), int(match[1])) for match in matches if match)


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
            header = read_header(file)
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
        if not file.name.lower().endswith(DESCRIPTION_ENDINGS):
            continue
        try:
            with file.open(encoding="utf-8", errors="replace") as content:
                segments = parse_description(content.read(_LONGEST))
        except OSError as error:
            problems.append(f"{file}: cannot be read ({error.strerror})")
            continue
        except ValueError as error:
            problems.append(f"{file}: {error} of ITK-SNAP's: save the label descriptions again")
            continue
        if segments is not None:
            descriptions[file] = segments
        elif file.suffix.lower() == ".label":
            problems.append(f"{file}: is no label description of ITK-SNAP: save it again, or remove it")
    return descriptions, problems


def _is_near(description: Path, files: Iterable[Path]) -> bool:
    return any(description.parent in file.parents for file in files)
