from __future__ import annotations

from itertools import product
from math import prod

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from nnunet_attenscribble import similarity
from nnunet_attenscribble.similarity import (
    attend_with_log_similarity,
    attend_with_window,
    log_similarity,
    paper_similarity,
    window_log_attention,
)
from nnunet_attenscribble.windows import half_window, pair_count, pair_indices
from tests.nnunet_attenscribble import brute_force

GRIDS = [((4, 5), (2, 1)), ((3, 3), (7, 7)), ((2, 3, 4), (1, 1, 2)), ((1, 1), (5, 5)), ((1, 6), (2, 2))]


def query_and_key(grid, samples=2, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, prod(grid), channels)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]


def inside_window(grid, radius):
    positions = list(product(*(range(size) for size in grid)))
    mask = torch.zeros(len(positions), len(positions), dtype=torch.bool)
    for a, position in enumerate(positions):
        for partner in brute_force.window(position, radius, grid):
            mask[a, positions.index(partner)] = True
    return mask


@pytest.mark.parametrize(("grid", "radius"), GRIDS)
def test_pairs_are_those_of_the_window_each_once(grid, radius):
    first, second = pair_indices(grid, radius, torch.device("cpu"))
    assert len(first) == pair_count(grid, radius)
    pairs = {frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    assert len(pairs) == len(first)
    expected = {frozenset(pair) for pair in inside_window(grid, radius).nonzero().tolist()}
    assert pairs == expected


def test_half_window_leaves_out_what_cannot_fit():
    assert half_window((2, 1), (1, 2)) == [(0, 1)]
    assert len(half_window((5, 5), (64, 64))) == 60


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize(("grid", "radius"), GRIDS)
def test_log_attention_equals_the_dense_matrix_in_value_and_gradient(monkeypatch, grid, radius, chunk):
    monkeypatch.setitem(similarity._CHUNK_ENTRIES, "cpu", chunk)
    ours = [x.requires_grad_() for x in query_and_key(grid)]
    theirs = [x.requires_grad_() for x in query_and_key(grid)]
    forward, backward = window_log_attention(*ours, grid, radius, 0.7)
    dense = brute_force.log_attention(*theirs, 0.7)
    first, second = pair_indices(grid, radius, torch.device("cpu"))
    torch.testing.assert_close(forward, dense[:, first, second])
    torch.testing.assert_close(backward, dense[:, second, first])
    weights = torch.linspace(-1, 2, forward.numel(), dtype=torch.float64).view_as(forward)
    (forward * weights + backward * weights**2).sum().backward()
    (dense[:, first, second] * weights + dense[:, second, first] * weights**2).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize(("grid", "radius"), GRIDS)
def test_attention_with_its_window_equals_the_dense_matrix(monkeypatch, grid, radius, chunk):
    monkeypatch.setitem(similarity._CHUNK_ENTRIES, "cpu", chunk)
    ours = [x.requires_grad_() for x in (*query_and_key(grid), query_and_key(grid, seed=1)[0])]
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    attended, forward, backward = attend_with_window(*ours, grid, radius, 0.7)
    dense = brute_force.log_attention(*theirs[:2], 0.7)
    first, second = pair_indices(grid, radius, torch.device("cpu"))
    torch.testing.assert_close(attended, dense.exp() @ theirs[2])
    torch.testing.assert_close(forward, dense[:, first, second])
    torch.testing.assert_close(backward, dense[:, second, first])
    weights = torch.linspace(-1, 2, forward.numel(), dtype=torch.float64).view_as(forward)
    (attended.pow(3).sum() + (forward * weights + backward * weights**2).sum()).backward()
    expected = (dense.exp() @ theirs[2]).pow(3).sum()
    (expected + (dense[:, first, second] * weights + dense[:, second, first] * weights**2).sum()).backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_attention_with_its_window_where_only_one_output_is_used():
    grid, radius = (4, 3), (2, 2)
    inputs = [*query_and_key(grid), query_and_key(grid, seed=1)[0]]
    for used in range(3):
        ours = [x.clone().requires_grad_() for x in inputs]
        attend_with_window(*ours, grid, radius, 1.0)[used].square().sum().backward()
        theirs = [x.clone().requires_grad_() for x in inputs]
        dense = brute_force.log_attention(*theirs[:2], 1.0)
        first, second = pair_indices(grid, radius, torch.device("cpu"))
        outputs = (dense.exp() @ theirs[2], dense[:, first, second], dense[:, second, first])
        outputs[used].square().sum().backward()
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one.grad, torch.zeros_like(one) if other.grad is None else other.grad)


