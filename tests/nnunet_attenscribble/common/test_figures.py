"""Colours as those see them who see fewer."""

from __future__ import annotations

import warnings
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from skimage.color import deltaE_ciede2000, rgb2lab

from nnunet_attenscribble.common import figures
from nnunet_attenscribble.common.figures import add_legend, draw_outline, find_box, new_figure, show_scan
from nnunet_attenscribble.evaluation.report import attention, training

# In linear RGB, for whoever lacks one kind of cone altogether: Machado, Oliveira, Fernandes, IEEE TVCG 2009, table 1.
SIGHT = {
    "all colours": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
SIGN_OF_STIX = (
    "\N{CIRCLED LATIN CAPITAL LETTER A}"  # matplotlib brings STIX along; DejaVu Sans, its own choice, lacks it
)
APART = 10  # in CIEDE2000; from about 2 on, two colours side by side are told apart


def see(colours, sight: str) -> np.ndarray:
    """Colours (n, 3) in CIELAB."""
    values = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.asarray(SIGHT[sight]).T, 0, 1)
    return rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)[None])[0]


def find_closest(colours, sight: str) -> float:
    return min(float(deltaE_ciede2000(one, other)) for one, other in combinations(see(colours, sight), 2))


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_are_told_apart(sight):
    rows = {figures.choose_look(position).colour for position in range(20)}
    assert find_closest([*rows, figures.choose_look(0, reference=True).colour], sight) > APART
    assert find_closest(figures._ON_SCANS, sight) > APART


def test_a_palette_of_red_and_green_would_be_noticed():
    palette = ["#d62728", "#7f7f00"]
    assert find_closest(palette, "all colours") > 4 * APART
    assert find_closest(palette, "deuteranopia") < APART


@pytest.mark.parametrize("sight", SIGHT)
def test_more_is_lighter_in_maps(sight):
    lightness = see(matplotlib.colormaps[attention._MAP](np.linspace(0, 1, 20))[:, :3], sight)[:, 0]
    assert (np.diff(lightness) > 1).all()


def test_no_two_rows_look_the_same():
    looks = [figures.choose_look(position) for position in range(60)]
    assert len(set(looks)) == 60
    assert figures.choose_look(0, reference=True) not in looks


def test_what_reaches_the_border_is_outlined_there_and_the_picture_keeps_its_limits():
    axes = new_figure(1.0).add_subplot()
    show_scan(axes, np.zeros((4, 6)), 2.0)
    shown = axes.axis()
    assert draw_outline(axes, np.zeros((4, 6), bool)) is None
    (whole,) = draw_outline(axes, np.ones((4, 6), bool), colors=["red"]).get_paths()
    assert whole.get_extents().bounds == (-0.5, -0.5, 6.0, 4.0)
    assert axes.axis() == shown == (-0.5, 5.5, 3.5, -0.5)


def test_box_around_what_is_drawn():
    mask = np.zeros((100, 50), bool)
    assert find_box(mask) == (slice(None), slice(None))
    mask[20:31, 3] = mask[25, 3:20] = True
    assert find_box(mask) == (slice(10, 41), slice(0, 30))
    assert find_box(mask, margin=0.2) == (slice(0, 51), slice(0, 40))


def test_twenty_classes_differ_from_each_other_strokes_of_background_and_grey():
    colours = [figures.choose_colour(position) for position in range(20)]
    assert colours[:7] == list(figures._ON_SCANS)
    assert find_closest([*colours, figures.BACKGROUND_COLOUR], "all colours") > 1.4 * APART
    assert (np.linalg.norm(see(colours, "all colours")[:, 1:], axis=1) > 2.5 * APART).all()


def test_forty_classes_differ_and_none_hides_in_dark_tissue():
    colours = [figures.choose_colour(position) for position in range(40)]
    assert find_closest([*colours, figures.BACKGROUND_COLOUR], "all colours") > 0.5 * APART
    assert see(colours, "all colours")[:, 0].min() > 25


def test_a_legend_fits_whatever_it_holds():
    figure = new_figure(1.0, width=2.4)
    names = [figures.wrap_name(name) for name in ("_u_", *(f"left atrial appendage {number}" for number in range(8)))]
    add_legend(figure, [Patch(label=name) for name in names])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    figures.encode_png(figure)
    box = legend.get_window_extent()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.height < figure.bbox.height - 100


def test_signs_of_another_font_are_drawn_and_the_settings_of_matplotlib_stay():
    before = dict(matplotlib.rcParams)
    figure = new_figure(1.0)
    figure.suptitle(figures.escape_name(f"left {SIGN_OF_STIX}$1"))
    add_legend(figure, [Patch(label=figures.wrap_name(name)) for name in (SIGN_OF_STIX, "plain")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a sign that the font lacks
        figures.encode_png(figure)
    sign, plain = (text.get_fontfamily() for text in figure.legends[0].get_texts())
    assert plain == before["font.family"]
    assert sign[:-1] == plain
    assert dict(matplotlib.rcParams) == before


def test_curves_of_many_epochs_have_markers_that_differ():
    axes = new_figure(2.0).add_subplot()
    names = [f"{'_' * (position == 6)}structure {position}" for position in range(12)]
    training._draw_curves(axes, {name: [(np.arange(100), np.arange(100))] * 2 for name in names})
    looks = [(line.get_color(), line.get_marker()) for line in axes.lines[::2]]
    assert len(set(looks)) == len(axes.lines) / 2 == 12
    assert "None" not in {marker for _, marker in looks}
    assert all(len(range(*line.get_markevery()[:1], 100, line.get_markevery()[1])) <= 12 for line in axes.lines)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(map(figures.wrap_name, names))
