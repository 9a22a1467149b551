import gzip
import json
import os

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.dataset_conversion.inspection import PERCENTILES, inspect_dataset
from nnunet_attenscribble.dataset_conversion.raw_dataset import Writing
from nnunet_attenscribble.errors import AttenScribbleError
from tests.quick_nnunet import verify

LABELS = {"background": 0, "shell": 1, "core": 2}
DIRECTION = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """nnUNet_raw with a dataset of two channels, oblique and anisotropic."""
    folder = tmp_path / "raw"
    source = folder / "Dataset007_Balls"
    (source / "imagesTr").mkdir(parents=True)
    (source / "labelsTr").mkdir()
    rng = np.random.default_rng(0)
    grid = np.indices((5, 24, 20))
    for case in ("a", "b b", "ç"):
        distance = np.sqrt((3 * (grid[0] - 2)) ** 2 + (grid[1] - 11) ** 2 + (grid[2] - 10) ** 2)
        label = ((distance < 8).astype(np.uint8) + (distance < 4)).astype(np.uint8)
        for name, array in (
            (f"imagesTr/{case}_0000", rng.normal(size=label.shape).astype(np.float32)),
            (f"imagesTr/{case}_0001", rng.normal(size=label.shape).astype(np.float32)),
            (f"labelsTr/{case}", label),
        ):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((1.5, 1.25, 6.0))
            image.SetOrigin((-3.0, 20.0, 7.5))
            image.SetDirection(DIRECTION)
            sitk.WriteImage(image, str(source / f"{name}.nii.gz"))
    write_description(source)
    monkeypatch.setenv("nnUNet_raw", str(folder))
    return folder


def write_description(source, **changes):
    content = {"channel_names": {"0": "T1", "1": "T2"}, "labels": LABELS, "numTraining": 3, "file_ending": ".nii.gz"}
    (source / "dataset.json").write_text(json.dumps(content | changes))


def run(*arguments):
    return CliRunner().invoke(app, ["scribble", *arguments], catch_exceptions=False)


def test_a_dataset_that_nnunet_accepts(raw, tmp_path, monkeypatch):
    preprocessed = tmp_path / "preprocessed"
    (preprocessed / "Dataset007_Balls").mkdir(parents=True)
    splits = [{"train": ["a", "b b"], "val": ["ç"]}]
    (preprocessed / "Dataset007_Balls" / "splits_final.json").write_text(json.dumps(splits))
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed))
    result = run("7", "-o", "507", "--workers", "1")
    assert result.exit_code == 0
    written = raw / "Dataset507_BallsScribble"
    verify(written)
    assert json.loads((written / "dataset.json").read_text())["labels"] == {**LABELS, "ignore": 3}
    for case in ("a", "b b", "ç"):
        link = written / "imagesTr" / f"{case}_0001.nii.gz"
        assert link.is_symlink()
        assert not os.path.isabs(os.readlink(link))
        assert link.samefile(raw / "Dataset007_Balls" / "imagesTr" / f"{case}_0001.nii.gz")
        scribble, dense = (
            sitk.ReadImage(str(folder / "labelsTr" / f"{case}.nii.gz"))
            for folder in (written, raw / "Dataset007_Balls")
        )
        for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(scribble, geometry)() == getattr(dense, geometry)()
        drawn, truth = sitk.GetArrayFromImage(scribble), sitk.GetArrayFromImage(dense)
        assert np.array_equal(drawn[drawn != 3], truth[drawn != 3])
        assert set(np.unique(drawn)) == {0, 1, 2, 3}
    provenance = json.loads((written / "provenance.json").read_text())
    assert provenance["options"]["coverage"] == 0.16
    assert provenance["inputs"]["a"]["further"][0]["file"] == "a.nii.gz"
    assert json.loads((preprocessed / written.name / "splits_final.json").read_text()) == splits
    rows = [line.split() for line in result.output.splitlines()]
    (core,) = (row for row in rows if row and row[0] == "core")
    assert core[-6:] == ["0", "of", core[-4], "0", "of", core[-1]]


