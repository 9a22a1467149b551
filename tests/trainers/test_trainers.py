from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.losses import rank_intensities, rescale_intensities
from nnunet_attenscribble.targets import PADDING
from tests.evaluation.collected_folder import read_csv
from tests.trainers.conftest import IGNORE, ITERATIONS, NAME, run

pytestmark = pytest.mark.xdist_group("trainers")

ALL = [
    "nnUNetTrainerPartialCE",
    "nnUNetTrainerPartialDiceCE",
    "nnUNetTrainerMaskedCRF",
    "nnUNetTrainerAttention",
    "nnUNetTrainerAttenScribble",
]
SWITCHES = ("with_dice", "with_crf", "with_attention", "with_similarity")


def read_log(trainer) -> str:
    return "".join(file.read_text() for file in sorted(Path(trainer.output_folder).glob("training_log_*.txt")))


def test_each_rung_differs_from_the_one_before_by_one_switch(nnunet):
    rungs = [recursive_find_trainer_class_by_name(name) for name in ALL]
    on = [{switch for switch in SWITCHES if getattr(rung, switch)} for rung in rungs]
    assert on == [set(SWITCHES[:number]) for number in range(len(ALL))]


@pytest.mark.parametrize(("configuration", "weight"), [("tiny", 1.0), ("tiny_published", None)])
def test_the_plans_say_how_much_dice_there_is(nnunet, configuration, weight):
    trainer = nnunet.make("nnUNetTrainerMaskedCRF", configuration)
    trainer.initialize()
    assert getattr(trainer.loss.segmentation, "dice_weight", None) == weight


@pytest.mark.parametrize(
    ("configuration", "disagreement", "weight"),
    [("tiny", "potts", 0.1), ("tiny_distance", "distance", 1), ("tiny_distance_paper", "potts", 1)],
)
def test_the_plans_say_how_predictions_disagree(nnunet, configuration, disagreement, weight):
    trainer = nnunet.make("nnUNetTrainerAttenScribble", configuration)
    trainer.initialize()
    similarity, paper = trainer.loss.regularised.similarity, configuration == "tiny_distance_paper"
    assert similarity.disagreement == disagreement
    assert (similarity.detach_similarity, similarity.floor) == ((False, 0.0) if paper else (True, 0.5))
    assert trainer.loss.regularised.similarity_weight == weight


def with_settings(nnunet, **settings) -> dict:
    """The plans, with these settings of `tiny`."""
    plans = json.loads((nnunet.preprocessed / "nnUNetPlans.json").read_text())
    plans["configurations"]["tiny"]["attenscribble"] |= settings
    return plans


def test_the_plans_say_how_the_regularisers_look_at_neighbours(nnunet):
    plans = with_settings(
        nnunet,
        crf_sigma_intensity=0.3,
        crf_sigma_position=4,
        crf_weight=0.05,
        similarity_sigma_position=3,
        similarity_floor=0.2,
    )
    trainer = nnunet.make("nnUNetTrainerAttenScribble", plans=plans)
    trainer.initialize()
    loss = trainer.loss.regularised
    crf = (loss.crf_weight, loss.crf.radius, loss.crf.sigma_position, loss.crf.sigma_intensity)
    assert crf == (0.05, (2, 2), 4, 0.3)
    similar = (loss.similarity_weight, loss.similarity.radius, loss.similarity.sigma_position, loss.similarity.floor)
    assert similar == (0.1, (1, 1), 3, 0.2)


@pytest.mark.parametrize(
    ("settings", "stage"),
    [
        ({}, 2),
        ({"attention_stride": 2}, 1),
        ({"attention_stride": 2, "attention_max_tokens": 16 * 16 - 1}, 2),  # of the 16 x 16 positions of stage 1
    ],
)
def test_the_plans_say_where_the_block_is(nnunet, settings, stage):
    trainer = nnunet.make("nnUNetTrainerAttenScribble", plans=with_settings(nnunet, **settings))
    trainer.initialize()
    assert trainer.network.attention_stage == stage
    assert trainer._describe_block().startswith(f"attention block: stage {stage}, ")


def test_the_plans_say_what_is_as_published(nnunet):
    trainer = nnunet.start("nnUNetTrainerAttenScribble", "tiny_published")
    assert trainer.network.attention_gate is None
    assert trainer.network.attention.similarity == "paper"
    trainer.train_step(next(trainer.dataloader_train))
    assert trainer.loss.regularised.strength == 1  # without a warm-up


