from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict, fields

import pytest

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.settings import PAPER, AttenScribbleSettings, similarity_window, window_radius


def test_defaults_are_the_papers_numbers():
    settings = AttenScribbleSettings()
    assert (settings.crf_weight, settings.similarity_weight) == (0.1, 0.1)
    assert (settings.crf_radius, settings.crf_sigma_position, settings.crf_sigma_intensity) == (5, 6.0, 0.1)
    assert (settings.similarity_radius, settings.similarity_sigma_position) == (5, 6.0)
    assert settings.attention_stride == 4
    assert settings.padding == "balanced"


def test_the_papers_settings_undo_what_goes_beyond_it():
    settings = AttenScribbleSettings.from_mapping(PAPER)
    assert (settings.dice_weight, settings.warmup_epochs) == (0, 0)
    assert (settings.crf_intensities, settings.similarity_mode) == ("range", "paper")
    assert not settings.attention_gated
    assert all(getattr(AttenScribbleSettings(), name) != value for name, value in PAPER.items())


@pytest.mark.parametrize(
    ("value", "in_2d", "in_3d"), [("auto", True, False), ("ranks", True, True), ("range", False, False)]
)
def test_intensities_are_ranked_in_2d_or_as_told(value, in_2d, in_3d):
    settings = AttenScribbleSettings(crf_intensities=value)
    assert (settings.ranks_intensities(2), settings.ranks_intensities(3)) == (in_2d, in_3d)
    assert AttenScribbleSettings().crf_intensities == "auto"


def test_frozen():
    with pytest.raises(FrozenInstanceError):
        AttenScribbleSettings().crf_weight = 1.0


def test_survives_json():
    settings = AttenScribbleSettings(crf_radius=(1, 5, 5), num_epochs=7)
    restored = AttenScribbleSettings.from_mapping(json.loads(json.dumps(asdict(settings))))
    assert restored == settings


def test_from_configuration():
    assert AttenScribbleSettings.from_configuration({"patch_size": [8, 8]}) == AttenScribbleSettings()
    configuration = {"patch_size": [8, 8], "attenscribble": {"crf_weight": 0.5}}
    assert AttenScribbleSettings.from_configuration(configuration).crf_weight == 0.5
    with pytest.raises(AttenScribbleError, match="must hold an object"):
        AttenScribbleSettings.from_configuration({"patch_size": [8, 8], "attenscribble": 0.5})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("padding", "reflect"),
        ("similarity_mode", "other"),
        ("similarity_floor", 1),
        ("similarity_disagreement", True),
        ("crf_weight", -0.1),
        ("crf_weight", "0.1"),
        ("crf_weight", float("nan")),
        ("pair_weight", float("inf")),
        ("crf_sigma_position", 0),
        ("crf_sigma_intensity", True),
        ("crf_radius", -1),
        ("crf_radius", 2.5),
        ("similarity_radius", [1, -1]),
        ("similarity_radius", []),
        ("attention_stride", 0),
        ("attention_max_tokens", 1.5),
        ("class_weights", [1, 0.5]),
        ("class_weights", {"MYO": 0}),
        ("warmup_epochs", -1),
        ("num_epochs", 0),
        ("num_iterations_per_epoch", 2.5),
    ],
)
def test_refuses_with_the_fields_name_and_value(field, value):
    with pytest.raises(AttenScribbleError) as error:
        AttenScribbleSettings.from_mapping({field: value})
    assert field in str(error.value)
    assert "must be" in str(error.value)


def test_every_field_tells_what_it_may_hold_and_its_default_is_among_it():
    for field in fields(AttenScribbleSettings):
        allowed = field.metadata["allowed"]
        assert allowed.accept(field.default), field.name
        assert not allowed.accept(object()), field.name
    allowed = AttenScribbleSettings.__dataclass_fields__["crf_radius"].metadata["allowed"]
    assert [value for value in (0, (1, 5), (), (1, -1), (1.0,), True, [1, 5], None) if allowed.accept(value)] == [
        0,
        (1, 5),
    ]


