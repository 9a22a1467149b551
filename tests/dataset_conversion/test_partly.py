"""Cases in which only some of the classes were annotated."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_attenscribble.dataset_conversion.partly import leave_open, read_annotated
from nnunet_attenscribble.errors import AttenScribbleError
from tests.dataset_conversion.downloads import convert_folder
from tests.tiny import make_dense, make_scan, make_strokes, save

LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
CLASSES = {"RV": None, "MYO": None, "LV": None}
IGNORE = 4


def convert(root, labels, table, **options):
    for case, label in labels.items():
        save(root / "i" / f"{case}.nii.gz", make_scan(len(case)))
        save(root / "s" / f"{case}.nii.gz", label)
    (root / "table.csv").write_text(table)
    folders = (root / "i", root / "s", root / "raw")
    written = convert_folder(*folders, classes=CLASSES, annotated=root / "table.csv", **options)
    found = {
        case: sitk.GetArrayFromImage(sitk.ReadImage(written.scribble / "labelsTr" / f"{case}.nii.gz"))
        for case in labels
    }
    return written, found


def test_background_of_a_partly_annotated_case_is_unlabelled(tmp_path):
    dense = make_dense()
    ventricle = np.where(dense == 1, 1, 0).astype(np.uint8)
    table = "case,classes\nwhole,RV;MYO;LV\npart,RV\n two , LV ; MYO \n"
    labels = {"whole": dense, "part": ventricle, "two": np.where(dense == 1, 0, dense), "drawn": make_strokes()}
    written, found = convert(tmp_path, labels, table)
    np.testing.assert_array_equal(found["whole"], dense)  # all were looked for: background is background
    np.testing.assert_array_equal(found["part"], np.where(ventricle == 1, 1, IGNORE))
    np.testing.assert_array_equal(found["two"], np.where(dense > 1, dense, IGNORE))
    np.testing.assert_array_equal(found["drawn"], make_strokes())  # not in the table: a scribble as any other
    assert "some classes alone are annotated, and no background, in 2: part, two" in written.notes
    options = json.loads((written.scribble / "provenance.json").read_text())["options"]
    assert options["annotated"] == {"whole": [1, 2, 3], "part": [1], "two": [2, 3]}


def test_strokes_in_the_background_are_left_open_too(tmp_path):
    few = np.where(np.isin(make_strokes(), (2, 3)), IGNORE, make_strokes())  # strokes of RV and of what is none
    _, found = convert(tmp_path, {"part": few, "drawn": make_strokes()}, "case,classes\npart,RV\n")
    np.testing.assert_array_equal(found["part"], np.where(few == 1, 1, IGNORE))


def test_strokes_in_the_background_stay_where_the_table_names_it(tmp_path):
    few = np.where(np.isin(make_strokes(), (2, 3)), IGNORE, make_strokes())
    written, found = convert(tmp_path, {"part": few, "drawn": make_strokes()}, "case,classes\npart,background;RV\n")
    np.testing.assert_array_equal(found["part"], few)
    assert not any("no background" in note for note in written.notes)
    dense = np.where(make_dense() == 1, 1, 0).astype(np.uint8)
    with pytest.raises(AttenScribbleError, match=r"dense\.nii\.gz: has no unlabelled voxel, so that MYO, LV would be"):
        convert(tmp_path / "d", {"dense": dense, "drawn": make_strokes()}, "case,classes\ndense,background;RV\n")


def test_dense_slices_of_some_classes(tmp_path):
    dense = np.where(make_dense() == 1, 1, 0).astype(np.uint8)
    _, found = convert(
        tmp_path, {"part": dense, "drawn": make_strokes()}, "case,classes\npart,RV\n", dense_slices="part"
    )
    np.testing.assert_array_equal(found["part"], np.where(dense == 1, 1, IGNORE))


def test_cases_that_mark_no_background_are_told(tmp_path):
    dense = np.where(make_dense() == 0, IGNORE, make_dense())  # as 3D Slicer saves it: nobody spoke of the background
    labels = {"all": dense, "part": np.where(dense == 1, 1, IGNORE), "drawn": make_strokes()}
    written, found = convert(tmp_path, labels, "case,classes\nall,RV;MYO;LV\npart,RV\n")
    np.testing.assert_array_equal(found["all"], dense)
    assert "1 of 3 scribbles mark no background: all" in written.notes


def test_a_class_that_is_said_not_to_be_annotated_must_not_be_there(tmp_path):
    with pytest.raises(AttenScribbleError, match=r"part\.nii\.gz: holds voxels of MYO, LV, which the table"):
        convert(tmp_path, {"part": make_dense(), "drawn": make_strokes()}, "case,classes\npart,RV\n")
    assert not (tmp_path / "raw").exists() or not any((tmp_path / "raw").glob("Dataset*"))


def test_a_dataset_without_any_background_is_told(tmp_path):
    ventricle = np.where(make_dense() == 1, 1, 0).astype(np.uint8)
    written, _ = convert(tmp_path, {"part": ventricle}, "case,classes\npart,RV\n")
    assert any(note.startswith("WARNING: no scribble marks background") for note in written.notes)


def test_every_line_that_cannot_be_is_told(tmp_path):
    table = "case,classes\nx,RV\na,RV;heart\nb,\nc,RV\nc,LV\nd,RV,LV\ne,background\n"
    file, problems = tmp_path / "t.csv", []
    file.write_text(table)
    assert read_annotated(file, LABELS, {"a", "b", "c", "d", "e"}, problems) == {"c": (1,)}
    assert problems == [
        f"{file}, line 2: there is no training case 'x': correct its name, or leave the line out",
        f"{file}, line 3: heart is no class: there are RV, MYO, LV",
        f"{file}, line 4: names no class of b: nothing could be learnt from it, leave the case out",
        f"{file}, line 6: names the case c a second time: leave one of the lines out",
        f"{file}, line 7: has more than two columns: put ; between classes",
        f"{file}, line 8: names no class of e: nothing could be learnt from it, leave the case out",
    ]


def test_lines_are_counted_in_the_file_and_accents_are_one_sign(tmp_path):
    file, problems = tmp_path / "t.csv", []
    file.write_text("case,classes\r\n\r\nMu\u0308ller,RV\r\n\r\nx,RV\r\n", encoding="utf-8", newline="")
    assert read_annotated(file, LABELS, {"M\u00fcller"}, problems) == {"M\u00fcller": (1,)}
    assert problems == [f"{file}, line 5: there is no training case 'x': correct its name, or leave the line out"]


@pytest.mark.parametrize(
    "content",
    [
        b"Case, Classes\na, RV; LV\n",
        "\ufeffcase;classes\r\na;RV,LV\r\n".encode(),
        b'CASE ; classes\na;"RV;LV"\n',
        "case,classes\na,RV;LV\n".encode("utf-16"),
    ],
)
def test_tables_of_spreadsheets(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    problems = []
    assert read_annotated(tmp_path / "t.csv", LABELS, {"a"}, problems) == {"a": (1, 3)}
    assert problems == []


def test_between_classes_stands_what_is_not_between_columns(tmp_path):
    (tmp_path / "t.csv").write_text("case;classes\na;RV;LV\n")
    problems = []
    read_annotated(tmp_path / "t.csv", LABELS, {"a"}, problems)
    assert problems == [f"{tmp_path / 't.csv'}, line 2: has more than two columns: put , between classes"]


@pytest.mark.parametrize(
    "content",
    [None, b"", b"name;classes\n", b"case,classes\n", b"Case,case,classes\na,a,RV\n", b"\xff\xfe\0"],
    ids=repr,
)
def test_what_is_no_table_is_told(tmp_path, content):
    file, problems = tmp_path / "t.csv", []
    if content is not None:
        file.write_bytes(content)
    try:
        assert read_annotated(file, LABELS, {"a"}, problems) == {}
    except AttenScribbleError as error:
        problems += error.problems
    (told,) = problems
    assert told.startswith(str(file))
    assert "give a CSV with the columns case,classes" in told


@given(arrays(np.uint8, (3, 4), elements=st.integers(0, IGNORE)), st.sets(st.sampled_from([1, 2, 3]), min_size=1))
def test_nothing_but_annotated_classes_is_taught(values, annotated):
    values[np.isin(values, list({1, 2, 3} - annotated))] = IGNORE
    open_ones = leave_open(values, annotated, LABELS, IGNORE, "x")
    kept = np.isin(values, list(annotated))
    np.testing.assert_array_equal(open_ones[kept], values[kept])
    if annotated == {1, 2, 3}:
        np.testing.assert_array_equal(open_ones, values)
    else:
        assert (open_ones[~kept] == IGNORE).all()
