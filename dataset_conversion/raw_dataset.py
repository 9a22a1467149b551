"""The one writer of nnU-Net raw folders: a scribble dataset and, sharing its images, its densely labelled twin.

Where a killed run of the same conversion stopped, it goes on: what was written whole is not written again.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

from nnunet_attenscribble.common.files import (
    encode_json,
    finish_interrupted,
    remove_leftovers,
    reserved,
    staged_folders,
    write_json,
    write_texts,
)
from nnunet_attenscribble.common.progress import show_progress
from nnunet_attenscribble.common.readers import Reader
from nnunet_attenscribble.common.volumes import file_of
from nnunet_attenscribble.common.workers import Map, worker_map
from nnunet_attenscribble.dataset_conversion.cases import (
    ENDING,
    IGNORE,
    Case,
    CheckedCase,
    Coding,
    check_cases,
    collect_remarks,
    write_case,
)
from nnunet_attenscribble.dataset_conversion.plan_problems import (
    case_problems,
    dimension_problems,
    drawing_notes,
    folder_problems,
    name_problems,
    nothing_drawn_problems,
    split_problems,
    taken_id_problems,
)
from nnunet_attenscribble.errors import AttenScribbleError

_DONE = "done"  # in a hidden folder: a JSON file per case that lies in it whole


@dataclass(frozen=True)
class RawDataset:
    """What is to be written: a scribble dataset and perhaps its dense twin, or a dense dataset alone."""

    dataset_id: int
    """1 to 999, in no use yet."""
    name: str
    """Letters, digits, `_` and `-`; the twin's is this and Dense."""
    channel_names: Mapping[int, str]
    """Channel to name, which decides nnU-Net's normalisation (`CT` is special)."""
    labels: Mapping[str, int]
    """Name to value, `background` 0 and then every integer. `ignore` is added to the scribble dataset, as one more."""
    provenance: Mapping[str, object]
    """For the JSON beside dataset.json: `source`, `options`, `license`, `reference`... No paths of this machine."""
    scribble_values: Mapping[int, int] | None = None
    """Value in the file to value here, where they differ; any value not listed is refused."""
    dense_values: Mapping[int, int] | None = None
    """The same for the dense labels."""
    dense_id: int | None = None
    """Writes the dense twin; refused with `dense_only`."""
    dense_only: bool = False
    """Dense labels go into `DatasetNNN_Name`, which has no `ignore` then; scribbles are not used."""
    slice_axis: int | None = None
    """Of dense slices (`Case.dense_slices`) in the array (z, y, x); None: the coarsest."""
    reader: Reader = None
    """Of nnU-Net, that the dataset names; of files that are `DatasetFile` of it the NIfTI stay as they are."""
    splits: Sequence[Mapping[str, Sequence[str]]] | None = None
    """Folds of `train` and `val` identifiers, for both datasets."""

    @property
    def folders(self) -> list[str]:
        """Of the images, and of the twin if there is one."""
        home = f"Dataset{self.dataset_id:03d}_{self.name}"
        return [home] if self.dense_id is None else [home, f"Dataset{self.dense_id:03d}_{self.name}Dense"]

    @property
    def ids(self) -> set[int]:
        """Of the dataset and its twin."""
        return {self.dataset_id} if self.dense_id is None else {self.dataset_id, self.dense_id}

    @property
    def with_dense(self) -> bool:
        """Whether dense labels of training cases are written."""
        return self.dense_only or self.dense_id is not None


