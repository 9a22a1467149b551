"""A benchmark's datasets: whether they are what the file calls them, the cases that it predicts in the end, and
what keeps these apart from those it trains with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

from nnunet_attenscribble.common.files import link_file
from nnunet_attenscribble.common.formats import find_sidecar
from nnunet_attenscribble.common.nnunet import read_splits_json
from nnunet_attenscribble.common.text import counted, find_subject, list_some
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.evaluation.benchmark.file import SAME_DATASET, Benchmark
from nnunet_attenscribble.evaluation.benchmark.workspace import CHANNEL, Workspace
from nnunet_attenscribble.evaluation.scoring import list_labels
from nnunet_attenscribble.evaluation.structures import LabelCoding, read_label_coding


@dataclass(frozen=True)
class BenchmarkTestSet:
    """The test set of one fold.

    Attributes:
        images: folder for nnUNetv2_predict.
        labels: folder of dense labels.
        cases: identifiers.
        image_links: what `images` will hold, name to file; empty if the folder is the user's own.
        label_links: what `labels` will hold.
    """

    images: Path
    labels: Path
    cases: tuple[str, ...]
    image_links: Mapping[str, Path]
    label_links: Mapping[str, Path]


def find_test_sets(benchmark: Benchmark, workspace: Workspace, problems: list[str]) -> dict[str, BenchmarkTestSet]:
    """The test set of every fold that has one, as `find_test_set`; problems are added to the list.

    Validation sets that share some of their cases are a problem too: a table needs as many scores of every case.
    """
    tests = {}
    for fold in benchmark.folds:
        try:
            tests[fold] = find_test_set(benchmark, workspace, fold)
        except AttenScribbleError as error:
            problems += error.problems
    cases = {fold: set(test.cases) for fold, test in tests.items()}
    shared = [(one, other) for one, other in combinations(cases, 2) if cases[one] & cases[other]]
    if shared and any(own != cases[shared[0][0]] for own in cases.values()):
        one, other = shared[0]
        problems.append(
            f"folds {one} and {other} validate on the same cases ({list_some(sorted(cases[one] & cases[other]))}), but "
            "not all folds do, and a table needs as many scores of every case: choose other folds, or mend "
            "splits_final.json"
        )
    return tests


def find_test_set(benchmark: Benchmark, workspace: Workspace, fold: str) -> BenchmarkTestSet:
    """The test set of a fold. Names of files are read, none of them is opened.

    Raises:
        AttenScribbleError: files are missing, or a row trains with a test case, or with another one of its subject
            where the benchmark tells subjects; all problems at once.
    """
    datasets = tuple(map(workspace.find_dataset, benchmark.datasets.values()))
    if benchmark.test_images is None:
        return _find_validation_patients(benchmark, workspace, datasets, fold)
    images, labels = name_test_folders(benchmark, workspace, fold)
    cases = _list_images(images)
    problems = [
        f"no test {kind}: {folder} is not a folder"
        for kind, folder in (("images", images), ("labels", labels))
        if not folder.is_dir()
    ]
    if not problems and not cases:
        problems.append(f"no test images: {images} has no file that ends like CASE_0000.nii.gz")
    if not problems:
        names, given = set(list_labels(labels)), set(cases)
        for lacking, what in (
            (given - names, "no dense label"),
            (names - given, "a dense label and no image"),
        ):
            if lacking:
                problems.append(
                    f"{counted(len(lacking), 'test case', 'has')} {what} ({list_some(sorted(lacking))}): make {labels} "
                    f"and {images} match"
                )
    problems += _list_training_cases_among(cases, workspace, datasets, fold, benchmark.subject)
    refuse(problems)
    return BenchmarkTestSet(images, labels, tuple(cases), {}, {})


def name_test_folders(benchmark: Benchmark, workspace: Workspace, fold: str) -> tuple[Path, Path]:
    """Folders of test images and of their dense labels, whether they are there or not.

    Raises:
        AttenScribbleError: they are named by a variable that is not set.
    """
    if benchmark.test_images is None:
        folder = workspace.work / "test" / f"fold_{fold}"
        return folder / "images", folder / "labels"
    images, labels = (workspace.expand(path or "") for path in (benchmark.test_images, benchmark.test_labels))
    return Path(images).absolute(), Path(labels).absolute()


def _find_validation_patients(
    benchmark: Benchmark, workspace: Workspace, datasets: Sequence[str], fold: str
) -> BenchmarkTestSet:
    scribble, *_, dense = datasets
    splits = {name: read_fold(workspace, name, fold) for name in datasets}
    validation = splits[scribble]["val"]
    problems = [
        f"{name} validates fold {fold} on other patients than {scribble}, and these are the test set: give both the "
        "same splits_final.json"
        for name, split in splits.items()
        if set(split["val"]) != set(validation)
    ]
    for name, split in splits.items():
        seen = sorted(set(split["train"]) & set(validation))
        if seen:
            problems.append(f"fold {fold} of {name} trains with test cases ({list_some(seen)}): mend splits_final.json")
        shared = _list_shared_subjects(split["train"], validation, benchmark.subject, problems)
        if shared:
            problems.append(
                f"fold {fold} of {name} trains with other cases of test patients ({list_some(shared)}, by 'subject' "
                f"{benchmark.subject!r}): split by patient in splits_final.json, as the converters do (`--subject`)"
            )
    images = _find_files(workspace.raw / scribble, validation, "images", problems)
    labels = _find_files(workspace.raw / dense, validation, "label", problems)
    refuse(problems)
    return BenchmarkTestSet(
        *name_test_folders(benchmark, workspace, fold),
        tuple(validation),
        {f"{case}{_ending(file, channel)}": file for case in validation for channel, file in enumerate(images[case])}
        | _find_sidecars(images),
        {f"{case}{_suffix(labels[case][0], case)}": labels[case][0] for case in validation} | _find_sidecars(labels),
    )


def _find_sidecars(files: Mapping[str, Sequence[Path]]) -> dict[str, Path]:
    """The files that hold the spacing of TIFFs, by the name under which nnU-Net looks for them."""
    found = {case: find_sidecar(own[0]) for case, own in files.items()}
    return {f"{case}.json": file for case, file in found.items() if file is not None}


def read_fold(workspace: Workspace, dataset: str, fold: str) -> dict[str, list[str]]:
    """The cases of a fold, `train` and `val`: of splits_final.json, or as nnU-Net will draw them where there is no such
    file yet.

    Raises:
        AttenScribbleError: there is no such fold.
    """
    file = workspace.preprocessed / dataset / "splits_final.json"
    if not file.is_file():
        return _draw_fold(workspace, dataset, fold)
    splits = read_splits_json(file)
    if int(fold) >= len(splits):
        raise AttenScribbleError(f"{file} has the folds 0 to {len(splits) - 1} and no fold {fold}: choose other folds")
    return {side: list(splits[int(fold)][side]) for side in ("train", "val")}


def _draw_fold(workspace: Workspace, dataset: str, fold: str) -> dict[str, list[str]]:
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    cases = sorted(list_training_cases(workspace.raw / dataset))
    if len(cases) < 5 or int(fold) > 4:
        raise AttenScribbleError(
            f"{workspace.preprocessed / dataset} has no splits_final.json, and nnU-Net draws five folds from five "
            f"cases or more: there is no fold {fold} of {counted(len(cases), 'case')}; write the file, or choose other "
            "folds"
        )
    return {side: [str(case) for case in split] for side, split in generate_crossval_split(cases)[int(fold)].items()}


def list_training_cases(folder: Path) -> dict[str, dict]:
    """nnU-Net's own list of the training cases of a raw dataset: from dataset.json, or by name."""
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    file = folder / "dataset.json"
    if not file.is_file():
        raise AttenScribbleError(f"{file} is not there: convert the dataset, or name another nnUNet_raw")
    return get_filenames_of_train_images_and_targets(str(folder))


