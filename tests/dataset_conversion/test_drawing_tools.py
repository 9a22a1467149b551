"""Files of the programs that people draw with: what a value means is read from them, and differs from file to file."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_attenscribble.dataset_conversion.label_files import NamedLabel, read_header
from nnunet_attenscribble.errors import AttenScribbleError
from tests.dataset_conversion.downloads import convert_folder
from tests.dataset_conversion.drawing_tools import (
    describe_labels,
    recode,
    write_mitk,
    write_old_mitk,
    write_slicer,
)
from tests.tiny import make_dense, make_scan, make_strokes, make_volume

CLASSES = dict.fromkeys(("RV", "MYO", "LV"))
NAMES = ("background", "RV", "MYO", "LV")


@pytest.fixture
def convert(tmp_path):
    """Convert what lies in images, scribbles and perhaps labels; returns what was written."""
    (tmp_path / "scribbles").mkdir()

    def run(cases=("a",), scribbles="scribbles", **options):
        for seed, case in enumerate(cases):
            (tmp_path / "images").mkdir(exist_ok=True)
            sitk.WriteImage(make_scan(seed), tmp_path / "images" / f"{case}.nii.gz")
        drawn = scribbles and tmp_path / scribbles
        return convert_folder(tmp_path / "images", drawn, tmp_path / "raw", **{"classes": CLASSES, **options})

    return run


def read(folder, case="a"):
    return sitk.GetArrayFromImage(sitk.ReadImage(folder / "labelsTr" / f"{case}.nii.gz"))


def segments(*values, layers=(0, 0, 0, 0)):
    return list(zip(NAMES, values, layers, strict=True))


def test_slicer_is_read_by_names_whatever_the_values(tmp_path, convert):
    for case, values in (("a", (4, 1, 2, 3)), ("b", (1, 3, 2, 4)), ("c", (1, 3, 2, 4))):
        drawn = recode(make_strokes(), values)
        write_slicer(tmp_path / "scribbles" / f"{case}.seg.nrrd", [drawn], segments(*values), cropped=case != "c")
    written = convert("abc")
    for case in "abc":
        np.testing.assert_array_equal(read(written.scribble, case), make_strokes())
    assert written.notes[:2] == (
        "1 scribble read by segment name (3D Slicer): 0 unlabelled, 1 RV, 2 MYO, 3 LV, 4 background",
        "2 scribbles read by segment name (3D Slicer): 0 unlabelled, 1 background, 2 MYO, 3 RV, 4 LV",
    )
    assert "not at all" not in str(written.notes)
    told = json.loads((written.scribble / "provenance.json").read_text())["inputs"]["a"]
    assert [entry["file"] for entry in told["scribble"]] == ["a.seg.nrrd"]


def test_names_are_compared_without_case_and_blanks(tmp_path, convert):
    names = [(" Background", 1, 0), ("rv ", 2, 0), ("Myo", 3, 0), ("lv", 4, 0)]
    write_slicer(tmp_path / "scribbles" / "a.seg.nrrd", [recode(make_strokes(), (1, 2, 3, 4))], names)
    np.testing.assert_array_equal(read(convert().scribble), make_strokes())


def test_layers_are_merged(tmp_path, convert):
    strokes = make_strokes()
    layers = [recode(strokes, (1, 0, 2, 0)), recode(strokes, (0, 1, 0, 2))]
    write_slicer(tmp_path / "scribbles" / "a.seg.nrrd", layers, segments(1, 1, 2, 2, layers=(0, 1, 0, 1)), cropped=True)
    written = convert()
    np.testing.assert_array_equal(read(written.scribble), strokes)
    assert "1 of layer 1 RV, 2 MYO, 2 of layer 1 LV" in written.notes[0]


def test_layers_of_old_slicer_have_one_segment_each(tmp_path, convert):
    strokes = make_strokes()
    file = tmp_path / "scribbles" / "a.seg.nrrd"
    write_slicer(file, [strokes == value for value in range(4)], segments(1, 1, 1, 1, layers=range(4)))
    content = file.read_bytes()
    head, _, voxels = content.partition(b"\n\n")
    lines = [line for line in head.split(b"\n") if b"_LabelValue" not in line and b"_Layer" not in line]
    file.write_bytes(b"\n".join(lines) + b"\n\n" + voxels)
    np.testing.assert_array_equal(read(convert().scribble), strokes)


def test_layers_that_overlap_are_refused(tmp_path, convert):
    layers = [recode(make_strokes(), (1, 2, 3, 0)), recode(make_strokes(), (0, 0, 1, 2))]
    told = [*segments(1, 2, 3, 2, layers=(0, 0, 0, 1)), ("LV", 1, 1)]
    write_slicer(tmp_path / "scribbles" / "a.seg.nrrd", layers, told)
    count = int((make_strokes() == 2).sum())
    with pytest.raises(AttenScribbleError, match=f"a.seg.nrrd: {count} voxels are LV as well as MYO: take them out"):
        convert()
    assert not (tmp_path / "raw").exists()


def test_layers_that_say_the_same_are_one(tmp_path, convert):
    layers = [recode(make_strokes(), (1, 2, 3, 4)), recode(make_strokes(), (0, 0, 1, 0))]
    write_slicer(tmp_path / "scribbles" / "a.seg.nrrd", layers, [*segments(1, 2, 3, 4), ("myo", 1, 1)])
    np.testing.assert_array_equal(read(convert().scribble), make_strokes())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"origin": (-103.5, 20.25, 7.0 + 4)}, "between its voxels"),
        ({"spacing": (1.5, 1.25, 4.0)}, "another grid than"),
        ({"direction": (1.0, 0, 0, 0, 1, 0, 0, 0, 1)}, "another grid than"),
        ({"origin": (5000.0, 20.25, 7.0)}, "between its voxels"),
    ],
)
def test_a_part_on_another_grid_is_refused(tmp_path, convert, change, told):
    drawn = recode(make_strokes(), (1, 2, 3, 4))
    write_slicer(tmp_path / "scribbles" / "a.seg.nrrd", [drawn], segments(1, 2, 3, 4), cropped=True, **change)
    with pytest.raises(AttenScribbleError, match=r"a\.seg\.nrrd: .*" + told):
        convert()


def test_a_part_whose_axes_run_backwards_is_turned_and_placed(tmp_path, convert):
    drawn = recode(make_strokes(), (1, 2, 3, 4))[:, :, ::-1]
    frame = np.reshape(make_scan(0).GetDirection(), (3, 3)) * (-1, 1, 1)
    last = make_scan(0).TransformIndexToPhysicalPoint((5, 0, 0))
    file = tmp_path / "scribbles" / "a.seg.nrrd"
    write_slicer(file, [drawn], segments(1, 2, 3, 4), cropped=True, direction=frame, origin=last)
    np.testing.assert_array_equal(read(convert().scribble), make_strokes())


def test_an_extent_larger_than_the_image_may_be_empty_outside(tmp_path, convert):
    drawn = np.pad(recode(make_strokes(), (1, 2, 3, 4)), ((1, 0), (2, 1), (0, 3)))
    axes = np.reshape(make_scan(0).GetDirection(), (3, 3)) * (1.5, 1.25, 8.0)
    origin = np.array(make_scan(0).GetOrigin()) - axes @ (0, 2, 1)
    file = tmp_path / "scribbles" / "a.seg.nrrd"
    write_slicer(file, [drawn], segments(1, 2, 3, 4), origin=origin)
    np.testing.assert_array_equal(read(convert().scribble), make_strokes())
    drawn[0, 0, 0] = 2
    write_slicer(file, [drawn], segments(1, 2, 3, 4), origin=origin)
    with pytest.raises(AttenScribbleError, match=r"a\.seg\.nrrd: 1 of its drawn voxels lie outside .*a\.nii\.gz"):
        convert(dataset_id=611)


@pytest.mark.parametrize("told", [segments(1, 2, 3, 4), []])
def test_slicer_saves_one_voxel_somewhere_where_nothing_is_drawn(tmp_path, convert, told):
    for case in "ab":
        write_slicer(
            tmp_path / "scribbles" / f"{case}.seg.nrrd", [recode(make_strokes(), (1, 2, 3, 4))], segments(1, 2, 3, 4)
        )
    anywhere = {"spacing": (1, 1, 1), "origin": (0, 0, 0), "direction": np.eye(3)}
    write_slicer(tmp_path / "scribbles" / "b.seg.nrrd", [np.zeros((1, 1, 1))], told, **anywhere)
    written = convert("ab")
    np.testing.assert_array_equal(read(written.scribble, "a"), make_strokes())
    assert (read(written.scribble, "b") == 4).all()
    assert "1 of 2 scribbles hold no stroke: b" in written.notes
    write_slicer(tmp_path / "scribbles" / "b.seg.nrrd", [np.ones((1, 1, 1))], segments(1, 2, 3, 4), **anywhere)
    with pytest.raises(AttenScribbleError, match=r"b\.seg\.nrrd: has \(1, 1, 1\) voxels .*, another grid than"):
        convert("ab", dataset_id=611)


@pytest.mark.parametrize("tool", ["3D Slicer", "MITK", "ITK-SNAP"])
def test_names_that_are_no_utf8_are_refused(tmp_path, convert, tool):
    drawn, file = recode(make_strokes(), (1, 2, 3, 4)), tmp_path / "scribbles" / "a.seg.nrrd"
    names = [("background", 1), ("RV", 2), ("M+O", 3), ("LV", 4)]
    if tool == "3D Slicer":
        write_slicer(file, [drawn], [(*name, 0) for name in names])
    elif tool == "MITK":
        write_mitk(file, [drawn], [names])
    else:
        _snap(tmp_path, "a", (1, 2, 3, 4))
        file = tmp_path / "scribbles" / "labels.txt"
        file.write_text(describe_labels(*((value, name) for name, value in names)))
    file.write_bytes(file.read_bytes().replace(b"M+O", b"M\xc4O"))  # a letter in another encoding
    with pytest.raises(AttenScribbleError, match=rf"{file.name}: .*the name 'M\\udcc4O' is not UTF-8") as caught:
        convert()
    "\n".join(caught.value.problems).encode()


def test_names_that_are_no_classes_are_told_with_both_lists(tmp_path, convert):
    names = [("background", 1, 0), ("Right ventricle", 2, 0), ("MYO", 3, 0), ("Segment_4", 4, 0), ("empty", 5, 0)]
    write_slicer(tmp_path / "scribbles" / "a.seg.nrrd", [recode(make_strokes(), (1, 2, 3, 4))], names)
    with pytest.raises(AttenScribbleError) as caught:
        convert()
    (told,) = caught.value.problems
    assert "a.seg.nrrd: holds Right ventricle, Segment_4; its names are background (1), Right ventricle (2)" in told
    assert "rename one of the two, or tell `convert folder` by --labels CLASS='Right ventricle' or" in told
    classes = {"RV": "right  Ventricle", "MYO": None, "LV": "Segment_4"}
    np.testing.assert_array_equal(read(convert(classes=classes, dataset_id=611).scribble), make_strokes())


def test_other_names_of_background_strokes_and_unlabelled_voxels(tmp_path, convert):
    drawn = recode(make_strokes(), (1, 2, 3, 4), rest=5)
    names = [("Outside", 1, 0), *segments(1, 2, 3, 4)[1:], ("Nobody knows", 5, 0)]
    write_slicer(tmp_path / "scribbles" / "a.seg.nrrd", [drawn], names)
    written = convert(background_scribble="outside", unlabelled="nobody knows")
    np.testing.assert_array_equal(read(written.scribble), make_strokes())


def test_values_that_contradict_names_are_refused(tmp_path, convert):
    write_slicer(tmp_path / "scribbles" / "a.seg.nrrd", [recode(make_strokes(), (1, 3, 2, 4))], segments(1, 3, 2, 4))
    with pytest.raises(
        AttenScribbleError, match="says 1 background, 2 MYO, 3 RV, where the options say 1 MYO, 2 RV, 3 LV"
    ):
        convert(classes={"RV": 2, "MYO": 1, "LV": 3})


@pytest.mark.parametrize(
    ("zero", "option", "told"),
    [("background", "unlabelled", "0 unlabelled"), ("unlabelled", "background_scribble", "0 background")],
)
def test_a_name_of_0_contradicts_values_as_others_do(tmp_path, convert, zero, option, told):
    _snap(tmp_path, "a", (4, 1, 2, 3))
    names = describe_labels((1, "RV"), (2, "MYO"), (3, "LV"), (4, "ignore")).replace("Clear Label", zero)
    (tmp_path / "scribbles" / "labels.txt").write_text(names)
    with pytest.raises(AttenScribbleError, match=rf"labels\.txt: says 0 {zero}, where the options say {told}"):
        convert(**{option: 0})


def test_values_without_a_name_are_refused(tmp_path, convert):
    write_slicer(
        tmp_path / "scribbles" / "a.seg.nrrd", [recode(make_strokes(), (1, 2, 3, 4))], segments(1, 2, 3, 4)[:3]
    )
    with pytest.raises(AttenScribbleError, match=r"a\.seg\.nrrd has no name for its values 4: name them"):
        convert()


def test_a_damaged_header_is_refused(tmp_path, convert):
    write_mitk(tmp_path / "scribbles" / "a.nrrd", [make_strokes()], [[("RV", 1)]])
    file = tmp_path / "scribbles" / "a.nrrd"
    file.write_bytes(file.read_bytes().replace(b'[{"labels', b'[["labels'))
    with pytest.raises(AttenScribbleError, match=r"a\.nrrd: its header does not say what its values mean .*with MITK"):
        convert()


def test_dense_labels_by_name_have_a_background_of_zeros(tmp_path, convert):
    dense = make_dense()
    write_slicer(
        tmp_path / "labels" / "a.seg.nrrd", [recode(dense, (0, 7, 5, 6))], segments(0, 7, 5, 6)[1:], cropped=True
    )
    written = convert(scribbles=None, dense=tmp_path / "labels")
    np.testing.assert_array_equal(read(written.dense), dense)
    assert written.notes[0] == "1 dense label read by segment name (3D Slicer): 0 background, 5 MYO, 6 LV, 7 RV"


@pytest.mark.parametrize("zero", [[], [("Unlabelled", 0)]])  # a name of 0 in each group takes no stroke of another
def test_mitk_with_groups(tmp_path, convert, zero):
    strokes = make_strokes()
    layers = [recode(strokes, (4, 0, 2, 0)), recode(strokes, (0, 9, 0, 1))]
    groups = [[*zero, ("Background", 4), ("MYO", 2)], [*zero, ("RV", 9), ("LV", 1)]]
    write_mitk(tmp_path / "scribbles" / "a.nrrd", layers, groups)
    written = convert()
    np.testing.assert_array_equal(read(written.scribble), strokes)
    assert "(MITK)" in written.notes[0]


def test_mitk_of_one_group_and_of_before_2022(tmp_path, convert):
    drawn = recode(make_strokes(), (5, 3, 2, 1))
    labels = [("background", 5), ("RV", 3), ("MYO", 2), ("LV", 1)]
    write_mitk(tmp_path / "scribbles" / "a.nrrd", [drawn], [labels])
    write_old_mitk(tmp_path / "scribbles" / "b.nrrd", drawn, labels)
    written = convert("ab")
    for case in "ab":
        np.testing.assert_array_equal(read(written.scribble, case), make_strokes())


def _snap(tmp_path, case, values, rest=0):
    sitk.WriteImage(make_volume(recode(make_strokes(), values, rest)), tmp_path / "scribbles" / f"{case}.nii.gz")


def test_itk_snap_description_of_a_folder_and_of_a_case(tmp_path, convert):
    for case, values in (("a", (9, 1, 2, 3)), ("b", (9, 1, 2, 3)), ("c", (1, 2, 3, 4))):
        _snap(tmp_path, case, values)
    (tmp_path / "scribbles" / "labels.txt").write_text(
        describe_labels((1, "RV"), (2, "MYO"), (3, "LV"), (9, "background"))
    )
    told = describe_labels((1, "Background"), (2, "RV"), (3, "myo"), (4, "LV"), (5, "Label 5"))
    (tmp_path / "scribbles" / "c.label").write_text(told)
    written = convert("abc")
    for case in "abc":
        np.testing.assert_array_equal(read(written.scribble, case), make_strokes())
    assert written.notes[:2] == (
        "2 scribbles read by the names in labels.txt (ITK-SNAP): 0 unlabelled, 1 RV, 2 MYO, 3 LV, 9 background",
        "1 scribble read by the names in c.label (ITK-SNAP): 0 unlabelled, 1 background, 2 RV, 3 MYO, 4 LV",
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_itk_snap_description_with_a_mark_of_its_encoding_and_a_name_that_is_missing(tmp_path, convert, encoding):
    _snap(tmp_path, "a", (4, 1, 2, 3))
    told = describe_labels((1, "RV"), (2, "MYO"), (3, ""), (4, "background"))
    (tmp_path / "scribbles" / "labels.txt").write_text(told, encoding=encoding)
    with pytest.raises(AttenScribbleError, match=r"holds Label 3; its names are RV \(1\), MYO \(2\), Label 3 \(3\)"):
        convert()
    written = convert(classes={"RV": None, "MYO": None, "LV": "Label 3"})
    np.testing.assert_array_equal(read(written.scribble), make_strokes())


def test_itk_snap_description_beside_the_image(tmp_path, convert):
    _snap(tmp_path, "a", (9, 3, 2, 1))
    (tmp_path / "images").mkdir()
    told = describe_labels((1, "LV"), (2, "MYO"), (3, "RV"), (9, "background"))
    (tmp_path / "images" / "a.txt").write_text(told)
    np.testing.assert_array_equal(read(convert().scribble), make_strokes())


def test_itk_snap_names_that_say_nothing_leave_values(tmp_path, convert):
    _snap(tmp_path, "a", (4, 1, 2, 3))
    (tmp_path / "scribbles" / "labels.txt").write_text(describe_labels(*((n, f"Label {n}") for n in range(1, 7))))
    (tmp_path / "scribbles" / "notes.txt").write_text("drawn on a Monday")
    written = convert(unlabelled=0)
    np.testing.assert_array_equal(read(written.scribble), make_strokes())
    assert written.notes[0] == "1 scribble read by value: 0 unlabelled, 1 RV, 2 MYO, 3 LV, 4 background"


def test_itk_snap_of_what_nnunet_has_is_asked_for_its_zeros(tmp_path, convert):
    _snap(tmp_path, "a", (0, 1, 2, 3), rest=4)
    told = describe_labels((1, "RV"), (2, "MYO"), (3, "LV"), (4, "ignore"))
    (tmp_path / "scribbles" / "labels.txt").write_text(told)
    with pytest.raises(AttenScribbleError, match="calls a value ignore, and 0 nothing: say what 0 is"):
        convert()
    (tmp_path / "scribbles" / "labels.txt").write_text(told.replace("Clear Label", "Background"))
    np.testing.assert_array_equal(read(convert(dataset_id=611).scribble), make_strokes())
    (tmp_path / "scribbles" / "labels.txt").write_text(told)
    written = convert(dataset_id=621, background_scribble=0)
    np.testing.assert_array_equal(read(written.scribble), make_strokes())


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"a.label": "no labels"}, "a.label: is no label description of ITK-SNAP"),
        (
            {"x.txt": describe_labels() + '1 255 0 0 1 "RV"\n'},
            "x.txt: the line '1 255 0 0 1 \"RV\"' is no label of ITK-SNAP's",
        ),
        (
            {"x.txt": describe_labels((1, "RV")), "y.txt": describe_labels((2, "RV"))},
            "describe its labels differently: name one after each label",
        ),
    ],
)
def test_itk_snap_descriptions_that_cannot_be_read(tmp_path, convert, files, told):
    _snap(tmp_path, "a", (0, 1, 2, 3), rest=4)
    for name, text in files.items():
        (tmp_path / "scribbles" / name).write_text(text)
    with pytest.raises(AttenScribbleError) as caught:
        convert()
    assert told in str(caught.value)


def test_files_with_and_without_names_in_one_folder(tmp_path, convert):
    write_slicer(tmp_path / "scribbles" / "a.seg.nrrd", [recode(make_strokes(), (9, 3, 2, 1))], segments(9, 3, 2, 1))
    _snap(tmp_path, "b", (0, 1, 2, 3), rest=4)
    written = convert("ab")
    for case in "ab":
        np.testing.assert_array_equal(read(written.scribble, case), make_strokes())
    assert written.notes[1] == "1 scribble read by value: 0 background, 1 RV, 2 MYO, 3 LV, 4 unlabelled"


def test_of_files_per_class_one_is_in_memory_at_a_time(tmp_path):
    values = np.arange(32**3, dtype=np.uint8).reshape(32, 32, 32) % 20
    for value in range(20):
        sitk.WriteImage(sitk.GetImageFromArray((values == value).astype(np.uint8)), tmp_path / f"{value:02}.mha")
    label = NamedLabel(
        *(tmp_path, read_header(tmp_path), tuple(range(20)), 0),
        **{"is_sure": True, "unlabelled": None, "classes": "", "image": sitk.GetImageFromArray(values)},
    )
    found = label()  # with what is imported for it
    tracemalloc.start()
    try:
        label()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), values)
    assert peak < 13 * values.size
