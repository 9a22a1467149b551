"""The loss terms of a training, one line per epoch, in a CSV beside the checkpoint."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path


def append_epoch(file: Path, epoch: int, values: Mapping[str, float]) -> None:
    """Write the values of one epoch; lines of this and later epochs, from a run that was cut off, are replaced.

    Args:
        file: CSV with a column `epoch`; made where it is missing.
        epoch: number of the epoch.
        values: by column name. Columns that earlier lines lack stay empty there.
    """
    rows: list[dict[str, str]] = []
    if file.exists():
        with file.open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if int(row["epoch"]) < epoch]
    rows.append({"epoch": str(epoch), **{name: f"{value:.6g}" for name, value in values.items()}})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    part = file.with_suffix(".part")
    with part.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(file)
