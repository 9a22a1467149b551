"""What `attenscribble start` believes of a user's folder, and what only its owner can tell."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

from nnunet_attenscribble.common.text import format_percent, list_some
from nnunet_attenscribble.common.volumes import file_of
from nnunet_attenscribble.dataset_conversion.codings import UNLABELLED_NAMES
from nnunet_attenscribble.dataset_conversion.findings import Findings, Folders, look_at_folders, tell_files_apart
from nnunet_attenscribble.dataset_conversion.folder_options import FolderOptions
from nnunet_attenscribble.dataset_conversion.layout import Drawings, Layout, find_layout
from nnunet_attenscribble.dataset_conversion.meanings import (
    BACKGROUND,
    UNLABELLED,
    check_classes,
    fold,
    is_colour,
)
from nnunet_attenscribble.dataset_conversion.pairing import stem
from nnunet_attenscribble.dataset_conversion.survey import (
    FoundMark,
    Survey,
    fitting_images,
    is_default_name,
    survey_cases,
)
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["Beliefs", "Believer", "Doubt", "Given", "free_id", "name_dataset"]

#: What people call strokes in the background; only `background` itself is taken for one unasked.
_LIKE_BACKGROUND = {"bg", "back", "back ground", "backgr", "outside", "rest", "other", "others", "surrounding", "none"}
_MOST = 0.5  # share of voxels that no stroke has, see `Coding.strokes_problems`
_FIRST_ID = 601
_MRI = ("MRI",)
_ZEROS = (0, "#000000")
Mark = int | str


@dataclass(frozen=True)
class Given:
    """What the owner has said so far, by options or in answer to questions; None: nothing.

    Attributes:
        meanings: of single marks, by `_key`.
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
        told: one sentence, with the option that answers it.
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


@dataclass(frozen=True)
class Beliefs:
    """What is believed, as far as it could be found out.

    Attributes:
        options: to convert with; None where there are doubts or problems.
        doubts: in the order in which they are asked.
        problems: that no answer mends.
        cases: of the folders.
        survey: of their content.
        meanings: what is believed of each mark; None: not known.
        unused: folders with images that are not used, and how many.
    """

    options: FolderOptions | None = None
    doubts: tuple[Doubt, ...] = ()
    problems: tuple[str, ...] = ()
    cases: Findings | None = None
    survey: Survey | None = None
    meanings: tuple[tuple[FoundMark, str | None], ...] = ()
    unused: Mapping[Path, int] = field(default_factory=dict)


