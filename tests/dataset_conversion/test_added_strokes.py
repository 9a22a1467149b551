"""A folder to draw in, what is drawn there, and a dataset that gets it."""

from __future__ import annotations

import json
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_attenscribble.cli.next_slices import _find_further, _print_slices, next_slices
from nnunet_attenscribble.common import files
from nnunet_attenscribble.common.readers import find_reader
from nnunet_attenscribble.dataset_conversion import next_folder
from nnunet_attenscribble.dataset_conversion.description import find_cases, read_description
from nnunet_attenscribble.dataset_conversion.next_drawings import TOOLS, write_drawing, write_tiff
from nnunet_attenscribble.dataset_conversion.next_folder import (
    Addition,
    CaseToDraw,
    DatasetToDraw,
    DrawnCase,
    add_strokes,
    list_seen,
    new_case_problems,
    note_read,
    read_additions,
    read_state,
    write_folder,
)
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.trained_model import CaseFiles
from tests.dataset_conversion.drawing_tools import write_slicer
from tests.test_malformed_files import read_tree
from tests.tiny import make_dense, make_scan, make_strokes, make_volume

NAME = "Dataset601_Heart"
LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
STRAY = (0, 0, 0)  # (z, y, x) where neither the strokes nor a structure are


class Work:
    """A dataset of two cases, of which the second has no stroke, further images, and a folder to draw in."""

    def __init__(self, folder: Path):
        self.raw, self.preprocessed = folder / "nnUNet_raw" / NAME, folder / "nnUNet_preprocessed" / NAME
        self.folder, self.further = folder / "next", folder / "further"
        for place in (self.raw / "imagesTr", self.raw / "labelsTr", self.preprocessed, self.further):
            place.mkdir(parents=True)
        for number, (name, strokes) in enumerate((("a", make_strokes()), ("b", np.full_like(make_strokes(), 4)))):
            sitk.WriteImage(make_scan(number), str(self.raw / f"imagesTr/{name}_0000.nii.gz"))
            sitk.WriteImage(make_volume(strokes), str(self.raw / f"labelsTr/{name}.nii.gz"))
        sitk.WriteImage(make_scan(2), str(self.further / "c_0000.nii.gz"))
        content = {"channel_names": {"0": "MRI"}, "labels": {**LABELS, "ignore": 4}, "file_ending": ".nii.gz"}
        # With its cases listed, as nnU-Net starts a dozen processes to list a folder.
        content["dataset"] = {
            name: {"images": [f"imagesTr/{name}_0000.nii.gz"], "label": f"labelsTr/{name}.nii.gz"} for name in "ab"
        }
        self.splits = [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
        for place in (self.raw, self.preprocessed):
            (place / "dataset.json").write_text(json.dumps(content | {"numTraining": 2}))
            (place / "splits_final.json").write_text(json.dumps(self.splits))
        (self.raw / "provenance.json").write_text(json.dumps({"source": "tests"}))

    def training(self) -> dict[str, CaseToDraw]:
        found = find_cases(self.raw, read_description(self.raw))
        return {name: CaseToDraw.of_training(name, *files) for name, files in found.items()}

    def write(self, tool: str = "itk-snap", prediction: np.ndarray | None = None) -> None:
        prediction = make_dense() if prediction is None else prediction
        cases = [*self.training().values()]
        if "c" not in self.training():
            cases.append(CaseToDraw.of_files("c", [self.further / "c_0000.nii.gz"], None, 1))
        write_folder(
            self.folder,
            [DrawnCase(case, case.read_strokes(LABELS), prediction) for case in cases],
            tool=tool,
            labels=LABELS,
            state={"dataset": NAME, "slices": []},
            further={"next.csv": b"rank\n"},
            before=(before := read_state(self.folder, NAME)),
            seen=list_seen(self.folder, before),
        )

    def read(self):
        state = read_state(self.folder, NAME)
        return read_additions(self.folder, state, DatasetToDraw.read(self.raw))

    def bring_in(self) -> None:
        add_strokes(self.raw, self.preprocessed, self.read()[0], None)

    def draw(self, name: str, values: np.ndarray, ending: str = ".nii.gz", what: str = "strokes") -> Path:
        file = self.folder / name / f"{name}_{what}{ending}"
        case = self.training().get(name) or CaseToDraw.of_files(name, [self.further / "c_0000.nii.gz"], None, 1)
        write_drawing(file, values, case.read_grid(), LABELS, dense=what == "prediction")
        return file

    def label(self, name: str) -> np.ndarray:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(self.raw / f"labelsTr/{name}.nii.gz")))


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path)


