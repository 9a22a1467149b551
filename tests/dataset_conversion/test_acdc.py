"""ACDC in every layout, and what is refused."""

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_attenscribble.dataset_conversion.acdc import convert_acdc, parse_patients
from nnunet_attenscribble.dataset_conversion.splits import MAAG_TEST, MAAG_VALIDATION
from nnunet_attenscribble.errors import AttenScribbleError
from tests.dataset_conversion.downloads import with_writing


@pytest.fixture
def convert(tmp_path):
    def run(folder, scribbles, **options):
        defaults = {"raw_folder": tmp_path / "raw", "dataset_id": 501, "workers": 1}
        return convert_acdc(folder, scribbles, **with_writing(**{**defaults, **options}))

    return run


def _names(folder):
    return sorted(file.name for file in folder.glob("*")) if folder.exists() else []


def _identifiers(patients):
    return [f"patient{p:03d}_frame{frame:02d}" for p in patients for frame in (1, 10 + p % 5)]


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"inside": "training"},
        {"inside": "."},
        {"flat": True},
        {"flat": True, "ending": ".nii"},
    ],
)
def test_layouts(write_acdc, convert, layout):
    written = convert(*write_acdc(**layout))
    expected = _identifiers([1, 2, 3, 4, 5])
    assert _names(written.scribble / "imagesTr") == sorted(f"{name}_0000.nii.gz" for name in expected)
    assert _names(written.scribble / "labelsTr") == sorted(f"{name}.nii.gz" for name in expected)
    assert written.dense.name == "Dataset502_ACDCDense"
    assert _names(written.dense / "labelsTr") == sorted(f"{name}.nii.gz" for name in expected)
    description = json.loads((written.scribble / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "RV": 1, "MYO": 2, "LV": 3, "ignore": 4}


def test_the_released_archive_gives_what_the_folder_gives(tmp_path, write_acdc, convert):
    folder, scribbles = write_acdc()
    archive = tmp_path / "acdc_scribbles.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for scribble in scribbles.iterdir():
            file.write(scribble, f"acdc_scribbles/{scribble.name}")
            file.writestr(f"__MACOSX/acdc_scribbles/._{scribble.name}", b"not an image")
    results = [convert(folder, source, raw_folder=tmp_path / str(i)) for i, source in enumerate([scribbles, archive])]
    first, second = (
        {f.relative_to(r.scribble.parent): f.read_bytes() for f in r.scribble.parent.rglob("*") if f.is_file()}
        for r in results
    )
    assert first == second


def test_folds_are_by_patient(write_acdc, convert):
    written = convert(*write_acdc(patients=range(1, 8)))
    splits = json.loads((written.scribble / "splits_final.json").read_text())
    assert len(splits) == 5
    for split in splits:
        train, val = ({name[:10] for name in split[side]} for side in ("train", "val"))
        assert not train & val
        assert len(split["train"] + split["val"]) == 14
    assert sorted(name for split in splits for name in split["val"]) == sorted(_identifiers(range(1, 8)))


def test_maag_fold_and_a_note_on_the_rest(write_acdc, convert):
    written = convert(*write_acdc(patients=(37, 50, 84, 5)), split="maag")
    assert json.loads((written.scribble / "splits_final.json").read_text()) == [
        {
            "train": ["patient037_frame01", "patient037_frame12", "patient050_frame01", "patient050_frame10"],
            "val": ["patient084_frame01", "patient084_frame14"],
        }
    ]
    assert written.notes == ("2 training cases are in no fold of this split",)


def test_contiguous_folds(write_acdc, convert):
    written = convert(*write_acdc(patients=(20, 21, 41, 80, 100)), split="contiguous")
    splits = json.loads((written.scribble / "splits_final.json").read_text())
    assert [sorted({name[7:10] for name in split["val"]}) for split in splits] == [
        ["020"],
        ["021"],
        ["041"],
        ["080"],
        ["100"],
    ]


def test_test_patients_are_kept_out_of_training(write_acdc, convert):
    folder, scribbles = write_acdc(patients=range(1, 8))
    for file in scribbles.glob("patient00[12]*"):
        file.unlink()  # test patients need none
    written = convert(folder, scribbles, test="1-2")
    assert (written.training, written.test) == (10, 4)
    assert _names(written.scribble / "imagesTs") == sorted(f"{name}_0000.nii.gz" for name in _identifiers([1, 2]))
    assert _names(written.scribble / "labelsTs") == sorted(f"{name}.nii.gz" for name in _identifiers([1, 2]))
    for folder in (written.scribble / "imagesTr", written.scribble / "labelsTr", written.dense / "labelsTr"):
        assert not [name for name in _names(folder) if name.startswith(("patient001", "patient002"))]
    text = (written.scribble / "splits_final.json").read_text()
    assert "patient001" not in text
    assert "patient003" in text


def test_the_official_testing_folder_is_used_on_demand_only(write_acdc, convert):
    write_acdc(inside="database/testing", patients=(101,))
    folder, scribbles = write_acdc()
    for file in scribbles.glob("patient101*"):
        file.unlink()
    assert convert(folder, scribbles).test == 0
    assert convert(folder, scribbles, dataset_id=511, test="101").test == 2


def test_without_dense_labels_there_is_no_twin(write_acdc, convert):
    folder, scribbles = write_acdc(dense=False)
    assert convert(folder, scribbles).dense is None
    with pytest.raises(AttenScribbleError) as caught:
        convert(folder, scribbles, dataset_id=503, dense_id=504)
    assert len(caught.value.problems) == 10
    assert caught.value.problems[0].startswith("case patient001_frame01: has no dense label")


def _empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("damage", "options", "told"),
    [
        pytest.param(lambda f, s: shutil.rmtree(f), {}, "ACDC: does not exist", id="no folder"),
        pytest.param(lambda f, s: _empty(f), {}, "ACDC: holds no patientXXX_frameYY.nii.gz", id="empty folder"),
        pytest.param(lambda f, s: shutil.rmtree(s), {}, "scribbles: does not exist", id="no scribbles"),
        pytest.param(
            lambda f, s: _empty(s), {}, "scribbles: holds no patientXXX_frameYY_scribble", id="empty scribbles"
        ),
        pytest.param(
            lambda f, s: (s / "patient003_frame13_scribble.nii.gz").unlink(),
            {},
            "case patient003_frame13: has no scribble",
            id="one scribble missing",
        ),
        pytest.param(
            lambda f, s: next(f.rglob("patient003_frame13.nii.gz")).unlink(),
            {},
            "patient003_frame13_gt.nii.gz: has no image patient003_frame13.nii.gz",
            id="label without image",
        ),
        pytest.param(
            lambda f, s: shutil.copy(next(f.rglob("patient003_frame13.nii.gz")), f),
            {},
            "patient003_frame13.nii.gz: remove one of them",
            id="the same scan twice",
        ),
        pytest.param(
            lambda f, s: (s / "patient003_frame13_scribble.nii.gz").write_bytes(b"\x1f\x8b"),
            {},
            "patient003_frame13_scribble.nii.gz: is truncated",
            id="broken scribble",
        ),
        pytest.param(None, {"test": "9"}, "test patients 9: are not in the data", id="absent test patient"),
        pytest.param(None, {"test": "1", "split": "maag"}, "fold 0 has nobody to validate with", id="empty fold"),
        pytest.param(None, {"test": "1-5"}, "every case is a test case", id="all tested"),
        pytest.param(None, {"test": "1-x"}, "test patients '1-x': '1-x' is no number", id="test patients misspelt"),
        pytest.param(None, {"split": "random"}, "split 'random': choose one of nnunet, contiguous, maag", id="split"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(tmp_path, write_acdc, convert, damage, options, told):
    folder, scribbles = write_acdc()
    if damage:
        damage(folder, scribbles)
    with pytest.raises(AttenScribbleError) as caught:
        convert(folder, scribbles, **options)
    assert any(told in problem for problem in caught.value.problems), caught.value.problems
    assert not (tmp_path / "raw").exists()


def test_problems_of_every_kind_are_told_together(write_acdc, convert):
    folder, scribbles = write_acdc()
    (scribbles / "patient001_frame01_scribble.nii.gz").unlink()
    next(folder.rglob("patient002_frame01.nii.gz")).write_bytes(b"")
    with pytest.raises(AttenScribbleError) as caught:
        convert(folder, scribbles, split="contiguous", dataset_id=0)
    for told in ("nobody to train with", "dataset ID 0", "patient001_frame01: has no scribble", "is empty"):
        assert sum(told in problem for problem in caught.value.problems) == 1, told


def test_patients():
    assert parse_patients("1-3, 84 ,7") == {1, 2, 3, 7, 84}
    assert parse_patients("maag-validation") == set(MAAG_VALIDATION)
    assert parse_patients("maag-test") == set(MAAG_TEST)
    for wrong in ("", "a", "3-1", "1,,2", "maag"):
        with pytest.raises(AttenScribbleError, match="is no number and no range"):
            parse_patients(wrong)


def test_real_patients(acdc_subset, convert):
    folder, archive = acdc_subset
    written = convert(folder, archive, split="maag")
    assert (written.training, written.test) == (8, 0)
    assert written.notes == ("92 scribbles were not used, for their images are not there",)
    splits = json.loads((written.scribble / "splits_final.json").read_text())
    assert [len(splits), len(splits[0]["train"]), len(splits[0]["val"])] == [1, 4, 4]

    for image in sorted((written.scribble / "imagesTr").iterdir()):
        stem = image.name.removesuffix("_0000.nii.gz")
        original = folder / "training" / stem[:10]
        source, dense = (sitk.ReadImage(original / f"{stem}{role}.nii.gz") for role in ("", "_gt"))
        files = [image, written.scribble / "labelsTr" / f"{stem}.nii.gz", written.dense / "labelsTr" / f"{stem}.nii.gz"]
        copy, scribble, twin = map(sitk.ReadImage, files)
        for other in (copy, scribble, twin):
            assert other.GetSize() == source.GetSize()
            assert other.GetSpacing() == source.GetSpacing()
            assert other.GetOrigin() == source.GetOrigin()
            assert other.GetDirection() == source.GetDirection()
            # Also for readers that trust the sform, which is of unit scale in the download.
            column = [float(other.GetMetaData(f"srow_{axis}").split()[i]) for i, axis in enumerate("xyz")]
            np.testing.assert_allclose(np.abs(column), source.GetSpacing(), rtol=1e-5)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(copy), sitk.GetArrayFromImage(source))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(twin), sitk.GetArrayFromImage(dense))
        strokes, truth = sitk.GetArrayFromImage(scribble), sitk.GetArrayFromImage(dense)
        drawn = strokes != 4
        assert 0.001 < drawn.mean() < 0.1
        assert (strokes == truth)[drawn].mean() > 0.9
