"""ScribbleBench: datasets whose folders are nearly those of nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nnunet_attenscribble.common.nnunet import means_ignore
from nnunet_attenscribble.common.shapes import read_json
from nnunet_attenscribble.dataset_conversion.folder import FolderOptions
from nnunet_attenscribble.dataset_conversion.raw_dataset import Writing, WrittenDatasets
from nnunet_attenscribble.errors import AttenScribbleError

_NEEDED = ("imagesTr", "labelsTr")
_FURTHER = ("labelsTr_dense", "imagesTs", "labelsTs")


def convert_scribblebench(
    folder: Path,
    *,
    dataset_id: int,
    writing: Writing,
    dense_id: int | None = None,
    classes: Mapping[str, int] | None = None,
    channels: list[str] | None = None,
    name: str | None = None,
    subject: str | None = None,
) -> WrittenDatasets:
    """Link a dataset of ScribbleBench into a numbered nnU-Net dataset, and its `labelsTr_dense` into the dense twin.

    Args:
        folder: with `imagesTr` and `labelsTr`, whose highest value is unlabelled, and perhaps `labelsTr_dense`,
            `imagesTs`, `labelsTs` and a dataset.json, in which `ignore` (or `unlabelled`), if named, must be one more
            than the classes.
        dataset_id: of the dataset.
        writing: where and how; always with links.
        dense_id: of the twin; None: the dataset's plus one where there are dense labels.
        classes: name to value; None: those of dataset.json.
        channels: names; None: those of dataset.json.
        name: of the dataset; None: that of the folder.
        subject: see `FolderOptions`.

    Raises:
        AttenScribbleError: every problem of the input, one sentence each.
    """
    if not folder.is_dir():
        raise AttenScribbleError(f"{folder}: {'is not a folder' if folder.exists() else 'does not exist'}")
    absent = [part for part in _NEEDED if not (folder / part).is_dir()]
    if absent:
        raise AttenScribbleError(
            f"{folder}: holds no {' and no '.join(absent)}: give the folder of one dataset of ScribbleBench"
        )
    told_classes, told_channels = _read_description(folder) if classes is None or channels is None else ({}, [])
    classes = told_classes if classes is None else classes
    given = folder.resolve().name  # `.` has none
    parts = {part: folder / part if (folder / part).is_dir() else None for part in _FURTHER}
    options = FolderOptions(
        folder / "imagesTr",
        dataset_id,
        name or given,
        classes,
        scribbles=folder / "labelsTr",
        dense=parts["labelsTr_dense"],
        test_images=parts["imagesTs"],
        test_labels=parts["labelsTs"],
        channels=told_channels if channels is None else channels,
        subject=subject,
        link=True,
        dense_id=dense_id,
        trust_scribbles=writing.trust_scribbles,
    )
    provenance = {
        "source": f"{given} of ScribbleBench (Gotkowski et al., MICCAI 2025)",
        "reference": "https://github.com/MIC-DKFZ/ScribbleBench",
        "license": "that of the dataset behind it",
    }
    return options.convert(writing, provenance=provenance)


def _read_description(folder: Path) -> tuple[dict[str, int], list[str]]:
    """Classes and channels of a dataset.json, nnU-Net's or the older one of the Medical Segmentation Decathlon."""
    file = folder / "dataset.json"
    if not file.exists():
        raise AttenScribbleError(f"{file}: does not exist: give --labels and --channels in its place")
    content = read_json(file, "give --labels and --channels")
    try:
        labels = content["labels"]
        if all(key.isdecimal() for key in labels):  # the older form: value to name
            labels = {name: value for value, name in labels.items()}
        channels = content.get("channel_names", content.get("modality"))
        names = [channels[str(number)] for number in range(len(channels))]
        if nameless := [name for name in labels if not isinstance(name, str)]:
            raise ValueError(f"{nameless[0]} is no name")
        values = {name: int(value) for name, value in labels.items()}
        if odd := [value for name, value in labels.items() if float(value) != values[name]]:
            raise ValueError(f"{odd[0]} is no whole number")
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError) as error:
        raise AttenScribbleError(
            f"{file}: does not tell labels and channels ({type(error).__name__}: {error}): "
            "correct it, or give --labels and --channels"
        ) from None
    unlabelled = {name: value for name, value in values.items() if means_ignore(name)}
    classes = {name: value for name, value in values.items() if value > 0 and name not in unlabelled}
    if wrong := [name for name in classes if name.casefold() == "background"]:
        raise AttenScribbleError(f"{file}: {wrong[0]} is {classes[wrong[0]]}: it must be 0, correct it")
    if not classes:
        raise AttenScribbleError(f"{file}: names no class but the background: correct it, or give --labels")
    if not all(isinstance(name, str) for name in names):
        raise AttenScribbleError(f"{file}: its channels {names} are no names: correct it, or give --channels")
    if sorted(classes.values()) != list(range(1, len(classes) + 1)):
        raise AttenScribbleError(
            f"{file}: its classes have the values {sorted(classes.values())}: they must be 1, 2, ..."
        )
    if wrong := [name for name, value in unlabelled.items() if value != len(classes) + 1]:
        raise AttenScribbleError(
            f"{file}: {wrong[0]} is {unlabelled[wrong[0]]}: nnU-Net needs one more than the highest class, "
            f"{len(classes) + 1}"
        )
    return classes, names
