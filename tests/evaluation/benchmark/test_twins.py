from __future__ import annotations

import json
import os

import pytest

from tests.evaluation.benchmark.fake_nnunet import DENSE, SCRIBBLE

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups and links are those of POSIX")


def write_labels(toy, name: str, labels: dict) -> None:
    file = toy.preprocessed / name / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"labels": labels}))


@pytest.mark.parametrize("datasets", [{"scribble": 502, "dense": DENSE}, {"scribble": DENSE, "dense": 502}])
def test_a_data_set_is_no_twin_of_itself_under_its_id(toy, datasets):
    toy.write(datasets=datasets)
    assert toy.problems("--prepare") == [f"'datasets' names {DENSE} twice: each is a dataset of its own"]


def test_further_scribbles_are_no_others_under_their_id(toy):
    rows = [toy.content["rows"][0], toy.content["rows"][1] | {"labels": ["few", "scribble"]}]
    toy.write(datasets={"scribble": 501, "few": SCRIBBLE, "dense": 502}, rows=rows)
    assert toy.problems("--prepare") == [f"'datasets' names {SCRIBBLE} twice: each is a dataset of its own"]


def test_twins_in_the_wrong_order_are_refused(toy):
    toy.write(datasets={"scribble": 502, "dense": 501})
    no_scribbles, not_dense = toy.problems("--prepare")
    assert no_scribbles.startswith(f"{toy.preprocessed / DENSE / 'dataset.json'} has no label 'ignore'")
    assert not_dense.startswith(f"{toy.preprocessed / SCRIBBLE / 'dataset.json'} has the label 'ignore'")


@pytest.mark.parametrize(
    ("labels", "told"),
    [({"Herz": 1}, "Herz 1"), ({"heart": 3}, "heart 3"), ({"heart": 1, "liver": [2, 1]}, "heart 1, li")],
)
def test_twins_of_other_structures_are_refused_with_every_other_problem(toy, labels, told):
    write_labels(toy, DENSE, {"background": 0, **labels})
    (toy.preprocessed / DENSE / "splits_final.json").write_text(json.dumps([{"train": ["a", "c"], "val": ["b", "d"]}]))
    problems = toy.problems("--prepare")
    assert problems[0].startswith(f"{toy.preprocessed / DENSE / 'dataset.json'} names the structures {told}")
    assert f"{SCRIBBLE}/dataset.json heart 1: give both the same names and values" in problems[0]
    assert any("validates fold 0 on other patients" in problem for problem in problems[1:])


def test_the_order_of_structures_in_dataset_json_decides_nothing(toy):
    write_labels(toy, DENSE, {"background": 0, "heart": 1, "both": [1, 2], "liver": 2})
    write_labels(toy, SCRIBBLE, {"both": [2, 1], "liver": 2, "ignore": 3, "heart": 1, "background": 0})
    assert "Everything is prepared" in toy.call("--prepare")


def test_a_dataset_json_that_is_not_there_is_told(toy):
    for name in (SCRIBBLE, DENSE):
        (toy.preprocessed / name / "dataset.json").unlink()
    problems = toy.problems("--prepare")
    assert len(problems) == 2
    assert all("dataset.json: cannot be read" in problem for problem in problems)
