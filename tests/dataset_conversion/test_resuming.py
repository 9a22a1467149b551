"""After a kill, the cases that lie there whole are not written again; those that changed are."""

from __future__ import annotations

import pytest
import SimpleITK as sitk
import tifffile

from nnunet_attenscribble.common.files import staged_folders
from nnunet_attenscribble.dataset_conversion import raw_dataset
from nnunet_attenscribble.errors import AttenScribbleError
from tests.dataset_conversion.downloads import convert_folder, write_folders
from tests.tiny import make_scan, make_volume

CLASSES = {"RV": 1, "MYO": 2, "LV": 3}


@pytest.fixture
def convert(tmp_path, monkeypatch):
    """Run a conversion that is killed before its n-th case; returns the cases that it wrote."""
    images, scribbles, dense = write_folders(tmp_path, ("a", "b", "c"))
    written = []

    def run(kill_at=None, **options):
        written.clear()

        def write(case, **arguments):
            if len(written) == kill_at:
                raise SystemExit("killed")
            written.append(case.identifier)
            return really(case, **arguments)

        arguments = {"raw_folder": tmp_path / "raw", "classes": CLASSES, "dense": dense, **options}
        with monkeypatch.context() as patch:
            patch.setattr(raw_dataset, "write_case", write)
            if kill_at is not None:  # a kill runs no clean-up
                patch.setattr("nnunet_attenscribble.common.files.shutil.rmtree", lambda *a, **k: None)
                with pytest.raises(SystemExit):
                    convert_folder(images, scribbles, **arguments)
            else:
                convert_folder(images, scribbles, **arguments)
        return list(written)

    really = raw_dataset.write_case
    return run


def _content(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_only_what_is_missing_is_written_and_the_bytes_are_the_same(tmp_path, convert):
    assert convert(kill_at=2) == ["a", "b"]
    assert [entry.name[0] for entry in (tmp_path / "raw").iterdir()] == ["."]
    assert convert() == ["c"]
    assert convert(raw_folder=tmp_path / "whole") == ["a", "b", "c"]
    assert _content(tmp_path / "raw") == _content(tmp_path / "whole")


def test_it_can_be_killed_again(tmp_path, convert):
    assert convert(kill_at=1) == ["a"]
    assert convert(kill_at=1) == ["b"]
    assert convert() == ["c"]
    assert sorted(entry.name for entry in (tmp_path / "raw").iterdir()) == ["Dataset601_Mine", "Dataset602_MineDense"]


def test_a_case_that_changed_is_written_again(tmp_path, convert):
    convert(kill_at=2)
    sitk.WriteImage(make_scan(77), tmp_path / "my images" / "a.nii.gz")
    assert convert() == ["a", "c"]
    image = sitk.ReadImage(tmp_path / "raw" / "Dataset601_Mine" / "imagesTr" / "a_0000.nii.gz")
    assert sitk.Hash(image) == sitk.Hash(make_scan(77))


@pytest.mark.parametrize(
    ("before", "corrected"),
    [
        ({}, {"link": True}),
        ({}, {"classes": {"RV": 3, "MYO": 2, "LV": 1}}),  # the values were mixed up
        ({"dense": None}, {"dense": None, "dense_slices": "."}),
    ],
)
def test_other_options_are_another_conversion(convert, before, corrected):
    convert(kill_at=2, **before)
    assert convert(**corrected) == ["a", "b", "c"]


def test_another_spacing_is_another_conversion(tmp_path, convert):
    for folder in ("my images", "my scribbles", "my labels"):
        for file in (tmp_path / folder).iterdir():
            voxels = sitk.GetArrayFromImage(sitk.ReadImage(file))
            tifffile.imwrite(file.with_name(file.name.replace(".nii.gz", ".tif")), voxels)
            file.unlink()
    convert(kill_at=2, spacing=(1, 1, 8))
    assert convert(spacing=(1, 1, 4)) == ["a", "b", "c"]


def test_the_cases_of_a_run_that_lives_are_not_taken(tmp_path, convert):
    pytest.importorskip("fcntl")
    with staged_folders(tmp_path / "raw", ["Dataset601_Mine"], "601") as hidden:
        (hidden / "Dataset601_Mine" / "file").touch()
        with pytest.raises(AttenScribbleError, match="is being written by another process"):
            convert()
    assert _content(tmp_path / "raw") == {"Dataset601_Mine/file": b""}


def test_a_file_that_is_taken_away_meanwhile_is_missed(tmp_path, convert, monkeypatch):
    def write(case, **arguments):
        files = really(case, **arguments)
        if case.identifier == "c":
            (files[0].parent / "a_0000.nii.gz").unlink()
        return files

    really = raw_dataset.write_case
    monkeypatch.setattr(raw_dataset, "write_case", write)
    with pytest.raises(AttenScribbleError, match=r"nothing incomplete was kept: 1 of its files.*a_0000\.nii\.gz"):
        convert_folder(tmp_path / "my images", tmp_path / "my scribbles", tmp_path / "raw", classes=CLASSES)
    assert not (tmp_path / "raw").exists()


def test_what_is_only_in_memory_has_no_fingerprint(tmp_path):
    from nnunet_attenscribble.dataset_conversion.cases import Case, CheckedCase, Coding

    coding = Coding({"background": 0, "a": 1}, None, None, False)
    assert raw_dataset.fingerprint(Case("a", (make_volume(),)), CheckedCase(), coding, False) is None
    assert raw_dataset.fingerprint(Case("a", (make_volume,)), CheckedCase(), coding, False) is None
    assert raw_dataset.fingerprint(Case("a", (lambda: None,), inputs=(tmp_path,)), CheckedCase(), coding, False) is None
    known = raw_dataset.fingerprint(Case("a", (make_volume,), inputs=(tmp_path,)), CheckedCase(), coding, False)
    assert known != raw_dataset.fingerprint(Case("a", (make_scan,), inputs=(tmp_path,)), CheckedCase(), coding, False)
