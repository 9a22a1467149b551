"""What `attenscribble start` believes of a user's folder as a whole, and of the marks in drawings."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from shlex import quote
from typing import Any

from nnunet_attenscribble.common.files import find_files, is_held_by_another_user
from nnunet_attenscribble.common.nnunet import label_problems, means_ignore
from nnunet_attenscribble.common.shapes import mapping, read_if_shaped
from nnunet_attenscribble.common.text import format_percent, list_some
from nnunet_attenscribble.common.volumes import describe
from nnunet_attenscribble.dataset_conversion.cases import MOST
from nnunet_attenscribble.dataset_conversion.findings import (
    Findings,
    Folders,
    NoneIsDrawnError,
    look_at_folders,
    tell_files_apart,
)
from nnunet_attenscribble.dataset_conversion.folder import FolderOptions
from nnunet_attenscribble.dataset_conversion.label_files import is_colour, is_description
from nnunet_attenscribble.dataset_conversion.meanings import (
    BACKGROUND,
    UNLABELLED,
    Mark,
    check_classes,
    fold,
    fold_mark,
)
from nnunet_attenscribble.dataset_conversion.pairing import stem
from nnunet_attenscribble.dataset_conversion.start_doubts import (
    MRI,
    Doubt,
    Given,
    channel_doubts,
    channel_names,
    choose_folders,
    folder_doubts,
    image_doubts,
    kind_doubts,
    mask_doubts,
    number_channels,
    unused_folders,
)
from nnunet_attenscribble.dataset_conversion.start_survey import (
    FoundMark,
    Layout,
    Survey,
    find_layout,
    fitting_images,
    is_default_name,
    survey_cases,
)
from nnunet_attenscribble.errors import AttenScribbleError, refuse

_FIRST_ID = 601
#: What people call strokes in the background; only `background` itself is taken for one unasked.
_LIKE_BACKGROUND = {"bg", "back", "back ground", "backgr", "outside", "rest", "other", "others", "surrounding", "none"}
_MOST_ASKED = 40  # marks: beyond, they are no drawings, or somebody has a list
_ZEROS = (0, "#000000")


@dataclass(frozen=True)
class Beliefs:
    """What is believed, as far as it could be found out.

    Attributes:
        options: to convert with; None where there are doubts or problems.
        doubts: in the order in which they are asked.
        problems: that no answer mends.
        cases: of the folders.
        marks: in their drawings, with what is believed of each.
        unused: folders with images that are not used, and how many.
    """

    options: FolderOptions | None = None
    doubts: tuple[Doubt, ...] = ()
    problems: tuple[str, ...] = ()
    cases: Findings | None = None
    marks: tuple[FoundMark, ...] = ()
    unused: Mapping[Path, int] = field(default_factory=dict)


class Believer:
    """Looks at a folder as often as something new is given, and reads its files once."""

    def __init__(self, root: Path, defaults: FolderOptions, *, workers: int | None = None, progress: bool = False):
        """Look at the names of all files.

        Args:
            root: the user's folder.
            defaults: options that nothing is to be found out about, such as ID and name.
            workers: processes; None: one per processor, 8 at most.
            progress: shown on stderr.

        Raises:
            AttenScribbleError: where there is no image below `root`, or its files cannot be listed.
        """
        self.defaults = defaults
        self.layout: Layout = find_layout(root)
        self._workers, self._progress = workers, progress
        self._surveys: dict[tuple, tuple[Survey, dict[str, Path | None]]] = {}

    def believe(self, given: Given) -> Beliefs:
        """What is believed when this much is given."""
        doubts, problems = folder_doubts(self.layout, given)
        if problems:
            return Beliefs(doubts=tuple(doubts), problems=(*problems, *self.layout.problems))
        folders = choose_folders(self.layout, given)
        if folders is None:
            return Beliefs(doubts=tuple(doubts))
        unused = unused_folders(self.layout, folders)
        try:
            channels, cases = self._find_cases(folders, given)
        except AttenScribbleError as error:
            hints = self._hints(folders, error.loose if isinstance(error, NoneIsDrawnError) else ())
            return Beliefs(doubts=tuple(doubts), problems=(*error.problems, *hints), unused=unused)
        problems += [*cases.problems, *self._hints(folders, cases.loose)]
        survey = self._survey(folders, channels, cases)
        problems += [*survey.problems, *([] if given.channels else _unlike_counts(cases))]
        if not any(case.scribble or case.dense for case in cases.cases if not case.test):
            problems.append(f"{self.layout.root}: no image has a drawing")
        marks, more = _believe_marks(given, survey)
        is_sparse = _says_scribbles(given, survey, marks)
        doubts += kind_doubts(self.layout, folders, given, says_scribbles=is_sparse)
        too_many = _too_many(more, folders)
        problems += too_many
        doubts += [*mask_doubts(cases, given), *([] if too_many else more)]
        problems += self._stray_descriptions(folders, marks)
        doubts += channel_doubts(cases, given, channels, survey)
        doubts += image_doubts(folders, given, survey)
        options = None
        if not doubts and not problems:
            role = "scribble" if folders.scribbles is not None else "dense"
            try:
                labels, rest = _as_options(marks, given)
                options = replace(
                    self.defaults,
                    **vars(folders),
                    labels=labels,
                    undrawn_as_test=any(getattr(case, role) is None for case in cases.cases if not case.test),
                    channels=channels,
                    spacing=given.spacing,
                    unlabelled=rest[UNLABELLED],
                    background_scribble=rest[BACKGROUND],
                )
            except AttenScribbleError as error:
                problems += error.problems
        return Beliefs(options, tuple(doubts), tuple(dict.fromkeys(problems)), cases, tuple(marks), unused)

    def _find_cases(self, folders: Folders, given: Given) -> tuple[tuple[str, ...], Findings]:
        """Names of the channels, and the cases."""
        if given.channels is not None:
            return given.channels, look_at_folders(folders, None, given.channels)
        plain: Findings | AttenScribbleError
        try:
            plain = look_at_folders(folders, None, MRI)
            if not plain.problems:
                return number_channels(plain), plain
        except AttenScribbleError as error:
            plain = error
        if names := channel_names(folders):
            with suppress(AttenScribbleError):
                found = look_at_folders(folders, None, names)
                if not found.problems:
                    return names, found
        if isinstance(plain, AttenScribbleError):
            raise plain
        return MRI, plain

    def _survey(self, folders: Folders, channels: tuple[str, ...], cases: Findings) -> Survey:
        roles = {"scribble": folders.scribbles, "dense": folders.dense}
        key = (replace(folders, scribbles=None, dense=None), frozenset(roles.values()), channels)
        if key not in self._surveys:
            found = survey_cases(cases, workers=self._workers, progress=self._progress)
            self._surveys[key] = found, roles
        found, before = self._surveys[key]
        if roles == before:
            return found
        labels = {before[role]: contents for role, contents in found.labels.items()}  # as what they are called now
        return replace(found, labels={role: labels.get(folder, {}) for role, folder in roles.items()})

    def _stray_descriptions(self, folders: Folders, marks: Sequence[FoundMark]) -> list[str]:
        """Descriptions of ITK-SNAP in no folder that is used, where drawings hold values that nothing names."""
        if not any(mark.how == "value" and mark.mark and mark.meaning is None for mark in marks):
            return []
        used = [folder.resolve() for folder in vars(folders).values() if folder is not None]
        home = folders.scribbles or folders.dense
        return [
            f"{file}: names labels, and lies in no folder that is used: put it into {home}, or remove it"
            for file in find_files(self.layout.root)
            if not any(folder in file.resolve().parents for folder in used) and is_description(file)
        ]

    def _hints(self, folders: Folders, loose: Sequence[Path]) -> list[str]:
        """Which images drawings without one may be of, by their grids: nothing is paired by that."""
        if not loose:
            return []
        pictures = tell_files_apart(folders.images, _files_of_images(self.layout, folders))[0]
        images = {str(file.relative_to(folders.images)): file for file in pictures}  # patients' are called alike
        hints = []
        for file in loose[:5]:
            fitting = fitting_images(file, images)
            if fitting:
                hints.append(
                    f"{file}: lies on the grid of {list_some(fitting)}: call it as its image, with _scribble behind, "
                    "if it is of " + ("that one" if len(fitting) == 1 else "one of them")
                )
        return hints


def _unlike_counts(cases: Findings) -> list[str]:
    """Of cases with more or fewer channels than most."""
    counts = Counter(len(case.images) for case in cases.cases)
    usual = max(counts, key=lambda count: counts[count])
    return [
        f"{describe(case.images[0], case.identifier)}: its case has {len(case.images)} channels and others have "
        f"{usual}: give each as many, as files of their own or as colours of a picture"
        for case in cases.cases
        if len(case.images) != usual
    ]


def _files_of_images(layout: Layout, folders: Folders) -> list[Path]:
    drawn = {file for one in layout.drawings for file in one.files}
    return [file for file in find_files(folders.images) if file not in drawn and stem(file) is not None]


def name_dataset(root: Path) -> str:
    """After the folder, letters without their accents."""
    name = unicodedata.normalize("NFKD", re.sub(r"^Dataset\d{3}_", "", Path(os.path.abspath(root)).name))
    name = "".join(sign for sign in name if not unicodedata.combining(sign))
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "Drawn"


def read_names(root: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What a dataset.json of nnU-Net or of the Medical Segmentation Decathlon in the folder says, as fields of `Given`.

    Args:
        root: the user's folder.
        given: what its owner said, by field, which goes before.

    Returns:
        the fields, and a sentence each on what follows.
    """
    content = read_if_shaped(root / "dataset.json", mapping({"labels": mapping()}))
    entries = content.get("labels", {})
    if entries and all(key.isdecimal() and isinstance(name, str) for key, name in entries.items()):  # the Decathlon's
        if len(set(entries.values())) < len(entries):
            return {}, []  # two values of one name: which is it?
        entries = {name: int(key) for key, name in entries.items()}
    said: dict[str, Any] = {}
    channels = content.get("channel_names") or content.get("modality")
    if isinstance(channels, dict) and all(
        key.isdecimal() and isinstance(name, str) and name.strip() for key, name in channels.items()
    ):
        said["channels"] = tuple(channels[number] for number in sorted(channels, key=int))
    if not entries or not all(type(value) is int for value in entries.values()):
        return {}, []  # regions, or another program's file
    if "labels" not in given:
        marks = {given.get(key) for key in ("unlabelled", "background_scribble")}
        open_values = [value for name, value in entries.items() if means_ignore(name) and value]
        said["labels"] = {
            name: value
            for name, value in entries.items()
            if value and value not in open_values and value not in marks and fold(name) != BACKGROUND
        }
        if open_values and marks == {None}:
            said |= {"unlabelled": open_values[0], "background_scribble": 0}
    told = [f"Names not given otherwise are those of {root / 'dataset.json'}"]
    described = {"file_ending", "channel_names"} <= content.keys() and not label_problems(entries)
    if "ignore" in entries and described and (root / "labelsTr").is_dir() and any(root.glob("imagesTr/*_0000.*")):
        told.append(
            f"{root} is a dataset of nnU-Net whose labels have `ignore` already: it can go into nnUNet_raw as it is"
        )
    return {key: value for key, value in said.items() if key not in given and value not in ((), {})}, told


