"""What is left of scribbles and padding behind nnU-Net's augmentation."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.targets import (
    PADDING,
    DownsampleScribblesTransform,
    keep_labels,
    keep_padding,
    keep_scribbles,
)

IGNORE = 3
SCALES = [[1.0, 1.0], [0.5, 0.5], [0.25, 0.25]]


def pipeline(**kwargs):
    options = {"deep_supervision_scales": SCALES, "mirror_axes": (0, 1), "do_dummy_2d_data_aug": False}
    return nnUNetTrainer.get_training_transforms((32, 32), (-3.14, 3.14), **options, ignore_label=IGNORE, **kwargs)


def test_coarse_targets_by_hand():
    target = torch.tensor([[[3, 3, 3, 1], [3, 0, 3, 3], [2, 1, -1, -1], [3, 3, 3, -1]]])
    full, half, quarter = DownsampleScribblesTransform([[1, 1], [0.5, 0.5], [0.25, 0.25]], IGNORE)(
        image=target, segmentation=target
    )["segmentation"]
    assert torch.equal(full, target)
    # One stroke each above; below two labels tie, and the higher wins; beside it padding fills three of four pixels.
    assert half.tolist() == [[[0, 1], [2, -1]]]
    # 0 and 2 have a pixel each, 1 has two.
    assert quarter.tolist() == [[[1]]]
    assert half.dtype == target.dtype


def test_coarse_targets_without_scribbles_are_unlabelled():
    target = torch.full((1, 4, 4, 4), IGNORE)
    (half,) = DownsampleScribblesTransform([[0.5, 0.5, 0.5]], IGNORE)(image=target, segmentation=target)["segmentation"]
    assert half.shape == (1, 2, 2, 2)
    assert (half == IGNORE).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([(8, 8), (12, 20), (4, 8, 12)]))
def test_no_scribble_is_lost_and_none_invented(seed, shape):
    generator = torch.Generator().manual_seed(seed)
    target = torch.full((1, *shape), IGNORE)
    drawn = torch.rand(target.shape, generator=generator) < 0.03
    target[drawn] = torch.randint(PADDING, IGNORE, target.shape, generator=generator)[drawn]
    scale = [0.5] * len(shape)
    (half,) = DownsampleScribblesTransform([scale], IGNORE)(image=target, segmentation=target)["segmentation"]
    for cell in torch.cartesian_prod(*(torch.arange(size) for size in half.shape[1:])).tolist():
        pixels = target[(0, *(slice(2 * c, 2 * c + 2) for c in cell))]
        annotated = set(pixels[(pixels >= 0) & (pixels < IGNORE)].tolist())
        label = half[(0, *cell)].item()
        assert label in annotated if annotated else label in (PADDING, IGNORE)


def pool_every_label(target, scale):
    """A mask of each label and of the padding, pooled: from the highest down, as the first of equals stays."""
    pool = getattr(F, f"adaptive_avg_pool{target.ndim - 1}d")
    shape = [round(size * s) for size, s in zip(target.shape[1:], scale, strict=True)]
    coarse, most = target.new_full((1, *shape), IGNORE), torch.zeros(1, *shape)
    for label in range(IGNORE - 1, PADDING - 1, -1):
        share = pool((target == label).float(), shape)
        coarse[(share >= 0.5) & (most == 0) if label == PADDING else share > most] = label
        most = most.maximum(share)
    return coarse


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.03, 0.3, 1.0]),
    st.sampled_from([0.0, 0.4, 1.0]),
    st.sampled_from(
        [
            ((16, 8), [[0.5, 0.25]]),
            ((12, 20), [0.5, 0.25]),
            ((4, 8, 12), [[1, 0.5, 0.5], [1, 0.5, 0.25], [0.5, 0.25, 0.25]]),
            ((8, 8, 8), [0.125]),
            ((12, 12), [0.25, 0.5, 1 / 3, [1 / 6, 1 / 3]]),  # some made of cells of the one before
        ]
    ),
    st.sampled_from([torch.int16, torch.float32]),
)
def test_coarse_targets_are_those_of_a_mask_per_label(seed, drawn, padded, case, dtype):
    shape, scales = case
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.rand((1, *shape), generator=generator) for _ in range(3)]
    target = torch.where(draw[0] < drawn, (draw[1] * IGNORE).floor(), IGNORE)
    target = torch.where(draw[2] < padded, PADDING, target).to(dtype)
    targets = DownsampleScribblesTransform(scales, IGNORE)(image=target, segmentation=target)["segmentation"]
    for coarse, scale in zip(targets, scales, strict=True):
        expected = pool_every_label(target, scale if isinstance(scale, list) else [scale] * len(shape))
        assert torch.equal(coarse, expected)
        assert coarse.dtype == dtype


class CountingMode(TorchDispatchMode):
    """Counts PyTorch's operations."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("drawn", [True, False])
