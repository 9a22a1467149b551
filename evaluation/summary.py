"""The result files of an evaluation: `attenscribble_summary.json` and `attenscribble_metrics.csv`.

nnU-Net writes a `summary.json` of its own into `fold_X/validation`, scored on whatever it was trained with, which here
are scribbles; hence names that cannot be taken for it.

JSON, version 1 (a field may be added within a version; none changes its meaning). NaN is null and infinity "inf", for
JSON has neither:

    schema, schema_version  "nnunet-attenscribble/evaluation", 1
    package_version         of nnunet-attenscribble; `versions` of the libraries that computed the numbers
    protocol                name of the set of rules; "default" is this package's own
    protocol_origin, unit, distance_unit
                            whose rules they are, what a case is (volume or slice), the unit of distances (mm or voxels)
    rules, hd95, surface, spacing
                            the definitions in words
    provenance              the folders that were compared, dataset.json, SHA-256 of the model's plans.json if found
    notes                   what a reader of the numbers should know
    structures              [{"name": "RV", "values": [1]}, ...]; a region has several values
    aggregate               {"structures": {name: {counts, metric: {n, infinite, mean, sd, median}}}, "foreground_mean"}
    cases                   [{"case", "shape", "spacing_mm" (both in the order z, y, x), "structures": {name: {status,
                            dice, iou, hd95_mm, assd_mm, volume_difference_ml, prediction_voxels, dense_voxels,
                            volume_share}}}]
    not_predicted           cases that have a dense label and no prediction

    Where they are known or were asked for:

    classes                 names of the rows and columns of `confusion`, background first
    nsd                     {"tolerance_mm", "definition"}; then cases and aggregates have `nsd`
    lesions                 {"iou": {structure: threshold}, "definition"}; then these structures have lesion_f1,
                            lesions_found, lesions_missed and lesions_false
    cases[].confusion       voxels by true class (rows) and predicted class (columns)

    Of several runs, `prediction_voxels`, `confusion` and the numbers of lesions are means.

    Where a protocol ignores the spacing, hd95_mm and assd_mm are called hd95_voxels and assd_voxels.

CSV: one row per case and structure with the same columns; `nan` and `inf` as such, a region's values joined by "+".
The confusion is there as `from_background`, voxels of background predicted as the structure, and a column `to_CLASS`
per class, voxels of the structure predicted as that. Behind them, in every row, what the numbers are of (`PROVENANCE`),
as far as it is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from nnunet_attenscribble.common.files import encode_numbers, write_texts
from nnunet_attenscribble.common.shapes import (
    COUNT,
    NUMBER,
    SIZE,
    TEXT,
    Shape,
    check_shape,
    list_of,
    mapping,
    nullable,
    read_json,
)
from nnunet_attenscribble.common.text import counted, format_csv, list_some
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.metrics import (
    HD95_DEFINITIONS,
    LESION_COUNTS,
    LESION_DEFINITION,
    METRICS,
    NSD_DEFINITION,
    STATUSES,
    SURFACE_DEFINITIONS,
    StructureScores,
    aggregate_scores,
)
from nnunet_attenscribble.evaluation.protocols import PROTOCOLS, find_volume, name_metric
from nnunet_attenscribble.evaluation.structures import Counts, Structure, list_classes

SUMMARY_FILE = "attenscribble_summary.json"
METRICS_FILE = "attenscribble_metrics.csv"
# What every result file tells, CSV included; the JSON has more.
PROVENANCE = ("seed", "fold", "plans_sha256", "commit_training", "commit")
# Result files by the end of their schema's name: what they are, and the version of the schema.
_KINDS = {
    "evaluation": ("a summary of `attenscribble evaluate`", 1),
    "comparison": ("a comparison of `attenscribble compare`", 1),
    "collected": ("of what `attenscribble benchmark collect` gathered", 1),
    "kept": ("of kept scores, which `attenscribble benchmark collect --keep` writes", 2),
    "attention": ("of `attenscribble attention`", 1),
    "postprocessing": ("of `attenscribble postprocess`", 2),
}
_AGAIN = "run `attenscribble evaluate` again"
_NOT_COMPUTED = "not part of this protocol"
#: A number in a result file, where infinity is "inf" and NaN null.
SCORE = Shape(
    'a number, null or "inf"', lambda value: value is None or value in ("inf", "-inf") or NUMBER.accept(value)
)
# Voxels; of several runs the mean, which need not be whole.
_VOXELS = Shape("a number from 0", lambda value: NUMBER.accept(value) and 0 <= value < float("inf"))
_TEXTS = list_of(TEXT)
_STATUS = Shape("present, missed, spurious or absent", lambda value: value in STATUSES)
HD95 = nullable(Shape(" or ".join(HD95_DEFINITIONS), lambda value: value in tuple(HD95_DEFINITIONS)))
_SCORES = mapping(
    {"status": _STATUS, "dice": SCORE, "iou": SCORE, "prediction_voxels": _VOXELS, "dense_voxels": COUNT},
    dict.fromkeys(("hd95_mm", "hd95_voxels", "assd_mm", "assd_voxels", "volume_difference_ml"), SCORE),
)
_GRID = {"shape": list_of(SIZE), "spacing_mm": list_of(NUMBER)}
_TOLD = {
    "protocol": TEXT,
    "hd95": mapping({"name": HD95}),
    "structures": list_of(mapping({"name": TEXT, "values": list_of(COUNT, at_least=1)}), at_least=1),
    "not_predicted": _TEXTS,
    "notes": _TEXTS,
    "provenance": mapping(each=nullable(TEXT)),
    "versions": mapping(each=TEXT),
}
_ASKED = {
    "nsd": mapping({"tolerance_mm": NUMBER}),
    "lesions": mapping({"iou": mapping(each=NUMBER)}),
    "classes": _TEXTS,
}
_COUNTS = list_of(list_of(_VOXELS))
_CASES = list_of(
    mapping({"case": TEXT, "structures": mapping(each=_SCORES), **_GRID}, {"confusion": _COUNTS}), at_least=1
)
_SUMMARY = mapping({**_TOLD, "cases": _CASES}, _ASKED)
#: What kept scores tell of a training beside the scores, and of cases.
TRAINING, GRIDS = mapping(_TOLD, {**_ASKED, "confusions": mapping(each=_COUNTS)}), mapping(each=mapping(_GRID))
_ALWAYS = tuple(column.name for column in fields(StructureScores) if column.default is MISSING)


@dataclass(frozen=True)
class Summary:
    """What an evaluation found.

    Attributes:
        structures: what was scored, in order.
        cases: scores by case, then by the structure's name.
        shapes: voxels per axis of each case, (Y, X) or (Z, Y, X).
        spacings: millimetres per axis of each case, in the same order.
        hd95: a key of `HD95_DEFINITIONS`; None where the protocol has no HD95.
        protocol: a key of `PROTOCOLS`.
        nsd_mm: tolerance of the normalised surface distance; None where it was not asked for.
        lesions: by structure whose components were counted, the IoU from which they match.
        confusions: voxels by true and predicted class of each case, in the order of `classes`; empty where structures
            overlap, and in results of earlier versions.
        not_predicted: cases with a dense label and without a prediction.
        notes: what a reader of the numbers should know.
        provenance: where the numbers come from.
        versions: of this package, of Python and of the libraries.
        runs: the runs whose average over random seeds this is, each with all cases; empty for a single run. Not
            written to files.
    """

    structures: tuple[Structure, ...]
    cases: dict[str, dict[str, StructureScores]]
    shapes: dict[str, tuple[int, ...]]
    spacings: dict[str, tuple[float, ...]]
    hd95: str | None = "monai"
    protocol: str = "default"
    nsd_mm: float | None = None
    lesions: Mapping[str, float] = field(default_factory=dict)
    confusions: Mapping[str, Counts] = field(default_factory=dict)
    not_predicted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, str | None] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    runs: tuple[Summary, ...] = ()

    @property
    def names(self) -> list[str]:
        """The structures' names, in order."""
        return [structure.name for structure in self.structures]

    @property
    def volumes(self) -> set[str]:
        """The cases that were predicted: `cases` are slices of them where the protocol scores those."""
        return {find_volume(case, self.protocol) for case in self.cases}

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of `confusions`, background first; empty where there are none."""
        return list_classes(self.structures) if self.confusions else ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """`METRICS`, and those of `OPTIONAL_METRICS` that were asked for."""
        asked = (("nsd", self.nsd_mm is not None), ("lesion_f1", bool(self.lesions)))
        return (*METRICS, *(metric for metric, is_asked in asked if is_asked))

    def names_of(self, metric: str) -> list[str]:
        """The structures that have a metric: all of them, but for lesions those that were asked for."""
        return [name for name in self.names if metric != "lesion_f1" or name in self.lesions]

    def aggregate(self) -> dict[str, dict[str, Any]]:
        """Mean, standard deviation, median and counts: see `aggregate_scores`."""
        foreground = PROTOCOLS[self.protocol].foreground
        return aggregate_scores(self.cases, self.names, metrics=self.metrics, foreground=foreground)


def tell_not_predicted(cases: Sequence[str]) -> list[str]:
    """The note on cases with a dense label and without a prediction, if there are any."""
    if not cases:
        return []
    return [
        f"{counted(len(cases), 'case', 'has')} a dense label but no prediction and "
        f"{'is' if len(cases) == 1 else 'are'} not scored ({list_some(cases)})."
    ]


def write_summary(summary: Summary, folder: Path) -> tuple[Path, Path]:
    """Write both files into a folder, which is made if need be, or neither.

    Returns:
        The JSON and the CSV file.
    """
    write_texts({folder / METRICS_FILE: _to_csv(summary), folder / SUMMARY_FILE: encode_result(_to_content(summary))})
    return folder / SUMMARY_FILE, folder / METRICS_FILE


def read_summary(path: Path) -> Summary:
    """Read what `write_summary` wrote.

    Args:
        path: the JSON file, or the folder that holds it.

    Raises:
        AttenScribbleError: nothing there, nnU-Net's own summary.json, a newer version, or a damaged file.
    """
    file = path / SUMMARY_FILE if path.is_dir() else path
    if not file.is_file():
        hint = "the summary.json there is nnU-Net's own; " if (file.parent / "summary.json").is_file() else ""
        raise AttenScribbleError(f"no {SUMMARY_FILE} at {path}: {hint}run `attenscribble evaluate` first")
    content = read_json(file, _AGAIN)
    if isinstance(content, dict) and "metric_per_case" in content:
        raise AttenScribbleError(
            f"{file} is nnU-Net's own summary, scored on the labels it was trained with, which may be scribbles: "
            f"run `attenscribble evaluate` on that folder and give the {SUMMARY_FILE} it writes"
        )
    _check_result(content, file, "evaluation", _SUMMARY, _AGAIN)
    if content["protocol"] not in PROTOCOLS:
        raise AttenScribbleError(
            f"{file} was scored by the protocol {content['protocol']!r}, which this version does not know: {_AGAIN}"
        )
    try:
        return from_content(content)
    except (KeyError, TypeError, ValueError) as error:
        raise AttenScribbleError(f"{file} is damaged ({error!r}): {_AGAIN}") from error


def head_result(kind: str) -> dict[str, Any]:
    """What a result file of a kind, the end of its schema's name, begins with."""
    return {"schema": f"nnunet-attenscribble/{kind}", "schema_version": _KINDS[kind][1]}


