"""Scribbles for a densely labelled nnU-Net dataset, written as a dataset of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.dataset_conversion.coverage import ClassCoverage, measure_coverage, sum_coverage
from nnunet_attenscribble.dataset_conversion.progress import show_progress
from nnunet_attenscribble.dataset_conversion.raw_dataset import Case, WrittenDatasets, write_raw_datasets
from nnunet_attenscribble.dataset_conversion.scribble_rules import ScribbleRules
from nnunet_attenscribble.dataset_conversion.scribbles import draw_scribbles, slice_axis
from nnunet_attenscribble.dataset_conversion.volumes import label_values, read_volume
from nnunet_attenscribble.dataset_conversion.workers import default_workers, worker_map
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["ScribbledDataset", "scribble_dataset"]


@dataclass(frozen=True)
class ScribbledDataset:
    """What `scribble_dataset` wrote, and what the scribbles cover, by class."""

    written: WrittenDatasets
    coverage: dict[str, ClassCoverage]


def scribble_dataset(
    source: Path,
    *,
    raw_folder: Path,
    dataset_id: int,
    name: str,
    rules: ScribbleRules,
    preprocessed_folder: Path | None = None,
    results_folder: Path | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> ScribbledDataset:
    """Draw scribbles into the training labels of a raw dataset.

    The new dataset links the images of the source, which is its dense twin, and takes over its splits where
    `preprocessed_folder` has them.

    Args:
        source: DatasetNNN_Name in nnUNet_raw, with dense labels.
        rules: what to draw.
        raw_folder, dataset_id, name, results_folder, workers, progress: see `write_raw_datasets`.
        preprocessed_folder: nnUNet_preprocessed.

    Raises:
        AttenScribbleError: every problem of the source, one sentence each.
    """
    description, labels, channels = _read_description(source)
    ending = description["file_ending"]
    files = _find_cases(source, ending, len(channels))
    cases = [
        Case(case, images, scribble=partial(_draw, label, rules, max(labels.values()) + 1, case), inputs=(label,))
        for case, (images, label) in files.items()
    ]
    splits_file = None if preprocessed_folder is None else preprocessed_folder / source.name / "splits_final.json"
    splits = json.loads(splits_file.read_text()) if splits_file is not None and splits_file.is_file() else None
    written = write_raw_datasets(
        cases,
        raw_folder=raw_folder,
        dataset_id=dataset_id,
        name=name,
        channel_names=channels,
        labels=labels,
        provenance={
            "source": f"scribbles drawn by nnunet-attenscribble into the dense labels of {source.name}",
            "reference": description.get("reference"),
            "license": description.get("licence", description.get("license", "see the source")),
            "options": rules.as_dict(),
        },
        splits=splits,
        preprocessed_folder=preprocessed_folder,
        results_folder=results_folder,
        link=True,
        trust_scribbles=True,
        workers=workers,
        progress=progress,
    )
    pairs = [(label, written.scribble / "labelsTr" / f"{case}.nii.gz") for case, (_, label) in files.items()]
    with worker_map(min(default_workers() if workers is None else workers, len(pairs))) as run:
        measured = run(partial(_measure, values=tuple(labels.values()), rules=rules), pairs)
        found = list(show_progress(measured, total=len(pairs), description="Measuring", enabled=progress))
    coverage = {label: sum_coverage([case[position] for case in found]) for position, label in enumerate(labels)}
    return ScribbledDataset(written, coverage)


def _read_description(source: Path) -> tuple[dict, dict[str, int], dict[int, str]]:
    file = source / "dataset.json"
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise AttenScribbleError(f"{file}: cannot be read ({error.strerror}): give a dataset in nnUNet_raw") from None
    except ValueError as error:
        raise AttenScribbleError(f"{file}: is no JSON ({error}): write it again") from None
    absent = [key for key in ("labels", "channel_names", "file_ending") if key not in description]
    if absent:
        raise AttenScribbleError([f"{file}: has no '{key}', which nnU-Net needs" for key in absent])
    problems = []
    if "ignore" in description["labels"]:
        problems.append(f"{source.name} has a label `ignore`: its labels are scribbles already")
    regions = [name for name, values in description["labels"].items() if isinstance(values, list) and len(values) > 1]
    if regions:
        problems.append(
            f"{source.name} has regions ({', '.join(regions)}): scribbles are drawn into labels; write a dataset.json "
            "with one label per class first, and train on regions of the result"
        )
    if problems:
        raise AttenScribbleError(problems)
    labels = {
        name: int(values[0] if isinstance(values, list) else values) for name, values in description["labels"].items()
    }
    channels = {int(number): channel for number, channel in description["channel_names"].items()}
    return description, labels, channels


def _find_cases(source: Path, ending: str, channels: int) -> dict[str, tuple[tuple[Path, ...], Path]]:
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    try:
        found = get_filenames_of_train_images_and_targets(str(source))
    except (AssertionError, OSError) as error:
        raise AttenScribbleError(f"{source}: nnU-Net finds no training cases in it ({error})") from None
    problems = []
    cases = {}
    for case, files in sorted(found.items()):
        images, label = tuple(map(Path, files["images"])), Path(files["label"])
        if len(images) != channels:
            problems.append(
                f"case {case} of {source.name} has {len(images)} images, dataset.json has {channels} channels"
            )
        if not label.is_file():
            problems.append(f"{label}: does not exist: case {case} has no dense label")
        cases[case] = images, label
    if not cases:
        problems.append(f"{source}: has no training case whose files end in {ending}")
    if problems:
        raise AttenScribbleError(problems)
    return cases


def _draw(file: Path, rules: ScribbleRules, ignore: int, case: str) -> sitk.Image:
    """The scribble of one case, made where it is needed."""
    dense = read_volume(file, str(file))
    values = label_values(dense, str(file))
    if values.min() < 0 or values.max() >= ignore:
        strange = sorted(set(np.unique(values).tolist()) - set(range(ignore)))
        raise AttenScribbleError(f"{file}: label values {strange[:8]} are not in dataset.json: correct one of the two")
    image = sitk.GetImageFromArray(draw_scribbles(values, dense.GetSpacing()[::-1], rules, ignore, case))
    image.CopyInformation(dense)
    return image


def _measure(pair: tuple[Path, Path], *, values: tuple[int, ...], rules: ScribbleRules) -> list[ClassCoverage]:
    dense, scribble = (sitk.ReadImage(str(file)) for file in pair)
    axis = slice_axis(dense.GetSpacing()[::-1], rules)
    arrays = sitk.GetArrayFromImage(scribble), sitk.GetArrayFromImage(dense)
    return [measure_coverage(*arrays, value, axis) for value in values]
