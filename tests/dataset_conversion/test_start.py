"""`attenscribble start`: what it believes of folders, what it asks, and that it converts as `convert folder` does."""

from __future__ import annotations

import json
import os
import re
from functools import partial
from hashlib import sha256
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import tifffile
import typer
import yaml
from PIL import Image
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.cli import start as command
from nnunet_attenscribble.common import files
from nnunet_attenscribble.common.volumes import file_of, read_volume
from nnunet_attenscribble.dataset_conversion import contact_sheet
from nnunet_attenscribble.dataset_conversion.dicom_series import read_series
from nnunet_attenscribble.dataset_conversion.folder import FolderOptions, encode_options, read_options
from nnunet_attenscribble.dataset_conversion.raw_dataset import Writing
from nnunet_attenscribble.dataset_conversion.start_beliefs import read_names
from nnunet_attenscribble.errors import AttenScribbleError
from tests.dataset_conversion.downloads import STEP, write_slice
from tests.dataset_conversion.drawing_tools import describe_labels, recode, write_mitk, write_slicer
from tests.tiny import SIZE, make_dense, make_scan, make_strokes, make_volume, save

NAMES = ("background", "RV", "MYO", "LV")
BUILT = typer.main.get_command(app)
DRAW = contact_sheet.draw_contact_sheet
OPTIONS = ("--yes", "--workers", 1)
OF_COLOURS = ("--labels", "RV=#ff0000,MYO=#0000ff,LV=#ffff00", "--background-scribble", "#00ff00")


def read_labels(dataset: Path) -> dict[str, np.ndarray]:
    return {
        file.name.removesuffix(".nii.gz"): sitk.GetArrayFromImage(sitk.ReadImage(file))
        for file in sorted((dataset / "labelsTr").iterdir())
    }


def check_labels(dataset: Path) -> None:
    """Whether every class, by its name, is where it was drawn."""
    names = yaml.safe_load((dataset / "dataset.json").read_text())["labels"]
    assert next(iter(names)) == "background"
    assert sorted(names) == sorted((*NAMES, "ignore"))
    for drawn in read_labels(dataset).values():
        strokes = make_strokes() if drawn.ndim == 3 else make_strokes()[1]
        for value, name in enumerate((*NAMES, "ignore")):
            np.testing.assert_array_equal(drawn == names[name], strokes == value, name)


def read_tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def draw(file: Path, cases: dict, **options: object) -> None:
    """As much of the contact sheet as takes no time: every file is read."""
    scans = {case: sitk.GetArrayFromImage(read_volume(scan, case)).shape for case, (scan, _, _) in cases.items()}
    labels = {case: sitk.GetArrayFromImage(make()).shape for case, (_, make, _) in cases.items()}
    assert scans == labels
    file.write_bytes(b"picture")


@pytest.fixture
def start(monkeypatch, attenscribble):
    """Run the command, without what takes long, drawing and building typer's commands: (exit code, stdout, stderr)."""
    monkeypatch.setattr(typer.main, "get_command", lambda _: BUILT)
    monkeypatch.setattr(contact_sheet, "draw_contact_sheet", draw)
    monkeypatch.setenv("ATTENSCRIBBLE_QUIET", "1")
    monkeypatch.setenv("COLUMNS", "80")
    return partial(attenscribble, "start")


@pytest.fixture
def answer(start, monkeypatch):
    """Run the command with somebody at the terminal who types these lines."""

    def run(folder, *lines, options=()):
        monkeypatch.setattr(command, "is_terminal", lambda: True)
        words = ["start", str(folder), "--workers", "1", *map(str, options)]
        result = CliRunner().invoke(app, words, input="".join(f"{line}\n" for line in lines))
        error = result.exception if isinstance(result.exception, AttenScribbleError) else None
        assert result.exception is None or error is not None, result.output
        return error, result.output

    return run


def write_segments(file: Path, values=(1, 2, 3, 4), names=NAMES, **options) -> None:
    """The strokes as 3D Slicer saves them, with a value for each name."""
    told = [(name, value, 0) for name, value in zip(names, values, strict=True)]
    write_slicer(file, [recode(make_strokes(), values)], told, **options)


# --- the five tools ---


def slicer(folder: Path) -> tuple:
    """Another order of segments in each file, cut to what is drawn; the last image has no drawing."""
    for number, values in enumerate(((4, 1, 2, 3), (1, 3, 2, 4), None)):
        save(folder / f"p{number}.nrrd", make_scan(number))
        if values is not None:
            write_segments(folder / f"p{number}.seg.nrrd", values, cropped=True)
    return ()


def itk_snap(folder: Path) -> tuple:
    """One description for all, with a label that nobody used."""
    for number in range(2):
        save(folder / "images" / f"p{number}.nii.gz", make_scan(number))
        save(folder / "labels" / f"p{number}.nii.gz", recode(make_strokes(), (9, 3, 2, 1)))
    told = describe_labels((1, "LV"), (2, "MYO"), (3, "RV"), (4, "spare"), (9, "background"))
    (folder / "labels" / "labels.txt").write_text(told)
    return ()


def napari(folder: Path) -> tuple:
    """Labels layers as they are saved: int32 without any tag of spacing."""
    for number in range(2):
        place = folder / "images" / f"p{number}.tif"
        place.parent.mkdir(parents=True, exist_ok=True)
        told = {"spacing": 8.0, "unit": "mm", "axes": "ZYX"}
        voxels = sitk.GetArrayFromImage(make_scan(number))
        tifffile.imwrite(place, voxels, imagej=True, resolution=(1 / 1.5, 1 / 1.25), metadata=told)
        (folder / "labels").mkdir(exist_ok=True)
        drawn = recode(make_strokes(), (4, 1, 2, 3)).astype(np.int32)
        tifffile.imwrite(folder / "labels" / f"p{number}.tif", drawn, compression="zlib", photometric="minisblack")
    return "--labels", "RV,MYO,LV", "--background-scribble", "4"


def mitk(folder: Path) -> tuple:
    """A folder per patient; nothing but the header says that it is a segmentation."""
    for number, values in enumerate(((4, 1, 2, 3), (1, 4, 3, 2))):
        save(folder / f"p{number}" / "scan.nrrd", make_scan(number))
        drawn = recode(make_strokes(), values)
        write_mitk(folder / f"p{number}" / "scan - by Anna.nrrd", [drawn], [list(zip(NAMES, values, strict=True))])
    return ()


def qupath(folder: Path) -> tuple:
    """Pictures in colour, and exported palettes; black is what nobody annotated."""
    strokes = make_strokes()[1]
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (*strokes.shape, 3), np.uint8)
        for place in ("images", "annotations"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "images" / f"p{number}.png")
        palette = Image.fromarray(recode(strokes, (1, 2, 3, 4)), "P")
        palette.putpalette([0, 0, 0, 0, 255, 0, 255, 0, 0, 0, 0, 255, 255, 255, 0])
        palette.save(folder / "annotations" / f"p{number}.png")
    return OF_COLOURS


def colours_of_sixteen_bits(folder: Path) -> tuple:
    """The same, saved as 16 bits by a tool that does not scale the values."""
    options = qupath(folder)
    for palette in list((folder / "annotations").iterdir()):
        colours = np.asarray(Image.open(palette).convert("RGB")).astype(np.uint16)
        tifffile.imwrite(palette.with_suffix(".tif"), colours, photometric="rgb")
        palette.unlink()
    return options


