"""Folds by patient: all frames of a patient are on one side, or the validation has seen its patients."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar, get_args

from nnunet_attenscribble.common.text import counted, find_subject
from nnunet_attenscribble.dataset_conversion import AcdcSplit
from nnunet_attenscribble.errors import AttenScribbleError, refuse

Patient = TypeVar("Patient", int, str)


class Fold(NamedTuple):
    """The patients of one fold."""

    train: Sequence[int | str]
    val: Sequence[int | str]


# The ACDC patients of MAAG (Valvano et al., IEEE TMI 2021), whose scribbles these are.
MAAG_TRAIN = (
    *(37, 50, 53, 100, 38, 19, 61, 74, 97, 31, 91, 35, 56, 94, 26, 69, 46, 59),
    *(4, 89, 71, 6, 52, 43, 45, 63, 93, 14, 98, 88, 21, 28, 99, 54, 90),
)
MAAG_VALIDATION = (84, 32, 27, 96, 17, 18, 57, 81, 79, 22, 1, 44, 49, 25, 95)
MAAG_TEST = (5, 39, 77, 82, 78, 10, 64, 24, 30, 73, 80, 41, 36, 60, 72)

# The validation patients of PacingPseudo's five folds (Yang et al. 2022), and of the three of AttenScribble.
CHAOS_PACINGPSEUDO = ((5, 36, 13, 21), (3, 33, 8, 37), (15, 2, 32, 1), (39, 38, 20, 34), (19, 31, 22, 10))
CHAOS_ATTENSCRIBBLE = ((1, 2, 3, 5, 8, 10, 13), (15, 19, 20, 21, 22, 31, 32), (33, 34, 36, 37, 38, 39))

# The 45 subjects of MSCMRseg as CycleMix and ShapePU use them: these have dense labels, the other 25 scribbles.
MSCMR_VALIDATION = (1, 8, 29, 36, 41)
MSCMR_TEST = (3, 5, 10, 11, 12, 16, 17, 23, 28, 30, 33, 35, 38, 40, 43)

#: Of a note: what a single patient is not enough for.
NO_FOLDS = "makes no folds: train with `all` in place of nnU-Net's fold number"

_VISIT, _TILE = "(.+)_", r"(.+) \["  # what is a subject in names as p1_v2, or slide1 [x=0,y=64,w=80,h=64]

ACDC_SPLITS: tuple[str, ...] = get_args(AcdcSplit)
ACDC_BLOCKS = tuple(tuple(range(first, first + 20)) for first in range(1, 101, 20))


def five_nnunet_folds(patients: Iterable[Patient]) -> list[Fold]:
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
    folds = generate_crossval_split(list(range(len(ordered))))
    return [Fold(*([ordered[position] for position in fold[side]] for side in ("train", "val"))) for fold in folds]


def leave_block_out_folds(patients: Iterable[Patient], blocks: Sequence[Sequence[Patient]]) -> list[Fold]:
    """One fold per block of patients: the block is `val`, every other patient `train`."""
    ordered = sorted(set(patients))
    return [Fold([p for p in ordered if p not in block], [p for p in ordered if p in block]) for block in blocks]


def maag_folds() -> list[Fold]:
    """The one fold of MAAG: 35 patients to train with, 15 to validate; 15 more are its test set."""
    return [Fold(MAAG_TRAIN, MAAG_VALIDATION)]


def acdc_folds(split: str, patients: Iterable[int]) -> list[Fold] | None:
    """The folds of one of `ACDC_SPLITS` with these patients; None: nnU-Net's own five.

    Raises:
        AttenScribbleError: for another split.
    """
    if split not in ACDC_SPLITS:
        raise AttenScribbleError(f"split {split!r}: choose one of {', '.join(ACDC_SPLITS)}")
    return {"maag": maag_folds(), "contiguous": leave_block_out_folds(patients, ACDC_BLOCKS)}.get(split)


def splits_by_patient(cases: Mapping[Patient, Sequence[str]], folds: Sequence[Fold]) -> list[dict[str, list[str]]]:
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
    refuse(problems)
    return splits


def group_by_subject(cases: Collection[str], subject: str) -> tuple[dict[str, list[str]], str, list[str]]:
    """Cases by what a regular expression finds in their names (`find_subject`), a note of it, and every problem.

    Raises:
        AttenScribbleError: where it is no regular expression.
    """
    try:
        pattern = re.compile(subject)
    except re.error as error:
        raise AttenScribbleError(f"subject {subject!r}: is no regular expression ({error})") from None
    groups: dict[str, list[str]] = {}
    for case in sorted(cases):
        groups.setdefault(find_subject(pattern, case), []).append(case)
    lost = groups.pop("", [])
    note = f"{counted(len(groups), 'subject')} in {counted(len(cases), 'case')}"
    return groups, note, [f"case {case}: does not tell its subject by {subject!r}" for case in lost]


def tell_likely_subjects(cases: Collection[str]) -> list[str]:
    """A note where names that are alike up to their last underscore, or up to QuPath's place of a tile, look as if a
    subject had several cases.
    """
    for pattern in (_TILE, _VISIT):
        alike: dict[str, list[str]] = {}
        for case in sorted(cases):
            alike.setdefault(find_subject(re.compile(pattern), case) or case, []).append(case)
        several = [found for found in alike.values() if len(found) > 1]
        if several and (len(alike) > 1 or pattern == _TILE):  # of one beginning are all names of a dataset
            told = f"folds are by case: if {several[0][0]} and {several[0][1]} are of one subject"
            return [f"{told}, convert with --subject '{pattern}'"]
    return []


def make_splits_by_case(
    cases: Collection[str], problems: list[str]
) -> tuple[list[dict[str, list[str]]] | None, list[str]]:
    """Folds where cases are too few for nnU-Net's own five, which it draws by case; as `make_splits` otherwise."""
    if len(cases) >= 5:
        return None, []
    return make_splits({case: [case] for case in cases}, None, problems, who="case")


