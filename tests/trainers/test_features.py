"""What nnU-Net does with volumes, architectures, channels, regions and cascades, with the scribble trainers."""

from __future__ import annotations

import json
import shutil
import warnings
from math import exp
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_attenscribble.losses import MaskedCRFLoss
from tests.evaluation.collected_folder import read_csv

pytestmark = pytest.mark.xdist_group("volumes")

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

RESENC = "nnUNetResEncUNetMPlans"
REGIONS = {
    "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
    "regions_class_order": [1, 2],
}


def terms(trainer: nnUNetTrainer) -> list[dict[str, float]]:
    rows = read_csv(Path(trainer.output_folder) / "loss_terms.csv")
    return [{name: float(value) for name, value in row.items()} for row in rows]


def changed(trainer: nnUNetTrainer, before: dict) -> list[str]:
    return [name for name, value in trainer.network.state_dict().items() if not torch.equal(value, before[name])]


@pytest.mark.parametrize("plans", ["nnUNetPlans", RESENC])
def test_the_planned_3d_network_trains_and_validates(volumes, plans):
    trainer = volumes.make("nnUNetTrainerAttenScribble", "short", plans)
    trainer.initialize()
    encoder = type(trainer.network.encoder).__name__
    assert encoder == {"nnUNetPlans": "PlainConvEncoder", RESENC: "ResidualEncoder"}[plans]
    assert trainer.network.attention.ndim == 3
    assert trainer.num_input_channels == 2
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.run_training()
    first = "encoder.stages.0.0.convs.0.conv.weight" if plans == "nnUNetPlans" else "encoder.stem.convs.0.conv.weight"
    assert {"attention_gate", first} <= set(changed(trainer, before))
    assert trainer.loss.regularised.regions is False
    assert trainer.loss.regularised.ranks is False  # which are for slices
    (row,) = terms(trainer)
    assert row["crf"] > 0
    assert row["similarity"] > 0
    assert 0 < row["mean_similarity"] < 1
    trainer.set_deep_supervision_enabled(False)
    trainer.perform_actual_validation()
    prediction = sitk.ReadImage(str(Path(trainer.output_folder) / "validation" / "case3.nii.gz"))
    source = sitk.ReadImage(str(volumes.folder / "nnUNet_raw" / "Dataset702_Volumes" / "labelsTr" / "case3.nii.gz"))
    assert prediction.GetSize() == source.GetSize()
    assert sitk.GetArrayFromImage(prediction).max() <= 2


def test_the_thick_axis_gets_a_smaller_window(volumes):
    trainer = volumes.make("nnUNetTrainerAttenScribble", "small")
    trainer.initialize()
    assert trainer.loss.regularised.crf.radius == (1, 2, 2)  # slices 2 mm apart, pixels of 1 mm
    assert trainer.loss.regularised.crf.spacing == pytest.approx([2, 1, 1])
    # Sums of the Gaussian along an axis of the plane, and across: sigma is 6 pixels, the next slices 2 away.
    g, across = 1 + 2 * exp(-1 / 72) + 2 * exp(-4 / 72), 1 + 2 * exp(-4 / 72)
    assert trainer.loss.regularised.crf_weight == pytest.approx(0.1 * (g**2 - 1) / (across * g**2 - 1))
    gated = volumes.make("nnUNetTrainerGatedCRF", "small").build_term()  # all pixels, by the same sums
    assert gated.weight == trainer.loss.regularised.crf_weight
    # The block's grid is isotropic: of three such sums, two are in the plane.
    assert trainer.loss.regularised.similarity.radius == (2, 2, 2)
    assert trainer.loss.regularised.similarity_weight == pytest.approx(0.1 * (g**2 - 1) / (g**3 - 1))


@pytest.mark.parametrize("trainer_name", ["nnUNetTrainerPartialDiceCE", "nnUNetTrainerAttenScribble"])
def test_without_deep_supervision(volumes, trainer_name):
    trainer = volumes.make(trainer_name, "small")
    trainer.enable_deep_supervision = False
    trainer.run_training()
    (row,) = terms(trainer)
    assert row["segmentation"] > 0
    assert trainer.logger.get_value("val_losses", step=None)[0] > 0


