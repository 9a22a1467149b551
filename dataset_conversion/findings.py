"""What is believed of a user's folders: which files are which case, and how each is read. Nothing is written yet."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

from nnunet_attenscribble.common.files import find_files
from nnunet_attenscribble.common.readers import count_colours, split_channels
from nnunet_attenscribble.common.text import counted, list_some
from nnunet_attenscribble.common.volumes import Source, describe, file_of
from nnunet_attenscribble.dataset_conversion.cases import Case
from nnunet_attenscribble.dataset_conversion.dicom_series import is_dicom, read_modality, read_series
from nnunet_attenscribble.dataset_conversion.label_files import (
    MASKS,
    ColourLabel,
    Legend,
    NamedLabel,
    Unreadable,
    find_legends,
    format_colour,
    is_picture,
    list_masks,
    read_legend,
)
from nnunet_attenscribble.dataset_conversion.meanings import BACKGROUND, UNLABELLED, Marks, Reading
from nnunet_attenscribble.dataset_conversion.pairing import (
    ENDINGS,
    Labels,
    numbered_cases,
    pair_files,
    shared_endings,
    split_by_words,
    stem,
    unusable_files,
)
from nnunet_attenscribble.errors import AttenScribbleError


@dataclass(frozen=True)
class Folders:
    """Where a user's files lie."""

    images: Path
    scribbles: Path | None = None
    dense: Path | None = None
    test_images: Path | None = None
    test_labels: Path | None = None


@dataclass(frozen=True)
class FoundLabel:
    """A label file, or a folder with one per class, and how it is read."""

    file: Path
    reading: Reading
    source: Source
    rest: str
    """What its voxels in no class are, `background` or `unlabelled`."""
    inputs: tuple[Path, ...] = ()
    """What is read besides, such as a description of its labels."""
    legend: Legend | None = None
    """What the file, or that description, calls its values."""


#: What a header or a word of a name says an image is, as channels are called; MR, which is the rule, is none of them.
_MODALITIES = {"ct": "CT", "pt": "PET", "us": "US"}
_WORDS = {"ct": "CT", "cta": "CT", "cbct": "CT", "pet": "PET"}  # `pt` is more often a patient


@dataclass(frozen=True)
class FoundCase:
    """One case."""

    identifier: str
    images: tuple[Source, ...]
    scribble: FoundLabel | None = None
    dense: FoundLabel | None = None
    test: bool = False
    inputs: tuple[Path, ...] = ()
    """Files of images that are no file, such as a DICOM series."""

    @property
    def modality(self) -> str | None:
        """What its first image is, where its DICOM header, its name or that of its folder says that it is no MRI."""
        if self.inputs:
            return _MODALITIES.get((read_modality(self.inputs[0]) or "").casefold())
        file = file_of(self.images[0]) if self.images else None
        if file is None:
            return None
        words = re.split("[_. -]", f"{file.parent.name}_{file.name}".casefold())
        return next((_WORDS[word] for word in words if word in _WORDS), None)

    def or_test(self, *, dense_only: bool) -> FoundCase:
        """The case as it is where there is a label to train with, as a test case otherwise."""
        label = self.dense if dense_only else self.scribble
        return self if label is not None else replace(self, test=True)

    def as_case(self, spacing: tuple[float, ...] | None, dense_slices: bool, annotated: tuple[int, ...] | None) -> Case:
        """For the writer of datasets, with the spacing of files that state none, and how its scribble is read."""
        labels = [label for label in (self.scribble, self.dense) if label is not None]
        return Case(
            self.identifier,
            self.images,
            None if self.scribble is None else self.scribble.source,
            None if self.dense is None else self.dense.source,
            self.test,
            (*self.inputs, *dict.fromkeys(file for label in labels for file in label.inputs)),
            spacing,
            self.scribble.rest if dense_slices and self.scribble is not None else None,
            annotated,
        )


class NoneIsDrawnError(AttenScribbleError):
    """No image has a drawing; `loose` are the files that are of none."""

    def __init__(self, problems: Iterable[str], loose: Iterable[Path]):
        super().__init__(problems)
        self.loose = tuple(loose)


@dataclass(frozen=True)
class Findings:
    """What is believed of all files, every problem, and the drawings to train with that are of no image."""

    cases: tuple[FoundCase, ...]
    problems: tuple[str, ...]
    loose: tuple[Path, ...]

    def tell_readings(self) -> list[str]:
        """How label files are read, a sentence for all that are read alike."""
        kinds = {
            "scribble": [case.scribble for case in self.cases],
            "dense label": [case.dense for case in self.cases],
        }
        return [
            f"{counted(count, kind)} read {reading}"
            for kind, labels in kinds.items()
            for reading, count in Counter(label.reading for label in labels if label is not None).items()
        ]


