"""The tables of README.md and docs: of scores, computed from those kept in `results`, and of settings; and a picture.

`python -m tools.site.results_tables` writes them anew; a test tells when tables have drifted. A table stands between
two marks, `<!-- generated: NAME -->` and `<!-- end -->`, with NAME of `TABLES`. A single effect is a cell of any table
that ends in `<!-- RESULTS/ROW minus RESULTS/ROW -->`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from math import isnan
from pathlib import Path
from statistics import fmean

from nnunet_attenscribble.common.figures import encode_png
from nnunet_attenscribble.common.files import replaced_file
from nnunet_attenscribble.common.text import find_subject
from nnunet_attenscribble.dataset_conversion.splits import MAAG_TEST
from nnunet_attenscribble.evaluation.compare import FOREGROUND, Comparison, compare_summaries
from nnunet_attenscribble.evaluation.comparison_files import tell_counts
from nnunet_attenscribble.evaluation.kept_scores import POSTPROCESSED, read_kept
from nnunet_attenscribble.evaluation.pooling import count_runs, pool_runs
from nnunet_attenscribble.evaluation.report.scores import BudgetPoint, draw_budgets, list_points
from nnunet_attenscribble.evaluation.summary import Summary
from tools.site.settings_table import tabulate_settings

ROOT = Path(__file__).parents[2]
PAGES = tuple(ROOT / page for page in ("README.md", "docs/results.md", "docs/experiments.md", "docs/settings.md"))
RESULTS = ROOT / "results"
PICTURE = ROOT / "docs/images/hippocampus_budget.png"
DENSE = "nnu_net_dense_labels"
FULL_PLAN, EXPERTS, DRAWN, HIPPOCAMPUS = "acdc_full_plan", "acdc_cpu", "acdc_generated_cpu", "hippocampus_cpu"
LONG = "acdc_long_cpu"
BUDGETS, SLICES = "hippocampus_budget_cpu", "hippocampus_slices_cpu"
RIVALS, RIVALS_3D = "acdc_rivals_cpu", "hippocampus_rivals_cpu"
_COLUMNS = {EXPERTS: "ACDC, experts' strokes", DRAWN: "ACDC, drawn strokes", HIPPOCAMPUS: "hippocampus, drawn strokes"}
_BALANCED = "partial_dice_ce_padding_balanced"
_WEIGHT_1, _FINER = "attenscribble_similarity_weight_1", "attenscribble_finer_block"
#: The rows of the table of steps: what is compared with what.
STEPS = (
    ("attenscribble", "nnu_net_scribbles"),
    ("attenscribble", DENSE),
    (_BALANCED, "partial_ce"),
    ("masked_crf", _BALANCED),
    ("attention", "masked_crf"),
    ("attenscribble", "attention"),
    ("attenscribble", "masked_crf"),
    (_WEIGHT_1, "masked_crf"),
    (_FINER, "masked_crf"),
)
POSTPROCESSED_ROWS = (DENSE, "nnu_net_scribbles", _BALANCED, "masked_crf", "attenscribble", _WEIGHT_1)
#: What the rivals stand beside, of `EXPERTS`: the first of them above, the others below.
BESIDE_RIVALS = ((DENSE, _BALANCED), ("masked_crf", "attenscribble"))
_MARKED = re.compile(r"(<!-- generated: ([^>]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
_EFFECT = re.compile(r"[^|\n]*(<!-- (\S+) minus (\S+) -->)")


def fill_in(markdown: str) -> str:
    """The page with the tables and effects of today; KeyError for a table that there is none of."""

    def put_table(found: re.Match[str]) -> str:
        return found[1] + TABLES[found[2]]() + "\n" + found[3]

    def put_effect(found: re.Match[str]) -> str:
        return f" {format_effect(found[2], found[3])} {found[1]}"

    return _EFFECT.sub(put_effect, _MARKED.sub(put_table, markdown))


def format_effect(own: str, other: str) -> str:
    """Difference of Dice of two rows that may be of different experiments, with its interval and p."""
    pooled = [load(*path.split("/")) for path in (own, other)]
    comparison = compare_summaries({own: pooled[0], other: pooled[1]}, other, subject=_subject(own))
    return _format_difference(comparison, own, FOREGROUND, "dice")


@cache
def load(results: str, row: str) -> Summary:
    """The trainings of a row, named by its folder, as one; KeyError where it has none."""
    own = find_trainings(results, row)
    if not own:
        raise KeyError(f"{results} has no row {row}")
    return pool_runs(row, list(own.values()))


def find_trainings(results: str, row: str) -> dict[str, Summary]:
    """The trainings of a row by their names, without postprocessing."""
    return {training: kept for training, kept in _read(results).items() if training.split("/")[2:] == [row]}


@cache
def compare(results: str, rows: tuple[str, ...], reference: str) -> Comparison:
    """Rows of one experiment against one of them, named by their folders."""
    return compare_summaries({row: load(results, row) for row in rows}, reference, subject=_subject(results))


def list_rows(results: str) -> dict[str, str]:
    """Names of the rows by their folders, in order."""
    return {training.split("/")[2]: str(kept.provenance["row"]) for training, kept in _read(results).items()}


def tabulate_scores(results: str, *, volumes: bool = True, chance: bool = False, test_part: bool = False) -> str:
    """A row per model: Dice with its interval and share of dense labels, per class, distances.

    Args:
        results: name of the experiment.
        volumes: whether to add the volume of every class as a share of the true one.
        chance: whether to add the standard deviation of Dice over trainings.
        test_part: whether to add the Dice of MAAG's test patients alone.
    """
    rows = list_rows(results)
    comparison = compare(results, tuple(rows), DENSE)
    names = comparison.structures
    header = ["model", "Dice [95 %]", "share %", *names, "HD95 mm", "ASSD mm"]
    header += [f"volume {'/'.join(names)}"] if volumes else []
    header += ["SD over trainings"] if chance else []
    header += ["MAAG's test patients"] if test_part else []
    lines = []
    for row, name in rows.items():
        dice = comparison.get(row, FOREGROUND, "dice")
        cells = [name, _format_mean(dice.mean, dice.low, dice.high), f"{dice.share:.1f}"]
        cells += _format_classes(comparison, row)
        cells += [_format_distance(comparison, row, metric) for metric in ("hd95_mm", "assd_mm")]
        cells += [_format_volumes(comparison, row)] if volumes else []
        cells += ["" if isnan(dice.sd_runs) else f"{dice.sd_runs:.3f}"] if chance else []
        cells += [f"{_mean_of_patients(load(results, row), MAAG_TEST):.3f}"] if test_part else []
        lines.append(cells)
    return format_table(header, lines)


def tabulate_rivals() -> str:
    """A row per published loss among the project's own: Dice, that of each class, HD95, volumes, the difference from
    the masked CRF with p after Holm's correction for all rows, Dice and difference on hippocampus in 3D, and the time
    of a training step by stock nnU-Net's.
    """
    above, below = ([(EXPERTS, row) for row in rows] for rows in BESIDE_RIVALS)
    places = [*above, *((RIVALS, row) for row in list_rows(RIVALS)), *below]
    summaries = {row: load(results, row) for results, row in places}
    comparison = compare_summaries(summaries, "masked_crf", subject=_subject(RIVALS))
    trained_3d = tuple(row for row in list_rows(RIVALS_3D) if row in summaries)
    volumetric = compare(RIVALS_3D, trained_3d, "masked_crf")
    with (RESULTS / RIVALS / "steps.csv").open(encoding="utf-8", newline="") as lines:
        steps = {line["trainer"]: float(line["ratio"]) for line in csv.DictReader(lines)}
    names = comparison.structures
    difference = "minus masked CRF"
    header = ["model", "Dice [95 %]", *names, "HD95 mm", f"volume {'/'.join(names)}", difference]
    header += ["hippocampus", difference, "step"]
    table = []
    for results, row in places:
        dice = comparison.get(row, FOREGROUND, "dice")
        cells = [
            list_rows(results)[row],
            _format_mean(dice.mean, dice.low, dice.high),
            *_format_classes(comparison, row),
        ]
        cells += [f"{comparison.get(row, FOREGROUND, 'hd95_mm').mean:.1f}", _format_volumes(comparison, row)]
        cells += ["" if row == comparison.reference else _format_difference(comparison, row, FOREGROUND, "dice")]
        cells += [f"{volumetric.get(row, FOREGROUND, 'dice').mean:.3f}" if row in trained_3d else ""]
        compared = row in trained_3d and row != volumetric.reference
        cells += [_format_difference(volumetric, row, FOREGROUND, "dice") if compared else ""]
        cells += [f"{steps[re.sub('_[0-9]+epochs$', '', str(summaries[row].provenance['trainer']))]:.2f}"]
        table.append(cells)
    return format_table(header, table)


def tabulate_budgets(results: str) -> str:
    """Dice by method, with a column per amount of annotation; dense labels stand last, in a column of their own."""
    points, comparison = list_budgets(results)
    found = {(point.method, point.annotation): point for point in points}
    budgets = sorted({point.annotation for point in points}, key=lambda annotation: annotation.slices)
    lines = [
        ["strokes", *(f"{budget.strokes:.0f}" for budget in budgets), ""],
        ["voxels %", *(f"{100 * budget.share:.2f}" for budget in budgets), ""],
    ]
    for method in dict.fromkeys(point.method for point in points):
        own = [found.get((method, budget)) for budget in budgets]
        lines.append(
            [method, *("" if point is None else _format_mean(point.dice, point.low, point.high) for point in own), ""]
        )
    dense = comparison.get(comparison.reference, FOREGROUND, "dice")
    lines.append([comparison.reference, *[""] * len(budgets), _format_mean(dense.mean, dense.low, dense.high)])
    slices = (f"{budget.slices:.1f}" for budget in budgets)
    return format_table(["slices drawn on, a case", *slices, "all, densely"], lines)


def list_budgets(results: str) -> tuple[list[BudgetPoint], Comparison]:
    """The points of the rows that tell how much was annotated, and all rows against dense labels, by their names."""
    rows = list_rows(results)
    trainings = {
        name: [kept.provenance for kept in find_trainings(results, row).values()] for row, name in rows.items()
    }
    named = {name: load(results, row) for row, name in rows.items()}
    comparison = compare_summaries(named, rows[DENSE], subject=_subject(results))
    return list_points(comparison, trainings), comparison


def draw_picture(results: str, file: Path) -> None:
    """Draw the Dice of an experiment's rows against the slices that were annotated, as PNG."""
    points, comparison = list_budgets(results)
    dense = comparison.get(comparison.reference, FOREGROUND, "dice").mean
    with replaced_file(file) as part:
        part.write_bytes(encode_png(draw_budgets(points, "slices", dense)))