def masks(folder: Path) -> tuple:
    """A folder per case with a file per class, whatever its value, and one of them along other axes."""
    for number in range(2):
        save(folder / "images" / f"p{number}.nii.gz", make_scan(number))
        for name in NAMES:
            mask = make_volume(np.where(make_strokes() == NAMES.index(name), 255 if name == "RV" else 1, 0))
            turned = sitk.DICOMOrient(mask, "RAS") if name == "MYO" else mask
            save(folder / "scribbles" / f"p{number}" / f"{name}.nii.gz", turned)
    return "--labels", "RV,MYO,LV"


TOOLS = {make.__name__: make for make in (slicer, itk_snap, napari, mitk, qupath, colours_of_sixteen_bits, masks)}


def test_a_grey_picture_among_those_in_colour_is_told_once(tmp_path, start):
    options = qupath(tmp_path / "hearts")
    file = tmp_path / "hearts" / "images" / "p1.png"
    Image.open(file).convert("L").save(file)
    _, _, err = start(tmp_path / "hearts", *OPTIONS, *options)
    assert "its case has" in err
    assert len(err.splitlines()) == 1, err


def test_names_in_a_dataset_json_are_those_of_labels_and_channels(tmp_path, start):
    root = tmp_path / "hearts"
    for number in range(2):
        save(root / "imagesTr" / f"p{number}_0000.nii.gz", make_scan(number))
        save(root / "labelsTr" / f"p{number}.nii.gz", make_strokes())
    labels = {"background": 0, "RV": 1, "MYO": 2, "LV": 3, "ignore": 4}
    told = {"labels": labels, "channel_names": {"0": "T1"}, "numTraining": 2, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(told))
    code, out, err = start(root, *OPTIONS)
    assert code == 0, err
    assert "whose labels have `ignore` already: it can go into nnUNet_raw as it is" in " ".join(out.split())
    check_labels(tmp_path / "nnUNet_raw" / "Dataset601_hearts")
    assert read_options(tmp_path / "hearts_start.yaml").channels == ("T1",)


def test_a_dataset_json_that_is_not_of_these_drawings_is_passed_over(tmp_path, start):
    slicer(tmp_path / "hearts")
    labels = {"background": 0, "LV": 3, "MYO": 2, "RV": 1}
    told = {"labels": labels, "channel_names": {"0": "T1", "1": "FLAIR"}}
    (tmp_path / "hearts" / "dataset.json").write_text(json.dumps(told))
    code, _, err = start(tmp_path / "hearts", *OPTIONS)
    assert code == 0, err
    check_labels(tmp_path / "nnUNet_raw" / "Dataset601_hearts")


def test_an_ignore_label_that_no_drawing_has_says_nothing_of_what_0_is(tmp_path, start):
    """0 is where nobody drew here; of `ignore: 5` it would have followed that 0 is a stroke of background."""
    root = tmp_path / "hearts"
    for number in range(2):
        save(root / "images" / f"p{number}.nii.gz", make_scan(number))
        save(root / "scribbles" / f"p{number}.nii.gz", np.array([4, 1, 2, 3, 0])[make_strokes()])
    labels = {"background": 0, "RV": 1, "MYO": 2, "LV": 3, "outside": 4, "ignore": 5}
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    code, _, err = start(root, *OPTIONS)
    assert code == 2
    (line,) = err.splitlines()
    assert re.findall(r"(?:error:|,) the value \d", line) == [
        "error: the value 1",
        *(f", the value {n}" for n in (2, 3, 4)),
    ]


def test_of_two_folders_of_drawings_one_is_chosen_and_the_images_stay(tmp_path, answer):
    """No name says which of anna and ben holds drawings; what dataset.json says counts once that is answered."""
    root = tmp_path / "hearts"
    for number in range(2):
        save(root / "images" / f"p{number}.nii.gz", make_scan(number))
        for who in ("anna", "ben"):
            save(root / who / f"p{number}.nii.gz", make_strokes())
    labels = {"background": 0, "RV": 1, "MYO": 2, "LV": 3, "ignore": 4}
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": {"0": "T1"}}))
    error, out = answer(root, root / "anna", "y")
    assert error is None, out
    check_labels(tmp_path / "nnUNet_raw" / "Dataset601_hearts")
    options = read_options(tmp_path / "hearts_start.yaml")
    assert (options.images, options.scribbles, options.channels) == (root / "images", root / "anna", ("T1",))
    assert f"Not used: {root / 'ben'} (2 files)" in " ".join(out.split())


@pytest.mark.parametrize("told", [{"0": "background", "1": "RV", "2": "RV"}, {"0": "background", "1": "RV"}])
def test_a_dataset_json_in_which_a_name_stands_twice_is_not_read(tmp_path, told):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": told, "modality": {"0": " "}}))
    names, _ = read_names(tmp_path, {})
    assert names == ({} if "2" in told else {"labels": {"RV": 1}})


def test_names_of_the_decathlon(tmp_path, start):
    root = tmp_path / "Task02_Heart"
    for number in range(2):
        save(root / "imagesTr" / f"la_{number}.nii.gz", make_scan(number))
        save(root / "labelsTr" / f"la_{number}.nii.gz", np.array([4, 1, 2, 3, 0])[make_strokes()])
    names = {"0": "background", "1": "RV", "2": "MYO", "3": "LV", "4": "outside"}
    (root / "dataset.json").write_text(json.dumps({"labels": names, "modality": {"0": "MRI"}}))
    code, _, err = start(root, *OPTIONS)
    assert code == 2
    (doubt,) = err.splitlines()
    assert "nothing says whether these are scribbles" in doubt
    code, _, err = start(root, *OPTIONS, "--background-scribble", 4)
    assert code == 0, err
    check_labels(tmp_path / "nnUNet_raw" / "Dataset601_Task02_Heart")


def test_one_subject_is_trained_with_all(tmp_path, start):
    options = slicer(tmp_path / "hearts")
    code, out, err = start(tmp_path / "hearts", *OPTIONS, *options, "--subject", "p")
    assert code == 0, err
    assert "one patient makes no folds" in out + err
    assert "nnUNetv2_train 601 2d_cpu all -tr" in out


@pytest.mark.parametrize("tool", TOOLS)
def test_each_tools_files_become_the_right_labels_and_the_plan_repeats_them(tmp_path, start, tool):
    options = TOOLS[tool](tmp_path / "hearts")
    code, out, err = start(tmp_path / "hearts", *OPTIONS, *options)
    assert code == 0, err
    dataset = tmp_path / "nnUNet_raw" / "Dataset601_hearts"
    assert sorted(read_labels(dataset)) == ["p0", "p1"]
    check_labels(dataset)
    assert max(map(len, out.splitlines()[: out.splitlines().index("Next:")][:12])) <= 80
    assert "nnUNetv2_train 601 2d" in out
    assert (tmp_path / "hearts_start.png").is_file()
    before = read_tree(dataset / "labelsTr")
    code, _, err = start("--plan", tmp_path / "hearts_start.yaml", "-d", 701, "--workers", 1)
    assert code == 0, err
    assert read_tree(tmp_path / "nnUNet_raw" / "Dataset701_hearts" / "labelsTr") == before


