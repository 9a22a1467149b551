"""What the owner of a folder has said of it; and what is believed of its folders and images, or only they can tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote

from nnunet_attenscribble.common.files import find_files
from nnunet_attenscribble.common.nnunet import means_ignore
from nnunet_attenscribble.common.text import counted, list_some
from nnunet_attenscribble.common.volumes import file_of
from nnunet_attenscribble.dataset_conversion.dicom_series import is_dicom
from nnunet_attenscribble.dataset_conversion.findings import Findings, Folders, tell_files_apart
from nnunet_attenscribble.dataset_conversion.label_files import MASKS
from nnunet_attenscribble.dataset_conversion.meanings import BACKGROUND, Mark, fold
from nnunet_attenscribble.dataset_conversion.pairing import shared_endings, stem
from nnunet_attenscribble.dataset_conversion.start_survey import Drawings, Layout, Survey
from nnunet_attenscribble.errors import AttenScribbleError

MRI = ("MRI",)


@dataclass(frozen=True)
class Given:
    """What the owner has said so far, by options or in answer to questions; None: nothing.

    Attributes:
        meanings: of single marks, by value, or by name or colour without regard to case.
        kinds: of drawings, by the first file of `Drawings`: `scribbles`, `dense` or `neither`.
    """

    images: Path | None = None
    scribbles: Path | None = None
    dense: Path | None = None
    test_images: Path | None = None
    test_labels: Path | None = None
    labels: Mapping[str, Mark | None] | None = None
    unlabelled: Mark | None = None
    background_scribble: Mark | None = None
    channels: tuple[str, ...] | None = None
    spacing: tuple[float, ...] | None = None
    meanings: Mapping[Mark, str] = field(default_factory=dict)
    kinds: Mapping[Path, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Doubt:
    """What is not clear.

    Attributes:
        told: one sentence, with the option that answers it; the same of all that one option answers.
        question: the same, short.
        answer: what is given once this was answered; raises AttenScribbleError for what is no answer.
        choices: answers that there are; none: any text.
        default: the answer to nothing.
    """

    told: str
    question: str
    answer: Callable[[str], Given]
    choices: tuple[str, ...] = ()
    default: str | None = None


def folder_doubts(layout: Layout, given: Given) -> tuple[list[Doubt], list[str]]:
    """What is not clear of the folders, and what no answer mends."""
    doubts: list[Doubt] = []
    images = layout.images if given.images is None else (given.images,)
    if not images:
        return doubts, [
            f"{layout.root}: holds drawings ({_tell(layout.drawings)}) and no image: put the images "
            "into a folder images in it, or give theirs with --images"
        ]
    if len(images) > 1:
        told = list_some([str(folder) for folder in images])
        doubts.append(
            Doubt(
                f"{told}: each may be the folder of the images: give it with --images",
                "Which folder holds the images?",
                lambda text: replace(given, images=Path(text)),
                tuple(map(str, images)),
            )
        )
    if given.scribbles is not None or given.dense is not None:
        return doubts, []
    drawings = _list_drawings(layout, given)
    if not drawings:
        if len(layout.unknown) > 1:
            doubts.append(_ask_for_drawings(layout, given))
            return doubts, []
        if layout.test_labels is not None:
            return doubts, [
                f"{layout.root}: its drawings lie in {layout.test_labels}, which holds those of test cases alone: put "
                "those to train with into a folder scribbles or labelsTr, named as their images"
            ]
        files = ", ".join(f"{folder} ({counted(count, 'file')})" for folder, count in layout.unknown.items())
        return doubts, [
            f"{layout.root}: holds images and no drawing ({files or 'no name is that of one'}): call drawings "
            "CASE_scribble or CASE.seg.nrrd, put them into a folder scribbles, or give theirs with --scribbles"
        ]
    if len(drawings) > 1:
        doubts += [_ask_what(one, drawings, given) for one in drawings if one.kind is None]
        for kind in ("scribbles", "dense"):
            same = [one for one in drawings if one.kind == kind]
            if len(same) > 1:
                doubts.append(_ask_which(kind, same, given))
    return doubts, []


def kind_doubts(layout: Layout, folders: Folders, given: Given, *, says_scribbles: bool) -> list[Doubt]:
    """Whether a single folder of drawings holds scribbles or dense labels, where nothing says so.

    Args:
        layout: of all folders.
        folders: that were chosen.
        given: what was said.
        says_scribbles: whether what is in the drawings does.
    """
    drawings = _list_drawings(layout, given)
    if says_scribbles or len(drawings) != 1 or drawings[0].kind is not None or folders.scribbles is None:
        return []
    one = drawings[0]
    return [
        Doubt(
            f"{_tell(drawings)}: nothing says whether these are scribbles, with voxels that nobody drew on, or dense "
            "labels: give --scribbles or --dense with this folder; a background stroke is known by the name "
            "background, or by --background-scribble",
            f"Are the drawings in {one.folder} scribbles (most voxels unlabelled), or dense labels?",
            lambda text: replace(given, kinds={**given.kinds, one.files[0]: text}),
            ("scribbles", "dense"),
        )
    ]


def mask_doubts(cases: Findings, given: Given) -> list[Doubt]:
    """Whether several drawings of an image are of a class each, or of a person each, where nobody named the classes."""
    labels = [label for case in cases.cases for label in (case.scribble, case.dense) if label is not None]
    legends = [label.legend for label in labels if label.legend is not None and label.legend.tool == MASKS]
    if given.labels is not None or not legends:
        return []
    said = {fold(str(mark)) for mark in (BACKGROUND, given.background_scribble, given.unlabelled)}
    names = dict.fromkeys(segment.name for legend in legends for segment in legend.segments)
    classes = [name for name in names if fold(name) not in said and not means_ignore(name)]
    told = f"{legends[0].source}: holds a drawing each of {list_some(list(names))}"

    def answer(text: str) -> Given:
        if text == "no":
            raise AttenScribbleError(f"{legends[0].source}: keep one drawing of an image, with all classes in it")
        return replace(given, labels=dict.fromkeys(classes))

    return [
        Doubt(
            f"{told}: where these are the classes, give --labels {quote(','.join(classes))}; otherwise keep one "
            "drawing of an image, with all classes in it",
            f"{told}. Are these the classes?",
            answer,
            ("yes", "no"),
        )
    ]


def choose_folders(layout: Layout, given: Given) -> Folders | None:
    """As far as they are clear; drawings of a kind that is not are taken for scribbles."""
    images = layout.images if given.images is None else (given.images,)
    if len(images) != 1:
        return None
    home, scribbles, dense = images[0], given.scribbles, given.dense
    if scribbles is None and dense is None:
        drawings = _list_drawings(layout, given)
        by_kind = {one.kind or "scribbles": one.folder for one in drawings}
        if len(by_kind) < len(drawings) or not drawings:
            return None
        if "scribbles" not in by_kind and (given.background_scribble, given.unlabelled) != (None, None):
            by_kind = {"scribbles": by_kind["dense"]}  # which is said, whatever their names say
        scribbles, dense = by_kind.get("scribbles"), by_kind.get("dense")
    return Folders(
        home,
        scribbles,
        dense,
        given.test_images or layout.test_images,
        given.test_labels or layout.test_labels,
    )


def unused_folders(layout: Layout, folders: Folders) -> dict[Path, int]:
    """Folders that hold images or drawings and are none of the chosen ones, with the number of these."""
    used = {folder.resolve() for folder in vars(folders).values() if folder is not None}
    held = {one.folder: len(one.files) for one in layout.drawings}
    return {
        folder: count
        for folder, count in {**layout.unknown, **held}.items()
        if folder.resolve() not in used and not used & set(folder.resolve().parents)
    }


def _list_drawings(layout: Layout, given: Given) -> list[Drawings]:
    """Folders with drawings and what they are, as said, or as their names say."""
    if given.scribbles is not None or given.dense is not None:
        return []
    return [
        replace(one, kind=given.kinds.get(one.files[0], one.kind))
        for one in layout.drawings
        if given.kinds.get(one.files[0]) != "neither"
    ]


def _ask_for_drawings(layout: Layout, given: Given) -> Doubt:
    told = ", ".join(f"{folder} ({counted(count, 'file')})" for folder, count in layout.unknown.items())
    known = given.images is not None or layout.root not in layout.images

    def answer(text: str) -> Given:
        chosen = Path(text)
        if known:
            return replace(given, scribbles=chosen)
        others = [folder for folder in layout.unknown if folder != chosen]
        return replace(given, scribbles=chosen, images=others[0] if len(others) == 1 else layout.root)

    return Doubt(
        f"{layout.root}: no name says which of its folders, {told}, holds {'' if known else 'images, and which '}"
        f"drawings: give {'' if known else '--images DIR '}--scribbles DIR, or --dense DIR for dense labels; where "
        "each class has a file, put those of an image into a folder masks beside it",
        "Which folder holds the drawings?",
        answer,
        tuple(map(str, layout.unknown)),
    )


def _ask_what(one: Drawings, drawings: Sequence[Drawings], given: Given) -> Doubt:
    mixed = any(other.folder == one.folder for other in drawings if other is not one)

    def answer(text: str) -> Given:
        if mixed and text != "dense":
            raise AttenScribbleError(f"{one.files[0].name} and scribbles lie in one folder: take one of them out")
        return replace(given, kinds={**given.kinds, one.files[0]: text})

    return Doubt(
        f"{_tell(drawings)}: hold drawings of the same images: say which are scribbles and which are dense "
        "labels, with --scribbles DIR and --dense DIR; what is not given is not used",
        f"What is drawn in {one.folder} ({one.files[0].name}; {counted(len(one.files), 'file')})?",
        answer,
        ("scribbles", "dense", "neither"),
    )


def _tell(drawings: Iterable[Drawings]) -> str:
    return list_some([f"{one.folder} ({counted(len(one.files), 'file')})" for one in drawings])


def _ask_which(kind: str, several: Sequence[Drawings], given: Given) -> Doubt:
    what = "scribbles" if kind == "scribbles" else "dense labels"
    told = list_some([str(one.folder) for one in several])

    def answer(text: str) -> Given:
        others = {one.files[0]: "neither" for one in several if str(one.folder) != text}
        return replace(given, kinds={**given.kinds, **others})

    return Doubt(
        f"{told}: hold {what} of the same images: give one of them with --{kind}",
        f"Which folder of {what} is to be used?",
        answer,
        tuple(str(one.folder) for one in several),
    )


def number_channels(cases: Findings) -> tuple[str, ...]:
    """One is called MRI, colours R, G and B; others are asked for."""
    counts = {len(case.images) for case in cases.cases}
    if counts == {3} and all(len(set(map(file_of, case.images))) == 1 for case in cases.cases):
        return ("R", "G", "B")
    return MRI if counts == {1} else tuple(f"channel {number}" for number in range(max(counts, default=1)))


def channel_names(folders: Folders) -> tuple[str, ...]:
    """Last words of the names of images that are the same for every case; none where they are not."""
    taken = [folder for folder in (folders.scribbles, folders.dense) if folder not in (None, folders.images)]
    files = [file for file in find_files(folders.images) if not any(folder in file.parents for folder in taken)]
    pictures = [file for file in files if stem(file) is not None]
    series = {file.parent for file in files if stem(file) is None and is_dicom(file)}
    return shared_endings([*tell_files_apart(folders.images, pictures)[0], *series])


def channel_doubts(cases: Findings, given: Given, channels: tuple[str, ...], survey: Survey) -> list[Doubt]:
    """What the channels are called, where that is neither in names nor beside the point."""

    def answer(text: str) -> Given:
        names = tuple(part.strip() for part in text.split(",") if part.strip())
        if len(names) != len(channels):
            raise AttenScribbleError(f"{len(names)} names were given: give {len(channels)}, with commas between them")
        return replace(given, channels=names)

    if given.channels is not None:
        return []
    if channels[0] == "channel 0":
        if len({len(case.images) for case in cases.cases}) > 1:
            return []  # a problem that is told, which no name mends
        is_picture = all(len(set(map(file_of, case.images))) == 1 for case in cases.cases)
        told = "the last of them opacity (alpha)" if is_picture else "_0000, _0001 and so on"
        return [
            Doubt(
                f"images have {len(channels)} channels, {told}: name them in this order, as "
                "--channels T1,FLAIR; CT is normalised as such, others by z-score",
                f"What are the {len(channels)} channels, {told}, called in this order (as T1,FLAIR)?",
                answer,
            )
        ]
    if survey.modalities and len(channels) == 1:
        told = list_some(list(survey.modalities))
        kinds = tuple(dict.fromkeys(survey.modalities.values()))
        said = f"headers or names of images say {' and '.join(kinds)} ({told})"
        options = " or ".join(f"--channels {kind}" for kind in (*kinds, *MRI))
        return [
            Doubt(
                f"{said}: say {options}; nnU-Net normalises CT by its own rule",
                f"{said[0].upper()}{said[1:]}. What are they?",
                answer,
                (*kinds, *MRI),
            )
        ]
    if survey.like_ct and len(channels) == 1:
        told = list_some(survey.like_ct)
        return [
            Doubt(
                f"images go down to -900 and below, as CT does ({told}): say --channels CT, or --channels MRI; nnU-Net "
                "normalises CT by its own rule",
                f"Values go down to -900 and below ({told}). Is this CT, or something else (MRI)?",
                answer,
                ("CT", "MRI"),
            )
        ]
    return []


def image_doubts(folders: Folders, given: Given, survey: Survey) -> list[Doubt]:
    """Whether images are images, and how far apart the voxels of those are that do not say it."""
    doubts = []
    if survey.like_labels and given.images is None:
        first, values = next(iter(survey.like_labels.items()))
        told = (
            f"{list_some(list(survey.like_labels))}: {'hold' if len(survey.like_labels) > 1 else 'holds'} the values "
            f"{list_some([str(value) for value in values])} alone, as a label does"
        )

        def answer(text: str) -> Given:
            if text == "no":
                raise AttenScribbleError(f"{first}: put it into the folder of the drawings, or remove it")
            return replace(given, images=folders.images)

        doubts.append(
            Doubt(
                f"{told}: move what is none out of the images; --images {folders.images} takes them for images",
                f"{told}. Is it an image?",
                answer,
                ("yes", "no"),
            )
        )
    if survey.without_spacing and given.spacing is None:

        def steps(text: str) -> Given:
            try:
                found = tuple(float(part) for part in re.split("[ ,;]+", text.strip()))
            except ValueError:
                found = ()
            if len(found) != 3 or not all(0 < step < float("inf") for step in found):
                raise AttenScribbleError("give three numbers above 0, as 0.8 0.8 3")
            return replace(given, spacing=found)

        told = list_some(survey.without_spacing)
        doubts.append(
            Doubt(
                f"{told}: state no spacing, by which nnU-Net plans: give it with --spacing X Y Z, in mm",
                f"How far are voxels apart along x, y and z, in mm (as 0.8 0.8 3)? {told} do not say it.",
                steps,
            )
        )
    return doubts
