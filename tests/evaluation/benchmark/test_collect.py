from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from nnunet_attenscribble.common.provenance import find_commit
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark import cells
from nnunet_attenscribble.evaluation.benchmark.checks import Budget
from nnunet_attenscribble.evaluation.benchmark.execution import Execution
from nnunet_attenscribble.evaluation.benchmark.provenance import (
    append_command,
    read_commands,
    read_training_log,
    write_training_log,
)
from nnunet_attenscribble.evaluation.benchmark.workspace import Step
from nnunet_attenscribble.evaluation.report.build import write_report
from nnunet_attenscribble.evaluation.summary import read_summary, write_summary
from tests.evaluation.benchmark.fake_nnunet import DENSE, SCRIBBLE
from tests.evaluation.collected_folder import read_csv

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups and links are those of POSIX")


def read_json(file):
    return json.loads(file.read_text())


def read_dice(file) -> dict[str, float]:
    """By model, the mean of a comparison in CSV."""
    return {row["model"]: float(row["mean"]) for row in read_csv(file) if row["metric"] == "dice"}


def report(toy) -> str:
    """The report of what was collected, as Markdown."""
    write_report(toy.work / "collected", toy.folder / "report")
    return (toy.folder / "report" / "report.md").read_text()


def tell(place, **provenance) -> None:
    """Let a result tell something else of its training."""
    summary = read_summary(place)
    write_summary(replace(summary, provenance={**summary.provenance, **provenance}), place)


def test_everything_is_in_one_folder(toy):
    toy.call()
    folder = toy.work / "collected"
    content = read_json(folder / "collected.json")
    assert (folder / "missing.txt").read_text() == ""
    assert [cell["state"] for cell in content["cells"]] == ["done"] * 3
    for cell in content["cells"]:
        own = folder / cell["folder"]
        assert sorted(file.name for file in own.iterdir()) == [
            *("attenscribble_metrics.csv", "attenscribble_summary.json", "loss_terms.csv", "model", "predictions"),
            "training_log.csv",
        ]
        assert sorted(file.name for file in (own / "predictions").iterdir()) == ["c.nii.gz", "d.nii.gz"]
        assert (own / "model" / "checkpoint_final.pth").is_file()
    assert content["datasets"] == {"scribble": SCRIBBLE, "dense": DENSE}
    assert content["rows"][2]["settings"] == {"crf_weight": 0.5}
    assert content["rows"][2]["budget"] == {"epochs": 5, "iterations": 250, "batch_size": 2, "attention": False}
    test = content["test"]["folds"]["0"]
    assert test["cases"] == ["c", "d"]
    assert sorted(os.listdir(folder / test["labels"])) == ["c.nii.gz", "d.nii.gz"]
    assert content["scribbles"] == {
        "folder": str(toy.raw / SCRIBBLE / "labelsTr"),
        "file_ending": ".nii.gz",
        "ignore": 2,
    }


