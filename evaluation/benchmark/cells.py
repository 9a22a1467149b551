"""A benchmark's cells, one per row, fold and seed, and the commands that each of them consists of.

A cell is trained by `nnUNetv2_train`, then predicts the test set by `nnUNetv2_predict`, then is scored by
`attenscribble evaluate`. If the benchmark asks for it, the predictions are then postprocessed by what the training
scribbles show (`attenscribble postprocess`) and scored again; a network with the attention block is looked at by
`attenscribble attention`. Nothing of the test set is touched before the training has ended, and none of its dense
labels before the prediction has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path

from nnunet_attenscribble.common.files import write_json
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.evaluation.attention_folder import ATTENTION_FILE
from nnunet_attenscribble.evaluation.benchmark.checks import (
    Budget,
    compare_budgets,
    compare_configurations,
    resolve_budgets,
)
from nnunet_attenscribble.evaluation.benchmark.file import FINAL_CHECKPOINT, Benchmark, Row
from nnunet_attenscribble.evaluation.benchmark.test_set import (
    BenchmarkTestSet,
    find_test_set,
    find_test_sets,
    link_files,
    list_twin_problems,
    name_test_folders,
    read_fold,
)
from nnunet_attenscribble.evaluation.benchmark.workspace import (
    FOLD_FILE,
    Model,
    Prepared,
    Step,
    Workspace,
    clear_before,
    command_step,
    predict_step,
    train_step,
)
from nnunet_attenscribble.evaluation.postprocessing import POSTPROCESSING_FILE
from nnunet_attenscribble.evaluation.summary import SUMMARY_FILE, Summary, read_summary


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


@dataclass(frozen=True)
class Plan:
    """A benchmark in its folders: everything that follows from the file and from the prepared datasets.

    Attributes:
        benchmark: what was asked for.
        workspace: where.
        tests: by fold.
        budgets: by the row's name.
        notes: what a reader of the results should know about rows that are not on a par.
    """

    benchmark: Benchmark
    workspace: Workspace
    tests: Mapping[str, BenchmarkTestSet]
    budgets: Mapping[str, Budget]
    notes: Sequence[str] = ()

    @cached_property
    def cells(self) -> list[Cell]:
        """See `list_cells`."""
        return list_cells(self.benchmark)

    @property
    def shares_test(self) -> bool:
        """Whether all folds are tested on the same cases, so that each is a repetition of its own."""
        cases = [set(test.cases) for test in self.tests.values()]
        same = len(cases) > 1 and all(own == cases[0] for own in cases)
        return self.benchmark.test_images is not None or same

    def model(self, cell: Cell) -> Model:
        """The training of a cell, as nnU-Net names it."""
        return _model(self.benchmark, self.workspace, cell.row, cell.fold)

    def model_folder(self, cell: Cell) -> Path:
        """Where nnU-Net puts the training of a cell."""
        return self.model(cell).folder(self.workspace.results(cell.seed))

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
        place, budget = self.folder(cell), self.budgets.get(cell.row.name)
        processed = self.postprocessed(cell)
        train, predict = self._train_step(cell), self._predict_step(cell)
        score = partial(self._score_step, cell, predict=predict, read=read)
        evaluate = score("evaluation", place / "predictions", place, "evaluate.log")
        rescore = score("evaluation behind postprocessing", processed, processed, "evaluate_postprocessed.log")
        postprocess, attend = self._postprocess_step(cell), self._attend_step(cell)
        # What follows a step that runs anew is of what was there before.
        train = clear_before(train, predict, evaluate, postprocess, rescore, attend)
        predict = clear_before(predict, evaluate, postprocess, rescore, folder=place / "predictions")
        postprocess = clear_before(postprocess, rescore, folder=processed)
        asked = self.benchmark.postprocess
        # Before nnU-Net was asked, every row on scribbles may have a block; the command passes over those without.
        with_block = cell.row.on_scribbles if budget is None else budget.attention
        return CellSteps(
            train,
            predict,
            evaluate,
            postprocess if asked else None,
            rescore if asked else None,
            attend if with_block else None,
        )

    def _train_step(self, cell: Cell) -> Step:
        model, folder, budget = self.model(cell), self.model_folder(cell), self.budgets.get(cell.row.name)
        step = train_step(
            f"{cell.name}: training",
            model,
            self.workspace.results(cell.seed),
            self._log(cell, "train.log"),
            epochs=None if budget is None else budget.epochs,
            device=self.benchmark.device,
        )
        begin = step.prepare

        def prepare() -> None:
            if begin is not None:
                begin()
            if model.fold != "all" and not any(folder.glob("checkpoint_*.pth")):
                write_json(folder / FOLD_FILE, read_fold(self.workspace, model.dataset, model.fold), indent=None)

        return replace(step, prepare=prepare)

    def _predict_step(self, cell: Cell) -> Step:
        images, _ = name_test_folders(self.benchmark, self.workspace, cell.fold)
        return predict_step(
            f"{cell.name}: prediction",
            self.model(cell),
            self.workspace.results(cell.seed),
            images,
            self.folder(cell) / "predictions",
            self._log(cell, "predict.log"),
            device=self.benchmark.device,
            options=self.benchmark.predict,
            root=self.workspace.work,
        )

    def _score_step(
        self,
        cell: Cell,
        name: str,
        predicted: Path,
        output: Path,
        log: str,
        *,
        predict: Step,
        read: Callable[[Path], Summary],
    ) -> Step:
        _, labels = name_test_folders(self.benchmark, self.workspace, cell.fold)
        command = ["attenscribble", "evaluate", str(predicted), str(labels), "-o", str(output), "--all-cases"]
        command += ["--workers", str(self.benchmark.workers), *self.benchmark.evaluate]
        step = self._own_step(cell, name, command, log, output / SUMMARY_FILE)
        test = self.tests.get(cell.fold)

        def has_test_cases() -> bool:
            return test is None or read(output).volumes == set(test.cases)

        # Its command names folders, not what lies in them: scores of other predictions, or of other cases, are not
        # those of this cell. Model and predictions need not be there any more.
        return replace(step, is_done=lambda: step.is_done() and predict.is_marked() and has_test_cases())

    def _postprocess_step(self, cell: Cell) -> Step:
        row, benchmark = cell.row, self.benchmark
        drawn = benchmark.dataset_of(row) if row.on_scribbles else benchmark.scribble
        scribbles = self.workspace.raw / self.workspace.find_dataset(drawn) / "labelsTr"
        predictions, output = self.folder(cell) / "predictions", self.postprocessed(cell)
        command = ["attenscribble", "postprocess", str(predictions), str(scribbles), "-o", str(output)]
        command += ["--workers", str(benchmark.workers)]
        return self._own_step(cell, "postprocessing", command, "postprocess.log", output / POSTPROCESSING_FILE)

    def _attend_step(self, cell: Cell) -> Step:
        images, labels = name_test_folders(self.benchmark, self.workspace, cell.fold)
        model, output, checkpoint = self.model_folder(cell), self.folder(cell) / "attention", self.benchmark.checkpoint
        command = [
            *("attenscribble", "attention", str(model.parent)),
            *("-f", cell.fold, "-i", str(images), "-l", str(labels), "-o", str(output)),
            *("--device", self.benchmark.device),
            *(() if checkpoint == FINAL_CHECKPOINT else ("--checkpoint", checkpoint)),
        ]
        return self._own_step(cell, "attention", command, "attention.log", output / ATTENTION_FILE)

    def _own_step(self, cell: Cell, name: str, command: Sequence[str], log: str, output: Path) -> Step:
        return command_step(f"{cell.name}: {name}", command, self._log(cell, log), [output], root=self.workspace.work)

    def _log(self, cell: Cell, name: str) -> Path:
        return self.folder(cell) / "logs" / name

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
        link_files(self.tests[fold].images, self.tests[fold].image_links)

    def open_labels(self, fold: str) -> None:
        """Make the folder of dense test labels; called when a cell has predicted."""
        link_files(self.tests[fold].labels, self.tests[fold].label_links)


def make_plan(benchmark: Benchmark, workspace: Workspace, environment: Mapping[str, str]) -> Plan:
    """Check everything that can be checked before the first training; takes seconds.

    Args:
        benchmark: what was asked for.
        workspace: with the datasets converted, planned and preprocessed.
        environment: of the commands, see `run.make_environment`.

    Raises:
        AttenScribbleError: no datasets or plans, datasets that are no twins, unequal budgets, test cases that are
            trained with; every problem.
    """
    problems: list[str] = []
    *drawn, dense = map(workspace.find_dataset, benchmark.datasets.values())
    for dataset in (*drawn, dense):
        file = workspace.preprocessed / dataset / f"{benchmark.plans}.json"
        if not file.is_file():
            problems.append(f"{file} is not there: plan the dataset, or add the command to 'prepare'")
    for scribbles in (workspace.raw / dataset / "labelsTr" for dataset in drawn if benchmark.postprocess):
        if not scribbles.is_dir():
            problems.append(
                f"{scribbles} is not there, and 'postprocess' decides by the scribbles: give the raw dataset"
            )
    refuse(problems)
    problems += list_twin_problems(workspace, [*drawn, dense])
    tests = find_test_sets(benchmark, workspace, problems)
    budgets: dict[str, Budget] = {}
    notes: list[str] = []
    try:
        models = {row.name: _model(benchmark, workspace, row, benchmark.folds[0]) for row in benchmark.rows}
        budgets = resolve_budgets(models, workspace.preprocessed, environment)
        notes = compare_budgets(benchmark, budgets)
        notes += compare_configurations(benchmark.reference, models, Prepared(workspace))
    except AttenScribbleError as error:
        problems += error.problems
    refuse(dict.fromkeys(problems))
    return Plan(benchmark, workspace, tests, budgets, notes)


def list_cells(benchmark: Benchmark) -> list[Cell]:
    """All cells in the order in which they run: one repetition after the other, so that the first whole table is there
    early.
    """
    return [Cell(row, fold, seed) for seed, fold, row in product(benchmark.seeds, benchmark.folds, benchmark.rows)]


def select_cells(cells: Sequence[Cell], texts: Sequence[str] | None) -> list[Cell]:
    """The cells whose name, or whose row's name, contains one of the texts; a whole name means that cell alone.

    Raises:
        AttenScribbleError: a text is in the name of none.
    """
    found: set[str] = set()
    problems = []
    for text in texts or [""]:
        exact = [cell for cell in cells if cell.name == text]
        named = exact or [cell for cell in cells if text.lower() in cell.name or text.lower() in cell.row.name.lower()]
        if not named:
            names = "\n    ".join(cell.name for cell in cells)
            problems.append(f"--only {text!r} is in the name of no cell; there are\n    {names}")
        found.update(cell.name for cell in named)
    refuse(problems)
    return [cell for cell in cells if cell.name in found]


def _model(benchmark: Benchmark, workspace: Workspace, row: Row, fold: str) -> Model:
    dataset = workspace.find_dataset(benchmark.dataset_of(row))
    return Model(dataset, row.configuration, row.trainer, fold, benchmark.plans)
