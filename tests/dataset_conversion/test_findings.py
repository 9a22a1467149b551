"""Folders as people have them: which files are which case, and what colours mean."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from nnunet_attenscribble.dataset_conversion import pairing
from nnunet_attenscribble.dataset_conversion.findings import Folders, look_at_folders
from nnunet_attenscribble.dataset_conversion.meanings import Marks, ScribbleCoding, parse_mark, parse_marks
from nnunet_attenscribble.errors import AttenScribbleError
from tests.dataset_conversion.downloads import convert_folder, write_slice
from tests.tiny import make_dense, make_scan, make_strokes, make_volume, save

CLASSES = dict.fromkeys(("RV", "MYO", "LV"))


def look(root: Path, *, channels=("MRI",), **folders):
    """Cases with their images and labels, as paths below the root; and the problems."""
    given = {role: root / folder for role, folder in folders.items()}
    found = look_at_folders(Folders(**given), Marks(CLASSES), channels)
    cases = {
        case.identifier: (
            *(str(image.relative_to(root)) for image in case.images),
            *(str(label.file.relative_to(root)) for label in (case.scribble, case.dense) if label is not None),
        )
        for case in found.cases
    }
    return cases, found.problems


def test_names_that_fit_are_not_compared_with_all_folders(monkeypatch):
    monkeypatch.setattr(pairing, "_is_within", None)
    images, labels = ({case: Path(f"{folder}/{case}.png") for case in "ab"} for folder in "is")
    drawn = [pairing.Labels(Path("s"), [*labels.values()], "scribble")]
    assert pairing.pair_files(Path("i"), dict.fromkeys(images.values(), 1), drawn, ["MRI"]).labels == [labels]
    name = pairing._namer_by_folder(Path("s"), {("a",): "a"})
    assert name(Path("s/c.png")) == "c"
    assert name(Path("s/a/label.png")) == "a"
    monkeypatch.setattr(pairing, "_find_case", None)
    assert name(Path("s/a/of_another_class.png")) == "a"  # whose folder was compared already


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


LAYOUTS = {
    "a folder per patient": (
        ["i/p1/scan.nii.gz", "i/p2/scan.nii.gz", "s/p1/drawn.nii.gz", "s/p2/drawn.nii.gz"],
        {"images": "i", "scribbles": "s"},
        {"p1": ("i/p1/scan.nii.gz", "s/p1/drawn.nii.gz"), "p2": ("i/p2/scan.nii.gz", "s/p2/drawn.nii.gz")},
    ),
    "a file per class": (
        ["i/p1.nii", "i/p2.nii", "s/a/p1/LV.nii", "s/a/p1/RV.nii", "s/a/p2/LV.nii"],
        {"images": "i", "scribbles": "s"},
        {"p1": ("i/p1.nii", "s/a/p1"), "p2": ("i/p2.nii", "s/a/p2")},
    ),
    "a file per class, beside the image": (
        [f"d/s{n}/{name}.nii" for n in (1, 2) for name in ("ct", "segmentations/LV", "segmentations/RV")],
        {"images": "d", "dense": "d"},
        {f"s{n}": (f"d/s{n}/ct.nii", f"d/s{n}/segmentations") for n in (1, 2)},
    ),
    "a folder per patient, scribbles by name": (
        ["i/p1/scan.nii.gz", "i/p2/scan.nii.gz", "s/p1_s.nii.gz", "s/p2_s.nii.gz"],
        {"images": "i", "scribbles": "s"},
        {"p1": ("i/p1/scan.nii.gz", "s/p1_s.nii.gz"), "p2": ("i/p2/scan.nii.gz", "s/p2_s.nii.gz")},
    ),
    "one tree, a folder per patient": (
        ["d/p1/scan.nii.gz", "d/p2/scan.nii.gz", "d/p1/scribble.nii.gz", "d/p2/scribble.nii.gz", "d/p1/notes.txt"],
        {"images": "d", "scribbles": "d"},
        {"p1": ("d/p1/scan.nii.gz", "d/p1/scribble.nii.gz"), "p2": ("d/p2/scan.nii.gz", "d/p2/scribble.nii.gz")},
    ),
    "one tree with dense labels too": (
        [f"d/p{n}/{what}.nii.gz" for n in (1, 2) for what in ("scan", "scribble", "seg")],
        {"images": "d", "scribbles": "d", "dense": "d"},
        {f"p{n}": tuple(f"d/p{n}/{what}.nii.gz" for what in ("scan", "scribble", "seg")) for n in (1, 2)},
    ),
    "one folder": (
        ["d/p1_image.nii.gz", "d/p2_image.nii.gz", "d/p1_seg.nii.gz", "d/p2_seg.nii.gz"],
        {"images": "d", "scribbles": "d"},
        {"p1": ("d/p1_image.nii.gz", "d/p1_seg.nii.gz"), "p2": ("d/p2_image.nii.gz", "d/p2_seg.nii.gz")},
    ),
    "one folder, words in the plural": (
        [f"d/p{n}{what}.nii.gz" for n in (1, 2) for what in ("", "_drawings", "_segs")],
        {"images": "d", "scribbles": "d", "dense": "d"},
        {f"p{n}": tuple(f"d/p{n}{what}.nii.gz" for what in ("", "_drawings", "_segs")) for n in (1, 2)},
    ),
    "one folder, Slicer's ending": (
        ["d/p1.nrrd", "d/p2.nrrd", "d/p1.seg.nrrd", "d/p2.seg.nrrd"],
        {"images": "d", "scribbles": "d"},
        {"p1": ("d/p1.nrrd", "d/p1.seg.nrrd"), "p2": ("d/p2.nrrd", "d/p2.seg.nrrd")},
    ),
    "one folder, channels": (
        ["d/p1_image_0000.nii.gz", "d/p2_image_0000.nii.gz", "d/p1_mask.nii.gz", "d/p2_mask.nii.gz"],
        {"images": "d", "scribbles": "d"},
        {"p1": ("d/p1_image_0000.nii.gz", "d/p1_mask.nii.gz"), "p2": ("d/p2_image_0000.nii.gz", "d/p2_mask.nii.gz")},
    ),
    "endings of their own in two folders": (
        ["i/p_1_img.png", "i/p_2_img.png", "s/p_1_drawn.png", "s/p_2_drawn.png"],
        {"images": "i", "scribbles": "s"},
        {"p_1": ("i/p_1_img.png", "s/p_1_drawn.png"), "p_2": ("i/p_2_img.png", "s/p_2_drawn.png")},
    ),
    "BIDS": (
        [
            *(f"b/sub-0{n}/anat/sub-0{n}_T1w.nii.gz" for n in (1, 2)),
            *(f"b/derivatives/drawn/sub-0{n}/anat/sub-0{n}_label-heart_mask.nii.gz" for n in (1, 2)),
            *("b/participants.tsv", "b/dataset_description.json", "b/README"),
        ],
        {"images": "b", "scribbles": "b/derivatives/drawn"},
        {
            f"sub-0{n}": (
                f"b/sub-0{n}/anat/sub-0{n}_T1w.nii.gz",
                f"b/derivatives/drawn/sub-0{n}/anat/sub-0{n}_label-heart_mask.nii.gz",
            )
            for n in (1, 2)
        },
    ),
    "sessions": (
        [f"i/p{n}/{day}/t1.nii" for n in (1, 2) for day in "ab"]
        + [f"s/p{n}/{day}/x.nii" for n in (1, 2) for day in "ab"],
        {"images": "i", "scribbles": "s"},
        {f"p{n}_{day}": (f"i/p{n}/{day}/t1.nii", f"s/p{n}/{day}/x.nii") for n in (1, 2) for day in "ab"},
    ),
    "a session in the folder of another": (
        ["i/p1/t1.nii", "i/p1/v2/t1.nii", "s/p1/drawn/x.nii", "s/p1/v2/drawn/x.nii"],
        {"images": "i", "scribbles": "s"},
        {"p1": ("i/p1/t1.nii", "s/p1/drawn/x.nii"), "p1_v2": ("i/p1/v2/t1.nii", "s/p1/v2/drawn/x.nii")},
    ),
    "sites": (
        [f"d/{site}/{what}/p{n}.nii" for site in "AB" for n in (1, 2) for what in ("images", "labels")],
        {"images": "d", "scribbles": "d"},
        {f"{s}_p{n}": (f"d/{s}/images/p{n}.nii", f"d/{s}/labels/p{n}.nii") for s in "AB" for n in (1, 2)},
    ),
    "sites, with words behind names": (
        [f"i/{site}/p{n}.nii" for site in "AB" for n in (1, 2)] + ["s/A/p1_x.nii", "s/B/p2_x.nii"],
        {"images": "i", "scribbles": "s"},
        {
            "A_p1": ("i/A/p1.nii", "s/A/p1_x.nii"),
            "A_p2": ("i/A/p2.nii",),
            "B_p1": ("i/B/p1.nii",),
            "B_p2": ("i/B/p2.nii", "s/B/p2_x.nii"),
        },
    ),
    "a label above its image": (
        [f"d/p{n}/1.2.{n}/4.{n}/scan.nii" for n in (1, 2)] + [f"d/p{n}/Segmentation.seg.nrrd" for n in (1, 2)],
        {"images": "d", "scribbles": "d"},
        {f"p{n}_1.2.{n}_4.{n}": (f"d/p{n}/1.2.{n}/4.{n}/scan.nii", f"d/p{n}/Segmentation.seg.nrrd") for n in (1, 2)},
    ),
    "one patient": (
        ["i/p1/scan.nii.gz", "s/p1/drawn.nii.gz"],
        {"images": "i", "scribbles": "s"},
        {"p1": ("i/p1/scan.nii.gz", "s/p1/drawn.nii.gz")},
    ),
    "labels in a folder of the images": (
        ["d/a.nii", "d/b.nii", "d/scribbles/a.nii", "d/scribbles/b.nii", "d/dense/a.nii", "d/dense/b.nii"],
        {"images": "d", "scribbles": "d/scribbles", "dense": "d/dense"},
        {case: (f"d/{case}.nii", f"d/scribbles/{case}.nii", f"d/dense/{case}.nii") for case in "ab"},
    ),
    "test cases in a folder per patient": (
        ["i/p1/scan.nii", "i/p2/scan.nii", "s/p1/x.nii", "s/p2/x.nii", "t/p3/scan.nii", "t/p4/scan.nii", "l/p3.nii"],
        {"images": "i", "scribbles": "s", "test_images": "t", "test_labels": "l"},
        {
            "p1": ("i/p1/scan.nii", "s/p1/x.nii"),
            "p2": ("i/p2/scan.nii", "s/p2/x.nii"),
            "p3": ("t/p3/scan.nii", "l/p3.nii"),
            "p4": ("t/p4/scan.nii",),
        },
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_recognised(tmp_path, layout):
    files, folders, expected = LAYOUTS[layout]
    touch(tmp_path, *files)
    assert look(tmp_path, **folders) == (expected, ())


def test_labels_that_a_link_in_the_folder_of_the_images_leads_to_are_no_images(tmp_path):
    touch(tmp_path, "d/a.nii", "d/b.nii", "elsewhere/a_scribble.nii", "elsewhere/b_scribble.nii")
    (tmp_path / "d" / "s").symlink_to(tmp_path / "elsewhere")
    expected = {case: (f"d/{case}.nii", f"d/s/{case}_scribble.nii") for case in "ab"}
    assert look(tmp_path, images="d", scribbles="d/s") == (expected, ())


def test_channels_by_their_names(tmp_path):
    names = ("T1", "flair", "T1ce")
    touch(tmp_path, *(f"i/p{n}/p{n}_{name}.nii" for n in (1, 2) for name in ("t1", "t1ce", "flair")), "s/p1_seg.nii")
    cases, problems = look(tmp_path, images="i", scribbles="s", channels=names)
    assert problems == ()
    assert cases["p1"] == ("i/p1/p1_t1.nii", "i/p1/p1_flair.nii", "i/p1/p1_t1ce.nii", "s/p1_seg.nii")
    touch(tmp_path, *(f"j/p{n}/{name}.nii" for n in (1, 2) for name in ("T1ce", "T1", "FLAIR")))
    cases, problems = look(tmp_path, images="j", channels=names)
    assert (problems, cases["p2"]) == ((), ("j/p2/T1.nii", "j/p2/FLAIR.nii", "j/p2/T1ce.nii"))


@pytest.mark.parametrize(
    ("files", "folders", "told"),
    [
        (
            ["i/p1/t1.nii", "i/p1/t2.nii", "i/p2/t1.nii", "s/p1.nii", "s/p2.nii"],
            {"images": "i", "scribbles": "s"},
            "i/p2/t1.nii: is called as {root}/i/p1/t1.nii: rename one of them if they show different patients",
        ),
        (
            ["i/heart-a.nii", "i/heart-b.nii", "s/aa.nii", "s/bb.nii"],
            {"images": "i", "scribbles": "s"},
            "s: holds no scribble named as one of the images: they are called aa, bb, images heart-a, heart-b",
        ),
        (
            ["d/a.nii", "d/b.nii"],
            {"images": "d", "scribbles": "d"},
            "d: is given for images and scribbles, which the names of its files do not tell apart (a.nii, b.nii)",
        ),
        (
            ["i/a.nii", "s/a_1.nii", "s/a_2.nii"],
            {"images": "i", "scribbles": "s"},
            "is a scribble of the same case: keep one, with all classes in it",
        ),
        (
            ["i/a.nii", "i/b.nii", "s/x/a.nii", "s/x/b.nii", "s/x/c.nii"],
            {"images": "i", "scribbles": "s"},
            "s/x/c.nii: has no image: add it, or remove the scribble",
        ),
        (
            ["d/p1/a/t1.nii", "d/p1/b/t1.nii", "d/p2/c/t1.nii", "d/p1/seg.nii", "d/p2/seg.nii"],
            {"images": "d", "scribbles": "d"},  # p1 has two images
            "d/p2/c/t1.nii: is called as {root}/d/p1/a/t1.nii",
        ),
        (
            ["i/p1.nii", *(f"s/p1/{again}/{name}.nii" for again in "xy" for name in ("MYO", "RV"))],
            {"images": "i", "scribbles": "s"},
            "s: holds no scribble named as one of the images: they are called MYO, RV, MYO, RV, images p1",
        ),
        (
            ["i/A/p1.nii", "i/B/p1.nii", "i/B/p2.nii", "s/A/p2.nii"],
            {"images": "i", "scribbles": "s"},  # A has one image alone, and this is not its drawing
            "i/B/p1.nii: is called as {root}/i/A/p1.nii",
        ),
        (["i/a.nii", "s/a.jpg"], {"images": "i", "scribbles": "s"}, None),
        (["i/a.nii", "s/a.dcm", "s/a.nii"], {"images": "i", "scribbles": "s"}, "dcm2niix makes NIfTI of DICOM"),
    ],
)
def test_what_is_not_understood_is_told_with_names_of_both_sides(tmp_path, files, folders, told):
    touch(tmp_path, *files)
    try:
        _, problems = look(tmp_path, **folders)
    except AttenScribbleError as error:
        problems = error.problems
    if told is None:
        found = look_at_folders(Folders(tmp_path / "i", tmp_path / "s"), Marks(CLASSES))
        with pytest.raises(AttenScribbleError, match=r"a\.jpg: JPEG changes the values of labels: save it as PNG"):
            found.cases[0].scribble.source()
    else:
        assert told.format(root=tmp_path) in "\n".join(problems)


def test_dicom_series_are_images_named_by_their_folders(tmp_path):
    for patient in ("p1", "p2"):
        pixels = sitk.GetArrayFromImage(make_scan(int(patient[1]))).astype(np.uint16)
        for number, section in enumerate(pixels):
            file = tmp_path / "i" / patient / "series" / f"IM{number}"
            write_slice(file, section, 8.0 * number, f"1.2.{patient[1]}", number=number)
    for place in (tmp_path / "i", tmp_path / "i" / "p1" / "series"):  # DICOM itself, and no slice
        (place / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    for patient in ("p1", "p2"):
        grid = look_at_folders(Folders(tmp_path / "i"), Marks(CLASSES)).cases[int(patient[1]) - 1].images[0]()
        label = sitk.GetImageFromArray(make_strokes())
        label.CopyInformation(grid)
        save(tmp_path / "s" / f"{patient}.nrrd", label)
    written = convert_folder(tmp_path / "i", tmp_path / "s", tmp_path / "raw", classes=CLASSES)
    for patient in ("p1", "p2"):
        image = sitk.ReadImage(written.scribble / "imagesTr" / f"{patient}_0000.nii.gz")
        expected = sitk.GetArrayFromImage(make_scan(int(patient[1])))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected)
    inputs = json.loads((written.scribble / "provenance.json").read_text())["inputs"]["p1"]
    assert [entry["file"] for entry in inputs["further"]] == ["IM0", "IM1", "IM2", "IM3"]
    for patient in ("p1", "p2"):  # drawings beside the slices, as tools call them
        (tmp_path / "s" / f"{patient}.nrrd").rename(tmp_path / "i" / patient / "Segmentation.nrrd")
    found = look_at_folders(Folders(tmp_path / "i", tmp_path / "i"), Marks(CLASSES))
    assert not found.problems
    assert [(case.identifier, case.scribble.file.parent.name) for case in found.cases] == [("p1", "p1"), ("p2", "p2")]


RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def paint(values, colours, alpha=None):
    """(Y, X, 3 or 4) of values by their colours."""
    picture = np.array(colours, np.uint8)[values]
    return picture if alpha is None else np.dstack((picture, alpha))


def write_picture(file: Path, pixels, mode=None):
    from PIL import Image

    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8), mode).save(file)


@pytest.fixture
def drawn():
    """(Y, X) of one class 1, with background strokes 0 and unlabelled 2."""
    values = np.full((12, 14), 2, np.uint8)
    values[2, 2:12], values[6:8, 5:8] = 0, 1
    return values


def convert_pictures(root, labels="A=#ff0000", **options):
    return convert_folder(root / "i", root / "s", root / "raw", classes=parse_marks(labels), **options)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_colours_are_classes(tmp_path, drawn, ending):
    photograph = np.random.default_rng(0).integers(0, 255, (*drawn.shape, 3), np.uint8)
    write_picture(tmp_path / "i" / "a.png", photograph)
    write_picture(tmp_path / "s" / f"a{ending}", paint(drawn, [GREEN, RED, BLACK]))
    written = convert_pictures(tmp_path, background_scribble="#00FF00", unlabelled="#000000", channels=("R", "G", "B"))
    label = sitk.GetArrayFromImage(sitk.ReadImage(written.scribble / "labelsTr" / "a.nii.gz"))
    np.testing.assert_array_equal(label, drawn)
    for channel in range(3):
        image = sitk.ReadImage(written.scribble / "imagesTr" / f"a_000{channel}.nii.gz")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), photograph[..., channel])
    assert "1 scribble read by colour: #000000 unlabelled, #00ff00 background, #ff0000 A" in written.notes


def test_grey_bmp_pictures_have_one_channel(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1)  # Pillow refuses what is larger
    grey = np.random.default_rng(0).integers(0, 255, drawn.shape, np.uint8)
    write_picture(tmp_path / "i" / "a.bmp", grey)
    write_picture(tmp_path / "s" / "a.bmp", drawn)
    written = convert_pictures(tmp_path, labels="A")
    for folder, expected in (("imagesTr/a_0000", grey), ("labelsTr/a", drawn)):
        image = sitk.ReadImage(written.scribble / f"{folder}.nii.gz")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected)


def test_palettes_grey_pictures_and_transparent_pixels_are_colours_too(tmp_path, drawn):
    from PIL import Image

    for case in "abc":
        write_picture(tmp_path / "i" / f"{case}.jpg", np.full(drawn.shape, 90))
    palette = Image.fromarray(drawn, "P")
    palette.putpalette([*GREEN, *RED, *WHITE])
    (tmp_path / "s").mkdir()
    palette.save(tmp_path / "s" / "a.png")
    write_picture(tmp_path / "s" / "b.png", np.full(drawn.shape, 255))  # grey: nothing was drawn
    write_picture(tmp_path / "s" / "c.png", paint(drawn, [GREEN, RED, BLUE], alpha=255 * (drawn != 2)))
    written = convert_pictures(tmp_path, background_scribble="#00ff00", unlabelled="#ffffff")
    for case, expected in (("a", drawn), ("b", np.full_like(drawn, 2)), ("c", drawn)):
        label = sitk.GetArrayFromImage(sitk.ReadImage(written.scribble / "labelsTr" / f"{case}.nii.gz"))
        np.testing.assert_array_equal(label, expected)


def test_colours_of_dense_labels_are_on_black(tmp_path, drawn):
    write_picture(tmp_path / "i" / "a.png", np.full(drawn.shape, 90))
    write_picture(tmp_path / "l" / "a.png", paint(drawn, [BLACK, RED, BLACK]))
    folders = (tmp_path / "i", None, tmp_path / "raw")
    written = convert_folder(*folders, dense=tmp_path / "l", classes={"A": "#ff0000"})
    label = sitk.GetArrayFromImage(sitk.ReadImage(written.dense / "labelsTr" / "a.nii.gz"))
    np.testing.assert_array_equal(label, drawn == 1)


@pytest.mark.parametrize("labels", ["A=#ff0000", "A=#ff0000,B=7"])
def test_black_is_unlabelled_in_scribbles_and_background_in_dense_labels(tmp_path, drawn, labels):
    write_picture(tmp_path / "i" / "a.png", np.full(drawn.shape, 90))
    write_picture(tmp_path / "s" / "a.png", paint(drawn, [GREEN, RED, BLACK]))
    write_picture(tmp_path / "l" / "a.png", paint(drawn, [BLACK, RED, BLACK]))
    said = {"background_scribble": "#00ff00", "unlabelled": "#000000", "dense": tmp_path / "l"}
    written = convert_pictures(tmp_path, labels, **said)
    label = sitk.GetArrayFromImage(sitk.ReadImage(written.dense / "labelsTr" / "a.nii.gz"))
    np.testing.assert_array_equal(label, drawn == 1)


@pytest.mark.parametrize(
    ("labels", "pixels", "told"),
    [
        (
            "A",
            lambda drawn: paint(drawn, [GREEN, RED, BLACK]),
            "has the colours #000000 (90.5 %), #00ff00 (5.95 %), #ff0000",
        ),
        (
            "A=#ff0000",
            lambda drawn: paint(drawn, [BLUE, RED, WHITE]),
            "has the colours #0000ff (5.95 %) (named: #ff0000, #00ff00",
        ),
        (
            "A=#ff0000",
            lambda drawn: paint(np.zeros_like(drawn), [BLUE]),
            "has the colours #0000ff (100 %) (named",
        ),
        (
            "A=#ff0000",
            lambda drawn: np.random.default_rng(0).integers(0, 255, (*drawn.shape, 3)),
            "colours that are not named (",
        ),
        (
            "A=#ff0000",
            lambda drawn: paint(drawn, [GREEN, RED, WHITE], alpha=np.full(drawn.shape, 128)),
            "transparent in part",
        ),
    ],
)
def test_colours_that_nobody_named_are_told(tmp_path, drawn, labels, pixels, told):
    write_picture(tmp_path / "i" / "a.png", np.full(drawn.shape, 90))
    write_picture(tmp_path / "s" / "a.png", pixels(drawn))
    named = {} if labels == "A" else {"background_scribble": "#00ff00", "unlabelled": "#ffffff"}
    with pytest.raises(AttenScribbleError, match=r"s/a\.png: ") as caught:
        convert_pictures(tmp_path, labels, **named)
    assert len(caught.value.problems) == 1
    assert told in caught.value.problems[0]


def test_colours_of_sixteen_bits_are_refused(tmp_path, drawn):
    write_picture(tmp_path / "i" / "a.png", np.full(drawn.shape, 90))
    (tmp_path / "s").mkdir()
    tifffile.imwrite(
        tmp_path / "s" / "a.tif", 257 * paint(drawn, [GREEN, RED, WHITE]).astype(np.uint16), photometric="rgb"
    )
    with pytest.raises(AttenScribbleError, match="more than 8 bits"):
        convert_pictures(tmp_path, background_scribble="#00ff00", unlabelled="#ffffff")


@pytest.mark.parametrize(
    ("marks", "told"),
    [
        (Marks({"A": "#ff0000", "B": "#FF0000"}), "'#FF0000' cannot mean both A and B"),
        (Marks({"A": "x"}, background="X"), "'X' cannot mean both A and background"),
        (Marks({"A": "B", "B": None}), "'B' cannot mean both B and A"),
        (Marks({"A": None}, unlabelled="a"), "'a' cannot mean both A and unlabelled"),
    ],
)
def test_a_mark_with_two_meanings_is_refused(marks, told):
    assert marks.problems() == [told]


def test_marks_are_parsed():
    assert [parse_mark(text) for text in ("-1", "7", "a-1", "-")] == [-1, 7, "a-1", "-"]
    assert parse_marks("A=#00ff00, B = left side,C=3,D") == {"A": "#00ff00", "B": "left side", "C": 3, "D": None}
    for wrong in ("A=#ff", "A=", "A,a", "A=1,B=1", "ignore=3", "A=0", "A=-1"):
        with pytest.raises(AttenScribbleError, match="is no class of its own"):
            parse_marks(wrong)


def test_a_colour_that_was_named_is_not_the_grey_of_a_value():
    coding = ScribbleCoding(unlabelled=255, background=0)
    assert Marks({"A": 1}, coding).colours_and_greys() == {BLACK: "background", WHITE: "unlabelled"}
    assert Marks({"A": "#000000"}, coding).colours_and_greys() == {BLACK: "A", WHITE: "unlabelled"}
    green = Marks({"A": 1}, coding, background="#00ff00").colours_and_greys()
    assert green == {GREEN: "background", WHITE: "unlabelled"}
    assert Marks({"A": "#000000"}, coding, dense=True).colours_and_greys() == {BLACK: "A"}


def _few_slices(kept=(1,)):
    """A dense label of which only some slices were drawn, and what is to become of it."""
    dense, expected = make_dense(), np.full_like(make_dense(), 4)
    for at in range(len(dense)):
        if at in kept:
            expected[at] = dense[at]
        else:
            dense[at] = 0
    return dense, expected


def _convert_slices(root, labels, **options):
    for case, label in labels.items():
        save(root / "i" / f"{case}.nii.gz", make_scan(len(case)))
        save(root / "s" / f"{case}.nii.gz", label)
    written = convert_folder(root / "i", root / "s", root / "raw", classes=CLASSES, **options)
    found = {
        case: sitk.GetArrayFromImage(sitk.ReadImage(written.scribble / "labelsTr" / f"{case}.nii.gz"))
        for case in labels
    }
    return found, [note for note in written.notes if "labelled as a whole" in note]


def test_dense_slices_scribbles_and_empty_cases_together(tmp_path):
    dense, expected = _few_slices()
    labels = {"dense": dense, "drawn": make_strokes(), "none": np.zeros_like(dense), "whole": make_dense()}
    with pytest.raises(AttenScribbleError, match=r"dense\.nii\.gz: .*--dense-slices"):
        _convert_slices(tmp_path, labels)
    found, (told,) = _convert_slices(tmp_path, labels, dense_slices=".")
    assert told.startswith("3 files are read as labelled as a whole")
    assert re.findall(r"(\w+)\.nii\.gz", told) == ["dense", "none", "whole"]
    whole = np.where((make_dense() > 0).any(axis=(1, 2), keepdims=True), make_dense(), 4)
    wanted = {"dense": expected, "drawn": make_strokes(), "none": np.full_like(dense, 4), "whole": whole}
    for case, label in found.items():
        np.testing.assert_array_equal(label, wanted[case], err_msg=case)


def test_dense_slices_of_chosen_cases_where_zero_is_unlabelled(tmp_path):
    dense, expected = _few_slices()
    strokes = make_strokes()
    few = np.where((strokes == 4) | (strokes == 0), 0, strokes)  # no stroke in the background
    labels = {"d1": dense, "s1": few, "d2": np.where(strokes == 4, 0, np.where(strokes == 0, 4, strokes))}
    found, (told,) = _convert_slices(tmp_path, labels, dense_slices="^d", unlabelled=0)
    assert re.findall(r"(\w+)\.nii\.gz", told) == ["d1"]
    np.testing.assert_array_equal(found["d1"], expected)
    np.testing.assert_array_equal(found["s1"], np.where(few == 0, 4, few))
    np.testing.assert_array_equal(found["d2"], strokes)  # background strokes say that it is no dense label


def test_dense_slices_across_an_axis_that_is_told(tmp_path):
    dense = np.zeros((5, 5, 5), np.uint8)
    dense[1:4, 2, 1:3] = 1
    save(tmp_path / "i" / "a.nii.gz", make_volume(7, np.int16, size=(5, 5, 5), spacing=(1, 1, 1)))
    save(tmp_path / "s" / "a.nii.gz", make_volume(dense, size=(5, 5, 5), spacing=(1, 1, 1)))
    folders, options = (tmp_path / "i", tmp_path / "s", tmp_path / "raw"), {"classes": {"A": None}, "dense_slices": "."}
    with pytest.raises(AttenScribbleError, match="no axis has the largest spacing: say across which one"):
        convert_folder(*folders, **options)
    written = convert_folder(*folders, axis=1, **options)
    label = sitk.GetArrayFromImage(sitk.ReadImage(written.scribble / "labelsTr" / "a.nii.gz"))
    expected = np.full_like(dense, 2)
    expected[:, 2] = dense[:, 2]
    np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize(
    ("pattern", "told"), [("(", "is no regular expression"), ("x", "is found in the name of no case")]
)
def test_dense_slices_of_no_case_are_refused(tmp_path, pattern, told):
    with pytest.raises(AttenScribbleError, match=told):
        _convert_slices(tmp_path, {"a": make_strokes()}, dense_slices=pattern)
