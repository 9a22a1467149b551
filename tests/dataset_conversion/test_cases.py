"""Images and labels that people have: in any order of axes, by any writer, with a spacing somewhere or nowhere."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from nnunet_attenscribble.common import volumes
from nnunet_attenscribble.common.grids import Grid
from nnunet_attenscribble.dataset_conversion.cases import Case, Coding, coded_label, write_images
from nnunet_attenscribble.errors import AttenScribbleError
from tests.dataset_conversion.downloads import convert_folder
from tests.tiny import make_dense, make_scan, make_strokes, make_volume

CLASSES = {"RV": 1, "MYO": 2, "LV": 3}


@pytest.fixture
def convert(tmp_path):
    """Converts `images` and `scribbles` in the test's folder."""

    def run(**options):
        folders = (tmp_path / "images", tmp_path / "scribbles", tmp_path / "raw")
        return convert_folder(*folders, **{"classes": CLASSES, **options})

    for part in ("images", "scribbles"):
        (tmp_path / part).mkdir()
    return run


def read(folder: Path, part: str, name: str) -> sitk.Image:
    return sitk.ReadImage(str(folder / part / f"{name}.nii.gz"))


def same_grid(one: sitk.Image, other: sitk.Image) -> bool:
    return all(
        np.allclose(getattr(one, f"Get{part}")(), getattr(other, f"Get{part}")(), atol=1e-5)
        for part in ("Size", "Spacing", "Origin", "Direction")
    )


def test_of_an_image_that_is_taken_over_the_header_is_enough(tmp_path, monkeypatch):
    file = tmp_path / "a.nii.gz"
    sitk.WriteImage(make_scan(0), file)
    grid = Grid.of(sitk.ReadImage(file))
    monkeypatch.setattr(volumes, "read_image", None)
    (tmp_path / "to").mkdir()
    assert write_images(Case("b", (file, file)), tmp_path / "to")[1] == grid
    assert [(tmp_path / f"to/b_000{channel}.nii.gz").read_bytes() for channel in (0, 1)] == [file.read_bytes()] * 2


# --- the order of axes ---


@pytest.mark.parametrize(
    ("order", "flips"),
    [((0, 1, 2), (True, False, False)), ((2, 0, 1), (False, True, True)), ((1, 0, 2), (True, True, True))],
)
def test_labels_and_channels_are_turned_onto_the_first_image(tmp_path, convert, order, flips):
    scans = [make_scan(seed) for seed in (0, 1)]
    sitk.WriteImage(scans[0], tmp_path / "images" / "a_0000.nii.gz")
    for image, file in (
        (scans[1], tmp_path / "images" / "a_0001.nii.gz"),
        (make_volume(make_strokes()), tmp_path / "scribbles" / "a.nii.gz"),
    ):
        sitk.WriteImage(sitk.Flip(sitk.PermuteAxes(image, order), flips, False), file)
    written = convert(channels=("T1", "T2"))
    for channel, scan in enumerate(scans):
        image = read(written.scribble, "imagesTr", f"a_{channel:04d}")
        assert same_grid(image, scans[0])
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(scan))
    label = read(written.scribble, "labelsTr", "a")
    assert same_grid(label, scans[0])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), make_strokes())
    note = written.notes[0]
    assert note.startswith("2 files are stored in another order of axes than their image and were turned onto it (")


def test_a_label_that_lies_beside_its_image_is_refused(tmp_path, convert):
    sitk.WriteImage(make_scan(0), tmp_path / "images" / "a.nii.gz")
    label = sitk.Flip(make_volume(make_strokes()), (True, False, False), False)
    label.SetOrigin(label.TransformIndexToPhysicalPoint((1, 0, 0)))
    sitk.WriteImage(label, tmp_path / "scribbles" / "a.nii.gz")
    with pytest.raises(
        AttenScribbleError, match=r"scribbles/a\.nii\.gz: origin .* its axes turned to follow the other's"
    ):
        convert()
    assert not (tmp_path / "raw").exists() or not list((tmp_path / "raw").glob("Dataset*"))


# --- headers ---


