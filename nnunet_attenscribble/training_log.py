"""The loss terms of a training, one line per epoch, in a CSV and a picture beside the checkpoint."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from nnunet_attenscribble.common.writing import replaced_file


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
    with replaced_file(file) as part, part.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def plot_epochs(file: Path, picture: Path) -> None:
    """Draw every column of the CSV over the epochs, each in axes of its own, because their scales differ.

    Args:
        file: written by `append_epoch`.
        picture: PNG to write.
    """
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = [name for name in rows[0] if name != "epoch"]
    figure = Figure(figsize=(9, 1.6 * ((len(names) + 1) // 2)), layout="constrained")
    for index, name in enumerate(names):
        axes = figure.add_subplot((len(names) + 1) // 2, 2, index + 1)
        points = [(int(row["epoch"]), float(row[name])) for row in rows if row[name]]
        axes.plot(*zip(*points, strict=True), color="#0072B2", marker="." if len(points) < 30 else "")
        axes.set_title(name.replace("_", " "), fontsize="small", loc="left")
        axes.tick_params(labelsize="x-small")
    figure.supxlabel("epoch", fontsize="small")
    with replaced_file(picture) as part:
        figure.savefig(part, dpi=120, format="png")
