"""`attenscribble attention` on networks that were trained for a few iterations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from skimage import io
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.attention_folder import ATTENTION_FILE, read_record
from nnunet_attenscribble.evaluation.report.attention import list_cells, read_view
from nnunet_attenscribble.network import SpatialAttentionUNet
from nnunet_attenscribble.trained_model import TrainedModel
from tests.evaluation.collected_folder import read_csv
from tests.nnunet_attenscribble import brute_force
from tests.trainers.conftest import NAME, VOLUMES

pytestmark = pytest.mark.xdist_group("trainers")


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["attention", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def train(prepared, trainer: str, configuration: str) -> Path:
    """The model folder; of a training without its validation."""
    made = prepared.make(trainer, configuration)
    made.run_training()
    folder = Path(made.output_folder_base)
    for name in ("dataset.json", "plans.json"):
        (folder / name).write_bytes(
            (prepared.preprocessed / {"plans.json": "nnUNetPlans.json"}.get(name, name)).read_bytes()
        )
    return folder


def write_dense(images: Path, target: Path) -> None:
    """Dense labels of the bright squares (or balls) with their darker core."""
    target.mkdir()
    for file in images.glob("*_0000.nii.gz"):
        image = sitk.ReadImage(str(file))
        voxels = sitk.GetArrayFromImage(image)
        label = sitk.GetImageFromArray(((voxels > 0.5).astype(np.uint8) + (voxels > 1.5)).astype(np.uint8))
        label.CopyInformation(image)
        sitk.WriteImage(label, str(target / file.name.replace("_0000", "")))


def read_network(model: Path) -> SpatialAttentionUNet:
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(model), ("0",))
    return predictor.network.eval()


def test_a_2d_model_with_dense_labels(nnunet, tmp_path, monkeypatch):
    images = nnunet.folder / "nnUNet_raw" / NAME / "imagesTr"
    model = train(nnunet, "nnUNetTrainerAttenScribble", "tiny")
    write_dense(images, tmp_path / "dense")
    before = {file: file.read_bytes() for file in model.rglob("*") if file.is_file()}
    told = call(model, "-i", images, "-l", tmp_path / "dense", "-o", tmp_path / "out", "--structure", "core")
    assert {file: file.read_bytes() for file in model.rglob("*") if file.is_file()} == before

    cases = [f"case{number}" for number in range(4)]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(
        ["attention.json", "similarity.csv", *(f"{case}{ending}" for case in cases for ending in (".npz", ".png"))]
    )
    record = json.loads((tmp_path / "out" / ATTENTION_FILE).read_text())
    assert (record["cases"], record["labels"]) == (cases, "dense")
    assert record["provenance"]["trainer"] == "nnUNetTrainerAttenScribble"
    assert record["provenance"]["configuration"] == "tiny"
    assert record["provenance"]["dataset"] == NAME
    assert len(record["provenance"]["plans_sha256"]) == 64
    assert record["block"] == {"similarity": "anchored", "radius": [1, 1], "grid": [8, 8]}

    with monkeypatch.context() as patched:
        patched.setenv("nnUNet_compile", "t")
        trained = TrainedModel(model, "0", "checkpoint_final.pth", torch.device("cpu"))
    assert isinstance(trained.network, SpatialAttentionUNet)
    trained.predictor.dataset_json["labels"] |= {"ring": [1], "core": "2"}  # as nnU-Net takes them
    assert trained.label_names == ["background", "ring", "core"]

    # What is shown is what the network itself gives for that plane.
    view = read_view(tmp_path / "out" / "case1.npz")
    assert view.structure == "core"
    assert view.image.shape == (32, 32)
    network = read_network(model)
    plane = torch.from_numpy(view.image)[None, None]
    kept: list = []
    network.attention.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    with torch.inference_mode():
        network(plane)
        expected = network.attention.attention_map(kept[0], view.position)[0]
        _, similarity = network.attention.train()(kept[0])
    np.testing.assert_allclose(view.attention, expected, rtol=1e-4)
    assert view.attention.sum() == pytest.approx(1, abs=1e-5)
    row, column = view.position
    dense = brute_force.to_matrix(similarity)[0].view(8, 8, 8, 8)[row, column].numpy()
    inside = np.zeros((8, 8), bool)
    inside[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = True
    inside[row, column] = False
    np.testing.assert_array_equal(np.isfinite(view.similarity), inside)
    np.testing.assert_allclose(view.similarity[inside], dense[inside], rtol=1e-4)
    assert len(list_cells(view)) == 64

    # The position lies on the structure; the label is drawn from the very image.
    cell = (slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4))
    assert view.image[cell].max() > view.image.mean()

    rows = read_csv(tmp_path / "out" / "similarity.csv")
    assert {entry["case"] for entry in rows} == set(cases)
    assert {(entry["first"], entry["second"]) for entry in rows} >= {("background", "background")}
    # In a window of radius 1 every pair touches.
    window = [entry for entry in rows if entry["case"] == "case0" and entry["neighbours"] == "window"]
    adjacent = [entry for entry in rows if entry["case"] == "case0" and entry["neighbours"] == "adjacent"]
    assert [dict(entry, neighbours="") for entry in window] == [dict(entry, neighbours="") for entry in adjacent]
    # 28 x 24 pixels in the middle of 32 x 32: 6 x 6 cells of 4 x 4 lie in the image by more than half.
    assert sum(int(entry["pairs"]) for entry in window) == 3 * (2 * 6 * 5 + 2 * 5 * 5)
    content = json.loads((tmp_path / "out" / "attention.json").read_text())
    assert {entry["pairs"] for entry in content["similarity"]} >= {"same class", "different classes"}
    assert "different classes" in told
    for entry in content["similarity"]:
        assert 0 < entry["mean"] < 1

    # Labels in another order of axes are turned onto the images, and those that lie elsewhere are refused.
    file = tmp_path / "dense" / "case0.nii.gz"
    label = sitk.ReadImage(str(file))
    sitk.WriteImage(sitk.Flip(sitk.PermuteAxes(label, (1, 2, 0)), (True, False, False), False), str(file))
    call(model, "-i", images, "-l", tmp_path / "dense", "-o", tmp_path / "turned", "--structure", "core")
    for name in ("similarity.csv", "case0.png"):
        assert (tmp_path / "turned" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    label.SetOrigin((100, 0, 0))
    sitk.WriteImage(label, str(file))
    with pytest.raises(AttenScribbleError, match=r"case0\.nii\.gz: origin \(100, 0, 0\) differs from"):
        call(model, "-i", images, "-l", tmp_path / "dense", "-o", tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_without_labels_and_again(nnunet, tmp_path):
    images = nnunet.folder / "nnUNet_raw" / NAME / "imagesTr"
    model = train(nnunet, "nnUNetTrainerAttention", "tiny")
    out = tmp_path / "out"
    call(model, "-i", images, "-o", out)
    assert not (out / "similarity.csv").exists()
    assert json.loads((out / ATTENTION_FILE).read_text())["block"]["similarity"] is None
    view = read_view(out / "case2.npz")
    assert not view.has_similarity
    assert np.isfinite(view.attention).all()
    description = model / "dataset.json"
    description.write_text(description.read_text().replace("channel_names", "modality"))  # as nnU-Net called it first
    call(model, "-i", images, "-o", out, "--case", "case2")
    assert sorted(file.name for file in out.iterdir()) == ["attention.json", "case2.npz", "case2.png"]
    assert read_view(out / "case2.npz").position == view.position
    assert not [file for file in tmp_path.iterdir() if file.name.endswith(".part")]

    # What cannot be is told, and what was there stays.
    for arguments, message in (
        (["-i", images, "--case", "nobody"], "--case nobody has no image"),
        (["-i", images, "--structure", "liver"], "none of the model's: ring, core"),
        (["-i", images, "-l", images], "has no dense label in"),
        (["-i", tmp_path / "nowhere"], "is not a folder"),
        (["-i", out], "has no file that ends like CASE_0000.nii.gz"),
        (["-i", images, "--fold", "3"], "name another with --fold"),
        (["-i", images, "--device", "tpu"], "nnU-Net knows cpu, cuda and mps"),
    ):
        with pytest.raises(AttenScribbleError, match=message):
            call(model, "-o", out, *arguments)
    with pytest.raises(AttenScribbleError, match="holds something else"):
        call(model, "-i", images, "-o", images)
    with pytest.raises(AttenScribbleError, match=r"dataset\.json is not there"):
        call(images, "-i", images, "-o", out)
    damaged = shutil.copytree(model, tmp_path / "damaged")
    plans = json.loads((damaged / "plans.json").read_text())
    (damaged / "plans.json").write_text(json.dumps(plans | {"image_reader_writer": "LabelManager"}))
    with pytest.raises(AttenScribbleError, match=r"plans\.json: names no reader of images"):
        call(damaged, "-i", images, "-o", out)
    assert sorted(file.name for file in out.iterdir()) == ["attention.json", "case2.npz", "case2.png"]


def test_a_model_without_a_block(nnunet, tmp_path):
    model = train(nnunet, "nnUNetTrainerMaskedCRF", "tiny")
    told = call(model, "-i", nnunet.folder / "nnUNet_raw" / NAME / "imagesTr", "-o", tmp_path / "out")
    assert "has no attention block: there is nothing to show" in told
    assert not (tmp_path / "out").exists()
    (model / "fold_0" / "checkpoint_final.pth").write_bytes(b"half a checkpoint")
    with pytest.raises(AttenScribbleError, match="cannot be loaded"):
        call(model, "-i", tmp_path, "-o", tmp_path / "out")


def test_a_trainer_that_nnunet_does_not_find(nnunet, tmp_path, monkeypatch):
    made = nnunet.make("nnUNetTrainerAttenScribble", "tiny")
    made.initialize()
    checkpoint, model = Path(made.output_folder, "checkpoint_final.pth"), Path(made.output_folder_base)
    made.save_checkpoint(str(checkpoint))
    torch.save(torch.load(checkpoint, weights_only=False) | {"trainer_name": "nnUNetTrainerOfMine"}, checkpoint)
    (model / "plans.json").write_bytes((nnunet.preprocessed / "nnUNetPlans.json").read_bytes())
    (model / "dataset.json").write_bytes((nnunet.preprocessed / "dataset.json").read_bytes())
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    with pytest.raises(AttenScribbleError) as caught:
        call(model, "-i", tmp_path, "-o", tmp_path / "out")
    assert caught.value.problems == [
        f"{checkpoint}: its trainer nnUNetTrainerOfMine is none of nnU-Net's or of this package's, nor in a folder "
        f"that nnUNet_extTrainer names ({tmp_path}): add the folder with its class there"
    ]


def test_pictures_in_colours(nnunet, tmp_path):
    """Three channels in one file, as nnU-Net reads PNG."""
    plans = json.loads((nnunet.preprocessed / "nnUNetPlans.json").read_text())
    plans["image_reader_writer"] = "NaturalImage2DIO"
    intensities = plans["foreground_intensity_properties_per_channel"]
    plans["foreground_intensity_properties_per_channel"] = dict.fromkeys("012", intensities["0"])
    tiny = plans["configurations"]["tiny"]
    tiny |= {"normalization_schemes": ["ZScoreNormalization"] * 3, "use_mask_for_norm": [False] * 3}
    dataset_json = json.loads((nnunet.preprocessed / "dataset.json").read_text())
    dataset_json |= {"channel_names": {"0": "R", "1": "G", "2": "B"}, "file_ending": ".png"}
    made = nnunet.make("nnUNetTrainerAttenScribble", "tiny", plans, dataset_json)
    made.initialize()
    made.save_checkpoint(f"{made.output_folder}/checkpoint_final.pth")
    model = Path(made.output_folder_base)
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps(dataset_json))

    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (28, 24, 3), dtype=np.uint8)
    io.imsave(images / "street_0000.png", pixels)
    call(model, "-i", images, "-o", out)
    assert sorted(file.name for file in out.iterdir()) == ["attention.json", "street.npz", "street.png"]

    io.imsave(images / "gray_0000.png", pixels[..., 0])
    (images / "damaged_0000.png").write_text("no picture")
    with pytest.raises(AttenScribbleError) as caught:
        call(model, "-i", images, "-o", out)
    damaged, gray = caught.value.problems
    assert damaged.startswith(f"{images / 'damaged_0000.png'} cannot be read (")
    assert gray == f"gray has 1 channels in {images}, the model has 3"


def test_images_that_are_not_named_by_their_channels(nnunet, tmp_path):
    made = nnunet.make("nnUNetTrainerAttention", "tiny")
    made.initialize()
    made.save_checkpoint(f"{made.output_folder}/checkpoint_final.pth")
    model, images, out = Path(made.output_folder_base), tmp_path / "images", tmp_path / "out"
    for name, source in (("dataset.json", "dataset.json"), ("plans.json", "nnUNetPlans.json")):
        (model / name).write_bytes((nnunet.preprocessed / source).read_bytes())
    scan = nnunet.folder / "nnUNet_raw" / NAME / "imagesTr" / "case0_0000.nii.gz"
    images.mkdir()

    def problems(*names: str) -> list[str]:
        for file in images.iterdir():
            file.unlink()
        for name in names:
            (images / name).write_bytes(scan.read_bytes())
        with pytest.raises(AttenScribbleError) as caught:
            call(model, "-i", images, "-o", out)
        return caught.value.problems

    nothing = f"{images} has no file that ends like CASE_0000.nii.gz: give the folder of images"
    assert problems("a.nii.gz") == problems("a_000.nii.gz") == problems("_0000.nii.gz") == [nothing]
    assert problems("a_0000.nii.gz", "b.nii.gz", "c_1.nii.gz") == [
        f"{images} has files of no channel (b.nii.gz, c_1.nii.gz): name them like CASE_0000.nii.gz, or move them"
    ]
    assert problems("a_0001.nii.gz", "b_0000.nii.gz", "b_0002.nii.gz") == [
        f"a has the channels 0001 in {images}: they count from 0000 without a gap",
        f"b has the channels 0000, 0002 in {images}: they count from 0000 without a gap",
    ]
    assert problems("a_0000.nii.gz", "a_0001.nii.gz") == [f"a has 2 channels in {images}, the model has 1"]
    # A chosen case is looked at whatever lies beside it; brackets in its name are letters as any other.
    for name in ("stray.nii.gz", "a(1)_0000.nii.gz"):
        (images / name).write_bytes(scan.read_bytes())
    call(model, "-i", images, "-o", out, "--case", "a(1)")
    assert sorted(file.name for file in out.iterdir()) == ["a(1).npz", "a(1).png", "attention.json"]


@pytest.mark.slow
@pytest.mark.xdist_group("volumes")
def test_a_3d_model_of_two_channels(volumes, tmp_path):
    images = volumes.folder / "nnUNet_raw" / VOLUMES / "imagesTr"
    model = train(volumes, "nnUNetTrainerAttenScribble", "small")
    write_dense(images, tmp_path / "dense")
    call(model, "-i", images, "-l", tmp_path / "dense", "-o", tmp_path / "out", "--case", "case1")
    view = read_view(tmp_path / "out" / "case1.npz")
    grid = json.loads((tmp_path / "out" / ATTENTION_FILE).read_text())["block"]["grid"]
    assert len(grid) == 3
    assert view.cells == np.prod(grid)
    assert view.attention.shape == tuple(grid[1:])
    assert 0 < view.attention.sum() < 1  # the rest goes to the other planes
    assert view.has_similarity
    assert read_record(tmp_path / "out")[1]
