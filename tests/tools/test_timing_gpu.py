"""`make bench-gpu` as far as it goes without a GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from tools.timing import gpu
from tools.timing.workloads import Step


def test_without_a_gpu_one_sentence_says_so():
    command = [sys.executable, "-m", "tools.timing.gpu"]
    done = subprocess.run(command, capture_output=True, text=True, env={**gpu.os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "bench-gpu: PyTorch finds no CUDA GPU on this machine, so there is nothing to measure.\n"


def test_the_made_up_plans_are_those_of_acdc(tmp_path):
    variables = gpu.prepare(tmp_path, None)
    plans = PlansManager(f"{variables['nnUNet_preprocessed']}/{gpu.NAME}/nnUNetPlans.json")
    flat, quarter, volume = (plans.get_configuration(name) for name in ("2d", gpu.QUARTER, "3d_fullres"))
    assert (flat.batch_size, list(flat.patch_size)) == (54, [256, 224])
    assert (quarter.batch_size, list(quarter.patch_size)) == (54, [256, 224])
    assert quarter.configuration["attenscribble"] == {"attention_max_tokens": 4096}
    assert (volume.batch_size, list(volume.patch_size)) == (3, [16, 256, 224])
    assert {row[1] for row in gpu.STEPS} == {"2d", gpu.QUARTER, "3d_fullres"}


@pytest.mark.slow
def test_every_trainer_takes_a_step_on_the_made_up_plans(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "PLANNED", {"2d": (2,), "3d_fullres": (1, [16, 256, 224])})
    for name, value in gpu.prepare(tmp_path, None).items():
        monkeypatch.setenv(name, value)
    for trainer, configuration, *_ in gpu.STEPS[1:4]:
        Step(trainer, configuration, "cpu")()


def test_the_terms_agree_with_float64():
    crf = [gpu.crf([1, 3, 8, 9], reference=unfolded, dtype=torch.float64)() for unfolded in (False, True)]
    for one, other in zip(*crf, strict=True):
        torch.testing.assert_close(one, other)
    assert gpu.crf([1, 2, 4, 4, 4])()[1].shape == (1, 2, 4, 4, 4)
    for make in (gpu.make_similarity, gpu.make_log_attention):
        value, gradient = make("cpu")
        assert value.dtype == gradient.dtype == torch.float64
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("grid", [[3, 4], [2, 3, 4]])
def test_the_parts_of_the_block(grid):
    gradients = {}
    for part in gpu.BLOCK_PARTS:
        torch.manual_seed(0)
        gradients[part] = gpu.make_block_part(part, 2, 8, grid, "cpu")()
        assert gradients[part].dtype == (torch.float32 if part == "LayerNorm" else torch.float16)
        assert gradients[part].abs().sum() > 0
    torch.testing.assert_close(*(gradients[part] for part in gpu.BLOCK_PARTS[:2]), rtol=0, atol=0.01)


def test_the_tables():
    step = {"ms": 44.0, "total_MB": 4800.0, "waits": 2, "ratio": 1.1, "more_memory": 0.015}
    text = gpu.show(
        [{"name": "nnUNetTrainerMaskedCRF, 2d", "goal": 1.1, **step}],
        [{"name": "intensities", "goal": 1.0, "ms": 0.5, "MB": 13.0, "told": "1e-07 from float64"}],
    )
    assert "|nnUNetTrainerMaskedCRF, 2d|44.0|1.10|1.10|4,800|2 %|2|" in text
    assert "|intensities|0.50|1|13|1e-07 from float64|" in text
