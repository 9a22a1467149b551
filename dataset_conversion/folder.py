"""A user's own folders, whose images, scribbles and dense labels belong together by their names, as a dataset.

The options of such a conversion are data too, and a YAML file that repeats it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import yaml

from nnunet_attenscribble.common.formats import is_sheared
from nnunet_attenscribble.common.readers import DatasetFile, Reader, as_reader
from nnunet_attenscribble.common.shapes import SIZE, TRUTH, Keys, Shape, is_whole, pattern, read_keys, text, texts
from nnunet_attenscribble.common.text import has_control_character, list_some
from nnunet_attenscribble.common.volumes import AIR, read_volume
from nnunet_attenscribble.dataset_conversion.cases import Case
from nnunet_attenscribble.dataset_conversion.findings import Folders, FoundCase, look_at_folders
from nnunet_attenscribble.dataset_conversion.meanings import (
    PRESETS,
    Mark,
    Marks,
    check_classes,
    choose_coding,
    parse_mark,
    parse_marks,
)
from nnunet_attenscribble.dataset_conversion.partly import read_annotated
from nnunet_attenscribble.dataset_conversion.plan_problems import spacing_problems
from nnunet_attenscribble.dataset_conversion.raw_dataset import (
    RawDataset,
    Writing,
    WrittenDatasets,
    write_raw_datasets,
)
from nnunet_attenscribble.dataset_conversion.splits import (
    group_by_subject,
    make_splits,
    make_splits_by_case,
    tell_likely_subjects,
)
from nnunet_attenscribble.errors import AttenScribbleError, refuse

_ADVICE = "write it again with attenscribble start"


@dataclass(frozen=True)
class FolderOptions:
    """What `convert folder` is told."""

    images: Path
    """Every file below it with one of `pairing.ENDINGS`, or folder with a DICOM series, named by case, with a channel
    or without; see `pair_files`."""
    dataset_id: int
    """1 to 999, in no use yet."""
    name: str
    """Letters, digits, `_` and `-`; the twin's is this and Dense."""
    labels: Mapping[str, Mark | None]
    """Class, without background, to its value, name or colour in the label files; None: its position, from 1. Files
    that say what their values are called (3D Slicer, MITK, ITK-SNAP) are read by these names."""
    scribbles: Path | None = None
    """Folder, one file per case, named as it or so with something behind; None: with `dense`, a dense dataset alone,
    into which `attenscribble scribble` draws."""
    dense: Path | None = None
    """Folder of dense labels, in which 0 is the background."""
    test_images: Path | None = None
    """Cases kept out of training."""
    test_labels: Path | None = None
    """Their dense labels."""
    undrawn_as_test: bool = False
    """Images without a scribble (without `scribbles`: a dense label) are test cases, to predict on."""
    channels: Sequence[str] = ("MRI",)
    """Names, which decide nnU-Net's normalisation (`CT` is special)."""
    subject: str | None = None
    """Regular expression found in a case's name: cases in which it finds the same, its first group or the whole match,
    stay on one side of a fold."""
    spacing: Sequence[float] | None = None
    """mm along x, y, z, of files that state none."""
    link: bool = False
    """See `Writing`."""
    dense_id: int | None = None
    """Of the twin; None: the dataset's plus one where there are dense labels."""
    coding: str | None = None
    """One of `meanings.PRESETS`, of scribbles that have values alone; None: that of ACDC."""
    unlabelled: Mark | None = None
    """Value, name or colour of what nobody drew on."""
    background_scribble: Mark | None = None
    """Of background strokes in the files, besides `background`."""
    dense_slices: str | None = None
    """Regular expression found in the names of cases whose scribble is dense in the slices that show a class, and
    unlabelled in the others; strokes among them stay strokes."""
    axis: int | None = None
    """Of the array (z, y, x), across which these slices are cut; None: the coarsest."""
    annotated: Path | None = None
    """CSV with the columns `case` and `classes` (`;` between them): the classes that were annotated in a case, as
    strokes or densely. Where that is not all, background becomes `ignore`: the others may be there; with `background`
    among them its strokes stay, as they are in none of the others."""
    trust_scribbles: bool = False
    """See `Writing`."""

    def convert(self, writing: Writing, *, provenance: Mapping[str, object] | None = None) -> WrittenDatasets:
        """Write the folders as a scribble dataset, with its dense twin where there are dense labels.

        Args:
            writing: where and how; whether to link and to trust scribbles is said here.
            provenance: of the source, for the JSON beside dataset.json.

        Raises:
            AttenScribbleError: every problem of the input, one sentence each.
        """
        dense_only = self.scribbles is None
        marks = self._say_marks()
        refuse([*marks.problems(), *self._lone_options()])
        scribble_values = None if dense_only else marks.coded
        folders = Folders(self.images, self.scribbles, self.dense, self.test_images, self.test_labels)
        found = look_at_folders(folders, marks, self.channels)
        problems = list(found.problems)
        cases, notes = self._make_cases(found.cases, marks.labels, problems)
        splits, more = self._make_splits([case.identifier for case in cases if not case.test], problems)
        cases, reader = _read_sheared(cases)
        notes += _channel_notes(cases, self.channels, found.cases[0].modality)
        if reader is not None:
            notes.append(
                f"images have axes that are not at right angles: dataset.json names {reader.__name__} for nnU-Net"
            )
        dense_id = self.dense_id
        if dense_id is None and self.dense is not None and not dense_only:
            dense_id = self.dataset_id + 1
        options: dict[str, object] = {
            "classes": {name: marks.values[name] if mark is None else mark for name, mark in self.labels.items()},
            "subject": self.subject,
            "coding": vars(marks.coding or PRESETS["acdc"]),
            "spacing": None if self.spacing is None else tuple(self.spacing),
        }
        if self.dense_slices is not None:
            options |= {"dense_slices": self.dense_slices, "axis": self.axis}
        if self.annotated is not None:
            options["annotated"] = {case.identifier: case.annotated for case in cases if case.annotated is not None}
        return write_raw_datasets(
            cases,
            RawDataset(
                dataset_id=self.dataset_id,
                name=self.name,
                channel_names=dict(enumerate(self.channels)),
                labels=marks.labels,
                scribble_values=scribble_values,
                dense_values=replace(marks, dense=True).coded,
                provenance={"source": "folders of images and labels", "options": options, **(provenance or {})},
                dense_id=dense_id,
                dense_only=dense_only,
                slice_axis=self.axis,
                reader=reader,
                splits=splits,
            ),
            replace(writing, link=self.link, trust_scribbles=self.trust_scribbles),
            problems=problems,
            notes=[*found.tell_readings(), *more, *notes],
        )

    def _make_cases(
        self, found: Sequence[FoundCase], labels: Mapping[str, int], problems: list[str]
    ) -> tuple[list[Case], list[str]]:
        """Cases with how the scribble of each is read, and notes; problems are added."""
        if self.undrawn_as_test:
            found = [case.or_test(dense_only=self.scribbles is None) for case in found]
        training = [case.identifier for case in found if not case.test]
        dense_slices = None if self.dense_slices is None else re.compile(self.dense_slices)
        if dense_slices is not None and not any(map(dense_slices.search, training)):
            problems.append(
                f"--dense-slices {self.dense_slices!r}: is found in the name of no case: `.` is all of them"
            )
        annotated = {} if self.annotated is None else read_annotated(self.annotated, labels, training, problems)
        in_part = [case for case, seen in annotated.items() if 0 not in seen and len(seen) < len(self.labels)]
        told = f"some classes alone are annotated, and no background, in {len(in_part)}: {list_some(in_part)}"
        cases = [
            case.as_case(
                None if self.spacing is None else tuple(self.spacing),
                dense_slices is not None and dense_slices.search(case.identifier) is not None,
                annotated.get(case.identifier),
            )
            for case in found
        ]
        return cases, [told] if in_part else []

    def _say_marks(self) -> Marks:
        """What is said of marks in label files: values of what is no class as a coding, names and colours as such."""
        rest = (self.unlabelled, self.background_scribble)
        values = [mark if isinstance(mark, int) else None for mark in rest]
        unlabelled, background = (mark if isinstance(mark, str) else None for mark in rest)
        is_coded = self.coding is not None or values != [None, None]
        coding = choose_coding(self.coding, *values) if is_coded else None
        return Marks(self.labels, coding, background, unlabelled)

    def _lone_options(self) -> list[str]:
        """Problems of options that need others, or contradict them, or cannot be read."""
        dense_only, problems = self.scribbles is None, []
        if dense_only and self.dense is None:
            problems.append(f"{self.images}: has nothing to learn from: give --scribbles, or --dense, or both")
        problems += [
            f"{option} {value}: is about --scribbles: give the labels as these, dense ones too"
            for option, value in {"--dense-slices": self.dense_slices, "--annotated": self.annotated}.items()
            if value is not None and dense_only
        ]
        if self.axis is not None and self.dense_slices is None:
            problems.append(f"--axis {self.axis}: is about --dense-slices: give both, or neither")
        if self.test_labels is not None and self.test_images is None:
            problems.append(
                f"--test-labels {self.test_labels}: has no --test-images; the dense labels of images that nobody drew "
                "on (--undrawn-as-test) are found in --dense"
            )
        try:
            re.compile(self.dense_slices or "")
        except re.error as error:
            problems.append(f"--dense-slices {self.dense_slices!r}: is no regular expression ({error})")
        return problems + spacing_problems(self.spacing)

    def _make_splits(
        self, training: list[str], problems: list[str]
    ) -> tuple[list[dict[str, list[str]]] | None, list[str]]:
        """Folds of these cases and notes; problems are added."""
        if self.subject is None:
            splits, notes = make_splits_by_case(training, problems)
            return splits, notes + tell_likely_subjects(training)
        groups, note, more = group_by_subject(training, self.subject)
        problems += more
        splits, notes = make_splits(groups, None, problems)
        return splits, [note, *notes]


