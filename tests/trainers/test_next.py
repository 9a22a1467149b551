"""`attenscribble next` with networks that were trained for a few iterations."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from skimage import io
from typer.testing import CliRunner

from nnunet_attenscribble import trained_model
from nnunet_attenscribble.cli import app
from nnunet_attenscribble.common.files import write_json
from nnunet_attenscribble.common.grids import Grid
from nnunet_attenscribble.dataset_conversion.next_drawings import write_drawing
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark.execution import find_command
from nnunet_attenscribble.trained_model import TrainedModel, _to_image, predict_case
from tests.evaluation.collected_folder import read_csv
from tests.trainers.conftest import IGNORE, NAME, environment, preprocess

pytestmark = pytest.mark.xdist_group("trainers")

LABELS = {"background": 0, "ring": 1, "core": 2}


class Loop:
    """A copy of the tiny dataset, of which one case is drawn on in its first slice alone, and an image beside it."""

    def __init__(self, prepared: Path, folder: Path):
        for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
            shutil.copytree(prepared / variable / NAME, folder / variable / NAME)
        self.raw, self.preprocessed = folder / "nnUNet_raw" / NAME, folder / "nnUNet_preprocessed" / NAME
        self.results, self.further = folder / "nnUNet_results" / NAME, folder / "further"
        self.further.mkdir()
        self.drawing = self.results / "next"
        # With its cases listed, as nnU-Net starts a dozen processes to list a folder.
        for place in (self.raw, self.preprocessed):
            content = json.loads((place / "dataset.json").read_text())
            content["dataset"] = {
                f"case{n}": {"images": [f"imagesTr/case{n}_0000.nii.gz"], "label": f"labelsTr/case{n}.nii.gz"}
                for n in range(4)
            }
            (place / "dataset.json").write_text(json.dumps(content))
        label = sitk.ReadImage(str(self.raw / "labelsTr/case0.nii.gz"))
        voxels = sitk.GetArrayFromImage(label)
        voxels[1:] = IGNORE
        blank = sitk.GetImageFromArray(voxels)
        blank.CopyInformation(label)
        sitk.WriteImage(blank, str(self.raw / "labelsTr/case0.nii.gz"))
        scan = sitk.ReadImage(str(self.raw / "imagesTr/case1_0000.nii.gz"))
        sitk.WriteImage(sitk.Flip(scan, (True, False, False)), str(self.further / "new_0000.nii.gz"))

    def make(self):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - what nnU-Net draws from
        plans = json.loads((self.preprocessed / "nnUNetPlans.json").read_text())
        dataset_json = json.loads((self.preprocessed / "dataset.json").read_text())
        found = recursive_find_trainer_class_by_name("nnUNetTrainerAttenScribble")
        return found(plans | {"continue_training": False}, "tiny", 0, dataset_json, torch.device("cpu"))

    def train(
        self, trainer: str = "nnUNetTrainerAttenScribble", fold: int | str = 0, epochs: int | None = None
    ) -> Path:
        made = self.make()
        made.num_epochs = epochs or made.num_epochs
        made.run_training()
        folder = Path(made.output_folder_base)
        shutil.copy(self.preprocessed / "dataset.json", folder)
        shutil.copy(self.preprocessed / "nnUNetPlans.json", folder / "plans.json")
        return folder

    def call(self, *arguments: object) -> str:
        result = CliRunner().invoke(app, ["next", "701", *map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    def chosen(self) -> list[tuple[str, int]]:
        rows = json.loads((self.drawing / "next.json").read_text())["slices"]
        return [(row["case"], row["index_from_0"]) for row in rows]

    def draw(self, case: str, strokes: np.ndarray) -> None:
        file = next((self.drawing / case).glob(f"{case}_strokes.*"))
        image = sitk.ReadImage(str(self.drawing / case / f"{case}_0000.nii.gz"))
        write_drawing(file, strokes, Grid.of(image), LABELS, dense=False)

    def label(self, case: str) -> np.ndarray:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(self.raw / f"labelsTr/{case}.nii.gz")))


@pytest.fixture
def loop(prepared, tmp_path):
    with environment(tmp_path):
        yield Loop(prepared, tmp_path)


def test_choose_draw_bring_in_train_on_and_choose_again(loop):
    model = loop.train()
    told = loop.call("-i", loop.further, "--slices", 4)
    assert "2 cases with slices that nobody drew on were predicted" in told
    assert "cut across axis z" in told
    assert "nothing was drawn" not in told
    # All five slices without strokes are of these two; the cases that are drawn through are not predicted.
    assert len(set(loop.chosen())) == 4
    assert set(loop.chosen()) <= {("new", 0), ("new", 1), ("new", 2), ("case0", 1), ("case0", 2)}
    state = json.loads((loop.drawing / "next.json").read_text())
    assert [row["slice"] for row in read_csv(loop.drawing / "next.csv")] == [row["slice"] for row in state["slices"]]
    assert state["slices"][0]["slice"].startswith(f"K {loop.chosen()[0][1]} (S ")
    assert all(0 <= row["entropy"] <= 1 and 0 <= row["disagreement"] <= 1 for row in state["slices"])
    assert io.imread(loop.drawing / "next.png").ndim == 3
    names = {"case0_0000.nii.gz", "case0_prediction.seg.nrrd", "case0_strokes.seg.nrrd", ".case0.npz"}
    assert {file.name for file in (loop.drawing / "case0").iterdir()} == names
    predicted = sitk.GetArrayFromImage(sitk.ReadImage(str(loop.drawing / "case0/case0_prediction.seg.nrrd")))
    loaded = TrainedModel(model, "0", "checkpoint_final.pth", torch.device("cpu"))
    images = [str(loop.raw / "imagesTr/case0_0000.nii.gz")]
    assert (predicted == loaded.predictor.predict_from_files_sequential([images], None)[0]).all()

    # Nothing was drawn: the same again.
    before = loop.chosen()
    assert f"Note: nothing was drawn in {loop.drawing} since the last call: 4 slices to draw on." in loop.call(
        "-i", loop.further, "--slices", 4
    )
    assert loop.chosen() == before

    fresh = np.full((3, 28, 24), IGNORE, np.uint8)
    fresh[1, 5, 2:9], fresh[1, 1, 2:9] = 2, 0
    loop.draw("new", fresh)
    older = loop.label("case0")
    older[2, 7, 3:9] = 1
    loop.draw("case0", older)
    told = loop.call("-i", loop.further)
    assert (loop.label("new") == fresh).all()
    assert (loop.label("case0") == older).all()
    assert json.loads((loop.preprocessed / "splits_final.json").read_text())[0]["train"][-1] == "new"
    checkpoint = model / "fold_0" / "checkpoint_final.pth"
    assert "nnUNetv2_preprocess -d 701 -c tiny\n" in told
    on = f"nnUNetv2_train 701 tiny 0 -tr nnUNetTrainerAttenScribble -pretrained_weights {checkpoint} -device cpu\n"
    assert on in told
    told = loop.call("-i", loop.further, "--slices", 4)
    assert "is older than the strokes brought in: train on first" in told
    assert "nothing was drawn" not in told

    # What is taken out of labelsTr afterwards does not come back.
    loop.draw("new", np.where(fresh == 0, IGNORE, fresh))
    loop.call()
    less = np.where(fresh == 2, IGNORE, fresh).astype(np.uint8)
    kept = sitk.ReadImage(str(loop.raw / "labelsTr/new.nii.gz"))
    image = sitk.GetImageFromArray(less)
    image.CopyInformation(kept)
    sitk.WriteImage(image, str(loop.raw / "labelsTr/new.nii.gz"))
    loop.call("-i", loop.further, "--slices", 4)
    assert (loop.label("new") == less).all()
    sitk.WriteImage(kept, str(loop.raw / "labelsTr/new.nii.gz"))

    shutil.rmtree(loop.preprocessed / "nnUNetPlans_tiny")
    preprocess(NAME, "tiny")
    again = loop.make()
    again.initialize()
    load_pretrained_weights(again.network, str(checkpoint))
    weights = torch.load(checkpoint, weights_only=False)["network_weights"]
    own = again.network.state_dict()
    assert any(name.startswith("attention") for name in own)
    assert all(torch.equal(own[name], weights[name]) for name in own if ".seg_layers." not in name)
    again.run_training()
    assert "new" in again.get_tr_and_val_datasets()[0].identifiers

    loop.call("--slices", 10)
    assert set(loop.chosen()) == {("new", 0), ("new", 2), ("case0", 1)}


def test_one_of_several_models_has_to_be_named(loop):
    with pytest.raises(AttenScribbleError, match=r"holds no checkpoint_final\.pth: train one"):
        loop.call()
    method = "nnUNetTrainerAttenScribble"
    for trainer, fold in ((method, "0"), (method, "all"), ("nnUNetTrainer", "0")):
        place = loop.results / f"{trainer}__nnUNetPlans__tiny" / f"fold_{fold}"
        place.mkdir(parents=True)
        (place / "checkpoint_final.pth").write_bytes(b"no checkpoint")
    with pytest.raises(AttenScribbleError) as several:
        loop.call("-tr", method)
    options = f"-tr {method} -p nnUNetPlans -c tiny -f"
    assert several.value.problems == [
        f"{loop.results} holds 2 trained models of -tr {method}: choose one: {options} 0; {options} all"
    ]
    with pytest.raises(AttenScribbleError, match=r"holds no checkpoint_final\.pth of -c 2d; there are: -tr"):
        loop.call("-c", "2d")
    with pytest.raises(AttenScribbleError, match=r"dataset\.json is not there"):
        loop.call("-tr", "nnUNetTrainer")  # this one was found, and is none


def export(maps: torch.Tensor, predictor, properties: dict) -> np.ndarray:
    """Where nnU-Net's own export puts two maps, as probabilities of the two structures."""
    plans = predictor.plans_manager
    labels = plans.get_label_manager({"labels": LABELS})
    labels.apply_inference_nonlin = torch.as_tensor
    three = torch.cat([torch.zeros_like(maps[:1]), maps])  # background is 1 outside of the crop
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        three, plans, predictor.configuration_manager, labels, properties, return_probabilities=True
    )[1][1:]


