"""Every rival against its formula, written out pixel by pixel."""

from __future__ import annotations

from itertools import product
from math import exp, log

import pytest
import torch

from nnunet_attenscribble.losses import MaskedCRFLoss
from nnunet_attenscribble.losses.intensities import rescale_intensities
from nnunet_attenscribble.losses.rival import RivalLoss
from nnunet_attenscribble.targets import PADDING
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerDMPLS import MixedLabelsLoss
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerEntropy import EntropyLoss
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerGatedCRF import GatedCRFLoss
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerMumfordShah import MumfordShahLoss
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerScribbleVS import CompetingLabelsLoss
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerTotalVariation import TotalVariationLoss
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerUSTM import TeacherPrediction, UncertainTeacherLoss
from tests.nnunet_attenscribble import brute_force

IGNORE = 3
SHAPES = [(4, 5), (3, 4, 5)]


def make(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, IGNORE, *shape, generator=generator, dtype=torch.float64)
    image = torch.rand(2, 2, *shape, generator=generator, dtype=torch.float64)
    target = torch.randint(-1, IGNORE + 1, (2, 1, *shape), generator=generator)
    other = 2 * torch.randn(2, IGNORE, *shape, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), image, target, other


def positions(shape):
    return product(range(2), *(range(size) for size in shape))


def at(values, position):
    """The values of all classes or channels at (n, *position)."""
    return values[(position[0], slice(None), *position[1:])]


def neighbourhood(position, shape):
    ranges = [range(max(0, p - 1), min(size, p + 2)) for p, size in zip(position[1:], shape, strict=True)]
    return [(position[0], *near) for near in product(*ranges)]


@pytest.mark.parametrize("shape", SHAPES)
def test_entropy(shape):
    logits, image, target, _ = make(shape)
    p = logits.softmax(dim=1)
    values = [
        -sum(float(v) * log(float(v)) for v in at(p, i)) / log(IGNORE)
        for i in positions(shape)
        if at(target, i)[0] == IGNORE
    ]
    expected = sum(values) / len(values)
    assert EntropyLoss()(logits, target, image, IGNORE, None).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_total_variation(shape):
    logits, image, target, _ = make(shape)
    p = logits.softmax(dim=1).detach()
    least, values = torch.empty_like(p), []
    for i in positions(shape):
        least[(i[0], slice(None), *i[1:])] = torch.stack([at(p, j) for j in neighbourhood(i, shape)]).amin(dim=0)
    for i in positions(shape):
        opened = torch.stack([at(least, j) for j in neighbourhood(i, shape)]).amax(dim=0)
        if at(target, i)[0] != PADDING:
            values.append((opened - at(least, i)).clamp(min=0).mean().item())
    expected = sum(values) / len(values)
    assert TotalVariationLoss()(logits, target, image, IGNORE, None).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_mumford_shah(shape):
    logits, image, target, _ = make(shape)
    p = logits.softmax(dim=1).detach()
    inside = [i for i in positions(shape) if at(target, i)[0] != PADDING]
    total = 0.0
    for n, c, m in product(range(2), range(IGNORE), range(2)):
        own = [(at(p, i)[c], at(image, i)[m]) for i in inside if i[0] == n]
        mean = sum(a * b for a, b in own) / sum(a for a, _ in own)
        total += sum(a * (b - mean) ** 2 for a, b in own)
    for i in inside:
        for axis in range(1, len(i)):
            j = tuple(at_axis + (axis == number) for number, at_axis in enumerate(i))
            if j in inside:
                total += (at(p, i) - at(p, j)).abs().sum()
    expected = float(total) / (IGNORE * len(inside))
    assert MumfordShahLoss()(logits, target, image, IGNORE, None).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_gated_crf_is_the_masked_one_of_all_pixels(shape):
    logits, image, target, _ = make(shape)
    inside = target != PADDING
    radius, spacing = (1,) * len(shape), (1.0,) * len(shape)
    scaled = rescale_intensities(image, inside)
    expected = brute_force.masked_crf(logits.softmax(dim=1), scaled, inside, radius, 6.0, 0.1, spacing, inside)
    term = GatedCRFLoss(MaskedCRFLoss(radius, 6.0, 0.1, spacing))
    assert term(logits, target, image, IGNORE, None).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_uncertain_teacher(turns, progress):
    logits, image, target, other = make((4, 4))
    mean = make((4, 4), seed=1)[3].softmax(dim=1)
    term = UncertainTeacherLoss()
    term.progress = progress
    threshold = (0.75 + 0.25 * exp(-5 * (1 - progress) ** 2)) * log(2)
    p, t = logits.softmax(dim=1), other.softmax(dim=1)
    squares, sure = 0.0, 0
    for n, row, column in positions((4, 4)):
        source = (row, column)
        for _ in range(turns):  # where a pixel came from before a quarter turn counterclockwise
            source = (source[1], 3 - source[0])
        entropy = -sum(float(v) * log(float(v)) for v in mean[n, :, row, column])
        if entropy < threshold and target[(n, 0, *source)] != PADDING:
            squares += ((p[(n, slice(None), *source)] - t[n, :, row, column]) ** 2).sum()
            sure += 1
    assert 0 < sure < 32
    value = term(logits, target, image, IGNORE, TeacherPrediction(t, mean, turns))
    assert value.item() == pytest.approx(float(squares) / (2 * sure), rel=1e-9)