def drawn(*voxels: tuple[tuple[int, int, int], int], on: np.ndarray | None = None) -> np.ndarray:
    values = np.full_like(make_strokes(), 4) if on is None else on.copy()
    for place, value in voxels:
        values[place] = value
    return values


@pytest.mark.parametrize("tool", TOOLS)
def test_each_tool_gets_images_predictions_and_the_strokes_so_far(work, tool):
    work.write(tool)
    image = "_0000.tif" if tool == "napari" else "_0000.nii.gz"
    for name in "abc":
        found = {file.name for file in (work.folder / name).iterdir()}
        endings = (f"_strokes{TOOLS[tool]}", f"_prediction{TOOLS[tool]}", image)
        assert found == {f"{name}{ending}" for ending in endings} | {f".{name}.npz"}
    if tool != "napari":
        assert (work.folder / "c/c_0000.nii.gz").resolve() == (work.further / "c_0000.nii.gz").resolve()
    assert (work.folder / "labels.label").read_text().splitlines()[-1].endswith('"background"')
    assert work.read() == ([], [])  # nothing was drawn yet


@pytest.mark.parametrize("tool", TOOLS)
def test_strokes_go_into_labels_and_new_cases_into_the_dataset(work, tool):
    work.write(tool)
    work.draw("a", drawn((STRAY, 2), on=make_strokes()), TOOLS[tool])
    work.draw("c", drawn((STRAY, 0), ((1, 1, 1), 3)), TOOLS[tool])
    additions, _ = work.read()
    assert [(one.case.identifier, one.added, one.changed, one.kept) for one in additions] == [
        ("a", {"background": 0, "RV": 0, "MYO": 1, "LV": 0}, 0, 0),
        ("c", {"background": 1, "RV": 0, "MYO": 0, "LV": 1}, 0, 0),
    ]
    untouched = (work.raw / "labelsTr/b.nii.gz").read_bytes()
    work.bring_in()
    assert (work.label("a") == drawn((STRAY, 2), on=make_strokes())).all()
    assert (work.label("c") == drawn((STRAY, 0), ((1, 1, 1), 3))).all()
    assert (work.raw / "labelsTr/b.nii.gz").read_bytes() == untouched
    assert (work.raw / "imagesTr/c_0000.nii.gz").read_bytes() == (work.further / "c_0000.nii.gz").read_bytes()
    for place in (work.raw, work.preprocessed):
        assert json.loads((place / "dataset.json").read_text())["numTraining"] == 3
        folds = json.loads((place / "splits_final.json").read_text())
        assert folds == [{"train": ["a", "c"], "val": ["b"]}, {"train": ["b", "c"], "val": ["a"]}]
    assert [*json.loads((work.raw / "provenance.json").read_text())["strokes_added"][0]] == ["a", "c"]
    # nnU-Net finds the cases, and a second reading nothing new.
    assert set(work.training()) == {"a", "b", "c"}
    assert work.read() == ([], [])
    work.write()
    assert work.read() == ([], [])


def test_a_new_case_that_a_fold_validates_with_already_is_not_trained_with_there(work):
    for place in (work.raw, work.preprocessed):
        (place / "splits_final.json").write_text(json.dumps([work.splits[0], {"train": ["b"], "val": ["a", "c"]}]))
    work.write()
    work.draw("c", drawn((STRAY, 1)))
    work.bring_in()
    folds = [{"train": ["a", "c"], "val": ["b"]}, {"train": ["b"], "val": ["a", "c"]}]
    for place in (work.raw, work.preprocessed):
        assert json.loads((place / "splits_final.json").read_text()) == folds


def test_a_stroke_over_an_older_one_counts_and_one_taken_out_stays(work):
    work.write()
    strokes = make_strokes()
    place = tuple(np.argwhere(strokes == 3)[0])
    emptied = drawn((place, 1))  # all other strokes are gone from the drawing
    work.draw("a", emptied)
    (addition,), _ = work.read()
    assert (addition.changed, addition.kept) == (1, int((strokes != 4).sum()) - 1)
    assert not any(addition.added.values())
    work.bring_in()
    assert (work.label("a") == drawn((place, 1), on=strokes)).all()


