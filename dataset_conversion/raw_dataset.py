"""The one writer of nnU-Net raw folders: a scribble dataset and, sharing its images, its densely labelled twin."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from nnunet_attenscribble.dataset_conversion.cases import (
    ENDING,
    IGNORE,
    Case,
    CheckedCase,
    Coding,
    check_case,
    write_case,
)
from nnunet_attenscribble.dataset_conversion.progress import show_progress
from nnunet_attenscribble.dataset_conversion.staging import finish_interrupted, staged_folders
from nnunet_attenscribble.dataset_conversion.workers import Map, default_workers, worker_map
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["Case", "WrittenDatasets", "write_raw_datasets"]


@dataclass(frozen=True)
class WrittenDatasets:
    """What `write_raw_datasets` wrote."""

    scribble: Path
    dense: Path | None
    training: int
    test: int
    scribble_voxels: dict[str, int]
    """Voxels of the training cases' scribbles by label, `ignore` included."""
    dense_voxels: dict[str, int]
    """Voxels of their dense labels by label; empty without a twin."""
    notes: tuple[str, ...] = ()
    """What its owner may want to know, one sentence each."""


def write_raw_datasets(
    cases: Sequence[Case],
    *,
    raw_folder: Path,
    dataset_id: int,
    name: str,
    channel_names: Mapping[int, str],
    labels: Mapping[str, int],
    provenance: Mapping[str, object],
    scribble_values: Mapping[int, int] | None = None,
    dense_values: Mapping[int, int] | None = None,
    dense_id: int | None = None,
    splits: Sequence[Mapping[str, Sequence[str]]] | None = None,
    preprocessed_folder: Path | None = None,
    results_folder: Path | None = None,
    problems: Iterable[str] = (),
    link_images: bool = False,
    workers: int | None = None,
    progress: bool = False,
) -> WrittenDatasets:
    """Check every input, then write `DatasetNNN_Name` and, with `dense_id`, `DatasetMMM_NameDense`.

    Nothing is written before every input is found in order, and the datasets appear complete or not at all. Images keep
    their voxels and geometry; labels become uint8 on the grid of their image. The same input gives the same bytes.

    Args:
        cases: in any order; written sorted.
        raw_folder: nnUNet_raw; made if it is not there.
        dataset_id: 1 to 999, in no use yet.
        name: letters, digits, `_` and `-`.
        channel_names: channel to name, which decides nnU-Net's normalisation (`CT` is special).
        labels: name to value, `background` 0 and then every integer. `ignore` is added to the scribble dataset here,
            as one more than the highest.
        provenance: what the JSON beside dataset.json tells: `source`, `options`, `license`, `reference`... No paths of
            this machine.
        scribble_values: value in the file to value here, where they differ; any value not listed is refused.
        dense_values: the same for the dense labels.
        dense_id: writes the dense twin.
        splits: folds of `train` and `val` identifiers, for both datasets.
        preprocessed_folder: nnUNet_preprocessed; the splits are put there too. nnU-Net's planning copies them from the
            raw folder if it is not given.
        results_folder: nnUNet_results; only looked at for IDs in use.
        problems: found by the caller already, reported with what is found here.
        link_images: link to image files that can be used as they are, where a copy is the rule.
        workers: processes; 1 for none beside this one, None for one per processor.
        progress: show it on stderr.

    Raises:
        AttenScribbleError: every problem of the input, one sentence each.
    """
    scribble_name = f"Dataset{dataset_id:03d}_{name}"
    dense_name = None if dense_id is None else f"Dataset{dense_id:03d}_{name}Dense"
    key = f"{dataset_id:03d}"
    cases = sorted(cases, key=lambda case: case.identifier)
    coding = Coding(labels, scribble_values, dense_values, with_dense=dense_id is not None)
    workers = min(default_workers() if workers is None else workers, max(len(cases), 1))

    if coding.problems():
        raise AttenScribbleError(coding.problems())  # no case could be checked
    found = list(problems)
    found += _name_problems(name, dataset_id, dense_id)
    found += _folder_problems(raw_folder, preprocessed_folder)
    if not found and raw_folder.is_dir():
        finish_interrupted(raw_folder, key)
    ids = {dataset_id} if dense_id is None else {dataset_id, dense_id}
    found += _taken_id_problems(ids, (raw_folder, preprocessed_folder, results_folder))
    found += _case_problems(cases, len(channel_names), dense_id is not None)
    found += _split_problems(splits or (), {case.identifier for case in cases if not case.test})

    with worker_map(workers) as run:
        checked = list(_each(run, partial(check_case, coding=coding), cases, "Checking", progress))
        found += [problem for result in checked for problem in result.problems]
        if found:
            raise AttenScribbleError(dict.fromkeys(found))  # each once
        names = [scribble_name] if dense_name is None else [scribble_name, dense_name]
        try:
            with staged_folders(raw_folder, names, key) as hidden:
                scribble = hidden / scribble_name
                dense = None if dense_name is None else hidden / dense_name
                _make_folders(cases, scribble, dense)
                images_at = raw_folder.resolve() / scribble_name if link_images else None
                write = partial(write_case, coding=coding, scribble=scribble, dense=dense, images_at=images_at)
                for _ in _each(run, write, cases, "Writing", progress):
                    pass
                _write_descriptions(scribble, dense, cases, checked, channel_names, labels, provenance, splits)
        except OSError as error:
            raise AttenScribbleError(
                f"the dataset could not be written, and nothing of it was kept: {error}"
            ) from error
    if splits is not None and preprocessed_folder is not None:
        try:
            for folder in names:
                _write_json(preprocessed_folder / folder / "splits_final.json", splits)
        except OSError as error:
            raise AttenScribbleError(
                f"the datasets in {raw_folder} are complete, but their splits could not be put into "
                f"{preprocessed_folder} ({error}): mend that; nnU-Net's planning copies them there too"
            ) from error

    return WrittenDatasets(
        scribble=raw_folder / scribble_name,
        dense=None if dense_name is None else raw_folder / dense_name,
        training=sum(not case.test for case in cases),
        test=sum(case.test for case in cases),
        scribble_voxels=_total([*labels, IGNORE], [result.scribble_voxels for result in checked]),
        dense_voxels=_total(labels, [result.dense_voxels for result in checked]) if dense_name else {},
    )


