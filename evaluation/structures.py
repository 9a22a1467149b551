"""Which labels a model knows, from the dataset.json that nnU-Net keeps beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunet_attenscribble.common.nnunet_files import entry_values, read_dataset_json
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
    content = read_dataset_json(file, "give the dataset.json of nnU-Net v2", labels_only=True)
    values_of = {name: tuple(sorted(set(entry_values(entry)))) for name, entry in content["labels"].items()}
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
