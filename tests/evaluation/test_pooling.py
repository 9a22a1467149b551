import math
from dataclasses import replace

import numpy as np
import pytest

from nnunet_attenscribble.common.text import counted
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.compare import FOREGROUND, compare_summaries
from nnunet_attenscribble.evaluation.comparison_files import tabulate_confusion, write_rules
from nnunet_attenscribble.evaluation.metrics import StructureScores
from nnunet_attenscribble.evaluation.pooling import pool_runs
from nnunet_attenscribble.evaluation.structures import Structure
from nnunet_attenscribble.evaluation.summary import Summary, read_summary, tell_not_predicted, write_summary

NAN, INF = math.nan, math.inf
RV = Structure("RV", (1,))


def present(dice, distance=2.0):
    return StructureScores("present", dice, dice / (2 - dice), distance, distance / 2, 0.1, 90, 100)


MISSED = StructureScores("missed", 0.0, 0.0, INF, INF, -0.1, 0, 100)
ABSENT = StructureScores("absent", NAN, NAN, NAN, NAN, NAN, 0, 0)
SPURIOUS = StructureScores("spurious", 0.0, 0.0, INF, INF, 0.2, 20, 0)


def summary(cases, **changes):
    settings = {
        "shapes": dict.fromkeys(cases, (4, 5, 6)),
        "spacings": dict.fromkeys(cases, (10.0, 1.5, 1.5)),
        "provenance": {"predictions": f"of {', '.join(cases)}"},
    }
    return Summary((RV,), {case: {"RV": scores} for case, scores in cases.items()}, **(settings | changes))


def test_folds_are_put_together():
    one, two = (
        summary({case: present(dice)}, not_predicted=others, notes=(*tell_not_predicted(others), "note"))
        for case, dice, others in (("a", 0.8, ("b", "never")), ("b", 0.6, ("a", "never")))
    )
    pooled = pool_runs("model", [one, two])
    assert {case: scores["RV"].dice for case, scores in pooled.cases.items()} == {"a": 0.8, "b": 0.6}
    assert pooled.not_predicted == ("never",)
    assert pooled.notes == (*tell_not_predicted(["never"]), "note")
    assert pooled.provenance == {"predictions": "of a; of b"}
    for plans, told in ((("x", None), "x; unknown"), ((None, None), None), (("x", "x"), "x")):
        changes = ({"provenance": {"plans_sha256": value}} for value in plans)
        folds = [summary({case: present(0.8)}, **change) for case, change in zip("ab", changes, strict=True)]
        assert pool_runs("model", folds).provenance == {"plans_sha256": told}
    assert pooled.runs == ()
    assert pool_runs("model", [one]) == one


def test_seeds_are_averaged_case_by_case_before_anything_else():
    first = summary({"a": present(0.8, 2), "b": present(0.5, 4)})
    second = summary({"a": present(0.6, 3), "b": present(0.7, 8)})
    pooled = pool_runs("model", [first, second])
    assert pooled.cases["a"]["RV"].dice == pytest.approx(0.7)
    assert pooled.cases["b"]["RV"].hd95_mm == pytest.approx(6)
    assert [run.cases["a"]["RV"].dice for run in pooled.runs] == [0.8, 0.6]


def test_volumes_lesions_and_confusion_are_averaged(tmp_path):
    tables = [((5, 1), (1, 3)), ((6, 0), (0, 4))]
    runs = []
    for voxels, f1, table in zip((90, 91), (0.5, NAN), tables, strict=True):
        entry = replace(present(0.8), prediction_voxels=voxels, lesion_f1=f1, lesions_found=1 if f1 == 0.5 else 0,
                        lesions_missed=0, lesions_false=0)  # fmt: skip
        runs.append(summary({"a": entry}, confusions={"a": table}, lesions={"RV": 0.1}))
    pooled = pool_runs("model", runs)
    scores = pooled.cases["a"]["RV"]
    assert scores.volume_share == pytest.approx(0.905)
    assert (scores.lesion_f1, scores.lesions_found, scores.nsd) == (0.5, 0.5, None)
    assert pooled.confusions == {"a": ((5.5, 0.5), (0.5, 3.5))}
    write_summary(pooled, tmp_path)
    assert repr(read_summary(tmp_path)) == repr(replace(pooled, runs=()))
    # Results of an earlier version have none.
    runs[1] = replace(runs[1], confusions={})
    assert pool_runs("model", runs).confusions == {}
    folds = [summary({"a": present(0.8)}, confusions={"a": tables[0]}), summary({"b": present(0.7)})]
    assert pool_runs("model", folds).confusions == {}
    folds[1] = replace(folds[1], confusions={"b": tables[1]})
    assert pool_runs("model", folds).confusions == {"a": tables[0], "b": tables[1]}


