"""A benchmark's cells, one per row, fold and seed, and the commands that each of them consists of.

A cell is trained by `nnUNetv2_train`, then predicts the test set by `nnUNetv2_predict`, then is scored by
`attenscribble evaluate`. If the benchmark asks for it, the predictions are then postprocessed by what the training
scribbles show (`attenscribble postprocess`) and scored again; a network with the attention block is looked at by
`attenscribble attention`. Nothing of the test set is touched before the training has ended, and none of its dense
labels before the prediction has.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.attention_folder import ATTENTION_FILE
from nnunet_attenscribble.evaluation.benchmark.budgets import Budget, resolve_budgets
from nnunet_attenscribble.evaluation.benchmark.file import FINAL_CHECKPOINT, Benchmark, Row
from nnunet_attenscribble.evaluation.benchmark.steps import (
    Model,
    Step,
    command_step,
    is_whole,
    predict_step,
    train_step,
)
from nnunet_attenscribble.evaluation.benchmark.test_set import (
    BenchmarkTestSet,
    find_test_set,
    link_images,
    link_labels,
    name_test_folders,
)
from nnunet_attenscribble.evaluation.benchmark.twins import list_twin_problems
from nnunet_attenscribble.evaluation.benchmark.workspace import Prepared, Workspace
from nnunet_attenscribble.evaluation.postprocess_folder import POSTPROCESSING_FILE
from nnunet_attenscribble.evaluation.summary import SUMMARY_FILE, Summary, read_summary
from nnunet_attenscribble.settings import KEY

__all__ = [
    "Cell",
    "CellSteps",
    "Plan",
    "list_cells",
    "make_plan",
    "select_cells",
]


@dataclass(frozen=True)
class Cell:
    """One row, trained on one fold, in one of its repetitions."""

    row: Row
    fold: str
    seed: int

    @property
    def name(self) -> str:
        """`seed_0/fold_0/ROW`; also its place below the folders of cells."""
        return f"seed_{self.seed}/fold_{self.fold}/{self.row.folder}"


@dataclass(frozen=True)
class CellSteps:
    """The commands of a cell.

    Attributes:
        train, predict, evaluate: what its numbers come from.
        postprocess, rescore: the same predictions postprocessed, and their numbers; None if nobody asked for them.
        attend: pictures of the attention block, or None where there is none.
    """

    train: Step
    predict: Step
    evaluate: Step
    postprocess: Step | None = None
    rescore: Step | None = None
    attend: Step | None = None

    @property
    def extras(self) -> list[Step]:
        """What follows the evaluation. A cell is complete without."""
        return [step for step in (self.postprocess, self.rescore, self.attend) if step is not None]

    def __iter__(self) -> Iterator[Step]:
        return iter((self.train, self.predict, self.evaluate, *self.extras))

    def find_lacking(self) -> str | None:
        """What is to be done first: `training`, `predictions`, `evaluation`, or None for a complete cell."""
        if self.evaluate.is_done():
            return None
        if not self.train.is_done():
            return "training"
        return "evaluation" if self.predict.is_done() else "predictions"


class Plan:
    """A benchmark in its folders: everything that follows from the file and from the prepared datasets.

    Attributes:
        benchmark: what was asked for.
        workspace: where.
        cells: see `list_cells`.
        tests: by fold.
        budgets: by the row's name.
        notes: what a reader of the results should know about rows that are not on a par.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        workspace: Workspace,
        tests: Mapping[str, BenchmarkTestSet],
        budgets: Mapping[str, Budget],
        notes: Sequence[str] = (),
    ):
        self.benchmark, self.workspace, self.tests = benchmark, workspace, dict(tests)
        self.budgets, self.notes = dict(budgets), tuple(notes)
        self.cells = list_cells(benchmark)

    def model(self, cell: Cell) -> Model:
        """The training of a cell, as nnU-Net names it."""
        return _model(self.benchmark, self.workspace, cell.row, cell.fold)

    def folder(self, cell: Cell) -> Path:
        """What belongs to a cell but its model: predictions, scores, logs."""
        return self.workspace.work / "cells" / cell.name

    def postprocessed(self, cell: Cell) -> Path:
        """The postprocessed predictions of a cell, and their scores."""
        return self.folder(cell) / "postprocessed"

    def steps(self, cell: Cell, read: Callable[[Path], Summary] = read_summary) -> CellSteps:
        """The commands of a cell. The training knows nothing of the test set, the prediction nothing of its labels.

        Args:
            cell: to train, predict and score.
            read: what reads the summaries that tell whether its evaluations are done.
        """
        folder, model = self.folder(cell), self.model(cell)
        results = self.workspace.results(cell.seed)
        root = self.workspace.work
        images, labels = name_test_folders(self.benchmark, self.workspace, cell.fold)
        budget = self.budgets.get(cell.row.name)
        predictions, device = folder / "predictions", self.benchmark.device
        checkpoint = self.benchmark.checkpoint

        train = train_step(
            f"{cell.name}: training",
            model,
            results,
            folder / "logs" / "train.log",
            epochs=None if budget is None else budget.epochs,
            device=device,
        )
        predict = predict_step(
            f"{cell.name}: prediction",
            model,
            results,
            images,
            predictions,
            folder / "logs" / "predict.log",
            device=device,
            options=self.benchmark.predict,
            root=root,
        )

        def has_test_cases(scored: Path) -> bool:
            test = self.tests.get(cell.fold)
            return test is None or read(scored).volumes == set(test.cases)

        def score(name: str, predicted: Path, output: Path, log: str) -> Step:
            command = ["attenscribble", "evaluate", str(predicted), str(labels), "-o", str(output), "--all-cases"]
            command += ["--workers", str(self.benchmark.workers), *self.benchmark.evaluate]
            outputs = [output / SUMMARY_FILE]
            step = command_step(f"{cell.name}: {name}", command, folder / "logs" / log, outputs, root=root)
            # Its command names folders, not what lies in them: scores of other predictions, or of other cases, are not
            # those of this cell. Model and predictions need not be there any more.
            return replace(step, is_done=lambda: step.is_done() and predict.is_marked() and has_test_cases(output))

        evaluate = score("evaluation", predictions, folder, "evaluate.log")
        processed = self.postprocessed(cell)
        rescore = score("evaluation behind postprocessing", processed, processed, "evaluate_postprocessed.log")
        scribbles = self.workspace.raw / self.workspace.find_dataset(self.benchmark.scribble) / "labelsTr"
        postprocess = command_step(
            f"{cell.name}: postprocessing",
            ["attenscribble", "postprocess", str(predictions), str(scribbles), "-o", str(processed)],
            folder / "logs" / "postprocess.log",
            [processed / POSTPROCESSING_FILE],
            root=root,
        )
        attend = command_step(
            f"{cell.name}: attention",
            [
                *("attenscribble", "attention", str(model.folder(results).parent), "-f", model.fold),
                *("-i", str(images), "-l", str(labels), "-o", str(folder / "attention"), "--device", device),
                *(() if checkpoint == FINAL_CHECKPOINT else ("--checkpoint", checkpoint)),
            ],
            folder / "logs" / "attention.log",
            [folder / "attention" / ATTENTION_FILE],
            root=root,
        )
        # Before nnU-Net was asked, every row on scribbles may have a block; the command passes over those without.
        with_block = cell.row.labels == "scribble" if budget is None else budget.attention
        final = model.folder(results) / FINAL_CHECKPOINT

        def begin_training() -> None:
            if train.prepare is not None:
                train.prepare()
            _forget(predict.mark, evaluate.mark, postprocess.mark, rescore.mark, attend.mark)

        def begin_prediction() -> None:
            _forget(evaluate.mark, postprocess.mark, rescore.mark)
            shutil.rmtree(predictions, ignore_errors=True)

        def begin_postprocessing() -> None:
            _forget(rescore.mark)
            shutil.rmtree(processed, ignore_errors=True)

        asked = self.benchmark.postprocess
        return CellSteps(
            # nnU-Net's own validation, which comes behind the final checkpoint, is on scribbles: nothing needs it.
            replace(train, is_done=lambda: is_whole(final), prepare=begin_training),
            replace(predict, prepare=begin_prediction),
            evaluate,
            replace(postprocess, prepare=begin_postprocessing) if asked else None,
            rescore if asked else None,
            attend if with_block else None,
        )

    def open_images(self, fold: str) -> None:
        """Make the folder of test images; called when a cell has been trained.

        Raises:
            AttenScribbleError: the test set is not what it was when everything was checked.
        """
        if find_test_set(self.benchmark, self.workspace, fold) != self.tests[fold]:
            raise AttenScribbleError(
                f"the test set of fold {fold} changed while a model was trained (splits_final.json, or the folder of "
                "images): its cases may have been trained with; call this again to have everything checked anew"
            )
        link_images(self.tests[fold])

    def open_labels(self, fold: str) -> None:
        """Make the folder of dense test labels; called when a cell has predicted."""
        link_labels(self.tests[fold])


