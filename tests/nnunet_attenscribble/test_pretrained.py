from __future__ import annotations

import json

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.network import add_block, add_spatial_attention, initial_block

CONFIGURATION = {
    "patch_size": [32, 32],
    "spacing": [1.0, 1.0],
    "median_image_size_in_voxels": [32.0, 32.0],
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 4,
            "features_per_stage": [4, 6, 8, 12],
            "conv_op": "torch.nn.modules.conv.Conv2d",
            "kernel_sizes": [[3, 3]] * 4,
            "strides": [[1, 1]] + [[2, 2]] * 3,
            "n_conv_per_stage": [1] * 4,
            "n_conv_per_stage_decoder": [1] * 3,
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
    },
}


def planned():
    architecture = CONFIGURATION["architecture"]
    return get_network_from_plans(
        architecture["network_class_name"], architecture["arch_kwargs"], architecture["_kw_requires_import"], 1, 3
    )


@pytest.fixture
def checkpoint(tmp_path):
    network = planned()
    file = tmp_path / "checkpoint_final.pth"
    torch.save({"network_weights": network.state_dict(), "trainer_name": "nnUNetTrainer"}, file)
    return file, network


@pytest.mark.parametrize("similarity", [None, "paper", "anchored"])
def test_nnunet_refuses_the_plain_checkpoint_and_takes_the_one_with_the_block(checkpoint, tmp_path, similarity):
    file, plain = checkpoint
    network = add_spatial_attention(planned(), (32, 32), similarity=similarity)
    with pytest.raises(AssertionError, match="missing in the pretrained"):
        load_pretrained_weights(network, file)
    torch.save(add_block(file, initial_block(CONFIGURATION)), tmp_path / "with_block.pth")
    load_pretrained_weights(network, tmp_path / "with_block.pth")
    for name, weight in plain.state_dict().items():
        if ".seg_layers." not in name:  # which nnU-Net leaves out by design
            torch.testing.assert_close(network.state_dict()[name], weight)
    image = torch.randn(1, 1, 32, 32)
    skips, expected = network.encoder(image), plain.encoder(image)
    torch.testing.assert_close(skips, expected)
    torch.testing.assert_close(network._attend(skips[2])[0], expected[2])


@pytest.mark.parametrize(
    ("settings", "place", "channels"),
    [
        ({}, {}, 8),
        ({"attention_stride": 2}, {"stride": 2}, 6),
        ({"attention_max_tokens": 16}, {"max_tokens": 16}, 12),  # of the 8 x 8 positions at a quarter of the resolution
    ],
)
def test_the_block_is_that_of_the_network(settings, place, channels):
    network = add_spatial_attention(planned(), (32, 32), similarity="anchored", **place)
    own = {name: weight.shape for name, weight in network.state_dict().items() if name.startswith("attention")}
    block = initial_block({**CONFIGURATION, "attenscribble": settings})
    assert {name: weight.shape for name, weight in block.items()} == own
    assert block["attention_gate"].shape == (channels,)


def test_what_a_block_without_a_similarity_lacks_is_added_and_the_rest_kept(tmp_path):
    trained = add_spatial_attention(planned(), (32, 32))
    torch.nn.init.normal_(trained.attention.proj.weight)
    torch.save({"network_weights": trained.state_dict()}, tmp_path / "attention.pth")
    torch.save(add_block(tmp_path / "attention.pth", initial_block(CONFIGURATION)), tmp_path / "with_block.pth")
    network = add_spatial_attention(planned(), (32, 32), similarity="anchored")
    load_pretrained_weights(network, tmp_path / "with_block.pth")
    torch.testing.assert_close(network.attention.proj.weight, trained.attention.proj.weight)


def test_a_block_that_replaces_features_comes_without_a_gate(checkpoint, tmp_path):
    settings = {"attention_gated": False}
    network = add_spatial_attention(planned(), (32, 32), similarity="anchored", gated=False)
    block = initial_block({**CONFIGURATION, "attenscribble": settings})
    assert "attention_gate" not in block
    torch.save(add_block(checkpoint[0], block), tmp_path / "with_block.pth")
    load_pretrained_weights(network, tmp_path / "with_block.pth")


