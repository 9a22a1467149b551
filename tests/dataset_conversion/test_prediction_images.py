"""Images of one's own become what nnU-Net's prediction finds, or are refused."""

from __future__ import annotations

import json
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_attenscribble.cli import QUIET
from nnunet_attenscribble.common.grids import geometry_problems
from nnunet_attenscribble.dataset_conversion import prediction_images
from nnunet_attenscribble.dataset_conversion.cases import write_images
from tests.tiny import make_scan


@pytest.fixture
def prepare(tmp_path, monkeypatch, attenscribble):
    """Run the command on a dataset with the given description; returns exit code, output and errors."""

    def run(channels=("MRI",), ending=".nii.gz", dataset="601", output="prepared", options=(), **described):
        monkeypatch.setenv(QUIET, "1")
        folder = tmp_path / "nnUNet_raw" / "Dataset601_Mine"
        folder.mkdir(parents=True, exist_ok=True)
        description = {
            "channel_names": {str(number): name for number, name in enumerate(channels)},
            "labels": {"background": 0, "A": 1, "ignore": 2},
            "numTraining": 5,
            "file_ending": ending,
            **described,
        }
        (folder / "dataset.json").write_text(json.dumps(description))
        folders = ["-i", tmp_path / "images", "-o", tmp_path / output]
        return attenscribble("prepare", dataset, *folders, "--workers", 1, *options)

    (tmp_path / "images").mkdir()
    return run


def _as_nnunet_reads(folder, ending, case="a", channels=2):
    """Voxels (C, Z, Y, X) and spacing along z, y and x."""
    files = [str(folder / f"{case}_{channel:04d}{ending}") for channel in range(channels)]
    reader = Tiff3DIO if ending == ".tif" else SimpleITKIO
    voxels, properties = reader().read_images(files)
    return voxels, tuple(properties["spacing"])


def _listing(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd", ".nii", ".mhd", ".nhdr", ".hdr"])
def test_every_format_becomes_what_nnunet_finds(tmp_path, prepare, ending):
    from nnunetv2.utilities.utils import create_lists_from_splitted_dataset_folder

    for number in (3, 12):
        sitk.WriteImage(make_scan(number), tmp_path / "images" / f"heart_{number}{ending}")
    code, out, err = prepare()
    assert (code, err) == (0, "")
    assert "holds 2 cases" in out
    assert f"nnUNetv2_predict -i {tmp_path / 'prepared'} -o PREDICTIONS -d 601" in out
    found = create_lists_from_splitted_dataset_folder(str(tmp_path / "prepared"), ".nii.gz")
    assert found == [[str(tmp_path / "prepared" / f"heart_{number}_0000.nii.gz")] for number in (12, 3)]
    voxels, _ = SimpleITKIO().read_images(found[1])
    np.testing.assert_array_equal(voxels[0], sitk.GetArrayFromImage(make_scan(3)))


def test_the_folder_that_one_is_in_has_its_name(tmp_path, prepare, monkeypatch):
    sitk.WriteImage(make_scan(0), tmp_path / "images" / "a.nii.gz")
    (tmp_path / "nnUNet_raw" / "Dataset601_Mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "nnUNet_raw" / "Dataset601_Mine")
    _, out, _ = prepare(dataset=".")
    assert "holds 1 case, as Dataset601_Mine has its images" in out
    assert "-o PREDICTIONS -d Dataset601_Mine -c" in out


def test_of_a_model_the_command_is_that_of_its_folder(tmp_path, prepare):
    sitk.WriteImage(make_scan(0), tmp_path / "images" / "a.nii.gz")
    model = tmp_path / "T__P__2d"
    model.mkdir()
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "A": 1}, "numTraining": 5}
    (model / "dataset.json").write_text(json.dumps(description | {"file_ending": ".nii.gz"}))
    (model / "plans.json").write_text("{}")
    code, out, err = prepare(dataset=str(model))
    assert (code, err) == (0, "")
    assert f"nnUNetv2_predict_from_modelfolder -i {tmp_path / 'prepared'} -o PREDICTIONS -m {model} -f FOLD" in out


