"""Datasets as `attenscribble doctor` sees them, files and plans: are they what the scribble trainers train on?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_attenscribble.cli.datasets import planning_commands
from nnunet_attenscribble.cli.doctor import NOTE, PROBLEM, Finding
from nnunet_attenscribble.common.grids import Grid, geometry_problems
from nnunet_attenscribble.common.nnunet import (
    count_preprocessed,
    dataset_folder,
    entry_values,
    label_problems,
    nnunet_folder,
    read_dataset_json,
    read_drawn_axis,
)
from nnunet_attenscribble.common.readers import Reader, find_reader, open_files
from nnunet_attenscribble.common.text import counted, list_some
from nnunet_attenscribble.common.volumes import count_values, describe, label_values, read_volume, slice_axis
from nnunet_attenscribble.common.workers import run_all
from nnunet_attenscribble.dataset_conversion.cases import find_swapped, tell_swapped
from nnunet_attenscribble.errors import AttenScribbleError, refuse

_MEND_FILE = "put it right, or take its case out: see docs/datasets.md"


def list_datasets() -> list[Finding]:
    """A line about what is in nnUNet_raw, where there is such a folder; without opening any image."""
    try:
        raw = nnunet_folder("nnUNet_raw")
    except AttenScribbleError:
        return []  # told already
    if not raw.is_dir():
        return []
    scribbles: list[str] = []
    dense: list[str] = []
    damaged: list[str] = []
    for folder in sorted(filter(Path.is_dir, raw.glob("Dataset[0-9][0-9][0-9]_*"))):
        try:
            labels = read_dataset_json(folder / "dataset.json")["labels"]
        except AttenScribbleError:
            damaged.append(folder.name)
            continue
        (scribbles if "ignore" in labels else dense).append(folder.name)
    findings = []
    if damaged:
        told = f"{list_some(damaged)}: dataset.json is not in order"
        findings = [Finding("datasets", told, NOTE, f"attenscribble doctor {damaged[0][7:10]} tells what is wrong")]
    if scribbles:
        advice = f"attenscribble doctor {scribbles[0][7:10]} looks into one"
        return [*findings, Finding("datasets", f"{list_some(scribbles)} with scribbles", advice=advice)]
    advice = (
        "attenscribble start DIR for scribbles of your own, attenscribble convert --help for published data, "
        "attenscribble scribble ID to draw into dense labels"
    )
    if dense:
        return [*findings, Finding("datasets", f"{list_some(dense)}: dense labels, no scribbles", NOTE, advice)]
    return findings or [Finding("datasets", "none in nnUNet_raw", NOTE, advice)]


def check_dataset(dataset: str, workers: int | None = None) -> list[Finding]:
    """A dataset from its dataset.json to its plans; workers as of `worker_map`."""
    try:
        folder = dataset_folder("nnUNet_raw", dataset)
    except AttenScribbleError as error:
        advice = "write it into nnUNet_raw: attenscribble start --help, or convert --help, or scribble --help"
        return _tell(f"dataset {dataset}", error.problems, advice)
    try:
        description = read_dataset_json(folder / "dataset.json")
    except AttenScribbleError as error:
        return _tell(folder.name, error.problems, "see docs/datasets.md")
    if "numTraining" not in description:
        told = f"{folder / 'dataset.json'}: has no 'numTraining', which nnU-Net needs"
        return [Finding(folder.name, told, PROBLEM, "add the number of training cases")]
    findings = check_labels(folder.name, description)
    if any(finding.status == PROBLEM for finding in findings):
        return findings
    found = check_cases(folder, description, workers)
    sound = all(finding.status != PROBLEM for finding in found)
    return [*findings, *found, *check_plans(folder, description, sound=sound)]


def _tell(subject: str, problems: Iterable[str], advice: str) -> list[Finding]:
    return [Finding(subject, problem, PROBLEM, advice) for problem in problems]


def check_labels(name: str, description: Mapping[str, Any]) -> list[Finding]:
    """Whether the labels are as nnU-Net wants them: consecutive, regions with their order, `ignore` alone and last."""
    labels = description["labels"]
    problems = [Finding(name, told, PROBLEM, advice) for told, advice in label_problems(labels)]
    problems += _check_regions(name, labels, description.get("regions_class_order"))
    if "ignore" not in labels:
        advice = f"train it with nnUNetTrainer, or draw scribbles: attenscribble scribble {name} -o NEW_ID"
        return problems or [Finding(name, "has no label `ignore`: its labels are dense", NOTE, advice)]
    told = f"scribbles of {list_some([key for key in labels if key != 'ignore'])}; {labels['ignore']} is `ignore`"
    return problems or [Finding(name, told)]


def _check_regions(name: str, labels: Mapping[str, Any], order: list[int] | None) -> list[Finding]:
    """Where a label has several values, nnU-Net must be told what to write for each region."""
    if not any(isinstance(entry, list) and len(entry) > 1 for key, entry in labels.items() if key != "ignore"):
        return []
    regions = [key for key, entry in labels.items() if key != "ignore" and set(entry_values(entry)) != {0}]
    if order is not None and len(order) == len(regions):
        return []
    told = "there is no regions_class_order" if order is None else f"regions_class_order is {order}"
    advice = (
        f"give dataset.json a regions_class_order: {len(regions)} values, one for each of {list_some(regions)}, a "
        "smaller region behind the one that holds it"
    )
    return [Finding(name, f"has regions, and {told}", PROBLEM, advice)]


def check_cases(folder: Path, description: Mapping[str, Any], workers: int | None) -> list[Finding]:
    """Whether every label has its images, whether all files are whole, and what the labels hold."""
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    try:
        with redirect_stdout(StringIO()):
            cases = get_filenames_of_train_images_and_targets(str(folder), deepcopy(dict(description)))
    except Exception as error:
        advice = "give every label in labelsTr its images CASE_0000, CASE_0001, ... in imagesTr"
        return [Finding(folder.name, f"nnU-Net cannot list its cases ({error})", PROBLEM, advice)]
    problems = []
    if len(cases) != description["numTraining"]:
        told = f"numTraining is {description['numTraining']}, there are {len(cases)} cases"
        advice = "correct numTraining in dataset.json, or add what is missing"
        problems.append(Finding(folder.name, told, PROBLEM, advice))
    if not cases:
        return problems or [Finding(folder.name, "has no case", PROBLEM, "add images and labels")]
    files = {case: [Path(file) for file in (*entry["images"], entry["label"])] for case, entry in cases.items()}
    absent = [file.name for own in files.values() for file in own if not file.is_file()]
    if absent:
        told = f"{counted(len(absent), 'file')} missing: {list_some(absent)}"
        problems.append(Finding(folder.name, told, PROBLEM, "copy them, or take their cases out"))
        cases = {case: entry for case, entry in cases.items() if all(map(Path.is_file, files[case]))}
    if not cases:
        return problems
    try:
        reader = find_reader(description, files[next(iter(cases))][0])
    except AttenScribbleError as error:
        return [*problems, *_tell(folder.name, error.problems, _MEND_FILE)]
    look = partial(
        _look,
        reader=reader,
        channels=len(description["channel_names"]),
        labels=description["labels"],
        across=read_drawn_axis(folder),
    )
    found = run_all(look, cases.items(), workers, "Reading")
    # Channels and cases may share a problem.
    problems += _tell(folder.name, dict.fromkeys(problem for own in found for problem in own.problems), _MEND_FILE)
    wrong = _tell(folder.name, (problem for own in found for problem in own.label_problems), _MEND_FILE)
    if absent:
        return [*problems, *wrong]  # what is not drawn may be in the files that are missing
    if "ignore" not in description["labels"]:
        return [*problems, *wrong] or [Finding(folder.name, f"{len(cases)} cases, every file is there")]
    counts: Counter[int] = sum((own.counts for own in found), Counter())
    swapped = tell_swapped({case: own.swapped for case, own in zip(cases, found, strict=True)})
    advice = f"write {description['labels']['ignore']} wherever nobody drew, or convert again: attenscribble start"
    return [
        *problems,
        *_check_scribbles(folder.name, description["labels"], counts, wrong),
        *(Finding(folder.name, told, NOTE, advice) for told in swapped),
    ]


@dataclass
class _Look:
    """What was found in the files of a case: problems of images and of its label, voxels by value, and what
    `find_swapped` tells.
    """

    problems: list[str] = field(default_factory=list)
    label_problems: list[str] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    swapped: tuple[str, float, float] | None = None


def _look(
    case: tuple[str, Mapping[str, Any]], *, reader: Reader, channels: int, labels: Mapping[str, Any], across: int | None
) -> _Look:
    """Whether all files of a case are whole, as nnU-Net opens them, on one grid, and none is absent.

    Runs in a worker process.
    """
    (name, entry), look = case, _Look()
    first: tuple[str, Grid] | None = None
    try:
        sources = open_files([Path(file) for file in entry["images"]], reader, channels=channels)
        for source in sources:
            role = describe(source, f"an image of case {name}")
            image = read_volume(source, role, whole=False)
            first = first or (role, Grid.of(image))
            look.problems += geometry_problems(first[1], image, role, first[0], as_stored=True)
        if len(sources) != channels:
            look.problems = [f"case {name} has {len(sources)} channels, dataset.json has {channels}"]
    except AttenScribbleError as error:
        look.problems = error.problems
    file = entry["label"]
    try:
        (label,) = open_files([Path(file)], reader, label=True)
        volume = read_volume(label, file, label=True)
        if first is not None:
            look.label_problems += geometry_problems(first[1], volume, file, first[0], as_stored=True)
        values = label_values(volume, file)
        counts = count_values(values)
        look.counts.update(counts)
        if "ignore" in labels:
            names = {value: key for key, entry in labels.items() for value in entry_values(entry) if key != "ignore"}
            axis = slice_axis(values.shape, volume.GetSpacing()[::-1], across)
            look.swapped = find_swapped(values, counts, names, labels["ignore"], axis)
    except AttenScribbleError as error:
        look.label_problems += error.problems
    return look


def _check_scribbles(
    name: str, labels: Mapping[str, Any], counts: Counter[int], findings: list[Finding]
) -> list[Finding]:
    """By the voxels of all labels; after what was found wrong with their files."""
    ignore, total = labels["ignore"], counts.total()
    if findings and not total:
        return findings  # what else would be found follows from it
    known = {value for entry in labels.values() for value in entry_values(entry)}
    strange = sorted(set(counts) - known)
    if strange:
        advice = "correct the labels, or name these values in dataset.json"
        findings.append(
            Finding(name, f"labels hold {list_some(list(map(str, strange)))}, not in dataset.json", PROBLEM, advice)
        )
    for label, entry in labels.items():
        if label != "ignore" and not any(counts.get(value) for value in entry_values(entry)):
            status, advice = PROBLEM, f"draw strokes of {label}: nothing else teaches it"
            if entry_values(entry) == (0,):
                status, advice = NOTE, "draw a stroke around the organs too"
            findings.append(Finding(name, f"no case has a stroke of {label}", status, advice))
    drawn = total - counts.get(ignore, 0)
    share = f"{100 * drawn / max(total, 1):.3g} % of the voxels are annotated"
    if not counts.get(ignore):
        advice = f"write {ignore} wherever nobody drew"
        findings.append(Finding(name, f"no voxel is `ignore` ({ignore}): the labels are dense", PROBLEM, advice))
    return findings or [Finding(name, f"every class has strokes, {share}")]


def check_plans(raw: Path, description: Mapping[str, Any], *, sound: bool = True) -> list[Finding]:
    """Whether nnU-Net planned it, and whether normalisation and settings of the method in the plans are right.

    Args:
        raw: folder of the dataset in nnUNet_raw.
        description: content of its dataset.json.
        sound: False where its files have problems, which are told already: no image is read then.
    """
    from nnunet_attenscribble.normalisation import MARK, read_fingerprint
    from nnunet_attenscribble.plans import list_plans

    name, number = raw.name, raw.name[7:10]
    try:
        folder = nnunet_folder("nnUNet_preprocessed") / name
    except AttenScribbleError:
        return []  # told already
    files, findings, fingerprint = list_plans(folder), [], None
    try:
        fingerprint = read_fingerprint(folder)
    except AttenScribbleError as error:
        findings = _tell(name, error.problems, "nnU-Net's planning and training read it")
    fingerprinted = MARK in (fingerprint or {})
    scribbles = "ignore" in description["labels"]
    if not files:
        commands = planning_commands(raw)[-1:] if fingerprinted else planning_commands(raw)
        return [*findings, Finding(name, "is not planned yet", NOTE, " && ".join(commands))]
    findings += _check_copy(folder / "dataset.json", description, raw)
    for file in files:
        try:
            plans, configurations = _resolve_plans(file, description["labels"])
        except AttenScribbleError as error:
            advice = f"correct {file}, for settings see docs/settings.md, or plan again"
            findings += _tell(name, error.problems, advice)
            continue
        if scribbles and sound:
            told = _check_normalisation(raw, description, plans, list(configurations.values()))
            again = f"plan and preprocess again (nnUNetv2_plan_and_preprocess -d {number})"
            advice = again if fingerprinted else f"attenscribble fingerprint {number}, then {again}"
            findings += _tell(name, (f"{file.stem}: {problem}" for problem in told), advice)
        findings += _check_preprocessed(file, configurations, name, description["numTraining"])
    return findings


def _resolve_plans(file: Path, labels: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The plans in a file, and their configurations with all that they inherit.

    Raises:
        AttenScribbleError: every problem of the file or of the method's settings, with its configurations.
    """
    from nnunet_attenscribble.plans import read_plans, resolve_configuration
    from nnunet_attenscribble.settings import AttenScribbleSettings

    try:
        plans = read_plans(file)
    except AttenScribbleError as error:
        told = [problem.removeprefix(f"{file}: ") for problem in error.problems]
        raise AttenScribbleError(f"{file.name}: {problem}" for problem in told) from None
    resolved: dict[str, dict[str, Any]] = {}
    wrong: dict[str, list[str]] = {}  # configurations by problem, as they inherit them
    for key in plans["configurations"]:
        try:
            resolved[key] = resolve_configuration(plans, key)
            if "ignore" in labels:  # stock nnU-Net, which trains dense labels, knows no settings
                AttenScribbleSettings.from_configuration(resolved[key]).weigh_labels(labels)
        except AttenScribbleError as error:
            for problem in error.problems:
                wrong.setdefault(problem, []).append(key)
    refuse(f"{file.name}: {list_some(keys)}: {problem}" for problem, keys in wrong.items())
    return plans, resolved


