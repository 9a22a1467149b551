"""A comparison as Markdown, CSV and JSON, and read back from the last."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from nnunet_attenscribble.common.shapes import COUNT, NUMBER, TEXT, list_of, mapping, nullable
from nnunet_attenscribble.common.text import (
    count_rows,
    counted,
    escape_markdown,
    format_csv,
    format_markdown,
    format_mean_sd,
    format_number,
)
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.compare import FOREGROUND, Comparison, ComparisonRow, find_family
from nnunet_attenscribble.evaluation.metrics import (
    DISTANCES,
    HD95_DEFINITIONS,
    LESION_DEFINITION,
    METRICS,
    NSD_DEFINITION,
    OPTIONAL_METRICS,
)
from nnunet_attenscribble.evaluation.protocols import PROTOCOLS, name_metric
from nnunet_attenscribble.evaluation.summary import (
    HD95,
    PROVENANCE,
    SCORE,
    Summary,
    describe_versions,
    encode_result,
    head_result,
    read_result,
)

_LISTS = ("models", "structures", "cases", "notes")
_SHAPES = {"str": TEXT, "int": COUNT, "float": SCORE}  # by the type of a field
_COMPARISON = mapping(
    {
        "reference": TEXT,
        "models": list_of(TEXT, at_least=1),
        "structures": list_of(TEXT),
        "cases": list_of(TEXT),
        "subjects": COUNT,
        "protocol": TEXT,
        "hd95": HD95,
        "notes": list_of(TEXT),
        "confidence": NUMBER,
        "resamples": COUNT,
        "seed": COUNT,
        "provenance": mapping(each=mapping({"versions": mapping(each=TEXT)})),
        "rows": list_of(mapping({column.name: _SHAPES[str(column.type)] for column in fields(ComparisonRow)})),
        "nsd_mm": nullable(NUMBER),
        "lesions": mapping(each=NUMBER),
        "confusion": mapping(each=mapping(each=mapping(each=SCORE))),
        "lesion_counts": mapping(each=mapping(each=mapping(each=NUMBER))),
    },
)

VOLUME_RULE = (
    "Volume share: predicted over true volume; 1 is without bias, 0 is a missed organ, and one that the dense label "
    "lacks is left out."
)
CONFUSION_RULE = (
    "What a class was taken for, all cases together: a row tells where the true volume of its class went, and adds up "
    "to 1. The row of the background tells what came to each class from outside, as a share of that class's volume."
)
_NO_CONFUSION = "There is no confusion of classes where structures overlap, nor in results of earlier versions."


def to_markdown(comparison: Comparison) -> str:
    """Tables of means, of structures and of differences, and the rules they were made by."""
    level = f"{100 * comparison.confidence:g} %"
    titles = list_titles(comparison)
    reference = escape_markdown(comparison.reference)
    differences = tabulate_differences(comparison)
    parts = [
        f"### Compared with {reference} on the same {describe_cases(comparison)}",
        format_markdown(*tabulate_means(comparison)),
        *(
            f"#### {title}, mean ± SD, median over {_unit(comparison)}s\n\n"
            + format_markdown(*tabulate_structures(comparison, metric, decimals))
            for metric, (title, decimals) in titles.items()
        ),
        *_write_bias(comparison),
        *[
            f"#### Difference from {reference} [{level} interval], p of Wilcoxon's test, p after Holm\n\n"
            + format_markdown(*differences)
        ]
        * bool(differences[1]),
        "#### How to read this\n\n" + "\n".join(f"- {escape_markdown(line)}" for line in write_rules(comparison)),
        "#### Where the numbers come from\n\n" + format_markdown(*tabulate_origins(comparison)),
    ]
    return "\n\n".join(parts) + "\n"


def _write_bias(comparison: Comparison) -> list[str]:
    title = f"#### Volume as a share of the true one, median over {_unit(comparison)}s"
    parts = [f"{title}\n\n{format_markdown(*tabulate_volumes(comparison))}"]
    if comparison.confusion:
        title = "#### What each class was taken for, as a share of its true volume"
        parts.append(f"{title}\n\n{format_markdown(*tabulate_confusion(comparison))}")
    return parts


def to_csv(comparison: Comparison) -> str:
    """One row per model, structure and metric; the columns are the fields of `ComparisonRow`, and behind them what the
    model's numbers are of, as far as it is known.
    """
    columns = [*(column.name for column in fields(ComparisonRow)), *PROVENANCE, "versions"]
    rows = ((_to_dict(row, comparison) | _find_origin(comparison, row.model)).values() for row in comparison.rows)
    return format_csv(columns, rows)


def to_json(comparison: Comparison) -> str:
    """The same rows, with the rules and the settings; NaN is null and infinity "inf"."""
    content = {
        **head_result("comparison"),
        **asdict(comparison),
        "protocol_origin": PROTOCOLS[comparison.protocol].origin,
        "rules": {**PROTOCOLS[comparison.protocol].rules, "comparison": write_rules(comparison)},
        "rows": [_to_dict(row, comparison) for row in comparison.rows],
    }
    return encode_result(content)


WRITERS = {".md": to_markdown, ".csv": to_csv, ".json": to_json}


def describe_cases(comparison: Comparison) -> str:
    """The number of cases (or slices), and of subjects where that is another one."""
    cases = count_rows(len(comparison.cases), _unit(comparison))
    if comparison.subjects == len(comparison.cases):
        return cases
    return f"{cases} of {counted(comparison.subjects, 'subject')}"


def list_titles(scored: Comparison | Summary) -> dict[str, tuple[str, int]]:
    """The metrics that tables show, with their titles and numbers of decimals."""
    protocol = PROTOCOLS[scored.protocol]
    titles = {"dice": ("Dice", 3)}
    if protocol.hd95 is not None:
        titles["hd95_mm"] = (f"HD95 ({protocol.distance_unit})", 2)
    if protocol.surface is not None:
        name = "ASSD" if protocol.surface == "symmetric" else "ASD"
        titles["assd_mm"] = (f"{name} ({protocol.distance_unit})", 2)
    if scored.nsd_mm is not None:
        titles["nsd"] = (f"NSD ({scored.nsd_mm:g} mm)", 3)
    if scored.lesions:
        titles["lesion_f1"] = ("lesion F1", 3)
    return titles


def tabulate_means(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table that comes first: each model's means over the foreground."""
    titles = list_titles(comparison)
    with_runs = any(comparison.get(model, FOREGROUND, "dice").runs > 1 for model in comparison.models)
    header = ["model", f"Dice [{100 * comparison.confidence:g} % interval]", f"share of {comparison.reference}"]
    header += [title for metric, (title, _) in titles.items() if metric != "dice"]
    header += ["missed", "spurious", *(["runs", "SD of Dice over runs"] if with_runs else [])]
    rows = []
    for model in comparison.models:
        dice = comparison.get(model, FOREGROUND, "dice")
        cells = [
            model,
            f"{format_number(dice.mean, 3)} {_format_interval(dice.low, dice.high, 3)}",
            _format_share(dice.share),
        ]
        for metric, (_, decimals) in titles.items():
            if metric != "dice":
                cells.append(format_number(comparison.get(model, FOREGROUND, metric).mean, decimals))
        cells += [str(dice.missed), str(dice.spurious)]
        rows.append(cells + ([str(dice.runs), format_number(dice.sd_runs, 4)] if with_runs else []))
    return header, rows


