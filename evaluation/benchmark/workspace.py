"""Where a benchmark keeps what: nnU-Net's folders, the cells, and what is remembered between calls."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from nnunet_attenscribble.common.shapes import TEXT, mapping, read_shaped
from nnunet_attenscribble.common.writing import naming, write_json
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark.steps import Model
from nnunet_attenscribble.plans import read_plans, resolve_configuration

__all__ = ["Prepared", "Workspace", "open_workspace"]

_FILE = "benchmark.json"
_FOLDERS = mapping({"nnUNet_raw": TEXT, "nnUNet_preprocessed": TEXT})


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

    def find_dataset(self, dataset: str) -> str:
        """`DatasetNNN_Name` of a name or a three-digit ID; the ID itself where there is no such dataset yet.

        Raises:
            AttenScribbleError: several datasets have this ID.
        """
        if not dataset.isdecimal():
            return dataset
        places = (self.raw, self.preprocessed)
        found = sorted({folder.name for place in places for folder in place.glob(f"Dataset{dataset}_*")})
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
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def open_workspace(work: Path, *, raw: Path | None = None, preprocessed: Path | None = None, write: bool) -> Workspace:
    """The folders to work in.

    nnU-Net's two are, in this order: as given; those that this benchmark used before; those of the environment; inside
    the folder of the benchmark.

    Args:
        work: folder of the benchmark.
        raw: in place of nnUNet_raw.
        preprocessed: in place of nnUNet_preprocessed.
        write: make the folders and remember them.

    Raises:
        AttenScribbleError: `work` is a file, or the benchmark used other folders before.
    """
    work = work.absolute()
    if work.exists() and not work.is_dir():
        raise AttenScribbleError(f"--work {work} is a file: give a folder")
    before = _read(work / _FILE)
    given = {"nnUNet_raw": raw, "nnUNet_preprocessed": preprocessed}
    chosen: dict[str, Path] = {}
    problems = []
    for variable, option in given.items():
        own = work / before[variable] if variable in before else None
        value = option or own or os.environ.get(variable) or work / variable
        chosen[variable] = Path(value).absolute()
        if own is not None and chosen[variable] != own:
            problems.append(
                f"{work} was made with {variable} {own}, now it is {chosen[variable]}: leave it out, or give another "
                "--work"
            )
    if problems:
        raise AttenScribbleError(problems)
    if write:
        for folder in (work, *chosen.values()):
            with naming(folder):
                folder.mkdir(parents=True, exist_ok=True)
        if not before:
            remembered = {  # those in `work` go with it when it is moved
                variable: str(folder.relative_to(work) if folder.is_relative_to(work) else folder)
                for variable, folder in chosen.items()
            }
            write_json(work / _FILE, remembered)
    return Workspace(work, chosen["nnUNet_raw"], chosen["nnUNet_preprocessed"])


def _read(file: Path) -> Mapping[str, str]:
    if not file.is_file():
        return {}
    return read_shaped(file, _FOLDERS, "remove it, and name nnU-Net's folders once more")