@pytest.mark.parametrize("configuration", ["tiny", "tiny_range"])
def test_the_plans_say_how_the_crf_sees_intensities(nnunet, configuration):
    trainer = nnunet.start("nnUNetTrainerMaskedCRF", configuration)
    seen = []
    trainer.loss.regularised.crf.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    batch = next(trainer.dataloader_train)
    trainer.train_step(batch)
    target = batch["target"][0] if isinstance(batch["target"], list) else batch["target"]
    ignore, inside = trainer.label_manager.ignore_label, target != PADDING
    expected = (
        rescale_intensities(batch["data"], inside)
        if configuration == "tiny_range"
        else rank_intensities(batch["data"], target != ignore, inside)
    )
    torch.testing.assert_close(seen[0], expected)


def test_without_a_weight_of_the_pairs_every_parameter_still_gets_a_gradient(nnunet):
    trainer = nnunet.start("nnUNetTrainerAttenScribble", "tiny_no_pairs", epoch=1)  # in the midst of the warm-up
    trainer.train_step(next(trainer.dataloader_train))
    without = [name for name, parameter in trainer.network.named_parameters() if parameter.grad is None]
    assert all("seg_layers.0" in name for name in without)  # of no weight in nnU-Net
    assert trainer.network.attention.similarity_bias.grad == 0


def test_trains_where_the_channels_go_by_their_old_name(nnunet):
    content = json.loads((nnunet.preprocessed / "dataset.json").read_text())
    content["modality"] = content.pop("channel_names")
    trainer = nnunet.start("nnUNetTrainerMaskedCRF", dataset_json=content)
    assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])


TERMS = {"segmentation", "annotated", "total", "crf", "similarity", "pairs", "same_class_similarity"}


@pytest.mark.parametrize(
    ("name", "configuration", "missing"),
    [
        ("nnUNetTrainerPartialDiceCE", "tiny", {"crf", "similarity", "pairs", "same_class_similarity"}),
        ("nnUNetTrainerPartialCE", "tiny_ignore", {"crf", "similarity", "pairs", "same_class_similarity"}),
        ("nnUNetTrainerMaskedCRF", "tiny_background", {"similarity", "pairs", "same_class_similarity"}),
        ("nnUNetTrainerAttention", "tiny", {"similarity", "pairs", "same_class_similarity"}),
        ("nnUNetTrainerAttenScribble", "tiny", set()),
        ("nnUNetTrainerAttenScribble", "tiny_paper", {"pairs"}),
    ],
)
def test_trains_and_tells_its_terms(nnunet, name, configuration, missing):
    trainer = nnunet.make(name, configuration)
    trainer.initialize()
    before = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    trainer.run_training()
    after = trainer.network.state_dict()
    unchanged = [key for key in before if torch.equal(before[key], after[key])]
    # nnU-Net gives the coarsest output no weight; its layer alone may stay.
    assert all("seg_layers.0" in key for key in unchanged)
    output = Path(trainer.output_folder)
    assert (output / "checkpoint_final.pth").exists()
    rows = read_csv(output / "loss_terms.csv")
    assert [row["epoch"] for row in rows] == ["0", "1"]
    columns = set(rows[0])
    assert columns >= TERMS - missing
    assert not columns & missing
    assert all(np.isfinite(float(row["total"])) for row in rows)
    assert (output / "loss_terms.png").stat().st_size > 5000
    log = read_log(trainer)
    assert "terms total" in log
    assert "WARNING: no scribble" not in log


def test_regularisers_warm_up_from_nothing(nnunet):
    trainer = nnunet.make("nnUNetTrainerAttenScribble")
    trainer.on_train_start()
    strengths = []
    for epoch in range(3):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        for _ in range(ITERATIONS):
            trainer.train_step(next(trainer.dataloader_train))
            strengths.append(trainer.loss.regularised.strength)
    assert strengths == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1])