def _check_preprocessed(
    file: Path, configurations: Mapping[str, Mapping[str, Any]], name: str, cases: int
) -> list[Finding]:
    """Which configurations of a plans file are preprocessed, and whether with all cases."""
    preprocess = f"nnUNetv2_preprocess -d {name[7:10]} -plans_name {file.stem} -c"
    done: list[str] = []
    begun: dict[Path, list[str]] = {}  # configurations by folder: they may share one
    for key, entry in configurations.items():
        place = file.parent / entry.get("data_identifier", "\0")
        if count := count_preprocessed(place):
            (done if count >= cases else begun.setdefault(place, [])).append(key)
    findings = [Finding(name, f"{file.stem}: {list_some(done)} preprocessed")] if done else []
    for place, keys in begun.items():
        # nnU-Net would draw its folds from these cases, and train on no other.
        told = f"{file.stem}: {list_some(keys)}: only {count_preprocessed(place)} of {cases} cases are preprocessed"
        advice = f"unless that still goes on, preprocess again: {preprocess} {keys[0]}"
        findings.append(Finding(name, told, PROBLEM, advice))
    if not findings:
        advice = f"{preprocess} {next(iter(configurations), '2d')}"
        findings.append(Finding(name, f"{file.stem}: nothing is preprocessed yet", NOTE, advice))
    return findings


