"""What each protocol makes of hand-made masks; every number is computed by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from nnunet_attenscribble.evaluation.compare import FOREGROUND, compare_summaries
from nnunet_attenscribble.evaluation.comparison_files import to_markdown
from nnunet_attenscribble.evaluation.evaluate import evaluate_folder
from nnunet_attenscribble.evaluation.protocols import PROTOCOLS, find_volume, get_protocol, name_slice, score_structure
from nnunet_attenscribble.evaluation.summary import read_summary, write_summary
from tests.quick_nnunet import quick_nnunet

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
        ("scribblebench", ABOVE, 10, 10),
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
        ("scribblebench", (0, INF, INF), (0, INF, INF), (NAN, NAN, NAN)),
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
    assert get_protocol("scribblebench", "union").hd95 == "union"
    with pytest.raises(ValueError, match="leave out one of the two"):
        get_protocol("nnunet", "union")
    for options in ({"nsd_mm": 2.0}, {"lesions": {"RV": 0.1}}):
        with pytest.raises(ValueError, match="neither NSD nor lesions"):
            get_protocol("acdc-wsl4mis", **options)
    for options, message in (({"nsd_mm": 0.0}, "0.0 mm"), ({"lesions": {"RV": 2.0}}, "lesions of RV is 2.0")):
        with pytest.raises(ValueError, match=message):
            get_protocol("default", **options)
    with pytest.raises(ValueError, match="must be one of default, nnunet"):
        get_protocol("monai")


def test_masks_that_fill_a_slice_have_no_distance_in_pacingpseudo():
    full = np.ones((4, 4), dtype=bool)
    part = full.copy()
    part[0] = False
    for protocol, expected in (("chaos-pacingpseudo", NAN), ("default", 1)):
        rules = get_protocol(protocol)
        for prediction, dense in ((full, part), (part, full)):
            np.testing.assert_equal(score_structure(prediction, dense, (1.0, 1.0), rules).hd95_mm, expected)
        assert score_structure(part, part[::-1], (1.0, 1.0), rules).hd95_mm == 1


def test_slices_are_scored_for_themselves(folders):
    result = evaluate_folder(*folders, protocol="chaos-pacingpseudo", workers=1)
    assert len(result.cases) == 3 * 4
    assert find_volume(name_slice("a", 2), "chaos-pacingpseudo") == "a"
    upper, lower = result.cases[name_slice("a", 0)], result.cases[name_slice("a", 3)]
    # The RV, 4 x 4 pixels, lies one pixel further along x; it is not in the lower slices at all.
    assert upper["RV"].dice == pytest.approx(2 * 12 / 32)
    assert (upper["RV"].status, lower["RV"].status) == ("present", "absent")
    assert result.spacings[name_slice("a", 0)] == (2.0, 1.0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_cases_that_are_called_like_slices_are_cases(tmp_path, write_labels, write_dataset_json, protocol):
    cases = ("p1_slice000", "p1_slice001", "p2_slice000")
    for case in cases:
        for kind in ("predictions", "dense"):
            write_labels(tmp_path / kind / f"{case}.png", TRUE[1].astype(np.uint8))
    write_dataset_json(tmp_path / "predictions", file_ending=".png")
    result = evaluate_folder(tmp_path / "predictions", tmp_path / "dense", protocol=protocol, workers=1)
    assert [find_volume(case, protocol) for case in result.cases] == list(cases)
    assert result.volumes == set(cases)
    assert {scores["RV"].dice for scores in result.cases.values()} == {1}
    assert set(result.shapes.values()) == {(6, 8)}
    assert compare_summaries({"a": result, "dense": result}, "dense", resamples=50).subjects == 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_rules_go_with_the_numbers(folders, tmp_path, protocol):
    result = evaluate_folder(*folders, protocol=protocol, workers=1)
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
    assert f"Protocol {protocol}: {PROTOCOLS[protocol].origin}." in table


def test_a_missed_organ_does_not_win_a_test(folders):
    """In WSL4MIS's rule a missed organ has a distance of 0; no p-value is given for distances then."""
    own, dense = (evaluate_folder(*folders, protocol="acdc-wsl4mis", workers=1) for _ in range(2))
    comparison = compare_summaries({"a": own, "dense": dense}, "dense", resamples=50)
    assert math.isnan(comparison.get("a", "RV", "hd95_mm").p)
    assert not math.isnan(comparison.get("a", "RV", "dice").p)


# --- whole folders ---