def test_many_labels_take_no_more_operations_than_few(drawn):
    target = torch.arange(200, dtype=torch.int16).repeat(1, 200, 1)
    counts = []
    for labels in (2, 200):
        given = target.clamp(max=labels - 1)
        given = given if drawn else given.where(torch.eye(200, dtype=torch.bool), labels).to(torch.int16)
        with CountingMode() as mode:
            (half,) = DownsampleScribblesTransform([0.5], labels)(image=given, segmentation=given)["segmentation"]
        counts.append(mode.count)
    assert counts[0] == counts[1]
    if drawn:
        assert torch.equal(half[0], target[0, ::2, 1::2])


def test_cells_that_do_not_divide_the_shape_share_no_pixel():
    """Five pixels on two cells: 0, 1, 2 and 3, 4."""
    target = torch.tensor([[[0, IGNORE, 1, 2, 0]]], dtype=torch.int16)
    (coarse,) = DownsampleScribblesTransform([[1, 0.4]], IGNORE)(image=target, segmentation=target)["segmentation"]
    assert coarse.tolist() == [[[1, 2]]]


def test_points_keep_their_area_when_rotated():
    """Where (1 - |x|) (1 - |y|) > 1/2, which is what nnU-Net's interpolation leaves of a pixel, is 0.61 of its area."""
    target = torch.full((1, 64, 64), IGNORE, dtype=torch.int16)
    target[0, 2::5, 2::5] = 1
    area = {}
    for name, kept in (("theirs", False), ("ours", True)):
        steps = pipeline()
        spatial = (keep_scribbles(steps, IGNORE) if kept else steps).transforms[0]
        spatial.p_rotation, spatial.p_scaling = 1, 0
        area[name] = 0
        for seed in range(200):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002 - what nnU-Net draws from
            parameters = spatial.get_parameters(image=target.float())
            out = spatial._apply_to_segmentation(target, **parameters)
            area[name] += (out == 1).sum().item()
    assert area["ours"] / 200 == pytest.approx(32 * 32 / 25, rel=0.05)
    assert area["theirs"] < 0.8 * area["ours"]


@pytest.mark.parametrize("regions", [None, [(1, 2), 2]])
def test_the_pipeline_gives_labels_and_padding_at_every_scale(regions):
    steps = keep_scribbles(keep_labels(keep_padding(pipeline(regions=regions))), IGNORE)
    steps = pickle.loads(pickle.dumps(steps))  # as worker processes get it
    torch.manual_seed(0)
    target = torch.full((1, 40, 40), IGNORE, dtype=torch.int16)
    target[:, :, :15] = PADDING
    target[:, 18:22, 16:30] = 1
    target[:, 25, 16:30] = 2
    seen = [set() for _ in SCALES]
    for _ in range(10):
        out = steps(image=torch.randn(1, 40, 40), segmentation=target)["segmentation"]
        assert [tuple(o.shape) for o in out] == [(1, 32, 32), (1, 16, 16), (1, 8, 8)]
        for scale, labels in zip(out, seen, strict=True):
            labels |= set(scale.unique().tolist())
    assert all(labels == {PADDING, 1, 2, IGNORE} or labels == {PADDING, 0, 1, 2, IGNORE} for labels in seen)


def test_a_pipeline_that_is_not_known_is_refused():
    steps = pipeline()
    steps.transforms = [step for step in steps.transforms if not isinstance(step, RemoveLabelTransform)]
    with pytest.raises(AttenScribbleError, match=r"0 steps .*, expected 1: nnunetv2 [0-9.]+ and batchgeneratorsv2"):
        keep_padding(steps)
    coarser = steps.transforms.pop()
    with pytest.raises(AttenScribbleError, match="0 steps DownsampleSegForDSTransform"):
        keep_scribbles(steps, IGNORE, deep_supervision=True)
    steps.transforms.append(coarser)
    vars(steps.transforms[0]).pop("mode_seg")  # as if it were called differently
    with pytest.raises(AttenScribbleError, match="without `mode_seg`"):
        keep_scribbles(steps, IGNORE)
    steps.transforms = steps.transforms[1:]  # without the one that rotates and scales
    with pytest.raises(AttenScribbleError, match="no step that rotates and scales labels"):
        keep_scribbles(steps, IGNORE)
