import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from nnunet_attenscribble.common.volumes import slice_axis
from nnunet_attenscribble.dataset_conversion.inspection import ClassCoverage, measure_coverage, sum_coverage
from nnunet_attenscribble.dataset_conversion.scribbles import (
    STYLES,
    ScribbleRules,
    choose_axis,
    draw_scribbles,
    read_scribblebench,
)
from nnunet_attenscribble.errors import AttenScribbleError

IGNORE = 4
CONFIGURATION = """
filter: {min_area: 0}
foreground: &same
  scribbles:
    nurbs: {num_scribbles: 1, params: {num_control_points: 5, curve_delta: 0.001}}
    contour: {num_scribbles: 1, params: {disk_size_range: [2, 5], scribble_length_range: [0.07, 0.15]}}
  num_slice_range: 0.5
  class_probabilities: 1
background: *same
generation_properties: {scribble_thickness: 3}
"""


def random_labels(seed, shape=(4, 22, 26)):
    """Up to three classes in pieces of any size, some slices empty."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    grid = np.indices(shape[-2:])
    for section in labels if len(shape) == 3 else [labels]:
        for _ in range(rng.integers(0, 5)):
            centre = [rng.uniform(0, n) for n in shape[-2:]]
            distance = np.hypot(grid[0] - centre[0], grid[1] - centre[1])
            section[distance < rng.uniform(0.5, 8)] = rng.integers(1, IGNORE)
    return labels


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(STYLES), st.sampled_from([(4, 22, 26), (22, 26)]), st.booleans())
def test_no_pixel_lies_outside_its_class_and_every_piece_has_one(seed, style, shape, splines):
    labels = random_labels(seed, shape)
    rules = ScribbleRules(style=style, seed=seed, spline_points=4 if splines else None)
    scribble = draw_scribbles(labels, (5.0, 1.0, 1.0)[-len(shape) :], rules, IGNORE, "case")
    assert scribble.shape == labels.shape
    assert scribble.dtype == np.uint8
    drawn = scribble != IGNORE
    assert np.array_equal(scribble[drawn], labels[drawn])
    values = np.unique(labels).tolist()
    for value, found in zip(values, measure_coverage(scribble, labels, values), strict=True):
        assert found.wrong == 0
        assert found.slices_without == 0
        if value > 0 or splines:
            assert found.pieces_without == 0


def test_the_same_case_and_seed_give_the_same_strokes():
    labels = random_labels(3)

    def draw(case="case", **options):
        return draw_scribbles(labels, (5, 1, 1), ScribbleRules(**options), IGNORE, case)

    assert np.array_equal(draw(), draw())
    assert not np.array_equal(draw(), draw("another"))
    assert not np.array_equal(draw(), draw(seed=1))


def test_a_class_is_drawn_the_same_whatever_else_is_drawn():
    labels = random_labels(5)
    whole = draw_scribbles(labels, (5, 1, 1), ScribbleRules(), IGNORE, "case")
    fewer = draw_scribbles(labels, (5, 1, 1), ScribbleRules(classes=0.5, slices=0.5), IGNORE, "case")
    drawn = fewer != IGNORE
    assert drawn.any()
    assert np.array_equal(fewer[drawn], whole[drawn])


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from(["slices", "strokes"]), st.sampled_from(STYLES))
def test_a_smaller_share_is_a_part_of_a_larger_one(seed, what, style):
    labels = random_labels(seed, (10, 22, 26))
    shares = (1.0, 0.5, 0.25, 0.1)
    whole, *fewer = (
        draw_scribbles(labels, (5, 1, 1), ScribbleRules(style=style, seed=seed, **{what: share}), IGNORE, "case")
        for share in shares
    )
    for less, more in zip(fewer, [whole, *fewer], strict=False):
        drawn = less != IGNORE
        assert drawn.sum() <= (more != IGNORE).sum()
        assert np.array_equal(less[drawn], more[drawn])
        if what == "strokes":  # every class keeps a stroke
            assert set(np.unique(less)) == set(np.unique(whole))


def test_a_share_of_strokes_is_a_share_of_every_class():
    labels = np.zeros((6, 40, 40), np.uint8)
    for row, column in np.ndindex(2, 2):  # four pieces of a class in each of six slices
        labels[:, 5 + 20 * row : 13 + 20 * row, 5 + 20 * column : 13 + 20 * column] = 1
    labels[0, 18:22, 18:22] = 2  # a single one
    for share, pieces, background in ((1.0, 24, 6), (0.5, 12, 3), (0.25, 6, 2), (0.1, 2, 1), (0.001, 1, 1)):
        scribble = draw_scribbles(labels, (5, 1, 1), ScribbleRules(strokes=share), IGNORE, "case")
        found, single = measure_coverage(scribble, labels, (1, 2))
        assert found.pieces - found.pieces_without == pieces
        assert single.pieces_without == 0
        assert (scribble == 0).any(axis=(1, 2)).sum() == background


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 9), st.sampled_from([None, 0, 1, 2]))
def test_every_nth_slice_is_labelled_as_a_whole(seed, step, axis):
    labels = random_labels(seed, (12, 10, 11))
    labels[: seed % 11] = 0
    scribble = draw_scribbles(labels, (5, 1, 1), ScribbleRules(dense_slices=step, axis=axis, seed=seed), IGNORE, "case")
    sections, drawn = (np.moveaxis(array, axis or 0, 0) for array in (labels, scribble))
    positions = np.flatnonzero((drawn != IGNORE).any(axis=(1, 2)))
    assert positions.tolist() == list(range(positions[0], len(sections), step))
    assert positions[0] < step
    assert np.array_equal(drawn[positions], sections[positions])
    if labels.any():
        assert (drawn[positions] > 0).any()
    again = draw_scribbles(labels, (5, 1, 1), ScribbleRules(dense_slices=step, axis=axis, seed=seed), IGNORE, "case")
    assert np.array_equal(again, scribble)


def test_the_first_dense_slice_differs_from_case_to_case():
    labels = np.ones((20, 4, 4), np.uint8)
    firsts = {
        int(
            (draw_scribbles(labels, (5, 1, 1), ScribbleRules(dense_slices=4), IGNORE, f"{case}") == 1).argmax(axis=0)[
                0, 0
            ]
        )
        for case in range(40)
    }
    assert firsts == {0, 1, 2, 3}


def test_an_object_takes_the_time_of_its_box(monkeypatch):
    labels = np.zeros((1, 400, 400), np.uint8)
    labels[0, 10:20, 10:20], labels[0, 300:312, 200:206], labels[0, 396:, 390:] = 1, 1, 2
    sizes = []

    def stroke_inside(rng, mask, *rest):
        sizes.append(mask.shape)
        return mask

    monkeypatch.setattr("nnunet_attenscribble.dataset_conversion.scribbles.stroke_inside", stroke_inside)
    drawn = draw_scribbles(labels, (5, 1, 1), ScribbleRules(), IGNORE, "case")
    assert sizes == [(18, 18), (20, 14), (8, 14)]  # four pixels around each, as far as there are any
    assert np.array_equal(np.where(labels > 0, labels, drawn), drawn)


def _disk_and_distance(size=160, radius=25):
    """(1, Y, X) labels of a disk, its width in the sense of the rules, and every pixel's distance to it."""
    away = np.hypot(*(np.indices((size, size)) - (size - 1) / 2)) - radius
    return (away <= 0)[None].astype(np.uint8), np.sqrt((away <= 0).sum()), away