def tabulate_differences(results: str, pairs: Sequence[tuple[str, str]]) -> str:
    """A row per pair: the difference of Dice over the foreground and in each class, and that of HD95; p after Holm's
    correction for all rows that can be compared with the second one.
    """
    rows = list_rows(results)
    structures = load(results, DENSE).names
    lines = []
    for own, other in pairs:
        comparison = compare(results, tuple(rows), other)
        cells = [_format_difference(comparison, own, structure, "dice") for structure in (FOREGROUND, *structures)]
        cells.append(_format_difference(comparison, own, FOREGROUND, "hd95_mm"))
        lines.append([f"{rows[own]} minus {rows[other]}", *cells])
    return format_table(["difference", "Dice", *structures, "HD95 mm"], lines)


def tabulate_steps() -> str:
    """Differences of Dice: a row per pair of `STEPS` and a column per experiment, empty where it lacks a row; p after
    Holm's correction for the classes and their mean.
    """
    names, lines = _name_rows(), []
    for own, other in STEPS:
        cells = [
            _format_difference(compare(results, (own, other), other), own, FOREGROUND, "dice")
            if {own, other} <= set(list_rows(results))
            else ""
            for results in _COLUMNS
        ]
        lines.append([f"{names[own]} minus {names[other]}", *cells])
    return format_table(["Dice", *_COLUMNS.values()], lines)