def _channel_notes(cases: Sequence[Case], channels: Sequence[str], modality: str | None) -> list[str]:
    """Whether the first image is CT by its header, name or values, and no channel is called so."""
    if any(name.casefold() == "ct" for name in channels):
        return []
    if modality == "CT" and len(channels) == 1:
        return [
            f"header or name of the images of {cases[0].identifier} says CT: if it is, convert again with --channels "
            "CT, as nnU-Net normalises CT by its own rule"
        ]
    try:
        image = read_volume(cases[0].images[0], "")
    except AttenScribbleError:
        return []  # told where all are checked
    if sitk.GetArrayViewFromImage(image).min() > AIR:
        return []
    return [
        f"the images of {cases[0].identifier} go down to {AIR} and below, as CT does: if it is CT, convert again with "
        "--channels CT, as nnU-Net normalises CT by its own rule"
    ]


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


def encode_options(options: FolderOptions, file: Path) -> str:
    """The content of a YAML file that lies at `file`; folders are told from there."""
    home = Path(os.path.abspath(file)).parent
    content: dict[str, Any] = {}
    for field in fields(options):
        value = getattr(options, field.name)
        if value == field.default:
            continue
        if isinstance(value, Path):
            value = _tell_folder(Path(os.path.abspath(value)), home)
        elif isinstance(value, Mapping):
            value = dict(value)
        elif isinstance(value, tuple):
            value = list(value)
        content[field.name] = value
    head = (
        f"# attenscribble start --plan {file.name} -d NEW_ID converts again: options of attenscribble convert folder.\n"
        "# Folders are told from this file on.\n"
    )
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _tell_folder(folder: Path, home: Path) -> str:
    try:
        told = Path(os.path.relpath(folder, home))
    except ValueError:  # on another drive of Windows
        return folder.as_posix()
    # Behind a link, `..` leads elsewhere for who comes the other way.
    same = os.path.realpath(os.path.realpath(home) / told) == os.path.realpath(folder)
    return (told if same else folder).as_posix()


