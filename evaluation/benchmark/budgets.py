"""How long every row trains, and with which network, asked from nnU-Net's trainer classes before anything is trained;
and whether the rows are on a par.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark.file import Benchmark
from nnunet_attenscribble.evaluation.benchmark.steps import Model
from nnunet_attenscribble.evaluation.benchmark.workspace import Prepared
from nnunet_attenscribble.settings import KEY

__all__ = ["Budget", "compare_budgets", "compare_configurations", "print_answer", "resolve_budgets"]


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
    with tempfile.TemporaryDirectory() as folder:  # a trainer makes its output folder when it is made
        answer = subprocess.run(
            [sys.executable, "-c", f"from {__name__} import print_answer; print_answer()"],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            env={**environment, "nnUNet_preprocessed": str(preprocessed), "nnUNet_results": folder},
        )
    if answer.returncode != 0:
        tail = answer.stderr.strip().splitlines()[-1:] or ["no message"]
        raise AttenScribbleError(f"nnU-Net could not be asked for the length of trainings: {tail[0]}")
    answers = json.loads(answer.stdout)
    problems = [
        f"the row '{name}' cannot be trained: {entry['problem']}"
        for name, entry in zip(models, answers, strict=True)
        if "problem" in entry
    ]
    if problems:
        raise AttenScribbleError(problems)
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


def _answer(preprocessed: Path, models: Sequence[Model]) -> list[dict]:
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
        except Exception as error:  # whatever a trainer raises is what the user must hear of
            answers.append({"problem": " ".join(str(error).split())[:500] or type(error).__name__})
            continue
        budget = Budget(
            trainer.num_epochs,
            trainer.num_iterations_per_epoch,
            trainer.configuration_manager.batch_size,
            attention=bool(getattr(trainer, "with_attention", False)),
        )
        answers.append(asdict(budget))
    return answers


def print_answer() -> None:
    """Print as JSON what nnU-Net says to the JSON of standard input, in a process of its own: nnU-Net's folders are
    variables of the environment.
    """
    with redirect_stdout(sys.stderr):  # nnU-Net prints
        given = json.load(sys.stdin)
        found = _answer(Path(given["preprocessed"]), [Model(**model) for model in given["models"]])
    print(json.dumps(found))