def test_channels_by_name_and_a_folder_per_patient(tmp_path, prepare):
    for patient in ("p1", "p2"):
        (tmp_path / "images" / patient).mkdir()
        for seed, name in enumerate(("T1", "T2")):
            sitk.WriteImage(make_scan(seed), tmp_path / "images" / patient / f"{name}.nii.gz")
    assert prepare(channels=("T2", "T1"))[0] == 0
    assert _listing(tmp_path / "prepared") == [f"p{n}_000{channel}.nii.gz" for n in (1, 2) for channel in (0, 1)]
    first = sitk.ReadImage(tmp_path / "prepared" / "p1_0000.nii.gz")
    assert sitk.Hash(first) == sitk.Hash(make_scan(1))


def test_channels_that_are_missing_or_called_otherwise_are_told_by_their_names(tmp_path, prepare):
    for name in ("x0_T1", "x0_flair", "x1_t1", "x1_t1ce", "x1_flair"):
        sitk.WriteImage(make_scan(0), tmp_path / "images" / f"{name}.mha")
    code, _, err = prepare(channels=("flair", "t1", "t1ce"))
    known = "the dataset has the channels flair, t1, t1ce"
    assert (code, err) == (2, f"error: case x0: t1ce is missing: {known}\n")
    for name in ("x0_t1ce", "x2_t1", "x2_t1ce"):  # in a folder of their own
        (tmp_path / "images" / "more").mkdir(exist_ok=True)
        sitk.WriteImage(make_scan(0), tmp_path / "images" / "more" / f"{name}.mha")
    code, _, err = prepare(channels=("flair", "t1", "t1ce"))
    assert (code, err) == (2, f"error: case x2: flair is missing: {known}\n")
    shutil.rmtree(tmp_path / "images" / "more")
    code, _, err = prepare(channels=("T1w", "T2w"))
    assert code == 2
    told = "its images are called x0_T1, x0_flair, x1_flair, x1_t1, x1_t1ce, and the dataset has the channels T1w, T2w"
    assert err == f"error: {tmp_path / 'images'}: {told}: end their names in these, or in _0000 and so on\n"


def test_colour_pictures_for_a_dataset_of_channels_and_for_one_of_pictures(tmp_path, prepare):
    colours = np.random.default_rng(0).integers(0, 255, (9, 8, 3), np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), tmp_path / "images" / "a.png")
    assert prepare(channels="RGB")[0] == 0
    assert _listing(tmp_path / "prepared") == [f"a_000{channel}.nii.gz" for channel in range(3)]
    assert prepare(channels="RGB", ending=".png", output="pictures")[0] == 0
    assert (tmp_path / "pictures" / "a_0000.png").read_bytes() == (tmp_path / "images" / "a.png").read_bytes()
    assert _listing(tmp_path / "pictures") == ["a_0000.png"]


@pytest.mark.parametrize("ending", [".tif", ".mha"])
def test_a_spacing_that_files_do_not_state_is_asked_for_and_written(tmp_path, prepare, ending):
    scans = [np.arange(120, dtype=np.int16).reshape(4, 5, 6) + channel for channel in (0, 1)]
    for channel, scan in enumerate(scans):
        file = tmp_path / "images" / f"a_000{channel}{ending}"
        if ending == ".tif":
            tifffile.imwrite(file, scan, photometric="minisblack")
            continue
        sitk.WriteImage(sitk.GetImageFromArray(scan), file)
        file.write_bytes(b"".join(line for line in file.read_bytes().splitlines(True) if b"Spacing" not in line))
    before = [(tmp_path / "images" / f"a_000{channel}{ending}").read_bytes() for channel in (0, 1)]
    code, _, err = prepare(channels=("T1", "T2"), ending=ending)
    assert code == 2
    assert f"a_0000{ending}: states no spacing, by which nnU-Net plans: give it with --spacing X Y Z, in mm" in err
    code, _, err = prepare(channels=("T1", "T2"), ending=ending, options=("--spacing", 0, 1, 1))
    assert code == 2
    assert "spacing (0.0, 1.0, 1.0): give three numbers above 0" in err
    assert not (tmp_path / "prepared").exists()
    for output, step in (("prepared", (0.5, 0.25, 5)), ("by_1", (1, 1, 1))):
        options = ("--spacing", *step)
        assert prepare(channels=("T1", "T2"), ending=ending, output=output, options=options)[0] == 0
        voxels, spacing = _as_nnunet_reads(tmp_path / output, ending)
        np.testing.assert_array_equal(voxels, scans)
        assert spacing == step[::-1]
    assert [(tmp_path / "by_1" / f"a_000{channel}{ending}").read_bytes() for channel in (0, 1)] == before


