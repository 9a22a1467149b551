"""What the writer leaves on disk, and what it refuses."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_attenscribble.common.files import staged_folders
from nnunet_attenscribble.dataset_conversion.cases import Case
from nnunet_attenscribble.dataset_conversion.plan_problems import folder_problems
from nnunet_attenscribble.dataset_conversion.raw_dataset import RawDataset, Writing, write_raw_datasets
from nnunet_attenscribble.errors import AttenScribbleError
from tests.evaluation.benchmark.fake_nnunet import wait_until
from tests.quick_nnunet import verify

LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
SPLITS = [{"train": ["a"], "val": ["b"]}]


@pytest.fixture
def inputs(tmp_path, scan, volume, dense, strokes) -> Path:
    """Files of three cases: a and b to train with (b as plain .nii), t to test on."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    for seed, (case, ending) in enumerate([("a", ".nii.gz"), ("b", ".nii"), ("t", ".nii.gz")]):
        sitk.WriteImage(scan(seed), folder / f"{case}{ending}")
        sitk.WriteImage(volume(strokes, np.uint16), folder / f"{case}_scribble{ending}")
        sitk.WriteImage(volume(dense.astype(np.float32), np.float32), folder / f"{case}_gt{ending}")
    return folder


def _cases(folder: Path) -> list[Case]:
    def case(name: str, ending: str, test: bool = False) -> Case:
        scribble = None if test else folder / f"{name}_scribble{ending}"
        return Case(name, (folder / f"{name}{ending}",), scribble, folder / f"{name}_gt{ending}", test)

    return [case("t", ".nii.gz", True), case("b", ".nii"), case("a", ".nii.gz")]


@pytest.fixture
def write(tmp_path):
    """`write_raw_datasets` with everything filled in that a test does not name."""
    defaults = {
        "raw_folder": tmp_path / "raw",
        "preprocessed_folder": tmp_path / "preprocessed",
        "dataset_id": 501,
        "dense_id": 502,
        "name": "Tiny",
        "channel_names": {0: "MRI"},
        "labels": LABELS,
        "provenance": {"source": "made up", "license": "none", "options": {"seed": 1}},
        "splits": SPLITS,
        "workers": 1,
    }

    def run(cases, problems=(), **changes):
        options = {**defaults, **changes}
        dataset, writing = (
            kind(**{field.name: options[field.name] for field in fields(kind) if field.name in options})
            for kind in (RawDataset, Writing)
        )
        return write_raw_datasets(cases, dataset, writing, problems=problems)

    return run


def test_voxels_are_counted_by_value_in_whatever_order_labels_are_named(inputs, write, strokes, dense):
    labels = {"background": 0, "LV": 3, "MYO": 2, "RV": 1}
    written = write(_cases(inputs), labels=labels)
    values = {**labels, "ignore": 4}
    assert written.scribble_voxels == {name: 2 * int((strokes == value).sum()) for name, value in values.items()}
    assert written.dense_voxels == {name: 2 * int((dense == value).sum()) for name, value in labels.items()}