def test_a_corrected_prediction_is_a_stroke_where_it_was_changed(work):
    work.write()
    corrected = make_dense()
    corrected[1, 1, 1], corrected[0, 0, 0] = 0, 2  # predicted as 1 and 0
    work.draw("b", corrected, what="prediction")
    work.bring_in()
    assert (work.label("b") == drawn(((1, 1, 1), 0), ((0, 0, 0), 2))).all()
    # A stroke that says something else of the same voxel is refused; one that says the same is not.
    work.write()
    # Nor is one of rounds ago, though it lies in the file that another stroke was added to.
    place = tuple(np.argwhere(make_strokes() == 3)[0])
    over = make_dense()
    over[place] = 1
    work.draw("a", over, what="prediction")
    work.draw("a", drawn((STRAY, 2), on=make_strokes()))
    work.bring_in()
    assert (work.label("a") == drawn((STRAY, 2), (place, 1), on=make_strokes())).all()
    work.write()
    corrected[0, 0, 1] = 3
    prediction = work.draw("c", corrected, what="prediction")
    strokes = work.draw("c", drawn(((0, 0, 1), 1)))
    with pytest.raises(AttenScribbleError) as refused:
        work.read()
    assert refused.value.problems == [
        f"{strokes}: 1 voxels have another stroke than {prediction} was corrected to: take them out of one of the two"
    ]
    work.draw("c", drawn(((0, 0, 1), 3)))
    assert len(work.read()[0]) == 1


def test_a_tool_may_save_in_another_format_but_not_in_two(work):
    work.write("slicer")
    work.draw("b", drawn((STRAY, 1)), ".nii.gz")
    assert len(work.read()[0]) == 1
    work.draw("b", drawn((STRAY, 2)), ".seg.nrrd")
    with pytest.raises(AttenScribbleError, match=r"b_strokes\.nii\.gz and b_strokes\.seg\.nrrd were both saved"):
        work.read()


def test_what_was_read_in_another_format_rounds_ago_does_not_come_back(work):
    """The tool's own file is written anew in each round; the other one stays beside it."""
    for what, value, ending in (("strokes", 1, ".nii.gz"), ("prediction", 2, ".seg.nrrd")):
        work.write("slicer")
        corrected = make_dense()
        corrected[STRAY] = value
        work.draw("b", corrected if what == "prediction" else drawn((STRAY, value)), ending, what)
        additions, _ = work.read()
        work.bring_in()
        note_read(work.folder, read_state(work.folder, NAME), additions)
        assert work.label("b")[STRAY] == value
    work.write("slicer")
    assert work.read() == ([], [])
    work.write("slicer")  # nor rounds later
    assert work.read() == ([], [])


def test_a_stroke_that_is_taken_out_of_the_dataset_does_not_come_back(work):
    work.write()
    for name in "ba":  # each is read on its own, in one round
        work.draw(name, drawn((STRAY, 2), on=work.label(name)))
        additions, _ = work.read()
        assert [addition.case.identifier for addition in additions] == [name]
        work.bring_in()
        note_read(work.folder, read_state(work.folder, NAME), additions)
    for name in "ab":
        sitk.WriteImage(make_volume(drawn()), str(work.raw / f"labelsTr/{name}.nii.gz"))
    assert work.read() == ([], [])


def test_what_brought_nothing_in_does_not_count_later(work):
    """A prediction saved as it was, in another format; the next round's model predicts something else."""
    work.write("slicer")
    work.draw("b", make_dense(), ".nii.gz", "prediction")
    assert work.read() == ([], [])
    for _ in range(2):
        work.write("slicer", 3 - make_dense())
        assert work.read() == ([], [])


@pytest.mark.parametrize("tool", ["itk-snap", "slicer"])
def test_a_stroke_that_is_drawn_again_as_rounds_ago_counts(work, tool):
    """In the tool's own format, and in another."""
    for value in (1, 2, 1):  # the third file is the first, byte by byte
        work.write(tool)
        work.draw("b", drawn((STRAY, value)))
        additions, _ = work.read()
        work.bring_in()
        note_read(work.folder, read_state(work.folder, NAME), additions)
        assert work.label("b")[STRAY] == value


def test_a_file_under_another_name_is_told_and_stays(work):
    work.write("slicer")
    (work.folder / "b" / "Segmentation.seg.nrrd").write_bytes(b"whatever")
    assert work.read()[1] == ["b/Segmentation.seg.nrrd is not read: strokes are saved as b_strokes"]
    work.write("itk-snap")
    assert (work.folder / "b" / "Segmentation.seg.nrrd").read_bytes() == b"whatever"
    assert not (work.folder / "b" / "b_strokes.seg.nrrd").exists()  # of the tool before


