import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.metrics import METRICS, StructureScores
from nnunet_attenscribble.evaluation.structures import Structure
from nnunet_attenscribble.evaluation.summary import METRICS_FILE, SUMMARY_FILE, Summary, read_summary, write_summary

NAN, INF = math.nan, math.inf


@pytest.fixture
def summary():
    return Summary(
        structures=(Structure("RV", (1,)), Structure("heart, whole", (1, 2))),
        cases={
            "a": {
                "RV": StructureScores("missed", 0.0, 0.0, INF, INF, -0.5, 0, 25),
                "heart, whole": StructureScores("present", 0.1 + 0.2, 0.25, 3.5, 1 / 3, 0.5, 75, 50),
            },
            "b": {
                "RV": StructureScores("absent", NAN, NAN, NAN, NAN, NAN, 0, 0),
                "heart, whole": StructureScores("present", 1.0, 1.0, 0.0, 0.0, 0.0, 50, 50),
            },
        },
        shapes={"a": (3, 4, 5), "b": (3, 4, 5)},
        spacings={"a": (10.0, 2.0, 1.0), "b": (10.0, 2.0, 1.5625)},
        hd95="union",
        not_predicted=("c",),
        notes=("Mind the gap.",),
        provenance={"predictions": "p", "plans_sha256": None},
        versions={"nnunet-attenscribble": "0.0"},
    )


def test_what_is_written_is_read(tmp_path, summary):
    files = write_summary(summary, tmp_path / "new" / "folder")
    assert [file.name for file in files] == [SUMMARY_FILE, METRICS_FILE]
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == sorted([SUMMARY_FILE, METRICS_FILE])
    for path in (files[0], files[0].parent):
        again = read_summary(path)
        assert repr(again) == repr(summary)  # NaN is not equal to itself, but reads the same


def test_json_is_standard_and_tells_its_rules(tmp_path, summary):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = write_summary(summary, tmp_path)[0].read_text(encoding="utf-8")
    content = json.loads(text, parse_constant=refuse)
    assert (content["schema"], content["schema_version"]) == ("nnunet-attenscribble/evaluation", 1)
    assert content["package_version"] == "0.0"
    assert content["protocol"] == "default"
    assert content["hd95"] == {
        "name": "union",
        "definition": "the 95th percentile of the distances of both directions pooled (MedPy, WSL4MIS)",
    }
    assert {"absent", "missed", "spurious", "mean", "median", "foreground_mean"} <= set(content["rules"])
    assert content["structures"] == [{"name": "RV", "values": [1]}, {"name": "heart, whole", "values": [1, 2]}]
    case = content["cases"][0]
    assert (case["case"], case["shape"], case["spacing_mm"]) == ("a", [3, 4, 5], [10.0, 2.0, 1.0])
    assert case["structures"]["RV"] == {
        "status": "missed",
        "dice": 0.0,
        "iou": 0.0,
        "hd95_mm": "inf",
        "assd_mm": "inf",
        "volume_difference_ml": -0.5,
        "prediction_voxels": 0,
        "dense_voxels": 25,
        "volume_share": 0.0,
    }
    assert content["cases"][1]["structures"]["RV"]["dice"] is None
    rv = content["aggregate"]["structures"]["RV"]
    assert (rv["missed"], rv["absent"]) == (1, 1)
    assert rv["hd95_mm"] == {"n": 0, "infinite": 1, "mean": None, "sd": None, "median": "inf"}
    assert content["not_predicted"] == ["c"]


def test_csv_has_a_row_per_case_and_structure(tmp_path, summary):
    with write_summary(summary, tmp_path)[1].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("case", "label", "values", "status", "dice", "iou", "hd95_mm", "assd_mm", "volume_difference_ml"),
        *("prediction_voxels", "dense_voxels", "volume_share"),
        *("seed", "fold", "plans_sha256", "commit_training", "commit", "versions"),
    ]
    assert {(row["plans_sha256"], row["versions"]) for row in rows} == {("", "nnunet-attenscribble 0.0")}
    assert [(row["case"], row["label"], row["values"]) for row in rows] == [
        ("a", "RV", "1"),
        ("a", "heart, whole", "1+2"),
        ("b", "RV", "1"),
        ("b", "heart, whole", "1+2"),
    ]
    assert rows[0]["hd95_mm"] == "inf"
    assert math.isnan(float(rows[2]["dice"]))
    assert float(rows[1]["assd_mm"]) == 1 / 3  # nothing is rounded


@pytest.fixture
def full():
    """Everything that can be asked for; lesions of one of two structures."""
    scores = {
        "RV": StructureScores("present", 0.8, 2 / 3, 2.0, 1.0, 0.1, 50, 40, 0.75, 0.5, 1, 2, 0),
        "LV": StructureScores("absent", NAN, NAN, NAN, NAN, NAN, 0, 0, NAN),
    }
    return Summary(
        structures=(Structure("RV", (1,)), Structure("LV", (2, 3))),
        cases={"a": scores},
        shapes={"a": (3, 4, 5)},
        spacings={"a": (10.0, 2.0, 1.0)},
        nsd_mm=2.0,
        lesions={"RV": 0.1},
        confusions={"a": ((9, 11, 0), (1, 39, 0), (0, 0, 0))},
    )


