from __future__ import annotations

from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from nnunet_attenscribble.evaluation.report.pictures import Panel, choose_row, draw_case, find_largest_slice

STRUCTURES = {"RV": 1, "MYO": 2}
ORANGE, SKY = np.array((230, 159, 0)) / 255, np.array((86, 180, 233)) / 255


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    image = rng.normal(100, 5, (3, 20, 30)).astype(np.float32)
    labels = np.zeros(image.shape, np.uint8)
    labels[1, 5:15, 5:12], labels[1, 5:15, 15:25] = 1, 2
    return image, labels


def draw(file, image, panels, spacing=(10.0, 1.0, 1.0), position=1):
    draw_case(file, image, panels, spacing=spacing, structures=STRUCTURES, position=position, title="case")
    return matplotlib.image.imread(file)[..., :3]


def count(picture, colour):
    return int((np.abs(picture - colour).max(axis=-1) < 0.02).sum())


def grey_extent(picture):
    """Height and width of what the bare scan covers: neither white paper nor black letters, and without colour."""
    grey = (np.ptp(picture, axis=-1) < 0.02) & (picture[..., 0] < 0.98)
    rows, columns = np.flatnonzero(grey.mean(axis=1) > 0.3), np.flatnonzero(grey.mean(axis=0) > 0.3)
    return rows[-1] - rows[0], columns[-1] - columns[0]


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [
        (["dense", "scribble", "scribble", "lean", "dense"], 2),
        (["dense", "lean", "wide", "dense"], 2),
        (["dense", "dense"], 0),
    ],
)
def test_cases_are_those_of_the_last_row_on_scribbles(labels, chosen):
    rows = [SimpleNamespace(labels=each) for each in labels]
    assert choose_row(SimpleNamespace(scored=rows), None) is rows[chosen]


def test_names_with_dollars_are_no_formulas(tmp_path, case):
    image, labels = case
    file, name = tmp_path / "a.png", "p0$a_{$"
    draw_case(
        file, image, [Panel(name, labels)], spacing=(10, 1, 1), structures={name: 1}, position=1, title=name
    )  # fmt: skip
    assert file.is_file()


def test_a_row_has_room_for_every_panel(tmp_path, case):
    image, labels = case
    one = draw(tmp_path / "sub" / "one.png", image, [Panel("scan")])
    four = draw(tmp_path / "four.png", image, [Panel("scan"), *(Panel("x\ny", labels) for _ in range(3))])
    assert four.shape[1] == pytest.approx(4 * one.shape[1], abs=4)
    assert one.shape[1] > 200


@pytest.mark.parametrize(("spacing", "expected"), [((10, 1, 1), 20 / 30), ((10, 2, 1), 40 / 30), ((10, 1, 2), 20 / 60)])
def test_slices_keep_their_proportions_in_millimetres(tmp_path, case, spacing, expected):
    height, width = grey_extent(draw(tmp_path / "a.png", case[0], [Panel("scan")], spacing))
    assert height / width == pytest.approx(expected, rel=0.06)


def test_an_overlay_keeps_the_proportions_too(tmp_path, case):
    image, labels = case
    plain = draw(tmp_path / "a.png", image, [Panel("t")], (10, 2, 1))
    painted = draw(tmp_path / "b.png", image, [Panel("t", labels)], (10, 2, 1))
    assert plain.shape == painted.shape
    # Where nothing is labelled the two agree, so the overlay did not move or stretch the scan.
    assert (np.abs(plain - painted).max(axis=-1) < 0.02).mean() > 0.5


def test_strokes_are_opaque_and_the_unlabelled_rest_is_bare(tmp_path, case):
    image, labels = case
    scribble = np.full(labels.shape, 4, np.uint8)
    scribble[1, 8, 6:11], scribble[1, 8, 16:24] = 1, 2
    legend_only = draw(tmp_path / "a.png", image, [Panel("t", np.full_like(scribble, 4), unlabelled=4)])
    drawn = draw(tmp_path / "b.png", image, [Panel("t", scribble, unlabelled=4)])
    assert count(drawn, ORANGE) > count(legend_only, ORANGE) + 100
    assert count(drawn, SKY) > count(legend_only, SKY) + 100


def test_background_strokes_are_white(tmp_path, case):
    image, labels = case
    scribble = np.full(labels.shape, 4, np.uint8)
    bare = draw(tmp_path / "a.png", image, [Panel("t", scribble, unlabelled=4)])
    scribble[1, 2] = 0
    drawn = draw(tmp_path / "b.png", image, [Panel("t", scribble, unlabelled=4)])
    assert count(drawn, np.ones(3)) > count(bare, np.ones(3)) + 100


def test_only_the_chosen_slice_is_shown(tmp_path, case):
    image, labels = case
    elsewhere = draw(tmp_path / "a.png", image, [Panel("t", labels)], position=0)
    nothing = draw(tmp_path / "b.png", image, [Panel("t", np.zeros_like(labels))], position=0)
    np.testing.assert_array_equal(elsewhere, nothing)


@pytest.mark.parametrize("value", [0, 2], ids=["empty", "full"])
def test_uniform_predictions_and_scans_are_no_problem(tmp_path, case, value):
    image, labels = case
    picture = draw(tmp_path / "a.png", np.zeros_like(image), [Panel("t", np.full_like(labels, value))])
    assert picture.size


def test_labels_on_another_grid_are_refused(tmp_path, case):
    with pytest.raises(ValueError, match=r"'model' has labels of shape \(2, 20, 30\)"):
        draw(tmp_path / "a.png", case[0], [Panel("model", case[1][:2])])
    assert not list(tmp_path.iterdir())


def test_the_slice_with_most_foreground_is_found(case):
    labels = case[1].copy()
    assert find_largest_slice(labels) == 1
    labels[2] = 3
    assert find_largest_slice(labels) == 2
    assert find_largest_slice(np.zeros((5, 2, 2))) == 2