def test_scribblebench_is_its_published_rule(tmp_path, write_labels, write_dataset_json):
    """Of every case the mean Dice of the labels that it has, in either file; then the mean over cases."""
    draw = np.random.default_rng(0)
    models: dict[str, list[float]] = {"own": [], "other": []}
    for number in range(8):
        case, dense = f"case{number}", draw.integers(0, 4, (2, 6, 5)) * (draw.random((2, 6, 5)) < 0.8)
        dense[np.isin(dense, np.flatnonzero(draw.random(4) < 0.4))] = 0
        dense[0, 0, 0] = 3  # no case is without any label
        write_labels(tmp_path / "dense" / f"{case}.nii.gz", dense.astype(np.uint8))
        for name, scores in models.items():
            prediction = np.where(draw.random(dense.shape) < 0.4, draw.integers(0, 4, dense.shape), dense)
            prediction[np.isin(prediction, np.flatnonzero(draw.random(4) < 0.4))] = 0
            write_labels(tmp_path / name / f"{case}.nii.gz", prediction.astype(np.uint8))
            own = []
            for value in (1, 2, 3):
                a, b = prediction == value, dense == value
                if a.any() or b.any():
                    own.append(2 * (a & b).sum() / (a.sum() + b.sum()))
            scores.append(float(np.mean(own)))
    found = {}
    for name, scores in models.items():
        write_dataset_json(tmp_path / name, {"background": 0, "RV": 1, "MYO": 2, "LV": 3})
        for protocol in ("scribblebench", "default"):
            result = evaluate_folder(tmp_path / name, tmp_path / "dense", protocol=protocol, workers=1)
            found[name, protocol] = result
        mean = found[name, "scribblebench"].aggregate()["foreground_mean"]["dice"]["mean"]
        assert mean == pytest.approx(np.mean(scores), abs=1e-12)
        # The same numbers in each case and structure, but another mean.
        assert repr(found[name, "default"].cases) == repr(found[name, "scribblebench"].cases)
        assert abs(found[name, "default"].aggregate()["foreground_mean"]["dice"]["mean"] - mean) > 0.005
    own, other = (found[name, "scribblebench"] for name in models)
    comparison = compare_summaries({"own": own, "other": other}, "other", resamples=300)
    row, reference = (comparison.get(name, FOREGROUND, "dice") for name in models)
    assert (row.mean, reference.mean) == pytest.approx((np.mean(models["own"]), np.mean(models["other"])))
    assert row.low < row.mean < row.high
    # Cases are what is drawn, so the interval is that of the mean of the cases' means.
    draws = np.random.default_rng(1).choice(models["own"], (4000, 8)).mean(axis=1)
    assert (row.low, row.high) == pytest.approx(np.percentile(draws, (2.5, 97.5)), abs=0.03)
    assert row.share == pytest.approx(100 * row.mean / reference.mean)


def test_the_difference_by_scribblebench_is_of_the_same_organs(folders, write_labels, two_slabs):
    """A made-up organ counts in its model's mean; the difference is over organs that have a value in both."""
    predictions, dense = folders
    for case in "abc":
        write_labels(dense / f"{case}.nii.gz", np.where(two_slabs == 1, 1, 0).astype(np.uint8))
        write_labels(dense.parent / "right" / f"{case}.nii.gz", np.where(two_slabs == 1, 1, 0).astype(np.uint8))
    write_labels(dense / "c.nii.gz", np.zeros_like(two_slabs))
    write_labels(dense.parent / "right" / "c.nii.gz", np.zeros_like(two_slabs))
    (dense.parent / "right" / "dataset.json").write_bytes((predictions / "dataset.json").read_bytes())
    own, right = (
        evaluate_folder(folder, dense, protocol="scribblebench", workers=1)
        for folder in (predictions, dense.parent / "right")
    )
    # Cases a and b: RV 0.75, a made-up MYO 0; case c: both made up. The right model has nothing to score in c.
    assert own.aggregate()["foreground_mean"]["dice"]["mean"] == pytest.approx((0.375 + 0.375 + 0) / 3)
    assert right.aggregate()["foreground_mean"]["dice"]["mean"] == 1
    row = compare_summaries({"own": own, "right": right}, "right", resamples=50).get("own", FOREGROUND, "dice")
    assert (row.pairs, row.difference) == (2, pytest.approx(-0.25))


