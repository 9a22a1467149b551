"""Which prediction belongs to which dense label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["CasePair", "list_cases", "pair_cases"]

# The endings that nnU-Net's readers know; a dense label may be stored in another format than the prediction.
_IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class CasePair:
    """A case's identifier and its two files."""

    case: str
    prediction: Path
    dense: Path


def pair_cases(predictions: Path, dense: Path, file_ending: str) -> tuple[list[CasePair], list[str]]:
    """Find a dense label for each prediction.

    Args:
        predictions: folder of files named CASE + `file_ending`.
        dense: folder of dense labels named CASE + any image ending.
        file_ending: with its dot, as in dataset.json.

    Returns:
        The pairs in order of their names, and the cases that have a dense label but no prediction.

    Raises:
        AttenScribbleError: a folder is missing or empty, a prediction has no dense label or is its own dense label.
    """
    problems = []
    if not predictions.is_dir():
        problems.append(f"no predictions to score: {predictions} is not a folder; give the output of nnUNetv2_predict")
    if not dense.is_dir():
        problems.append(f"no dense labels to compare with: {dense} is not a folder; give a folder of dense labels")
    if problems:
        raise AttenScribbleError(problems)
    if predictions.resolve() == dense.resolve():
        raise AttenScribbleError(
            f"{predictions} was given as predictions and as dense labels: the truth would be compared with itself; "
            "give the output of nnUNetv2_predict first and the dense labels second"
        )

    predicted = list_cases(predictions, (file_ending,))
    true = list_cases(dense, (file_ending, *(ending for ending in _IMAGE_ENDINGS if ending != file_ending)))
    if not predicted:
        problems.append(
            f"no predictions found: {predictions} has no file that ends in {file_ending}; "
            "give the output folder of nnUNetv2_predict, or fold_0/validation of a trained model"
        )
    if not true:
        problems.append(f"no dense labels to compare with: {dense} has no label file; give a folder of dense labels")
    if problems:
        raise AttenScribbleError(problems)
    for case, files in predicted.items():
        if case not in true:
            problems.append(
                f"prediction {files[0]} has no dense label: {dense} has no {case}{file_ending}; "
                "add the label, or move the prediction elsewhere"
            )
        elif len(true[case]) > 1:
            names = ", ".join(file.name for file in true[case])
            problems.append(f"case {case} has several dense labels in {dense}: {names}; keep one")
        elif true[case][0].samefile(files[0]):
            problems.append(
                f"prediction {files[0]} is the same file as its dense label {true[case][0]}: the truth would be "
                "compared with itself; give the output of nnUNetv2_predict"
            )
    if problems:
        raise AttenScribbleError(problems)
    pairs = [CasePair(case, files[0], true[case][0]) for case, files in predicted.items()]
    return pairs, [case for case in true if case not in predicted]


def list_cases(folder: Path, endings: tuple[str, ...]) -> dict[str, list[Path]]:
    """Files by the case they are named after, in order of their names; hidden files are passed over.

    Args:
        folder: to look in, not below.
        endings: with their dots; the first that fits is cut off.
    """
    cases: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        # Archives made on a Mac carry a "._name.nii.gz" beside every file, which is no image.
        if file.name.startswith(".") or not file.is_file():
            continue
        ending = next((ending for ending in endings if file.name.endswith(ending)), None)
        if ending is not None:
            cases.setdefault(file.name[: -len(ending)], []).append(file)
    return cases
