"""What a benchmark tells before its first command runs."""

from __future__ import annotations

import json
import os
import sys

import pytest

from nnunet_attenscribble.common.nnunet import trainers_folder
from nnunet_attenscribble.evaluation.benchmark import checks
from nnunet_attenscribble.evaluation.benchmark.checks import ask_nnunet
from nnunet_attenscribble.evaluation.benchmark.file import read_benchmark
from tests.conftest import ROOT
from tests.evaluation.benchmark.fake_nnunet import DENSE, FEW, SCRIBBLE, Toy


def problems(toy: Toy, *arguments: str) -> str:
    """Of a dry run and of a real one, which are the same; nothing was run."""
    told = toy.problems(*arguments, "--dry-run")
    assert toy.problems(*arguments) == told
    assert toy.events() == []
    return "\n".join(told)


def test_what_is_in_order_passes(toy):
    (toy.raw / "Dataset501_Toy.zip").touch()  # no dataset
    assert toy.call("--dry-run").count("nnUNetv2_train ") == 3


def test_everything_is_told_at_once(toy):
    toy.write(
        folds=[0, 7],
        configurations=["2d_cpuu"],
        evaluate="--protocoll nnunet",
        prepare=[{"name": "make", "command": "no_such_program", "creates": [str(toy.folder / "never")]}],
    )
    told = problems(toy, "--prefix", "no_such_prefix -c 0").splitlines()
    assert len(told) == 7
    assert [line for line in told if "there is no program no_such_prefix" in line]
    assert [line for line in told if "'prepare' make: there is no program no_such_program" in line]
    assert len([line for line in told if "has the folds 0 to 1 and no fold 7" in line]) == 2  # of both datasets
    assert len([line for line in told if "no configuration 2d_cpuu" in line and "(2d, 2d_crf)" in line]) == 2
    assert [line for line in told if line.startswith("'evaluate': No such option: --protocoll")]


def test_what_evaluate_would_refuse_is_told_before_training(toy):
    toy.write(evaluate="-o elsewhere --protocol nnunet --hd95 union --lesions tumour")
    told = problems(toy).splitlines()
    assert [line.partition(":")[0] for line in told[:1]] == [
        "'evaluate' holds --output, which the benchmark itself says"
    ]
    assert [line for line in told if "--hd95 union was given with --protocol nnunet" in line]
    assert [line for line in told if "--lesions is 'tumour'" in line]


def test_datasets_that_are_exchanged_are_known_before_they_are_planned(toy):
    for name in (SCRIBBLE, DENSE):
        for file in (toy.preprocessed / name).rglob("*.json"):
            file.unlink()
    toy.write(
        datasets={"scribble": 502, "dense": 501},
        prepare=[
            {
                "name": "plan",
                "command": [sys.executable, "-c", "1", "nnUNetv2_plan_and_preprocess"],
                "creates": [f"$nnUNet_preprocessed/{name}/nnUNetPlans.json" for name in (SCRIBBLE, DENSE)],
            }
        ],
    )
    told = problems(toy)
    assert "has no label 'ignore'" in told
    # Of four cases nnU-Net draws no folds; and its planning makes no 2d_crf.
    assert "there is no fold 0 of 4 cases" in told
    assert f"no configuration 2d_crf is in what nnU-Net plans for {DENSE}" in told


def test_a_dataset_that_nobody_makes(toy):
    toy.write(datasets={"scribble": 777, "dense": 502})
    assert problems(toy).startswith("'datasets.scribble' 777: no such dataset is in")


