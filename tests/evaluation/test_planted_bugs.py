"""Bugs that metric code has had elsewhere, planted one by one: the tables computed by hand must notice each."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from nnunet_attenscribble.evaluation import metrics, scoring
from nnunet_attenscribble.evaluation.metrics import aggregate_scores, compute_scores
from nnunet_attenscribble.evaluation.protocols import get_protocol
from nnunet_attenscribble.evaluation.scoring import CasePair, score_case
from nnunet_attenscribble.evaluation.structures import LabelCoding, Structure

RV = Structure("RV", (1,))
CODING = LabelCoding((RV,), frozenset({0, 1}), None, ".nii.gz")
# x, y, z of a voxel as a file says it: no two are alike, so that every confusion of axes moves a number.
SPACING = (1.0, 2.0, 10.0)
SHAPE = (6, 8, 8)  # z, y, x

# A block of 2 x 2 x 2 voxels, all of them surface, and where it was predicted; by hand:
# case: (moved along z, y, x), Dice, IoU, HD95, ASSD (mm)
BLOCK = (slice(1, 3), slice(1, 3), slice(1, 3))
TABLE = {
    "same": ((0, 0, 0), 1.0, 1.0, 0.0, 0.0),
    "x by 1": ((0, 0, 1), 0.5, 1 / 3, 1.0, 0.5),  # of either block half lies on the other, half 1 mm beside it
    "y by 1": ((0, 1, 0), 0.5, 1 / 3, 2.0, 1.0),
    "z by 1": ((1, 0, 0), 0.5, 1 / 3, 10.0, 5.0),
    "x by 3": ((0, 0, 3), 0.0, 0.0, 3.0, 2.5),
    "y by 3": ((0, 3, 0), 0.0, 0.0, 6.0, 5.0),
    "z by 3": ((3, 0, 0), 0.0, 0.0, 30.0, 25.0),
    "y and x": ((0, 3, 3), 0.0, 0.0, math.hypot(6, 3), None),
    "missed": (None, 0.0, 0.0, math.inf, math.inf),
}


def make_block(moved) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    if moved is not None:
        labels[tuple(slice(at.start + step, at.stop + step) for at, step in zip(BLOCK, moved, strict=True))] = 1
    return labels


def check_table(folder, write_labels) -> None:
    """Score every case of the table, from files, and compare with what was computed by hand."""
    write_labels(folder / "dense.nii.gz", make_block((0, 0, 0)), SPACING)
    cases = {}
    for number, (name, (moved, *expected)) in enumerate(TABLE.items()):
        file = folder / f"{number}.nii.gz"
        write_labels(file, make_block(moved), SPACING)
        result = score_case(CasePair(name, file, folder / "dense.nii.gz"), CODING, get_protocol("default"))
        cases[name] = result.scores[name]
        found = cases[name]["RV"]
        values = (found.dice, found.iou, found.hd95_mm, found.assd_mm)
        for value, wanted in zip(values, expected, strict=True):
            assert wanted is None or value == pytest.approx(wanted, abs=1e-5), name
    lost = cases["missed"]["RV"]
    assert lost.volume_difference_ml == pytest.approx(-8 * 20 / 1000)  # 8 voxels of 1 x 2 x 10 mm
    empty = np.zeros((2, 3, 4), bool)
    absent = compute_scores(empty, empty, SPACING[::-1])
    assert math.isnan(absent.dice)
    assert math.isnan(absent.hd95_mm)
    assert math.isnan(absent.assd_mm)
    # The mean distance is over what was found, and what was missed is counted beside it; absent organs are in no mean.
    total = aggregate_scores({**cases, "absent": {"RV": absent}}, ["RV"])
    distances = [entry[3] for entry in TABLE.values() if math.isfinite(entry[3])]
    assert total["structures"]["RV"]["hd95_mm"]["mean"] == pytest.approx(np.mean(distances), abs=1e-5)
    assert total["structures"]["RV"]["hd95_mm"]["infinite"] == 1
    assert (total["structures"]["RV"]["missed"], total["structures"]["RV"]["absent"]) == (1, 1)
    assert total["structures"]["RV"]["dice"]["mean"] == pytest.approx(np.mean([entry[1] for entry in TABLE.values()]))


def test_the_tables_are_right(tmp_path, write_labels):
    check_table(tmp_path, write_labels)


# --- the bugs: each is called with the function in whose place it stands, and the arguments of that ---


def ignore_spacing(right, one, other, _):
    return right(one, other, (1.0,) * one.ndim)


def swap_axes_of_the_spacing(right, file, reader):
    """SimpleITK gives x, y, z, the array has z, y, x, and nobody turns the one round."""
    image = right(file, reader)
    return replace(image, spacing=image.spacing[::-1])


def swap_axes_in_the_plane(right, one, other, step):
    return right(one, other, (step[0], step[2], step[1]))


def take_empty_for_perfect(right, distances, *, definition):
    """As scripts do whose metric library fails on an empty mask: HD95 of a missed organ is 0."""
    return right(distances, definition=definition) if all(map(len, distances)) else 0.0


def take_absent_for_perfect(right, one, other):
    return right(one, other) if one.any() or other.any() else 1.0


def smooth_dice(_, one, other):
    """With a constant added above and below, as losses do, a missed organ of eight voxels has a Dice of 0.11."""
    return float((2 * (one & other).sum() + 1) / (one.sum() + other.sum() + 1))


def add_both_ways_up(right, distances, *, definition):
    """The sum of the two directed means in place of the mean of all distances."""
    return sum(map(np.mean, distances)) if all(map(len, distances)) else right(distances, definition=definition)


def take_the_median_for_the_percentile(right, distances, *, definition):
    found = all(map(len, distances))
    return float(np.median(np.concatenate(distances))) if found else right(distances, definition=definition)


def drop_missed_organs_from_the_mean(right, values):
    """MONAI's own mean, in which one miss and one perfect case have a mean distance of 0 and nobody is told."""
    return right(np.where(np.isinf(values), np.nan, values))


def count_voxels_for_millilitres(_, mask, spacing):
    return float(mask.sum()) / 1000


@pytest.mark.parametrize(
    ("bug", "module", "name"),
    [
        (ignore_spacing, metrics, "compute_surface_distances"),
        (swap_axes_of_the_spacing, scoring, "read_label_image"),
        (swap_axes_in_the_plane, metrics, "compute_surface_distances"),
        (take_empty_for_perfect, metrics, "compute_hd95"),
        (take_empty_for_perfect, metrics, "compute_assd"),
        (take_absent_for_perfect, metrics, "compute_dice"),
        (smooth_dice, metrics, "compute_dice"),
        (add_both_ways_up, metrics, "compute_assd"),
        (take_the_median_for_the_percentile, metrics, "compute_hd95"),
        (drop_missed_organs_from_the_mean, metrics, "summarise_values"),
        (count_voxels_for_millilitres, metrics, "compute_volume_ml"),
    ],
)
def test_a_planted_bug_is_found(tmp_path, write_labels, monkeypatch, bug, module, name):
    monkeypatch.setattr(module, name, partial(bug, getattr(module, name)))
    with pytest.raises(AssertionError):
        check_table(tmp_path, write_labels)