def test_classes_are_told_apart_by_name_whatever_their_order():
    tables = {"a": ((8, 0, 0), (0, 2, 2), (0, 0, 4)), "b": ((8, 0, 0), (0, 4, 0), (0, 2, 2))}  # RV is called LV in both
    models = []
    for case, names in (("a", ("RV", "LV")), ("b", ("LV", "RV"))):
        models.append(
            Summary(
                tuple(Structure(name, (1 if name == "RV" else 2,)) for name in names),
                {case: {name: present(0.8) for name in names}},
                shapes={case: (4, 4)},
                spacings={case: (1.0, 1.0)},
                confusions={case: tables[case]},
            )
        )
    pooled = pool_runs("model", models)
    assert pooled.confusions == {"a": tables["a"], "b": tables["a"]}
    assert pooled.names == ["RV", "LV"]
    turned = replace(models[1], cases={"a": models[0].cases["a"]}, confusions={"a": tables["b"]},
                     shapes=models[0].shapes, spacings=models[0].spacings)  # fmt: skip
    header, rows = tabulate_confusion(compare_summaries({"own": turned, "other": models[0]}, "other"))
    assert header[2:] == ["as background", "as RV", "as LV"]
    for model in ("own", "other"):
        assert [row[1:] for row in rows if row[0] == model][1:] == [
            ["RV", "0.000", "0.500", "0.500"],
            ["LV", "0.000", "0.000", "1.000"],
        ]


def test_folds_and_seeds_in_any_order():
    runs = [summary({"a": present(0.8)}), summary({"a": present(0.6)}), summary({"b": present(0.5)}),
            summary({"b": present(0.9)})]  # fmt: skip
    for order in ((0, 1, 2, 3), (2, 0, 3, 1), (3, 1, 2, 0)):
        pooled = pool_runs("model", [runs[position] for position in order])
        assert {case: round(scores["RV"].dice, 6) for case, scores in pooled.cases.items()} == {"a": 0.7, "b": 0.7}
        assert len(pooled.runs) == 2
        assert all(set(run.cases) == {"a", "b"} for run in pooled.runs)


@pytest.mark.parametrize(
    ("scores", "status", "dice", "hd95", "volume"),
    [
        ((present(0.8), MISSED), "missed", 0.4, INF, 0.0),  # no run's failure is averaged away
        ((ABSENT, SPURIOUS), "spurious", 0.0, INF, 0.1),  # half of what one of two runs makes up, as its voxels are
        ((ABSENT, replace(SPURIOUS, volume_difference_ml=NAN)), "spurious", 0.0, INF, NAN),  # an image of two axes
        ((ABSENT, ABSENT), "absent", NAN, NAN, NAN),
        ((MISSED, MISSED), "missed", 0.0, INF, -0.1),
    ],
)
def test_empty_masks_in_some_runs(scores, status, dice, hd95, volume):
    own = pool_runs("model", [summary({"a": entry}) for entry in scores]).cases["a"]["RV"]
    assert own.status == status
    np.testing.assert_equal((own.dice, own.hd95_mm, own.volume_difference_ml), (dice, hd95, volume))


def test_the_comparison_tells_the_spread_over_seeds_and_tests_cases():
    cases = [f"c{index}" for index in range(6)]
    runs = [summary({case: present(level + index / 100) for index, case in enumerate(cases)}) for level in (0.6, 0.7)]
    dense = summary({case: present(0.9 - index / 50) for index, case in enumerate(cases)})
    comparison = compare_summaries({"model": pool_runs("model", runs), "dense": dense}, "dense", resamples=100)
    row = comparison.get("model", "RV", "dice")
    assert (row.n, row.pairs, row.runs) == (6, 6, 2)  # not twelve
    assert row.mean == pytest.approx(0.65 + 0.025)
    assert row.sd_runs == pytest.approx(np.std([0.625, 0.725], ddof=1))
    assert row.p == pytest.approx(2 / 64)
    assert math.isnan(comparison.get("dense", FOREGROUND, "dice").sd_runs)


def test_equal_results_of_trainings_that_are_told_apart_are_two_runs():
    cases = {"a": present(0.8), "b": MISSED}
    first, second, fold = (
        summary(cases, provenance={"seed": seed, "fold": fold}) for seed, fold in (("0", "0"), ("1", "0"), ("0", "1"))
    )
    assert pool_runs("model", [first, second, fold]).runs == (first, second, fold)
    for unknown in (summary(cases), summary(cases, provenance={"seed": "0", "fold": None})):
        with pytest.raises(AttenScribbleError, match="the same results twice, of the cases a, b"):
            pool_runs("model", [first, unknown])


