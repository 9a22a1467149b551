"""The YAML file of a benchmark, checked and made into a dataclass. `docs/benchmark.md` describes its keys."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

from nnunet_attenscribble.common.shapes import (
    COUNT,
    SIZE,
    TRUTH,
    Keys,
    is_whole,
    pattern,
    read_keys,
    text,
    texts,
    words,
)
from nnunet_attenscribble.errors import refuse

#: The end of a training, which nnU-Net selects on no case.
FINAL_CHECKPOINT = "checkpoint_final.pth"
_OWN_OPTIONS = ("-i", "-o", "-d", "-c", "-f", "-tr", "-p", "-device", "-m")
_DEVICES = ("cpu", "cuda", "mps")
#: Told of the file before anything is prepared, and again where a name and an ID turn out to be one.
SAME_DATASET = "'datasets' names {} twice: each is a dataset of its own"
_SUPERVISION = ("scribble", "dense")
_DATASET = "an ID such as 501 or a name such as Dataset501_ACDC"


@dataclass(frozen=True)
class Row:
    """One row of the table: a trainer on a configuration, with one kind of labels.

    Attributes:
        name: as it stands in the table.
        trainer: nnU-Net's `-tr`.
        labels: that it is trained on: `dense`, `scribble`, or the name of further scribbles of the same cases.
        configuration: of the plans file.
    """

    name: str
    trainer: str
    labels: str
    configuration: str

    @property
    def folder(self) -> str:
        """The name, as the name of a folder."""
        return name_folder(self.name)

    @property
    def on_scribbles(self) -> bool:
        """Whether it is trained on scribbles, whichever."""
        return self.labels != "dense"


@dataclass(frozen=True)
class Preparation:
    """A command that is run once, before any training.

    Attributes:
        name: what a reader of the progress sees.
        command: program and arguments, with variables such as `$nnUNet_raw` still in them.
        creates: paths that exist afterwards, with variables. Behind a plans file, `#NAME` asks for a configuration.
    """

    name: str
    command: tuple[str, ...]
    creates: tuple[str, ...]


@dataclass(frozen=True)
class Slurm:
    """What `sbatch` is asked for, per cell.

    Attributes:
        partition: None leaves the cluster's default, here and below.
        gpus: `--gres=gpu:GPUS`, so `1` or `a100:1`.
        cpus: `--cpus-per-task`.
        memory: `--mem`.
        time: `--time`; a number would be minutes.
        at_once: how many cells may run at a time.
        options: further options of sbatch, as they stand there.
        setup: lines of the shell before the command, such as `source venv/bin/activate`.
    """

    partition: str | None = None
    gpus: str | None = "1"
    cpus: int = 8
    memory: str | None = None
    time: str | None = None
    at_once: int | None = None
    options: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark file asks for. Paths and commands may hold variables of the environment."""

    name: str
    scribble: str
    dense: str
    rows: tuple[Row, ...]
    reference: str
    test_images: str | None  # None: the validation patients of the fold
    test_labels: str | None
    plans: str
    folds: tuple[str, ...]
    seeds: tuple[int, ...]
    subject: str | None
    device: str
    threads: int | None
    prefix: tuple[str, ...]
    workers: int
    augmentation_workers: int | None
    predict: tuple[str, ...]
    checkpoint: str  # that `predict` asks for
    evaluate: tuple[str, ...]
    postprocess: bool
    unequal_budgets: bool
    prepare: tuple[Preparation, ...]
    slurm: Slurm
    further: Mapping[str, str]  # scribbles of the same cases, such as fewer of them

    @property
    def datasets(self) -> dict[str, str]:
        """Names or IDs by what rows call them."""
        return {"scribble": self.scribble, **self.further, "dense": self.dense}

    def dataset_of(self, row: Row) -> str:
        """Name or ID of the dataset that a row is trained on."""
        return self.datasets[row.labels]


def read_benchmark(file: Path) -> Benchmark:
    """Read and check a benchmark file.

    Raises:
        AttenScribbleError: every unknown key and every value that cannot be.
    """
    problems: list[str] = []
    benchmark = _read(read_keys(file, problems, "give the YAML file of a benchmark, see docs/benchmark.md"))
    refuse(f"{file}: {problem}" for problem in problems)
    return benchmark