def test_where_there_can_be_no_links_everything_else_is_collected(toy, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")  # as exFAT, and Windows without the right to it

    monkeypatch.setattr(Path, "symlink_to", refuse)
    toy.write(postprocess=True)
    toy.call()
    cell = toy.work / "collected" / "cells" / "seed_0" / "fold_0" / "crf"
    assert sorted(file.name for file in cell.iterdir() if file.is_dir()) == ["postprocessed"]
    assert "There can be no links" in (toy.work / "collected" / "comparison.md").read_text()
    assert report(toy)


def test_results_on_several_sets_of_scribbles_tell_how_much_was_annotated(toy):
    toy.add_few("few", "scribble")
    toy.draw(SCRIBBLE, a=[(0, 1), (2, 3)], b=[(1, 1)], c=[(1, 1)], d=[(1, 1)])
    toy.draw("Dataset503_Few", a=[(0, 1)], b=[], c=[(0, 0), (1, 1)], d=[(0, 1)])
    toy.write(workers=2)
    assert toy.call().count("Counting annotation: 4 of 4") == 2
    kept = toy.folder / "kept"
    toy.call("collect", "--keep", str(kept))
    content = read_json(toy.work / "collected" / "collected.json")
    assert content["datasets"] == {"scribble": SCRIBBLE, "few": "Dataset503_Few", "dense": DENSE}
    assert [(row["name"], row["labels"]) for row in content["rows"]] == [
        *(("Dense", "dense"), ("Partial CE (few)", "few"), ("Partial CE", "scribble"))
    ]
    expected = {"partial_ce": ("1.5", "0.03125", "1.5", "1.5"), "partial_ce_few": ("0.5", "0.0104167", "0.5", "0.5")}
    for row, values in expected.items():  # of the training cases a and b
        for place in (toy.work / "cells", toy.work / "collected" / "cells"):
            provenance = read_summary(place / "seed_0" / "fold_0" / row).provenance
            assert tuple(provenance[f"annotated_{name}"] for name in ("voxels", "share", "strokes", "slices")) == values
    assert "annotated_voxels" not in read_summary(toy.work / "cells" / "seed_0" / "fold_0" / "dense").provenance
    toy.draw("Dataset503_Few", a=[], b=[])  # results tell what they were trained with
    toy.call("collect")
    summary = read_summary(toy.work / "collected" / "cells" / "seed_0" / "fold_0" / "partial_ce_few")
    assert summary.provenance["annotated_voxels"] == "0.5"
    assert len(toy.events("train")) == 3
    shutil.rmtree(toy.work / "cells")
    shutil.rmtree(toy.work / "seed_0")
    toy.call("collect", "--kept", str(kept))
    summary = read_summary(toy.work / "collected" / "cells" / "seed_0" / "fold_0" / "partial_ce_few")
    assert summary.provenance["annotated_voxels"] == "0.5"


def test_annotation_that_cannot_be_counted_is_told(toy):
    toy.add_few("few", "scribble")
    toy.draw(SCRIBBLE, a=[(0, 1)], b=[], c=[], d=[])
    toy.call()  # the files of the others are empty
    notes = read_json(toy.work / "collected" / "collected.json")["notes"]
    (told,) = (note for note in notes if "annotated" in note)
    assert told.startswith("How much is annotated in Dataset503_Few is not known:")
    assert "a.nii.gz" in told


def test_postprocessing_decides_by_the_scribbles_of_the_row(toy):
    toy.add_few("few")
    toy.write(postprocess=True)
    toy.call()
    used = [Path(event["arguments"][2]).parent.name for event in toy.events("postprocess")]
    assert used == [SCRIBBLE, "Dataset503_Few"]


def test_every_result_tells_which_training_it_is_of(toy):
    toy.write(seeds=[4])
    toy.call()
    places = [toy.work / "cells" / "seed_4" / "fold_0" / "crf", toy.work / "collected" / "rows" / "crf" / "seed_4"]
    for place in places:
        summary = read_summary(place)
        told = {
            "seed": "4",
            "fold": "0",
            "row": "CRF",
            "labels": "scribble",
            "trainer": "nnUNetTrainerMaskedCRF",
            "configuration": "2d_crf",
            "epochs": "5",
            "checkpoint": "checkpoint_final.pth",
            "plans_sha256": "abc",
            "commit": find_commit(),
            "commit_training": find_commit(),
        }
        assert {key: summary.provenance[key] for key in told} == told
        assert len(summary.provenance["splits_sha256"]) == 64
        assert {"nnunetv2", "torch", "nnunet-attenscribble"} <= summary.versions.keys()


def test_seeds_versions_plans_and_commit_are_in_every_result_file(toy):
    toy.write(seeds=[4, 5])
    toy.call()
    folder = toy.work / "collected"
    own = [
        *(toy.work / "cells").rglob("attenscribble_*"),
        *folder.rglob("attenscribble_*"),
        *folder.glob("comparison.*"),
    ]
    assert {file.suffix for file in own} == {".json", ".csv", ".md"}
    assert len(own) == 2 * 6 + 2 * 6 + 2 * 6 + 3  # cells, cells and rows that were collected, the comparison
    for file in own:
        text = file.read_text()
        assert find_commit() in text, file
        assert "abc" in text, file  # the hash of the plans
        assert "nnunetv2" in text, file
        if file.suffix == ".csv":
            for row in csv.DictReader(text.splitlines()):
                assert set(row["seed"].split("; ")) <= {"4", "5"}, file
                assert row["fold"] == "0"
                assert row["plans_sha256"] == "abc"
                assert row["commit"] == row["commit_training"] == find_commit()
                assert "torch " in row["versions"]
    rows = {row["model"]: row for row in csv.DictReader((folder / "comparison.csv").read_text().splitlines())}
    assert {row["seed"] for row in rows.values()} == {"4; 5"}


def test_what_was_trained_before_the_benchmark_has_the_version_that_nnunet_noted(toy):
    toy.call("--only", "crf")
    (toy.work / "commands.jsonl").unlink()
    toy.call("collect")
    summary = read_summary(toy.work / "collected" / "cells" / "seed_0" / "fold_0" / "crf")
    assert summary.versions["torch"] == "9.9"
    assert summary.versions["nnunetv2"] == "unknown"
    assert summary.provenance["commit_training"] is None


def test_selection_is_told_where_the_numbers_are(toy):
    toy.call()
    content = read_json(toy.work / "collected" / "collected.json")
    table = (toy.work / "collected" / "comparison.md").read_text()
    assert "The test set are the validation cases of each fold" in content["selection"][0]
    assert "no checkpoint was selected" in content["selection"][1]
    assert all(sentence in table for sentence in content["selection"])


def test_missing_cells_are_listed_with_what_they_lack(toy, monkeypatch):
    toy.write(seeds=[0, 1])
    monkeypatch.setenv("FAKE_FAIL", "nnUNetTrainerPartialCE")
    toy.call("--only", "seed_0", code=1)
    told = toy.call("collect")
    folder = toy.work / "collected"
    assert (folder / "missing.txt").read_text().splitlines() == [
        "seed_0/fold_0/partial_ce\ttraining",
        "seed_1/fold_0/dense\ttraining",
        "seed_1/fold_0/partial_ce\ttraining",
        "seed_1/fold_0/crf\ttraining",
    ]
    assert "missing: seed_0/fold_0/partial_ce (training)" in told
    comparison = read_json(folder / "comparison.json")
    assert comparison["models"] == ["Dense", "CRF"]
    assert any("4 of 6 cells are missing" in note for note in comparison["notes"])


def test_without_the_reference_there_is_no_comparison(toy):
    toy.call("--only", "crf")
    toy.call("collect")
    assert not (toy.work / "collected" / "comparison.md").exists()
    assert read_json(toy.work / "collected" / "collected.json")["comparison"] is None


def test_rows_with_fewer_repetitions_are_told(toy):
    toy.write(seeds=[0, 1])
    toy.call("--only", "dense")
    toy.call("--only", "seed_0/fold_0/crf")
    told = toy.call("collect")
    assert "note: The row 'CRF' stands for fewer trainings than others: seed 0 fold 0." in told


def test_a_repetition_without_all_of_its_folds_is_not_compared(toy):
    toy.write(folds=[0, 1], seeds=[0])
    toy.call("--only", "dense")
    toy.call("--only", "fold_1/crf")
    toy.call("collect")
    folder = toy.work / "collected"
    assert read_json(folder / "comparison.json")["models"] == ["Dense"]
    assert sorted(read_summary(folder / "rows" / "dense" / "seed_0").cases) == ["a", "b", "c", "d"]
    assert sorted(read_summary(folder / "rows" / "crf" / "seed_0").cases) == ["a", "b"]
    rows = {row["name"]: row for row in read_json(folder / "collected.json")["rows"]}
    assert rows["Dense"]["compared"] == rows["Dense"]["summaries"] != []
    assert rows["CRF"]["compared"] == []


@pytest.mark.parametrize("folder", [True, False])
def test_folds_on_the_same_test_set_are_repetitions(toy, folder):
    if folder:
        toy.add_test_folder("x")
    else:
        toy.write_splits(*({"train": [own], "val": ["c", "d"]} for own in ("a", "b")))
    toy.write(folds=[0, 1], rows=toy.content["rows"][:2])
    toy.call()
    rows = read_json(toy.work / "collected" / "collected.json")["rows"]
    assert rows[0]["summaries"] == [f"rows/dense/seed_0_fold_{fold}/attenscribble_summary.json" for fold in (0, 1)]
    dice = read_dice(toy.work / "collected" / "comparison.csv")
    single = [read_summary(toy.work / "collected" / path).aggregate() for path in rows[0]["summaries"]]
    assert dice["Dense"] == pytest.approx(sum(own["foreground_mean"]["dice"]["mean"] for own in single) / 2)


def test_collecting_again_replaces_the_folder_and_nothing_else(toy):
    toy.call()
    folder = toy.work / "collected"
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    (folder / "rows" / "stale").touch()
    (folder / "report").mkdir()
    with pytest.raises(AttenScribbleError, match=r"holds something else than collected results \(report\): move that"):
        toy.call("collect")
    (folder / "report").rmdir()
    with pytest.raises(AttenScribbleError, match="is replaced: give another place"):
        toy.call("collect", "--keep", str(folder / "kept"))
    toy.call("collect")
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert sorted(file.name for file in toy.work.iterdir()) == [
        *("benchmark.json", "cells", "collected", "commands.jsonl", "seed_0", "test")
    ]


def test_trainings_of_one_row_by_several_commits_are_told(toy):
    toy.write(seeds=[0, 1])
    toy.call()
    assert "several commits" not in toy.call("collect")
    file = toy.work / "commands.jsonl"
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    for entry in entries:
        if entry["cell"] == "seed_1/fold_0/crf":
            entry["commit"] = "0123456789"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert ", 0123456)." in toy.call("collect")


def test_a_folder_with_something_else_in_it_is_left_alone(toy):
    toy.call("--only", "crf")
    (toy.folder / "mine").mkdir()
    (toy.folder / "mine" / "thesis.tex").touch()
    with pytest.raises(AttenScribbleError, match="holds something else"):
        toy.call("collect", "-o", str(toy.folder / "mine"))
    assert (toy.folder / "mine" / "thesis.tex").exists()
    (toy.folder / "empty").mkdir()
    (toy.folder / "empty" / ".DS_Store").touch()
    toy.call("collect", "-o", str(toy.folder / "empty"))
    (toy.folder / "images" / "test").mkdir(parents=True)
    with pytest.raises(AttenScribbleError, match=r"holds something else than collected results \(test\)"):
        toy.call("collect", "-o", str(toy.folder / "images"))
    toy.call("collect", "-o", str(toy.folder / "new"))
    assert (toy.folder / "new" / "collected.json").is_file()


# --- behind postprocessing ---


def test_postprocessed_results_are_compared_by_themselves(toy):
    toy.write(postprocess=True, seeds=[0, 1])
    toy.call("--only", "seed_0")
    toy.call("--only", "seed_1/fold_0/crf")
    told = toy.call("collect")
    folder = toy.work / "collected"
    assert "After `attenscribble postprocess`" in told
    own = read_summary(folder / "cells" / "seed_0" / "fold_0" / "crf" / "postprocessed")
    assert own.provenance["postprocessing"] == "largest component of heart"
    assert own.provenance["trainer"] == "nnUNetTrainerMaskedCRF"
    assert own.provenance["commit"] == find_commit()
    assert own.cases != read_summary(folder / "cells" / "seed_0" / "fold_0" / "crf").cases
    content = read_json(folder / "collected.json")
    for name in ("comparison", "comparison_postprocessed"):
        assert content[name] == {ending: f"{name}.{ending}" for ending in ("md", "csv", "json")}
    dice = read_dice(folder / "comparison_postprocessed.csv")
    runs = [folder / "cells" / f"seed_{seed}" / "fold_0" / "crf" / "postprocessed" for seed in (0, 1)]
    values = [read_summary(run).cases[case]["heart"].dice for run in runs for case in ("c", "d")]
    assert dice["CRF"] == pytest.approx(sum(values) / 4)
    notes = read_json(folder / "comparison_postprocessed.json")["notes"]
    assert any(note.endswith("rests on the training scribbles alone: largest component of heart.") for note in notes)
    assert "2 of 6 cells are missing; missing.txt tells what they lack." in notes
    assert "The row 'Dense' stands for fewer trainings than others: seed 0 fold 0." in notes


def test_a_table_of_postprocessed_results_has_the_notes_of_the_other_one(toy, monkeypatch):
    budgets = {"Dense": Budget(5, 250, 2), "Partial CE": Budget(5, 250, 2), "CRF": Budget(6, 250, 2)}
    monkeypatch.setattr(cells, "resolve_budgets", lambda *_: budgets)
    toy.write(postprocess=True, unequal_budgets=True)
    toy.call()
    shutil.rmtree(toy.work / "cells" / "seed_0" / "fold_0" / "partial_ce" / "postprocessed")
    toy.call("collect", "-o", str(toy.folder / "theirs"))
    shutil.rmtree(toy.work / "cells" / "seed_0" / "fold_0" / "crf")
    toy.call("collect", "--kept", str(toy.folder / "theirs"))
    tables = [toy.work / "collected" / f"{name}.json" for name in ("comparison", "comparison_postprocessed")]
    plain, processed = (read_json(file)["notes"] for file in tables)
    assert [note for note in plain if note not in processed] == []
    for start in ("Unequal budgets: the row 'CRF'", "1 of 3 cells are results kept elsewhere (theirs)"):
        assert any(note.startswith(start) for note in processed)
    assert "1 complete cell has no postprocessed results: seed_0/fold_0/partial_ce." in processed
    assert not any("postprocess" in note for note in plain)


def test_the_report_shows_both_comparisons(toy):
    toy.write(postprocess=True)
    toy.call()
    text = report(toy)
    table = (toy.work / "collected" / "comparison_postprocessed.md").read_text().split("\n#### ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| CRF")]
    assert rows
    assert all(row in text.partition("With postprocessing")[2] for row in rows)
    data = toy.folder / "report" / "data" / "comparison_postprocessed.csv"
    assert data.read_bytes() == (toy.work / "collected" / "comparison_postprocessed.csv").read_bytes()


