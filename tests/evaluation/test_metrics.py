import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nnunet_attenscribble.evaluation.metrics import (
    compute_assd,
    compute_dice,
    compute_hd95,
    compute_iou,
    compute_nsd,
    compute_scores,
    compute_surface_distances,
    compute_volume_ml,
    select_structure,
)


def box(shape, *slices):
    mask = np.zeros(shape, bool)
    mask[slices] = True
    return mask


def find_surface(mask):
    """Surface voxels by looking at every face neighbour of every voxel."""
    surface = []
    for voxel in map(tuple, np.argwhere(mask)):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            neighbour = list(voxel)
            neighbour[axis] += step
            inside = 0 <= neighbour[axis] < mask.shape[axis]
            if not inside or not mask[tuple(neighbour)]:
                surface.append(voxel)
                break
    return np.array(surface, dtype=float)


def brute_force_distances(prediction, dense, spacing):
    a, b = (find_surface(mask) * np.asarray(spacing) for mask in (prediction, dense))
    pairs = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return pairs.min(axis=1), pairs.min(axis=0)


@st.composite
def mask_pairs(draw, dims=(2, 3)):
    """Two non-empty masks on a grid without an axis of length one, and a spacing."""
    ndim = draw(st.sampled_from(dims))
    shape = draw(array_shapes(min_dims=ndim, max_dims=ndim, min_side=2, max_side=7))
    # A filled box with holes has inner voxels; plain noise has hardly any.
    noise = draw(arrays(np.int8, (2, *shape), elements=st.integers(0, 9)))
    cut = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    prediction, dense = noise[0] < cut[0], noise[1] < cut[1]
    assume(prediction.any() and dense.any())
    spacing = draw(st.tuples(*[st.sampled_from([0.5, 1.0, 1.5625, 3.0, 10.0])] * ndim))
    return prediction, dense, spacing


# Two cubes of 4 x 4 x 4, the second two voxels further along z. Per cube 56 of 64 voxels are surface. Those of the
# lowest slice (16) are two steps away from the other cube's end slice, those of the next (12, a ring) one step; the
# rings of the two shared slices lie on the other surface, the 4 inner voxels of the end slice one in-plane step off.
CUBES = box((6, 6, 6), slice(0, 4), slice(1, 5), slice(1, 5)), box((6, 6, 6), slice(2, 6), slice(1, 5), slice(1, 5))

# A row of ten pixels, and the same row with an eleventh pixel ten rows below its first.
ROW = box((12, 12), 0, slice(0, 10))
ROW_AND_OUTLIER = ROW | box((12, 12), 10, 0)


@pytest.mark.parametrize(
    ("prediction", "dense", "spacing", "dice", "iou", "hd95", "assd", "volume"),
    [
        (box((5, 6), 0, 0), box((5, 6), 3, 4), (1, 1), 0, 0, 5, 5, math.nan),
        (box((5, 6), 0, 0), box((5, 6), 3, 4), (2, 1), 0, 0, math.sqrt(52), math.sqrt(52), math.nan),
        (box((5, 6), 0, 0), box((5, 6), 3, 4), (1, 2), 0, 0, math.sqrt(73), math.sqrt(73), math.nan),
        (box((2, 3, 4), 0, 0, 0), box((2, 3, 4), 1, 0, 0), (10, 1.5, 2), 0, 0, 10, 10, 0),
        (box((2, 3, 4), 0, 0, 0), box((2, 3, 4), 0, 2, 0), (10, 1.5, 2), 0, 0, 3, 3, 0),
        (box((2, 3, 4), 0, 0, 0), box((2, 3, 4), 0, 0, 3), (10, 1.5, 2), 0, 0, 6, 6, 0),
        (*CUBES, (10, 1, 1), 0.5, 1 / 3, 20, (16 * 20 + 12 * 10 + 4 * 1) / 56, 0),
        (*CUBES, (1, 1, 10), 0.5, 1 / 3, 2, (16 * 2 + 12 * 1 + 4 * 1) / 56, 0),
        (*CUBES, (1, 1, 1), 0.5, 1 / 3, 2, (16 * 2 + 12 * 1 + 4 * 1) / 56, 0),
        # Twice as many voxels of 10 x 1.5 x 2 = 30 mm^3 as there are.
        (box((2, 3, 4), 0, 0), box((2, 3, 4), 0, 0, slice(0, 2)), (10, 1.5, 2), 2 / 3, 0.5, 3.7, 1.0, 0.06),
        (ROW, ROW, (3, 7), 1, 1, 0, 0, math.nan),
    ],
)
def test_hand_derived_scores(prediction, dense, spacing, dice, iou, hd95, assd, volume):
    scores = compute_scores(prediction, dense, spacing)
    assert scores.status == "present"
    assert scores.dice == pytest.approx(dice, abs=1e-12)
    assert scores.iou == pytest.approx(iou, abs=1e-12)
    assert scores.hd95_mm == pytest.approx(hd95, abs=1e-5)
    assert scores.assd_mm == pytest.approx(assd, abs=1e-5)
    assert scores.volume_difference_ml == pytest.approx(volume, abs=1e-12, nan_ok=True)
    assert (scores.prediction_voxels, scores.dense_voxels) == (prediction.sum(), dense.sum())


