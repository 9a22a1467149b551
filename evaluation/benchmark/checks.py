"""What is known of a benchmark before its first command runs: what is wrong with it, how long every row trains and with
which network, and whether the rows are on a par.

Datasets and plans may still have to be made: what the commands of `prepare` say that they create counts as there.
nnU-Net is asked in a process of its own: its search for trainers leaves traces, and its folders are variables of the
environment.
"""

from __future__ import annotations

import io
import json
import re
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunet_attenscribble.common.nnunet import begin_asking
from nnunet_attenscribble.common.text import tell_error
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.evaluation.benchmark.execution import look_for_command
from nnunet_attenscribble.evaluation.benchmark.file import Benchmark
from nnunet_attenscribble.evaluation.benchmark.test_set import (
    find_test_sets,
    list_twin_problems,
    name_test_folders,
    read_fold,
)
from nnunet_attenscribble.evaluation.benchmark.workspace import Model, Prepared, Step, Workspace
from nnunet_attenscribble.plans import read_plans, resolve_configuration
from nnunet_attenscribble.settings import KEY

_PLANNED = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")  # what nnU-Net's planners may write


def check_ahead(
    benchmark: Benchmark,
    workspace: Workspace,
    steps: Sequence[Step],
    prefix: Sequence[str],
    environment: Mapping[str, str],
    problems: Iterable[str] = (),
    rows: Collection[str] | None = None,
) -> None:
    """Refuse what is known to fail before the first command runs.

    Where everything is prepared, the plan of all rows asks nnU-Net for the trainers, with their datasets; elsewhere it
    is asked here.

    Args:
        benchmark: what was asked for.
        workspace: where.
        steps: of its `prepare`, in the same order.
        prefix: put before every command.
        environment: of the commands.
        problems: found by the caller.
        rows: names of those that are to be trained, whose data must be preprocessed; all by default.

    Raises:
        AttenScribbleError: every problem.
    """
    found = [*_list_program_problems(benchmark, steps, prefix)]
    found += [*_list_file_problems(_Ahead(benchmark, workspace, steps, rows)), *problems]
    if found or benchmark.predict or not all(step.is_done() for step in steps):
        found += ask_nnunet(benchmark, environment)
    if found:
        raise AttenScribbleError(dict.fromkeys(found))


def _list_file_problems(ahead: _Ahead) -> list[str]:
    """Of datasets and test cases; takes no time."""
    benchmark, workspace, problems = ahead.benchmark, ahead.workspace, []
    try:
        names = {kind: workspace.find_dataset(name) for kind, name in benchmark.datasets.items()}
    except AttenScribbleError as error:
        return error.problems
    for kind, name in names.items():
        problems += _list_dataset_problems(ahead, kind, name)
    problems += list_twin_problems(workspace, list(names.values()), ahead=True)
    if benchmark.test_images is not None:
        try:
            folders = name_test_folders(benchmark, workspace, benchmark.folds[0])
        except AttenScribbleError as error:
            return [*problems, *error.problems]
        problems += [
            f"'test.{kind}': {folder} is not a folder, and no command of 'prepare' creates it"
            for kind, folder in zip(("images", "labels"), folders, strict=True)
            if not folder.is_dir() and not ahead.creates(re.escape(folder.as_posix()))
        ]
    elif all((workspace.preprocessed / name / "splits_final.json").is_file() for name in names.values()):
        find_test_sets(benchmark, workspace, problems)
    return problems