def test_what_another_users_run_left_of_an_id_is_told_by_the_name_it_has(inputs, write, tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    with staged_folders(raw, [], "004") as hidden:  # of a run that was killed: the lock of its ID stays as well
        theirs = [hidden, raw / ".attenscribble-004.lock"]
        theirs[1].touch()
        monkeypatch.setattr(os, "access", lambda path, mode: path not in theirs)
        with pytest.raises(AttenScribbleError) as caught:
            write(_cases(inputs), dataset_id=4, dense_id=5)
        (problem,) = caught.value.problems
        pattern = Path(problem.partition(": ")[0])
        assert sorted(pattern.parent.glob(pattern.name)) == sorted(theirs)


def _listing(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def _hashes(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _listing(folder)}


def _grid(path: Path) -> tuple:
    image = sitk.ReadImage(path)
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


def test_files_and_counts(tmp_path, inputs, write, dense, strokes):
    written = write(_cases(inputs))
    scribble, twin = "Dataset501_Tiny", "Dataset502_TinyDense"
    assert _listing(tmp_path / "raw") == sorted(
        [f"{scribble}/{part}" for part in ("dataset.json", "provenance.json", "splits_final.json")]
        + [f"{scribble}/imagesTr/{case}_0000.nii.gz" for case in "ab"]
        + [f"{scribble}/labelsTr/{case}.nii.gz" for case in "ab"]
        + [f"{scribble}/imagesTs/t_0000.nii.gz", f"{scribble}/labelsTs/t.nii.gz"]
        + [f"{twin}/{part}" for part in ("dataset.json", "provenance.json", "splits_final.json")]
        + [f"{twin}/labelsTr/{case}.nii.gz" for case in "ab"]
    )
    assert (written.scribble, written.dense) == (tmp_path / "raw" / scribble, tmp_path / "raw" / twin)
    assert (written.training, written.test) == (2, 1)
    names = [*LABELS, "ignore"]
    assert written.scribble_voxels == {name: 2 * int((strokes == value).sum()) for value, name in enumerate(names)}
    assert written.dense_voxels == {name: 2 * int((dense == value).sum()) for name, value in LABELS.items()}
    for folder in (scribble, twin):
        for parent in (tmp_path / "raw", tmp_path / "preprocessed"):
            assert json.loads((parent / folder / "splits_final.json").read_text()) == SPLITS
    assert not [entry for entry in (tmp_path / "raw").iterdir() if entry.name.startswith(".")]


def test_voxels_and_geometry_are_those_of_the_source(inputs, write, dense, strokes):
    written = write(_cases(inputs))
    for case, ending in (("a", ".nii.gz"), ("b", ".nii")):
        source, image = inputs / f"{case}{ending}", written.scribble / "imagesTr" / f"{case}_0000.nii.gz"
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(sitk.ReadImage(image)), sitk.GetArrayFromImage(sitk.ReadImage(source))
        )
        assert sitk.ReadImage(image).GetPixelID() == sitk.ReadImage(source).GetPixelID()
        labels = {
            written.scribble / "labelsTr" / f"{case}.nii.gz": strokes,
            written.dense / "labelsTr" / f"{case}.nii.gz": dense,
        }
        for label, values in labels.items():
            assert sitk.ReadImage(label).GetPixelID() == sitk.sitkUInt8
            np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(label)), values)
        for file in (image, *labels):
            assert _grid(file)[:3] == _grid(source)[:3]
            # NIfTI stores an oblique direction as a float32 quaternion: no writer can do better.
            np.testing.assert_allclose(_grid(file)[3], _grid(source)[3], atol=2e-7, rtol=0)
    assert (written.scribble / "imagesTr" / "a_0000.nii.gz").read_bytes() == (inputs / "a.nii.gz").read_bytes()


def test_an_image_with_an_sform_of_unit_scale_gets_a_sound_header(inputs, write):
    source = inputs / "a.nii.gz"
    content = bytearray(gzip.decompress(source.read_bytes()))
    content[252:254] = (0).to_bytes(2, "little")  # qform_code
    content[280:328] = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], np.float32).tobytes()  # srow_x, _y, _z
    source.write_bytes(gzip.compress(bytes(content)))
    image = sitk.ReadImage(source)
    case = Case("a", (source,), sitk.Image(image.GetSize(), sitk.sitkUInt8) + 4)
    case.scribble[0, 0, 0] = 1
    case.scribble.CopyInformation(image)
    written = write([case], dense_id=None, splits=None).scribble / "imagesTr" / "a_0000.nii.gz"
    assert _grid(written) == _grid(source)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(written)), sitk.GetArrayFromImage(image))
    header = gzip.decompress(written.read_bytes())[:352]
    rows = np.frombuffer(header[280:328], np.float32).reshape(3, 4)
    np.testing.assert_allclose(np.linalg.norm(rows[:, :3], axis=0), image.GetSpacing(), rtol=1e-6)


