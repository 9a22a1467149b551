from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from nnunet_attenscribble.common.provenance import find_commit
from nnunet_attenscribble.evaluation.benchmark import cells
from nnunet_attenscribble.evaluation.benchmark.checks import Budget
from nnunet_attenscribble.evaluation.benchmark.file import read_benchmark
from nnunet_attenscribble.evaluation.benchmark.provenance import describe_selection
from nnunet_attenscribble.evaluation.benchmark.test_set import find_test_set
from nnunet_attenscribble.evaluation.benchmark.workspace import FOLD_FILE, open_workspace
from nnunet_attenscribble.evaluation.summary import read_summary, write_summary
from tests.evaluation.benchmark.fake_nnunet import DENSE, SCRIBBLE, TRAINING, VALIDATION, wait_until

posix = pytest.mark.skipif(os.name != "posix", reason="process groups and links are those of POSIX")
pytestmark = posix
TRAINERS = ["nnUNetTrainer_5epochs", "nnUNetTrainerPartialCE", "nnUNetTrainerMaskedCRF"]
BLOCK = {"name": "Block", "trainer": "nnUNetTrainerAttenScribble", "labels": "scribble"}


# --- order, resuming, failure ---


def test_every_cell_is_trained_predicted_and_scored_one_repetition_after_the_other(toy):
    toy.write(seeds=[0, 3], folds=[0, 1], rows=toy.content["rows"][:2])
    told = toy.call()
    assert [entry["command"] for entry in toy.events()] == ["train", "predict", "evaluate"] * 8
    assert toy.trained() == TRAINERS[:2] * 4
    assert [entry["arguments"][2] for entry in toy.events("train")] == ["0", "0", "1", "1"] * 2
    assert (toy.work / "seed_3" / "nnUNet_results" / SCRIBBLE / "nnUNetTrainerPartialCE__nnUNetPlans__2d").is_dir()
    assert "8 cells are complete" in told
    assert "#### Dice" in told


def test_commands_are_those_of_nnunet_with_options_and_threads(toy):
    toy.write(predict="--disable_tta", evaluate="--protocol nnunet", threads=2, augmentation_workers=3, workers=2)
    toy.call("--only", "crf")
    train, predict, evaluate = toy.events()
    assert train["arguments"] == shlex.split(
        f"{SCRIBBLE} 2d_crf 0 -tr nnUNetTrainerMaskedCRF -p nnUNetPlans -device cpu --c"
    )
    assert (train["threads"], train["augmentation"]) == ("2", "3")
    assert predict["arguments"][-1] == "--disable_tta"
    assert shlex.split(f"-d {SCRIBBLE} -c 2d_crf -f 0 -tr nnUNetTrainerMaskedCRF") == predict["arguments"][4:12]
    assert evaluate["arguments"][-5:] == ["--all-cases", "--workers", "2", "--protocol", "nnunet"]


def test_the_environment_decides_on_augmentation_workers_as_for_nnunet_itself(toy, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "7")
    toy.write(augmentation_workers=3)
    toy.call("--only", "crf")
    assert toy.events("train")[0]["augmentation"] == "7"


def test_what_is_done_is_not_done_again(toy):
    toy.call()
    before = toy.events()
    assert "3 cells are complete" in toy.call()
    assert toy.events() == before


def test_other_processes_or_another_device_make_no_new_result(toy):
    toy.write(postprocess=True)
    toy.call()
    before = toy.events()
    toy.write(workers=2, device="cuda")
    assert "missing" not in toy.call("collect")
    assert (toy.work / "collected" / "comparison.md").is_file()
    assert "3 cells are complete" in toy.call()
    assert toy.events() == before
    toy.write(evaluate="--protocol nnunet")
    toy.call("--only", "crf")
    assert [entry["command"] for entry in toy.events()[len(before) :]] == ["evaluate"] * 2


@pytest.mark.parametrize("within", [False, True], ids=["data elsewhere", "data in it"])
def test_a_folder_of_work_may_be_moved(toy, monkeypatch, within):
    toy.write(postprocess=True, rows=[*toy.content["rows"][:2], BLOCK])
    if within:
        toy.work.mkdir()
        for variable, folder in (("nnUNet_raw", toy.raw), ("nnUNet_preprocessed", toy.preprocessed)):
            monkeypatch.delenv(variable)
            folder.rename(toy.work / variable)
    toy.call()
    before = toy.events()
    toy.work.rename(toy.folder / "moved")
    toy.work = toy.folder / "moved"
    assert "missing" not in toy.call("collect")
    assert "3 cells are complete" in toy.call()
    assert toy.events() == before
    (toy.work / "cells" / "seed_0" / "fold_0" / "dense" / "attenscribble_summary.json").unlink()
    toy.call("--only", "dense")
    assert all((toy.work / "test" / "fold_0" / "images" / f"{case}_0000.nii.gz").exists() for case in VALIDATION)


def test_a_trained_model_is_not_trained_again_without_its_predictions(toy):
    toy.call("--only", "crf")
    cell = toy.work / "cells" / "seed_0" / "fold_0" / "crf"
    for file in ("predictions/c.nii.gz", "attenscribble_summary.json"):
        (cell / file).unlink()
    toy.call("--only", "crf")
    assert [entry["command"] for entry in toy.events()] == ["train", "predict", "evaluate", "predict", "evaluate"]