def _find_files(folder: Path, cases: Sequence[str], kind: str, problems: list[str]) -> dict[str, list[Path]]:
    found = list_training_cases(folder)
    files: dict[str, list[Path]] = {}
    for case in cases:
        entry = found.get(case, {}).get(kind, [])
        files[case] = [Path(file) for file in (entry if isinstance(entry, list) else [entry])]
        lacking = [str(file) for file in files[case] if not file.is_file()]
        if not files[case] or lacking:
            where = ", ".join(lacking) or str(folder)
            problems.append(f"the {kind} of the test case {case} is not there: {where}")
    return files


def _list_training_cases_among(
    cases: Sequence[str], workspace: Workspace, datasets: Sequence[str], fold: str, subject: str | None
) -> list[str]:
    problems: list[str] = []
    for dataset in dict.fromkeys(datasets):
        if fold == "all":  # nnU-Net trains with all of them
            known = set(list_training_cases(workspace.raw / dataset))
        else:
            known = set().union(*read_fold(workspace, dataset, fold).values())
        seen = sorted(known & set(cases))
        if seen:
            problems.append(
                f"fold {fold} of {dataset} trains or validates with {counted(len(seen), 'test case')} "
                f"({list_some(seen)}): take them out of one of the two"
            )
        shared = _list_shared_subjects(known, cases, subject, problems)
        if shared:
            problems.append(
                f"fold {fold} of {dataset} trains or validates with other cases of test patients ({list_some(shared)}, "
                f"by 'subject' {subject!r}): take these patients out of one of the two"
            )
    return problems


