"""The trainers of the rivals, in real nnU-Net trainings of a few iterations."""

from __future__ import annotations

import json
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

from nnunet_attenscribble.common.nnunet import list_trainers
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.network import TwoDecoderUNet
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerUSTM import measure_range

pytestmark = pytest.mark.xdist_group("trainers")

TERMS = {
    "nnUNetTrainerDMPLS": "mixed_labels",
    "nnUNetTrainerDMSPS": "mixed_soft_labels",
    "nnUNetTrainerEntropy": "entropy",
    "nnUNetTrainerGatedCRF": "gated_crf",
    "nnUNetTrainerMumfordShah": "mumford_shah",
    "nnUNetTrainerScribbleVS": "competition",
    "nnUNetTrainerTotalVariation": "total_variation",
    "nnUNetTrainerUSTM": "consistency",
}


def test_these_are_all():
    assert list_trainers(rivals=True) == list(TERMS)


@pytest.mark.parametrize("name", TERMS)
def test_trains_and_tells_its_term(nnunet, name):
    trainer = nnunet.start(name, epoch=1)  # in the midst of the warm-up
    told = trainer.train_step(next(trainer.dataloader_train))
    terms, regularised = trainer.loss.take_terms(), trainer.loss.regularised
    assert regularised.strength > 0
    assert terms[TERMS[name]] != 0
    expected = terms["segmentation"] + regularised.strength * regularised.term.weight * terms[TERMS[name]]
    assert terms["total"] == pytest.approx(expected, rel=1e-5)
    assert told["loss"] == pytest.approx(expected, rel=1e-5)
    without = [name for name, parameter in trainer.network.named_parameters() if parameter.grad is None]
    assert all("seg_layers.0" in name for name in without)  # of no weight in nnU-Net


