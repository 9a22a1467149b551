"""Which folders of a user's data hold images, and which drawings, told by their names and those of the files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_attenscribble.common.files import find_files
from nnunet_attenscribble.dataset_conversion.dicom_series import is_dicom
from nnunet_attenscribble.dataset_conversion.findings import tell_files_apart
from nnunet_attenscribble.dataset_conversion.pairing import stem
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["Drawings", "Layout", "find_layout"]

_NAMES = {
    "images": "image images imagestr trainimages img imgs scan scans volume volumes",
    "scribbles": "scribble scribbles scrib scribs scribbledata labelsscribble stroke strokes drawing drawings drawn",
    "labels": "label labels labelstr trainlabels labelmap labelmaps mask masks seg segs segmentation segmentations "
    "annotation annotations roi rois",
    "dense": "dense denselabels labelsdense labelstrdense gt groundtruth truth reference manual",
    "test_images": "imagests testimages imagestest",
    "test_labels": "labelsts testlabels labelstest",
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names.split()}
_TEST = {"test", "testing", "testset"}  # of folders with folders for images and labels in them
_DRAWN = ("scribbles", "labels", "dense")
#: Last words of names that scribbles do not have.
_DENSE_WORDS = {"dense", "gt", "groundtruth", "truth", "manual"}


@dataclass(frozen=True)
class Drawings:
    """A folder that holds drawings, perhaps among images.

    Attributes:
        folder: they lie below it.
        kind: `scribbles` or `dense`, where names say so; None where they do not.
        files: of them.
    """

    folder: Path
    kind: str | None
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Layout:
    """What is believed of a folder.

    Attributes:
        root: it.
        images: folders that may hold the images; one where that is clear.
        drawings: folders that may hold drawings.
        test_images: of cases kept out of training.
        test_labels: their dense labels.
        unknown: folders, with the number of their files, whose names say nothing.
    """

    root: Path
    images: tuple[Path, ...]
    drawings: tuple[Drawings, ...]
    test_images: Path | None
    test_labels: Path | None
    unknown: Mapping[Path, int]


@dataclass
class _Sorted:
    """Files by the role that a folder's name gives them, and that folder."""

    roles: dict[str, dict[Path, list[Path]]] = field(default_factory=dict)
    rest: list[Path] = field(default_factory=list)


def find_layout(root: Path) -> Layout:
    """Look at names alone.

    Raises:
        AttenScribbleError: where there is no image below `root`, or its files cannot be listed.
    """
    files = [file for file in find_files(root) if stem(file) is not None or is_dicom(file)]
    if not files:
        raise AttenScribbleError(f"{root}: holds no image, nor does any folder in it")
    found = _sort(root, files)
    drawings = [
        Drawings(folder, None if role == "labels" else role, tuple(held))
        for role in _DRAWN
        for folder, held in found.roles.get(role, {}).items()
    ]
    images = dict(found.roles.get("images", {}))
    unknown: dict[Path, int] = {}
    for folder, held in [*images.items(), (root, found.rest)]:
        pictures, scribbles, others = tell_files_apart(folder, held)
        for kind, part in (("scribbles", scribbles), (_kind(others), others)):
            if part:
                drawings.append(Drawings(folder, kind, tuple(part)))
        if folder != root:
            continue
        if found.roles.get("images") or not pictures:
            unknown = _count(root, pictures)
        else:
            images[root] = pictures
            unknown = {} if drawings else _count(root, pictures)
    test = {role: next(iter(found.roles.get(role, {})), None) for role in ("test_images", "test_labels")}
    return Layout(root, tuple(images), tuple(drawings), test["test_images"], test["test_labels"], unknown)


def _sort(root: Path, files: Iterable[Path]) -> _Sorted:
    found = _Sorted()
    for file in files:
        parts = file.relative_to(root).parts[:-1]
        if (place := _find_role(parts)) is None:
            found.rest.append(file)
        else:
            role, depth = place
            folder = root.joinpath(*parts[: depth + 1])
            found.roles.setdefault(role, {}).setdefault(folder, []).append(file)
    for role, folders in list(found.roles.items()):
        if len(folders) > 1 and len({folder.name for folder in folders}) == 1:  # each patient has one
            found.rest += [file for held in folders.values() for file in held]
            del found.roles[role]
    found.rest.sort()
    return found


def _find_role(parts: tuple[str, ...]) -> tuple[str, int] | None:
    """The role of the outermost folder that has one, and its place; images in drawings are images, and vice versa."""
    roles = {place: role for place, part in enumerate(parts) if (role := _ROLES.get(_plain(part))) is not None}
    if not roles:
        return None
    first = min(roles)
    for place, role in roles.items():
        if (role == "images") != (roles[first] == "images"):
            first = place
    role = roles[first]
    if any(_plain(part) in _TEST for part in parts[:first]):
        role = "test_images" if role in ("images", "test_images") else "test_labels"
    return role, first


def _plain(name: str) -> str:
    return re.sub("[_. -]", "", name.casefold())


def _kind(files: Iterable[Path]) -> str | None:
    words = {re.split("[_. -]", stem(file) or "")[-1].casefold() for file in files}
    return "dense" if words and words <= _DENSE_WORDS else None


def _count(root: Path, files: Iterable[Path]) -> dict[Path, int]:
    """Files by the folder of the root that they lie in."""
    counts = Counter(file.relative_to(root).parts[0] if file.parent != root else "" for file in files)
    return {root / name: count for name, count in sorted(counts.items())}
