"""What is found in a user's folder before they have said anything of it: which folders hold images and which drawings,
by their names; what stands in label files, and what images look like."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.files import find_files
from nnunet_attenscribble.common.formats import states_spacing
from nnunet_attenscribble.common.grids import (
    Grid,
    are_whole,
    flatten_onto,
    geometry_problems,
    measure_steps,
    read_header,
)
from nnunet_attenscribble.common.readers import as_readable
from nnunet_attenscribble.common.volumes import (
    AIR,
    Source,
    count_values,
    describe,
    file_of,
    label_values,
    read_volume,
    unscale_label,
)
from nnunet_attenscribble.common.workers import run_all
from nnunet_attenscribble.dataset_conversion.dicom_series import is_dicom
from nnunet_attenscribble.dataset_conversion.findings import Findings, FoundCase, FoundLabel, tell_files_apart
from nnunet_attenscribble.dataset_conversion.label_files import (
    MASKS,
    NRRD,
    Legend,
    decode_colour,
    format_colour,
    is_picture,
    read_any,
    read_colour_codes,
    read_layers,
    split_layers,
)
from nnunet_attenscribble.dataset_conversion.meanings import Mark, fold, fold_mark
from nnunet_attenscribble.dataset_conversion.pairing import (
    DENSE_WORDS,
    LABEL_WORDS,
    SCRIBBLE_WORDS,
    stem,
    unusable_files,
)
from nnunet_attenscribble.errors import AttenScribbleError

_DEFAULT = re.compile(r"(segment|label|new label)[ _]?\d+")
_FEW = 16  # values of what may be a label
_MOST_COLOURS = 64  # beyond, they are shades, and the file is no drawing
#: Of folders, in small letters and without what stands between words.
_NAMES = {
    "images": {"image", "images", "imagestr", "trainimages", "img", "imgs", "scan", "scans", "volume", "volumes"},
    "scribbles": {*SCRIBBLE_WORDS, "scribbledata", "labelsscribble"},
    "labels": {*LABEL_WORDS, "labelstr", "trainlabels"},
    "dense": {*DENSE_WORDS, "denselabels", "labelsdense", "labelstrdense", "reference"},
    "test_images": {"imagests", "testimages", "imagestest"},
    "test_labels": {"labelsts", "testlabels", "labelstest"},
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names}
_TEST = {"test", "testing", "testset"}  # of folders with folders for images and labels in them
_DRAWN = ("scribbles", "labels", "dense")


@dataclass(frozen=True)
class Drawings:
    """A folder that holds drawings, perhaps among images.

    Attributes:
        folder: they lie below it.
        kind: `scribbles` or `dense`, where names say so; None where they do not.
        files: of them.
    """

    folder: Path
    kind: str | None
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Layout:
    """What is believed of a folder.

    Attributes:
        root: it.
        images: folders that may hold the images; one where that is clear.
        drawings: folders that may hold drawings.
        test_images: of cases kept out of training.
        test_labels: their dense labels.
        unknown: folders, with the number of their files, whose names say nothing.
        problems: files of kinds that are not taken, among which what is missed may be.
    """

    root: Path
    images: tuple[Path, ...]
    drawings: tuple[Drawings, ...]
    test_images: Path | None
    test_labels: Path | None
    unknown: Mapping[Path, int]
    problems: tuple[str, ...]


def find_layout(root: Path) -> Layout:
    """Look at names alone.

    Raises:
        AttenScribbleError: where there is no image below `root`, or its files cannot be listed.
    """
    found_files = find_files(root)
    files = [file for file in found_files if stem(file) is not None or is_dicom(file)]
    problems = unusable_files(sorted({*found_files} - {*files}))
    if not files:
        raise AttenScribbleError([f"{root}: holds no image, nor does any folder in it", *problems])
    roles, rest = _sort(root, files)
    drawings = [
        Drawings(folder, None if role == "labels" else role, tuple(held))
        for role in _DRAWN
        for folder, held in roles.get(role, {}).items()
    ]
    images = dict(roles.get("images", {}))
    unknown: dict[Path, int] = {}
    for folder, held in [*images.items(), (root, rest)]:
        pictures, scribbles, others = tell_files_apart(folder, held)
        for kind, part in (("scribbles", scribbles), (_kind(others), others)):
            if part:
                drawings.append(Drawings(folder, kind, tuple(part)))
        if folder != root:
            continue
        if roles.get("images") or not pictures:
            unknown = _count(root, pictures)
        else:
            images[root] = pictures
            unknown = {} if drawings else _count(root, pictures)
    test_images, test_labels = (next(iter(roles.get(role, {})), None) for role in ("test_images", "test_labels"))
    for role in ("test_images", "test_labels"):
        unknown |= {folder: len(held) for folder, held in [*roles.get(role, {}).items()][1:]}  # the first is taken
    return Layout(root, tuple(images), tuple(drawings), test_images, test_labels, unknown, tuple(problems))


def _sort(root: Path, files: Iterable[Path]) -> tuple[dict[str, dict[Path, list[Path]]], list[Path]]:
    """Files by the role that a folder's name gives them, and that folder; and those that have none."""
    roles: dict[str, dict[Path, list[Path]]] = {}
    rest: list[Path] = []
    for file in files:
        parts = file.relative_to(root).parts[:-1]
        if (place := _find_role(parts)) is None:
            rest.append(file)
        else:
            role, depth = place
            folder = root.joinpath(*parts[: depth + 1])
            roles.setdefault(role, {}).setdefault(folder, []).append(file)
    for role, folders in list(roles.items()):
        if len(folders) > 1 and len({folder.name for folder in folders}) == 1:  # each patient has one
            rest += [file for held in folders.values() for file in held]
            del roles[role]
    return roles, sorted(rest)