def encode_result(content: Mapping[str, Any]) -> str:
    """The text of a result file; NaN becomes null and infinity "inf", for JSON has neither."""
    return json.dumps(encode_numbers(content), indent=2, allow_nan=False) + "\n"


def read_result(file: Path, kind: str, shape: Shape, again: str) -> dict[str, Any]:
    """The content of a result file.

    Args:
        file: to read.
        kind: of the result: the end of its schema's name.
        shape: of its content.
        again: what to do where it is not sound, for messages.

    Raises:
        AttenScribbleError: unreadable, of another kind or version, or damaged, with every place.
    """
    content = read_json(file, again)
    _check_result(content, file, kind, shape, again)
    return content


def _check_result(content: Any, file: Path, kind: str, shape: Shape, again: str) -> None:
    (what, version), found = _KINDS[kind], content if isinstance(content, dict) else {}
    if found.get("schema") != f"nnunet-attenscribble/{kind}":
        raise AttenScribbleError(f"{file} is not {what}: give another file, or {again}")
    if found.get("schema_version") != version:
        raise AttenScribbleError(
            f"{file} has schema version {found.get('schema_version')}, this program reads {version}: {again}, or use "
            "the version of this package that wrote it"
        )
    check_shape(content, shape, file, again)


def describe_versions(versions: Mapping[str, str]) -> str:
    """Versions on one line, in the order of their names."""
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def describe_summary(summary: Summary) -> dict[str, Any]:
    """What stands in the JSON file beside the scores of the cases and their means."""
    protocol = PROTOCOLS[summary.protocol]
    content: dict[str, Any] = {
        **head_result("evaluation"),
        "package_version": summary.versions.get("nnunet-attenscribble"),
        "versions": dict(summary.versions),
        "protocol": protocol.name,
        "protocol_origin": protocol.origin,
        "unit": protocol.unit,
        "distance_unit": protocol.distance_unit,
        "rules": dict(protocol.rules),
        "hd95": {"name": summary.hd95, "definition": HD95_DEFINITIONS.get(summary.hd95 or "", _NOT_COMPUTED)},
        "surface": {
            "name": protocol.surface,
            "definition": SURFACE_DEFINITIONS.get(protocol.surface or "", _NOT_COMPUTED),
        },
    }
    if summary.classes:
        content["classes"] = list(summary.classes)
    if summary.nsd_mm is not None:
        content["nsd"] = {"tolerance_mm": summary.nsd_mm, "definition": NSD_DEFINITION}
    if summary.lesions:
        content["lesions"] = {"iou": dict(summary.lesions), "definition": LESION_DEFINITION}
    return {
        **content,
        "spacing": "that of each dense label: from its header, or what a TIFF states beside it or in its tags",
        "provenance": dict(summary.provenance),
        "notes": list(summary.notes),
        "structures": [asdict(structure) for structure in summary.structures],
        "not_predicted": list(summary.not_predicted),
    }


