"""Datasets as `attenscribble doctor` sees them: are they what the scribble trainers train on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any

from nnunet_attenscribble.cli.doctor.command import NOTE, PROBLEM, Finding
from nnunet_attenscribble.cli.doctor.plans import check_plans
from nnunet_attenscribble.common.nnunet import dataset_folder, entry_values, nnunet_folder, read_dataset_json
from nnunet_attenscribble.common.readers import Reader, find_reader, open_files
from nnunet_attenscribble.common.text import list_some, show_progress
from nnunet_attenscribble.common.volumes import count_values, describe, label_values, read_volume
from nnunet_attenscribble.errors import AttenScribbleError

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
    for folder in sorted(raw.glob("Dataset[0-9][0-9][0-9]_*")):
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
        told = f"{list_some(scribbles)} with scribbles"
        return [
            *findings,
            Finding("datasets", told, advice=f"attenscribble doctor {scribbles[0][7:10]} looks into one"),
        ]
    advice = "attenscribble convert --help for published data, attenscribble scribble ID to draw into dense labels"
    if dense:
        return [*findings, Finding("datasets", f"{list_some(dense)}: dense labels, no scribbles", NOTE, advice)]
    return findings or [Finding("datasets", "none in nnUNet_raw", NOTE, advice)]


def check_dataset(dataset: str) -> list[Finding]:
    """A dataset from its dataset.json to its plans."""
    try:
        folder = dataset_folder("nnUNet_raw", dataset)
    except AttenScribbleError as error:
        advice = "write it into nnUNet_raw: attenscribble convert --help, attenscribble scribble --help"
        return [Finding(f"dataset {dataset}", problem, PROBLEM, advice) for problem in error.problems]
    try:
        description = read_dataset_json(folder / "dataset.json")
    except AttenScribbleError as error:
        return [Finding(folder.name, problem, PROBLEM, "see docs/datasets.md") for problem in error.problems]
    if "numTraining" not in description:
        told = f"{folder / 'dataset.json'}: has no 'numTraining', which nnU-Net needs"
        return [Finding(folder.name, told, PROBLEM, "add the number of training cases")]
    findings = check_labels(folder.name, description)
    if any(finding.status == PROBLEM for finding in findings):
        return findings
    found = check_cases(folder, description)
    sound = all(finding.status != PROBLEM for finding in found)
    return [*findings, *found, *check_plans(folder, description, sound=sound)]


def check_labels(name: str, description: Mapping[str, Any]) -> list[Finding]:
    """Whether the labels are as nnU-Net wants them: consecutive, regions with their order, `ignore` alone and last."""
    labels = description["labels"]
    problems: list[Finding] = []
    if labels.get("background") not in (0, "0", 0.0):
        told = f"`background` is {labels['background']!r}" if "background" in labels else "has no label `background`"
        problems.append(Finding(name, told, PROBLEM, "background must be there, and 0"))
    values = sorted({value for key, entry in labels.items() if key != "ignore" for value in entry_values(entry)} | {0})
    if values[-1] != len(values) - 1:
        gap = next(number for number, value in enumerate(values) if number != value)
        advice = "number the labels 0, 1, 2, ... without a gap, in dataset.json and in labelsTr"
        problems.append(Finding(name, f"no label is {gap}, and {values[gap]} is the next", PROBLEM, advice))
    problems += _check_regions(name, labels, description.get("regions_class_order"))
    if "ignore" not in labels:
        advice = f"train it with nnUNetTrainer, or draw scribbles: attenscribble scribble {name} -o NEW_ID"
        return problems or [Finding(name, "has no label `ignore`: its labels are dense", NOTE, advice)]
    ignore = labels["ignore"]
    if not isinstance(ignore, int) or ignore != values[-1] + 1:
        advice = f"set it to {values[-1] + 1}, one more than the highest label, in dataset.json and in labelsTr"
        problems.append(Finding(name, f"`ignore` is {ignore!r}", PROBLEM, advice))
    told = f"scribbles of {list_some([key for key in labels if key != 'ignore'])}; {ignore} is `ignore`"
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


def check_cases(folder: Path, description: Mapping[str, Any]) -> list[Finding]:
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
        problems.append(
            Finding(folder.name, told, PROBLEM, "correct numTraining in dataset.json, or add what is missing")
        )
    if not cases:
        return problems or [Finding(folder.name, "has no case", PROBLEM, "add images and labels")]
    files = [Path(file) for entry in cases.values() for file in (*entry["images"], entry["label"])]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        told = f"{len(absent)} files are missing: {list_some(absent)}"
        return [*problems, Finding(folder.name, told, PROBLEM, "copy them, or take their cases out")]
    try:
        reader = find_reader(description, files[0])
    except AttenScribbleError as error:
        return [*problems, *(Finding(folder.name, problem, PROBLEM, _MEND_FILE) for problem in error.problems)]
    problems += _check_images(folder.name, cases, reader, len(description["channel_names"]))
    if "ignore" not in description["labels"]:
        return problems or [Finding(folder.name, f"{len(cases)} cases, every file is there")]
    labels = [entry["label"] for entry in cases.values()]
    return [*problems, *_check_scribbles(folder.name, description["labels"], labels, reader)]


def _check_images(name: str, cases: Mapping[str, Any], reader: Reader, channels: int) -> list[Finding]:
    """Whether every image is whole, as nnU-Net opens it, and each case has all channels; several are read at a time."""
    from concurrent.futures import ThreadPoolExecutor

    def look(case: str) -> list[str]:
        files = [Path(file) for file in cases[case]["images"]]
        try:
            sources = open_files(files, reader, channels=channels)
            for source in sources:
                read_volume(source, describe(source, f"an image of case {case}"), whole=False)
        except AttenScribbleError as error:
            return error.problems
        if len(sources) != channels:
            return [f"case {case} has {len(sources)} channels, dataset.json has {channels}"]
        return []

    with ThreadPoolExecutor() as pool:
        found = show_progress(pool.map(look, cases), total=len(cases), description="Reading images")
        problems = dict.fromkeys(problem for own in found for problem in own)
    return [Finding(name, problem, PROBLEM, _MEND_FILE) for problem in problems]


def _check_scribbles(name: str, labels: Mapping[str, Any], files: Sequence[str], reader: Reader) -> list[Finding]:
    counts, total, findings = _count_values(files, reader)
    if findings and not total:
        return findings  # what else would be found follows from it
    ignore = labels["ignore"]
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
                status = NOTE
                advice = "draw a stroke around the organs too"
            findings.append(Finding(name, f"no case has a stroke of {label}", status, advice))
    drawn = total - counts.get(ignore, 0)
    share = f"{100 * drawn / max(total, 1):.2g} % of the voxels are annotated"
    if not counts.get(ignore):
        advice = f"write {ignore} wherever nobody drew"
        findings.append(Finding(name, f"no voxel is `ignore` ({ignore}): the labels are dense", PROBLEM, advice))
    return findings or [Finding(name, f"every class has strokes, {share}")]


def _count_values(files: Sequence[str], reader: Reader) -> tuple[dict[int, int], int, list[Finding]]:
    """Voxels by value as nnU-Net reads them, all voxels, and what is wrong with files that hold no label."""
    counts: dict[int, int] = {}
    total, findings = 0, []
    for file in show_progress(files, total=len(files), description="Reading labels"):
        try:
            (label,) = open_files([Path(file)], reader, label=True)
            voxels = label_values(read_volume(label, file, label=True), file)
        except AttenScribbleError as error:
            name = Path(file).parents[1].name
            findings += [Finding(name, problem, PROBLEM, _MEND_FILE) for problem in error.problems]
            continue
        total += voxels.size
        for value, count in count_values(voxels).items():
            counts[value] = counts.get(value, 0) + count
    return counts, total, findings