def make_plan(benchmark: Benchmark, workspace: Workspace, environment: Mapping[str, str]) -> Plan:
    """Check everything that can be checked before the first training; takes seconds.

    Args:
        benchmark: what was asked for.
        workspace: with the datasets converted, planned and preprocessed.
        environment: of the commands, see `benchmark_environment.make_environment`.

    Raises:
        AttenScribbleError: no datasets or plans, datasets that are no twins, unequal budgets, test cases that are
            trained with; every problem.
    """
    problems: list[str] = []
    scribble, dense = (workspace.find_dataset(name) for name in (benchmark.scribble, benchmark.dense))
    for dataset in (scribble, dense):
        file = workspace.preprocessed / dataset / f"{benchmark.plans}.json"
        if not file.is_file():
            problems.append(f"{file} is not there: plan the dataset, or add the command to 'prepare'")
    scribbles = workspace.raw / scribble / "labelsTr"
    if benchmark.postprocess and not scribbles.is_dir():
        problems.append(f"{scribbles} is not there, and 'postprocess' decides by the scribbles: give the raw dataset")
    if problems:
        raise AttenScribbleError(problems)
    problems += list_twin_problems(workspace, scribble, dense)
    tests: dict[str, BenchmarkTestSet] = {}
    for fold in benchmark.folds:
        try:
            tests[fold] = find_test_set(benchmark, workspace, fold)
        except AttenScribbleError as error:
            problems += error.problems
    budgets: dict[str, Budget] = {}
    notes: list[str] = []
    try:
        models = {row.name: _model(benchmark, workspace, row, benchmark.folds[0]) for row in benchmark.rows}
        budgets = resolve_budgets(models, workspace.preprocessed, environment)
        notes = _compare_budgets(benchmark, budgets) + _compare_configurations(benchmark, workspace)
    except AttenScribbleError as error:
        problems += error.problems
    if problems:
        raise AttenScribbleError(dict.fromkeys(problems))
    return Plan(benchmark, workspace, tests, budgets, notes)