def tabulate_origins(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what each model's numbers are of: repetitions, folds, plans, commits, versions."""
    rows = []
    for model in comparison.models:
        origin = _find_origin(comparison, model)
        rows.append([model, *(str(origin[key] or "unknown") for key in PROVENANCE), str(origin["versions"])])
    return ["model", *(key.replace("_", " ") for key in PROVENANCE), "versions"], rows


def write_rules(comparison: Comparison) -> list[str]:
    """How the numbers came about, one sentence or two each."""
    protocol = PROTOCOLS[comparison.protocol]
    unit = _unit(comparison) if comparison.subjects == len(comparison.cases) else "subject"
    drawn = f"{unit}s, with all their cases" if unit == "subject" else f"{unit}s"
    lines = [f"Protocol {protocol.name}: {protocol.origin}."]
    if comparison.hd95 is not None:
        lines.append(f"HD95 is {HD95_DEFINITIONS[comparison.hd95]}.")
    if comparison.nsd_mm is not None:
        lines.append(f"NSD is {NSD_DEFINITION}, {comparison.nsd_mm:g} mm; 0 for a missed or spurious organ.")
    if comparison.lesions:
        thresholds = ", ".join(f"{name} {iou:g}" for name, iou in comparison.lesions.items())
        lines.append(f"Lesion F1 is {LESION_DEFINITION} ({thresholds}); the counts are of all {_unit(comparison)}s.")
    lines += [*comparison.notes, *(rule for key, rule in protocol.rules.items() if key not in ("surface", "tests"))]
    lines.append(f"Share: the mean Dice in per cent of that of {comparison.reference}.")
    lines += [VOLUME_RULE, CONFUSION_RULE if comparison.confusion else _NO_CONFUSION]
    runs = {model: comparison.get(model, FOREGROUND, "dice").runs for model in comparison.models}
    if max(runs.values()) > 1:
        lines.append(
            "Several runs of one model ("
            + ", ".join(f"{model} {number}" for model, number in runs.items())
            + ") are averaged case by case before anything else: cases are independent of each other, runs on the same "
            "case are not. An organ that any run missed counts as missed. SD over runs: of the mean of each run."
        )
        chance = "that of these runs only in so far as they are averaged."
    else:
        chance = "not that of another training run."
    lines.append(
        f"Intervals: {comparison.resamples} bootstrap draws of {drawn}, percentiles, seed {comparison.seed}. They hold "
        f"the chance of these test cases, {chance}"
    )
    names = [
        title.partition(" (")[0] for metric, (title, _) in list_titles(comparison).items() if metric in protocol.tested
    ]
    scores_absent = not math.isnan(protocol.absent[0])  # then a spurious organ is worth what an absent one is
    lines.append(
        f"p: Wilcoxon's signed-rank test, two-sided, on one difference per {unit}; a missed "
        "organ counts as Dice 0 and as the worst difference of distances"
        + ("" if scores_absent else ", a spurious one as the worst of both")
        + f". Holm's correction is over all tests of one metric (tested: {', '.join(names)} and IoU)."
    )
    families = [find_family([row for row in comparison.rows if row.metric == metric]) for metric in protocol.tested]
    tests = max(sum(not math.isnan(row.p) for row in family) for family in families)
    smallest = min(1.0, tests * 2 / 2**comparison.subjects)  # all differences of one sign, of 2^n patterns of signs
    if smallest > 0.05:
        lines.append(
            f"With {counted(comparison.subjects, unit)} and {counted(tests, 'test')} of one "
            f"metric, p after Holm's correction is {smallest:.3f} at best."
        )
    lines.append(
        "Differences are over the organs that have a value with both models (a distance: that both found), so they can "
        "differ from the difference of the means above."
        + (
            ""
            if scores_absent
            else " Where only one has a value, as where only one predicts an organ that the dense label lacks, the "
            "case counts in the test alone."
        )
        + " Where the ranks tested go the other way, worse or better stands beside p."
    )
    if "tests" in protocol.rules:
        lines.append(protocol.rules["tests"])
    return lines


def tabulate_structures(comparison: Comparison, metric: str, decimals: int) -> tuple[list[str], list[list[str]]]:
    """Header and rows of one metric's table: mean ± SD and median of every structure."""
    rows = []
    for model in comparison.models:
        cells = [model]
        for structure in (*comparison.structures_of(metric), FOREGROUND):
            row = comparison.get(model, structure, metric)
            cell = format_mean_sd(row.mean, row.sd, decimals)
            if not math.isnan(row.median):
                cell += f", {format_number(row.median, decimals)}"
            if metric == "dice" and model != comparison.reference:
                cell += f" ({_format_share(row.share)})"
            cells.append(cell + tell_counts(comparison, row))
        rows.append(cells)
    return ["model", *comparison.structures_of(metric), FOREGROUND], rows


def tabulate_volumes(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the predicted volume as a share of the true one, the median of every structure."""
    rows = [
        [
            model,
            *(format_number(comparison.get(model, name, "volume_share").median, 2) for name in comparison.structures),
        ]
        for model in comparison.models
    ]
    return ["model", *comparison.structures], rows


def tabulate_confusion(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what each class was taken for, a row per model and true class."""
    classes = next(iter(comparison.confusion.values()), {})
    rows = [
        [model, true, *(format_number(table[true][name], 3) for name in classes)]
        for model, table in comparison.confusion.items()
        for true in classes
    ]
    return ["model", "true class", *(f"as {name}" for name in classes)], rows


def tabulate_differences(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the differences from the reference, with intervals and tests."""
    tested = PROTOCOLS[comparison.protocol].tested
    titles = {metric: title for metric, title in list_titles(comparison).items() if metric in tested}
    rows = []
    for model in comparison.models[1:]:
        for structure in (*comparison.structures, FOREGROUND):
            cells = [model, structure]
            for metric, (_, decimals) in titles.items():
                if structure not in (*comparison.structures_of(metric), FOREGROUND):
                    cells += ["n/a", "n/a"]
                    continue
                row = comparison.get(model, structure, metric)
                interval = _format_interval(row.difference_low, row.difference_high, decimals)
                difference = "n/a" if math.isnan(row.difference) else f"{row.difference:+.{decimals}f} {interval}"
                cells += [difference, f"{_format_p(row.p)}, {_format_p(row.p_holm)}{_tell_opposite(row)}"]
            rows.append(cells)
    return ["model", "structure", *(cell for title, _ in titles.values() for cell in (title, "p, p Holm"))], rows


def _tell_opposite(row: ComparisonRow) -> str:
    """Which way the ranks tested go, lost organs among them, where that is not the way of the difference."""
    ranks = row.rank_correlation
    if not ranks * row.difference < 0:
        return ""
    return " (worse)" if (ranks > 0) == (row.metric in DISTANCES) else " (better)"


def tell_counts(comparison: Comparison, row: ComparisonRow) -> str:
    """The counts that are needed to read a mean, in brackets behind it: of organs without a distance, of lesions."""
    counts: dict[str, float] = {}
    if row.metric in DISTANCES:
        counts = {name: count for name, count in (("missed", row.missed), ("spurious", row.spurious)) if count}
    elif row.metric == "lesion_f1" and row.structure != FOREGROUND:
        counts = {**comparison.lesion_counts[row.model][row.structure]}
    return f" ({', '.join(f'{count:g} {name}' for name, count in counts.items())})" if counts else ""


def _find_origin(comparison: Comparison, model: str) -> dict[str, object]:
    provenance: Any = comparison.provenance[model]
    found = {key: provenance.get(key) for key in PROVENANCE}
    return {**found, "versions": describe_versions(provenance["versions"])}


def _unit(comparison: Comparison) -> str:
    return "slice" if PROTOCOLS[comparison.protocol].unit == "slice" else "case"


def _to_dict(row: ComparisonRow, comparison: Comparison) -> dict[str, object]:
    return asdict(row) | {"metric": name_metric(row.metric, comparison.protocol)}


def _format_interval(low: float, high: float, decimals: int) -> str:
    return f"[{format_number(low, decimals)}, {format_number(high, decimals)}]"


def _format_share(share: float) -> str:
    return "n/a" if math.isnan(share) else f"{share:.1f} %"


def _format_p(p: float) -> str:
    return "n/a" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def read_comparison(file: Path) -> Comparison:
    """Read a comparison; null becomes NaN and "inf" infinity again.

    Raises:
        AttenScribbleError: unreadable, damaged, or something else than a comparison.
    """
    content = read_result(file, "comparison", _COMPARISON, "compare the models again")
    if content["protocol"] not in PROTOCOLS:
        raise AttenScribbleError(f"{file}: protocol {content['protocol']!r} is unknown: compare the models again")
    try:
        names = {name_metric(metric, content["protocol"]): metric for metric in (*METRICS, *OPTIONAL_METRICS)}
        values = {column.name: content[column.name] for column in fields(Comparison)}
        values |= {name: tuple(values[name]) for name in _LISTS}
        values["confusion"] = {
            model: {true: {name: _read_number(share) for name, share in row.items()} for true, row in table.items()}
            for model, table in content["confusion"].items()
        }
        values["rows"] = tuple(_read_row(row, names) for row in content["rows"])
        found = Comparison(**values)
        _refuse_gaps(found)
    except (KeyError, TypeError, ValueError) as error:
        raise AttenScribbleError(f"{file} is damaged ({error!r}): compare the models again") from error
    return found


def _refuse_gaps(comparison: Comparison) -> None:
    """An error where a row is missing that the tables need, a model's origin or count of lesions, or a class; or where
    something is of no model.
    """
    named = {comparison.reference, *(row.model for row in comparison.rows), *comparison.confusion}
    if unknown := named - {*comparison.models}:
        raise KeyError(*unknown)
    classes = {name for table in comparison.confusion.values() for name in table}
    for table in comparison.confusion.values():
        for row in (table, *table.values()):
            if row.keys() != classes:
                raise KeyError(*(row.keys() ^ classes))
    for model in comparison.models:
        comparison.provenance[model]
        for metric in (*METRICS, *list_titles(comparison)):
            for structure in (*comparison.structures_of(metric), FOREGROUND):
                comparison.get(model, structure, metric)
        for structure in comparison.structures_of("lesion_f1"):
            comparison.lesion_counts[model][structure]


def _read_row(row: Mapping[str, Any], metrics: Mapping[str, str]) -> ComparisonRow:
    values: dict[str, Any] = {
        column.name: _read_number(row[column.name]) if column.type == "float" else row[column.name]
        for column in fields(ComparisonRow)
    }
    return ComparisonRow(**{**values, "metric": metrics[row["metric"]]})


def _read_number(value: Any) -> float:
    return float("nan") if value is None else float(value)