# --- results that are kept elsewhere ---


@pytest.fixture
def kept(toy):
    """What another machine collected of the second repetition, its models gone."""
    toy.write(seeds=[0, 1])
    toy.call("--only", "seed_1")
    toy.call("collect")
    shutil.move(toy.work / "collected", toy.folder / "theirs")
    shutil.rmtree(toy.work)
    return toy.folder / "theirs"


def test_results_of_two_machines_are_compared_as_one(toy, kept):
    toy.call("--only", "seed_0")
    told = toy.call("collect", "--kept", str(kept))
    folder = toy.work / "collected"
    assert "missing" not in told
    assert "note: 3 of 6 cells are results kept elsewhere (theirs), without predictions and models: seed_1/f" in told
    assert (folder / "missing.txt").read_text() == ""
    for cell in ("seed_1/fold_0/crf", "seed_1/fold_0/dense"):
        own, other = folder / "cells" / cell, kept / "cells" / cell
        assert read_summary(own) == read_summary(other)
        assert sorted(file.name for file in own.iterdir()) == [
            *("attenscribble_metrics.csv", "attenscribble_summary.json", "loss_terms.csv", "training_log.csv")
        ]
        assert (own / "loss_terms.csv").read_text() == (other / "loss_terms.csv").read_text()
    dice = read_dice(folder / "comparison.csv")
    runs = [read_summary(folder / "cells" / f"seed_{seed}" / "fold_0" / "crf") for seed in (0, 1)]
    values = [run.cases[case]["heart"].dice for run in runs for case in ("c", "d")]
    assert dice["CRF"] == pytest.approx(sum(values) / 4)


