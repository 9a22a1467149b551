from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from nnunet_attenscribble.common.figures import encode_png
from nnunet_attenscribble.evaluation.annotation import ANNOTATED, Annotation
from nnunet_attenscribble.evaluation.compare import FOREGROUND
from nnunet_attenscribble.evaluation.report.data import read_collected
from nnunet_attenscribble.evaluation.report.scores import (
    BudgetPoint,
    describe_annotation_section,
    draw_budgets,
    list_points,
)

DENSE, FEW, ALL = "Dense & full", "Partial CE", "Method <new>"


@pytest.fixture(scope="module")
def collected(collected):
    return read_collected(collected)


def annotate(data, told: dict[str, list[tuple]]):
    """The two rows on scribbles with these figures, one per training."""
    left = {row: list(values) for row, values in told.items()}
    cells = []
    for cell in data.cells:
        values = left[cell.row].pop(0) if left.get(cell.row) else None
        if values is not None:
            provenance = dict(zip(ANNOTATED.values(), map(str, values), strict=True))
            summary = replace(cell.summary, provenance={**cell.summary.provenance, **provenance})
            cell = replace(cell, summary=summary)
        cells.append(cell)
    return replace(data, cells=tuple(cells))


def test_rows_of_a_trainer_are_a_curve_with_the_numbers_beside_it(collected):
    data = annotate(collected, {FEW: [(10, 0.01, 3, 1), (30, 0.03, 5, 3)], ALL: [(100, 0.1, 8, 4), (100, 0.1, 8, 4)]})
    (part,) = describe_annotation_section(data).parts
    assert [picture.name for picture in part.pictures] == [
        *("annotation_share", "annotation_voxels", "annotation_strokes", "annotation_slices")
    ]
    rows = list(csv.DictReader(io.StringIO(part.files["annotation.csv"])))
    assert [(row["row"], row["method"], row["annotated_voxels"], row["annotated_slices"]) for row in rows] == [
        (FEW, FEW, "20.0", "2.0"),  # the mean over its trainings
        (ALL, FEW, "100.0", "4.0"),  # the same trainer: the first row's name
        (DENSE, DENSE, "", ""),
    ]
    for row in rows:
        assert float(row["dice"]) == data.comparison.get(row["row"], FOREGROUND, "dice").mean
    axes = part.pictures[0].draw().axes[0]
    (curve,) = axes.containers
    assert list(curve.lines[0].get_xdata()) == [2.0, 10.0]  # per cent
    assert axes.get_xscale() == "log"
    (dense,) = (line for line in axes.lines if line.get_linestyle() == ":")
    assert dense.get_ydata()[0] == data.comparison.get(DENSE, FOREGROUND, "dice").mean
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["dense labels", FEW]
    assert encode_png(part.pictures[3].draw()).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("row", "method"),
    [("CRF", "CRF"), ("CRF (few)", "CRF"), ("CRF (few, 2d)", "CRF (2d)"), ("CRF (half)", "CRF (half)")],
)
def test_a_method_is_called_as_its_rows_without_their_scribbles(collected, row, method):
    told = {"labels": "few", **dict(zip(ANNOTATED.values(), "1234", strict=True))}
    models = tuple(row if model == FEW else model for model in collected.comparison.models)
    rows = tuple(replace(one, model=row) if one.model == FEW else one for one in collected.comparison.rows)
    (point,) = list_points(replace(collected.comparison, models=models, rows=rows), {row: [told, told]})
    assert (point.row, point.method, point.annotation.voxels) == (row, method, 1.0)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {FEW: [(10, 0.01, 3, 1)] * 2, ALL: [(10, 0.01, 3, 1)] * 2},
        {FEW: [(10, 0.01, 3, 1)] * 2, ALL: [(20, 0.02, 3, 1)]},
    ],
    ids=["nothing is told", "all have the same", "a training does not tell"],
)
def test_without_several_budgets_there_is_no_curve(collected, told):
    assert describe_annotation_section(annotate(collected, told)).parts == []


def test_numbers_stand_apart_and_without_exponents():
    annotations = [Annotation(voxels, voxels / 1e6, 1, 1) for voxels in (0, 120, 122, 2420, 40000)]
    axes = draw_budgets([BudgetPoint("a", "_a", told, 0.5, 0.4, 0.6) for told in annotations], "voxels", 0.8).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["120", "2,420", "40,000"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["dense labels", " _a"]