def test_images_without_a_drawing_are_to_be_predicted(tmp_path, start, monkeypatch):
    monkeypatch.setattr(contact_sheet, "draw_contact_sheet", DRAW)
    monkeypatch.delenv("ATTENSCRIBBLE_QUIET")
    slicer(tmp_path / "hearts")
    _, out, error = start(tmp_path / "hearts", *OPTIONS)
    assert "Drawing: 2 of 2" in error
    dataset = tmp_path / "nnUNet_raw" / "Dataset601_hearts"
    assert [file.name for file in (dataset / "imagesTs").iterdir()] == ["p2_0000.nii.gz"]
    assert "p2    p2.nrrd  -            predict" in out
    assert f"nnUNetv2_predict -i {dataset / 'imagesTs'} " in out
    assert "#" not in out.partition("Next:")[2]  # not every shell takes comments
    sheet = np.asarray(Image.open(tmp_path / "hearts_start.png").convert("RGB"))
    for colour in ((230, 159, 0), (86, 180, 233), (0, 158, 115)):  # the classes, in two tiles and the legend
        assert (sheet == colour).all(axis=-1).sum() > 1000


def test_the_plan_is_what_convert_folder_takes(tmp_path, start, attenscribble):
    options = napari(tmp_path / "hearts")
    assert start(tmp_path / "hearts", *OPTIONS, *options)[0] == 0
    told = yaml.safe_load((tmp_path / "hearts_start.yaml").read_text())
    assert told == {
        "images": "hearts/images",
        "dataset_id": 601,
        "name": "hearts",
        "labels": {"RV": 1, "MYO": 2, "LV": 3},
        "scribbles": "hearts/labels",
        "unlabelled": 0,
        "background_scribble": 4,
    }
    words = [tmp_path / told["images"], "-s", tmp_path / told["scribbles"], "-d", 611, "--name", "hearts"]
    words += ["--labels", "RV=1,MYO=2,LV=3", "--unlabelled", 0, "--background-scribble", 4, "--workers", 1]
    attenscribble("convert", "folder", *words)
    found = [read_tree(tmp_path / "nnUNet_raw" / f"Dataset{number}_hearts" / "labelsTr") for number in (601, 611)]
    assert found[0] == found[1]


# --- nobody is asked ---


def test_without_a_terminal_the_tables_are_shown_and_nothing_is_written(tmp_path, start):
    slicer(tmp_path / "hearts")
    before = read_tree(tmp_path)
    code, out, err = start(tmp_path / "hearts", "--workers", 1)
    assert code == 2
    assert "p0    p0.nrrd  p0.seg.nrrd  train" in out
    assert err == "error: nothing was written, as nobody could be asked: look at the table, and say --yes\n"
    assert read_tree(tmp_path) == before
    assert not (tmp_path / "nnUNet_raw").exists()


def folders(root: Path, *names: str, scans: int = 2) -> None:
    """Folders of strokes by value, named as images in `images`."""
    for number in range(scans):
        save(root / "images" / f"p{number}.nii.gz", make_scan(number))
        for name in names:
            save(root / name / f"p{number}.nii.gz", make_strokes())


def segments(root: Path, number: int, names: tuple[str, ...]) -> None:
    save(root / f"p{number}.nrrd", make_scan(number))
    write_segments(root / f"p{number}.seg.nrrd", names=names)


def values_alone(root):
    folders(root, "labels")


def two_annotators(root):
    folders(root, "scribbles/anna", "drawings/ben")


def scribbles_and_labels(root):
    folders(root, "scribbles", "labels")


def names_that_differ(root):
    segments(root, 0, NAMES)
    segments(root, 1, ("background", "Right ventricle", "MYO", "LV"))


def names_by_the_program(root):
    segments(root, 0, ("background", "Segment_1", "MYO", "LV"))


def no_background(root):
    segments(root, 0, ("apex", "RV", "MYO", "LV"))


def another_word_for_background(root):
    segments(root, 0, ("outside", "RV", "MYO", "LV"))


def unlabelled_by_name(root):
    save(root / "p0.nrrd", make_scan(0))
    told = [("ignore", 5, 0), ("RV", 2, 0), ("MYO", 3, 0), ("LV", 4, 0)]
    write_slicer(root / "p0.seg.nrrd", [recode(make_strokes(), (0, 2, 3, 4), rest=5)], told)


def ct(root):
    for number in range(2):
        scan = make_scan(number)
        save(root / "images" / f"p{number}.nii.gz", scan - 1200)
        write_segments(root / "labels" / f"p{number}.seg.nrrd")


def ct_by_its_header(root):
    """Without air in the field of view."""
    for number in range(2):
        for place, plane in enumerate(sitk.GetArrayFromImage(make_scan(number))):
            write_slice(root / f"p{number}" / "DICOM" / f"{place}.dcm", plane, place * STEP, f"1.2.{number}")
            header = pydicom.dcmread(root / f"p{number}" / "DICOM" / f"{place}.dcm")
            header.Modality = "CT"
            header.save_as(root / f"p{number}" / "DICOM" / f"{place}.dcm")
        drawn = sitk.GetImageFromArray(make_strokes())
        image = read_series(sorted((root / f"p{number}" / "DICOM").iterdir()))
        drawn.CopyInformation(image)
        save(root / f"p{number}" / "scribble.nii.gz", drawn)


def ct_by_its_name(root):
    for number in range(2):
        save(root / "images" / f"p{number}_ct.nii.gz", make_scan(number))
        write_segments(root / "labels" / f"p{number}_ct.seg.nrrd")


def numbered_channels(root):
    for channel in range(2):
        save(root / "images" / f"p0_000{channel}.nii.gz", make_scan(channel))
    write_segments(root / "labels" / "p0.seg.nrrd")


def no_spacing(root):
    napari(root)
    tifffile.imwrite(root / "images" / "p0.tif", sitk.GetArrayFromImage(make_scan(0)), photometric="minisblack")


def a_label_among_images(root):
    itk_snap(root)
    save(root / "images" / "p2.nii.gz", make_dense())


def zeros_that_are_no_majority(root):
    """As much drawn as not: no value has more than half of the voxels."""
    save(root / "images" / "p0.nii.gz", make_scan(0))
    save(root / "scribbles" / "p0.nii.gz", np.select([np.arange(6) < 3, np.arange(6) < 5], [0, 1], 2))


def a_value_below_zero(root):
    folders(root, "scribbles")
    for number in range(2):
        drawn = make_strokes().astype(np.int16)
        save(root / "scribbles" / f"p{number}.nii.gz", make_volume(np.where(drawn == 0, -1, drawn % 4), np.int16))


def colours_with_opacity(root):
    qupath(root)
    for file in (root / "images").iterdir():
        Image.open(file).convert("RGBA").save(file)


def unknown_folders(root):
    folders(root)
    (root / "images").rename(root / "A")
    for number in range(2):
        save(root / "B" / f"p{number}.nii.gz", make_strokes())