class Believer:
    """Looks at a folder as often as something new is given, and reads its files once."""

    def __init__(self, root: Path, defaults: FolderOptions, *, workers: int | None = None, progress: bool = False):
        """Take down where to look.

        Args:
            root: the user's folder.
            defaults: options that nothing is to be found out about, such as ID and name.
            workers: processes; None: one per processor.
            progress: shown on stderr.
        """
        self.root = root
        self.defaults = defaults
        self.layout: Layout = find_layout(root)
        self._workers, self._progress = workers, progress
        self._surveys: dict[tuple[Folders, tuple[str, ...]], Survey] = {}

    def believe(self, given: Given) -> Beliefs:
        """What is believed when this much is given."""
        doubts, problems = self._folder_doubts(given)
        folders = self._folders(given)
        if folders is None or problems:
            return Beliefs(doubts=tuple(doubts), problems=tuple(problems))
        unused = self._unused(folders)
        try:
            channels, cases = self._find_cases(folders, given)
        except AttenScribbleError as error:
            hints = self._hints(folders, None)
            return Beliefs(doubts=tuple(doubts), problems=(*error.problems, *hints), unused=unused)
        problems += [*cases.problems, *(self._hints(folders, cases) if cases.problems else ())]
        survey = self._survey(folders, channels, cases)
        problems += survey.problems
        if not any(case.scribble or case.dense for case in cases.cases if not case.test):
            problems.append(f"{self.root}: no image has a drawing")
        meanings, more = _meanings(given, survey)
        doubts += self._kind_doubts(folders, given, survey, meanings)
        doubts += more
        doubts += _channel_doubts(cases, given, channels, survey)
        doubts += _image_doubts(folders, given, survey)
        labels: dict[str, Mark | None] = {}
        rest: dict[str, Mark | None] = {BACKGROUND: None, UNLABELLED: None}
        if not doubts and not problems:
            try:
                labels, rest = _as_options(meanings, given)
            except AttenScribbleError as error:
                problems += error.problems
        found = Beliefs(None, tuple(doubts), tuple(dict.fromkeys(problems)), cases, survey, tuple(meanings), unused)
        if found.doubts or found.problems:
            return found
        role = "scribble" if folders.scribbles is not None else "dense"
        options = replace(
            self.defaults,
            **{name: getattr(folders, name) for name in ("images", "scribbles", "dense")},
            test_images=folders.test_images,
            test_labels=folders.test_labels,
            labels=labels,
            undrawn_as_test=any(getattr(case, role) is None for case in cases.cases if not case.test),
            channels=channels,
            spacing=given.spacing,
            unlabelled=rest[UNLABELLED],
            background_scribble=rest[BACKGROUND],
        )
        return replace(found, options=options)

    # --- folders ---

    def _drawings(self, given: Given) -> list[Drawings]:
        """Folders with drawings and what they are, as said, or as their names say."""
        if given.scribbles is not None or given.dense is not None:
            return []
        return [
            replace(one, kind=given.kinds.get(one.files[0], one.kind))
            for one in self.layout.drawings
            if given.kinds.get(one.files[0]) != "neither"
        ]

    def _folder_doubts(self, given: Given) -> tuple[list[Doubt], list[str]]:
        doubts: list[Doubt] = []
        images = self.layout.images if given.images is None else (given.images,)
        if not images:
            return doubts, [
                f"{self.root}: holds drawings ({self._tell(self.layout.drawings)}) and no image: put the images "
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
        drawings = self._drawings(given)
        if not drawings:
            if len(self.layout.unknown) > 1:
                doubts.append(self._ask_for_drawings(given))
                return doubts, []
            files = ", ".join(f"{folder} ({count} files)" for folder, count in self.layout.unknown.items())
            return doubts, [
                f"{self.root}: holds images and no drawing ({files or 'no name is that of one'}): call drawings "
                "CASE_scribble or CASE.seg.nrrd, put them into a folder scribbles, or give theirs with --scribbles"
            ]
        if len(drawings) > 1:
            doubts += [self._ask_what(one, drawings, given) for one in drawings if one.kind is None]
            for kind in ("scribbles", "dense"):
                same = [one for one in drawings if one.kind == kind]
                if len(same) > 1:
                    doubts.append(_ask_which(kind, same, given))
        return doubts, []

    def _tell(self, drawings: Iterable[Drawings]) -> str:
        return list_some([f"{one.folder}: {len(one.files)} files" for one in drawings])

    def _ask_for_drawings(self, given: Given) -> Doubt:
        told = ", ".join(f"{folder} ({count})" for folder, count in self.layout.unknown.items())

        def answer(text: str) -> Given:
            chosen = Path(text)
            others = [folder for folder in self.layout.unknown if folder != chosen]
            return replace(given, scribbles=chosen, images=others[0] if len(others) == 1 else self.root)

        return Doubt(
            f"{self.root}: no name says which of its folders, {told}, holds images, and which drawings: give "
            "--images DIR --scribbles DIR, or --dense DIR for dense labels",
            "Which folder holds the drawings?",
            answer,
            tuple(map(str, self.layout.unknown)),
        )

    def _ask_what(self, one: Drawings, drawings: Sequence[Drawings], given: Given) -> Doubt:
        mixed = any(other.folder == one.folder for other in drawings if other is not one)

        def answer(text: str) -> Given:
            if mixed and text != "dense":
                raise AttenScribbleError(f"{one.files[0].name} and scribbles lie in one folder: take one of them out")
            return replace(given, kinds={**given.kinds, one.files[0]: text})

        return Doubt(
            f"{self._tell(drawings)}: hold drawings of the same images: say which are scribbles and which are dense "
            "labels, with --scribbles DIR and --dense DIR; what is not given is not used",
            f"What are the {len(one.files)} drawings in {one.folder} ({one.files[0].name})?",
            answer,
            ("scribbles", "dense", "neither"),
        )

    def _folders(self, given: Given) -> Folders | None:
        """As far as they are clear; drawings of a kind that is not are taken for scribbles."""
        images = self.layout.images if given.images is None else (given.images,)
        if len(images) != 1:
            return None
        home, scribbles, dense = images[0], given.scribbles, given.dense
        if scribbles is None and dense is None:
            drawings = self._drawings(given)
            by_kind = {one.kind or "scribbles": one.folder for one in drawings}
            if len(by_kind) < len(drawings) or not drawings:
                return None
            scribbles, dense = by_kind.get("scribbles"), by_kind.get("dense")
        return Folders(
            home,
            scribbles,
            dense,
            given.test_images or self.layout.test_images,
            given.test_labels or self.layout.test_labels,
        )

    def _unused(self, folders: Folders) -> dict[Path, int]:
        used = {folder.resolve() for folder in vars(folders).values() if folder is not None}
        held = {one.folder: len(one.files) for one in self.layout.drawings}
        return {
            folder: count
            for folder, count in {**self.layout.unknown, **held}.items()
            if folder.resolve() not in used and not used & set(folder.resolve().parents)
        }

    # --- cases ---

    def _find_cases(self, folders: Folders, given: Given) -> tuple[tuple[str, ...], Findings]:
        """Names of the channels, and the cases."""
        if given.channels is not None:
            return given.channels, look_at_folders(folders, None, given.channels)
        error: AttenScribbleError | None = None
        try:
            plain = look_at_folders(folders, None, _MRI)
            if not plain.problems:
                return _number_channels(plain), plain
            error = AttenScribbleError(plain.problems)
        except AttenScribbleError as caught:
            plain, error = None, caught
        names = _channel_names(folders)
        if names:
            try:
                found = look_at_folders(folders, None, names)
                if not found.problems:
                    return names, found
            except AttenScribbleError:
                pass
        if plain is None:
            raise error
        return _MRI, plain

    def _survey(self, folders: Folders, channels: tuple[str, ...], cases: Findings) -> Survey:
        key = (folders, channels)
        if key not in self._surveys:
            self._surveys[key] = survey_cases(cases, workers=self._workers, progress=self._progress)
        return self._surveys[key]

    def _hints(self, folders: Folders, cases: Findings | None) -> list[str]:
        """Which images drawings without one may be of, by their grids: nothing is paired by that."""
        known = {label.file for case in cases.cases for label in (case.scribble, case.dense) if label} if cases else set()
        shown = [folder for folder in (folders.scribbles, folders.dense) if folder is not None]
        loose = [file for one in self.layout.drawings if one.folder in shown for file in one.files if file not in known]
        pictures = tell_files_apart(folders.images, _files_of_images(self.layout, folders))[0]
        images = {file.name: file for file in pictures}
        hints = []
        for file in loose[:5]:
            fitting = fitting_images(file, {name: image for name, image in images.items()})
            if fitting:
                hints.append(
                    f"{file}: lies on the grid of {list_some(fitting)}: call it as its image, with _scribble behind, "
                    "if it is of "
                    + ("that one" if len(fitting) == 1 else "one of them")
                )
        return hints

    def _kind_doubts(
        self, folders: Folders, given: Given, survey: Survey, meanings: Iterable[tuple[FoundMark, str | None]]
    ) -> list[Doubt]:
        """Whether a single folder of drawings holds scribbles or dense labels, where nothing says so."""
        drawings = self._drawings(given)
        if len(drawings) != 1 or drawings[0].kind is not None or folders.scribbles is None:
            return []
        if given.unlabelled is not None or given.background_scribble is not None:
            return []
        contents = survey.labels.get("scribble", {}).values()
        named = {fold(name) for content in contents for name in (*content.declared, *_names(content.voxels))}
        if {BACKGROUND, UNLABELLED} & set(given.meanings.values()) or named & {BACKGROUND, *UNLABELLED_NAMES}:
            return []
        rest = [mark for mark, meaning in meanings if meaning in (BACKGROUND, UNLABELLED) and mark.mark not in _ZEROS]
        if rest and given.labels is not None:
            return []  # dense labels hold classes and zeros alone
        one = drawings[0]
        return [
            Doubt(
                f"{one.folder}: nothing says whether its {len(one.files)} drawings are scribbles, with voxels that "
                "nobody drew on, or dense labels: give --scribbles or --dense with this folder; a background stroke is "
                "known by the name background, or by --background-scribble",
                f"Are the drawings in {one.folder} scribbles (most voxels unlabelled), or dense labels?",
                lambda text: replace(given, kinds={**given.kinds, one.files[0]: text}),
                ("scribbles", "dense"),
            )
        ]


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


def _files_of_images(layout: Layout, folders: Folders) -> list[Path]:
    from nnunet_attenscribble.common.files import find_files

    drawn = {file for one in layout.drawings for file in one.files}
    return [file for file in find_files(folders.images) if file not in drawn and stem(file) is not None]


# --- channels ---


def _number_channels(cases: Findings) -> tuple[str, ...]:
    """One is called MRI, colours R, G and B; others are asked for."""
    counts = {len(case.images) for case in cases.cases}
    if counts == {3} and all(len(set(map(file_of, case.images))) == 1 for case in cases.cases):
        return ("R", "G", "B")
    return _MRI if counts == {1} else tuple(f"channel {number}" for number in range(max(counts, default=1)))


def _channel_names(folders: Folders) -> tuple[str, ...]:
    """Last words of the names of images that are the same for every case; none where they are not."""
    from nnunet_attenscribble.common.files import find_files

    taken = [folder for folder in (folders.scribbles, folders.dense) if folder not in (None, folders.images)]
    files = [
        file
        for file in find_files(folders.images)
        if stem(file) is not None and not any(folder in file.parents for folder in taken)
    ]
    images = tell_files_apart(folders.images, files)[0]
    cases: dict[tuple[str, str], list[str]] = {}
    for file in images:
        name = stem(file) or ""
        last = re.split("[_. -]", name)[-1]
        cases.setdefault((str(file.parent), name.removesuffix(last)), []).append(last)
    sets = {tuple(sorted(words)) for words in cases.values()}
    names = next(iter(sets), ())
    alike = len(sets) == 1 and len(cases) > 1 and len(names) > 1
    return names if alike and not any(name.isdecimal() for name in names) else ()


def _channel_doubts(cases: Findings, given: Given, channels: tuple[str, ...], survey: Survey) -> list[Doubt]:
    def answer(text: str) -> Given:
        names = tuple(part.strip() for part in text.split(",") if part.strip())
        if len(names) != len(channels):
            raise AttenScribbleError(f"{len(names)} names were given: give {len(channels)}, with commas between them")
        return replace(given, channels=names)

    if given.channels is not None:
        return []
    if channels[0] == "channel 0":
        return [
            Doubt(
                f"images have {len(channels)} channels, _0000, _0001 and so on: name them in this order, as "
                "--channels T1,FLAIR; CT is normalised as such, others by z-score",
                f"What are the {len(channels)} channels called, in the order of their numbers (as T1,FLAIR)?",
                answer,
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


def _image_doubts(folders: Folders, given: Given, survey: Survey) -> list[Doubt]:
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


# --- what marks mean ---


def _order(mark: FoundMark) -> tuple[int, int]:
    """Values by size, names and colours as they are met, and last the voxels in no segment."""
    if mark.how == "value":
        assert isinstance(mark.mark, int)
        return 0, mark.mark
    return (2, 0) if mark.mark == 0 else (1, 0)


def _key(mark: Mark) -> Mark:
    return fold(mark) if isinstance(mark, str) else mark


def _names(marks: Iterable[Mark]) -> list[str]:
    return [mark for mark in marks if isinstance(mark, str)]


def _meanings(given: Given, survey: Survey) -> tuple[list[tuple[FoundMark, str | None]], list[Doubt]]:
    """What every mark is believed to mean, and what has to be asked."""
    found: list[tuple[FoundMark, str | None]] = []
    doubts: list[Doubt] = []
    known: dict[Mark, str] = {}
    for role in ("scribble", "dense"):
        marks = survey.marks(role)
        apart = _never_together(survey, role)
        rest = _rest(marks, given, role)
        for mark in sorted(marks, key=_order):
            meaning = _meaning(mark, given, role, rest, known)
            why = "" if meaning is None else _why_asked(mark, given, apart)
            if meaning is None or why:
                doubts.append(_ask_meaning(mark, given, why, meaning, survey))
                found.append((mark, None))
            else:
                found.append((mark, meaning))
                known[_key(mark.mark)] = meaning
    return found, list({doubt.told: doubt for doubt in doubts}.values())


def _said(mark: FoundMark, given: Given) -> str | None:
    """What options or answers say."""
    key = _key(mark.mark)
    for said, meaning in ((given.background_scribble, BACKGROUND), (given.unlabelled, UNLABELLED)):
        if said is not None and _key(said) == key:
            return meaning
    for position, (name, said) in enumerate((given.labels or {}).items(), start=1):
        if isinstance(mark.mark, int):
            if mark.how == "value" and mark.mark == (said if isinstance(said, int) else position):
                return name
        elif key in (fold(name), _key(said) if isinstance(said, str) else None):
            return name
    return given.meanings.get(key)


def _rest(marks: Sequence[FoundMark], given: Given, role: str) -> dict[Mark, str]:
    """What values and colours are no class, by today's rules for them.

    More than half of the voxels are no stroke, so they are unlabelled; then 0 is a background stroke, as in the coding
    of ACDC; and where 0 is unlabelled, one more than the highest class is.
    """
    plain = [mark for mark in marks if mark.how != "name"]
    if role == "dense":
        return dict.fromkeys(_ZEROS, BACKGROUND)
    rest: dict[Mark, str] = {}
    unlabelled = given.unlabelled
    if unlabelled is None:
        most = [mark.mark for mark in plain if mark.share > _MOST and _said(mark, given) is None]
        unlabelled = most[0] if len(most) == 1 else None
    if unlabelled is None:
        return rest
    rest[_key(unlabelled)] = UNLABELLED
    background = given.background_scribble
    if background is None and unlabelled != 0:
        background = 0
    elif background is None and given.labels:
        values = [mark if isinstance(mark, int) else n for n, mark in enumerate(given.labels.values(), start=1)]
        background = max(values) + 1
    if background is not None:
        rest.setdefault(_key(background), BACKGROUND)
    return rest


def _meaning(mark: FoundMark, given: Given, role: str, rest: Mapping[Mark, str], known: Mapping[Mark, str]) -> str | None:
    if mark.how == "name":
        if mark.mark == 0:
            named = {meaning for key, meaning in known.items() if isinstance(key, str)}
            return BACKGROUND if role == "dense" else _said(mark, given) or (
                UNLABELLED if UNLABELLED not in named or not mark.share else None
            )
        assert isinstance(mark.mark, str)
        own = fold(mark.mark)
        if own == BACKGROUND:
            return BACKGROUND
        if own in UNLABELLED_NAMES:
            return UNLABELLED
        said = _said(mark, given)
        return said if said is not None or given.labels is not None else mark.mark
    said = _said(mark, given)
    if said is not None:
        return said
    return rest.get(_key(mark.mark), known.get(_key(mark.mark)))


def _why_asked(mark: FoundMark, given: Given, apart: Mapping[str, str]) -> str:
    """Why a name is not taken for that of a class unasked; empty where it is."""
    if mark.how != "name" or not isinstance(mark.mark, str) or _said(mark, given) is not None:
        return ""
    own = fold(mark.mark)
    if own in (BACKGROUND, *UNLABELLED_NAMES):
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


def _ask_meaning(mark: FoundMark, given: Given, why: str, meaning: str | None, survey: Survey) -> Doubt:
    in_none = mark.how == "name" and mark.mark == 0
    told = "what no name is given to" if in_none else f"'{mark.mark}'"
    told = f"the {mark.how} {mark.mark}" if mark.how != "name" else told
    shares = f"{format_percent(round(1e6 * mark.share), 1_000_000)} of the voxels"
    where = f"in {len(mark.files)} of {len(survey.labels[mark.role])} files" + ("" if mark.how == "name" else f", {shares}")
    known = ", ".join(given.labels or ()) if given.labels is not None else ""
    reason = "lies beside a name for unlabelled voxels" if in_none else why or (f"is none of the classes {known}" if known else "has no name")
    written = f"'{mark.mark}'" if mark.how == "colour" or " " in str(mark.mark) else mark.mark
    option = f"--labels CLASS={written}"
    others = f"--background-scribble {written} or --unlabelled {written}" if mark.role == "scribble" else ""
    if mark.how == "name" and why.startswith("never"):
        option = f"--labels with it as a class of its own, or CLASS={written}"

    def answer(text: str) -> Given:
        name = " ".join(text.split())
        own = fold(name)
        name = BACKGROUND if own == BACKGROUND else UNLABELLED if own in UNLABELLED_NAMES else name
        if name not in (BACKGROUND, UNLABELLED):
            check_classes([(name, None)], "answer")
            if name.isdecimal() or is_colour(name):
                raise AttenScribbleError(f"{name!r} is no name of a class: give one, or background, or unlabelled")
        return replace(given, meanings={**given.meanings, _key(mark.mark): name})

    if in_none:
        option, others = others, ""
    return Doubt(
        f"{told} ({where}, the first {mark.files[0]}) {reason}: give {option}" + (f", {others}" if others else ""),
        f"What is {told} ({where})? {f'It {why}. ' if why else ''}A class, background or unlabelled",
        answer,
        default=meaning if why and isinstance(meaning, str) else None,
    )


def _as_options(
    meanings: Sequence[tuple[FoundMark, str | None]], given: Given
) -> tuple[dict[str, Mark | None], dict[str, Mark | None]]:
    """`labels` of `convert folder`, and its `background_scribble` and `unlabelled`."""
    named: dict[str, set[Mark]] = {name: set() for name in given.labels or ()}
    rest: dict[str, Mark | None] = {BACKGROUND: given.background_scribble, UNLABELLED: given.unlabelled}
    by_name = any(mark.how == "name" for mark, _ in meanings)
    problems = []
    for mark, meaning in meanings:
        assert meaning is not None  # or there were doubts
        own = {BACKGROUND: (BACKGROUND,), UNLABELLED: UNLABELLED_NAMES}.get(meaning, (fold(meaning),))
        if _key(mark.mark) in own or (mark.mark in _ZEROS and mark.role == "dense"):
            named.setdefault(meaning, set()) if meaning not in rest else None
        elif mark.mark == 0 and mark.how == "name" and 0 not in given.meanings:
            continue  # what `convert folder` takes it for
        elif meaning not in rest:
            named.setdefault(meaning, set()).add(mark.mark)
        elif mark.role == "scribble":
            other = rest[meaning]
            if other is not None and _key(other) != _key(mark.mark):
                problems.append(f"{other} and {mark.mark} both mean {meaning}: one of them can be said")
            rest[meaning] = mark.mark
    labels: dict[str, Mark | None] = {}
    for position, (name, marks) in enumerate(named.items(), start=1):
        said = (given.labels or {}).get(name)
        different = {mark for mark in (*marks, *(() if said is None else (said,))) if not by_name or mark != position}
        if len({_key(mark) for mark in different}) > 1:
            told = " and ".join(sorted(map(str, different)))
            problems.append(f"{told} both mean {name}: one other name, value or colour of a class is understood")
        labels[name] = min(different, key=str, default=None)
    if not labels:
        problems.append("no drawing holds a class: draw one, or name it with --labels")
    if problems:
        raise AttenScribbleError(problems)
    return check_classes(labels.items(), "labels"), rest


def name_dataset(root: Path) -> str:
    """After the folder."""
    name = re.sub(r"^Dataset\d{3}_", "", Path(os.path.abspath(root)).name)
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "Drawn"


def free_id(folders: Iterable[Path | None], first: int = _FIRST_ID) -> int:
    """The first ID from 601 on that is free in nnU-Net's folders, and the next one, for a dense twin, too."""
    taken = {
        int(entry.name[7:10])
        for folder in folders
        if folder is not None and folder.is_dir()
        for entry in folder.iterdir()
        if re.match(r"Dataset\d{3}_", entry.name)
    }
    return next((number for number in range(first, 999) if not {number, number + 1} & taken), first)