def _check_copy(file: Path, description: Mapping[str, Any], raw: Path) -> list[Finding]:
    """Whether the dataset.json that planning copied, by which nnU-Net trains, has the labels of now."""
    if not file.exists():
        return []  # training tells
    # A fingerprint of scribbles is one of their classes, and planning would keep it.
    advice = f"plan again: {' && '.join(planning_commands(raw))}"
    try:
        same = read_dataset_json(file)["labels"] == description["labels"]
    except AttenScribbleError as error:
        return _tell(file.parent.name, error.problems, advice)
    told = f"{file} has other labels than the raw dataset"
    return [] if same else [Finding(file.parent.name, told, PROBLEM, advice)]


def _check_normalisation(
    raw: Path, description: Mapping[str, Any], plans: Mapping[str, Any], configurations: Sequence[dict[str, Any]]
) -> list[str]:
    from nnunet_attenscribble.normalisation import is_scaled_by_unlabelled, list_ct_channels, normalisation_problems

    masked = any(any(entry.get("use_mask_for_norm", ())) for entry in configurations)
    unlabelled_zeros = masked and _has_unlabelled_zeros(raw, description)
    intensities = plans.get("foreground_intensity_properties_per_channel", {})
    judged: dict[tuple[int, ...], bool] = {}
    told: dict[str, None] = {}
    for entry in configurations:
        known = (number for number in map(str, range(len(description["channel_names"]))) if number in intensities)
        channels = tuple(sorted({*list_ct_channels(entry)} & {*map(int, known)}))
        if channels and channels not in judged:
            scaled = _read_scaled(raw, description, {channel: intensities[str(channel)] for channel in channels})
            judged[channels] = is_scaled_by_unlabelled(scaled, channels, description["labels"]["ignore"])
        scaled_by_unlabelled = bool(channels) and judged[channels]
        problems = normalisation_problems(
            entry, scaled_by_unlabelled=scaled_by_unlabelled, unlabelled_zeros=unlabelled_zeros
        )
        told |= dict.fromkeys(problems)
    return list(told)


