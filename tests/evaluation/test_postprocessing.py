import json
import os
import pickle
from contextlib import contextmanager

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.common import workers
from nnunet_attenscribble.common.volumes import read_image
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation import postprocessing
from nnunet_attenscribble.evaluation.postprocessing import (
    POSTPROCESSING_FILE,
    StrokeEvidence,
    apply_decisions,
    choose_foreground,
    decide,
    join_strokes,
    postprocess_folder,
)
from nnunet_attenscribble.evaluation.structures import Structure

RV, MYO = Structure("RV", (1,)), Structure("MYO", (2,))
IGNORE = 3


def drawn(*points, shape=(3, 20, 20)):
    strokes = np.zeros(shape, dtype=bool)
    for point in points:
        strokes[point] = True
    return strokes


@pytest.mark.parametrize(
    ("points", "annotated", "spacing", "expected"),
    [
        ((), (1, 1, 1), (5, 1, 1), (0, 0, 0)),
        (((0, 3, 3), (0, 3, 4)), (1, 1, 1), (5, 1, 1), (1, 1, 2)),
        (((0, 3, 3), (0, 3, 5)), (1, 1, 1), (5, 1, 1), (2, 1, 2)),
        # Two, however thick the slice is.
        (((0, 3, 3), (0, 3, 6)), (1, 1, 1), (5, 1, 1), (2, 2, 1)),
        (((0, 3, 3), (0, 3, 9)), (1, 1, 1), (1, 3, 3), (2, 2, 1)),
        (((0, 3, 3), (0, 3, 5)), (1, 1, 1), (1, 3, 3), (2, 1, 2)),
        (((0, 3, 3), (1, 3, 8)), (1, 1, 1), (5, 1, 1), (2, 1, 2)),
        (((0, 3, 3), (1, 3, 9)), (1, 1, 1), (5, 1, 1), (2, 2, 1)),
        # Two pixels at least, however thin the slice is.
        (((0, 3, 3), (1, 3, 5)), (1, 1, 1), (1, 3, 3), (2, 1, 2)),
        (((0, 3, 3), (1, 3, 6)), (1, 1, 1), (1, 3, 3), (2, 2, 1)),
        # Of two side by side each has the nearer one behind it, though the other is within reach as well.
        (((0, 3, 3), (0, 3, 7), (1, 3, 4), (1, 3, 8)), (1, 1, 1), (5, 1, 1), (4, 2, 2)),
        # One that forks: its branches are its own.
        (((0, 3, 5), (1, 3, 3), (1, 3, 7)), (1, 1, 1), (5, 1, 1), (3, 1, 3)),
        # A slice with nothing drawn is passed over, and with it the reach grows; one drawn without the class is not.
        (((0, 3, 3), (2, 3, 13)), (1, 0, 1), (5, 1, 1), (2, 1, 2)),
        (((0, 3, 3), (2, 3, 3)), (1, 1, 1), (5, 1, 1), (2, 2, 1)),
    ],
)
def test_strokes_become_objects(points, annotated, spacing, expected):
    assert join_strokes(drawn(*points), np.array(annotated, dtype=bool), spacing) == expected


def test_strokes_of_an_image_of_two_axes():
    strokes = drawn((3, 3), (3, 5), (3, 9), shape=(20, 20))
    assert join_strokes(strokes, np.ones(20, dtype=bool), (1, 1)) == (3, 2, 2)
    # A volume of one slice is no other: its slice distance means nothing, nnU-Net's own converter once wrote 999.
    assert join_strokes(strokes[None], np.ones(1, dtype=bool), (999, 1, 1)) == (3, 2, 2)


def evidence(case, structure, voxels, largest, objects=None):
    return StrokeEvidence(case, structure, 1, (1 if voxels == largest else 2) if objects is None else objects,
                          voxels, largest)  # fmt: skip