@pytest.mark.parametrize("preprocessed", [True, False])
def test_splits_that_lie_in_the_raw_folder_alone_are_taken_over(raw, tmp_path, monkeypatch, preprocessed):
    if preprocessed:
        monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    splits = [{"train": ["b b", "ç"], "val": ["a"]}]
    (raw / "Dataset007_Balls" / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    assert run("7", "-o", "507", "--workers", "1").exit_code == 0
    for folder in (raw, tmp_path / "preprocessed")[: 1 + preprocessed]:
        written = folder / "Dataset507_BallsScribble" / "splits_final.json"
        assert json.loads(written.read_text(encoding="utf-8")) == splits


def test_cases_that_came_or_went_since_the_folds_were_drawn(raw, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    file = tmp_path / "preprocessed" / "Dataset007_Balls" / "splits_final.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps([{"train": ["a"], "val": ["x"]}, {"train": ["x", "y"], "val": ["b b"]}]))
    with pytest.raises(AttenScribbleError) as caught:
        run("7", "-o", "507", "--workers", "1")
    gone = [line.partition(": delete it")[0] for line in caught.value.problems]
    expected = ("fold 0: x", "fold 1: x", "fold 1: y")
    assert gone == [f"{file}: {told} is not a training case" for told in expected]
    file.write_text(json.dumps([{"train": ["a"], "val": ["b b"]}]))
    assert f"1 training cases are in no fold of {file}" in run("7", "-o", "507", "--workers", "1").output


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('[{"train": ["a"', ["is no JSON"]),
        ("{}", ["is not a list of folds"]),
        (
            '[{"train": ["a", "b b"], "val": ["ç"]}, {"train": "a"}, 3]',
            ["'[1].train' is", "has no '[1].val'", "'[2]' is 3"],
        ),
    ],
)
def test_damaged_splits_are_told_by_their_file(raw, content, told):
    file = raw / "Dataset007_Balls" / "splits_final.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(AttenScribbleError) as caught:
        run("7", "-o", "507", "--workers", "1")
    assert len(caught.value.problems) == len(told)
    for problem, words in zip(caught.value.problems, told, strict=True):
        assert problem.startswith(f"{file}: {words}")
    assert [folder.name for folder in raw.iterdir()] == ["Dataset007_Balls"]


def test_each_case_is_drawn_once(raw, monkeypatch):
    from nnunet_attenscribble.dataset_conversion import scribble_dataset as module

    drawn = []

    def draw(labels, spacing, rules, ignore, case):
        drawn.append(case)
        return really(labels, spacing, rules, ignore, case)

    really = module.draw_scribbles
    monkeypatch.setattr(module, "draw_scribbles", draw)
    rules = module.ScribbleRules()
    source = raw / "Dataset007_Balls"
    result = module.scribble_dataset(source, dataset_id=507, name="B", rules=rules, writing=Writing(raw, workers=1))
    assert drawn == ["a", "b b", "ç"]
    voxels = [sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in result.written.scribble.glob("labelsTr/*")]
    counts = np.bincount(np.ravel(voxels), minlength=4)
    assert result.written.scribble_voxels == dict(zip([*LABELS, "ignore"], counts.tolist(), strict=True))
    folds = json.loads((result.written.scribble / "splits_final.json").read_text())
    assert [fold["val"] for fold in folds] == [["a"], ["b b"], ["ç"]]  # nnU-Net's own five need five cases


def test_the_number_of_workers_changes_nothing(raw):
    for number, workers in (("507", "1"), ("508", "2")):
        assert run("7", "-o", number, "--workers", workers, "--name", "Balls").exit_code == 0
    for case in ("a", "b b", "ç"):
        one, other = (raw / f"Dataset{number}_Balls/labelsTr/{case}.nii.gz" for number in ("507", "508"))
        assert one.read_bytes() == other.read_bytes()


