import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.compare import FOREGROUND, compare_summaries
from nnunet_attenscribble.evaluation.comparison_files import read_comparison, to_csv, to_json, to_markdown, write_rules
from nnunet_attenscribble.evaluation.metrics import StructureScores
from nnunet_attenscribble.evaluation.protocols import name_slice
from nnunet_attenscribble.evaluation.structures import Structure
from nnunet_attenscribble.evaluation.summary import Summary

NAN, INF = math.nan, math.inf
RV, MYO = Structure("RV", (1,)), Structure("MYO", (2,))


def make_scores(dice, distance, dense=100):
    if distance == INF:
        return StructureScores("missed", 0.0, 0.0, INF, INF, -dense / 1000, 0, dense)
    return StructureScores("present", dice, dice / (2 - dice), distance, distance / 2, 0.0, dense, dense)


def make_summary(dice, distance, structures=(RV, MYO), cases=None, **changes):
    """A summary from (cases, structures) of Dice and of HD95."""
    cases = cases or [f"patient{index // 2:03d}_frame{index % 2:02d}" for index in range(len(dice))]
    scores = {
        case: {structure.name: make_scores(*values) for structure, *values in zip(structures, *rows, strict=True)}
        for case, *rows in zip(cases, dice, distance, strict=True)
    }
    settings = {
        "shapes": dict.fromkeys(cases, (4, 5, 6)),
        "spacings": dict.fromkeys(cases, (10.0, 1.5, 1.5)),
        "notes": ("Slices lie up to 10 mm apart.",),
    }
    return Summary(structures, scores, **(settings | changes))


DENSE = make_summary([[0.9, 0.8], [0.9, 0.8], [0.7, 0.8], [0.9, 0.8]], [[2, 4], [2, 4], [4, 4], [4, 4]])
SCRIBBLE = make_summary([[0.9, 0.6], [0.8, 0.6], [0.0, 0.6], [0.8, 0.6]], [[3, 8], [3, 8], [INF, 8], [6, 8]])


def test_rows_by_hand():
    comparison = compare_summaries({"scribble": SCRIBBLE, "dense": DENSE}, "dense", resamples=200)
    assert comparison.models == ("dense", "scribble")
    assert comparison.structures == ("RV", "MYO")
    assert len(comparison.rows) == 6 * 2 * 3

    rv = comparison.get("scribble", "RV", "dice")
    assert (rv.n, rv.missed, rv.spurious) == (4, 1, 0)
    assert rv.mean == pytest.approx(2.5 / 4)
    assert rv.share == pytest.approx(100 * 2.5 / 3.4)
    assert rv.difference == pytest.approx((2.5 - 3.4) / 4)
    assert rv.low <= rv.mean <= rv.high
    assert rv.difference_low <= rv.difference <= rv.difference_high

    foreground = comparison.get("scribble", FOREGROUND, "dice")
    assert foreground.mean == pytest.approx((0.625 + 0.6) / 2)
    assert foreground.share == pytest.approx(100 * (0.625 + 0.6) / (0.85 + 0.8))
    assert foreground.sd == pytest.approx(np.std([0.75, 0.7, 0.3, 0.7], ddof=1))
    assert foreground.median == pytest.approx(0.7)
    # The cases' means are 5.5, 5.5, 7 and, with the missed RV, infinity; that of the MYO alone would lie below.
    near = make_summary([[0.9, 0.6]] * 4, [[3, 8], [3, 8], [INF, 5], [6, 8]])
    own = compare_summaries({"scribble": near, "dense": DENSE}, "dense", resamples=50)
    assert own.get("scribble", FOREGROUND, "hd95_mm").median == pytest.approx((5.5 + 7) / 2)

    hd95 = comparison.get("scribble", "RV", "hd95_mm")
    assert (hd95.n, hd95.infinite, hd95.missed) == (3, 1, 1)
    assert hd95.mean == pytest.approx(4)
    assert hd95.median == pytest.approx(4.5)  # of 3, 3, 6 and infinity
    assert math.isnan(hd95.share)
    # Over the three cases that both found: +1, +1, +2. The difference of the means, 4 - 3, would hide that.
    assert (hd95.pairs, hd95.difference) == (3, pytest.approx(4 / 3))

    reference = comparison.get("dense", FOREGROUND, "dice")
    assert reference.share == 100
    assert math.isnan(reference.difference)
    assert math.isnan(reference.p)