def names_fit(names: Mapping[str, Any], beliefs: Beliefs) -> bool:
    """Whether what `read_names` found, with which this is believed, can be of these drawings: they have values, that
    for `ignore` among them, no names or colours of their own, and images as many channels.
    """
    cases = beliefs.cases.cases if beliefs.cases is not None else ()
    channels = names.get("channels")
    alike = channels is None or all(len(case.images) == len(channels) for case in cases)
    # Of no marks nothing is known yet, as which folder holds the drawings is to be asked for.
    values = [mark.mark for mark in beliefs.marks]
    there = "unlabelled" not in names or not values or names["unlabelled"] in values
    return not beliefs.problems and alike and there and all(mark.how == "value" for mark in beliefs.marks)


def free_id(folders: Iterable[Path | None]) -> int:
    """The first ID from 601 on that is free in nnU-Net's folders, and the next one, for a dense twin, too.

    One that a run of another user's holds, alive or killed, is not; one's own killed run is gone on with.
    """
    places = [folder for folder in folders if folder is not None and folder.is_dir()]
    names = {entry.name[:11] for folder in places for entry in folder.iterdir()}

    def is_free(number: int) -> bool:
        held = any(is_held_by_another_user(folder, f"{number:03d}") for folder in places)
        return not held and f"Dataset{number:03d}_" not in names

    return next((n for n in range(_FIRST_ID, 999) if is_free(n) and is_free(n + 1)), _FIRST_ID)