def test_a_link_still_leads_to_its_image_when_both_datasets_move(raw, tmp_path):
    run("7", "-o", "507", "--workers", "1")
    moved = tmp_path / "elsewhere"
    raw.rename(moved)
    assert sitk.ReadImage(str(moved / "Dataset507_BallsScribble/imagesTr/a_0000.nii.gz")).GetSize() == (20, 24, 5)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """nnUNet_raw with a dataset of pictures in colour, one file for three channels, and the colours of one of them."""
    source = tmp_path / "raw" / "Dataset008_Rgb"
    (source / "imagesTr").mkdir(parents=True)
    (source / "labelsTr").mkdir()
    label = np.zeros((24, 20), np.uint8)
    label[4:18, 3:15], label[8:12, 6:10] = 1, 2
    for case in ("r0", "r1"):
        colours = np.random.default_rng(len(case)).integers(0, 255, (24, 20, 3)).astype(np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), source / f"imagesTr/{case}_0000.png")
        sitk.WriteImage(sitk.GetImageFromArray(label), source / f"labelsTr/{case}.png")
    names = {"0": "R", "1": "G", "2": "B"}
    write_description(source, channel_names=names, file_ending=".png", numTraining=2)
    monkeypatch.setenv("nnUNet_raw", str(source.parent))
    return source, colours


def test_pictures_in_colour_become_a_file_per_channel(pictures):
    source, colours = pictures
    verify(source)
    result = run("8", "-o", "508", "--workers", "1")
    assert "holds 2 cases; the images are copies of those of Dataset008_Rgb, as .nii.gz." in result.output
    written = source.parent / "Dataset508_RgbScribble"
    verify(written)
    for channel in range(3):
        image = sitk.ReadImage(str(written / "imagesTr" / f"r1_{channel:04d}.nii.gz"))
        assert np.array_equal(sitk.GetArrayFromImage(image), colours[..., channel])
    inputs = json.loads((written / "provenance.json").read_text())["inputs"]["r1"]["further"]
    assert [entry["file"] for entry in inputs] == ["r1.png", "r1_0000.png"]


def test_pictures_in_colour_are_inspected(pictures, tmp_path):
    source, colours = pictures
    found = inspect_dataset(source, None, workers=1).cases["r1"]
    expected = [tuple(np.percentile(colours[..., channel], PERCENTILES)) for channel in range(3)]
    assert list(found.intensities) == expected
    sheet = tmp_path / "sheet.png"
    result = CliRunner().invoke(app, ["inspect", "8", "-o", str(sheet), "--channel", "2", "--workers", "1"])
    assert result.exit_code == 0
    assert sheet.is_file()


def test_pictures_of_other_channels_or_damaged_are_told(pictures):
    source, _ = pictures
    write_description(source, channel_names={str(number): "x" for number in range(4)}, file_ending=".png")
    (source / "imagesTr" / "r0_0000.png").write_bytes(b"torn")
    with pytest.raises(AttenScribbleError) as caught:
        run("8", "-o", "508", "--workers", "1")
    damaged, lacking = caught.value.problems
    assert "/r0_0000.png: is truncated, or not an image that nnU-Net's NaturalImage2DIO can read" in damaged
    assert lacking.rpartition("/")[2] == (
        "case r1 of Dataset008_Rgb has 3 images, counting colours, dataset.json has 4 channels: "
        "add the missing files, or correct channel_names"
    )


def test_whether_images_are_links_is_told(raw):
    assert "the images are links to Dataset007_Balls." in run("7", "-o", "507", "--workers", "1").output
    image = raw / "Dataset007_Balls" / "imagesTr" / "a_0001.nii.gz"
    content = bytearray(gzip.decompress(image.read_bytes()))
    rows = np.frombuffer(content[280:328], np.float32).reshape(3, 4).copy()  # srow_x, _y, _z
    rows[:, :3] /= np.linalg.norm(rows[:, :3], axis=0)  # of unit scale beside the true voxel size, as in ACDC
    content[280:328] = rows.tobytes()
    image.write_bytes(gzip.compress(bytes(content)))
    output = run("7", "-o", "508", "--workers", "1").output
    assert "5 of 6 images are links to Dataset007_Balls, the others copies." in output