def tabulate_postprocessed() -> str:
    """A row per model: Dice and HD95 before and after, of the trainings whose predictions were postprocessed."""
    names, lines = _name_rows(), []
    for row in POSTPROCESSED_ROWS:
        name, cells = names[row], []
        for results in _COLUMNS:
            kept = _read(results)
            found = find_trainings(results, row)
            both = [(own, kept[after]) for one, own in found.items() if (after := f"{one}/{POSTPROCESSED}") in kept]
            if not both:
                cells.append("")
                continue
            before, after = (pool_runs(name, own) for own in zip(*both, strict=True))
            means = [summary.aggregate()["foreground_mean"] for summary in (before, after)]
            dice = "→".join(f"{mean['dice']['mean']:.3f}" for mean in means)
            distance = "→".join(f"{mean['hd95_mm']['mean']:.1f}" for mean in means)
            cells.append(f"{dice}; {distance} ({count_runs(before)})")
        lines.append([name, *cells])
    return format_table(["Dice; HD95 in mm (trainings)", *_COLUMNS.values()], lines)


def tabulate_similarities(results: str, classes: Sequence[str]) -> str:
    """Mean similarity of neighbours by their classes."""
    means = compute_similarities(results, "attenscribble")
    lines = [[one, *(f"{means[frozenset((one, other))]:.2f}" for other in classes)] for one in classes]
    return format_table(["", *classes], lines)