def test_drawings_elsewhere_and_of_other_kinds_are_told_and_companions_are_none(work):
    work.write("slicer")
    for place in ("b_strokes.seg.nrrd", "b/old/b_strokes.nii.gz", "notes.txt", "b/b_strokes.txt"):
        (work.folder / place).parent.mkdir(exist_ok=True)
        (work.folder / place).write_bytes(b"whatever")
    assert work.read() == (
        [],
        [f"{place} is not read: strokes are saved as CASE/CASE_strokes" for place in (
            "b/old/b_strokes.nii.gz", "b_strokes.seg.nrrd",
        )],
    )  # fmt: skip
    for ending in (".mgz", ".npy"):
        (work.folder / f"b/b_strokes{ending}").write_bytes(b"whatever")
    with pytest.raises(AttenScribbleError) as refused:
        work.read()
    for problem, ending in zip(refused.value.problems, (".mgz", ".npy"), strict=True):
        assert f"b_strokes{ending}: is of a kind that is not taken" in problem


@pytest.mark.parametrize("ending", [".mhd", ".nhdr", ".hdr"])
def test_strokes_in_two_files_are_one_drawing(work, ending):
    work.write()
    labels = []
    for name in ("b_strokes.nii.gz", f"b_strokes{ending}"):
        before = (work.folder / "b" / "b_strokes.nii.gz").read_bytes()
        sitk.WriteImage(make_volume(make_strokes()), str(work.folder / "b" / name))
        (addition,), _ = work.read()
        labels.append(addition.label)
        (work.folder / "b" / "b_strokes.nii.gz").write_bytes(before)
    np.testing.assert_array_equal(*labels)


def test_a_picture_is_read_where_it_is_saved_as_strokes(work):
    work.write("napari")
    sitk.WriteImage(sitk.GetImageFromArray(make_strokes()[0]), str(work.folder / "b/b_strokes.png"))
    with pytest.raises(AttenScribbleError, match=r"b_strokes\.png: size \(6, 5\) differs from \(6, 5, 4\)"):
        work.read()


def test_a_damaged_prediction_is_told(work):
    work.write()
    file = work.folder / "b" / ".b.npz"
    whole = file.read_bytes()
    work.draw("b", drawn((STRAY, 1)), what="prediction")
    for place in (40, 70, whole.index(b"PK\1\2") + 8):  # of the zip archive that it is: a name, what is packed, a flag
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises(AttenScribbleError, match=r"\.b\.npz: cannot be read"):
            work.read()


def test_slicer_saves_one_voxel_where_nothing_is_drawn(work):
    work.write("slicer")
    names = [("RV", 1, 0), ("MYO", 2, 0), ("LV", 3, 0)]
    for what in ("strokes", "prediction"):
        file = work.folder / f"b/b_{what}.seg.nrrd"
        write_slicer(file, [np.zeros((1, 1, 1))], names, spacing=(1, 1, 1), origin=(0, 0, 0), direction=np.eye(3))
    (addition,), _ = work.read()
    np.testing.assert_array_equal(addition.label, np.where(make_dense() > 0, 0, 4))  # no stroke, and no structure left


def test_every_problem_is_told_and_nothing_is_written(work, tmp_path):
    work.write()
    work.draw("a", drawn((STRAY, 1), on=make_strokes()))
    sitk.WriteImage(make_volume(make_strokes(), origin=(0, 0, 0)), str(work.folder / "b/b_strokes.nii.gz"))
    strange = drawn((STRAY, 1))
    strange[1, 1, 1] = 9
    sitk.WriteImage(make_volume(strange), str(work.folder / "c/c_strokes.nii.gz"))
    before = read_tree(tmp_path)
    with pytest.raises(AttenScribbleError) as refused:
        work.bring_in()
    b, c = refused.value.problems
    assert "b_strokes.nii.gz: origin" in b
    assert "c_strokes.nii.gz: label values 9 are outside the coding" in c
    assert read_tree(tmp_path) == before

    work.write()
    work.draw("c", drawn((STRAY, 1)))
    (work.preprocessed / "splits_final.json").write_text("[{}]")
    before = read_tree(tmp_path)
    with pytest.raises(AttenScribbleError, match="splits_final"):
        work.bring_in()
    assert read_tree(tmp_path) == before


@pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "NaturalImage2DIO"])
def test_files_of_nnunets_other_readers(work, tmp_path, reader):
    """One turns volumes round where it reads them, the other reads pictures in colour."""
    picture = reader == "NaturalImage2DIO"
    labels = {**LABELS, "ignore": 4}
    ending = ".png" if picture else ".nii.gz"
    for place in (work.raw, work.preprocessed):
        content = json.loads((place / "dataset.json").read_text())
        cases = {
            name: {"images": [f"imagesTr/{name}_0000{ending}"], "label": f"labelsTr/{name}{ending}"} for name in "ab"
        }
        channels = {"0": "R", "1": "G", "2": "B"} if picture else {"0": "MRI"}
        content |= {"file_ending": ending, "dataset": cases, "overwrite_image_reader_writer": reader}
        (place / "dataset.json").write_text(json.dumps(content | {"channel_names": channels, "labels": labels}))
    if picture:
        rng = np.random.default_rng(0)
        for file in (work.raw / "imagesTr/a", work.raw / "imagesTr/b", work.further / "c"):
            colours = sitk.GetImageFromArray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8), isVector=True)
            sitk.WriteImage(colours, f"{file}_0000.png")
        for name in "ab":
            sitk.WriteImage(sitk.GetImageFromArray(make_strokes()[0]), str(work.raw / f"labelsTr/{name}.png"))
    example = work.raw / f"imagesTr/a_0000{ending}"
    found = find_reader(json.loads((work.raw / "dataset.json").read_text()), example)
    new = CaseToDraw.of_files("c", [work.further / f"c_0000{ending}"], found, 3 if picture else 1)
    cases = [work.training()["a"], new]
    strokes = cases[0].read_strokes(LABELS)
    assert (strokes == (make_strokes()[:1] if picture else make_strokes())).all()  # in the order of the file
    write_folder(
        work.folder,
        [DrawnCase(case, case.read_strokes(LABELS), np.zeros_like(strokes)) for case in cases],
        tool="slicer",
        labels=LABELS,
        state={"dataset": NAME, "slices": []},
        further={},
        before=None,
        seen={},
    )
    strokes[STRAY] = 2
    for case in cases:
        file = work.folder / case.identifier / f"{case.identifier}_strokes.seg.nrrd"
        write_drawing(file, strokes, case.read_grid(), LABELS, dense=False)
    state = read_state(work.folder, NAME)
    additions, _ = read_additions(work.folder, state, DatasetToDraw.read(work.raw))
    add_strokes(work.raw, work.preprocessed, additions, found)
    expected = strokes[0] if picture else strokes
    for name in "ac":
        label = sitk.ReadImage(str(work.raw / f"labelsTr/{name}{ending}"))
        assert (sitk.GetArrayFromImage(label) == expected).all()
    assert set(work.training()) == {"a", "b", "c"}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("reader", ["NibabelIO", "NibabelIOWithReorient"])
def test_axes_that_are_not_at_right_angles(work, tool, reader):
    """SimpleITK refuses such files; `convert folder` writes them for NibabelIO."""
    affine = np.array(
        [[-1.0, 0.3, 0, 5], [0, 1.2, 0, 6], [0, 0, 8, 7], [0, 0, 0, 1]]
    )  # its first axis runs to the left

    def save(file, voxels):
        nibabel.save(nibabel.Nifti1Image(voxels.transpose(), affine), file)

    for number, file in enumerate((work.raw / "imagesTr/a", work.raw / "imagesTr/b", work.further / "c")):
        save(f"{file}_0000.nii.gz", sitk.GetArrayFromImage(make_scan(number)))
    for name, strokes in (("a", make_strokes()), ("b", drawn())):
        save(work.raw / f"labelsTr/{name}.nii.gz", strokes)
    for place in (work.raw, work.preprocessed):
        content = json.loads((place / "dataset.json").read_text())
        (place / "dataset.json").write_text(json.dumps(content | {"overwrite_image_reader_writer": reader}))
    found = find_reader(json.loads((work.raw / "dataset.json").read_text()), work.raw / "imagesTr/a_0000.nii.gz")
    cases = [*work.training().values(), CaseToDraw.of_files("c", [work.further / "c_0000.nii.gz"], found, 1)]
    write_folder(
        work.folder,
        [DrawnCase(case, case.read_strokes(LABELS), make_dense()) for case in cases],
        tool=tool,
        labels=LABELS,
        state={"dataset": NAME, "slices": []},
        further={},
        before=None,
        seen={},
    )
    (a, b, c), corrected = cases, make_dense()
    corrected[1, 1, 1] = 0
    expected = {"a": drawn((STRAY, 2), on=make_strokes()), "b": drawn(((1, 1, 1), 0)), "c": drawn((STRAY, 1))}
    for case, what, values in (
        (a, "strokes", expected["a"]),
        (b, "prediction", corrected),
        (c, "strokes", expected["c"]),
    ):
        name = case.identifier
        file = work.folder / name / f"{name}_{what}{TOOLS[tool]}"
        write_drawing(file, values, case.read_grid(), LABELS, dense=what == "prediction")
    state = read_state(work.folder, NAME)
    additions, _ = read_additions(work.folder, state, DatasetToDraw.read(work.raw))
    add_strokes(work.raw, work.preprocessed, additions, found)
    for name, strokes in expected.items():
        label = nibabel.load(work.raw / f"labelsTr/{name}.nii.gz")
        np.testing.assert_array_equal(np.asarray(label.dataobj).transpose(), strokes)
        np.testing.assert_allclose(label.affine, affine, atol=1e-5)


