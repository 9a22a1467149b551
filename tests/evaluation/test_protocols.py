"""What each protocol makes of hand-made masks; every number is computed by hand."""

import json
import math

import numpy as np
import pytest

from nnunet_attenscribble.evaluation.compare import compare_summaries
from nnunet_attenscribble.evaluation.comparison_files import to_markdown
from nnunet_attenscribble.evaluation.evaluate import evaluate_folder
from nnunet_attenscribble.evaluation.protocols import PROTOCOLS, find_volume, get_protocol, name_slice, score_structure
from nnunet_attenscribble.evaluation.summary import read_summary, write_summary

NAN, INF = math.nan, math.inf
SPACING = (10.0, 2.0, 1.0)


def box(z, y, x, shape=(3, 6, 8)):
    mask = np.zeros(shape, dtype=bool)
    mask[z, y, x] = True
    return mask


EMPTY = box(slice(0), 0, 0)
TRUE = box(1, slice(1, 3), slice(1, 3))  # 2 x 2 pixels in one slice: all of them surface
# Moved by three pixels along x: 3 mm, or one slice up: 10 mm.
ASIDE, ABOVE = box(1, slice(1, 3), slice(4, 6)), box(2, slice(1, 3), slice(1, 3))


@pytest.mark.parametrize(
    ("protocol", "prediction", "hd95", "surface"),
    [
        ("default", ASIDE, 3, 2.5),  # columns 1 and 2 to columns 4 and 5: 3 and 2 mm
        ("default", ABOVE, 10, 10),
        ("nnunet", ASIDE, NAN, NAN),
        ("acdc-wsl4mis", ABOVE, 10, 10),
        ("acdc-wsl4mis-voxels", ABOVE, 1, 1),
        ("acdc-wsl4mis-voxels", ASIDE, 3, 2.5),
        ("chaos-pacingpseudo", ASIDE, 3, NAN),
    ],
)
def test_distances(protocol, prediction, hd95, surface):
    scores = score_structure(prediction, TRUE, SPACING, get_protocol(protocol))
    np.testing.assert_allclose((scores.hd95_mm, scores.assd_mm), (hd95, surface))
    assert (scores.dice, scores.iou) == (0, 0)


@pytest.mark.parametrize(
    ("protocol", "missed", "spurious", "absent"),
    [
        ("default", (0, INF, INF), (0, INF, INF), (NAN, NAN, NAN)),
        ("nnunet", (0, NAN, NAN), (0, NAN, NAN), (NAN, NAN, NAN)),
        ("acdc-wsl4mis", (0, 0, 0), (0, NAN, NAN), (0, 0, 0)),
        ("acdc-wsl4mis-voxels", (0, 0, 0), (0, NAN, NAN), (0, 0, 0)),
        ("chaos-pacingpseudo", (0, NAN, NAN), (0, NAN, NAN), (NAN, NAN, NAN)),
    ],
)
def test_empty_masks(protocol, missed, spurious, absent):
    rules = get_protocol(protocol)
    for prediction, dense, expected in ((EMPTY, TRUE, missed), (TRUE, EMPTY, spurious), (EMPTY, EMPTY, absent)):
        scores = score_structure(prediction, dense, SPACING, rules)
        # What a protocol does not compute stays NaN, whatever its rule for empty masks.
        wanted = [
            expected[0],
            expected[1] if rules.hd95 is not None else NAN,
            expected[2] if rules.surface is not None else NAN,
        ]
        np.testing.assert_equal([scores.dice, scores.hd95_mm, scores.assd_mm], wanted)


def test_one_way_and_both_ways():
    """A predicted pair of pixels, one of them on the true one: 0 and 4 mm one way, 0 the other."""
    prediction, dense = box(1, 1, [1, 5]), box(1, 1, 1)
    wsl4mis = score_structure(prediction, dense, SPACING, get_protocol("acdc-wsl4mis"))
    assert wsl4mis.assd_mm == pytest.approx(2)  # (0 + 4) / 2: MedPy's ASD
    assert wsl4mis.hd95_mm == pytest.approx(np.percentile([0, 4, 0], 95))
    default = score_structure(prediction, dense, SPACING, get_protocol("default"))
    assert default.assd_mm == pytest.approx(4 / 3)
    assert default.hd95_mm == pytest.approx(np.percentile([0, 4], 95))
    assert get_protocol("default", "union").hd95 == "union"
    with pytest.raises(ValueError, match="leave out one of the two"):
        get_protocol("nnunet", "union")
    with pytest.raises(ValueError, match="must be one of default, nnunet"):
        get_protocol("monai")


def test_masks_that_fill_a_slice_have_no_distance_in_pacingpseudo():
    full = np.ones((4, 4), dtype=bool)
    part = full.copy()
    part[0] = False
    rules = get_protocol("chaos-pacingpseudo")
    assert math.isnan(score_structure(full, part, (1.0, 1.0), rules).hd95_mm)
    assert score_structure(part, part, (1.0, 1.0), rules).hd95_mm == 0


def test_slices_are_scored_for_themselves(folders):
    predictions, dense = folders
    result = evaluate_folder(predictions, dense, protocol="chaos-pacingpseudo", workers=1)
    assert len(result.cases) == 3 * 4
    assert find_volume(name_slice("a", 2)) == find_volume("a") == "a"
    upper, lower = result.cases[name_slice("a", 0)], result.cases[name_slice("a", 3)]
    # The RV, 4 x 4 pixels, lies one pixel further along x; it is not in the lower slices at all.
    assert upper["RV"].dice == pytest.approx(2 * 12 / 32)
    assert (upper["RV"].status, lower["RV"].status) == ("present", "absent")
    assert result.spacings[name_slice("a", 0)] == (2.0, 1.0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_rules_go_with_the_numbers(folders, tmp_path, protocol):
    predictions, dense = folders
    result = evaluate_folder(predictions, dense, protocol=protocol, workers=1)
    json_file, csv_file = write_summary(result, tmp_path / "out")
    content = json.loads(json_file.read_text())
    assert content["protocol"] == protocol
    assert content["rules"]["missed"] == PROTOCOLS[protocol].rules["missed"]
    unit = PROTOCOLS[protocol].distance_unit
    assert f"hd95_{unit}" in csv_file.read_text().splitlines()[0]
    again = read_summary(tmp_path / "out")
    assert repr(again.cases) == repr(result.cases)
    assert again.hd95 == result.hd95
    table = to_markdown(compare_summaries({"a": again, "dense": result}, "dense", resamples=50))
    assert PROTOCOLS[protocol].origin in table or protocol == "default"


def test_a_missed_organ_does_not_win_a_test(folders):
    """In WSL4MIS's rule a missed organ has a distance of 0; no p-value is given for distances then."""
    predictions, dense = folders
    result = evaluate_folder(predictions, dense, protocol="acdc-wsl4mis", workers=1)
    comparison = compare_summaries({"a": result, "dense": evaluate_folder(predictions, dense, workers=1,
                                    protocol="acdc-wsl4mis")}, "dense", resamples=50)  # fmt: skip
    assert math.isnan(comparison.get("a", "RV", "hd95_mm").p)
    assert not math.isnan(comparison.get("a", "RV", "dice").p)
