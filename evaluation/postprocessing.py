"""Keep the largest component of a class, where the scribbles of the training cases show that it is one object.

nnU-Net's automatic postprocessing compares scores with and without the removal of smaller components. Scored on
scribbles it cannot see the components that lie where nobody drew, and scored on dense labels it would use labels that a
scribble-supervised method must not have. The rule here needs scribbles only: if the annotators' own strokes of a class,
joined where they lie close together, form one object in nearly every training case, the class is one object.

The removal is nnU-Net's own, `remove_all_but_largest_component_from_segmentation`. What is postprocessed is a folder of
predictions.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np

from nnunet_attenscribble.common.files import (
    finish_interrupted,
    is_of_system,
    list_names,
    naming,
    remove_leftovers,
    staged_folders,
    write_text,
)
from nnunet_attenscribble.common.formats import find_sidecar
from nnunet_attenscribble.common.nnunet import read_drawn_axis
from nnunet_attenscribble.common.readers import Reader, find_reader, write_label
from nnunet_attenscribble.common.text import counted, list_some
from nnunet_attenscribble.common.volumes import count_values, read_image, slice_axis, write_volume
from nnunet_attenscribble.common.workers import run_all
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.evaluation.evaluate import count_workers
from nnunet_attenscribble.evaluation.metrics import select_structure
from nnunet_attenscribble.evaluation.scoring import list_cases, read_label_image
from nnunet_attenscribble.evaluation.structures import (
    LabelCoding,
    Structure,
    find_dataset_json,
    find_model_file,
    read_label_coding,
)
from nnunet_attenscribble.evaluation.summary import encode_result, head_result

_TOGETHER = "foreground"  # all classes, as one structure

# The share of a class's strokes that its largest object must hold. Organs that come in pairs have about half of them in
# either; of one organ, strokes that are broken into pieces further apart than they can be joined leave a few per cent
# outside. So the value between them matters little, and no score was looked at to choose it.
AGREEMENT = 0.9
_FEWEST_CASES = 3
POSTPROCESSING_FILE = "attenscribble_postprocessing.json"


@dataclass(frozen=True)
class StrokeEvidence:
    """How the strokes of one class in one case hang together.

    Attributes:
        case: its identifier.
        structure: name of the class.
        strokes: pieces that touch within a slice, corners included.
        objects: groups of strokes after joining those that lie close together.
        voxels: of all strokes.
        largest_voxels: of the strokes of the largest object.
    """

    case: str
    structure: str
    strokes: int
    objects: int
    voxels: int
    largest_voxels: int


@dataclass(frozen=True)
class Decision:
    """Whether to keep the largest component of a class only, and why.

    Attributes:
        structure: name of the class, or of the whole foreground.
        values: its label values; all of them are removed together outside the largest component.
        keep_largest: the decision.
        cases: training cases with strokes of the class.
        single: those in which they form one object.
        share: of the strokes' voxels that lie in the largest object, averaged over these cases; NaN without any.
        reason: in words.
    """

    structure: str
    values: tuple[int, ...]
    keep_largest: bool
    cases: int
    single: int
    share: float
    reason: str


def join_strokes(strokes: np.ndarray, annotated: np.ndarray, spacing: Sequence[float]) -> tuple[int, int, int]:
    """Group the strokes of one class in one case into objects.

    Two strokes of a slice belong to one object if they are at most two pixels apart. A stroke and its nearest one in
    the slice before or behind belong to one if their in-plane distance is at most the distance between the slices (45
    degrees), or two pixels: two organs that lie side by side stay two, however far apart the slices are. Slices in
    which nothing at all was annotated are passed over; a slice that was annotated without this class ends the object.

    Args:
        strokes: boolean, (Y, X) or (Z, Y, X), slices along Z.
        annotated: boolean, (Z,): slices in which any class, background included, was drawn; ignored for (Y, X).
        spacing: millimetres per axis of `strokes`.

    Returns:
        the numbers of strokes and of objects, and the voxels of the largest object.
    """
    from scipy.ndimage import label
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    if strokes.ndim == 2:
        strokes, annotated, spacing = strokes[None], np.ones(1, bool), (0.0, *spacing)
    elif len(strokes) == 1:
        spacing = (0.0, *spacing[1:])  # a slice without a neighbour has no distance to it, whatever the file says
    in_plane = np.asarray(spacing[1:], dtype=float)
    drawn = np.flatnonzero(annotated)
    total, sizes, pairs, before = 0, [], [], None
    for order, z in enumerate(drawn):
        pieces, count = label(strokes[z], np.ones((3, 3)))
        here = None
        if count:
            points = np.argwhere(pieces)
            numbers = pieces[tuple(points.T)] - 1 + total
            sizes += np.bincount(numbers - total, minlength=count).tolist()
            here = cKDTree(points * in_plane), numbers
            pairs += _list_close(here, 2 * in_plane.max())
            if before is not None:
                distance = (z - drawn[order - 1]) * spacing[0]
                pairs += _list_nearest(here, before, max(distance, 2 * in_plane.max()))
            total += count
        before = here
    if not total:
        return 0, 0, 0
    first, second = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(total, total))
    objects, group = connected_components(graph, directed=False)
    return total, int(objects), int(np.bincount(group, weights=sizes).max())


def decide(
    evidence: Iterable[StrokeEvidence], structures: Sequence[Structure], *, agreement: float = AGREEMENT
) -> list[Decision]:
    """Decide for each class by the scribbles of the training cases.

    Args:
        evidence: of all training cases and classes; cases without a stroke of a class say nothing about it.
        structures: in the order in which they are to be applied.
        agreement: the share of the strokes' voxels that the largest object must hold on average.
    """
    found: dict[str, list[StrokeEvidence]] = {structure.name: [] for structure in structures}
    for entry in evidence:
        if entry.objects and entry.structure in found:
            found[entry.structure].append(entry)
    decisions = [_decide_one(structure, found[structure.name], agreement) for structure in structures]
    return [_leave_with_whole(decision, decisions) for decision in decisions]


def apply_decisions(segmentation: np.ndarray, decisions: Sequence[Decision]) -> tuple[np.ndarray, list[int]]:
    """Remove all but the largest component of every class that is to be one object, in the order of `decisions`.

    Args:
        segmentation: integers, (Y, X) or (Z, Y, X); left as it is.
        decisions: of `decide`; one that is not to keep the largest component is passed over.

    Returns:
        the segmentation with what was removed as background, and the number of voxels that each decision removed.
    """
    remove = _import_removal()
    removed = []
    for decision in decisions:
        before = segmentation
        if decision.keep_largest:
            # nnU-Net takes a list of labels as one mask, and so the largest component of them together.
            segmentation = remove(segmentation, list(decision.values))
        removed.append(int(np.count_nonzero(segmentation != before)))
    return segmentation, removed


def choose_foreground(structures: Sequence[Structure]) -> Decision:
    """The choice to keep the largest component of all classes together, as nnU-Net tries first.

    It is the user's: scribbles do not show whether classes touch each other.
    """
    values = tuple(sorted({value for structure in structures for value in structure.values}))
    return Decision(_TOGETHER, values, True, 0, 0, float("nan"), "asked for, not derived from the scribbles")


def _list_nearest(one: tuple, other: tuple, reach: float) -> list[tuple[int, int]]:
    """Each stroke of either slice with its nearest of the other, where that is no further than `reach`."""
    pairs = []
    for (tree, numbers), (other_tree, other_numbers) in ((one, other), (other, one)):
        # Rounding must not separate what lies exactly at the limit.
        distances, hits = other_tree.query(tree.data, distance_upper_bound=reach * (1 + 1e-6))
        for stroke in np.unique(numbers):
            own = np.flatnonzero(numbers == stroke)
            nearest = own[distances[own].argmin()]
            if np.isfinite(distances[nearest]):
                pairs.append((int(stroke), int(other_numbers[hits[nearest]])))
    return pairs


def _list_close(one: tuple, reach: float) -> list[tuple[int, int]]:
    """Pairs of different strokes of a slice with points no further apart than `reach`."""
    tree, numbers = one
    # Rounding must not separate what lies exactly at the limit.
    pairs = numbers[tree.query_pairs(reach * (1 + 1e-6), output_type="ndarray")]
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).tolist()


def _decide_one(structure: Structure, evidence: Sequence[StrokeEvidence], agreement: float) -> Decision:
    single = sum(entry.objects == 1 for entry in evidence)
    shares = [entry.largest_voxels / entry.voxels for entry in evidence]
    share = float(np.mean(shares)) if shares else float("nan")
    if len(evidence) < _FEWEST_CASES:
        keep = False
        reason = f"only {counted(len(evidence), 'training case', 'has')} strokes of it, fewer than {_FEWEST_CASES}"
    else:
        keep = share >= agreement
        reason = (
            f"the largest object holds {100 * share:.1f} % of the strokes on average over {len(evidence)} training "
            f"cases, {'at least' if keep else 'less than'} {100 * agreement:g} %"
        )
    return Decision(structure.name, structure.values, keep, len(evidence), single, share, reason)


def _leave_with_whole(decision: Decision, decisions: Sequence[Decision]) -> Decision:
    """What is removed becomes background: of a region inside one that stays as it is, nothing may be."""
    for other in decisions:
        if decision.keep_largest and not other.keep_largest and set(decision.values) < set(other.values):
            reason = f"{decision.reason}; left alone as part of {other.structure}, which is"
            return replace(decision, keep_largest=False, reason=reason)
    return decision


def _import_removal():
    # nnU-Net prints about its folders, which are not needed here, as soon as it is imported.
    with contextlib.redirect_stdout(io.StringIO()):
        from nnunetv2.postprocessing.remove_connected_components import (
            remove_all_but_largest_component_from_segmentation,
        )
    return remove_all_but_largest_component_from_segmentation


# --- a folder of predictions ---


@dataclass(frozen=True)
class Postprocessed:
    """What was decided and done.

    Attributes:
        decisions: in the order in which they were applied.
        evidence: by training case and class.
        left_out: cases that were not looked at: they are among the predictions, or labelled as a whole.
        removed: voxels by case, for each of `decisions`. Not by name: a class may be called as the whole foreground is.
    """

    decisions: tuple[Decision, ...]
    evidence: tuple[StrokeEvidence, ...]
    left_out: tuple[str, ...]
    removed: dict[str, list[int]]


def postprocess_folder(
    predictions: Path,
    scribbles: Path,
    output: Path,
    *,
    dataset_json: Path | None = None,
    foreground: bool = False,
    per_class: bool = True,
    agreement: float = AGREEMENT,
    workers: int | None = None,
    progress: bool = False,
) -> Postprocessed:
    """Postprocess every prediction of a folder into a new folder, which appears whole or not at all.

    It holds the predictions, the model's dataset.json and plans.json where they were found, so that it can be
    evaluated like the old one, and `POSTPROCESSING_FILE` with the decisions and their evidence.

    Args:
        predictions: output of `nnUNetv2_predict`, or `fold_X/validation`.
        scribbles: `labelsTr` of the scribble dataset. Cases that are among the predictions are not looked at: what is
            decided rests on training cases alone.
        output: folder to write; must not exist, or be empty.
        dataset_json: of the scribble dataset, with its `ignore`; searched for if None.
        foreground: first keep the largest component of all classes together.
        per_class: decide for each class by the scribbles.
        agreement: see `postprocessing.decide`.
        workers: processes; None for `count_workers`.
        progress: shown on stderr.

    Raises:
        AttenScribbleError: something keeps the rule from being found or applied; all problems at once.
    """
    given = _find_input(predictions, scribbles, output, dataset_json, per_class)
    drawn = read_drawn_axis(scribbles.resolve().parent)
    training = list(given.training.items())
    look = partial(_look_at, coding=given.coding, reader=given.reader, drawn=drawn)
    number = workers or count_workers(len(training))
    looks = run_all(look, training, number, "Reading scribbles", progress=progress)
    evidence = [entry for found in looks for entry in found or ()]
    left_out = [case for (case, _), found in zip(training, looks, strict=True) if found is None]
    if per_class and not evidence:
        raise AttenScribbleError(
            f"no label in {scribbles} has an unlabelled voxel: they are dense, which this rule must not see"
        )
    decisions = [choose_foreground(given.coding.structures)] if foreground else []
    decisions += decide(evidence, given.coding.structures, agreement=agreement) if per_class else []
    write = partial(_write_case, decisions=decisions, reader=given.reader)
    number = workers or count_workers(len(given.predicted))
    output = output.resolve()  # of a link, the folder
    with naming(output):
        if output.is_dir():
            for file in output.iterdir():
                if is_of_system(file.name):
                    file.unlink()
            output.rmdir()  # fails where another call has written here meanwhile
        # A hash, as one folder's name may be the beginning of another's.
        parent, key = output.parent, f"postprocess-{sha256(os.fsencode(output.name)).hexdigest()[:16]}"
        if parent.is_dir():
            remove_leftovers(finish_interrupted(parent, key))
    if output.exists():
        raise AttenScribbleError(
            f"-o {output}: a call that was stopped at its very end is completed now: take that, or give another folder"
        )
    with naming(output), staged_folders(parent, [output.name], key) as hidden:
        part = hidden / output.name
        tasks = [(file, part / file.name) for file in given.predicted.values()]
        removed = run_all(write, tasks, number, "Removing components", progress=progress)
        result = Postprocessed(
            decisions=tuple(decisions),
            evidence=tuple(evidence),
            left_out=(*given.left_out, *left_out),
            removed=dict(zip(given.predicted, removed, strict=True)),
        )
        _copy_model_files(predictions, part)
        write_text(part / POSTPROCESSING_FILE, encode_result(_to_content(result, agreement if per_class else None)))
    return result


@dataclass(frozen=True)
class _Input:
    """What is postprocessed, and by what; files by case."""

    coding: LabelCoding
    reader: Reader
    predicted: dict[str, Path]
    training: dict[str, Path]
    left_out: tuple[str, ...]


def _find_input(predictions: Path, scribbles: Path, output: Path, dataset_json: Path | None, per_class: bool) -> _Input:
    problems = [
        f"{what} {folder} is not a folder: give {hint}"
        for folder, what, hint in (
            (predictions, "predictions", "the output of nnUNetv2_predict"),
            (scribbles, "scribbles", "labelsTr of the scribble dataset"),
        )
        if not folder.is_dir()
    ]
    if output.exists() and (not output.is_dir() or list_names(output)):
        problems.append(f"{output} is there already: give a new folder with --output")
    refuse(problems)
    coding = _read_coding(_find_description(predictions, scribbles, dataset_json))
    predicted = {case: files[0] for case, files in list_cases(predictions, (coding.file_ending,)).items()}
    drawn = list_cases(scribbles, (coding.file_ending,)) if per_class else {}
    training = {case: files[0] for case, files in drawn.items() if case not in predicted}
    if not predicted:
        problems.append(f"no predictions found: {predictions} has no file that ends in {coding.file_ending}")
    if per_class and not training:
        problems.append(
            f"no scribbles of training cases in {scribbles}: every case there is among the predictions, and the rule "
            "must not rest on cases it is applied to"
        )
    refuse(problems)
    reader = find_reader(coding.dataset_json, next(iter(predicted.values())))
    return _Input(coding, reader, predicted, training, tuple(case for case in drawn if case in predicted))


def _find_description(predictions: Path, scribbles: Path, given: Path | None) -> Path:
    if given is not None:
        return given / "dataset.json" if given.is_dir() else given
    # The scribbles' own file first: that of a model trained on dense labels knows no `ignore`.
    beside = scribbles.resolve().parent / "dataset.json"
    return beside if beside.is_file() else find_dataset_json(predictions, scribbles)


def _read_coding(file: Path) -> LabelCoding:
    coding = read_label_coding(file)
    if coding.ignore is None:
        raise AttenScribbleError(
            f"{file} has no label `ignore`: its labels are dense, and this rule must not see dense labels; give "
            "labelsTr of the scribble dataset, or its dataset.json with --dataset-json"
        )
    return coding


def _look_at(
    task: tuple[str, Path], *, coding: LabelCoding, reader: Reader, drawn: int | None
) -> list[StrokeEvidence] | None:
    """The strokes of each class; None of a dense label, of which there may be some among scribbles."""
    case, file = task
    image = read_label_image(file, reader)
    strange = sorted(count_values(image.labels).keys() - coding.allowed - {coding.ignore})
    if strange:
        raise AttenScribbleError(
            f"scribble {file} holds {list_some(list(map(str, strange)))}, which dataset.json does not know"
        )
    if not (image.labels == coding.ignore).any():
        return None
    labels, spacing = image.labels, image.spacing
    if labels.ndim == 3:  # a volume may be stored with its slices along any axis
        across = slice_axis(labels.shape, spacing, drawn)
        labels = np.moveaxis(labels, across, 0)
        spacing = (spacing[across], *spacing[:across], *spacing[across + 1 :])
    annotated = (labels != coding.ignore).reshape(len(labels), -1).any(axis=1)
    found = []
    for structure in coding.structures:
        strokes = select_structure(labels, structure.values)
        pieces, objects, largest = join_strokes(strokes, annotated, spacing)
        found.append(StrokeEvidence(case, structure.name, pieces, objects, int(np.count_nonzero(strokes)), largest))
    return found


def _write_case(task: tuple[Path, Path], *, decisions: Sequence[Decision], reader: Reader) -> list[int]:
    import SimpleITK as sitk

    file, target = task
    image = read_label_image(file, reader)
    sidecar = find_sidecar(file)
    if sidecar is not None:
        shutil.copyfile(sidecar, target.with_name(sidecar.name))
    labels, removed = apply_decisions(image.labels, decisions)
    if not any(removed):
        shutil.copyfile(file, target)
        return removed
    if reader is not None:
        write_label(labels, file, target, reader)
        return removed
    source = read_image(file)  # which `read_label_image` found whole
    written = sitk.Cast(sitk.GetImageFromArray(labels), source.GetPixelID())
    written.CopyInformation(source)
    write_volume(written, target)
    return removed


def _copy_model_files(predictions: Path, folder: Path) -> None:
    for name in ("dataset.json", "plans.json"):
        file = find_model_file(predictions, name)
        if file is not None:
            shutil.copyfile(file, folder / name)


def _to_content(result: Postprocessed, agreement: float | None) -> dict[str, object]:
    return {
        **head_result("postprocessing"),
        "rule": "Strokes of a class are joined where they are at most two pixels apart in a slice, and each with "
        "its nearest in the slice before and behind where their in-plane distance is at most the distance between "
        "the slices (at least two pixels). Where the largest object holds at least the share `agreement` of the "
        "strokes, averaged over the training cases, only the largest component of the class is kept, unless the "
        "class is part of one that stays. Slices lie across the axis of the largest spacing, or that of the "
        "dataset's provenance. No dense label and no score was used.",
        "agreement": agreement,
        "removal": "nnunetv2.postprocessing.remove_connected_components."
        "remove_all_but_largest_component_from_segmentation",
        "decisions": [asdict(decision) for decision in result.decisions],
        "not_looked_at": list(result.left_out),
        "evidence": [asdict(entry) for entry in result.evidence],
        "removed_voxels": result.removed,
    }
