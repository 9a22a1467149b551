"""Every bad input is told in one line that names the file, and nothing is written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import SimpleITK as sitk

from tests.dataset_conversion.downloads import (
    STEP,
    write_chaos,
    write_folders,
    write_h5,
    write_mscmr,
    write_scribblebench,
    write_slice,
)
from tests.tiny import make_dense, make_scan, make_strokes, make_volume

IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)


@pytest.fixture
def attempt(tmp_path, attenscribble):
    """Run the command, which must fail with one line that holds all these words, and write nothing."""

    def run(words, *arguments):
        code, _, err = attenscribble(*arguments, "--workers", 1)
        (told,) = [line for line in err.splitlines() if not line.startswith(("Checking", "Writing"))]
        assert code == 2
        assert told.startswith("error: ")
        for word in words:
            assert word in told
        assert not (tmp_path / "nnUNet_raw").exists()

    return run


def _cut(file: Path, share: float = 0.5):
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])


def _flip(file: Path):
    data = bytearray(file.read_bytes())
    data[-6] ^= 0xFF  # of the checksum: everything can be decompressed, and something is wrong with it
    file.write_bytes(bytes(data))


def _patch(file: Path, place: int, data: bytes):
    content = file.read_bytes()
    file.write_bytes(content[:place] + data + content[place + len(data) :])


def _plain(folder: Path, name: str) -> Path:
    """Write a file again without compression."""
    image = sitk.ReadImage(folder / f"{name}.nii.gz")
    (folder / f"{name}.nii.gz").unlink()
    sitk.WriteImage(image, folder / f"{name}.nii")
    return folder / f"{name}.nii"


def _link_to_nothing(file: Path):
    file.unlink()
    file.symlink_to(file.parent / "gone.nii.gz")


def _label(file: Path, values=None, dtype=np.uint8, **grid):
    sitk.WriteImage(make_volume(make_strokes() if values is None else values, dtype, **grid), file)


def _copy(file: Path, target: Path):
    target.parent.mkdir(exist_ok=True)
    shutil.copy(file, target)


def _empty(folder: Path):
    shutil.rmtree(folder)
    folder.mkdir()


A = "a.nii.gz"
SCRIBBLE = "a_scribble.nii.gz"
# (what is done to images, scribbles and dense labels; further options; words of the error)
FOLDERS = {
    "image truncated": (lambda i, s, d: _cut(i / A), [], (f"my images/{A}: is truncated or corrupt",)),
    "image with a broken checksum": (lambda i, s, d: _flip(i / A), [], (f"my images/{A}: is truncated or corrupt",)),
    "scribble truncated": (lambda i, s, d: _cut(s / SCRIBBLE), [], (f"{SCRIBBLE}: is truncated",)),
    "dense label truncated": (lambda i, s, d: _cut(d / A, 0.9), [], (f"my labels/{A}: is truncated",)),
    "plain image truncated": (lambda i, s, d: _cut(_plain(i, "a")), [], ("my images/a.nii: is truncated",)),
    "no gzip": (lambda i, s, d: (i / A).write_bytes(b"abc" * 99), [], (f"{A}: is named .gz but is not gzip data",)),
    "empty file": (lambda i, s, d: (i / A).write_bytes(b""), [], (f"{A}: is empty",)),
    "text": (lambda i, s, d: _plain(i, "a").write_text("hello" * 99), [], ("a.nii: is truncated, or not an image",)),
    "unreadable": (lambda i, s, d: _link_to_nothing(i / A), [], (f"my images/{A}: does not exist",)),
    "four dimensions": (
        lambda i, s, d: sitk.WriteImage(sitk.Image([6, 5, 4, 3], sitk.sitkUInt8), i / A),
        [],
        (f"{A}: has 4 dimensions",),
    ),
    "colours": (
        lambda i, s, d: sitk.WriteImage(sitk.Compose([make_scan(0)] * 3), i / A),
        [],
        (f"{A}: has several components",),
    ),
    "label in colours": (
        lambda i, s, d: sitk.WriteImage(sitk.Compose([make_volume(make_dense())] * 3), d / A),
        [],
        (f"my labels/{A}: has several components", "save the label with one value per voxel"),
    ),
    "spacing of 0": (
        lambda i, s, d: _patch(_plain(i, "a"), 88, bytes(4)),
        [],
        ("my images/a.nii: its header says a spacing of (1.5, 1.25, 0): correct it",),
    ),
    "NaN in a scribble": (
        lambda i, s, d: _label(s / SCRIBBLE, np.where(make_strokes() == 4, np.nan, make_strokes()), np.float32),
        [],
        (f"my scribbles/{SCRIBBLE}: holds NaN or infinite voxels",),
    ),
    "corrupt MetaImage": (
        lambda i, s, d: (
            (i / A).unlink(),
            sitk.WriteImage(make_scan(0), i / "a.mha", useCompression=True),
            _flip(i / "a.mha"),
        ),
        [],
        ("my images/a.mha: is truncated or corrupt: copy or download it again",),
    ),
    "a slice among volumes": (
        lambda i, s, d: [
            sitk.WriteImage(sitk.Image([6, 5], sitk.sitkUInt8) + value, folder / f"flat{behind}.png")
            for folder, behind, value in ((i, "", 0), (s, "_scribble", 4), (d, "", 0))
        ],
        [],
        ("my images/flat.png: has 2 dimensions, the others 3",),
    ),
    "NaN": (
        lambda i, s, d: (
            (i / A).unlink(),
            sitk.WriteImage(make_volume(np.nan, np.float32), i / "a.mha"),
        ),
        [],
        ("a.mha: holds NaN",),
    ),
    "another size": (
        lambda i, s, d: _label(s / SCRIBBLE, 4, size=(6, 5, 3)),
        [],
        (f"{SCRIBBLE}: size (6, 5, 3)", f"my images/{A}"),
    ),
    "another spacing": (
        lambda i, s, d: _label(s / SCRIBBLE, spacing=(1, 1, 8)),
        [],
        (f"{SCRIBBLE}: spacing (1, 1, 8)",),
    ),
    "another origin": (lambda i, s, d: _label(s / SCRIBBLE, origin=(0, 0, 0)), [], (f"{SCRIBBLE}: origin (0, 0, 0)",)),
    "another direction": (
        lambda i, s, d: _label(s / SCRIBBLE, direction=IDENTITY),
        [],
        (f"{SCRIBBLE}: direction (1, 0, 0",),
    ),
    "dense label elsewhere": (
        lambda i, s, d: _label(d / A, make_dense(), origin=(9, 9, 9)),
        [],
        (f"my labels/{A}: origin",),
    ),
    "fractions": (
        lambda i, s, d: _label(s / SCRIBBLE, make_strokes() + np.float32(0.5), np.float32),
        [],
        (f"{SCRIBBLE}: label values that are not integers (0.5",),
    ),
    "values outside the coding": (
        lambda i, s, d: _label(s / SCRIBBLE, np.where(make_strokes() == 1, 9, make_strokes())),
        [],
        (f"{SCRIBBLE}: label values 9 are outside the coding, which knows 0, 1, 2, 3, 4",),
    ),
    "negative values": (
        lambda i, s, d: _label(s / SCRIBBLE, make_strokes().astype(np.int16) - 1, np.int16),
        [],
        (f"{SCRIBBLE}: label values -1 are outside",),
    ),
    "unlabelled in a dense label": (
        lambda i, s, d: _label(d / A, 4),
        [],
        (f"my labels/{A}: label values 4 are outside",),
    ),
    "another coding": (
        lambda i, s, d: None,
        ["--coding", "prostatex"],
        ("label values 4 are outside the coding, which knows 0, 1, 2, 3, 255",),
    ),
    "swapped coding": (
        lambda i, s, d: _label(s / SCRIBBLE, np.array([4, 1, 2, 3, 0])[make_strokes()]),
        [],
        (f"{SCRIBBLE}: 80 % of its voxels would be background strokes", "swapped", "--coding chaos"),
    ),
    "dense label as scribble": (
        lambda i, s, d: _label(s / SCRIBBLE, make_dense()),
        [],
        (f"{SCRIBBLE}: ", "none unlabelled: it is a dense label"),
    ),
    "dense label with little background as scribble": (
        lambda i, s, d: _label(s / SCRIBBLE, np.arange(6) // 3),
        [],
        (f"{SCRIBBLE}: 50 % of its voxels would be background strokes and none unlabelled", "--trust-scribbles"),
    ),
    "unlabelled voxels as a class": (
        lambda i, s, d: None,
        ["--one", "--labels", "RV,MYO,LV,rest"],
        (
            f"{SCRIBBLE}: 80 % of its voxels would be strokes of rest and none unlabelled",
            "(--unlabelled, --coding, correct --labels); --trust-scribbles",
        ),
    ),
    "most voxels in a class": (
        lambda i, s, d: _label(s / SCRIBBLE, np.array([0, 1, 4, 3, 2])[make_strokes()]),
        [],
        (f"{SCRIBBLE}: 80 % of its voxels would be strokes of MYO: this value is probably the unlabelled one",),
    ),
    "image without scribble": (lambda i, s, d: (s / SCRIBBLE).unlink(), [], ("case a: has no scribble",)),
    "image without dense label": (lambda i, s, d: (d / A).unlink(), [], ("case a: has no dense label",)),
    "image of another kind": (lambda i, s, d: (i / "c.GIPL").touch(), [], ("c.GIPL: is of a kind that is not",)),
    "film": (
        lambda i, s, d: (i / "c.gif").touch(),
        [],
        ("c.gif: is of a kind", ".bmp, .jpg, .jpeg, .tif, .tiff,"),
    ),
    "image without an ending": (lambda i, s, d: (i / "IM0001").touch(), [], ("my images/IM0001: is of a kind that",)),
    "scribble of another kind": (lambda i, s, d: (s / "c.nii.zst").touch(), [], ("c.nii.zst: is of a kind that is",)),
    "test case of another kind": (
        lambda i, s, d: (
            _copy(i / A, i.parent / "tests" / "t.nii.gz"),
            (i.parent / "tests" / "u.img.gz").touch(),
        ),
        ["--test-images", "tests"],
        ("tests/u.img.gz: is of a kind that is not taken",),
    ),
    "cases of four digits": (
        lambda i, s, d: [
            (folder / f"{case}{behind}.nii.gz").rename(folder / f"img_{number:04d}{behind}.nii.gz")
            for folder, behind in ((i, ""), (s, "_scribble"), (d, ""))
            for number, case in enumerate(("a", "b b"), start=1)
        ],
        [],
        ("img_0001.nii.gz: four digits at the end are the number of a channel", "img_0001_0000.nii.gz and so on"),
    ),
    "test cases of four digits": (
        lambda i, s, d: [
            _copy(source / A, i.parent / folder / f"t_{number:04d}.nii.gz")
            for source, folder in ((i, "tests"), (d, "truths"))
            for number in (2019, 2020)
        ],
        ["--test-images", "tests", "--test-labels", "truths"],
        ("tests/t_2019.nii.gz: four digits at the end are the number of a channel", "t_2019_0000.nii.gz and so on"),
    ),
    "test cases of four digits without labels": (
        lambda i, s, d: [_copy(i / A, i.parent / "tests" / f"t_{number:04d}.nii.gz") for number in range(3)],
        ["--test-images", "tests"],
        ("case t: has 3 image channels instead of 1",),
    ),
    "no images": (lambda i, s, d: _empty(i), [], ("my images: holds no image",)),
    "no scribbles": (lambda i, s, d: _empty(s), ["--one"], ("my scribbles: holds no scribble",)),
    "no folder": (lambda i, s, d: shutil.rmtree(s), [], ("my scribbles: does not exist",)),
    "a file as folder": (
        lambda i, s, d: (shutil.rmtree(d), d.write_text("")),
        [],
        ("my labels: is not a folder",),
    ),
    "channel missing": (
        lambda i, s, d: (i / A).rename(i / "a_0001.nii.gz"),
        ["--one", "--channels", "T2"],
        ("a_0001.nii.gz: its case has no channel a_0000",),
    ),
    "channel too few": (
        lambda i, s, d: None,
        ["--one", "--channels", "T1,T2"],
        ("case a: has 1 image channels instead of 2",),
    ),
    "value with two meanings": (
        lambda i, s, d: None,
        ["--unlabelled", "2"],
        ("value 2 cannot mean both MYO and unlabelled",),
    ),
    "subject that is no expression": (
        lambda i, s, d: None,
        ["--subject", "("],
        ("subject '(': is no regular expression",),
    ),
    "subject that is not found": (
        lambda i, s, d: None,
        ["--one", "--subject", "p[0-9]"],
        ("case a: does not tell its subject",),
    ),
    "test case that is trained with": (
        lambda i, s, d: _copy(i / A, i.parent / "tests" / A),
        ["--test-images", "tests"],
        (f"tests/{A}: is a test case and a training case",),
    ),
    "twin of dense labels alone": (
        lambda i, s, d: None,
        ["--one", "--no-scribbles"],
        ("--dense-id 602: without --scribbles there is no twin: leave it out",),
    ),
}


@pytest.mark.parametrize("row", FOLDERS)
def test_own_folders(tmp_path, attempt, row, monkeypatch):
    damage, options, words = FOLDERS[row]
    monkeypatch.chdir(tmp_path)
    cases = ("a",) if "--one" in options or row == "another coding" else ("a", "b b")
    drawn = [] if "--no-scribbles" in options else ["-s", tmp_path / "my scribbles"]
    options = [option for option in options if option not in ("--one", "--no-scribbles")]
    images, scribbles, dense = write_folders(tmp_path, cases)
    damage(images, scribbles, dense)
    arguments = ["--labels", "RV,MYO,LV", "-d", 601, "--name", "Mine", "--dense-id", 602]
    attempt(words, "convert", "folder", images, *drawn, "--dense", dense, *arguments, *options)


def _slices(mr: Path, phase: str = "InPhase") -> list[Path]:
    return sorted((mr / "1" / "T1DUAL" / "DICOM_anon" / phase).glob("*.dcm"))


def _picture(mr: Path, values) -> str:
    file = mr / "1" / "T1DUAL" / "Ground" / "IMG-0001-00004.png"
    sitk.WriteImage(sitk.GetImageFromArray(np.asarray(values, np.uint8)), file)
    return file.name


CHAOS = {
    "two series": (
        lambda m, s: write_slice(_slices(m)[1], np.zeros((5, 6)), STEP, "1.2.3"),
        ("InPhase: holds 2 DICOM series",),
    ),
    "slice missing": (
        lambda m, s: (_slices(m)[1].unlink(), (m / "1/T1DUAL/Ground/IMG-0001-00004.png").unlink()),
        ("InPhase: a slice is missing between IMG-0001-00006.dcm and IMG-0001-00002.dcm",),
    ),
    "slice twice": (
        lambda m, s: _copy(_slices(m)[0], _slices(m)[0].with_name("again.dcm")),
        ("lies where", "give every slice once"),
    ),
    "no DICOM": (lambda m, s: _slices(m)[0].write_bytes(b"x" * 500), ("IMG-0001-00002.dcm: cannot be read as DICOM",)),
    "DICOM without a position": (
        lambda m, s: _cut(_slices(m)[0], 0.5),
        ("IMG-0001-00002.dcm: is no slice of a DICOM volume",),
    ),
    "pixels truncated": (lambda m, s: _cut(_slices(m)[0], 0.97), ("IMG-0001-00002.dcm: its pixels cannot be read",)),
    "phase missing": (lambda m, s: shutil.rmtree(_slices(m)[0].parent), ("T1DUAL: holds no DICOM_anon/InPhase/*.dcm",)),
    "picture missing": (
        lambda m, s: (m / "1/T1DUAL/Ground/IMG-0001-00004.png").unlink(),
        ("Ground: holds no picture for 1 of 4 slices (IMG-0001-00004)",),
    ),
    "picture of another size": (
        lambda m, s: _picture(m, np.zeros((4, 4))),
        ("IMG-0001-00004.png: has (4, 4) pixels",),
    ),
    "strange grey values": (
        lambda m, s: _picture(m, np.full((5, 6), 90)),
        ("00004.png: grey values 90 stand for no organ",),
    ),
    "picture that is none": (
        lambda m, s: (m / "1/T1DUAL/Ground/IMG-0001-00004.png").write_bytes(b"x"),
        ("IMG-0001-00004.png: is not a picture",),
    ),
    "scribble missing": (
        lambda m, s: (s / "1/patient1_t1_scb.nii.gz").unlink(),
        ("case chaos01_t1in: has no scribble",),
    ),
    "scribble twice": (
        lambda m, s: _copy(s / "1/patient1_t1_scb.nii.gz", s / "copies" / "patient1_t1_scb.nii.gz"),
        ("copies/patient1_t1_scb.nii.gz: the same scribble is also at",),
    ),
    "no patient": (lambda m, s: _empty(m), ("MR: holds no <patient>/T1DUAL",)),
    "no scribbles": (lambda m, s: _empty(s), ("scribble_data: holds no patient<number>_t1_scb.nii.gz",)),
}


@pytest.mark.parametrize("row", CHAOS)
def test_chaos(tmp_path, attempt, row):
    damage, words = CHAOS[row]
    folder, scribbles = write_chaos(tmp_path, (1, 2))
    damage(folder, scribbles)
    attempt(words, "convert", "chaos", folder, "-s", scribbles, "-d", 521)


def test_chaos_without_scribbles_has_no_twin(tmp_path, attempt):
    folder, _ = write_chaos(tmp_path, (1, 2))
    words = ["error: --dense-id 525: without --scribbles there is no twin: leave it out"]
    attempt(words, "convert", "chaos", folder, "-d", 521, "--dense-id", 525)


def _without(file: Path, key: str):
    with h5py.File(file, "a") as content:
        del content[key]


def _replaced(file: Path, key: str, values):
    _without(file, key)
    with h5py.File(file, "a") as content:
        content[key] = values


FRAME = "patient019_frame01.h5"
H5 = {
    "truncated": (lambda f, t: _cut(f / FRAME), (f"{FRAME}: cannot be read as h5",)),
    "no scribble": (lambda f, t: _without(f / FRAME, "scribble"), (f"{FRAME}: holds no scribble",)),
    "slices": (lambda f, t: _replaced(f / FRAME, "image", np.zeros((5, 6))), (f"{FRAME}: its image has 2 dimensions",)),
    "another shape": (
        lambda f, t: _replaced(f / FRAME, "scribble", np.zeros((4, 6, 5), np.uint8)),
        (f"{FRAME}: its scribble has the shape (4, 6, 5)",),
    ),
    "text as image": (
        lambda f, t: _replaced(f / FRAME, "image", np.full((4, 5, 6), b"x")),
        (f"{FRAME}: its image holds no",),
    ),
    "fractions": (
        lambda f, t: _replaced(f / FRAME, "scribble", make_strokes() + 0.25),
        ("scribble of case patient019_frame01: label values that are not integers",),
    ),
    "no line in the table": (
        lambda f, t: t.write_text(t.read_text().replace("patient019_frame01", "patient018_frame01")),
        (f"{FRAME}: has no spacing in ", "spacing.csv"),
    ),
    "another size in the table": (
        lambda f, t: t.write_text(t.read_text().replace("frame01,6,5,4", "frame01,6,5,9", 1)),
        (f"{FRAME}: its size (6, 5, 4) (x, y, z) is (6, 5, 9) in",),
    ),
    "no patients for the split": (
        lambda f, t: [
            (f / FRAME).rename(f / "T1_patient019.h5"),
            t.write_text(t.read_text().replace("patient019_frame01", "T1_patient019")),
        ],
        ("split 'maag': goes by the patient numbers of ACDC", "patient019_frame01.h5"),
        *("--split", "maag"),
    ),
    "patients found elsewhere for the split": (
        lambda f, t: None,
        ("split 'contiguous': goes by the patient numbers of ACDC", "--subject cannot be given"),
        *("--split", "contiguous", "--subject", "patient([0-9]+)"),
    ),
    "patient that is not found": (
        lambda f, t: None,
        ("case patient032_frame01: does not tell its subject by 'patient019'",),
        *("--subject", "patient019"),
    ),
    "no column": (lambda f, t: t.write_text("case,sx,sy\n"), ("spacing.csv: has no column sz",)),
    "no table": (lambda f, t: t.unlink(), ("spacing.csv: cannot be read as CSV",)),
    "no files": (lambda f, t: _empty(f), ("ACDC_training_volumes: holds no .h5 file",)),
}


@pytest.mark.parametrize("row", H5)
def test_h5(tmp_path, attempt, row):
    damage, words, *options = H5[row]
    folder, table = write_h5(tmp_path)
    damage(folder, table)
    attempt(words, "convert", "h5", folder, "--spacing-csv", table, "-d", 541, *options)


def _describe(folder: Path, **changes):
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**content, **changes}))


LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
SCRIBBLEBENCH = {
    "ignore that is not the highest": (
        lambda f: _describe(f, labels={**LABELS, "ignore": 255}),
        ("dataset.json: ignore is 255",),
    ),
    "Ignore that is not the highest": (
        lambda f: _describe(f, labels={**LABELS, "Ignore": 9}),
        ("dataset.json: Ignore is 9: nnU-Net needs one more than the highest class, 4",),
    ),
    "Background that is a class": (
        lambda f: _describe(f, labels={**LABELS, "Background": 4}),
        ("dataset.json: Background is 4: it must be 0",),
    ),
    "no classes": (lambda f: _describe(f, labels={"background": 0}), ("dataset.json: names no class but the",)),
    "channels without names": (
        lambda f: _describe(f, channel_names={"0": []}),
        ("dataset.json: its channels [[]] are no",),
    ),
    "a class without a name": (
        lambda f: _describe(f, labels={"0": "background", "1": None}),
        ("dataset.json: does not tell labels", "None is no name"),
    ),
    "gaps between classes": (
        lambda f: _describe(f, labels={"background": 0, "RV": 2}),
        ("dataset.json: its classes have the values [2]",),
    ),
    "infinity": (
        lambda f: _describe(f, labels={**LABELS, "LV": float("inf")}),
        ("dataset.json: does not tell labels",),
    ),
    "half a class": (lambda f: _describe(f, labels={**LABELS, "LV": 3.5}), ("3.5 is no whole number",)),
    "no JSON": (lambda f: (f / "dataset.json").write_text("{"), ("dataset.json: is no JSON", "give --labels and")),
    "no description": (lambda f: (f / "dataset.json").unlink(), ("dataset.json: does not exist",)),
    "no scribbles": (lambda f: shutil.rmtree(f / "labelsTr"), ("Hearts: holds no labelsTr",)),
    "dense labels as scribbles": (
        lambda f: _copy(f / "labelsTr_dense" / A, f / "labelsTr" / A),
        (f"labelsTr/{A}: ", "dense label"),
    ),
    "test label without image": (
        lambda f: _copy(f / "labelsTs" / "t.nii.gz", f / "labelsTs" / "u.nii.gz"),
        ("u.nii.gz: has no image",),
    ),
    "corrupt": (lambda f: _cut(f / "imagesTs" / "t_0000.nii.gz"), ("t_0000.nii.gz: is truncated",)),
}


@pytest.mark.parametrize("row", SCRIBBLEBENCH)
def test_scribblebench(tmp_path, attempt, row):
    damage, words = SCRIBBLEBENCH[row]
    folder = write_scribblebench(tmp_path)
    damage(folder)
    attempt(words, "convert", "scribblebench", folder, "-d", 551)


MSCMR = {
    "label without image": (
        lambda f: (f / "train/images/subject2_DE.nii.gz").unlink(),
        ("subject2_DE_scribble.nii.gz: has no image",),
    ),
    "no scribble": (
        lambda f: (f / "train/labels/subject2_DE_scribble.nii.gz").unlink(),
        ("case subject02: has no scribble",),
    ),
    "image twice": (
        lambda f: _copy(f / "train/images/subject2_DE.nii.gz", f / "val/images/subject2_DE.nii.gz"),
        ("the same file is also at",),
    ),
    "nothing": (_empty, ("MSCMR_dataset: holds no subject<number>_DE.nii.gz",)),
}


@pytest.mark.parametrize("row", MSCMR)
def test_mscmr(tmp_path, attempt, row):
    damage, words = MSCMR[row]
    folder = write_mscmr(tmp_path)
    damage(folder)
    attempt(words, "convert", "mscmr", folder, "-d", 531)


def test_pictures_whose_names_do_not_match_are_told_with_the_slices_they_leave(tmp_path, attenscribble):
    folder, _ = write_chaos(tmp_path, (1, 2))
    picture = folder / "1/T1DUAL/Ground/IMG-0001-00004.png"
    picture.rename(picture.with_name("IMG-0001-00002 (1).png"))
    _, _, err = attenscribble("convert", "chaos", folder, "-d", 5)
    first, second = (line for line in err.splitlines() if line.startswith("error: "))
    assert "IMG-0001-00002 (1).png: has no slice of its name" in first
    assert "Ground: holds no picture for 1 of 4 slices (IMG-0001-00004)" in second
    assert not (tmp_path / "nnUNet_raw").exists()


def test_a_damaged_archive(tmp_path, attempt, write_acdc):
    folder, scribbles = write_acdc()
    archive = Path(shutil.make_archive(str(tmp_path / "acdc_scribbles"), "zip", scribbles))
    _cut(archive)
    words = ["acdc_scribbles.zip: is neither a folder nor a whole zip archive"]
    attempt(words, "convert", "acdc", folder, "-s", archive, "-d", 501)


def test_a_full_disk(tmp_path, attempt, monkeypatch):
    images, scribbles, _ = write_folders(tmp_path, ("a",))

    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr("nnunet_attenscribble.dataset_conversion.cases.shutil.copyfile", full)
    words = ["nothing incomplete was kept", "a_0000.nii.gz", "No space left on device"]
    options = ["-d", 601, "--name", "Mine", "--labels", "RV,MYO,LV"]
    attempt(words, "convert", "folder", images, "-s", scribbles, *options)


def test_a_read_only_output(tmp_path, attempt):
    images, scribbles, _ = write_folders(tmp_path, ("a",))
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # who may write anywhere but there
        if not Path("/proc/self").exists():
            pytest.skip("no folder is read-only for the superuser")
        output, words = Path("/proc/nnUNet_raw"), "could not be written"
    else:
        (tmp_path / "out").mkdir(mode=0o500)
        output, words = tmp_path / "out" / "nnUNet_raw", "is read-only"
    options = ["-d", 601, "--name", "Mine", "--labels", "RV,MYO,LV", "--raw", output]
    attempt([words, str(output.parent)], "convert", "folder", images, "-s", scribbles, *options)
    assert not output.exists()


def test_chaos_names_files_as_they_were_given(tmp_path, attenscribble, monkeypatch):
    folder, _ = write_chaos(tmp_path, (1,))
    (folder / "1/T1DUAL/Ground/IMG-0001-00004.png").unlink()
    monkeypatch.chdir(folder)
    _, _, err = attenscribble("convert", "chaos", ".", "-d", 5)
    assert "1/T1DUAL/Ground: holds no picture for 1 of 4 slices" in err
    assert str(tmp_path) not in err
