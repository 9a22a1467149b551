"""The one writer of nnU-Net raw folders: a scribble dataset and, sharing its images, its densely labelled twin."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from nnunet_attenscribble.common.progress import show_progress
from nnunet_attenscribble.common.readers import Reader
from nnunet_attenscribble.common.staging import finish_interrupted, remove_leftovers, staged_folders
from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.common.writing import encode_json, write_json, write_texts
from nnunet_attenscribble.dataset_conversion.cases import (
    ENDING,
    IGNORE,
    Case,
    CheckedCase,
    Coding,
    check_case,
)
from nnunet_attenscribble.dataset_conversion.plan_problems import (
    case_problems,
    dimension_problems,
    folder_problems,
    name_problems,
    split_problems,
    taken_id_problems,
)
from nnunet_attenscribble.dataset_conversion.resuming import fingerprint, write_or_resume
from nnunet_attenscribble.dataset_conversion.workers import Map, default_workers, worker_map
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["Case", "WrittenDatasets", "write_raw_datasets"]


@dataclass(frozen=True)
class WrittenDatasets:
    """What `write_raw_datasets` wrote."""

    scribble: Path | None
    """None where only dense labels were written."""
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
    dense_only: bool = False,
    trust_scribbles: bool = False,
    splits: Sequence[Mapping[str, Sequence[str]]] | None = None,
    preprocessed_folder: Path | None = None,
    results_folder: Path | None = None,
    problems: Iterable[str] = (),
    link: bool = False,
    reader: Reader = None,
    workers: int | None = None,
    progress: bool = False,
) -> WrittenDatasets:
    """Check every input, then write `DatasetNNN_Name` and, with `dense_id`, its twin `DatasetMMM_NameDense`.

    Nothing is written before every input is found in order, and the datasets appear complete or not at all. Images keep
    their voxels and geometry; labels become uint8 on the grid of their image. The same input gives the same bytes.
    After a kill, the same call takes over the cases that had been written whole.

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
        dense_id: writes the dense twin; refused with `dense_only`.
        dense_only: writes dense labels into `DatasetNNN_Name`, which has no `ignore` then; scribbles are not used.
        trust_scribbles: do not ask whether scribbles cover more than strokes can. provenance.json tells it.
        splits: folds of `train` and `val` identifiers, for both datasets.
        preprocessed_folder: nnUNet_preprocessed; the splits are put there too. nnU-Net's planning copies them from the
            raw folder if it is not given.
        results_folder: nnUNet_results; only looked at for IDs in use.
        problems: found by the caller already, reported with what is found here.
        link: relative links to files that can be used as they are, where copies are the rule.
        reader: of nnU-Net, that the dataset names; of files that are `DatasetFile` of it the NIfTI stay as they are.
        workers: processes; 1 for none beside this one, None for one per processor.
        progress: show it on stderr.

    Raises:
        AttenScribbleError: every problem of the input, one sentence each.
    """
    home = f"Dataset{dataset_id:03d}_{name}"  # of the images
    names = [home] if dense_id is None else [home, f"Dataset{dense_id:03d}_{name}Dense"]
    with_dense = dense_only or dense_id is not None
    key = f"{dataset_id:03d}"
    cases = sorted(cases, key=lambda case: case.identifier)
    if dense_only:
        cases = [replace(case, scribble=None) for case in cases]
    coding = Coding(labels, scribble_values, dense_values, with_dense, trust_scribbles)
    workers = min(default_workers() if workers is None else workers, max(len(cases), 1))

    if coding.problems():
        raise AttenScribbleError(coding.problems())  # no case could be checked
    found = list(problems)
    found += name_problems(name, dataset_id, dense_id, dense_only)
    found += folder_problems(raw_folder, preprocessed_folder)
    leftovers = finish_interrupted(raw_folder, key) if not found and raw_folder.is_dir() else []
    ids = {dataset_id} if dense_id is None else {dataset_id, dense_id}
    found += taken_id_problems(ids, (raw_folder, preprocessed_folder, results_folder))
    found += case_problems(cases, len(channel_names), with_dense, dense_only)
    found += split_problems(splits or (), {case.identifier for case in cases if not case.test})

    with worker_map(workers) as run:
        checked = list(_each(run, partial(check_case, coding=coding), cases, "Checking", progress))
        found += [problem for result in checked for problem in result.problems]
        found += dimension_problems(cases, checked)
        if found:
            raise AttenScribbleError(dict.fromkeys(found))  # each once
        try:
            with staged_folders(raw_folder, names, key) as hidden:
                folders = [hidden / folder for folder in names]
                _make_folders(cases, folders)
                write = partial(
                    write_or_resume,
                    coding=coding,
                    datasets=folders,
                    with_dense=with_dense,
                    links_from=raw_folder.resolve() if link else None,
                    leftovers=leftovers,
                )
                tasks = [
                    (case, fingerprint(case, result, coding, link)) for case, result in zip(cases, checked, strict=True)
                ]
                files = [file for case in _each(run, write, tasks, "Writing", progress) for file in case]
                gone = [file for file in files if not os.path.lexists(hidden / file)]  # links fit where it will lie
                if gone:
                    raise OSError(f"{len(gone)} of its files were taken away meanwhile, {gone[0]} the first of them")
                described = {**labels} if dense_only else {**labels, IGNORE: coding.ignore}
                if trust_scribbles:
                    provenance = {**provenance, "scribbles_trusted": True}
                _write_descriptions(folders, cases, checked, channel_names, described, provenance, splits, reader)
        except OSError as error:
            raise AttenScribbleError(
                f"{raw_folder / home}: could not be written, and nothing of it was kept: {error}"
            ) from error
        finally:
            remove_leftovers(leftovers)
    if splits is not None and preprocessed_folder is not None:
        try:
            write_texts({preprocessed_folder / folder / "splits_final.json": encode_json(splits) for folder in names})
        except AttenScribbleError as error:
            raise AttenScribbleError(
                f"the datasets in {raw_folder} are complete, but their splits could not be put into "
                f"{preprocessed_folder} ({error}): mend that; nnU-Net's planning copies them there too"
            ) from error

    return WrittenDatasets(
        scribble=None if dense_only else raw_folder / home,
        dense=raw_folder / names[-1] if with_dense else None,
        training=sum(not case.test for case in cases),
        test=sum(case.test for case in cases),
        scribble_voxels={} if dense_only else _total([*labels, IGNORE], [result.scribble_voxels for result in checked]),
        dense_voxels=_total(labels, [result.dense_voxels for result in checked]) if with_dense else {},
        notes=tuple(_collect_remarks(checked)),
    )


def _make_folders(cases: Sequence[Case], datasets: Sequence[Path]) -> None:
    home = datasets[0]
    folders = [home / "imagesTr", *(dataset / "labelsTr" for dataset in datasets)]
    if any(case.test for case in cases):
        folders.append(home / "imagesTs")
    if any(case.test and case.dense is not None for case in cases):
        folders.append(home / "labelsTs")
    for folder in folders:
        folder.mkdir()


def _write_descriptions(
    datasets: Sequence[Path],
    cases: Sequence[Case],
    checked: Sequence[CheckedCase],
    channel_names: Mapping[int, str],
    labels: Mapping[str, int],
    provenance: Mapping[str, object],
    splits: Sequence[Mapping[str, Sequence[str]]] | None,
    reader: Reader,
) -> None:
    """dataset.json, provenance.json and splits_final.json of the dataset with the images and, if any, its twin."""
    from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json

    home, training = datasets[0], [case for case in cases if not case.test]
    converter = f"nnunet-attenscribble {version('nnunet-attenscribble')}"
    describe_dataset = partial(
        generate_dataset_json,
        num_training_cases=len(training),
        file_ending=ENDING,
        reference=provenance.get("reference"),
        license=provenance.get("license", "see the source"),
        converted_by=converter,
        # By whose view every header was checked.
        overwrite_image_reader_writer="SimpleITKIO" if reader is None else reader.__name__,
    )
    # nnU-Net's function changes the dictionaries that it is given
    describe_dataset(str(home), dict(channel_names), dict(labels))
    for twin in datasets[1:]:
        shared = {
            case.identifier: {
                "images": [
                    f"../{home.name}/imagesTr/{case.identifier}_{channel:04d}{ENDING}"
                    for channel in range(len(case.images))
                ],
                "label": f"labelsTr/{case.identifier}{ENDING}",
            }
            for case in training
        }
        dense_labels = {name: value for name, value in labels.items() if name != IGNORE}
        describe_dataset(str(twin), dict(channel_names), dense_labels, dataset=shared)
    origin = {
        **provenance,
        "converted_by": converter,
        "libraries": {library: version(library) for library in ("nnunetv2", "SimpleITK")},
        "counts": {"training": len(training), "test": len(cases) - len(training)},
        "inputs": {case.identifier: result.inputs for case, result in zip(cases, checked, strict=True)},
    }
    for dataset in datasets:
        write_json(dataset / "provenance.json", origin)
        if splits is not None:
            write_json(dataset / "splits_final.json", splits)


def _each(run: Map, function, cases: Sequence, description: str, progress: bool):
    return show_progress(run(function, cases), total=len(cases), description=description, enabled=progress)


def _collect_remarks(checked: Iterable[CheckedCase]) -> list[str]:
    """What was found to be the same with several files, one sentence each."""
    found: dict[str, dict[str, None]] = {}
    for result in checked:
        for remark, name in result.remarks:
            found.setdefault(remark, {})[name] = None  # a file of several channels once
    return [f"{len(names)} files {remark} ({list_some(list(names))})" for remark, names in found.items()]


def _total(names: Iterable[str], counts: Iterable[list[int]]) -> dict[str, int]:
    names = list(names)
    totals = np.zeros(len(names), dtype=np.int64)
    for count in counts:
        if count:
            totals += np.array(count[: len(names)], dtype=np.int64)
    return dict(zip(names, totals.tolist(), strict=True))