def _believe_marks(given: Given, survey: Survey) -> tuple[list[FoundMark], list[Doubt]]:
    """All marks with what each is believed to mean, and what has to be asked."""
    found: list[FoundMark] = []
    asked: dict[tuple[str, str, str], list[FoundMark]] = {}  # for the same reason
    known: dict[Mark, str] = {}
    for role in ("scribble", "dense"):
        marks = survey.marks(role)
        apart = _never_together(survey, role)
        see_through = {case for case, content in survey.labels.get(role, {}).items() if content.hidden}
        rest = _rest([mark for mark in marks if not see_through & {*mark.files}], given, role)
        for mark in sorted(marks, key=_order):
            meaning = _meaning(mark, given, rest, known)
            why = "" if meaning is None else _why_asked(mark, given, apart)
            if meaning is None or why:
                found.append(mark)
                reason = why or _why_unknown(mark, given)
                asked.setdefault((role, mark.how, reason), []).append(replace(mark, meaning=meaning))
            else:
                found.append(replace(mark, meaning=meaning))
                known[mark.key] = meaning
    doubts: dict[str, Doubt] = {}
    for (_, _, reason), marks in asked.items():
        told = _tell_marks(marks, reason)
        for mark in marks:
            doubt = _ask_meaning(mark, given, told, reason)
            doubts.setdefault(doubt.question, doubt)  # scribbles and dense labels may hold the same
    return found, list(doubts.values())