def compute_similarities(results: str, row: str) -> dict[frozenset[str], float]:
    """By pair of classes: the mean over cases, each the mean over its trainings."""
    values: dict[frozenset[str], dict[str, list[float]]] = {}
    with (RESULTS / results / "similarity.csv").open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            training, case = line.pop("training"), line.pop("case")
            if training.split("/")[2] != row:
                continue
            for pair, mean in line.items():
                if mean:  # such neighbours there are
                    cases = values.setdefault(frozenset(pair.split("-")), {})
                    cases.setdefault(case, []).append(float(mean))
    return {pair: fmean(fmean(runs) for runs in cases.values()) for pair, cases in values.items()}


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"|{'|'.join(line)}|" for line in lines)


@cache
def _read(results: str) -> dict[str, Summary]:
    return read_kept(RESULTS / results)


def _name_rows() -> dict[str, str]:
    """Names of the rows of all `_COLUMNS`, by their folders."""
    return {row: name for results in _COLUMNS for row, name in list_rows(results).items()}


def _subject(results: str) -> str | None:
    return "patient[0-9]+" if results.startswith("acdc") else None


def _mean_of_patients(summary: Summary, patients: Sequence[int]) -> float:
    pattern = re.compile("patient([0-9]+)")
    cases = {case: scores for case, scores in summary.cases.items() if int(find_subject(pattern, case)) in patients}
    return float(Summary(summary.structures, cases, {}, {}).aggregate()["foreground_mean"]["dice"]["mean"])


def _format_mean(mean: float, low: float, high: float) -> str:
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _format_distance(comparison: Comparison, row: str, metric: str) -> str:
    found = comparison.get(row, FOREGROUND, metric)
    return f"{found.mean:.2f}{tell_counts(comparison, found)}"


def _format_classes(comparison: Comparison, row: str) -> list[str]:
    return [f"{comparison.get(row, structure, 'dice').mean:.3f}" for structure in comparison.structures]


def _format_volumes(comparison: Comparison, row: str) -> str:
    medians = (comparison.get(row, name, "volume_share").median for name in comparison.structures)
    return "/".join(f"{median:.2f}" for median in medians)


def _format_difference(comparison: Comparison, model: str, structure: str, metric: str) -> str:
    row = comparison.get(model, structure, metric)
    decimals = 3 if metric == "dice" else 1
    p = "p<0.001" if row.p_holm < 0.001 else f"p={row.p_holm:.3f}"
    interval = f"[{row.difference_low:.{decimals}f}, {row.difference_high:.{decimals}f}]"
    return f"{row.difference:+.{decimals}f} {interval}, {p}"


TABLES: dict[str, Callable[[], str]] = {
    "full plan": partial(tabulate_scores, FULL_PLAN, test_part=True),
    "full plan, in short": partial(tabulate_scores, FULL_PLAN, volumes=False),
    "full plan, differences": partial(
        tabulate_differences,
        FULL_PLAN,
        (
            ("attenscribble", "nnu_net_scribbles"),
            ("attenscribble", DENSE),
            ("attenscribble", "masked_crf"),
            ("attenscribble_block_at_a_quarter_similarity_weight_1", "attenscribble"),
        ),
    ),
    **{f"scores {results}": partial(tabulate_scores, results, chance=True) for results in _COLUMNS},
    f"scores {LONG}": partial(tabulate_scores, LONG),
    "budgets": partial(tabulate_budgets, BUDGETS),
    "whole slices": partial(tabulate_budgets, SLICES),
    "rivals": tabulate_rivals,
    "steps": tabulate_steps,
    "postprocessed": tabulate_postprocessed,
    "settings": tabulate_settings,
    "similarity": partial(tabulate_similarities, EXPERTS, ("background", "RV", "MYO", "LV")),
}


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(fill_in(page.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    draw_picture(BUDGETS, PICTURE)