@pytest.mark.parametrize("link", [False, True])
def test_channels_lie_on_the_grid_of_the_first_as_nnunet_compares(tmp_path, inputs, write, scan, link):
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    first = inputs / "a.nii.gz"
    files = [first, inputs / "rounded.nii.gz", inputs / "further.nii.gz"]
    for seed, (file, factor) in enumerate(zip(files[1:], (1 + 1e-6, 1.0005), strict=True), start=7):
        image = scan(seed)
        image.SetSpacing([edge * factor for edge in image.GetSpacing()])
        sitk.WriteImage(image, file)
    case = Case("a", tuple(files), inputs / "a_scribble.nii.gz")
    names = {0: "T1", 1: "T2", 2: "FLAIR"}
    folder = write([case], channel_names=names, dense_id=None, splits=None, link=link).scribble / "imagesTr"
    written = [folder / f"a_000{channel}.nii.gz" for channel in names]
    SimpleITKIO().read_images(list(map(str, written)))  # which raises where spacings differ
    same = [new.read_bytes() == old.read_bytes() for new, old in zip(written, files, strict=True)]
    assert same == [True, True, False]
    assert [new.is_symlink() for new in written] == [link, link, False]
    assert _grid(written[2]) == _grid(first)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(written[2])), sitk.GetArrayFromImage(sitk.ReadImage(files[2]))
    )


def test_dataset_json_of_both(inputs, write):
    written = write(_cases(inputs))
    scribble = json.loads((written.scribble / "dataset.json").read_text())
    dense = json.loads((written.dense / "dataset.json").read_text())
    assert scribble["labels"] == {**LABELS, "ignore": 4}
    assert dense["labels"] == LABELS
    assert "dataset" not in scribble
    assert dense["dataset"] == {
        case: {"images": [f"../Dataset501_Tiny/imagesTr/{case}_0000.nii.gz"], "label": f"labelsTr/{case}.nii.gz"}
        for case in "ab"
    }
    for content in (scribble, dense):
        assert (content["numTraining"], content["file_ending"]) == (2, ".nii.gz")
        assert content["channel_names"] == {"0": "MRI"}


def test_provenance_tells_inputs_and_nothing_of_the_machine(tmp_path, inputs, write):
    written = write(_cases(inputs))
    text = (written.scribble / "provenance.json").read_text()
    assert str(tmp_path) not in text
    content = json.loads(text)
    assert (content["source"], content["options"]) == ("made up", {"seed": 1})
    assert content["counts"] == {"training": 2, "test": 1}
    digest = hashlib.sha256((inputs / "b_scribble.nii").read_bytes()).hexdigest()
    assert content["inputs"]["b"]["scribble"] == [{"file": "b_scribble.nii", "sha256": digest}]
    assert "scribble" not in content["inputs"]["t"]


@pytest.mark.parametrize("trusted", [True, False])
def test_provenance_tells_that_scribbles_were_trusted(inputs, write, volume, dense, trusted):
    full = inputs / "a_scribble.nii.gz"
    if trusted:
        sitk.WriteImage(volume(dense, np.uint16), full)  # a dense label: background everywhere
    written = write(_cases(inputs), trust_scribbles=trusted)
    content = json.loads((written.scribble / "provenance.json").read_text())
    assert content.get("scribbles_trusted", False) is trusted


def test_same_bytes_whatever_the_workers_and_the_order(tmp_path, inputs, write):
    write(_cases(inputs), raw_folder=tmp_path / "one")
    write(
        _cases(inputs)[::-1],
        raw_folder=tmp_path / "two",
        preprocessed_folder=None,
        workers=2,
    )
    assert _hashes(tmp_path / "one") == _hashes(tmp_path / "two")


def test_nnunet_accepts_both(inputs, write):
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    written = write(_cases(inputs))
    for folder in (written.scribble, written.dense):
        found = get_filenames_of_train_images_and_targets(str(folder))
        assert sorted(found) == ["a", "b"]
        for case, files in found.items():
            assert files["label"] == str(folder / "labelsTr" / f"{case}.nii.gz")
            assert files["images"] == [str(written.scribble / "imagesTr" / f"{case}_0000.nii.gz")]
        verify(folder)