@pytest.mark.parametrize(
    ("what", "few", "many"),
    [
        ("interior", {"coverage": 0.02, "thickness": 3.0}, {"coverage": 0.08, "thickness": 3.0}),
        ("border", {"border_share": (0.1, 0.1)}, {"border_share": (0.4, 0.4)}),
    ],
)
def test_strokes_are_as_long_as_asked(what, few, many):
    for value in (0, 1) if what == "border" else (1,):
        less, more = (np.mean([drawn[value].sum() for drawn in _draw_disk(what, **rules)]) for rules in (few, many))
        assert 2.5 * less < more < 5 * less


@pytest.mark.parametrize("what", ["interior", "border"])
def test_strokes_are_as_thick_as_asked(what):
    for thickness in (2.0, 8.0):
        drawn = [stroke for both in _draw_disk(what, thickness=thickness, coverage=0.3) for stroke in both]
        assert np.median([distance_transform_edt(stroke).max() for stroke in drawn]) == pytest.approx(
            thickness / 2, abs=1
        )


@pytest.mark.parametrize("depth", [1.0, 6.0])
def test_border_strokes_lie_as_deep_as_asked(depth):
    _, _, away = _disk_and_distance()
    for outside, inside in _draw_disk("border", border_depth=(depth, depth), background_distance=(0.8, 0.8)):
        for distances in (away[outside], -away[inside]):
            assert depth - 1.5 < distances.min()
            assert distances.max() < depth + 1.25 + 1.5