def _list_shared_subjects(
    trained: Collection[str], tested: Collection[str], subject: str | None, problems: list[str]
) -> list[str]:
    """The subjects of test cases of whom other cases are trained with, told apart as in the comparison; `problems` gets
    the cases that have none.
    """
    if subject is None:
        return []
    pattern = re.compile(subject)
    subjects = {case: find_subject(pattern, case) for case in {*trained, *tested}}
    unknown = sorted(case for case, own in subjects.items() if not own)
    if unknown:
        problems.append(f"'subject' {subject!r} finds no subject in the cases {list_some(unknown)}: mend the pattern")
    others = {subjects[case] for case in set(trained) - set(tested)}
    return sorted(others & {subjects[case] for case in tested} - {""})


def _list_images(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    names = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    return [match[1] for match in map(CHANNEL.match, names) if match is not None and match[2] == "0000"]


def _suffix(file: Path, case: str) -> str:
    return file.name[len(case) :] if file.name.startswith(case) else "".join(file.suffixes)


def _ending(file: Path, channel: int) -> str:
    match = CHANNEL.match(file.name)
    return f"_{channel:04d}{match[3] if match else ''.join(file.suffixes)}"


def link_files(folder: Path, links: Mapping[str, Path]) -> None:
    """Make the folder of images, or of labels, hold these links alone; several processes may do so at a time."""
    if not links:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if file.name not in links:
            file.unlink(missing_ok=True)
    # Made beside the folder, never in it: a process that is killed must not leave there what would count as an image.
    with TemporaryDirectory(prefix=".links.", dir=folder.parent) as beside:
        for name, target in links.items():
            link, part = folder / name, Path(beside) / name
            if not link.is_symlink() or os.readlink(link) != str(target):
                link_file(part, target)
                part.replace(link)


def list_twin_problems(workspace: Workspace, datasets: Sequence[str], *, ahead: bool = False) -> list[str]:
    """What the dataset.json that nnU-Net trains by say against scribbles and dense labels of the same cases.

    Args:
        workspace: with the datasets planned.
        datasets: `DatasetNNN_Name` of all scribbles, that of the dense labels last.
        ahead: the datasets need not be planned yet, or be there at all: the raw one counts, or none.
    """
    twice = [name for name in dict.fromkeys(datasets) if datasets.count(name) > 1]
    if twice:
        return [SAME_DATASET.format(name) for name in twice]
    *drawn, dense = datasets
    problems = [problem for scribble in drawn for problem in _list_pair_problems(workspace, scribble, dense, ahead)]
    return list(dict.fromkeys(problems))


def _list_pair_problems(workspace: Workspace, scribble: str, dense: str, ahead: bool) -> list[str]:
    files = {name: workspace.preprocessed / name / "dataset.json" for name in (scribble, dense)}
    if ahead:
        raw = {name: workspace.raw / name / "dataset.json" for name in files}
        files = {name: file if file.is_file() else raw[name] for name, file in files.items()}
        files = {name: file for name, file in files.items() if file.is_file()}
    problems: list[str] = []
    codings: dict[str, LabelCoding] = {}
    for name, file in files.items():
        try:
            codings[name] = read_label_coding(file)
        except AttenScribbleError as error:
            problems += error.problems
    if problems:
        return problems
    if scribble in codings and codings[scribble].ignore is None:
        problems.append(
            f"{files[scribble]} has no label 'ignore', so its labels are no scribbles: name the dataset of the "
            "scribbles as 'datasets.scribble'"
        )
    if dense in codings and codings[dense].ignore is not None:
        problems.append(
            f"{files[dense]} has the label 'ignore', so its labels are not dense: name the dataset of the dense "
            "labels as 'datasets.dense'"
        )
    if len(codings) < 2:
        return problems
    told = [_describe_structures(codings[name]) for name in (dense, scribble)]
    if told[0] != told[1]:
        problems.append(
            f"{files[dense]} names the structures {told[0]}, {files[scribble]} {told[1]}: give both the same names and "
            "values, or other datasets"
        )
    return problems


def _describe_structures(coding: LabelCoding) -> str:
    """`RV 1, LV 3`; a region's values are joined by `+`. The file's order decides nothing."""
    ordered = sorted(coding.structures, key=lambda structure: (structure.values, structure.name))
    return ", ".join(f"{structure.name} {'+'.join(map(str, structure.values))}" for structure in ordered)
