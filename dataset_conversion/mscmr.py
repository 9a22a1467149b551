"""MSCMRseg: late gadolinium enhanced MRI of the heart, with the scribbles of CycleMix."""

from __future__ import annotations

import re
from pathlib import Path

from nnunet_attenscribble.common.files import find_files
from nnunet_attenscribble.dataset_conversion.cases import Case
from nnunet_attenscribble.dataset_conversion.meanings import PRESETS, ScribbleCoding, scribble_values
from nnunet_attenscribble.dataset_conversion.pairing import sort_by_role
from nnunet_attenscribble.dataset_conversion.raw_dataset import RawDataset, Writing, WrittenDatasets, write_raw_datasets
from nnunet_attenscribble.dataset_conversion.splits import MSCMR_TEST, MSCMR_VALIDATION, make_splits
from nnunet_attenscribble.errors import AttenScribbleError

LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
#: Of dense labels: CycleMix's values, and those of the challenge itself.
DENSE_VALUES = {0: 0, 1: 1, 2: 2, 3: 3, 600: 1, 200: 2, 500: 3}

_FILE = re.compile(r"subject(?P<subject>\d+)_(?P<sequence>DE|LGE)(?P<role>_manual|_scribble|)\.nii(\.gz)?")


def convert_mscmr(
    folder: Path,
    scribbles: Path | None = None,
    *,
    dataset_id: int,
    writing: Writing,
    dense_id: int | None = None,
    name: str = "MSCMR",
    coding: ScribbleCoding = PRESETS["acdc"],
) -> WrittenDatasets:
    """Write MSCMRseg as a scribble dataset, with a dense twin where all its training subjects have dense labels.

    The 5 validation and 15 test subjects of the literature have no scribbles and become test cases; they are told by
    their numbers, wherever they lie.

    Args:
        folder: `MSCMR_dataset` of CycleMix (`train/images/subject2_DE.nii.gz`, ...), or any folder with such files.
        scribbles: where they lie elsewhere.
        dataset_id: of the dataset.
        writing: where and how.
        dense_id: of the twin; None: the dataset's plus one where there are dense labels.
        name: of the dataset.
        coding: of the scribbles.

    Raises:
        AttenScribbleError: every problem of the input, one sentence each.
    """
    values = scribble_values(LABELS, coding)
    files = find_files(folder) + ([] if scribbles is None else find_files(scribbles))
    found, problems = sort_by_role(files, _FILE, lambda match: int(match["subject"]), ("", "_scribble", "_manual"))
    images, drawn, dense = found[""], found["_scribble"], found["_manual"]
    if not images:
        raise AttenScribbleError(
            f"{folder}: holds no subject<number>_DE.nii.gz, nor does any folder in it: give MSCMR_dataset of CycleMix"
        )
    problems += [
        f"{file}: has no image subject{subject}_DE.nii.gz: add it, or remove the label"
        for role in (drawn, dense)
        for subject, file in role.items()
        if subject not in images
    ]
    held_back = {*MSCMR_VALIDATION, *MSCMR_TEST}
    cases = [
        Case(
            _identifier(subject),
            (image,),
            scribble=drawn.get(subject),
            dense=dense.get(subject),
            test=subject in held_back,
        )
        for subject, image in images.items()
    ]
    training = {subject: [_identifier(subject)] for subject in images if subject not in held_back}
    if dense_id is None and training and set(training) <= set(dense):
        dense_id = dataset_id + 1
    splits, notes = make_splits(training, None, problems)
    if dense_id is None and set(training) & set(dense):
        notes.append(f"no dense twin: {len(set(training) - set(dense))} training subjects have no dense label")
    return write_raw_datasets(
        cases,
        RawDataset(
            dataset_id=dataset_id,
            name=name,
            channel_names={0: "LGE"},  # a name that nnU-Net does not know, so it normalises by z-score, as MRI needs
            labels=LABELS,
            scribble_values=values,
            dense_values=DENSE_VALUES,
            provenance={
                "source": "MSCMRseg (Zhuang, TPAMI 2019) with the scribbles of CycleMix (Zhang and Zhuang, CVPR 2022)",
                "reference": "https://zmiclab.github.io/zxh/0/mscmrseg19/data.html and https://github.com/BWGZK/CycleMix",
                "license": "terms of the MSCMRseg challenge",
                "options": {
                    "validation": sorted(set(MSCMR_VALIDATION) & set(images)),
                    "test": sorted(set(MSCMR_TEST) & set(images)),
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


def _identifier(subject: int) -> str:
    return f"subject{subject:02d}"
