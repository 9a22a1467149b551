"""WSL4MIS's h5 volumes, whose spacing comes from elsewhere or not at all."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_attenscribble.dataset_conversion.h5 import convert_h5, read_spacing
from nnunet_attenscribble.dataset_conversion.raw_dataset import Writing
from nnunet_attenscribble.errors import AttenScribbleError
from tests.dataset_conversion.downloads import write_h5
from tests.tiny import SPACING, make_dense, make_strokes


@pytest.fixture
def convert(tmp_path):
    return lambda folder, **options: convert_h5(
        folder, dataset_id=541, writing=Writing(tmp_path / "raw", workers=1), **options
    )


@pytest.mark.parametrize("by_table", [True, False])
def test_volumes_get_the_spacing_they_are_given(tmp_path, convert, by_table):
    folder, table = write_h5(tmp_path)
    written = convert(folder, **({"spacing_csv": table} if by_table else {"spacing": SPACING}))
    assert (written.training, written.dense.name) == (3, "Dataset542_ACDCh5Dense")
    with h5py.File(folder / "patient032_frame01.h5") as file:
        pixels = file["image"][()]
    for path, values in (
        (written.scribble / "imagesTr" / "patient032_frame01_0000.nii.gz", pixels),
        (written.scribble / "labelsTr" / "patient032_frame01.nii.gz", make_strokes()),
        (written.dense / "labelsTr" / "patient032_frame01.nii.gz", make_dense()),
    ):
        image = sitk.ReadImage(path)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), values)
        assert image.GetSpacing() == SPACING
        assert image.GetOrigin() == (0.0, 0.0, 0.0)
    folds = json.loads((written.scribble / "splits_final.json").read_text())
    assert [len(fold["val"]) for fold in folds] == [2, 1]  # by patient
    provenance = json.loads((written.scribble / "provenance.json").read_text())
    assert provenance["options"]["spacing"] == (table.name if by_table else list(SPACING))
    assert any("neither origin nor direction" in note for note in written.notes)


def test_without_spacing_nothing_is_made_up(tmp_path, convert):
    folder, table = write_h5(tmp_path)
    with pytest.raises(AttenScribbleError, match="h5 files hold no spacing"):
        convert(folder)
    with pytest.raises(AttenScribbleError, match="h5 files hold no spacing"):
        convert(folder, spacing=SPACING, spacing_csv=table)


def test_without_labels_there_is_no_twin(tmp_path, convert):
    folder, table = write_h5(tmp_path)
    with h5py.File(folder / "patient019_frame01.h5", "a") as file:
        del file["label"]
    written = convert(folder, spacing_csv=table)
    assert written.dense is None
    assert "no dense twin: 1 of 3 files hold no label" in written.notes


@pytest.mark.parametrize(
    ("names", "options", "validated", "told"),
    [
        (("T1_patient001", "T1_patient002", "T2_patient001"), {}, [[0], [1], [2]], "3 of 3 files count as a patient"),
        (("T1_patient01", "T2_patient01", "T1_x2"), {"subject": r"_(\D+\d+)"}, [[0, 1], [2]], "2 subjects in 3 cases"),
        (("BraTS2021_00001", "BraTS2021_00002"), {}, [[0], [1]], "2 of 2 files count as a patient each"),
        (("Case01_a", "case01_b", "case2"), {}, [[0, 1], [2]], "2 patients make 2 folds"),
        (("patient10_a", "patient9_a", "patient9_b"), {}, [[1, 2], [0]], "2 patients make 2 folds"),  # by number
        (("patient1_a", "patient1_b", "case1", "x"), {}, [[2], [0, 1], [3]], "1 of 4 files count as a patient each"),
        (
            ("patient001", "patient021_a", "patient021_b", "patient041", "patient061", "patient081"),
            {"split": "contiguous"},
            [[0], [1, 2], [3], [4], [5]],
            "h5 files hold neither",
        ),
    ],
)
def test_a_patient_is_told_by_how_a_name_begins_or_by_an_expression(tmp_path, convert, names, options, validated, told):
    folder, _ = write_h5(tmp_path, names)
    written = convert(folder, spacing=SPACING, **options)
    folds = json.loads((written.scribble / "splits_final.json").read_text())
    assert [fold["val"] for fold in folds] == [sorted(names[number] for number in fold) for fold in validated]
    assert written.notes[0].startswith(told)


@pytest.mark.parametrize("kind", [">f4", "f2", "longdouble"])
def test_numbers_that_simpleitk_does_not_know_are_converted(tmp_path, convert, kind):
    folder, table = write_h5(tmp_path, ("patient001_frame01",))
    with h5py.File(folder / "patient001_frame01.h5", "a") as file:
        pixels = file["image"][()]
        for key, dtype in (("image", kind), ("scribble", ">u2"), ("label", ">i4")):
            values = file[key][()].astype(dtype)
            del file[key]
            file[key] = values
    written = convert(folder, spacing_csv=table)
    image = sitk.GetArrayFromImage(sitk.ReadImage(written.scribble / "imagesTr" / "patient001_frame01_0000.nii.gz"))
    assert image.dtype == (np.float64 if kind == "longdouble" else np.float32)
    np.testing.assert_array_equal(image, pixels.astype(np.float16) if kind == "f2" else pixels)
    for dataset, values in ((written.scribble, make_strokes()), (written.dense, make_dense())):
        label = sitk.ReadImage(dataset / "labelsTr" / "patient001_frame01.nii.gz")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(label), values)


def test_a_table_is_read_whole(tmp_path):
    file = tmp_path / "spacing.csv"
    file.write_text("case,sx,sy,sz\na,1,2,3\nb,1,x,3\nc,1,0,3\na,1,2,4\n")
    with pytest.raises(AttenScribbleError) as caught:
        read_spacing(file)
    assert [problem.split(": ")[1] for problem in caught.value.problems] == [
        "line 3 holds something else than numbers",
        "line 4 has a spacing (1.0, 0.0, 3.0) that is not above 0",
        "line 5 contradicts an earlier one about a",
    ]
    file.write_text("sx,sy,sz,case\n1,2,3\n")  # without a name
    with pytest.raises(AttenScribbleError, match="line 2 holds something else than numbers"):
        read_spacing(file)
    file.write_text("case,sx,sy,sz\r\n\r\na,1,5625,1,5625,10,0\r\n")  # decimals with a comma
    with pytest.raises(AttenScribbleError, match="line 3 has more fields than columns"):
        read_spacing(file)


def test_the_real_volumes(shared_folder, convert):
    data = shared_folder / "data"
    folder, table = data / "WSL4MIS" / "ACDC_training_volumes", data / "acdc_spacing_per_frame.csv"
    if not folder.is_dir():
        pytest.skip("needs WSL4MIS in ../shared/data")
    written = convert(folder, spacing_csv=table)
    for name in ("patient019_frame01", "patient032_frame12"):
        original = data / "ACDC" / "database" / "training" / name[:10]
        dense = sitk.ReadImage(written.dense / "labelsTr" / f"{name}.nii.gz")
        truth = sitk.ReadImage(original / f"{name}_gt.nii.gz") if original.is_dir() else dense
        np.testing.assert_array_equal(sitk.GetArrayFromImage(dense), sitk.GetArrayFromImage(truth))
        np.testing.assert_allclose(dense.GetSpacing(), truth.GetSpacing(), rtol=1e-5)


@pytest.mark.parametrize(
    "odd",
    [
        h5py.ExternalLink("no.h5", "image"),
        h5py.SoftLink("/image"),
        h5py.Empty("f4"),
        np.zeros((0, 4, 4)),
        np.dtype("f4"),
    ],
    ids=lambda odd: type(odd).__name__,
)
def test_a_member_that_is_no_volume_is_told(tmp_path, convert, odd):
    file = tmp_path / "case001.h5"
    with h5py.File(file, "w") as content:
        content["image"] = odd
        content["scribble"] = np.zeros((0, 4, 4))
    with pytest.raises(AttenScribbleError, match=r"case001\.h5: "):
        convert(tmp_path, spacing=(1, 1, 1))


def test_no_room_is_made_for_voxels_that_cannot_be_there(tmp_path, convert):
    file = tmp_path / "case001.h5"
    with h5py.File(file, "w") as content:
        for key in ("image", "scribble"):
            content.create_dataset(key, (100_000,) * 3, "u1", chunks=(1, 64, 64))
    with pytest.raises(AttenScribbleError, match=r"tells of 9.31e\+05 GiB of voxels, which \d+ bytes cannot hold"):
        convert(tmp_path, spacing=(1, 1, 1))