class _Ahead:
    """What there will be when `prepare` has run."""

    def __init__(self, benchmark: Benchmark, workspace: Workspace, steps: Sequence[Step], rows: Collection[str] | None):
        self.benchmark, self.workspace = benchmark, workspace
        self.trained = {row.name for row in benchmark.rows} if rows is None else rows
        pending = [own for own, step in zip(benchmark.prepare, steps, strict=True) if not step.is_done()]
        created = [workspace.expand_created(path) for own in pending for path in own.creates]
        self.created = [f"{file.as_posix()}#{name}" if name else file.as_posix() for file, name in created]
        self.unknown = any(not own.creates for own in pending)  # a command that does not say what it makes
        self.preprocesses = any(
            "preprocess" in " ".join(own.command) and "--no_pp" not in own.command for own in pending
        )

    def creates(self, pattern: str) -> bool:
        """Whether a command will, or may, create a path that begins so, with `/` on every system."""
        return self.unknown or any(re.match(pattern, path) for path in self.created)


def _list_program_problems(benchmark: Benchmark, steps: Sequence[Step], prefix: Sequence[str]) -> Iterator[str]:
    if prefix and look_for_command(prefix[0]) is None:
        yield f"prefix '{' '.join(prefix)}': there is no program {prefix[0]}: correct it, or leave it out"
    for own, step in zip(benchmark.prepare, steps, strict=True):
        program = step.command[0]  # a path may be that of a script which an earlier command makes
        if not step.is_done() and "$" not in program and look_for_command(program) is None:
            yield f"'prepare' {own.name}: there is no program {program}: correct 'command', or install it"


def _list_dataset_problems(ahead: _Ahead, kind: str, name: str) -> list[str]:
    workspace, benchmark = ahead.workspace, ahead.benchmark
    folder = f"Dataset{name}_[^/]+" if name.isdecimal() else re.escape(name)
    raw = workspace.raw / name
    there = any((place / name / "dataset.json").is_file() for place in (workspace.raw, workspace.preprocessed))
    if not there and not ahead.creates(f"{re.escape(workspace.raw.as_posix())}/{folder}(/|$)"):
        return [
            f"'datasets.{kind}' {name}: no such dataset is in {workspace.raw}, and no command of 'prepare' creates it: "
            "convert it, or name another"
        ]
    problems = []
    if there and not ahead.creates(f".*/{folder}/splits_final[.]json"):
        known = (raw / "dataset.json").is_file() or (workspace.preprocessed / name / "splits_final.json").is_file()
        for fold in [fold for fold in benchmark.folds if known and fold != "all"]:
            try:
                read_fold(workspace, name, fold)
            except AttenScribbleError as error:
                problems += error.problems
    return problems + _list_plans_problems(ahead, kind, name, folder)


def _list_plans_problems(ahead: _Ahead, kind: str, name: str, folder: str) -> list[str]:
    workspace, benchmark = ahead.workspace, ahead.benchmark
    file = workspace.preprocessed / name / f"{benchmark.plans}.json"
    place = f"{re.escape(workspace.preprocessed.as_posix())}/{folder}/{re.escape(benchmark.plans)}"
    if not file.is_file() and not ahead.creates(f"{place}(_|[.]json)"):  # data are preprocessed by plans
        return [f"{file} is not there: plan the dataset, or add the command to 'prepare'"]
    try:
        plans: Mapping[str, Any] | None = read_plans(file) if file.is_file() else None
    except AttenScribbleError as error:
        return error.problems
    problems = []
    known = _PLANNED if plans is None else tuple(plans["configurations"])
    for row in benchmark.rows:
        if row.labels != kind or ahead.creates(f"{place}[.]json#{re.escape(row.configuration)}$"):
            continue
        if row.configuration not in known:
            where = f"what nnU-Net plans for {name}" if plans is None else str(file)
            problems.append(
                f"the row '{row.name}': no configuration {row.configuration} is in {where} ({', '.join(known)}), and "
                "no command of 'prepare' creates it: see attenscribble configure"
            )
        elif plans is not None and row.name in ahead.trained:
            problems += _list_data_problems(ahead, plans, row.configuration, file)
    return list(dict.fromkeys(problems))