DOUBTS = {
    values_alone: (
        ["labels (2 files): nothing says whether these are scribbles, with voxels that nobody drew on, or dense labels",
         "the value 1 (in 2 of 2 files, 1.67 % of the voxels, the first p0), the value 2 (in 2 of 2 files, 1.67 % of "
         "the voxels, the first p0), the value 3 (in 2 of 2 files, 1.67 % of the voxels, the first p0), each of which "
         "has no name: "
         "give --labels CLASS=1,CLASS=2,CLASS=3 or --background-scribble MARK or --unlabelled MARK"],
        ["-s", "{root}/labels", "--labels", "RV,MYO,LV"],
    ),
    two_annotators: (
        ["{root}/drawings, {root}/scribbles: hold scribbles of the same images: give one of them with --scribbles"],
        ["-s", "{root}/scribbles/anna", "--labels", "RV,MYO,LV"],
    ),
    scribbles_and_labels: (
        ["hold drawings of the same images: say which are scribbles and which are dense labels, with --scribbles DIR"],
        ["-s", "{root}/scribbles", "--labels", "RV,MYO,LV"],
    ),
    names_that_differ: (
        ["'RV' (in 1 of 2 files, the first p0) never stands in one file with Right ventricle, and may be the same",
         "'Right ventricle' (in 1 of 2 files, the first p1) never stands in one file with RV"],
        ["--labels", "RV=Right ventricle,MYO,LV"],
    ),
    names_by_the_program: (
        ["'Segment_1' (in 1 of 1 files, the first p0) is a name that the program gave by itself: "
         "give --labels CLASS=Segment_1 or --background-scribble Segment_1 or --unlabelled Segment_1"],
        ["--labels", "RV=Segment_1,MYO,LV"],
    ),
    no_background: (
        ["hearts (1 file): nothing says whether these are scribbles"],
        ["--background-scribble", "apex"],
    ),
    another_word_for_background: (
        ["nothing says whether", "'outside' (in 1 of 1 files, the first p0) may be the background stroke, or a class"],
        ["--background-scribble", "outside"],
    ),
    unlabelled_by_name: (
        ["what no name is given to (in 1 of 1 files, the first p0) lies beside a name for unlabelled voxels: "
         "give --background-scribble 0 or --unlabelled 0"],
        ["--background-scribble", "0"],
    ),
    ct: (["images go down to -900 and below, as CT does (p0, p1): say --channels CT, or --channels MRI"],
         ["--channels", "MRI"]),
    ct_by_its_header: (["headers or names of images say CT (p0, p1): say --channels CT or --channels MRI; nnU-Net"],
                       ["--channels", "CT"]),
    ct_by_its_name: (["headers or names of images say CT (p0_ct, p1_ct): say --channels CT or"], ["--channels", "CT"]),
    numbered_channels: (["images have 2 channels, _0000, _0001 and so on: name them in this order, as --channels"],
                        ["--channels", "T1,FLAIR"]),
    no_spacing: (["p0.tif: state no spacing, by which nnU-Net plans: give it with --spacing X Y Z, in mm"],
                 ["--spacing", "1.5", "1.25", "8"]),
    a_label_among_images: (["p2.nii.gz: holds the values 0, 1, 2, 3 alone, as a label does"],
                           ["--images", "{root}/images"]),
    zeros_that_are_no_majority: (
        ["the value 0 (in 1 of 1 files, 50.00 % of the voxels, the first p0) may be unlabelled, or a background "
         "stroke: "
         "give --background-scribble 0 or --unlabelled 0",
         "first p0), each of which has no name: give --labels CLASS=1,CLASS=2 or --background-scribble MARK or"],
        ["--labels", "A", "--unlabelled", "0"],
    ),
    a_value_below_zero: (
        ["the value -1 (in 2 of 2 files, 15.00 % of the voxels, the first p0), the value 1 ("],
        ["--labels", "RV,MYO,LV", "--background-scribble", "-1"],
    ),
    colours_with_opacity: (["images have 4 channels, the last of them opacity (alpha): name them in this order"],
                           ["--channels", "R,G,B,A"]),
    unknown_folders: (["no name says which of its folders, {root}/A (2 files), {root}/B (2 files), holds"],
                      ["--images", "{root}/A", "-s", "{root}/B", "--labels", "RV,MYO,LV"]),
}  # fmt: skip


@pytest.mark.parametrize("make", DOUBTS, ids=lambda make: make.__name__)
def test_what_is_not_clear_is_refused_at_once_and_answered_by_the_options_that_it_names(tmp_path, start, make):
    root = tmp_path / "hearts"
    make(root)
    given = ["--labels", "RV,MYO,LV", "--background-scribble", 4] if make is no_spacing else []
    given += ["--labels", "RV,MYO,LV"] if make is ct_by_its_header else []
    given += OF_COLOURS if make is colours_with_opacity else []
    before = read_tree(tmp_path)
    code, _, err = start(root, *OPTIONS, *given)
    told, options = DOUBTS[make]
    assert code == 2
    assert len(err.splitlines()) == len(told), err
    for one, line in zip(told, err.splitlines(), strict=True):
        assert line.startswith("error: ")
        assert one.format(root=root) in line
    assert read_tree(tmp_path) == before
    code, _, err = start(root, *OPTIONS, *given, *(word.format(root=root) for word in options))
    assert code == 0, err
    if make is zeros_that_are_no_majority:  # 2 is one more than the highest class, and so the background
        values = read_labels(tmp_path / "nnUNet_raw" / "Dataset601_hearts")["p0"]
        np.testing.assert_array_equal(values[0, 0], [2, 2, 2, 1, 1, 0])
        return
    check_labels(next((tmp_path / "nnUNet_raw").iterdir()))


SEE_THROUGH = ("--labels", "stroma=#0000ff", "--background-scribble", "#00ff00")


def see_through(root: Path, *counts: int) -> np.ndarray:
    """So many red, blue and green ones of 100 pixels, and the others transparent; returns them as 1, 2, 3 and 0."""
    drawn = np.repeat(range(4), [100 - sum(counts), *counts]).reshape(10, 10)
    for place, pixels in (("images", np.arange(100, dtype=np.uint8).reshape(10, 10)), ("scribbles", drawn)):
        (root / place).mkdir(parents=True)
        if place == "scribbles":
            pixels = np.array([(0, 0, 0, 0), (255, 0, 0, 255), (0, 0, 255, 255), (0, 255, 0, 255)], np.uint8)[drawn]
        Image.fromarray(pixels).save(root / place / "p0.png")
    return drawn


def read_see_through(tmp_path: Path) -> np.ndarray:
    return read_labels(tmp_path / "nnUNet_raw" / "Dataset601_tissue")["p0"]


@pytest.mark.parametrize("red", [11, 51])  # of 20 strokes, and of all pixels
def test_where_pixels_are_transparent_the_commonest_colour_is_not_what_is_unlabelled(tmp_path, start, red):
    drawn = see_through(tmp_path / "tissue", red, 5, 4)
    code, _, err = start(tmp_path / "tissue", *OPTIONS, *SEE_THROUGH)
    assert code == 2
    assert f"the colour #ff0000 (in 1 of 1 files, {red}.00 % of the voxels, the first p0) is none of the classes" in err
    labels = "stroma=#0000ff,tumour=#ff0000"
    code, _, err = start(tmp_path / "tissue", *OPTIONS, *SEE_THROUGH, "--labels", labels, "--trust-scribbles")
    assert code == 0, err
    np.testing.assert_array_equal(read_see_through(tmp_path), np.array([3, 2, 1, 0])[drawn])


def test_the_commonest_colour_beside_transparent_pixels_is_asked_for(tmp_path, answer):
    drawn = see_through(tmp_path / "tissue", 11, 5, 4)
    error, out = answer(tmp_path / "tissue", "stroma", "background", "tumour", "y")  # in the order of their codes
    assert error is None, (error, out)
    assert "What is the colour #ff0000 (in 1 of 1 files, 11.00 % of the voxels)?" in " ".join(out.split())
    np.testing.assert_array_equal(read_see_through(tmp_path), np.array([3, 2, 1, 0])[drawn])


def test_a_single_colour_on_transparent_pixels_is_a_class(tmp_path, start, answer):
    drawn = see_through(tmp_path / "tissue", 11, 0, 0)
    code, _, err = start(tmp_path / "tissue", *OPTIONS)
    assert code == 2
    assert "the colour #ff0000 (in 1 of 1 files, 11.00 % of the voxels, the first p0) has no name" in err
    error, out = answer(tmp_path / "tissue", "tumour", "y")
    assert error is None, (error, out)
    np.testing.assert_array_equal(read_see_through(tmp_path), np.where(drawn == 1, 1, 2))


