"""Dice against annotation in docs/results.md, from the kept scores: `python -m tools.site.budget_picture`."""

from __future__ import annotations

from pathlib import Path

from nnunet_attenscribble.common.figures import encode_png
from nnunet_attenscribble.common.files import replaced_file
from nnunet_attenscribble.evaluation.compare import FOREGROUND
from nnunet_attenscribble.evaluation.report.scores import draw_budgets
from tools.site.results_tables import BUDGETS, ROOT, list_budgets

FILE = ROOT / "docs" / "images" / "hippocampus_budget.png"


def draw(results: str, file: Path = FILE) -> None:
    """Draw the Dice of an experiment's rows against the slices that were annotated."""
    points, comparison = list_budgets(results)
    dense = comparison.get(comparison.reference, FOREGROUND, "dice").mean
    with replaced_file(file) as part:
        part.write_bytes(encode_png(draw_budgets(points, "slices", dense)))


if __name__ == "__main__":
    draw(BUDGETS)