def _make_folders(cases: Sequence[Case], scribble: Path, dense: Path | None) -> None:
    folders = [scribble / "imagesTr", scribble / "labelsTr"]
    if any(case.test for case in cases):
        folders.append(scribble / "imagesTs")
    if any(case.test and case.dense is not None for case in cases):
        folders.append(scribble / "labelsTs")
    if dense is not None:
        folders.append(dense / "labelsTr")
    for folder in folders:
        folder.mkdir()


def _write_descriptions(
    scribble: Path,
    dense: Path | None,
    cases: Sequence[Case],
    checked: Sequence[CheckedCase],
    channel_names: Mapping[int, str],
    labels: Mapping[str, int],
    provenance: Mapping[str, object],
    splits: Sequence[Mapping[str, Sequence[str]]] | None,
) -> None:
    """dataset.json, provenance.json and splits_final.json of both datasets."""
    from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json

    training = [case for case in cases if not case.test]
    converter = f"nnunet-attenscribble {version('nnunet-attenscribble')}"
    describe_dataset = partial(
        generate_dataset_json,
        num_training_cases=len(training),
        file_ending=ENDING,
        reference=provenance.get("reference"),
        license=provenance.get("license", "see the source"),
        converted_by=converter,
        overwrite_image_reader_writer="SimpleITKIO",  # whose view of every header was checked
    )
    # nnU-Net's function changes the dictionaries that it is given
    describe_dataset(str(scribble), dict(channel_names), {**labels, IGNORE: max(labels.values()) + 1})
    folders = [scribble]
    if dense is not None:
        images = f"../{scribble.name}/imagesTr"
        shared = {
            case.identifier: {
                "images": [f"{images}/{case.identifier}_{channel:04d}{ENDING}" for channel in range(len(case.images))],
                "label": f"labelsTr/{case.identifier}{ENDING}",
            }
            for case in training
        }
        describe_dataset(str(dense), dict(channel_names), dict(labels), dataset=shared)
        folders.append(dense)
    origin = {
        **provenance,
        "converted_by": converter,
        "libraries": {library: version(library) for library in ("nnunetv2", "SimpleITK")},
        "counts": {"training": len(training), "test": len(cases) - len(training)},
        "inputs": {case.identifier: result.inputs for case, result in zip(cases, checked, strict=True)},
    }
    for folder in folders:
        _write_json(folder / "provenance.json", origin)
        if splits is not None:
            _write_json(folder / "splits_final.json", splits)


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def _name_problems(name: str, dataset_id: int, dense_id: int | None) -> list[str]:
    problems = [
        f"dataset ID {number}: nnU-Net knows 1 to 999"
        for number in (dataset_id, dense_id)
        if number is not None and not 1 <= number <= 999
    ]
    if dense_id == dataset_id:
        problems.append(f"dataset ID {dense_id}: the dense twin needs an ID of its own, not that of the scribbles")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        problems.append(f"dataset name {name!r}: use letters, digits, _ and - only")
    return problems