def read_options(file: Path) -> FolderOptions:
    """Read such a file.

    Raises:
        AttenScribbleError: every problem of it, one sentence each.
    """
    problems: list[str] = []
    keys = read_keys(file, problems, _ADVICE)
    keys.check_names([field.name for field in fields(FolderOptions)])

    def folder(value: Any) -> Path | None:
        told = text(value)
        if told is None or has_control_character(told):
            return None
        place = Path(os.path.normpath(file.parent / told))
        return None if place.resolve().parent == place.resolve() else place  # a whole disk is no folder of images

    a_folder = (folder, "a folder, from this file on")
    a_pattern = (pattern, "a regular expression")
    a_mark = (_read_mark, "a value, a name or a colour")
    an_id, a_truth = ((_of_shape(shape), shape.expected) for shape in (SIZE, TRUTH))
    readers: dict[str, tuple[Callable[[Any], Any], str]] = {
        **dict.fromkeys(("images", "scribbles", "dense", "test_images", "test_labels"), a_folder),
        **dict.fromkeys(("dataset_id", "dense_id"), an_id),
        **dict.fromkeys(("undrawn_as_test", "link", "trust_scribbles"), a_truth),
        **dict.fromkeys(("subject", "dense_slices"), a_pattern),
        **dict.fromkeys(("unlabelled", "background_scribble"), a_mark),
        "name": (text, "the name of the dataset"),
        "channels": (_read_channels, "a list of names"),
        "spacing": (_read_spacing, "three numbers above 0, mm along x, y and z"),
        "coding": (_one_of(tuple(PRESETS)), f"one of {', '.join(PRESETS)}"),
        "axis": (_one_of((0, 1, 2)), "0, 1 or 2 (z, y, x)"),
        "annotated": (folder, "a CSV file, from this file on"),
    }
    found: dict[str, Any] = {"labels": _take_labels(keys, problems)}
    for field in fields(FolderOptions):
        if field.name != "labels":
            default = {} if field.default is MISSING else {"default": field.default}
            found[field.name] = keys.take(field.name, *readers[field.name], **default)
    refuse(f"{file}: {problem}" for problem in dict.fromkeys(problems))
    return FolderOptions(**found)