def test_published_results_are_collected_without_a_training(toy, kept):
    """The folder of cells under another name, in which only the scores were kept."""
    published = toy.folder / "published"
    shutil.copytree(kept / "cells", published, ignore=shutil.ignore_patterns("*.csv", "predictions", "model"))
    toy.call("--prepare")
    toy.call("collect", "--kept", str(published))
    folder = toy.work / "collected"
    assert len((folder / "missing.txt").read_text().splitlines()) == 3
    assert read_json(folder / "comparison.json")["models"] == ["Dense", "Partial CE", "CRF"]
    assert "kept elsewhere" in report(toy)


def test_kept_results_bring_those_behind_postprocessing(toy):
    toy.write(postprocess=True)
    toy.call()
    toy.call("collect", "-o", str(toy.folder / "theirs"))
    shutil.rmtree(toy.work)
    toy.call("--prepare")
    told = toy.call("collect", "--kept", str(toy.folder / "theirs"))
    assert "After `attenscribble postprocess`" in told
    for name in ("comparison", "comparison_postprocessed"):
        before, now = (read_json(place / f"{name}.json") for place in (toy.folder / "theirs", toy.work / "collected"))
        assert now["rows"] == before["rows"]
    toy.write(postprocess=False)
    assert "After" not in toy.call("collect", "--kept", str(toy.folder / "theirs"))