def test_a_missed_organ_counts_as_the_worst_rank():
    dense = make_summary([[0.8, 0.8]] * 6, [[2, 2]] * 6)
    close = make_summary([[0.8, 0.8]] * 6, [[1.0 - index / 10, 2] for index in range(6)])
    lost = [[1.0 - index / 10, 2] for index in range(5)] + [[INF, 2]]
    comparison = compare_summaries(
        {"close": close, "lost": make_summary([[0.8, 0.8]] * 6, lost), "dense": dense}, "dense"
    )
    assert comparison.get("close", "RV", "hd95_mm").p == pytest.approx(2 / 64)
    # Ranks 1 to 5 for, rank 6 against: 14 of the 64 sign patterns give a rank sum of 6 or less.
    assert comparison.get("lost", "RV", "hd95_mm").p == pytest.approx(2 * 14 / 64)
    assert comparison.get("lost", "RV", "hd95_mm").difference < 0
    assert comparison.get("lost", "RV", "hd95_mm").p_holm == 1
    # Three tests per model and metric: RV, MYO and the foreground.
    assert comparison.get("close", "RV", "hd95_mm").p_holm == pytest.approx(6 * 2 / 64)


def test_a_difference_that_the_test_contradicts_is_marked(tmp_path):
    distances = [[INF]] * 9 + [[2]] * 3  # lost in nine cases of twelve, 3 mm better in the others
    models = {
        "own": make_summary([[0.8]] * 12, distances, (RV,)),
        "dense": make_summary([[0.9]] * 12, [[5]] * 12, (RV,)),
    }
    comparison = compare_summaries(models, "dense", resamples=50)
    row = comparison.get("own", "RV", "hd95_mm")
    assert row.difference == -3
    assert row.rank_correlation == pytest.approx((9 * 8 - 3 * 2) / 78)  # nine ranks of 8, three of 2
    text = to_markdown(comparison)
    assert text.count("| -3.00 [-3.00, -3.00] | 0.004, 0.004 (worse) |") == 2
    assert text.count("(worse)") == 4  # of HD95 and ASSD; Dice holds lost organs
    (tmp_path / "new.json").write_text(to_json(comparison))
    assert to_markdown(read_comparison(tmp_path / "new.json")) == text
    turned = to_markdown(compare_summaries(models, "own", resamples=50))
    assert turned.count("| +3.00 [3.00, 3.00] | 0.004, 0.004 (better) |") == 2


@pytest.mark.parametrize(("cases", "told"), [(5, "With 5 cases and 1 test of one metric, p after"), (6, None)])
def test_the_smallest_p_is_told_where_it_is_large(cases, told):
    models = {
        name: make_summary([[dice]] * cases, [[2]] * cases, (RV,)) for name, dice in (("own", 0.7), ("dense", 0.8))
    }
    rules = write_rules(compare_summaries(models, "dense", resamples=50))
    expected = [f"{told} Holm's correction is 0.062 at best."] if told else []
    assert [rule for rule in rules if rule.endswith("at best.")] == expected


@pytest.mark.parametrize("protocol", ["default", "nnunet", "acdc-wsl4mis", "acdc-wsl4mis-voxels"])
def test_a_spurious_organ_is_the_worst_only_where_an_absent_one_has_no_dice(protocol):
    models = {name: replace(summary, protocol=protocol) for name, summary in (("s", SCRIBBLE), ("dense", DENSE))}
    rules = " ".join(write_rules(compare_summaries(models, "dense", resamples=50)))
    for clause in ("a spurious one as the worst", "Where only one has a value"):
        assert (clause in rules) == ("wsl4mis" not in protocol)


def test_the_foreground_interval_is_of_one_mean():
    for of_myo, end in ((20, 0.5), (2, 0.5), (1, NAN)):  # the row of MYO in one case has no interval either
        own = make_summary([[0.9, 0.1 if index < of_myo else NAN] for index in range(20)], [[2, 2]] * 20)
        row = compare_summaries({"own": own}, "own", resamples=500).get("own", FOREGROUND, "dice")
        assert (row.mean, row.low, row.high) == pytest.approx((0.5, end, end), nan_ok=True)