def _find_role(parts: tuple[str, ...]) -> tuple[str, int] | None:
    """The role of the outermost folder that has one, and its place; images in drawings are images, and vice versa."""
    roles = {place: role for place, part in enumerate(parts) if (role := _ROLES.get(_plain(part))) is not None}
    if not roles:
        return None
    first = min(roles)
    for place, role in roles.items():
        if (role == "images") != (roles[first] == "images"):
            first = place
    role = roles[first]
    if any(_plain(part) in _TEST for part in parts[:first]):
        role = "test_images" if role in ("images", "test_images") else "test_labels"
    return role, first


def _plain(name: str) -> str:
    return re.sub("[_. -]", "", name.casefold())


def _kind(files: Iterable[Path]) -> str | None:
    words = {re.split("[_. -]", stem(file) or "")[-1].casefold() for file in files}
    return "dense" if words and words <= DENSE_WORDS else None


def _count(root: Path, files: Iterable[Path]) -> dict[Path, int]:
    """Files by the folder of the root that they lie in."""
    counts = Counter(file.relative_to(root).parts[0] if file.parent != root else "" for file in files)
    return {root / name: count for name, count in sorted(counts.items())}


def is_default_name(name: str) -> bool:
    """Whether a program called a segment so by itself."""
    return _DEFAULT.fullmatch(fold(name)) is not None


@dataclass(frozen=True)
class LabelContent:
    """Of one label file.

    Attributes:
        how: what its marks are: `name`, `value` or `colour`.
        voxels: of each mark that is drawn; of a file with names, 0 are those in no segment.
        declared: names that its own header has, drawn or not; none of other files.
        hidden: voxels that are wholly transparent, and so of no mark.
    """

    how: str
    voxels: Mapping[Mark, int]
    declared: tuple[str, ...] = ()
    hidden: int = 0

    @property
    def size(self) -> int:
        """Voxels of the file."""
        return sum(self.voxels.values()) + self.hidden


@dataclass(frozen=True)
class FoundMark:
    """What stands in label files.

    Attributes:
        mark: a value, the name of a segment, or a colour.
        how: which of these it is, see `LabelContent`.
        files: in which it is drawn.
        among: how many files have this role.
        share: of the voxels of the files in which it is drawn; those of a file cut to what is drawn count as they are.
        role: of the files: `scribble` or `dense`.
        meaning: what it is believed to mean; None: not known.
    """

    mark: Mark
    how: str
    files: tuple[str, ...]
    among: int
    share: float
    role: str
    meaning: str | None = None

    @property
    def key(self) -> Mark:
        """As marks are compared."""
        return fold_mark(self.mark)

    @property
    def is_rest(self) -> bool:
        """Whether these are the voxels in no segment of files with names."""
        return self.how == "name" and self.mark == 0


