"""docs/results.md tells what the scores in benchmarks/results give."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nnunet_attenscribble.cli.app import app
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


def test_the_commands_of_the_document_give_its_differences(monkeypatch):
    document = (ROOT / "docs" / "results.md").read_text()
    monkeypatch.chdir(KEPT / "acdc_cpu" / "seed_0" / "fold_0")
    commands = [shlex.split(line) for line in document.splitlines() if line.startswith("attenscribble compare ")]
    told = [
        ["+0.121 | [0.088, 0.160]", "RV +0.225", "MYO +0.043", "LV +0.096"],
        ["-0.003 | [-0.021, 0.017]", "MYO -0.021"],
    ]
    for command, figures in zip(commands, told, strict=True):
        result = CliRunner().invoke(app, command[1:])
        assert result.exit_code == 0, result.output
        rows = [line for line in result.output.splitlines() if line.startswith("| AttenScribble |")]
        for figure in figures:
            structure, _, value = figure.rpartition(" ") if "|" not in figure else ("foreground mean", "", figure)
            assert any(f"| {structure} | {value.replace(' | ', ' ')}" in row for row in rows), figure
            assert value.split(" ")[0] in document
