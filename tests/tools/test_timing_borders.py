"""Where the CRF wants borders, on a made-up image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_attenscribble.losses import MaskedCRFLoss
from tools.timing.crf_borders import SHIFTS, find_lowest, move_outline


def make_square(size: int) -> np.ndarray:
    labels = np.zeros((24, 24), dtype=np.int64)
    labels[12 - size : 12 + size, 12 - size : 12 + size] = 1
    return labels


def test_an_outline_is_moved_by_whole_pixels():
    for shift in (-1, 0, 1):
        moved = move_outline(make_square(5), 2, 1, shift)
        torch.testing.assert_close(moved.sum(dim=0), torch.ones(24, 24))
        row = moved[1, 12] > 0.5
        assert row.tolist() == (make_square(5 + shift)[12] == 1).tolist()


def test_a_structure_of_the_whole_slice_and_one_of_none():
    moved = move_outline(np.ones((4, 4), dtype=np.int64), 3, 1, 0.5)
    assert (moved[1] > 0.999).all()
    assert moved.isfinite().all()


@pytest.mark.parametrize("edge", [-1, 0, 1])
def test_the_energy_is_lowest_where_the_intensities_change(edge):
    """A straight border; the image changes `edge` pixels beyond that of the label."""
    columns = np.tile(np.arange(40), (16, 1))
    image = torch.from_numpy(columns < 20 + edge).float()[None, None]
    moved = [move_outline((columns < 20).astype(np.int64), 2, 1, shift)[None] for shift in SHIFTS]
    energies = np.array([float(MaskedCRFLoss(2)(one, image, torch.ones_like(image))) for one in moved])
    assert find_lowest(energies) == pytest.approx(edge, abs=0.02)


def test_the_lowest_point_of_a_parabola():
    assert find_lowest(np.array([(shift - 0.3) ** 2 for shift in SHIFTS])) == pytest.approx(0.3)