def test_labels_are_weighed_by_their_names():
    labels = {"background": 0, "LV": 2, "MYO": 1, "ignore": 3}
    assert AttenScribbleSettings().weigh_labels(labels) is None
    assert AttenScribbleSettings(class_weights={"MYO": 0.25, "background": 2}).weigh_labels(labels) == [2, 0.25, 1]
    quoted = {"background": "0", "MYO": ["1"], "ignore": 2}  # as nnU-Net takes them
    assert AttenScribbleSettings(class_weights={"MYO": 0.25}).weigh_labels(quoted) == [1, 0.25]
    with pytest.raises(AttenScribbleError, match="for scribbles"):
        AttenScribbleSettings(class_weights={"MYO": 0.25}).weigh_labels({"background": 0, "MYO": 1})
    with pytest.raises(AttenScribbleError) as error:
        AttenScribbleSettings(class_weights={"myo": 0.25, "ignore": 2, "LV": 2}).weigh_labels(labels)
    assert [problem.split(";")[0] for problem in error.value.problems] == [
        "settings: class_weights names 'ignore'",
        "settings: class_weights names 'myo'",
    ]
    with pytest.raises(AttenScribbleError, match=r"labels of one value are background$"):
        AttenScribbleSettings(class_weights={"heart": 2}).weigh_labels({"background": 0, "heart": [1, 2], "ignore": 3})


@pytest.mark.parametrize("ignore", [2, 4, "3", [3], [3, 4], 3.0, 10**13])
def test_ignore_is_the_next_number_behind_the_labels(ignore):
    weighted = AttenScribbleSettings(class_weights={"MYO": 0.25, "heart": 2})
    with pytest.raises(AttenScribbleError) as error:
        weighted.weigh_labels({"background": 0, "MYO": 1, "LV": 2, "ignore": ignore})
    assert error.value.problems[0].startswith(f"dataset.json: `ignore` is {ignore!r}: number the labels")
    assert len(error.value.problems) == 2


def test_labels_with_a_gap_have_no_weights():
    with pytest.raises(AttenScribbleError, match="without a gap"):
        AttenScribbleSettings(class_weights={"MYO": 0.25}).weigh_labels({"MYO": 10**13, "ignore": 10**13 + 1})


def test_two_weights_of_one_value_are_refused():
    labels = {"background": 0, "all": [1, 2], "e": 2, "et": [2], "ignore": 3}
    with pytest.raises(AttenScribbleError, match="two weights of label 2: leave out 'et'"):
        AttenScribbleSettings(class_weights={"et": 4, "e": 0.25}).weigh_labels(labels)
    assert AttenScribbleSettings(class_weights={"et": 4, "e": 4}).weigh_labels(labels) == [1, 1, 4]


def test_no_weights_are_none():
    assert AttenScribbleSettings(class_weights={}) == AttenScribbleSettings()


def test_tells_all_problems_at_once():
    with pytest.raises(AttenScribbleError) as error:
        AttenScribbleSettings.from_mapping({"crf_wieght": 1, "padding": "x", "num_epochs": 0})
    assert len(error.value.problems) == 3
    assert "crf_wieght" in error.value.problems[0]


def test_a_radius_per_axis_needs_as_many_entries_as_the_patch_has_axes():
    wrong = {"crf_radius": [1, 2, 2], "similarity_radius": [1], "crf_weight": 1}
    with pytest.raises(AttenScribbleError) as error:
        AttenScribbleSettings.from_configuration({"patch_size": [8, 8], "attenscribble": wrong})
    assert [problem.split(" has ")[0] for problem in error.value.problems] == [
        "settings: crf_radius [1, 2, 2]",
        "settings: similarity_radius [1]",
    ]
    good = {"patch_size": [8, 8, 8], "attenscribble": {"crf_radius": [1, 2, 2]}}
    assert AttenScribbleSettings.from_configuration(good).crf_radius == (1, 2, 2)


def test_window_radius_reaches_equally_far_in_mm():
    assert window_radius(5, (1.5, 1.5)) == (5, 5)
    assert window_radius(5, (10.0, 1.5625, 1.5625)) == (0, 5, 5)
    assert window_radius(5, (2.5, 1.25, 1.25)) == (2, 5, 5)
    assert window_radius(3, (2.1, 0.7, 0.7)) == (1, 3, 3)  # 1 but for rounding
    assert window_radius((3, 1, 1), (10.0, 1.0, 1.0)) == (3, 1, 1)
    assert window_radius(0, (1.0, 1.0)) == (0, 0)