def name_folder(name: str) -> str:
    """A name as that of a folder: lower case, everything but letters and digits an underscore."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _read(keys: Keys) -> Benchmark:
    keys.check_names(
        [
            *("name", "datasets", "plans", "configurations", "folds", "seeds", "rows", "reference", "test", "subject"),
            *("device", "threads", "prefix", "workers", "augmentation_workers", "predict", "evaluate"),
            *("postprocess", "unequal_budgets", "prepare", "slurm"),
        ]
    )
    name = keys.take("name", text, "the benchmark's name")
    scribble, dense, further = _read_datasets(keys)
    configurations = keys.take("configurations", texts, "a list of configurations such as [2d]", ())
    rows = _read_rows(keys, configurations, (*_SUPERVISION, *further))
    folds = keys.take("folds", _folds, "a list of folds: numbers from 0, or all", ("0",))
    images, labels = _read_test(keys, folds)
    predict = keys.take("predict", words, "options of nnUNetv2_predict, as a list or as one line", ())
    checkpoint = _read_checkpoint(predict, images, keys.problems)
    return Benchmark(
        name=name,
        scribble=scribble,
        dense=dense,
        rows=rows,
        reference=_read_reference(keys, rows) or "",  # then there is a problem, and nobody uses this
        test_images=images,
        test_labels=labels,
        plans=keys.take("plans", text, "the name of the plans", "nnUNetPlans"),
        folds=folds,
        seeds=keys.take("seeds", _seeds, "a list of different whole numbers from 0", (0,)),
        subject=keys.take("subject", pattern, "a regular expression that finds the subject in a case's name", None),
        device=keys.take("device", lambda value: value if value in _DEVICES else None, "cpu, cuda or mps", "cuda"),
        threads=keys.take_shape("threads", SIZE, None),
        prefix=keys.take("prefix", words, "a command such as [taskset, -c, '0']", ()),
        workers=keys.take_shape("workers", SIZE, 1),
        augmentation_workers=keys.take_shape("augmentation_workers", COUNT, None),
        predict=predict,
        checkpoint=checkpoint,
        evaluate=keys.take("evaluate", words, "options of attenscribble evaluate, as a list or as one line", ()),
        postprocess=keys.take_shape("postprocess", TRUTH, False),
        unequal_budgets=keys.take_shape("unequal_budgets", TRUTH, False),
        prepare=_read_preparations(keys),
        slurm=_read_slurm(keys),
        further=further,
    )


def _read_datasets(keys: Keys) -> tuple[Any, Any, dict[str, str]]:
    datasets = keys.mapping("datasets")
    scribble, dense = (datasets.take(kind, _dataset, _DATASET) for kind in _SUPERVISION)
    further = {}
    for key in datasets.content:
        if key in _SUPERVISION:
            continue
        if not isinstance(key, str) or not name_folder(key) or "=" in key:
            keys.problems.append(f"'datasets' names scribbles {key!r}: give a name of letters, such as half")
        else:
            further[key] = datasets.take(key, _dataset, _DATASET)
    found = [name for name in (scribble, dense, *further.values()) if name is not None]
    keys.problems += [SAME_DATASET.format(name) for name in dict.fromkeys(found) if found.count(name) > 1]
    return scribble, dense, further


def _read_rows(keys: Keys, configurations: Sequence[str], known: Sequence[str]) -> tuple[Row, ...]:
    what = f"{', '.join(known[:-1])} or {known[-1]}, or a list of them"
    rows = []
    for entry in keys.mappings("rows"):
        entry.check_names(["name", "trainer", "labels", "configuration"])
        name = entry.take("name", _row_name, "the row's name, without '=', behind which `compare` expects a folder")
        trainer = entry.take("trainer", text, "the name of a trainer such as nnUNetTrainerAttenScribble")
        kinds = entry.take("labels", lambda value: _labels(value, known), what) or ("",)
        own = entry.take("configuration", text, "the name of a configuration", None)
        if own is None and not configurations:
            keys.problems.append(f"'{entry.where}configuration' is missing, and there are no 'configurations' for all")
        for kind, configuration in product(kinds, [own] if own else configurations):
            of_several = [kind] if len(kinds) > 1 and kind != "scribble" else []
            of_several += [configuration] if len(configurations) > 1 and not own else []
            whole = f"{name} ({', '.join(of_several)})" if of_several else name
            rows.append(Row(whole, trainer, kind, configuration))
    if not rows and not keys.problems:
        keys.problems.append("'rows' is missing: it must be a list of rows, each with name, trainer and labels")
    used = {*_SUPERVISION, *(row.labels for row in rows)}
    keys.problems += [
        f"'datasets.{kind}' is in the labels of no row: leave it out, or name it there"
        for kind in known
        if kind not in used and rows
    ]
    folders = [name_folder(str(row.name)) for row in rows]
    for row, folder in zip(rows, folders, strict=True):
        if row.name and (folders.count(folder) > 1 or not folder):
            keys.problems.append(f"the row '{row.name}' needs another name: its folder '{folder}' is not its own")
    trainings: dict[tuple, str] = {}
    for row in rows:
        same = trainings.setdefault((row.trainer, row.labels, row.configuration), row.name)
        if row.name and same != row.name:
            keys.problems.append(f"the rows '{same}' and '{row.name}' are the same training: leave one of them out")
    return tuple(rows)


def _read_reference(keys: Keys, rows: Sequence[Row]) -> str | None:
    dense = [row.name for row in rows if not row.on_scribbles]
    name = keys.take("reference", text, "the name of a row", dense[0] if len(dense) == 1 else None)
    if name not in dense and rows:
        known = ", ".join(f"'{row}'" for row in dense) or "none"
        keys.problems.append(f"'reference' must name a row trained on dense labels; there are {known}")
    return name


def _read_test(keys: Keys, folds: Sequence[str]) -> tuple[str | None, str | None]:
    value = keys.content.get("test")
    if value == "validation":
        if "all" in folds:
            keys.problems.append(
                "'test' is validation and a fold is 'all', which validates on what it trains with: give 'test' folders"
            )
        return None, None
    expected = "'validation', or a mapping with the folders 'images' and 'labels'"
    if not isinstance(value, Mapping):
        keys.problems.append(
            f"'test' is {value!r}: it must be {expected}" if value else f"'test' is missing: {expected}"
        )
        return None, None
    test = keys.mapping("test")
    test.check_names(["images", "labels"])
    return test.take("images", text, "a folder of images"), test.take("labels", text, "a folder of dense labels")


class _Options(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _read_checkpoint(options: Sequence[str], images: str | None, problems: list[str]) -> str:
    """The checkpoint that nnUNetv2_predict is to load. nnU-Net's best one is the best for the validation patients."""
    # With argparse, as nnU-Net does: it also takes -chk=NAME, -fNAME and shortened names.
    parser = _Options(add_help=False)
    for own in _OWN_OPTIONS:
        parser.add_argument(own, dest=own, nargs="*")
    parser.add_argument("-chk", dest="checkpoint", default=FINAL_CHECKPOINT)
    for other in ("-part_id", "-prev_stage_predictions"):  # not -p with a value
        parser.add_argument(other)
    try:
        found, _ = parser.parse_known_args(options)
    except ValueError as error:
        problems.append(f"'predict' cannot be read ({error}): give options as nnUNetv2_predict --help names them")
        return FINAL_CHECKPOINT
    for own in _OWN_OPTIONS:
        if getattr(found, own) is not None:
            problems.append(
                f"'predict' holds {own}, which the benchmark itself gives to nnUNetv2_predict: leave it out"
            )
    if images is None and found.checkpoint != FINAL_CHECKPOINT:
        problems.append(
            f"'predict' asks for {found.checkpoint}; nnU-Net selects checkpoint_best.pth on the validation patients, "
            f"these are the test set, and only {FINAL_CHECKPOINT} is sure to be selected on none: leave it out, or "
            "give 'test' folders"
        )
    return found.checkpoint