@pytest.mark.parametrize("spacing", [[1.5, 1.5, 4.0], [1.5, 4.0]])
def test_maps_of_a_transposed_volume_go_where_nnunets_probabilities_go(spacing):
    options = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "architecture": {},
        "spacing": spacing,
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": options,
    }
    plans = {"transpose_forward": [1, 2, 0], "transpose_backward": [2, 0, 1], "label_manager": "LabelManager"}
    predictor = SimpleNamespace(
        plans_manager=PlansManager(plans), configuration_manager=ConfigurationManager(configuration)
    )
    properties = {
        "spacing": [8.0, 1.5, 1.25],
        "shape_before_cropping": (12, 10, 5),
        "bbox_used_for_cropping": [[2, 11], [1, 9], [0, 4]],
        "shape_after_cropping_and_before_resampling": (9, 8, 4),
    }
    maps = torch.rand(2, 9, 7, 8)
    placed = _to_image(maps, predictor, properties)
    assert placed.shape == (2, 5, 12, 10)
    np.testing.assert_allclose(placed, export(maps, predictor, properties), atol=1e-6)


def test_the_maps_lie_on_the_image(loop, monkeypatch):
    """Also where nnU-Net crops and resamples."""
    seen = []
    monkeypatch.setattr(trained_model, "_to_image", lambda *given: seen.append(given) or _to_image(*given))
    model = TrainedModel(loop.train(epochs=1), "0", "checkpoint_final.pth", torch.device("cpu"))
    scan = sitk.ReadImage(str(loop.further / "new_0000.nii.gz"))
    voxels = sitk.GetArrayFromImage(scan)
    voxels[:, :, :9] = 0  # zeros at a border, which nnU-Net crops away
    cropped = sitk.GetImageFromArray(voxels)
    cropped.SetSpacing((1.1, 1.3, 8.0))
    sitk.WriteImage(cropped, str(loop.further / "cropped_0000.nii.gz"))
    found = predict_case(model, [loop.further / "cropped_0000.nii.gz"])
    assert found.labels.shape == found.entropy.shape == found.disagreement.shape == voxels.shape
    assert not found.labels[:, :, :9].any()
    assert not found.entropy[:, :, :9].any()
    assert found.entropy[:, :, 9:].min() > 0
    ((maps, predictor, properties),) = seen
    assert maps[0].std() > 0  # or it would not matter where they lie
    expected = export(maps, predictor, properties)
    np.testing.assert_allclose([found.entropy, found.disagreement], expected, atol=1e-6)