def test_training_sees_padding_and_validation_does_not(nnunet):
    for configuration, padding, replacement in (
        ("tiny", "balanced", IGNORE),
        ("tiny_ignore", "ignore", IGNORE),
        ("tiny_background", "background", 0),
    ):
        trainer = nnunet.make("nnUNetTrainerAttenScribble", configuration)
        trainer.on_train_start()
        assert trainer.loss.padding == padding
        # The patch is larger than the slices (28 x 24), so every patch holds padding, at every scale.
        assert list(trainer.configuration_manager.patch_size) == [32, 32]
        batch = next(trainer.dataloader_train)
        assert all((target == PADDING).any() for target in batch["target"])
        validation = next(trainer.dataloader_val)["target"]
        assert not any((target == PADDING).any() for target in validation)
        corner = validation[0][0, 0, 0, 0].item()
        assert corner == replacement


def test_an_interrupted_training_continues_where_it_was(nnunet):
    first = nnunet.make("nnUNetTrainerAttenScribble")
    assert first.save_every == 1  # short trainings too leave something that was not chosen on validation cases
    first.num_epochs = 1
    first.run_training()
    latest = Path(first.output_folder) / "checkpoint_final.pth"
    second = nnunet.make("nnUNetTrainerAttenScribble")
    second.load_checkpoint(str(latest))
    assert second.current_epoch == 1
    for key, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[key]), key
    second.run_training()
    assert [row["epoch"] for row in read_csv(Path(second.output_folder) / "loss_terms.csv")] == ["0", "1"]
    assert "other settings" not in read_log(second)
    third = nnunet.make("nnUNetTrainerAttenScribble")
    third.settings = replace(third.settings, crf_weight=0.3)
    third.load_checkpoint(str(latest))
    assert "WARNING: this training began with other settings" in read_log(third)
    # Told, too, where the network of now cannot take the weights of then.
    fourth = nnunet.make("nnUNetTrainerAttention")
    fourth.settings = replace(fourth.settings, crf_weight=0.4)
    with pytest.raises(RuntimeError, match="state_dict"):
        fourth.load_checkpoint(str(latest))
    assert "WARNING: this training began with other settings" in read_log(fourth)


def test_class_weights_reach_the_loss_by_value(nnunet):
    trainer = nnunet.make("nnUNetTrainerMaskedCRF")
    assert trainer.settings.class_weights is None
    trainer.settings = replace(trainer.settings, class_weights={"core": 0.25})
    trainer.initialize()
    assert trainer.loss.class_weights.tolist() == [1, 1, 0.25, 0]


def test_class_weights_of_no_label_are_refused_before_the_network_is_built(nnunet):
    with pytest.raises(AttenScribbleError, match="labels of one value are background, ring, core"):
        nnunet.make("nnUNetTrainerMaskedCRF", plans=with_settings(nnunet, class_weights={"wall": 2}))


def test_folds_of_other_settings_are_told(nnunet):
    first = nnunet.make("nnUNetTrainerMaskedCRF")
    first.on_train_start()
    assert "other settings" not in read_log(first)
    second = nnunet.make("nnUNetTrainerMaskedCRF")
    second.settings = replace(second.settings, crf_weight=0.3)
    second.on_train_start()
    assert "WARNING: the last training of this model was made with other settings" in read_log(second)
    (Path(second.output_folder_base) / "plans.json").write_text("{")  # damaged, and written anew
    nnunet.make("nnUNetTrainerMaskedCRF").on_train_start()


def test_the_log_tells_where_the_block_is_and_what_is_wrong_with_the_normalisation(nnunet):
    trainer = nnunet.make("nnUNetTrainerAttenScribble")
    trainer.on_train_start()
    log = read_log(trainer)
    assert "attention block: stage 2, a position of its grid (8, 8) covers (4, 4) pixels" in log
    assert "the similarity looks (1, 1) positions far" in log
    assert "WARNING" not in log
    trainer = nnunet.make("nnUNetTrainerMaskedCRF")
    trainer.configuration_manager.configuration["normalization_schemes"] = ["CTNormalization"]
    trainer.on_train_start()
    log = read_log(trainer)
    assert "attention block" not in log
    assert "WARNING: CT is clipped and scaled by the intensities of unlabelled voxels" in log
    assert f"run `attenscribble fingerprint {NAME}`" in log