def test_images_in_memory_calls_channels_and_other_codings(inputs, write, scan, volume, dense):
    swapped = np.where(dense == 0, 9, dense).astype(np.int16)  # 9: unlabelled, 5: background stroke
    swapped[0, 0, 0] = 5
    case = Case(
        "m", (scan(1, np.float32), partial(sitk.ReadImage, str(inputs / "a.nii.gz"))), volume(swapped, np.int16)
    )
    other = Case("n", case.images, case.scribble, inputs=(inputs / "a.nii.gz",))
    written = write(
        [case, other],
        channel_names={0: "T1", 1: "T2"},
        scribble_values={9: 4, 5: 0, 1: 1, 2: 2, 3: 3},
        dense_id=None,
        splits=None,
    )
    label = sitk.GetArrayFromImage(sitk.ReadImage(written.scribble / "labelsTr" / "m.nii.gz"))
    expected = np.where(dense == 0, 4, dense)
    expected[0, 0, 0] = 0
    np.testing.assert_array_equal(label, expected)
    assert len(_listing(written.scribble / "imagesTr")) == 4
    assert written.dense is None
    assert (
        json.loads((written.scribble / "provenance.json").read_text())["inputs"]["n"]["further"][0]["file"]
        == "a.nii.gz"
    )


def _replace(name, **options):
    """A file of the wrong kind in place of a good one."""

    def damage(folder, volume):
        values, dtype = options.pop("values", 0), options.pop("dtype", np.uint8)
        sitk.WriteImage(volume(values, dtype, **options), folder / name)

    return damage


def _shorten(name):
    def damage(folder, volume):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


@pytest.mark.parametrize(
    ("damage", "names", "told"),
    [
        pytest.param(_shorten("t_gt.nii.gz"), "t_gt.nii.gz", "truncated", id="truncated test label"),
        pytest.param(
            _replace("a_gt.nii.gz", values=0.25, dtype=np.float32), "a_gt.nii.gz", "not integers (0.25)", id="fraction"
        ),
        pytest.param(_replace("a_gt.nii.gz", size=(6, 5, 3)), "a_gt.nii.gz", "size (6, 5, 3)", id="size"),
        pytest.param(_replace("t_gt.nii.gz", origin=(0, 0, 0)), "t_gt.nii.gz", "origin (0, 0, 0)", id="origin"),
        pytest.param(
            _replace("b_gt.nii", direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)), "b_gt.nii", "direction (1, 0,", id="direction"
        ),
    ],
)
def test_a_bad_file_is_named_and_nothing_is_written(tmp_path, inputs, write, volume, damage, names, told):
    damage(inputs, volume)
    with pytest.raises(AttenScribbleError) as caught:
        write(_cases(inputs))
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{inputs / names}: ")
    assert told in caught.value.problems[0]
    assert not (tmp_path / "raw").exists()
    assert not (tmp_path / "preprocessed").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_refused(tmp_path, inputs, write, volume, value):
    file = tmp_path / "inputs" / "a.mha"  # ITK's NIfTI reader makes them 0, for nnU-Net just as for this check
    sitk.WriteImage(volume([[[0, 1, value, 3, 4, 5]]], np.float32), file)
    with pytest.raises(AttenScribbleError, match=r"a\.mha: holds NaN or infinite voxels"):
        write(_without(_cases(inputs), "a", images=(file,)))


def _without(cases, index, **changes):
    return [replace(case, **changes) if case.identifier == index else case for case in cases]