@dataclass(frozen=True)
class _Images:
    """Images by the path that names them: a file, or the folder of a DICOM series."""

    sources: dict[Path, tuple[Source, ...]]
    """Several of a picture in colour: a channel each."""
    series: dict[Path, tuple[Path, ...]]
    """Files of each series."""
    others: list[Path]
    """What is neither."""

    @property
    def counts(self) -> dict[Path, int]:
        """Channels in each."""
        return {path: len(sources) for path, sources in self.sources.items()}


def find_images(files: Iterable[Path]) -> _Images:
    """Image files, and folders with the slices of a DICOM series, among files."""
    images = _Images({}, {}, [])
    for file in files:
        if stem(file) is not None:
            images.sources[file] = split_channels(file) if is_picture(file) else (file,)
        elif is_dicom(file):
            images.series[file.parent] = (*images.series.get(file.parent, ()), file)
        else:
            images.others.append(file)
    images.sources.update({folder: (partial(read_series, slices),) for folder, slices in images.series.items()})
    return images


def look_at_folders(folders: Folders, marks: Marks | None, channels: Sequence[str] = ()) -> Findings:
    """Find out which files are which case, and what their values mean.

    Args:
        folders: of images and labels; one may lie in another, or be the same.
        marks: what their owner says of the values; None: nothing yet, and labels are found, but not read.
        channels: their names.

    Raises:
        AttenScribbleError: where nothing else can be said.
    """
    files = _list_files(folders)
    training, problems, loose = _find_cases(folders, files, marks, channels, test=False)
    none = f"{{}}: holds no image ({', '.join(ENDINGS)}), nor does any folder in it"
    if not training:
        raise AttenScribbleError(problems or none.format(folders.images))
    tests: list[FoundCase] = []
    if folders.test_images is not None or folders.test_labels is not None:
        tests, more, _ = _find_cases(folders, files, marks, channels, test=True)
        problems += more
        if folders.test_images is not None and not tests and not more:
            problems.append(none.format(folders.test_images))
    known = {case.identifier: case for case in training}
    for case in tests:
        if case.identifier in known:
            told = [describe(one.images[0], one.identifier) for one in (case, known[case.identifier])]
            problems.append(f"{told[0]}: is a test case and a training case, {told[1]}")
    cases = [*training, *(case for case in tests if case.identifier not in known)]
    return Findings(tuple(cases), tuple(dict.fromkeys(problems)), tuple(loose))


def _list_files(folders: Folders) -> dict[str, list[Path]]:
    """Files by the field of `folders`, each file once: what lies in a folder within, or in one that a link within leads
    to, belongs to that one.
    """
    given = {field.name: folder for field in fields(folders) if (folder := getattr(folders, field.name)) is not None}
    real = {role: folder.resolve() for role, folder in given.items()}
    files = {}
    for role, folder in given.items():
        others = [other for other in real.values() if not real[role].is_relative_to(other)]
        found = find_files(folder)
        places = {place: place.resolve() for place in {file.parent for file in found}}
        files[role] = [file for file in found if not any(map(places[file.parent].is_relative_to, others))]
    for pictures, roles in (("images", ["scribbles", "dense"]), ("test_images", ["test_labels"])):
        shared = [role for role in roles if role in real and real[role] == real.get(pictures)]
        if shared:
            files.update(_tell_apart(given[pictures], files[pictures], [pictures, *shared]))
        elif roles[0] in real and len({real.get(role) for role in roles}) < len(roles):
            files.update(_tell_apart(given[roles[0]], files[roles[0]], roles))
    return files


def _tell_apart(folder: Path, files: list[Path], roles: list[str]) -> dict[str, list[Path]]:
    """Files of one folder by what they are, which the last words of their names tell."""
    images, scribbles, others = tell_files_apart(folder, files)
    if roles == ["images", "scribbles", "dense"]:
        parts = [images, scribbles, others]
    elif roles == ["scribbles", "dense"]:
        parts = [scribbles, images + others]
    else:
        parts = [images, scribbles + others]
    if not all(any(stem(file) is not None or is_dicom(file) for file in part) for part in parts):
        names = [file.name for file in files if stem(file) is not None]
        raise AttenScribbleError(
            f"{folder}: is given for {' and '.join(roles)}, which the names of its files do not tell apart "
            f"({list_some(names)}): call them as CASE_image, CASE_scribble and CASE_seg, or give a folder to each"
        )
    return dict(zip(roles, parts, strict=True))


def tell_files_apart(folder: Path, files: Iterable[Path]) -> tuple[list[Path], list[Path], list[Path]]:
    """Images, scribbles and other labels of one folder, by their names, and by headers that no image has."""
    images, scribbles, others = split_by_words(folder, files)
    named = {file for file in images if _names_segments(file)}
    return [file for file in images if file not in named], scribbles, [*others, *sorted(named)]