def test_a_negative_voxel_size_in_both(tmp_path, convert, negative_step):
    frame = {"direction": (1.0, 0, 0, 0, 1, 0, 0, 0, 1)}
    scan = make_volume(np.arange(120).reshape(4, 5, 6), np.int16, **frame)
    negative_step(scan, tmp_path / "images" / "a.nii.gz")
    negative_step(make_volume(make_strokes(), **frame), tmp_path / "scribbles" / "a.nii.gz")
    written = convert()
    image, label = read(written.scribble, "imagesTr", "a_0000"), read(written.scribble, "labelsTr", "a")
    assert same_grid(image, label)
    assert image.GetSpacing() == (1.5, 1.25, 8)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(scan))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), make_strokes())
    assert "files" not in "".join(written.notes)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti2_is_converted(tmp_path, convert, ending):
    affine = np.array([[0, -1.5, 0, 5], [1.25, 0, 0, 6], [0, 0, 8, 7], [0, 0, 0, 1]])
    scan = sitk.GetArrayFromImage(make_scan(0))
    for part, voxels in (("images", scan), ("scribbles", make_strokes())):
        nibabel.save(nibabel.Nifti2Image(voxels.transpose(), affine), tmp_path / part / f"a{ending}")
    written = convert(link=True)
    for part, name, voxels in (("imagesTr", "a_0000", scan), ("labelsTr", "a", make_strokes())):
        file = written.scribble / part / f"{name}.nii.gz"
        assert not file.is_symlink()  # which SimpleITK, by which the dataset is read, could not open
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(file))), voxels)
        np.testing.assert_allclose(nibabel.load(file).affine, affine, atol=1e-5)


@pytest.mark.parametrize("link", [False, True])
def test_labels_that_a_header_scales_are_rounded(tmp_path, convert, link):
    """1 and 2 of 4 are read as 1.0039 and 1.9922; truncated they would be 1 and 1."""
    sitk.WriteImage(make_scan(0), tmp_path / "images" / "a.nii.gz")
    file = tmp_path / "scribbles" / "a.nii.gz"
    sitk.WriteImage(make_volume(make_strokes()), file)
    loaded = nibabel.load(file)
    edited = nibabel.Nifti1Image(loaded.get_fdata(), loaded.affine, loaded.header)
    edited.to_filename(tmp_path / "edited.nii.gz")
    (tmp_path / "edited.nii.gz").rename(file)
    assert pytest.approx(sitk.GetArrayFromImage(sitk.ReadImage(str(file)))[1, 2, 1], abs=1e-4) == 1.0039
    written = convert(link=link)
    label = sitk.GetArrayFromImage(read(written.scribble, "labelsTr", "a"))
    np.testing.assert_array_equal(label, make_strokes())
    note = written.notes[0]
    assert note.startswith("1 files hold labels that their header scales (scl_slope), and were rounded to integers (")


# --- pictures ---


def write_pictures(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    drawn = np.full(shape[:2], 2, np.uint8)
    drawn[2, 2:20] = 0
    drawn[8:16, 10] = 1
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "images" / "a.png")
    Image.fromarray(drawn).save(folder / "scribbles" / "a.png")
    return pixels


def test_a_picture_in_colour_has_three_channels(tmp_path, convert):
    pixels = write_pictures(tmp_path, (20, 24, 3))
    with pytest.raises(AttenScribbleError, match=r"case a: has 3 image channels.*\(R,G,B for a picture in colour\)"):
        convert(classes={"A": 1})
    written = convert(classes={"A": 1}, channels=("R", "G", "B"))
    for channel in range(3):
        found = sitk.GetArrayFromImage(read(written.scribble, "imagesTr", f"a_{channel:04d}"))
        np.testing.assert_array_equal(found, pixels[..., channel])
    note = written.notes[0]
    assert note.startswith("1 files state no spacing: 1 mm was taken, as nnU-Net does (")


def test_pictures_of_one_bit_are_0_and_1(tmp_path, convert):
    write_pictures(tmp_path, (20, 24))
    mask = np.zeros((20, 24), bool)
    mask[4:12, 4:12] = True
    Image.fromarray(mask).save(tmp_path / "scribbles" / "a.png")
    folders = (tmp_path / "images", None, tmp_path / "raw")
    written = convert_folder(*folders, dense=tmp_path / "scribbles", classes={"A": 1})
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read(written.dense, "labelsTr", "a")), mask)


# --- spacing ---


def write_tiffs(folder: Path, **stated: object) -> None:
    for part, voxels in (("images", np.arange(120).reshape(4, 5, 6).astype(np.uint16)), ("scribbles", make_strokes())):
        options = {"imagej": True, "resolution": (2, 4), "metadata": {"axes": "ZYX", **stated}} if stated else {}
        tifffile.imwrite(folder / part / "a.tif", voxels, **options)


def test_the_spacing_among_the_tags_of_a_tiff(tmp_path, convert):
    write_tiffs(tmp_path, spacing=8, unit="mm")
    written = convert()
    assert read(written.scribble, "imagesTr", "a_0000").GetSpacing() == (0.5, 0.25, 8)
    assert read(written.scribble, "labelsTr", "a").GetSpacing() == (0.5, 0.25, 8)