@dataclass(frozen=True)
class Writing:
    """Where and how datasets are written: what every converter passes on."""

    raw_folder: Path
    """nnUNet_raw; made if it is not there."""
    preprocessed_folder: Path | None = None
    """nnUNet_preprocessed; the splits are put there too. Without it, nnU-Net's planning copies them."""
    results_folder: Path | None = None
    """nnUNet_results; only looked at for IDs in use."""
    trust_scribbles: bool = False
    """Scribbles are not asked whether they can be strokes, nor whether there are any. provenance.json tells it."""
    link: bool = False
    """Relative links to files that can be used as they are, where copies are the rule."""
    workers: int | None = None
    """Processes; 1 for none beside this one, None for one per processor, 8 at most."""
    progress: bool = False
    """Shown on stderr."""
    confirm: Callable[[Sequence[tuple[Case, CheckedCase]], Coding], None] | None = None
    """Called when everything was found in order, before the first write; what it raises ends the conversion."""


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
    dataset: RawDataset,
    writing: Writing,
    *,
    problems: Iterable[str] = (),
    notes: Iterable[str] = (),
) -> WrittenDatasets:
    """Check every input, then write `DatasetNNN_Name` and, with a `dense_id`, its twin `DatasetMMM_NameDense`.

    Nothing is written before every input is found in order, and the datasets appear complete or not at all. Images keep
    their voxels and geometry; labels become uint8 on the grid of their image. The same input gives the same bytes.
    After a kill, the same call takes over the cases that had been written whole. From the first check on, no other
    process can take the IDs.

    Args:
        cases: in any order; written sorted.
        dataset: what to write.
        writing: where and how.
        problems: found by the caller already, reported with what is found here.
        notes: of the caller, for `WrittenDatasets.notes`.

    Raises:
        AttenScribbleError: every problem of the input, one sentence each.
    """
    cases = sorted(cases, key=lambda case: case.identifier)
    if dataset.dense_only:
        cases = [replace(case, scribble=None) for case in cases]
    coding = Coding(
        dataset.labels,
        dataset.scribble_values,
        dataset.dense_values,
        dataset.with_dense,
        writing.trust_scribbles,
        dataset.slice_axis,
    )
    if coding.problems():
        raise AttenScribbleError(coding.problems())  # no case could be checked
    found = list(problems)
    found += name_problems(dataset.name, dataset.dataset_id, dataset.dense_id, dataset.dense_only)
    found += folder_problems(writing.raw_folder, writing.preprocessed_folder)
    with ExitStack() as stack:
        if not found:
            with _nothing_kept():
                stack.enter_context(reserved(writing.raw_folder, map("{:03d}".format, dataset.ids), "dataset ID"))
        # What a killed run had finished is put in its place, and the ID is taken then.
        leftovers = [] if found else finish_interrupted(writing.raw_folder, f"{dataset.dataset_id:03d}")
        found += taken_id_problems(
            dataset.ids, (writing.raw_folder, writing.preprocessed_folder, writing.results_folder)
        )
        found += case_problems(cases, len(dataset.channel_names), dataset.with_dense, dataset.dense_only)
        found += split_problems(dataset.splits or (), {case.identifier for case in cases if not case.test})
        run = stack.enter_context(worker_map(writing.workers, len(cases)))
        checked = check_cases(run, cases, coding, progress=writing.progress)
        found += [problem for _, result in checked for problem in result.problems]
        found += dimension_problems(checked)
        found += [] if found else nothing_drawn_problems(checked, coding)
        if found:
            raise AttenScribbleError(dict.fromkeys(found))  # each once
        if writing.confirm is not None:
            writing.confirm(checked, coding)
        try:
            with _nothing_kept():
                _write(run, checked, coding, dataset, writing, leftovers)
        finally:
            remove_leftovers(leftovers)
    _put_splits(dataset, writing)
    return _summarise(checked, coding, dataset, writing.raw_folder, notes)


@contextmanager
def _nothing_kept() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AttenScribbleError(
            f"the dataset could not be written, and nothing incomplete was kept: {error}"
        ) from error


def _write(
    run: Map,
    checked: Sequence[tuple[Case, CheckedCase]],
    coding: Coding,
    dataset: RawDataset,
    writing: Writing,
    leftovers: Sequence[Path],
) -> None:
    """Write what was found in order; raises OSError where it cannot be written, and then nothing of it stays."""
    with staged_folders(writing.raw_folder, dataset.folders, f"{dataset.dataset_id:03d}") as hidden:
        folders = [hidden / folder for folder in dataset.folders]
        _make_folders([case for case, _ in checked], folders)
        write = partial(
            _write_or_resume,
            coding=coding,
            home=folders[0],
            dense=folders[-1] if dataset.with_dense else None,
            links_from=writing.raw_folder.resolve() if writing.link else None,
            leftovers=leftovers,
        )
        tasks = [(case, case_key(case, result, coding, writing.link)) for case, result in checked]
        written = show_progress(run(write, tasks), total=len(tasks), description="Writing", enabled=writing.progress)
        files = [file for case in written for file in case]
        gone = [file for file in files if not os.path.lexists(hidden / file)]  # links fit where it will lie
        if gone:
            raise OSError(f"{len(gone)} of its files were taken away meanwhile, {gone[0]} the first of them")
        _write_descriptions(folders, checked, coding, dataset)


@cache
def _version() -> str:
    return version("nnunet-attenscribble")


def case_key(case: Case, checked: CheckedCase, coding: Coding, link: bool) -> str | None:
    """What the written files of a case depend on, as a hash; None where that cannot be told."""
    sources = (*case.images, case.scribble, case.dense)
    calls = [source for source in sources if callable(source)]
    if any(source is not None and not isinstance(source, Path) and not callable(source) for source in sources):
        return None
    if not case.inputs and any(file_of(source) is None for source in calls):
        return None
    try:
        called = pickle.dumps(calls)
    except (pickle.PicklingError, AttributeError, TypeError):  # a call that only this process can make
        return None
    files = [file for source in sources if (file := file_of(source)) is not None]
    linked = [str(file.resolve()) for file in files] if link else []
    own = [case.identifier, case.test, case.spacing, case.dense_slices, case.annotated]
    told = [_version(), *own, checked.inputs, linked, repr(coding)]
    return hashlib.sha256(json.dumps(told).encode() + called).hexdigest()