@pytest.mark.parametrize(("labelled", "fault"), [("all", False), ("none", True), ("a stroke", True)])
def test_zeros_around_the_object_that_are_labelled_are_no_fault(nnunet, monkeypatch, labelled, fault):
    trainer = nnunet.make("nnUNetTrainerMaskedCRF")
    trainer.configuration_manager.configuration["use_mask_for_norm"] = [True]
    images, labels = np.random.default_rng(0).normal(size=(1, 1, 20, 20)), np.full((1, 20, 20), IGNORE)
    images[0, 0, :4] = -4  # zeros, normalised with the object where they are unlabelled
    # As nnU-Net's preprocessing calls background where the image is zero, and what it leaves zero there.
    drawn = {"all": (0, slice(4)), "none": (0, slice(0)), "a stroke": (0, 0, slice(5))}[labelled]
    labels[drawn], images[0][drawn] = -1, 0
    monkeypatch.setattr(trainer, "_read_cases", lambda: iter([(images, labels)]))
    trainer.on_train_start()
    assert ("predictions will be poor" in read_log(trainer)) == fault


def test_inference_rebuilds_the_trained_network(nnunet):
    trainer = nnunet.make("nnUNetTrainerAttenScribble")
    trainer.run_training()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(Path(trainer.output_folder).parent), (0,))
    predictor.network.load_state_dict(predictor.list_of_parameters[0])
    trainer.set_deep_supervision_enabled(False)
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(predictor.network.eval()(image), trainer.network.eval()(image))


@pytest.mark.parametrize("as_written", [int, str, float])
def test_tells_that_a_class_was_never_seen_and_logs_where_nnunet_does(nnunet, as_written):
    described = json.loads((nnunet.folder / "nnUNet_raw" / NAME / "dataset.json").read_text())
    labels = {name: as_written(value) for name, value in described["labels"].items()} | {"ignore": IGNORE}
    trainer = nnunet.start("nnUNetTrainerPartialCE", dataset_json=described | {"labels": labels})
    told = []
    trainer.logger.loggers.append(SimpleNamespace(log=lambda key, value, step: told.append((key, step))))
    batch = next(trainer.dataloader_train)
    batch["target"] = [torch.where((target == 2) | (target == 0), IGNORE, target) for target in batch["target"]]
    trainer.on_train_epoch_end([trainer.train_step(batch)])
    log = read_log(trainer)
    advice = "was seen in this epoch, so nothing teaches it: draw more of it"
    assert f"no scribble of 'core' {advice}" in log
    assert f"no scribble of 'background' {advice}, where the image is not zero" in log
    assert log.count("where the image is not zero") == 1
    assert "no scribble of 'ring'" not in log
    assert ("terms/annotated_2", 0) in told
    trainer.logger = SimpleNamespace(log=lambda *_: None)  # as nnU-Net's may have no others behind it some day
    trainer.on_train_epoch_end([trainer.train_step(batch)])


def test_refuses_dense_labels(nnunet):
    content = json.loads((nnunet.preprocessed / "dataset.json").read_text())
    del content["labels"]["ignore"]
    with pytest.raises(AttenScribbleError, match=r"no `ignore` label.*: use nnUNetTrainer"):
        nnunet.make("nnUNetTrainerAttenScribble", dataset_json=content)
    assert not nnunet.results.exists()  # a model's folder would look like a training


def test_refuses_a_setting_it_does_not_know(nnunet):
    with pytest.raises(AttenScribbleError, match="crf_wieght"):
        nnunet.make("nnUNetTrainerAttenScribble", plans=with_settings(nnunet, crf_wieght=1))
    assert not nnunet.results.exists()


def test_refuses_the_base_class(nnunet):
    with pytest.raises(AttenScribbleError, match="use nnUNetTrainerAttenScribble"):
        nnunet.make("nnUNetTrainerScribble")
    assert not nnunet.results.exists()


def read_checkpoint(model: Path) -> dict:
    return torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)


