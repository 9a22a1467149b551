"""nnU-Net as a benchmark runs it: where what is kept, and its commands as steps, which know whether they are done.

What has been done is read from what nnU-Net left behind, never from a list kept elsewhere: a model that somebody
trained by hand counts, and one whose files were deleted does not.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from nnunet_attenscribble.common.files import naming, write_json, write_text
from nnunet_attenscribble.common.shapes import TEXT, mapping, read_shaped
from nnunet_attenscribble.common.volumes import sha256
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.evaluation.benchmark.file import FINAL_CHECKPOINT
from nnunet_attenscribble.plans import read_plans, resolve_configuration

#: Of a training, beside its checkpoints: the cases that it began with.
FOLD_FILE = "attenscribble_fold.json"
_FILE = "benchmark.json"
_FOLDERS = mapping({"nnUNet_raw": TEXT, "nnUNet_preprocessed": TEXT})
#: Of an image's name: case, channel and file type; a year in the case may look like a channel.
CHANNEL = re.compile(r"^(.*)_(\d{4})(\.[^/]+)$")
# Options, each with one value, that tell where and in how many processes a command runs, and nothing of what comes out.
_OF_THE_MACHINE = ("--workers", "-device", "--device", "-npp", "-nps")


@dataclass(frozen=True)
class Workspace:
    """The folders of a benchmark, absolute.

    Attributes:
        work: holds everything that the benchmark itself makes.
        raw: nnUNet_raw, shared by all cells.
        preprocessed: nnUNet_preprocessed, shared by all cells.
    """

    work: Path
    raw: Path
    preprocessed: Path

    def results(self, seed: int) -> Path:
        """nnUNet_results of one repetition."""
        return self.work / f"seed_{seed}" / "nnUNet_results"

    @property
    def commands(self) -> Path:
        """The log of commands, a JSON object per line."""
        return self.work / "commands.jsonl"

    def expand(self, text: str) -> str:
        """Text with its variables replaced: those of the environment, and nnU-Net's two folders.

        Raises:
            AttenScribbleError: for a variable that is not set.
        """
        values = {**os.environ, "nnUNet_raw": str(self.raw), "nnUNet_preprocessed": str(self.preprocessed)}
        try:
            return Template(text).substitute(values)
        except KeyError as error:
            name = error.args[0]
            raise AttenScribbleError(
                f"{text!r} needs the variable {name}, which is not set: export {name}=..."
            ) from None
        except ValueError:
            raise AttenScribbleError(
                f"{text!r} holds a $ that names no variable: write $$ for the sign itself"
            ) from None

    def expand_created(self, text: str) -> tuple[Path, str]:
        """An entry of `creates`: its path, absolute, and the configuration behind `#`, if any; raises as `expand`."""
        parts = re.fullmatch("(.+)#([^/]+)", text)  # before variables are replaced: folders may be called so too
        file, configuration = parts.groups() if parts else (text, "")
        return Path(self.expand(file)).absolute(), configuration

    def find_dataset(self, dataset: str) -> str:
        """`DatasetNNN_Name` of a name or a three-digit ID; the ID itself where there is no such dataset yet.

        Raises:
            AttenScribbleError: several datasets have this ID.
        """
        if not dataset.isdecimal():
            return dataset
        places = (self.raw, self.preprocessed)
        found = sorted(
            {folder.name for place in places for folder in place.glob(f"Dataset{dataset}_*") if folder.is_dir()}
        )
        if len(found) > 1:
            raise AttenScribbleError(
                f"the dataset ID {dataset} is taken twice ({', '.join(found)}): rename all but one"
            )
        return found[0] if found else dataset


class Prepared:
    """Plans and splits of the prepared datasets as they are now, each file read once: for a question about many cells,
    and not for longer, since a dataset may be planned again while others train.
    """

    def __init__(self, workspace: Workspace):
        self._folder = workspace.preprocessed
        self.read_plans = cache(read_plans)
        self.hash_splits = cache(self._hash_splits)

    def resolve(self, model: Model) -> dict[str, Any]:
        """The configuration of a training with all that it inherits.

        Raises:
            AttenScribbleError: there is no such plans file, or no such configuration in it.
        """
        plans = self.read_plans(self._folder / model.dataset / f"{model.plans}.json")
        return resolve_configuration(plans, model.configuration)

    def _hash_splits(self, dataset: str) -> str | None:
        """SHA-256 of a dataset's splits_final.json, None where there is none."""
        file = self._folder / dataset / "splits_final.json"
        return sha256(file) if file.is_file() else None


