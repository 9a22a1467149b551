"""The table and the picture of Dice against annotation, from kept scores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nnunet_attenscribble.evaluation.annotation import ANNOTATED
from nnunet_attenscribble.evaluation.kept_scores import read_kept, write_kept
from tools.site import results_tables


@pytest.fixture
def results(tmp_path, monkeypatch) -> str:
    """An experiment of the kept scores of another one; a row of fewer strokes has those of another row."""
    kept = read_kept(results_tables.RESULTS / "hippocampus_cpu")
    dense, every, other = (
        kept[f"seed_0/fold_0/{row}"] for row in (results_tables.DENSE, "masked_crf", "attenscribble")
    )

    def tell(summary, values, **changes):
        told = dict(zip(ANNOTATED.values(), values, strict=True))
        return replace(summary, provenance={**summary.provenance, **told, **changes})

    few = {"row": "Masked CRF (tenth)", "labels": "tenth", "trainer": every.provenance["trainer"]}
    found = {
        results_tables.DENSE: dense,
        "masked_crf_tenth": tell(other, ("400", "0.00625", "12", "3.5"), **few),
        "masked_crf": tell(every, ("4000", "0.0625", "120", "35")),
    }
    write_kept(tmp_path / "budget", {f"seed_0/fold_0/{row}": summary for row, summary in found.items()})
    monkeypatch.setattr(results_tables, "RESULTS", tmp_path)
    for cached in (results_tables._read, results_tables.load, results_tables.compare):
        cached.cache_clear()
    yield "budget"
    for cached in (results_tables._read, results_tables.load, results_tables.compare):
        cached.cache_clear()


def test_the_table_tells_annotation_above_dice(results):
    header, _, strokes, voxels, crf, dense = (
        line.split("|")[1:-1] for line in results_tables.tabulate_budgets(results).splitlines()
    )
    assert header == ["slices drawn on, a case", "3.5", "35.0", "all, densely"]
    assert strokes == ["strokes", "12", "120", ""]
    assert voxels == ["voxels %", "0.62", "6.25", ""]
    _, comparison = results_tables.list_budgets(results)
    means = {
        name: f"{comparison.get(name, results_tables.FOREGROUND, 'dice').mean:.3f}"
        for name in ("Masked CRF (tenth)", "Masked CRF", comparison.reference)
    }
    assert [cell.split(" [")[0] for cell in crf] == ["Masked CRF", means["Masked CRF (tenth)"], means["Masked CRF"], ""]
    assert [cell.split(" [")[0] for cell in dense] == [comparison.reference, "", "", means[comparison.reference]]


def test_the_picture_is_one_curve_and_small(results, tmp_path):
    points, _ = results_tables.list_budgets(results)
    assert {(point.row, point.method) for point in points} == {
        *(("Masked CRF", "Masked CRF"), ("Masked CRF (tenth)", "Masked CRF"))
    }
    results_tables.draw_picture(results, tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) < 60_000