def test_nothing_is_removed_from_a_region_inside_one_that_stays():
    found = [evidence(f"c{index}", "whole", 10, 5) for index in range(4)]
    found += [evidence(f"c{index}", "core", 10, 10) for index in range(4)]
    whole, core = decide(found, [Structure("whole", (1, 2)), Structure("core", (2,))])
    assert not whole.keep_largest
    assert not core.keep_largest
    assert "part of whole" in core.reason
    assert decide(found, [Structure("whole", (1, 2)), Structure("core", (2, 3))])[1].keep_largest  # it is no part


def test_decisions_by_hand():
    # 95 % on average over cases, and 83 % of all voxels.
    found = [evidence(f"c{index}", "RV", *((10, 10) if index else (150, 120))) for index in range(4)]
    found += [evidence(f"c{index}", "MYO", 10, 8) for index in range(4)]
    rv, myo = decide(found, [RV, MYO])
    assert (rv.keep_largest, rv.cases, rv.single, rv.share) == (True, 4, 3, pytest.approx(0.95))
    assert (myo.keep_largest, myo.single) == (False, 0)
    assert "80.0 % of the strokes" in myo.reason
    assert decide(found, [MYO], agreement=0.8)[0].keep_largest
    (few,) = decide(found[:2], [RV])
    assert not few.keep_largest
    assert "fewer than 3" in few.reason
    # A case without a stroke of the class says nothing about it.
    assert decide([*found[:4], evidence("c9", "RV", 0, 0, 0)], [RV])[0].cases == 4


def test_only_the_largest_component_stays():
    labels = np.zeros((1, 8, 12), np.uint8)
    labels[0, 1:4, 1:4], labels[0, 6, 6], labels[0, 1, 9] = 1, 1, 2
    keep = [evidence(f"c{index}", "RV", 10, 10) for index in range(3)]
    cleaned, removed = apply_decisions(labels, decide(keep, [RV, MYO]))
    assert removed == [1, 0]
    assert (cleaned == 1).sum() == 9
    assert cleaned[0, 6, 6] == 0
    assert cleaned[0, 1, 9] == 2
    assert labels[0, 6, 6] == 1  # left as it was
    cleaned, removed = apply_decisions(labels, [choose_foreground([RV, MYO])])
    assert removed == [2]
    assert set(np.unique(cleaned)) == {0, 1}


@pytest.fixture
def study(tmp_path, write_labels, write_dataset_json):
    """Three training cases whose RV is one stroke and whose MYO two far apart; predictions of a fourth."""
    scribbles = tmp_path / "Dataset501_Heart" / "labelsTr"
    for case in ("a", "b", "c", "test"):
        labels = np.full((2, 12, 30), IGNORE, np.uint8)
        labels[:, 2, 2:8] = 1
        labels[:, 8, 2:8], labels[:, 8, 24:29] = 2, 2
        labels[:, 11, :20] = 0
        write_labels(scribbles / f"{case}.nii.gz", labels)
    write_dataset_json(scribbles.parent)
    prediction = np.zeros((2, 12, 30), np.uint8)
    prediction[:, 1:4, 1:9], prediction[0, 2, 20] = 1, 1
    prediction[:, 7:9, 1:9], prediction[1, 7:9, 22:27] = 2, 2
    write_labels(tmp_path / "predictions" / "test.nii.gz", prediction)
    write_dataset_json(tmp_path / "predictions")
    return tmp_path / "predictions", scribbles


def read(file):
    return sitk.ReadImage(str(file))


