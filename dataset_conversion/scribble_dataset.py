"""Scribbles for a densely labelled nnU-Net dataset, written as a dataset of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.grids import place_on
from nnunet_attenscribble.common.nnunet import read_splits_json
from nnunet_attenscribble.common.readers import DatasetFile, keeps_files, open_files
from nnunet_attenscribble.common.volumes import Source, describe, file_of, label_values, read_volume
from nnunet_attenscribble.common.workers import run_all
from nnunet_attenscribble.dataset_conversion.cases import IGNORE, Case, Drawing
from nnunet_attenscribble.dataset_conversion.description import Description, find_cases, read_description
from nnunet_attenscribble.dataset_conversion.inspection import ClassCoverage, measure_coverage, sum_coverage
from nnunet_attenscribble.dataset_conversion.plan_problems import split_problems
from nnunet_attenscribble.dataset_conversion.raw_dataset import RawDataset, Writing, WrittenDatasets, write_raw_datasets
from nnunet_attenscribble.dataset_conversion.scribbles import ScribbleRules, choose_axis, draw_scribbles
from nnunet_attenscribble.dataset_conversion.splits import idle_notes, make_splits_by_case
from nnunet_attenscribble.errors import AttenScribbleError, refuse


@dataclass(frozen=True)
class ScribbledDataset:
    """What `scribble_dataset` wrote.

    Attributes:
        written: the dataset.
        coverage: what the scribbles cover, by class.
        images: files of training images.
        links: of these, links to those of the source; the others are copies.
    """

    written: WrittenDatasets
    coverage: dict[str, ClassCoverage]
    images: int
    links: int


def scribble_dataset(
    source: Path,
    *,
    dataset_id: int,
    name: str,
    rules: ScribbleRules,
    writing: Writing,
) -> ScribbledDataset:
    """Draw scribbles into the training labels of a raw dataset.

    The new dataset links the images of the source, which is its dense twin, or holds copies where they are no .nii.gz
    that can be used as it is: one file per channel, also of pictures in colour. It takes over its splits: those in
    nnUNet_preprocessed, which nnU-Net would use, or else those that lie beside its dataset.json.

    Args:
        source: DatasetNNN_Name in nnUNet_raw, with dense labels.
        dataset_id, name: see `RawDataset`.
        rules: what to draw.
        writing: where and how; always with links, and what is drawn is trusted.

    Raises:
        AttenScribbleError: every problem of the source, one sentence each.
    """
    writing = replace(writing, trust_scribbles=True, link=True)
    description = read_description(source)
    _refuse_what_cannot_be_drawn(source, description)
    labels = description.labels
    ignore = max(labels.values()) + 1
    files = find_cases(source, description)
    cases = [
        Case(
            case,
            images,
            scribble=Drawing(
                partial(_draw, label, rules, ignore, case),
                stand_in=partial(_read_drawable, label, rules, ignore),
            ),
            inputs=tuple(dict.fromkeys(file for file in map(file_of, (label, *images)) if file is not None)),
        )
        for case, (images, label) in files.items()
    ]
    label = next(iter(files.values()))[1]
    reader = label.reader if isinstance(label, DatasetFile) and keeps_files(label.reader) else None
    problems: list[str] = []
    splits, notes = _find_splits(source, writing.preprocessed_folder, files, problems)
    if not splits:
        splits, notes = make_splits_by_case(files, problems)
    written = write_raw_datasets(
        cases,
        RawDataset(
            dataset_id=dataset_id,
            name=name,
            channel_names=description.channels,
            labels=labels,
            provenance={
                "source": f"scribbles drawn by nnunet-attenscribble into the dense labels of {source.name}",
                "dense_labels": source.name,
                "reference": description.reference,
                "license": description.license,
                "options": asdict(rules),
            },
            splits=splits,
            reader=reader,
        ),
        writing,
        problems=problems,
        notes=notes,
    )
    scribble = written.scribble
    assert scribble is not None  # every case has one
    pairs = [
        (label, open_files([scribble / "labelsTr" / f"{case}.nii.gz"], reader, label=True)[0])
        for case, (_, label) in files.items()
    ]
    measure = partial(_measure, values=tuple(labels.values()), rules=rules)
    found = run_all(measure, pairs, writing.workers, "Measuring", progress=writing.progress)
    coverage = {label: sum_coverage([case[position] for case in found]) for position, label in enumerate(labels)}
    written = replace(written, scribble_voxels=_count_voxels(coverage))
    images = list((scribble / "imagesTr").iterdir())
    return ScribbledDataset(written, coverage, len(images), sum(image.is_symlink() for image in images))


def _refuse_what_cannot_be_drawn(source: Path, description: Description) -> None:
    problems = []
    if description.ignore is not None:
        problems.append(f"{source.name} has a label `ignore`: its labels are scribbles already")
    if description.regions:
        problems.append(
            f"{source.name} has regions ({', '.join(description.regions)}): scribbles are drawn into labels; write a "
            "dataset.json with one label per class first, and train on regions of the result"
        )
    refuse(problems)


def _find_splits(
    source: Path, preprocessed_folder: Path | None, cases: Collection[str], problems: list[str]
) -> tuple[Sequence[Mapping[str, Sequence[str]]] | None, list[str]]:
    """The splits of the source, None where it has none, and notes on them; `problems` gets what is wrong with them."""
    folders = [source] if preprocessed_folder is None else [preprocessed_folder / source.name, source]
    file = next((file for folder in folders if (file := folder / "splits_final.json").exists()), None)
    if file is None:
        return None, []
    try:
        splits = read_splits_json(file)
    except AttenScribbleError as error:
        problems += error.problems
        return None, []
    if wrong := split_problems(splits, set(cases)):  # cases may have come and gone since the folds were drawn
        problems += [f"{file}: {problem}: delete it, or correct it" for problem in wrong]
        return None, []
    return splits, idle_notes(splits, cases, str(file))


def _draw(source: Source, rules: ScribbleRules, ignore: int, case: str) -> sitk.Image:
    """The scribble of one case, made where it is needed."""
    dense, values = _read_dense(source, ignore)
    image = sitk.GetImageFromArray(draw_scribbles(values, dense.GetSpacing()[::-1], rules, ignore, case))
    image.CopyInformation(dense)
    return image


def _read_drawable(source: Source, rules: ScribbleRules, ignore: int) -> sitk.Image:
    dense, values = _read_dense(source, ignore)
    shape = values.shape
    if rules.dense_slices is not None and (
        len(shape) == 2 or shape[choose_axis(shape, dense.GetSpacing()[::-1], rules)] == 1
    ):
        raise AttenScribbleError(f"{describe(source, '')}: is a single slice: dense_slices needs volumes, draw strokes")
    return dense


def _read_dense(source: Source, ignore: int) -> tuple[sitk.Image, np.ndarray]:
    """A dense label and its voxels, none of which is `ignore` or above."""
    name = describe(source, "")
    dense = read_volume(source, name, label=True)
    values = label_values(dense, name)
    if values.min() < 0 or values.max() >= ignore:
        strange = sorted(set(np.unique(values).tolist()) - set(range(ignore)))
        raise AttenScribbleError(f"{name}: label values {strange[:8]} are not in dataset.json: correct one of the two")
    return dense, values


def _count_voxels(coverage: Mapping[str, ClassCoverage]) -> dict[str, int]:
    """Voxels of the scribbles by label; those of the stand-ins were counted when they were checked."""
    drawn = {label: found.scribbled for label, found in coverage.items()}
    return {**drawn, IGNORE: sum(found.voxels for found in coverage.values()) - sum(drawn.values())}


def _measure(pair: tuple[Source, Source], *, values: tuple[int, ...], rules: ScribbleRules) -> list[ClassCoverage]:
    dense, scribble = (read_volume(source, "", thorough=False, label=True) for source in pair)
    arrays = sitk.GetArrayFromImage(place_on(scribble, dense)), sitk.GetArrayFromImage(dense)
    axis = choose_axis(arrays[1].shape, dense.GetSpacing()[::-1], rules)
    return measure_coverage(*arrays, values, axis)
