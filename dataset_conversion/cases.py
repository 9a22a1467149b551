"""One case on its way into a raw dataset: what it is made of, how it is checked, how it is written."""

from __future__ import annotations

import shutil
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.files import link_file, write_json
from nnunet_attenscribble.common.formats import find_sidecar, holds_place, is_tiff, stated_spacing, states_spacing
from nnunet_attenscribble.common.grids import (
    SPACING_TOLERANCE,
    Grid,
    flatten_onto,
    geometry_problems,
    is_turned,
    place_on,
)
from nnunet_attenscribble.common.progress import show_progress
from nnunet_attenscribble.common.readers import DatasetFile, keeps_files
from nnunet_attenscribble.common.soundness import NOT_FINITE, is_nifti2, voxels_file
from nnunet_attenscribble.common.text import format_vector, list_some
from nnunet_attenscribble.common.volumes import (
    Opened,
    Source,
    count_values,
    describe,
    file_of,
    has_consistent_header,
    label_values,
    read_volume,
    sha256,
    unscale_label,
    write_volume,
)
from nnunet_attenscribble.common.workers import Map
from nnunet_attenscribble.dataset_conversion.label_files import list_masks
from nnunet_attenscribble.dataset_conversion.partly import complete_slices, leave_open
from nnunet_attenscribble.errors import AttenScribbleError

ENDING = ".nii.gz"
IGNORE = "ignore"
_GRID = ("size", "spacing", "origin", "direction")
_TURNED = "are stored in another order of axes than their image and were turned onto it"
_ROUNDED = "hold labels that their header scales (scl_slope), and were rounded to integers"
_WHOLE = "are read as labelled as a whole: in slices that show a class, what is in no class is background"
_ASSUMED = "state no spacing: 1 mm was taken, as nnU-Net does"
_T = TypeVar("_T")
#: Share of a scribble's voxels in one class: strokes cover a few percent, unlabelled voxels nearly all.
MOST = 0.5


@dataclass(frozen=True)
class Drawing:
    """A label that takes long to make: it is made once, when it is written.

    Attributes:
        make: the label; picklable.
        stand_in: checked in its place: an image on the same grid, with values among those that it may have.
    """

    make: Callable[[], sitk.Image]
    stand_in: Callable[[], sitk.Image]

    def __call__(self) -> sitk.Image:
        """The label."""
        return self.make()


@dataclass(frozen=True)
class Case:
    """One case: where its images, scribble and dense label come from.

    A source is a file, an image in memory, or a picklable call that makes the image. Calls run twice, once to check and
    once to write, so that thousands of cases need not sit in memory together; they must give the same image each time.
    A label that takes long to make is a `Drawing`.
    """

    identifier: str
    images: tuple[Source, ...]
    """One per channel, all on the same grid."""
    scribble: Source | None = None
    """Values as in `labels`, with the highest value plus one for unlabelled; or any, with `scribble_values`."""
    dense: Source | None = None
    """Values as in `labels`; or any, with `dense_values`. Training cases need it where dense labels are written."""
    test: bool = False
    """Kept out of training: imagesTs, and the dense label, if any, in labelsTs. The scribble is not used."""
    inputs: tuple[Path, ...] = ()
    """Files behind calls, for their SHA-256."""
    spacing: tuple[float, ...] | None = None
    """mm along x, y, z, of files that state none."""
    dense_slices: str | None = None
    """That its scribble is dense in the slices that show a class: what its voxels in no class are called otherwise,
    `background` (the others are unlabelled then) or `unlabelled` (those of these slices are background then)."""
    annotated: tuple[int, ...] | None = None
    """Values of the classes that were annotated; None: all of them, and its scribble has to look like strokes."""

    @property
    def scribbled(self) -> bool:
        """Whether its scribble is used."""
        return self.scribble is not None and not self.test