ABSENT = StructureScores("absent", NAN, NAN, NAN, NAN, NAN, 0, 0)
SPURIOUS = StructureScores("spurious", 0.0, 0.0, INF, INF, 0.1, 9, 0)


@pytest.mark.parametrize(("own", "dense", "p"), [(SPURIOUS, ABSENT, 2 / 8), (ABSENT, SPURIOUS, 1)])
def test_differences_in_dice_are_over_the_same_cases(own, dense, p):
    models = {
        name: make_summary([[dice], [dice - 0.2], [dice]], [[2]] * 3, (RV,), cases=list("abc"))
        for name, dice in (("own", 0.7), ("dense", 0.8))
    }
    models["own"].cases["c"]["RV"], models["dense"].cases["c"]["RV"] = own, dense
    row = compare_summaries(models, "dense", resamples=500).get("own", "RV", "dice")
    # The mean has the 0 of an organ that is not there; the difference is of the two cases that have a value in both.
    assert row.mean == pytest.approx(1.2 / 3 if own is SPURIOUS else 1.2 / 2)
    assert row.pairs == 2
    assert (row.difference, row.difference_low, row.difference_high) == pytest.approx((-0.1, -0.1, -0.1))
    assert row.p == pytest.approx(p)  # the third has the largest rank, against or for


def test_one_subject_has_no_interval():
    own, dense = (make_summary(dice, [[2, 4]] * 2) for dice in ([[0.7, 0.6], [0.6, 0.6]], [[0.9, 0.8], [0.9, 0.8]]))
    with pytest.raises(
        AttenScribbleError, match=r"'patient' finds one and the same subject \(patient\) in all 2 cases"
    ):
        compare_summaries({"own": own, "dense": dense}, "dense", subject="patient")
    single = {"own": make_summary([[0.7, 0.6]], [[2, 4]]), "dense": make_summary([[0.9, 0.8]], [[2, 4]])}
    row = compare_summaries(single, "dense", subject=r"patient\d+", resamples=50).get("own", "RV", "dice")
    assert row.difference == pytest.approx(-0.2)
    assert np.isnan([row.low, row.high, row.difference_low, row.difference_high]).all()
    # Nor has an organ that one subject alone shows.
    lost = make_summary([[0.9, 0.6]] * 4, [[INF, 8], [INF, 8], [2, 8], [2, 8]])
    row = compare_summaries({"lost": lost, "dense": DENSE}, "dense", subject=r"patient\d+").get("lost", "RV", "hd95_mm")
    assert (row.n, row.pairs) == (2, 2)
    assert np.isnan([row.low, row.high, row.difference_low, row.difference_high]).all()


def test_one_structure_is_tested_once():
    dense = make_summary([[0.8 + index / 100] for index in range(6)], [[2]] * 6, (RV,))
    other = make_summary([[0.6] for _ in range(6)], [[2]] * 6, (RV,))
    comparison = compare_summaries({"dense": dense, "other": other}, "dense")
    for structure in ("RV", FOREGROUND):
        row = comparison.get("other", structure, "dice")
        assert (row.p, row.p_holm) == (pytest.approx(2 / 64), pytest.approx(2 / 64))


def test_order_of_cases_does_not_matter():
    turned = replace(SCRIBBLE, cases=dict(reversed(SCRIBBLE.cases.items())))
    comparisons = [compare_summaries({"s": own, "dense": DENSE}, "dense", resamples=200) for own in (SCRIBBLE, turned)]
    assert repr(comparisons[0].rows) == repr(comparisons[1].rows)


