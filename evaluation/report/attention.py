"""What the attention blocks of a benchmark's rows see: one position of a case, and how alike they find classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, fields
from functools import partial

from nnunet_attenscribble.common.text import format_mean_sd
from nnunet_attenscribble.evaluation.attention_folder import (
    ATTENTION_FILE,
    AttentionRecord,
    PairMean,
    SimilarityMean,
    average_pairs,
    read_record,
)
from nnunet_attenscribble.evaluation.protocols import find_volume
from nnunet_attenscribble.evaluation.report.attention_views import (
    AttentionView,
    draw_panel,
    list_cells,
    list_panels,
    read_view,
)
from nnunet_attenscribble.evaluation.report.data import ReportCell, ReportData, ReportRow
from nnunet_attenscribble.evaluation.report.parts import Part, Picture, Section, Table, format_csv

__all__ = ["describe_attention_section"]

_CAPTIONS = {
    "scan": "Scan and the position",
    "attention": "Its attention (1: spread evenly)",
    "similarity": "Its similarity to its neighbours",
}
_HEADER = {
    "same class": "of one class",
    "same structure": "of one structure, no background",
    "different classes": "of different classes",
}
_NEIGHBOURS = {"window": "in the window", "adjacent": "that touch"}

Found = tuple[ReportCell, AttentionRecord]


def describe_attention_section(data: ReportData, case: str | None, *, scans: bool = True) -> Section:
    """Pictures of one case for every row with an attention block, and a table of similarities.

    Args:
        data: of the benchmark.
        case: to show; the first one there is where it is None or has no view.
        scans: show the slice of the scan too.
    """
    title = "What the attention block sees"
    with_block = [row for row in data.scored if row.budget.get("attention")]
    found = {row.name: _read_records(data, row) for row in data.scored}
    lacking = [row.name for row in with_block if not found[row.name]]
    rows = [row for row in data.scored if found[row.name]]
    parts = [_describe_row(row, found[row.name], case, scans) for row in rows]
    tables, files = _tabulate({row.name: found[row.name] for row in rows})
    if parts:
        cells = [cell for _, numbers in parts for cell in numbers]
        header = ["row", "case", "plane", "structure", "position_row", "position_column"]
        files["attention.csv"] = format_csv([*header, "grid_row", "grid_column", "attention", "similarity"], cells)
    text = [
        "For one position, marked by a frame, the attention that it pays to all others and the similarity to its "
        "neighbours, as the network sees the case: preprocessed, one plane of its patch. Attention 1 is what an even "
        "spread over all positions would be; similarities are shown larger, for the dashed part of the scan. Of "
        "several trainings, the first is shown."
    ] * bool(parts)
    if tables:
        text.append(
            "The table has the mean similarity of neighbouring positions on the test cases, by the class that most "
            "pixels of a position have in the dense label: the mean over cases, ± SD. Neighbours of one class lie "
            "closer together than those of different ones, so read the rows of those that touch too. Training did not "
            "see these labels."
        )
    if lacking:
        text.append(
            f"Not drawn yet: {', '.join(lacking)}. `attenscribble benchmark` does so, without training again; collect "
            "and report behind it."
        )
    if not text:
        return Section("attention", title, [])
    pictures = [part for part, _ in parts]
    return Section(
        "attention", title, [Part(text=text, tables=tables), *pictures, *([Part(files=files)] if files else [])]
    )


def _read_records(data: ReportData, row: ReportRow) -> list[Found]:
    cells = [cell for cell in data.done(row) if (cell.place / "attention" / ATTENTION_FILE).is_file()]
    return [(cell, read_record(cell.place / "attention")) for cell in cells]


def _describe_row(
    row: ReportRow, found: Sequence[Found], case: str | None, scans: bool
) -> tuple[Part, list[tuple[object, ...]]]:
    volume = None if case is None else find_volume(case, row.scores.protocol)
    cell, record = next((entry for entry in found if volume in entry[1].cases), found[0])
    shown = volume if volume in record.cases else record.cases[0]
    view = read_view(cell.place / "attention" / f"{shown}.npz")
    pictures = [
        Picture(
            f"attention_{row.slug}_{name}",
            _CAPTIONS[name],
            f"{_CAPTIONS[name]}: {row.name}, {shown}, {view.structure}.",
            partial(draw_panel, view, name, scan=scans),
            small=True,
        )
        for name in list_panels(view)
        if scans or name != "scan"
    ]
    what = f"{shown}, plane {view.plane + 1}, a position in {view.structure}."
    if not view.has_similarity:
        what += " This row's block has no similarity."
    numbers = [(row.name, *_name_view(view), *entry) for entry in list_cells(view)]
    return Part(row.name, [what], pictures=pictures), numbers


def _name_view(view: AttentionView) -> tuple[object, ...]:
    return view.case, view.plane + 1, view.structure, *view.position


def _tabulate(found: dict[str, list[Found]]) -> tuple[list[Table], dict[str, str]]:
    """The table of similarities, and the numbers behind it."""
    rows, means, pairs = [], [], []
    for name, own in found.items():
        entries = [entry for _, record in own for entry in record.pairs]
        averaged = average_pairs(entries)
        means += [(name, *astuple(entry)) for entry in averaged]
        pairs += [(name, cell.seed, cell.fold, *astuple(entry)) for cell, record in own for entry in record.pairs]
        for neighbours, words in _NEIGHBOURS.items():
            kinds = {entry.pairs: entry for entry in averaged if entry.neighbours == neighbours}
            if kinds:
                rows.append([name, words, *(_format(kinds.get(kind)) for kind in _HEADER)])
    if not rows:
        return [], {}
    files = {
        "similarity_means.csv": format_csv(["row", *(column.name for column in fields(SimilarityMean))], means),
        "similarity_pairs.csv": format_csv(
            ["row", "seed", "fold", *(column.name for column in fields(PairMean))], pairs
        ),
    }
    return [Table("Mean similarity of neighbours", ["row", "neighbours", *_HEADER.values()], rows)], files


def _format(entry: SimilarityMean | None) -> str:
    return "n/a" if entry is None else format_mean_sd(entry.mean, math.nan if entry.cases < 2 else entry.sd, 3)