@dataclass(frozen=True)
class Coding:
    """The label values of a conversion, and where they come from."""

    labels: Mapping[str, int]
    scribble_values: Mapping[int, int] | None
    dense_values: Mapping[int, int] | None
    with_dense: bool
    """Dense labels of training cases are written."""
    trusted: bool = False
    """Scribbles are not asked whether they look like strokes."""
    axis: int | None = None
    """Of dense slices in the array (z, y, x); None: the coarsest."""

    @property
    def ignore(self) -> int:
        """The value of unlabelled voxels."""
        return max(self.labels.values()) + 1

    def uses_dense(self, case: Case) -> bool:
        """Whether a case's dense label is read and written."""
        return case.dense is not None and (case.test or self.with_dense)

    def problems(self) -> list[str]:
        """What nnU-Net could not accept."""
        values = sorted(self.labels.values())
        if IGNORE in self.labels or self.labels.get("background") != 0 or values != list(range(len(values))):
            return [
                f"labels {dict(self.labels)}: need background as 0, then 1, 2, ..., and no {IGNORE}, which is added"
            ]
        if self.ignore > np.iinfo(np.uint8).max:
            return [f"{len(values)} labels: at most 255 fit"]
        return []

    def scribble(self, label: sitk.Image, name: str, case: Case | None = None) -> tuple[np.ndarray, bool]:
        """Voxels of a scribble in this dataset's values, (z, y, x) uint8, and whether it need not look like strokes.

        Args:
            label: see `unscale_label`.
            name: for errors.
            case: tells whether single slices are dense, and which classes are annotated; None: strokes of all.
        """
        values, whole = _coded(label_values(label, name), self.scribble_values, self.ignore, name), False
        if case is not None and case.dense_slices is not None:
            values, whole = complete_slices(values, self.ignore, case.dense_slices, self.axis, label, name)
        if case is not None and case.annotated is not None:
            values, whole = leave_open(values, case.annotated, self.labels, self.ignore, name), True
        return values, whole

    def strokes_problems(self, voxels: list[int], name: str) -> list[str]:
        """Whether a scribble, by its voxels per value, cannot be what its coding says."""
        most = max(self.labels, key=lambda label: voxels[self.labels[label]])
        share, unlabelled = (voxels[value] / max(sum(voxels), 1) for value in (self.labels[most], self.ignore))
        if self.trusted or (unlabelled and share <= MOST):
            return []
        strokes = "background strokes" if self.labels[most] == 0 else f"strokes of {most}"
        told = f"{name}: {100 * share:.0f} % of its voxels would be {strokes}"
        if not unlabelled:
            return [
                f"{told} and none unlabelled: it is a dense label, to be given as one, or one of the slices alone that "
                "show a class (--dense-slices .), or another value is unlabelled (--unlabelled, --coding, correct "
                "--labels); --trust-scribbles takes it as it is"
            ]
        if self.labels[most] > 0:
            return [
                f"{told}: this value is probably the unlabelled one (--unlabelled, --coding, correct --labels), "
                "or it is a dense label; --trust-scribbles takes it as it is"
            ]
        return [
            f"{told} and {100 * unlabelled:.2g} % unlabelled: the two values are probably "
            "swapped, as in the scribbles of CHAOS: give --coding chaos, or --unlabelled and --background-scribble"
        ]

    def dense(self, label: sitk.Image, name: str) -> np.ndarray:
        """Voxels of a dense label in this dataset's values, (z, y, x) uint8."""
        return _coded(label_values(label, name), self.dense_values, self.ignore - 1, name)


def find_swapped(
    values: np.ndarray, counts: Mapping[int, int], names: Mapping[int, str], ignore: int, axis: int
) -> tuple[str, float, float] | None:
    """The class with more than half of the voxels, as strokes never have, its share, and that of `ignore`.

    It is not told where that comes of slices without any `ignore`: these were labelled as a whole.

    Args:
        values: of a label in a dataset, (z, y, x) or (y, x).
        counts: its voxels, by value.
        names: of the classes, by value.
        ignore: the value of unlabelled voxels.
        axis: of a volume, across which slices are cut.
    """
    value = max(counts, key=lambda one: counts[one])
    if value not in names or counts[value] <= MOST * values.size or ignore not in counts:
        return None
    most, unlabelled = values == value, values == ignore
    if values.ndim == 3:
        mixed = unlabelled.any(tuple({0, 1, 2} - {axis}))
        if np.compress(mixed, most, axis).mean() <= MOST:
            return None
    return names[value], counts[value] / values.size, counts[ignore] / values.size


def tell_swapped(cases: Mapping[str, tuple[str, float, float] | None]) -> list[str]:
    """What `find_swapped` found in the cases of a dataset, in a sentence."""
    found = {case: entry for case, entry in cases.items() if entry is not None}
    if not found:
        return []
    case, (name, share, unlabelled) = next(iter(found.items()))
    return [
        f"in {len(found)} of {len(cases)} cases more than half of the voxels are {name}, where strokes cover a few "
        f"percent ({case}: {100 * share:.0f} %, and {100 * unlabelled:.2g} % `ignore`): unless they are labelled as a "
        "whole, the two values are probably swapped"
    ]