def _draw_disk(what, **options):
    """Background and disk, as drawn with some seeds: strokes of the interior, or those along borders alone."""
    labels, _, _ = _disk_and_distance()
    for seed in range(4):
        inner, both = (
            draw_scribbles(labels, (5, 1, 1), ScribbleRules(style=style, seed=seed, **options), IGNORE, "c")[0]
            for style in ("interior", "interior+border")
        )
        drawn = inner if what == "interior" else np.where(inner == IGNORE, both, IGNORE)
        yield drawn == 0, drawn == 1


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.1), (0.3, 0.6)])
def test_without_wandering_the_background_stroke_keeps_its_distance(low, high):
    labels, width, away = _disk_and_distance()
    for seed in range(5):
        rules = ScribbleRules(background_distance=(low, high), background_wander=0, seed=seed)
        distances = away[draw_scribbles(labels, (5, 1, 1), rules, IGNORE, "c")[0] == 0]
        assert low * width - 2 < distances.min()
        assert distances.max() < high * width + 2
        assert np.ptp(distances) < 4  # the hand, and the stroke's own width


def test_a_wandering_background_stroke_comes_nearer_and_goes_farther():
    labels, width, away = _disk_and_distance()
    logs = []
    for seed in range(20):
        rules = ScribbleRules(background_distance=(0.3, 0.3), background_wander=0.4, seed=seed)
        distances = away[draw_scribbles(labels, (5, 1, 1), rules, IGNORE, "c")[0] == 0]
        assert distances.min() > 0
        logs.append(np.log(distances / (0.3 * width)))
    spread = np.concatenate(logs)
    assert abs(np.median(spread)) < 0.2
    assert 0.25 < spread.std() < 0.55


@pytest.mark.parametrize("style", STYLES)
def test_every_object_of_a_slice_has_background_beside_it(style):
    rows, columns = np.indices((120, 200))
    discs = [np.hypot(rows - 60, columns - centre) < radius for centre, radius in ((50, 24), (150, 14))]
    labels = np.where(discs[0], 1, np.where(discs[1], 2, 0)).astype(np.uint8)
    for seed in range(6):
        drawn = draw_scribbles(labels, (1.0, 1.0), ScribbleRules(style=style, seed=seed), IGNORE, "case") == 0
        for disc in discs:
            near = np.hypot(*(axis[disc].mean() - axis for axis in (rows, columns))) < 60
            assert (drawn & near).any(), seed