def _read_scaled(
    raw: Path, description: Mapping[str, Any], intensities: Mapping[int, dict[str, float]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and labels of the cases, their CT normalised by nnU-Net as in training, without resampling."""
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization

    for images, labels in _read_cases(raw, description):
        for channel, own in intensities.items():
            images[channel] = CTNormalization(False, own).run(images[channel])
        yield images, labels


def _has_unlabelled_zeros(raw: Path, description: Mapping[str, Any]) -> bool:
    """Whether the first case is unlabelled where all of its images are zero around the object."""
    from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask

    images, labels = next(_read_cases(raw, description))
    return bool((labels[~create_nonzero_mask(images)] == description["labels"]["ignore"]).any())


def _read_cases(raw: Path, description: Mapping[str, Any]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images (C, Z, Y, X) and labels (Z, Y, X) of the cases as nnU-Net reads them, in wide steps."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    found = get_filenames_of_train_images_and_targets(str(raw), deepcopy(dict(description)))
    files = [found[case] for case in sorted(found)]
    reader = determine_reader_writer_from_dataset_json(dict(description), files[0]["images"][0], verbose=False)()
    step = max(len(files) // 3, 1)
    for entry in (files[number] for start in range(step) for number in range(start, len(files), step)):
        images, _ = reader.read_images(entry["images"])
        labels, _ = reader.read_seg(entry["label"])
        yield images.astype(np.float32), labels[0]
