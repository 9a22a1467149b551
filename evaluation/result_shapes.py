"""What the JSON files of this package's results hold, checked where they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_attenscribble.common.files import read_json
from nnunet_attenscribble.common.shapes import (
    COUNT,
    NUMBER,
    SIZE,
    TEXT,
    TRUTH,
    Shape,
    check_shape,
    list_of,
    mapping,
    nullable,
)
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = [
    "ATTENTION",
    "COLLECTED",
    "COMPARISON",
    "GRIDS",
    "POSTPROCESSING",
    "SUMMARY",
    "TRAINING",
    "VERSION",
    "read_result",
]

VERSION = 1  # of all of them

_SCORE = Shape(
    'a number, null or "inf"', lambda value: value is None or value in ("inf", "-inf") or NUMBER.accept(value)
)
_TEXTS, _NAMES = list_of(TEXT), mapping(each=nullable(TEXT))
_STATUS = Shape(
    "present, missed, spurious or absent", lambda value: value in ("present", "missed", "spurious", "absent")
)
_SCORES = mapping(
    {"status": _STATUS, "dice": _SCORE, "iou": _SCORE, "prediction_voxels": COUNT, "dense_voxels": COUNT},
    dict.fromkeys(("hd95_mm", "hd95_voxels", "assd_mm", "assd_voxels", "volume_difference_ml"), _SCORE),
)
_GRID = {"shape": list_of(SIZE), "spacing_mm": list_of(NUMBER)}
_IOUS = mapping(each=NUMBER)
_TOLD = {
    "protocol": TEXT,
    "hd95": mapping({"name": nullable(TEXT)}),
    "structures": list_of(mapping({"name": TEXT, "values": list_of(COUNT, at_least=1)}), at_least=1),
    "not_predicted": _TEXTS,
    "notes": _TEXTS,
    "provenance": _NAMES,
    "versions": mapping(each=TEXT),
}
_ASKED = {"nsd": mapping({"tolerance_mm": NUMBER}), "lesions": mapping({"iou": _IOUS}), "classes": _TEXTS}
_COUNTS = list_of(list_of(COUNT))
_CASES = list_of(mapping({"case": TEXT, "structures": mapping(each=_SCORES), **_GRID}, {"confusion": _COUNTS}))
SUMMARY = mapping({**_TOLD, "cases": _CASES}, _ASKED)
#: What kept scores tell of a training beside the scores, and of cases.
TRAINING, GRIDS = mapping(_TOLD, {**_ASKED, "confusions": mapping(each=_COUNTS)}), mapping(each=mapping(_GRID))
_NUMBERS = ("n", "infinite", "runs", "missed", "spurious", "pairs")
_SCORED = (
    *("mean", "sd", "sd_runs", "median", "low", "high", "share", "difference", "difference_low", "difference_high"),
    *("p", "p_holm"),
)
COMPARISON = mapping(
    {
        "reference": TEXT,
        "models": list_of(TEXT, at_least=1),
        "structures": _TEXTS,
        "cases": _TEXTS,
        "subjects": COUNT,
        "protocol": TEXT,
        "hd95": nullable(TEXT),
        "notes": _TEXTS,
        "confidence": NUMBER,
        "resamples": COUNT,
        "seed": COUNT,
        "provenance": mapping(each=mapping({"versions": mapping(each=TEXT)})),
        "rows": list_of(
            mapping(
                dict.fromkeys(("model", "structure", "metric"), TEXT)
                | dict.fromkeys(_NUMBERS, COUNT)
                | dict.fromkeys(_SCORED, _SCORE)
            )
        ),
    },
    {
        "nsd_mm": nullable(NUMBER),
        "lesions": _IOUS,
        "confusion": mapping(each=mapping(each=mapping(each=_SCORE))),
        "lesion_counts": mapping(each=mapping(each=mapping(each=NUMBER))),
    },
)
ATTENTION = mapping(
    {
        "provenance": _NAMES,
        "versions": mapping(each=TEXT),
        "labels": nullable(TEXT),
        "block": mapping(),
        "cases": _TEXTS,
        "similarity": list_of(mapping()),
    }
)
_BLOCK = {"attention": TRUTH}
_TABLES = nullable(mapping(dict.fromkeys(("json", "csv", "md"), TEXT)))
COLLECTED = mapping(
    {
        "name": TEXT,
        "reference": TEXT,
        "datasets": mapping({"scribble": TEXT, "dense": TEXT}, each=TEXT),
        "test": mapping({"text": TEXT, "folds": mapping(each=mapping({"images": TEXT, "labels": TEXT}))}),
        "scribbles": mapping({"folder": TEXT, "file_ending": TEXT, "ignore": nullable(COUNT)}),
        "selection": _TEXTS,
        "notes": _TEXTS,
        "rows": list_of(
            mapping(
                {
                    **dict.fromkeys(("name", "slug", "labels", "trainer", "configuration"), TEXT),
                    "settings": nullable(mapping()),
                    "budget": nullable(mapping(dict.fromkeys(("epochs", "iterations", "batch_size"), COUNT), _BLOCK)),
                    "compared": _TEXTS,
                }
            ),
            at_least=1,
        ),
        "cells": list_of(
            mapping(
                {
                    **dict.fromkeys(("cell", "row", "fold"), TEXT),
                    "seed": COUNT,
                    "folder": nullable(TEXT),
                    "lacks": nullable(TEXT),
                }
            )
        ),
        "comparison": _TABLES,
    },
    {"comparison_postprocessed": _TABLES},
)
POSTPROCESSING = mapping({"decisions": list_of(mapping({"structure": TEXT, "keep_largest": TRUTH}))})


def read_result(file: Path, kind: str, shape: Shape, again: str) -> dict[str, Any]:
    """The content of a result file with this package's schema.

    Args:
        file: to read.
        kind: of the result: the end of its schema's name.
        shape: of its content.
        again: the command that writes it anew, for messages.

    Raises:
        AttenScribbleError: unreadable, of another kind or version, or damaged, with every place.
    """
    content = read_json(file, again)
    found = (content.get("schema"), content.get("schema_version")) if isinstance(content, dict) else None
    if found != (f"nnunet-attenscribble/{kind}", VERSION):
        raise AttenScribbleError(f"{file} is not a {kind} that this version reads: {again}")
    check_shape(content, shape, file, again)
    return content