def test_two_definitions_of_hd95_by_hand():
    # Eleven distances from the prediction, ten of 0 and one of 10: the percentile lies half-way between the last two.
    # Pooled with the other direction's ten zeros it lies at the twentieth of 21 values.
    distances = compute_surface_distances(ROW_AND_OUTLIER, ROW, (1, 1))
    assert compute_hd95(distances, definition="monai") == pytest.approx(5)
    assert compute_hd95(distances, definition="union") == 0
    assert compute_hd95(distances[::-1], definition="monai") == pytest.approx(5)
    with pytest.raises(ValueError, match="'max'; it must be one of monai, union"):
        compute_hd95(distances, definition="max")


@settings(deadline=None, max_examples=80)
@given(mask_pairs())
def test_distances_are_those_of_all_pairs_of_surface_voxels(case):
    prediction, dense, spacing = case
    expected = brute_force_distances(prediction, dense, spacing)
    found = compute_surface_distances(prediction, dense, spacing)
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.sort(own), np.sort(other), atol=1e-5)
    pooled = np.concatenate(expected)
    assert compute_assd(found) == pytest.approx(pooled.mean(), abs=1e-5)
    assert compute_assd(found, definition="directed") == pytest.approx(expected[0].mean(), abs=1e-5)
    assert compute_hd95(found, definition="union") == pytest.approx(np.percentile(pooled, 95), abs=1e-5)
    larger = max(np.percentile(direction, 95) for direction in expected)
    assert compute_hd95(found, definition="monai") == pytest.approx(larger, abs=1e-5)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # of MONAI against itself
@settings(deadline=None, max_examples=30)
@given(mask_pairs())
def test_agreement_with_monai(case):
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    prediction, dense, spacing = case
    pair = [np.asarray(mask)[None, None] for mask in (prediction, dense)]
    scores = compute_scores(prediction, dense, spacing)
    hd95 = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing)
    assd = compute_average_surface_distance(*pair, include_background=True, symmetric=True, spacing=spacing)
    # MONAI interpolates between ranks in single precision.
    assert scores.hd95_mm == pytest.approx(hd95.item(), abs=1e-4)
    assert scores.assd_mm == pytest.approx(assd.item(), abs=1e-5)