def test_subjects_are_the_unit_if_they_are_named():
    by_case = compare_summaries({"s": SCRIBBLE, "dense": DENSE}, "dense", resamples=500)
    by_subject = compare_summaries({"s": SCRIBBLE, "dense": DENSE}, "dense", subject=r"patient\d+", resamples=500)
    assert (by_case.subjects, by_subject.subjects) == (4, 2)
    grouped = compare_summaries({"s": SCRIBBLE, "dense": DENSE}, "dense", subject=r"(patient\d+)_frame", resamples=500)
    assert repr(grouped.rows) == repr(by_subject.rows)
    # Of slices, the pattern is looked for in the name of their volume.
    slices = [name_slice(f"patient{index // 2:03d}_t1", index % 2) for index in range(4)]
    sliced = [
        make_summary([[dice, dice]] * 4, [[2, 4]] * 4, cases=slices, protocol="chaos-pacingpseudo")
        for dice in (0.8, 0.9)
    ]
    told = compare_summaries({"s": sliced[0], "dense": sliced[1]}, "dense", subject=r"patient.+", resamples=50)
    assert told.subjects == 2
    row, other = by_case.get("s", "RV", "dice"), by_subject.get("s", "RV", "dice")
    assert row.mean == other.mean
    assert other.p > row.p
    for pattern, message in (
        (r"frame01", r"finds no subject in the cases patient000_frame00, patient001_frame00: mend"),
        (r"_(frame01)?", r"finds no subject in the cases patient000_frame00, patient001_frame00: mend"),
        (r"\d*", r"finds no subject in the cases patient000_frame00, "),
        ("(", "no regular"),
    ):
        with pytest.raises(AttenScribbleError, match=message):
            compare_summaries({"s": SCRIBBLE, "dense": DENSE}, "dense", subject=pattern)


def test_the_same_seed_gives_the_same_rows():
    first, second, other = (
        compare_summaries({"s": SCRIBBLE, "dense": DENSE}, "dense", seed=seed, resamples=100) for seed in (1, 1, 2)
    )
    assert repr(first.rows) == repr(second.rows)
    assert repr(first.rows) != repr(other.rows)


def test_other_cases_are_refused_and_named():
    fewer = make_summary([[0.9, 0.8]] * 3, [[2, 4]] * 3, cases=["patient000_frame00", "patient000_frame01", "new"])
    with pytest.raises(AttenScribbleError) as caught:
        compare_summaries({"fewer": fewer, "dense": DENSE}, "dense")
    assert caught.value.problems == [
        "1 case is in fewer but not in dense (new): predict and evaluate the same cases with both",
        "2 cases are in dense but not in fewer (patient001_frame00, patient001_frame01): predict and evaluate the same "
        "cases with both",
    ]


def test_other_definitions_labels_and_truths_are_refused():
    truth = {case: dict(scores) for case, scores in DENSE.cases.items()}
    truth["patient000_frame00"]["RV"] = make_scores(0.9, 2, dense=99)
    others = {
        "union": replace(SCRIBBLE, hd95="union"),
        "protocol": replace(SCRIBBLE, protocol="nnunet"),
        "labels": make_summary([[0.9, 0.8]] * 4, [[2, 4]] * 4, (RV, Structure("MYO", (3,)))),
        "truth": replace(DENSE, cases=truth),
        "spacing": replace(SCRIBBLE, spacings=dict.fromkeys(SCRIBBLE.cases, (1.0, 1.0, 1.0))),
    }
    with pytest.raises(AttenScribbleError) as caught:
        compare_summaries({"dense": DENSE, **others}, "dense")
    union, protocol, labels, own_truth, spacing = caught.value.problems
    assert (
        "union and dense were scored by different definitions (--hd95 union, protocol default and --hd95 monai" in union
    )
    assert "protocol nnunet and --hd95 monai, protocol default" in protocol
    assert "labels and dense were scored on different labels (RV=1, MYO=3 and RV=1, MYO=2)" in labels
    assert "truth and dense were scored against different dense labels in 1 case (patient000_frame00)" in own_truth
    assert "spacing and dense were scored against different dense labels in 4 cases" in spacing


def test_the_same_dense_labels_may_be_stored_in_another_order():
    """Scored on copies in another orientation: the axes, 1.5 mm and 10 mm steps, come in another order."""
    shapes = dict.fromkeys(DENSE.cases, (10, 20, 30))
    turned = replace(
        SCRIBBLE, shapes=dict.fromkeys(shapes, (30, 20, 10)), spacings=dict.fromkeys(shapes, (1.5, 1.5, 10.0))
    )
    dense = replace(DENSE, shapes=shapes)
    assert compare_summaries({"dense": dense, "turned": turned}, "dense", resamples=50).cases == tuple(shapes)
    # The same shape, but the steps of 10 mm lie along another axis than there.
    other = replace(turned, spacings=dict.fromkeys(shapes, (10.0, 1.5, 1.5)))
    with pytest.raises(AttenScribbleError, match="scored against different dense labels in 4 cases"):
        compare_summaries({"dense": dense, "other": other}, "dense", resamples=50)


