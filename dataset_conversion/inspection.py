"""What a raw dataset holds: scribbles by class, what of each class they cover, sizes, intensities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cc3d
import numpy as np
import SimpleITK as sitk
from scipy.spatial import cKDTree

from nnunet_attenscribble.common.grids import geometry_problems, place_on
from nnunet_attenscribble.common.nnunet import DATASET, read_drawn_axis
from nnunet_attenscribble.common.shapes import TEXT, mapping, read_if_shaped
from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.common.volumes import (
    Source,
    count_values,
    describe,
    label_values,
    read_volume,
    slice_axis,
)
from nnunet_attenscribble.common.workers import run_all
from nnunet_attenscribble.dataset_conversion.cases import find_swapped
from nnunet_attenscribble.dataset_conversion.description import Description, find_cases, read_description
from nnunet_attenscribble.dataset_conversion.plan_problems import unlike_dimensions
from nnunet_attenscribble.errors import AttenScribbleError, refuse

PERCENTILES = (0, 1, 50, 99, 100)


@dataclass(frozen=True)
class ClassCoverage:
    """Of one class, in one case or in several.

    Attributes:
        scribbled: voxels under its scribbles.
        wrong: voxels scribbled as this class that the dense label gives to another.
        voxels: of the class in the dense label.
        slices: that show the class.
        slices_without: of these, without a scribble of it.
        pieces: components of the class in single slices, corners joining.
        pieces_without: of these, without a scribble of it.
    """

    scribbled: int = 0
    wrong: int = 0
    voxels: int = 0
    slices: int = 0
    slices_without: int = 0
    pieces: int = 0
    pieces_without: int = 0


def measure_coverage(
    scribble: np.ndarray, dense: np.ndarray, values: Iterable[int], axis: int = 0
) -> list[ClassCoverage]:
    """Coverage of every class in one case.

    Args:
        scribble: (Z, Y, X) or (Y, X) labels.
        dense: of the same shape.
        values: of the classes.
        axis: of a volume, across which slices are cut.
    """
    if dense.ndim == 2:
        scribble, dense, axis = scribble[None], dense[None], 0
    right = scribble == dense
    scribbled, voxels, agreed = map(count_values, (scribble, dense, scribble[right][None]))
    slices, slices_without, pieces, pieces_without = (Counter[int]() for _ in range(4))
    for touching, section in zip(np.moveaxis(right, axis, 0), np.moveaxis(dense, axis, 0), strict=True):
        # All classes at once, the background too: 0 would be no piece.
        components, count = cc3d.connected_components(section.astype(np.uint32) + 1, connectivity=8, return_N=True)
        owners, untouched = np.empty(count, section.dtype), np.ones(count, bool)
        owners[components - 1], untouched[components[touching] - 1] = section, False
        shown, touched = set(owners.tolist()), set(owners[~untouched].tolist())
        slices.update(shown)
        slices_without.update(shown - touched)
        pieces.update(owners.tolist())
        pieces_without.update(owners[untouched].tolist())
    return [
        ClassCoverage(
            scribbled=scribbled.get(value, 0),
            wrong=scribbled.get(value, 0) - agreed.get(value, 0),
            voxels=voxels.get(value, 0),
            slices=slices[value],
            slices_without=slices_without[value],
            pieces=pieces[value],
            pieces_without=pieces_without[value],
        )
        for value in values
    ]


def sum_coverage(parts: Sequence[ClassCoverage]) -> ClassCoverage:
    """Of several cases together."""
    totals = np.sum([list(vars(part).values()) for part in parts], axis=0).tolist() if parts else []
    return ClassCoverage(*totals)


@dataclass(frozen=True)
class CaseFindings:
    """Of one training case.

    Attributes:
        classes: coverage by class; without dense labels only its number of scribbled voxels.
        shown: slices with a scribble of the class, by class.
        slices: across the axis of the largest spacing, or the one that is a single voxel long.
        slices_without: of these, without any scribble.
        background_distances: mm from the pixels of the background's strokes to the nearest stroke of a structure, the
            median of every slice that has both; none in dense labels.
        voxels: of the case.
        size: voxels along x, y, z.
        spacing: mm along x, y, z.
        intensities: of each channel, its `PERCENTILES`.
        swapped: see `find_swapped`.
    """

    classes: Mapping[str, ClassCoverage]
    shown: Mapping[str, int]
    slices: int
    slices_without: int
    background_distances: tuple[float, ...]
    voxels: int
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    intensities: tuple[tuple[float, ...], ...]
    swapped: tuple[str, float, float] | None

    @property
    def scribbled(self) -> int:
        """Voxels with any label but `ignore`."""
        return sum(found.scribbled for found in self.classes.values())

    @property
    def wrong(self) -> int:
        """Of these, those that the dense label gives to another class."""
        return sum(found.wrong for found in self.classes.values())


@dataclass(frozen=True)
class Inspection:
    """Of a dataset: its description, its files by case, those of the dense labels, and what was found in each."""

    description: Description
    files: Mapping[str, tuple[tuple[Source, ...], Source]]
    dense: Mapping[str, Source]
    cases: Mapping[str, CaseFindings]


def inspect_dataset(
    source: Path, dense: Path | None = None, *, workers: int | None = None, progress: bool = False
) -> Inspection:
    """Look at every training case.

    Args:
        source: DatasetNNN_Name in nnUNet_raw.
        dense: its dense twin, another raw dataset with the same cases, or a folder of label files; None: none.
        workers: processes; None for one per processor, 8 at most.
        progress: show it on stderr.

    Raises:
        AttenScribbleError: every file that cannot be read or does not fit its image, one sentence each.
    """
    description = read_description(source)
    files = find_cases(source, description)
    truth = {} if dense is None else _find_dense(dense, files, description.ending)
    tasks = [(case, *files[case], truth.get(case)) for case in files]
    labels, across = dict(description.labels), read_drawn_axis(source)
    inspect = partial(_inspect_case, labels=labels, ignore=description.ignore, across=across)
    found = run_all(inspect, tasks, workers, "Looking", progress=progress)
    problems = [problem for result in found if isinstance(result, list) for problem in result]
    sound = {case: result for case, result in zip(files, found, strict=True) if isinstance(result, CaseFindings)}
    problems += unlike_dimensions(
        (describe(files[case][0][0], f"case {case}"), len(result.size)) for case, result in sound.items()
    )
    refuse(problems)
    return Inspection(description, files, truth, sound)


def find_twin(source: Path) -> Path | None:
    """The dense twin of a scribble dataset beside it: what its provenance names, or the one that shares its images."""
    named = read_if_shaped(source / "provenance.json", mapping({"dense_labels": TEXT})).get("dense_labels")
    if named and (source.parent / named).is_dir():
        return source.parent / named
    for other in sorted(source.parent.glob("Dataset[0-9][0-9][0-9]_*/dataset.json")):
        cases = read_if_shaped(other, DATASET).get("dataset") or {}
        first = next(iter(cases.values()), {"images": [""]})
        if other.parent != source and first["images"][0].startswith(f"../{source.name}/"):
            return other.parent
    return None


def _find_dense(dense: Path, cases: Mapping[str, object], ending: str) -> dict[str, Source]:
    labels: dict[str, Source]
    if (dense / "dataset.json").is_file():
        labels = {case: label for case, (_, label) in find_cases(dense, read_description(dense)).items()}
    elif dense.is_dir():
        labels = {file.name.removesuffix(ending): file for file in dense.iterdir() if file.name.endswith(ending)}
    else:
        raise AttenScribbleError(f"{dense}: is neither a raw dataset nor a folder of label files")
    absent = [case for case in cases if case not in labels]
    if absent:
        told = list_some(absent)
        raise AttenScribbleError(f"{dense}: holds no dense label of {told}")
    return {case: labels[case] for case in cases}


def _inspect_case(
    task: tuple[str, tuple[Source, ...], Source, Source | None],
    *,
    labels: Mapping[str, int],
    ignore: int | None,
    across: int | None,
) -> CaseFindings | list[str]:
    """What was found, or every problem; runs in a worker process."""
    try:
        channels, values, counts = _read_case(*task, {*labels.values(), *(() if ignore is None else (ignore,))})
    except AttenScribbleError as error:
        return error.problems
    size, spacing = channels[0].GetSize(), channels[0].GetSpacing()
    label = values[0] if len(size) == 3 else values[0][None]
    steps = (1.0, *spacing[::-1])[-3:]  # (z, y, x)
    axis = slice_axis(label.shape, steps, across) if len(size) == 3 else 0
    sections = np.moveaxis(label, axis, 0)
    if len(values) > 1:
        covered = measure_coverage(values[0], values[1], labels.values(), axis)
    else:
        covered = [ClassCoverage(scribbled=counts.get(value, 0)) for value in labels.values()]
    shown = Counter(value for section in sections for value in np.unique(section).tolist())
    found = CaseFindings(
        classes=dict(zip(labels, covered, strict=True)),
        shown={name: shown[value] for name, value in labels.items()},
        slices=len(sections),
        slices_without=0,
        background_distances=(),
        voxels=label.size,
        size=size,
        spacing=spacing,
        intensities=tuple(
            tuple(np.percentile(sitk.GetArrayViewFromImage(image), PERCENTILES).tolist()) for image in channels
        ),
        swapped=None,
    )
    if ignore is None:
        return found
    return replace(
        found,
        slices_without=int((sections == ignore).all(axis=(1, 2)).sum()),
        background_distances=_background_distances(sections, ignore, np.delete(steps, axis)),
        swapped=find_swapped(label, counts, {value: name for name, value in labels.items()}, ignore, axis),
    )


def _read_case(
    case: str, images: Sequence[Source], label: Source, dense: Source | None, known: Collection[int]
) -> tuple[list[sitk.Image], list[np.ndarray], dict[int, int]]:
    """Channels; the voxels of the label and any dense label, on the grid of the first channel; the label's, by value.

    Raises:
        AttenScribbleError: what cannot be read, lies elsewhere, or holds values that are not `known`.
    """
    problems: list[str] = []
    names = [describe(image, f"channel {number} of case {case}") for number, image in enumerate(images)]
    drawn = [file for file in (label, dense) if file is not None]
    names += [describe(file, "") for file in drawn]
    volumes = []
    for number, (source, name) in enumerate(zip((*images, *drawn), names, strict=True)):
        try:
            volumes.append(read_volume(source, name, label=number >= len(images)))
        except AttenScribbleError as error:
            problems += error.problems
    refuse(problems)
    for position, (name, volume) in enumerate(zip(names[1:], volumes[1:], strict=True), start=1):
        # nnU-Net reads a dataset's own files; the dense labels are another's.
        problems += geometry_problems(volumes[0], volume, name, names[0], as_stored=position <= len(images))
    values, counts = [], []
    for name, volume in zip(names[len(images) :], volumes[len(images) :], strict=True):
        try:
            values.append(label_values(place_on(volume, volumes[0]), name))
        except AttenScribbleError as error:
            problems += error.problems
            continue
        counts.append(count_values(values[-1]))
        if strange := sorted(counts[-1].keys() - known):
            problems.append(f"{name}: label values {strange[:8]} are not in dataset.json: correct one of the two")
    refuse(problems)
    return volumes[: len(images)], values, counts[0]


def _background_distances(sections: np.ndarray, ignore: int, spacing: np.ndarray) -> tuple[float, ...]:
    """Median mm to the nearest stroke of a structure, of each slice of (Z, Y, X) scribbles that shows both."""
    found = []
    for section in sections:
        background, structures = np.argwhere(section == 0), np.argwhere((section > 0) & (section != ignore))
        if len(background) and len(structures):
            found.append(float(np.median(cKDTree(structures * spacing).query(background * spacing)[0])))
    return tuple(found)
