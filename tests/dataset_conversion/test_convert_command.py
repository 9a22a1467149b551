"""`attenscribble convert` as it is typed."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from tests.dataset_conversion.downloads import write_chaos, write_folders, write_h5, write_mscmr, write_scribblebench


def test_it_tells_what_it_wrote_and_what_comes_next(tmp_path, attenscribble, write_acdc):
    folder, scribbles = write_acdc()
    code, out, err = attenscribble("convert", "acdc", folder, "--scribbles", scribbles, "-d", 501, "--workers", 1)
    assert code == 0
    assert f"{tmp_path / 'nnUNet_raw' / 'Dataset501_ACDC'}  (10 training cases)" in out
    assert "Scribbled:" in out
    assert out.splitlines()[-1].strip() == "nnUNetv2_plan_and_preprocess -d 501 502 -c 2d --verify_dataset_integrity"
    assert "export" not in out  # the environment names the folders already
    assert err.splitlines()[-1] == "Writing: 10 of 10"  # plain lines, since stderr is no terminal here
    for dataset in ("Dataset501_ACDC", "Dataset502_ACDCDense"):
        assert (tmp_path / "nnUNet_preprocessed" / dataset / "splits_final.json").is_file()


def test_coverage_by_class(attenscribble, write_acdc, dense, strokes):
    folder, scribbles = write_acdc()
    _, out, _ = attenscribble("convert", "acdc", folder, "-s", scribbles, "-d", 501, "--workers", 1)
    for value, label in enumerate(("background", "RV", "MYO", "LV")):
        assert f"{label} {100 * (strokes == value).sum() / (dense == value).sum():.2f} %" in out
    assert f"{100 * (strokes != 4).mean():.2f} % of all voxels" in out


def test_folders_by_option(tmp_path, attenscribble, write_acdc, monkeypatch):
    monkeypatch.delenv("nnUNet_raw")
    monkeypatch.delenv("nnUNet_preprocessed")
    folder, scribbles = write_acdc(dense=False)
    code, out, _ = attenscribble(
        *("convert", "acdc", folder, "-s", scribbles, "-d", 7, "--raw", tmp_path / "mine", "--workers", 1)
    )
    assert code == 0
    assert f'export nnUNet_raw="{tmp_path / "mine"}"' in out
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["Dataset007_ACDC"]


def test_a_first_timers_error_is_one_line(attenscribble, write_acdc, monkeypatch):
    folder, scribbles = write_acdc()
    monkeypatch.delenv("nnUNet_raw")
    code, out, err = attenscribble("convert", "acdc", folder, "-s", scribbles, "-d", 501)
    assert (code, out) == (2, "")
    assert err.startswith("error: nnUNet_raw is not set: export nnUNet_raw=")
    assert len(err.splitlines()) == 1


def test_an_id_with_trained_models_is_in_use(tmp_path, attenscribble, write_acdc):
    folder, scribbles = write_acdc()
    (tmp_path / "nnUNet_results" / "Dataset501_Hearts").mkdir(parents=True)
    code, _, err = attenscribble("convert", "acdc", folder, "-s", scribbles, "-d", 501, "--workers", 1)
    assert code == 2
    assert err.splitlines()[-1].startswith(
        f"error: {tmp_path / 'nnUNet_results' / 'Dataset501_Hearts'}: has the dataset ID"
    )


def _arguments(source, folder):
    """What is typed, and the datasets that it makes."""
    if source == "chaos":
        mr, scribbles = write_chaos(folder, (1, 2))
        return [mr, "-s", scribbles, "--sequence", "t1-both"], ["Dataset601_CHAOST1BOTH", "Dataset602_CHAOST1BOTHDense"]
    if source == "mscmr":
        return [write_mscmr(folder)], ["Dataset601_MSCMR"]
    if source == "h5":
        volumes, _ = write_h5(folder)
        return [volumes, "--spacing", 1.5, 1.25, 8], ["Dataset601_ACDCh5", "Dataset602_ACDCh5Dense"]
    if source == "scribblebench":
        return [write_scribblebench(folder)], ["Dataset601_Hearts", "Dataset602_HeartsDense"]
    images, scribbles, _ = write_folders(folder, ("a", "b"), values={4: 0, 0: 9})
    coding = ["--unlabelled", 0, "--background-scribble", 9]
    return [images, "-s", scribbles, "--name", "Mine", "--labels", "RV,MYO,LV", *coding], ["Dataset601_Mine"]


@pytest.mark.parametrize("source", ["chaos", "mscmr", "h5", "scribblebench", "folder"])
def test_every_source_tells_what_comes_next(tmp_path, attenscribble, source):
    arguments, datasets = _arguments(source, tmp_path)
    code, out, _ = attenscribble("convert", source, *arguments, "-d", 601, "--workers", 1)
    assert code == 0
    assert sorted(entry.name for entry in (tmp_path / "nnUNet_raw").iterdir()) == datasets
    ids = " ".join(dataset[7:10] for dataset in datasets)
    assert out.splitlines()[-1].strip().startswith(f"nnUNetv2_plan_and_preprocess -d {ids} ")
    for dataset in datasets:
        assert (tmp_path / "nnUNet_raw" / dataset / "provenance.json").is_file()


def test_folder_takes_a_table_of_annotated_classes(tmp_path, attenscribble):
    images, scribbles, dense = write_folders(tmp_path, ("a", "b"))
    some = sitk.ReadImage(dense / "a.nii.gz")
    sitk.WriteImage(sitk.Cast(some == 1, sitk.sitkUInt8), scribbles / "a_scribble.nii.gz")
    (tmp_path / "t.csv").write_text("case,classes\na,RV\n")
    arguments = [images, "-s", scribbles, "-d", 601, "--name", "S", "--labels", "RV,MYO,LV", "--workers", 1]
    code, out, _ = attenscribble("convert", "folder", *arguments, "--annotated", tmp_path / "t.csv")
    assert code == 0
    assert "some classes alone are annotated, and no background, in 1: a" in " ".join(out.split())
    written = sitk.ReadImage(tmp_path / "nnUNet_raw" / "Dataset601_S" / "labelsTr" / "a.nii.gz")
    ventricle = sitk.GetArrayFromImage(some) == 1
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), np.where(ventricle, 1, 4))


def test_folder_takes_names_colours_and_dense_slices(tmp_path, attenscribble):
    drawn = np.full((9, 8, 3), 0, np.uint8)
    drawn[1], drawn[4] = (0, 255, 0), (255, 0, 0)
    (tmp_path / "i").mkdir()
    (tmp_path / "s").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(drawn, isVector=True), tmp_path / "s" / "a.png")
    sitk.WriteImage(sitk.GetImageFromArray(drawn[..., 0]), tmp_path / "i" / "a.png")
    common = ["convert", "folder", tmp_path / "i", "-s", tmp_path / "s", "--name", "P", "--workers", 1]
    marks = ["--labels", "A=#ff0000", "--background-scribble", "#00ff00", "--unlabelled", "#000000"]
    code, out, _ = attenscribble(*common, "-d", 7, *marks)
    assert code == 0
    assert "Note:          1 scribble read by colour: #000000 unlabelled, #00ff00 background, #ff0000 A." in out
    sitk.WriteImage(sitk.GetImageFromArray((drawn[..., 0] > 0).astype(np.uint8)), tmp_path / "s" / "a.png")
    code, out, _ = attenscribble(*common, "-d", 8, "--labels", "A", "--dense-slices", ".")
    assert code == 0
    assert "Scribbled:     100.00 % of all voxels; by class: background 88.89 %, A 11.11 %" in out


def test_dense_labels_alone_are_to_be_drawn_into(tmp_path, attenscribble):
    images, _, dense = write_folders(tmp_path, ("a", "b"))
    options = ["--dense", dense, "--name", "Mine", "--labels", "RV,MYO,LV", "-d", 7, "--workers", 1]
    code, out, _ = attenscribble("convert", "folder", images, *options)
    assert code == 0
    assert "Next (attenscribble scribble draws scribbles, as a dataset of their own):\n" in out
    assert "attenscribble scribble 7 -o ID\n" in out  # not every shell takes comments