def test_what_was_asked_for_is_written_and_read(tmp_path, full):
    files = write_summary(full, tmp_path)
    assert repr(read_summary(tmp_path)) == repr(full)
    content = json.loads(files[0].read_text())
    assert content["classes"] == ["background", "RV", "LV"]
    assert (content["nsd"]["tolerance_mm"], content["lesions"]["iou"]) == (2.0, {"RV": 0.1})
    assert content["aggregate"]["structures"]["RV"]["volume_share"]["median"] == 1.25
    assert content["aggregate"]["foreground_mean"]["lesion_f1"]["mean"] == 0.5
    rv, lv = csv.DictReader(files[1].read_text().splitlines())
    assert [rv[name] for name in ("volume_share", "nsd", "lesion_f1", "lesions_missed")] == ["1.25", "0.75", "0.5", "2"]
    assert [rv[name] for name in ("from_background", "to_background", "to_RV", "to_LV")] == ["11", "1", "39", "0"]
    assert [lv[name] for name in ("volume_share", "nsd", "lesion_f1", "lesions_found")] == ["nan", "nan", "", ""]


def test_a_summary_of_an_earlier_version_is_read(tmp_path, full):
    file = write_summary(replace(full, nsd_mm=None, lesions={}), tmp_path)[0]
    content = json.loads(file.read_text())
    del content["classes"], content["cases"][0]["confusion"]
    for scores in content["cases"][0]["structures"].values():
        del scores["volume_share"]
    file.write_text(json.dumps(content))
    found = read_summary(file)
    assert (found.classes, found.metrics) == ((), METRICS)
    assert found.cases["a"]["RV"].volume_share == 1.25


def test_a_damaged_confusion_or_score_is_refused(tmp_path, full):
    file = write_summary(full, tmp_path)[0]
    content = json.loads(file.read_text())
    for damage in ("confusion", "nsd", "lesion_f1"):
        damaged = json.loads(json.dumps(content))
        if damage == "confusion":
            damaged["cases"][0]["confusion"].pop()
        else:
            del damaged["cases"][0]["structures"]["RV"][damage]
        file.write_text(json.dumps(damaged))
        with pytest.raises(AttenScribbleError, match="is damaged"):
            read_summary(file)


def test_a_definition_that_nobody_knows_is_refused(tmp_path, full):
    file = write_summary(full, tmp_path)[0]
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"hd95": {"name": "mine", "definition": ""}}))
    with pytest.raises(AttenScribbleError, match=r"'hd95\.name' is 'mine': it must be monai or union, or null"):
        read_summary(file)


def test_results_of_an_earlier_run_are_replaced_whole(tmp_path, summary):
    (tmp_path / SUMMARY_FILE).write_text("old " * 10_000)
    write_summary(summary, tmp_path)
    assert read_summary(tmp_path).hd95 == "union"
    assert len(list(tmp_path.iterdir())) == 2


def test_where_one_file_cannot_be_written_both_stay_as_they_were(tmp_path, summary, monkeypatch):
    write_summary(summary, tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    calls = []

    def write_text(file, *arguments, **options):
        calls.append(file)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return really(file, *arguments, **options)

    really = Path.write_text
    monkeypatch.setattr(Path, "write_text", write_text)
    with pytest.raises(AttenScribbleError, match="json: cannot be written"):
        write_summary(replace(summary, hd95="monai", cases=dict(reversed(summary.cases.items()))), tmp_path)
    assert len(calls) == 2
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_what_is_refused(tmp_path, summary):
    with pytest.raises(AttenScribbleError, match=rf"no {SUMMARY_FILE} at .*: run `attenscribble evaluate` first"):
        read_summary(tmp_path)
    own = tmp_path / "summary.json"
    own.write_text(json.dumps({"foreground_mean": {}, "mean": {}, "metric_per_case": []}))
    with pytest.raises(AttenScribbleError, match=r"the summary.json there is nnU-Net's own"):
        read_summary(tmp_path)
    with pytest.raises(
        AttenScribbleError, match=r"summary.json is nnU-Net's own summary, .* run `attenscribble evaluate`"
    ):
        read_summary(own)

    file = write_summary(summary, tmp_path)[0]
    content = json.loads(file.read_text())
    for change, message in (
        ({"schema": "other"}, "is not a summary"),
        ({"schema_version": 2}, "has schema version 2, this program reads 1"),
        ({"cases": [{"case": "a"}]}, r"has no 'cases\[0\].shape': it must be a list"),
        ({"notes": 1}, "'notes' is 1: it must be a list"),
        ({"cases": content["cases"][:1] * 2}, "a case stands twice"),
        ({"cases": [content["cases"][0] | {"shape": [4, 5]}]}, "shape and spacing have not as many axes"),
        *(
            ({"cases": [content["cases"][0] | {"confusion": [[voxels]]}]}, rf"confusion\[0\]\[0\]' is {voxels}")
            for voxels in (-0.5, INF, None)
        ),
    ):
        file.write_text(json.dumps(content | change))
        with pytest.raises(AttenScribbleError, match=message):
            read_summary(file)
    for text, message in (("{", "is no JSON"), ("[]", "is not a summary")):
        file.write_text(text)
        with pytest.raises(AttenScribbleError, match=message):
            read_summary(file)