def test_slices_closer_than_pixels_take_nothing_from_the_window_in_the_plane():
    assert window_radius(5, (1.0, 2.0, 2.0)) == (5, 5, 5)
    assert window_radius(1, (0.5, 2.0, 2.1)) == (1, 1, 1)  # in the plane at least to the next neighbour
    # nnU-Net's grid of ACDC in 3D, where it stopped pooling across slices and went on in the plane
    assert similarity_window(AttenScribbleSettings(), (5.0, 1.484, 1.484), (4, 16, 16))[0] == (1, 1, 1)
    # 1.25 positions in the plane, 1.23 across: rounded once
    assert similarity_window(AttenScribbleSettings(), (1.6, 0.79, 0.79), (8, 16, 16))[0] == (1, 1, 1)
    radius = similarity_window(AttenScribbleSettings(similarity_radius=2), (1.0, 2.0, 2.0), (4, 4, 4))[0]
    assert radius == (2, 2, 2)  # hippocampus on a processor


@pytest.mark.parametrize(
    ("changes", "stride", "radius", "sigma"),
    [
        ({}, (4, 4), (5, 5), 6.0),
        ({}, (8, 8), (2, 2), 3.0),  # deeper than asked for: the same field
        ({}, (64, 64), (1, 1), 0.375),
        ({"attention_stride": 8}, (8, 8), (5, 5), 6.0),
        ({"attention_stride": 8}, (4, 4), (5, 5), 6.0),  # the deepest stage there is: nothing to shrink
        ({"similarity_radius": 0}, (8, 8), (0, 0), 3.0),
        ({"similarity_radius": (1, 4)}, (8, 8), (1, 4), 3.0),
    ],
)
def test_the_similarity_covers_the_same_field_wherever_the_block_sits(changes, stride, radius, sigma):
    found = similarity_window(AttenScribbleSettings(**changes), (1.5, 1.5), stride)
    assert found == (radius, pytest.approx(sigma), [1.5 * stride[0], 1.5 * stride[1]])


def test_the_similarity_of_volumes_reaches_as_far_in_mm_across_slices():
    radius, _, spacing = similarity_window(AttenScribbleSettings(), (5.0, 1.25, 1.25), (1, 4, 4))
    assert (radius, spacing) == ((5, 5, 5), [5.0, 5.0, 5.0])
    assert similarity_window(AttenScribbleSettings(), (10.0, 1.25, 1.25), (1, 4, 4))[0] == (2, 5, 5)


@pytest.mark.parametrize(
    ("values", "patch", "most"),
    [
        ({"crf_radius": 10000}, [48, 48], "23"),
        ({"crf_radius": 24}, [48, 64], "23"),
        ({"crf_radius": 23}, [48, 64], None),
        ({"crf_radius": 5}, [8, 8], None),  # the usual one fits any patch
        ({"crf_radius": 6}, [8, 8], "5"),
        ({"crf_radius": [1, 24, 5]}, [16, 48, 48], "[7, 23, 23]"),
        ({"crf_radius": [0, 23, 23]}, [16, 48, 48], None),
        ({"similarity_radius": 8}, [64, 64], "7"),  # of a grid of 16 positions
        ({"similarity_radius": 15, "attention_stride": 2}, [64, 64], None),
        ({"similarity_radius": [6, 5, 5]}, [20, 256, 224], None),  # the stride is that of the plane
        ({"similarity_radius": [10, 5, 5]}, [20, 256, 224], "[9, 31, 27]"),
        ({"attention_stride": 65}, [64, 80], "64"),
        ({"crf_radius": 10000}, None, None),  # of a configuration that does not say its patch
    ],
)
def test_what_no_patch_can_hold_is_refused_with_what_it_can(values, patch, most):
    configuration = {"attenscribble": values} | ({"patch_size": patch} if patch else {})
    if most is None:
        AttenScribbleSettings.from_configuration(configuration)
        return
    with pytest.raises(AttenScribbleError) as error:
        AttenScribbleSettings.from_configuration(configuration)
    (problem,) = error.value.problems
    assert problem.endswith(f"give {most} at most")


@pytest.mark.parametrize("value", [1e-200, 1e200, 10**400, 0])
def test_numbers_beyond_what_can_be_squared_are_refused(value):
    with pytest.raises(AttenScribbleError, match=r"from 0\.001 to 1000000"):
        AttenScribbleSettings.from_mapping({"crf_sigma_intensity": value})