def test_a_folder(study, tmp_path):
    predictions, scribbles = study
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["postprocess", str(predictions), str(scribbles), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "1 case was not looked at: among the predictions, or labelled as a whole" in result.output
    before, after = read(predictions / "test.nii.gz"), read(out / "test.nii.gz")
    changed = sitk.GetArrayFromImage(before) != sitk.GetArrayFromImage(after)
    assert np.argwhere(changed).tolist() == [[0, 2, 20]]  # the RV is one object, the myocardium here is not
    assert after.GetSpacing() == before.GetSpacing()
    assert after.GetPixelID() == before.GetPixelID()
    content = json.loads((out / POSTPROCESSING_FILE).read_text())
    assert {entry["structure"]: entry["keep_largest"] for entry in content["decisions"]} == {"RV": True, "MYO": False}
    assert content["not_looked_at"] == ["test"]
    assert {entry["case"] for entry in content["evidence"]} == {"a", "b", "c"}
    assert content["removed_voxels"] == {"test": [1, 0]}
    assert (out / "dataset.json").exists()


def test_cases_are_read_and_written_by_workers(study, tmp_path, monkeypatch):
    asked = []

    @contextmanager
    def worker_map(workers, tasks):
        def run(work, items):
            asked.append((min(workers, tasks), pickle.loads(pickle.dumps(work)).args[0].func.__name__, len(items)))
            return map(work, items)

        yield run

    monkeypatch.setattr(workers, "worker_map", worker_map)
    postprocess_folder(*study, tmp_path / "out", workers=2)
    assert asked == [(2, "_look_at", 3), (1, "_write_case", 1)]


@pytest.mark.skipif(os.name != "posix", reason="links are those of POSIX")
def test_a_link_to_an_empty_folder_is_written_into(study, tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "scratch")
    postprocess_folder(*study, tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "scratch" / "test.nii.gz").is_file()


def test_what_a_system_leaves_in_an_empty_folder_is_nobodys(study, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".DS_Store").touch()
    postprocess_folder(*study, tmp_path / "out")
    assert (tmp_path / "out" / "test.nii.gz").is_file()


def test_a_class_called_foreground_is_not_the_whole_foreground(study, tmp_path, write_dataset_json):
    predictions, scribbles = study
    write_dataset_json(scribbles.parent, {"background": 0, "foreground": 1, "MYO": 2, "ignore": IGNORE})
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["postprocess", str(predictions), str(scribbles), "-o", str(out), "--foreground"])
    assert result.exit_code == 0, result.output
    before, after = (sitk.GetArrayFromImage(read(folder / "test.nii.gz")) for folder in (predictions, out))
    kept = np.zeros(before.shape, bool)
    kept[:, 1:4, 1:9] = True
    np.testing.assert_array_equal(after, np.where(kept, before, 0))
    # All classes together lose 1 voxel of the first and 32 and 10 of the MYO; behind that no class loses any.
    content = json.loads((out / POSTPROCESSING_FILE).read_text())
    assert [entry["structure"] for entry in content["decisions"]] == ["foreground", "foreground", "MYO"]
    assert content["removed_voxels"] == {"test": [43, 0, 0]}
    told = [line.split()[-2:] for line in result.output.splitlines() if line.startswith(("foreground ", "MYO "))]
    assert told == [["1", "43"], ["0", "0"], ["0", "0"]]


def test_a_folder_of_tiffs_keeps_its_spacing(study, tmp_path, write_dataset_json):
    for folder in study:
        for file in folder.glob("*.nii.gz"):
            name = file.name.removesuffix(".nii.gz")
            tifffile.imwrite(folder / f"{name}.tif", sitk.GetArrayFromImage(read(file)))
            (folder / f"{name}.json").write_text('{"spacing": [10, 2, 1]}')
            file.unlink()
    predictions, scribbles = study
    for folder in (predictions, scribbles.parent):
        write_dataset_json(folder, file_ending=".tif")
    result = postprocess_folder(predictions, scribbles, tmp_path / "out")
    assert {entry.structure: entry.keep_largest for entry in result.decisions} == {"RV": True, "MYO": False}
    before, after = (read_image(folder / "test.tif") for folder in (predictions, tmp_path / "out"))
    changed = sitk.GetArrayFromImage(before) != sitk.GetArrayFromImage(after)
    assert np.argwhere(changed).tolist() == [[0, 2, 20]]
    assert after.GetSpacing() == before.GetSpacing() == (1, 2, 10)