def dice(p, labels, where):
    losses = []
    for c in range(IGNORE):
        pairs = [(at(p, i)[c], float(at(labels, i)[0] == c)) for i in where]
        top = 2 * sum(a * b for a, b in pairs) + 1e-5
        losses.append(1 - top / (sum(a * a for a, _ in pairs) + sum(b * b for _, b in pairs) + 1e-5))
    return sum(losses) / IGNORE


@pytest.mark.parametrize("winner", ["teacher", "student"])
def test_competing_labels(winner):
    shape = (4, 5)
    logits, image, target, other = make(shape)
    drawn = (target >= 0) & (target < IGNORE)
    truth = 9.0 * torch.nn.functional.one_hot(target.clamp(0, IGNORE - 1)[:, 0], IGNORE).movedim(-1, 1).double() * drawn
    better, worse = (other + truth), (other - truth)
    teacher = better if winner == "teacher" else worse
    student = logits.detach() if winner == "teacher" else (logits + truth).detach()
    student.requires_grad_()
    chosen = (teacher if winner == "teacher" else student).softmax(dim=1)
    most, labels = chosen.max(dim=1, keepdim=True)
    where = [i for i in positions(shape) if at(target, i)[0] != PADDING and at(most, i)[0] > 0.5]
    logs = student.log_softmax(dim=1)
    cross_entropy = -sum(float(at(logs, i)[at(labels, i)[0]]) for i in where) / len(where)
    expected = 0.5 * (cross_entropy + dice(student.softmax(dim=1), labels, where))
    value = CompetingLabelsLoss()(student, target, image, IGNORE, teacher)
    assert value.item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("soft", [False, True])
def test_mixed_labels(soft, monkeypatch):
    shape = (4, 5)
    logits, image, target, other = make(shape)
    other.requires_grad_()
    monkeypatch.setattr("random.random", lambda: 0.3)
    first, second = logits.softmax(dim=1), other.softmax(dim=1)
    mixed = (0.3 * first + 0.7 * second).detach()
    where = [i for i in positions(shape) if at(target, i)[0] != PADDING]
    if soft:
        logs = [p.log_softmax(dim=1) for p in (first, second)]  # softmax of the softmax, as published
        expected = -sum((at(mixed, i) * at(log_p, i)).sum() for log_p in logs for i in where) / len(where) / 2
    else:
        labels = mixed.argmax(dim=1, keepdim=True)
        expected = 0.5 * (dice(first, labels, where) + dice(second, labels, where))
    value = MixedLabelsLoss(soft)(logits, target, image, IGNORE, other)
    torch.testing.assert_close(value, expected)
    for ours, theirs in zip(*(torch.autograd.grad(each, (logits, other)) for each in (value, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


def every_term(shape=(4, 4)):
    other = make(shape)[3]
    crf = GatedCRFLoss(MaskedCRFLoss(1))
    teacher = TeacherPrediction(other.softmax(dim=1), other.softmax(dim=1), 0)
    return [
        *((term, None) for term in (EntropyLoss(), TotalVariationLoss(), MumfordShahLoss(), crf)),
        *((term, other) for term in (CompetingLabelsLoss(), MixedLabelsLoss(False), MixedLabelsLoss(True))),
        (UncertainTeacherLoss(), teacher),
    ]


@pytest.mark.parametrize("number", range(8))
def test_without_a_pixel_there_is_neither_loss_nor_gradient(number):
    term, companion = every_term()[number]
    logits, image, target, _ = make((4, 4))
    value = term(logits, torch.full_like(target, PADDING), image, IGNORE, companion)
    assert value.item() == pytest.approx(0, abs=1e-4)  # Dice of nothing against nothing is 1
    (gradient,) = torch.autograd.grad(value, logits, allow_unused=True)
    assert gradient is None or gradient.abs().max() == 0


@pytest.mark.parametrize("number", range(8))
def test_the_sum_and_its_terms(number):
    term, companion = every_term()[number]
    logits, image, target, _ = make((4, 4))
    loss = RivalLoss(IGNORE, term)
    loss.strength = 0.5
    torch.manual_seed(0)
    total, terms = loss(torch.tensor(2.0), logits, target, image, companion)
    assert total.item() == pytest.approx(2 + 0.5 * term.weight * terms[term.name].item())
    assert list(terms) == ["segmentation", term.name]
    assert not any(value.requires_grad for value in terms.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("number", range(8))
def test_half_precision_is_computed_in_float32(number, dtype, monkeypatch):
    monkeypatch.setattr("random.random", lambda: 0.3)
    term, companion = every_term()[number]
    logits, image, target, _ = make((4, 4))
    half, loss = logits.detach().to(dtype), RivalLoss(IGNORE, term)
    with torch.autocast("cpu", torch.bfloat16):
        _, terms = loss(torch.zeros(()), half, target, image.float(), companion)
    _, expected = loss(torch.zeros(()), half.float(), target, image.float(), companion)
    assert terms[term.name].item() == pytest.approx(expected[term.name].item(), rel=1e-6)


def test_the_published_weights():
    weights = {term.name: term.weight for term, _ in every_term()}
    assert weights == {
        "entropy": 0.1, "total_variation": 0.01, "mumford_shah": 0.05, "gated_crf": 0.1, "competition": 1.0,
        "mixed_labels": 0.5, "mixed_soft_labels": 8.0, "consistency": 1.0,
    }  # fmt: skip
