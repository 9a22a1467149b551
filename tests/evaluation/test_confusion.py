import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nnunet_attenscribble.evaluation.protocols import get_protocol
from nnunet_attenscribble.evaluation.scoring import CasePair, score_case
from nnunet_attenscribble.evaluation.structures import (
    LabelCoding,
    Structure,
    compute_confusion_shares,
    count_confusion,
    list_classes,
)

RV, LV = Structure("RV", (1,)), Structure("LV", (5,))
DENSE = np.array([[0, 0, 0, 1, 1], [5, 5, 5, 0, 0]], np.uint8)
PREDICTION = np.array([[0, 1, 5, 1, 0], [5, 1, 5, 0, 0]], np.uint8)
COUNTS = ((3, 1, 1), (1, 1, 0), (0, 1, 2))


def test_counts_by_hand():
    assert count_confusion(PREDICTION, DENSE, (RV, LV)) == COUNTS
    # A label that nobody has, and one structure of two labels.
    assert count_confusion(PREDICTION, DENSE, (Structure("far", (200,)), LV)) == ((6, 0, 1), (0, 0, 0), (1, 0, 2))
    assert count_confusion(PREDICTION, DENSE, (Structure("heart", (1, 5)),)) == ((3, 2), (1, 4))


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_counts_are_those_of_every_voxel(data):
    shape = data.draw(array_shapes(min_dims=2, max_dims=3, max_side=5))
    prediction, dense = data.draw(arrays(np.uint8, (2, *shape), elements=st.integers(0, 3)))
    structures = [Structure(str(value), (value,)) for value in (1, 2, 3)]
    found = np.array(count_confusion(prediction, dense, structures))
    for true in range(4):
        for predicted in range(4):
            assert found[true, predicted] == ((dense == true) & (prediction == predicted)).sum()


def test_shares_by_hand():
    found = compute_confusion_shares({"a": COUNTS}, {"a": (1.0, 1.0)})
    np.testing.assert_allclose(found, [[math.nan, 1 / 2, 1 / 3], [1 / 2, 1 / 2, 0], [0, 1 / 3, 2 / 3]])
    # A second case of voxels twice as large, without an LV and with one made up: it counts with its volume.
    other = ((0, 0, 3), (0, 4, 0), (0, 0, 0))
    found = compute_confusion_shares({"a": COUNTS, "b": other}, {"a": (1.0, 1.0), "b": (2.0, 1.0)})
    np.testing.assert_allclose(found, [[math.nan, 1 / 10, 7 / 3], [1 / 10, 9 / 10, 0], [0, 1 / 3, 2 / 3]])


def test_a_class_that_is_nowhere_has_no_shares():
    found = compute_confusion_shares({"a": ((3, 0, 2), (0, 0, 0), (1, 0, 4))}, {"a": (1.0, 1.0)})
    np.testing.assert_allclose(found, [[math.nan, math.nan, 2 / 5], [math.nan] * 3, [1 / 5, 0, 4 / 5]])


@pytest.mark.parametrize("protocol", ["default", "chaos-pacingpseudo"])
def test_a_case_has_its_counts_unless_structures_overlap(tmp_path: Path, write_labels, protocol):
    pair = CasePair("a", tmp_path / "prediction.nii.gz", tmp_path / "dense.nii.gz")
    write_labels(pair.prediction, PREDICTION[:, None])
    write_labels(pair.dense, DENSE[:, None])
    rules = get_protocol(protocol)
    heart = Structure("heart", (1, 5))
    result = score_case(pair, LabelCoding((RV, LV), frozenset({0, 1, 5}), None, ".nii.gz"), rules)
    total = np.sum(list(result.confusions.values()), axis=0)
    assert list(result.confusions) == list(result.scores)
    np.testing.assert_array_equal(total, COUNTS)
    assert list_classes((RV, LV)) == ("background", "RV", "LV")
    result = score_case(pair, LabelCoding((heart, LV), frozenset({0, 1, 5}), None, ".nii.gz"), rules)
    assert list_classes((heart, LV)) == ()
    assert result.confusions == {}
    scores = next(iter(result.scores.values()))["heart"]
    assert scores.volume_share == scores.prediction_voxels / scores.dense_voxels