@pytest.mark.parametrize(
    ("trainer_name", "logits", "label"),
    [("nnUNetTrainerPartialDiceCE", (9.0, -9.0), 1), ("nnUNetTrainerAttenScribble", (9.0, 9.0), 2)],
)
def test_regions_train_and_are_exported_as_labels(volumes, trainer_name, logits, label):
    base = json.loads((volumes.preprocessed / "dataset.json").read_text())
    trainer = volumes.make(trainer_name, "small", dataset_json=base | REGIONS)
    trainer.run_training()
    assert trainer.loss.regularised.regions is True
    last = trainer.network.decoder.seg_layers[-1]
    assert last.out_channels == 2  # a channel per region, none for background
    (row,) = terms(trainer)
    assert all(row[name] > 0 for name in ("segmentation", "annotated_0", "annotated_1", "annotated_2"))
    log = next(Path(trainer.output_folder).glob("training_log_*.txt")).read_text()
    assert "WARNING: no scribble" not in log
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor(logits)  # whole, and core, everywhere or nowhere
    trainer.set_deep_supervision_enabled(False)
    trainer.perform_actual_validation()
    prediction = sitk.ReadImage(str(Path(trainer.output_folder) / "validation" / "case3.nii.gz"))
    assert (sitk.GetArrayFromImage(prediction) == label).all()


def test_a_cascade_sees_the_first_stage_and_the_regularisers_the_image_alone(volumes, monkeypatch):
    low = volumes.make("nnUNetTrainerAttenScribble", "small_low")
    low.run_training()
    low.set_deep_supervision_enabled(False)
    low.perform_actual_validation()
    predicted = Path(low.output_folder_base) / "predicted_next_stage" / "small_cascade"
    (file,) = predicted.iterdir()
    for case in ("case0", "case1", "case2"):  # other folds would predict these
        shutil.copy(file, predicted / file.name.replace("case3", case))

    trainer = volumes.make("nnUNetTrainerAttenScribble", "small_cascade")
    trainer.initialize()
    seen = []
    monkeypatch.setattr(MaskedCRFLoss, "forward", spy(MaskedCRFLoss.forward, seen))
    trainer.run_training()
    assert (
        trainer.network.encoder.stages[0][0].convs[0].conv.in_channels == 2 + 2
    )  # a channel per class beside the image
    assert [image.shape[1] for _, image, *_ in seen] == [2, 2]
    (row,) = terms(trainer)
    assert row["crf"] > 0
    trainer.set_deep_supervision_enabled(False)
    trainer.perform_actual_validation()
    assert (Path(trainer.output_folder) / "validation" / "case3.nii.gz").exists()


def spy(function, calls: list):
    def wrapped(self, *arguments, **named):
        calls.append(arguments)
        return function(self, *arguments, **named)

    return wrapped


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_bfloat16(volumes, device):
    """The network computes in bfloat16; what the regularisers make of its output is what single precision makes of it.

    That the terms differ from those of another precision is nothing to ask for: nnU-Net's own step turns autocast on
    again on a GPU, so one without it cannot be had there.
    """
    trainer = volumes.start("nnUNetTrainerAttenScribble", "small", device=device, epoch=1)  # warmed up
    seen = []
    trainer.loss.regularised.register_forward_hook(lambda module, inputs, output: seen.append((inputs, output[1])))
    with torch.autocast(device, torch.bfloat16):
        trainer.train_step(next(trainer.dataloader_train))
    (((segmentation, logits, *others), terms),) = seen
    assert logits.dtype == torch.bfloat16
    _, expected = trainer.loss.regularised(segmentation.detach(), logits.detach().float(), *others)
    for name in ("crf", "similarity", "pairs", "mean_similarity"):
        assert terms[name].dtype == torch.float32, name
        assert terms[name].item() == pytest.approx(expected[name].item(), rel=1e-6), name
    assert all(p.grad is None or p.grad.isfinite().all() for p in trainer.network.parameters())


@needs_cuda
@pytest.mark.parametrize("trainer_name", ["nnUNetTrainerMaskedCRF", "nnUNetTrainerAttenScribble"])
def test_a_step_waits_for_the_gpu_as_often_as_nnunets_own(volumes, trainer_name):
    waits = {}
    for name in ("nnUNetTrainer", trainer_name):
        trainer = volumes.start(name, "small", device="cuda")
        batches = [next(trainer.dataloader_train) for _ in range(4)]
        for batch in batches[:3]:  # what is made once
            trainer.train_step(batch)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                trainer.train_step(batches[3])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits[name] = sum("synchroniz" in str(warning.message) for warning in caught)
        trainer.on_train_end()
    assert waits[trainer_name] <= waits["nnUNetTrainer"]


@needs_cuda
def test_the_image_is_brought_to_the_gpu_once(volumes):
    trainer = volumes.start("nnUNetTrainerAttenScribble", "small", device="cuda")
    seen = []
    trainer.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    trainer.loss.regularised.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[3]))
    trainer.train_step(next(trainer.dataloader_train))
    assert seen[0].data_ptr() == seen[1].data_ptr()


@needs_cuda
def test_on_a_gpu_with_compilation(volumes, monkeypatch):
    monkeypatch.setenv("nnUNet_compile", "t")
    trainer = volumes.make("nnUNetTrainerAttenScribble", "small", device="cuda")
    trainer.run_training()
    (row,) = terms(trainer)
    assert all(row[name] > 0 for name in ("segmentation", "crf", "similarity"))
