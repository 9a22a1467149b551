"""Scores of a benchmark's trainings in two files, to be kept and published without predictions and models.

    scores.csv      a row per training and case: `training`, `case`, and by structure the columns of
                    attenscribble_metrics.csv, as `LV dice`; every digit is there
    trainings.json  schema "nnunet-attenscribble/kept", version 2; `rows` of scores.csv; by training what its
                    attenscribble_summary.json tells beside the scores; `shared`: of that, what is the same for all;
                    `cases`: voxels and millimetres per axis, z, y, x (empty where they are not known).
                   A training's `confusions` are by case the `confusion` of a summary

A training is named by its place in a benchmark, `seed_S/fold_F/ROW`, and the scores of its postprocessed predictions by
`seed_S/fold_F/ROW/postprocessed`. Such a name below the folder is read as if it were a folder with a summary, and ROW
alone stands for all folds and seeds of a row.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_attenscribble.common.files import list_names, replaced_folder, write_text
from nnunet_attenscribble.common.shapes import COUNT, mapping, shape_problems
from nnunet_attenscribble.common.text import format_csv, list_some
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.evaluation.metrics import LESION_COUNTS, OPTIONAL_METRICS, STATUSES
from nnunet_attenscribble.evaluation.pooling import list_differences
from nnunet_attenscribble.evaluation.protocols import PROTOCOLS, name_metric
from nnunet_attenscribble.evaluation.summary import (
    GRIDS,
    TRAINING,
    Summary,
    describe_summary,
    from_content,
    head_result,
    list_score_columns,
    read_result,
    read_summary,
)

SCORES_FILE, TRAININGS_FILE = "scores.csv", "trainings.json"
#: Ends the name of the scores of a training's postprocessed predictions.
POSTPROCESSED = "postprocessed"
_LEVELS = 4  # of names below the folder: seed, fold, row, postprocessed
_AGAIN = "fetch them again"
_KEPT = mapping({"rows": COUNT, "shared": mapping(), "cases": GRIDS, "trainings": mapping(each=mapping())})


def is_kept(folder: Path) -> bool:
    """Whether a folder holds what `write_kept` writes."""
    return (folder / TRAININGS_FILE).is_file()


def write_kept(folder: Path, summaries: Mapping[str, Summary]) -> None:
    """Write both files; kept scores that are there already are replaced.

    Args:
        folder: is made where it is missing.
        summaries: by training.

    Raises:
        AttenScribbleError: something else is in the folder, or scores of other trainings; the summaries differ in
            definitions, structures or dense labels; every problem.
    """
    name, first = next(iter(summaries.items()))
    problems = _list_losses(folder, summaries)
    for other, summary in summaries.items():
        problems += list_differences(other, summary, name, first, same_cases=False)
    refuse(problems)
    columns = list_score_columns(first.nsd_mm, first.lesions)
    names = [name_metric(column, first.protocol) for column in columns]
    header = ["training", "case", *(f"{label} {column}" for label in first.names for column in names)]
    rows = [
        [training, case, *(getattr(scores[label], column) for label in first.names for column in columns)]
        for training, summary in summaries.items()
        for case, scores in summary.cases.items()
    ]
    told = {training: _describe(summary) for training, summary in summaries.items()}
    shared = _find_shared(list(told.values()))
    cases: dict[str, object] = {}
    for summary in summaries.values():
        for case, shape in summary.shapes.items():
            cases.setdefault(case, {"shape": shape, "spacing_mm": summary.spacings[case]})
    head = {**head_result("kept"), "rows": len(rows)}
    own = {training: _take_out(content, shared) for training, content in told.items()}
    parts = [_write_lines(*part) for part in (("shared", shared), ("cases", cases), ("trainings", own))]
    text = ",\n".join([json.dumps(head, indent=2)[:-2], *parts]) + "\n}\n"
    with replaced_folder(folder.absolute()) as part:
        write_text(part / SCORES_FILE, format_csv(header, rows))
        write_text(part / TRAININGS_FILE, text)


def read_kept(folder: Path) -> dict[str, Summary]:
    """Read what `write_kept` wrote, by training.

    Raises:
        AttenScribbleError: a file is missing or damaged, or of another version.
    """
    content = read_result(folder / TRAININGS_FILE, "kept", _KEPT, _AGAIN)
    try:
        # A comma, a quote or a line end in a name is written and read by the same module.
        with (folder / SCORES_FILE).open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise AttenScribbleError(f"the kept scores in {folder} cannot be read ({error}): {_AGAIN}") from error
    try:
        if len(rows) != content["rows"]:
            raise ValueError(f"{SCORES_FILE} has {len(rows)} rows in place of {content['rows']}")
        return _put_together(content, rows)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AttenScribbleError(f"the kept scores in {folder} are damaged ({error!r}): {_AGAIN}") from error


def find_summaries(path: Path) -> list[Summary]:
    """The results that a path names.

    Args:
        path: the summary of `attenscribble evaluate` or the folder that holds it; or, below a folder of kept scores, a
            training or a row, which stands for all its trainings.

    Raises:
        AttenScribbleError: there are none.
    """
    if path.exists() and not is_kept(path):
        return [read_summary(path)]
    folders = [place for place in (path, *list(path.parents)[:_LEVELS]) if is_kept(place)]
    if not folders:
        return [read_summary(path)]  # which tells what is missing
    folder = folders[0]
    name = path.relative_to(folder).as_posix()
    summaries = read_kept(folder)
    found = [
        summary for training, summary in summaries.items() if name in (training, "/".join(training.split("/")[2:]))
    ]
    if not found:
        rows = list(dict.fromkeys(training.split("/")[2] for training in summaries))
        asked = f"has no scores of {name}" if folder != path else "holds the scores of several rows"
        raise AttenScribbleError(
            f"{folder} {asked}: give one of its rows, as {folder / rows[0]} (it has {list_some(rows)}), or one of its "
            f"trainings, as {folder / next(iter(summaries))}"
        )
    return found


def _list_losses(folder: Path, summaries: Mapping[str, Summary]) -> list[str]:
    """What would be lost if the folder was replaced."""
    held = list_names(folder)
    if not held and (folder.is_dir() or not folder.exists()):
        return []
    if TRAININGS_FILE not in held:
        return [f"{folder} holds something else than kept scores: give another place with --keep"]
    others = [name for name in held if name not in (SCORES_FILE, TRAININGS_FILE)]
    others += [training for training in read_kept(folder) if training not in summaries]
    return [f"{folder} holds more than would replace it ({list_some(others)}): give another place"] if others else []


def _describe(summary: Summary) -> dict[str, Any]:
    return describe_summary(summary) | ({"confusions": dict(summary.confusions)} if summary.confusions else {})


def _find_shared(contents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Entries that all have alike, and within those that are dictionaries the entries that all have alike."""
    first, *others = contents
    shared: dict[str, Any] = {}
    for key, value in first.items():
        values: list[Any] = [content.get(key) for content in others]
        if all(key in content for content in others) and all(other == value for other in values):
            shared[key] = value
        elif isinstance(value, dict) and all(isinstance(other, dict) for other in values):
            shared[key] = _find_shared([value, *values])
    return shared


