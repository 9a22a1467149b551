from __future__ import annotations

from math import exp

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from nnunet_attenscribble.losses import MaskedCRFLoss
from tests.nnunet_attenscribble import brute_force


def random_input(shape, samples=2, classes=3, channels=1, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(samples, classes, *shape, generator=generator, dtype=dtype).softmax(1)
    image = torch.rand(samples, channels, *shape, generator=generator, dtype=dtype)
    mask = torch.rand(samples, 1, *shape, generator=generator) > 0.4
    return p, image, mask


@pytest.mark.parametrize(
    ("shape", "radius", "spacing", "channels"),
    [
        ((5, 4), (2, 2), (1.0, 1.0), 1),
        ((5, 4), (1, 3), (1.0, 1.0), 2),
        ((4, 6), (9, 9), (1.0, 1.0), 1),  # wider than the image
        ((5, 4), (0, 2), (1.0, 1.0), 1),  # one axis switched off
        ((3, 3, 4), (1, 2, 2), (5.0, 1.5, 1.5), 1),
        ((3, 4, 3), (2, 1, 1), (1.0, 2.0, 0.5), 2),
        ((3, 3, 4), (2, 1, 2), (1.0, 2.0, 2.0), 1),  # slices closer than pixels
        ((1, 1), (5, 5), (1.0, 1.0), 1),
        ((1, 7), (5, 5), (1.0, 1.0), 1),
    ],
)
def test_equals_the_formula_in_value_and_gradient(shape, radius, spacing, channels):
    p, image, mask = random_input(shape, channels=channels)
    loss = MaskedCRFLoss(radius, 3.0, 0.3, spacing)
    ours, theirs = p.clone().requires_grad_(), p.clone().requires_grad_()
    value = loss(ours, image, mask)
    expected = brute_force.masked_crf(theirs, image, mask, radius, 3.0, 0.3, spacing)
    torch.testing.assert_close(value, expected)
    value.backward()
    if expected.requires_grad:
        expected.backward()
    torch.testing.assert_close(ours.grad, torch.zeros_like(p) if theirs.grad is None else theirs.grad)


def test_two_pixels_by_hand():
    # p_1 . p_2 = 0.8 * 0.3 + 0.2 * 0.7 = 0.38; kernel exp(-1 / 72 - 0.2^2 / 0.02); one of two pixels is regularised.
    p = torch.tensor([[[[0.8, 0.3]], [[0.2, 0.7]]]])
    image = torch.tensor([[[[0.5, 0.7]]]])
    mask = torch.tensor([[[[1.0, 0.0]]]])
    assert MaskedCRFLoss()(p, image, mask).item() == pytest.approx(0.62 * exp(-1 / 72 - 2), rel=1e-5)


def test_gradcheck():
    p, image, mask = random_input((4, 5))
    assert gradcheck(lambda x: MaskedCRFLoss(2, 2.0, 0.3)(x, image, mask), p.requires_grad_())


def test_pixels_outside_form_no_pair_and_do_not_count():
    p, image, mask = random_input((6, 5))
    inside = torch.ones_like(mask)
    inside[0, :, 4:] = False
    inside[1, :, :, 0] = False
    loss = MaskedCRFLoss(2, 3.0, 0.3)
    expected = brute_force.masked_crf(p, image, mask, (2, 2), 3.0, 0.3, (1.0, 1.0), inside)
    p.requires_grad_()
    value = loss(p, image, mask, inside)
    torch.testing.assert_close(value, expected)
    value.backward()
    assert (p.grad[(~inside).expand_as(p)] == 0).all()
    # What stands there does not matter either.
    changed = torch.where(inside, image, torch.tensor(7.0, dtype=image.dtype))
    torch.testing.assert_close(loss(p, changed, mask, inside), value)


def test_an_empty_mask_is_exactly_zero_with_zero_gradient():
    p, image, mask = random_input((5, 5), dtype=torch.float32)
    p.requires_grad_()
    value = MaskedCRFLoss()(p, image, torch.zeros_like(mask))
    value.backward()
    assert value.item() == 0
    assert (p.grad == 0).all()


@pytest.mark.parametrize("classes", [1, 3])
def test_certain_agreement_costs_nothing(classes):
    _, image, mask = random_input((6, 6))
    p = torch.zeros(2, classes, 6, 6, dtype=torch.float64)
    p[:, classes // 2] = 1
    assert MaskedCRFLoss()(p, image, mask).item() == pytest.approx(0, abs=1e-12)


def test_a_scribbled_pixel_influences_but_is_not_influenced():
    image = torch.zeros(1, 1, 1, 2)
    p = torch.tensor([[[[0.9, 0.4]], [[0.1, 0.6]]]]).requires_grad_()
    mask = torch.tensor([[[[0.0, 1.0]]]])  # the first pixel is scribbled
    MaskedCRFLoss(1)(p, image, mask).backward()
    kernel = exp(-1 / 72)
    torch.testing.assert_close(p.grad[0, :, 0, 1], -kernel * torch.tensor([0.9, 0.1]))


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    radius=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    seed=st.integers(0, 1000),
)
def test_invariances(size, radius, seed):
    p, image, mask = random_input(size, seed=seed)
    loss = MaskedCRFLoss(radius, 3.0, 0.3)
    value = loss(p, image, mask)
    assert value >= -1e-12
    flipped = loss(*(x.flip(-1) for x in (p, image, mask)))
    torch.testing.assert_close(flipped, value)
    classes = loss(p[:, [2, 0, 1]], image, mask)
    torch.testing.assert_close(classes, value)
    samples = loss(p.flip(0), image.flip(0), mask.flip(0))
    torch.testing.assert_close(samples, value)
    shifted = loss(p, image + 0.25, mask)
    torch.testing.assert_close(shifted, value)


def test_more_pixels_than_one_pass_holds(monkeypatch):
    p, image, mask = random_input((6, 5), samples=5)
    loss = MaskedCRFLoss(2, 3.0, 0.3)
    at_once = loss(p, image, mask)
    monkeypatch.setattr("nnunet_attenscribble.losses.masked_crf._CPU_PIXELS", 60)
    torch.testing.assert_close(loss(p, image, mask), at_once)


def test_a_constant_factor_of_batch_size_leaves_the_value():
    p, image, mask = random_input((6, 5), samples=2)
    twice = [torch.cat([x, x]) for x in (p, image, mask)]
    loss = MaskedCRFLoss(2, 3.0, 0.3)
    torch.testing.assert_close(loss(*twice), loss(p, image, mask))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    p, image, mask = random_input((8, 8), dtype=torch.float32)
    half = p.to(dtype).requires_grad_()
    value = MaskedCRFLoss()(half, image, mask)
    value.backward()
    assert value.dtype == torch.float32
    assert half.grad.dtype == dtype
    torch.testing.assert_close(value, MaskedCRFLoss()(half.detach().float(), image, mask))


def test_non_contiguous_input():
    p, image, mask = random_input((6, 5))
    turned = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (p, image, mask)]
    assert not turned[0].is_contiguous()
    torch.testing.assert_close(MaskedCRFLoss(2)(*turned), MaskedCRFLoss(2)(p, image, mask))