def list_cells(benchmark: Benchmark) -> list[Cell]:
    """All cells in the order in which they run: one repetition after the other, so that the first whole table is there
    early.
    """
    return [Cell(row, fold, seed) for seed, fold, row in product(benchmark.seeds, benchmark.folds, benchmark.rows)]


def select_cells(cells: Sequence[Cell], text: str | None) -> list[Cell]:
    """The cells whose name, or whose row's name, contains a text; a whole name means that cell alone.

    Raises:
        AttenScribbleError: there is none.
    """
    if text is None:
        return list(cells)
    exact = [cell for cell in cells if cell.name == text]
    found = exact or [cell for cell in cells if text.lower() in cell.name or text.lower() in cell.row.name.lower()]
    if not found:
        names = "\n    ".join(cell.name for cell in cells)
        raise AttenScribbleError(f"--only {text!r} is in the name of no cell; there are\n    {names}")
    return found


def _model(benchmark: Benchmark, workspace: Workspace, row: Row, fold: str) -> Model:
    dataset = workspace.find_dataset(benchmark.dataset_of(row))
    return Model(dataset, row.configuration, row.trainer, fold, benchmark.plans)


def _compare_budgets(benchmark: Benchmark, budgets: Mapping[str, Budget]) -> list[str]:
    reference = budgets[benchmark.reference]
    unequal = [
        f"the row '{name}' trains {budget.epochs} epochs of {budget.iterations} iterations, the reference "
        f"'{benchmark.reference}' {reference.epochs} of {reference.iterations}"
        for name, budget in budgets.items()
        if budget.steps != reference.steps
    ]
    if unequal and not benchmark.unequal_budgets:
        raise AttenScribbleError(
            f"{text}: give them the same (num_epochs among the settings of a scribble trainer's configuration, a stock "
            "trainer such as nnUNetTrainer_5epochs), or set 'unequal_budgets: true', which is told in the results"
            for text in unequal
        )
    return [f"Unequal budgets: {text}." for text in unequal]


def _compare_configurations(benchmark: Benchmark, workspace: Workspace) -> list[str]:
    """Rows whose network or patches are not those of the reference; settings of the method are what rows are for."""

    prepared = Prepared(workspace)

    def resolve(row: Row) -> dict:
        resolved = prepared.resolve(_model(benchmark, workspace, row, benchmark.folds[0]))
        return {key: value for key, value in resolved.items() if key not in (KEY, "inherits_from", "data_identifier")}

    reference = resolve(next(row for row in benchmark.rows if row.name == benchmark.reference))
    notes = []
    for row in benchmark.rows:
        own = resolve(row)
        differing = sorted(key for key in {*own, *reference} if own.get(key) != reference.get(key))
        if differing:
            notes.append(
                f"The row '{row.name}' ({row.configuration}) differs from the reference in more than supervision and "
                f"method: {', '.join(differing)}."
            )
    return notes


def _forget(*marks: Path | None) -> None:
    for mark in marks:
        if mark is not None:
            mark.unlink(missing_ok=True)
