"""What is wrong with a dataset that is to be written, and what its owner should know of it: by its names and numbers,
and by what the check of each case found."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nnunet_attenscribble.common.text import has_control_character, list_some, normalise
from nnunet_attenscribble.common.volumes import describe
from nnunet_attenscribble.dataset_conversion.cases import IGNORE, Case, CheckedCase, Coding

#: What Windows has devices for, and no files.
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))}
_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')


def name_problems(name: str, dataset_id: int, dense_id: int | None, dense_only: bool) -> list[str]:
    """Of the names and numbers of the dataset and its twin."""
    problems = [
        f"dataset ID {number}: nnU-Net knows 1 to 999"
        for number in (dataset_id, dense_id)
        if number is not None and not 1 <= number <= 999
    ]
    if dense_only and dense_id is not None:
        problems.append(f"--dense-id {dense_id}: without --scribbles there is no twin: leave it out")
    elif dense_id == dataset_id:
        problems.append(f"dataset ID {dense_id}: the dense twin needs an ID of its own, not that of the scribbles")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        problems.append(f"dataset name {name!r}: use letters, digits, _ and - only")
    return problems


def folder_problems(*folders: Path | None) -> list[str]:
    """Of the folders that will be written to."""
    problems = []
    for folder in filter(None, folders):
        existing = next((place for place in (folder.absolute(), *folder.absolute().parents) if place.exists()), None)
        if existing is None:  # of Windows
            problems.append(f"{folder}: is on a drive that is not there: choose another folder")
        elif not existing.is_dir():
            problems.append(f"{existing}: is not a folder: nothing can be written to {folder}")
        elif not os.access(existing, os.W_OK | os.X_OK):
            problems.append(f"{existing}: is read-only: choose a folder you may write to")
    return problems


def spacing_problems(spacing: Sequence[float] | None) -> list[str]:
    """Steps along x, y and z, given by a user, that are none."""
    if spacing is None or (len(spacing) == 3 and all(0 < step < float("inf") for step in spacing)):
        return []
    return [f"spacing {tuple(spacing)}: give three numbers above 0, in mm along x, y and z"]


def taken_id_problems(ids: set[int], folders: Iterable[Path | None]) -> list[str]:
    """nnU-Net refuses two datasets with one ID, wherever the second of them is."""
    prefixes = tuple(f"Dataset{number:03d}_" for number in sorted(ids))
    return [
        f"{entry}: has the dataset ID {entry.name[7:10]} already: delete it, or choose another ID"
        for folder in folders
        if folder is not None and folder.is_dir()
        for entry in sorted(folder.iterdir())
        if entry.name.startswith(prefixes)
    ]


def case_problems(cases: Sequence[Case], channels: int, with_dense: bool, dense_only: bool) -> list[str]:
    """Of the list of cases."""
    if all(case.test for case in cases):
        return ["no training case was found"] if not cases else ["every case is a test case: none is left for training"]
    problems = identifier_problems([case.identifier for case in cases])
    for case in cases:
        if len(case.images) != channels:
            problems.append(
                f"case {case.identifier}: has {len(case.images)} image channels instead of {channels}: "
                "name each of them with --channels (R,G,B for a picture in colour), or mend its files"
            )
        if not case.test and case.scribble is None and not dense_only:
            problems.append(f"case {case.identifier}: has no scribble: add it, or make it a test case")
        if not case.test and with_dense and case.dense is None:
            otherwise = "remove the case" if dense_only else "leave out the dense twin"
            problems.append(f"case {case.identifier}: has no dense label: add it, or {otherwise}")
    return problems


def identifier_problems(identifiers: Sequence[str]) -> list[str]:
    """Of names that not every system keeps, or keeps apart: a dataset is copied from one to another."""
    counts = Counter(identifiers)
    problems = [
        f"case {name}: comes {count} times: names must be unique" for name, count in counts.items() if count > 1
    ]
    alike: dict[str, list[str]] = {}
    for name in counts:
        alike.setdefault(normalise(name).casefold(), []).append(name)
    problems += [
        f"cases {' and '.join(names)}: are one file on macOS and Windows: rename all but one"
        for names in alike.values()
        if len(names) > 1
    ]
    for name in counts:
        if not name or name.startswith(".") or _FORBIDDEN.search(name) or has_control_character(name):
            problems.append(
                f"case {name!r}: cannot be part of a file name on every system: leave out control characters, "
                'any of <>:"/\\|?* and a full stop at the beginning'
            )
        elif name != name.strip() or name.endswith("."):
            problems.append(f"case {name!r}: begins or ends with a blank, or ends with a full stop: take it out")
        elif name.partition(".")[0].rstrip().upper() in _RESERVED:
            problems.append(f"case {name!r}: is the name of a device on Windows, whatever follows: rename it")
    return problems


def dimension_problems(checked: Iterable[tuple[Case, CheckedCase]]) -> list[str]:
    """Of slices among volumes, or volumes among slices, which nnU-Net cannot plan together."""
    return unlike_dimensions(
        (describe(case.images[0], f"case {case.identifier}"), result.dimensions)
        for case, result in checked
        if result.dimensions is not None
    )


def unlike_dimensions(images: Iterable[tuple[str, int]]) -> list[str]:
    """Of images that have another number of dimensions than most; each is a name and that number."""
    named = list(images)
    counts = Counter(dimensions for _, dimensions in named)
    usual = counts.most_common(1)[0][0] if counts else None
    return [
        f"{name}: has {dimensions} dimensions, the others {usual}: make a dataset of its own of them"
        for name, dimensions in named
        if dimensions != usual
    ]


def split_problems(splits: Sequence[Mapping[str, Sequence[str]]], training: set[str]) -> list[str]:
    """Of the folds."""
    problems = []
    for fold, split in enumerate(splits):
        train, val = set(split["train"]), set(split["val"])
        problems += [f"fold {fold}: {side} holds no case" for side, ids in (("train", train), ("val", val)) if not ids]
        problems += [f"fold {fold}: {one} is in both train and val" for one in sorted(train & val)]
        problems += [f"fold {fold}: {one} is not a training case" for one in sorted((train | val) - training)]
    return problems


def nothing_drawn_problems(checked: Iterable[tuple[Case, CheckedCase]], coding: Coding) -> list[str]:
    """Of scribbles in which no class has a stroke, in any case; none where they are trusted."""
    drawn = [result.scribble_voxels for case, result in checked if case.scribbled]
    if coding.trusted or not drawn or any(any(voxels[1 : coding.ignore]) for voxels in drawn):
        return []
    strokes = "a stroke of a class" if any(voxels[0] for voxels in drawn) else "a stroke"
    return [
        f"none of the {len(drawn)} scribbles holds {strokes}: draw first, or say which value is unlabelled "
        "(--unlabelled, --coding) and which are classes (--labels); --trust-scribbles takes them as they are"
    ]


def drawing_notes(checked: Iterable[tuple[Case, CheckedCase]], voxels: Mapping[str, int]) -> list[str]:
    """Of classes that are drawn nowhere, and of cases in which nothing is.

    Args:
        checked: cases, with what was found when they were checked.
        voxels: of all training cases together by label: of scribbles, where `ignore` is among them, or of dense labels.
    """
    scribbles = IGNORE in voxels
    never = [label for label, count in voxels.items() if not count and label not in ("background", IGNORE)]
    notes = [
        f"WARNING: {label} {'has no stroke in any case' if scribbles else 'is in no dense label'}: nothing teaches it"
        for label in never
    ]
    if not scribbles:
        return notes
    used = [(case, result) for case, result in checked if case.scribbled]
    classes = len(voxels) - 2  # without background and `ignore`
    unbounded = [
        case.identifier
        for case, result in used
        if not result.scribble_voxels[0] and any(result.scribble_voxels[:-1])
        if case.annotated is None or len({*case.annotated} - {0}) == classes  # of others this is told already
    ]
    if not voxels["background"]:
        notes.append(
            "WARNING: no scribble marks background, so nothing teaches where the classes end: draw a stroke around "
            "them too; of slices labelled as a whole, `convert folder --dense-slices .` makes it"
        )
    elif unbounded:
        notes.append(f"{len(unbounded)} of {len(used)} scribbles mark no background: {list_some(unbounded)}")
    empty = [case.identifier for case, result in used if not any(result.scribble_voxels[:-1])]
    if empty:
        notes.append(f"{len(empty)} of {len(used)} scribbles hold no stroke: {list_some(empty)}")
    return notes
