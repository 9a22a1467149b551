"""Preprocessed cases as a training reads them, for what is measured on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_attenscribble.settings import AttenScribbleSettings
from nnunet_attenscribble.trainers.nnUNetTrainerScribble import _similarity_window


def read_configuration(folder: Path, configuration: str) -> tuple[Any, AttenScribbleSettings]:
    """Of a preprocessed dataset, as nnU-Net resolves it, and the settings in it."""
    configured = PlansManager(str(folder / "nnUNetPlans.json")).get_configuration(configuration)
    return configured, AttenScribbleSettings.from_configuration(configured.configuration)


def open_cases(folder: Path, configured: Any) -> Any:
    """nnU-Net's own access to all preprocessed cases."""
    stored = str(folder / configured.data_identifier)
    return infer_dataset_class(stored)(stored)


def read_grid(
    configured, settings: AttenScribbleSettings
) -> tuple[tuple[int, ...], float, list[float], tuple[int, ...]]:
    """Window, sigma_position and spacing of the block's grid, and its stride in voxels."""
    radius, sigma, spacing = _similarity_window(configured, settings)
    sizes = zip(spacing, configured.spacing[-len(radius) :], strict=True)
    return radius, sigma, spacing, tuple(round(position / voxel) for position, voxel in sizes)