@pytest.mark.parametrize(
    ("prediction", "dense", "spacing", "tolerance", "nsd"),
    [
        # Of the 56 surface voxels of a cube 24 lie on the other surface, 4 are a step in the plane off, 12 a slice.
        (*CUBES, (10, 1, 1), 0.5, 24 / 56),
        (*CUBES, (10, 1, 1), 1, 28 / 56),
        (*CUBES, (10, 1, 1), 10, 40 / 56),
        (*CUBES, (10, 1, 1), 20, 1),
        (ROW_AND_OUTLIER, ROW, (1, 1), 9.9, 20 / 21),
        (box((1, 9), 0, 0), box((1, 9), 0, 3), (1, 0.7), 2.1, 1),  # 3 x 0.7 is more than 2.1 to a computer
        # Of the image's 18 border pixels five are within 2 of the corner, one of which is the pixel itself.
        (box((5, 6), 0, 0), box((5, 6)), (1, 1), 2, 6 / 19),
        (box((5, 6), 0, 0), np.zeros((5, 6), bool), (1, 1), 100, 0),
        (np.zeros((5, 6), bool), box((5, 6), 0, 0), (1, 1), 100, 0),
        (np.zeros((5, 6), bool), np.zeros((5, 6), bool), (1, 1), 100, math.nan),
    ],
)
def test_normalised_surface_distance_by_hand(prediction, dense, spacing, tolerance, nsd):
    found = compute_scores(prediction, dense, spacing, hd95=None, surface=None, nsd_mm=tolerance)
    assert found.nsd == pytest.approx(nsd, nan_ok=True)
    assert compute_scores(prediction, dense, spacing).nsd is None


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@settings(deadline=None, max_examples=30)
@given(mask_pairs(), st.sampled_from([0.5, 1.0, 2.0, 3.5, 10.0]))
def test_normalised_surface_distance_agrees_with_monai(case, tolerance):
    import torch
    from monai.metrics import compute_surface_dice

    prediction, dense, spacing = case
    pair = [torch.from_numpy(np.asarray(mask)[None, None].copy()) for mask in (prediction, dense)]
    theirs = compute_surface_dice(*pair, [tolerance], include_background=True, spacing=spacing)
    distances = compute_surface_distances(prediction, dense, spacing)
    assert compute_nsd(distances, tolerance) == pytest.approx(theirs.item(), abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(mask_pairs())
def test_agreement_with_medpy(case):
    binary = pytest.importorskip("medpy.metric.binary", reason="MedPy is not installed")
    prediction, dense, spacing = case
    scores = compute_scores(prediction, dense, spacing, hd95="union")
    assert scores.dice == pytest.approx(binary.dc(prediction, dense))
    assert scores.iou == pytest.approx(binary.jc(prediction, dense))
    assert scores.hd95_mm == pytest.approx(binary.hd95(prediction, dense, voxelspacing=spacing), abs=1e-3)
    assert scores.assd_mm == pytest.approx(binary.assd(prediction, dense, voxelspacing=spacing), abs=1e-3)
    one_way = compute_scores(prediction, dense, spacing, surface="directed").assd_mm
    assert one_way == pytest.approx(binary.asd(prediction, dense, voxelspacing=spacing), abs=1e-3)


@settings(deadline=None, max_examples=30)
@given(mask_pairs(), st.integers(0, 3), st.integers(0, 3))
def test_empty_space_around_changes_nothing(case, before, after):
    # What lies at the image's border is surface already, so room beyond it cannot make it more or less so.
    prediction, dense, spacing = case
    larger = [np.pad(mask, (before, after)) for mask in (prediction, dense)]
    for own, other in zip(
        compute_surface_distances(*larger, spacing),
        compute_surface_distances(prediction, dense, spacing),
        strict=True,
    ):
        np.testing.assert_array_equal(own, other)


@settings(deadline=None, max_examples=30)
@given(mask_pairs(dims=(3,)), st.permutations(range(3)))
def test_axes_may_be_named_in_any_order_if_the_spacing_follows(case, order):
    prediction, dense, spacing = case
    turned = compute_scores(prediction.transpose(order), dense.transpose(order), [spacing[axis] for axis in order])
    scores = compute_scores(prediction, dense, spacing)
    assert turned.hd95_mm == pytest.approx(scores.hd95_mm, abs=1e-5)
    assert turned.assd_mm == pytest.approx(scores.assd_mm, abs=1e-5)
    assert turned.volume_difference_ml == pytest.approx(scores.volume_difference_ml)


@settings(deadline=None, max_examples=30)
@given(mask_pairs())
def test_distances_are_symmetric_and_scale_with_the_spacing(case):
    prediction, dense, spacing = case
    scores, turned = compute_scores(prediction, dense, spacing), compute_scores(dense, prediction, spacing)
    doubled = compute_scores(prediction, dense, [2 * step for step in spacing])
    assert (turned.dice, turned.iou, turned.hd95_mm) == (scores.dice, scores.iou, scores.hd95_mm)
    assert turned.assd_mm == pytest.approx(scores.assd_mm)
    assert doubled.hd95_mm == pytest.approx(2 * scores.hd95_mm, rel=1e-6)
    assert doubled.assd_mm == pytest.approx(2 * scores.assd_mm, rel=1e-6)


def test_a_worse_prediction_scores_worse():
    dense = box((4, 20, 20), slice(1, 3), slice(5, 11), slice(5, 11))
    ladder = [compute_scores(np.roll(dense, shift, axis=2), dense, (10, 1.5, 1.5)) for shift in range(6)]
    assert [scores.dice for scores in ladder] == sorted((scores.dice for scores in ladder), reverse=True)
    for metric in ("hd95_mm", "assd_mm"):
        values = [getattr(scores, metric) for scores in ladder]
        assert values == sorted(values)
        assert values[0] == 0 < values[1] < values[-1]


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_empty_masks(shape):
    empty, full = np.zeros(shape, bool), box(shape, 0, slice(1, 3))
    spacing = (2.0,) * len(shape)

    absent = compute_scores(empty, empty, spacing)
    assert absent.status == "absent"
    for metric in ("dice", "iou", "hd95_mm", "assd_mm", "volume_difference_ml"):
        assert math.isnan(getattr(absent, metric)), metric

    for prediction, dense, status in ((empty, full, "missed"), (full, empty, "spurious")):
        for definition in ("monai", "union"):
            scores = compute_scores(prediction, dense, spacing, hd95=definition)
            assert (scores.status, scores.dice, scores.iou) == (status, 0, 0)
            assert (scores.hd95_mm, scores.assd_mm) == (math.inf, math.inf)
    if len(shape) == 3:
        ml = full.sum() * 8 / 1000
        assert compute_scores(empty, full, spacing).volume_difference_ml == pytest.approx(-ml)
        assert compute_scores(full, empty, spacing).volume_difference_ml == pytest.approx(ml)


def test_a_volume_of_one_slice_is_scored_as_an_image():
    # Taken as a volume every voxel would be surface, and the inner ones would water the mean down.
    prediction, dense = box((9, 9), slice(0, 6), slice(0, 6)), box((9, 9), slice(2, 8), slice(2, 8))
    image = compute_scores(prediction, dense, (1.5, 2))
    volume = compute_scores(prediction[None], dense[None], (8, 1.5, 2))
    assert (volume.hd95_mm, volume.assd_mm) == (image.hd95_mm, image.assd_mm)
    assert volume.volume_difference_ml == 0
    # But a structure in one slice of several is a volume, as in MONAI and MedPy.
    wide = [np.pad(mask[None], ((1, 1), (0, 0), (0, 0))) for mask in (prediction, dense)]
    assert compute_scores(*wide, (8, 1.5, 2)).assd_mm < image.assd_mm
    # A single voxel is all surface, whatever is dropped.
    assert compute_scores(*np.ones((2, 1, 1, 1), bool), (8, 1.5, 2)).hd95_mm == 0


def test_volume_share():
    mask = box((2, 4, 5), 0, slice(0, 2))
    scores = compute_scores(mask, mask | box((2, 4, 5), 1), (10, 1.5, 1.5))
    assert scores.volume_share == pytest.approx(10 / 30)
    empty = np.zeros_like(mask)
    assert compute_scores(empty, mask, (1, 1, 1)).volume_share == 0
    for prediction in (mask, empty):
        assert math.isnan(compute_scores(prediction, empty, (1, 1, 1)).volume_share)


def test_volume():
    mask = box((2, 4, 5), slice(0, 1), slice(0, 2), slice(0, 5))
    assert compute_volume_ml(mask, (10, 1.5, 1.5)) == pytest.approx(0.225)
    assert math.isnan(compute_volume_ml(mask[0], (1.5, 1.5)))


def test_select_structure():
    labels = np.array([[0, 1, 2], [3, 2, 1]])
    assert select_structure(labels, 2).tolist() == [[False, False, True], [False, True, False]]
    assert select_structure(labels, (1, 3)).tolist() == [[False, True, False], [True, False, True]]


@pytest.mark.parametrize(
    ("shape", "spacing", "dtype", "message"),
    [
        ((3, 3), (1.0, 1.0), np.uint8, "boolean"),
        ((3, 4), (1.0, 1.0), bool, "one shape"),
        ((3, 3), (1.0, 1.0, 1.0), bool, "2 positive numbers"),
        ((3, 3), (1.0, 0.0), bool, "2 positive numbers"),
        ((3, 3), (1.0, math.nan), bool, "2 positive numbers"),
    ],
)
def test_what_is_refused(shape, spacing, dtype, message):
    with pytest.raises(ValueError, match=message):
        compute_scores(np.ones(shape, dtype), np.ones((3, 3), dtype), spacing)
    with pytest.raises(ValueError, match="one shape"):
        compute_dice(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(ValueError, match="boolean"):
        compute_iou(np.ones(3), np.ones(3))