def test_a_model_that_was_removed_is_trained_and_everything_behind_it_done_again(toy):
    toy.call("--only", "crf")
    (toy.work / "cells" / "seed_0" / "fold_0" / "crf" / "attenscribble_summary.json").unlink()
    for file in (toy.work / "seed_0").rglob("checkpoint_final.pth"):
        file.unlink()
    toy.call("--only", "crf")
    assert [entry["command"] for entry in toy.events()] == ["train", "predict", "evaluate"] * 2


def test_a_model_that_somebody_trained_by_hand_counts(toy):
    folder = toy.work / "seed_0" / "nnUNet_results" / SCRIBBLE / "nnUNetTrainerPartialCE__nnUNetPlans__2d" / "fold_0"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "checkpoint_final.pth", "w") as file:
        file.writestr("data", b"0")
    toy.call("--only", "partial")
    assert [entry["command"] for entry in toy.events()] == ["predict", "evaluate"]


def test_a_failed_cell_is_told_with_the_end_of_its_log_and_does_not_stop_the_others(toy, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "nnUNetTrainerPartialCE")
    told = toy.call(code=1)
    assert toy.trained() == TRAINERS
    assert "the reason of the failure" in told
    assert "2 cells are complete, 1 failed" in told
    assert "missing: seed_0/fold_0/partial_ce (training)" in told
    codes = [json.loads(line)["exit_code"] for line in (toy.work / "commands.jsonl").read_text().splitlines()]
    assert codes == [0, 0, 0, 3, 0, 0, 0]

    monkeypatch.delenv("FAKE_FAIL")
    assert "3 cells are complete" in toy.call()
    assert toy.trained() == [*TRAINERS, "nnUNetTrainerPartialCE"]


def test_the_log_of_commands_tells_times_exit_codes_and_versions(toy):
    toy.call("--only", "crf")
    entries = [json.loads(line) for line in (toy.work / "commands.jsonl").read_text().splitlines()]
    assert [entry["cell"] for entry in entries] == ["seed_0/fold_0/crf"] * 3
    assert [entry["command"].split()[0] for entry in entries] == ["nnUNetv2_train", "nnUNetv2_predict", "attenscribble"]
    assert all(entry["seconds"] >= 0 and entry["exit_code"] == 0 for entry in entries)
    assert {"nnunetv2", "torch", "nnunet-attenscribble"} <= entries[0]["versions"].keys()
    assert entries[0]["commit"] == find_commit()


def test_killed_it_leaves_the_command_alone_and_then_goes_on_without_training_twice(toy, monkeypatch):
    monkeypatch.setenv("FAKE_WAIT", "nnUNetTrainerPartialCE")
    process = toy.start()
    wait_until((toy.work / "waiting").exists)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Its training lives on, and nobody starts it a second time beside it.
    told = toy.call("--only", "partial")
    assert "1 is being run by another process" in told
    assert toy.trained() == TRAINERS[:2]

    (toy.work / "go").touch()
    wait_until(lambda: any((toy.work / "seed_0" / "nnUNet_results" / SCRIBBLE).rglob("checkpoint_final.pth")))
    wait_until(lambda: "busy" not in toy.call("--only", "partial"))
    toy.call()
    assert toy.trained() == TRAINERS
    assert len(toy.events("evaluate")) == 3


def test_killed_with_its_command_it_continues_the_training(toy, monkeypatch):
    monkeypatch.setenv("FAKE_WAIT", "nnUNetTrainerPartialCE")
    process = toy.start()
    wait_until((toy.work / "waiting").exists)
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.kill(int((toy.work / "waiting").read_text()), signal.SIGKILL)
    monkeypatch.delenv("FAKE_WAIT")
    assert "3 cells are complete" in toy.call()
    assert toy.trained() == [*TRAINERS[:2], *TRAINERS[1:]]
    assert all(entry["arguments"][-1] == "--c" for entry in toy.events("train"))


def test_killed_while_it_links_the_images_it_goes_on(toy):
    toy.call("--only", "partial")
    images = toy.work / "test" / "fold_0" / "images"
    (images / "d_0000.nii.gz").unlink()
    (images / "c_0000.nii.gz.4711.part").symlink_to(images / "c_0000.nii.gz")
    assert "1 cell is complete" in toy.call("--only", "crf")
    assert toy.events("predict")[-1]["images"] == ["c_0000.nii.gz", "d_0000.nii.gz"]
    assert sorted(file.name for file in images.parent.iterdir()) == ["images", "labels"]


def test_two_processes_on_the_same_file_share_the_work(toy, monkeypatch):
    monkeypatch.setenv("FAKE_WAIT", "nnUNetTrainer_5epochs")
    first = toy.start("--only", "dense")
    wait_until((toy.work / "waiting").exists)
    told = toy.call()
    assert "busy" in told
    assert "2 cells are complete, 1 is being run by another process" in told
    assert not (toy.work / "collected").exists()  # the last one does so
    (toy.work / "go").touch()
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 0, output
    assert sorted(toy.trained()) == sorted(TRAINERS)
    assert (toy.work / "collected" / "comparison.md").is_file()


