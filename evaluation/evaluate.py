"""A folder of predictions scored against a folder of dense labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from nnunet_attenscribble.common.provenance import find_commit, list_versions
from nnunet_attenscribble.common.readers import find_reader
from nnunet_attenscribble.common.text import counted, list_some
from nnunet_attenscribble.common.volumes import sha256
from nnunet_attenscribble.common.workers import default_workers, run_all
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.evaluation.protocols import Protocol, get_protocol
from nnunet_attenscribble.evaluation.scoring import CaseScores, check_folders, pair_cases, score_case
from nnunet_attenscribble.evaluation.structures import (
    LabelCoding,
    find_dataset_json,
    find_model_file,
    read_label_coding,
)
from nnunet_attenscribble.evaluation.summary import Summary, tell_not_predicted


def evaluate_folder(
    predictions: Path | str,
    dense: Path | str,
    *,
    dataset_json: Path | str | None = None,
    protocol: str = "default",
    hd95: str | None = None,
    nsd_mm: float | None = None,
    lesions: Mapping[str, float] | None = None,
    workers: int | None = None,
    all_cases: bool = False,
    progress: bool = False,
) -> Summary:
    """Score every prediction of a folder. Nothing is written: see `summary.write_summary`.

    Args:
        predictions: output of `nnUNetv2_predict`, or `fold_X/validation` of a model.
        dense: folder of dense labels, named as the predictions; it may hold more cases.
        dataset_json: says which labels there are; searched for if None (`structures.find_dataset_json`).
        protocol: a key of `protocols.PROTOCOLS`.
        hd95: a key of `metrics.HD95_DEFINITIONS`, for a protocol that is `extensible`; None for the protocol's own.
        nsd_mm: tolerance of `metrics.compute_nsd`, likewise; None to leave it out.
        lesions: structures whose components are counted, with the IoU of `metrics.count_lesions`; likewise.
        workers: processes that score cases side by side; 1 for none but this one, None for `count_workers`.
        all_cases: refuse if a dense label has no prediction.
        progress: shown on stderr.

    Raises:
        AttenScribbleError: definitions that `get_protocol` refuses, or something keeps the folders from being compared;
            all problems at once.
        ValueError: fewer than one worker.
    """
    rules = get_protocol(protocol, hd95, nsd_mm=nsd_mm, lesions=lesions)
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; it must be at least 1")
    predictions, dense = Path(predictions), Path(dense)
    file = _choose_dataset_json(predictions, dense, dataset_json)
    coding = read_label_coding(file)
    _check_lesions(rules, coding, file)
    of_dense = _read_dense_coding(dense, file, coding)
    pairs, not_predicted = pair_cases(predictions, dense, coding.file_ending)
    if all_cases and not_predicted:
        raise AttenScribbleError(
            f"{counted(len(not_predicted), 'case')} of {dense} {'has' if len(not_predicted) == 1 else 'have'} no "
            f"prediction in {predictions} ({list_some(not_predicted)}): "
            "predict them, or leave out --all-cases"
        )
    reader = find_reader(coding.dataset_json, pairs[0].prediction)
    dense_reader = reader if of_dense is coding else find_reader(of_dense.dataset_json, pairs[0].dense)
    score = partial(score_case, coding=coding, protocol=rules, readers=(reader, dense_reader))
    plans = find_model_file(predictions, "plans.json")
    results = run_all(score, pairs, workers or count_workers(len(pairs)), "Scoring cases", progress=progress)
    return Summary(
        structures=coding.structures,
        cases={name: scores for result in results for name, scores in result.scores.items()},
        shapes={name: result.shape for result in results for name in result.scores},
        spacings={name: result.spacing for result in results for name in result.scores},
        hd95=rules.hd95,
        protocol=rules.name,
        nsd_mm=rules.nsd_mm,
        lesions=rules.lesions,
        confusions={name: counts for result in results for name, counts in result.confusions.items()},
        not_predicted=tuple(not_predicted),
        notes=tuple(_write_notes(results, not_predicted, rules)),
        provenance={
            "predictions": str(predictions),
            "dense_labels": str(dense),
            "dataset_json": str(file),
            "plans_sha256": None if plans is None else sha256(plans),
            "commit": find_commit(),
        },
        versions=list_versions("nnunet-attenscribble", "numpy", "scipy", "SimpleITK"),
    )


def count_workers(cases: int) -> int:
    """As many workers as `default_workers`, and at most one per four cases.

    A worker takes as long to start as to score a dozen cardiac volumes.
    """
    return max(1, min(default_workers(), cases // 4))


def _choose_dataset_json(predictions: Path, dense: Path, given: Path | str | None) -> Path:
    if given is not None:
        file = Path(given) / "dataset.json" if Path(given).is_dir() else Path(given)
        if not file.is_file():
            raise AttenScribbleError(f"--dataset-json {given} does not exist: give nnU-Net's dataset.json")
        return file
    check_folders(predictions, dense)  # one that is missing is the first thing to hear of, not what it lacks
    return find_dataset_json(predictions, dense)


def _check_lesions(rules: Protocol, coding: LabelCoding, file: Path) -> None:
    known = [structure.name for structure in coding.structures]
    unknown = [name for name in rules.lesions if name not in known]
    if unknown:
        raise AttenScribbleError(
            f"--lesions names {list_some(unknown)}, which {file} does not; it has {list_some(known)}: name one of those"
        )


def _read_dense_coding(dense: Path, file: Path, coding: LabelCoding) -> LabelCoding:
    """The coding of the dense labels' own dataset, which must be that of `file`; this one where they have none."""
    beside = dense.resolve().parent / "dataset.json"
    if not beside.is_file() or beside.samefile(file):
        return coding
    own = read_label_coding(beside)
    values = {structure.name.casefold(): structure.values for structure in own.structures}
    problems = [
        f"{structure.name} is {list(structure.values)} in {file} but {list(values[structure.name.casefold()])} in "
        f"{beside}: bring the dense labels and the predictions to one coding"
        for structure in coding.structures
        if values.get(structure.name.casefold(), structure.values) != structure.values
    ]
    refuse(problems)
    return own


def _write_notes(results: Sequence[CaseScores], not_predicted: Sequence[str], rules: Protocol) -> list[str]:
    notes = []
    # An axis of one voxel has no distances.
    sides = [[size for size, count in zip(own.spacing, own.shape, strict=True) if count > 1] for own in results]
    thick = [max(own) for own in sides if own and max(own) >= 2 * min(own)]
    if thick and rules.hd95 and rules.distance_unit == "mm":
        notes.append(
            f"Slices lie up to {max(thick):.4g} mm apart: HD95 moves in steps of the slice distance, whatever the tool."
        )
    notes += tell_not_predicted(not_predicted)
    turned = [result.case for result in results if result.turned]
    if turned:
        notes.append(
            f"{counted(len(turned), 'prediction', 'is')} stored in another order of axes than the dense label and "
            f"turned onto it ({list_some(turned)})."
        )
    rounded = [file for result in results for file in result.rounded]
    if rounded:
        notes.append(
            f"{counted(len(rounded), 'file', 'has')} labels that their header scales (scl_slope), rounded to integers "
            f"({list_some(rounded)})."
        )
    if all(set(result.spacing) == {1.0} for result in results):
        notes.append("Every file says 1 mm along every axis: where that is not so, distances are in voxels.")
    if all(result.identical for result in results):
        notes.append(
            "Every prediction equals its dense label in every voxel: make sure that they are not the dense labels."
        )
    return notes
