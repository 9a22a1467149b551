"""Folds by patient against lists derived by hand."""

from __future__ import annotations

import pytest

from nnunet_attenscribble.dataset_conversion.splits import (
    ACDC_BLOCKS,
    MAAG_TEST,
    MAAG_TRAIN,
    MAAG_VALIDATION,
    Fold,
    five_nnunet_folds,
    group_by_subject,
    leave_block_out_folds,
    maag_folds,
    splits_by_patient,
    tell_likely_subjects,
)
from nnunet_attenscribble.errors import AttenScribbleError


def test_frames_of_a_patient_stay_together():
    cases = {1: ["a1", "a2"], 2: ["b1"], 3: ["c2", "c1"]}
    assert splits_by_patient(cases, [Fold([3, 1], [2]), Fold([2], [1])]) == [
        {"train": ["a1", "a2", "c1", "c2"], "val": ["b1"]},
        {"train": ["b1"], "val": ["a1", "a2"]},
    ]


def test_patients_that_are_not_there_are_left_out():
    assert splits_by_patient({1: ["a"], 9: ["b"]}, [Fold([1, 2], [9, 10])]) == [{"train": ["a"], "val": ["b"]}]


def test_every_empty_side_is_told():
    with pytest.raises(AttenScribbleError) as caught:
        splits_by_patient({1: ["a"]}, [Fold([1], [2]), Fold([2], [1])])
    assert len(caught.value.problems) == 2
    assert caught.value.problems[0].startswith("fold 0 has nobody to validate with")
    assert caught.value.problems[1].startswith("fold 1 has nobody to train with")


def test_contiguous_blocks_of_acdc():
    folds = leave_block_out_folds([100, 1, 20, 21, 81, 40], ACDC_BLOCKS)
    assert [fold.val for fold in folds] == [[1, 20], [21, 40], [], [], [81, 100]]
    assert [fold.train for fold in folds][:2] == [[21, 40, 81, 100], [1, 20, 81, 100]]
    assert [patient for block in ACDC_BLOCKS for patient in block] == list(range(1, 101))


def test_maag_lists_are_35_15_15_and_disjoint():
    assert (len(MAAG_TRAIN), len(MAAG_VALIDATION), len(MAAG_TEST)) == (35, 15, 15)
    assert len({*MAAG_TRAIN, *MAAG_VALIDATION, *MAAG_TEST}) == 65
    assert maag_folds() == [(MAAG_TRAIN, MAAG_VALIDATION)]


def test_nnunet_folds_are_those_of_nnunet_over_patients():
    # What nnU-Net does to sorted case names: a shuffled KFold with this seed.
    from sklearn.model_selection import KFold

    patients = [3, 7, 8, 10, 11, 20, 31, 44, 90, 100]
    expected = [
        ([patients[i] for i in train], [patients[i] for i in val])
        for train, val in KFold(n_splits=5, shuffle=True, random_state=12345).split(patients)
    ]
    assert five_nnunet_folds(reversed(patients)) == expected
    assert sorted(patient for fold in five_nnunet_folds(patients) for patient in fold.val) == patients


def test_nnunet_folds_need_five_patients():
    with pytest.raises(AttenScribbleError, match="need 5 patients or more, and there are 4"):
        five_nnunet_folds([1, 2, 3, 4, 4])


@pytest.mark.parametrize(
    ("cases", "told"),
    [
        (["slide0_t0", "slide0_t1", "slide1_t0"], ["slide0_t0 and slide0_t1 are of one subject"]),
        (["heart_001", "heart_002", "heart_003"], []),  # of a dataset
        (["a", "b_1", "c_1"], []),
        (["s_1 [x=0,y=0]", "s_1 [x=9,y=0]"], ["s_1 [x=0,y=0] and s_1 [x=9,y=0] are of one subject"]),
    ],
)
def test_names_that_look_like_several_cases_of_a_subject_are_told(cases, told):
    notes = tell_likely_subjects(cases)
    assert len(notes) == len(told)
    assert all(part in note for part, note in zip(told, notes, strict=True))
    for note in notes:
        subject = note.partition("--subject ")[2].strip("'")
        assert len(group_by_subject(cases, subject)[0]) < len(cases)