@pytest.mark.parametrize(
    ("change", "options", "told"),
    [
        (lambda cases: [], {"splits": None}, "no training case was found"),
        (lambda cases: cases[:1], {"splits": None}, "every case is a test case"),
        (lambda cases: [*cases, cases[1]], {}, "case b: comes 2 times"),
        (lambda cases: _without(cases, "a", scribble=None), {}, "case a: has no scribble"),
        (lambda cases: _without(cases, "t", identifier="B"), {}, "cases B and b: are one file on macOS and Windows"),
        (
            lambda cases: [*_without(cases, "t", identifier="\u00e9"), replace(cases[0], identifier="e\u0301")],
            {},
            "cases e\u0301 and \u00e9: are one file",
        ),
        (lambda cases: _without(cases, "t", identifier="a\nb"), {}, "case 'a\\nb': cannot be part of a file name"),
        (
            lambda cases: _without(cases, "t", identifier="a\u2028"),
            {},
            "case 'a\\u2028': cannot be part of a file name",
        ),
        (lambda cases: _without(cases, "t", identifier="12:30"), {}, "case '12:30': cannot be part of a file name"),
        (lambda cases: _without(cases, "t", identifier="t "), {}, "case 't ': begins or ends with a blank"),
        (lambda cases: _without(cases, "t", identifier="t."), {}, "case 't.': begins or ends with a blank"),
        (lambda cases: _without(cases, "t", identifier="nul.1"), {}, "case 'nul.1': is the name of a device"),
        (lambda cases: _without(cases, "a", dense=None), {}, "case a: has no dense label"),
        (lambda cases: _without(cases, "a", images=()), {}, "case a: has 0 image channels instead of 1"),
        (lambda cases: _without(cases, "t", identifier="../t"), {}, "case '../t': cannot be part of a file name"),
        (None, {"dataset_id": 0}, "dataset ID 0: nnU-Net knows 1 to 999"),
        (None, {"dense_id": 1000}, "dataset ID 1000: nnU-Net knows 1 to 999"),
        (None, {"dense_id": 501}, "dataset ID 501: the dense twin needs an ID of its own"),
        (None, {"name": "A/B"}, "dataset name 'A/B': use letters"),
        (None, {"labels": {"background": 0, "RV": 2}}, "need background as 0, then 1, 2"),
        (None, {"labels": {**LABELS, "ignore": 4}}, "no ignore, which is added"),
        (None, {"splits": [{"train": ["a"], "val": []}]}, "fold 0: val holds no case"),
        (None, {"splits": [{"train": ["a"], "val": ["a"]}]}, "fold 0: a is in both"),
        (None, {"splits": [{"train": ["a"], "val": ["t"]}]}, "fold 0: t is not a training case"),
        (None, {"problems": ["something of the caller's"]}, "something of the caller's"),
    ],
)
def test_bad_arguments_are_told_and_nothing_is_written(tmp_path, inputs, write, change, options, told):
    with pytest.raises(AttenScribbleError) as caught:
        write((change or list)(_cases(inputs)), **options)
    assert len(caught.value.problems) == 1
    assert told in caught.value.problems[0]
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize(("values", "told"), [(4, "stroke: "), ([[[0, 4, 4, 4, 4, 4]]], "stroke of a class: ")])
def test_scribbles_without_any_stroke_are_refused_unless_trusted(tmp_path, inputs, write, volume, values, told):
    for name in ("a_scribble.nii.gz", "b_scribble.nii"):
        sitk.WriteImage(volume(values), inputs / name)
    with pytest.raises(AttenScribbleError, match=f"none of the 2 scribbles holds a {told}"):
        write(_cases(inputs))
    assert not (tmp_path / "raw").exists()
    assert write(_cases(inputs), trust_scribbles=True).training == 2


def test_what_was_not_drawn_is_told(inputs, write, volume, strokes):
    sitk.WriteImage(volume(np.where(strokes == 2, 4, strokes)), inputs / "a_scribble.nii.gz")
    sitk.WriteImage(volume(4), inputs / "b_scribble.nii")
    assert write(_cases(inputs)).notes == (
        "WARNING: MYO has no stroke in any case: nothing teaches it",
        "1 of 2 scribbles hold no stroke: b",
    )


def test_a_dense_class_that_no_label_shows_is_told(inputs, write, volume, dense):
    for name in ("a_gt.nii.gz", "b_gt.nii"):
        sitk.WriteImage(volume(np.where(dense == 3, 0, dense)), inputs / name)
    assert write(_cases(inputs), dense_id=None, dense_only=True).notes == (
        "WARNING: LV is in no dense label: nothing teaches it",
    )


def test_an_id_is_taken_from_the_first_check_on(tmp_path, inputs, write, scan):
    pytest.importorskip("fcntl")
    told = []

    def late():
        for ids in ({}, {"dataset_id": 502, "dense_id": None}):
            with pytest.raises(AttenScribbleError) as caught:
                write(_cases(inputs), **ids)
            told.extend(caught.value.problems)
        return scan(0)

    write(_without(_cases(inputs), "a", images=(late,)))
    assert set(told) == {
        f"{tmp_path / 'raw'}: dataset ID {number} is being written by another process: wait for it, or end it"
        for number in (501, 502)
    }
    assert sorted(entry.name for entry in (tmp_path / "raw").iterdir()) == ["Dataset501_Tiny", "Dataset502_TinyDense"]