def _take_labels(keys: Keys, problems: list[str]) -> dict[str, Mark | None]:
    expected = "classes, each with what marks it in the files: a value, a name, a colour, or null for its position"

    def read(value: Any) -> list[tuple[str, Mark | None]] | None:
        if isinstance(value, str):
            return list(parse_marks(value).items())
        if not isinstance(value, Mapping | list) or not value:
            return None
        entries = list(value.items()) if isinstance(value, Mapping) else [(name, None) for name in value]
        pairs = [(text(name), None if mark is None else _read_mark(mark)) for name, mark in entries]
        known = [(name, mark) for name, mark in pairs if name is not None]
        wrong = any(mark is not None and read is None for (_, mark), (_, read) in zip(entries, pairs, strict=True))
        return None if wrong or len(known) < len(pairs) else known

    try:
        pairs = keys.take("labels", read, expected)
        return {} if pairs is None else check_classes(pairs, "'labels'")
    except AttenScribbleError as error:
        problems += error.problems
        return {}


def _read_mark(value: Any) -> Mark | None:
    if isinstance(value, str):
        told = text(value)
        return None if told is None or has_control_character(told) else parse_mark(told)
    return value if is_whole(value) else None


def _read_channels(value: Any) -> tuple[str, ...] | None:
    return texts([part.strip() for part in value.split(",")] if isinstance(value, str) else value) or None


def _read_spacing(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, list) or len(value) != 3 or any(isinstance(step, bool) for step in value):
        return None
    steps = tuple(float(step) for step in value if isinstance(step, int | float) and abs(step) < 1e9)
    return steps if len(steps) == 3 and min(steps) > 0 else None


def _of_shape(shape: Shape) -> Callable[[Any], Any]:
    return lambda value: value if shape.accept(value) else None


def _one_of(known: Sequence[Any]) -> Callable[[Any], Any]:
    return lambda value: value if not isinstance(value, bool) and value in known else None
