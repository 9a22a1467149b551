"""CHAOS: abdominal MRI, with scribbles in the form of PacingPseudo."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.files import find_files
from nnunet_attenscribble.dataset_conversion import ChaosSequence, ChaosSplit
from nnunet_attenscribble.dataset_conversion.cases import Case
from nnunet_attenscribble.dataset_conversion.dicom_series import read_series, sort_series
from nnunet_attenscribble.dataset_conversion.meanings import PRESETS, ScribbleCoding, scribble_values
from nnunet_attenscribble.dataset_conversion.raw_dataset import RawDataset, Writing, WrittenDatasets, write_raw_datasets
from nnunet_attenscribble.dataset_conversion.splits import (
    CHAOS_ATTENSCRIBBLE,
    CHAOS_PACINGPSEUDO,
    leave_block_out_folds,
    make_splits,
)
from nnunet_attenscribble.errors import AttenScribbleError, refuse

LABELS = {"background": 0, "liver": 1, "right_kidney": 2, "left_kidney": 3, "spleen": 4}
#: Lowest and highest grey value of each organ in the ground truth, as CHAOS's own evaluation reads it.
GREY = {(55, 70): 1, (110, 135): 2, (175, 200): 3, (240, 255): 4}
SEQUENCES: tuple[str, ...] = get_args(ChaosSequence)
SPLITS: tuple[str, ...] = get_args(ChaosSplit)

_BLOCKS = {"pacingpseudo": CHAOS_PACINGPSEUDO, "attenscribble": CHAOS_ATTENSCRIBBLE}


def convert_chaos(
    folder: Path,
    scribbles: Path | None,
    *,
    dataset_id: int,
    writing: Writing,
    sequence: str = "t1-in",
    dense_id: int | None = None,
    name: str | None = None,
    split: str = "nnunet",
    coding: ScribbleCoding = PRESETS["chaos"],
) -> WrittenDatasets:
    """Write CHAOS MR as a scribble dataset with its dense twin, or without scribbles as a dense dataset alone.

    Args:
        folder: the download, or any folder of it, with `<patient>/T1DUAL` or `<patient>/T2SPIR` below.
        scribbles: folder with `patient<number>_t1_scb.nii.gz` (or `_t2_`), one for both phases; None: the dense dataset
            alone, into which `attenscribble scribble` draws.
        sequence: `t1-in` or `t1-out`, one phase; `t1`, both as two channels; `t1-both`, both as cases of their own;
            `t2`.
        dataset_id: of the dataset.
        writing: where and how.
        dense_id: of the twin; None: the dataset's plus one.
        name: of the dataset; None: CHAOS with the sequence.
        split: `nnunet` (five folds, drawn by patient), `pacingpseudo` (five) or `attenscribble` (three).
        coding: of the scribbles.

    Raises:
        AttenScribbleError: every problem of the input, one sentence each.
    """
    if sequence not in SEQUENCES or split not in SPLITS:
        raise AttenScribbleError(
            f"sequence {sequence!r}, split {split!r}: choose of {', '.join(SEQUENCES)} and of {', '.join(SPLITS)}"
        )
    values = scribble_values(LABELS, coding)
    patients = _find_patients(folder, "T2SPIR" if sequence == "t2" else "T1DUAL")
    drawn, problems = ({}, []) if scribbles is None else _find_scribbles(scribbles, "t2" if sequence == "t2" else "t1")
    cases: list[Case] = []
    by_patient: dict[int, list[str]] = {}
    for patient, files in sorted(patients.items()):
        try:
            found = _make_cases(folder, patient, files, sequence)
        except AttenScribbleError as error:
            problems += error.problems
            continue
        cases += [replace(case, scribble=drawn.get(patient)) for case in found]
        by_patient[patient] = [case.identifier for case in found]
    if problems and not cases:
        raise AttenScribbleError(problems)
    folds = leave_block_out_folds(by_patient, _BLOCKS[split]) if split in _BLOCKS else None
    splits, notes = make_splits(by_patient, folds, problems)
    if unused := set(drawn) - set(patients):
        notes.append(f"{len(unused)} scribbles were not used, for their images are not there")
    if scribbles is not None and dense_id is None:
        dense_id = dataset_id + 1
    return write_raw_datasets(
        cases,
        RawDataset(
            dataset_id=dataset_id,
            name=name or f"CHAOS{sequence.replace('-', '').upper()}",
            channel_names={0: "T1in", 1: "T1out"} if sequence == "t1" else {0: "MRI"},
            labels=LABELS,
            scribble_values=values,
            provenance={
                "source": "CHAOS (Kavur et al., Medical Image Analysis 2021), MR training set"
                + ("" if scribbles is None else ", with scribbles in the form of PacingPseudo (Yang et al., 2022)"),
                "reference": "https://chaos.grand-challenge.org",
                "license": "images and dense labels: CC BY-NC-SA 4.0",
                "options": {
                    "sequence": sequence,
                    "split": split,
                    **({} if scribbles is None else {"coding": vars(coding)}),
                },
            },
            dense_id=dense_id,
            dense_only=scribbles is None,
            splits=splits,
        ),
        writing,
        problems=problems,
        notes=notes,
    )


def _find_patients(folder: Path, part: str) -> dict[int, list[Path]]:
    """Files below `<patient>/<part>` by patient."""
    found: dict[int, list[Path]] = {}
    for file in find_files(folder):
        parts = file.absolute().parts  # the folder itself may be that of one patient
        if part in parts and parts[parts.index(part) - 1].isdecimal():
            found.setdefault(int(parts[parts.index(part) - 1]), []).append(file)
    if not found:
        raise AttenScribbleError(
            f"{folder}: holds no <patient>/{part}: give the unpacked CHAOS download, or its MR folder"
        )
    return found


def _make_cases(folder: Path, patient: int, files: Sequence[Path], sequence: str) -> list[Case]:
    """The cases of one patient below a folder, without scribbles.

    Raises:
        AttenScribbleError: where series are not whole, or pictures do not match them.
    """
    slices = [file for file in files if file.suffix.lower() == ".dcm"]
    if sequence == "t2":
        phases = {"t2": slices}
        wanted = [("t2", ["t2"])]
    else:
        phases = {
            phase: [file for file in slices if file.parent.name.lower() == name]
            for phase, name in (("in", "inphase"), ("out", "outphase"))
        }
        wanted = {
            "t1": [("t1", ["in", "out"])],
            "t1-both": [("t1in", ["in"]), ("t1out", ["out"])],
        }.get(sequence, [(sequence.replace("-", ""), [sequence.removeprefix("t1-")])])
    drawn_on = next(iter(phases))  # the ground truth of both phases was drawn on the in-phase images
    needed = {drawn_on, *(phase for _, channels in wanted for phase in channels)}
    place = next((parent for parent in files[0].parents if parent.name in ("T1DUAL", "T2SPIR")), folder)
    absent = [phase for phase in phases if phase in needed and not phases[phase]]
    if absent:
        what = {"in": "InPhase/*.dcm", "out": "OutPhase/*.dcm", "t2": "*.dcm"}
        raise AttenScribbleError(
            [f"{place}: holds no DICOM_anon/{what[phase]}: restore the download" for phase in absent]
        )
    ordered = {phase: tuple(sort_series(phases[phase])) for phase in phases if phase in needed}
    pictures = _pair_pictures(place, files, ordered[drawn_on])
    dense = partial(_read_ground, pictures, ordered[drawn_on])
    return [
        Case(
            f"chaos{patient:02d}_{name}",
            tuple(partial(read_series, ordered[phase]) for phase in channels),
            dense=dense,
            inputs=(*(file for phase in channels for file in ordered[phase]), *pictures),
        )
        for name, channels in wanted
    ]


def _pair_pictures(place: Path, files: Sequence[Path], slices: Sequence[Path]) -> tuple[Path, ...]:
    """The ground truth picture of each slice, which has its stem."""
    pictures = {file.stem: file for file in files if file.suffix.lower() == ".png"}
    stems = [file.stem for file in slices]
    problems = [
        f"{pictures[name]}: has no slice of its name in {slices[0].parent.name}: restore the download"
        for name in sorted(set(pictures) - set(stems))
    ]
    absent = [name for name in stems if name not in pictures]
    if absent:
        told = ", ".join(absent[:4]) + (", ..." if len(absent) > 4 else "")
        problems.append(f"{place / 'Ground'}: holds no picture for {len(absent)} of {len(stems)} slices ({told})")
    refuse(problems)
    return tuple(pictures[name] for name in stems)


def _read_ground(pictures: Sequence[Path], slices: Sequence[Path]) -> sitk.Image:
    """The dense label on the grid of the slices that it was drawn on."""
    grid = read_series(slices)
    shape = grid.GetSize()[1::-1]
    labels, problems = np.zeros(grid.GetSize()[::-1], np.uint8), []
    for section, file in zip(labels, pictures, strict=True):
        try:
            grey = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        except RuntimeError:
            problems.append(f"{file}: is not a picture that SimpleITK can read: restore the download")
            continue
        if grey.shape != shape:
            problems.append(f"{file}: has {grey.shape} pixels (rows, columns), its slice {shape}: restore the download")
            continue
        known = grey == 0
        for (lowest, highest), value in GREY.items():
            inside = (grey >= lowest) & (grey <= highest)
            section[inside] = value
            known |= inside
        if not known.all():
            strange = ", ".join(map(str, np.unique(grey[~known])[:5]))
            problems.append(f"{file}: grey values {strange} stand for no organ of CHAOS: restore the download")
    refuse(problems)
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(grid)
    return image


def _find_scribbles(folder: Path, kind: str) -> tuple[Mapping[int, Path], list[str]]:
    found: dict[int, Path] = {}
    problems = []
    for file in find_files(folder):
        match = re.fullmatch(rf"patient(\d+)_{kind}_scb\.nii(\.gz)?", file.name)
        if match and found.setdefault(int(match[1]), file) != file:
            problems.append(f"{file}: the same scribble is also at {found[int(match[1])]}: remove one of them")
    if not found:
        raise AttenScribbleError(
            f"{folder}: holds no patient<number>_{kind}_scb.nii.gz: give the folder of the scribbles"
        )
    return found, problems