def _to_content(summary: Summary) -> dict[str, Any]:
    aggregate = summary.aggregate()
    return {
        **describe_summary(summary),
        "aggregate": {
            "structures": {name: _rename(entry, summary.protocol) for name, entry in aggregate["structures"].items()},
            "foreground_mean": _rename(aggregate["foreground_mean"], summary.protocol),
        },
        "cases": [
            {
                "case": case,
                "shape": summary.shapes[case],
                "spacing_mm": summary.spacings[case],
                "structures": {
                    name: _rename(
                        {column: getattr(entry, column) for column in _list_written(summary, name)}, summary.protocol
                    )
                    for name, entry in scores.items()
                },
                **({"confusion": summary.confusions[case]} if summary.confusions else {}),
            }
            for case, scores in summary.cases.items()
        ],
    }


def list_score_columns(nsd_mm: float | None, lesions: Mapping[str, float], structure: str | None = None) -> list[str]:
    """The fields that the scores of a structure, or of any, have where these metrics were asked for, in order;
    `name_metric` tells their names in files.
    """
    columns = [*_ALWAYS, *(["nsd"] if nsd_mm is not None else [])]
    if structure in lesions or (structure is None and lesions):
        columns += ["lesion_f1", *LESION_COUNTS]
    return columns


def _list_written(summary: Summary, structure: str | None = None) -> list[str]:
    columns = list_score_columns(summary.nsd_mm, summary.lesions, structure)
    return [*_ALWAYS, "volume_share", *columns[len(_ALWAYS) :]]