def open_workspace(work: Path, *, raw: Path | None = None, preprocessed: Path | None = None) -> Workspace:
    """The folders to work in.

    nnU-Net's two are, in this order: as given; those that this benchmark used before; those of the environment; inside
    the folder of the benchmark.

    Args:
        work: folder of the benchmark.
        raw: in place of nnUNet_raw.
        preprocessed: in place of nnUNet_preprocessed.

    Raises:
        AttenScribbleError: `work` is a file, or the benchmark used other folders before.
    """
    work = work.absolute()
    if work.exists() and not work.is_dir():
        raise AttenScribbleError(f"--work {work} is a file: give a folder")
    advice = "remove it, and name nnU-Net's folders once more"
    before = read_shaped(work / _FILE, _FOLDERS, advice) if (work / _FILE).is_file() else {}
    given = {"nnUNet_raw": raw, "nnUNet_preprocessed": preprocessed}
    chosen: dict[str, Path] = {}
    problems = []
    for variable, option in given.items():
        own = work / before[variable] if variable in before else None
        value = option or own or os.environ.get(variable) or work / variable
        chosen[variable] = Path(value).absolute()
        if own is not None and chosen[variable] != own:
            problems.append(
                f"{work} was made with {variable} {own}, now it is {chosen[variable]}: leave it out, give another "
                f"--work, or remove {work / _FILE}"
            )
    refuse(problems)
    return Workspace(work, chosen["nnUNet_raw"], chosen["nnUNet_preprocessed"])


def remember_folders(workspace: Workspace) -> None:
    """Make the folders, and have `open_workspace` find them again; behind the checks, which a wrong one fails."""
    work, chosen = workspace.work, {"nnUNet_raw": workspace.raw, "nnUNet_preprocessed": workspace.preprocessed}
    for folder in (work, *chosen.values()):
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
    if not (work / _FILE).is_file():
        remembered = {  # those in `work` go with it when it is moved
            variable: str(folder.relative_to(work) if folder.is_relative_to(work) else folder)
            for variable, folder in chosen.items()
        }
        write_json(work / _FILE, remembered)


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: what a reader of the progress sees.
        command: program and arguments; a bare program name is looked up by `find_command`.
        log: file that its output is appended to.
        is_done: whether there is nothing left to do; asked before, to skip, and after, to believe the exit code.
        epochs: that a training will print, for the progress.
        prepare: called right before the command, to clear away what an interrupted run left half-written.
        mark: file that gets the command's text when it ended without an error, for `is_done` to look at.
        root: folder that the mark lies in; paths below it are relative in the mark, so that it may be moved.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    is_done: Callable[[], bool]
    epochs: int | None = None
    prepare: Callable[[], None] | None = None
    mark: Path | None = None
    root: Path | None = None

    def write_mark(self) -> None:
        """Note down that the command ended, where the step has a mark."""
        if self.mark is not None:
            write_text(self.mark, shlex.join(self._make_relative(self.command)))

    def is_marked(self) -> bool:
        """Whether this command has ended, on whatever device and with however many processes."""
        if self.mark is None or not self.mark.is_file():
            return False
        ended = shlex.split(self.mark.read_text(encoding="utf-8"))
        return self._list_what_counts(ended) == self._list_what_counts(self.command)

    def _make_relative(self, command: Sequence[str]) -> list[str]:
        return [word.removeprefix(f"{self.root}{os.sep}") for word in command]

    def _list_what_counts(self, command: Sequence[str]) -> list[str]:
        counting, words = [], iter(self._make_relative(command))
        for word in words:
            if word in _OF_THE_MACHINE:
                next(words, None)  # its value
            else:
                counting.append(word)
        return counting


@dataclass(frozen=True)
class Model:
    """A training, named as nnU-Net names its folder.

    Attributes:
        dataset: `DatasetNNN_Name`.
        configuration: of the plans file.
        trainer: name of the class.
        fold: `all` or a number.
        plans: plans identifier.
    """

    dataset: str
    configuration: str
    trainer: str
    fold: str = "0"
    plans: str = "nnUNetPlans"

    def folder(self, results: Path) -> Path:
        """Where nnU-Net puts this fold below nnUNet_results."""
        return results / self.dataset / f"{self.trainer}__{self.plans}__{self.configuration}" / f"fold_{self.fold}"