def _write_or_resume(
    task: tuple[Case, str | None],
    *,
    coding: Coding,
    home: Path,
    dense: Path | None,
    links_from: Path | None,
    leftovers: Iterable[Path],
) -> list[str]:
    """Put one case into the dataset folders: taken over from a killed run, or written; runs in a worker process.

    Args:
        task: the case and its key.
        coding, home, dense, links_from: see `write_case`; the folders lie in the hidden one of this run.
        leftovers: hidden folders of killed runs.

    Returns:
        Its files, relative to the hidden folder of this run.

    Raises:
        OSError: where it cannot be written.
    """
    case, key = task
    hidden = home.parent
    note = f"{_DONE}/{case.identifier}.json"
    for leftover in leftovers if key is not None else ():
        try:
            told = json.loads((leftover / note).read_text(encoding="utf-8"))
            if told["key"] == key:
                for file in told["files"]:
                    os.rename(leftover / file, hidden / file)
                write_json(hidden / note, told, indent=None)
                return told["files"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it had not come so far, or is gone: write the case
    written = write_case(case, coding=coding, home=home, dense=dense, links_from=links_from)
    files = [str(file.relative_to(hidden)) for file in written]
    if key is not None:
        write_json(hidden / note, {"key": key, "files": files}, indent=None)
    return files


def _put_splits(dataset: RawDataset, writing: Writing) -> None:
    """Where nnU-Net's training looks for them."""
    if dataset.splits is None or writing.preprocessed_folder is None:
        return
    try:
        places = [writing.preprocessed_folder / folder / "splits_final.json" for folder in dataset.folders]
        write_texts(dict.fromkeys(places, encode_json(dataset.splits)))
    except AttenScribbleError as error:
        raise AttenScribbleError(
            f"the datasets in {writing.raw_folder} are complete, but their splits could not be put into "
            f"{writing.preprocessed_folder} ({error}): mend that; nnU-Net's planning copies them there too"
        ) from error


def _summarise(
    checked: Sequence[tuple[Case, CheckedCase]],
    coding: Coding,
    dataset: RawDataset,
    raw_folder: Path,
    notes: Iterable[str],
) -> WrittenDatasets:
    labels = {**dataset.labels, IGNORE: coding.ignore}
    drawn = {} if dataset.dense_only else _total(labels, [result.scribble_voxels for _, result in checked])
    dense = _total(dataset.labels, [result.dense_voxels for _, result in checked]) if dataset.with_dense else {}
    return WrittenDatasets(
        scribble=None if dataset.dense_only else raw_folder / dataset.folders[0],
        dense=raw_folder / dataset.folders[-1] if dataset.with_dense else None,
        training=sum(not case.test for case, _ in checked),
        test=sum(case.test for case, _ in checked),
        scribble_voxels=drawn,
        dense_voxels=dense,
        notes=(
            *drawing_notes(checked, dense if dataset.dense_only else drawn),
            *collect_remarks(checked),
            *notes,
        ),
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
    checked: Sequence[tuple[Case, CheckedCase]],
    coding: Coding,
    dataset: RawDataset,
) -> None:
    """dataset.json, provenance.json and splits_final.json of the dataset with the images and, if any, its twin."""
    from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json

    home, training = datasets[0], [case for case, _ in checked if not case.test]
    provenance = {**dataset.provenance, **({"scribbles_trusted": True} if coding.trusted else {})}
    labels = dict(dataset.labels) if dataset.dense_only else {**dataset.labels, IGNORE: coding.ignore}
    converter = f"nnunet-attenscribble {_version()}"
    describe_dataset = partial(
        generate_dataset_json,
        num_training_cases=len(training),
        file_ending=ENDING,
        reference=provenance.get("reference"),
        license=provenance.get("license", "see the source"),
        converted_by=converter,
        # By whose view every header was checked.
        overwrite_image_reader_writer="SimpleITKIO" if dataset.reader is None else dataset.reader.__name__,
    )
    # nnU-Net's function changes the dictionaries that it is given
    describe_dataset(str(home), dict(dataset.channel_names), dict(labels))
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
        describe_dataset(str(twin), dict(dataset.channel_names), dict(dataset.labels), dataset=shared)
    origin = {
        **provenance,
        "converted_by": converter,
        "libraries": {library: version(library) for library in ("nnunetv2", "SimpleITK")},
        "counts": {"training": len(training), "test": len(checked) - len(training)},
        "inputs": {case.identifier: result.inputs for case, result in checked},
    }
    for folder in datasets:
        write_json(folder / "provenance.json", origin)
        if dataset.splits is not None:
            write_json(folder / "splits_final.json", dataset.splits)


def _total(labels: Mapping[str, int], counts: Iterable[list[int]]) -> dict[str, int]:
    """Of all cases in which voxels were counted by value."""
    counted = [*filter(None, counts)]
    return {name: sum(count[value] for count in counted) for name, value in labels.items()}
