"""What is measured: each workload prepares its input and returns a function that runs forward and backward once."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunet_attenscribble.common.nnunet import trainers_folder
from nnunet_attenscribble.losses import AttentiveSimilarityLoss, MaskedCRFLoss
from nnunet_attenscribble.network import SpatialSelfAttention
from nnunet_attenscribble.settings import KEY
from tools.timing.references import dense_block, dense_similarity_loss, unfolded_crf

#: Returns the loss and a gradient, where there is one to compare.
Run = Callable[[], tuple[Tensor, Tensor] | None]
NAME = "Dataset999_Timing"
CLASSES, IGNORE = 4, 4


def crf(
    shape: list[int],
    radius: int | list[int] = 5,
    reference: bool = False,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Run:
    """Masked CRF on (N, C, *S) probabilities; the reference takes the slices of a volume as images."""
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(shape, generator=generator).softmax(1)
    image = torch.rand(shape[0], 1, *shape[2:], generator=generator)
    mask = (torch.rand(shape[0], 1, *shape[2:], generator=generator) > 0.05).float()
    p, image, mask = (x.to(device, dtype) for x in (p, image, mask))
    p.requires_grad_()
    loss = unfolded_crf if reference else MaskedCRFLoss(radius)

    def slices(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(0, 1) if reference and x.ndim == 5 else x

    def run() -> tuple[Tensor, Tensor]:
        p.grad = None
        value = loss(slices(p), slices(image), slices(mask))
        value.backward()
        return value.detach(), p.grad

    return run


def similarity(samples: int, grid: list[int], channels: int = 64, mode: str = "paper", reference: bool = False) -> Run:
    """Attention block with its similarity, and the attentive similarity loss."""
    block = SpatialSelfAttention(channels, len(grid), mode)
    features = torch.randn(samples, channels, *grid, requires_grad=True)
    p = torch.randn(samples, CLASSES, *(4 * size for size in grid)).softmax(1).requires_grad_()
    loss = AttentiveSimilarityLoss()

    def run() -> tuple[Tensor, Tensor]:
        features.grad = p.grad = None
        if reference:
            out, dense = dense_block(block, features)
            value = dense_similarity_loss(p, dense, tuple(grid))
        else:
            out, compact = block(features)
            value = loss(p, compact)
        (value + out.square().mean()).backward()
        return value.detach(), features.grad

    return run


# nnU-Net 2.8's plans for ACDC (50 patients, their scribbles), and the CPU configuration derived from them;
# and a plan for volumes of equal spacing.
PLANS: dict[str, dict[str, Any]] = {
    "2d": {
        "patch": [256, 224],
        "features": [32, 64, 128, 256, 512, 512],
        "strides": [[1, 1]] + [[2, 2]] * 5,
        "kernels": [[3, 3]] * 6,
        "spacing": [1.484, 1.484],
    },
    "2d_cpu": {
        "patch": [128, 112],
        "features": [16, 32, 64, 128, 128],
        "strides": [[1, 1]] + [[2, 2]] * 4,
        "kernels": [[3, 3]] * 5,
        "spacing": [2.969, 2.969],
        "settings": {"similarity_radius": 2, "similarity_sigma_position": 3.0},  # as `configure --cpu` writes them
    },
    "3d_fullres": {
        "patch": [10, 256, 224],
        "features": [32, 64, 128, 256, 320, 320],
        "strides": [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]],
        "kernels": [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
        "spacing": [10.0, 1.484, 1.484],
    },
    "3d_isotropic": {  # a network for 128 x 128 x 128, measured on smaller patches
        "patch": [128, 128, 128],
        "features": [32, 64, 128, 256, 320, 320],
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * 5,
        "kernels": [[3, 3, 3]] * 6,
        "spacing": [1.0, 1.0, 1.0],
    },
}


def make_configuration(
    plan: str, batch: int, patch: list[int] | None = None, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A configuration as nnU-Net plans it; `patch` in place of that of `PLANS`, `settings` on top of its own."""
    made = PLANS[plan]
    ndim, stages = len(made["patch"]), len(made["features"])
    return {
        "data_identifier": f"nnUNetPlans_{plan}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": batch,
        "patch_size": patch or made["patch"],
        "median_image_size_in_voxels": made["patch"],
        "spacing": made["spacing"],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": ndim == 2,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": made["features"],
                "conv_op": f"torch.nn.modules.conv.Conv{ndim}d",
                "kernel_sizes": made["kernels"],
                "strides": made["strides"],
                "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{ndim}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        KEY: {**made.get("settings", {}), **(settings or {})},
    }


