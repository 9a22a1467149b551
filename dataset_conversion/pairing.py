"""Which image, scribble and dense label belong together, told by their file names."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from nnunet_attenscribble.common.text import list_some

__all__ = ["ENDINGS", "group_images", "match_labels", "numbered_cases", "stem", "unusable_files"]

#: Of files that SimpleITK reads with their geometry, or that have none.
ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd", ".png", ".tif", ".tiff")
#: Of what lies beside images. Anything else may be an image of a kind not thought of, and is not to be lost in silence.
_COMPANION_ENDINGS = (
    *(".json", ".txt", ".csv", ".tsv", ".md", ".rst", ".pdf", ".xml", ".yaml", ".yml", ".html", ".htm", ".log"),
    *(".xls", ".xlsx", ".doc", ".docx", ".ods", ".odt", ".rtf", ".bval", ".bvec", ".md5", ".sha1", ".sha256"),
)
_COMPANIONS = (
    *("readme", "license", "licence", "copying", "notice", "authors", "changes", "changelog", "citation", "version"),
    *("md5sums", "sha256sums", "thumbs.db", "desktop.ini"),
)


def stem(file: Path) -> str | None:
    """The name without its ending, accented letters as one sign, as not every system keeps them; None for no image."""
    for ending in ENDINGS:
        if file.name.lower().endswith(ending):
            return unicodedata.normalize("NFC", file.name[: -len(ending)])
    return None


def unusable_files(files: Iterable[Path]) -> list[str]:
    """A problem for every file that is neither an image of a kind that is taken nor a companion of images."""
    return [
        f"{file}: is of a kind that is not taken: save it as one of {', '.join(ENDINGS)}, or remove it"
        for file in files
        if stem(file) is None and not file.name.lower().endswith(_COMPANION_ENDINGS)
        if file.name.lower() not in _COMPANIONS
    ]


def group_images(files: Iterable[Path]) -> tuple[dict[str, tuple[Path, ...]], list[str]]:
    """Image files by case, channels in order; and every problem.

    Names end in a channel of four digits, as nnU-Net's do (`case_0000.nii.gz`), or in none: then there is one channel.
    """
    found: dict[str, dict[int, Path]] = {}
    problems = []
    for file in files:
        name = stem(file)
        if name is None:
            continue
        match = re.fullmatch(r"(.+)_(\d{4})", name)
        identifier, channel = (match[1], int(match[2])) if match else (name, 0)
        other = found.setdefault(identifier, {}).setdefault(channel, file)
        if other != file:
            problems.append(f"{file}: the same image is also at {other}: remove one of them")
    for identifier, channels in found.items():
        absent = sorted(set(range(max(channels) + 1)) - set(channels))
        if absent:
            names = list_some([f"{identifier}_{channel:04d}" for channel in absent])
            problems.append(f"{channels[max(channels)]}: its case has no channel {names}: number them from 0000")
    return {case: tuple(channels[c] for c in sorted(channels)) for case, channels in found.items()}, problems


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


def match_labels(files: Iterable[Path], cases: Collection[str], what: str) -> tuple[dict[str, Path], list[str]]:
    """Label files by case, and every problem.

    A label is called as its case, or so with something behind it (`case_scribble`, `case-label`, `case.manual`): the
    same for all files, and what it is is told by most of them. Otherwise `heart_3` would pass as a label of `heart`.

    Args:
        files: those that are no images are passed over.
        cases: identifiers of the images.
        what: how errors call it (`scribble`).
    """
    fitting: dict[Path, dict[str, str]] = {}  # what is behind the name of the case, to the case
    for file in files:
        name = stem(file)
        if name is not None:
            fitting[file] = {name[len(start) :]: start for start in _starts(name) if start in cases}
    counts = Counter(behind for fits in fitting.values() for behind in fits)
    usual = min(counts, key=lambda behind: (-counts[behind], len(behind), behind), default="")
    found: dict[str, Path] = {}
    problems = []
    for file, fits in sorted(fitting.items(), key=lambda item: usual not in item[1]):  # strangers last
        if not fits:
            problems.append(f"{file}: has no image: add it, or remove the {what}")
            continue
        behind = usual if usual in fits else min(fits, key=len)
        case = fits[behind]
        if case in found:
            problems.append(f"{file}: {found[case]} is a {what} of the same case: remove one of them")
        elif behind == usual:
            found[case] = file
        else:
            problems.append(
                f"{file}: has {_quoted(behind)} behind the name of case {case}, where the other {what}s have "
                f"{_quoted(usual)}: rename it, or add its image"
            )
    return found, problems


def _starts(name: str) -> list[str]:
    """What can be the name of a case in that of a label: all of it, or what is before a separator."""
    return [*(name[: match.start()] for match in re.finditer("[_. -]", name)), name]


def _quoted(behind: str) -> str:
    return repr(behind) if behind else "nothing"