def test_scores_that_are_kept_in_two_files_are_collected_as_folders_are(toy):
    toy.write(postprocess=True)
    toy.call()
    own = toy.folder / "own"
    told = toy.call("collect", "-o", str(toy.folder / "theirs"), "--keep", str(own))
    assert f"Scores kept in {own}" in told
    assert sorted(file.name for file in own.iterdir()) == ["scores.csv", "trainings.json"]
    told = (own / "trainings.json").read_text()
    assert str(toy.folder) not in told
    assert f'"{toy.work.name}/cells/' in told
    shutil.rmtree(toy.work)
    toy.call("--prepare")
    tables = []
    for source in (toy.folder / "theirs", own):
        told = toy.call("collect", "--kept", str(source))
        assert f"3 of 3 cells are results kept elsewhere ({source.name})" in told
        collected = toy.work / "collected"
        tables.append(
            [(collected / f"{name}.csv").read_text() for name in ("comparison", "comparison_postprocessed")]
            + [read_summary(place.parent) for place in sorted(collected.rglob("attenscribble_summary.json"))]
        )
    assert tables[0] == tables[1]
    toy.call("collect", "--kept", str(own), "--keep", str(toy.folder / "again"))
    assert (toy.folder / "again" / "scores.csv").read_text() == (own / "scores.csv").read_text()


