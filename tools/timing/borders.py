"""What borders within the grid's positions cost: `python -m tools.timing.borders DENSE_DATASET DATASET CONFIGURATION`.

The attentive similarity sees the prediction on the coarse grid of the attention block. Here it is given the best
similarity that a grid can have, 1 between positions of the same class (that of most of a position) and 0 between
others, and in place of a prediction the dense labels themselves, and these eroded by one voxel. A loss that is lower
for the eroded ones than for the dense ones asks for erosion, whatever was learnt.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import binary_erosion

from nnunet_attenscribble.common.nnunet import dataset_folder
from nnunet_attenscribble.losses import AttentiveSimilarityLoss
from nnunet_attenscribble.losses.attentive_similarity import DISAGREEMENTS, resize_to_grid
from nnunet_attenscribble.similarity import WindowSimilarity
from nnunet_attenscribble.windows import pair_indices
from tools.timing.preprocessed import open_cases, read_configuration, read_grid


def erode(labels: np.ndarray, classes: int) -> np.ndarray:
    """Every class without its outermost voxels."""
    eroded = np.zeros_like(labels)
    for label in range(1, classes):
        eroded[binary_erosion(labels == label)] = label
    return eroded


def to_one_hot(labels: np.ndarray, classes: int, stride: tuple[int, ...]) -> torch.Tensor:
    """(1, classes, *S), with background up to whole positions."""
    padded = np.pad(labels, [(0, -size % step) for size, step in zip(labels.shape, stride, strict=True)])
    return F.one_hot(torch.from_numpy(padded.astype(np.int64)), classes).movedim(-1, 0)[None].float()


def read_labels(folder: Path, configured, axes: int) -> Iterator[np.ndarray]:
    """Preprocessed dense labels: volumes, or the slices with foreground."""
    data = open_cases(folder, configured)
    for case in data.identifiers:
        labels = np.maximum(np.asarray(data.load_case(case)[1])[0], 0)
        yield from (labels,) if axes == 3 else (plane for plane in labels if plane.any())


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dense")
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    arguments = parser.parse_args()
    dense, scribble = (dataset_folder("nnUNet_preprocessed", one) for one in (arguments.dense, arguments.dataset))
    configured, settings = read_configuration(scribble, arguments.configuration)
    radius, sigma, spacing, stride = read_grid(configured, settings)
    classes = len(json.loads((dense / "dataset.json").read_text())["labels"])
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in DISAGREEMENTS}
    mixed: list[float] = []
    for labels in read_labels(dense, configured, len(radius)):
        truth = to_one_hot(labels, classes, stride)
        grid = tuple(size // step for size, step in zip(truth.shape[2:], stride, strict=True))
        shares = resize_to_grid(truth, grid)
        one, other = pair_indices(grid, radius, shares.device)
        main_class = shares.argmax(dim=1).flatten(1)
        similarity = WindowSimilarity((main_class[:, one] == main_class[:, other]).float(), grid, radius)
        touched = shares[:, 0] < 1
        mixed.append(float((shares.amax(dim=1) < 1)[touched].float().mean()) if touched.any() else 0.0)
        for name in DISAGREEMENTS:
            loss = AttentiveSimilarityLoss(radius, sigma, spacing, disagreement=name)
            found[name]["dense"].append(float(loss(truth, similarity)))
            found[name]["eroded"].append(float(loss(to_one_hot(erode(labels, classes), classes, stride), similarity)))
    print(
        f"Positions of {stride} voxels; {100 * fmean(mixed):.0f} % of those with foreground are of several classes.\n"
    )
    print("| disagreement | dense labels | eroded |\n|---|---:|---:|")
    for name, values in found.items():
        print(f"| {name} | {fmean(values['dense']):.3f} | {fmean(values['eroded']):.3f} |")


if __name__ == "__main__":
    main()
