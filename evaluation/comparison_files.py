"""A comparison as Markdown to read, as CSV and JSON to compute with."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict, fields

from nnunet_attenscribble.evaluation.aggregate import RULES
from nnunet_attenscribble.evaluation.compare import FOREGROUND, TESTED_METRICS, Comparison, ComparisonRow
from nnunet_attenscribble.evaluation.metrics import HD95_DEFINITIONS
from nnunet_attenscribble.evaluation.summary import encode_numbers
from nnunet_attenscribble.evaluation.tables import format_markdown, format_mean_sd, format_number

__all__ = ["WRITERS", "to_csv", "to_json", "to_markdown"]

_TITLES = {"dice": ("Dice", 3), "hd95_mm": ("HD95 (mm)", 2), "assd_mm": ("ASSD (mm)", 2)}


def to_markdown(comparison: Comparison) -> str:
    """Tables of means, of structures and of differences, and the rules they were made by."""
    level = f"{100 * comparison.confidence:g} %"
    subjects = "" if comparison.subjects == len(comparison.cases) else f" of {comparison.subjects} subjects"
    cases = f"{len(comparison.cases)} cases{subjects}"
    parts = [
        f"### Compared with {comparison.reference} on the same {cases}",
        _tabulate_means(comparison, level),
        *(
            f"#### {title}, mean ± SD over cases\n\n{_tabulate_structures(comparison, metric, decimals)}"
            for metric, (title, decimals) in _TITLES.items()
        ),
        f"#### Difference from {comparison.reference} [{level} interval], p of Wilcoxon's test, p after Holm\n\n"
        + _tabulate_differences(comparison),
        "#### How to read this\n\n" + "\n".join(f"- {line}" for line in _write_rules(comparison)),
    ]
    return "\n\n".join(parts) + "\n"


def to_csv(comparison: Comparison) -> str:
    """One row per model, structure and metric; the columns are the fields of `ComparisonRow`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [column.name for column in fields(ComparisonRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in comparison.rows)
    return text.getvalue()


def to_json(comparison: Comparison) -> str:
    """The same rows, with the rules and the settings; NaN is null and infinity "inf"."""
    content = {
        "schema": "nnunet-attenscribble/comparison",
        "schema_version": 1,
        **asdict(comparison),
        "rules": {**RULES, "comparison": _write_rules(comparison)},
        "rows": [asdict(row) for row in comparison.rows],
    }
    return json.dumps(encode_numbers(content), indent=2, allow_nan=False) + "\n"


WRITERS = {".md": to_markdown, ".csv": to_csv, ".json": to_json}


def _tabulate_means(comparison: Comparison, level: str) -> str:
    header = ["model", f"Dice [{level} interval]", f"share of {comparison.reference}", "HD95 (mm)", "ASSD (mm)"]
    rows = []
    for model in comparison.models:
        dice, hd95, assd = (comparison.get(model, FOREGROUND, metric) for metric in _TITLES)
        rows.append(
            [
                model,
                f"{format_number(dice.mean, 3)} {_format_interval(dice.low, dice.high, 3)}",
                _format_share(dice.share),
                format_number(hd95.mean, 2),
                format_number(assd.mean, 2),
                str(dice.missed),
                str(dice.spurious),
            ]
        )
    return format_markdown([*header, "missed", "spurious"], rows)


def _tabulate_structures(comparison: Comparison, metric: str, decimals: int) -> str:
    rows = []
    for model in comparison.models:
        cells = [model]
        for structure in (*comparison.structures, FOREGROUND):
            row = comparison.get(model, structure, metric)
            cell = format_mean_sd(row.mean, row.sd, decimals)
            if metric == "dice" and model != comparison.reference:
                cell += f" ({_format_share(row.share)})"
            # The counts stand where they are needed to read the number: a mean distance is over the organs found.
            counts = [
                f"{count} {name}" for count, name in ((row.missed, "missed"), (row.spurious, "spurious")) if count
            ]
            cells.append(cell + (f" ({', '.join(counts)})" if counts and metric != "dice" else ""))
        rows.append(cells)
    return format_markdown(["model", *comparison.structures, FOREGROUND], rows)


def _tabulate_differences(comparison: Comparison) -> str:
    rows = []
    for model in comparison.models[1:]:
        for structure in (*comparison.structures, FOREGROUND):
            cells = [model, structure]
            for metric, (_, decimals) in _TITLES.items():
                row = comparison.get(model, structure, metric)
                interval = _format_interval(row.difference_low, row.difference_high, decimals)
                difference = "n/a" if math.isnan(row.difference) else f"{row.difference:+.{decimals}f} {interval}"
                cells += [difference, f"{_format_p(row.p)}, {_format_p(row.p_holm)}"]
            rows.append(cells)
    header = [cell for title, _ in _TITLES.values() for cell in (title, "p, p Holm")]
    return format_markdown(["model", "structure", *header], rows)


def _write_rules(comparison: Comparison) -> list[str]:
    unit = "cases" if comparison.subjects == len(comparison.cases) else "subjects, with all their cases"
    return [
        f"HD95 is {HD95_DEFINITIONS[comparison.hd95]}.",
        *comparison.notes,
        RULES["absent"],
        f"{RULES['missed']} {RULES['spurious']}",
        RULES["mean"],
        f"{FOREGROUND}: {RULES['foreground_mean']}",
        f"Share: the mean Dice in per cent of that of {comparison.reference}.",
        f"Intervals: {comparison.resamples} bootstrap draws of {unit}, percentiles, seed {comparison.seed}. They hold "
        "the chance of these test cases, not that of another training run.",
        "Differences in distance are over the organs that both models found, so they can differ from the difference of "
        "the means above.",
        f"p: Wilcoxon's signed-rank test, two-sided, on one difference per {unit.split(',')[0][:-1]}; a missed or "
        "spurious organ ranks as the worst difference there is. Holm's correction is over all tests of one metric "
        f"({len(TESTED_METRICS)} metrics are tested).",
    ]


def _format_interval(low: float, high: float, decimals: int) -> str:
    return f"[{format_number(low, decimals)}, {format_number(high, decimals)}]"


def _format_share(share: float) -> str:
    return "n/a" if math.isnan(share) else f"{share:.1f} %"


def _format_p(p: float) -> str:
    return "n/a" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"
