"""Whether the two datasets of a benchmark are what the file calls them: scribbles, and dense labels of the same
structures.
"""

from __future__ import annotations

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark.file import SAME_DATASET
from nnunet_attenscribble.evaluation.benchmark.workspace import Workspace
from nnunet_attenscribble.evaluation.structures import LabelCoding, read_label_coding

__all__ = ["list_twin_problems"]


def list_twin_problems(workspace: Workspace, scribble: str, dense: str) -> list[str]:
    """What the dataset.json that nnU-Net trains by say against a pair of twins.

    Args:
        workspace: with both datasets planned.
        scribble, dense: `DatasetNNN_Name`.
    """
    if scribble == dense:
        return [SAME_DATASET.format(dense)]
    files = {name: workspace.preprocessed / name / "dataset.json" for name in (scribble, dense)}
    problems: list[str] = []
    codings: dict[str, LabelCoding] = {}
    for name, file in files.items():
        try:
            codings[name] = read_label_coding(file)
        except AttenScribbleError as error:
            problems += error.problems
    if problems:
        return problems
    if codings[scribble].ignore is None:
        problems.append(
            f"{files[scribble]} has no label 'ignore', so its labels are no scribbles: name the dataset of the "
            "scribbles as 'datasets.scribble'"
        )
    if codings[dense].ignore is not None:
        problems.append(
            f"{files[dense]} has the label 'ignore', so its labels are not dense: name the dataset of the dense "
            "labels as 'datasets.dense'"
        )
    told = [_describe_structures(codings[name]) for name in (dense, scribble)]
    if told[0] != told[1]:
        problems.append(
            f"{files[dense]} names the structures {told[0]}, {files[scribble]} {told[1]}: give both the same names and "
            "values, or other datasets"
        )
    return problems


def _describe_structures(coding: LabelCoding) -> str:
    """`RV 1, LV 3`; a region's values are joined by `+`. The file's order decides nothing."""
    ordered = sorted(coding.structures, key=lambda structure: (structure.values, structure.name))
    return ", ".join(f"{structure.name} {'+'.join(map(str, structure.values))}" for structure in ordered)