def test_an_image_that_was_damaged_since_it_was_drawn_on_is_told(work):
    work.write()
    work.draw("c", drawn((STRAY, 0)))
    file = work.further / "c_0000.nii.gz"
    file.write_bytes(file.read_bytes()[:-40])  # its header is whole
    with pytest.raises(AttenScribbleError) as caught:
        work.read()
    (problem,) = caught.value.problems
    assert problem.startswith(str(file))


def test_what_cannot_be_written_leaves_all_as_it_was(work, tmp_path, monkeypatch):
    work.write()
    work.draw("a", drawn((STRAY, 1), on=make_strokes()))
    work.draw("c", drawn((STRAY, 1)))
    before = read_tree(tmp_path)
    rename = Path.rename
    moves = []

    def fail_at_the_last(path, target):
        moves.append(path)
        if path.name == "dataset.json" and ".part" in str(path) and work.preprocessed in path.parents:
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(files.Path, "rename", fail_at_the_last)
    with pytest.raises(AttenScribbleError, match="No space left on device"):
        work.bring_in()
    assert len(moves) > 3  # labels and the image had taken their places by then
    monkeypatch.undo()
    assert read_tree(tmp_path) == before


@pytest.mark.parametrize("linked", [False, True])
def test_test_cases_move_and_scored_ones_are_refused(work, linked):
    tests = work.raw / "imagesTs"
    tests.mkdir()
    if linked:  # as by `convert folder --undrawn-as-test --link`
        (tests / "c_0000.nii.gz").symlink_to(work.further / "c_0000.nii.gz")
    else:
        (work.further / "c_0000.nii.gz").rename(tests / "c_0000.nii.gz")
    images = work.further
    work.further = tests
    work.write()
    work.draw("c", drawn((STRAY, 1)))
    (work.raw / "labelsTs").mkdir()
    (work.raw / "labelsTs/c.nii.gz").write_bytes(b"a dense label")
    with pytest.raises(AttenScribbleError, match="case c: is a test case, with a dense label in"):
        work.bring_in()
    (work.raw / "labelsTs/c.nii.gz").unlink()
    work.bring_in()
    assert not list(tests.iterdir())
    assert (images / "c_0000.nii.gz").is_file() == linked
    assert (work.raw / "imagesTr/c_0000.nii.gz").is_file()


def test_what_lies_beside_a_tiff_moves_with_it(work):
    reader = {"file_ending": ".tif", "overwrite_image_reader_writer": "Tiff3DIO"}
    tests = work.raw / "imagesTs"
    for place in (work.raw, work.preprocessed):
        content = json.loads((place / "dataset.json").read_text())
        del content["dataset"]
        (place / "dataset.json").write_text(json.dumps(content | reader))
    tests.mkdir()
    for channel in range(2):
        write_tiff(tests / f"c_{channel:04d}.tif", sitk.GetArrayFromImage(make_scan(channel)))
    (tests / "c.json").write_text('{"spacing": [8.0, 1.5, 1.5]}')
    found = find_reader(reader, tests / "c_0000.tif")
    case = CaseToDraw.of_files("c", [tests / f"c_{channel:04d}.tif" for channel in range(2)], found, 2)
    label = drawn((STRAY, 1))
    add_strokes(work.raw, work.preprocessed, [Addition(case, label, {"RV": 1}, 0, 0, ())], found)
    assert not list(tests.iterdir())
    moved = {file.name for file in (work.raw / "imagesTr").iterdir()}
    assert {"c_0000.tif", "c_0001.tif", "c.json"} <= moved


def test_another_image_of_a_name_that_is_taken(work):
    assert new_case_problems(work.raw, {"a": [work.raw / "imagesTr/a_0000.nii.gz"]}) == []
    other = work.further / "a_0000.nii.gz"
    sitk.WriteImage(make_scan(9), str(other))
    (problem,) = new_case_problems(work.raw, {"a": [other]})
    assert problem.endswith("is another image of this name: rename one of the two")