def test_volume_as_a_share_of_the_truth():
    def make(*voxels):
        summary = make_summary([[0.9, 0.9]] * 4, [[2, 2]] * 4)
        for scores, number in zip(summary.cases.values(), voxels, strict=True):
            scores["RV"] = replace(scores["RV"], prediction_voxels=number)
        return summary

    comparison = compare_summaries({"small": make(0, 80, 90, 130), "dense": make(100, 100, 100, 98)}, "dense")
    row = comparison.get("small", "RV", "volume_share")
    assert (row.median, row.mean) == (pytest.approx(0.85), pytest.approx(0.75))
    assert math.isnan(row.p)
    assert "| small | 0.85 | 1.00 |\n" in to_markdown(comparison)
    assert "1 is without bias" in to_markdown(comparison)
    absent = make_summary([[0.9]], [[2]], (RV,), cases=["a"])
    absent.cases["a"]["RV"] = SPURIOUS
    assert math.isnan(compare_summaries({"a": absent}, "a").get("a", "RV", "volume_share").median)


CONFUSION = dict.fromkeys(DENSE.cases, ((50, 10, 0), (20, 70, 10), (0, 25, 75)))


def test_confusion_stands_where_it_is_known(tmp_path):
    summaries = {"own": replace(SCRIBBLE, confusions=CONFUSION), "old": replace(SCRIBBLE), "dense": DENSE}
    comparison = compare_summaries(summaries, "dense", resamples=50)
    assert list(comparison.confusion) == ["own"]
    assert comparison.confusion["own"]["RV"] == pytest.approx({"background": 0.2, "RV": 0.7, "MYO": 0.1})
    text = to_markdown(comparison)
    assert "| model | true class | as background | as RV | as MYO |" in text
    assert "| own | background | n/a | 0.100 | 0.000 |\n" in text
    assert "| own | MYO | 0.000 | 0.250 | 0.750 |\n" in text
    assert "adds up to 1" in text
    (tmp_path / "new.json").write_text(to_json(comparison))
    assert repr(read_comparison(tmp_path / "new.json").confusion) == repr(comparison.confusion)
    without = compare_summaries({"old": SCRIBBLE, "dense": DENSE}, "dense", resamples=50)
    assert "There is no confusion of classes where structures overlap" in to_markdown(without)
    assert "true class" not in to_markdown(without)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content["rows"].pop(0),
        lambda content: content["rows"].remove(next(row for row in content["rows"] if row["metric"] == "volume_share")),
        lambda content: content.update(reference="other"),
        lambda content: content["provenance"].pop("s"),
        lambda content: content.update(nsd_mm=[2]),
        lambda content: content["rows"].remove(next(row for row in content["rows"] if row["metric"] == "nsd")),
    ],
)
def test_a_comparison_with_gaps_is_refused(tmp_path, damage):
    asked = {
        name: replace(
            summary,
            cases={
                case: {structure: replace(one, nsd=0.5) for structure, one in scores.items()}
                for case, scores in summary.cases.items()
            },
            nsd_mm=2.0,
        )
        for name, summary in (("s", SCRIBBLE), ("dense", DENSE))
    }
    content = json.loads(to_json(compare_summaries(asked, "dense", resamples=50)))
    damage(content)
    (tmp_path / "new.json").write_text(json.dumps(content))
    with pytest.raises(AttenScribbleError, match=r"new\.json.*compare the models again"):
        read_comparison(tmp_path / "new.json")


