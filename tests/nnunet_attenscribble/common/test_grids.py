"""Grids that coincide up to the order of their axes, and grids that do not."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_attenscribble.common.grids import (
    Grid,
    flatten_onto,
    geometry_problems,
    is_turned,
    place_on,
    turn_onto,
    turn_upright,
)
from nnunet_attenscribble.common.volumes import read_volume
from tests.tiny import DIRECTION, make_volume

IDENTITY = (1.0, 0, 0, 0, 1, 0, 0, 0, 1)
SHEARED = (1.0, 0.3, 0, 0, 0.91**0.5, 0, 0, 0, 1)
ORDERS = [(order, flips) for order in permutations(range(3)) for flips in product((False, True), repeat=3)]


def numbered(size, spacing, direction, origin=(-103.5, 20.25, 7.0)) -> sitk.Image:
    """An image in which every voxel differs."""
    return make_volume(
        np.arange(np.prod(size)).reshape(size[::-1]), np.int32, size=size, spacing=spacing, direction=direction,
        origin=origin,
    )  # fmt: skip


def stored(image: sitk.Image, order, flips) -> sitk.Image:
    """The same voxels in the same places, by ITK's own filters."""
    return sitk.Flip(sitk.PermuteAxes(image, order), flips, False)


images = st.builds(
    numbered,
    st.tuples(*[st.integers(1, 5)] * 3),
    st.tuples(*[st.sampled_from([0.5, 1.0, 8.0])] * 3),
    st.sampled_from([IDENTITY, DIRECTION, SHEARED]),
)


def test_what_itk_stores_in_another_order_lies_where_it_lay():
    image = numbered((5, 4, 3), (1.0, 2, 3), DIRECTION)
    for order, flips in ORDERS:
        other = stored(image, order, flips)
        for index in ((0, 0, 0), (4, 2, 1)):
            place = image.TransformIndexToPhysicalPoint(index)
            assert other[other.TransformPhysicalPointToIndex(place)] == image[index]


@given(images, st.sampled_from(ORDERS))
@settings(deadline=None, max_examples=60)
def test_any_order_of_axes_is_the_same_grid(image, how):
    other = stored(image, *how)
    assert geometry_problems(image, other, "label.nii", "image.nii") == []
    back = place_on(other, image)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
    np.testing.assert_array_equal(turn_onto(sitk.GetArrayFromImage(other), other, image), sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(back.GetOrigin(), image.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(back.GetDirection(), image.GetDirection(), atol=1e-9)
    assert back.GetSpacing() == image.GetSpacing()
    assert is_turned(image, other) == (how != ((0, 1, 2), (False, False, False)))
    problems = geometry_problems(image, other, "label.nii", "image.nii", as_stored=True)
    assert [("stored in another order" in problem) for problem in problems] == [True] * is_turned(image, other)


@given(images, st.sampled_from(ORDERS), st.integers(0, 2), st.sampled_from([-1, 1]))
@settings(deadline=None, max_examples=60)
def test_a_shift_of_one_voxel_is_refused_in_any_order(image, how, axis, step):
    other = stored(image, *how)
    index = [0, 0, 0]
    index[axis] = step
    other.SetOrigin(other.TransformIndexToPhysicalPoint(index))
    (problem,) = geometry_problems(image, other, "label.nii", "image.nii")
    assert problem.startswith("label.nii: origin (")


def test_a_mirrored_header_is_no_order_of_axes(volume):
    """An axis runs the other way from the same first voxel: half of the object lies elsewhere."""
    image = volume(direction=IDENTITY)
    other = volume(direction=(-1.0, 0, 0, 0, 1, 0, 0, 0, 1))
    (problem,) = geometry_problems(image, other, "label.nii", "image.nii")
    # Its last voxel lies at -103.5 - 5 * 1.5, where the image's first is at -103.5.
    assert problem.startswith(
        "label.nii: origin (-111, 20.25, 7), its axes turned to follow the other's, differs from (-103.5"
    )


def test_pictures_have_eight_orders():
    image = make_volume(
        np.arange(6).reshape(2, 3), size=(3, 2), spacing=(1.0, 2), origin=(5.0, 6), direction=(1, 0, 0, 1)
    )
    for order in permutations(range(2)):
        for flips in product((False, True), repeat=2):
            other = stored(image, order, flips)
            assert geometry_problems(image, other, "", "") == []
            np.testing.assert_array_equal(sitk.GetArrayFromImage(place_on(other, image)), sitk.GetArrayFromImage(image))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, None),
        ({"spacing": (1.5 * 1.0005, 1.25, 8.0)}, None),
        ({"spacing": (1.5 * 1.002, 1.25, 8.0)}, "spacing"),
        ({"origin": (-103.6, 20.25, 7.0)}, None),
        ({"origin": (-103.3, 20.25, 7.0)}, "origin"),
        ({"origin": (-3.5, 20.25, 7.0)}, "origin"),
        ({"direction": (0.8, 0.6, 0, -0.6, 0.8, 0, 0, 0, 1)}, "direction"),
        ({"size": (5, 6, 4)}, "size"),
        ({"size": (6, 5, 4), "spacing": (1.25, 1.5, 8.0)}, "spacing"),
    ],
)
def test_grids_are_compared(volume, change, told):
    problems = geometry_problems(volume(), volume(**change), "scribble.nii", "image.nii")
    assert len(problems) == (told is not None)
    for problem in problems:
        assert problem.startswith(f"scribble.nii: {told} (")
        assert "of image.nii" in problem