def test_shares_of_slices_and_classes():
    labels = np.zeros((10, 20, 20), np.uint8)
    labels[2:8, 5:15, 5:10], labels[2:8, 5:15, 10:15] = 1, 2
    scribble = draw_scribbles(labels, (5, 1, 1), ScribbleRules(slices=0.5), IGNORE, "case")
    annotated = (scribble != IGNORE).any(axis=(1, 2))
    assert annotated[2:8].sum() == 3  # of the six with foreground
    assert annotated.sum() == 5  # and of the four without
    one = draw_scribbles(labels, (5, 1, 1), ScribbleRules(classes=0.34), IGNORE, "case")
    assert all(len(set(np.unique(section)) - {IGNORE}) == 1 for section in one)


def test_one_component_in_place_of_all():
    labels = np.zeros((1, 30, 60), np.uint8)
    labels[0, 5:25, 3:23], labels[0, 10:14, 40:44] = 1, 1
    (many,) = measure_coverage(draw_scribbles(labels, (5, 1, 1), ScribbleRules(), IGNORE, "c"), labels, (1,))
    assert (many.pieces, many.pieces_without) == (2, 0)
    drawn = []
    for seed in range(40):
        rules = ScribbleRules(all_components=False, seed=seed)
        scribble = draw_scribbles(labels, (5, 1, 1), rules, IGNORE, "c")
        assert measure_coverage(scribble, labels, (1,))[0].pieces_without == 1
        drawn.append((scribble[0, :, :30] == 1).any())
    assert 34 <= sum(drawn) < 41  # by area: 400 of 416


@pytest.mark.parametrize(("axis", "expected"), [(None, 1), (0, 0), (2, 2)])
def test_slices_are_cut_across_the_coarsest_axis_or_the_one_asked_for(axis, expected):
    rules = ScribbleRules(axis=axis, style="points")
    spacing = (1.0, 6.0, 1.0)
    labels = np.zeros((12, 8, 14), np.uint8)
    assert choose_axis(labels.shape, spacing, rules) == expected
    labels[3:9, 1:7, 3:11] = 1
    scribble = np.moveaxis(draw_scribbles(labels, spacing, rules, IGNORE, "case"), expected, 0)
    sections = np.moveaxis(labels, expected, 0)
    counts = [(section == 1).sum() for section in scribble]
    assert counts == [int((section == 1).any()) for section in sections]


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((1, 64, 64), (1.0, 1.4, 1.4), 0),  # a 2D scan saved as a volume, whose third spacing is a placeholder
        ((64, 64, 1), (1.4, 1.4, 1.0), 2),
        ((12, 64, 64), (8.0, 1.4, 1.4), 0),
        ((64, 12, 64), (1.4, 8.0, 1.4), 1),
        ((9, 9, 9), (1.0, 1.0, 1.0), 0),
        ((9, 9, 9), (0.6999999881, 0.7000000477, 0.6999999881), 0),  # equal but for rounding
        ((1, 1, 64), (1.0, 2.0, 1.4), 1),  # a line of voxels: the length tells nothing
    ],
)
def test_an_axis_of_one_voxel_is_the_slice_axis(shape, spacing, expected):
    assert slice_axis(shape, spacing) == expected
    # What was drawn on across another axis says more than spacings, and no more than a single slice.
    assert slice_axis(shape, spacing, drawn=2) == (expected if shape.count(1) == 1 else 2)


def test_a_single_slice_is_drawn_as_a_whole():
    labels = np.zeros((1, 30, 30), np.uint8)
    labels[0, 5:25, 5:25] = 1
    drawn = draw_scribbles(labels, (1.0, 1.4, 1.4), ScribbleRules(), IGNORE, "case")
    assert np.array_equal(drawn, draw_scribbles(labels, (9.0, 1.4, 1.4), ScribbleRules(), IGNORE, "case"))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("splines", [None, 4])
def test_slices_of_one_pixel_across_get_their_strokes(style, splines):
    labels = np.zeros((1, 12, 9), np.uint8)
    labels[0, 3:9, 2:6] = 1
    rules = ScribbleRules(style=style, axis=1, spline_points=splines)
    scribble = draw_scribbles(labels, (1.0, 1.4, 1.4), rules, IGNORE, "case")
    for found in measure_coverage(scribble, labels, (0, 1), axis=1):
        assert (found.wrong, found.slices_without) == (0, 0)


