"""What coarse targets say of borders: `python -m tools.timing.coarse_targets DENSE_DATASET DATASET CONFIGURATION`.

A cell of a coarser target has the label of the strokes in it. Of the area of these cells, per label and scale, the
share that the dense labels, too, give to it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from nnunet_attenscribble.common.nnunet import dataset_folder
from nnunet_attenscribble.targets import DownsampleScribblesTransform
from tools.timing.preprocessed import open_cases, read_configuration


def measure_areas(
    strokes: np.ndarray, dense: np.ndarray, scales: Sequence[Sequence[float]], classes: int
) -> np.ndarray:
    """Area of the labelled cells in cells, (scales, label, dense label).

    Args:
        strokes, dense: labels (*S), of strokes `classes` where there is none; cut to whole cells, as patches are.
        scales: per target and axis, the last the coarsest.
        classes: how many.
    """
    whole = tuple(
        slice(int(size * scale) * round(1 / scale)) for size, scale in zip(dense.shape, scales[-1], strict=True)
    )
    strokes, dense = strokes[whole], dense[whole]
    found = np.zeros((len(scales), classes, classes))
    pool = getattr(F, f"adaptive_avg_pool{dense.ndim}d")
    masks = torch.from_numpy(np.stack([dense == label for label in range(classes)])).float()
    targets = DownsampleScribblesTransform(scales, classes)._apply_to_segmentation(torch.from_numpy(strokes)[None])
    for number, target in enumerate(targets):
        shares = pool(masks, target.shape[1:])
        for label in range(classes):
            found[number, label] = shares[:, target[0] == label].sum(dim=1)
    return found


def read_targets(dense: Path, scribble: Path, configured: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Strokes and dense labels (*S) as patches have them: slices in 2D, whole cases in 3D."""
    ours, strokes = open_cases(dense, configured), open_cases(scribble, configured)
    for case in strokes.identifiers:
        drawn, labels = (np.asarray(cases.load_case(case)[1][:])[0].astype(np.int16) for cases in (strokes, ours))
        yield from zip(drawn, labels, strict=True) if len(configured.patch_size) == 2 else [(drawn, labels)]


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dense")
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    arguments = parser.parse_args()
    dense, scribble = (dataset_folder("nnUNet_preprocessed", one) for one in (arguments.dense, arguments.dataset))
    configured, _ = read_configuration(scribble, arguments.configuration)
    names = list(json.loads((dense / "dataset.json").read_text())["labels"])
    scales = (1 / np.cumprod(np.vstack(configured.pool_op_kernel_sizes), axis=0))[:-1].tolist()
    areas = sum(measure_areas(*pair, scales, len(names)) for pair in read_targets(dense, scribble, configured))
    print(f"|scale|{'|'.join(names)}|\n|---|{'---:|' * len(names)}")
    for scale, of_labels in zip(scales, areas, strict=True):
        print(f"|1/{1 / scale[-1]:g}|{'|'.join(f'{s:.3f}' for s in of_labels.diagonal() / of_labels.sum(axis=1))}|")


if __name__ == "__main__":
    main()
