"""nnU-Net's commands as steps of a longer run, each of which knows whether it is done.

What has been done is read from what nnU-Net left behind, never from a list kept elsewhere: a model that somebody
trained by hand counts, and one whose files were deleted does not.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_attenscribble.common.writing import write_text

__all__ = ["Model", "Step", "command_step", "is_whole", "nnunet_environment", "predict_step", "train_step"]

# Options, each with one value, that tell where and in how many processes a command runs, and nothing of what comes out.
_OF_THE_MACHINE = ("--workers", "-device", "--device", "-npp", "-nps")


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
        ended = shlex.split(self.mark.read_text())
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
    """`nnUNetv2_train ... --c`: done when the final checkpoint and the validation's summary are there."""
    folder = model.folder(results)
    command = ["nnUNetv2_train", model.dataset, model.configuration, model.fold]
    command += ["-tr", model.trainer, "-p", model.plans, "-device", device, "--c"]

    def is_done() -> bool:
        return is_whole(folder / "checkpoint_final.pth") and _is_json(folder / "validation" / "summary.json")

    def prepare() -> None:
        # nnU-Net would fail to continue from a checkpoint that was cut off while it was being written.
        for checkpoint in folder.glob("checkpoint_*.pth"):
            if not is_whole(checkpoint):
                checkpoint.unlink()

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
    ending = re.compile(r"_\d{4}(\.[^/]+)$")  # of an image: channel and file type
    predictions = [output / ending.sub(r"\1", image.name) for image in sorted(images.glob("*_0000.*"))]
    outputs = [*predictions, model.folder(results) / "checkpoint_final.pth"]
    return command_step(name, command, log, outputs, root=root)


def nnunet_environment(
    *, raw: Path, preprocessed: Path, results: Path, trainers: Path, workers: int = 1, augmentation_workers: int = 1
) -> dict[str, str]:
    """This process's environment with nnU-Net's variables replaced; `os.environ` itself stays as it is.

    Args:
        raw, preprocessed, results: nnU-Net's three folders.
        trainers: the folder for `nnUNet_extTrainer`.
        workers: processes for preprocessing, export of predictions, and the like.
        augmentation_workers: processes that augment while a network trains.
    """
    return {
        **os.environ,
        "nnUNet_raw": str(raw.absolute()),
        "nnUNet_preprocessed": str(preprocessed.absolute()),
        "nnUNet_results": str(results.absolute()),
        "nnUNet_extTrainer": str(trainers.absolute()),
        "nnUNet_def_n_proc": str(workers),
        "nnUNet_n_proc_DA": str(augmentation_workers),
        "PYTHONUNBUFFERED": "1",  # or progress would arrive in blocks of 8 kB
    }


def is_whole(checkpoint: Path) -> bool:
    """Whether torch finished writing it: its format is zip, whose directory comes last."""
    return checkpoint.is_file() and zipfile.is_zipfile(checkpoint)


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text())
    except (OSError, ValueError):
        return False
    return True