@pytest.mark.parametrize(
    ("name", "shrinking", "decays"),
    [("nnUNetTrainerUSTM", 1, [0, 0.5, 0.99]), ("nnUNetTrainerScribbleVS", 1 - 2e-4, [0.99, 0.99, 0.99])],
)
def test_the_teacher_follows_and_is_there_again(nnunet, name, shrinking, decays):
    trainer = nnunet.start(name)
    for epoch, decay in zip((0, 0, 100), decays, strict=True):
        trainer.current_epoch = epoch
        before = [parameter.clone() for parameter in trainer.teacher.parameters()]
        trainer.train_step(next(trainer.dataloader_train))
        after = list(trainer.teacher.parameters())
        for old, new, own in zip(before, after, trainer.network.parameters(), strict=True):
            assert torch.allclose(new, decay * old + (1 - decay) * own / shrinking, atol=1e-7)
    trainer.current_epoch = 0
    file = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.on_train_epoch_end([{"loss": np.array(1.0)}])
    trainer.save_checkpoint(str(file))

    again = nnunet.make(name)
    again.initialize()
    again.load_checkpoint(str(file))
    again.on_train_start()
    assert all(torch.equal(a, b) for a, b in zip(after, again.teacher.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(after, again.network.parameters(), strict=True))

    again.on_train_end()
    assert [path.name for path in sorted(file.parent.glob("*.pth"))] == ["checkpoint_final.pth", "teacher_final.pth"]

    again.save_checkpoint(str(file))
    teacher = file.with_name("teacher_latest.pth")
    saved = torch.load(teacher)

    def begin_without(write) -> None:
        write()
        alone = nnunet.make(name)
        alone.initialize()
        alone.load_checkpoint(str(file))
        alone.on_train_start()
        pairs = zip(alone.network.parameters(), alone.teacher.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        assert "teacher_latest.pth cannot be used" in Path(alone.log_file).read_text()

    begin_without(lambda: torch.save(saved | {"epoch": 0}, teacher))  # of the checkpoint before
    begin_without(lambda: teacher.write_bytes(teacher.read_bytes()[:1000]))
    begin_without(teacher.unlink)
    again.save_checkpoint(str(file.with_name("epoch_1.pth")))
    assert "network_weights" in torch.load(file.with_name("epoch_1.pth"), weights_only=False)


@pytest.mark.parametrize(("name", "rise"), [("nnUNetTrainerUSTM", 1), ("nnUNetTrainerScribbleVS", 0.2)])
def test_the_teachers_term_rises_as_published(nnunet, name, rise):
    trainer = nnunet.make(name)
    trainer.num_epochs = 10
    trainer.on_train_start()
    for epoch, strength in ((0, 0.0067379), (5 * rise, 0.2865048), (10 * rise, 1), (10, 1)):  # exp(-5), exp(-5 / 4)
        trainer.current_epoch = int(epoch)
        trainer.on_train_epoch_start()
        trainer.train_step(next(trainer.dataloader_train))
        assert trainer.loss.regularised.strength == pytest.approx(strength, rel=1e-4)
        if name == "nnUNetTrainerUSTM":
            assert trainer.loss.regularised.term.progress == epoch / 10


def test_the_second_decoder_trains_and_is_not_asked_in_inference(nnunet):
    trainer = nnunet.start("nnUNetTrainerDMPLS")
    network = trainer.network
    names = {name.split(".")[0] for name, _ in network.named_parameters()}
    assert names == {"encoder", "decoder", "second_decoder"}
    first, second = (getattr(network, f"{which}decoder").seg_layers[-1].weight for which in ("", "second_"))
    assert not torch.equal(first, second)  # each begins by itself
    before = second.clone()
    trainer.train_step(next(trainer.dataloader_train))
    assert not torch.equal(before, network.second_decoder.seg_layers[-1].weight)

    file = Path(trainer.output_folder) / "checkpoint_final.pth"
    trainer.on_train_epoch_end([{"loss": np.array(1.0)}])
    trainer.save_checkpoint(str(file))
    predictor = nnUNetPredictor(device=torch.device("cpu"), verbose=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(file.parents[1]), (0,), "checkpoint_final.pth")
    images = torch.randn(2, 1, 32, 32)
    network.eval()
    with torch.no_grad():
        predictor.network.load_state_dict(predictor.list_of_parameters[0])
        predictor.network.eval()
        own = network(images)
        own = own[0] if isinstance(own, (list, tuple)) else own
        assert torch.equal(predictor.network(images), own)
        network.second_decoder.seg_layers[-1].weight.zero_()
        again = network(images)
        assert torch.equal(again[0] if isinstance(again, (list, tuple)) else again, own)


@pytest.mark.parametrize("plane", [(16, 16), (4, 8, 8)])
def test_the_second_decoder_misses_whole_channels(plane):
    network = nn.Module()
    network.encoder = lambda x: [x, 2 * x]
    network.decoder = list
    second = nn.Module()
    second.decoder = list
    ones = torch.ones(8, 32, *plane)
    first, (others,) = TwoDecoderUNet(network, second)(ones)
    assert [skip.unique().tolist() for skip in first] == [[1], [2]]
    for factor, skip in zip((2, 4), others, strict=True):  # what is left counts double
        values = skip.flatten(2)
        assert torch.equal(values.amin(dim=2), values.amax(dim=2))
        assert values.unique().tolist() == [0, factor]
        assert (values[..., 0] == 0).float().mean().item() == pytest.approx(0.5, abs=0.15)


def test_the_teachers_noise_is_a_share_of_the_range_and_on_images_alone(nnunet):
    images = torch.zeros(2, 3, 32, 32)  # of them one an image, two of a cascade's first stage
    images[0, 0, 0, 0], images[1, 0, 0, 0] = -2.0, 8.0
    images[:, 1:, 0] = 1
    noise = nnunet.make("nnUNetTrainerUSTM")._add_noise(images, measure_range(images)) - images
    for one, size in zip(noise[:, 0], (2.0, 8.0), strict=True):
        assert one.abs().max().item() == pytest.approx(0.2 * size, rel=1e-3)
        assert one.std().item() == pytest.approx(0.1 * size, rel=0.1)
    assert (noise[:, 1:] == 0).all()


def test_the_teacher_sees_turned_images(nnunet, monkeypatch):
    trainer = nnunet.make("nnUNetTrainerUSTM")
    monkeypatch.setattr("random.randrange", lambda stop: 1)
    monkeypatch.setattr(trainer, "_add_noise", lambda images, size: images)
    monkeypatch.setattr(trainer, "predict_with_teacher", lambda images: images)
    images = torch.zeros(1, 2, 2, 2)
    images[0, 0, 0, 0] = log(3)
    told = trainer.ask_teacher(images)
    expected = torch.tensor([[0.5, 0.5], [0.75, 0.5]])  # a quarter turn counterclockwise
    torch.testing.assert_close(told.probabilities[0, 0], expected)
    torch.testing.assert_close(told.mean[0, 0], expected)
    assert told.turns == 1
    predicted = iter(torch.arange(9.0))
    monkeypatch.setattr(trainer, "_predict_noisy", lambda images, size: next(predicted).expand(2))
    told = trainer.ask_teacher(images)
    assert (told.probabilities.tolist(), told.mean.tolist()) == ([0, 0], [4.5, 4.5])  # of 1 to 8


def test_refuses_regions_and_the_bases(nnunet):
    content = json.loads((nnunet.preprocessed / "dataset.json").read_text())
    content |= {"labels": {"background": 0, "all": [1, 2], "core": 2, "ignore": 3}, "regions_class_order": [1, 2]}
    with pytest.raises(AttenScribbleError, match="regions"):
        nnunet.make("nnUNetTrainerEntropy", dataset_json=content)
    for name in ("nnUNetTrainerRival", "nnUNetTrainerTeacher", "nnUNetTrainerTwoDecoders"):
        with pytest.raises(AttenScribbleError, match="common base"):
            nnunet.make(name)
    assert not nnunet.results.exists()


def test_rotation_by_quarters_only_where_the_plane_is_square(nnunet):
    plans = json.loads((nnunet.preprocessed / "nnUNetPlans.json").read_text())
    plans["configurations"]["tiny"]["patch_size"] = [32, 16]
    assert nnunet.make("nnUNetTrainerUSTM")._is_square()
    assert not nnunet.make("nnUNetTrainerUSTM", plans=plans)._is_square()
