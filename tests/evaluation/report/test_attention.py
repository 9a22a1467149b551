"""The attention block in a report, from toy views."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest

from nnunet_attenscribble.common.figures import encode_png
from nnunet_attenscribble.common.grids import Grid
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.attention_folder import (
    PairMean,
    SimilarityMean,
    average_pairs,
    read_record,
)
from nnunet_attenscribble.evaluation.report.attention import draw_view, list_panels, read_view, turn_view, write_view
from nnunet_attenscribble.evaluation.report.build import write_report
from tests.evaluation.collected_folder import BLOCK, make_view, read_csv, write_attention


def test_a_view_is_read_as_it_was_written(tmp_path):
    view = make_view("p1")
    write_view(view, tmp_path / "p1.npz")
    again = read_view(tmp_path / "p1.npz")
    assert (again.case, again.structure, again.position, again.cells, again.plane) == ("p1", "RV", (0, 1), 18, 1)
    assert again.spacing == (2.0, 1.0)
    for name in ("image", "attention", "similarity"):
        np.testing.assert_array_equal(getattr(again, name), getattr(view, name))


@pytest.mark.parametrize("damage", ["text", "shape", "missing", "cut", "empty", "flipped"])
def test_what_is_no_view_is_told(tmp_path, damage):
    file = tmp_path / "p1.npz"
    write_view(make_view("p1"), file)
    if damage == "text":
        file.write_text("nothing")
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "flipped":  # within the first compressed array
        content = file.read_bytes()
        start = content.index(b".npy") + 30
        file.write_bytes(
            content[:start] + bytes(255 - value for value in content[start : start + 40]) + content[start + 40 :]
        )
    else:
        with np.load(file) as content:
            arrays = dict(content)
        if damage == "shape":
            arrays["attention"] = np.zeros((2, 2), np.float32)
        else:
            del arrays["position"]
        np.savez(file, **arrays)
    with pytest.raises(AttenScribbleError, match=r"p1\.npz cannot be read as a view"):
        read_view(file)


def test_panels_are_those_that_there_are():
    view = make_view("p1")
    assert list_panels(view) == ["scan", "attention", "similarity"]
    assert list_panels(make_view("p1", similarity=False)) == ["scan", "attention"]
    assert encode_png(draw_view(view)) == encode_png(draw_view(make_view("p1")))
    assert encode_png(draw_view(view)) != encode_png(draw_view(make_view("p2")))


def test_means_over_cases_by_hand(tmp_path):
    write_attention(tmp_path / "attention")
    cases, pairs = read_record(tmp_path / "attention")
    assert cases == ["p1", "p2"]
    same, structure, different, adjacent = average_pairs(pairs)
    # Case p1: (30 * 0.6 + 10 * 0.8) / 40 = 0.65; case p2: 0.45.
    assert (same.neighbours, same.pairs, same.cases) == ("window", "same class", 2)
    assert same.mean == pytest.approx(0.55)
    assert same.sd == pytest.approx(0.2 / math.sqrt(2))
    assert (structure.pairs, structure.cases, structure.mean) == ("same structure", 1, pytest.approx(0.8))
    assert math.isnan(structure.sd)
    assert (different.pairs, different.mean) == ("different classes", pytest.approx(0.3))
    assert (adjacent.neighbours, adjacent.pairs, adjacent.mean) == ("adjacent", "different classes", 0.35)
    assert average_pairs([]) == []
    # Two trainings on one case are averaged before cases are.
    twice = [PairMean("a", "window", "RV", "RV", 1, value) for value in (0.2, 0.4)]
    (mean,) = average_pairs([*twice, PairMean("b", "window", "LV", "LV", 9, 0.9)])[:1]
    assert mean == SimilarityMean("window", "same class", 2, pytest.approx(0.6), pytest.approx(0.6 / math.sqrt(2)))


@pytest.mark.parametrize("content", ["", "[]", '{"schema": "x", "schema_version": 1}'])
def test_a_damaged_record_is_told(tmp_path, content):
    write_attention(tmp_path / "attention")
    (tmp_path / "attention" / "attention.json").write_text(content)
    with pytest.raises(AttenScribbleError, match="run `attenscribble attention` again"):
        read_record(tmp_path / "attention")


def test_numbers_of_the_pictures(report):
    cells = read_csv(report / "data" / "attention.csv")
    # The median case is p3, of which there is no view: the first one is shown.
    assert {(entry["row"], entry["case"], entry["plane"], entry["structure"]) for entry in cells} == {
        (BLOCK, "p1", "2", "RV")
    }
    view = make_view("p1")
    assert [float(entry["attention"]) for entry in cells] == pytest.approx(view.attention.ravel().tolist())
    assert [entry["similarity"] for entry in cells] == ["0.8999999761581421", "", "0.25", "", "0.5", ""]
    assert {(entry["position_row"], entry["position_column"]) for entry in cells} == {("0", "1")}


def test_similarities_are_tabulated_over_repetitions(report):
    means = {
        (entry["neighbours"], entry["pairs"]): entry for entry in read_csv(report / "data" / "similarity_means.csv")
    }
    assert float(means["window", "same class"]["mean"]) == pytest.approx(0.6)  # half-way between the two repetitions
    assert float(means["window", "different classes"]["mean"]) == pytest.approx(0.35)
    assert len(read_csv(report / "data" / "similarity_pairs.csv")) == 2 * 5
    text = (report / "report.md").read_text(encoding="utf-8")
    shown = BLOCK.replace("<", "\\<")
    assert f"| {shown} | in the window | 0.600 ± 0.141 | 0.850 | 0.350 |" in text
    assert f"| {shown} | that touch | n/a | n/a | 0.400 |" in text


def test_the_scan_is_left_out_where_scans_are(collected, tmp_path):
    write_report(collected, tmp_path / "out", scans=False)
    shown = {file.stem for file in (tmp_path / "out" / "figures").iterdir() if file.stem.startswith("attention")}
    assert shown == {"attention_method_new_attention", "attention_method_new_similarity"}


def test_what_was_not_drawn_is_told(tmp_path, folder):
    shutil.rmtree(folder / "cells" / "seed_0" / "fold_0" / "method_new" / "attention")
    write_report(folder, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "Not drawn yet: Method \\<new>." in text
    content = json.loads((folder / "collected.json").read_text())
    for row in content["rows"]:
        row["budget"] = None  # of a row that nnU-Net was not asked about
    (folder / "collected.json").write_text(json.dumps(content))
    write_report(folder, tmp_path / "unknown")
    assert "Not drawn yet" not in (tmp_path / "unknown" / "report.md").read_text(encoding="utf-8")


def test_a_view_is_turned_with_everything_in_it():
    view = make_view("p1")
    direction = (-1.0, 0, 0, 0, -1, 0, 0, 0, 1)  # to the right and the front
    turned = turn_view(view, 0, Grid((24, 20, 3), (1.0, 2.0, 10.0), (0.0, 0.0, 0.0), direction))
    for name in ("image", "attention", "similarity"):
        np.testing.assert_array_equal(getattr(turned, name), getattr(view, name)[::-1, ::-1])
    assert (turned.position, turned.spacing) == ((1, 1), (2.0, 1.0))
    assert turn_view(view, 0, None).position == view.position
