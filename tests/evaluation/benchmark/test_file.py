from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import yaml

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark.file import Slurm, name_folder, read_benchmark

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
PAST = sorted((ROOT / "results").glob("*/benchmark.yaml"))
CONTENT = {
    "name": "toy",
    "datasets": {"scribble": 501, "dense": "Dataset502_X"},
    "configurations": ["2d"],
    "test": "validation",
    "rows": [
        {"name": "Dense", "trainer": "nnUNetTrainer", "labels": "dense"},
        {"name": "CE", "trainer": "nnUNetTrainerPartialCE", "labels": "scribble"},
    ],
}


def read(folder: Path, **changes):
    file = folder / "x.yaml"
    content = {key: value for key, value in (CONTENT | changes).items() if value is not None}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return read_benchmark(file)


def problems_of(folder: Path, **changes) -> list[str]:
    with pytest.raises(AttenScribbleError) as error:
        read(folder, **changes)
    prefix = f"{folder / 'x.yaml'}: "
    assert all(problem.startswith(prefix) for problem in error.value.problems)
    return [problem.removeprefix(prefix) for problem in error.value.problems]


def test_what_is_not_said_is_as_in_nnunet(tmp_path):
    read_file = read(tmp_path)
    assert (read_file.scribble, read_file.dense, read_file.plans) == ("501", "Dataset502_X", "nnUNetPlans")
    assert (read_file.folds, read_file.seeds, read_file.device) == (("0",), (0,), "cuda")
    assert read_file.reference == "Dense"
    assert [row.configuration for row in read_file.rows] == ["2d", "2d"]
    assert read_file.test_images is None
    assert read_file.slurm == Slurm()


def test_rows_are_trained_on_every_configuration_or_on_their_own(tmp_path):
    rows = [*CONTENT["rows"], {"name": "CRF", "trainer": "T", "labels": "scribble", "configuration": "2d_crf"}]
    found = read(tmp_path, configurations=["2d", "3d_fullres"], rows=rows, reference="Dense (2d)").rows
    assert [(row.name, row.configuration) for row in found] == [
        ("Dense (2d)", "2d"),
        ("Dense (3d_fullres)", "3d_fullres"),
        ("CE (2d)", "2d"),
        ("CE (3d_fullres)", "3d_fullres"),
        ("CRF", "2d_crf"),
    ]


def test_rows_are_trained_on_every_set_of_scribbles_that_they_name(tmp_path):
    datasets = {"scribble": 501, "tenth": 503, "dense": 502, "half": "Dataset504_Half"}
    rows = [CONTENT["rows"][0], CONTENT["rows"][1] | {"labels": ["tenth", "half", "scribble"]}]
    found = read(tmp_path, datasets=datasets, rows=rows)
    assert found.datasets == {"scribble": "501", "tenth": "503", "half": "Dataset504_Half", "dense": "502"}
    assert [(row.name, found.dataset_of(row), row.on_scribbles) for row in found.rows] == [
        ("Dense", "502", False),
        ("CE (tenth)", "503", True),
        ("CE (half)", "Dataset504_Half", True),
        ("CE", "501", True),
    ]
    several = read(tmp_path, datasets=datasets, rows=rows, configurations=["2d", "3d"], reference="Dense (2d)").rows
    assert [row.name for row in several[2:6]] == ["CE (tenth, 2d)", "CE (tenth, 3d)", "CE (half, 2d)", "CE (half, 3d)"]


def test_sets_of_scribbles_that_cannot_be(tmp_path):
    rows = [CONTENT["rows"][0], CONTENT["rows"][1] | {"labels": ["scribble", "quarter"]}]
    datasets = {"scribble": 501, "dense": 502, "half": 501, "a=b": 503, "rest": "heart", "unused": 504}
    assert [problem.split(":")[0] for problem in problems_of(tmp_path, datasets=datasets, rows=rows)] == [
        "'datasets' names scribbles 'a=b'",
        "'datasets.rest' is 'heart'",
        "'datasets' names 501 twice",
        "'rows[2].labels' is ['scribble', 'quarter']",
        "'datasets.half' is in the labels of no row",
        "'datasets.rest' is in the labels of no row",
        "'datasets.unused' is in the labels of no row",
    ]
    for labels in ([], ["scribble", "scribble"], [501], "quarter"):
        rows = [CONTENT["rows"][0], CONTENT["rows"][1] | {"labels": labels}]
        assert any("'rows[2].labels'" in problem for problem in problems_of(tmp_path, rows=rows))