def _coded(values: np.ndarray, mapping: Mapping[int, int] | None, highest: int, name: str) -> np.ndarray:
    if mapping is None and values.min() >= 0 and values.max() <= highest:
        return values.astype(np.uint8)  # the usual case, without sorting out each value
    allowed = list(range(highest + 1)) if mapping is None else sorted(mapping)
    wrong = sorted(set(np.unique(values).tolist()) - set(allowed))
    if wrong:
        told = ", ".join(str(value) for value in wrong[:8]) + (", ..." if len(wrong) > 8 else "")
        raise AttenScribbleError(
            f"{name}: label values {told} are outside the coding, which knows {', '.join(map(str, allowed))}"
        )
    assert mapping is not None  # or there would have been wrong values
    targets = np.array([mapping[value] for value in allowed], dtype=np.uint8)
    return targets[np.searchsorted(np.array(allowed), values)]


@dataclass
class CheckedCase:
    """What checking one case found."""

    problems: list[str] = field(default_factory=list)
    dimensions: int | None = None
    """2 or 3; None where no image could be read."""
    inputs: dict[str, object] = field(default_factory=dict)
    scribble_voxels: list[int] = field(default_factory=list)
    dense_voxels: list[int] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)
    """What its owner may want to know, and of which file."""


def check_case(case: Case, *, coding: Coding) -> CheckedCase:
    """Read everything of a case that would be written, and tell every problem of it; runs in a worker process."""
    check = _Check(case, coding)
    check.look_at_images()
    check.look_at_scribble()
    check.look_at_dense_label()
    if not check.result.problems:
        check.result.inputs = _hash_inputs(case, coding)
    return check.result


def check_cases(run: Map, cases: Sequence[Case], coding: Coding, *, progress: bool) -> list[tuple[Case, CheckedCase]]:
    """Every case with what `check_case` found of it; see `worker_map`, and `show_progress`."""
    results = run(partial(check_case, coding=coding), cases)
    shown = show_progress(results, total=len(cases), description="Checking", enabled=progress)
    return list(zip(cases, shown, strict=True))


def collect_remarks(checked: Iterable[tuple[Case, CheckedCase]]) -> list[str]:
    """What was found to be the same with several files, one sentence each."""
    found: dict[str, dict[str, None]] = {}
    for _, result in checked:
        for remark, name in result.remarks:
            found.setdefault(remark, {})[name] = None  # a file of several channels once
    return [f"{len(names)} files {remark} ({list_some(list(names))})" for remark, names in found.items()]