def _list_data_problems(ahead: _Ahead, plans: Mapping[str, Any], configuration: str, file: Path) -> list[str]:
    try:
        identifier = resolve_configuration(plans, configuration).get("data_identifier")
    except AttenScribbleError as error:
        return [f"{file}: {problem}" for problem in error.problems]
    folder = file.parent / str(identifier)
    if identifier is None or folder.is_dir() or ahead.preprocesses or ahead.creates(f"{re.escape(folder.as_posix())}$"):
        return []
    return [f"{folder} is not there: preprocess {configuration} of {file.parent.name}, or add the command to 'prepare'"]


def ask_nnunet(benchmark: Benchmark, environment: Mapping[str, str]) -> list[str]:
    """What nnU-Net itself refuses: trainers that it does not find, options of prediction that it does not know; and
    trainers for scribbles that are to be trained on dense labels. Takes seconds.

    Args:
        benchmark: what was asked for.
        environment: of the commands.
    """
    question = {"trainers": sorted({row.trainer for row in benchmark.rows}), "predict": list(benchmark.predict)}
    try:
        told = _ask("its trainers", question, environment)
    except AttenScribbleError as error:
        return error.problems
    problems = []
    for row in benchmark.rows:
        found = told["trainers"][row.trainer]
        if "problem" in found:
            problems.append(f"the row '{row.name}' cannot be trained: {found['problem']}")
        elif found["scribbles"] and not row.on_scribbles:
            problems.append(
                f"the row '{row.name}' is on dense labels, {row.trainer} trains from scribbles: give one of nnU-Net's "
                "own trainers, or 'labels: scribble'"
            )
    if told["predict"] is not None:
        problems.append(f"'predict': {told['predict']}: give options as nnUNetv2_predict --help names them")
    return problems


# --- budgets ---


@dataclass(frozen=True)
class Budget:
    """What a training may spend.

    Attributes:
        epochs: number of them.
        iterations: per epoch.
        batch_size: patches per iteration.
        attention: whether the network has the attention block, which `attenscribble attention` can show.
    """

    epochs: int
    iterations: int
    batch_size: int
    attention: bool = False

    @property
    def steps(self) -> int:
        """Steps of the optimiser."""
        return self.epochs * self.iterations


def resolve_budgets(
    models: Mapping[str, Model], preprocessed: Path, environment: Mapping[str, str]
) -> dict[str, Budget]:
    """The budget of every row, by its name. Takes seconds: nnU-Net is imported, and no network is built.

    Args:
        models: by the row's name.
        preprocessed: nnUNet_preprocessed, with the plans.
        environment: of the commands.

    Raises:
        AttenScribbleError: a trainer that nnU-Net does not find, or that refuses its dataset; every row's problem.
    """
    question = {"preprocessed": str(preprocessed), "models": [asdict(model) for model in models.values()]}
    variables = {**environment, "nnUNet_preprocessed": str(preprocessed)}
    answers = _ask("the length of trainings", question, variables)
    problems = [
        f"the row '{name}' cannot be trained: {entry['problem']}"
        for name, entry in zip(models, answers, strict=True)
        if "problem" in entry
    ]
    refuse(problems)
    return {name: Budget(**entry) for name, entry in zip(models, answers, strict=True)}


def compare_budgets(benchmark: Benchmark, budgets: Mapping[str, Budget]) -> list[str]:
    """What the results should tell of rows that train longer or shorter than the reference.

    Raises:
        AttenScribbleError: there are some, and the file does not allow them.
    """
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


def compare_configurations(reference: str, models: Mapping[str, Model], prepared: Prepared) -> list[str]:
    """What the results should tell of rows whose network or patches are not those of the reference; settings of the
    method are what rows are for.

    Args:
        reference: the row's name.
        models: by the row's name.
        prepared: the plans.
    """
    aside = (KEY, "inherits_from", "data_identifier")
    resolved = {
        name: {key: value for key, value in prepared.resolve(model).items() if key not in aside}
        for name, model in models.items()
    }
    notes = []
    for name, own in resolved.items():
        keys = {*own, *resolved[reference]}
        differing = sorted(key for key in keys if own.get(key) != resolved[reference].get(key))
        if differing:
            notes.append(
                f"The row '{name}' ({models[name].configuration}) differs from the reference in more than supervision "
                f"and method: {', '.join(differing)}."
            )
    return notes