def test_scores_are_kept_once_there_are_some(toy):
    toy.call("--prepare")
    own = toy.folder / "own"
    assert toy.problems("collect", "--keep", str(own)) == [f"no cell is complete: there are no scores to keep in {own}"]
    assert not (toy.work / "collected").exists()
    toy.call()
    toy.call("collect", "--keep", str(own))
    (own / "scores.csv").write_text("")
    (problem,) = toy.problems("collect", "--kept", str(own), "-o", str(toy.folder / "x"))
    assert problem.startswith(f"the kept scores in {own} are damaged")


def test_what_was_run_here_goes_before_what_was_kept(toy, kept):
    toy.call("--only", "seed_1/fold_0/crf")
    place = kept / "cells" / "seed_1" / "fold_0" / "crf"
    summary = read_summary(place)
    write_summary(replace(summary, notes=("theirs",)), place)
    toy.call("collect", "--kept", str(kept))
    own = toy.work / "collected" / "cells" / "seed_1" / "fold_0" / "crf"
    assert "theirs" not in read_summary(own).notes
    assert (own / "model").exists()


def test_kept_results_of_another_training_are_refused_all_at_once(toy, kept):
    toy.call("--only", "seed_0")
    toy.call("collect")
    before = (toy.work / "collected" / "collected.json").read_bytes()
    cells = kept / "cells" / "seed_1" / "fold_0"
    tell(cells / "crf", epochs="50", trainer="Other")
    summary = read_summary(cells / "dense")
    write_summary(replace(summary, cases={"c": summary.cases["c"]}), cells / "dense")
    (cells / "partial_ce" / "attenscribble_summary.json").write_text("{")
    (toy.folder / "empty").mkdir()
    again = toy.folder / "again"
    shutil.copytree(kept / "cells" / "seed_1" / "fold_0" / "crf", again / "seed_1" / "fold_0" / "crf", symlinks=True)
    arguments = [word for name in (kept, toy.folder / "empty", again) for word in ("--kept", str(name))]
    problems = toy.problems("collect", *arguments)
    name = "seed_1/fold_0/crf is kept with"
    assert f"{name} trainer 'Other' and should have 'nnUNetTrainerMaskedCRF': it is not of this benchmark" in problems
    assert f"{name} epochs '50' and should have '5': it is not of this benchmark" in problems
    assert "seed_1/fold_0/dense is kept with other test cases than this benchmark's (d)" in problems
    assert any("is no JSON" in problem for problem in problems)
    assert any(problem.startswith(f"{toy.folder / 'empty'} has no result of a cell") for problem in problems)
    assert f"seed_1/fold_0/crf is both in {kept / 'cells'} and in {again}: give one of them" in problems
    assert len(problems) == 6
    assert (toy.work / "collected" / "collected.json").read_bytes() == before
    assert not list(toy.work.glob(".collected*"))