def test_coverage_by_hand():
    dense = np.zeros((2, 4, 6), np.uint8)
    dense[0, 0, 0], dense[0, 2:4, 3:5], dense[1, 1, 1] = 1, 1, 1
    scribble = np.full(dense.shape, IGNORE, np.uint8)
    scribble[0, 2, 3], scribble[1, 0, 0] = 1, 1  # the second lies in the background
    found, nowhere = measure_coverage(scribble, dense, (1, 5))
    assert found == ClassCoverage(2, 1, 6, 2, 1, 3, 2)
    assert nowhere == ClassCoverage()
    assert sum_coverage([found, found]) == ClassCoverage(4, 2, 12, 4, 2, 6, 4)


def test_rules_are_refused_all_at_once():
    with pytest.raises(AttenScribbleError) as caught:
        ScribbleRules(style="x", thickness=0, coverage=0, slices=1.1, border_share=(0.2, 0.1), axis=3, seed=-1)
    assert len(caught.value.problems) == 7
    with pytest.raises(AttenScribbleError) as caught:
        ScribbleRules(dense_slices=1, coverage=0.2, style="points", seed=3, axis=1)
    assert caught.value.problems == [
        "dense_slices is 1: give 2 at least, every second slice",
        "dense_slices labels slices as a whole: leave out style, coverage",
    ]


def test_scribblebench(tmp_path):
    file = tmp_path / "scribble_conf.yml"
    file.write_text(CONFIGURATION)
    rules = read_scribblebench(file, seed=3)
    expected = ScribbleRules(
        style="interior+border", thickness=3.0, slices=0.5, all_components=False, spline_points=5,
        border_depth=(2.0, 5.0), border_share=(0.07, 0.15), seed=3,
    )  # fmt: skip
    assert rules == expected
    file.write_text(CONFIGURATION.replace("    contour:", "    contours:").replace("0.5", "[0.1, 0.5]") + "more: 1\n")
    with pytest.raises(AttenScribbleError) as caught:
        read_scribblebench(file)
    for word in ("unknown key 'more'", "must be one number", "unknown key 'foreground.scribbles.contours'"):
        assert word in str(caught.value)
    for part, changed, word in (
        ("{min_area: 0}", "3", "'filter' is 3"),
        ("{min_area: 0}", "{min_area: 9}", "'filter.min_area' is 9"),
        ("num_slice_range: 0.5", "num_slice_range: abc", "'foreground.num_slice_range' is 'abc'"),
        ("[0.07, 0.15]", "0.1", "contour.params.scribble_length_range' is 0.1"),
        ("num_control_points: 5", "num_control_points: many", "params.num_control_points' is 'many'"),
        ("{scribble_thickness: 3}", "{scribble_thickness: thin}", "scribble_thickness' is 'thin'"),
        ("background: *same", "background: {}", "foreground and background differ"),
        ("    nurbs:", "    contour_:", "needs 'foreground.scribbles.nurbs'"),
        ("disk_size_range: [2, 5]", "disk_size_range: [2, .inf]", "border_depth is (2.0, inf)"),
        ("num_slice_range: 0.5", "num_slice_range: 2", "slices is 2.0"),
    ):
        file.write_text(CONFIGURATION.replace(part, changed))
        with pytest.raises(AttenScribbleError) as caught:
            read_scribblebench(file)
        assert all(problem.startswith(f"{file}: ") for problem in caught.value.problems)
        assert word in str(caught.value)
    file.write_text(CONFIGURATION.replace("{min_area: 0}", ""))  # no filter
    assert read_scribblebench(file, seed=3) == expected
    file.write_text("[")
    with pytest.raises(AttenScribbleError, match="cannot be read as YAML"):
        read_scribblebench(file)