def test_a_volume_without_a_spacing_is_asked_for_it(tmp_path, convert):
    write_tiffs(tmp_path)
    with pytest.raises(AttenScribbleError) as caught:
        convert()
    (problem, _) = caught.value.problems
    assert problem == (
        f"{tmp_path / 'images' / 'a.tif'}: states no spacing, by which nnU-Net plans: give it with --spacing X Y Z, "
        'in mm, or in a JSON file beside it, CASE.json: {"spacing": [z, y, x]}'
    )
    written = convert(spacing=(0.5, 0.25, 8))
    for part, name in (("imagesTr", "a_0000"), ("labelsTr", "a")):
        assert read(written.scribble, part, name).GetSpacing() == (0.5, 0.25, 8)
    assert "files" not in "".join(written.notes)


def test_a_label_may_leave_the_spacing_to_its_image(tmp_path, convert):
    write_tiffs(tmp_path)
    (tmp_path / "images" / "a.json").write_text('{"spacing": [8, 0.25, 0.5]}')
    written = convert()
    assert read(written.scribble, "labelsTr", "a").GetSpacing() == (0.5, 0.25, 8)


@pytest.mark.parametrize("beside", [True, False])
def test_slices_of_a_label_without_a_spacing_are_cut_as_those_of_its_image(tmp_path, convert, beside):
    image, label = tmp_path / "images" / "a.tif", tmp_path / "scribbles" / "a.tif"
    tifffile.imwrite(image, sitk.GetArrayFromImage(make_scan(0)), photometric="minisblack")
    tifffile.imwrite(label, make_dense(), photometric="minisblack")
    if beside:
        (tmp_path / "images" / "a.json").write_text('{"spacing": [8, 1, 1]}')
    step = None if beside else (1, 1, 8)
    written = convert(dense_slices=".", spacing=step)
    expected = np.where((make_dense() > 0).any(axis=(1, 2), keepdims=True), make_dense(), 4)
    found = read(written.scribble, "labelsTr", "a")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), expected)
    assert found.GetSpacing() == (1, 1, 8)
    case = Case("a", (image,), scribble=label, dense_slices="background", spacing=step)
    shown = coded_label(case, Coding({"background": 0, **CLASSES}, None, None, with_dense=False))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(shown), expected)


@pytest.mark.parametrize("link", [False, True])
def test_a_file_per_class_leaves_the_spacing_to_its_image_too(tmp_path, convert, link):
    tifffile.imwrite(tmp_path / "images" / "a.tif", make_dense(), photometric="minisblack")
    (tmp_path / "images" / "a.json").write_text('{"spacing": [8, 0.25, 0.5]}')
    (tmp_path / "scribbles" / "a").mkdir()
    for value, name in enumerate(("background", *CLASSES)):
        mask = (make_strokes() == value).astype(np.uint8)
        tifffile.imwrite(tmp_path / "scribbles" / "a" / f"{name}.tif", mask, photometric="minisblack")
    written = convert(link=link)
    label = read(written.scribble, "labelsTr", "a")
    assert label.GetSpacing() == (0.5, 0.25, 8)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), make_strokes())


def test_a_file_per_class_of_a_picture_takes_the_given_spacing(tmp_path, convert):
    write_pictures(tmp_path, (20, 24))
    drawn = np.asarray(Image.open(tmp_path / "scribbles" / "a.png"))
    (tmp_path / "scribbles" / "a.png").unlink()
    (tmp_path / "scribbles" / "a").mkdir()
    for value, name in enumerate(("background", "A")):
        Image.fromarray((drawn == value).astype(np.uint8)).save(tmp_path / "scribbles" / "a" / f"{name}.png")
    written = convert(classes={"A": 1}, spacing=(0.5, 0.5, 1))
    label = read(written.scribble, "labelsTr", "a")
    assert label.GetSpacing() == read(written.scribble, "imagesTr", "a_0000").GetSpacing() == (0.5, 0.5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), drawn)


def test_a_given_spacing_does_not_overrule_what_a_file_states_of_x_and_y_alone(tmp_path, convert):
    write_tiffs(tmp_path, unit="mm")
    with pytest.raises(AttenScribbleError) as caught:
        convert(spacing=(1, 1, 8))
    assert caught.value.problems == [
        f"{tmp_path / part / 'a.tif'}: states a spacing of (0.5, 0.25) mm, not the given one: give the same along x "
        "and y, or correct the file"
        for part in ("images", "scribbles")
    ]
    written = convert(spacing=(0.5, 0.25, 8))
    assert read(written.scribble, "labelsTr", "a").GetSpacing() == (0.5, 0.25, 8)


def test_a_given_spacing_does_not_overrule_a_file(tmp_path, convert):
    write_tiffs(tmp_path, spacing=8, unit="mm")
    with pytest.raises(AttenScribbleError) as caught:
        convert(spacing=(0.5, 0.5, 8))
    assert sum("states a spacing of (0.5, 0.25, 8) mm, not the given one" in p for p in caught.value.problems) == 2
    with pytest.raises(AttenScribbleError, match=r"spacing \(0, 1, 1\): give three numbers above 0"):
        convert(spacing=(0, 1, 1))
    written = convert(spacing=(0.5, 0.25, 8))
    assert read(written.scribble, "imagesTr", "a_0000").GetSpacing() == (0.5, 0.25, 8)