@pytest.mark.slow
def test_the_printed_commands_run_on_a_phantom(tmp_path):
    """As a user types them: two rounds, each by the commands that were printed."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments

    from nnunet_attenscribble.dataset_conversion.phantom import UNLABELLED, make_phantom, phantom_index, write_phantoms
    from nnunet_attenscribble.plans import add_cpu_configuration, read_plans

    labels = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
    with environment(tmp_path):
        import os

        os.environ["nnUNet_n_proc_DA"] = "1"
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (tmp_path / variable).mkdir()
        write_phantoms(
            raw_folder=tmp_path / "nnUNet_raw", dataset_id=801, dense_id=802, training=3, validation=1, test=2
        )
        name = "Dataset801_Phantom"
        raw, preprocessed = tmp_path / "nnUNet_raw" / name, tmp_path / "nnUNet_preprocessed" / name
        further = tmp_path / "further"
        (raw / "imagesTs").rename(further)
        shutil.rmtree(raw / "labelsTs")  # as if nobody had scored with them
        extract_fingerprints([801], num_processes=1, show_progress_bar=False)
        plan_experiments([801])
        settings = {"num_epochs": 1, "num_iterations_per_epoch": 2, "num_val_iterations_per_epoch": 1}
        file = preprocessed / "nnUNetPlans.json"
        small = {"spacing_factor": 1.0, "batch_size": 2, "features": (4, 8, 8), "settings": settings}
        write_json(file, add_cpu_configuration(read_plans(file), "2d", "small", **small))
        (preprocessed / "splits_final.json").write_bytes((raw / "splits_final.json").read_bytes())

        def run(*command: str) -> str:
            done = subprocess.run([find_command(command[0]), *command[1:]], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            return done.stdout

        run("nnUNetv2_preprocess", "-d", "801", "-c", "small", "-np", "1")
        run("nnUNetv2_train", "801", "small", "0", "-tr", "nnUNetTrainerAttenScribble", "-device", "cpu")
        for count in (2, 4):
            told = run("attenscribble", "next", "801", "-i", str(further), "--slices", "2", "--tool", "itk-snap")
            drawing = tmp_path / "nnUNet_results" / name / "next"
            rows = json.loads((drawing / "next.json").read_text())["slices"]
            assert len({(row["case"], row["index_from_0"]) for row in rows}) == 2
            for row in rows:
                drawn = drawing / row["case"] / f"{row['case']}_strokes.nii.gz"
                image = sitk.ReadImage(str(drawn))
                voxels = sitk.GetArrayFromImage(image)
                strokes = make_phantom(phantom_index(row["case"])).scribble[row["index_from_0"]]
                voxels[row["index_from_0"]] = np.array([4, 1, 2, 3, 0], np.uint8)[strokes]
                saved = sitk.GetImageFromArray(voxels)
                saved.CopyInformation(image)
                sitk.WriteImage(saved, str(drawn))
            told = run("attenscribble", "next", "801", "-i", str(further))
            commands = [line.removeprefix("Next: ") for line in told.splitlines() if line.startswith("Next: nnUNet")]
            assert [command.split()[0] for command in commands] == ["nnUNetv2_preprocess", "nnUNetv2_train"]
            for command in commands:
                run(*shlex.split(command))
            drawn_slices = 0
            for case in ("phantom_004", "phantom_005"):
                label = raw / "labelsTr" / f"{case}.nii.gz"
                if label.is_file():
                    found = sitk.GetArrayFromImage(sitk.ReadImage(str(label)))
                    drawn_slices += int((found != UNLABELLED).any(axis=(1, 2)).sum())
            assert drawn_slices == count
        assert labels.keys() == json.loads((raw / "dataset.json").read_text())["labels"].keys() - {"ignore"}
