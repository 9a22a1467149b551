"""`attenscribble inspect` on small datasets whose figures can be counted by hand."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.image import imread
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.dataset_conversion.contact_sheet import draw_contact_sheet
from nnunet_attenscribble.dataset_conversion.description import read_description
from nnunet_attenscribble.dataset_conversion.inspection import find_twin, inspect_dataset
from nnunet_attenscribble.errors import AttenScribbleError
from tests.dataset_conversion.downloads import convert_folder, write_folders
from tests.tiny import SIZE, SPACING, make_dense, make_strokes, make_volume, save

CLASSES = {"RV": 1, "MYO": 2, "LV": 3}


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """nnUNet_raw with Dataset601_Mine and its twin; one scribble contradicts the dense label, one slice is bare."""
    images, scribbles, dense = write_folders(tmp_path, ("a", "b"))
    strokes = make_strokes()
    strokes[0] = 4  # a slice without any scribble
    strokes[1, 0, 0] = 3  # where the dense label says background
    sitk.WriteImage(make_volume(strokes), scribbles / "b_scribble.nii.gz")
    convert_folder(images, scribbles, tmp_path / "raw", classes=CLASSES, dense=dense)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "raw"


def run(*arguments):
    result = CliRunner().invoke(app, ["inspect", *arguments, "--workers", "1"], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_figures(raw):
    source = raw / "Dataset601_Mine"
    assert find_twin(source) == raw / "Dataset602_MineDense"
    assert find_twin(raw / "Dataset602_MineDense") is None
    found = inspect_dataset(source, find_twin(source), workers=1)
    assert list(found.cases) == ["a", "b"]
    case, truth, strokes = found.cases["b"], make_dense(), make_strokes()
    assert (case.slices, case.slices_without, case.voxels) == (4, 1, truth.size)
    assert (case.size, case.spacing) == (SIZE, SPACING)
    assert case.classes["LV"].scribbled == int((strokes[1:] == 3).sum()) + 1
    assert (case.classes["LV"].wrong, case.wrong) == (1, 1)
    assert case.classes["RV"].voxels == int((truth == 1).sum())
    assert case.shown == {"background": 3, "RV": 2, "MYO": 2, "LV": 2}
    scan = sitk.GetArrayFromImage(sitk.ReadImage(source / "imagesTr" / "b_0000.nii.gz"))
    np.testing.assert_allclose(case.intensities[0], np.percentile(scan, (0, 1, 50, 99, 100)))


def convert_strokes(root, monkeypatch, strokes, spacing):
    """Dataset601_Mine of one case with these strokes, 2 where nobody drew; returns what is found in it."""
    for folder, values in (("images", strokes.astype(np.float32)), ("scribbles", strokes)):
        volume = sitk.GetImageFromArray(values)
        volume.SetSpacing(spacing)
        save(root / folder / "a.nii.gz", volume)
    convert_folder(root / "images", root / "scribbles", root / "raw", classes={"heart": 1})
    monkeypatch.setenv("nnUNet_raw", str(root / "raw"))
    return inspect_dataset(root / "raw" / "Dataset601_Mine", None, workers=1).cases["a"]


@pytest.mark.parametrize("axes", [2, 3])
def test_how_far_the_background_is_drawn(tmp_path, monkeypatch, axes):
    strokes = np.full((3, 8, 9), 2, np.uint8)
    strokes[0, 2, 2], strokes[0, 2, 5], strokes[0, 6, 2] = 1, 0, 0  # 3 columns of 2 mm, and 4 rows of 1 mm
    strokes[1, 0, 0] = 0  # no structure in this slice, and nothing in the next
    strokes = strokes if axes == 3 else strokes[0]
    found = convert_strokes(tmp_path, monkeypatch, strokes, (2.0, 1.0, 10.0)[:axes])
    assert found.background_distances == (5.0,)  # the median of 6 and 4 mm
    told = run("601", "--cases", "0")
    assert "Background strokes to the nearest stroke of a structure: 5 mm, median of 1 slices (5 to 5 mm" in told


def test_a_single_slice_is_not_looked_at_from_its_side(tmp_path, monkeypatch):
    strokes = np.full((1, 20, 20), 2, np.uint8)
    strokes[0, 2, 3:9], strokes[0, 9, 3:9] = 0, 1
    found = convert_strokes(tmp_path, monkeypatch, strokes, (1.5, 1.5, 1.0))  # along z a placeholder
    assert (found.slices, found.slices_without, found.shown["heart"]) == (1, 0, 1)
    assert found.background_distances == (10.5,)  # 7 rows
    run("601", "-o", str(tmp_path / "sheet.png"))
    assert (tmp_path / "sheet.png").is_file()


def test_tables_sheet_and_json(raw, tmp_path):
    output = run("601", "--json", "figures.json")
    assert "2 training cases, 8 slices; dense labels: Dataset602_MineDense" in output
    assert "Slices without any scribble: 1 of 8 (most in b: 1)" in output
    (row,) = (line.split() for line in output.splitlines() if line.startswith("LV"))
    assert row[-3:-1] == ["1", "(20.00"]
    assert "z, mm" in output
    assert json.loads((tmp_path / "figures.json").read_text())["b"]["slices_without"] == 1
    data = (tmp_path / "Dataset601_Mine.png").read_bytes()
    assert data.startswith(b"\x89PNG")


def test_the_sheet_shows_strokes_in_their_colours(raw, tmp_path):
    run("601", "--dense", "none", "-o", str(tmp_path / "new" / "sheet.png"), "--cases", "1")
    pixels = imread(tmp_path / "new" / "sheet.png")[..., :3].reshape(-1, 3)
    for colour in ("#E69F00", "#56B4E9", "#009E73"):
        expected = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        assert (np.abs(pixels - expected).max(axis=1) < 0.01).sum() > 2000  # more than the legend


def test_the_sheet_shows_a_case_upright_and_has_room_for_its_names(tmp_path):
    image = make_volume(make_strokes().astype(np.float32))
    image.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1))
    drawn = []
    for order in ("LPS", "RAI", "SLP"):
        scan = sitk.DICOMOrient(image, order)
        label, file = sitk.Cast(scan, sitk.sitkUInt8), tmp_path / f"{order}.png"
        files = {"patient_with_a_very_long_name_in_one_hospital": (scan, label, None)}
        draw_contact_sheet(file, files, labels={"background": 0, **CLASSES}, ignore=4, title="upright")
        drawn.append(imread(file))
    assert drawn[0].shape[1] >= 2 * 2.4 * 160
    assert (drawn[0][:, -3:, :3] == 1).all()  # nothing is cut at the border
    title = slice(0, 90)  # with the number of the slice, which is as stored
    for sheet in drawn[1:]:
        np.testing.assert_array_equal(sheet[title.stop :], drawn[0][title.stop :])


def test_dense_datasets_other_folders_and_warnings(raw, tmp_path):
    assert "no dense labels to compare with" in run("602", "--cases", "0")
    strokes = make_strokes()
    strokes[strokes == 2] = 4
    for case in ("a", "b"):
        sitk.WriteImage(make_volume(strokes), raw / "Dataset601_Mine" / "labelsTr" / f"{case}.nii.gz")
    sitk.WriteImage(make_volume(4), raw / "Dataset601_Mine" / "labelsTr" / "b.nii.gz")
    output = run("601", "--dense", str(tmp_path / "my labels"), "--cases", "0")
    assert "dense labels: my labels" in output
    assert "1 cases have no scribble at all: b" in output
    assert "no case has a scribble of MYO: it cannot be learnt" in output


def test_values_that_are_swapped_are_told(raw):
    assert "swapped" not in run("601", "--cases", "0")
    for case in ("a", "b"):
        strokes = np.array([4, 1, 2, 3, 0])[make_strokes()]  # 0 where nobody drew
        sitk.WriteImage(make_volume(strokes), raw / "Dataset601_Mine" / "labelsTr" / f"{case}.nii.gz")
    told = "in 2 of 2 cases more than half of the voxels are background, where strokes cover a few percent (a: 80 %"
    assert f"Look at:  {told}" in run("601", "--cases", "0")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["609"], "no dataset 609"),
        (["601", "--dense", "608"], "no dataset 608"),
        (["601", "--channel", "1"], "channel 1: Dataset601_Mine has the channels 0 to 0"),
        (["601", "--dense", "my scribbles"], "my scribbles: holds no dense label of a, b"),
    ],
)
def test_what_is_not_there_is_told(raw, arguments, told):
    with pytest.raises(AttenScribbleError, match=told):
        run(*arguments)


def test_a_channel_that_is_not_there_is_told_before_files_are_read(raw):
    image = raw / "Dataset601_Mine" / "imagesTr" / "a_0000.nii.gz"
    image.write_bytes(image.read_bytes()[:-40])
    with pytest.raises(AttenScribbleError, match="channel 1: Dataset601_Mine has the channels 0 to 0"):
        run("601", "--channel", "1")


def test_names_with_dollars_are_no_formulas_on_the_sheet(raw, tmp_path):
    source, name = raw / "Dataset601_Mine", "p0$a_{$"
    for file in list(source.glob("*Tr/b*")):
        file.rename(file.with_name(name + file.name[1:]))
    description = json.loads((source / "dataset.json").read_text())
    description["labels"] = {**dict(zip(("background", name, "MYO", "LV"), range(4), strict=True)), "ignore": 4}
    (source / "dataset.json").write_text(json.dumps(description))
    run("601", "--dense", "none", "-o", str(tmp_path / "sheet.png"))
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.filterwarnings("error")
def test_names_in_other_scripts_are_drawn_without_a_warning(raw, tmp_path):
    source = raw / "Dataset601_Mine"
    files = source / "imagesTr" / "a_0000.nii.gz", source / "labelsTr" / "a.nii.gz", None
    names = ("\u738b \u4f1f", "M\u00fcller", "\U00012000")  # Chinese, accents, cuneiform
    draw_contact_sheet(tmp_path / "s.png", dict.fromkeys(names, files), labels={"\u5fc3": 1}, ignore=4, title=names[0])
    assert imread(tmp_path / "s.png").shape[-1] == 4


def test_channels_are_counted_from_0_whatever_their_numbers(raw):
    source = raw / "Dataset601_Mine"
    description = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps({**description, "channel_names": {"1": "T1"}}))
    assert "T1, 50 %" in run("601", "--cases", "0")


@pytest.mark.parametrize("cases", [{"name": "my cohort"}, {"p0": {"images": []}}, {"p0": {"images": "a"}}, [], "x"])
def test_another_use_of_the_key_dataset_is_no_twin(raw, cases):
    (raw / "Dataset600_Other").mkdir()
    (raw / "Dataset600_Other" / "dataset.json").write_text(json.dumps({"dataset": cases}))
    (raw / "Dataset601_Mine" / "provenance.json").unlink()  # which names the twin
    assert find_twin(raw / "Dataset601_Mine") == raw / "Dataset602_MineDense"


@pytest.mark.parametrize("cases", [{"name": "my cohort"}, {"p0": {"label": "a"}}, {"p0": {"label": 5}}, [{}], None])
def test_cases_in_another_form_than_nnunets_are_told(raw, cases):
    file = raw / "Dataset601_Mine" / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "dataset": cases}))
    with pytest.raises(AttenScribbleError, match=r"dataset\.json: (has no )?'dataset[.\w]*'.* it must be"):
        run("601")


def test_broken_files_are_told_all_at_once(raw):
    label = raw / "Dataset601_Mine" / "labelsTr" / "a.nii.gz"
    label.write_bytes(label.read_bytes()[:40])
    sitk.WriteImage(make_volume(9), raw / "Dataset602_MineDense" / "labelsTr" / "b.nii.gz")
    with pytest.raises(AttenScribbleError) as caught:
        run("601")
    assert len(caught.value.problems) == 2
    assert "truncated" in caught.value.problems[0]
    assert "label values [9] are not in dataset.json" in caught.value.problems[1]


def test_values_are_told_of_the_file_that_holds_them(raw):
    label, dense = (raw / name / "labelsTr" / "b.nii.gz" for name in ("Dataset601_Mine", "Dataset602_MineDense"))
    sitk.WriteImage(sitk.Cast(sitk.ReadImage(label), sitk.sitkFloat32) + 0.5, label)
    sitk.WriteImage(make_volume(9), dense)
    with pytest.raises(AttenScribbleError) as caught:
        run("601")
    assert caught.value.problems[0].startswith(f"{label}: label values that are not integers")
    assert caught.value.problems[1].startswith(f"{dense}: label values [9]")


def test_a_slice_among_volumes_is_told(raw):
    source = raw / "Dataset601_Mine"
    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        a, b, c = (source / part / f"{case}{ending}" for case in "abc")
        shutil.copyfile(a, c)
        sitk.WriteImage(sitk.ReadImage(b)[:, :, 1], b)
    with pytest.raises(AttenScribbleError, match=r"b_0000\.nii\.gz: has 2 dimensions, the others 3"):
        run("601", "--dense", "none")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (5, "is not an object of keys and values"),
        ({"labels": {"background": 0}, "channel_names": {"0": "MRI"}, "file_ending": 5}, "'file_ending' is 5: it must"),
        (
            {"labels": {"ignore": []}, "channel_names": {}, "file_ending": ".png"},
            "'labels.ignore' is \\[\\]: it must be",
        ),
    ],
)
def test_a_description_that_is_none_is_told(tmp_path, content, told):
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(AttenScribbleError, match=rf"dataset\.json: {told}"):
        read_description(tmp_path)


def test_regions_are_told_by_their_smallest(tmp_path):
    content = {
        "labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
        "channel_names": {"0": "MRI"},
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    found = read_description(tmp_path)
    assert found.labels == {"background": 0, "whole": 1, "core": 2}
    assert (found.ignore, found.regions) == (3, ("whole",))


@pytest.mark.parametrize(("options", "slices"), [({"axis": 2}, 6), ({"axis": 1}, 5), ({"axis": None}, 4), ({}, 4)])
def test_slices_are_those_that_were_drawn_on(raw, options, slices):
    source = raw / "Dataset601_Mine"
    file = source / "provenance.json"
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(content | {"options": options}))
    assert {case.slices for case in inspect_dataset(source, None, workers=1).cases.values()} == {slices}
