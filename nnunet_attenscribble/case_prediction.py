"""What a trained model predicts for one case, and how sure it is of every voxel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_attenscribble.trained_model import TrainedModel, calls_of_nnunet

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["CasePrediction", "measure_doubt", "predict_case", "voxel_entropy"]


@dataclass(frozen=True, eq=False)
class CasePrediction:
    """A case on the grid of its image, (Z, Y, X), in the order in which nnU-Net reads its voxels.

    Attributes:
        labels: nnU-Net's prediction, the mean over mirrorings.
        entropy: of that prediction, see `voxel_entropy`.
        disagreement: of the mirrorings, see `measure_doubt`.
    """

    labels: np.ndarray
    entropy: np.ndarray
    disagreement: np.ndarray


def predict_case(model: TrainedModel, images: list[Path]) -> CasePrediction:
    """Predict by nnU-Net's own predictor, one mirroring at a time.

    Raises:
        AttenScribbleError: files that nnU-Net cannot read.
    """
    import torch
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    predictor = model.predictor
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    with calls_of_nnunet(f"{images[0]} cannot be predicted"):
        data, _, properties = configuration.preprocessor_class(verbose=False).run_case(
            list(map(str, images)), None, plans, configuration, predictor.dataset_json
        )
        logits = list(_predict_mirrored(predictor, torch.as_tensor(data)))
        mean = torch.stack(logits).mean(dim=0)
        nonlinearity, regions = predictor.label_manager.apply_inference_nonlin, predictor.label_manager.has_regions
        entropy, disagreement = measure_doubt(logits, nonlinearity, regions=regions)
        labels = convert_predicted_logits_to_segmentation_with_correct_shape(
            mean, plans, configuration, predictor.label_manager, properties
        )
        maps = _to_image(torch.stack((entropy, disagreement)), predictor, properties)
    return CasePrediction(labels, maps[0], maps[1])


def measure_doubt(
    logits: list[Tensor], nonlinearity: Callable[[Tensor], Tensor], *, regions: bool
) -> tuple[Tensor, Tensor]:
    """Entropy of the mean prediction, and by how much the mirrorings disagree.

    Disagreement is the mutual information of class and mirroring, H(mean p) - mean H(p) (Houlsby et al. 2011): 0 where
    all of them say the same, be it that nobody knows.

    Args:
        logits: (K, *S) of each mirroring.
        nonlinearity: from logits to probabilities.
        regions: K probabilities of their own, which need not sum up to 1.

    Returns:
        two maps (*S), from 0 to 1.
    """
    import torch

    probabilities = [nonlinearity(each) for each in logits]
    entropy = voxel_entropy(nonlinearity(torch.stack(logits).mean(dim=0)), regions=regions)
    mixed = voxel_entropy(torch.stack(probabilities).mean(dim=0), regions=regions)
    own = torch.stack([voxel_entropy(each, regions=regions) for each in probabilities]).mean(dim=0)
    return entropy, (mixed - own).clamp(min=0)


def voxel_entropy(probabilities: Tensor, *, regions: bool) -> Tensor:
    """Entropy (*S) of probabilities (K, *S): 0 where one class is sure, 1 where all are equally likely.

    Of regions it is the mean over the regions, each of which is there or not.
    """
    import torch

    if regions:
        both = torch.stack((probabilities, 1 - probabilities))
        return torch.special.entr(both).sum(dim=0).mean(dim=0) / torch.tensor(2.0).log()
    return torch.special.entr(probabilities).sum(dim=0) / torch.tensor(float(len(probabilities))).log()


def _predict_mirrored(predictor: Any, data: Tensor) -> Iterator[Tensor]:
    """Logits (K, *S) of each mirroring that the model was trained for, turned back; the image itself comes first."""
    axes = [axis + data.ndim - len(predictor.configuration_manager.patch_size) for axis in _mirror_axes(predictor)]
    before, predictor.use_mirroring = predictor.use_mirroring, False
    try:
        for mirrored in chain.from_iterable(combinations(axes, count) for count in range(len(axes) + 1)):
            logits = predictor.predict_logits_from_preprocessed_data(data.flip(mirrored))
            yield logits.float().flip(mirrored)
    finally:
        predictor.use_mirroring = before


def _mirror_axes(predictor: Any) -> tuple[int, ...]:
    return tuple(predictor.allowed_mirroring_axes or ()) if predictor.use_mirroring else ()


def _to_image(maps: Tensor, predictor: Any, properties: dict[str, Any]) -> np.ndarray:
    """Maps (N, *S) of the preprocessed case on the grid of its image, as nnU-Net brings its probabilities there."""
    import numpy as np
    from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image

    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    shape = properties["shape_after_cropping_and_before_resampling"]
    own = configuration.spacing if len(configuration.spacing) == len(shape) else [spacing[0], *configuration.spacing]
    resampled = configuration.resampling_fn_probabilities(maps, shape, own, spacing)
    placed = np.zeros((len(maps), *properties["shape_before_cropping"]), np.float32)
    for each, target in zip(np.asarray(resampled), placed, strict=True):
        insert_crop_into_image(target, each, properties["bbox_used_for_cropping"])
    return placed.transpose(0, *(axis + 1 for axis in plans.transpose_backward)).clip(0, 1)