def test_the_spacing_of_a_tiff_that_is_stated_anywhere_comes_along(tmp_path, prepare):
    scan = np.arange(120, dtype=np.uint16).reshape(4, 5, 6)
    tifffile.imwrite(tmp_path / "images" / "a.tif", scan, photometric="minisblack")
    (tmp_path / "images" / "a.json").write_text('{"spacing": [8, 0.25, 0.5]}')
    tags = {"metadata": {"axes": "ZYX", "spacing": 8, "unit": "mm"}, "resolution": (2, 4)}
    tifffile.imwrite(tmp_path / "images" / "b.tif", scan, imagej=True, **tags)
    tifffile.imwrite(tmp_path / "images" / "c.tif", scan, photometric="minisblack")
    (tmp_path / "images" / "c.json").write_text('{"spacing": [8, 0.25, 0.5]}', encoding="utf-8-sig")  # as Windows does
    assert prepare(ending=".tif")[0] == 0
    for case in "abc":
        voxels, spacing = _as_nnunet_reads(tmp_path / "prepared", ".tif", case, channels=1)
        np.testing.assert_array_equal(voxels[0], scan)
        assert spacing == (8, 0.25, 0.5)


def test_json_of_other_things_beside_a_tiff_does_not_come_along(tmp_path, prepare):
    scan = np.arange(120, dtype=np.uint16).reshape(4, 5, 6)
    tifffile.imwrite(tmp_path / "images" / "a.tif", scan, photometric="minisblack")
    (tmp_path / "images" / "a.json").write_text('{"shapes": []}')
    assert prepare(ending=".tif", options=("--spacing", 0.5, 0.25, 8))[0] == 0
    assert _as_nnunet_reads(tmp_path / "prepared", ".tif", channels=1)[1] == (8, 0.25, 0.5)


@pytest.mark.parametrize("ending", [".nrrd", ".nii", ".nii.gz"])
def test_channels_are_turned_onto_the_first(tmp_path, prepare, ending):
    scans = [make_scan(seed) for seed in (0, 1)]
    for channel, scan in enumerate((scans[0], sitk.Flip(scans[1], [True, False, False], False))):
        sitk.WriteImage(scan, tmp_path / "images" / f"a_000{channel}{ending}")
    code, out, _ = prepare(channels=("T1", "T2"), ending=ending)
    assert code == 0
    assert "Note: 1 files are stored in another order of axes than their image and were turned onto it (" in out
    voxels, _ = _as_nnunet_reads(tmp_path / "prepared", ending)
    np.testing.assert_array_equal(voxels, [sitk.GetArrayFromImage(scan) for scan in scans])
    first, second = (sitk.ReadImage(tmp_path / "prepared" / f"a_000{channel}{ending}") for channel in (0, 1))
    assert geometry_problems(first, second, "", "", as_stored=True) == []
    assert (tmp_path / f"prepared/a_0000{ending}").read_bytes() == (tmp_path / f"images/a_0000{ending}").read_bytes()