@pytest.mark.parametrize("named", ["NibabelIO", "NibabelIOWithReorient", None])
def test_sheared_axes_are_kept_by_the_reader_of_the_dataset(study, tmp_path, named):
    affine = np.array([[1.0, 0.3, 0, 5], [0, 2, 0, 6], [0, 0, 10, 7], [0, 0, 0, 1]])
    predictions, scribbles = study
    for file in (*scribbles.glob("*.nii.gz"), predictions / "test.nii.gz"):
        labels = sitk.GetArrayFromImage(read(file)).transpose()
        nibabel.save(nibabel.Nifti1Image(labels, affine), file)
    for folder in (predictions, scribbles.parent):
        content = json.loads((folder / "dataset.json").read_text())
        content |= {} if named is None else {"overwrite_image_reader_writer": named}
        (folder / "dataset.json").write_text(json.dumps(content))
    result = postprocess_folder(predictions, scribbles, tmp_path / "out")
    assert {entry.structure: entry.keep_largest for entry in result.decisions} == {"RV": True, "MYO": False}
    before, after = (nibabel.load(folder / "test.nii.gz") for folder in (predictions, tmp_path / "out"))
    changed = np.asarray(before.dataobj) != np.asarray(after.dataobj)
    assert np.argwhere(changed).tolist() == [[20, 2, 0]]
    np.testing.assert_allclose(after.affine, affine, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("thickness", [10.0, 1.5])
def test_slices_lie_along_any_axis(study, tmp_path, write_labels, axis, thickness):
    """The spacing, not the order of the axes, says across which the annotators' slices lie, or the dataset itself."""
    predictions, scribbles = study
    spacing = [1.0, 2.0]  # along x and y; x comes first in a file and last in an array
    spacing.insert(2 - axis, thickness)
    if thickness < max(spacing):
        (scribbles.parent / "provenance.json").write_text(json.dumps({"options": {"axis": axis}}))
    for file in (*scribbles.glob("*.nii.gz"), predictions / "test.nii.gz"):
        write_labels(file, np.moveaxis(sitk.GetArrayFromImage(read(file)), 0, axis), tuple(spacing))
    result = postprocess_folder(predictions, scribbles, tmp_path / "out")
    assert [(entry.strokes, entry.objects) for entry in result.evidence] == [(2, 1), (4, 2)] * 3


def test_a_slice_with_a_stroke_in_the_background_alone_is_one_without_the_class(study, tmp_path, write_labels):
    predictions, scribbles = study
    labels = np.full((3, 12, 30), IGNORE, np.uint8)
    labels[::2, 2, 2:8] = 1
    for case, background in (("a", IGNORE), ("b", 0), ("c", 0)):
        labels[1, 11, :20] = background
        write_labels(scribbles / f"{case}.nii.gz", labels)
    found = [entry for entry in postprocess_folder(predictions, scribbles, tmp_path / "out").evidence if entry.strokes]
    assert [(entry.case, entry.structure, entry.objects) for entry in found] == [
        ("a", "RV", 1), ("b", "RV", 2), ("c", "RV", 2),
    ]  # fmt: skip


def test_scribbles_with_values_that_the_dataset_lacks_are_refused(study, tmp_path, write_labels):
    predictions, scribbles = study
    labels = np.full((2, 12, 30), IGNORE, np.uint8)
    labels[0, 0, :2] = 7, 5
    for case in ("a", "c"):
        write_labels(scribbles / f"{case}.nii.gz", labels)
    with pytest.raises(AttenScribbleError) as caught:
        postprocess_folder(predictions, scribbles, tmp_path / "out")
    assert caught.value.problems == [
        f"scribble {scribbles / case}.nii.gz holds 5, 7, which dataset.json does not know" for case in "ac"
    ]
    assert not (tmp_path / "out").exists()


def test_truncated_files_are_refused(study, tmp_path):
    predictions, scribbles = study
    for file in (scribbles / "b.nii.gz", predictions / "test.nii.gz"):
        whole = file.read_bytes()
        file.write_bytes(whole[:-12])
        with pytest.raises(AttenScribbleError, match=f"{file.name}: is truncated"):
            postprocess_folder(predictions, scribbles, tmp_path / "out")
        file.write_bytes(whole)
    assert not (tmp_path / "out").exists()


def test_the_scribbles_of_predicted_cases_are_never_opened(study, tmp_path):
    predictions, scribbles = study
    (scribbles / "test.nii.gz").write_text("not to be read")
    postprocess_folder(predictions, scribbles, tmp_path / "out")
    assert (tmp_path / "out" / "test.nii.gz").exists()


def test_dense_labels_are_not_looked_at(study, tmp_path, write_labels, write_dataset_json):
    predictions, scribbles = study
    write_labels(scribbles / "a.nii.gz", np.zeros((2, 12, 30), np.uint8))
    result = postprocess_folder(predictions, scribbles, tmp_path / "among")  # as partly annotated datasets hold them
    assert "a" in result.left_out
    assert "a" not in {entry.case for entry in result.evidence}
    for file in scribbles.iterdir():
        write_labels(file, np.zeros((2, 12, 30), np.uint8))
    with pytest.raises(AttenScribbleError, match="has an unlabelled voxel: they are dense"):
        postprocess_folder(predictions, scribbles, tmp_path / "out")
    write_dataset_json(scribbles.parent, {"background": 0, "RV": 1, "MYO": 2})
    with pytest.raises(AttenScribbleError, match="must not see dense labels"):
        postprocess_folder(predictions, scribbles, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_problems_come_before_anything_is_written(study, tmp_path):
    predictions, scribbles = study
    with pytest.raises(AttenScribbleError) as caught:
        postprocess_folder(tmp_path / "no", tmp_path / "none", predictions)
    assert len(caught.value.problems) == 3
    (predictions / "test.nii.gz").write_text("no image")
    with pytest.raises(AttenScribbleError, match=r"test\.nii\.gz: is named \.gz but is not gzip data"):
        postprocess_folder(predictions, scribbles, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for case in ("a", "b", "c"):
        (scribbles / f"{case}.nii.gz").unlink()
    with pytest.raises(AttenScribbleError, match="every case there is among the predictions"):
        postprocess_folder(predictions, scribbles, tmp_path / "out")


def test_a_run_into_a_folder_of_a_similar_name_and_one_that_was_killed(study, tmp_path, monkeypatch):
    write = postprocessing._write_case

    def write_beside(*arguments, **options):
        monkeypatch.setattr(postprocessing, "_write_case", write)
        with monkeypatch.context() as patch:  # a kill runs no clean-up
            patch.setattr("nnunet_attenscribble.common.files.shutil.rmtree", lambda *a, **k: None)
            patch.setattr(postprocessing, "_copy_model_files", lambda *a: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                postprocess_folder(*study, tmp_path / "out")
        postprocess_folder(*study, tmp_path / "out")
        return write(*arguments, **options)

    monkeypatch.setattr(postprocessing, "_write_case", write_beside)
    postprocess_folder(*study, tmp_path / "out-2")
    assert {file.name for file in tmp_path.glob("*out*")} == {"out", "out-2"}
    assert not list(tmp_path.glob(".*"))


def test_a_second_call_into_the_same_folder_is_refused_while_the_first_one_writes(study, tmp_path, monkeypatch):
    write, refused = postprocessing._write_case, []

    def write_beside(*arguments, **options):
        monkeypatch.setattr(postprocessing, "_write_case", write)
        with pytest.raises(AttenScribbleError) as caught:
            postprocess_folder(*study, tmp_path / "out", foreground=True)
        refused.append(str(caught.value))
        return write(*arguments, **options)

    monkeypatch.setattr(postprocessing, "_write_case", write_beside)
    postprocess_folder(*study, tmp_path / "out")
    assert "another process" in refused[0]
    assert (tmp_path / "out" / "test.nii.gz").is_file()


def test_what_appears_in_the_folder_meanwhile_stays(study, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    decide = postprocessing.decide

    def decide_late(*arguments, **options):
        (tmp_path / "out" / "theirs.nii.gz").touch()
        return decide(*arguments, **options)

    monkeypatch.setattr(postprocessing, "decide", decide_late)
    with pytest.raises(AttenScribbleError, match="out"):
        postprocess_folder(*study, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["theirs.nii.gz"]