class _Check:
    """A case whose files are read one after the other, each held to the first image.

    Attributes:
        result: what was found so far.
    """

    def __init__(self, case: Case, coding: Coding):
        self._case, self._coding = case, coding
        self.result = CheckedCase()
        self._first: Opened | None = None
        self._first_name = ""
        self._first_file: Path | None = None

    def look_at_images(self) -> None:
        """Every channel: its grid, and whether its intensities are finite."""
        for channel, source in enumerate(self._case.images):
            image, name = self._read(source, f"channel {channel}", label=False)
            if image is None:
                continue
            if self._first is None:
                self._first, self._first_name, self._first_file = image, name, file_of(source)
                self.result.dimensions = image.GetDimension()
            else:
                self._compare(image, name)
            if isinstance(image, sitk.Image) and not np.isfinite(sitk.GetArrayViewFromImage(image)).all():
                self.result.problems.append(NOT_FINITE.format(name))

    def look_at_scribble(self) -> None:
        """Where its voxels lie, its values, and whether they look like strokes."""
        case, result = self._case, self.result
        if case.scribble is None or not case.scribbled:
            return

        def decode(label: sitk.Image, name: str) -> tuple[np.ndarray, bool]:
            if self._first is not None and not result.problems:
                label = place_on(label, self._first)  # in whose order slices count
            return self._coding.scribble(label, name, case)

        decoded = self._read_label(case.scribble, "scribble", decode)
        if decoded is None:
            return
        values, is_whole = decoded
        result.scribble_voxels = self._count(values)
        name = describe(case.scribble, f"scribble of case {case.identifier}")
        if is_whole and case.annotated is None:
            result.remarks.append((_WHOLE, name))
        if not result.problems and not is_whole:
            result.problems += self._coding.strokes_problems(result.scribble_voxels, name)

    def look_at_dense_label(self) -> None:
        """Where its voxels lie, and its values."""
        if self._case.dense is not None and self._coding.uses_dense(self._case):
            values = self._read_label(self._case.dense, "dense label", self._coding.dense)
            self.result.dense_voxels = [] if values is None or self._case.test else self._count(values)

    def _read(self, source: Source, role: str, *, label: bool) -> tuple[Opened | None, str]:
        name = describe(source, f"{role} of case {self._case.identifier}")
        try:
            image = read_volume(source, name, label=label, whole=label)
            if label and self._first is not None and isinstance(image, sitk.Image):
                image = flatten_onto(image, self._first)
            return self._settle_spacing(source, image, name), name
        except AttenScribbleError as error:
            self.result.problems += error.problems
            return None, name

    def _settle_spacing(self, source: Source, image: Opened, name: str) -> Opened:
        """The image with the spacing that its file states, its first image has, or the caller gave."""
        file, given, first = _stating_file(source), self._case.spacing, self._first
        if file is None:
            return image
        if states_spacing(file, image):
            self.result.problems += _contradictions(self._case, image.GetSpacing(), name, "leave that out")
            return image
        if given is not None:
            partly = stated_spacing(file) if is_tiff(file) else None  # ImageJ tells x and y alone of many stacks
            self.result.problems += _contradictions(self._case, partly or (), name, "give the same along x and y")
            return _spaced(image, given)
        if first is not None and not holds_place(self._first_file):
            # Of a format that has no place for more either; whoever compares grids will tell of others.
            return _spaced(image, first.GetSpacing()) if len(image.GetSize()) <= len(first.GetSize()) else image
        is_of_nnunet = isinstance(source, DatasetFile) and source.reader is not None
        if image.GetDimension() == 3 and not is_of_nnunet:
            if first is not None and not holds_place(file):
                raise AttenScribbleError(
                    f"{name}: cannot say how far apart and where its voxels lie, as {self._first_name} does: save it "
                    "as .nii.gz, or both in this format"
                )
            raise AttenScribbleError(_ask_for_spacing(file))
        self.result.remarks.append((_ASSUMED, name))
        return image

    def _compare(self, image: Opened, name: str) -> None:
        if self._first is None:
            return
        self.result.problems += geometry_problems(self._first, image, name, self._first_name)
        if is_turned(self._first, image):
            self.result.remarks.append((_TURNED, name))

    def _read_label(self, source: Source, role: str, decode: Callable[[sitk.Image, str], _T]) -> _T | None:
        """What `decode` makes of a label; None where it cannot be read."""
        label, name = self._read(source.stand_in if isinstance(source, Drawing) else source, role, label=True)
        if label is None:
            return None
        self._compare(label, name)
        assert isinstance(label, sitk.Image)  # labels are read whole
        label, is_rounded = unscale_label(label)
        try:
            decoded = decode(label, name)
        except AttenScribbleError as error:
            self.result.problems += error.problems
            return None
        self.result.remarks += [(_ROUNDED, name)] if is_rounded else []
        return decoded

    def _count(self, values: np.ndarray) -> list[int]:
        """Voxels of every value of the dataset."""
        counts = count_values(values)
        return [counts.get(value, 0) for value in range(self._coding.ignore + 1)]


def _spaced(image: Opened, spacing: Sequence[float]) -> sitk.Image:
    assert isinstance(image, sitk.Image)  # only NIfTI is read by its header alone, and always states a spacing
    image = sitk.Image(image)  # the caller's may be in use elsewhere
    image.SetSpacing([float(step) for step in spacing[: image.GetDimension()]])
    return image


def _stating_file(source: Source) -> Path | None:
    """The file that says how far apart the voxels of a source are, or does not: of a folder with a file per class the
    first, on which the others lie.
    """
    folder = getattr(source, "file", None)
    return list_masks(folder)[0] if isinstance(folder, Path) and folder.is_dir() else file_of(source)


def _contradictions(case: Case, stated: Sequence[float], name: str, advice: str) -> list[str]:
    """Whether the spacing that a file states, of all axes or the first, is another than the given one."""
    if case.spacing is None or np.allclose(stated, case.spacing[: len(stated)], rtol=SPACING_TOLERANCE, atol=0):
        return []
    told = format_vector(stated)
    return [f"{name}: states a spacing of {told} mm, not the given one: {advice}, or correct the file"]


