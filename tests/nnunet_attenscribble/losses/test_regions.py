"""Region-based labels: their cross-entropy, and what the regularisers see of them."""

from __future__ import annotations

from math import log

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from nnunet_attenscribble.losses import (
    AttenScribbleLoss,
    MaskedCRFLoss,
    PartialBinaryCrossEntropyLoss,
    PartialDiceCrossEntropyLoss,
    to_probabilities,
)
from nnunet_attenscribble.targets import PADDING

IGNORE = 3
REGIONS = [(1, 2), 2]  # the whole, and its core


def scribbled(shape=(2, 1, 8, 6)):
    return torch.randint(0, IGNORE + 1, shape, generator=torch.Generator().manual_seed(0))


def channels(target):
    """The target as nnU-Net's region transform writes it."""
    return torch.cat([(target == 1) | (target == 2), target == 2, target == IGNORE], dim=1)


def test_by_hand():
    # One pixel of label 1 (in the whole, not in the core), one of label 0, one without annotation.
    probabilities = torch.tensor([[[[0.75, 0.5, 0.1]], [[0.25, 0.5, 0.9]]]])
    loss = PartialBinaryCrossEntropyLoss(IGNORE, REGIONS)
    target = torch.tensor([[[[1, 0, IGNORE]]]])
    expected = (2 * log(4 / 3) + 2 * log(2)) / 2
    assert loss(probabilities.logit(), target).item() == pytest.approx(expected, rel=1e-6)
    weight = torch.tensor([[[[3.0, 1.0, 100.0]]]])
    expected = (3 * 2 * log(4 / 3) + 2 * log(2)) / 4
    assert loss(probabilities.logit(), target, weight).item() == pytest.approx(expected, rel=1e-6)


def test_labels_and_channels_are_the_same_target():
    loss, target, logits = PartialBinaryCrossEntropyLoss(IGNORE, REGIONS), scribbled(), torch.randn(2, 2, 8, 6)
    torch.testing.assert_close(loss(logits, target), loss(logits, channels(target)))


def test_without_annotation_is_exactly_zero():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    value = PartialBinaryCrossEntropyLoss(IGNORE, REGIONS)(logits, torch.full((1, 1, 4, 4), IGNORE))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("batch_dice", [True, False])
def test_with_dice_equals_nnunets_loss_for_regions(batch_dice):
    options = {"batch_dice": batch_dice, "do_bg": True, "smooth": 1e-5, "ddp": False}
    theirs = DC_and_BCE_loss({}, options, use_ignore_label=True, dice_class=MemoryEfficientSoftDiceLoss)
    ours = PartialDiceCrossEntropyLoss(PartialBinaryCrossEntropyLoss(IGNORE, REGIONS), theirs.dc)
    target, logits = scribbled(), torch.randn(2, 2, 8, 6)
    one, other = (logits.clone().requires_grad_() for _ in range(2))
    value, expected = ours(one, target), theirs(other, channels(target))
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_classes_become_probabilities_in_single_precision(dtype):
    logits = (4 * torch.randn(2, 3, 8, 6)).to(dtype).requires_grad_()
    p = to_probabilities(logits)
    expected = logits.to(torch.promote_types(dtype, torch.float32)).softmax(dim=1)
    weight = torch.randn(p.shape)
    gradients = [torch.autograd.grad((x * weight).sum(), logits)[0] for x in (p, expected)]
    assert p.dtype == expected.dtype
    assert torch.equal(p, expected)
    assert torch.equal(*gradients)


def test_the_product_of_two_pixels_is_the_mean_agreement_of_the_regions():
    s = torch.tensor([[0.9, 0.2], [0.3, 0.6]])  # two regions, two pixels
    p = to_probabilities(s.logit()[None, :, None], regions=True)[0, :, 0]
    expected = ((0.9 * 0.2 + 0.1 * 0.8) + (0.3 * 0.6 + 0.7 * 0.4)) / 2
    assert (p[:, 0] @ p[:, 1]).item() == pytest.approx(expected, rel=1e-6)


def test_the_crf_of_regions_is_the_mean_of_their_crfs():
    logits, target = torch.randn(2, 2, 8, 6), scribbled()
    target[:, :, :2] = PADDING
    image = torch.rand(2, 1, 8, 6)
    crf = MaskedCRFLoss(2)
    zero = torch.zeros(())
    _, terms = AttenScribbleLoss(IGNORE, crf, crf_weight=1.0, regions=True)(zero, logits, target, image)
    each = []
    for region in range(2):
        binary = torch.cat([logits[:, region : region + 1], torch.zeros(2, 1, 8, 6)], dim=1)
        each.append(AttenScribbleLoss(IGNORE, crf, crf_weight=1.0)(zero, binary, target, image)[1]["crf"])
    torch.testing.assert_close(terms["crf"], sum(each) / 2)
