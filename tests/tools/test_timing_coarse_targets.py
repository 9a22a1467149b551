"""What coarse targets say of borders, on made-up labels."""

from __future__ import annotations

import numpy as np

from tools.timing.coarse_targets import measure_areas


def test_a_cell_counts_as_far_as_its_label_is_right():
    dense = np.zeros((4, 8), dtype=np.int16)
    dense[:, 3:5] = 1  # a wall two pixels wide, in two cells of four
    strokes = np.full_like(dense, 2)
    strokes[1, 3], strokes[1, 0], strokes[2, 7] = 1, 0, 0
    areas = measure_areas(strokes, dense, [[1, 1], [0.5, 0.5], [0.25, 0.25]], classes=2)
    assert areas[0].tolist() == [[2, 0], [0, 1]]  # pixels: what is drawn is right
    assert areas[1].tolist() == [[2, 0], [0.5, 0.5]]  # the cell of columns 2 and 3
    # Left, of background and wall as much: the higher label, and only a quarter is wall. Right, background.
    assert areas[2].tolist() == [[0.75, 0.25], [0.75, 0.25]]