def _too_many(doubts: Sequence[Doubt], folders: Folders) -> list[str]:
    """Instead of a sentence for every shade of grey."""
    if len(doubts) <= _MOST_ASKED:
        return []
    home = " and ".join(str(folder) for folder in (folders.scribbles, folders.dense) if folder is not None)
    return [
        f"{home}: {len(doubts)} values and names are no class: these are images, or drawings with soft edges (draw "
        "without antialiasing, and never save as JPEG), or give all classes with --labels"
    ]


def _says_scribbles(given: Given, survey: Survey, marks: Iterable[FoundMark]) -> bool:
    """Whether drawings are scribbles by what they hold: a background stroke, or what is called unlabelled."""
    if given.unlabelled is not None or given.background_scribble is not None:
        return True
    contents = survey.labels.get("scribble", {}).values()
    named = {fold(name) for content in contents for name in (*content.declared, *_names(content.voxels))}
    if {BACKGROUND, UNLABELLED} & set(given.meanings.values()) or any(map(_is_no_class, named)):
        return True
    # Dense labels hold classes and zeros alone.
    has_rest = any(mark.meaning in (BACKGROUND, UNLABELLED) and mark.mark not in _ZEROS for mark in marks)
    return given.labels is not None and has_rest


def _as_options(marks: Sequence[FoundMark], given: Given) -> tuple[dict[str, Mark | None], dict[str, Mark | None]]:
    """`labels` of `convert folder`, and its `background_scribble` and `unlabelled`."""
    named: dict[str, set[Mark]] = {name: set() for name in given.labels or ()}
    rest: dict[str, Mark | None] = {BACKGROUND: given.background_scribble, UNLABELLED: given.unlabelled}
    by_name = any(mark.how == "name" for mark in marks)
    problems = []
    for mark in marks:
        meaning, key = mark.meaning, mark.key
        assert meaning is not None  # or there were doubts
        is_own = isinstance(key, str) and (means_ignore(key) if meaning == UNLABELLED else key == fold(meaning))
        if is_own or (mark.mark in _ZEROS and mark.role == "dense"):
            if meaning not in rest:
                named.setdefault(meaning, set())
        elif mark.is_rest and 0 not in given.meanings:
            continue  # what `convert folder` takes it for
        elif meaning not in rest:
            named.setdefault(meaning, set()).add(mark.mark)
        elif mark.role == "scribble":
            other = rest[meaning]
            if other is not None and fold_mark(other) != key:
                problems.append(f"{other} and {mark.mark} both mean {meaning}: one of them can be said")
            rest[meaning] = mark.mark
    labels: dict[str, Mark | None] = {}
    for position, (name, own) in enumerate(named.items(), start=1):
        said = (given.labels or {}).get(name)
        different = {mark for mark in (*own, *(() if said is None else (said,))) if not by_name or mark != position}
        if len(set(map(fold_mark, different))) > 1:
            told = " and ".join(sorted(map(str, different)))
            problems.append(f"{told} both mean {name}: one other name, value or colour of a class is understood")
        labels[name] = min(different, key=str, default=None)
    if not labels:
        problems.append("no drawing holds a class: draw one, or name it with --labels")
    refuse(problems)
    return check_classes(labels.items(), "labels"), rest