# --- nnU-Net in a process of its own ---


def _ask(what: str, question: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    """What `answer` answers; nnUNet_results, which trainers write to, is a folder that goes again."""
    with tempfile.TemporaryDirectory() as folder:
        variables = {**environment, "nnUNet_wandb_enabled": "0", "nnUNet_results": folder}
        try:
            return begin_asking(__name__, {**question, "folder": folder}, variables)()
        except AttenScribbleError as error:
            raise AttenScribbleError(f"nnU-Net could not be asked for {what}: {error}") from None


def answer(question: Mapping[str, Any]) -> Any:
    """What nnU-Net says; for `begin_asking`."""
    if "models" in question:
        return _find_budgets(Path(question["preprocessed"]), [Model(**model) for model in question["models"]])
    return _try_trainers(question["trainers"], question["predict"], question["folder"])


def _try_trainers(trainers: Sequence[str], options: Sequence[str], folder: str) -> dict[str, Any]:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    found: dict[str, dict] = {}
    for name in trainers:
        try:
            classes = recursive_find_trainer_class_by_name(name).__mro__
            found[name] = {"scribbles": any(one.__name__ == "nnUNetTrainerScribble" for one in classes)}
        except (Exception, SystemExit) as error:  # whatever a module of a trainer raises
            found[name] = {"problem": tell_error(error, 500)}
    return {"trainers": found, "predict": _try_options(options, folder) if options else None}


def _try_options(options: Sequence[str], folder: str) -> str | None:
    """What nnUNetv2_predict says to options; called for a device that there is none of, it ends behind reading them."""
    from nnunetv2.inference.predict_from_raw_data import predict_entry_point

    told = io.StringIO()
    sys.argv = ["nnUNetv2_predict", "-i", folder, "-o", folder, "-d", "Dataset001_None", "-c", "2d", "-f", "0"]
    sys.argv += ["-device", "none", *options]
    try:
        with redirect_stderr(told):
            predict_entry_point()
    except SystemExit as end:
        lines = told.getvalue().strip().splitlines()
        return lines[-1].partition("error: ")[2] or lines[-1] if end.code and lines else None
    except Exception:  # of the device, as intended
        return None
    return None


def _find_budgets(preprocessed: Path, models: Sequence[Model]) -> list[dict]:
    import torch
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    answers: list[dict] = []
    for model in models:
        folder = preprocessed / model.dataset
        try:
            trainer_class = recursive_find_trainer_class_by_name(model.trainer)
            plans = json.loads((folder / f"{model.plans}.json").read_text(encoding="utf-8"))
            if model.configuration not in plans["configurations"]:
                known = ", ".join(plans["configurations"])
                raise ValueError(
                    f"{model.plans} of {model.dataset} has no configuration {model.configuration}, but {known}"
                )
            dataset_json = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
            fold = model.fold if model.fold == "all" else int(model.fold)
            plans["continue_training"] = False
            trainer = trainer_class(plans, model.configuration, fold, dataset_json, torch.device("cpu"))
            if trainer.is_cascaded:
                raise ValueError(
                    f"{model.configuration} is the second stage of a cascade, and a benchmark predicts without the "
                    "first: use another configuration"
                )
        except Exception as error:  # whatever a trainer raises is what the user must hear of
            answers.append({"problem": tell_error(error, 500)})
            continue
        budget = Budget(
            trainer.num_epochs,
            trainer.num_iterations_per_epoch,
            trainer.configuration_manager.batch_size,
            attention=bool(getattr(trainer, "with_attention", False)),
        )
        answers.append(asdict(budget))
    return answers
