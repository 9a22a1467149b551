"""Test patients are kept apart from those that are trained with, also where a patient has several cases."""

from __future__ import annotations

import os
import shutil

import pytest

from nnunet_attenscribble.evaluation.benchmark.file import read_benchmark
from nnunet_attenscribble.evaluation.benchmark.provenance import describe_selection
from tests.evaluation.benchmark import fake_nnunet
from tests.evaluation.benchmark.fake_nnunet import DENSE, SCRIBBLE, Toy

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups and links are those of POSIX")
BY_FRAME = ["p1_1", "p2_1"], ["p1_2", "p2_2"]
BY_PATIENT = ["p1_1", "p1_2"], ["p2_1", "p2_2"]


@pytest.fixture
def toy(tmp_path, monkeypatch, request) -> Toy:
    """With the cases of the parameter: those to train with, those of the validation."""
    training, validation = request.param
    monkeypatch.setattr(fake_nnunet, "TRAINING", training)
    monkeypatch.setattr(fake_nnunet, "VALIDATION", validation)
    return Toy(tmp_path, monkeypatch)


@pytest.mark.parametrize("toy", [(["1.2.1", "1.2.2"], ["1.2.3", "1.2.4"])], indirect=True)
def test_a_model_of_other_patients_is_known_by_names_with_dots(toy):
    toy.call("--only", "crf")
    shutil.rmtree(toy.work / "cells")  # it is trained, and not scored
    toy.write_splits({"train": ["1.2.3", "1.2.4"], "val": ["1.2.1", "1.2.2"]})
    told = toy.call("--only", "crf", code=1)
    assert "splits_final.json has now (it validated on 1.2.3, 1.2.4)" in told


@pytest.mark.parametrize("toy", [(["a", "b"], ["scan_2023.11.02", "d"])], indirect=True)
def test_a_year_in_a_name_with_dots_is_no_channel(toy):
    toy.call("--only", "crf")
    toy.add_test_folder("scan_2024.01.02")
    toy.call("--only", "partial_ce")
    names = [["d", "scan_2023.11.02"], ["scan_2024.01.02"]]
    assert [entry["cases"] for entry in toy.events("evaluate")] == names
    assert [entry["images"] for entry in toy.events("predict")] == [
        [f"{name}_0000.nii.gz" for name in own] for own in names
    ]


@pytest.mark.parametrize("toy", [BY_FRAME], indirect=True)
def test_other_cases_of_validation_patients_are_not_trained_with(toy):
    toy.write(subject="p[0-9]", folds=[0, 1])
    assert toy.problems("--prepare") == [
        f"fold {fold} of {name} trains with other cases of test patients (p1, p2, by 'subject' 'p[0-9]'): split by "
        "patient in splits_final.json, as the converters do (`--subject`)"
        for fold in (0, 1)
        for name in (SCRIBBLE, DENSE)
    ]
    toy.write(subject=None)
    assert "Everything is prepared" in toy.call("--prepare")


@pytest.mark.parametrize("toy", [BY_PATIENT], indirect=True)
@pytest.mark.parametrize("subject", ["p[0-9]", "(p[0-9])_"])
def test_splits_by_patient_are_in_order(toy, subject):
    toy.write(subject=subject, folds=[0, 1])
    assert "Everything is prepared" in toy.call("--prepare")


@pytest.mark.parametrize("toy", [BY_PATIENT], indirect=True)
def test_a_case_that_is_trained_and_tested_with_is_told_once(toy):
    toy.write_splits({"train": ["p1_1", "p2_1"], "val": ["p2_1"]})
    toy.write(subject="p[0-9]")
    assert [problem.partition(":")[0] for problem in toy.problems("--prepare")] == [
        f"fold 0 of {name} trains with test cases (p2_1)" for name in (SCRIBBLE, DENSE)
    ]


@pytest.mark.parametrize("toy", [BY_PATIENT], indirect=True)
@pytest.mark.parametrize("fold", [0, "all"])
def test_a_folder_with_other_cases_of_training_patients_is_refused(toy, fold):
    toy.add_test_folder("p1_3")
    toy.write(subject="p[0-9]", folds=[fold])
    assert toy.problems("--prepare") == [
        f"fold {fold} of {name} trains or validates with other cases of test patients (p1, by 'subject' 'p[0-9]'): "
        "take these patients out of one of the two"
        for name in (SCRIBBLE, DENSE)
    ]
    toy.write(subject="p[0-9]_[0-9]")
    assert "Everything is prepared" in toy.call("--prepare")


@pytest.mark.parametrize("toy", [BY_PATIENT], indirect=True)
def test_a_pattern_that_finds_no_subject_is_refused_before_the_training(toy):
    toy.write(subject="p1")
    assert toy.problems("--prepare") == ["'subject' 'p1' finds no subject in the cases p2_1, p2_2: mend the pattern"]


@pytest.mark.parametrize("toy", [BY_PATIENT], indirect=True)
@pytest.mark.parametrize("folder", [False, True])
def test_patients_are_only_told_where_they_are_known(toy, folder):
    if folder:
        toy.add_test_folder("p3_1")
    alone = describe_selection(read_benchmark(toy.file))[0]
    assert "patients" not in alone
    assert alone.endswith("Every case counts as a patient of its own: the benchmark file has no 'subject'.")
    toy.write(subject="p[0-9]")
    told = describe_selection(read_benchmark(toy.file))[0]
    assert ("none of its patients is in the data" if folder else "the validation patients of each fold") in told
    assert "'subject'" not in told


@pytest.mark.parametrize("toy", [(["a", "b"], ["c", "d"])], indirect=True)
def test_folds_whose_validation_cases_overlap_are_refused_before_the_training(toy):
    toy.write(folds=[0, 1])
    toy.write_splits({"train": ["a", "b"], "val": ["c", "d"]}, {"train": ["a", "d"], "val": ["b", "c"]})
    (told,) = toy.problems("--prepare")
    assert told.startswith("folds 0 and 1 validate on the same cases (c), but not all folds do")
    assert told.endswith("choose other folds, or mend splits_final.json")
    toy.write(folds=[1])
    assert "Everything is prepared" in toy.call("--prepare")
