"""What stands behind a report's numbers: which training each cell is, with which versions, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping

from nnunet_attenscribble.evaluation.report.data import ReportData
from nnunet_attenscribble.evaluation.report.parts import Part, Section, Table, format_csv
from nnunet_attenscribble.evaluation.summary import Summary

__all__ = ["describe_provenance_section"]

_KEYS = (
    *("trainer", "configuration", "plans", "dataset", "epochs", "iterations_per_epoch", "checkpoint"),
    *("plans_sha256", "splits_sha256", "commit_training", "commit"),
)
_VERSIONS = ("nnunet-attenscribble", "nnunetv2", "torch", "monai", "python")
_SHORT = 12  # digits of a hash on the page; the CSV has them all


def describe_provenance_section(data: ReportData) -> Section:
    """Rows with their settings, complete cells with their provenance, and the cells that are missing."""
    rows = [
        [
            row.name,
            row.labels,
            row.trainer,
            row.configuration,
            f"{row.budget['epochs']} x {row.budget['iterations']} x {row.budget['batch_size']}"
            if row.budget
            else "n/a",
            _describe_settings(row.settings),
        ]
        for row in data.rows
    ]
    header = [
        "row",
        "labels",
        "trainer",
        "configuration",
        "epochs x iterations x batch",
        "settings in the configuration",
    ]
    done = [(cell, cell.summary) for cell in data.cells if cell.summary is not None]
    shown = ["cell", "plans_sha256", "commit_training", "commit", *_VERSIONS]
    cells = [
        [
            cell.name,
            *(_shorten(summary.provenance.get(key)) for key in shown[1:4]),
            *(summary.versions.get(name, "unknown") for name in _VERSIONS),
        ]
        for cell, summary in done
    ]
    entries = [[cell.name, cell.row, cell.seed, cell.fold, *_list_provenance(summary)] for cell, summary in done]
    files = {"trainings.csv": format_csv(["cell", "row", "seed", "fold", *_KEYS, *_VERSIONS], entries)}
    parts = [
        Part("Rows", tables=[Table("", header, rows, numeric=False)]),
        Part("Trainings", tables=[Table("", shown, cells, numeric=False)], files=files),
    ]
    missing = [[cell.name, str(cell.lacks)] for cell in data.cells if cell.lacks is not None]
    if missing:
        parts.append(
            Part("Missing", tables=[Table("", ["cell", "lacks"], missing, numeric=False)], folded=len(missing) > 5)
        )
    return Section("provenance", "Where the numbers come from", parts)


def _describe_settings(settings: Mapping[str, object] | None) -> str:
    if settings is None:
        return "unknown"
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in settings.items()) or "default"


def _list_provenance(summary: Summary) -> list[str | None]:
    return [*(summary.provenance.get(key) for key in _KEYS), *(summary.versions.get(name) for name in _VERSIONS)]


def _shorten(value: str | None) -> str:
    if not value:
        return "unknown"
    return value[:_SHORT] + ("-dirty" if value.endswith("-dirty") else "")
