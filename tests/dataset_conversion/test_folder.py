"""A user's own folders, and ScribbleBench's, which are nearly the same."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO

from nnunet_attenscribble.dataset_conversion.folder import parse_labels
from nnunet_attenscribble.dataset_conversion.pairing import (
    match_labels,
    numbered_cases,
    pair_files,
    unusable_files,
)
from nnunet_attenscribble.dataset_conversion.scribblebench import convert_scribblebench
from nnunet_attenscribble.errors import AttenScribbleError
from tests.dataset_conversion.downloads import convert_folder, with_writing, write_folders, write_scribblebench
from tests.tiny import DIRECTION, SPACING, make_dense, make_scan, make_strokes, make_volume

CLASSES = {"RV": 1, "MYO": 2, "LV": 3}


@pytest.fixture
def writing(tmp_path):
    return {"raw_folder": tmp_path / "raw", "dataset_id": 601, "name": "Mine", "workers": 1}


def _read(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(file))


def test_names_with_spaces_and_letters_of_any_language(tmp_path, writing):
    images, scribbles, dense = write_folders(tmp_path)
    (images / "._a.nii.gz").write_bytes(b"AppleDouble")
    (images / "notes.txt").write_text("no image")
    (scribbles / "ç_scribble.nii.gz").rename(scribbles / "c\u0327_scribble.nii.gz")  # as macOS spells it
    written = convert_folder(images, scribbles, classes=CLASSES, dense=dense, **writing)
    assert sorted(file.name for file in (written.scribble / "labelsTr").iterdir()) == [
        "a.nii.gz", "b b.nii.gz", "ç.nii.gz",
    ]  # fmt: skip
    np.testing.assert_array_equal(_read(written.scribble / "labelsTr" / "ç.nii.gz"), make_strokes())
    np.testing.assert_array_equal(_read(written.dense / "labelsTr" / "b b.nii.gz"), make_dense())
    assert not (written.scribble / "imagesTr" / "a_0000.nii.gz").is_symlink()


@pytest.mark.parametrize(("unlabelled", "background"), [(255, 0), (0, 9), (7, 250)])
def test_codings(tmp_path, writing, unlabelled, background):
    images, scribbles, _ = write_folders(tmp_path, values={0: background, 4: unlabelled})
    coding = {"unlabelled": unlabelled, "background_scribble": background}
    written = convert_folder(images, scribbles, classes=CLASSES, **coding, **writing)
    np.testing.assert_array_equal(_read(written.scribble / "labelsTr" / "a.nii.gz"), make_strokes())


def test_values_of_classes_and_scribbles_without_background(tmp_path, writing):
    values = {0: 0, 4: 0, 1: 63, 2: 126, 3: 252}  # nobody marked the background
    images, scribbles, _ = write_folders(tmp_path, values=values)
    classes = parse_labels("RV=63,MYO=126,LV=252")
    written = convert_folder(images, scribbles, classes=classes, unlabelled=0, **writing)
    expected = make_strokes()
    expected[expected == 0] = 4
    np.testing.assert_array_equal(_read(written.scribble / "labelsTr" / "a.nii.gz"), expected)
    (told,) = [note for note in written.notes if note.startswith("WARNING: no scribble marks background")]
    assert "`convert folder --dense-slices .`" in told


def test_dense_labels_alone_channels_subjects_and_test_cases(tmp_path, writing):
    for part, cases in (("images", ("p1_x", "p1_y", "p2_x")), ("tests", ("p3_x",))):
        for case in cases:
            for channel in (0, 1):
                (tmp_path / part).mkdir(exist_ok=True)
                sitk.WriteImage(make_scan(channel), tmp_path / part / f"{case}_{channel:04d}.nii.gz")
            label = tmp_path / f"{part}_labels" / f"{case}.nii.gz"
            label.parent.mkdir(exist_ok=True)
            sitk.WriteImage(make_volume(make_dense()), label)
    written = convert_folder(
        tmp_path / "images",
        None,
        classes=CLASSES,
        dense=tmp_path / "images_labels",
        test_images=tmp_path / "tests",
        test_labels=tmp_path / "tests_labels",
        channels=("T1", "T2"),
        subject="p[0-9]",
        **writing,
    )
    assert (written.scribble, written.training, written.test) == (None, 3, 1)
    assert (written.dense / "imagesTs" / "p3_x_0001.nii.gz").is_file()
    np.testing.assert_array_equal(_read(written.dense / "labelsTs" / "p3_x.nii.gz"), make_dense())
    assert json.loads((written.dense / "splits_final.json").read_text()) == [
        {"train": ["p2_x"], "val": ["p1_x", "p1_y"]},
        {"train": ["p1_x", "p1_y"], "val": ["p2_x"]},
    ]
    assert "2 subjects in 3 cases" in written.notes


def test_options_that_go_with_nothing_are_refused(tmp_path, writing):
    images, scribbles, dense = write_folders(tmp_path)
    (tmp_path / "none").mkdir()
    lone = {"dense_slices": ".", "annotated": tmp_path / "t.csv", "test_labels": dense}
    with pytest.raises(AttenScribbleError) as caught:
        convert_folder(images, None, dense=dense, classes=CLASSES, **lone, **writing)
    assert [problem.split()[0] for problem in caught.value.problems] == [
        "--dense-slices",
        "--annotated",
        "--test-labels",
    ]
    marks = {"unlabelled": "on", "background_scribble": "on", "dense_slices": "("}
    with pytest.raises(AttenScribbleError) as caught:  # all at once
        convert_folder(images, scribbles, classes=CLASSES, **marks, spacing=(1, 0, 1), **writing)
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [
        *("'on' cannot mean both background and unlabelled", "--dense-slices '('", "spacing (1, 0, 1)"),
    ]
    with pytest.raises(AttenScribbleError, match="--axis 0: is about --dense-slices"):
        convert_folder(images, scribbles, classes=CLASSES, axis=0, **writing)
    with pytest.raises(AttenScribbleError, match="none: holds no image"):
        convert_folder(images, scribbles, classes=CLASSES, test_images=tmp_path / "none", **writing)


@pytest.mark.parametrize(("channel", "told"), [("MRI", True), ("CT", False)])
def test_images_like_ct_are_told(tmp_path, writing, channel, told):
    images, scribbles, _ = write_folders(tmp_path)
    for file in images.iterdir():
        sitk.WriteImage(sitk.Cast(sitk.ReadImage(file), sitk.sitkInt16) - 1000, file)
    written = convert_folder(images, scribbles, classes=CLASSES, channels=(channel,), **writing)
    assert any("convert again with --channels CT" in note for note in written.notes) == told


def test_the_dense_labels_of_undrawn_images_score_them(tmp_path, writing):
    images, scribbles, dense = write_folders(tmp_path, ("a", "b"))
    next(scribbles.glob("b*")).unlink()
    written = convert_folder(images, scribbles, classes=CLASSES, dense=dense, undrawn_as_test=True, **writing)
    np.testing.assert_array_equal(_read(written.scribble / "labelsTs" / "b.nii.gz"), make_dense())


def test_the_first_group_of_a_subject_is_what_keeps_cases_together(tmp_path, writing):
    images, scribbles, _ = write_folders(tmp_path, ("p1_ed", "p1_es", "p2_ed", "p2_es"))
    written = convert_folder(images, scribbles, classes=CLASSES, subject="(p[0-9])_(?:ed|es)", **writing)
    folds = json.loads((written.scribble / "splits_final.json").read_text())
    assert [fold["val"] for fold in folds] == [["p1_ed", "p1_es"], ["p2_ed", "p2_es"]]
    assert "2 subjects in 4 cases" in written.notes


@pytest.mark.parametrize("behind", ["", "_manual", "_1", " - by me"])
def test_what_is_behind_the_case_is_the_same_for_all_labels(tmp_path, behind):
    cases = ("a", "a_1", "ab")
    files = [tmp_path / f"{name}{behind}.nii.gz" for name in cases]
    found, problems, strangers = match_labels([*files, tmp_path / "c.nii"], cases, "label")
    assert strangers == [tmp_path / "c.nii"]
    assert found == dict(zip(cases, files, strict=True))
    assert problems == [f"{tmp_path / 'c.nii'}: has no image: add it, or remove the label"]


def test_a_label_whose_image_is_missing_does_not_pass_to_another_case(tmp_path):
    files = [tmp_path / "heart_2.png", tmp_path / "heart_3.png"]
    found, problems, strangers = match_labels(files, ("heart", "heart_2"), "scribble")
    assert found == {"heart_2": files[0]}
    assert not strangers
    assert problems == [
        f"{files[1]}: has '_3' behind the name of case heart, where the other scribbles have nothing: "
        "rename it, or add its image"
    ]
    files = [tmp_path / "p_a_x.mha", tmp_path / "p_b.mha", tmp_path / "p_c_x.mha"]
    found, problems, strangers = match_labels(files, ("p_a", "p_b", "p_c"), "dense label")
    assert found == {"p_a": files[0], "p_c": files[2]}
    assert not strangers
    assert len(problems) == 1
    assert problems[0].startswith(f"{files[1]}: has nothing behind the name of case p_b, where the other dense labels")
    assert "have '_x'" in problems[0]


def test_channels_are_counted(tmp_path):
    files = [tmp_path / name for name in ("a_0000.nii", "a_0002.nii", "b.mha", "b_0000.mha", "c.txt")]
    paired = pair_files(tmp_path, dict.fromkeys(files, 1), [], ["MRI"])
    assert paired.images["b"] == (files[2],)
    assert len(paired.problems) == 2
    assert "a_0001" in paired.problems[0] or "a_0001" in paired.problems[1]
    assert pair_files(tmp_path, {tmp_path / "t_2019.nii": 1}, [], ["MRI"]).problems == [
        f"{tmp_path / 't_2019.nii'}: its case has no channel t_0000, t_0001, t_0002, t_0003, t_0004, ...: "
        "number them from 0000; four digits at the end are the number of a channel: if they number cases, add _0000 "
        "behind them"
    ]


@pytest.mark.parametrize(
    "name", ["a.json", "a.PDF", "README", "License", "README.md", "Thumbs.db", "a.nii.gz", "F.fcsv", "a.STL"]
)
def test_companions_of_images_are_passed_over(tmp_path, name):
    assert unusable_files([tmp_path / name]) == []


@pytest.mark.parametrize("name", ["p9.nii.bz2", "p9.nii.zst", "IM0001", "a.mgz", "a.npy", "readme.dcm", "README2"])
def test_what_is_no_companion_is_refused_by_name(tmp_path, name):
    (problem,) = unusable_files([tmp_path / name])
    assert problem.startswith(f"{tmp_path / name}: is of a kind that is not taken: save it as one of .nii.gz, ")


def test_voxels_are_passed_over_beside_their_header_alone(tmp_path):
    for name in ("a.mhd", "b.hdr", "c.nhdr", "e.hdr"):
        sitk.WriteImage(make_scan(0), tmp_path / name)
    (tmp_path / "e.img").rename(tmp_path / "e.img.gz")
    stray = [tmp_path / name for name in ("d.raw", "d.img", "d.img.gz")]
    for file in stray:
        file.write_bytes(b"x")
    told = unusable_files(sorted(tmp_path.iterdir()))
    assert [line.partition(": is of a kind")[0] for line in told] == sorted(map(str, stray))


@pytest.mark.parametrize(
    ("images", "labels", "told"),
    [
        (("i_0000.png", "i_0001.png"), ("i_0000.png", "i_0001.png"), "i_0001.png: four digits"),
        (("i_0007.png",), ("i_0007_x.png",), "i_0007.png: four digits"),
        (("i_0000.png", "j_0000.png"), ("i_0000.png", "j_0000.png"), None),  # the channel's name, as some have it
        (("i_0000.png", "i_0001.png"), ("i_0000.png",), None),
        (("i_0000.png", "i_0001.png"), ("i.png",), None),
        (("i_0001_0000.png", "i_0002_0000.png"), ("i_0001.png", "i_0002.png"), None),
        (("i_0001_0000.png", "i_0001_0001.png"), ("i_0001.png",), None),
        (("2020_0001.png",), ("2020_0002.png", "notes.txt"), None),
    ],
)
def test_four_digits_that_labels_have_too_number_cases(images, labels, told):
    problem = numbered_cases(map(Path, images), map(Path, labels))
    assert problem is None if told is None else problem.startswith(told)


def test_labels_are_parsed():
    assert parse_labels(" RV, MYO ,LV") == CLASSES
    assert parse_labels("liver = 63,spleen=252") == {"liver": 63, "spleen": 252}
    reserved = ("background", "Background", "ignore", "Ignore", "RV,UNLABELED", "RV,Unlabelled=2")
    for wrong in ("", "RV,,LV", "RV,RV", "a=0", "a=2,b=2", "a=x", *reserved):
        with pytest.raises(AttenScribbleError, match="is no class of its own"):
            parse_labels(wrong)


def test_scribblebench_is_linked(tmp_path, writing):
    folder = write_scribblebench(tmp_path)
    writing.pop("name")
    written = convert_scribblebench(folder, **with_writing(**writing))
    assert (written.scribble.name, written.dense.name) == ("Dataset601_Hearts", "Dataset602_HeartsDense")
    for mine, theirs in (
        (written.scribble / "imagesTr" / "a_0000.nii.gz", "imagesTr/a_0000.nii.gz"),
        (written.scribble / "labelsTr" / "a.nii.gz", "labelsTr/a.nii.gz"),
        (written.dense / "labelsTr" / "a.nii.gz", "labelsTr_dense/a.nii.gz"),
        (written.scribble / "imagesTs" / "t_0000.nii.gz", "imagesTs/t_0000.nii.gz"),
        (written.scribble / "labelsTs" / "t.nii.gz", "labelsTs/t.nii.gz"),
    ):
        assert mine.is_symlink()
        assert mine.samefile(folder / theirs)


def test_scribblebench_on_another_drive_of_windows_is_linked(tmp_path, writing, monkeypatch):
    def refuse(*_):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    folder = write_scribblebench(tmp_path)
    monkeypatch.setattr(os.path, "relpath", refuse)
    written = convert_scribblebench(folder, **with_writing(**writing))
    link = written.scribble / "imagesTr" / "a_0000.nii.gz"
    assert os.path.isabs(os.readlink(link))
    assert link.samefile(folder / "imagesTr" / "a_0000.nii.gz")


@pytest.mark.parametrize("name", ["Ignore", "unlabeled", "Unlabelled"])
def test_scribblebench_with_another_name_of_what_is_unlabelled(tmp_path, writing, name):
    folder = write_scribblebench(tmp_path)
    description = {"channel_names": {"0": "MRI"}, "labels": {"Background": 0, **CLASSES, name: 4}}
    (folder / "dataset.json").write_text(json.dumps(description))
    written = convert_scribblebench(folder, **with_writing(**writing))
    labels = {"background": 0, **CLASSES, "ignore": 4}
    assert json.loads((written.scribble / "dataset.json").read_text())["labels"] == labels


def test_scribblebench_from_within(tmp_path, writing, monkeypatch):
    monkeypatch.chdir(write_scribblebench(tmp_path))
    writing.pop("name")
    assert convert_scribblebench(Path(), **with_writing(**writing)).scribble.name == "Dataset601_Hearts"


def test_scribblebench_with_a_description_of_the_decathlon_or_none(tmp_path, writing):
    folder = write_scribblebench(tmp_path)
    old = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "RV", "2": "MYO", "3": "LV"}}
    (folder / "dataset.json").write_text(json.dumps(old))
    shutil.rmtree(folder / "labelsTr_dense")
    written = convert_scribblebench(folder, **with_writing(**writing))
    description = json.loads((written.scribble / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, **CLASSES, "ignore": 4}
    assert description["channel_names"] == {"0": "CT"}
    assert written.dense is None
    (folder / "dataset.json").unlink()
    with pytest.raises(AttenScribbleError, match=r"dataset\.json: does not exist: give --labels and --channels"):
        convert_scribblebench(folder, **with_writing(**writing))
    writing["dataset_id"] = 611
    assert convert_scribblebench(folder, classes=CLASSES, channels=["MRI"], **with_writing(**writing)).training == 3


@pytest.mark.parametrize(
    "direction",
    [
        DIRECTION,
        (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),  # flipped twice
        (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0),  # turned, and flipped along y
    ],
)
@pytest.mark.parametrize("spacing", [SPACING, (0.3, 0.7, 0.45)])
@pytest.mark.parametrize("endings", [("mha", "mha", "mha"), ("mhd", "nhdr", "hdr")])
def test_geometry_is_that_of_the_source(tmp_path, writing, direction, spacing, endings):
    sources = {
        name: tmp_path / name / f"a.{ending}"
        for name, ending in zip(("images", "scribbles", "dense"), endings, strict=True)
    }
    for (name, file), values in zip(sources.items(), (make_scan(0), make_strokes(), make_dense()), strict=True):
        pixels = values if isinstance(values, np.ndarray) else sitk.GetArrayFromImage(values)
        (tmp_path / name).mkdir()
        image = make_volume(pixels, pixels.dtype, direction=direction, spacing=spacing)
        # Not what nnU-Net takes as it is, so that everything is written anew.
        sitk.WriteImage(image, file)
    written = convert_folder(
        tmp_path / "images", tmp_path / "scribbles", classes=CLASSES, dense=tmp_path / "dense", **writing
    )
    inputs = json.loads((written.scribble / "provenance.json").read_text())["inputs"]["a"].get("further", [])
    assert [entry["file"] for entry in inputs] == ([] if endings[0] == "mha" else ["a.raw", "a.raw", "a.img"])
    for file, name in (
        (written.scribble / "imagesTr" / "a_0000.nii.gz", "images"),
        (written.scribble / "labelsTr" / "a.nii.gz", "scribbles"),
        (written.dense / "labelsTr" / "a.nii.gz", "dense"),
    ):
        one, other = sitk.ReadImage(file), sitk.ReadImage(sources[name])
        np.testing.assert_array_equal(sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(other))
        assert one.GetSize() == other.GetSize()
        for part in ("Spacing", "Origin", "Direction"):  # float32 in NIfTI
            np.testing.assert_allclose(
                getattr(one, f"Get{part}")(), getattr(other, f"Get{part}")(), rtol=1e-6, atol=2e-7
            )


def test_axes_that_are_not_at_right_angles(tmp_path, writing):
    """SimpleITK refuses such files; nnU-Net's NibabelIO, which the dataset names then, reads what went in."""
    affine = np.array([[1.0, 0.3, 0, 5], [0, 1.2, 0, 6], [0, 0, 8, 7], [0, 0, 0, 1]])
    arrays = {"images": sitk.GetArrayFromImage(make_scan(0)), "scribbles": make_strokes(), "dense": make_dense()}
    for name, array in arrays.items():
        (tmp_path / name).mkdir()
        for case in "ab":
            nibabel.save(nibabel.Nifti1Image(array.transpose(), affine), tmp_path / name / f"{case}.nii.gz")
    sitk.WriteImage(make_scan(1), tmp_path / "images" / "c.nii.gz")
    sitk.WriteImage(make_volume(make_strokes()), tmp_path / "scribbles" / "c.nii.gz")
    sitk.WriteImage(make_volume(make_dense()), tmp_path / "dense" / "c.nii.gz")
    images, scribbles, dense = (tmp_path / name for name in arrays)
    written = convert_folder(images, scribbles, classes=CLASSES, dense=dense, **writing)
    assert any(note.endswith("dataset.json names NibabelIO for nnU-Net") for note in written.notes)
    for folder, label in ((written.scribble, "scribbles"), (written.dense, "dense")):
        assert json.loads((folder / "dataset.json").read_text())["overwrite_image_reader_writer"] == "NibabelIO"
        for case in "ab":
            drawn, frame = NibabelIO().read_seg(str(folder / "labelsTr" / f"{case}.nii.gz"))
            np.testing.assert_array_equal(drawn[0], arrays[label])
            np.testing.assert_allclose(frame["nibabel_stuff"]["original_affine"], affine, atol=1e-5)
    pixels, frame = NibabelIO().read_images([str(written.scribble / "imagesTr" / "a_0000.nii.gz")])
    np.testing.assert_array_equal(pixels[0], arrays["images"])
    np.testing.assert_allclose(frame["nibabel_stuff"]["original_affine"], affine, atol=1e-5)
    pixels, _ = NibabelIO().read_images([str(written.scribble / "imagesTr" / "c_0000.nii.gz")])
    np.testing.assert_array_equal(pixels[0], sitk.GetArrayFromImage(make_scan(1)))