def _folder_problems(raw_folder: Path, preprocessed_folder: Path | None) -> list[str]:
    problems = []
    for folder in (raw_folder, preprocessed_folder):
        if folder is None:
            continue
        existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        if not existing.is_dir():
            problems.append(f"{existing}: is not a folder: nothing can be written to {folder}")
        elif not os.access(existing, os.W_OK | os.X_OK):
            problems.append(f"{existing}: is read-only: choose a folder you may write to")
    return problems


def _taken_id_problems(ids: set[int], folders: Iterable[Path | None]) -> list[str]:
    """nnU-Net refuses two datasets with one ID, wherever the second of them is."""
    prefixes = tuple(f"Dataset{number:03d}_" for number in sorted(ids))
    return [
        f"{entry}: has the dataset ID {entry.name[7:10]} already: delete it, or choose another ID"
        for folder in folders
        if folder is not None and folder.is_dir()
        for entry in sorted(folder.iterdir())
        if entry.name.startswith(prefixes)
    ]


def _case_problems(cases: Sequence[Case], channels: int, with_dense: bool) -> list[str]:
    if not any(not case.test for case in cases):
        return ["no training case was found"] if not cases else ["every case is a test case: none is left for training"]
    problems = [
        f"case {identifier}: comes {count} times: names must be unique"
        for identifier, count in Counter(case.identifier for case in cases).items()
        if count > 1
    ]
    for case in cases:
        if not case.identifier or re.search(r"[/\\\0]", case.identifier) or case.identifier.startswith("."):
            problems.append(f"case {case.identifier!r}: cannot be part of a file name")
        if len(case.images) != channels:
            problems.append(f"case {case.identifier}: has {len(case.images)} image channels instead of {channels}")
        if not case.test and case.scribble is None:
            problems.append(f"case {case.identifier}: has no scribble: add it, or make it a test case")
        if not case.test and with_dense and case.dense is None:
            problems.append(f"case {case.identifier}: has no dense label: add it, or leave out the dense twin")
    return problems


def _split_problems(splits: Sequence[Mapping[str, Sequence[str]]], training: set[str]) -> list[str]:
    problems = []
    for fold, split in enumerate(splits):
        train, val = set(split["train"]), set(split["val"])
        problems += [f"fold {fold}: {side} holds no case" for side, ids in (("train", train), ("val", val)) if not ids]
        problems += [f"fold {fold}: {one} is in both train and val" for one in sorted(train & val)]
        problems += [f"fold {fold}: {one} is not a training case" for one in sorted((train | val) - training)]
    return problems


def _each(run: Map, function, cases: Sequence[Case], description: str, progress: bool):
    return show_progress(run(function, cases), total=len(cases), description=description, enabled=progress)


def _total(names: Iterable[str], counts: Iterable[list[int]]) -> dict[str, int]:
    names = list(names)
    totals = np.zeros(len(names), dtype=np.int64)
    for count in counts:
        if count:
            totals += np.array(count[: len(names)], dtype=np.int64)
    return dict(zip(names, totals.tolist(), strict=True))