@pytest.fixture
def hand_made(tmp_path, write_labels, write_dataset_json):
    """Three volumes of 3 slices of 6 x 8 pixels, 2 x 1 mm and 10 mm apart, each structure with 2 x 2 pixels per slice.

    a: the RV, in slices 0 and 1, lies 3 pixels further along x in slice 1; the MYO, in slice 2, is right.
    b: the RV, in slice 1, is missed; the MYO, in slice 2, is right.
    c: the RV, in slice 1, is right; there is no MYO, and some is predicted in slice 2.
    """
    rv, aside, myo = (slice(1, 3), slice(1, 3)), (slice(1, 3), slice(4, 6)), (slice(4, 6), slice(1, 3))
    drawn = {
        "a": ([(0, rv, 1), (1, rv, 1), (2, myo, 2)], [(0, rv, 1), (1, aside, 1), (2, myo, 2)]),
        "b": ([(1, rv, 1), (2, myo, 2)], [(2, myo, 2)]),
        "c": ([(1, rv, 1)], [(1, rv, 1), (2, myo, 2)]),
    }
    for case, maps in drawn.items():
        for kind, strokes in zip(("dense", "predictions"), maps, strict=True):
            labels = np.zeros((3, 6, 8), np.uint8)
            for z, place, value in strokes:
                labels[(z, *place)] = value
            write_labels(tmp_path / kind / f"{case}.nii.gz", labels, (1.0, 2.0, 10.0))
    write_dataset_json(tmp_path / "predictions", {"background": 0, "RV": 1, "MYO": 2})
    return tmp_path / "predictions", tmp_path / "dense"


# The RV of case a: of 8 pixels 4 are right, so Dice is 0.5. Its 16 distances: 0 for the four of slice 0, in slice 1
# 3 mm for the outer column of each mask and 2 mm for the inner one, since slice 0 is 10 mm away; both directions alike.
RV_DISTANCES = [0] * 4 + [3, 3, 2, 2]
RV_95 = np.percentile(RV_DISTANCES, 95)


@pytest.mark.parametrize(
    ("protocol", "structure", "dice", "hd95", "assd"),
    [
        # Missed in b: Dice 0, an infinite distance beside the mean of the finite ones.
        ("default", "RV", [0.5, 0, 1], [RV_95, 0], [np.mean(RV_DISTANCES), 0]),
        # Spurious in c: likewise.
        ("default", "MYO", [1, 1, 0], [0, 0], [0, 0]),
        ("nnunet", "RV", [0.5, 0, 1], [], []),
        # A missed organ's distance of 0 enters the mean; a spurious one's does not, for the script would stop there.
        ("acdc-wsl4mis", "RV", [0.5, 0, 1], [np.percentile(RV_DISTANCES * 2, 95), 0, 0], [np.mean(RV_DISTANCES), 0, 0]),
        ("acdc-wsl4mis", "MYO", [1, 1, 0], [0, 0], [0, 0]),
        # Slices by themselves: of a slice 0 right, slice 1 aside; of b missed; of c right. Distances are in the plane.
        ("chaos-pacingpseudo", "RV", [1, 0, 0, 1], [0, np.percentile([3, 3, 2, 2] * 2, 95), 0], []),
        ("chaos-pacingpseudo", "MYO", [1, 1, 0], [0, 0], []),
    ],
)
def test_means_over_a_folder_by_hand(hand_made, protocol, structure, dice, hd95, assd):
    found = evaluate_folder(*hand_made, protocol=protocol, workers=1).aggregate()["structures"][structure]
    for metric, values in (("dice", dice), ("hd95_mm", hd95), ("assd_mm", assd)):
        assert found[metric]["n"] == len(values), metric
        expected = np.mean(values) if values else math.nan
        assert found[metric]["mean"] == pytest.approx(expected, abs=1e-5, nan_ok=True), metric


@pytest.mark.parametrize("regions", [False, True])
def test_the_protocol_of_nnunet_is_nnunets_own(hand_made, write_dataset_json, regions):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    predictions, dense = hand_made
    names = {"heart": (1, 2), "MYO": 2} if regions else {"RV": 1, "MYO": 2}
    labels = {name: list(value) if regions and name == "heart" else value for name, value in names.items()}
    write_dataset_json(predictions, {"background": 0, **labels})
    with quick_nnunet():
        expected = compute_metrics_on_folder(
            str(dense), str(predictions), None, SimpleITKIO(), ".nii.gz", list(names.values()), None, 1
        )
    found = evaluate_folder(predictions, dense, protocol="nnunet", workers=1)
    cases = {
        Path(entry["prediction_file"]).name.split(".")[0]: entry["metrics"] for entry in expected["metric_per_case"]
    }
    assert set(cases) == set(found.cases) == {"a", "b", "c"}
    for case, scores in found.cases.items():
        for name, key in names.items():
            own = cases[case][key]
            for metric, theirs in (("dice", "Dice"), ("iou", "IoU")):
                assert getattr(scores[name], metric) == pytest.approx(own[theirs], abs=1e-12, nan_ok=True)
            assert (scores[name].prediction_voxels, scores[name].dense_voxels) == (own["n_pred"], own["n_ref"])
    total = found.aggregate()
    for metric, theirs in (("dice", "Dice"), ("iou", "IoU")):
        for name, key in names.items():
            assert total["structures"][name][metric]["mean"] == pytest.approx(expected["mean"][key][theirs], abs=1e-12)
        assert total["foreground_mean"][metric]["mean"] == pytest.approx(expected["foreground_mean"][theirs], abs=1e-12)
