"""What a step of each trainer costs by that of stock nnU-Net: medians of ratios within a round."""

from __future__ import annotations

import itertools

from tools.timing import steps


def test_a_ratio_is_the_median_over_rounds_so_that_a_slow_round_weighs_on_all_alike(monkeypatch):
    now = [0.0]
    # The first call warms up; then stock takes 2, 3 and 4 s, the other 3, 4 and 5.
    seconds = {steps.STOCK: itertools.count(1), "nnUNetTrainerSlow": itertools.count(2)}

    def step(trainer):
        def run():
            now[0] += next(seconds[trainer])

        return run

    monkeypatch.setattr(steps.time, "process_time", lambda: now[0])
    ratios = steps.measure({trainer: step(trainer) for trainer in seconds}, rounds=3)
    assert ratios == {steps.STOCK: 1.0, "nnUNetTrainerSlow": 4 / 3}