def test_sheared_images_for_a_dataset_of_a_reader_that_takes_them(tmp_path, prepare):
    affine = np.diag([1.0, 1, 5, 1])
    affine[0, 2] = 1.5
    scan = np.arange(120, dtype=np.int16).reshape(6, 5, 4)
    for name in ("a.nii.gz", "b.nii"):
        nibabel.save(nibabel.Nifti1Image(scan, affine), tmp_path / "images" / name)
    code, _, err = prepare()
    assert (code, err.count("its axes are not at right angles")) == (2, 2)
    assert prepare(overwrite_image_reader_writer="NibabelIO")[0] == 0
    for case in "ab":
        found = nibabel.load(tmp_path / "prepared" / f"{case}_0000.nii.gz")
        np.testing.assert_array_equal(found.dataobj, scan)
        np.testing.assert_allclose(found.affine, affine, atol=1e-6)


def test_names_that_all_files_share_say_nothing(tmp_path, prepare):
    for name in ("a_roi", "b_roi"):
        sitk.WriteImage(make_scan(0), tmp_path / "images" / f"{name}.nii.gz")
    assert prepare()[0] == 0
    assert _listing(tmp_path / "prepared") == ["a_roi_0000.nii.gz", "b_roi_0000.nii.gz"]


def test_a_model_without_its_dataset_is_enough(tmp_path, prepare, monkeypatch):
    sitk.WriteImage(make_scan(0), tmp_path / "images" / "a.nii.gz")
    prepare(output="first")
    (tmp_path / "nnUNet_raw").rename(tmp_path / "elsewhere")
    assert prepare(dataset=str(tmp_path / "elsewhere" / "Dataset601_Mine"))[0] == 0


NUMBERED = (
    ": number them from 0000; four digits at the end are the number of a channel: if they number cases, add _0000 "
    "behind them"
)


def one_scan(images):
    sitk.WriteImage(make_scan(0), images / "a.mha")


@pytest.mark.parametrize(
    ("damage", "options", "told"),
    [
        (one_scan, {"ending": ".nrrd"}, "a.mha: the images of this dataset end"),
        (one_scan, {"channels": ("x", "y")}, "case a: has 1 image channels"),
        (lambda i: (i / "a.nii.gz").write_bytes(b"x"), {}, "a.nii.gz: is named .gz but is not gzip data"),
        (lambda i: sitk.WriteImage(make_scan(0), i / "a_0001.mha"), {}, f"has no channel a_0000{NUMBERED}"),
        (
            lambda i: [sitk.WriteImage(make_scan(0), i / f"IMG_000{number}.mha") for number in (0, 1)],
            {},
            f"case IMG: has 2 image channels, the dataset 1 (MRI): give as many{NUMBERED.partition('0000')[2]}",
        ),
        (
            lambda i: [sitk.WriteImage(make_scan(0), i / f"{name}.mha") for name in ("a", "a_seg")],
            {},
            "a_seg.mha: is called as a drawing or a label: take it out of the folder",
        ),
        (lambda i: (i / "a.gif").touch(), {}, "a.gif: is of a kind that is not taken"),
        (lambda i: None, {}, "images: holds no image"),
        (one_scan, {"output": "images"}, "images: is there already"),
        (one_scan, {"output": "images/x"}, "lies in the folder of the images"),
        (
            lambda i: [(i / "a.nii.gz").write_bytes(b"x"), (i.parent / "file").touch()],
            {"output": "file/x"},
            "file: is not a folder: nothing can be written to",
        ),
        (lambda i: None, {"dataset": "602"}, "no dataset 602 in"),
    ],
)
def test_what_cannot_be_predicted_is_refused_and_nothing_is_written(tmp_path, prepare, damage, options, told):
    damage(tmp_path / "images")
    before = _listing(tmp_path / "images")
    code, _, err = prepare(**options)
    assert (code, told in err) == (2, True), err
    assert not (tmp_path / "prepared").exists()
    assert _listing(tmp_path / "images") == before


def test_what_another_run_has_written_meanwhile_stays(tmp_path, prepare, monkeypatch):
    def write(case, folder):
        (tmp_path / "prepared").mkdir()
        (tmp_path / "prepared" / "theirs").touch()
        return write_images(case, folder)

    one_scan(tmp_path / "images")
    monkeypatch.setattr(prediction_images, "write_images", write)
    code, _, err = prepare()
    assert (code, "prepared: is there already" in err) == (2, True), err
    assert _listing(tmp_path / "prepared") == ["theirs"]