def test_every_problem_is_told_at_once(tmp_path):
    problems = problems_of(
        tmp_path,
        datasets={"scribble": "heart", "dense": 0},
        seeds=[1, 1],
        folds=[-1],
        device="tpu",
        postprocess="largest",
        thread=1,
        subject="(",
        slurm={"gpu": 1, "cpus": 0},
        rows=[{"name": "a", "trainer": "T", "labels": "sparse"}, 7],
    )
    starts = [problem.split(" is ")[0].split(";")[0].split(" must")[0] for problem in problems]
    assert starts == [
        "unknown key 'thread'",
        "'datasets.scribble'",
        "'datasets.dense'",
        "'rows[2]'",
        "'rows[1].labels'",
        "'folds'",
        "'reference'",
        "'seeds'",
        "'subject'",
        "'device'",
        "'postprocess'",
        "unknown key 'slurm.gpu'",
        "'slurm.cpus'",
    ]


@pytest.mark.parametrize("key", ["name", "datasets", "rows", "test"])
def test_what_has_no_default_must_be_there(tmp_path, key):
    assert any(key in problem and "missing" in problem for problem in problems_of(tmp_path, **{key: None}))


def test_a_configuration_must_come_from_somewhere(tmp_path):
    assert any("rows[1].configuration' is missing" in p for p in problems_of(tmp_path, configurations=None))


def test_rows_whose_folders_would_be_the_same_are_refused(tmp_path):
    rows = [*CONTENT["rows"], {"name": "c.e", "trainer": "T", "labels": "scribble"}]
    rows += [{"name": "C-E", "trainer": "U", "labels": "scribble"}]
    problems = problems_of(tmp_path, rows=rows)
    assert [problem.split("'")[1] for problem in problems] == ["c.e", "C-E"]


def test_a_name_that_compare_would_cut_in_two_is_refused(tmp_path):
    rows = [CONTENT["rows"][0], CONTENT["rows"][1] | {"name": "CE, weight=1"}]
    (problem,) = problems_of(tmp_path, rows=rows)
    assert problem.startswith("'rows[2].name' is 'CE, weight=1': it must be the row's name, without '='")


def test_two_rows_of_the_same_training_are_refused(tmp_path):
    rows = [*CONTENT["rows"], CONTENT["rows"][1] | {"name": "again"}]
    (problem,) = problems_of(tmp_path, rows=rows)
    assert "'CE' and 'again' are the same training" in problem


def test_the_reference_is_trained_on_dense_labels(tmp_path):
    (problem,) = problems_of(tmp_path, reference="CE")
    assert "must name a row trained on dense labels; there are 'Dense'" in problem


FOLDERS = {"images": "i", "labels": "l"}


@pytest.mark.parametrize(
    "options", ["-chk {}", "-chk={}", ["--disable_tta", "-chk", "{}"], "-chk checkpoint_final.pth -chk {}"]
)
@pytest.mark.parametrize("name", ["checkpoint_best.pth", "mine.pth"])
def test_a_checkpoint_is_not_predicted_on_the_patients_it_may_be_selected_on(tmp_path, options, name):
    words = options.format(name) if isinstance(options, str) else [word.format(name) for word in options]
    (problem,) = problems_of(tmp_path, predict=words)
    assert f"'predict' asks for {name}" in problem
    assert "selects checkpoint_best.pth on the validation patients" in problem
    assert read(tmp_path, predict=words, test=FOLDERS).checkpoint == name


def test_the_final_checkpoint_is_predicted_with(tmp_path):
    assert read(tmp_path).checkpoint == "checkpoint_final.pth"
    assert read(tmp_path, predict="-chk=checkpoint_final.pth").checkpoint == "checkpoint_final.pth"


