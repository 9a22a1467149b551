"""How a prediction is scored: this package's own definitions, and those by which published tables were made.

A protocol says what is scored (whole volumes or single slices), which distances are computed in which unit, and what an
organ is worth that is missed, spurious or absent. Numbers of different protocols are never compared with each other.
Described, not copied: each protocol names the public script whose behaviour it follows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.metrics import (
    DISTANCES,
    HD95_DEFINITIONS,
    OPTIONAL_METRICS,
    StructureScores,
    compute_scores,
)

_NAN, _INF = float("nan"), float("inf")
_SLICE = re.compile(r"(.+)_slice\d+")


@dataclass(frozen=True)
class Protocol:
    """A set of definitions.

    Attributes:
        name: as given to `--protocol`.
        origin: whose definitions these are.
        unit: what one row of scores is about, `volume` or `slice` (of a volume, along its first axis).
        hd95: a key of `metrics.HD95_DEFINITIONS`; None: not part of the protocol.
        surface: a key of `metrics.SURFACE_DEFINITIONS` for the average surface distance; None: not part of it.
        distance_unit: `mm`, or `voxels` where the spacing is ignored.
        missed: overlap (Dice, IoU) and distance of an organ that is in the truth only.
        spurious: of one that is in the prediction only.
        absent: of one that is in neither.
        drops_full_masks: distances are NaN too where a mask fills the whole slice.
        tested: metrics that a missed organ cannot improve, so that a paired test on them is meaningful.
        foreground: what weighs alike in the mean over the foreground, `structures` or `cases`.
        extensible: its surface distances are this package's own, so HD95 may be chosen and metrics added.
        nsd_mm: tolerance of the normalised surface distance; None: not asked for.
        lesions: by structure, the IoU from which its components are matched; those not named are not counted.
        rules: the definitions in words, written into every result.
    """

    name: str
    origin: str
    unit: str = "volume"
    hd95: str | None = "monai"
    surface: str | None = "symmetric"
    distance_unit: str = "mm"
    missed: tuple[float, float] = (0.0, _INF)
    spurious: tuple[float, float] = (0.0, _INF)
    absent: tuple[float, float] = (_NAN, _NAN)
    drops_full_masks: bool = False
    tested: tuple[str, ...] = ("dice", "iou", "hd95_mm", "assd_mm", *OPTIONAL_METRICS)
    foreground: str = "structures"
    extensible: bool = False
    nsd_mm: float | None = None
    lesions: Mapping[str, float] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)


_SURFACE_RULE = (
    "A surface voxel is in the mask and has a face neighbour outside it or lies at the image's border. "
    "ASSD is the mean distance over both directions pooled. An image axis of length one is dropped."
)
_VOLUME_RULE = (
    "Predicted minus true volume; NaN for images of two axes. The volume share is predicted over true volume; NaN "
    "where the dense label lacks the organ."
)
_FOREGROUND_RULE = (
    "The unweighted mean of the structures' means; its standard deviation is over cases, of each case's mean over its "
    "structures."
)
_NOT_TESTED = (
    "Distances are not tested for significance in this protocol, because a missed organ would count in favour of the "
    "model that misses it; use the default protocol for that."
)

_DEFAULT = Protocol(
    name="default",
    origin="nnunet-attenscribble",
    extensible=True,
    rules={
        "absent": "An organ that is neither in the dense label nor in the prediction is NaN (null, 'absent') in "
        "every metric and enters no mean.",
        "missed": "An organ that is in the dense label only has Dice and IoU 0, which enter the mean, and infinite "
        "HD95 and ASSD; the case is counted under 'missed'.",
        "spurious": "An organ that is in the prediction only is scored in the same way and counted under 'spurious'.",
        "mean": "Mean and standard deviation (n - 1) are over the n finite values; 'infinite' tells how many are "
        "not in them. Nothing is clipped or replaced: read a mean distance together with missed and spurious.",
        "median": "The median is over finite and infinite values, so a missed organ counts as the worst distance "
        "there is.",
        "foreground_mean": _FOREGROUND_RULE,
        "surface": _SURFACE_RULE,
        "volume_difference": _VOLUME_RULE,
    },
)

_NNUNET = Protocol(
    name="nnunet",
    origin="nnU-Net v2, nnunetv2.evaluation.evaluate_predictions",
    hd95=None,
    surface=None,
    missed=(0.0, _NAN),
    spurious=(0.0, _NAN),
    tested=("dice", "iou"),
    rules={
        "absent": "An organ that is neither in the dense label nor in the prediction has no Dice and no IoU (NaN) "
        "and enters no mean.",
        "missed": "An organ that is in the dense label only has Dice and IoU 0.",
        "spurious": "An organ that is in the prediction only has Dice and IoU 0.",
        "mean": "Per label over the cases in which it is defined; volumes as they are stored.",
        "foreground_mean": "The unweighted mean of the labels' means. nnU-Net's own becomes NaN where a label is "
        "in no case at all; here it is the mean of the others.",
        "distances": "nnU-Net computes no surface distance: HD95 and ASSD are NaN.",
        "volume_difference": f"Not part of nnU-Net's evaluation, given in addition. {_VOLUME_RULE}",
    },
)

_SCRIBBLEBENCH = replace(
    _DEFAULT,
    name="scribblebench",
    origin="ScribbleBench (Gotkowski et al., MICCAI 2025), scribblebench/evaluation.py",
    foreground="cases",
    rules={
        **_DEFAULT.rules,
        "foreground_mean": "The mean over cases of each case's mean over the organs that it has in the dense label or "
        "in the prediction: one that is made up counts as 0. A case without any makes the script's mean NaN; here it "
        "enters no mean.",
        "beyond": "The script computes Dice alone; all else is the default protocol's, given in addition.",
    },
)

_WSL4MIS = Protocol(
    name="acdc-wsl4mis",
    origin="WSL4MIS (Luo et al., MICCAI 2022), test_2D_fully_sps.py for the metrics, val_2D.py for empty predictions",
    hd95="union",
    surface="directed",
    missed=(0.0, 0.0),
    spurious=(0.0, _NAN),
    absent=(0.0, 0.0),
    tested=("dice", "iou"),
    rules={
        "unit": "Whole volumes in their own grid and spacing, each label for itself; distances in millimetres.",
        "missed": "An organ that is not predicted has Dice 0 and HD95 0 and ASD 0, and all three enter the mean: a "
        "missed organ improves the mean distance. (val_2D.py; the test scripts stop with an error instead.)",
        "absent": "The same: an empty prediction has Dice 0, HD95 0 and ASD 0 whatever the truth.",
        "spurious": "An organ that is in the prediction only makes the scripts stop with an error; here Dice is 0 "
        "and the distances are NaN, which enter no mean.",
        "mean": "Over all volumes of a fold, then over the three labels; the published table averages five folds.",
        "foreground_mean": _FOREGROUND_RULE,
        "surface": "Surface voxels as in MedPy: in the mask with a face neighbour outside it or at the border. The "
        "column ASSD holds MedPy's ASD, the mean distance from the predicted surface to the true one, one way.",
        "beyond": f"IoU and volume difference are given in addition. {_VOLUME_RULE}",
        "tests": _NOT_TESTED,
    },
)

_WSL4MIS_VOXELS = replace(
    _WSL4MIS,
    name="acdc-wsl4mis-voxels",
    origin="WSL4MIS, test_2D_fully.py, the test command of its README; val_2D.py for empty predictions",
    distance_unit="voxels",
    rules={
        **_WSL4MIS.rules,
        "unit": "Whole volumes in their own grid, each label for itself. The spacing is ignored: distances are in "
        "voxels, and a step between slices 10 mm apart counts as much as one of 1.5 mm within them.",
    },
)

_PACINGPSEUDO = Protocol(
    name="chaos-pacingpseudo",
    origin="PacingPseudo (Yang et al., 2022), inference.py",
    unit="slice",
    hd95="union",
    surface=None,
    missed=(0.0, _NAN),
    spurious=(0.0, _NAN),
    drops_full_masks=True,
    tested=("dice", "iou"),
    rules={
        "unit": "Every slice of a volume for itself, with its in-plane spacing; distances in millimetres.",
        "absent": "An organ that is in neither mask of a slice is NaN there and enters no mean.",
        "missed": "An organ that is in one mask of a slice only has Dice 0 and no HD95: a slice in which it is "
        "missed, or made up, enters the mean of Dice and not that of HD95.",
        "spurious": "The same.",
        "full": "HD95 is NaN too where a mask fills the whole slice.",
        "mean": "Over all slices of all volumes together, so that volumes of many slices weigh more; then over the "
        "labels. The published table averages five folds: pool folds by the mean of their results to match it.",
        "foreground_mean": _FOREGROUND_RULE,
        "surface": "Surface voxels as in MedPy. The protocol has no average surface distance: ASSD is NaN.",
        "grid": "The script scores images resampled to 1.62 x 1.62 mm and cropped or padded to 256 x 256. Nothing "
        "is resampled here: predictions and dense labels are scored on the grid they are stored on.",
        "beyond": f"IoU is given in addition. {_VOLUME_RULE}",
        "tests": _NOT_TESTED,
    },
)

PROTOCOLS = {
    entry.name: entry for entry in (_DEFAULT, _NNUNET, _SCRIBBLEBENCH, _WSL4MIS, _WSL4MIS_VOXELS, _PACINGPSEUDO)
}


def get_protocol(
    name: str,
    hd95: str | None = None,
    *,
    nsd_mm: float | None = None,
    lesions: Mapping[str, float] | None = None,
) -> Protocol:
    """A protocol by its name, with another definition of HD95 or further metrics where it is `extensible`.

    Raises:
        AttenScribbleError: an unknown name, something that the protocol does not take, numbers out of range; every
            problem, in the words of `attenscribble evaluate`.
    """
    protocol, lesions = PROTOCOLS.get(name), dict(lesions or {})
    problems = [] if protocol else [f"--protocol is {name!r}: give one of {', '.join(PROTOCOLS)}"]
    if protocol and not protocol.extensible:
        given = [] if hd95 in (None, protocol.hd95) else [f"--hd95 {hd95}"]
        given += [] if nsd_mm is None else [f"--nsd {nsd_mm:g}"]
        given += [f"--lesions {structure}={iou:g}" for structure, iou in lesions.items()]
        problems += [
            f"{option} was given with --protocol {name}, which says itself what is scored: leave out one of the two"
            for option in given
        ]
    if hd95 is not None and hd95 not in HD95_DEFINITIONS:
        problems.append(f"--hd95 is {hd95!r}: give one of {', '.join(HD95_DEFINITIONS)}")
    if nsd_mm is not None and not (np.isfinite(nsd_mm) and nsd_mm > 0):
        problems.append(f"--nsd is {nsd_mm:g}: give a tolerance above 0 mm")
    problems += [
        f"--lesions gives {structure} an IoU of {iou:g}: give one above 0 up to 1"
        for structure, iou in lesions.items()
        if not 0 < iou <= 1
    ]
    if problems or protocol is None:
        raise AttenScribbleError(problems)
    return replace(protocol, hd95=hd95 or protocol.hd95, nsd_mm=nsd_mm, lesions=lesions)


def score_structure(
    prediction: np.ndarray, dense: np.ndarray, spacing: tuple[float, ...], protocol: Protocol, structure: str = ""
) -> StructureScores:
    """Score one structure, of this name, by a protocol; other arguments as `metrics.compute_scores`."""
    scores = compute_scores(
        prediction,
        dense,
        spacing,
        hd95=protocol.hd95,
        surface=protocol.surface,
        in_voxels=protocol.distance_unit == "voxels",
        nsd_mm=protocol.nsd_mm,
        lesion_iou=protocol.lesions.get(structure),
    )
    if scores.status == "present":
        if protocol.drops_full_masks and (prediction.all() or dense.all()):
            return replace(scores, hd95_mm=_NAN, assd_mm=_NAN)
        return scores
    overlap, distance = getattr(protocol, scores.status)
    return replace(
        scores,
        dice=overlap,
        iou=overlap,
        hd95_mm=_NAN if protocol.hd95 is None else distance,
        assd_mm=_NAN if protocol.surface is None else distance,
    )


def name_metric(field: str, protocol: str) -> str:
    """The name of a field of scores in result files: `hd95_mm` is `hd95_voxels` where the spacing is ignored."""
    if field not in DISTANCES:
        return field
    return f"{field.removesuffix('_mm')}_{PROTOCOLS[protocol].distance_unit}"


def name_slice(case: str, position: int) -> str:
    """The identifier of one slice of a case."""
    return f"{case}_slice{position:03d}"


def find_volume(case: str, protocol: str) -> str:
    """The case that `name_slice` was given, where the protocol scores slices; elsewhere a case is what it is called."""
    match = _SLICE.fullmatch(case) if PROTOCOLS[protocol].unit == "slice" else None
    return match[1] if match else case
