"""nnU-Net's environment (what its variables name: folders, datasets, trainers), and its JSON files, checked."""

from __future__ import annotations

import gc
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from nnunet_attenscribble.common.shapes import (
    ANYTHING,
    COUNT,
    NUMBER,
    SIZE,
    TEXT,
    TRUTH,
    Shape,
    check_shape,
    is_whole,
    list_of,
    mapping,
    nullable,
    read_if_shaped,
    read_json,
    read_shaped,
)
from nnunet_attenscribble.errors import AttenScribbleError, refuse

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
VARIABLE = "nnUNet_extTrainer"
PLANS = "nnUNetPlans"  # nnU-Net's own, which its commands take unless told otherwise
#: What several trainers share; these do not train themselves.
BASES = ("nnUNetTrainerScribble", "nnUNetTrainerRival", "nnUNetTrainerTeacher", "nnUNetTrainerTwoDecoders")
_TRAINER = re.compile(r"^class (nnUNetTrainer\w+)", re.MULTILINE)
_IGNORE = re.compile(
    r"[\W_]*(ignor(e|ed|ing)|(un|no[nt])[\W_]*(labell?ed|annotated|scribbled))"
    r"([\W_]*(labels?|class|value|index|mask|regions?|areas?|voxels?|pixels?))?[\W_]*",
    re.IGNORECASE,
)


def find_folder(variable: str) -> Path | None:
    """The folder that one of nnU-Net's environment variables names; None where it is unset."""
    value = os.environ.get(variable)
    return Path(value) if value else None


def nnunet_folder(variable: str) -> Path:
    """The same; raises AttenScribbleError where the variable is unset."""
    folder = find_folder(variable)
    if folder is None:
        raise AttenScribbleError(f"{variable} is not set: export {variable}=FOLDER, as nnU-Net itself needs it")
    return folder


def dataset_folder(variable: str, dataset: str) -> Path:
    """Folder of a dataset given as ID (501) or name (Dataset501_ACDC).

    Raises:
        AttenScribbleError: if there is none, or several with this ID.
    """
    parent = nnunet_folder(variable)
    if dataset.startswith("Dataset"):
        found = [parent / dataset] if (parent / dataset).is_dir() else []
    elif dataset.isdecimal():
        found = sorted(folder for folder in parent.glob(f"Dataset{int(dataset):03d}_*") if folder.is_dir())
    else:
        raise AttenScribbleError(f"dataset '{dataset}' is neither an ID such as 501 nor a name such as Dataset501_ACDC")
    if not found:
        hint = ""
        if variable == "nnUNet_preprocessed":
            with suppress(AttenScribbleError):  # where it is not in nnUNet_raw either
                hint = f": plan {dataset_folder('nnUNet_raw', dataset).name} first"
        raise AttenScribbleError(f"no dataset {dataset} in {parent} (from {variable}){hint}")
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise AttenScribbleError(f"dataset ID {dataset} is taken twice in {parent}: {names}; rename all but one")
    return found[0]


def trainers_folder() -> Path:
    """The installed folder that `nnUNet_extTrainer` must name."""
    return Path(import_module("nnunet_attenscribble.trainers").__path__[0])


def list_trainers(*, rivals: bool = False) -> list[str]:
    """Names for `nnUNetv2_train -tr`: those of the method, or those of its published rivals."""
    folder = trainers_folder() / "rivals" if rivals else trainers_folder()
    names = {name for file in folder.glob("nnUNetTrainer*.py") for name in _TRAINER.findall(file.read_text("utf-8"))}
    return sorted(names.difference(BASES))


def exported_folders() -> list[Path]:
    """The folders that `nnUNet_extTrainer` names."""
    return [Path(folder) for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder.strip()]


# --- its JSON files ---


def begin_asking(module: str, question: Any, environment: Mapping[str, str] | None = None) -> Callable[[], Any]:
    """Begin to ask nnU-Net in a process of its own: an installation that is broken must not break whoever asks, and
    its search for trainers leaves traces in the process that it ran in.

    Args:
        module: whose function `answer` makes an object or a list of the question, both as JSON has them.
        question: what it is asked.
        environment: of the process; None for that of this one.

    Returns:
        a call that waits for the answer. It takes seconds, as torch is imported, in which others can work. It raises
        AttenScribbleError where the process failed, or its answer is none.
    """
    code = f"from {module} import answer; from {__name__} import print_answer; print_answer(answer)"
    with TemporaryFile("w+", encoding="utf-8") as file:  # a command line holds less
        json.dump(question, file)
        file.seek(0)
        asked = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
        )

    def wait() -> Any:
        try:
            output, errors = asked.communicate()
        except BaseException:  # such as Ctrl-C
            asked.kill()
            raise
        if asked.returncode != 0:
            raise AttenScribbleError(errors.strip().splitlines()[-1:] or f"exit code {asked.returncode}")
        with suppress(ValueError):  # the last line: modules may have written before it
            found = json.loads(output.rstrip().rpartition("\n")[2])
            if isinstance(found, dict | list):
                return found
        raise AttenScribbleError(f"the answer is not what was asked for: {output.strip()[-200:]!r}")

    return wait