@pytest.mark.parametrize("name", ["503", "Dataset503_New"])
def test_a_dataset_that_a_command_makes(toy, name):
    plans = "$nnUNet_preprocessed/Dataset503_New/nnUNetPlans"
    steps = {
        "convert": ["$nnUNet_raw/Dataset503_New/dataset.json"],
        "plan": [f"{plans}.json"],
        "configure": [f"{plans}.json#2d_crf"],
        "preprocess": [f"{plans}_2d"],
    }
    prepare = [
        {"name": step, "command": [sys.executable, "-c", "1"], "creates": creates} for step, creates in steps.items()
    ]
    toy.write(datasets={"scribble": name, "dense": 502}, prepare=prepare)
    told = toy.call("--dry-run")
    assert told.count("nnUNetv2_train ") == 3
    assert "the test set of fold 0 is not known yet" in told
    toy.write(prepare=prepare[:1])
    assert "nnUNetPlans.json is not there: plan the dataset" in problems(toy)
    toy.write(prepare=prepare[:2])
    assert "no configuration 2d_crf is in what nnU-Net plans" in problems(toy)
    toy.write(prepare=[*prepare[:1], {"name": "the rest", "command": [sys.executable, "-c", "1"]}])
    assert toy.call("--dry-run").count("nnUNetv2_train ") == 3  # what the second makes, nobody knows


def test_further_scribbles_are_checked_like_the_others(toy):
    rows = [toy.content["rows"][0], toy.content["rows"][1] | {"labels": ["few", "scribble"]}]
    toy.write(datasets={"scribble": 501, "few": 503, "dense": 502}, rows=rows)
    assert problems(toy).startswith("'datasets.few' 503: no such dataset is in")
    toy.add_few("few", "scribble")
    assert toy.call("--dry-run").count("nnUNetv2_train ") == 3
    (toy.preprocessed / FEW / "nnUNetPlans_2d").rmdir()
    assert f"{FEW}/nnUNetPlans_2d is not there" in problems(toy)
    (toy.preprocessed / FEW / "nnUNetPlans_2d").mkdir()
    splits = [{"train": ["a", "c"], "val": ["b", "d"]}, {"train": ["b", "d"], "val": ["a", "c"]}]
    (toy.preprocessed / FEW / "splits_final.json").write_text(json.dumps(splits))
    assert "Dataset503_Few validates fold 0 on other patients than Dataset501_Toy" in problems(toy)
    description = toy.preprocessed / FEW / "dataset.json"
    description.write_text(description.read_text().replace('"ignore"', '"kidney"'))
    assert f"{description} has no label 'ignore'" in problems(toy)


def test_data_that_nobody_preprocesses(toy):
    (toy.preprocessed / SCRIBBLE / "nnUNetPlans_2d").rmdir()
    assert "nnUNetPlans_2d is not there: preprocess 2d of" in problems(toy)


def test_data_of_a_configuration_that_prepare_makes_and_nobody_preprocesses(toy):
    file = toy.preprocessed / SCRIBBLE / "nnUNetPlans.json"
    add = "import json, sys; file = sys.argv[1]; plans = json.load(open(file)); plans['configurations']['2d_new'] = "
    add += "{'inherits_from': '2d', 'data_identifier': 'nnUNetPlans_2d_new'}; json.dump(plans, open(file, 'w'))"
    step = {"name": "new", "command": [sys.executable, "-c", add, str(file)], "creates": [f"{file}#2d_new"]}
    rows = [row | {"configuration": "2d_new"} if row["labels"] == "scribble" else row for row in toy.content["rows"]]
    toy.write(rows=rows, prepare=[step])
    (told,) = toy.problems()
    assert "nnUNetPlans_2d_new is not there: preprocess 2d_new of" in told
    assert toy.events() == []


def test_rows_that_are_not_asked_for_need_no_preprocessed_data(toy):
    (toy.preprocessed / DENSE / "nnUNetPlans_2d").rmdir()
    assert f"{DENSE}/nnUNetPlans_2d is not there" in problems(toy)
    assert "done     seed_0/fold_0/partial_ce: training" in toy.call("--only", "partial_ce")


