"""Which labels a model knows, from the dataset.json that nnU-Net keeps beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["LabelCoding", "Structure", "find_dataset_json", "list_model_folders", "read_label_coding"]


@dataclass(frozen=True)
class Structure:
    """A label, or a region of several labels, that is scored as one thing."""

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class LabelCoding:
    """What the voxels of a dataset may hold.

    Attributes:
        structures: what is scored: every label or region but background and `ignore`, in the file's order.
        allowed: every value that a dense label or a prediction may hold, background included.
        ignore: the value of unlabelled voxels in scribbles, or None.
        file_ending: of the dataset's files, with its dot.
    """

    structures: tuple[Structure, ...]
    allowed: frozenset[int]
    ignore: int | None
    file_ending: str


def read_label_coding(file: Path) -> LabelCoding:
    """Read `labels` and `file_ending` of an nnU-Net dataset.json; regions are lists of values.

    Raises:
        AttenScribbleError: unreadable file, or entries that nnU-Net would not accept either.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AttenScribbleError(f"{file} cannot be read as JSON ({error}): give nnU-Net's dataset.json") from error
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or not isinstance(content.get("file_ending"), str):
        raise AttenScribbleError(
            f"{file} has no 'labels' or no 'file_ending': give the dataset.json of nnU-Net v2, "
            "whose labels read like {'background': 0, 'RV': 1}"
        )
    values_of = {name: _read_values(value) for name, value in labels.items()}
    problems = [
        f"{file}: label {name!r} is {labels[name]!r}; it must be a whole number from 0 on, or a list of such"
        for name, values in values_of.items()
        if not values
    ]
    if problems:
        raise AttenScribbleError(problems)
    ignored = values_of.pop("ignore", None)
    structures = tuple(Structure(name, values) for name, values in values_of.items() if values != (0,))
    if not structures:
        raise AttenScribbleError(f"{file} names no label but the background: there is nothing to score")
    return LabelCoding(
        structures=structures,
        allowed=frozenset({0}.union(*values_of.values())),
        ignore=None if ignored is None else ignored[0],
        file_ending=content["file_ending"],
    )


def find_dataset_json(predictions: Path, dense: Path) -> Path:
    """The dataset.json that says which labels a folder of predictions holds.

    Looked for beside the predictions (`nnUNetv2_predict` copies it there), then in the model's folder, then in and
    beside the folder of dense labels.

    Raises:
        AttenScribbleError: there is none.
    """
    for place in (*list_model_folders(predictions), dense, dense.resolve().parent):
        if (place / "dataset.json").is_file():
            return place / "dataset.json"
    raise AttenScribbleError(
        f"no dataset.json beside the predictions ({predictions}), in their model's folder or beside the dense labels "
        f"({dense}): name it with --dataset-json, it says which labels there are"
    )


def list_model_folders(predictions: Path) -> tuple[Path, ...]:
    """Where nnU-Net leaves the files of a model, dataset.json and plans.json, for a folder of its predictions.

    That is the folder itself, and two levels above `fold_X/validation`.
    """
    fold = predictions.resolve().parent
    return (predictions, fold.parent) if fold.name.startswith("fold_") else (predictions,)


def _read_values(value: object) -> tuple[int, ...]:
    entries = value if isinstance(value, list) else [value]
    if all(isinstance(entry, int) and not isinstance(entry, bool) and entry >= 0 for entry in entries):
        return tuple(sorted(set(entries)))
    return ()
