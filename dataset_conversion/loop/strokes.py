"""Strokes that were drawn since, brought into a raw dataset: labels, new cases, dataset.json and folds together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.files import encode_json, replaced_files, reserved
from nnunet_attenscribble.common.formats import find_sidecar
from nnunet_attenscribble.common.nnunet import read_dataset_json, read_splits_json
from nnunet_attenscribble.common.readers import Reader, write_label
from nnunet_attenscribble.common.shapes import read_json
from nnunet_attenscribble.common.volumes import file_of, write_volume
from nnunet_attenscribble.dataset_conversion.loop.folder import Addition
from nnunet_attenscribble.dataset_conversion.plan_problems import folder_problems, identifier_problems
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["add_strokes", "new_case_problems"]

_SPLITS = "splits_final.json"


def add_strokes(raw: Path, preprocessed: Path, additions: Sequence[Addition], reader: Reader) -> None:
    """Write the labels of `additions` into a dataset; what is no training case yet becomes one.

    New cases are copied into imagesTr, or moved there from the dataset's own imagesTs, and belong to the training side
    of every fold. Everything is read and checked before the first file is changed, and all files change or none.

    Args:
        raw: DatasetNNN_Name in nnUNet_raw.
        preprocessed: its folder in nnUNet_preprocessed, if it is there: nnU-Net trains by its folds.
        additions: see `folder.read_additions`.
        reader: of the dataset.

    Raises:
        AttenScribbleError: every problem.
    """
    raw, preprocessed = (Path(os.path.abspath(place)) for place in (raw, preprocessed))
    new = [addition for addition in additions if addition.case.label is None]
    places = [place for place in (raw, preprocessed) if place.is_dir()]
    texts: dict[Path, Any] = {}
    problems = []
    for place in places:
        try:
            if (place / "dataset.json").is_file():
                texts[place / "dataset.json"] = _add_cases(read_dataset_json(place / "dataset.json"), new)
            if (place / _SPLITS).is_file():
                texts[place / _SPLITS] = _add_to_folds(read_splits_json(place / _SPLITS), new)
        except AttenScribbleError as error:
            problems += error.problems
    provenance = _read_provenance(raw / "provenance.json", additions)
    problems += new_case_problems(raw, {addition.case.identifier: addition.case.images for addition in new})
    problems += [problem for place in places for problem in folder_problems(place, None)]
    problems += [
        f"{file}: the label of case {addition.case.identifier} lies in another dataset: copy it into labelsTr, and "
        "correct dataset.json"
        for addition in additions
        if addition.case.label is not None and raw not in (file := _label_file(addition)).parents
    ]
    if problems:
        raise AttenScribbleError(problems)
    ending = texts[raw / "dataset.json"]["file_ending"]
    texts = texts if new else {}
    texts |= {} if provenance is None else {raw / "provenance.json": provenance}
    with reserved(raw.parent, [raw.name[7:10]], "dataset ID"), replaced_files(*places) as stage:
        for addition in additions:  # labels first: nnU-Net passes over a label without an image, and not the reverse
            is_new = addition.case.label is None
            name = f"{addition.case.identifier}{ending}"
            _write(addition, stage(raw / "labelsTr" / name if is_new else _label_file(addition)), reader)
        for addition in new:
            for image in addition.case.images:
                shutil.copyfile(image, stage(raw / "imagesTr" / image.name))
                if (sidecar := find_sidecar(image)) is not None:
                    shutil.copyfile(sidecar, stage(raw / "imagesTr" / sidecar.name))
        for file, content in texts.items():
            stage(file).write_text(encode_json(content), encoding="utf-8")
    for addition in new:
        for image in addition.case.images:
            if image.resolve().parent == (raw / "imagesTs").resolve():
                image.unlink()


def new_case_problems(raw: Path, images: Mapping[str, Sequence[Path]]) -> list[str]:
    """What keeps cases from becoming training cases.

    Args:
        raw: the dataset.
        images: files of each case.
    """
    problems = identifier_problems(list(images))
    for case, files in images.items():
        if any(file.name.startswith(f"{case}.") for file in _list(raw / "labelsTs")):
            problems.append(
                f"case {case}: is a test case, with a dense label in {raw / 'labelsTs'}: a model that was trained with "
                "it cannot be scored with it; give other images"
            )
        for file in files:
            place = raw / "imagesTr" / file.name
            if place.is_file() and place.read_bytes() != file.read_bytes():
                problems.append(f"{file}: {place} is another image of this name: rename one of the two")
    return problems


def _label_file(addition: Addition) -> Path:
    """Of a training case."""
    file = file_of(addition.case.label)
    assert file is not None  # nnU-Net's datasets have files
    return Path(os.path.abspath(file))


def _list(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _add_cases(content: dict[str, Any], new: Sequence[Addition]) -> dict[str, Any]:
    """A dataset.json with more cases."""
    if "numTraining" in content:
        content["numTraining"] += len(new)
    for addition in new if "dataset" in content else ():
        name = addition.case.identifier
        images = [f"imagesTr/{image.name}" for image in addition.case.images]
        content["dataset"][name] = {"images": images, "label": f"labelsTr/{name}{content['file_ending']}"}
    return content


def _add_to_folds(folds: list[dict[str, list[str]]], new: Sequence[Addition]) -> list[dict[str, list[str]]]:
    names = [addition.case.identifier for addition in new]
    return [
        {**fold, "train": [*fold["train"], *(name for name in names if name not in (*fold["train"], *fold["val"]))]}
        for fold in folds
    ]


def _read_provenance(file: Path, additions: Sequence[Addition]) -> dict[str, Any] | None:
    """With what is added; None where there is none that could be added to."""
    try:
        content = read_json(file, "") if file.is_file() else None
    except AttenScribbleError:
        return None
    if not isinstance(content, dict):
        return None
    rounds = content.get("strokes_added")
    added = {addition.case.identifier: dict(addition.added) for addition in additions}
    return {**content, "strokes_added": [*(rounds if isinstance(rounds, list) else []), added]}


def _write(addition: Addition, target: Path, reader: Reader) -> None:
    label, case = addition.label, addition.case
    grid = case.read_grid(as_nnunet=True)
    label = label if len(grid.size) == 3 else label[0]
    if reader is not None:
        like = file_of(case.label) if case.label is not None else case.images[0]
        assert like is not None
        write_label(label, like, target, reader)
        return
    image = sitk.GetImageFromArray(np.ascontiguousarray(label))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    write_volume(image, target)
