"""A comparison read back from the JSON that `comparison_files.to_json` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.compare import Comparison, ComparisonRow
from nnunet_attenscribble.evaluation.metrics import METRICS
from nnunet_attenscribble.evaluation.protocols import name_metric

__all__ = ["read_comparison"]

_SCHEMA, _SCHEMA_VERSION = "nnunet-attenscribble/comparison", 1
_LISTS = ("models", "structures", "cases", "notes")


def read_comparison(file: Path) -> Comparison:
    """Read a comparison; null becomes NaN and "inf" infinity again.

    Raises:
        AttenScribbleError: unreadable, damaged, or something else than a comparison.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AttenScribbleError(f"{file} cannot be read ({error}): compare the models again") from error
    found = (content.get("schema"), content.get("schema_version")) if isinstance(content, dict) else None
    if found != (_SCHEMA, _SCHEMA_VERSION):
        raise AttenScribbleError(f"{file} is not a comparison that this version reads: compare the models again")
    try:
        names = {name_metric(metric, content["protocol"]): metric for metric in METRICS}
        values = {column.name: content[column.name] for column in fields(Comparison)}
        values |= {name: tuple(values[name]) for name in _LISTS}
        values["rows"] = tuple(_read_row(row, names) for row in content["rows"])
        return Comparison(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise AttenScribbleError(f"{file} is damaged ({error!r}): compare the models again") from error


def _read_row(row: Mapping[str, Any], metrics: Mapping[str, str]) -> ComparisonRow:
    values = {column.name: row[column.name] for column in fields(ComparisonRow)}
    for column in fields(ComparisonRow):
        if column.type == "float":
            value = values[column.name]
            values[column.name] = float("nan") if value is None else float(value)
    return ComparisonRow(**{**values, "metric": metrics[row["metric"]]})