TRAINED = "Kept results that were trained with something else than there is now: "


def test_kept_results_of_other_settings_or_patients_are_told(toy, kept):
    toy.call("--prepare")
    assert TRAINED not in toy.call("collect", "--kept", str(kept))
    toy.change_settings()
    told = toy.call("collect", "--kept", str(kept))
    assert f"note: {TRAINED}seed_1/fold_0/crf (other settings).\n" in told
    toy.write_splits({"train": ["a"], "val": ["c", "d"]})
    told = toy.call("collect", "--kept", str(kept))
    other = "another splits_final.json"
    cells = f"dense ({other}), seed_1/fold_0/partial_ce ({other}), seed_1/fold_0/crf (other settings and {other})"
    assert f"note: {TRAINED}seed_1/fold_0/{cells}.\n" in told
    assert TRAINED in (toy.work / "collected" / "comparison.md").read_text()


def test_settings_of_today_are_not_shown_for_kept_results_of_others(toy, kept):
    toy.call("--prepare")
    toy.change_settings()
    toy.call("collect", "--kept", str(kept))
    rows = read_json(toy.work / "collected" / "collected.json")["rows"]
    assert [row["settings"] for row in rows] == [{}, {}, None]
    text = report(toy)
    row = "| CRF | scribble | nnUNetTrainerMaskedCRF | 2d_crf | 5 x 250 x 2 |"
    assert f"{row} unknown |" in text
    assert "crf_weight" not in text


def test_kept_results_whose_hashes_are_not_known_are_not_told(toy, kept):
    for place in (kept / "cells").rglob("attenscribble_summary.json"):
        tell(place.parent, configuration_sha256=None, splits_sha256=None)
    toy.call("--prepare")
    toy.change_settings()
    toy.write_splits({"train": ["a"], "val": ["c", "d"]})
    assert TRAINED not in toy.call("collect", "--kept", str(kept))


def test_other_settings_under_another_name_are_told_once(toy, kept):
    tell(kept / "cells" / "seed_1" / "fold_0" / "crf", configuration="2d_old")
    toy.call("--prepare")
    toy.change_settings()
    told = toy.call("collect", "--kept", str(kept))
    assert "with another name than the benchmark's: seed_1/fold_0/crf (2d_old, not 2d_crf)." in told
    assert TRAINED not in told
    assert read_json(toy.work / "collected" / "collected.json")["rows"][2]["settings"] is None


# --- the log of commands, and nnU-Net's ---


