"""Where the masked CRF wants borders: `python -m tools.timing.crf_borders DENSE_DATASET DATASET CONFIGURATION`.

The dense labels stand in for a prediction, softened over half a pixel, with the outline of one structure moved outwards
and inwards. Where the energy is lowest, there the loss pulls this outline, at 0 to where people drew it (a small round
one a little inwards, as that is shorter); how far a network follows is another matter. Of the slices with every
structure; a slice's energy with its own outline is 1.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.special import expit, softmax

from nnunet_attenscribble.common.nnunet import dataset_folder
from nnunet_attenscribble.losses import MaskedCRFLoss, rank_intensities, rescale_intensities
from nnunet_attenscribble.settings import window_radius
from tools.timing.preprocessed import open_cases, read_configuration

#: Pixels by which an outline is moved outwards.
SHIFTS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
_SOFTNESS, _FAR = 0.5, 300.0  # pixels


def move_outline(labels: np.ndarray, classes: int, label: int, shift: float) -> torch.Tensor:
    """(classes, *S), probabilities; `label` reaches `shift` pixels further than it does."""
    outwards = np.stack([_signed_distance(labels == one) for one in range(classes)])
    own = expit((shift - outwards[label]) / _SOFTNESS)
    outwards[label] = np.inf
    moved = (1 - own) * softmax(-outwards / _SOFTNESS, axis=0)
    moved[label] = own
    return torch.from_numpy(moved).float()


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """To the outline between pixels, in pixels, negative within."""
    if not mask.any() or mask.all():
        return np.full(mask.shape, -_FAR if mask.any() else _FAR)
    return distance_transform_edt(~mask) - distance_transform_edt(mask) + np.where(mask, 0.5, -0.5)


def find_lowest(energies: np.ndarray) -> float:
    """The shift of the lowest energy, by the parabola through it and its neighbours."""
    index = min(max(int(energies.argmin()), 1), len(SHIFTS) - 2)
    before, lowest, behind = energies[index - 1 : index + 2]
    return SHIFTS[index] + (SHIFTS[1] - SHIFTS[0]) / 2 * (before - behind) / (before - 2 * lowest + behind)


def read_slices(dense: Path, scribble: Path, configured: Any, classes: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Image (M, H, W), dense labels and strokes (H, W) of the slices that show every structure."""
    ours, strokes = open_cases(dense, configured), open_cases(scribble, configured)
    for case in sorted({*ours.identifiers} & {*strokes.identifiers}):
        image, labels = (np.asarray(array) for array in ours.load_case(case)[:2])
        drawn = np.asarray(strokes.load_case(case)[1])
        for index in range(image.shape[1]):
            if len(np.unique(labels[0, index].clip(min=0))) == classes:
                yield image[:, index], labels[0, index], drawn[0, index]


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dense")
    parser.add_argument("dataset")
    parser.add_argument("configuration", help="2D")
    parser.add_argument("--every", type=int, default=5, help="take every so many slices")
    arguments = parser.parse_args()
    dense, scribble = (dataset_folder("nnUNet_preprocessed", one) for one in (arguments.dense, arguments.dataset))
    configured, settings = read_configuration(scribble, arguments.configuration)
    names = {value: name for name, value in json.loads((dense / "dataset.json").read_text())["labels"].items()}
    radius = window_radius(settings.crf_radius, configured.spacing)
    crf = MaskedCRFLoss(radius, settings.crf_sigma_position, settings.crf_sigma_intensity, configured.spacing)
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    slices = list(read_slices(dense, scribble, configured, len(names)))[:: arguments.every]
    for image, labels, drawn in slices:
        scan, inside = torch.from_numpy(image)[None], torch.from_numpy(labels >= 0)[None, None]
        annotated = torch.from_numpy((drawn >= 0) & (drawn < len(names)))[None, None]
        scaled = {"range": rescale_intensities(scan, inside), "ranks": rank_intensities(scan, annotated, inside)}
        for label in range(1, len(names)):
            moved = [move_outline(labels.clip(min=0), len(names), label, shift)[None] for shift in SHIFTS]
            for kind, seen in scaled.items():
                energies = np.array([float(crf(one, seen, inside, inside)) for one in moved])
                found.setdefault((names[label], kind), []).append(energies / energies[SHIFTS.index(0)])
    print(f"{len(slices)} slices, sigma {settings.crf_sigma_intensity}\n")
    print(f"|structure|intensities|lowest at|{'|'.join(f'{shift:+g}' for shift in SHIFTS)}|")
    print(f"|---|---|---:|{'---:|' * len(SHIFTS)}")
    for (name, kind), energies in found.items():
        mean = np.mean(energies, axis=0)
        print(f"|{name}|{kind}|{find_lowest(mean):+.2f}|{'|'.join(f'{energy:.3f}' for energy in mean)}|")


if __name__ == "__main__":
    main()
