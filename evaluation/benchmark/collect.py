"""What is there of a benchmark, gathered in one folder that can be read without the rest.

Layout of the folder:

    collected.json              what was compared: rows, cells, selection, notes; every path in it is relative
    missing.txt                 a line per cell without a complete evaluation: CELL, a tab, what it lacks, or why what
                                is there is not of the training that is asked for
    comparison.md, .csv, .json  all rows against the reference, folds and repetitions pooled; not there while the
                                reference has nothing to compare with
    comparison_postprocessed.*  the same for the postprocessed predictions, where the benchmark asks for it
    cells/seed_S/fold_F/ROW/    of every complete cell:
        attenscribble_summary.json, attenscribble_metrics.csv    of `attenscribble evaluate`; the provenance names row,
                                trainer, configuration, seed, fold, hash of the plans, commit, versions, and where rows
                                differ in their scribbles how much was annotated (`evaluation.annotation`)
        loss_terms.csv          of the training, where the trainer writes one
        training_log.csv        epoch, train_loss, val_loss, seconds and pseudo Dice, from nnU-Net's log
        predictions, model      links to the folders of predictions and of the checkpoint
        attention               link to the folder of `attenscribble attention`, where the network has the block
        postprocessed/          where the benchmark asks for it: the same two files for the postprocessed predictions,
                                and the link to these
                                (of a result kept elsewhere only what is there: no predictions, no model)
    rows/ROW/seed_S/            the same two files for a row and repetition, all folds together; with a test set of its
                                own, where every fold predicts the same cases, rows/ROW/seed_S_fold_F/
    test/fold_F/images, labels  links to the test images and their dense labels

Where there can be no links, as on some file systems, these are left out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path

from nnunet_attenscribble.common.files import list_names, replaced_folder, write_text
from nnunet_attenscribble.common.nnunet import read_drawn_axis
from nnunet_attenscribble.common.provenance import find_commit, list_versions
from nnunet_attenscribble.common.readers import Reader, find_reader
from nnunet_attenscribble.common.text import counted, list_some
from nnunet_attenscribble.common.volumes import slice_axis
from nnunet_attenscribble.common.workers import run_all
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.annotation import (
    ANNOTATED,
    Annotation,
    average_annotation,
    count_annotation,
    find_annotation,
)
from nnunet_attenscribble.evaluation.attention_folder import ATTENTION_FILE
from nnunet_attenscribble.evaluation.benchmark.cells import Cell, Plan
from nnunet_attenscribble.evaluation.benchmark.file import Benchmark, Row
from nnunet_attenscribble.evaluation.benchmark.provenance import (
    POSTPROCESSING,
    complete_provenance,
    describe_selection,
    read_commands,
    read_training_log,
    write_training_log,
)
from nnunet_attenscribble.evaluation.benchmark.state import CellState, find_kept, read_states
from nnunet_attenscribble.evaluation.benchmark.test_set import list_training_cases, read_fold
from nnunet_attenscribble.evaluation.compare import compare_summaries
from nnunet_attenscribble.evaluation.comparison_files import WRITERS
from nnunet_attenscribble.evaluation.kept_scores import POSTPROCESSED, write_kept
from nnunet_attenscribble.evaluation.pooling import pool_runs
from nnunet_attenscribble.evaluation.scoring import read_label_image
from nnunet_attenscribble.evaluation.structures import read_label_coding
from nnunet_attenscribble.evaluation.summary import SUMMARY_FILE, Summary, encode_result, head_result, write_summary
from nnunet_attenscribble.settings import KEY

COLLECTED_FILE = "collected.json"
_COMPARISON_POSTPROCESSED = f"comparison_{POSTPROCESSED}"


@dataclass(frozen=True)
class Collected:
    """What was gathered.

    Attributes:
        folder: that holds it.
        missing: by cell, what it lacks, see `CellState`.
        comparison: the table as Markdown, or None.
        postprocessed: that of the postprocessed predictions, or None.
        notes: what a reader should know.
    """

    folder: Path
    missing: Mapping[str, str]
    comparison: str | None
    postprocessed: str | None
    notes: tuple[str, ...]


def collect(
    plan: Plan,
    folder: Path,
    kept: Sequence[Path] = (),
    keep: Path | None = None,
    states: Mapping[Cell, CellState] | None = None,
) -> Collected:
    """Gather what is there; the folder is replaced as a whole.

    Args:
        plan: of the benchmark.
        folder: to write; one that was not collected before must be empty.
        kept: folders with results of cells that are not complete here, see `find_kept`.
        keep: where to write the scores of all cells once more, without the rest, see `write_kept`.
        states: of all cells, if they were asked for already.

    Raises:
        AttenScribbleError: something else is in a folder, nothing is there to keep, or results cannot be compared.
    """
    folder = folder.absolute()
    held = list_names(folder) if folder.is_dir() or not folder.exists() else [folder.name]
    if COLLECTED_FILE in held:
        held = [name for name in held if not _is_own(name)]
    if held:
        raise AttenScribbleError(
            f"{folder} holds something else than collected results ({list_some(held)}): move that away, or "
            "give another place with -o"
        )
    if keep is not None and folder in (keep.absolute(), *keep.absolute().parents):
        raise AttenScribbleError(f"--keep {keep} lies in {folder}, which is replaced: give another place")
    with replaced_folder(folder) as part:
        collection = _Collection(plan, part, kept, states or read_states(plan))
        collected = collection.write(folder)
        if keep is not None:
            collection.keep(keep)
        return collected


def _is_own(name: str) -> bool:
    """Whether `collect` writes a file of this name."""
    beginnings = ("comparison.", f"{_COMPARISON_POSTPROCESSED}.")
    return name in (COLLECTED_FILE, "missing.txt", "cells", "rows", "test") or name.startswith(beginnings)


def list_compared(plan: Plan, complete: Sequence[Cell]) -> dict[str, list[Cell]]:
    """By the row's name, the cells whose results are pooled: all folds of every repetition that has all of its folds,
    which is not needed where all are tested on the same cases.
    """
    whole: dict[str, list[Cell]] = {row.name: [] for row in plan.benchmark.rows}
    for row in plan.benchmark.rows:
        for seed in plan.benchmark.seeds:
            found = [cell for cell in complete if cell.row == row and cell.seed == seed]
            if plan.shares_test or len(found) == len(plan.benchmark.folds):
                whole[row.name] += found
    return {name: cells for name, cells in whole.items() if cells}


class _Collection:
    """One call of `collect`, writing into a hidden folder."""

    def __init__(self, plan: Plan, part: Path, kept: Sequence[Path], states: Mapping[Cell, CellState]):
        self.plan, self.part, self.states = plan, part, states
        self.benchmark: Benchmark = plan.benchmark
        self.commands = read_commands(plan.workspace.commands)
        incomplete = {cell: state for cell, state in states.items() if state.lacks is not None}
        self.kept, self.kept_notes = find_kept(plan, incomplete, kept)
        self.missing = {cell: state.lacks or "" for cell, state in incomplete.items() if cell not in self.kept}
        self.complete = [cell for cell in plan.cells if cell not in self.missing]
        self.count_annotation = cache(partial(_count_dataset, workers=plan.benchmark.workers))  # a file is read once
        self.summaries: dict[Cell, Summary] = {}
        self.postprocessed: dict[Cell, Summary] = {}
        self.unlinked = False

    def _link(self, link: Path, folder: Path) -> None:
        try:
            link.symlink_to(folder)
        except OSError:
            self.unlinked = True

    def write(self, folder: Path) -> Collected:
        unknown: dict[str, None] = {}
        for cell in self.complete:
            self._find_summaries(cell)
            unknown |= dict.fromkeys(self._add_annotation(cell))
            self._write_cell(cell)
        notes = [*self.plan.notes, *self.kept_notes, *self._describe_missing(), *self._describe_code(), *unknown]
        self._link_tests()
        if self.unlinked:
            notes.append("There can be no links where this lies: a report will have no pictures of predictions.")
        of_postprocessed = [*notes, *self._describe_postprocessing()]
        rows = self._write_rows()
        table = self._write_comparison("comparison", self.summaries, notes)
        processed = self._write_comparison(_COMPARISON_POSTPROCESSED, self.postprocessed, of_postprocessed)
        lines = [f"{cell.name}\t{lack}\n" for cell, lack in self.missing.items()]
        write_text(self.part / "missing.txt", "".join(lines))
        write_text(self.part / COLLECTED_FILE, encode_result(self._describe(notes, rows)))
        missing = {cell.name: lack for cell, lack in self.missing.items()}
        return Collected(folder, missing, table, processed, tuple(notes))

    def keep(self, folder: Path) -> None:
        if not self.summaries:
            raise AttenScribbleError(f"no cell is complete: there are no scores to keep in {folder}")
        summaries = {}
        for cell, summary in self.summaries.items():
            summaries[cell.name] = summary
            if cell in self.postprocessed:
                summaries[f"{cell.name}/{POSTPROCESSED}"] = self.postprocessed[cell]
        write_kept(folder, summaries)

    def _find_summaries(self, cell: Cell) -> None:
        """Note down what a cell was scored, here or elsewhere, also behind postprocessing."""
        if cell in self.kept:
            kept = self.kept[cell]
            self.summaries[cell] = kept.summary
            if kept.postprocessed is not None:
                self.postprocessed[cell] = kept.postprocessed
            return
        state = self.states[cell]
        self.summaries[cell] = complete_provenance(state, state.steps.evaluate, self.commands)
        rescore = state.steps.rescore
        if rescore is not None and rescore.is_done():
            self.postprocessed[cell] = complete_provenance(state, rescore, self.commands)

    def _add_annotation(self, cell: Cell) -> Iterator[str]:
        """Where rows differ in their scribbles, the summary tells how much was annotated for its training; yields why
        that cannot be told. What it tells already stays: labels may have been drawn anew since.
        """
        summary = self.summaries[cell]
        if not self.benchmark.further or not cell.row.on_scribbles or find_annotation(summary.provenance) is not None:
            return
        dataset = self.plan.model(cell).dataset
        try:
            found = self._average_annotation(dataset, cell.fold)
        except AttenScribbleError as error:
            yield f"How much is annotated in {dataset} is not known: {'; '.join(error.problems)}."
            return
        told = {key: f"{getattr(found, name):.6g}" for name, key in ANNOTATED.items()}
        self.summaries[cell] = replace(summary, provenance={**summary.provenance, **told})
        if cell in self.kept:
            yield f"Kept results on {dataset} do not tell how much was annotated: it is what its labels hold now."
        else:
            write_summary(self.summaries[cell], self.plan.folder(cell))

    def _average_annotation(self, dataset: str, fold: str) -> Annotation:
        """The mean over the cases that a fold trains with."""
        folder = self.plan.workspace.raw / dataset
        found = self.count_annotation(folder)
        cases = found if fold == "all" else read_fold(self.plan.workspace, dataset, fold)["train"]
        if lacking := sorted(set(cases) - set(found)):
            raise AttenScribbleError(f"{folder} has no labels of {', '.join(lacking)}")
        return average_annotation([found[case] for case in cases])

    def _write_cell(self, cell: Cell) -> None:
        target = self.part / "cells" / cell.name
        write_summary(self.summaries[cell], target)
        if cell in self.postprocessed:
            write_summary(self.postprocessed[cell], target / POSTPROCESSED)
        if cell in self.kept:
            source = self.kept[cell].folder
            curves = [source / "loss_terms.csv", source / "training_log.csv"]
        else:
            source = self.plan.folder(cell)
            model = self.plan.model_folder(cell)
            curves = [model / "loss_terms.csv"]
            write_training_log(read_training_log(model), target / "training_log.csv")
            self._link(target / "predictions", source / "predictions")
            self._link(target / "model", model)
            if cell in self.postprocessed:
                self._link(target / POSTPROCESSED / "predictions", self.plan.postprocessed(cell))
        for file in curves:
            if file.is_file():
                shutil.copyfile(file, target / file.name)
        if (source / "attention" / ATTENTION_FILE).is_file():
            self._link(target / "attention", (source / "attention").resolve())

    def _write_rows(self) -> dict[str, dict[str, list[Cell]]]:
        """The cells that every written summary is of, by the row's name and the file."""
        written: dict[str, dict[str, list[Cell]]] = {}
        shared = self.plan.shares_test
        for row in self.benchmark.rows:
            written[row.name] = {}
            for seed in self.benchmark.seeds:
                cells = [cell for cell in self.complete if cell.row == row and cell.seed == seed]
                groups = [[cell] for cell in cells] if shared else [cells] if cells else []
                for group in groups:
                    name = f"seed_{seed}" + (f"_fold_{group[0].fold}" if shared else "")
                    target = Path("rows") / row.folder / name
                    write_summary(pool_runs(row.name, [self.summaries[cell] for cell in group]), self.part / target)
                    written[row.name][(target / SUMMARY_FILE).as_posix()] = group
        return written

    def _write_comparison(self, file: str, summaries: Mapping[Cell, Summary], notes: list[str]) -> str | None:
        compared = list_compared(self.plan, list(summaries))
        if self.benchmark.reference not in compared:
            return None
        most = max(len(cells) for cells in compared.values())
        for name, cells in compared.items():
            if len(cells) < most:
                pairs = ", ".join(f"seed {cell.seed} fold {cell.fold}" for cell in cells)
                notes.append(f"The row '{name}' stands for fewer trainings than others: {pairs}.")
        pooled = {name: pool_runs(name, [summaries[cell] for cell in cells]) for name, cells in compared.items()}
        told = (*describe_selection(self.benchmark), *notes)
        reference = pooled[self.benchmark.reference]
        pooled[self.benchmark.reference] = replace(reference, notes=tuple(dict.fromkeys((*told, *reference.notes))))
        comparison = compare_summaries(pooled, self.benchmark.reference, subject=self.benchmark.subject)
        for ending, convert in WRITERS.items():
            write_text(self.part / f"{file}{ending}", convert(comparison))
        return WRITERS[".md"](comparison)

    def _link_tests(self) -> None:
        for fold, test in self.plan.tests.items():
            place = self.part / "test" / f"fold_{fold}"
            place.mkdir(parents=True)
            for name, target in (("images", test.images), ("labels", test.labels)):
                self._link(place / name, target)

    def _describe_postprocessing(self) -> list[str]:
        rules = {str(summary.provenance.get(POSTPROCESSING)): None for summary in self.postprocessed.values()}
        told = [
            "Every prediction was postprocessed by `attenscribble postprocess`, by the same rule for all rows, which "
            f"rests on the training scribbles alone: {'; '.join(rules)}."
        ]
        lacking = [cell.name for cell in self.complete if cell not in self.postprocessed]
        if lacking:
            told.append(
                f"{counted(len(lacking), 'complete cell', 'has')} no postprocessed results: {list_some(lacking)}."
            )
        return told

    def _describe_missing(self) -> list[str]:
        if not self.missing:
            return []
        return [f"{len(self.missing)} of {len(self.plan.cells)} cells are missing; missing.txt tells what they lack."]

    def _describe_code(self) -> list[str]:
        """Rows on scribbles, whose trainers are this package's, that were trained with several versions of it."""
        commits: dict[str, dict[str, None]] = {}
        for cell, summary in self.summaries.items():
            commit = summary.provenance.get("commit_training")
            if cell.row.on_scribbles and commit is not None:
                commits.setdefault(cell.row.name, {})[commit[:7]] = None
        told = [f"{name} ({', '.join(found)})" for name, found in commits.items() if len(found) > 1]
        return [f"Rows whose trainings are of several commits of the code: {'; '.join(told)}."] if told else []

    def _describe(self, notes: Sequence[str], summaries: Mapping[str, Mapping[str, list[Cell]]]) -> dict:
        workspace, benchmark = self.plan.workspace, self.benchmark
        datasets = {kind: workspace.find_dataset(name) for kind, name in benchmark.datasets.items()}
        scribble = datasets["scribble"]
        coding = read_label_coding(workspace.preprocessed / scribble / "dataset.json")
        return {
            **head_result("collected"),
            "name": benchmark.name,
            "reference": benchmark.reference,
            "subject": benchmark.subject,
            "datasets": datasets,
            "test": {
                "kind": "validation" if benchmark.test_images is None else "folder",
                "text": describe_selection(benchmark)[0],
                "folds": {
                    fold: {
                        "images": f"test/fold_{fold}/images",
                        "labels": f"test/fold_{fold}/labels",
                        "cases": list(test.cases),
                    }
                    for fold, test in self.plan.tests.items()
                },
            },
            "scribbles": {
                "folder": str(workspace.raw / scribble / "labelsTr"),
                "file_ending": coding.file_ending,
                "ignore": coding.ignore,
            },
            "selection": describe_selection(benchmark),
            "notes": list(notes),
            "versions": list_versions(),
            "commit": find_commit(),
            "rows": [self._describe_row(row, summaries[row.name]) for row in benchmark.rows],
            "cells": [self._describe_cell(cell) for cell in self.plan.cells],
            **{name: self._name_tables(name) for name in ("comparison", _COMPARISON_POSTPROCESSED)},
        }

    def _name_tables(self, name: str) -> dict[str, str] | None:
        files = {ending[1:]: f"{name}{ending}" for ending in WRITERS}
        return files if (self.part / files["json"]).is_file() else None

    def _describe_row(self, row: Row, summaries: Mapping[str, list[Cell]]) -> dict:
        state = next(state for cell, state in self.states.items() if cell.row == row)
        compared = list_compared(self.plan, self.complete).get(row.name, [])
        known = not any(kept.other_settings for cell, kept in self.kept.items() if cell.row == row)
        return {
            "name": row.name,
            "slug": row.folder,
            "labels": row.labels,
            "trainer": row.trainer,
            "configuration": row.configuration,
            "plans": self.benchmark.plans,
            "settings": state.configuration.get(KEY, {}) if known else None,
            "budget": asdict(self.plan.budgets[row.name]) if row.name in self.plan.budgets else None,
            "summaries": list(summaries),
            "compared": [file for file, cells in summaries.items() if set(cells) <= set(compared)],
        }

    def _describe_cell(self, cell: Cell) -> dict:
        lack = self.missing.get(cell)
        return {
            "cell": cell.name,
            "row": cell.row.name,
            "seed": cell.seed,
            "fold": cell.fold,
            "state": "done" if lack is None else "missing",
            "folder": f"cells/{cell.name}" if lack is None else None,
            "lacks": lack,
        }


def _count_dataset(folder: Path, *, workers: int) -> dict[str, Annotation]:
    """How much is annotated in every label of a raw dataset, by case."""
    coding = read_label_coding(folder / "dataset.json")
    if coding.ignore is None:
        raise AttenScribbleError(f"{folder / 'dataset.json'} has no label 'ignore': its labels are no scribbles")
    cases = list_training_cases(folder)
    labels = [Path(entry["label"]) for entry in cases.values()]
    reader = find_reader(coding.dataset_json, labels[0]) if labels else None
    count = partial(_count_file, reader=reader, across=read_drawn_axis(folder), ignore=coding.ignore)
    return dict(zip(cases, run_all(count, labels, workers, "Counting annotation"), strict=True))


def _count_file(file: Path, *, reader: Reader, across: int | None, ignore: int) -> Annotation:
    """How much is annotated in a file of labels; runs in a worker process."""
    image = read_label_image(file, reader)
    axis = slice_axis(image.labels.shape, image.spacing, across) if image.labels.ndim == 3 else 0
    return count_annotation(image.labels, axis, ignore)