def write_plans(folder: Path, configurations: Mapping[str, dict[str, Any]]) -> None:
    """A dataset of scribbles with nothing but its plans, in a folder that is made."""
    plans = {
        "dataset_name": NAME,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "configurations": configurations,
    }
    labels = {"background": 0, **{f"structure {n}": n for n in range(1, CLASSES)}, "ignore": IGNORE}
    dataset = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    folder.mkdir(parents=True)
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))


def name_preprocessed(folder: Path) -> Path:
    """Where the plans of the one dataset lie below a folder for nnU-Net's."""
    return folder / "nnUNet_preprocessed" / NAME


def prepare_folders(folder: Path) -> dict[str, str]:
    """nnU-Net's variables for a folder that holds plans alone, which is made to look preprocessed."""
    preprocessed = name_preprocessed(folder)
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    for configuration in plans["configurations"].values():
        if "data_identifier" in configuration:  # nnU-Net tells by a file's ending how cases are stored
            cases = preprocessed / configuration["data_identifier"]
            cases.mkdir(exist_ok=True)
            (cases / "none.b2nd").touch()
    variables = {name: str(folder / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    return variables | {"nnUNet_extTrainer": str(trainers_folder()), "nnUNet_n_proc_DA": "0"}


class Step:
    """One training step of a trainer on random images and scribbles, again and again."""

    def __init__(self, trainer: str, configuration: str, device: str):
        from nnunetv2.run.run_training import get_trainer_from_args

        torch.backends.cudnn.benchmark = True
        torch.manual_seed(0)
        self.trainer = get_trainer_from_args(NAME, configuration, 0, trainer, device=torch.device(device))
        self.trainer.print_to_log_file = lambda *_, **__: None
        self.trainer.initialize()
        self.trainer.network.train()
        self.trainer.current_epoch, self.trainer._steps = 5, 0  # warmed up
        if hasattr(self.trainer, "begin_teacher"):  # as it does where a training starts, which takes data
            self.trainer.begin_teacher()
        patch, batch = self.trainer.configuration_manager.patch_size, self.trainer.batch_size
        classes = self.trainer.label_manager.ignore_label
        scales = self.trainer._get_deep_supervision_scales() or [[1.0] * len(patch)]
        self.batches = []
        for _ in range(2):
            image = torch.randn(batch, self.trainer.num_input_channels, *patch)
            drawn = torch.rand(batch, 1, *patch) < 0.02
            target = torch.where(drawn, torch.randint(0, classes, drawn.shape), classes).to(torch.int16)
            steps = [[slice(None, None, round(1 / s)) for s in scale] for scale in scales]
            targets = [target[(..., *step)].contiguous() for step in steps]
            if device == "cuda":
                image, targets = image.pin_memory(), [t.pin_memory() for t in targets]
            self.batches.append({"data": image, "target": targets if len(scales) > 1 else targets[0]})
        self.count = 0

    def __call__(self) -> None:
        """One step."""
        self.trainer.train_step(self.batches[self.count % 2])
        self.count += 1


def iteration(
    plan: str, batch: int, patch: list[int] | None = None, max_tokens: int | None = None, reference: bool = False
) -> Run:
    """A step of `nnUNetTrainerAttenScribble`, or of stock nnU-Net on scribbles; `patch` in place of the plan's."""
    settings = {"attention_max_tokens": max_tokens} if max_tokens else {}
    with tempfile.TemporaryDirectory() as folder:
        write_plans(name_preprocessed(Path(folder)), {plan: make_configuration(plan, batch, patch, settings)})
        os.environ.update(prepare_folders(Path(folder)))
        return Step("nnUNetTrainer" if reference else "nnUNetTrainerAttenScribble", plan, "cpu")


WORKLOADS = {"crf": crf, "similarity": similarity, "iteration": iteration}
#: Options of a run that only warms up.
TINY = {"crf": {"shape": [1, CLASSES, 16, 16], "radius": 5}, "similarity": {"samples": 1, "grid": [8, 8]}}
