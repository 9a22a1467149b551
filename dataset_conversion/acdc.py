"""ACDC: cine MRI of the heart, with the expert scribbles of Valvano et al."""

from __future__ import annotations

import re
from pathlib import Path

from nnunet_attenscribble.common.files import find_files, unpacked
from nnunet_attenscribble.dataset_conversion.cases import Case
from nnunet_attenscribble.dataset_conversion.meanings import PRESETS, ScribbleCoding, scribble_values
from nnunet_attenscribble.dataset_conversion.pairing import sort_by_role
from nnunet_attenscribble.dataset_conversion.raw_dataset import RawDataset, Writing, WrittenDatasets, write_raw_datasets
from nnunet_attenscribble.dataset_conversion.splits import MAAG_TEST, MAAG_VALIDATION, acdc_folds, make_splits
from nnunet_attenscribble.errors import AttenScribbleError

LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}  # 4 in the scribbles: unlabelled
CHANNELS = {0: "cineMRI"}  # a name that nnU-Net does not know, so it normalises by z-score, as MRI needs

_FILE = re.compile(r"patient(?P<patient>\d{3})_frame(?P<frame>\d{2})(?P<role>_gt|_scribble|)\.nii(\.gz)?")
_Files = dict[tuple[int, int], Path]  # by patient and frame
_NAMED_PATIENTS = {"maag-validation": MAAG_VALIDATION, "maag-test": MAAG_TEST}


def convert_acdc(
    folder: Path,
    scribbles: Path,
    *,
    dataset_id: int,
    writing: Writing,
    dense_id: int | None = None,
    name: str = "ACDC",
    split: str = "nnunet",
    test: str | None = None,
    coding: ScribbleCoding = PRESETS["acdc"],
) -> WrittenDatasets:
    """Write ACDC as a scribble dataset and, where its dense labels are there, the densely labelled twin.

    Args:
        folder: the official download (`database/training/patient001/...`, or any folder of it), or one folder with all
            files. What lies in a folder `testing` is only used for patients of `test`.
        scribbles: the released zip archive, or a folder.
        dataset_id: of the dataset.
        writing: where and how.
        dense_id: of the twin; None: the dataset's plus one where there are dense labels.
        name: of the dataset.
        split: `nnunet` (nnU-Net's five folds, drawn by patient), `contiguous` (fold k validates patients 20k+1 to
            20k+20) or `maag` (one fold).
        test: patients kept out of training, see `parse_patients`.
        coding: of the scribbles.

    Raises:
        AttenScribbleError: every problem of the input, one sentence each.
    """
    test_patients = parse_patients(test) if test else frozenset()
    values = scribble_values(LABELS, coding)
    with unpacked(scribbles) as scribble_folder:
        images, truths, problems = _find_scans(folder, test_patients)
        strokes, more = _find_scribbles(scribble_folder, scribbles)
        problems += more
        if not images:
            raise AttenScribbleError(problems)
        cases = [
            Case(
                identifier=_identifier(*key),
                images=(image,),
                scribble=strokes.get(key),
                dense=truths.get(key),
                test=key[0] in test_patients,
            )
            for key, image in images.items()
        ]
        if dense_id is None and any(case.dense is not None and not case.test for case in cases):
            dense_id = dataset_id + 1
        problems += _absent_test_patients(test, test_patients, {patient for patient, _ in images})
        training: dict[int, list[str]] = {}
        for patient, frame in images:
            if patient not in test_patients:
                training.setdefault(patient, []).append(_identifier(patient, frame))
        splits, notes = make_splits(training, acdc_folds(split, training), problems)
        if unused := set(strokes) - set(images):
            notes.append(f"{len(unused)} scribbles were not used, for their images are not there")
        return write_raw_datasets(
            cases,
            RawDataset(
                dataset_id=dataset_id,
                name=name,
                channel_names=CHANNELS,
                labels=LABELS,
                scribble_values=values,
                provenance={
                    "source": "ACDC (Bernard et al., IEEE TMI 2018) with the scribbles of "
                    "Valvano et al., IEEE TMI 2021",
                    "reference": "https://www.creatis.insa-lyon.fr/Challenge/acdc/ and "
                    "https://vios-s.github.io/multiscale-adversarial-attention-gates/data",
                    "license": "images and dense labels: terms of the ACDC challenge, CC BY-NC-SA 4.0; "
                    "scribbles: Apache-2.0",
                    "options": {"split": split, "test": sorted(test_patients), "coding": vars(coding)},
                },
                dense_id=dense_id,
                splits=splits,
            ),
            writing,
            problems=problems,
            notes=notes,
        )


def parse_patients(text: str) -> frozenset[int]:
    """Patients from `maag-validation`, `maag-test`, or numbers and ranges such as `1-20,84`.

    >>> sorted(parse_patients("1-3,84"))
    [1, 2, 3, 84]
    """
    if text in _NAMED_PATIENTS:
        return frozenset(_NAMED_PATIENTS[text])
    patients: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,3})(?:\s*-\s*(\d{1,3}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise AttenScribbleError(
                f"test patients {text!r}: {part.strip()!r} is no number and no range: "
                f"give {', '.join(_NAMED_PATIENTS)}, or a list such as 1-20,84"
            )
        patients.update(range(first, last + 1))
    return frozenset(patients)


def _find_scans(folder: Path, test_patients: frozenset[int]) -> tuple[_Files, _Files, list[str]]:
    """Images, dense labels, and every problem."""

    def wanted(file: Path) -> bool:
        match = _FILE.fullmatch(file.name)
        held_back = "testing" in file.relative_to(folder).parts[:-1]
        return match is not None and (not held_back or int(match["patient"]) in test_patients)

    found, problems = sort_by_role(filter(wanted, find_files(folder)), _FILE, _key, ("", "_gt"))
    images, dense = found[""], found["_gt"]
    if not images:
        problems.append(
            f"{folder}: holds no patientXXX_frameYY.nii.gz, nor does any folder in it: "
            "give the unpacked ACDC download, or a folder with all its files"
        )
    problems += [
        f"{dense[key]}: has no image {_identifier(*key)}.nii.gz: add it, or remove the label"
        for key in dense
        if images and key not in images
    ]
    return images, dense, problems


def _find_scribbles(folder: Path, given: Path) -> tuple[_Files, list[str]]:
    found, problems = sort_by_role(find_files(folder), _FILE, _key, ("_scribble",))
    if not found["_scribble"]:
        raise AttenScribbleError(
            f"{given}: holds no patientXXX_frameYY_scribble.nii.gz: give the released archive, or its folder"
        )
    return found["_scribble"], problems


def _absent_test_patients(text: str | None, wanted: frozenset[int], present: set[int]) -> list[str]:
    absent = sorted(wanted - present)
    # Published lists may exceed a download; numbers typed by hand are meant.
    if not absent or (text in _NAMED_PATIENTS and wanted & present):
        return []
    return [f"test patients {', '.join(map(str, absent))}: are not in the data: correct the list of test patients"]


def _key(match: re.Match[str]) -> tuple[int, int]:
    return int(match["patient"]), int(match["frame"])


def _identifier(patient: int, frame: int) -> str:
    return f"patient{patient:03d}_frame{frame:02d}"
