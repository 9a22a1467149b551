"""Which pairs of classes the scribbles show to the pair loss: `python -m tools.timing.pairs DATASET CONFIGURATION`.

Counted in the preprocessed labels of a fold's training cases (of a 2D configuration slice by slice), without
augmentation, on the grid and in the window of the configuration's settings.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_attenscribble.attention_reading import sum_by_classes
from nnunet_attenscribble.losses.attentive_similarity import grid_labels
from nnunet_attenscribble.settings import AttenScribbleSettings
from nnunet_attenscribble.similarity import WindowSimilarity
from nnunet_attenscribble.trainers.nnUNetTrainerScribble import _similarity_window
from nnunet_attenscribble.windows import pair_count


def find_preprocessed(dataset: str) -> Path:
    """Folder of a dataset, given by ID or name, in nnUNet_preprocessed."""
    return Path(os.environ["nnUNet_preprocessed"]) / maybe_convert_to_dataset_name(dataset)  # noqa: SIM112


def read_configuration(folder: Path, configuration: str) -> tuple[Any, AttenScribbleSettings]:
    """Of a preprocessed dataset, as nnU-Net resolves it, and the settings in it."""
    configured = PlansManager(str(folder / "nnUNetPlans.json")).get_configuration(configuration)
    return configured, AttenScribbleSettings.from_configuration(configured.configuration)


def open_cases(folder: Path, configured: Any, cases: list[str] | None = None) -> Any:
    """nnU-Net's own access to the preprocessed cases; None: to all."""
    stored = str(folder / configured.data_identifier)
    return infer_dataset_class(stored)(stored, cases)


def count_pairs(target: torch.Tensor, stride: tuple[int, ...], radius: tuple[int, ...], classes: int) -> torch.Tensor:
    """Pairs of annotated cells of (N, 1, *S) labels, (classes, classes) with the lower class first."""
    missing = [-size % step for size, step in zip(target.shape[2:], stride, strict=True)]
    target = torch.nn.functional.pad(target, [side for m in reversed(missing) for side in (0, m)], value=classes)
    grid = tuple(size // step for size, step in zip(target.shape[2:], stride, strict=True))
    similarity = WindowSimilarity(torch.zeros(len(target), pair_count(grid, radius)), grid, radius)
    return sum_by_classes(similarity, grid_labels(target, grid, classes), classes)[1]


def read_grid(
    configured, settings: AttenScribbleSettings
) -> tuple[tuple[int, ...], float, list[float], tuple[int, ...]]:
    """Window, sigma_position and spacing of the block's grid, and its stride in voxels."""
    radius, sigma, spacing = _similarity_window(configured, settings)
    sizes = zip(spacing, configured.spacing[-len(radius) :], strict=True)
    return radius, sigma, spacing, tuple(round(position / voxel) for position, voxel in sizes)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("--fold", type=int, default=0)
    arguments = parser.parse_args()
    folder = find_preprocessed(arguments.dataset)
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    configured, settings = read_configuration(folder, arguments.configuration)
    radius, _, _, stride = read_grid(configured, settings)
    axes = len(radius)
    cases = json.loads((folder / "splits_final.json").read_text())[arguments.fold]["train"]
    data, classes = open_cases(folder, configured, cases), labels["ignore"]
    total = torch.zeros(classes, classes, dtype=torch.float64)
    for case in cases:
        drawn = torch.as_tensor(data.load_case(case)[1][:]).long()  # (1, slices, H, W)
        total += count_pairs(drawn.movedim(0, 1) if axes == 2 else drawn[None], stride, radius, classes)
    names = {value: label for label, value in labels.items()}
    alike = float(total.trace())
    print(f"Window {radius} of a grid of stride {stride}, {len(cases)} cases.\n")
    print("| pair | count | share of its kind |\n|---|---:|---:|")
    for one, other in torch.triu_indices(classes, classes).T.tolist():
        count = float(total[one, other])
        kind = alike if one == other else float(total.sum()) - alike
        print(f"| {names[one]}, {names[other]} | {count:.0f} | {100 * count / max(kind, 1):.0f} % |")


if __name__ == "__main__":
    main()