@pytest.mark.parametrize("options", ["-ch x", "-chk"])
def test_options_that_nnunet_could_not_read_are_refused(tmp_path, options):
    (problem,) = problems_of(tmp_path, predict=options)
    assert problem.startswith("'predict' cannot be read")


def test_every_option_of_nnunet_is_taken_for_what_it_is(tmp_path, monkeypatch):
    from nnunetv2.inference.predict_from_raw_data import predict_entry_point

    parsers = []
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda parser: parsers.append(parser) or exit())
    with pytest.raises(SystemExit):
        predict_entry_point()
    options = set(parsers[0]._option_string_actions) - {"-h", "--help"}
    own = {"-i", "-o", "-d", "-c", "-f", "-tr", "-p", "-device"}
    assert own | {"-chk"} <= options
    for option in own:
        (problem,) = problems_of(tmp_path, predict=[option, "1"])
        assert f"'predict' holds {option}," in problem
    for option in options - own:
        assert read(tmp_path, predict=[option, "1"], test=FOLDERS).checkpoint == (
            "1" if option == "-chk" else "checkpoint_final.pth"
        )


def test_fold_all_has_no_validation_patients_to_test_with(tmp_path):
    (problem,) = problems_of(tmp_path, folds=["all"])
    assert "validates on what it trains with" in problem
    assert read(tmp_path, folds=["all"], test=FOLDERS).folds == ("all",)


def test_one_fold_needs_no_list(tmp_path):
    assert read(tmp_path, folds="all", test=FOLDERS).folds == ("all",)
    assert read(tmp_path, folds=3).folds == ("3",)
    for folds in ("al", {0: 1}, -1, []):
        (problem,) = problems_of(tmp_path, folds=folds)
        assert problem.startswith("'folds' is ")


@pytest.mark.parametrize(
    ("options", "own"),
    [("-f all", "-f"), ("-f=all", "-f"), ("-fall", "-f"), ("-t X", "-tr"), ("-device=cuda", "-device"), ("-m x", "-m")],
)
def test_options_that_the_benchmark_gives_itself_are_refused(tmp_path, options, own):
    (problem,) = problems_of(tmp_path, predict=options)
    assert f"'predict' holds {own}," in problem


def test_a_time_without_quotes_is_refused_where_yaml_reads_a_number(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump(CONTENT) + "slurm: {time: 24:00:00}\n")
    with pytest.raises(AttenScribbleError, match=r"slurm.time' is 86400"):
        read_benchmark(file)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("name: a\nname: b\n")
    with pytest.raises(AttenScribbleError, match=r"'name' stands twice.*line 2"):
        read_benchmark(file)


@pytest.mark.parametrize("text", ["", "- a\n", "a: [\n", "\0"], ids=["empty", "a list", "cut off", "binary"])
def test_what_is_no_benchmark_is_no_traceback(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(AttenScribbleError, match=r"x\.yaml"):
        read_benchmark(tmp_path / "x.yaml")
    with pytest.raises(AttenScribbleError, match="cannot be read"):
        read_benchmark(tmp_path / "none.yaml")


def test_folders_are_named_after_rows():
    assert name_folder("AttenScribble (anchored), CRF 0.1") == "attenscribble_anchored_crf_0_1"


@pytest.mark.parametrize("file", EXAMPLES + PAST, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_examples_are_in_order(file):
    example = read_benchmark(file)
    assert next(row for row in example.rows if row.name == example.reference).labels == "dense"
    assert {row.labels for row in example.rows} == set(example.datasets)


def test_there_are_examples():
    assert [file.stem for file in EXAMPLES] == [
        "acdc",
        "acdc_cpu",
        "acdc_generated_cpu",
        "acdc_long_cpu",
        "acdc_rivals",
        "acdc_rivals_cpu",
        "chaos",
        "hippocampus_budget_cpu",
        "hippocampus_cpu",
        "hippocampus_rivals_cpu",
        "hippocampus_slices_cpu",
        "scribblebench",
    ]