def test_a_run_is_a_seed_whatever_the_order():
    summaries = [
        summary({case: present(dice)}, provenance={"seed": seed, "fold": fold})
        for seed, fold, case, dice in (
            ("0", "0", "a", 0.5),
            ("0", "1", "b", 0.6),
            ("1", "0", "a", 0.7),
            ("1", "1", "b", 0.9),
        )
    ]
    for order in ((0, 1, 2, 3), (0, 3, 2, 1), (2, 1, 0, 3)):
        runs = pool_runs("model", [summaries[position] for position in order]).runs
        assert [[run.cases[case]["RV"].dice for case in "ab"] for run in runs] == [[0.5, 0.6], [0.7, 0.9]]


def compare(own, dense, **settings):
    """Each by its runs; six cases c0 to c5 of which the last is what the runs say."""
    levels = {"model": 0.6, "dense": 0.8}
    pooled = {
        name: pool_runs(
            name,
            [
                summary(
                    {f"c{case}": present(levels[name] + run / 100, 3 - case / 9) for case in range(5)} | {"c5": last}
                )
                for run, last in enumerate(runs)
            ],
        )
        for name, runs in (("model", own), ("dense", dense))
    }
    return compare_summaries({name: replace(own, **settings) for name, own in pooled.items()}, "dense", resamples=50)


@pytest.mark.parametrize(
    ("own", "dense", "tested"),
    [
        ((present(0.6), present(0.5)), (present(0.7),), {"dice", "hd95_mm"}),
        ((present(0.6), MISSED), (present(0.7), present(0.8)), {"dice", "hd95_mm"}),
        ((present(0.6), MISSED), (present(0.7),), {"dice"}),
        ((present(0.6), present(0.5)), (MISSED,), {"dice"}),
        ((ABSENT, ABSENT), (SPURIOUS,), set()),
    ],
)
def test_what_more_runs_make_worse_is_not_tested(own, dense, tested):
    comparison = compare(own, dense)
    for structure in ("RV", FOREGROUND):
        rows = [comparison.get("model", structure, metric) for metric in ("dice", "hd95_mm")]
        assert {row.metric for row in rows if not math.isnan(row.p)} == tested
    refused = {"distances": "hd95_mm", "Dice and IoU": "dice"}
    for what, metric in refused.items():
        told = [note for note in comparison.notes if f"so there is no test of {what}" in note]
        assert len(told) == (metric not in tested)
        assert all(
            note.startswith(f"model stands for {counted(len(own), 'run')} and dense for {len(dense)}, and RV")
            for note in told
        )
    assert set(comparison.notes) <= set(write_rules(comparison))


def test_absent_organs_of_dice_0_are_tested_with_any_number_of_runs():
    zero = replace(ABSENT, dice=0.0, iou=0.0)
    comparison = compare((zero, SPURIOUS), (zero,), protocol="acdc-wsl4mis")
    assert not math.isnan(comparison.get("model", "RV", "dice").p)
    assert comparison.notes == ()


def test_organs_that_some_runs_made_up_are_told():
    assert compare((SPURIOUS, SPURIOUS), (ABSENT, ABSENT)).notes == ()
    for own, dense, name in (
        ((ABSENT, SPURIOUS), (ABSENT, ABSENT), "model"),
        ((ABSENT, ABSENT), (SPURIOUS, ABSENT), "dense"),
    ):
        (note,) = compare(own, dense).notes
        assert note.startswith(f"Some of the 2 runs of {name}, but not all, falsely found RV")


def test_what_cannot_be_pooled_is_told():
    whole = summary({"a": present(0.8), "b": present(0.6)})
    with pytest.raises(AttenScribbleError, match="the same results twice, of the cases a, b"):
        pool_runs("model", [whole, replace(whole)])
    with pytest.raises(AttenScribbleError, match=r"2 summaries of some cases and fewer of others \(b\)"):
        pool_runs("model", [whole, summary({"a": present(0.7)})])
    with pytest.raises(AttenScribbleError, match="different definitions"):
        pool_runs("model", [whole, replace(whole, hd95="union")])
    other_truth = summary({"a": replace(present(0.7), dense_voxels=50), "b": present(0.5)})
    with pytest.raises(AttenScribbleError, match=r"different dense labels in 1 case \(a\)"):
        pool_runs("model", [whole, other_truth])


def test_scores_of_no_case_are_refused():
    with pytest.raises(AttenScribbleError, match="model: holds the scores of no case"):
        pool_runs("model", [summary({})])