def test_large_logits_overflow_nowhere():
    query, key = (50 * x.float() for x in query_and_key((4, 3)))
    attended, forward, backward = attend_with_window(query, key, key, (4, 3), (1, 1), 1.0)
    expected = torch.log_softmax((query.double() @ key.double().transpose(1, 2)), dim=2)
    first, second = pair_indices((4, 3), (1, 1), torch.device("cpu"))
    torch.testing.assert_close(forward.double(), expected[:, first, second], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(backward.double(), expected[:, second, first], rtol=1e-4, atol=1e-3)
    assert torch.isfinite(attended).all()


@pytest.mark.parametrize("logit", [-40.0, 40.0])
def test_a_similarity_that_is_wholly_wrong_still_learns(logit):
    zero, scale = torch.zeros(1, 4, 2), torch.tensor(1.0)  # A_ij = 1 / T everywhere, so that the logit is the bias
    bias = torch.tensor(logit, requires_grad=True)
    values = log_similarity(zero, zero, (2, 2), (1, 1), scale, bias).values
    wrong = torch.zeros_like(values) if logit > 0 else torch.ones_like(values)
    loss = F.binary_cross_entropy(values, wrong)
    loss.backward()
    assert loss.item() == pytest.approx(15, rel=0.02)
    assert bias.grad.item() == pytest.approx(1 if logit > 0 else -1, rel=0.1)


def test_gradcheck_of_the_attention_with_its_similarity():
    inputs = [x.requires_grad_() for x in (*query_and_key((3, 3)), query_and_key((3, 3), seed=1)[0])]
    a, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.5, -0.3))

    def both(query, key, value, a, b):
        attended, found = attend_with_log_similarity(query, key, value, (3, 3), (1, 1), a, b)
        return attended, found.values

    assert gradcheck(both, (*inputs, a, b))


@pytest.mark.parametrize("compute", [paper_similarity, log_similarity])
def test_gradcheck(compute):
    query, key = (x.requires_grad_() for x in query_and_key((3, 3)))
    scale, bias = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.5, -0.3))
    assert gradcheck(lambda *x: compute(x[0], x[1], (3, 3), (1, 1), x[2], x[3]).values, (query, key, scale, bias))


def test_both_similarities_equal_their_formulas():
    grid, radius = (4, 3), (2, 2)
    query, key = query_and_key(grid)
    a, b = torch.tensor(2.0), torch.tensor(-0.5)
    attention = torch.softmax(query @ key.transpose(1, 2), dim=2)
    paper = torch.sigmoid(a * (attention + attention.transpose(1, 2)) + b)
    scaled = torch.log_softmax(query @ key.transpose(1, 2) / 3**0.5, dim=2)
    anchored = torch.sigmoid(a * ((scaled + scaled.transpose(1, 2)) / 2 + torch.tensor(12.0).log()) + b)
    mask = inside_window(grid, radius)
    for compute, expected in ((paper_similarity, paper), (log_similarity, anchored)):
        dense = brute_force.to_matrix(compute(query, key, grid, radius, a, b))
        torch.testing.assert_close(dense, expected * mask)
        torch.testing.assert_close(dense, dense.transpose(1, 2))


def test_dense_and_back():
    grid, radius = (2, 3, 2), (1, 1, 1)
    matrix = torch.rand(2, 12, 12)
    matrix = matrix + matrix.transpose(1, 2)
    compact = brute_force.from_matrix(matrix, grid, radius)
    torch.testing.assert_close(brute_force.to_matrix(compact), matrix * inside_window(grid, radius))


def test_around_a_position():
    grid, radius = (3, 4), (1, 1)
    matrix = torch.rand(1, 12, 12)
    compact = brute_force.from_matrix(matrix + matrix.transpose(1, 2), grid, radius)
    torch.testing.assert_close(compact.around((1, 2)).flatten(1), brute_force.to_matrix(compact)[:, 1 * 4 + 2])


def test_memory_grows_with_the_pairs_not_with_the_square_of_the_tokens():
    assert pair_count((64, 64), (5, 5)) < 60 * 64 * 64