def test_calls_of_different_sizes_do_not_disturb_each_other():
    loss = MaskedCRFLoss(2)
    small, large = random_input((4, 4)), random_input((9, 7), seed=1)
    before = loss(*small)
    loss(*large)
    torch.testing.assert_close(loss(*small), before)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_under_torch_compile_with_autocast(backend):
    p, image, mask = random_input((8, 8), dtype=torch.float32)
    loss = MaskedCRFLoss(2)

    def run(logits):
        with torch.autocast("cpu", torch.bfloat16):
            return loss(logits.softmax(1), image, mask)

    logits = p.log()
    eager, compiled = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    run(eager).backward()
    torch.compile(run, backend=backend, fullgraph=True)(compiled).backward()
    torch.testing.assert_close(compiled.grad, eager.grad)


@pytest.mark.parametrize(
    "arguments", [{"radius": -1}, {"radius": 1.5}, {"sigma_position": 0}, {"sigma_intensity": -0.1}]
)
def test_refuses_impossible_settings(arguments):
    with pytest.raises(ValueError, match=r"radius|sigma"):
        MaskedCRFLoss(**arguments)


@pytest.mark.parametrize("name", ["image", "mask", "inside"])
def test_refuses_inputs_that_do_not_fit(name):
    p, image, mask = random_input((4, 4))
    given = {"image": image, "mask": mask, "inside": mask}
    with pytest.raises(ValueError, match=f"^{name} .* does not fit"):
        MaskedCRFLoss()(p, **(given | {name: given[name][:1]}))


def test_refuses_a_radius_of_other_axes():
    p, image, mask = random_input((4, 4))
    with pytest.raises(ValueError, match="radius"):
        MaskedCRFLoss((1, 1, 1))(p, image, mask)


@pytest.mark.parametrize("name", ["interior", "border"])
def test_reference_values(shared_folder, name):
    values = np.load(shared_folder / "golden" / f"masked_crf_{name}.npz")
    tensors = {key: torch.from_numpy(values[key]) for key in ("logits", "image", "mask", "grad_logits")}
    logits = tensors["logits"].requires_grad_()
    loss = MaskedCRFLoss(int(values["radius"]), float(values["sigma_position"]), float(values["sigma_intensity"]))
    value = loss(logits.softmax(1), tensors["image"], tensors["mask"])
    value.backward()
    if values["loss_is_comparable"]:
        assert value.item() == pytest.approx(float(values["loss"]), rel=1e-4)
    torch.testing.assert_close(logits.grad, tensors["grad_logits"], atol=1e-7, rtol=1e-4)