def _names_segments(file: Path) -> bool:
    """Whether its header does, as no image's does: MITK gives segmentations any name."""
    try:
        return read_legend(file) is not None
    except AttenScribbleError:
        return True  # what is wrong with it is told where it is read


def _find_cases(
    folders: Folders, files: Mapping[str, list[Path]], marks: Marks | None, channels: Sequence[str], *, test: bool
) -> tuple[list[FoundCase], list[str], list[Path]]:
    pictures = "test_images" if test else "images"
    kinds = {"dense": "test_labels"} if test else {"scribble": "scribbles", "dense": "dense"}
    images = find_images(files.get(pictures, ()))
    sets = {
        role: Labels(getattr(folders, field), files[field], "scribble" if role == "scribble" else "dense label")
        for role, field in kinds.items()
        if field in files
    }
    for kind in sets.values():
        if problem := numbered_cases(images.sources, kind.files):
            raise AttenScribbleError(problem)  # what else would be found follows from it
    folder = getattr(folders, pictures)
    pairing = pair_files(folder, images.counts, list(sets.values()), channels)
    problems = [*pairing.problems, *unusable_files(images.others)]
    if pairing.problems and len(channels) == 1 and (names := shared_endings(images.sources)):
        told = ",".join(names)
        problems.append(
            f"{folder}: every case has {list_some(names)}: where these are channels, give --channels {told}"
        )
    labels: dict[str, dict[str, FoundLabel]] = {}
    for (role, kind), matched in zip(sets.items(), pairing.labels, strict=True):
        problems += unusable_files(kind.files)
        if not matched and pairing.images:
            raise NoneIsDrawnError(problems, pairing.loose)  # the same follows of every case
        own = None if marks is None else replace(marks, dense=role == "dense")
        labels[role], more = _read_labels(matched, pairing.images, images, files, own)
        problems += more
    cases = [
        FoundCase(
            case,
            tuple(source for path in paths for source in images.sources[path]),
            labels.get("scribble", {}).get(case),
            labels.get("dense", {}).get(case),
            test,
            tuple(file for path in paths for file in images.series.get(path, ())),
        )
        for case, paths in pairing.images.items()
    ]
    return cases, problems, pairing.loose


def _read_labels(
    matched: Mapping[str, Path],
    paths: Mapping[str, Sequence[Path]],
    images: _Images,
    files: Mapping[str, list[Path]],
    marks: Marks | None,
) -> tuple[dict[str, FoundLabel], list[str]]:
    """How each label file is read, by case, and every problem."""
    legends, problems = find_legends(matched, paths, [file for part in files.values() for file in part])
    found = {}
    for case, file in matched.items():
        try:
            found[case] = find_reading(file, images.sources[paths[case][0]][0], legends.get(case), marks)
        except AttenScribbleError as error:  # told with all that is found when files are read
            found[case] = FoundLabel(
                file, Reading("not at all", ()), Unreadable(file, tuple(error.problems)), UNLABELLED
            )
    return found, problems


def find_reading(file: Path, image: Source, legend: Legend | None, marks: Marks | None) -> FoundLabel:
    """How a label file is read: by its names, its colours or its values; not at all yet where nothing was said of them.

    Raises:
        AttenScribbleError: where it cannot be.
    """
    if file.name.lower().endswith((".jpg", ".jpeg")):
        raise AttenScribbleError(f"{file}: JPEG changes the values of labels: save it as PNG")
    if marks is None:
        return FoundLabel(file, Reading("not yet", ()), file, UNLABELLED, legend=legend)
    targets = marks.targets
    meanings = None if legend is None else marks.match(legend)
    if legend is not None and meanings is not None:
        named = NamedLabel(
            file,
            legend,
            tuple(None if meaning is None else targets.get(meaning) for meaning in meanings),
            rest=targets[marks.zero],
            is_sure=marks.dense or marks.coding is not None,
            unlabelled=targets.get(UNLABELLED),
            classes=marks.known,
            image=image,
        )
        inputs = list_masks(file) if legend.tool == MASKS else [] if legend.source == file else [legend.source]
        return FoundLabel(file, marks.by_name(legend, meanings), named, marks.zero, tuple(inputs), legend)
    if is_picture(file) and (marks.colours or count_colours(file) > 1):
        colours = marks.colours_and_greys()
        transparent = BACKGROUND if marks.dense else UNLABELLED
        coloured = ColourLabel(
            file,
            {colour: targets[meaning] for colour, meaning in colours.items()},
            rest=targets[transparent],
            by_colour=bool(marks.colours),
            classes=marks.known,
        )
        reading = Reading("by colour", tuple(sorted((format_colour(one), meaning) for one, meaning in colours.items())))
        return FoundLabel(file, reading, coloured, colours.get((0, 0, 0), transparent))
    reading = marks.by_value()
    return FoundLabel(file, reading, file, dict(reading.meanings).get("0", marks.zero))
