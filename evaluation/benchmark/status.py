"""What lies in nnU-Net's three folders: datasets, trainings and how far they are, predictions and scores."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from nnunet_attenscribble.common.nnunet import count_preprocessed, means_ignore
from nnunet_attenscribble.common.shapes import NUMBER, TEXT, mapping, nullable, read_if_shaped
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark.file import FINAL_CHECKPOINT
from nnunet_attenscribble.evaluation.benchmark.provenance import list_training_logs, read_training_log
from nnunet_attenscribble.evaluation.summary import SUMMARY_FILE, read_result
from nnunet_attenscribble.plans import list_plans, read_plans, resolve_configuration

_PREDICTED = "predict_from_raw_data_args.json"  # nnU-Net leaves it in every folder that it predicts into
#: Of a summary all that is told here; to check the whole takes seconds where cases and classes are many.
_SCORED = mapping({"aggregate": mapping({"foreground_mean": mapping({"dice": mapping({"mean": nullable(NUMBER)})})})})
_TERMS = "loss_terms.csv"
_RECENT = 10  # epochs that tell how long the next ones take
_PATIENCE = 3  # epochs' times without a word, and a training has stopped
_LEAST_PATIENCE = 600  # seconds: the first epoch compiles, the last is followed by a validation


@dataclass(frozen=True)
class DatasetState:
    """One dataset.

    Attributes:
        name: of its folder.
        labels: `scribbles`, `dense`, or `unknown` where its dataset.json cannot be read.
        cases: to train with, by that file.
        plans: by the plans' name, the configurations that are preprocessed.
    """

    name: str
    labels: str
    cases: int | None
    plans: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class TrainingState:
    """One fold of a model.

    Attributes:
        dataset, model, fold: as nnU-Net names their folders.
        state: `finished`, `running`, `stopped` (no word for longer than three epochs take) or `not begun`.
        epoch: how many epochs are done.
        epochs: how many there will be; None where nnU-Net has not told.
        seconds_left: of a running one, by its last epochs; None where none is done, or all are and nnU-Net validates.
        terms: the loss terms of the last epoch, for trainings of this package.
    """

    dataset: str
    model: str
    fold: str
    state: str
    epoch: int
    epochs: int | None
    seconds_left: float | None
    terms: Mapping[str, float]


@dataclass(frozen=True)
class ResultState:
    """One folder of predictions, of scores, or of both.

    Attributes:
        folder: of them.
        predictions: files in it.
        dice: mean over the structures, where `attenscribble evaluate` has scored it.
    """

    folder: Path
    predictions: int
    dice: float | None


def list_dataset_states(raw: Path, preprocessed: Path | None) -> list[DatasetState]:
    """Every dataset of either folder, by name."""
    parents = [parent for parent in (raw, preprocessed) if parent is not None and parent.is_dir()]
    names = {folder.name for parent in parents for folder in parent.glob("Dataset[0-9][0-9][0-9]_*") if folder.is_dir()}
    return [_describe_dataset(name, raw, preprocessed) for name in sorted(names)]


def list_trainings(results: Path, dataset: str | None = None, *, now: float | None = None) -> list[TrainingState]:
    """Every fold of every model, by dataset, model and fold.

    Args:
        results: nnUNet_results.
        dataset: only of this one.
        now: seconds since the epoch, in place of the clock's.
    """
    now = time.time() if now is None else now
    folds = sorted(results.glob(f"{dataset or 'Dataset[0-9][0-9][0-9]_*'}/*__*__*/fold_*"))
    return [_describe_training(folder, now) for folder in folds if folder.is_dir()]


def list_result_states(results: Path, dataset: str | None = None) -> list[ResultState]:
    """Every folder below `results` that nnU-Net predicted into or that was scored, validations among them."""
    place = results / dataset if dataset else results
    folders = {file.parent for name in (_PREDICTED, SUMMARY_FILE) for file in place.rglob(name)}
    folders |= {folder for folder in place.glob("**/fold_*/validation") if folder.is_dir()}
    return [_describe_result(folder) for folder in sorted(folders)]


def _describe_dataset(name: str, raw: Path, preprocessed: Path | None) -> DatasetState:
    places = [raw / name, *([preprocessed / name] if preprocessed is not None else [])]
    content = next((content for place in places if (content := read_if_shaped(place / "dataset.json", mapping()))), {})
    labels = content.get("labels")
    names = labels if isinstance(labels, dict) else ()
    kind = "scribbles" if "ignore" in names else "dense" if names and not any(map(means_ignore, names)) else "unknown"
    cases = content.get("numTraining")
    plans = {}
    for file in list_plans(places[-1]) if preprocessed is not None else []:
        try:
            content = read_plans(file)
            done = [key for key in content["configurations"] if _is_preprocessed(places[-1], content, key, cases)]
        except AttenScribbleError:
            continue  # doctor tells what is wrong with it
        plans[file.stem] = tuple(done)
    return DatasetState(name, kind, cases if isinstance(cases, int) else None, plans)


def _is_preprocessed(folder: Path, plans: Mapping[str, Any], name: str, cases: object) -> bool:
    """Whether every case is; any case where their number is not known."""
    place = folder / resolve_configuration(plans, name).get("data_identifier", "\0")
    return count_preprocessed(place) >= max(cases if isinstance(cases, int) else 1, 1)


def _describe_training(folder: Path, now: float) -> TrainingState:
    log = read_training_log(folder)
    done = [epoch for epoch, values in log.items() if "seconds" in values]
    epoch = max(done) + 1 if done else 0
    told = read_if_shaped(folder / "debug.json", mapping()).get("num_epochs")  # nnU-Net writes it as text
    epochs = int(told) if isinstance(told, str | int) and str(told).isdecimal() else None
    recent = [log[number]["seconds"] for number in done[-_RECENT:]]
    each = sum(recent) / len(recent) if recent else None
    files = list_training_logs(folder)
    state, left = "not begun", None
    if (folder / FINAL_CHECKPOINT).is_file() and not (files and _begins_anew(files[-1], folder / FINAL_CHECKPOINT)):
        state = "finished"
        epoch = epochs or epoch
    elif files:
        silent = now - files[-1].stat().st_mtime
        state = "stopped" if silent > max(_LEAST_PATIENCE, _PATIENCE * (each or 0)) else "running"
        if state == "running" and each is not None and epochs is not None and epoch < epochs:
            left = (epochs - epoch) * each
    dataset, model = folder.parents[1].name, folder.parent.name
    return TrainingState(
        dataset, model, folder.name.removeprefix("fold_"), state, epoch, epochs, left, _read_terms(folder / _TERMS)
    )


def _begins_anew(log: Path, final: Path) -> bool:
    """Whether a log is of a training that began behind a final checkpoint; nnU-Net's validation has logs as well."""
    try:
        began = datetime.strptime(log.stem, "training_log_%Y_%m_%d_%H_%M_%S")
        return began.timestamp() > final.stat().st_mtime and "Epoch " in log.read_text(errors="replace")
    except (OSError, ValueError):
        return False


def _read_terms(file: Path) -> dict[str, float]:
    """The last line of the log of loss terms, without what was not defined."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        terms = {name: float(value) for name, value in rows[-1].items() if name != "epoch" and value}
        return {name: value for name, value in terms.items() if not math.isnan(value)}
    except (OSError, ValueError, IndexError, TypeError, AttributeError):
        return {}


def _describe_result(folder: Path) -> ResultState:
    ending = read_if_shaped(folder / "dataset.json", mapping({"file_ending": TEXT})).get("file_ending", "")
    found = [
        file for file in folder.iterdir() if file.is_file() and file.suffix not in (".json", ".csv", ".npz", ".pkl")
    ]
    dice = None
    with suppress(AttenScribbleError):
        scored = read_result(folder / SUMMARY_FILE, "evaluation", _SCORED, "")
        mean = scored["aggregate"]["foreground_mean"]["dice"]["mean"]
        dice = float("nan") if mean is None else mean
    return ResultState(folder, len([file for file in found if file.name.endswith(ending)]), dice)
