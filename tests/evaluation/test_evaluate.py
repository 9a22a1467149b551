import dataclasses
import hashlib

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_attenscribble.common import workers
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.evaluate import count_workers, evaluate_folder


def test_a_folder_by_hand(folders, capsys, monkeypatch):
    predictions, dense = folders
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):  # with which stderr would be a terminal
        monkeypatch.delenv(variable, raising=False)
    summary = evaluate_folder(predictions, dense, workers=1, progress=True)
    assert capsys.readouterr().err.splitlines() == [f"Scoring cases: {done} of 3" for done in (1, 2, 3)]
    assert summary.names == ["RV", "MYO"]
    assert list(summary.cases) == ["a", "b", "c"]
    assert summary.spacings["a"] == (10.0, 2.0, 1.0)
    for scores in summary.cases.values():
        # RV: 2 x 4 x 4 voxels, one column of four off; every surface voxel lies on the other surface or 1 mm beside it.
        assert scores["RV"].dice == pytest.approx(0.75)
        assert scores["RV"].hd95_mm == pytest.approx(1.0)
        assert scores["MYO"].dice == 1
        assert scores["MYO"].assd_mm == 0
    assert summary.notes == (
        "Slices lie up to 10 mm apart: HD95 moves in steps of the slice distance, whatever the tool.",
    )
    assert summary.not_predicted == ()
    assert summary.provenance["dataset_json"] == str(predictions / "dataset.json")
    assert summary.versions["scipy"]


def test_slice_distance_is_told_where_distances_have_one(tmp_path, folders, write_labels, write_dataset_json):
    for protocol in ("nnunet", "acdc-wsl4mis-voxels"):
        assert not any("slice distance" in note for note in evaluate_folder(*folders, protocol=protocol).notes)
    labels = np.zeros((1, 8, 8), np.uint8)
    labels[0, 2:5, 2:5] = 1
    for folder in ("dense", "predictions"):
        write_labels(tmp_path / "flat" / folder / "a.nii.gz", labels, spacing=(1.0, 1.0, 999.0))
    write_dataset_json(tmp_path / "flat" / "predictions", {"background": 0, "RV": 1})
    flat = evaluate_folder(tmp_path / "flat" / "predictions", tmp_path / "flat" / "dense", workers=1)
    assert flat.spacings["a"][0] == 999
    assert not any("slice distance" in note for note in flat.notes)


def test_worker_processes_change_nothing(folders):
    alone, together = (evaluate_folder(*folders, workers=workers) for workers in (1, 2))
    assert dataclasses.asdict(alone) == dataclasses.asdict(together)


def test_number_of_workers(monkeypatch):
    assert [count_workers(cases) for cases in (1, 3, 7)] == [1, 1, 1]
    monkeypatch.setattr(workers, "count_processors", lambda: 64)
    assert count_workers(10_000) == 8  # each holds a case in memory


def test_definition_of_hd95_reaches_the_metrics(tmp_path, write_labels, write_dataset_json):
    labels = np.zeros((2, 12, 12), np.uint8)
    labels[:, 0, :10] = 1
    write_labels(tmp_path / "dense" / "a.nii.gz", labels, spacing=(1.0, 1.0, 1.0))
    labels[:, 10, 0] = 1
    write_labels(tmp_path / "predictions" / "a.nii.gz", labels, spacing=(1.0, 1.0, 1.0))
    write_dataset_json(tmp_path / "predictions", {"background": 0, "row": 1})
    found = {
        name: evaluate_folder(tmp_path / "predictions", tmp_path / "dense", hd95=name, workers=1)
        for name in ("monai", "union")
    }
    # Of 22 distances from the prediction two are 10 mm, the rest 0: rank 0.95 x 21 = 19.95 is 0.95 of the way to the
    # first of the two. Pooled with the other direction's 20 zeros, rank 38.95 of 42 lies among the zeros.
    assert found["monai"].cases["a"]["row"].hd95_mm == pytest.approx(9.5)
    assert found["union"].cases["a"]["row"].hd95_mm == 0
    assert found["union"].hd95 == "union"