def test_every_problem_is_told_at_once(inputs, write, volume):
    _shorten("a.nii.gz")(inputs, volume)
    _replace("b_gt.nii", values=9)(inputs, volume)
    with pytest.raises(AttenScribbleError) as caught:
        write(_without(_cases(inputs), "a", scribble=None), dense_id=501, workers=2)
    assert [problem.split(":")[0].split("/")[-1] for problem in caught.value.problems] == [
        "dataset ID 501",
        "case a",
        "a.nii.gz",
        "b_gt.nii",
    ]


@pytest.mark.parametrize(
    "taken",
    ["raw/Dataset501_Tiny", "raw/Dataset502_Other", "preprocessed/Dataset502_Old", "results/Dataset501_Tiny"],
)
def test_an_id_in_use_is_refused(tmp_path, inputs, write, taken):
    (tmp_path / taken).mkdir(parents=True)
    (tmp_path / "raw" / "Dataset5011_NotAnId").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(AttenScribbleError) as caught:
        write(_cases(inputs), results_folder=tmp_path / "results")
    assert caught.value.problems == [
        f"{tmp_path / taken}: has the dataset ID {taken.split('Dataset')[1][:3]} already: "
        "delete it, or choose another ID"
    ]
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_that_is_no_folder_is_told(tmp_path, inputs, write):
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(AttenScribbleError, match="raw: is not a folder"):
        write(_cases(inputs))


def test_an_error_while_writing_leaves_nothing(tmp_path, inputs, write, monkeypatch):
    def full(image, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("nnunet_attenscribble.dataset_conversion.cases.write_volume", full)
    with pytest.raises(AttenScribbleError, match=r"nothing incomplete was kept.*No space left on device"):
        write(_cases(inputs))
    assert not (tmp_path / "raw").exists()


SLOW_SCRIPT = """
import sys, time
from functools import partial
from pathlib import Path
import SimpleITK as sitk
from nnunet_attenscribble.dataset_conversion.raw_dataset import Case, RawDataset, Writing, write_raw_datasets

def late(path, flag):
    # Called once to check and once to write: the second time it never comes back.
    if Path(flag).exists():
        Path(flag + ".stuck").touch()
        time.sleep(600)
    Path(flag).touch()
    return sitk.ReadImage(path)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    first = Case("a", (folder / "a.nii.gz",), folder / "a_scribble.nii.gz")
    last = Case("z", (partial(late, str(folder / "a.nii.gz"), str(folder / "flag")),), folder / "a_scribble.nii.gz")
    dataset = RawDataset(501, "Tiny", {0: "MRI"}, {"background": 0, "RV": 1, "MYO": 2, "LV": 3}, provenance={})
    write_raw_datasets([first, last], dataset, Writing(Path(sys.argv[2]), workers=2))
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_kill_half_way_leaves_no_dataset_and_a_rerun_succeeds(tmp_path, inputs, write):
    script = tmp_path / "slow.py"
    script.write_text(SLOW_SCRIPT)
    process = subprocess.Popen([sys.executable, script, inputs, tmp_path / "raw"], start_new_session=True)
    try:
        wait_until(lambda: (inputs / "flag.stuck").exists() or process.poll() is not None)
        wait_until(lambda: any((tmp_path / "raw").rglob("labelsTr/a.nii.gz")))
        process.kill()  # the parent alone
        process.wait()
        wait_until(lambda: not _is_alive(process.pid))  # its workers follow
    finally:
        if _is_alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    assert {entry.name[0] for entry in (tmp_path / "raw").iterdir()} == {"."}  # hidden from nnU-Net
    written = write(_cases(inputs))
    assert sorted((tmp_path / "raw").iterdir()) == [written.scribble, written.dense]


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_drive_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert folder_problems(tmp_path, None) == [f"{tmp_path}: is on a drive that is not there: choose another folder"]