def make_splits(
    cases: Mapping[Patient, Sequence[str]], folds: Sequence[Fold] | None, problems: list[str], who: str = "patient"
) -> tuple[list[dict[str, list[str]]] | None, list[str]]:
    """The content of splits_final.json.

    Fewer than five patients get one fold each to validate on, a single one gets no folds: left alone, nnU-Net would
    draw folds by case, and validate on patients that it has trained on.

    Args:
        cases: the identifiers of each patient that is there to train with.
        folds: of a published split; None: nnU-Net's own five.
        problems: gets those of a published split that the patients do not fill.
        who: is kept together, for notes.

    Returns:
        The splits, None where there are none, and notes for their owner.
    """
    notes = []
    if folds is None and len(cases) < 2:
        return None, [f"one {who} {NO_FOLDS}"] if cases else []
    if folds is None and len(cases) < 5:
        folds = leave_block_out_folds(cases, [[patient] for patient in sorted(cases)])
        notes.append(f"{len(cases)} {who}s make {len(cases)} folds, each with one of them to validate with")
    try:
        splits = splits_by_patient(cases, five_nnunet_folds(cases) if folds is None else folds)
    except AttenScribbleError as error:
        problems += error.problems
        return None, []
    notes += idle_notes(splits, [case for identifiers in cases.values() for case in identifiers], "this split")
    return splits, notes


def idle_notes(splits: Sequence[Mapping[str, Sequence[str]]], cases: Iterable[str], name: str) -> list[str]:
    """A note where training cases are in no fold; `name` is how it calls the splits."""
    used = {case for fold in splits for case in (*fold["train"], *fold["val"])}
    idle = sum(case not in used for case in cases)
    return [f"{idle} training cases are in no fold of {name}"] if idle else []
