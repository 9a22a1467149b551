"""The plans of a dataset as `attenscribble doctor` sees them: made from the dataset of now, and by what was drawn?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_attenscribble.cli.doctor.command import NOTE, PROBLEM, Finding
from nnunet_attenscribble.cli.inspect import planning_commands
from nnunet_attenscribble.common.nnunet import nnunet_folder, read_dataset_json
from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.errors import AttenScribbleError


def check_plans(raw: Path, description: Mapping[str, Any], *, sound: bool = True) -> list[Finding]:
    """Whether nnU-Net planned it, and whether normalisation and settings of the method in the plans are right.

    Args:
        raw: folder of the dataset in nnUNet_raw.
        description: content of its dataset.json.
        sound: False where its files have problems, which are told already: no image is read then.
    """
    from nnunet_attenscribble.normalisation import MARK, read_fingerprint
    from nnunet_attenscribble.plans import list_plans, read_plans, resolve_configuration
    from nnunet_attenscribble.settings import AttenScribbleSettings

    name, number = raw.name, raw.name[7:10]
    try:
        folder = nnunet_folder("nnUNet_preprocessed") / name
    except AttenScribbleError:
        return []  # told already
    files, findings, fingerprint = list_plans(folder), [], None
    try:
        fingerprint = read_fingerprint(folder)
    except AttenScribbleError as error:
        advice = "nnU-Net's planning and training read it"
        findings = [Finding(name, problem, PROBLEM, advice) for problem in error.problems]
    fingerprinted = MARK in (fingerprint or {})
    scribbles = "ignore" in description["labels"]
    if not files:
        commands = planning_commands(raw, number)
        if not scribbles or fingerprinted:
            commands = commands[-1:]
        return [*findings, Finding(name, "is not planned yet", NOTE, " && ".join(commands))]
    findings += _check_copy(folder / "dataset.json", description)
    for file in files:
        try:
            plans = read_plans(file)
            resolved = {key: resolve_configuration(plans, key) for key in plans["configurations"]}
            for configuration in resolved.values():
                AttenScribbleSettings.from_configuration(configuration)
        except AttenScribbleError as error:
            advice = f"correct {file}, for settings see docs/settings.md, or plan again"
            findings += [
                Finding(name, f"{file.name}: {problem.removeprefix(f'{file}: ')}", PROBLEM, advice)
                for problem in error.problems
            ]
            continue
        done = [
            key for key in plans["configurations"]
            if (file.parent / resolved[key].get("data_identifier", "\0")).is_dir()
        ]  # fmt: skip
        if scribbles and sound:
            told = _check_normalisation(raw, description, plans, list(resolved.values()))
            again = f"plan and preprocess again (nnUNetv2_plan_and_preprocess -d {number})"
            advice = again if fingerprinted else f"attenscribble fingerprint {number}, then {again}"
            findings += [Finding(name, f"{file.stem}: {problem}", PROBLEM, advice) for problem in told]
        if done:
            findings.append(Finding(name, f"{file.stem}: {list_some(done)} preprocessed"))
        else:
            first = next(iter(plans["configurations"]), "2d")
            advice = f"nnUNetv2_preprocess -d {number} -plans_name {file.stem} -c {first}"
            findings.append(Finding(name, f"{file.stem}: nothing is preprocessed yet", NOTE, advice))
    return findings


def _check_copy(file: Path, description: Mapping[str, Any]) -> list[Finding]:
    """Whether the dataset.json that planning copied, by which nnU-Net trains, has the labels of now."""
    if not file.exists():
        return []  # training tells
    advice = f"plan again: nnUNetv2_plan_and_preprocess -d {file.parent.name[7:10]}"
    try:
        same = read_dataset_json(file)["labels"] == description["labels"]
    except AttenScribbleError as error:
        return [Finding(file.parent.name, problem, PROBLEM, advice) for problem in error.problems]
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
