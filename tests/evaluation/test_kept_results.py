"""docs/results.md tells what the scores in benchmarks/results give."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_attenscribble.evaluation.compare import compare_summaries
from nnunet_attenscribble.evaluation.comparison_files import WRITERS
from nnunet_attenscribble.evaluation.pooling import pool_runs
from nnunet_attenscribble.evaluation.summary import read_summary

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "benchmarks" / "results"
REFERENCE = "nnU-Net, dense labels"


def tables(benchmark: str, subject: str | None) -> list[str]:
    """The rows of the first two tables: all metrics, and the Dice of every structure."""
    summaries: dict[str, list] = {}
    for file in sorted((KEPT / benchmark).rglob("attenscribble_summary.json")):
        summary = read_summary(file.parent)
        summaries.setdefault(summary.provenance["row"], []).append(summary)
    pooled = {row: pool_runs(row, own) for row, own in summaries.items()}
    comparison = compare_summaries(pooled, REFERENCE, subject=subject)
    text = "\n#### ".join(WRITERS[".md"](comparison).split("\n#### ")[:2])
    return [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]


@pytest.mark.parametrize(("benchmark", "subject"), [("acdc_cpu", "patient[0-9]+")])
def test_the_document_has_the_tables_of_the_kept_scores(benchmark, subject):
    document = (ROOT / "docs" / "results.md").read_text()
    rows = tables(benchmark, subject)
    assert len(rows) > 4
    assert [row for row in rows if row not in document] == []
