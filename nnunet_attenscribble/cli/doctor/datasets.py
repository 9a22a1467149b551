"""Datasets as `attenscribble doctor` sees them: are they what the scribble trainers train on?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from nnunet_attenscribble.cli.doctor.command import NOTE, PROBLEM, Finding
from nnunet_attenscribble.cli.inspect import planning_commands
from nnunet_attenscribble.common.nnunet import dataset_folder, nnunet_folder
from nnunet_attenscribble.errors import AttenScribbleError

_NEEDED = ("labels", "channel_names", "file_ending", "numTraining")
_SHOWN = 6  # names in one line


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
    for folder in sorted(raw.glob("Dataset[0-9][0-9][0-9]_*")):
        try:
            sparse = "ignore" in json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["labels"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        (scribbles if sparse else dense).append(folder.name)
    if scribbles:
        told = f"{_list(scribbles)} with scribbles"
        return [Finding("datasets", told, advice=f"attenscribble doctor {scribbles[0][7:10]} looks into one")]
    advice = "attenscribble convert --help for published data, attenscribble scribble ID to draw into dense labels"
    if dense:
        return [Finding("datasets", f"{_list(dense)}: dense labels, no scribbles", NOTE, advice)]
    return [Finding("datasets", "none in nnUNet_raw", NOTE, advice)]


def check_dataset(dataset: str) -> list[Finding]:
    """A dataset from its dataset.json to its plans."""
    from nnunet_attenscribble.dataset_conversion.description import read_description

    try:
        folder = dataset_folder("nnUNet_raw", dataset)
    except AttenScribbleError as error:
        advice = "write it into nnUNet_raw: attenscribble convert --help, attenscribble scribble --help"
        return [Finding(f"dataset {dataset}", problem, PROBLEM, advice) for problem in error.problems]
    try:
        description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        absent = [key for key in _NEEDED if key not in description]
    except OSError as error:
        told = f"dataset.json cannot be read ({error.strerror})"
        return [Finding(folder.name, told, PROBLEM, "write one: see docs/datasets.md")]
    except (ValueError, TypeError) as error:
        return [Finding(folder.name, f"dataset.json is no JSON ({error})", PROBLEM, "write it again")]
    if absent:
        told = f"dataset.json has no {', '.join(absent)}"
        return [Finding(folder.name, told, PROBLEM, "add what nnU-Net needs: see docs/datasets.md")]
    try:
        read_description(folder)
    except AttenScribbleError as error:
        return [Finding(folder.name, problem, PROBLEM, "see docs/datasets.md") for problem in error.problems]
    findings = check_labels(folder.name, description["labels"])
    if any(finding.status == PROBLEM for finding in findings):
        return findings
    return [*findings, *check_cases(folder, description), *check_plans(folder, description)]


def check_labels(name: str, labels: Mapping[str, Any]) -> list[Finding]:
    """Whether `ignore` is there, and where nnU-Net wants it: the highest integer, alone."""
    values = [value for key, entry in labels.items() if key != "ignore" for value in _as_list(entry)]
    if "ignore" not in labels:
        advice = f"train it with nnUNetTrainer, or draw scribbles: attenscribble scribble {name} -o NEW_ID"
        return [Finding(name, "has no label `ignore`: its labels are dense", NOTE, advice)]
    ignore = labels["ignore"]
    if not isinstance(ignore, int) or ignore != max(values, default=0) + 1:
        advice = (
            f"set it to {max(values, default=0) + 1}, one more than the highest label, in dataset.json and in labelsTr"
        )
        return [Finding(name, f"`ignore` is {ignore!r}", PROBLEM, advice)]
    return [Finding(name, f"scribbles of {_list([key for key in labels if key != 'ignore'])}; {ignore} is `ignore`")]


def check_cases(folder: Path, description: Mapping[str, Any]) -> list[Finding]:
    """Whether every label has its images, and what the labels hold. Reads all labels, and no image."""
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    try:
        with redirect_stdout(StringIO()):
            cases = get_filenames_of_train_images_and_targets(str(folder), dict(description))
    except Exception as error:
        advice = "give every label in labelsTr its images CASE_0000, CASE_0001, ... in imagesTr"
        return [Finding(folder.name, f"nnU-Net cannot list its cases ({error})", PROBLEM, advice)]
    problems = []
    if len(cases) != description["numTraining"]:
        told = f"numTraining is {description['numTraining']}, there are {len(cases)} cases"
        problems.append(
            Finding(folder.name, told, PROBLEM, "correct numTraining in dataset.json, or add what is missing")
        )
    files = [Path(file) for entry in cases.values() for file in (*entry["images"], entry["label"])]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        told = f"{len(absent)} files are missing: {_list(absent)}"
        return [*problems, Finding(folder.name, told, PROBLEM, "copy them, or take their cases out")]
    if "ignore" not in description["labels"]:
        return problems or [Finding(folder.name, f"{len(cases)} cases, every file is there")]
    return [
        *problems,
        *_check_scribbles(folder.name, description, cases),
    ]


def _check_scribbles(name: str, description: Mapping[str, Any], cases: Mapping[str, Any]) -> list[Finding]:
    labels = description["labels"]
    counts, total, findings = _count_values(cases, description)
    if findings and not total:
        return findings  # what else would be found follows from it
    ignore = labels["ignore"]
    known = {value for entry in labels.values() for value in _as_list(entry)}
    strange = sorted(set(counts) - known)
    if strange:
        advice = "correct the labels, or name these values in dataset.json"
        findings.append(Finding(name, f"labels hold {_list(map(str, strange))}, not in dataset.json", PROBLEM, advice))
    for label, entry in labels.items():
        if label != "ignore" and not any(counts.get(value) for value in _as_list(entry)):
            status, advice = PROBLEM, f"draw strokes of {label}: nothing else teaches it"
            if _as_list(entry) == [0]:
                status = NOTE
                advice = "draw a stroke around the organs too"
            findings.append(Finding(name, f"no case has a stroke of {label}", status, advice))
    drawn = total - counts.get(ignore, 0)
    share = f"{100 * drawn / max(total, 1):.2g} % of the voxels are annotated"
    if not counts.get(ignore):
        advice = f"write {ignore} wherever nobody drew"
        findings.append(Finding(name, f"no voxel is `ignore` ({ignore}): the labels are dense", PROBLEM, advice))
    return findings or [Finding(name, f"every class has strokes, {share}")]


def _count_values(
    cases: Mapping[str, Any], description: Mapping[str, Any]
) -> tuple[dict[int, int], int, list[Finding]]:
    """Voxels by value as nnU-Net reads them, all voxels, and what is wrong with files that hold no label."""
    import numpy as np

    from nnunet_attenscribble.common.progress import show_progress
    from nnunet_attenscribble.common.readers import find_reader, open_files
    from nnunet_attenscribble.common.volumes import label_values, read_volume

    files = [entry["label"] for entry in cases.values()]
    reader = find_reader(description, Path(next(iter(cases.values()))["images"][0]))
    counts: dict[int, int] = {}
    total, findings = 0, []
    for file in show_progress(files, total=len(files), description="Reading labels"):
        try:
            (label,) = open_files([Path(file)], reader, label=True)
            voxels = label_values(read_volume(label, file, label=True), file)
        except AttenScribbleError as error:
            name, advice = Path(file).parents[1].name, "put it right, or take its case out: see docs/datasets.md"
            findings += [Finding(name, problem, PROBLEM, advice) for problem in error.problems]
            continue
        total += voxels.size
        for value, count in zip(*np.unique(voxels, return_counts=True), strict=True):
            counts[int(value)] = counts.get(int(value), 0) + int(count)
    return counts, total, findings


def check_plans(raw: Path, description: Mapping[str, Any]) -> list[Finding]:
    """Whether nnU-Net planned it, and whether normalisation and settings of the method in the plans are right."""
    from nnunet_attenscribble.normalisation import MARK, read_fingerprint
    from nnunet_attenscribble.plans import read_plans, resolve_configuration
    from nnunet_attenscribble.settings import AttenScribbleSettings

    name, number = raw.name, raw.name[7:10]
    try:
        folder = nnunet_folder("nnUNet_preprocessed") / name
    except AttenScribbleError:
        return []  # told already
    files, fingerprint = sorted(folder.glob("*Plans.json")), read_fingerprint(folder)
    scribbles = "ignore" in description["labels"]
    if not files:
        commands = planning_commands(raw, number)
        if not scribbles or MARK in (fingerprint or {}):
            commands = commands[-1:]
        return [Finding(name, "is not planned yet", NOTE, " && ".join(commands))]
    findings = []
    for file in files:
        try:
            plans = read_plans(file)
            resolved = {key: resolve_configuration(plans, key) for key in plans["configurations"]}
            for configuration in resolved.values():
                AttenScribbleSettings.from_configuration(configuration)
        except AttenScribbleError as error:
            advice = f"correct the key `attenscribble` in {file}: see docs/settings.md"
            findings += [Finding(name, f"{file.name}: {problem}", PROBLEM, advice) for problem in error.problems]
            continue
        done = [
            key for key in plans["configurations"]
            if (file.parent / resolved[key].get("data_identifier", "\0")).is_dir()
        ]  # fmt: skip
        if scribbles:
            findings += _check_normalisation(raw, description, plans, list(resolved.values()), fingerprint)
        if done:
            findings.append(Finding(name, f"{file.stem}: {_list(done)} preprocessed"))
        else:
            first = next(iter(plans["configurations"]), "2d")
            advice = f"nnUNetv2_preprocess -d {number} -plans_name {file.stem} -c {first}"
            findings.append(Finding(name, f"{file.stem}: nothing is preprocessed yet", NOTE, advice))
    return findings


def _check_normalisation(
    raw: Path,
    description: Mapping[str, Any],
    plans: Mapping[str, Any],
    configurations: list[dict[str, Any]],
    fingerprint: dict[str, Any] | None,
) -> list[Finding]:
    from nnunet_attenscribble.normalisation import normalisation_problems

    masked = any(any(entry.get("use_mask_for_norm", ())) for entry in configurations)
    unlabelled_zeros = masked and _has_unlabelled_zeros(raw, description)
    told = dict.fromkeys(
        problem
        for entry in configurations
        for problem in normalisation_problems(plans, entry, fingerprint, unlabelled_zeros)
    )
    advice = f"attenscribble fingerprint {raw.name[7:10]}, then plan and preprocess again"
    return [Finding(raw.name, f"{plans['plans_name']}: {problem}", PROBLEM, advice) for problem in told]


def _has_unlabelled_zeros(raw: Path, description: Mapping[str, Any]) -> bool:
    """Whether the first case is unlabelled where all of its images are zero around the object."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
    from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    files = next(iter(get_filenames_of_train_images_and_targets(str(raw), dict(description)).values()))
    reader = determine_reader_writer_from_dataset_json(description, files["images"][0], verbose=False)()
    images, _ = reader.read_images(files["images"])
    labels, _ = reader.read_seg(files["label"])
    return bool((labels[0][~create_nonzero_mask(images)] == description["labels"]["ignore"]).any())


def _as_list(entry: Any) -> list[int]:
    return [int(value) for value in (entry if isinstance(entry, list) else [entry])]  # as nnU-Net takes them


def _list(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