def command_step(
    name: str, command: Sequence[str], log: Path, outputs: Sequence[Path] = (), *, root: Path | None = None
) -> Step:
    """A step whose files do not tell whether it ended: a mark beside the log does, as long as its `outputs` exist.

    The mark holds the command: with arguments that change its result it is another step.
    """

    def is_done() -> bool:
        return step.is_marked() and all(output.exists() for output in outputs)

    step = Step(name, tuple(command), log, is_done, mark=log.with_suffix(".done"), root=root)
    return step


def train_step(
    name: str, model: Model, results: Path, log: Path, *, epochs: int | None = None, device: str = "cpu"
) -> Step:
    """`nnUNetv2_train ... --c`: done when the final checkpoint is there, whole. nnU-Net's own validation, which comes
    behind it, is on the labels of training: nothing needs it.
    """
    folder = model.folder(results)
    command = ["nnUNetv2_train", model.dataset, model.configuration, model.fold]
    command += ["-tr", model.trainer, "-p", model.plans, "-device", device, "--c"]

    def is_done() -> bool:
        return is_whole_checkpoint(folder / FINAL_CHECKPOINT)

    def prepare() -> None:
        # nnU-Net would fail to continue from a checkpoint that was cut off while it was being written.
        for checkpoint in folder.glob("checkpoint_*.pth"):
            if not is_whole_checkpoint(checkpoint):
                checkpoint.unlink()
        # From its best one nnU-Net would go on too, which was chosen on the validation cases.
        if not any((folder / f"checkpoint_{name}.pth").is_file() for name in ("final", "latest")):
            (folder / "checkpoint_best.pth").unlink(missing_ok=True)

    return Step(name, tuple(command), log, is_done, epochs, prepare)


def predict_step(
    name: str,
    model: Model,
    results: Path,
    images: Path,
    output: Path,
    log: Path,
    *,
    device: str = "cpu",
    options: Sequence[str] = (),
    root: Path | None = None,
) -> Step:
    """`nnUNetv2_predict` of a folder of images with one fold; done when it ended with a prediction for every image.

    `options` are further ones of nnUNetv2_predict, `root` is that of the step.
    """
    command = ["nnUNetv2_predict", "-i", str(images), "-o", str(output), "-d", model.dataset, "-c", model.configuration]
    command += ["-f", model.fold, "-tr", model.trainer, "-p", model.plans, "-device", device]
    if device == "cpu":
        command += ["-npp", "0", "-nps", "0"]  # helper processes would only compete for the processor
    command += options
    predictions = [output / CHANNEL.sub(r"\1\3", image.name) for image in sorted(images.glob("*_0000.*"))]
    outputs = [*predictions, model.folder(results) / FINAL_CHECKPOINT]
    return command_step(name, command, log, outputs, root=root)


def clear_before(step: Step, *later: Step, folder: Path | None = None) -> Step:
    """The step, which before it runs takes away what it makes and the marks of the steps that follow from it."""

    def prepare() -> None:
        if step.prepare is not None:
            step.prepare()
        for other in later:
            if other.mark is not None:
                other.mark.unlink(missing_ok=True)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    return replace(step, prepare=prepare)


def nnunet_environment(
    *, raw: Path, preprocessed: Path, results: Path, trainers: Path, workers: int = 1
) -> dict[str, str]:
    """This process's environment with nnU-Net's variables replaced; `os.environ` itself stays as it is.

    Args:
        raw, preprocessed, results: nnU-Net's three folders.
        trainers: the folder for `nnUNet_extTrainer`.
        workers: processes for preprocessing, export of predictions, and the like.
    """
    return {
        **os.environ,
        "nnUNet_raw": str(raw.absolute()),
        "nnUNet_preprocessed": str(preprocessed.absolute()),
        "nnUNet_results": str(results.absolute()),
        "nnUNet_extTrainer": str(trainers.absolute()),
        "nnUNet_def_n_proc": str(workers),
        "PYTHONUNBUFFERED": "1",  # or progress would arrive in blocks of 8 kB
    }


def is_whole_checkpoint(checkpoint: Path) -> bool:
    """Whether torch finished writing it: its format is zip, whose directory comes last."""
    return checkpoint.is_file() and zipfile.is_zipfile(checkpoint)
