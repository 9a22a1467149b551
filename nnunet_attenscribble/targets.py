"""Scribbles as targets: what nnU-Net's augmentation has to leave alone, and what padding means to a loss.

Here and not in the trainers, because worker processes must be able to unpickle it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from batchgeneratorsv2.transforms.base.basic_transform import SegOnlyTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from scipy.sparse import coo_array
from torch import Tensor

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.losses.segmentation import PADDING  # as nnU-Net's data loader writes it


def keep_padding(transforms: ComposeTransforms, replacement: int | None = None) -> ComposeTransforms:
    """Let pixels outside the image keep their value `PADDING`, where nnU-Net's pipeline would make them background.

    Args:
        transforms: nnU-Net's pipeline, changed in place.
        replacement: None leaves them; a label turns them into that one.

    Raises:
        AttenScribbleError: the pipeline has no single step that removes them, so that its handling of padding is not
            known.
    """
    steps = [
        step
        for step in transforms.transforms
        if isinstance(step, RemoveLabelTransform) and step.label_value == PADDING and step.set_to == 0
    ]
    if len(steps) != 1:
        raise _unknown(f"{len(steps)} steps that turn padding into background", "1")
    if replacement is None:
        # In the further channel of a cascade, too, where nnU-Net makes a channel of each label above 0 and of no other.
        transforms.transforms.remove(steps[0])
    else:
        steps[0].set_to = replacement
    return transforms


def keep_labels(transforms: ComposeTransforms) -> ComposeTransforms:
    """Leave labels as they are, where nnU-Net's pipeline would write a channel per region and forget the padding.

    Args:
        transforms: nnU-Net's pipeline, changed in place.
    """
    transforms.transforms = [
        step for step in transforms.transforms if not isinstance(step, ConvertSegmentationToRegionsTransform)
    ]
    return transforms


def keep_scribbles(
    transforms: ComposeTransforms, ignore_label: int, deep_supervision: bool = False
) -> ComposeTransforms:
    """Let thin scribbles survive augmentation and the coarser targets of deep supervision.

    nnU-Net interpolates every label and takes the strongest, which makes small what is small already: rotated and
    scaled labels are sampled with the nearest neighbour instead, which keeps their area in the mean. And its coarser
    targets take one pixel of each cell, which mostly is not a scribbled one: `DownsampleScribblesTransform` takes their
    place.

    Args:
        transforms: nnU-Net's pipeline, changed in place.
        ignore_label: of the dataset.
        deep_supervision: whether the pipeline has to make coarser targets.

    Raises:
        AttenScribbleError: the pipeline augments images, but has no step that rotates and scales; that step has no mode
            for labels; or coarser targets come from no step that is known.
    """
    steps = transforms.transforms
    if any(isinstance(step, RandomTransform) for step in steps) and not any(
        isinstance(step, SpatialTransform) for step in steps
    ):
        raise _unknown("no step that rotates and scales labels", "one")
    coarser = [step for step in steps if isinstance(step, DownsampleSegForDSTransform)]
    if deep_supervision and len(coarser) != 1:
        raise _unknown(f"{len(coarser)} steps DownsampleSegForDSTransform that make coarser targets", "1")
    for position, step in enumerate(steps):
        if isinstance(step, SpatialTransform):
            if not hasattr(step, "mode_seg"):  # which setting it would make without a word
                raise _unknown("a SpatialTransform without `mode_seg`, how labels are sampled", "one with it")
            step.mode_seg = "nearest"
        elif isinstance(step, DownsampleSegForDSTransform):
            steps[position] = DownsampleScribblesTransform(step.ds_scales, ignore_label)
    return transforms


def _unknown(there: str, expected: str) -> AttenScribbleError:
    versions = " and ".join(f"{name} {version(name)}" for name in ("nnunetv2", "batchgeneratorsv2"))
    return AttenScribbleError(
        f"nnU-Net's augmentation has {there}, expected {expected}: {versions} together are not supported, install an "
        "earlier one"
    )


class DownsampleScribblesTransform(SegOnlyTransform):
    """Targets at coarser scales in which every scribble is still there.

    A cell takes the label that most of its annotated pixels have (of several the highest: the rarest classes follow the
    background). Cells share no pixel, also where they do not divide the shape. Without an annotated pixel a cell is
    padding where at least half of it is, and unlabelled otherwise.

    Args:
        ds_scales: per target, the scale of each axis against the input.
        ignore_label: of the dataset; the labels are 0..ignore_label-1.
    """

    def __init__(self, ds_scales: Sequence[float | Sequence[float]], ignore_label: int):
        super().__init__()
        self.ds_scales = ds_scales
        self.ignore_label = ignore_label

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params) -> list[torch.Tensor]:
        labels, ndim, classes = segmentation[0], segmentation.ndim - 1, self.ignore_label
        # How often each label is drawn in each cell, as a sparse table: with many labels, a mask of each takes longer
        # than all else here. At first every pixel is a cell.
        shape = pixels = tuple(labels.shape)
        known = ((labels >= 0) & (labels < classes)).flatten().nonzero()[:, 0]
        given_labels = labels.flatten()[known].to(torch.int32)
        table = every_pixel = known.numpy(), given_labels.numpy(), np.ones(len(known), dtype=np.int64)
        outside = labels[None] == PADDING
        padding = outside.float() if outside.any() else None
        targets = []
        for given in self.ds_scales:
            scale = [given] * ndim if isinstance(given, (int, float)) else given
            if all(s == 1 for s in scale):
                targets.append(segmentation)
                continue
            finer, shape = shape, tuple(round(size * s) for size, s in zip(pixels, scale, strict=True))
            target = labels.new_full((1, *shape), classes)
            if padding is not None:
                target[getattr(F, f"adaptive_avg_pool{ndim}d")(padding, shape) >= 0.5] = PADDING
            # Cells of the last target, where these are made of whole ones, are fewer to count than pixels.
            if any(size % cells for size, cells in zip(finer, shape, strict=True)):
                finer, table = pixels, every_pixel
            cell = np.zeros((), dtype=np.int32)  # in which each finer one lies
            for size, cells in zip(finer, shape, strict=True):
                cell = cell[..., None] * cells + np.arange(size, dtype=np.int32) * cells // size
            places, drawn, counts = table
            summed = coo_array((counts, (cell.ravel()[places], drawn)), shape=(prod(shape), classes)).tocsr()
            entries = np.diff(summed.indptr)  # of each cell
            annotated = entries.nonzero()[0]
            if len(annotated):
                # The largest is that of the label that is there most often, of several the highest.
                ranks = summed.data * classes + summed.indices
                most = np.maximum.reduceat(ranks, summed.indptr[annotated]) % classes
                target.view(-1)[torch.from_numpy(annotated)] = torch.from_numpy(most).to(target.dtype)
            targets.append(target)
            table = np.repeat(np.arange(prod(shape)), entries), summed.indices, summed.data
        return targets


def treat_padding(target: Tensor, padding: str, ignore_label: int) -> tuple[Tensor, Tensor | None]:
    """Turn pixels outside the image into what the segmentation loss shall see.

    Args:
        target: (N, 1, *S) with `PADDING` outside the image.
        padding: `background`, `ignore` or `balanced`: background whose weights add up to the number of background
            pixels in the batch, so that however much padding there is it counts no more than what was drawn. No
            padding pixel counts more than a drawn one.
        ignore_label: of the dataset.

    Returns:
        the target without `PADDING`, and the pixels' weights (N, 1, *S) or None where all weigh 1.
    """
    outside = target == PADDING
    if padding == "ignore":
        return target.masked_fill(outside, ignore_label), None
    if padding == "background":
        return target.masked_fill(outside, 0), None
    weight = ((target == 0).sum() / outside.sum().clamp(min=1)).clamp(max=1)
    return target.masked_fill(outside, 0), torch.where(outside, weight, 1.0)