def _rename(entry: Mapping[str, object], protocol: str) -> dict[str, object]:
    return {name_metric(key, protocol): value for key, value in entry.items()}


def from_content(content: Mapping[str, Any]) -> Summary:
    """The summary of a JSON file's content; KeyError, TypeError or ValueError where it is damaged."""
    names = [entry["case"] for entry in content["cases"]]
    if len(set(names)) < len(names):
        raise ValueError("a case stands twice")
    if any(len(entry["shape"]) != len(entry["spacing_mm"]) for entry in content["cases"]):
        raise ValueError("a case whose shape and spacing have not as many axes")
    protocol = content["protocol"]
    structures = tuple(Structure(entry["name"], tuple(entry["values"])) for entry in content["structures"])
    nsd_mm = content["nsd"]["tolerance_mm"] if "nsd" in content else None
    lesions = content["lesions"]["iou"] if "lesions" in content else {}
    columns = {entry.name: list_score_columns(nsd_mm, lesions, entry.name) for entry in structures}
    return Summary(
        structures=structures,
        cases={
            entry["case"]: {
                name: _read_scores(entry["structures"][name], own, protocol) for name, own in columns.items()
            }
            for entry in content["cases"]
        },
        shapes={entry["case"]: tuple(entry["shape"]) for entry in content["cases"]},
        spacings={entry["case"]: tuple(entry["spacing_mm"]) for entry in content["cases"]},
        hd95=content["hd95"]["name"],
        protocol=protocol,
        nsd_mm=nsd_mm,
        lesions=lesions,
        confusions=_read_confusions(content) if "classes" in content else {},
        not_predicted=tuple(content["not_predicted"]),
        notes=tuple(content["notes"]),
        provenance=content["provenance"],
        versions=content["versions"],
    )


