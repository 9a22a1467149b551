from __future__ import annotations

import math

import pytest
import torch

from nnunet_attenscribble.losses import (
    AttenScribbleLoss,
    MaskedCRFLoss,
    PartialCrossEntropyLoss,
    rescale_intensities,
)
from nnunet_attenscribble.network import SecondPrediction
from nnunet_attenscribble.objective import ScribbleObjective
from nnunet_attenscribble.targets import PADDING, treat_padding

IGNORE = 3


def test_padding_as_background_and_ignored():
    target = torch.tensor([[[[0, 1, PADDING, IGNORE]]]])
    assert treat_padding(target, "background", IGNORE)[0].flatten().tolist() == [0, 1, 0, IGNORE]
    assert treat_padding(target, "ignore", IGNORE)[0].flatten().tolist() == [0, 1, IGNORE, IGNORE]
    assert treat_padding(target, "background", IGNORE)[1] is None


def test_balanced_padding_weighs_as_much_as_the_drawn_background():
    target = torch.tensor([[[[0, 0, 1, IGNORE] + [PADDING] * 8]]])
    labels, weight = treat_padding(target, "balanced", IGNORE)
    outside = target == PADDING
    assert (labels[outside] == 0).all()
    assert weight[outside].sum().item() == pytest.approx(2)
    assert (weight[~outside] == 1).all()


def test_balanced_padding_never_weighs_more_than_a_drawn_pixel():
    target = torch.tensor([[[[0] * 10 + [PADDING]]]])
    assert (treat_padding(target, "balanced", IGNORE)[1] == 1).all()
    no_background = torch.tensor([[[[1, PADDING]]]])
    assert treat_padding(no_background, "balanced", IGNORE)[1].flatten().tolist() == [1, 0]
    no_padding = torch.tensor([[[[0, 1]]]])
    assert treat_padding(no_padding, "balanced", IGNORE)[1].flatten().tolist() == [1, 1]


def make(scale_weights, crf=None, padding="ignore", class_weights=None):
    regularised = AttenScribbleLoss(IGNORE, crf=crf, crf_weight=0.5)
    return ScribbleObjective(PartialCrossEntropyLoss(IGNORE), scale_weights, regularised, padding, class_weights)


@pytest.mark.parametrize(("padding", "expected"), [("balanced", 7 / 5), ("background", 19 / 11), ("ignore", 1)])
def test_the_padding_in_the_segmentation_loss_by_hand(padding, expected):
    target = torch.tensor([[[[0, 0, 1, IGNORE] + [PADDING] * 8]]])
    p = torch.full((1, 3, 1, 12), 0.25)
    for label, pixels in ((0, slice(2)), (1, slice(2, None))):  # ln 2 where drawn, 2 ln 2 at each of the padding
        p[0, label, 0, pixels] = 0.5
    assert make(None, padding=padding)(p.log(), target).item() == pytest.approx(expected * math.log(2))


def test_class_weights_in_the_segmentation_loss_by_hand():
    target = torch.tensor([[[[0, 1, 1, IGNORE, PADDING]]]])
    p = torch.tensor([[0.5, 0.25, 0.25, 0.25, 0.5], [0.25, 0.25, 0.25, 0.5, 0.25], [0.25, 0.5, 0.5, 0.25, 0.25]])
    objective = make(None, padding="balanced", class_weights=[1.0, 0.25, 1.0])
    # ln 2 where background is drawn and, with the weight of one such pixel, at the padding; 2 ln 2 twice with 0.25
    assert objective(p.log().view(1, 3, 1, 5), target).item() == pytest.approx(3 / 2.5 * math.log(2))


def test_two_decoders_count_half_each():
    first, second = (torch.tensor(p).log().view(1, 3, 1, 1) for p in ([0.25, 0.5, 0.25], [0.5, 0.25, 0.25]))
    value = make(None)((first, SecondPrediction(second)), torch.tensor([[[[1]]]]))
    assert value.item() == pytest.approx(1.5 * math.log(2))


def batch(size=8):
    torch.manual_seed(size)
    return torch.randn(2, 3, size, size), torch.randint(-1, IGNORE + 1, (2, 1, size, size))


def test_deep_supervision_weighs_the_scales():
    (fine, t_fine), (coarse, t_coarse), (coarsest, t_coarsest) = batch(8), batch(4), batch(2)
    objective = make([0.6, 0.4, 0.0])
    value = objective([fine, coarse, coarsest], [t_fine, t_coarse, t_coarsest])
    single = make(None)
    torch.testing.assert_close(value, 0.6 * single(fine, t_fine) + 0.4 * single(coarse, t_coarse))
    # Networks that are none of nnU-Net's own may give a tuple, as nnU-Net's own loss takes it.
    assert objective((fine, coarse, coarsest), [t_fine, t_coarse, t_coarsest]) == value


def test_regularisers_need_the_image_and_rest_without_it():
    (fine, t_fine), (coarse, t_coarse) = batch(8), batch(4)
    image = torch.rand(2, 1, 8, 8)
    objective = make([0.6, 0.4], MaskedCRFLoss(1))
    resting = objective([fine, coarse], [t_fine, t_coarse])
    with objective.given(image):
        acting = objective([fine, coarse], [t_fine, t_coarse])
    assert acting > resting
    torch.testing.assert_close(objective([fine, coarse], [t_fine, t_coarse]), resting)
    terms = objective.take_terms()
    assert terms["total"] == pytest.approx(acting.item())
    assert terms["total"] == pytest.approx(terms["segmentation"] + 0.5 * terms["crf"])
    annotated = ((t_fine != PADDING) & (t_fine != IGNORE)).float().mean().item()
    assert terms["annotated"] == pytest.approx(annotated)
    for label in range(IGNORE):
        assert terms[f"annotated_{label}"] == (t_fine == label).float().mean().item()
    assert objective.take_terms() == {}


def test_terms_are_means_over_the_steps_and_undefined_ones_are_left_out():
    objective = make(None)
    objective.terms = [
        {"a": torch.tensor(1.0), "b": torch.tensor(math.nan)},
        {"a": torch.tensor(3.0), "b": torch.tensor(4.0)},
    ]
    assert objective.take_terms() == {"a": 2.0, "b": 4.0}
    objective.terms = [{"b": torch.tensor(math.nan)}]
    assert math.isnan(objective.take_terms()["b"])


@pytest.mark.parametrize("padding", ["balanced", "background", "ignore"])
def test_padding_reaches_neither_the_regularisers_nor_their_normaliser(padding):
    logits, target = batch(8)
    target[:, :, :, 5:] = PADDING
    target[:, :, :, :5] = IGNORE
    logits.requires_grad_()
    objective = make(None, MaskedCRFLoss(2), padding)
    image = torch.rand(2, 1, 8, 8)
    with objective.given(image):
        objective(logits, target)
    crf = objective.terms[0]["crf"]
    alone = MaskedCRFLoss(2)(logits.softmax(1)[..., :5], rescale_intensities(image[..., :5]), torch.ones(2, 1, 8, 5))
    torch.testing.assert_close(crf, alone.detach())
    assert crf > 0