def test_dimensions_differ(volume):
    flat = make_volume(size=(6, 5), spacing=(1.5, 1.25), origin=(0.0, 0), direction=(1, 0, 0, 1))
    (problem,) = geometry_problems(volume(), flat, "label.nii", "image.nii")
    assert problem.startswith("label.nii: size (6, 5) differs from (6, 5, 4)")
    for one, other in ((flat, volume()), (volume(), flat)):
        assert not is_turned(one, other)
        assert place_on(other, one) is other


def test_a_volume_of_one_slice_becomes_a_picture_on_the_grid_of_one(volume):
    flat = make_volume(7, size=(6, 5), spacing=(1.5, 1.25), origin=(0.0, 0), direction=(1, 0, 0, 1))
    one = sitk.JoinSeries([flat])
    assert geometry_problems(flat, flatten_onto(one, flat), "label.nii", "image.png") == []
    assert sitk.GetArrayFromImage(flatten_onto(one, flat)).tolist() == [[7] * 6] * 5
    for image, grid in ((one, volume()), (volume(), flat), (flat, flat), (flat, volume())):
        assert flatten_onto(image, grid) is image


@pytest.mark.parametrize(
    ("name", "change", "advice"),
    [
        ("a.nii.gz", {"origin": (0.0, 0, 0)}, "correct the header, or resample one to the other"),
        (
            "a.png",
            {"origin": (0.0, 0, 0)},
            "a picture holds no origin to correct: save a.png as .nii.gz, .mha or .nrrd",
        ),
        ("a.tif", {"origin": (0.0, 0, 0)}, "a TIFF holds no origin to correct: save a.tif as .nii.gz, .mha or .nrrd"),
        ("a.tif", {"spacing": (1.0, 1, 1)}, 'that of a.tif in a JSON file beside it, {"spacing": [z, y, x]}'),
    ],
)
def test_what_is_advised_can_be_done_with_the_format(volume, name, change, advice):
    for names in ((name, "image.nii"), ("label.nii", name)):
        (problem,) = geometry_problems(volume(), volume(**change), *names)
        assert problem.endswith(advice)


def test_a_negative_voxel_size_is_read_in_one_way(tmp_path, volume, negative_step):
    file, label = tmp_path / "a.nii.gz", tmp_path / "label.nii.gz"
    image = volume(3, direction=IDENTITY)
    negative_step(image, file)
    header, whole = (read_volume(file, "", whole=whole) for whole in (False, True))
    assert isinstance(header, sitk.ImageFileReader)
    assert header.GetSpacing()[1] == -1.25
    assert Grid.of(header) == Grid.of(whole)
    assert Grid.of(whole).spacing == (1.5, 1.25, 8.0)
    assert geometry_problems(header, whole, "", "") == []
    sitk.WriteImage(image, str(label))
    *_, cause = geometry_problems(header, read_volume(label, ""), "label.nii.gz", "a.nii.gz")
    assert (
        cause == "a.nii.gz: its header says a negative voxel size, for which SimpleITK turns an axis round: correct it"
    )


@pytest.mark.parametrize("direction", [IDENTITY, (1.0, 0, 0, 0, 0.8, -0.6, 0, 0.6, 0.8), SHEARED])
def test_slices_are_turned_upright_from_any_order(direction):
    image = numbered((4, 3, 5), (0.5, 1.0, 8.0), direction)
    upright = sitk.GetArrayFromImage(image)[::-1]  # down from the head, back from the front, from right to left
    for order, flips in ORDERS:
        turned = stored(image, order, flips)
        voxels, grid = sitk.GetArrayFromImage(turned), Grid.of(turned)
        for axis in range(3):
            across = 2 - order[2 - axis]
            (section,), steps = turn_upright([np.take(voxels, 0, axis)], grid.spacing[::-1], axis, grid)
            number = -1 if flips[2 - axis] != (across == 0) else 0
            np.testing.assert_array_equal(section, np.take(upright, number, across))
            assert steps == tuple(step for other, step in enumerate((8.0, 1.0, 0.5)) if other != across)


def test_pictures_and_what_says_no_direction_stay_as_they_are():
    section = np.arange(6).reshape(2, 3)
    for grid in (None, Grid((3, 2), (1.0, 2.0), (0.0, 0.0), (-1.0, 0.0, 0.0, -1.0))):
        (same,), steps = turn_upright([section], (np.inf, 2.0, 1.0), 0, grid)
        assert same is section
        assert steps == (2.0, 1.0)