def test_surface_and_lesions_are_compared_where_they_were_asked_for(tmp_path):
    def make(nsd, f1, found):
        summary = make_summary([[0.9, 0.9]] * 6, [[2, 2]] * 6)
        for scores in summary.cases.values():
            scores["MYO"] = replace(scores["MYO"], nsd=0.9)
            lesions = {"lesion_f1": f1, "lesions_found": found, "lesions_missed": 3 - found, "lesions_false": 0}
            scores["RV"] = replace(scores["RV"], nsd=nsd, **lesions)
        return replace(summary, nsd_mm=2.0, lesions={"RV": 0.1})

    own, dense = make(0.5, 0.5, 1), make(0.7, 0.8, 2)
    comparison = compare_summaries({"own": own, "dense": dense}, "dense", resamples=50)
    assert comparison.get("own", FOREGROUND, "nsd").mean == pytest.approx(0.7)
    assert comparison.get("own", "RV", "nsd").p == pytest.approx(2 / 64)
    assert comparison.structures_of("lesion_f1") == ("RV",)
    row = comparison.get("own", FOREGROUND, "lesion_f1")
    assert (row.mean, row.difference, row.p_holm) == (0.5, pytest.approx(-0.3), pytest.approx(2 / 64))
    text = to_markdown(comparison)
    assert "| missed | spurious |" in text
    assert "| HD95 (mm) | ASSD (mm) | NSD (2 mm) | lesion F1 | missed |" in text
    assert "| own | 0.500 ± 0.000, 0.500 (6 found, 12 missed, 0 false) | 0.500 ± 0.000, 0.500 |" in text
    assert "| own | MYO |" in text
    for rule in (
        "within the tolerance of the other mask's surface",
        "one to one",
        "(RV 0.1)",
        "NSD, lesion F1 and IoU",
    ):
        assert rule in text
    (tmp_path / "new.json").write_text(to_json(comparison))
    assert to_markdown(read_comparison(tmp_path / "new.json")) == text
    for other, message in (
        (
            replace(dense, nsd_mm=1.0),
            "--nsd 2, --lesions RV=0.1 and --hd95 monai, protocol default, --nsd 1, --lesions",
        ),
        (DENSE, "--nsd 2, --lesions RV=0.1 and --hd95 monai, protocol default)"),
    ):
        with pytest.raises(AttenScribbleError) as caught:
            compare_summaries({"own": own, "dense": other}, "dense")
        assert message in caught.value.problems[0]


@pytest.fixture
def comparison():
    own = {"a|b": SCRIBBLE, "dense": DENSE}
    return compare_summaries(own, "dense", resamples=200, subject=r"patient\d+")


def test_markdown(comparison):
    text = to_markdown(comparison)
    lines = text.splitlines()
    assert lines[0] == "### Compared with dense on the same 4 cases of 2 subjects"
    assert lines[2].startswith(
        "| model | Dice [95 % interval] | share of dense | HD95 (mm) | ASSD (mm) | missed | spurious |"
    )
    assert lines[4].startswith("| dense | 0.825 [")
    assert lines[4].endswith("| 100.0 % | 3.50 | 1.75 | 0 | 0 |")
    assert lines[5].startswith("| a\\|b | 0.61")
    assert lines[5].endswith("| 74.2 % | 6.00 | 3.00 | 1 | 0 |")
    assert "| a\\|b | 4.00 ± 1.73, 4.50 (1 missed) | 8.00 ± 0.00, 8.00 |" in text
    assert "| a\\|b | 0.625 ± 0.419, 0.800 (73.5 %) | 0.600 ± 0.000, 0.600 (75.0 %) |" in text
    for rule in ("Slices lie up to 10 mm apart.", "the larger of the two directed", "as the worst", "seed 0"):
        assert rule in text
    widths = {line.replace("\\|", "").count("|") for line in lines[2:6]}
    assert widths == {8}


def test_a_structure_named_as_the_mean_is_refused():
    named = make_summary([[0.9, 0.8]], [[2, 4]], structures=(RV, Structure(FOREGROUND, (2,))))
    with pytest.raises(AttenScribbleError, match="a structure is called 'foreground mean'"):
        compare_summaries({"dense": named}, "dense")


def test_csv_and_json(comparison):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    rows = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    content = json.loads(to_json(comparison), parse_constant=refuse)
    assert (content["schema"], content["schema_version"]) == ("nnunet-attenscribble/comparison", 1)
    assert len(rows) == len(content["rows"]) == 36
    assert content["cases"] == list(DENSE.cases)
    assert content["seed"] == 0
    assert content["rules"]["absent"]
    assert set(content["provenance"]) == {"dense", "a|b"}
    for row, entry in zip(rows, content["rows"], strict=True):
        assert (row["model"], row["structure"], row["metric"]) == (entry["model"], entry["structure"], entry["metric"])
        assert float(row["mean"]) == entry["mean"]
        assert (row["p"] == "nan") == (entry["p"] is None)