def test_what_cannot_be_scribbled_is_told_and_nothing_written(raw):
    source = raw / "Dataset007_Balls"
    for changes, message in (
        ({"labels": {**LABELS, "ignore": 3}}, "its labels are scribbles already"),
        ({"labels": {"background": 0, "whole": [1, 2], "core": 2}}, r"has regions \(whole\)"),
        ({"labels": {"background": 0, "shell": 1}}, r"label values \[2\] are not in dataset.json"),
        ({"channel_names": {"0": "T1"}}, "case a of Dataset007_Balls has 2 images"),
    ):
        write_description(source, **changes)
        with pytest.raises(AttenScribbleError, match=message):
            run("7", "-o", "507", "--workers", "1")
    write_description(source)
    (source / "labelsTr" / "a.nii.gz").write_bytes((source / "labelsTr" / "a.nii.gz").read_bytes()[:-30])
    with pytest.raises(AttenScribbleError, match=r"a\.nii\.gz: is truncated"):
        run("7", "-o", "507", "--workers", "1")
    with pytest.raises(AttenScribbleError, match="coverage is 2"):
        run("7", "-o", "507", "--coverage", "2")
    with pytest.raises(AttenScribbleError, match=r"background_distance is 0.6 to 0.3(.|\n)*background_wander is 1.0"):
        run("7", "-o", "507", "--background-distance", "0.6", "0.3", "--background-wander", "1")
    (source / "dataset.json").write_text("{")
    with pytest.raises(AttenScribbleError, match="is no JSON"):
        run("7", "-o", "507")
    assert [folder.name for folder in raw.iterdir()] == ["Dataset007_Balls"]


def test_half_of_the_strokes(raw):
    for number, share in ((509, "1"), (510, "0.5")):
        run("7", "-o", str(number), "--name", f"S{number}", "--strokes", share, "--workers", "1")
    assert json.loads((raw / "Dataset510_S510" / "provenance.json").read_text())["options"]["strokes"] == 0.5
    whole, half = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(raw / folder / "labelsTr" / "a.nii.gz")))
        for folder in ("Dataset509_S509", "Dataset510_S510")
    )
    drawn = half != 3
    assert np.array_equal(half[drawn], whole[drawn])
    assert 0.2 < drawn.sum() / (whole != 3).sum() < 0.8


def test_every_second_slice_as_a_whole(raw):
    output = run("7", "-o", "509", "--name", "Slices", "--dense-slices", "2", "--workers", "1").output
    written = raw / "Dataset509_Slices"
    verify(written)
    assert json.loads((written / "provenance.json").read_text())["options"]["dense_slices"] == 2
    without = 0
    for case in ("a", "b b", "ç"):
        drawn, truth = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labelsTr" / f"{case}.nii.gz")))
            for folder in (written, raw / "Dataset007_Balls")
        )
        known = (drawn != 3).any(axis=(1, 2))
        assert known.tolist() in ([True, False, True, False, True], [False, True, False, True, False])
        assert np.array_equal(drawn[known], truth[known])
        without += sum(not found for found in known)
    (background,) = (line.split() for line in output.splitlines() if line.startswith("background"))
    assert f"{without} of 15" in " ".join(background)


def test_every_nth_slice_of_a_picture_is_refused(raw):
    for file in (raw / "Dataset007_Balls").rglob("*.nii.gz"):
        sitk.WriteImage(sitk.ReadImage(str(file))[:, :, 1:2], str(file))
    with pytest.raises(AttenScribbleError) as caught:
        run("7", "-o", "509", "--dense-slices", "2", "--workers", "1")
    assert len(caught.value.problems) == 3
    assert all("is a single slice: dense_slices needs volumes" in problem for problem in caught.value.problems)
    assert [folder.name for folder in raw.iterdir()] == ["Dataset007_Balls"]


def test_scribblebench_and_other_options_exclude_each_other(raw, tmp_path):
    with pytest.raises(AttenScribbleError, match="leave out the other options"):
        run("7", "-o", "507", "--config", str(tmp_path / "x.yml"), "--coverage", "0.5")
