import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import label

from nnunet_attenscribble.evaluation.metrics import LesionCounts, compute_scores, count_lesions


def row(*spans, length=20):
    """A mask (3, length) with these columns of its middle row."""
    mask = np.zeros((3, length), bool)
    for first, last in spans:
        mask[1, first : last + 1] = True
    return mask


@pytest.mark.parametrize(
    ("prediction", "dense", "iou", "counts", "f1"),
    [
        # Three of four columns shared of five: IoU 0.6. The second is right, the third missed, the fourth made up.
        (row((1, 4), (7, 8), (18, 19)), row((0, 3), (7, 8), (13, 13)), 0.6, (2, 1, 1), 2 / 3),
        (row((1, 4), (7, 8), (18, 19)), row((0, 3), (7, 8), (13, 13)), 0.61, (1, 2, 2), 1 / 3),
        # One object in two halves of IoU 0.5, and two objects as one.
        (row((0, 2), (4, 6)), row((0, 6)), 3 / 7, (1, 0, 1), 2 / 3),
        (row((0, 6)), row((0, 2), (4, 6)), 3 / 7, (1, 1, 0), 2 / 3),
        # The first may go with either (6 of 15, 4 of 11), the second with one (3 of 10): two pairs, not the best one.
        (row((4, 14), (0, 2)), row((0, 9), (11, 14)), 0.3, (2, 0, 0), 1),
        (row(), row((0, 1), (3, 4)), 0.1, (0, 2, 0), 0),
        (row((0, 1)), row(), 0.1, (0, 0, 1), 0),
        (row(), row(), 0.1, (0, 0, 0), None),
    ],
)
def test_objects_by_hand(prediction, dense, iou, counts, f1):
    found = count_lesions(prediction, dense, iou)
    assert found == LesionCounts(*counts)
    assert np.isnan(found.f1) if f1 is None else found.f1 == pytest.approx(f1)
    scores = compute_scores(prediction, dense, (1.0, 1.0), lesion_iou=iou)
    assert (scores.lesions_found, scores.lesions_missed, scores.lesions_false) == counts
    np.testing.assert_equal(scores.lesion_f1, found.f1)
    assert compute_scores(prediction, dense, (1.0, 1.0)).lesion_f1 is None


@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 4)])
def test_a_corner_connects(shape):
    mask = np.zeros(shape, bool)
    mask[(0,) * len(shape)] = mask[(1,) * len(shape)] = True
    assert count_lesions(mask, mask, 1) == LesionCounts(1, 0, 0)


def test_an_object_at_the_end_of_a_row_ends_there():
    """cc3d 4.1.1 lets a boolean one of two axes go on in the first column of its row."""
    prediction, dense = np.zeros((2, 4, 5), bool)
    prediction[1:3, 4] = dense[1, 3] = dense[2, 4] = True
    assert count_lesions(prediction, dense, 0.25) == LesionCounts(1, 0, 0)


def test_a_strided_column_is_counted_as_a_copy_of_it():
    column = np.array([1, 1, 0, 1], bool).repeat(4).reshape(4, 2, 2)[:, :1, :1]
    assert count_lesions(column, column.copy(), 0.5) == LesionCounts(2, 0, 0)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_most_pairs_that_there_are(data):
    shape = data.draw(array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=5))
    prediction, dense = data.draw(arrays(np.int8, (2, *shape), elements=st.integers(0, 3))) < 1
    iou = data.draw(st.sampled_from([0.1, 0.25, 0.5, 1.0]))
    objects = []
    for mask in (prediction, dense):
        parts, number = label(mask, np.ones((3,) * mask.ndim))
        objects.append([parts == value for value in range(1, number + 1)])
    fits = np.array([[(a & b).sum() >= iou * (a | b).sum() for b in objects[1]] for a in objects[0]], bool)
    own, other = sorted(map(len, objects))
    if other > 6:
        return
    fits = fits.reshape(len(objects[0]), len(objects[1]))
    fits = fits if fits.shape == (own, other) else fits.T
    most = max(sum(fits[i, j] for i, j in enumerate(chosen)) for chosen in itertools.permutations(range(other), own))
    assert count_lesions(prediction, dense, iou) == LesionCounts(most, len(objects[1]) - most, len(objects[0]) - most)


def test_what_is_refused():
    for iou in (0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            count_lesions(row(), row(), iou)