@dataclass
class _Look:
    """What a worker found."""

    labels: dict[str, LabelContent] = field(default_factory=dict)
    lowest: float = 0.0
    modality: str | None = None
    dimensions: int = 0
    few_values: tuple[int, ...] = ()
    states_spacing: bool = True
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Survey:
    """Of all cases.

    Attributes:
        labels: content by role and case.
        like_ct: cases whose images go down to air.
        modalities: what headers or names say images are, by case, where that is no MRI.
        like_labels: images that hold few whole numbers, with these.
        without_spacing: volumes that state none.
        problems: of files that cannot be read.
    """

    labels: Mapping[str, Mapping[str, LabelContent]]
    like_ct: tuple[str, ...]
    modalities: Mapping[str, str]
    like_labels: Mapping[str, tuple[int, ...]]
    without_spacing: tuple[str, ...]
    problems: tuple[str, ...]

    def marks(self, role: str) -> list[FoundMark]:
        """What is drawn in the files of a role, in the order in which it is met."""
        contents = self.labels.get(role, {})
        spelled: dict[tuple[str, Mark], Mark] = {}
        voxels: dict[tuple[str, Mark], Counter[str]] = {}  # by case
        for case, content in contents.items():
            for mark, count in content.voxels.items():
                key = (content.how, fold_mark(mark))
                spelled.setdefault(key, mark)
                voxels.setdefault(key, Counter())[case] += count
        return [
            FoundMark(
                spelled[key],
                key[0],
                tuple(by_case),
                len(contents),
                by_case.total() / max(1, sum(contents[case].size for case in by_case)),
                role,
            )
            for key, by_case in voxels.items()
        ]


def survey_cases(found: Findings, *, workers: int | None = None, progress: bool = False) -> Survey:
    """Read every label and the first channel of every image.

    Args:
        found: the cases.
        workers: processes; None: one per processor, 8 at most.
        progress: shown on stderr.
    """
    tasks = [case for case in found.cases if case.images]
    looks = run_all(_look, tasks, workers, "Looking", progress=progress)
    named = dict(zip([case.identifier for case in tasks], looks, strict=True))
    first = {case.identifier: describe(case.images[0], f"image of case {case.identifier}") for case in tasks}
    return Survey(
        {
            role: {case: look.labels[role] for case, look in named.items() if role in look.labels}
            for role in ("scribble", "dense")
        },
        tuple(case for case, look in named.items() if look.lowest <= AIR),
        {case: look.modality for case, look in named.items() if look.modality is not None},
        {first[case]: look.few_values for case, look in named.items() if look.few_values},
        tuple(first[case] for case, look in named.items() if look.dimensions == 3 and not look.states_spacing),
        tuple(dict.fromkeys(problem for look in looks for problem in look.problems)),
    )


def _look(case: FoundCase) -> _Look:
    """Runs in a worker process."""
    look, image = _Look(modality=case.modality), None
    source = as_readable(case.images[0])
    name = describe(source, f"image of case {case.identifier}")
    try:
        image = read_volume(source, name)
        values = sitk.GetArrayViewFromImage(image)
        look.lowest, look.dimensions = float(values.min()), image.GetDimension()
        look.few_values = _few_values(values)
        file = file_of(source)
        look.states_spacing = file is None or states_spacing(file, image)
    except AttenScribbleError as error:
        look.problems += error.problems
    for role, label in (("scribble", case.scribble), ("dense", case.dense)):
        if label is None:
            continue
        try:
            if callable(label.source):
                label.source()  # which tells what is wrong with it
            if label.legend is not None and label.legend.tool == MASKS:
                look.labels[role] = _read_names(label.file, label.legend, *read_layers(label.file))
                continue
            pixels = read_any(label.file)
            look.labels[role] = _read_content(label, pixels)
            if image is not None:
                look.problems += _misplaced(label, pixels, image, name, look.states_spacing)
        except AttenScribbleError as error:
            look.problems += error.problems
    return look


