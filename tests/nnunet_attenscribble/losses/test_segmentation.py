"""Partial cross-entropy, partial Dice, and the weighted sum."""

from __future__ import annotations

from math import exp, log, nan

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.helpers import softmax_helper_dim1

from nnunet_attenscribble.losses import (
    AttenScribbleLoss,
    AttentiveSimilarityLoss,
    MaskedCRFLoss,
    PartialBinaryCrossEntropyLoss,
    PartialCrossEntropyLoss,
    PartialDiceCrossEntropyLoss,
    SimilarityPairLoss,
    rank_intensities,
    rescale_intensities,
)
from nnunet_attenscribble.similarity import WindowSimilarity
from nnunet_attenscribble.targets import PADDING
from tests.nnunet_attenscribble import brute_force

IGNORE = 3


def scribbled(shape=(2, 1, 8, 6), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, IGNORE + 1, shape, generator=generator)


def test_cross_entropy_by_hand():
    # Certainty 3/4 for the label at one pixel, 1/2 at another; the third is not annotated.
    probabilities = torch.tensor([[[[0.75, 0.5, 0.1]], [[0.25, 0.5, 0.9]]]])
    target = torch.tensor([[[[0, 1, 9]]]])
    loss = PartialCrossEntropyLoss(9)
    assert loss(probabilities.log(), target).item() == pytest.approx((log(4 / 3) + log(2)) / 2, rel=1e-6)
    weight = torch.tensor([[[[3.0, 1.0, 100.0]]]])
    assert loss(probabilities.log(), target, weight).item() == pytest.approx((3 * log(4 / 3) + log(2)) / 4, rel=1e-6)


@pytest.mark.parametrize(
    "loss", [PartialCrossEntropyLoss(IGNORE), PartialBinaryCrossEntropyLoss(IGNORE, [(1, 2), 2, 0])]
)
def test_the_unit_of_the_weights_does_not_matter(loss):
    logits, target = torch.randn(2, 3, 8, 6), scribbled()
    weight = torch.rand(2, 1, 8, 6)
    torch.testing.assert_close(loss(logits, target, 1e-3 * weight), loss(logits, target, weight))


def test_cross_entropy_without_annotation_is_exactly_zero():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    value = PartialCrossEntropyLoss(IGNORE)(logits, torch.full((2, 1, 4, 4), IGNORE))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


def test_unannotated_pixels_get_no_gradient():
    logits, target = torch.randn(2, 3, 8, 6, requires_grad=True), scribbled()
    PartialCrossEntropyLoss(IGNORE)(logits, target).backward()
    unannotated = (target == IGNORE).expand_as(logits)
    assert (logits.grad[unannotated] == 0).all()
    assert (logits.grad[~unannotated] != 0).all()


def test_a_better_prediction_has_a_lower_loss():
    target = scribbled()
    right = torch.nn.functional.one_hot(target[:, 0].clamp(max=2), 3).permute(0, 3, 1, 2).float()
    losses = [PartialCrossEntropyLoss(IGNORE)(strength * right, target).item() for strength in (0, 1, 5)]
    assert losses == sorted(losses, reverse=True)


def nnunet_dice(batch_dice=True):
    return MemoryEfficientSoftDiceLoss(
        apply_nonlin=softmax_helper_dim1, batch_dice=batch_dice, smooth=1e-5, do_bg=False, ddp=False
    )


@pytest.mark.parametrize("batch_dice", [True, False])
def test_dice_and_cross_entropy_are_nnunets_own(batch_dice):
    logits, target = torch.randn(2, 3, 8, 6), scribbled()
    options = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False}
    stock = DC_and_CE_loss(options, {}, ignore_label=IGNORE, dice_class=MemoryEfficientSoftDiceLoss)
    ours = PartialDiceCrossEntropyLoss(PartialCrossEntropyLoss(IGNORE), nnunet_dice(batch_dice))
    torch.testing.assert_close(ours(logits, target), stock(logits, target.float()))