@pytest.mark.parametrize("gated", [True, False])
def test_a_block_that_is_added_otherwise_is_refused(tmp_path, gated):
    trained = add_spatial_attention(planned(), (32, 32), similarity="anchored", gated=gated)
    torch.save({"network_weights": trained.state_dict()}, tmp_path / "trained.pth")
    block = initial_block({**CONFIGURATION, "attenscribble": {"attention_gated": not gated}})
    with pytest.raises(AttenScribbleError, match=f"block with{'' if gated else 'out'} a gate, the configuration"):
        add_block(tmp_path / "trained.pth", block)


def test_command_writes_what_nnunet_takes(checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "nnUNet_preprocessed" / "Dataset501_Heart"
    folder.mkdir(parents=True)
    (folder / "ResEncM.json").write_text(json.dumps({"plans_name": "ResEncM", "configurations": {"2d": CONFIGURATION}}))
    described = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "RV": 1, "ignore": 2}}
    (folder / "dataset.json").write_text(json.dumps(described | {"file_ending": ".nii.gz", "numTraining": 1}))
    monkeypatch.setenv("nnUNet_preprocessed", str(folder.parent))
    out = tmp_path / "with_block.pth"
    arguments = ["pretrained", str(checkpoint[0]), "-d", "501", "-p", "ResEncM", "-o", str(out)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert f"-p ResEncM -pretrained_weights {out}" in result.output.replace("\n", "")
    assert "nnUNet_extTrainer" in result.output
    load_pretrained_weights(add_spatial_attention(planned(), (32, 32), similarity="anchored"), out)
    with pytest.raises(AssertionError, match="not the same"):  # nnU-Net's own check still looks at every shape
        load_pretrained_weights(add_spatial_attention(planned(), (32, 32), stride=8, similarity="anchored"), out)

    with pytest.raises(AttenScribbleError) as problems:
        CliRunner().invoke(app, ["pretrained", str(tmp_path / "nothing.pth"), *arguments[2:]], catch_exceptions=False)
    assert len(problems.value.problems) == 2  # there is no such file, and the output exists

    weights, name = checkpoint[1].state_dict(), "encoder.stages.1.0.convs.0.conv.weight"
    arguments[-1] = str(tmp_path / "other.pth")
    for other in ({**weights, name: torch.zeros(5, 4, 3, 3)}, {k: v for k, v in weights.items() if k != name}):
        torch.save({"network_weights": other}, checkpoint[0])
        with pytest.raises(AttenScribbleError, match=rf"that of '2d' in .*ResEncM\.json \({name} are absent or of"):
            CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert not (tmp_path / "other.pth").exists()
    broken = {**CONFIGURATION, "spacing": [1.0, 1.0, 1.0]}
    (folder / "Broken.json").write_text(json.dumps({"plans_name": "Broken", "configurations": {"2d": broken}}))
    with pytest.raises(AttenScribbleError, match="plans: configuration '2d': its patch has 2 axes"):
        CliRunner().invoke(app, [*arguments[:4], "-p", "Broken", *arguments[6:]], catch_exceptions=False)
    # Of another number of classes, as nnU-Net takes it.
    other = {k: v[:1] if ".seg_layers." in k else v for k, v in weights.items()}
    torch.save({"network_weights": other}, checkpoint[0])
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    load_pretrained_weights(add_spatial_attention(planned(), (32, 32), similarity="anchored"), arguments[-1])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "cannot be read"),
        ({"state_dict": {}}, "no weights of an nnU-Net"),
        ({"network_weights": {"encoder.x": torch.zeros(1), **initial_block(CONFIGURATION)}}, "already"),
    ],
)
def test_refuses_what_is_no_plain_checkpoint(tmp_path, content, match):
    file = tmp_path / "checkpoint.pth"
    file.write_bytes(b"no checkpoint") if content is None else torch.save(content, file)
    with pytest.raises(AttenScribbleError, match=match):
        add_block(file, initial_block(CONFIGURATION))
