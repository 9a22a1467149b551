"""Folds by patient: all frames of a patient are on one side, or the validation has seen its patients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from nnunet_attenscribble.errors import AttenScribbleError


class Fold(NamedTuple):
    """The patients of one fold."""

    train: Sequence[int]
    val: Sequence[int]


# The ACDC patients of MAAG (Valvano et al., IEEE TMI 2021), whose scribbles these are.
MAAG_TRAIN = (
    *(37, 50, 53, 100, 38, 19, 61, 74, 97, 31, 91, 35, 56, 94, 26, 69, 46, 59),
    *(4, 89, 71, 6, 52, 43, 45, 63, 93, 14, 98, 88, 21, 28, 99, 54, 90),
)
MAAG_VALIDATION = (84, 32, 27, 96, 17, 18, 57, 81, 79, 22, 1, 44, 49, 25, 95)
MAAG_TEST = (5, 39, 77, 82, 78, 10, 64, 24, 30, 73, 80, 41, 36, 60, 72)

ACDC_BLOCKS = tuple(tuple(range(first, first + 20)) for first in range(1, 101, 20))


def five_nnunet_folds(patients: Iterable[int]) -> list[Fold]:
    """nnU-Net's own five folds, drawn over patients instead of cases.

    Raises:
        AttenScribbleError: for fewer than five patients.
    """
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    ordered = sorted(set(patients))
    if len(ordered) < 5:
        raise AttenScribbleError(
            f"five folds by patient need 5 patients or more, and there are {len(ordered)} to train with: "
            "add patients, or choose another split"
        )
    folds = generate_crossval_split(ordered)
    return [Fold([int(p) for p in fold["train"]], [int(p) for p in fold["val"]]) for fold in folds]


def leave_block_out_folds(patients: Iterable[int], blocks: Sequence[Sequence[int]]) -> list[Fold]:
    """One fold per block of patients: the block is `val`, every other patient `train`."""
    ordered = sorted(set(patients))
    return [Fold([p for p in ordered if p not in block], [p for p in ordered if p in block]) for block in blocks]


def maag_folds() -> list[Fold]:
    """The one fold of MAAG: 35 patients to train with, 15 to validate; 15 more are its test set."""
    return [Fold(MAAG_TRAIN, MAAG_VALIDATION)]


def splits_by_patient(cases: Mapping[int, Sequence[str]], folds: Sequence[Fold]) -> list[dict[str, list[str]]]:
    """The content of splits_final.json.

    Args:
        cases: the identifiers of each patient that is there.
        folds: may name patients that are not there; those are left out.

    Raises:
        AttenScribbleError: for every side of a fold that nobody is left on.
    """
    splits = [
        {side: sorted(c for p in patients for c in cases.get(p, ())) for side, patients in fold._asdict().items()}
        for fold in folds
    ]
    problems = [
        f"fold {number} has nobody to {'train' if side == 'train' else 'validate'} with: "
        "its patients are not in the data, or are test patients; choose another split or other test patients"
        for number, split in enumerate(splits)
        for side in ("train", "val")
        if not split[side]
    ]
    if problems:
        raise AttenScribbleError(problems)
    return splits
