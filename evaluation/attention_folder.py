"""The folder of `attenscribble attention`: what an attention block sees in some cases, and how alike it finds classes.

    attention.json      whose block it is, how it was read, and `similarity`: means over the cases
    similarity.csv      a row per case, neighbourhood and pair of classes; not there without dense labels or similarity
    CASE.npz, CASE.png  one position of a case, see `report.attention`

JSON, version 1: schema, schema_version, provenance (model, dataset, trainer, configuration, fold, checkpoint,
plans_sha256, commit), versions, labels (of which kind the classes are: `dense` or `predicted`), block (mode, radius,
grid), cases, similarity [{neighbours, pairs, cases, mean, sd}]. NaN is null.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_attenscribble.common.files import write_texts
from nnunet_attenscribble.common.shapes import TEXT, list_of, mapping
from nnunet_attenscribble.common.text import format_csv
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.summary import encode_result, head_result, read_result

ATTENTION_FILE, PAIRS_FILE = "attention.json", "similarity.csv"
_KINDS = ("same class", "same structure", "different classes")
_RECORD = mapping({"cases": list_of(TEXT, at_least=1), "similarity": list_of(mapping())})


@dataclass(frozen=True)
class PairMean:
    """Mean similarity of the neighbours of two classes in one case.

    Attributes:
        case: its identifier.
        neighbours: `window`, all of the block's window, or `adjacent`, those that touch.
        first: name of a class; the background is one.
        second: name of the other, or the same again.
        pairs: number of them.
        mean: of their similarities.
    """

    case: str
    neighbours: str
    first: str
    second: str
    pairs: int
    mean: float


@dataclass(frozen=True)
class SimilarityMean:
    """Mean similarity over cases.

    Attributes:
        neighbours: `window` or `adjacent`.
        pairs: `same class`, `same structure` (without the background's own pairs) or `different classes`.
        cases: that have such pairs.
        mean: over them, of each case's mean over its pairs.
        sd: over them; NaN for a single one.
    """

    neighbours: str
    pairs: str
    cases: int
    mean: float
    sd: float


def average_pairs(pairs: Sequence[PairMean]) -> list[SimilarityMean]:
    """Means over cases of same and of different classes, by neighbourhood; kinds without a single pair are left out."""
    found = []
    for neighbours in dict.fromkeys(entry.neighbours for entry in pairs):
        for kind in _KINDS:
            sums: dict[str, list[float]] = {}
            for entry in pairs:
                if entry.neighbours == neighbours and _is_kind(entry, kind):
                    total = sums.setdefault(entry.case, [0.0, 0])
                    total[0] += entry.mean * entry.pairs
                    total[1] += entry.pairs
            means = [total / number for total, number in sums.values() if number]
            if means:
                sd = float(np.std(means, ddof=1)) if len(means) > 1 else math.nan
                found.append(SimilarityMean(neighbours, kind, len(means), float(np.mean(means)), sd))
    return found


def write_record(folder: Path, content: Mapping[str, Any], pairs: Sequence[PairMean]) -> None:
    """Write the JSON, and the CSV where there are pairs, into a folder that is there.

    Args:
        folder: to write into.
        content: of the JSON, without its schema and `similarity`.
        pairs: of every case; empty without dense labels or similarity.
    """
    texts = {}
    if pairs:
        header = [column.name for column in fields(PairMean)]
        texts[folder / PAIRS_FILE] = format_csv(header, map(astuple, pairs))
    similarity = [asdict(entry) for entry in average_pairs(pairs)]
    texts[folder / ATTENTION_FILE] = encode_result({**head_result("attention"), **content, "similarity": similarity})
    write_texts(texts)


def read_record(folder: Path) -> tuple[list[str], list[PairMean]]:
    """The cases that a folder shows, and their pairs.

    Raises:
        AttenScribbleError: nothing there, damaged, or something else.
    """
    file = folder / ATTENTION_FILE
    try:
        content = read_result(file, "attention", _RECORD, "run `attenscribble attention` again")
        return content["cases"], _read_pairs(folder / PAIRS_FILE) if content["similarity"] else []
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise AttenScribbleError(f"{file} cannot be read ({error!r}): run `attenscribble attention` again") from error


def _read_pairs(file: Path) -> list[PairMean]:
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    values: list[dict[str, Any]] = [{**row, "pairs": int(row["pairs"]), "mean": float(row["mean"])} for row in rows]
    return [PairMean(**row) for row in values]


def _is_kind(entry: PairMean, kind: str) -> bool:
    if kind == "different classes":
        return entry.first != entry.second
    return entry.first == entry.second and (kind == "same class" or entry.first != "background")
