"""What unlabelled voxels do to nnU-Net's normalisation, and how to find out.

nnU-Net takes every label above 0 for foreground, `ignore` as well, which has the highest value and nearly all voxels:

- CT is clipped and scaled by the intensities of the foreground. With scribbles these are those of the whole image, air
  included, and soft tissue is left with hardly any contrast.
- Where cropping to the voxels that are not zero makes images a quarter smaller (a skull-stripped brain), nnU-Net takes
  mean and standard deviation of MR within the voxels that are not zero. In prediction it finds those voxels in the
  image, in training in the labels, where zeros around the object are -1 if they are background and inside if they are
  unlabelled: training and prediction see differently normalised images.

`attenscribble fingerprint`, before planning, prevents both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["FINGERPRINT", "MARK", "SMALLEST_WITHOUT_MASK", "normalisation_problems", "read_fingerprint"]

FINGERPRINT = "dataset_fingerprint.json"  # nnU-Net's name
MARK = "attenscribble"  # the key with what a fingerprint was made from
SMALLEST_WITHOUT_MASK = 0.75  # nnU-Net's planner: images that cropping makes smaller are normalised within a mask

_INTENSITIES = "foreground_intensity_properties_per_channel"


def read_fingerprint(folder: Path) -> dict[str, Any] | None:
    """The fingerprint in a dataset's preprocessed folder; None where there is none that can be read."""
    try:
        fingerprint = json.loads((folder / FINGERPRINT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return fingerprint if isinstance(fingerprint, dict) else None


def normalisation_problems(
    plans: Mapping[str, Any],
    configuration: Mapping[str, Any],
    fingerprint: Mapping[str, Any] | None,
    unlabelled_zeros: bool = True,
) -> list[str]:
    """What is wrong with the normalisation of a scribble dataset, a sentence each.

    Args:
        plans: content of the plans file.
        configuration: one of its configurations, with what it inherits.
        fingerprint: the dataset's own, see `read_fingerprint`. Plans that were moved from another dataset have other
            intensities than it; those of dense labels are right.
        unlabelled_zeros: False where it is known that zeros around the object are labelled, as background.
    """
    problems = []
    own = fingerprint is not None and fingerprint.get(_INTENSITIES) == plans.get(_INTENSITIES)
    marked = fingerprint is not None and MARK in fingerprint
    if own and not marked and "CTNormalization" in configuration.get("normalization_schemes", ()):
        problems.append(
            "CT is clipped and scaled by the intensities of unlabelled voxels, which nnU-Net takes for foreground: "
            "soft tissue is left with hardly any contrast"
        )
    if unlabelled_zeros and any(configuration.get("use_mask_for_norm", ())):
        problems.append(
            "images are normalised within their voxels that are not zero, which nnU-Net finds in prediction, but not "
            "in training where those around the object are unlabelled: predictions will be poor"
        )
    return problems
