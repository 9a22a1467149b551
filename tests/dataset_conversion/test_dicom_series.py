"""Slices of one series, in whatever order and orientation."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from nnunet_attenscribble.dataset_conversion.dicom_series import read_series, sort_series
from nnunet_attenscribble.errors import AttenScribbleError
from tests.dataset_conversion.downloads import STEP, write_slice
from tests.tiny import DIRECTION, SPACING

SERIES = "1.2.3"
FLIPPED = (-1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0)


def _write(folder, heights, **options):
    files = []
    for number, height in enumerate(heights):
        files.append(folder / f"{number}.dcm")
        write_slice(files[-1], np.full((5, 6), number), height, SERIES, **options)
    return files


@pytest.mark.parametrize("direction", [DIRECTION, FLIPPED])
def test_geometry_comes_from_positions(tmp_path, direction):
    files = _write(tmp_path, [2 * STEP, 0.0, STEP], direction=direction)
    assert [file.name for file in sort_series(files)] == ["1.dcm", "2.dcm", "0.dcm"]
    image = read_series(files)
    np.testing.assert_allclose(image.GetDirection(), direction, atol=1e-8)
    assert image.GetSpacing() == (*SPACING[:2], STEP)  # SliceThickness is 5
    assert sitk.GetArrayFromImage(image)[:, 0, 0].tolist() == [1, 2, 0]


def test_slices_that_are_scaled_unlike_keep_their_values(tmp_path):
    files = _write(tmp_path, [0.0, STEP, 2 * STEP])
    for file, (slope, intercept) in zip(files, [(1, 0), (1, -1024), (0.25, 0)], strict=True):
        header = pydicom.dcmread(file)
        header.RescaleSlope, header.RescaleIntercept = slope, intercept
        header.save_as(file)
    assert sitk.GetArrayFromImage(read_series(files))[:, 0, 0].tolist() == [0, 1 - 1024, 0.5]


def test_a_series_is_read_once_until_it_changes(tmp_path, monkeypatch):
    files = _write(tmp_path, [0.0, STEP])
    read, calls = sitk.ReadImage, []
    monkeypatch.setattr(sitk, "ReadImage", lambda *given: calls.append(given) or read(*given))
    read_series(files).SetSpacing((9.0, 9.0, 9.0))
    assert read_series(files).GetSpacing()[2] == STEP  # what was given away may be changed
    assert len(calls) == 1
    header = pydicom.dcmread(files[1])
    header.PatientName = "another"
    header.save_as(files[1])
    read_series(files)
    assert len(calls) == 2


def test_drawings_among_dicom_are_told_what_makes_them_readable(tmp_path):
    file = _write(tmp_path, [0.0])[0]
    header = pydicom.dcmread(file)
    del header.ImagePositionPatient
    header.save_as(file)
    with pytest.raises(AttenScribbleError, match=r"no ImagePositionPatient: .* \.seg\.nrrd of drawings .* 3D Slicer"):
        read_series([file])


def test_positions_win_over_the_header_where_they_differ(tmp_path):
    assert read_series(_write(tmp_path, [0.0, 4.0, 8.0])).GetSpacing()[2] == pytest.approx(4.0)


def test_one_slice_has_the_distance_of_its_header(tmp_path):
    assert read_series(_write(tmp_path, [0.0])).GetSpacing()[2] == STEP


def test_every_reason_is_told(tmp_path):
    for name, heights, told in (
        ("gap", [0.0, STEP, 3 * STEP], "a slice is missing between 1.dcm and 2.dcm: they are 13 mm apart, others 6.5"),
        ("twice", [0.0, STEP, STEP], "2.dcm: lies where 1.dcm lies"),
        ("phases", [0.0, STEP, 2 * STEP] * 3, "phases: every position occurs 3 times, as in a series of several"),
        ("many twice", [0.0, STEP, STEP, 2 * STEP, 2 * STEP], "2.dcm: lies where 1.dcm lies"),
    ):
        with pytest.raises(AttenScribbleError, match=told) as refused:
            read_series(_write(tmp_path / name, heights))
        assert len(refused.value.problems) == (len(heights) - len(set(heights)) if "twice" in name else 1)
    files = _write(tmp_path / "tilted", [0.0, STEP])
    write_slice(files[1], np.zeros((5, 6)), STEP, SERIES, shift=1.0)
    with pytest.raises(AttenScribbleError, match=r"1\.dcm: lies 1 mm aside"):
        read_series(files)
    write_slice(files[1], np.zeros((5, 6)), STEP, SERIES, direction=FLIPPED)
    with pytest.raises(AttenScribbleError, match=r"1\.dcm: its ImageOrientationPatient differs from that of 0\.dcm"):
        read_series(files)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("PixelSpacing", value) for value in ([0, 0], [-0.7, 0.7], ["inf", 1], 0.7)),
        ("ImagePositionPatient", [0, 0]),
        ("ImageOrientationPatient", [1, 0, 0, 0, 1]),
        ("Rows", [5, 5]),
    ],
)
def test_impossible_numbers_are_told(tmp_path, name, value):
    file = _write(tmp_path, [0.0])[0]
    header = pydicom.dcmread(file)
    setattr(header, name, value)
    header.save_as(file)
    with pytest.raises(AttenScribbleError, match=rf"0\.dcm: cannot be read as DICOM \({name} is"):
        read_series([file])


@pytest.mark.parametrize("told", [[6.5, 6.5], -5])
def test_a_slice_distance_that_is_none_is_not_looked_at(tmp_path, told):
    files = _write(tmp_path, [0.0, 4.0])
    for file in files:
        header = pydicom.dcmread(file)
        header.SpacingBetweenSlices = told
        header.save_as(file)
    assert read_series(files).GetSpacing()[2] == pytest.approx(4.0)
    with pytest.raises(AttenScribbleError, match="single slice and has no SpacingBetweenSlices"):
        read_series(files[:1])


def test_a_truncated_slice_is_refused_wherever_it_ends(tmp_path):
    files = _write(tmp_path, [0.0, STEP])
    whole = files[1].read_bytes()
    for length in range(0, len(whole), 3):
        files[1].write_bytes(whole[:length])
        with pytest.raises(AttenScribbleError, match=r"1\.dcm"):
            read_series(files)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_damaged_byte_never_ends_in_anything_but_an_explanation(tmp_path):
    files = _write(tmp_path, [0.0, STEP])
    whole = files[1].read_bytes()
    read_series(files)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for position in range(len(whole)):
        files[1].write_bytes(whole[:position] + bytes([whole[position] ^ 0x31]) + whole[position + 1 :])
        with suppress(AttenScribbleError):
            read_series(files)
    # GDCM took 1.5 GB for four of these bytes each, the kinds of values behind which a length stands, and kept them.
    if sys.platform == "linux":  # where it is told in kB
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 300_000