def test_a_protocol_that_scores_slices_finishes(toy):
    toy.write(evaluate="--protocol chaos-pacingpseudo", postprocess=True)
    assert "3 cells are complete" in toy.call()
    before = toy.events()
    assert "3 cells are complete" in toy.call()
    assert toy.events() == before
    comparison = json.loads((toy.work / "collected" / "comparison.json").read_text())
    assert comparison["cases"] == ["c_slice000", "c_slice001", "d_slice000", "d_slice001"]
    assert (toy.work / "collected" / "comparison_postprocessed.json").is_file()

    toy.work.rename(toy.folder / "theirs")
    toy.call("--prepare")
    toy.call("collect", "--kept", str(toy.folder / "theirs" / "collected"))
    assert (toy.work / "collected" / "missing.txt").read_text() == ""


# --- what is asked for changes behind a result ---

CRF_CELL = "seed_0/fold_0/crf"


def change_row(toy, **changes) -> None:
    toy.write(rows=[*toy.content["rows"][:2], toy.content["rows"][2] | changes], reference="Dense")


def change_trainer(toy, monkeypatch) -> None:
    change_row(toy, trainer="nnUNetTrainerAttention")


def change_labels(toy, monkeypatch) -> None:
    change_row(toy, labels="dense")


def change_configuration(toy, monkeypatch) -> None:
    change_row(toy, configuration="2d")


def change_epochs(toy, monkeypatch) -> None:
    monkeypatch.setattr(cells, "resolve_budgets", lambda models, *_: {name: Budget(100, 250, 2) for name in models})


def change_settings(toy, monkeypatch) -> None:
    shutil.rmtree(toy.work / "seed_0")  # with the model, whose own plans.json would tell
    toy.change_settings()


def change_patients(toy, monkeypatch) -> None:
    toy.write_splits({"train": ["a", "c"], "val": ["b", "d"]})