def _order(mark: FoundMark) -> tuple[int, int]:
    """Values by size, names and colours as they are met, and last the voxels in no segment."""
    if mark.how == "value":
        assert isinstance(mark.mark, int)
        return 0, mark.mark
    return (2, 0) if mark.is_rest else (1, 0)


def _is_no_class(name: str) -> bool:
    return name == BACKGROUND or means_ignore(name)


def _names(marks: Iterable[Mark]) -> list[str]:
    return [mark for mark in marks if isinstance(mark, str)]


def _said(mark: FoundMark, given: Given) -> str | None:
    """What options or answers say."""
    key = mark.key
    for said, meaning in ((given.background_scribble, BACKGROUND), (given.unlabelled, UNLABELLED)):
        if said is not None and fold_mark(said) == key:
            return meaning
    for position, (name, said) in enumerate((given.labels or {}).items(), start=1):
        if isinstance(mark.mark, int):
            if mark.how == "value" and mark.mark == (said if isinstance(said, int) else position):
                return name
        elif key in (fold(name), fold_mark(said) if isinstance(said, str) else None):
            return name
    return given.meanings.get(key)


def _rest(marks: Sequence[FoundMark], given: Given, role: str) -> dict[Mark, str]:
    """What values and colours are no class, by today's rules for them.

    More than half of the voxels are no stroke, so they are unlabelled; then 0 is a background stroke, as in the coding
    of ACDC; and where 0 is unlabelled, one more than the highest class is.

    Args:
        marks: those of pictures with transparent pixels left out: these pixels are what is unlabelled there.
        given: what was said.
        role: of the files: `scribble` or `dense`.
    """
    plain = [mark for mark in marks if mark.how != "name"]
    if role == "dense":
        return dict.fromkeys(_ZEROS, BACKGROUND)
    rest: dict[Mark, str] = {}
    unlabelled = given.unlabelled
    if unlabelled is None:
        most = [mark.mark for mark in plain if mark.share > MOST and _said(mark, given) is None]
        unlabelled = most[0] if len(most) == 1 else None
    if unlabelled is None:
        return rest
    rest[fold_mark(unlabelled)] = UNLABELLED
    background = given.background_scribble
    if background is None and unlabelled != 0:
        background = 0
    elif background is None and given.labels:
        values = [mark if isinstance(mark, int) else n for n, mark in enumerate(given.labels.values(), start=1)]
        background = max(values) + 1
    if background is not None:
        rest.setdefault(fold_mark(background), BACKGROUND)
    return rest


def _meaning(mark: FoundMark, given: Given, rest: Mapping[Mark, str], known: Mapping[Mark, str]) -> str | None:
    said = _said(mark, given)
    if mark.how != "name":
        return said if said is not None else rest.get(mark.key, known.get(mark.key))
    if mark.is_rest:
        if mark.role == "dense":
            return BACKGROUND
        is_named = UNLABELLED in {meaning for key, meaning in known.items() if isinstance(key, str)}
        return said or (None if is_named and mark.share else UNLABELLED)
    assert isinstance(mark.mark, str)
    own = fold(mark.mark)
    if own == BACKGROUND:
        return BACKGROUND
    if means_ignore(own):
        return UNLABELLED
    return said if said is not None or given.labels is not None else mark.mark