def test_a_line_of_the_log_that_was_cut_off_is_passed_over(tmp_path):
    step = Step("train", ("nnUNetv2_train", "a b"), tmp_path / "x.log", lambda: True)
    file = tmp_path / "commands.jsonl"
    append_command(file, "cell", Execution(step, 0.0, 1.25, 0))
    with file.open("a") as log:
        log.write('{"cell": ')
    for _ in range(2):
        append_command(file, "cell", Execution(step, 0.0, 1.25, 0))
    assert len(file.read_text().splitlines()) == 4
    entry, *_, last = read_commands(file)
    assert entry == last
    assert entry["command"] == "nnUNetv2_train 'a b'"
    assert entry["started"] == "1970-01-01T00:00:00+00:00"
    assert (entry["seconds"], entry["exit_code"]) == (1.2, 0)


LOG = """
#######
2026-11-23 00:05:38.166571: Epoch 0 
2026-11-23 00:05:38.166766: Current learning rate: 0.01 
2026-11-23 00:18:59.081289: train_loss 0.779 
2026-11-23 00:18:59.082748: val_loss -0.5179 
2026-11-23 00:18:59.082839: Pseudo dice [np.float32(0.4875), np.float32(nan)] 
2026-11-23 00:18:59.082932: Epoch time: 800.92 s 
2026-11-23 00:19:00.829272: Epoch 1 
2026-11-23 00:19:00.829441: Current learning rate: 0.00818 
"""  # noqa: W291 - as nnU-Net writes it


def test_the_course_of_a_training_is_read_from_nnunets_log(tmp_path):
    (tmp_path / "training_log_2026_1.txt").write_text(LOG)
    again = "2026-11-24 00:00:00.1: Epoch 1 \n2026-11-24 00:01:00.1: train_loss 0.5 \n"
    (tmp_path / "training_log_2026_2.txt").write_text(again + "2026-11-24 00:01:00.2: Pseudo dice [0.5, 1e-05] \n")
    epochs = read_training_log(tmp_path)
    first = epochs[0]
    assert first.pop("pseudo_dice_2") != first.get("pseudo_dice_2")  # NaN
    assert first == {
        "learning_rate": 0.01,
        "train_loss": 0.779,
        "val_loss": -0.5179,
        "pseudo_dice_1": 0.4875,
        "seconds": 800.92,
    }
    assert epochs[1] == {"train_loss": 0.5, "pseudo_dice_1": 0.5, "pseudo_dice_2": 1e-05}
    # A line that a full disk cut off tells nothing.
    (tmp_path / "training_log_2026_3.txt").write_text(
        "2026-11-24 00:02:00.1: Epoch 2 \n2026-11-24 00:03:00.1: train_loss -"
    )
    assert read_training_log(tmp_path)[2] == {}
    write_training_log(epochs, tmp_path / "log.csv")
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["train_loss"] for row in rows] == ["0.779", "0.5"]
    assert rows[1]["seconds"] == ""


def count_reads(monkeypatch, name: str) -> Counter[Path]:
    """How often each file of this name is read from now on."""
    counted: Counter[Path] = Counter()
    read_text = Path.read_text

    def read(file: Path, *args, **kwargs) -> str:
        if file.name == name:
            counted[file.resolve()] += 1
        return read_text(file, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read)
    return counted


def test_every_file_is_read_once(toy, monkeypatch, tmp_path):
    toy.write(folds=[0, 1], postprocess=True)
    toy.call()
    summaries = count_reads(monkeypatch, "attenscribble_summary.json")
    plans = count_reads(monkeypatch, "nnUNetPlans.json")
    of_models = count_reads(monkeypatch, "plans.json")
    toy.call("collect")
    assert len(summaries) == 2 * 6  # six cells, and their postprocessed predictions
    assert len(of_models) == 3  # one per row, for both folds
    assert set(summaries.values()) == set(of_models.values()) == {1}
    # The datasets' plans once to check the benchmark before anything else, and once for all cells.
    assert len(plans) == 2
    assert set(plans.values()) == {2}

    kept = toy.work / "collected"
    shutil.move(toy.work / "cells", tmp_path / "gone")
    for counted in (summaries, plans):
        counted.clear()
    toy.call("collect", "--kept", str(kept), "-o", str(tmp_path / "again"))
    assert len(summaries) == 2 * 6
    assert set(summaries.values()) == {1}
    assert set(plans.values()) == {2}
