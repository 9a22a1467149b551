"""Which image, scribble and dense label belong together, told by the names of files and folders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from nnunet_attenscribble.common.soundness import DETACHED, voxels_file
from nnunet_attenscribble.common.text import list_some, normalise

Key = TypeVar("Key")

#: Of files that SimpleITK reads with their geometry, or that have none.
ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd", ".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff", *DETACHED)
_SEGMENTATION = ".seg.nrrd"  # of 3D Slicer, which nobody means as a part of the name
#: What drawings are called: last words of the names of files that lie among images, and names of folders.
SCRIBBLE_WORDS = {"scribble", "scribbles", "scrib", "scribs", "stroke", "strokes", "drawn", "drawing", "drawings"}
DENSE_WORDS = {"dense", "gt", "groundtruth", "truth", "manual"}
#: Of drawings of either kind.
LABEL_WORDS = {
    *("label", "labels", "labelmap", "labelmaps", "mask", "masks", "seg", "segs", "segmentation", "segmentations"),
    *("annotation", "annotations", "roi", "rois", "labelled", "labeled"),
}
_DRAWING_WORDS = SCRIBBLE_WORDS | DENSE_WORDS | LABEL_WORDS
#: Of what lies beside images. Anything else may be an image of a kind not thought of, and is not to be lost in silence.
_COMPANION_ENDINGS = (
    *(".json", ".txt", ".csv", ".tsv", ".md", ".rst", ".pdf", ".xml", ".yaml", ".yml", ".html", ".htm", ".log"),
    *(".xls", ".xlsx", ".doc", ".docx", ".ods", ".odt", ".rtf", ".bval", ".bvec", ".md5", ".sha1", ".sha256"),
    *(".label", ".itksnap", ".mrml", ".mrb", ".ctbl", ".fcsv", ".acsv", ".tfm", ".stl", ".obj", ".ply", ".vtp"),
    *(".bidsignore", ".py", ".ipynb"),
)
#: For images without a label, whose name would tell, see `numbered_cases`.
FOUR_DIGITS = "four digits at the end are the number of a channel: if they number cases, add _0000 behind them"
_FOR_DICOM = "; dcm2niix makes NIfTI of DICOM, and 3D Slicer .seg.nrrd of SEG and RTSTRUCT"
_COMPANIONS = (
    *("readme", "license", "licence", "copying", "notice", "authors", "changes", "changelog", "citation", "version"),
    *("md5sums", "sha256sums", "thumbs.db", "desktop.ini", "dicomdir"),
)


def stem(file: Path) -> str | None:
    """The name without its ending, see `normalise`; None for no image."""
    endings = (_SEGMENTATION, *ENDINGS)
    name = next((file.name[: -len(ending)] for ending in endings if file.name.lower().endswith(ending)), None)
    return None if name is None else normalise(name)


def unusable_files(files: Iterable[Path]) -> list[str]:
    """A problem for every file that is neither an image of a kind that is taken, nor its voxels, nor a companion."""
    unknown = [file for file in files if stem(file) is None and not is_companion(file)]
    headers = [
        one
        for folder in {file.parent for file in unknown}
        for one in folder.iterdir()
        if one.suffix.lower() in DETACHED
    ]
    voxels = {*map(voxels_file, headers)}
    return [
        f"{file}: is of a kind that is not taken: save it as one of {', '.join(ENDINGS)}, or remove it"
        + (_FOR_DICOM if file.name.lower().endswith((".dcm", ".ima")) else "")
        for file in unknown
        if file not in voxels
    ]


def is_companion(file: Path) -> bool:
    """Whether it is of a kind that lies beside images and is none."""
    return file.name.lower().endswith(_COMPANION_ENDINGS) or file.name.lower() in _COMPANIONS


@dataclass(frozen=True)
class Labels:
    """Label files of one kind, before it is known which belongs to which image.

    Attributes:
        folder: they lie below it.
        files: those that are no images are passed over.
        what: how errors call them (`scribble`).
    """

    folder: Path
    files: Sequence[Path]
    what: str


@dataclass(frozen=True)
class Pairing:
    """Which files belong together.

    Attributes:
        images: by case, channels in order.
        labels: for every kind of labels the file of each case, or its folder with a file per class.
        problems: of names.
        loose: label files of no image.
    """

    images: dict[str, tuple[Path, ...]]
    labels: list[dict[str, Path]]
    problems: list[str]
    loose: list[Path]


@dataclass(frozen=True)
class _Naming:
    """A way of naming the cases of images.

    Attributes:
        names: case and channel of every image.
        cases: by the folders that stand for them; with `several`, by these and what images are called in them.
        several: a folder holds several cases, as of a hospital.
    """

    names: Mapping[Path, tuple[str, int]]
    cases: Mapping[tuple[str, ...], str]
    several: bool = False

    def match(self, kind: Labels, cases: Collection[str]) -> tuple[dict[str, Path], list[str], list[Path]]:
        """As `match_labels`, by the names of label files, or else of their folders, which may hold one per class."""
        matched, problems, strangers = match_labels(kind.files, cases, kind.what)
        if matched and not problems:
            return matched, [], strangers
        name_of = (_namer_within_folder if self.several else _namer_by_folder)(kind.folder, self.cases)
        by_folder = match_labels(kind.files, cases, kind.what, name_of)
        if by_folder[0] and not by_folder[1]:
            return by_folder
        if problems and not self.several and (folders := _match_folders(kind, self.cases)):
            return folders, [], []
        if cases and not matched:
            strangers = [file for file in kind.files if stem(file) is not None]
            told = list_some([str(stem(file)) for file in strangers]) or "nothing"
            problems = [
                f"{kind.folder}: holds no {kind.what} named as one of the images: they are called {told}, images "
                f"{list_some(list(cases))}"
            ]
        return matched, problems, strangers


def pair_files(
    folder: Path, images: Mapping[Path, int], labels: Sequence[Labels], channels: Sequence[str] = ()
) -> Pairing:
    """Find the images of each case, and its labels.

    Cases are called as the files of their images; or as these less what all have at the end (`p1_image`, `p2_image`);
    or as the folders that hold them, where patients have one each; and all this again with the names of channels at
    the end of names. The first of these ways that leaves no problem and gives every case its channels is taken, or else
    the first that leaves none, or the first, whose problems are told then.

    Args:
        folder: of the images.
        images: files below it, or folders that are one image (DICOM), and how many channels each holds.
        labels: of every kind that there is.
        channels: names of the channels, with which names may end in place of `_0000`, `_0001`...
    """
    attempts = []
    for naming in _name_cases(folder, list(images), channels):
        cases, problems = _group(naming.names)
        found, loose = [], []
        for kind in labels:
            matched, more, strangers = naming.match(kind, cases)
            found.append(matched)
            problems += more
            loose += strangers
        attempts.append(Pairing(cases, found, problems, loose))
        if not problems and all(sum(images[path] for path in paths) == len(channels) for paths in cases.values()):
            return attempts[-1]
    sound = [attempt for attempt in attempts if not attempt.problems]
    return [*sound, *attempts, Pairing({}, [{} for _ in labels], [], [])][0]


def shared_endings(images: Iterable[Path]) -> tuple[str, ...]:
    """Last words of the names of images, or of folders of a DICOM series, that are the same for every case: what may be
    channels; none where they are not.
    """
    cases: dict[tuple[str, str], list[str]] = {}
    for image in images:
        name = _image_name(image) or ""
        last = re.split("[_. -]", name)[-1]
        cases.setdefault((str(image.parent), name.removesuffix(last)), []).append(last)
    sets = {tuple(sorted(words)) for words in cases.values()}
    names = next(iter(sets), ())
    alike = len(sets) == 1 and len(cases) > 1 and len(names) > 1
    return names if alike and not any(name.isdecimal() for name in names) else ()


def sort_by_role(
    files: Iterable[Path], pattern: re.Pattern[str], key: Callable[[re.Match[str]], Key], roles: Iterable[str]
) -> tuple[dict[str, dict[Key, Path]], list[str]]:
    """Files of a published dataset by role and key, and a problem for each that another has as well.

    Args:
        files: whose names match the pattern, or are passed over.
        pattern: with a group `role`.
        key: of a match.
        roles: that are looked for; copies of one scribble are no problem, as it may lie in two folders.
    """
    found: dict[str, dict[Key, Path]] = {role: {} for role in roles}
    problems = []
    for file in files:
        match = pattern.fullmatch(file.name)
        if match is None or match["role"] not in found:
            continue
        other = found[match["role"]].setdefault(key(match), file)
        if other != file and not (match["role"] == "_scribble" and other.read_bytes() == file.read_bytes()):
            problems.append(f"{file}: the same file is also at {other}: remove one of them")
    return found, problems


def split_by_words(folder: Path, files: Iterable[Path]) -> tuple[list[Path], list[Path], list[Path]]:
    """Images, scribbles and other labels that lie in one folder, told by the last word of their names.

    Where no name tells, those of the folders in it do, as of patients with a folder for images and one for labels each.
    """
    files = list(files)
    last = {
        file: "seg" if file.name.lower().endswith(_SEGMENTATION) else re.split("[_. -]", stem(file) or "")[-1]
        for file in files
    }
    words = {file: {word.casefold()} for file, word in last.items()}
    if not any(told & _DRAWING_WORDS for told in words.values()):
        words = {file: {part.casefold() for part in file.relative_to(folder).parts[:-1]} for file in files}
    images: list[Path] = []
    scribbles: list[Path] = []
    others: list[Path] = []
    for file, told in words.items():
        (scribbles if told & SCRIBBLE_WORDS else others if told & _DRAWING_WORDS else images).append(file)
    return images, scribbles, others


def _group(names: Mapping[Path, tuple[str, int]]) -> tuple[dict[str, tuple[Path, ...]], list[str]]:
    """Image files by case, from the case and channel of each."""
    found: dict[str, dict[int, Path]] = {}
    problems = []
    for file, (case, channel) in names.items():
        other = found.setdefault(case, {}).setdefault(channel, file)
        if other == file:
            continue
        if other.parent == file.parent:
            problems.append(f"{file}: the same image is also at {other}: remove one of them")
        else:
            problems.append(
                f"{file}: is called as {other}: rename one of them if they show different patients, or give each "
                "patient a folder with one image, and one with its label"
            )
    for case, channels in found.items():
        absent = sorted(set(range(max(channels) + 1)) - set(channels))
        if absent:
            told = list_some([f"{case}_{channel:04d}" for channel in absent])
            problems.append(
                f"{channels[max(channels)]}: its case has no channel {told}: number them from 0000; {FOUR_DIGITS}"
            )
    return {case: tuple(channels[c] for c in sorted(channels)) for case, channels in found.items()}, problems


def _name_cases(folder: Path, images: Sequence[Path], channels: Sequence[str]) -> Iterator[_Naming]:
    """Each way of naming cases."""
    stems = {file: name for file in images if (name := _image_name(file)) is not None}
    for endings in ((), channels) if len(channels) > 1 else ((),):
        split = {file: _split_channel(name, endings) for file, name in stems.items()}
        if split:
            yield from _name_by_all(folder, stems, split)


def _name_by_all(folder: Path, stems: Mapping[Path, str], split: Mapping[Path, tuple[str, int]]) -> Iterator[_Naming]:
    named = {file: (case or stems[file], channel) for file, (case, channel) in split.items()}
    yield _Naming(named, {(case,): case for case, _ in named.values()})
    words = {file: re.split("(?=[_. -])", case) for file, (case, _) in named.items()}
    for count in range(1, min(map(len, words.values()))):
        if len({tuple(parts[-count:]) for parts in words.values()}) > 1 or len(set(named.values())) < 2:
            break
        short = {file: ("".join(words[file][:-count]), channel) for file, (_, channel) in named.items()}
        yield _Naming(short, {(case,): case for case, _ in short.values()})
    parents = {file: tuple(map(normalise, file.relative_to(folder).parts[:-1])) for file in stems}
    if all(parents.values()):
        shared = _shared_positions(list(parents.values()))
        keys = {file: tuple(part for at, part in enumerate(path) if at not in shared) for file, path in parents.items()}
        several = len({(keys[file], split[file][0]) for file in stems}) > len(set(keys.values()))
        cases = {file: "_".join([*keys[file], *([split[file][0]] if several else [])]) for file in stems}
        by_key = {(*keys[file], split[file][0]) if several else keys[file]: cases[file] for file in stems}
        yield _Naming({file: (cases[file], split[file][1]) for file in stems}, by_key, several)


def _image_name(file: Path) -> str | None:
    """The name of an image: a file, or a folder of DICOM slices."""
    name = stem(file)
    return normalise(file.name) if name is None and file.is_dir() else name


def _split_channel(name: str, channels: Sequence[str]) -> tuple[str, int]:
    """Case and channel: by four digits at the end of a name, or by the name of one of the channels."""
    if match := re.fullmatch(r"(.+)_(\d{4})", name):
        return match[1], int(match[2])
    return _split_named(name, channels) or (name, 0)


def _split_named(name: str, channels: Sequence[str]) -> tuple[str, int] | None:
    for number, channel in enumerate(channels):
        if match := re.fullmatch(rf"(?:(.+)[_. -])?{re.escape(channel)}", name, re.IGNORECASE):
            return match[1] or "", number
    return None


def split_named_channel(image: Path, channels: Sequence[str]) -> tuple[str, int] | None:
    """Case, empty where its folder tells, and channel of an image that is called after one; None for any other."""
    return _split_named(_image_name(image) or "", channels)


def _shared_positions(paths: Sequence[tuple[str, ...]]) -> set[int]:
    """Where all paths have the same folder, and so none that tells patients apart; of one path the first is kept."""
    if len(set(map(len, paths))) > 1:
        return set()
    shared = {at for at, parts in enumerate(zip(*paths, strict=True)) if len(set(parts)) == 1}
    return shared - {0} if len(shared) == len(paths[0]) else shared


def _namer_by_folder(folder: Path, cases: Mapping[tuple[str, ...], str]) -> Callable[[Path], str | None]:
    """What names a label file: the case whose folders are among those of the file, the most of them, or the one in a
    folder below it; else the file's own name.
    """

    @cache  # a folder may hold a file for each of a hundred classes
    def find(parent: Path) -> str | None:
        parts = tuple(map(normalise, parent.relative_to(folder).parts))
        if not parts:
            return None
        case = _find_case(parts, cases)
        if case is not None:
            return case
        below = [key for key in cases if _is_within(parts, key)]  # as of DICOM, whose folders are UIDs
        return cases[below[0]] if len(below) == 1 else None

    def name(file: Path) -> str | None:
        own = stem(file)
        return own if own is None else find(file.parent) or own

    return name


def _namer_within_folder(folder: Path, cases: Mapping[tuple[str, ...], str]) -> Callable[[Path], str | None]:
    """What names a label file where folders hold several cases each: the case of its folders and the beginning of its
    name, with what is behind that; else its own name.
    """

    named: dict[str, list[tuple[str, ...]]] = {}
    for key in cases:
        named.setdefault(key[-1], []).append(key)

    def name(file: Path) -> str | None:
        own = stem(file)
        if own is None:
            return None
        parts = tuple(map(normalise, file.parent.relative_to(folder).parts))
        for start in reversed(_starts(own)):  # the longest first
            fitting = [cases[key] for key in named.get(start, ()) if _is_within(key[:-1], parts)]
            if len(fitting) == 1:
                return fitting[0] + own[len(start) :]
        return own

    return name


def _find_case(parts: tuple[str, ...], cases: Mapping[tuple[str, ...], str]) -> str | None:
    """The case whose folders are among these, the most of them."""
    if parts in cases:
        return cases[parts]
    fitting = [key for key in cases if _is_within(key, parts)]
    return cases[max(fitting, key=len)] if fitting else None


def _match_folders(kind: Labels, cases: Mapping[tuple[str, ...], str]) -> dict[str, Path]:
    """Folders with a label per class, by the case that each stands for; none where a label lies elsewhere."""
    held = Counter(file.parent for file in kind.files if stem(file) is not None)
    found: dict[str, Path] = {}
    for folder in held:
        case = _find_case(tuple(map(normalise, folder.relative_to(kind.folder).parts)), cases)
        if case is None or found.setdefault(case, folder) != folder:
            return {}
    return found if any(count > 1 for count in held.values()) else {}


def _is_within(few: Sequence[str], many: Sequence[str]) -> bool:
    """Whether all of the few come in the many, in this order."""
    rest = iter(many)
    return all(part in rest for part in few)


def numbered_cases(images: Iterable[Path], labels: Iterable[Path]) -> str | None:
    """The problem of four digits that number cases where nnU-Net numbers channels: labels have them as well.

    `case_0000` alone is no problem: there, a label is called as the first channel of its image.
    """
    names = {name: file for file in images if (name := stem(file)) is not None and re.fullmatch(r".+_\d{4}", name)}
    for label in labels:
        for start in _starts(stem(label) or ""):
            if start in names and not start.endswith("_0000"):
                file = names[start]
                return (
                    f"{file}: four digits at the end are the number of a channel, as nnU-Net has it, but {label} has "
                    f"them too: if they number cases, add a channel behind them to the name of every image, "
                    f"{start}_0000{file.name[len(start) :]} and so on"
                )
    return None


def match_labels(
    files: Iterable[Path], cases: Collection[str], what: str, name_of: Callable[[Path], str | None] = stem
) -> tuple[dict[str, Path], list[str], list[Path]]:
    """Label files by case, every problem, and the files that are called as no case.

    A label is called as its case, or so with something behind it (`case_scribble`, `case-label`, `case.manual`): the
    same for all files, and what it is is told by most of them. Otherwise `heart_3` would pass as a label of `heart`.

    Args:
        files: those that are no images are passed over.
        cases: identifiers of the images.
        what: how errors call it (`scribble`).
        name_of: a file; None: no image.
    """
    fitting: dict[Path, dict[str, str]] = {}  # what is behind the name of the case, to the case
    for file in files:
        name = name_of(file)
        if name is not None:
            fitting[file] = {name[len(start) :]: start for start in _starts(name) if start in cases}
    counts = Counter(behind for fits in fitting.values() for behind in fits)
    usual = min(counts, key=lambda behind: (-counts[behind], len(behind), behind), default="")
    found: dict[str, Path] = {}
    problems, strangers = [], []
    for file, fits in sorted(fitting.items(), key=lambda item: usual not in item[1]):  # strangers last
        if not fits:
            strangers.append(file)
            problems.append(f"{file}: has no image: add it, or remove the {what}")
            continue
        behind = usual if usual in fits else min(fits, key=len)
        case = fits[behind]
        if case in found:
            problems.append(
                f"{file}: {found[case]} is a {what} of the same case: keep one, with all classes in it, or put them "
                f"into a folder {case}, a file per class, called after it"
            )
        elif behind == usual:
            found[case] = file
        else:
            problems.append(
                f"{file}: has {_quoted(behind)} behind the name of case {case}, where the other {what}s have "
                f"{_quoted(usual)}: rename it, or add its image"
            )
    return found, problems, strangers


def _starts(name: str) -> list[str]:
    """What can be the name of a case in that of a label: all of it, or what is before a separator."""
    return [*(name[: match.start()] for match in re.finditer("[_. -]", name)), name]


def _quoted(behind: str) -> str:
    return repr(behind) if behind else "nothing"