def test_the_weight_of_the_dice():
    logits, target = torch.randn(2, 3, 8, 6), scribbled()
    cross_entropy = PartialCrossEntropyLoss(IGNORE)
    alone, half, whole = (
        PartialDiceCrossEntropyLoss(cross_entropy, nnunet_dice(), weight)(logits, target) for weight in (0, 0.5, 1)
    )
    torch.testing.assert_close(alone, cross_entropy(logits, target))
    torch.testing.assert_close(half, (alone + whole) / 2)


def test_dice_with_weights_of_zero_is_blind_there():
    logits, target = torch.randn(2, 3, 8, 6), scribbled()
    weight = torch.ones_like(target, dtype=torch.float32)
    weight[:, :, 4:] = 0
    loss = PartialDiceCrossEntropyLoss(PartialCrossEntropyLoss(IGNORE), nnunet_dice())
    hidden = target.clone()
    hidden[:, :, 4:] = IGNORE
    torch.testing.assert_close(loss(logits, target, weight), loss(logits, hidden))


@pytest.mark.parametrize("ranks", [False, True])
def test_the_sum_of_all_terms(ranks):
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 12, 12)
    target = torch.randint(0, IGNORE + 1, (2, 1, 12, 12))
    target[0, :, :, 10:] = PADDING
    image = torch.randn(2, 1, 12, 12)
    similarity = brute_force.from_matrix(torch.full((2, 36, 36), 0.3), (6, 6), (1, 1))
    crf, similar = MaskedCRFLoss(2), AttentiveSimilarityLoss(1, detach_similarity=True)
    loss = AttenScribbleLoss(
        IGNORE, crf, similar, SimilarityPairLoss(), crf_weight=0.5, similarity_weight=0.2, pair_weight=3.0, ranks=ranks
    )
    total, terms = loss(torch.tensor(1.25), logits, target, image, similarity)

    inside = target != PADDING
    scaled = rank_intensities(image, target != IGNORE, inside) if ranks else rescale_intensities(image, inside)
    expected_crf = crf(logits.softmax(1), scaled, target == IGNORE, inside)
    torch.testing.assert_close(terms["crf"], expected_crf)
    assert terms["mean_similarity"].item() == pytest.approx(0.3)
    expected = 1.25 + 0.5 * expected_crf + 0.2 * terms["similarity"] + 3 * terms["pairs"]
    torch.testing.assert_close(total, expected)

    loss.strength = 0.0  # the similarity goes on learning
    total, _ = loss(torch.tensor(1.25), logits, target, image, similarity)
    torch.testing.assert_close(total, 1.25 + 3 * terms["pairs"])


@pytest.mark.parametrize(("labels", "expected"), [([0, 1], 0.3 * exp(-1 / 72)), ([0, 0], 0)])
def test_neither_padding_nor_a_single_class_enters_the_similarity(labels, expected):
    logits = torch.tensor([[[[50.0, -50.0, 50.0]], [[-50.0, 50.0, -50.0]]]])  # surely classes 0, 1, 0
    similarity = WindowSimilarity(torch.full((1, 2), 0.3), (1, 3), (1, 1))
    loss = AttenScribbleLoss(IGNORE, similarity=AttentiveSimilarityLoss(1))
    target = torch.tensor([[[[*labels, PADDING]]]])
    _, terms = loss(torch.zeros(()), logits, target, torch.zeros(1, 1, 1, 3), similarity)
    assert terms["similarity"].item() == pytest.approx(expected)
    # The only annotated pair is of one kind; means over steps leave out what is not defined.
    same, different = (terms[f"{kind}_class_similarity"].item() for kind in ("same", "different"))
    assert (same, different) == pytest.approx((0.3, nan) if labels == [0, 0] else (nan, 0.3), nan_ok=True)


def test_a_missing_similarity_is_told():
    loss = AttenScribbleLoss(IGNORE, similarity=AttentiveSimilarityLoss(1))
    with pytest.raises(ValueError, match="attention block"):
        loss(torch.zeros(()), torch.randn(1, 3, 4, 4), scribbled((1, 1, 4, 4)), torch.randn(1, 1, 4, 4))
