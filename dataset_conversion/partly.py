"""Cases of which only a part was annotated: some of the classes, or single slices as a whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.text import list_some, normalise, read_table
from nnunet_attenscribble.common.volumes import slice_axis
from nnunet_attenscribble.errors import AttenScribbleError

_COLUMNS = ["case", "classes"]
_FORM = "give a CSV with the columns case,classes and a line such as p01,liver;spleen for every such case"


def read_annotated(
    file: Path, labels: Mapping[str, int], cases: Collection[str], problems: list[str]
) -> dict[str, tuple[int, ...]]:
    """The annotated classes of the cases that a table names, as values; 0 where background strokes are in none of all.

    Args:
        file: CSV with the columns `case` and `classes`, the latter with `;` between them; or `;` between columns, as
            spreadsheets of many languages write it, and `;` or `,` between classes.
        labels: name to value, background among them.
        cases: identifiers of the training cases.
        problems: gets every line that cannot be.

    Raises:
        AttenScribbleError: the file cannot be read, or has other columns.
    """
    between = ";"
    try:
        columns, rows = read_table(file)
        if len(columns) == 1 and ";" in columns[0]:
            columns, rows = read_table(file, ";")
            between = ","
    except AttenScribbleError as error:
        raise AttenScribbleError(f"{error}: {_FORM}") from None
    spelled = {name.strip().casefold(): name for name in columns}
    if list(spelled) != _COLUMNS or len(columns) != len(_COLUMNS):
        raise AttenScribbleError(f"{file}: its columns are {', '.join(columns) or 'none'}: {_FORM}")
    found: dict[str, tuple[int, ...]] = {}
    for number, row in rows:
        case, text = normalise(row[spelled["case"]] or "").strip(), row[spelled["classes"]] or ""
        parts = [part.strip() for part in text.split(";")]
        split = [[part] if part in labels else part.split(between) for part in parts]
        names = [name.strip() for part in split for name in part if name.strip()]
        unknown = [name for name in names if name not in labels]
        where = f"{file}, line {number}"
        if row.get(None):  # what it has too much
            problems.append(f"{where}: has more than two columns: put {between} between classes")
        elif case not in cases:
            problems.append(f"{where}: there is no training case '{case}': correct its name, or leave the line out")
        elif case in found:
            problems.append(f"{where}: names the case {case} a second time: leave one of the lines out")
        elif unknown:
            problems.append(f"{where}: {list_some(unknown)} is no class: there are {', '.join(list(labels)[1:])}")
        elif not any(labels[name] for name in names):
            problems.append(f"{where}: names no class of {case}: nothing could be learnt from it, leave the case out")
        else:
            found[case] = tuple(sorted({labels[name] for name in names}))
    if not rows:
        problems.append(f"{file}: has no line: {_FORM}")
    return found


def leave_open(
    values: np.ndarray, annotated: Collection[int], labels: Mapping[str, int], ignore: int, name: str
) -> np.ndarray:
    """Make `ignore` of the background of a case in which not all classes were annotated: the others may be there.

    Args:
        values: background 0, then classes, then `ignore`.
        annotated: values of the classes that were looked for; 0 among them: strokes in the background stay, as they are
            in none of the others either.
        labels: name to value.
        ignore: of unlabelled voxels.
        name: for errors.

    Raises:
        AttenScribbleError: a class is there that is said not to be annotated, or all of a dense label would stay
            background.
    """
    others = [label for label, value in labels.items() if value and value not in annotated]
    held = [label for label in others if (values == labels[label]).any()]
    if held:
        raise AttenScribbleError(
            f"{name}: holds voxels of {list_some(held)}, which the table of annotated classes does not name for this "
            "case: add it there, or take these voxels out"
        )
    if not others:
        return values
    if 0 not in annotated:
        return np.where(values == 0, ignore, values).astype(values.dtype)
    if not (values == ignore).any():
        raise AttenScribbleError(
            f"{name}: has no unlabelled voxel, so that {list_some(others)} would be background wherever they are: take "
            "background out of the table of annotated classes for this case"
        )
    return values


def complete_slices(
    values: np.ndarray, ignore: int, rest: str, axis: int | None, label: sitk.Image, name: str
) -> tuple[np.ndarray, bool]:
    """Make background of what is in no class in the slices that show one, and leave the other slices unlabelled.

    Args:
        values: (z, y, x) or (y, x), background 0, then classes, then `ignore`.
        ignore: of unlabelled voxels.
        rest: what the file calls voxels in no class: `background` or `unlabelled`.
        axis: across which slices are cut; None: the coarsest.
        label: with the spacing.
        name: for errors.

    Returns:
        the values, and whether they were labelled so at all: a file with strokes in the background, or with unlabelled
        voxels where its rest is background, stays as it is.

    Raises:
        AttenScribbleError: where the axis is not told, and none is the coarsest.
    """
    if (values == (ignore if rest == "background" else 0)).any():
        return values, False
    if values.ndim == 3:
        across = _coarsest(label, name) if axis is None else axis
        others = tuple({0, 1, 2} - {across})
    else:
        others = (0, 1)
    shows = ((values > 0) & (values < ignore)).any(axis=others, keepdims=True)
    completed = np.where(shows, np.where(values == ignore, 0, values), ignore)
    return completed.astype(values.dtype), True


def _coarsest(label: sitk.Image, name: str) -> int:
    shape, spacing = label.GetSize()[::-1], label.GetSpacing()[::-1]
    first, second = sorted(spacing, reverse=True)[:2]
    if first < 1.01 * second and shape.count(1) != 1:
        raise AttenScribbleError(
            f"{name}: no axis has the largest spacing: say across which one its slices are labelled, --axis 0, 1 or 2 "
            "(z, y, x)"
        )
    return slice_axis(shape, spacing)