def change_training_patients(toy, monkeypatch) -> None:
    toy.write_splits({"train": ["a"], "val": ["c", "d"]})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (change_trainer, "(trainer nnUNetTrainerMaskedCRF, now nnUNetTrainerAttention): give the row another name, or"),
        (change_labels, f"(labels scribble, now dense; dataset {SCRIBBLE}, now {DENSE}): give the row another name"),
        (change_configuration, "(configuration 2d_crf, now 2d; configuration_sha256 changed): give the row another"),
        (change_epochs, "(epochs 5, now 100): undo the change, or remove that folder and"),
        (change_settings, "(configuration_sha256 changed): undo the change"),
        (change_patients, "(splits_sha256 changed; other validation patients: b, c): undo the change"),
        (change_training_patients, "(splits_sha256 changed): undo the change"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_finished_cell_is_never_told_to_be_another_training(toy, monkeypatch, change, told):
    toy.call("--only", "crf")
    cell = toy.work / "cells" / CRF_CELL
    summary = (cell / "attenscribble_summary.json").read_bytes()
    before = len(toy.events())
    change(toy, monkeypatch)
    assert f"{cell} holds the result of another training {told}" in toy.call("--only", "crf", code=1)
    toy.call("collect")
    assert told in (toy.work / "collected" / "missing.txt").read_text()
    assert not (toy.work / "collected" / "cells" / CRF_CELL).exists()
    assert len(toy.events()) == before
    assert (cell / "attenscribble_summary.json").read_bytes() == summary

    shutil.rmtree(cell)  # what the message says
    if "undo" in told:
        shutil.rmtree(toy.work / "seed_0", ignore_errors=True)
    assert "1 cell is complete" in toy.call("--only", "crf")
    assert [entry["command"] for entry in toy.events()[before:]] == ["train", "predict", "evaluate"]
    toy.call("collect")
    assert (toy.work / "collected" / "cells" / CRF_CELL).is_dir()


def test_scores_of_other_cases_are_no_reason_to_train_again(toy):
    toy.call("--only", "crf")
    place = toy.work / "cells" / CRF_CELL
    summary = read_summary(place)
    write_summary(replace(summary, cases={"c": summary.cases["c"]}), place)
    told = toy.call("--only", "crf", code=1)
    file = place / "attenscribble_summary.json"
    assert f"{file} holds scores of other cases than the validation patients of fold 0 (d): remove that file" in told
    assert "another training" not in told
    file.unlink()
    assert "1 cell is complete" in toy.call("--only", "crf")
    assert [entry["command"] for entry in toy.events()] == ["train", "predict", "evaluate", "evaluate"]


def test_a_model_with_other_settings_is_not_used_whether_it_was_scored_or_not(toy):
    toy.call("--only", "crf")
    toy.change_settings()
    assert "was trained with another configuration '2d_crf'" in toy.call("--only", "crf", code=1)
    toy.call("collect")
    assert "was trained with another configuration" in (toy.work / "collected" / "missing.txt").read_text()
    (toy.work / "cells" / CRF_CELL / "attenscribble_summary.json").unlink()
    assert "was trained with another configuration '2d_crf'" in toy.call("--only", "crf", code=1)


def test_no_fold_is_trained_beside_one_of_another_configuration(toy):
    """nnU-Net keeps one plans.json for all folds: the new one would hide what the first was trained with."""
    toy.write(folds=[0, 1])
    toy.call("--only", CRF_CELL)
    toy.change_settings()
    assert "was trained with another configuration '2d_crf'" in toy.call("--only", "fold_1/crf", code=1)
    assert len(toy.events("train")) == 1


def test_a_result_without_its_origin_does_not_count_for_another_trainer(toy, monkeypatch):
    toy.call("--only", "crf")
    file = toy.work / "cells" / CRF_CELL / "attenscribble_summary.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"provenance": {}}))  # as a kill right behind the evaluation leaves it
    change_trainer(toy, monkeypatch)
    toy.call("collect")
    assert f"{CRF_CELL}\ttraining\n" in (toy.work / "collected" / "missing.txt").read_text()
    toy.call("--only", "crf")
    assert toy.trained() == ["nnUNetTrainerMaskedCRF", "nnUNetTrainerAttention"]
    assert json.loads(file.read_text())["provenance"]["trainer"] == "nnUNetTrainerAttention"


def test_a_model_that_trained_with_other_patients_is_not_scored(toy, monkeypatch):
    toy.call("--only", "crf")
    shutil.rmtree(toy.work / "cells")  # it is trained, and not scored
    before = toy.events()
    change_patients(toy, monkeypatch)
    told = toy.call("--only", "crf", code=1)
    assert "fold_0 was trained with another fold 0 than splits_final.json has now (it validated on c, d)" in told
    assert toy.events() == before


def test_a_training_that_stopped_does_not_go_on_with_other_patients(toy, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "nnUNetTrainerMaskedCRF")
    toy.call("--only", "crf", code=1)
    monkeypatch.delenv("FAKE_FAIL")
    change_patients(toy, monkeypatch)
    assert "has now (it validated on c, d): undo" in toy.call("--only", "crf", code=1)
    assert len(toy.events()) == 1
    (folder,) = toy.work.glob("seed_0/nnUNet_results/*/*/fold_0")
    shutil.rmtree(folder)
    toy.call("--only", "crf")


def test_which_patients_a_training_began_with_is_noted_at_its_beginning_alone(toy, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "nnUNetTrainerMaskedCRF")
    toy.call("--only", "crf", code=1)
    (note,) = toy.work.glob(f"seed_0/nnUNet_results/*/*/fold_0/{FOLD_FILE}")
    assert json.loads(note.read_text()) == {"train": TRAINING, "val": VALIDATION}
    note.unlink()  # as of one that was begun by hand, with whatever patients there were
    toy.call("--only", "crf", code=1)
    assert len(toy.trained()) == 2
    assert not note.exists()


def test_other_options_of_the_prediction_make_another_result(toy):
    toy.call("--only", "crf")
    toy.write(predict="--disable_tta")
    toy.call("collect")
    assert f"{CRF_CELL}\tpredictions\n" in (toy.work / "collected" / "missing.txt").read_text()
    toy.call("--only", "crf")
    assert [entry["command"] for entry in toy.events()] == ["train", "predict", "evaluate", "predict", "evaluate"]


def test_a_result_stays_when_model_and_predictions_are_removed(toy):
    toy.call()
    before = toy.events()
    shutil.rmtree(toy.work / "seed_0")
    for folder in (toy.work / "cells").rglob("predictions"):
        shutil.rmtree(folder)
    assert "3 cells are complete" in toy.call()
    assert toy.events() == before
    assert (toy.work / "collected" / "missing.txt").read_text() == ""


# --- pictures of the attention block ---


def with_block(toy) -> None:
    toy.write(rows=[*toy.content["rows"][:2], BLOCK])


def test_a_network_with_the_block_is_looked_at_behind_everything_else(toy):
    with_block(toy)
    toy.call()
    assert [entry["command"] for entry in toy.events()] == ["train", "predict", "evaluate"] * 3 + ["attention"]
    (event,) = toy.events("attention")
    assert event["model"].endswith(f"{SCRIBBLE}/nnUNetTrainerAttenScribble__nnUNetPlans__2d")
    test = toy.work / "test" / "fold_0"
    cell = toy.work / "cells" / "seed_0" / "fold_0" / "block"
    assert event["arguments"][2:] == shlex.split(
        f"-f 0 -i {test}/images -l {test}/labels -o {cell}/attention --device cpu"
    )
    assert event["seen"]["labels"] == ["c.nii.gz", "d.nii.gz"]
    assert (toy.work / "collected" / "cells" / "seed_0" / "fold_0" / "block" / "attention").resolve() == (
        cell / "attention"
    )


def test_results_without_pictures_are_complete_and_get_them_without_training(toy, monkeypatch):
    with_block(toy)
    monkeypatch.setenv("FAKE_BLIND", "yes")
    told = toy.call(code=1)
    assert "no picture came out" in told
    assert (toy.work / "collected" / "missing.txt").read_text() == ""
    assert json.loads((toy.work / "collected" / "collected.json").read_text())["comparison"] is not None
    monkeypatch.delenv("FAKE_BLIND")
    before = len(toy.events())
    assert "3 cells are complete" in toy.call()
    assert [entry["command"] for entry in toy.events()[before:]] == ["attention"]
    toy.call()
    assert len(toy.events()) == before + 1


# --- postprocessing ---


def test_predictions_are_postprocessed_by_the_scribbles_and_scored_again(toy):
    toy.write(postprocess=True)
    toy.call()
    commands = ["train", "predict", "evaluate", "postprocess", "evaluate"]
    assert [entry["command"] for entry in toy.events()] == commands * 3
    for name, event in zip(("dense", "partial_ce", "crf"), toy.events("postprocess"), strict=True):
        cell = toy.work / "cells" / "seed_0" / "fold_0" / name
        labels = toy.raw / SCRIBBLE / "labelsTr"  # of the scribbles, for the row on dense labels too
        told = f"postprocess {cell}/predictions {labels} -o {cell}/postprocessed --workers 1"
        assert event["arguments"] == shlex.split(told)
    scored = [event for event in toy.events("evaluate") if event["cell"].endswith("postprocessed")]
    assert [event["arguments"][1] for event in scored] == [event["cell"] for event in scored]
    assert [event["cases"] for event in scored] == [["c", "d"]] * 3


def test_results_get_their_postprocessing_without_training_or_predicting(toy, monkeypatch):
    toy.call()
    toy.write(postprocess=True)
    monkeypatch.setenv("FAKE_PAIRED", "yes")
    told = toy.call(code=1)
    assert "no rule was found" in told
    collected = toy.work / "collected"
    assert (collected / "missing.txt").read_text() == ""
    assert not (collected / "comparison_postprocessed.csv").exists()
    monkeypatch.delenv("FAKE_PAIRED")
    before = len(toy.events())
    assert "3 cells are complete" in toy.call()
    assert [entry["command"] for entry in toy.events()[before:]] == ["postprocess", "evaluate"] * 3
    assert (collected / "comparison_postprocessed.csv").is_file()
    before = len(toy.events())
    toy.call()
    assert len(toy.events()) == before


def test_what_is_predicted_anew_is_postprocessed_anew(toy):
    toy.write(postprocess=True)
    toy.call("--only", "crf")
    cell = toy.work / "cells" / "seed_0" / "fold_0" / "crf"
    (cell / "predictions" / "c.nii.gz").unlink()
    (cell / "logs" / "evaluate.done").unlink()
    before = len(toy.events())
    toy.call("--only", "crf")
    assert [entry["command"] for entry in toy.events()[before:]] == ["predict", "evaluate", "postprocess", "evaluate"]


def test_without_the_scribbles_nothing_is_begun(toy):
    toy.write(postprocess=True)
    shutil.rmtree(toy.raw / SCRIBBLE / "labelsTr")
    (problem,) = [problem for problem in toy.problems() if "postprocess" in problem]
    assert problem.startswith(str(toy.raw / SCRIBBLE / "labelsTr"))
    assert toy.events() == []


# --- selecting and dry runs ---


def test_only_takes_part_of_a_name_and_a_whole_name_for_one_cell_alone(toy):
    toy.write(seeds=[1, 11])
    told = toy.call("--only", "seed_1/fold_0/crf", "--dry-run")
    assert told.count("nnUNetv2_train ") == 1
    assert toy.call("--only", "seed_1", "--dry-run").count("nnUNetv2_train ") == 6
    assert toy.call("--only", "Partial CE", "--dry-run").count("nnUNetv2_train ") == 2
    assert toy.call("--only", "Partial CE", "--only", "dense", "--dry-run").count("nnUNetv2_train ") == 4
    (problem,) = toy.problems("--only", "seed_2", "--dry-run")
    assert "seed_11/fold_0/partial_ce" in problem


def test_a_name_that_is_none_ends_the_program_before_anything_is_made(toy):
    process = toy.start("--only", "seed_0/fold_0/crff")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error: --only 'seed_0/fold_0/crff' is in the name of no cell; there are" in output
    assert all(f"seed_0/fold_0/{name}" in output for name in ("dense", "partial_ce", "crf"))
    assert not toy.work.exists()
    assert toy.events() == []


def test_a_dry_run_prints_every_command_and_makes_nothing(toy):
    told = toy.call("--dry-run", "--prefix", "nice -n1")
    lines = told.splitlines()
    assert f"export nnUNet_raw={toy.raw}" in lines
    # Whether a network has the block is asked when everything is prepared; the command itself passes over others.
    commands = ["nnUNetv2_train", "nnUNetv2_predict", "attenscribble evaluate", "attenscribble attention"]
    found = [line.removeprefix("nice -n1 ") for line in lines if line.startswith("nice")]
    expected = commands[:3] + 2 * commands
    assert len(found) == len(expected)
    assert all(line.startswith(f"{command} ") for line, command in zip(found, expected, strict=True))
    assert not toy.work.exists()
    assert toy.events() == []


def test_a_printed_script_runs_by_hand_with_the_test_set_as_late_as_in_a_run(toy, monkeypatch):
    script = toy.folder / "script.sh"
    script.write_text(toy.call("--dry-run"))
    assert not toy.work.exists()
    monkeypatch.setenv("PATH", f"{toy.programs}{os.pathsep}{os.environ['PATH']}")
    subprocess.run(["bash", "-e", str(script)], check=True, capture_output=True)
    train, predict, evaluate = (toy.events(command)[0] for command in ("train", "predict", "evaluate"))
    assert train["seen"] == {"images": None, "labels": None}
    assert predict["seen"] == {"images": ["c_0000.nii.gz", "d_0000.nii.gz"], "labels": None}
    assert evaluate["labels"] == ["c.nii.gz", "d.nii.gz"]
    assert len(toy.events("evaluate")) == 3
    printed = {file.name: os.readlink(file) for file in toy.work.glob("test/fold_0/*/*")}
    shutil.rmtree(toy.work)
    toy.call()
    assert {file.name: os.readlink(file) for file in toy.work.glob("test/fold_0/*/*")} == printed


def test_a_dry_run_tells_why_the_test_set_is_not_known_yet(toy):
    places = [f"$nnUNet_raw/{name}/dataset.json" for name in (SCRIBBLE, DENSE)]
    places += [f"$nnUNet_preprocessed/{name}/nnUNetPlans.json" for name in (SCRIBBLE, DENSE)]
    places.append(f"$nnUNet_preprocessed/{SCRIBBLE}/nnUNetPlans.json#2d_crf")
    toy.write(prepare=[{"name": "conversion", "command": "true", "creates": places}])
    shutil.rmtree(toy.raw)
    shutil.rmtree(toy.preprocessed)
    (told,) = [line for line in toy.call("--dry-run").splitlines() if "test set" in line]
    assert told.startswith("# the test set of fold 0 is not known yet: ")
    assert "dataset.json is not there: convert the dataset" in told


def test_a_dry_run_tells_what_is_done(toy):
    toy.call("--only", "crf")
    lines = [line for line in toy.call("--dry-run").splitlines() if "nnUNetTrainerMaskedCRF" in line]
    train, predict, attention = lines
    assert train.startswith("# is done: ")
    assert predict.startswith("# is done: ")
    assert attention.startswith("attenscribble attention ")


def test_the_printed_comparison_is_the_one_that_is_collected(toy):
    toy.write(seeds=[0, 1], subject="[a-z]")
    toy.call()
    (printed,) = [line for line in toy.call("--dry-run").splitlines() if line.startswith("attenscribble compare")]
    from typer.testing import CliRunner

    from nnunet_attenscribble.cli import app

    result = CliRunner().invoke(app, [*shlex.split(printed)[1:], "-o", str(toy.folder / "own.csv")])
    assert result.exit_code == 0, result.output
    assert (toy.folder / "own.csv").read_text() == (toy.work / "collected" / "comparison.csv").read_text()


def test_a_prefix_is_put_before_the_commands(toy):
    toy.write(prefix=["env", "FAKE_FAIL=nnUNetTrainerMaskedCRF"])
    assert "the reason of the failure" in toy.call("--only", "crf", code=1)


# --- preparing ---


def prepare(toy, command: str = "sh -c 'echo x >> $COUNT'", **entry) -> None:
    steps = [{"name": "make it", "command": command, **entry}]
    toy.write(prepare=steps)


def test_preparations_run_once_before_everything(toy, monkeypatch):
    monkeypatch.setenv("COUNT", str(toy.folder / "count"))
    prepare(toy)
    told = toy.call("--prepare")
    assert "Everything is prepared for 3 cells" in told
    toy.call()
    assert (toy.folder / "count").read_text() == "x\n"


def test_what_another_command_prepared_does_not_count(toy, monkeypatch):
    monkeypatch.setenv("COUNT", str(toy.folder / "count"))
    prepare(toy)
    toy.call("--prepare")
    monkeypatch.setenv("COUNT", str(toy.folder / "another"))
    toy.call("--prepare")
    prepare(toy, "sh -c 'echo y >> $COUNT'")
    (problem,) = toy.problems("--prepare")
    assert "was done by `sh -c" in problem
    assert not (toy.folder / "another").exists()
    prepare(toy, "sh -c 'x=y; echo $$x >> $COUNT'")  # $$ is the sign itself
    for name in toy.problems("--prepare")[0].rpartition("remove ")[2].split(" and "):
        os.unlink(name)
    for _ in range(2):
        toy.call("--prepare")
        assert (toy.folder / "another").read_text() == "y\n"
    assert (toy.folder / "count").read_text() == "x\n"


def test_a_command_is_known_again_wherever_that_is(toy, monkeypatch):
    prepare(toy, "echo Schädel")
    toy.call("--prepare")
    monkeypatch.setattr(io, "text_encoding", lambda encoding, *_: encoding or "ascii")  # what Python takes by itself
    assert "is done" in toy.call("--dry-run")


def test_the_printed_script_keeps_words_together(toy, monkeypatch):
    monkeypatch.setenv("COUNT", str(toy.folder / "a count"))
    prepare(toy, ["bash", "-c", 'echo "x y" `echo z` >> "$COUNT"'])
    (line,) = [line for line in toy.call("--dry-run").splitlines() if line.startswith("bash -c")]
    subprocess.run(["bash", "-c", line], check=True)
    assert (toy.folder / "a count").read_text() == "x y z\n"


def test_folders_are_remembered_only_once_everything_was_checked(toy, monkeypatch):
    right = os.environ["nnUNet_raw"]
    monkeypatch.setenv("nnUNet_raw", str(toy.folder / "mistyped"))
    assert toy.problems()
    assert not (toy.work / "benchmark.json").exists()
    assert not (toy.folder / "mistyped").exists()
    monkeypatch.setenv("nnUNet_raw", right)
    toy.call("--prepare")
    monkeypatch.setenv("nnUNet_raw", str(toy.folder / "mistyped"))
    assert f"nnUNet_raw is {right} here, as it was at first" in toy.call("--prepare")
    (problem,) = toy.problems("--raw", str(toy.folder / "mistyped"))
    assert f"was made with nnUNet_raw {right}" in problem
    assert "benchmark.json" in problem


def test_what_was_made_by_hand_is_not_made_again(toy, monkeypatch):
    place = toy.folder / "C# project"
    (place / "data").mkdir(parents=True)
    monkeypatch.setenv("PLACE", str(place))
    created = ["$nnUNet_preprocessed/" + SCRIBBLE + "/nnUNetPlans.json#2d_crf", "$PLACE", f"{place}/data"]
    prepare(toy, "no_such_program $UNSET", creates=created)
    assert "is done" in toy.call("--dry-run")
    toy.call("--prepare")


def test_variables_that_are_not_set_are_told_before_anything_is_run(toy):
    prepare(toy, "convert $ACDC_IS_NOT_SET", creates=["$nnUNet_raw/Dataset900_X"])
    (problem,) = toy.problems()
    assert "ACDC_IS_NOT_SET, which is not set" in problem
    assert 'convert "$ACDC_IS_NOT_SET"' in toy.call("--dry-run")


def test_a_folder_that_an_interrupted_preparation_left_is_made_again(toy, monkeypatch):
    place = toy.folder / "made"
    monkeypatch.setenv("PLACE", str(place))
    prepare(
        toy, "sh -c 'mkdir -p $PLACE; test -e $PLACE/second || { touch $PLACE/second; exit 1; }'", creates=["$PLACE"]
    )
    assert "failed with exit code 1" in toy.problems()[0]
    assert place.is_dir()
    toy.call("--prepare")
    assert toy.call("--prepare").count("running") == 0


# --- guards ---


def test_the_test_set_is_not_there_before_the_prediction_nor_its_labels_before_the_scoring(toy):
    toy.call("--only", "crf")
    train, predict, evaluate = toy.events()
    assert train["seen"] == {"images": None, "labels": None}
    assert predict["seen"] == {"images": ["c_0000.nii.gz", "d_0000.nii.gz"], "labels": None}
    assert evaluate["labels"] == ["c.nii.gz", "d.nii.gz"]
    assert not any("test" in argument or DENSE in argument for argument in train["arguments"])
    assert not any("labels" in argument or DENSE in argument for argument in predict["arguments"])


def test_the_spacing_of_tiffs_comes_along_with_images_and_labels(toy):
    for name in (SCRIBBLE, DENSE):
        file = toy.raw / name / "dataset.json"
        file.write_text(file.read_text().replace(".nii.gz", ".tif"))
        for label in (toy.raw / name / "labelsTr").iterdir():
            label.rename(label.with_name(label.name.replace(".nii.gz", ".tif")))
    for image in (toy.raw / SCRIBBLE / "imagesTr").iterdir():
        image.rename(image.with_name(image.name.replace(".nii.gz", ".tif")))
    (toy.raw / SCRIBBLE / "imagesTr" / "c.json").touch()
    (toy.raw / DENSE / "labelsTr" / "d.json").touch()
    test = find_test_set(read_benchmark(toy.file), open_workspace(toy.work), "0")
    assert list(test.image_links) == ["c_0000.tif", "d_0000.tif", "c.json"]
    assert test.image_links["c.json"] == toy.raw / SCRIBBLE / "imagesTr" / "c.json"
    assert list(test.label_links) == ["c.tif", "d.tif", "d.json"]


def test_a_test_folder_with_cases_of_the_training_is_refused(toy):
    toy.add_test_folder("a", "x")
    problems = toy.problems()
    assert len(problems) == 2
    assert all("trains or validates with 1 test case (a)" in problem for problem in problems)


def test_a_test_folder_is_predicted_and_scored_as_it_is(toy):
    toy.add_test_folder("x", "y")
    toy.call("--only", "crf")
    assert toy.events("predict")[0]["images"] == ["x_0000.nii.gz", "y_0000.nii.gz"]
    assert toy.events("evaluate")[0]["labels"] == ["x.nii.gz", "y.nii.gz"]


def test_another_checkpoint_is_told_and_looked_at(toy):
    toy.add_test_folder("x", "y")
    toy.write(predict="-chk=checkpoint_best.pth")
    with_block(toy)
    toy.call()
    (attention,) = toy.events("attention")
    assert attention["arguments"][-2:] == ["--checkpoint", "checkpoint_best.pth"]
    for row in ("dense", "partial_ce"):
        provenance = read_summary(toy.work / "cells" / "seed_0" / "fold_0" / row).provenance
        assert provenance["checkpoint"] == "checkpoint_best.pth"
    told = (toy.work / "collected" / "comparison.md").read_text()
    assert "Predictions are those of checkpoint_best.pth, which nnU-Net selects by its pseudo Dice" in told


def test_a_checkpoint_that_nnunet_does_not_write_is_told_as_unknown(toy):
    toy.add_test_folder("x", "y")
    toy.write(predict="-chk mine.pth")
    told = describe_selection(read_benchmark(toy.file))
    assert any("those of mine.pth, neither nnU-Net's final checkpoint nor its best one" in text for text in told)
    assert not any("no checkpoint was selected" in text for text in told)


def test_a_test_set_that_changes_while_a_model_trains_is_not_opened(toy, monkeypatch):
    toy.add_test_folder("x")
    monkeypatch.setenv("FAKE_WAIT", "nnUNetTrainerMaskedCRF")

    def change():
        wait_until((toy.work / "waiting").exists)
        for file in ("images/y_0000.nii.gz", "labels/y.nii.gz"):
            (toy.folder / "test" / file).touch()
        (toy.work / "go").touch()

    with ThreadPoolExecutor(1) as beside:
        changed = beside.submit(change)
        told = toy.call("--only", "crf", code=1)
        changed.result()
    assert "the test set of fold 0 changed while a model was trained" in told
    assert [entry["command"] for entry in toy.events()] == ["train"]
    assert not list(toy.work.glob("test/*/*"))
    toy.call("--only", "crf")  # everything is checked anew
    assert toy.events("evaluate")[0]["cases"] == ["x", "y"]


def test_a_test_folder_that_grew_is_predicted_and_scored_again(toy):
    toy.add_test_folder("x", "y")
    toy.call("--only", "crf")
    for file in ("images/z_0000.nii.gz", "labels/z.nii.gz"):
        (toy.folder / "test" / file).touch()
    toy.call("collect")
    assert "seed_0/fold_0/crf\tpredictions\n" in (toy.work / "collected" / "missing.txt").read_text()
    toy.call("--only", "crf")
    assert [entry["command"] for entry in toy.events()] == ["train", "predict", "evaluate", "predict", "evaluate"]
    assert toy.events("evaluate")[-1]["cases"] == ["x", "y", "z"]


@pytest.mark.parametrize("prefix", ["", "1.2."])  # identifiers of DICOM have dots
def test_test_images_without_labels_are_told_before_training(toy, prefix):
    x, y, z = (f"{prefix}{case}" for case in "xyz")
    toy.add_test_folder(x, y, labels=[x, z])
    (toy.folder / "test" / "labels" / "README.txt").touch()
    problems = toy.problems()
    assert len(problems) == 2
    assert f"1 test case has no dense label ({y})" in problems[0]
    assert f"1 test case has a dense label and no image ({z})" in problems[1]


def test_unequal_budgets_are_refused_or_told(toy, monkeypatch):
    lengths = {"Dense": Budget(5, 250, 2), "Partial CE": Budget(5, 250, 2), "CRF": Budget(6, 250, 2)}
    monkeypatch.setattr(cells, "resolve_budgets", lambda *_: lengths)
    (problem,) = toy.problems()
    assert problem.startswith("the row 'CRF' trains 6 epochs of 250 iterations, the reference 'Dense' 5 of 250")
    toy.write(unequal_budgets=True)
    told = toy.call()
    assert "note: Unequal budgets: the row 'CRF' trains 6 epochs" in told
    assert "Unequal budgets" in (toy.work / "collected" / "comparison.md").read_text()


def test_rows_on_another_network_are_told(toy):
    file = toy.preprocessed / SCRIBBLE / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d_crf"]["patch_size"] = [8, 8]
    file.write_text(json.dumps(plans))
    told = toy.call("--prepare")
    assert "'CRF' (2d_crf) differs from the reference in more than supervision and method: patch_size" in told


@pytest.mark.parametrize("content", ["", "[1]", '{"nnUNet_raw"'])
def test_a_damaged_memory_of_folders_is_told(toy, content):
    toy.work.mkdir()
    (toy.work / "benchmark.json").write_text(content)
    problems = toy.problems()
    assert all("benchmark.json: " in problem for problem in problems)
    assert all("remove it, and name nnU-Net's folders once more" in problem for problem in problems)


def test_a_file_is_no_place_to_work_in(toy):
    toy.work.touch()
    for arguments in ([], ["--dry-run"], ["collect"]):
        (problem,) = toy.problems(*arguments)
        assert f"{toy.work} is a file" in problem


def test_validation_patients_are_those_of_the_fold(toy):
    toy.write(folds=[1])
    toy.call("--only", "crf")
    assert toy.events("predict")[0]["images"] == ["a_0000.nii.gz", "b_0000.nii.gz"]
    assert set(VALIDATION).isdisjoint(toy.events("evaluate")[0]["cases"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_command_and_is_no_failure(toy, monkeypatch, number, code):
    monkeypatch.setenv("FAKE_WAIT", "nnUNetTrainer_5epochs")
    process = toy.start()
    wait_until((toy.work / "waiting").exists)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "stopped  seed_0/fold_0/" in output
    assert "The same command continues from here" in output
    with pytest.raises(ProcessLookupError):
        os.kill(int((toy.work / "waiting").read_text()), 0)


def test_help_shows_an_example(toy):
    program = [str(toy.programs / "attenscribble"), "benchmark"]
    environment = {**os.environ, "nnUNet_results": "x/y"}
    text = subprocess.run([*program, "--help"], env=environment, capture_output=True, text=True, check=True).stdout
    assert "examples/acdc_cpu.yaml" in text
    assert "collect" in text
