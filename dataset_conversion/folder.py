"""A user's own folders: images, scribbles and perhaps dense labels that belong together by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_attenscribble.common.formats import is_sheared
from nnunet_attenscribble.common.readers import DatasetFile, Reader, as_reader
from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.dataset_conversion.cases import Case
from nnunet_attenscribble.dataset_conversion.codings import PRESETS, ScribbleCoding
from nnunet_attenscribble.dataset_conversion.findings import Folders, look_at_folders
from nnunet_attenscribble.dataset_conversion.meanings import Marks, parse_marks
from nnunet_attenscribble.dataset_conversion.partly import read_annotated
from nnunet_attenscribble.dataset_conversion.raw_dataset import (
    RawDataset,
    Writing,
    WrittenDatasets,
    write_raw_datasets,
)
from nnunet_attenscribble.dataset_conversion.splits import group_by_subject, make_splits, make_splits_by_case
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["convert_folder", "parse_labels"]


def convert_folder(
    images: Path,
    scribbles: Path | None,
    *,
    dataset_id: int,
    name: str,
    classes: Mapping[str, int | str | None],
    dense: Path | None = None,
    test_images: Path | None = None,
    test_labels: Path | None = None,
    channels: Sequence[str] = ("MRI",),
    undrawn_as_test: bool = False,
    subject: str | None = None,
    spacing: Sequence[float] | None = None,
    dense_id: int | None = None,
    coding: ScribbleCoding | None = None,
    background: str | None = None,
    unlabelled: str | None = None,
    dense_slices: str | None = None,
    axis: int | None = None,
    annotated: Path | None = None,
    provenance: Mapping[str, object] | None = None,
    **writing: Any,
) -> WrittenDatasets:
    """Write folders of images and labels as a scribble dataset, with its dense twin where there are dense labels.

    Args:
        images: every file below it with one of `pairing.ENDINGS`, or folder with a DICOM series, named by case, with a
            channel or without; see `pair_files`.
        scribbles: folder, one file per case, named as it or so with something behind; None: with
            `dense`, a dense dataset alone, into which `attenscribble scribble` draws.
        dataset_id: of the dataset.
        name: of the dataset.
        classes: name to value, name or colour in the label files, without background; None: its position, from 1.
            Files that say what their values are called (3D Slicer, MITK, ITK-SNAP) are read by these names.
        dense: folder of dense labels, in which 0 is the background.
        test_images: cases kept out of training.
        test_labels: their dense labels.
        channels: names, which decide nnU-Net's normalisation (`CT` is special).
        undrawn_as_test: images without a scribble (without `scribbles`: a dense label) are test cases, to predict on.
        subject: regular expression found in a case's name: cases in which it finds the same, its first group or the
            whole match, stay on one side of a fold.
        spacing: mm along x, y, z, of files that state none.
        dense_id: of the twin; None: the dataset's plus one where there are dense labels.
        coding: of scribbles that have values alone; None: that of ACDC.
        background: name or colour of background strokes in the files, besides `background`.
        unlabelled: name or colour of what nobody drew on.
        dense_slices: regular expression found in the names of cases whose scribble is dense in the slices that show a
            class, and unlabelled in the others; strokes among them stay strokes.
        axis: of the array (z, y, x), across which these slices are cut; None: the coarsest.
        annotated: CSV with the columns `case` and `classes` (`;` between them): the classes that were annotated in a
            case, as strokes or densely. Where that is not all, background becomes `ignore`: the others may be there.
        provenance: of the source, for the JSON beside dataset.json.
        writing: fields of `Writing`: `raw_folder`, `link`, `workers`...

    Raises:
        AttenScribbleError: every problem of the input, one sentence each.
    """
    if scribbles is None and dense is None:
        raise AttenScribbleError(f"{images}: has nothing to learn from: give --scribbles, or --dense, or both")
    marks = Marks(classes, coding, background, unlabelled)
    if marks.problems():
        raise AttenScribbleError(marks.problems())
    if spacing is not None and not all(0 < step < float("inf") for step in spacing):
        raise AttenScribbleError(f"spacing {tuple(spacing)}: give positive numbers, in mm along x, y and z")
    step = None if spacing is None else tuple(spacing)
    whole = _compile(dense_slices)
    values = None if scribbles is None else marks.scribble_values  # refused where one value would mean two things
    found = look_at_folders(Folders(images, scribbles, dense, test_images, test_labels), marks, channels)
    problems = list(found.problems)
    cases = [case.or_test(dense_only=scribbles is None) for case in found.cases] if undrawn_as_test else found.cases
    training = [case.identifier for case in cases if not case.test]
    if subject is not None:
        groups, note, more = group_by_subject(training, subject)
        problems += more
        splits, notes = make_splits(groups, None, problems)
        notes.insert(0, note)
    else:
        splits, notes = make_splits_by_case(training, problems)
    if whole is not None and not any(map(whole.search, training)):
        problems.append(f"--dense-slices {dense_slices!r}: is found in the name of no case: `.` is all of them")
    if annotated is not None and scribbles is None:
        raise AttenScribbleError(f"{annotated}: is about --scribbles: give the labels as these, dense ones too")
    looked_for = {} if annotated is None else read_annotated(annotated, marks.labels, training, problems)
    in_part = [case for case, values in looked_for.items() if len(values) < len(marks.labels) - 1]
    if in_part:
        notes.append(f"some classes alone are annotated, and no background, in {len(in_part)}: {list_some(in_part)}")
    if dense is not None and scribbles is not None and dense_id is None:
        dense_id = dataset_id + 1
    written, reader = _read_sheared(
        [
            case.as_case(
                step, whole is not None and bool(whole.search(case.identifier)), looked_for.get(case.identifier)
            )
            for case in cases
        ]
    )
    if reader is not None:
        notes.append(f"images have axes that are not at right angles: dataset.json names {reader.__name__} for nnU-Net")
    return write_raw_datasets(
        written,
        RawDataset(
            dataset_id=dataset_id,
            name=name,
            channel_names=dict(enumerate(channels)),
            labels=marks.labels,
            scribble_values=values,
            dense_values=marks.dense_values,
            provenance={
                "source": "folders of images and labels",
                "options": {
                    "classes": {name: marks.values[name] if mark is None else mark for name, mark in classes.items()},
                    "subject": subject,
                    "coding": vars(coding or PRESETS["acdc"]),
                    "spacing": step,
                    **({} if dense_slices is None else {"dense_slices": dense_slices, "axis": axis}),
                    **({} if annotated is None else {"annotated": looked_for}),
                },
                **(provenance or {}),
            },
            dense_id=dense_id,
            dense_only=scribbles is None,
            slice_axis=axis,
            reader=reader,
            splits=splits,
        ),
        Writing(**writing),
        problems=problems,
        notes=[*found.tell_readings(), *notes],
    )


def _read_sheared(cases: list[Case]) -> tuple[list[Case], Reader]:
    """The same cases; where an image has axes that are not at right angles, read by nnU-Net's reader for them."""
    images = [source for case in cases for source in case.images if isinstance(source, Path)]
    if not any(map(is_sheared, images)):
        return cases, None
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO

    def read(source: Any, *, label: bool = False) -> Any:
        is_nifti = isinstance(source, Path) and source.name.lower().endswith(tuple(NibabelIO.supported_file_endings))
        return DatasetFile(source, as_reader(NibabelIO), label=label) if is_nifti else source

    return [
        replace(
            case,
            images=tuple(map(read, case.images)),
            scribble=read(case.scribble, label=True),
            dense=read(case.dense, label=True),
        )
        for case in cases
    ], as_reader(NibabelIO)


def _compile(pattern: str | None) -> re.Pattern[str] | None:
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise AttenScribbleError(f"--dense-slices {pattern!r}: is no regular expression ({error})") from None


def parse_labels(text: str) -> dict[str, int]:
    """Classes and their values in the label files from `RV,MYO,LV` (1, 2, 3) or `liver=63,spleen=252`.

    >>> parse_labels("liver=63,spleen=252")
    {'liver': 63, 'spleen': 252}
    """
    marks = parse_marks(text)
    if named := [f"{name}={mark}" for name, mark in marks.items() if isinstance(mark, str)]:
        raise AttenScribbleError(
            f"labels {text!r}: {named[0]!r} is no class of its own: give a value in place of a name"
        )
    return Marks(marks).values