def test_stock_commands_train_resume_and_predict(nnunet, tmp_path):
    train = ("nnUNetv2_train", NAME, "tiny", "0", "-tr", "nnUNetTrainerAttenScribble", "-device", "cpu")
    run(*train)
    model = nnunet.results / NAME / "nnUNetTrainerAttenScribble__nnUNetPlans__tiny"
    assert (model / "fold_0" / "validation" / "case3.nii.gz").exists()
    before = read_checkpoint(model)
    assert before["current_epoch"] == 2
    run(*train, "--c")  # nothing is left to train
    after = read_checkpoint(model)
    assert after["current_epoch"] == 2
    assert all(torch.equal(weight, after["network_weights"][key]) for key, weight in before["network_weights"].items())

    images = tmp_path / "images"
    images.mkdir()
    source = nnunet.folder / "nnUNet_raw" / NAME / "imagesTr" / "case3_0000.nii.gz"
    (images / source.name).write_bytes(source.read_bytes())
    out = tmp_path / "out"
    run("nnUNetv2_predict", "-i", str(images), "-o", str(out), "-d", NAME, "-c", "tiny", "-f", "0",
        "-tr", "nnUNetTrainerAttenScribble", "-device", "cpu", "-npp", "0", "-nps", "0")  # fmt: skip
    predicted = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "case3.nii.gz")))
    validated = sitk.GetArrayFromImage(sitk.ReadImage(str(model / "fold_0" / "validation" / "case3.nii.gz")))
    assert predicted.shape == (3, 28, 24)
    assert predicted.max() <= 2
    assert np.array_equal(predicted, validated)


def compose(*names: str) -> type:
    """A trainer of several, as nnU-Net composes its own."""
    return type("nnUNetTrainerComposed", tuple(map(recursive_find_trainer_class_by_name, names)), {})


@pytest.mark.parametrize(("variant", "steps"), [("nnUNetTrainerDA5", 16), ("nnUNetTrainerNoDA", 1)])
def test_another_augmentation_keeps_scribbles_too(nnunet, variant, steps):
    trainer = nnunet.start(compose("nnUNetTrainerAttenScribble", variant))
    assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])
    transforms = trainer.dataloader_train.data_loader.transforms.transforms
    assert len(transforms) == steps
    assert [type(step).__name__ for step in transforms].count("DownsampleScribblesTransform") == 1


def test_augmentation_may_be_asked_for_by_position(nnunet):
    trainer = nnunet.make("nnUNetTrainerPartialCE")
    arguments = ((32, 32), (-3.14, 3.14), [[1, 1], [0.5, 0.5]], (0, 1), False, [False], False, [1, 2], None, IGNORE)
    assert trainer.get_training_transforms(*arguments).transforms[-1].ignore_label == IGNORE


@pytest.mark.parametrize("rung", ["nnUNetTrainerAttenScribble", "nnUNetTrainerDMPLS"])
def test_another_network_of_nnunet_gets_what_the_trainer_adds(nnunet, rung):
    trainer = nnunet.make(compose(rung, "nnUNetTrainerBN"))
    trainer.initialize()
    kinds = {type(module).__name__ for module in trainer.network.modules()}
    assert "BatchNorm2d" in kinds
    assert "InstanceNorm2d" not in kinds
    assert kinds & {"SpatialAttentionUNet", "TwoDecoderUNet"}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("nnUNetTrainerDA5", "nnUNetTrainerAttenScribble"), "name the scribble trainer before nnUNetTrainerDA5"),
        (
            ("nnUNetTrainer_20epochs", "nnUNetTrainerMaskedCRF"),
            "name the scribble trainer before nnUNetTrainer_20epochs",
        ),
        (("nnUNetTrainerMaskedCRF", "nnUNetTrainerCELoss"), "nnUNetTrainerCELoss has a loss of its own"),
    ],
)
def test_trainers_that_do_not_go_together_are_refused(nnunet, names, told):
    with pytest.raises(AttenScribbleError, match=told):
        nnunet.make(compose(*names))


def test_terms_are_those_of_all_processes(nnunet, monkeypatch):
    trainer = nnunet.start("nnUNetTrainerMaskedCRF")
    outputs = [trainer.train_step(next(trainer.dataloader_train))]
    own = trainer.loss.take_terms()
    monkeypatch.setattr(trainer.loss, "take_terms", lambda: own | {"annotated_1": 0.0, "crf": math.nan})
    other = own | {"annotated_1": 0.5, "crf": 2.0}

    def all_gather(everywhere, given):
        everywhere[:] = [given, other if isinstance(given, dict) else given]

    monkeypatch.setattr(trainer, "is_ddp", True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather)
    trainer.on_train_epoch_end(outputs)
    (row,) = read_csv(Path(trainer.output_folder) / "loss_terms.csv")
    assert (float(row["annotated_1"]), float(row["crf"])) == (0.25, 2.0)
    assert float(row["total"]) == pytest.approx(own["total"], rel=1e-5)