def print_answer(answer: Callable[[Any], Any]) -> None:
    """Print the answer to the question on standard input, and end the process."""
    gc.disable()  # with what nnU-Net imports, collecting takes a tenth of the time, and clearing up at the end a fifth
    with redirect_stdout(sys.stderr):  # nnU-Net prints
        content = answer(json.load(sys.stdin))
    print(f"\n{json.dumps(content)}", flush=True)  # on a line of its own, whatever was written below Python
    os._exit(0)


def _is_label(value: Any) -> bool:
    if isinstance(value, str):
        return value.isdecimal()
    return NUMBER.accept(value) and value >= 0 and value % 1 == 0


def _is_label_or_region(value: Any) -> bool:
    return bool(value) and all(map(_is_label, value)) if isinstance(value, list) else _is_label(value)


_LABEL = Shape('a whole number, or a list of them (the name comes first: "heart": 1)', _is_label_or_region)
_CHANNELS = Shape(
    'names by number, such as {"0": "T1"}',
    lambda value: (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) and key.isdecimal() for key in value)
        and all(isinstance(name, str) for name in value.values())
    ),
)
_CASE = mapping({"images": list_of(TEXT, expected="a list of files", at_least=1), "label": TEXT})
_CASES = mapping(
    each=_CASE,
    expected='cases with their files, {"CASE": {"images": ["FILE", ...], "label": "FILE"}, ...}, each CASE a file name',
)
_CODING = {
    "labels": mapping(each=_LABEL, expected='names with their values, such as {"background": 0, "heart": 1}'),
    "file_ending": Shape('text such as ".nii.gz"', lambda value: isinstance(value, str) and bool(value)),
}
DATASET = mapping(
    {**_CODING, "channel_names": _CHANNELS},
    {
        "numTraining": COUNT,
        "dataset": replace(
            _CASES,  # files are written by their names: none may lead out of a folder
            accept=lambda value: (
                _CASES.accept(value) and all(case.strip(".") and Path(case).name == case for case in value)
            ),
        ),
        "regions_class_order": nullable(list_of(COUNT, expected="a list of whole numbers")),
        "overwrite_image_reader_writer": TEXT,
    },
)

# What nnU-Net plans comes nowhere near these; beyond, memory or years would end before a sentence is said.
_FEW, _MOST_VOXELS = 10_000, 1 << 29
_AXES = Shape(
    "a list of 2 or 3 whole numbers from 1, and no more voxels than memory holds",
    lambda value: (
        isinstance(value, list)
        and len(value) in (2, 3)
        and all(map(SIZE.accept, value))
        and math.prod(value) <= _MOST_VOXELS
    ),
)
_EDGES = Shape(
    "a list of 2 or 3 numbers above 0",
    lambda value: (
        isinstance(value, list)
        and len(value) in (2, 3)
        and all(NUMBER.accept(edge) and 0 < edge < float("inf") for edge in value)
    ),
)
_SMALL = Shape(f"a whole number from 1 to {_FEW}", lambda value: SIZE.accept(value) and value <= _FEW)
_SIZES = list_of(_SMALL, expected=f"a list of whole numbers from 1 to {_FEW}")
_STAGES = {f"n_{what}": _SIZES for what in ("conv_per_stage", "blocks_per_stage", "conv_per_stage_decoder")}
_NETWORK = {
    "n_stages": _SMALL,
    "features_per_stage": _SIZES,
    "strides": list_of(_AXES, expected="a list of strides", at_least=1),
    "kernel_sizes": list_of(_AXES, expected="a list of sizes", at_least=1),
}
#: A configuration, resolved, whose network is one of nnU-Net's convolutional ones.
CONVOLUTIONAL = mapping(
    {
        "patch_size": _AXES,
        "spacing": _EDGES,
        "median_image_size_in_voxels": _EDGES,
        "architecture": mapping({"arch_kwargs": mapping(_NETWORK, _STAGES)}),
    }
)


def _highest(value: Any) -> float:
    """Of the numbers that a value holds, however deep."""
    if isinstance(value, dict | list):
        return max(map(_highest, value.values() if isinstance(value, dict) else value), default=0)
    return value if isinstance(value, int | float) else 0