def _ask_for_spacing(file: Path) -> str:
    told = f"{file}: states no spacing, by which nnU-Net plans: give it with --spacing X Y Z, in mm"
    if is_tiff(file):
        return f'{told}, or in a JSON file beside it, CASE.json: {{"spacing": [z, y, x]}}'
    return f"{told}, or correct its header"


def _hash_inputs(case: Case, coding: Coding) -> dict[str, object]:
    """Name and SHA-256 of the files of a case. Names only: folders are the machine's business."""
    roles: dict[str, Iterable[Source | None]] = {
        "images": case.images,
        "scribble": (case.scribble,) if case.scribbled else (),
        "dense": (case.dense,) if coding.uses_dense(case) else (),
        "further": case.inputs,
    }
    used = [file for sources in roles.values() for source in sources if (file := file_of(source)) is not None]
    roles["further"] = (*case.inputs, *map(find_sidecar, used), *map(voxels_file, used))
    files = {role: list(filter(None, dict.fromkeys(map(file_of, sources)))) for role, sources in roles.items()}
    digests = {file: sha256(file) for file in dict.fromkeys(chain.from_iterable(files.values()))}  # some have two roles
    return {
        role: [{"file": file.name, "sha256": digests[file]} for file in held] for role, held in files.items() if held
    }


def write_case(
    case: Case, *, coding: Coding, home: Path, dense: Path | None = None, links_from: Path | None = None
) -> list[Path]:
    """Write a checked case and return its files; runs in a worker process.

    Args:
        case: what to write.
        coding: of its labels.
        home: folder of the dataset with the images, and with the scribbles where there are any.
        dense: folder of the dataset with the dense labels of training cases; None where they are not written.
        links_from: the folder in which `home` will lie in the end: files that can be used as they are become relative
            links. None: copies.

    Raises:
        OSError: where it cannot be written.
    """
    part = "Ts" if case.test else "Tr"
    later = None if links_from is None else links_from / home.name
    written, grid = write_images(case, home / f"images{part}", later and later / f"images{part}")

    def write_label(source: Source, code: Callable[[sitk.Image], np.ndarray], recoded: bool, folder: Path) -> None:
        target = folder / f"{case.identifier}{ENDING}"
        written.append(target)
        as_it_is = links_from is not None and not recoded
        given = read_volume(source, "", thorough=False, whole=not as_it_is)
        file = _usable_file(source, given) if as_it_is else None
        if file is not None and Grid.of(given) == grid and not _is_scaled(given):
            _take_over(file, target, later and later.parent / target.parent.relative_to(home.parent))
            return
        label = sitk.GetImageFromArray(code(_place_label(source, _read_whole(source, given), grid)))
        write_volume(grid.put(label), target)

    if case.scribbled and case.scribble is not None:
        recoded = any(given is not None for given in (coding.scribble_values, case.dense_slices, case.annotated))
        write_label(case.scribble, lambda label: coding.scribble(label, "", case)[0], recoded, home / "labelsTr")
    folder = home / "labelsTs" if case.test else dense and dense / "labelsTr"
    if coding.uses_dense(case) and case.dense is not None and folder is not None:
        write_label(case.dense, lambda label: coding.dense(label, ""), coding.dense_values is not None, folder)
    return written


@dataclass(frozen=True)
class WrittenImage:
    """The first image of a checked case as it will be written: with the spacing that was given for it."""

    case: Case

    @property
    def file(self) -> Path | None:
        """It is read from; None where there is none."""
        return file_of(self.case.images[0])

    def __call__(self) -> sitk.Image:
        """Read it."""
        image = read_volume(self.case.images[0], "", thorough=False)
        return image if self.case.spacing is None else _spaced(image, self.case.spacing)


def coded_label(case: Case, coding: Coding) -> sitk.Image:
    """The scribble of a checked case, or its dense label where there is none, as it will be written."""
    source = case.scribble if case.scribbled else case.dense
    assert source is not None  # or there would be nothing to show
    grid = Grid.of(read_volume(case.images[0], "", thorough=False, whole=False))
    grid = grid if case.spacing is None else replace(grid, spacing=case.spacing[: len(grid.size)])
    given = _place_label(source, read_volume(source, "", thorough=False), grid)
    values = coding.scribble(given, "", case)[0] if case.scribbled else coding.dense(given, "")
    return grid.put(sitk.GetImageFromArray(values))


