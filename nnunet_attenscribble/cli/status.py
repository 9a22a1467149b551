"""`attenscribble status`: what lies in nnU-Net's folders, and how far trainings are."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.common.nnunet import dataset_folder, nnunet_folder

if TYPE_CHECKING:
    from nnunet_attenscribble.evaluation.benchmark.status import DatasetState, ResultState, TrainingState

_SHOWN = ("total", "segmentation", "crf", "similarity")  # terms, where there are so many


@app.command()
def status(
    dataset: Annotated[str | None, typer.Argument(help="ID or name: only this dataset.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, with every loss term.")] = False,
) -> None:
    """Show datasets, trainings (epoch, minutes left, last losses), predictions and scores in nnU-Net's folders.

    Example:  attenscribble status 501
    """
    from nnunet_attenscribble.evaluation.benchmark.status import (
        list_dataset_states,
        list_result_states,
        list_trainings,
    )

    raw = nnunet_folder("nnUNet_raw")
    preprocessed, results = (_optional(name) for name in ("nnUNet_preprocessed", "nnUNet_results"))
    name = dataset_folder("nnUNet_raw", dataset).name if dataset else None
    datasets = [state for state in list_dataset_states(raw, preprocessed) if name in (None, state.name)]
    trainings = list_trainings(results, name) if results else []
    found = list_result_states(results, name) if results else []
    if as_json:
        content = {
            "datasets": [asdict(state) for state in datasets],
            "trainings": [asdict(state) for state in trainings],
            "results": [asdict(state) | {"folder": str(state.folder)} for state in found],
        }
        typer.echo(json.dumps(content, indent=2))
        return
    _print_datasets(datasets)
    _print_trainings(trainings)
    if results:
        _print_results(found, results)


def _optional(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None


def _print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    from nnunet_attenscribble.common.text import format_plain

    typer.echo(f"{title}\n{format_plain(header, rows)}\n" if rows else f"{title}: none\n")


def _print_datasets(states: list[DatasetState]) -> None:
    rows = []
    for state in states:
        plans = "; ".join(f"{name}: {', '.join(done) or 'planned'}" for name, done in state.plans.items())
        rows.append(
            [state.name, state.labels, "?" if state.cases is None else str(state.cases), plans or "not planned"]
        )
    _print_table("Datasets", ["name", "labels", "cases", "preprocessed"], rows)


def _print_trainings(states: list[TrainingState]) -> None:
    from nnunet_attenscribble.common.text import format_duration

    rows = []
    for state in states:
        of = "?" if state.epochs is None else str(state.epochs)
        left = "" if state.seconds_left is None else format_duration(state.seconds_left)
        terms = ", ".join(f"{name} {state.terms[name]:.3f}" for name in _SHOWN if name in state.terms)
        rows.append(
            [f"{state.dataset} {state.model} fold {state.fold}", state.state, f"{state.epoch} of {of}", left, terms]
        )
    _print_table("Trainings", ["model", "state", "epoch", "left", "last loss terms"], rows)


def _print_results(states: list[ResultState], results: Path) -> None:
    from nnunet_attenscribble.common.text import format_number

    rows = [
        [
            str(state.folder.relative_to(results)),
            str(state.predictions),
            "not scored with dense labels" if state.dice is None else format_number(state.dice, 3),
        ]
        for state in states
    ]
    _print_table("Predictions", ["folder in nnUNet_results", "files", "mean Dice"], rows)