def test_folders_of_a_test_set_that_are_not_there(toy):
    toy.write(test={"images": str(toy.folder / "images"), "labels": "$nnUNet_raw"})
    (told,) = problems(toy).splitlines()
    assert told == f"'test.images': {toy.folder / 'images'} is not a folder, and no command of 'prepare' creates it"


def test_folders_of_a_test_set_that_a_command_makes(toy, monkeypatch):
    here = toy.folder / "C# project"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HERE", str(here))
    created = ["images", "$HERE/labels"]
    toy.write(
        prepare=[{"name": "later", "command": [sys.executable, "-c", "1"], "creates": created}],
        test={"images": "images", "labels": "labels"},
    )
    assert toy.call("--dry-run").count("nnUNetv2_train ") == 3


def test_trainers_are_asked_for_where_the_datasets_have_yet_to_be_made(toy, monkeypatch):
    monkeypatch.setattr(checks, "ask_nnunet", lambda *_: ["the row 'CRF' cannot be trained: ..."])
    assert toy.call("--dry-run")  # here the plan of all rows asks for them
    prepare = [{"name": "later", "command": [sys.executable, "-c", "1"], "creates": ["$nnUNet_raw/later"]}]
    toy.write(prepare=prepare)
    assert problems(toy) == "the row 'CRF' cannot be trained: ..."
    toy.write(prepare=[], predict="--disable_ttta")
    assert problems(toy) == "the row 'CRF' cannot be trained: ..."


def test_nnunet_itself_is_asked(toy):
    rows = [
        {"name": "A", "trainer": "nnUNetTrainerPartialCE", "labels": "dense"},
        {"name": "B", "trainer": "nnUNetTrainerAtenScribble", "labels": "scribble"},
        {"name": "C", "trainer": "nnUNetTrainerLoud", "labels": "scribble"},
        {"name": "D", "trainer": "nnUNetTrainer_5epochs", "labels": "dense"},
    ]
    loud = toy.folder / "loud"
    loud.mkdir()
    # What it writes below Python is no part of the answer.
    (loud / "nnUNetTrainerLoud.py").write_text(
        "import os\nfrom nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "os.write(1, b'loaded \\xff')\nclass nnUNetTrainerLoud(nnUNetTrainer):\n    pass\n"
    )
    trainers = f"{loud}{os.pathsep}{trainers_folder()}"
    environment = {**os.environ, "nnUNet_extTrainer": trainers, "nnUNet_results": str(toy.folder)}
    toy.write(rows=rows, reference="D", predict="--disable_ttta -step_size 0.5")
    dense, misspelt, option = ask_nnunet(read_benchmark(toy.file), environment)
    assert dense.startswith("the row 'A' is on dense labels, nnUNetTrainerPartialCE trains from scribbles")
    assert misspelt.startswith("the row 'B' cannot be trained: Could not find requested nnunet trainer")
    assert option.startswith("'predict': unrecognized arguments: --disable_ttta: give options")
    toy.write(rows=rows[2:], predict="--disable_tta -step_size 0.5")
    assert ask_nnunet(read_benchmark(toy.file), environment) == []


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_examples_pass_before_their_data_are_made(toy, file, monkeypatch):
    monkeypatch.setenv("SET", "KiTS2023")  # of scribblebench.yaml
    raw = toy.folder / "raw"
    content = {
        "labels": {"background": 0, "a": 1},
        "channel_names": {"0": "MRI"},
        "file_ending": ".nii.gz",
        "dataset": {str(case): {"images": ["i.nii.gz"], "label": "l.nii.gz"} for case in range(6)},
    }
    (raw / "Dataset004_Hippocampus").mkdir(parents=True)
    (raw / "Dataset004_Hippocampus" / "dataset.json").write_text(json.dumps(content))
    toy.file = file
    told = toy.call("--dry-run", "--raw", str(raw), "--preprocessed", str(toy.folder / "preprocessed"))
    assert "nnUNetv2_train " in told