@pytest.mark.parametrize("listed", [True, False])
def test_labels_of_no_training_case_are_not_written_over(work, tmp_path, listed):
    """Taken off the list with its image left where it was, or without a list a label whose image lies elsewhere."""
    work.write()
    work.draw("c", drawn((STRAY, 1)))
    stray = work.raw / "labelsTr/c.nii.gz"
    sitk.WriteImage(make_volume(drawn((STRAY, 2))), str(stray))
    if listed:
        shutil.copy(work.further / "c_0000.nii.gz", work.raw / "imagesTr")
    else:
        for place in (work.raw, work.preprocessed):
            content = json.loads((place / "dataset.json").read_text())
            del content["dataset"]
            (place / "dataset.json").write_text(json.dumps(content))
    before = read_tree(tmp_path)
    with pytest.raises(AttenScribbleError) as refused:
        work.bring_in()
    (problem,) = refused.value.problems
    assert problem.startswith(f"{stray}: lies there already, and c is no training case: put its image into ")
    assert read_tree(tmp_path) == before
    stray.write_bytes(b"no label")
    with pytest.raises(AttenScribbleError, match="lies there already"):
        work.bring_in()
    # What a kill left there is what is to be written.
    sitk.WriteImage(make_volume(drawn((STRAY, 1))), str(stray))
    work.bring_in()
    assert (work.label("c") == drawn((STRAY, 1))).all()
    assert set(work.training()) == {"a", "b", "c"}


def test_images_to_choose_from_are_refused_where_their_label_lies_already(work):
    shutil.copy(work.raw / "imagesTr/a_0000.nii.gz", work.further)  # a training case, which has a label
    description = read_description(work.raw)
    images = {name: CaseFiles([work.further / f"{name}_0000.nii.gz"], None) for name in "ac"}
    model = SimpleNamespace(folder=work.raw, find_cases=lambda folder: images)
    dataset = DatasetToDraw(work.raw, description, work.training(), None)
    assert set(_find_further(dataset, [work.further], model)) == {"c"}
    stray = work.raw / "labelsTr/c.nii.gz"
    sitk.WriteImage(make_volume(drawn((STRAY, 2))), str(stray))
    with pytest.raises(AttenScribbleError) as refused:
        _find_further(dataset, [work.further], model)
    assert [problem.partition(": ")[0] for problem in refused.value.problems] == [str(stray)]


def test_a_prediction_that_a_kill_left_without_what_it_belongs_to_is_no_correction(work, monkeypatch):
    work.write()
    rename, placed, other = Path.rename, [], 3 - make_dense()

    def kill(path, target):
        if {"a_prediction.nii.gz", ".a.npz"} & set(placed):
            raise SystemExit("killed")
        placed.append(target.name)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "rename", kill)
        patch.setitem(globals(), "make_dense", lambda: other)
        with pytest.raises(SystemExit):
            work.write()
    assert work.read() == ([], [])


def test_of_two_calls_at_once_the_second_waits(work, tmp_path, monkeypatch):
    """It draws in another folder; what it reads would be without the strokes of the first."""
    pytest.importorskip("fcntl")
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    model = tmp_path / "nnUNet_results" / NAME / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0" / "checkpoint_final.pth"
    model.parent.mkdir(parents=True)
    model.touch()
    for number in (1, 2):
        work.folder = tmp_path / str(number)
        work.write()
        work.draw("b", drawn(((0, 0, number), number)))

    both = threading.Barrier(2, timeout=0.5)

    def read_together(*arguments):
        read = read_additions(*arguments)
        with suppress(threading.BrokenBarrierError):
            both.wait()
        return read

    monkeypatch.setattr(next_folder, "read_additions", read_together)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: next_slices(NAME, folder=tmp_path / str(number), device="cpu"), (1, 2)))
    assert (work.label("b") == drawn(((0, 0, 1), 1), ((0, 0, 2), 2))).all()


