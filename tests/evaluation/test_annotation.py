import numpy as np
import pytest

from nnunet_attenscribble.evaluation.annotation import ANNOTATED, Annotation, count_annotation, find_annotation

IGNORE = 3


def test_voxels_strokes_and_slices_are_counted():
    labels = np.full((4, 5, 6), IGNORE)
    labels[0, 0, 0] = labels[0, 1, 1] = 1  # one stroke: they touch at a corner
    labels[1, 2, 2] = 1  # another: slices are drawn one by one
    labels[1, 0, 4:6] = 2
    labels[1, 4, 0] = labels[1, 4, 2] = 0  # two strokes in the background
    assert count_annotation(labels, 0, IGNORE) == Annotation(7, 7 / 120, 5, 2)


def test_classes_that_touch_are_strokes_of_their_own():
    labels = np.full((1, 3, 4), 255, np.uint8)
    labels[0, 0, :2], labels[0, 0, 2:], labels[0, 2] = 1, 254, [0, 1, 0, 1]
    assert count_annotation(labels, 0, 255).strokes == 6


def test_slices_lie_across_the_axis():
    labels = np.full((4, 5, 6), IGNORE)
    labels[:, 2, 1] = 1
    assert count_annotation(labels, 0, IGNORE) == Annotation(4, 4 / 120, 4, 4)
    assert count_annotation(labels, 1, IGNORE) == Annotation(4, 4 / 120, 1, 1)


def test_a_picture_is_one_slice_and_nothing_is_nothing():
    picture = np.full((5, 6), IGNORE)
    assert count_annotation(picture, 0, IGNORE) == Annotation(0, 0, 0, 0)
    picture[1, 1:4] = 0
    assert count_annotation(picture, 0, IGNORE) == Annotation(3, 0.1, 1, 1)


@pytest.mark.parametrize("missing", [None, "annotated_strokes"])
def test_provenance_tells_all_or_nothing(missing):
    told = {key: str(value) for key, value in zip(ANNOTATED.values(), (7, 0.25, 5, 2), strict=True) if key != missing}
    assert find_annotation({"row": "x", **told}) == (None if missing else Annotation(7, 0.25, 5, 2))
    assert find_annotation({**told, "annotated_voxels": "; ".join(["7", "8"])}) is None