PROBLEMS = {
    "no drawing": (["a.nii.gz", "b.nii.gz"], "holds images and no drawing ({root} (2 files)): call drawings"),
    "drawings alone": (["labels/a.nii.gz"], "holds drawings ({root}/labels (1 file)) and no image: put the images"),
    "nothing": ([], "holds no image, nor does any folder in it"),
    "nothing that is taken": (["images/a.vtk"], "{root}/images/a.vtk: is of a kind that is not taken: save it as"),
    "no drawing that is taken": (["images/a.mha", "masks/a.gipl"], "{root}/masks/a.gipl: is of a kind that is not"),
    "no image that is taken": (["images/a.gipl", "labels/a.mha"], "{root}/images/a.gipl: is of a kind that is not"),
    "one channel less": (
        ["images/a_0000.mha", "images/a_0001.mha", "images/b_0000.mha", "images/c_0000.mha", "scribbles/a.mha"],
        "{root}/images/a_0000.mha: its case has 2 channels and others have 1: give each as many",
    ),
    "of test cases alone": (
        ["imagesTr/a_0000.nii.gz", "imagesTs/b_0000.nii.gz", "labelsTs/b.nii.gz"],
        "{root}: its drawings lie in {root}/labelsTs, which holds those of test cases alone: put those to train with",
    ),
    "twice": (["images/x/a.nii.gz", "images/y/a.nii.gz", "images/y/b.nii.gz", "scribbles/a.nii.gz"], "is called as"),
    "two of one case": (
        ["images/a.nii.gz", "scribbles/a_anna.nii.gz", "scribbles/a_ben.nii.gz"],
        "is a scribble of the same case: keep one, with all classes in it",
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_no_answer_mends_is_told(tmp_path, start, problem):
    root = tmp_path / "hearts"
    root.mkdir()
    files, told = PROBLEMS[problem]
    for file in files:
        save(root / file, make_strokes() if "labels" in file or "scribbles" in file else make_scan(0))
    code, _, err = start(root, *OPTIONS, "--labels", "RV,MYO,LV")
    assert code == 2
    assert told.format(root=root) in err
    assert "lies on the grid of" not in err  # which is a hint on drawings without an image
    assert not (tmp_path / "nnUNet_raw").exists()


MASKS = {
    "two values": (make_strokes() % 3, "LV.nii.gz: holds the values 1, 2, and its folder holds 4 labels of one case"),
    "drawn on twice": (make_strokes() < 4, "p0: 2 voxels are MYO as well as LV: take them out of one of the two"),
    "another size": (np.ones((2, 3, 4)), "p0/MYO.nii.gz: size (5, 6, 4) differs from (4, 3, 2)"),
    "no class": (make_strokes() / 2, "scribbles/p0/LV.nii.gz: label values that are not integers (0.5, 1.5)"),
}


@pytest.mark.parametrize("problem", MASKS)
def test_a_file_per_class_that_is_none_is_told(tmp_path, start, problem):
    masks(tmp_path / "hearts")
    values, told = MASKS[problem]
    wrong = sitk.GetImageFromArray(values.astype(np.float32))
    if problem != "another size":
        wrong.CopyInformation(make_volume())
    save(tmp_path / "hearts" / "scribbles" / "p0" / "LV.nii.gz", wrong)
    code, _, err = start(tmp_path / "hearts", *OPTIONS, "--labels", "RV,MYO,LV")
    assert code == 2
    assert told in err
    assert not (tmp_path / "nnUNet_raw").exists()


def test_a_file_per_class_may_be_called_after_its_case_too(tmp_path, start):
    masks(tmp_path / "hearts")
    for file in [*(tmp_path / "hearts" / "scribbles").rglob("*.nii.gz")]:
        file.rename(file.with_name(f"{file.parent.name}_{file.name}"))
    code, _, err = start(tmp_path / "hearts", *OPTIONS, "--labels", "RV,MYO,LV")
    assert code == 0, err
    check_labels(tmp_path / "nnUNet_raw" / "Dataset601_hearts")


def test_a_file_per_class_beside_its_image_is_told_where_to_go(tmp_path, start):
    masks(tmp_path / "hearts")
    for number in range(2):
        (tmp_path / "patients" / f"p{number}").mkdir(parents=True)
        for file in (tmp_path / "hearts" / "scribbles" / f"p{number}").iterdir():
            file.rename(tmp_path / "patients" / f"p{number}" / file.name.replace(".nii", "_mask.nii"))
        (tmp_path / "hearts" / "images" / f"p{number}.nii.gz").rename(
            tmp_path / "patients" / f"p{number}" / "image.nii.gz"
        )
    code, _, err = start(tmp_path / "patients", *OPTIONS, "--labels", "RV,MYO,LV")
    assert code == 2
    assert "p0/image.nii.gz: holds the values " in err
    assert "or a file per class, called after it, and no image among them" in err


def test_drawings_called_manual_are_scribbles_where_their_background_is_named(tmp_path, start):
    for number in range(2):
        save(tmp_path / "hearts" / f"p{number}.nii.gz", make_scan(number))
        drawn = make_strokes()
        save(tmp_path / "hearts" / f"p{number}_manual.nii.gz", make_volume(np.where(drawn == 0, 9, drawn % 4)))
    code, _, err = start(tmp_path / "hearts", *OPTIONS, "--labels", "RV=1,MYO=2,LV=3", "--background-scribble", "9")
    assert code == 0, err


def test_a_file_per_class_that_names_its_own_is_told(tmp_path, start):
    masks(tmp_path / "hearts")
    write_slicer(tmp_path / "hearts" / "scribbles" / "p1" / "LV.seg.nrrd", [make_strokes() == 3], [("MYO", 1, 0)])
    code, _, err = start(tmp_path / "hearts", *OPTIONS, "--labels", "RV,MYO,LV")
    assert code == 2
    assert "scribbles/p1/LV.seg.nrrd: names its segments itself, and its folder holds 5 labels of one case" in err


def test_several_drawings_of_an_image_may_be_of_several_people(tmp_path, answer, start):
    masks(tmp_path / "hearts")
    code, _, err = start(tmp_path / "hearts", *OPTIONS)
    assert code == 2
    assert "scribbles/p0: holds a drawing each of LV, MYO, RV, background: where these are the classes, give" in err
    assert "--labels LV,MYO,RV; otherwise keep one drawing of an image" in err
    assert not (tmp_path / "nnUNet_raw").exists()
    error, output = answer(tmp_path / "hearts", "no", "yes", "y")
    assert error is None
    assert "Are these the classes?" in " ".join(output.split())
    assert "keep one drawing of an image, with all classes in it" in " ".join(output.split())
    check_labels(tmp_path / "nnUNet_raw" / "Dataset601_hearts")


def test_a_class_that_was_not_drawn_has_no_file(tmp_path, start):
    masks(tmp_path / "hearts")
    folder = tmp_path / "hearts" / "scribbles" / "p1"
    (folder / "LV.nii.gz").unlink()
    code, _, err = start(tmp_path / "hearts", *OPTIONS, "--labels", "RV,MYO,LV")
    assert code == 0, err
    dataset = tmp_path / "nnUNet_raw" / "Dataset601_hearts"
    names = yaml.safe_load((dataset / "dataset.json").read_text())["labels"]
    drawn = read_labels(dataset)
    assert [(values == names["LV"]).any() for values in drawn.values()] == [True, False]
    assert (drawn["p1"][make_strokes() == 3] == names["ignore"]).all()
    told = yaml.safe_load((dataset / "provenance.json").read_text())["inputs"]["p1"]["further"]
    assert {entry["file"]: entry["sha256"] for entry in told} == {
        f"{name}.nii.gz": sha256((folder / f"{name}.nii.gz").read_bytes()).hexdigest() for name in NAMES[:3]
    }


def test_a_drawing_under_another_name_is_told_which_images_it_fits(tmp_path, start):
    for number in range(2):
        segments(tmp_path / "hearts", number, NAMES)
    (tmp_path / "hearts" / "p1.seg.nrrd").rename(tmp_path / "hearts" / "Segmentation.seg.nrrd")
    code, _, err = start(tmp_path / "hearts", *OPTIONS)
    assert code == 2
    assert "Segmentation.seg.nrrd: has no image: add it, or remove the scribble" in err
    assert "Segmentation.seg.nrrd: lies on the grid of p0.nrrd, p1.nrrd: call it as its image" in err


def test_a_second_folder_of_test_images_is_told(tmp_path, start):
    slicer(tmp_path / "hearts" / "images")
    save(tmp_path / "hearts" / "imagesTs" / "p7.nii.gz", make_scan(7))
    save(tmp_path / "hearts" / "test" / "images" / "p8.nii.gz", make_scan(8))
    code, out, err = start(tmp_path / "hearts", *OPTIONS)
    assert code == 0, err
    assert f"Not used: {tmp_path / 'hearts' / 'test' / 'images'} (1 file)" in out


def test_the_sheet_shows_images_with_the_spacing_that_was_given(tmp_path, start, monkeypatch):
    options = napari(tmp_path / "hearts")
    for file in (tmp_path / "hearts" / "images").iterdir():
        tifffile.imwrite(file, sitk.GetArrayFromImage(make_scan(0)), photometric="minisblack")
    shown = []

    def look(file: Path, cases: dict, **options: object) -> None:
        draw(file, cases)
        shown.extend((file_of(scan), scan().GetSpacing(), label().GetSpacing()) for scan, label, _ in cases.values())

    monkeypatch.setattr(contact_sheet, "draw_contact_sheet", look)
    code, _, err = start(
        tmp_path / "hearts", *OPTIONS, *options, "--spacing", 4, 0.5, 0.5, "-s", tmp_path / "hearts" / "labels"
    )
    assert code == 0, err
    images = [tmp_path / "hearts" / "images" / f"p{number}.tif" for number in range(2)]
    assert shown == [(image, (4, 0.5, 0.5), (4, 0.5, 0.5)) for image in images]


@pytest.mark.parametrize(
    ("grid", "told"), [({"origin": (90, 0, 0)}, "origin (90, 0, 0)"), ({"size": (6, 6, 4)}, "size")]
)
def test_a_drawing_beside_its_image_is_told_before_anything_is_asked(tmp_path, answer, start, grid, told):
    save(tmp_path / "hearts" / "images" / "p0.nii.gz", make_scan(0))
    save(
        tmp_path / "hearts" / "scribbles" / "p0.nii.gz", make_volume(np.arange(grid.get("size", SIZE)[0]) == 1, **grid)
    )
    error, output = answer(tmp_path / "hearts")
    assert error is not None
    assert f"scribbles/p0.nii.gz: {told}" in str(error)
    assert "What is" not in output
    _, _, err = start(tmp_path / "hearts", *OPTIONS)
    assert f"scribbles/p0.nii.gz: {told}" in err
    assert "the value 1 (in 1 of 1 file" in err


def test_hints_tell_images_that_are_called_alike_apart(tmp_path, start):
    for number in range(2):
        segments(tmp_path / "hearts" / f"p{number}", 0, NAMES)
    (tmp_path / "hearts" / "p1" / "p0.seg.nrrd").rename(tmp_path / "hearts" / "Segmentation.seg.nrrd")
    code, _, err = start(tmp_path / "hearts", *OPTIONS)
    assert code == 2
    assert "Segmentation.seg.nrrd: lies on the grid of p0/p0.nrrd, p1/p0.nrrd: call it as its image" in err


def test_names_in_advice_can_be_typed(tmp_path, start):
    segments(tmp_path / "hearts", 0, NAMES)
    segments(tmp_path / "hearts", 1, ("background", "R&V", "MYO", "LV"))
    assert "or CLASS='R&V'" in start(tmp_path / "hearts", *OPTIONS)[2]
    masks(tmp_path / "masks")
    for file in [*(tmp_path / "masks" / "scribbles").rglob("LV.nii.gz")]:
        file.rename(file.with_name("left ventricle.nii.gz"))
    assert "give --labels 'MYO,RV,left ventricle'; otherwise" in start(tmp_path / "masks", *OPTIONS)[2]


def test_shades_are_told_in_one_sentence(tmp_path, start):
    root = tmp_path / "hearts"
    folders(root)
    for number in range(2):
        save(root / "scribbles" / f"p{number}.nii.gz", make_volume(np.arange(120).reshape(4, 5, 6) // 2))
    for labels in ((), ("--labels", "RV,MYO,LV")):
        code, _, err = start(root, *OPTIONS, *labels)
        assert code == 2
        (line,) = err.splitlines()
        assert f"hearts/scribbles: {57 if labels else 60} values and names are no class" in line


@pytest.mark.parametrize("tool", ["itk-snap", "values"])
def test_axes_that_are_not_at_right_angles(tmp_path, start, tool):
    affine = np.array([[1.0, 0.3, 0, 5], [0, 1.2, 0, 6], [0, 0, 8, 7], [0, 0, 0, 1]])
    coded = recode(make_strokes(), (4, 1, 2, 3))
    for part, values in (("images", sitk.GetArrayFromImage(make_scan(0))), ("labels", coded)):
        (tmp_path / "hearts" / part).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(values.transpose(), affine), tmp_path / "hearts" / part / "p0.nii.gz")
    options = ("--labels", "RV,MYO,LV", "--background-scribble", 4) if tool == "values" else ()
    if tool == "itk-snap":
        told = describe_labels((1, "RV"), (2, "MYO"), (3, "LV"), (4, "background"))
        (tmp_path / "hearts" / "labels" / "labels.txt").write_text(told)
    code, _, err = start(tmp_path / "hearts", *OPTIONS, *options)
    assert code == 0, err
    written = tmp_path / "nnUNet_raw" / "Dataset601_hearts" / "labelsTr" / "p0.nii.gz"
    np.testing.assert_array_equal(np.asarray(nibabel.load(written).dataobj).transpose(), make_strokes())
    np.testing.assert_allclose(nibabel.load(written).affine, affine, atol=1e-5)


def test_names_of_itk_snap_that_are_of_other_values_are_names(tmp_path, start):
    root = tmp_path / "hearts"
    for number in range(2):
        save(root / "images" / f"p{number}.nii.gz", make_scan(number))
        save(root / "scribbles" / f"p{number}.nii.gz", recode(make_strokes(), (4, 1, 2, 3)))
    told = describe_labels((1, "Label 2"), (2, "Label 1"), (3, "Label 3"), (4, "Label 4"))
    (root / "scribbles" / "labels.label").write_text(told)
    options = ("--labels", "RV=Label 2,MYO=Label 1,LV=Label 3", "--background-scribble", "Label 4")
    code, _, err = start(root, *OPTIONS, *options)
    assert code == 0, err
    check_labels(next((tmp_path / "nnUNet_raw").iterdir()))


def test_a_description_of_labels_that_lies_elsewhere_is_told(tmp_path, start):
    root = tmp_path / "hearts"
    itk_snap(root)
    (root / "labels" / "labels.txt").rename(root / "labels.txt")
    (root / "notes.txt").write_text("drawn on a Monday")
    code, _, err = start(root, *OPTIONS)
    assert code == 2
    told = f"{root}/labels.txt: names labels, and lies in no folder that is used: put it into {root}/labels, or remove"
    assert err.startswith(f"error: {told}")
    assert "notes.txt" not in err
    (root / "labels.txt").rename(root / "labels" / "labels.txt")
    assert start(root, *OPTIONS)[0] == 0


def test_channels_are_found_by_the_names_that_every_case_has(tmp_path, start):
    root = tmp_path / "brains"
    for number in range(2):
        for word in ("t1", "flair"):
            save(root / f"p{number}_{word}.nii.gz", make_scan(number))
        write_segments(root / f"p{number}.seg.nrrd")
    code, out, err = start(root, *OPTIONS)
    assert code == 0, err
    assert "Becomes: Dataset601_brains, channels flair, t1" in out
    assert yaml.safe_load((tmp_path / "brains_start.yaml").read_text())["channels"] == ["flair", "t1"]


def test_test_folders_a_dense_twin_and_a_folder_each(tmp_path, start):
    root = tmp_path / "hearts"
    for number in range(2):
        save(root / "train" / "images" / f"p{number}.nii.gz", make_scan(number))
        save(root / "train" / "scribbles" / f"p{number}.nii.gz", make_strokes())
        save(root / "train" / "dense" / f"p{number}.nii.gz", make_dense())
    save(root / "test" / "images" / "p7.nii.gz", make_scan(7))
    save(root / "test" / "labels" / "p7.nii.gz", make_dense())
    code, _, err = start(root, *OPTIONS, "--labels", "RV,MYO,LV", "-d", 12)
    assert code == 0, err
    raw = tmp_path / "nnUNet_raw"
    assert sorted(entry.name for entry in raw.iterdir()) == ["Dataset012_hearts", "Dataset013_heartsDense"]
    assert [file.name for file in (raw / "Dataset012_hearts" / "labelsTs").iterdir()] == ["p7.nii.gz"]
    np.testing.assert_array_equal(read_labels(raw / "Dataset013_heartsDense")["p0"], make_dense())


def test_a_folder_of_dicom_for_every_channel(tmp_path, start, attenscribble):
    root = tmp_path / "hearts"
    for patient in range(2):
        for name in ("T1", "T2"):
            for place, plane in enumerate(sitk.GetArrayFromImage(make_scan(patient))):
                uid = f"1.2.{patient}.{name[1]}"
                write_slice(root / f"p{patient}" / name / f"{place}.dcm", plane, place * STEP, uid)
        drawn = sitk.GetImageFromArray(make_strokes())
        drawn.CopyInformation(read_series(sorted((root / f"p{patient}" / "T1").iterdir())))
        save(root / f"p{patient}" / "scribble.nii.gz", drawn)
    words = ["-s", root, "-d", 611, "--name", "hearts", "--labels", "RV,MYO,LV", "--workers", 1]
    code, _, err = attenscribble("convert", "folder", root, *words)
    assert code == 2
    assert f"{root}: every case has T1, T2: where these are channels, give --channels T1,T2" in err
    code, _, err = start(root, *OPTIONS, "--labels", "RV,MYO,LV")
    assert code == 0, err
    assert read_options(tmp_path / "hearts_start.yaml").channels == ("T1", "T2")
    check_labels(tmp_path / "nnUNet_raw" / "Dataset601_hearts")


@pytest.mark.parametrize(
    ("image", "drawing"),
    [
        ("{}.nrrd", "{}.seg.nrrd"),
        ("{}/{}.nrrd", "{}/Segmentation.seg.nrrd"),
        ("{}/scan.nrrd", "{}/strokes.nrrd"),
        ("{}/image/scan.nrrd", "{}/mask/scan.nrrd"),
        ("imagesTr/{}_0000.nrrd", "labelsTr/{}.nrrd"),
        ("{}_image.nrrd", "{}_seg.nrrd"),
        ("{}.nrrd", "{}-labelled.nrrd"),
        ("{}.nrrd", "scribbles/{}.nrrd"),
        ("ground_truth/images/{}.nrrd", "ground_truth/masks/{}.nrrd"),
        ("Scans/{}.nrrd", "Drawings by Anna/{}-label.nrrd"),
        ("{}/day1/scan.nrrd", "{}/day1/label.nrrd"),
    ],
)
def test_layouts(tmp_path, start, image, drawing):
    root = tmp_path / "hearts"
    for number, case in enumerate(("p1", "p2")):
        save(root / image.replace("{}", case), make_scan(number))
        write_segments(root / drawing.replace("{}", case))
    given = ["-s", root / "ground_truth"] if "truth" in image else []  # what it is called says dense
    if "Anna" in drawing:
        given = ["-s", root / "Drawings by Anna"]
    code, _, err = start(root, *OPTIONS, *given)
    assert code == 0, err
    check_labels(tmp_path / "nnUNet_raw" / "Dataset601_hearts")


def test_a_plan_that_cannot_be_kept_leaves_the_dataset(tmp_path, start, monkeypatch):
    slicer(tmp_path / "hearts")

    write_text = files.write_text

    def write(file: Path, text: str) -> None:
        if file.suffix == ".yaml":
            raise AttenScribbleError(f"{file.name}: cannot be written (No space left on device)")
        write_text(file, text)

    monkeypatch.setattr(files, "write_text", write)
    code, _, err = start(tmp_path / "hearts", *OPTIONS)
    assert code == 2
    assert "Dataset601_hearts is complete, but what was agreed on could not be kept (hearts_start.yaml: cannot" in err
    check_labels(tmp_path / "nnUNet_raw" / "Dataset601_hearts")
    assert not [*tmp_path.glob("hearts_start*")]


def test_a_dataset_is_called_as_the_folder_without_accents(tmp_path, start):
    itk_snap(tmp_path / "Müller & Ömer")
    assert start(tmp_path / "Müller & Ömer", *OPTIONS)[0] == 0
    assert [entry.name for entry in (tmp_path / "nnUNet_raw").iterdir()] == ["Dataset601_Muller_Omer"]


def test_a_free_id_is_taken_and_what_is_there_stays(tmp_path, start):
    (tmp_path / "nnUNet_results" / "Dataset602_Other").mkdir(parents=True)
    itk_snap(tmp_path / "hearts")
    code, out, _ = start(tmp_path / "hearts", *OPTIONS)
    assert code == 0
    assert [entry.name for entry in (tmp_path / "nnUNet_raw").iterdir()] == ["Dataset603_hearts"]
    code, _, err = start(tmp_path / "hearts", *OPTIONS)
    assert code == 2
    plan = tmp_path / "hearts_start.yaml"
    again = f"attenscribble start --plan {plan}"
    assert f"{again} -d NEW_ID converts again" in out
    assert f"error: {plan}: is there already: {again} converts by it, with -d NEW_ID where its ID is taken" in err
    plan.unlink()
    _, _, err = start(tmp_path / "hearts", *OPTIONS)
    assert err == f"error: {plan.with_suffix('.png')}: is there already: move it, or choose another place with --plan\n"


def test_a_name_or_an_id_that_cannot_be_is_told_before_anything_is_read(tmp_path, start):
    taken = tmp_path / "nnUNet_raw" / "Dataset601_Other"
    taken.mkdir(parents=True)
    _, _, err = start(tmp_path, *OPTIONS, "-d", 601, "--name", "my hearts")
    name, number = err.splitlines()
    assert "dataset name 'my hearts': use letters, digits, _ and - only" in name
    assert f"{taken}: has the dataset ID 601 already" in number


def test_an_id_that_another_users_run_holds_is_passed_over(tmp_path, start, monkeypatch):
    theirs, own = (tmp_path / "nnUNet_raw" / f".attenscribble-{number}.lock" for number in (601, 602))
    theirs.parent.mkdir()
    theirs.touch()
    own.touch()  # of a run that was killed, which is gone on with
    monkeypatch.setattr(os, "access", lambda path, mode: path != theirs)
    itk_snap(tmp_path / "hearts")
    assert start(tmp_path / "hearts", *OPTIONS)[0] == 0
    assert sorted(entry.name for entry in theirs.parent.iterdir()) == [theirs.name, "Dataset602_hearts"]


def test_where_the_plan_cannot_be_kept_its_option_is_named(tmp_path, start, monkeypatch):
    itk_snap(tmp_path / "hearts")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    code, _, err = start(tmp_path / "hearts", *OPTIONS)
    assert code == 2
    assert err == (
        f"error: {tmp_path}: is read-only: choose a folder you may write to; what is agreed on is kept there: --plan "
        "FILE puts it elsewhere\n"
    )
    for folder in ("nnUNet_raw", "nnUNet_preprocessed"):
        (tmp_path / folder).mkdir()
    code, _, err = start(tmp_path / "hearts", *OPTIONS, "--plan", tmp_path / "nnUNet_raw" / "plan.yaml")
    assert code == 0, err


# --- somebody is asked ---


def test_a_yes_converts_and_a_no_writes_nothing(tmp_path, answer):
    itk_snap(tmp_path / "hearts")
    before = read_tree(tmp_path)
    error, _ = answer(tmp_path / "hearts", "n")
    assert error.problems[0].startswith("nothing was written: say what is otherwise by options, such as --labels")
    assert read_tree(tmp_path) == before
    error, out = answer(tmp_path / "hearts", "y")
    assert error is None, out
    assert "Is all of this right" in out
    check_labels(tmp_path / "nnUNet_raw" / "Dataset601_hearts")


ANSWERS = {
    values_alone: ("yes", "scribbles", "RV", "7", "MYO", "LV", "y"),
    two_annotators: ("2", "RV", "MYO", "LV", "y"),
    scribbles_and_labels: ("neither", "RV", "MYO", "LV", "y"),
    names_that_differ: ("RV", "RV", "y"),
    names_by_the_program: ("RV", "y"),
    no_background: ("1", "y"),
    another_word_for_background: ("scribbles", "background", "y"),
    unlabelled_by_name: ("background", "y"),
    ct: ("3", "CT", "y"),
    ct_by_its_name: ("CT", "y"),
    numbered_channels: ("T1", "T1, FLAIR", "y"),
    a_label_among_images: ("yes", "y"),
    zeros_that_are_no_majority: ("unlabelled", "A", "background", "y"),
    unknown_folders: ("2", "RV", "MYO", "LV", "y"),
}


@pytest.mark.parametrize("make", ANSWERS, ids=lambda make: make.__name__)
def test_what_is_not_clear_is_asked(tmp_path, answer, make):
    make(tmp_path / "hearts")
    error, out = answer(tmp_path / "hearts", *ANSWERS[make])
    assert error is None, (error, out)
    dataset = tmp_path / "nnUNet_raw" / "Dataset601_hearts"
    if make not in (no_background, zeros_that_are_no_majority):
        check_labels(dataset)
    before = read_tree(dataset / "labelsTr")
    options = read_options(tmp_path / "hearts_start.yaml")
    options.convert(Writing(tmp_path / "again", workers=1))
    assert read_tree(tmp_path / "again" / "Dataset601_hearts" / "labelsTr") == before


# --- the plan ---


def test_a_plan_is_read_as_it_was_written(tmp_path):
    options = FolderOptions(
        tmp_path / "d" / "images",
        601,
        "H",
        {"Left, the ventricle": "Segment=1", "RV": 7, "MYO": None, "on": "#00ff00"},
        scribbles=tmp_path / "d" / "s",
        dense=tmp_path / "d" / "dense",
        test_images=tmp_path / "other",
        undrawn_as_test=True,
        channels=("CT", "PET"),
        subject="p[0-9]+",
        spacing=(1.0, 1.5, 8.0),
        coding="chaos",
        unlabelled=-1,
        background_scribble="Outside",
        dense_slices=".",
        axis=0,
        annotated=tmp_path / "d" / "table.csv",
        trust_scribbles=True,
    )
    file = tmp_path / "d" / "plan.yaml"
    file.parent.mkdir()
    text = encode_options(options, file)
    assert str(tmp_path) not in text
    file.write_text(text)
    assert read_options(file) == options


def test_a_plan_that_was_written_through_a_link_is_read_from_either_side(tmp_path):
    (tmp_path / "deep" / "er" / "project").mkdir(parents=True)
    (tmp_path / "link").symlink_to("deep/er/project")
    file = tmp_path / "link" / "plan.yaml"
    images, scribbles = tmp_path / "link" / "images", tmp_path / "other" / "scribbles"
    text = encode_options(FolderOptions(images, 601, "H", {"RV": None}, scribbles=scribbles), file)
    assert "images: images\n" in text
    file.write_text(text)
    for place in (file, file.resolve()):
        assert read_options(place).scribbles == scribbles


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"images": None}, "'images' is missing: it must be a folder, from this file on"),
        ({"images": "/"}, "'images' is '/': it must be a folder, from this file on"),
        ({"labels": {"RV": 1, "rv": 2}}, "'labels': 'rv=2' is no class of its own"),
        ({"labels": {"background": 1}}, "'labels': 'background=1' is no class of its own"),
        ({"labels": {"RV": [1]}}, "'labels' is {'RV': [1]}: it must be classes, each with what marks it in the files"),
        ({"labels": 3}, "'labels' is 3: it must be classes"),
        ({"dataset_id": "x"}, "'dataset_id' is 'x': it must be a whole number from 1"),
        ({"spacing": [1, 1]}, "'spacing' is [1, 1]: it must be three numbers above 0, mm along x, y and z"),
        ({"coding": "other"}, "'coding' is 'other': it must be one of acdc, chaos, prostatex"),
        ({"axis": True}, "'axis' is True: it must be 0, 1 or 2 (z, y, x)"),
        ({"unlabelled": 1.5}, "'unlabelled' is 1.5: it must be a value, a name or a colour"),
        ({"scribble": "x"}, "unknown key 'scribble'; there are images, dataset_id"),
        ({"channels": []}, "'channels' is []: it must be a list of names"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(tmp_path, change, told):
    content = {"images": "i", "scribbles": "s", "dataset_id": 601, "name": "H", "labels": {"RV": None}, **change}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(AttenScribbleError) as caught:
        read_options(tmp_path / "plan.yaml")
    assert [problem for problem in caught.value.problems if f"plan.yaml: {told}" in problem]


@pytest.mark.parametrize("text", ["a: 2001-99-99", "a: !!int x", "? [a]\n: 1", "[" * 5000, "- a", "a: [", "\0"])
def test_a_plan_that_is_no_yaml_of_keys_is_refused(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(AttenScribbleError, match="write it again with attenscribble start"):
        read_options(tmp_path / "plan.yaml")


def test_nobody_is_asked_where_stdin_is_closed(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert not command.is_terminal()


def test_nothing_to_start_from(start):
    assert start()[2] == "error: nothing to start from: give a folder with images and drawings, or --plan YAML\n"