def _why_asked(mark: FoundMark, given: Given, apart: Mapping[str, str]) -> str:
    """Why a name is not taken for that of a class unasked; empty where it is."""
    if mark.how != "name" or not isinstance(mark.mark, str) or _said(mark, given) is not None:
        return ""
    own = fold(mark.mark)
    if _is_no_class(own):
        return ""
    if is_default_name(own):
        return "is a name that the program gave by itself"
    if own in _LIKE_BACKGROUND:
        return "may be the background stroke, or a class"
    if own in apart:
        return f"never stands in one file with {apart[own]}, and may be the same class"
    return ""


def _never_together(survey: Survey, role: str) -> dict[str, str]:
    """Names that stand in some files where another stands in others, and both in none."""
    files: dict[str, set[str]] = {}
    spelled: dict[str, str] = {}
    named = {case: content for case, content in survey.labels.get(role, {}).items() if content.how == "name"}
    for case, content in named.items():
        for name in content.declared or _names(content.voxels):
            files.setdefault(fold(name), set()).add(case)
            spelled.setdefault(fold(name), name)
    drawn = {fold(name) for content in named.values() for name in _names(content.voxels)}
    apart: dict[str, str] = {}
    for one, other in combinations(sorted(drawn & files.keys()), 2):
        if not files[one] & files[other]:
            apart.setdefault(one, spelled[other])
            apart.setdefault(other, spelled[one])
    return apart


def _describe_mark(mark: FoundMark) -> tuple[str, str]:
    """What it is, and where it is drawn."""
    where = f"in {len(mark.files)} of {mark.among} files"
    if mark.how == "name":
        return "what no name is given to" if mark.is_rest else f"'{mark.mark}'", where
    share = format_percent(round(1e6 * mark.share), 1_000_000)
    return f"the {mark.how} {mark.mark}", f"{where}, {share} of the voxels"


def _tell_marks(marks: Sequence[FoundMark], reason: str) -> str:
    """One sentence on marks of one role that are asked for the same reason, with the options that answer it."""
    described = [(*_describe_mark(mark), mark.files[0]) for mark in marks]
    told = ", ".join(f"{what} ({where}, the first {first})" for what, where, first in described)
    classes = ",".join(
        f"CLASS={quote(str(mark.mark))}" for mark in marks if isinstance(mark.mark, str) or mark.mark > 0
    )
    own = "with it as a class of its own, or " if reason.startswith("never") else ""
    options = [f"--labels {own}{classes}"] if classes else []
    if marks[0].role == "scribble":
        written = quote(str(marks[0].mark)) if len(marks) == 1 else "MARK"
        options += [f"--background-scribble {written}", f"--unlabelled {written}"]
    advice = f"give {' or '.join(options)}" if options else "correct it in the files"
    return f"{told}{' ' if len(marks) == 1 else ', each of which '}{reason}: {advice}"


def _ask_meaning(mark: FoundMark, given: Given, told: str, reason: str) -> Doubt:
    """The question for one mark; what is believed of it is only to be confirmed."""
    is_zero = mark.mark == 0
    what, where = _describe_mark(mark)

    def answer(text: str) -> Given:
        name = " ".join(text.split())
        own = fold(name)
        name = BACKGROUND if own == BACKGROUND else UNLABELLED if means_ignore(own) else name
        if name not in (BACKGROUND, UNLABELLED):
            check_classes([(name, None)], "answer")
            if name.isdecimal() or is_colour(name):
                raise AttenScribbleError(f"{name!r} is no name of a class: give one, or background, or unlabelled")
        return replace(given, meanings={**given.meanings, mark.key: name})

    hints = [f"It {reason}."] if is_zero or mark.meaning is not None else []
    hints += [] if is_zero else ["A class, background or unlabelled"]
    return Doubt(
        told,
        f"What is {what} ({where})? {' '.join(hints)}",
        answer,
        (BACKGROUND, UNLABELLED) if is_zero else (),
        mark.meaning,
    )


def _why_unknown(mark: FoundMark, given: Given) -> str:
    if mark.is_rest:
        return "lies beside a name for unlabelled voxels"
    if mark.mark == 0:
        return "may be unlabelled, or a background stroke"
    return f"is none of the classes {', '.join(given.labels)}" if given.labels else "has no name"
