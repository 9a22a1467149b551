"""A user's own folders: images, scribbles and perhaps dense labels that belong together by their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from nnunet_attenscribble.common.files import find_files
from nnunet_attenscribble.common.volumes import Source, split_channels
from nnunet_attenscribble.dataset_conversion.codings import (
    PRESETS,
    UNLABELLED_NAMES,
    ScribbleCoding,
    dense_values,
    scribble_values,
)
from nnunet_attenscribble.dataset_conversion.pairing import (
    ENDINGS,
    group_images,
    match_labels,
    numbered_cases,
    unusable_files,
)
from nnunet_attenscribble.dataset_conversion.raw_dataset import Case, WrittenDatasets, write_raw_datasets
from nnunet_attenscribble.dataset_conversion.splits import group_by_subject, make_splits
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["convert_folder", "parse_labels"]


def convert_folder(
    images: Path,
    scribbles: Path | None,
    *,
    classes: Mapping[str, int],
    dense: Path | None = None,
    test_images: Path | None = None,
    test_labels: Path | None = None,
    channels: Sequence[str] = ("MRI",),
    subject: str | None = None,
    spacing: Sequence[float] | None = None,
    dense_id: int | None = None,
    coding: ScribbleCoding = PRESETS["acdc"],
    provenance: Mapping[str, object] | None = None,
    **writing: Any,
) -> WrittenDatasets:
    """Write folders of images and labels as a scribble dataset, with its dense twin where there are dense labels.

    Args:
        images: every file below it with one of `pairing.ENDINGS`, named by case, with a channel number or without.
        scribbles: folder, one file per case, named as it or so with something behind; None: with
            `dense`, a dense dataset alone, into which `attenscribble scribble` draws.
        classes: name to value in the label files, without background.
        dense: folder of dense labels, in which 0 is the background.
        test_images: cases kept out of training.
        test_labels: their dense labels.
        channels: names, which decide nnU-Net's normalisation (`CT` is special).
        subject: regular expression found in a case's name: cases in which it finds the same, its first group or the
            whole match, stay on one side of a fold.
        spacing: mm along x, y, z, of files that state none.
        dense_id: of the twin; None: the dataset's plus one where there are dense labels.
        coding: of the scribbles.
        provenance: of the source, for the JSON beside dataset.json.
        writing: further arguments of `write_raw_datasets`: `raw_folder`, `dataset_id`, `name`, `link`...

    Raises:
        AttenScribbleError: every problem of the input, one sentence each.
    """
    if scribbles is None and dense is None:
        raise AttenScribbleError(f"{images}: has nothing to learn from: give --scribbles, or --dense, or both")
    labels = {"background": 0, **{name: value for value, name in enumerate(classes, start=1)}}
    values = None if scribbles is None else scribble_values(labels, coding, classes)
    files = find_files(images)
    given, problems = group_images(files)
    if not given:
        raise AttenScribbleError(f"{images}: holds no image ({', '.join(ENDINGS)}), nor does any folder in it")
    label_files = {folder: find_files(folder) for folder in (scribbles, dense, test_labels) if folder is not None}
    test_files = [] if test_images is None else find_files(test_images)
    for pictures, folder in ((files, scribbles), (files, dense), (test_files, test_labels)):
        if folder is not None and (problem := numbered_cases(pictures, label_files[folder])):
            raise AttenScribbleError(problem)  # what else would be found follows from it
    tests, more = group_images(test_files)
    problems += more + unusable_files([*files, *test_files])
    problems += [
        f"{tests[case][0]}: is a test case and a training case, {given[case][0]}" for case in tests if case in given
    ]

    def match(folder: Path | None, cases: Collection[str], what: str) -> dict[str, Path]:
        if folder is None:
            return {}
        problems.extend(unusable_files(label_files[folder]))
        found, more = match_labels(label_files[folder], cases, what)
        if not found:
            raise AttenScribbleError([*problems, f"{folder}: holds no {what} named as one of the images"])
        problems.extend(more)
        return found

    drawn, truth = match(scribbles, given, "scribble"), match(dense, given, "dense label")
    held_back = match(test_labels, tests, "dense label")
    if spacing is not None and not all(0 < step < float("inf") for step in spacing):
        problems.append(f"spacing {tuple(spacing)}: give positive numbers, in mm along x, y and z")
    step = None if spacing is None else tuple(spacing)

    def open_images(files: tuple[Path, ...]) -> tuple[Source, ...]:
        """A picture in colour has several channels in one file."""
        try:
            return files if len(files) >= len(channels) else tuple(chain.from_iterable(map(split_channels, files)))
        except AttenScribbleError:
            return files  # as which they are checked, and told

    cases = [
        Case(case, open_images(files), drawn.get(case), truth.get(case), spacing=step) for case, files in given.items()
    ]
    cases += [
        Case(case, open_images(files), dense=held_back.get(case), test=True, spacing=step)
        for case, files in tests.items()
        if case not in given
    ]
    splits: list | None = None
    notes: list[str] = []
    if subject is not None:
        groups, note, more = group_by_subject(given, subject)
        problems += more
        splits, notes = make_splits(groups, None, problems)
        notes.insert(0, note)
    if dense is not None and scribbles is not None and dense_id is None:
        dense_id = writing["dataset_id"] + 1
    written = write_raw_datasets(
        cases,
        channel_names=dict(enumerate(channels)),
        labels=labels,
        scribble_values=values,
        dense_values=dense_values(labels, classes),
        provenance={
            "source": "folders of images and labels",
            "options": {"classes": dict(classes), "subject": subject, "coding": vars(coding), "spacing": step},
            **(provenance or {}),
        },
        dense_id=dense_id,
        dense_only=scribbles is None,
        splits=splits,
        problems=problems,
        **writing,
    )
    if scribbles is not None and not written.scribble_voxels["background"]:
        notes.append("no scribble marks background: a network cannot learn from them where its classes end")
    return replace(written, notes=(*written.notes, *notes))


def parse_labels(text: str) -> dict[str, int]:
    """Classes and their values in the label files from `RV,MYO,LV` (1, 2, 3) or `liver=63,spleen=252`.

    >>> parse_labels("liver=63,spleen=252")
    {'liver': 63, 'spleen': 252}
    """
    classes: dict[str, int] = {}
    for position, part in enumerate(text.split(","), start=1):
        match = re.fullmatch(r"\s*([^=\s][^=]*?)\s*(?:=\s*(\d+)\s*)?", part)
        name = match[1] if match else ""
        value = int(match[2] or position) if match else 0
        reserved = name.casefold() in ("background", *UNLABELLED_NAMES)
        if not match or reserved or name in classes or value == 0 or value in classes.values():
            raise AttenScribbleError(
                f"labels {text!r}: {part.strip()!r} is no class of its own: give names such as RV,MYO,LV, "
                "or with their values in the files, liver=63,spleen=252, without background and unlabelled"
            )
        classes[name] = value
    return classes
