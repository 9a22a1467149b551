"""What `attenscribble start` believes of a user's folder, and what only its owner can tell."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from nnunet_attenscribble.common.files import find_files
from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.dataset_conversion.findings import Findings, Folders, look_at_folders, tell_files_apart
from nnunet_attenscribble.dataset_conversion.folder_options import FolderOptions
from nnunet_attenscribble.dataset_conversion.meanings import BACKGROUND, UNLABELLED
from nnunet_attenscribble.dataset_conversion.pairing import stem
from nnunet_attenscribble.dataset_conversion.start.doubts import Doubt, Given, Mark
from nnunet_attenscribble.dataset_conversion.start.folders import (
    choose_folders,
    folder_doubts,
    kind_doubts,
    unused_folders,
)
from nnunet_attenscribble.dataset_conversion.start.images import (
    MRI,
    channel_doubts,
    channel_names,
    image_doubts,
    number_channels,
)
from nnunet_attenscribble.dataset_conversion.start.layout import Layout, find_layout
from nnunet_attenscribble.dataset_conversion.start.marks import as_options, believe_marks, says_scribbles
from nnunet_attenscribble.dataset_conversion.start.survey import FoundMark, Survey, fitting_images, survey_cases
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["Beliefs", "Believer", "free_id", "name_dataset"]

_FIRST_ID = 601


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
        """Look at the names of all files.

        Args:
            root: the user's folder.
            defaults: options that nothing is to be found out about, such as ID and name.
            workers: processes; None: one per processor.
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
        folders = choose_folders(self.layout, given)
        if folders is None or problems:
            return Beliefs(doubts=tuple(doubts), problems=tuple(problems))
        unused = unused_folders(self.layout, folders)
        try:
            channels, cases = self._find_cases(folders, given)
        except AttenScribbleError as error:
            hints = self._hints(folders, None)
            return Beliefs(doubts=tuple(doubts), problems=(*error.problems, *hints), unused=unused)
        problems += [*cases.problems, *(self._hints(folders, cases) if cases.problems else ())]
        survey = self._survey(folders, channels, cases)
        problems += survey.problems
        if not any(case.scribble or case.dense for case in cases.cases if not case.test):
            problems.append(f"{self.layout.root}: no image has a drawing")
        meanings, more = believe_marks(given, survey)
        is_sparse = says_scribbles(given, survey, meanings)
        doubts += kind_doubts(self.layout, folders, given, says_scribbles=is_sparse)
        doubts += more
        doubts += channel_doubts(cases, given, channels, survey)
        doubts += image_doubts(folders, given, survey)
        labels: dict[str, Mark | None] = {}
        rest: dict[str, Mark | None] = {BACKGROUND: None, UNLABELLED: None}
        if not doubts and not problems:
            try:
                labels, rest = as_options(meanings, given)
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

    def _find_cases(self, folders: Folders, given: Given) -> tuple[tuple[str, ...], Findings]:
        """Names of the channels, and the cases."""
        if given.channels is not None:
            return given.channels, look_at_folders(folders, None, given.channels)
        error: AttenScribbleError | None = None
        try:
            plain = look_at_folders(folders, None, MRI)
            if not plain.problems:
                return number_channels(plain), plain
            error = AttenScribbleError(plain.problems)
        except AttenScribbleError as caught:
            plain, error = None, caught
        names = channel_names(folders)
        if names:
            try:
                found = look_at_folders(folders, None, names)
                if not found.problems:
                    return names, found
            except AttenScribbleError:
                pass
        if plain is None:
            raise error
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

    def _hints(self, folders: Folders, cases: Findings | None) -> list[str]:
        """Which images drawings without one may be of, by their grids: nothing is paired by that."""
        known = (
            {label.file for case in cases.cases for label in (case.scribble, case.dense) if label} if cases else set()
        )
        shown = [folder for folder in (folders.scribbles, folders.dense) if folder is not None]
        loose = [file for one in self.layout.drawings if one.folder in shown for file in one.files if file not in known]
        pictures = tell_files_apart(folders.images, _files_of_images(self.layout, folders))[0]
        images = {file.name: file for file in pictures}
        hints = []
        for file in loose[:5]:
            fitting = fitting_images(file, images)
            if fitting:
                hints.append(
                    f"{file}: lies on the grid of {list_some(fitting)}: call it as its image, with _scribble behind, "
                    "if it is of " + ("that one" if len(fitting) == 1 else "one of them")
                )
        return hints


def _files_of_images(layout: Layout, folders: Folders) -> list[Path]:
    drawn = {file for one in layout.drawings for file in one.files}
    return [file for file in find_files(folders.images) if file not in drawn and stem(file) is not None]


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
