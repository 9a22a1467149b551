"""WSL4MIS's h5 volumes: image, scribble and dense label in one file, without a spacing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.files import find_files
from nnunet_attenscribble.common.soundness import room_problems
from nnunet_attenscribble.common.text import normalise, read_table
from nnunet_attenscribble.dataset_conversion.acdc import LABELS
from nnunet_attenscribble.dataset_conversion.cases import Case
from nnunet_attenscribble.dataset_conversion.meanings import PRESETS, ScribbleCoding, dense_values, scribble_values
from nnunet_attenscribble.dataset_conversion.plan_problems import spacing_problems
from nnunet_attenscribble.dataset_conversion.raw_dataset import RawDataset, Writing, WrittenDatasets, write_raw_datasets
from nnunet_attenscribble.dataset_conversion.splits import acdc_folds, group_by_subject, make_splits
from nnunet_attenscribble.errors import AttenScribbleError, refuse

_PATIENT = re.compile(r"(patient|case)(\d+)", re.IGNORECASE)  # as names in ACDC begin; T1_patient001 does not


def convert_h5(
    folder: Path,
    *,
    dataset_id: int,
    writing: Writing,
    spacing: Sequence[float] | None = None,
    spacing_csv: Path | None = None,
    classes: Mapping[str, int] | None = None,
    dense_id: int | None = None,
    name: str = "ACDCh5",
    split: str = "nnunet",
    subject: str | None = None,
    coding: ScribbleCoding = PRESETS["acdc"],
) -> WrittenDatasets:
    """Write h5 volumes as a scribble dataset and, where all have a `label`, its dense twin.

    Files hold `image`, `scribble` and perhaps `label`, each (z, y, x). They say nothing of spacing, origin and
    direction: the spacing must be given, the origin becomes 0 and the axes are not turned.

    Args:
        folder: with the files, whose names begin with the patient, as in `patient019_frame01.h5` or `case019.h5`;
            others count as a patient each.
        spacing: of every volume along x, y, z (mm).
        spacing_csv: in place of it, a table with the columns case, sx, sy, sz, and perhaps nx, ny, nz to be checked.
        classes: name to value, without background; None: those of ACDC.
        dataset_id: of the dataset.
        writing: where and how.
        dense_id: of the twin; None: the dataset's plus one where there are dense labels.
        name: of the dataset.
        split: `nnunet` (five folds, drawn by patient), or for ACDC's patients `contiguous` or `maag`.
        subject: regular expression that finds the patient elsewhere in a name, as its first group or the whole match.
        coding: of the scribbles.

    Raises:
        AttenScribbleError: every problem of the input, one sentence each.
    """
    if (spacing is None) == (spacing_csv is None):
        raise AttenScribbleError(
            "h5 files hold no spacing: give --spacing-csv FILE, or --spacing with three numbers (x y z)"
        )
    classes = {name: value for name, value in LABELS.items() if value > 0} if classes is None else classes
    labels = {"background": 0, **{name: value for value, name in enumerate(classes, start=1)}}
    values = scribble_values(labels, coding, classes)
    files = [file for file in find_files(folder) if file.suffix.lower() in (".h5", ".hdf5")]
    if not files:
        raise AttenScribbleError(f"{folder}: holds no .h5 file: give the folder ACDC_training_volumes")
    table = None if spacing_csv is None else read_spacing(spacing_csv)
    problems = spacing_problems(spacing)
    refuse(problems)
    cases: list[Case] = []
    for file in files:
        try:
            edges, size = tuple(spacing or ()), None
            if table is not None and spacing_csv is not None:
                edges, size = _look_up(table, file, spacing_csv)
            keys = _check(file, size, spacing_csv)
        except AttenScribbleError as error:
            problems += error.problems
            continue
        read = {key: partial(_read, file, key, edges) for key in keys}
        cases.append(Case(file.stem, (read["image"],), read["scribble"], read.get("label"), inputs=(file,)))
    if not cases:
        raise AttenScribbleError(problems)
    dense_less = sum(case.dense is None for case in cases)
    if dense_id is None and not dense_less:
        dense_id = dataset_id + 1
    by_patient, told, more = _group([case.identifier for case in cases], subject)
    problems += more
    is_numbered = subject is None and all(isinstance(patient, int) for patient in by_patient)
    folds = acdc_folds(split, by_patient if is_numbered else ())
    if folds is not None and not is_numbered:
        folds = None
        problems.append(
            f"split {split!r}: goes by the patient numbers of ACDC, so every name must begin like "
            "patient019_frame01.h5, and --subject cannot be given: correct that, or choose nnunet"
        )
    splits, notes = make_splits(by_patient, folds, problems)
    notes = told + notes
    if dense_id is None and dense_less < len(cases):
        notes.append(f"no dense twin: {dense_less} of {len(cases)} files hold no label")
    notes.append("h5 files hold neither origin nor direction: the origin is 0 and the axes are not turned")
    return write_raw_datasets(
        cases,
        RawDataset(
            dataset_id=dataset_id,
            name=name,
            channel_names={0: "MRI"},
            labels=labels,
            scribble_values=values,
            dense_values=dense_values(labels, classes),
            provenance={
                "source": "h5 volumes in the form of WSL4MIS (Luo et al., MICCAI 2022)",
                "reference": "https://github.com/HiLab-git/WSL4MIS",
                "license": "that of the images",
                "options": {
                    "split": split,
                    "subject": subject,
                    "spacing": list(spacing or ()) if spacing_csv is None else spacing_csv.name,
                    "coding": vars(coding),
                },
            },
            dense_id=dense_id,
            splits=splits,
        ),
        writing,
        problems=problems,
        notes=notes,
    )


def read_spacing(file: Path) -> dict[str, tuple[tuple[float, ...], tuple[int, ...] | None]]:
    """By case: the spacing (x, y, z, mm), and the size (x, y, z) where the table has it.

    Raises:
        AttenScribbleError: for every row that cannot be understood.
    """
    columns, rows = read_table(file)
    absent = [column for column in ("case", "sx", "sy", "sz") if column not in columns]
    if absent:
        raise AttenScribbleError(f"{file}: has no column {', '.join(absent)}: it needs case, sx, sy and sz")
    table: dict[str, tuple[tuple[float, ...], tuple[int, ...] | None]] = {}
    problems = []
    for number, row in rows:
        if row.get(None):
            problems.append(f"{file}: line {number} has more fields than columns: write decimals with a point")
            continue
        try:
            case = normalise(row["case"])
            edges = tuple(float(row[column]) for column in ("sx", "sy", "sz"))
            size = tuple(int(row[column]) for column in ("nx", "ny", "nz")) if "nx" in columns else None
        except (TypeError, ValueError, KeyError):
            problems.append(f"{file}: line {number} holds something else than numbers: correct it")
            continue
        if not all(0 < edge < np.inf for edge in edges):
            problems.append(f"{file}: line {number} has a spacing {edges} that is not above 0: correct it")
        if table.setdefault(case, (edges, size)) != (edges, size):
            problems.append(f"{file}: line {number} contradicts an earlier one about {case}: remove one of them")
    refuse(problems)
    return table


def _look_up(table: Mapping[str, tuple], file: Path, spacing_csv: Path) -> tuple:
    case = normalise(file.stem)
    if case not in table:
        raise AttenScribbleError(f"{file}: has no spacing in {spacing_csv}: add a line for {case}")
    return table[case]


def _check(file: Path, size: tuple[int, ...] | None, spacing_csv: Path | None) -> list[str]:
    """The volumes of a file: `image`, `scribble` and perhaps `label`."""
    import h5py

    try:
        with h5py.File(file) as content:
            found = [key for key in ("image", "scribble", "label") if key in content]
            shapes = {key: content[key].shape for key in found}
            problems = room_problems(file, max((content[key].nbytes for key in found), default=0))
    # A group in place of a volume, a link to nowhere, to itself, and nothing at all.
    except (OSError, AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise AttenScribbleError(
            f"{file}: cannot be read as h5 ({str(error).splitlines()[0]}): download it again"
        ) from None
    refuse(problems)
    absent = [key for key in ("image", "scribble") if key not in shapes]
    if absent:
        raise AttenScribbleError(f"{file}: holds no {' and no '.join(absent)}: give WSL4MIS's training volumes")
    if shapes["image"] is None or 0 in shapes["image"]:
        raise AttenScribbleError(f"{file}: its image has the shape {shapes['image']}, of no voxels: download it again")
    if len(shapes["image"]) != 3:
        raise AttenScribbleError(f"{file}: its image has {len(shapes['image'])} dimensions: give volumes, not slices")
    problems += [
        f"{file}: its {key} has the shape {shape}, its image {shapes['image']} (z, y, x): both must share voxels"
        for key, shape in shapes.items()
        if shape != shapes["image"]
    ]
    if size is not None and size[::-1] != shapes["image"]:
        problems.append(
            f"{file}: its size {shapes['image'][::-1]} (x, y, z) is {size} in {spacing_csv}: wrong spacing?"
        )
    refuse(problems)
    return list(shapes)


def _read(file: Path, key: str, spacing: tuple[float, ...]) -> sitk.Image:
    import h5py

    try:
        with h5py.File(file) as content:
            array = content[key][()]
        if array.dtype.kind not in "iuf":
            raise AttenScribbleError(f"{file}: its {key} holds no numbers but {array.dtype}")
        # SimpleITK knows floats of 4 and 8 bytes, and this machine's order of bytes.
        size = min(max(array.itemsize, 4), 8) if array.dtype.kind == "f" else array.itemsize
        array = array.astype(f"{array.dtype.kind}{size}", copy=False)
        image = sitk.GetImageFromArray(array)
    except OSError as error:
        raise AttenScribbleError(f"{file}: its {key} cannot be read ({str(error).splitlines()[0]})") from None
    image.SetSpacing(spacing)
    return image


def _group(names: Sequence[str], subject: str | None) -> tuple[dict[Any, list[str]], list[str], list[str]]:
    """Cases by patient, by number where all names begin with one in the same way; notes, and every problem."""
    if subject is not None:
        groups, note, problems = group_by_subject(names, subject)
        return groups, [note], problems
    found = [_PATIENT.match(name) for name in names]
    ways = {match and match[1].lower() for match in found}
    by_patient: dict[Any, list[str]] = {}
    for name, match in zip(names, found, strict=True):
        patient: int | str = name
        if match is not None:
            patient = int(match[2]) if len(ways) == 1 else f"{match[1].lower()}{int(match[2])}"
        by_patient.setdefault(patient, []).append(name)
    lone = found.count(None)
    notes = [
        f"{lone} of {len(names)} files count as a patient each, as their names do not begin with patient or case and a "
        "number: give --subject where a patient has several"
    ]
    return by_patient, notes if lone else [], []