def test_an_id_below_100_is_held_under_the_key_of_conversions(work, tmp_path, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    raw = work.raw.rename(work.raw.with_name("Dataset007_Heart"))
    model = tmp_path / "nnUNet_results" / raw.name / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0"
    model.mkdir(parents=True)
    (model / "checkpoint_final.pth").touch()
    held: list[str] = []

    def hold(folder, keys, *_, **__):
        held.extend(keys)
        raise InterruptedError

    monkeypatch.setattr(files, "reserved", hold)
    with pytest.raises(InterruptedError):
        next_slices("7")
    assert held == ["007"]  # as in raw_dataset.py


def test_labels_are_refused_before_a_model_is_asked_for(work, tmp_path, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    file = work.raw / "dataset.json"
    content = json.loads(file.read_text())
    del content["labels"]["ignore"]
    file.write_text(json.dumps(content))
    with pytest.raises(AttenScribbleError, match="its labels are dense, and there is nothing to draw"):
        next_slices(NAME)
    file.write_text(json.dumps(content | {"labels": {"background": 0, "RV": 1, "rv": 3, "ignore": 9}}))
    with pytest.raises(AttenScribbleError) as refused:
        next_slices(NAME)
    gap, ignore, names = refused.value.problems
    assert gap.startswith(f"{file}: no label is 2, and 3 is the next: number the labels 0, 1, 2, ...")
    assert ignore.startswith(f"{file}: `ignore` is 9: set it to 4")
    assert "have the same name" in names


@pytest.mark.parametrize("is_terminal", [True, False])
def test_long_names_of_cases_are_shown_to_their_end(capsys, monkeypatch, is_terminal):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TTY_COMPATIBLE", "1" if is_terminal else "0")
    names = [f"patient_hospital_north_of_the_river_{number}" for number in (1, 2)]
    told = {"slice": "K 12 (S -123.5 mm)", "entropy": 0.1, "disagreement": 0.1, "reason": "most unsure of the heart"}
    _print_slices([{"rank": 1, "case": name, **told} for name in names], "slicer")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert (len(lines) == 1 + 2 + 1) != is_terminal  # in a log a row is a line
    assert "".join(line[3 : lines[0].index("slice")].strip() for line in lines[1:-1]) == "".join(names)


def test_images_on_another_drive_are_linked_by_their_whole_path(work, monkeypatch):
    def relpath(*places):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    with monkeypatch.context() as patch:
        patch.setattr(next_folder.os.path, "relpath", relpath)
        work.write()
    assert sitk.ReadImage(str(work.folder / "c/c_0000.nii.gz")).GetSize() == make_scan(2).GetSize()


def test_test_labels_are_listed_once_for_all_cases(tmp_path, monkeypatch):
    listed = []
    (tmp_path / "labelsTs").mkdir()
    monkeypatch.setattr(Path, "iterdir", lambda folder: listed.append(folder) or [folder / "b.nii.gz"])
    (problem,) = new_case_problems(tmp_path, {"a": [], "b": [], "c": []})
    assert problem.startswith("case b: is a test case")
    assert listed == [tmp_path / "labelsTs"]


def test_a_folder_of_something_else_is_left_alone(work):
    (work.folder / ".4711.part").mkdir(parents=True)  # of a call that was killed before it had written anything
    assert read_state(work.folder, NAME) is None
    (work.folder / "notes.txt").write_text("mine")
    with pytest.raises(AttenScribbleError, match="holds something else"):
        read_state(work.folder, NAME)
    (work.folder / "notes.txt").unlink()
    work.write()
    with pytest.raises(AttenScribbleError, match=f"is of {NAME}, not of Dataset999_Else"):
        read_state(work.folder, "Dataset999_Else")


def test_a_dataset_that_does_not_list_its_cases(work):
    work.write()
    work.draw("c", drawn((STRAY, 1)))
    for place in (work.raw, work.preprocessed):
        content = json.loads((place / "dataset.json").read_text())
        del content["dataset"]
        (place / "dataset.json").write_text(json.dumps(content))
    work.bring_in()
    assert "dataset" not in json.loads((work.raw / "dataset.json").read_text())
    assert set(work.training()) == {"a", "b", "c"}


def test_labels_of_another_dataset_are_not_written_to(work, tmp_path):
    (tmp_path / "nnUNet_raw" / "Dataset602_Other").mkdir()
    (work.raw / "labelsTr").rename(tmp_path / "nnUNet_raw" / "Dataset602_Other" / "labelsTr")
    content = json.loads((work.raw / "dataset.json").read_text())
    for name in "ab":
        content["dataset"][name]["label"] = f"../Dataset602_Other/labelsTr/{name}.nii.gz"
    (work.raw / "dataset.json").write_text(json.dumps(content))
    work.write()
    work.draw("b", drawn((STRAY, 1)))
    before = read_tree(tmp_path)
    with pytest.raises(AttenScribbleError, match="the label of case b lies in another dataset"):
        work.bring_in()
    assert read_tree(tmp_path) == before


def test_a_label_that_is_a_link_becomes_a_file_of_its_own(work, tmp_path):
    """Converters link what can be used as it is: the user's own scribble stays as it was."""
    own = tmp_path / "mine.nii.gz"
    (work.raw / "labelsTr/b.nii.gz").rename(own)
    (work.raw / "labelsTr/b.nii.gz").symlink_to(own)
    content = own.read_bytes()
    work.write()
    work.draw("b", drawn((STRAY, 1)))
    work.bring_in()
    assert own.read_bytes() == content
    assert work.label("b")[STRAY] == 1