def test_other_formats_are_asked_too(tmp_path, convert):
    """A MetaImage need not say how far apart its voxels are."""
    image = sitk.GetImageFromArray(np.arange(120).reshape(4, 5, 6).astype(np.int16))
    sitk.WriteImage(image, tmp_path / "images" / "a.mha")
    label = sitk.GetImageFromArray(make_strokes())
    sitk.WriteImage(label, tmp_path / "scribbles" / "a.mha")
    for file in (tmp_path / "images" / "a.mha", tmp_path / "scribbles" / "a.mha"):
        lines = file.read_bytes().split(b"\n")
        file.write_bytes(b"\n".join(line for line in lines if not line.startswith(b"ElementSpacing")))
    with pytest.raises(
        AttenScribbleError, match=r"a\.mha: states no spacing, .* --spacing X Y Z, in mm, or correct its"
    ):
        convert()
    written = convert(spacing=(1, 2, 3))
    assert read(written.scribble, "labelsTr", "a").GetSpacing() == (1, 2, 3)


def test_a_picture_beside_a_volume_cannot_be_corrected(tmp_path, convert):
    sitk.WriteImage(make_scan(0), tmp_path / "images" / "a.nii.gz")
    tifffile.imwrite(tmp_path / "scribbles" / "a.tif", make_strokes())
    with pytest.raises(AttenScribbleError) as caught:  # as napari saves it: a spacing alone would lead nowhere
        convert()
    (problem,) = caught.value.problems
    assert problem.endswith("a.nii.gz does: save it as .nii.gz, or both in this format")
    (tmp_path / "scribbles" / "a.json").write_text('{"spacing": [8, 1.25, 1.5]}')
    with pytest.raises(AttenScribbleError) as caught:
        convert()
    for problem, what in zip(caught.value.problems, ("origin", "direction"), strict=True):
        assert problem.endswith(f"a TIFF holds no {what} to correct: save a.tif as .nii.gz, .mha or .nrrd")


def test_dense_labels_come_in_any_order_too(tmp_path, convert):
    sitk.WriteImage(make_scan(0), tmp_path / "images" / "a.nii.gz")
    sitk.WriteImage(make_volume(make_strokes()), tmp_path / "scribbles" / "a.nii.gz")
    (tmp_path / "dense").mkdir()
    sitk.WriteImage(sitk.DICOMOrient(make_volume(make_dense()), "RAS"), tmp_path / "dense" / "a.nii.gz")
    written = convert(dense=tmp_path / "dense")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read(written.dense, "labelsTr", "a")), make_dense())


# --- pictures, on which tools draw volumes of one slice ---


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd", ".tif"])
def test_a_volume_of_one_slice_is_a_drawing_on_a_picture(tmp_path, convert, ending):
    write_pictures(tmp_path, (20, 24))
    drawn = sitk.ReadImage(tmp_path / "scribbles" / "a.png")
    (tmp_path / "scribbles" / "a.png").unlink()
    values = sitk.GetArrayFromImage(drawn)
    if ending == ".tif":
        tifffile.imwrite(tmp_path / "scribbles" / "a.tif", values[None], photometric="minisblack")
    else:
        sitk.WriteImage(sitk.JoinSeries([drawn]), tmp_path / "scribbles" / f"a{ending}")
    written = convert(classes={"A": 1}, link=True)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read(written.scribble, "labelsTr", "a")), values)


@pytest.mark.parametrize("ending", [".nii.gz", ".tif"])
def test_slices_on_a_picture_and_a_picture_on_slices_are_refused(tmp_path, convert, ending):
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "images" / "a.png")
    label = tmp_path / "scribbles" / f"a{ending}"
    if ending == ".tif":
        tifffile.imwrite(label, make_strokes(), photometric="minisblack")
    else:
        sitk.WriteImage(sitk.GetImageFromArray(make_strokes()), label)
    sitk.WriteImage(make_scan(0), tmp_path / "images" / "b.mha")
    Image.fromarray(make_strokes()[1]).save(tmp_path / "scribbles" / "b.png")
    with pytest.raises(AttenScribbleError) as caught:
        convert()
    told = "\n".join(caught.value.problems)
    assert f"a{ending}: size (6, 5, 4) differs from (6, 5) of {tmp_path / 'images' / 'a.png'}: both must" in told
    assert f"b.png: size (6, 5) differs from (6, 5, 4) of {tmp_path / 'images' / 'b.mha'}: both must" in told
