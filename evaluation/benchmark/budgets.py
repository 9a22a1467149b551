"""How long every row trains, and with which network, asked from nnU-Net's trainer classes before anything is trained.

Run as a module in a process of its own, since nnU-Net's folders are variables of the environment: it reads JSON, the
folder of plans and a list of trainings, from standard input and writes a list of answers.
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
from nnunet_attenscribble.evaluation.benchmark.steps import Model

__all__ = ["Budget", "resolve_budgets"]


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
            [sys.executable, "-m", "nnunet_attenscribble.evaluation.benchmark.budgets"],
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


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):  # nnU-Net prints
        given = json.load(sys.stdin)
        found = _answer(Path(given["preprocessed"]), [Model(**model) for model in given["models"]])
    print(json.dumps(found))