def _read_preparations(keys: Keys) -> tuple[Preparation, ...]:
    found = []
    for entry in keys.mappings("prepare"):
        entry.check_names(["name", "command", "creates"])
        found.append(
            Preparation(
                entry.take("name", text, "a name"),
                entry.take("command", words, "a command, as a list or as one line", ()),
                entry.take("creates", texts, "a list of paths that exist afterwards", ()),
            )
        )
        if not found[-1].command:
            keys.problems.append(f"'{entry.where}command' is missing")
    names = [name_folder(str(step.name)) for step in found]
    keys.problems += [f"'prepare' has two commands called '{name}'" for name in set(names) if names.count(name) > 1]
    return tuple(found)


def _read_slurm(keys: Keys) -> Slurm:
    slurm = keys.mapping("slurm")
    slurm.check_names([field.name for field in fields(Slurm)])
    lines = "a list of lines"
    gpus = slurm.take("gpus", text, "a number or TYPE:NUMBER; 0 for none", Slurm.gpus)
    return Slurm(
        partition=slurm.take("partition", text, "the name of a partition", None),
        gpus=None if gpus == "0" else gpus,
        cpus=slurm.take_shape("cpus", SIZE, Slurm.cpus),
        memory=slurm.take("memory", text, "as sbatch takes it, such as 32G", None),
        time=slurm.take("time", _time, "as sbatch takes it and in quotes, such as '24:00:00'", None),
        at_once=slurm.take_shape("at_once", SIZE, None),
        options=slurm.take("options", texts, lines, ()),
        setup=slurm.take("setup", texts, lines, ()),
    )


def _time(value: Any) -> str | None:
    # YAML reads 24:00:00 without quotes as a number of seconds, which sbatch would take for minutes.
    return value if isinstance(value, str) else None


def _row_name(value: Any) -> str | None:
    name = text(value)
    return None if name is None or "=" in name else name


def _dataset(value: Any) -> str | None:
    name = text(value)
    if name is None:
        return None
    if name.isdecimal() and 0 < int(name) < 1000:
        return f"{int(name):03d}"
    return name if re.fullmatch(r"Dataset\d{3}_\S+", name) else None


def _labels(value: Any, known: Sequence[str]) -> tuple[str, ...] | None:
    entries = value if isinstance(value, list) else [value]
    good = entries and all(isinstance(entry, str) and entry in known for entry in entries)
    return tuple(entries) if good and len(entries) == len(set(entries)) else None


def _folds(value: Any) -> tuple[str, ...] | None:
    entries = value if isinstance(value, list) else [value]
    found = [str(entry) for entry in entries if entry == "all" or (is_whole(entry) and entry >= 0)]
    return tuple(found) if found and len(found) == len(entries) == len(set(found)) else None


def _seeds(value: Any) -> tuple[int, ...] | None:
    good = isinstance(value, list) and value and all(is_whole(entry) and entry >= 0 for entry in value)
    return tuple(value) if good and len(set(value)) == len(value) else None