def test_every_note(tmp_path, write_labels, write_dataset_json, two_slabs):
    predictions, dense = tmp_path / "predictions", tmp_path / "dense"
    for case in "abcdefg":
        write_labels(dense / f"{case}.nii.gz", two_slabs, spacing=(1.0, 1.0, 1.0))
    write_labels(predictions / "a.nii.gz", two_slabs, spacing=(1.0, 1.0, 1.0))
    write_dataset_json(predictions)
    turned = sitk.ReadImage(str(predictions / "a.nii.gz"))
    sitk.WriteImage(sitk.Flip(turned, (True, False, False), False), str(predictions / "a.nii.gz"))
    missing, moved, unit, identical = evaluate_folder(predictions, dense, workers=1).notes
    assert "6 cases have a dense label but no prediction and are not scored (b, c, d, e, f, ...)" in missing
    assert "1 prediction is stored in another order of axes than the dense label and turned onto it" in moved
    assert "distances are in voxels" in unit
    assert "Every prediction equals its dense label" in identical
    with pytest.raises(AttenScribbleError, match=r"6 cases of .* have no prediction in .* \(b, c, d, e, f, \.\.\.\)"):
        evaluate_folder(predictions, dense, workers=1, all_cases=True)


def test_validation_folder_of_a_model(tmp_path, folders, write_dataset_json):
    predictions, dense = folders
    validation = tmp_path / "model" / "fold_0" / "validation"
    validation.parent.mkdir(parents=True)
    predictions.rename(validation)
    (validation / "dataset.json").rename(tmp_path / "model" / "dataset.json")
    (tmp_path / "model" / "plans.json").write_text("{}")
    summary = evaluate_folder(validation, dense, workers=1)
    assert summary.provenance["dataset_json"] == str(tmp_path.resolve() / "model" / "dataset.json")
    assert summary.provenance["plans_sha256"] == hashlib.sha256(b"{}").hexdigest()


def test_dataset_json_may_be_given(folders, write_dataset_json, tmp_path):
    write_dataset_json(tmp_path / "other", {"background": 0, "heart": [1, 2], "RV": 1})
    for given in (tmp_path / "other", tmp_path / "other" / "dataset.json"):
        summary = evaluate_folder(*folders, dataset_json=given, workers=1)
        assert summary.names == ["heart", "RV"]
    with pytest.raises(AttenScribbleError, match=r"--dataset-json .*nowhere.json does not exist"):
        evaluate_folder(*folders, dataset_json=tmp_path / "nowhere.json")


def test_labels_of_another_coding(folders, write_dataset_json):
    predictions, dense = folders
    write_dataset_json(dense.parent, {"background": 0, "myo": 1, "rv": 2})
    with pytest.raises(AttenScribbleError) as caught:
        evaluate_folder(predictions, dense)
    rv, myo = caught.value.problems
    assert f"RV is [1] in {predictions / 'dataset.json'} but [2] in {dense.parent / 'dataset.json'}" in rv
    assert "MYO is [2]" in myo
    write_dataset_json(dense.parent, {"background": 0, "rv": 1, "Left": 3})
    assert evaluate_folder(predictions, dense, workers=1).names == ["RV", "MYO"]


@pytest.mark.parametrize("workers", [1, 2])
def test_problems_of_all_cases_come_together(folders, write_labels, two_slabs, workers):
    predictions, dense = folders
    write_labels(dense / "a.nii.gz", np.where(two_slabs == 0, 3, two_slabs).astype(np.uint8))
    write_labels(predictions / "b.nii.gz", two_slabs, spacing=(1.0, 2.0, 8.0))
    (predictions / "c.nii.gz").write_text("no image")
    with pytest.raises(AttenScribbleError) as caught:
        evaluate_folder(predictions, dense, workers=workers)
    scribbles, spacing, unreadable = caught.value.problems
    assert "these are scribbles" in scribbles
    assert f"prediction {predictions / 'b.nii.gz'}: spacing (1, 2, 8) differs from (1, 2, 10) of dense label" in spacing
    assert "c.nii.gz: is named .gz but is not gzip data" in unreadable


def test_missing_folders_are_told_before_dataset_json(tmp_path):
    with pytest.raises(AttenScribbleError, match="no dense labels to compare with"):
        evaluate_folder(tmp_path, tmp_path / "nowhere")
    with pytest.raises(AttenScribbleError, match="no predictions to score"):
        evaluate_folder(tmp_path / "nowhere", tmp_path)


def test_what_programs_may_not_ask_for(folders):
    with pytest.raises(AttenScribbleError, match="one of monai, union"):
        evaluate_folder(*folders, hd95="medpy")
    with pytest.raises(ValueError, match="at least 1"):
        evaluate_folder(*folders, workers=0)