def _take_out(content: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {}
    for key, value in content.items():
        if key not in shared:
            own[key] = value
        elif shared[key] != value:
            own[key] = _take_out(value, shared[key])
    return own


def _put_back(own: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    inner = {
        key: _put_back(value, shared[key])
        for key, value in own.items()
        if isinstance(value, dict) and isinstance(shared.get(key), dict)
    }
    return {**shared, **own, **inner}


def _write_lines(name: str, entries: Mapping[str, object]) -> str:
    """An entry of the outermost level, a line for each of its own entries."""
    lines = ",\n".join(f"    {_dump(key)}: {_dump(value)}" for key, value in entries.items())
    return f"  {_dump(name)}: {{\n{lines}\n  }}"


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _put_together(content: Mapping[str, Any], rows: Sequence[dict[str, str]]) -> dict[str, Summary]:
    """The summaries; KeyError, TypeError or ValueError where something is not as it was written."""
    told = {training: _put_back(own, content["shared"]) for training, own in content["trainings"].items()}
    for problem in shape_problems(told, mapping(each=TRAINING)):
        raise ValueError(problem)
    scores: dict[str, dict[str, dict[str, Any]]] = {training: {} for training in told}
    for row in rows:
        training, case = row.pop("training"), row.pop("case")
        if case in scores[training]:
            raise ValueError(f"{training}, {case} stands there twice")
        entries: dict[str, dict[str, Any]] = {}
        for key, value in row.items():
            label, _, column = key.rpartition(" ")
            entries.setdefault(label, {})[column] = value
        for entry in entries.values():
            if entry["status"] not in STATUSES:
                raise ValueError(f"status {entry['status']!r}")
            entry |= {key: int(entry[key]) for key in ("prediction_voxels", "dense_voxels")}
            entry |= {key: float(entry[key]) for key in (*OPTIONAL_METRICS, *LESION_COUNTS) if entry.get(key)}
        scores[training][case] = entries
    summaries = {}
    for training, own in told.items():
        if training.count("/") not in (2, 3) or own["protocol"] not in PROTOCOLS or not scores[training]:
            raise ValueError(training)
        confusions = own.pop("confusions", {})
        cases = [
            {"case": case, **content["cases"][case], "structures": entries}
            | ({"confusion": confusions[case]} if confusions else {})
            for case, entries in scores[training].items()
        ]
        summaries[training] = from_content({**own, "cases": cases})
    return summaries