def _read_scores(entry: dict, columns: Sequence[str], protocol: str) -> StructureScores:
    values: dict[str, Any] = {}
    for column in columns:
        value = entry[name_metric(column, protocol)]
        value = float("nan") if value is None else value
        values[column] = float(value) if column in METRICS else value
    return StructureScores(**values)


def _read_confusions(content: Mapping[str, Any]) -> dict[str, Counts]:
    number = 1 + len(content["structures"])
    found = {entry["case"]: tuple(map(tuple, entry["confusion"])) for entry in content["cases"]}
    if any(len(table) != number or {*map(len, table)} != {number} for table in found.values()):
        raise ValueError(f"a confusion that is not {number} x {number}")
    return found


def _to_csv(summary: Summary) -> str:
    columns = _list_written(summary)
    confusion = ["from_background", *(f"to_{name}" for name in summary.classes)] if summary.classes else []
    names = [*_rename(dict.fromkeys(columns), summary.protocol), *confusion]
    rows = []
    origin = [*(summary.provenance.get(key) for key in PROVENANCE), describe_versions(summary.versions)]
    for case, scores in summary.cases.items():
        for position, structure in enumerate(summary.structures, start=1):
            entry = [getattr(scores[structure.name], column) for column in columns]
            if confusion:
                counts = summary.confusions[case]
                entry += [counts[0][position], *counts[position]]
            values = "+".join(map(str, structure.values))
            rows.append([case, structure.name, values, *entry, *origin])
    return format_csv(["case", "label", "values", *names, *PROVENANCE, "versions"], rows)