def _place_label(source: Source, label: sitk.Image, grid: Grid) -> sitk.Image:
    """A label in the order of its image, with the spacing that it was checked with."""
    label, file = flatten_onto(unscale_label(label)[0], grid), _stating_file(source)
    if file is not None and not states_spacing(file, label):
        label = _spaced(label, grid.spacing)
    return place_on(label, grid)


def write_images(case: Case, folder: Path, later: Path | None = None) -> tuple[list[Path], Grid]:
    """Write the channels of a checked case, `CASE_0000.nii.gz` and so on.

    Args:
        case: what to write.
        folder: to write to.
        later: where that folder will lie in the end: files that can be used as they are become relative links from
            there. None: copies.

    Returns:
        the files, and the grid of all.

    Raises:
        OSError: where they cannot be written.
    """
    written: list[Path] = []
    grid: Grid | None = None
    for channel, source in enumerate(case.images):
        target = folder / f"{case.identifier}_{channel:04d}{ENDING}"
        written.append(target)
        image = read_volume(source, "", thorough=False, whole=case.spacing is not None)
        if case.spacing is not None:  # no file states another
            image = _spaced(image, case.spacing)
        own = Grid.of(image)
        grid = own if grid is None else grid
        is_close = _close_grid(own, grid)
        if is_close and (file := _usable_file(source, image)) is not None:
            _take_over(file, target, later)
            continue
        image = _read_whole(source, image)
        # The caller's may be in use elsewhere.
        write_volume(image if is_close else grid.put(sitk.Image(place_on(image, grid))), target)
    assert grid is not None  # cases without images were refused
    return written, grid


def copy_images(case: Case, folder: Path, ending: str) -> None:
    """Copy the files of a checked case, all of one ending, as `CASE_0000` and so on.

    Where nnU-Net would see another spacing in them, or another order of voxels than in the first, they are written.

    Raises:
        OSError: where they cannot be written.
    """
    sources = {file: source for source in case.images if (file := file_of(source)) is not None}  # colours share a file
    grid: Grid | None = None
    for channel, (file, source) in enumerate(sources.items()):
        target = folder / f"{case.identifier}_{channel:04d}{ending}"
        if not holds_place(file) and not is_tiff(file):  # pictures
            shutil.copyfile(file, target)
            continue
        image = read_volume(source, "", thorough=False, whole=case.spacing is not None)
        stored = Grid.of(image)
        if case.spacing is not None:  # no file states another
            image = _spaced(image, case.spacing)
        grid = Grid.of(image) if grid is None else grid
        if not holds_place(file) or _close_grid(stored, grid):
            shutil.copyfile(file, target)
        else:
            write_volume(grid.put(sitk.Image(place_on(_read_whole(source, image), grid))), target)
        beside = folder / f"{case.identifier}.json"
        if (sidecar := find_sidecar(file)) is not None:
            beside.write_bytes(sidecar.read_bytes().removeprefix(BOM_UTF8))  # nnU-Net refuses that
        elif is_tiff(file) and image.GetDimension() == 3:  # nnU-Net looks for the spacing nowhere else
            write_json(beside, {"spacing": grid.spacing[::-1]})


def _read_whole(source: Source, image: Opened) -> sitk.Image:
    """What was read, or its header alone, with all voxels."""
    return image if isinstance(image, sitk.Image) else read_volume(source, "", thorough=False)


def _take_over(source: Path, target: Path, later: Path | None) -> None:
    if later is None:
        shutil.copyfile(source, target)  # exact to the byte, and quicker
    else:
        link_file(target, source, later)


def _usable_file(source: Source, image: Opened) -> Path | None:
    """The file that can stand in a dataset as it is; None where there is none."""
    file = file_of(source)
    if file is None or not file.name.endswith(ENDING):
        return None
    if isinstance(source, DatasetFile):
        return file if keeps_files(source.reader) and source.channels == 1 else None
    return file if isinstance(source, Path) and has_consistent_header(image) and not is_nifti2(file) else None


def _is_scaled(label: Opened) -> bool:
    """Whether nnU-Net would read its values scaled."""
    return label.HasMetaDataKey("scl_slope") and float(label.GetMetaData("scl_slope")) not in (0, 1)


def _close_grid(grid: Grid, other: Grid) -> bool:
    """Whether nnU-Net takes both for channels of a case: it compares closer than `geometry_problems`, in this way."""
    return all(np.allclose(getattr(grid, part), getattr(other, part)) for part in _GRID)