_ARGUMENTS = Shape(
    f"an object of arguments, no number in it above {_FEW}",
    lambda value: isinstance(value, dict) and _highest(value) <= _FEW,
)
_CONFIGURATION = mapping(
    optional={
        "inherits_from": TEXT,
        "data_identifier": TEXT,
        "previous_stage": nullable(TEXT),
        "patch_size": _AXES,
        "spacing": _EDGES,
        "median_image_size_in_voxels": _EDGES,
        "batch_size": SIZE,
        "architecture": mapping(optional={"arch_kwargs": _ARGUMENTS}),
        "resampling_fn_seg_kwargs": mapping(),
        "normalization_schemes": list_of(TEXT),
        "use_mask_for_norm": list_of(TRUTH),
        "attenscribble": mapping(expected="settings with their values"),
    }
)
_INTENSITIES = mapping(
    each=mapping(dict.fromkeys(("mean", "std", "percentile_00_5", "percentile_99_5"), NUMBER)),
    expected="intensities of every channel",
)
PLANS_SHAPE = mapping(
    {
        "plans_name": TEXT,
        "configurations": mapping(each=_CONFIGURATION, expected="configurations by their names"),
    },
    {"foreground_intensity_properties_per_channel": _INTENSITIES},
)
FINGERPRINT = mapping(
    {"foreground_intensity_properties_per_channel": _INTENSITIES},
    {"median_relative_size_after_cropping": NUMBER, "attenscribble": ANYTHING},
)
_FOLD = mapping({"train": list_of(TEXT, expected="a list of cases"), "val": list_of(TEXT, expected="a list of cases")})
_SPLITS = list_of(_FOLD, expected="a list of folds", at_least=1)


def read_dataset_json(
    file: Path, advice: str = "correct it: see docs/datasets.md", *, labels_only: bool = False
) -> dict[str, Any]:
    """The content of a dataset.json.

    Args:
        file: to read.
        advice: what to do where it is not in order.
        labels_only: only `labels` and `file_ending` are needed.

    Raises:
        AttenScribbleError: it cannot be read, every key that is not what nnU-Net needs, or every label that is meant as
            nnU-Net's `ignore` by its name and would be a class.
    """
    content = read_json(file, advice)
    # What nnU-Net called `modality` first, and still reads.
    old = content.get("modality") if isinstance(content, dict) else None
    if old is not None and content.setdefault("channel_names", old) != old:
        raise AttenScribbleError(f"{file}: 'channel_names' and 'modality', its old name, differ: take one out")
    check_shape(content, mapping(_CODING) if labels_only else DATASET, file, advice)
    refuse(
        f"{file}: the label '{name}' is a class like others to nnU-Net: call it ignore if it is where nobody drew, or "
        "give it another name"
        for name, entry in content["labels"].items()
        if name != "ignore" and means_ignore(name) and entry_values(entry) != (0,)
    )
    return content


def count_preprocessed(folder: Path) -> int:
    """Cases in the folder of a configuration, by the .pkl, which nnU-Net writes last of each; 0 without a folder."""
    return sum(1 for _ in folder.glob("*.pkl")) if folder.is_dir() else 0


def read_splits_json(file: Path) -> list[dict[str, list[str]]]:
    """The content of a splits_final.json.

    Raises:
        AttenScribbleError: it cannot be read, and every side of a fold that is no list of cases.
    """
    return read_shaped(file, _SPLITS, "correct it, or delete the file")


def entry_values(entry: Any) -> tuple[int, ...]:
    """Values of a label in dataset.json, of a region several; numbers in quotes count, as for nnU-Net."""
    return tuple(int(value) for value in (entry if isinstance(entry, list) else [entry]))


def name_values(labels: Mapping[str, Any], number: int) -> list[str]:
    """Names of the labels of dataset.json by value, 0 to `number` - 1; what only regions hold is called `label 2`."""
    single = {own[0]: name for name, entry in labels.items() if len(own := entry_values(entry)) == 1}
    return [single.get(value, f"label {value}") for value in range(number)]


def label_problems(labels: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What keeps nnU-Net from the values of labels in dataset.json, and what to do: they are 0, 1, 2... from
    `background` on, and `ignore`, where there is one, comes last.
    """
    problems = []
    if labels.get("background") not in (0, "0", 0.0):
        told = f"`background` is {labels['background']!r}" if "background" in labels else "has no label `background`"
        problems.append((told, "background must be there, and 0"))
    values = sorted({value for key, entry in labels.items() if key != "ignore" for value in entry_values(entry)} | {0})
    if values[-1] != len(values) - 1:
        gap = next(number for number, value in enumerate(values) if number != value)
        advice = "number the labels 0, 1, 2, ... without a gap, in dataset.json and in labelsTr"
        problems.append((f"no label is {gap}, and {values[gap]} is the next", advice))
    ignore = labels.get("ignore")
    if "ignore" in labels and (not isinstance(ignore, int) or ignore != values[-1] + 1):
        advice = f"set it to {values[-1] + 1}, one more than the highest label, in dataset.json and in labelsTr"
        problems.append((f"`ignore` is {ignore!r}", advice))
    return problems


def means_ignore(name: str) -> bool:
    """Whether a label called so is where nobody drew: `ignore`, `Unlabelled`, `un-annotated voxels`..."""
    return _IGNORE.fullmatch(name) is not None


def read_drawn_axis(dataset: Path) -> int | None:
    """Across which of z, y, x (0, 1, 2) a dataset's slices were drawn on, where its provenance names one."""
    content = read_if_shaped(dataset / "provenance.json", mapping({"options": mapping()}))
    axis = content.get("options", {}).get("axis")
    return axis if is_whole(axis) and axis in (0, 1, 2) else None
