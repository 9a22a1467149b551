from __future__ import annotations

import matplotlib
import pytest
import seaborn
from PIL import Image

from nnunet_attenscribble.objective import append_epoch, plot_epochs
from tests.evaluation.collected_folder import read_csv


def test_a_line_per_epoch(tmp_path):
    file = tmp_path / "terms.csv"
    append_epoch(file, 0, {"a": 1.25})
    append_epoch(file, 1, {"a": 0.5, "b": float("nan")})
    assert read_csv(file) == [{"epoch": "0", "a": "1.25", "b": ""}, {"epoch": "1", "a": "0.5", "b": "nan"}]


def test_a_resumed_run_replaces_what_it_repeats(tmp_path):
    file = tmp_path / "terms.csv"
    for epoch in range(4):
        append_epoch(file, epoch, {"a": epoch})
    append_epoch(file, 2, {"a": 20})
    assert [(row["epoch"], row["a"]) for row in read_csv(file)] == [("0", "0"), ("1", "1"), ("2", "20")]


def test_picture_with_gaps_and_undefined_values(tmp_path):
    file = tmp_path / "terms.csv"
    append_epoch(file, 0, {"a": 1.0})
    append_epoch(file, 1, {"a": 2.0, "b": float("nan"), "c": 3.0})
    plot_epochs(file, tmp_path / "terms.png")
    before = (tmp_path / "terms.png").read_bytes()
    assert before.startswith(b"\x89PNG")
    with matplotlib.rc_context():
        seaborn.set_theme(font_scale=2.5)  # as nnU-Net's progress.png
        plot_epochs(file, tmp_path / "terms.png")
        assert matplotlib.rcParams["font.size"] > 20
    assert (tmp_path / "terms.png").read_bytes() == before


@pytest.mark.parametrize("classes", [3, 100])
def test_the_shares_of_all_labels_lie_in_one_panel(tmp_path, classes):
    file = tmp_path / "terms.csv"
    for epoch in range(3):
        shares = {f"annotated_{label}": label * 1e-4 for label in range(classes)}
        append_epoch(file, epoch, {"a": 1.0, "b": 2.0, "c": 3.0, **shares})
    plot_epochs(file, tmp_path / "terms.png")
    assert Image.open(tmp_path / "terms.png").size == (1080, 384)  # two rows of two