def _few_values(values: np.ndarray) -> tuple[int, ...]:
    """The values of an image that could as well be a label; none of others."""
    sample = np.unique(values[tuple(slice(None, None, 2) for _ in values.shape)])  # most images show theirs here
    if len(sample) > _FEW:
        return ()
    found = np.unique(values)
    whole = 1 < len(found) <= _FEW and found[0] == 0 and (found == np.round(found)).all()
    return tuple(int(value) for value in found) if whole else ()


def _misplaced(label: FoundLabel, pixels: sitk.Image, image: sitk.Image, name: str, has_spacing: bool) -> list[str]:
    """What keeps a drawing from lying on its image, before anything is asked of it."""
    if label.legend is not None and label.legend.source == label.file:
        return []  # which may be cut to what is drawn, and whose names leave little to ask
    pixels = flatten_onto(pixels, image)
    if len(pixels.GetSize()) == len(image.GetSize()) and not (has_spacing and states_spacing(label.file, pixels)):
        pixels = Grid.of(image).put(sitk.Image(pixels))  # so that sizes alone can differ
    return geometry_problems(image, pixels, str(label.file), name)


def _read_content(label: FoundLabel, pixels: sitk.Image) -> LabelContent:
    if label.legend is not None and not label.legend.says_nothing:
        return _read_names(label.file, label.legend, *split_layers(pixels))
    if pixels.GetNumberOfComponentsPerPixel() > 1 and is_picture(label.file):
        return _count_colours(pixels, str(label.file))
    read_volume(pixels, str(label.file), label=True)  # refuses several values per voxel
    return LabelContent("value", dict(count_values(label_values(unscale_label(pixels)[0], str(label.file))).items()))


def _read_names(file: Path, legend: Legend, count: int, layers: Iterator[sitk.Image]) -> LabelContent:
    first = next(layers)
    drawn = np.zeros(first.GetSize()[::-1], bool)
    voxels: dict[Mark, int] = {}
    for layer, image in enumerate(chain([first], layers)):
        values = label_values(image, str(file))
        for segment in legend.segments:
            if segment.layer == layer and (segment.value or count == 1):
                mask = values == segment.value
                if added := int((mask & ~drawn).sum()):
                    voxels[segment.name] = voxels.get(segment.name, 0) + added
                drawn |= mask
    voxels[0] = int((~drawn).sum())  # 3D Slicer cuts files to what is drawn
    own = legend.source == file
    return LabelContent("name", voxels, tuple(segment.name for segment in legend.segments) if own else ())


def _count_colours(pixels: sitk.Image, name: str) -> LabelContent:
    codes, visible = read_colour_codes(pixels, name)
    found, counts = np.unique(codes[visible], return_counts=True)
    if len(found) > _MOST_COLOURS:
        raise AttenScribbleError(
            f"{name}: has {len(found)} colours: it is a photograph, or was drawn with soft edges or saved as JPEG: "
            "draw without antialiasing, and save as 8-bit PNG"
        )
    drawn: dict[Mark, int] = {
        format_colour(decode_colour(code)): n for code, n in zip(found.tolist(), counts.tolist(), strict=True)
    }
    return LabelContent("colour", drawn, hidden=int((~visible).sum()))


def fitting_images(label: Path, images: Mapping[str, Source]) -> list[str]:
    """Cases on whose grid a drawing lies, or on a part of it; none where files cannot be read."""
    try:
        own = Grid.of(_header(label))
    except (RuntimeError, AttenScribbleError):
        return []
    fitting = []
    for case, source in images.items():
        try:
            grid = Grid.of(
                _header(source) if isinstance(source, Path) else read_volume(source, case, thorough=False, whole=False)
            )
        except (RuntimeError, AttenScribbleError):
            continue
        if _lies_on(own, grid):
            fitting.append(case)
    return fitting


def _header(file: Path) -> sitk.Image | sitk.ImageFileReader:
    if file.suffix.lower() not in NRRD:
        return read_volume(file, str(file), thorough=False, whole=False)
    return read_header(file)  # layers make it no volume


def _lies_on(own: Grid, grid: Grid) -> bool:
    steps = measure_steps(grid, own)
    if steps is None or not are_whole(steps, grid):
        return False
    offset = np.round(steps)
    return bool((offset >= 0).all() and (offset + own.size <= grid.size).all())
