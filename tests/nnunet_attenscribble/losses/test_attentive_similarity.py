from __future__ import annotations

from math import exp, log, prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from nnunet_attenscribble.losses import AttentiveSimilarityLoss, SimilarityPairLoss, attentive_similarity
from nnunet_attenscribble.losses.attentive_similarity import (
    DISAGREEMENTS,
    annotated_pairs,
    count_pairs,
    grid_labels,
    resize_to_grid,
)
from nnunet_attenscribble.similarity import WindowSimilarity
from nnunet_attenscribble.windows import pair_count, pair_indices
from tests.nnunet_attenscribble import brute_force


def random_input(grid, radius, samples=2, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(samples, classes, *grid, generator=generator, dtype=torch.float64).softmax(1)
    tokens = prod(grid)
    matrix = torch.rand(samples, tokens, tokens, generator=generator, dtype=torch.float64)
    return q, brute_force.from_matrix((matrix + matrix.transpose(1, 2)) / 2, grid, radius)


@pytest.mark.parametrize("disagreement", DISAGREEMENTS)
@pytest.mark.parametrize(
    ("grid", "radius", "spacing"),
    [
        ((4, 3), (2, 1), (1.0, 1.0)),
        ((3, 3), (5, 5), (1.0, 1.0)),
        ((2, 3, 3), (1, 1, 1), (4.0, 1.5, 1.5)),
        ((3, 2, 3), (2, 1, 1), (1.0, 2.0, 2.0)),  # slices closer than pixels
        ((1, 1), (5, 5), (1.0, 1.0)),
    ],
)
def test_equals_the_formula_in_value_and_gradients(grid, radius, spacing, disagreement):
    q, similarity = random_input(grid, radius)
    q.requires_grad_()
    values = similarity.values.requires_grad_()
    loss = AttentiveSimilarityLoss(radius, 2.0, spacing, disagreement=disagreement)
    value = loss(q, similarity)
    dense = brute_force.to_matrix(similarity)
    expected = brute_force.attentive_similarity(q, dense, radius, 2.0, spacing, disagreement=disagreement)
    torch.testing.assert_close(value, expected)
    if values.numel():
        ours = torch.autograd.grad(value, (q, values))
        for one, other in zip(ours, torch.autograd.grad(expected, (q, values)), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("disagreement", DISAGREEMENTS)
def test_gradcheck(disagreement):
    q, similarity = random_input((3, 4), (1, 2))
    loss = AttentiveSimilarityLoss((1, 2), 2.0, disagreement=disagreement)
    assert gradcheck(
        lambda x, v: loss(x, similarity._replace(values=v)),
        (q.requires_grad_(), similarity.values.requires_grad_()),
    )


def test_the_prediction_is_resized_by_the_centres_of_its_pixels():
    # The centres of two positions lie in the midst of two pixels each; the outermost pixels are not their places.
    pixels, expected = torch.tensor([0.0, 1, 2, 6]), torch.tensor([0.5, 4])
    for shape, grid in (((1, 4), (1, 2)), ((4, 1, 1), (2, 1, 1))):
        resized = resize_to_grid(pixels.view(1, 1, *shape), grid)
        torch.testing.assert_close(resized, expected.view(1, 1, *grid))


def test_disagreement_of_whole_and_of_mixed_positions():
    """Four in a row, two of them cut in half by the border between two classes; similarities 1."""
    similarity = WindowSimilarity(torch.ones(1, 3), (1, 4), (1, 1))
    whole = torch.tensor([[[[1.0, 1, 0, 0]], [[0.0, 0, 1, 1]]]])
    mixed = torch.tensor([[[[1.0, 0.5, 0.5, 0]], [[0.0, 0.5, 0.5, 1]]]])
    potts, distance = (AttentiveSimilarityLoss(1, 2.0, disagreement=name) for name in ("potts", "distance"))
    pair = 2 * exp(-1 / 8) / 4  # what a pair of neighbours adds that disagrees altogether
    for loss in (potts, distance):
        assert loss(whole, similarity).item() == pytest.approx(pair)
    # Three pairs of neighbours: a whole and a mixed one, two mixed ones, again a whole and a mixed one.
    assert potts(mixed, similarity).item() == pytest.approx(pair * (0.5 + 0.5 + 0.5))
    assert distance(mixed, similarity).item() == pytest.approx(pair * (0.25 + 0 + 0.25))
    with pytest.raises(ValueError, match="disagreement"):
        AttentiveSimilarityLoss(disagreement="euclidean")


@given(st.integers(0, 2**16))
@settings(deadline=None, max_examples=20)
def test_the_distance_is_at_most_that_of_potts_and_nothing_between_equal_mixtures(seed):
    q, similarity = random_input((3, 4), (1, 2), seed=seed)
    potts, distance = (AttentiveSimilarityLoss((1, 2), 2.0, disagreement=name) for name in ("potts", "distance"))
    assert 0 <= distance(q, similarity).item() <= potts(q, similarity).item()
    alike = q[:, :, :1, :1].expand_as(q)  # the same mixture everywhere
    assert distance(alike, similarity).item() == pytest.approx(0, abs=1e-12)
    assert potts(alike, similarity).item() > 0
    corners = torch.nn.functional.one_hot(q.argmax(1), 3).movedim(-1, 1).to(q.dtype)
    assert distance(corners, similarity).item() == pytest.approx(potts(corners, similarity).item())


def test_single_class_samples_add_nothing_but_count():
    q, similarity = random_input((3, 3), (1, 1))
    loss = AttentiveSimilarityLoss(1, 2.0)
    value = loss(q, similarity, torch.tensor([False, True]))
    expected = brute_force.attentive_similarity(q, brute_force.to_matrix(similarity), (1, 1), 2.0, (1, 1), skipped=(1,))
    torch.testing.assert_close(value, expected)
    assert loss(q, similarity, torch.tensor([True, True])).item() == 0


def test_cells_outside_the_image_form_no_pair_and_do_not_count():
    q, similarity = random_input((3, 4), (1, 1))
    inside = torch.ones(2, 1, 6, 8, dtype=torch.bool)
    inside[0, :, :, 6:] = False  # the last column of cells
    inside[1, :, 5:] = False  # half of the last row of cells: still inside
    cells = torch.ones(2, 3, 4, dtype=torch.bool)
    cells[0, :, 3] = False
    value = AttentiveSimilarityLoss(1, 2.0)(q, similarity, inside=inside)
    expected = brute_force.attentive_similarity(q, brute_force.to_matrix(similarity), (1, 1), 2.0, (1, 1), inside=cells)
    torch.testing.assert_close(value, expected)


def test_a_fixed_similarity_gets_no_gradient():
    q, similarity = random_input((3, 3), (1, 1))
    similarity.values.requires_grad_()
    loss = AttentiveSimilarityLoss(1, 2.0, detach_similarity=True)
    value = loss(q.requires_grad_(), similarity)
    value.backward()
    assert similarity.values.grad is None
    assert q.grad.abs().sum() > 0


def test_below_the_floor_nothing_pulls():
    q, similarity = random_input((3, 3), (1, 1))
    above = (brute_force.to_matrix(similarity) - 0.4).clamp(min=0) / 0.6
    value = AttentiveSimilarityLoss(1, 2.0, floor=0.4)(q, similarity)
    torch.testing.assert_close(value, brute_force.attentive_similarity(q, above, (1, 1), 2.0, (1, 1)))
    low = similarity._replace(values=similarity.values * 0.4)
    assert AttentiveSimilarityLoss(1, 2.0, floor=0.4)(q, low).item() == 0
    with pytest.raises(ValueError, match="floor"):
        AttentiveSimilarityLoss(floor=1.0)


def test_resizes_the_prediction():
    _, similarity = random_input((3, 4), (1, 1))
    fine = torch.rand(2, 3, 12, 16, dtype=torch.float64).softmax(1)
    loss = AttentiveSimilarityLoss(1, 2.0)
    torch.testing.assert_close(loss(fine, similarity), loss(resize_to_grid(fine, (3, 4)), similarity))


def test_refuses_a_similarity_of_another_radius():
    q, similarity = random_input((3, 4), (1, 1))
    with pytest.raises(ValueError, match="radius"):
        AttentiveSimilarityLoss(2)(q, similarity)


def pair_loss(values, grid, labels, classes):
    """Of neighbours."""
    pairs = annotated_pairs(WindowSimilarity(values, grid, (1, 1)), labels)
    return SimilarityPairLoss()(values, pairs, count_pairs(labels, classes, (1, 1)))


def test_cross_entropy_of_pairs_by_hand():
    # Pairs of neighbours in a row of eight: three of 0 with 0, two of 0 with 1, one of 1 with 1, and one unknown.
    labels = torch.tensor([[[0, 0, 0, 0, 1, 1, 0, -1]]])
    values = torch.tensor([[0.9, 0.8, 0.7, 0.4, 0.5, 0.2, 0.6]], requires_grad=True)
    loss = pair_loss(values, (1, 8), labels, 2)
    zeros, ones, others = -log(0.9 * 0.8 * 0.7) / 3, -log(0.5), -log(0.6 * 0.8) / 2
    assert loss.item() == pytest.approx(0.5 * (zeros + ones) / 2 + 0.5 * others)
    (gradient,) = torch.autograd.grad(loss, values)
    expected = [-1 / 12 / 0.9, -1 / 12 / 0.8, -1 / 12 / 0.7, 0.25 / 0.6, -0.25 / 0.5, 0.25 / 0.8, 0]
    torch.testing.assert_close(gradient, torch.tensor([expected]))


def test_without_an_annotated_pair_there_is_no_pair_loss():
    values = torch.full((1, 2), 0.7, requires_grad=True)
    loss = pair_loss(values, (1, 3), torch.tensor([[[0, -1, 1]]]), 2)
    loss.backward()
    assert loss.item() == 0
    assert (values.grad == 0).all()


def test_a_similarity_that_is_all_wrong_still_learns():
    # Of its mean error the gradient, that of the sigmoid, is next to nothing here.
    logits = torch.tensor([[-12.0, 12.0]], requires_grad=True)
    loss = pair_loss(logits.sigmoid(), (1, 3), torch.tensor([[[0, 0, 1]]]), 2)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.tensor([[-0.5, 0.5]]), rtol=1e-2, atol=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(1, 5), grid=st.sampled_from([(4, 5), (2, 3, 4)]))
def test_cross_entropy_of_pairs_is_the_mean_of_the_classes_means(seed, classes, grid):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, classes, (2, *grid), generator=generator)
    radius = (1,) * len(grid)
    values = torch.rand(2, pair_count(grid, radius), generator=generator, dtype=torch.float64)
    first, second = pair_indices(grid, radius, torch.device("cpu"))
    flat, found = labels.flatten(1), {}
    for n in range(2):
        for i, j, s in zip(first.tolist(), second.tolist(), values[n].tolist(), strict=True):
            ends = sorted([flat[n, i].item(), flat[n, j].item()])
            if ends[0] >= 0:
                found.setdefault(tuple(ends), []).append(-log(s if ends[0] == ends[1] else 1 - s))
    expected = 0.0
    for same in (True, False):
        means = [sum(v) / len(v) for (a, b), v in found.items() if (a == b) == same]
        expected += 0.5 * sum(means) / max(len(means), 1)
    pairs = annotated_pairs(WindowSimilarity(values, grid, radius), labels)
    counts = count_pairs(labels, classes + 1, radius)  # of the last there is none
    assert counts.triu().sum() == (pairs.same | pairs.different).sum()
    assert SimilarityPairLoss()(values, pairs, counts).item() == pytest.approx(expected)


@given(seed=st.integers(0, 10_000), shape=st.sampled_from([((4, 5), (2, 0)), ((1, 3), (5, 5)), ((2, 3, 4), (1, 1, 2))]))
@settings(max_examples=20, deadline=None)
def test_pairs_are_counted_by_their_classes(seed, shape):
    grid, radius = shape
    labels = torch.randint(-1, 3, (2, *grid), generator=torch.Generator().manual_seed(seed))
    first, second = (labels.flatten(1)[:, ends] for ends in pair_indices(grid, radius, labels.device))
    expected = torch.zeros(3, 3, dtype=torch.float64)
    for a, b in zip(first.flatten().tolist(), second.flatten().tolist(), strict=True):
        if a >= 0 and b >= 0:
            expected[a, b] += 1
            expected[b, a] += a != b
    assert torch.equal(count_pairs(labels, 3, radius), expected)


def test_gradient_of_the_pair_loss():
    _, similarity = random_input((3, 4), (1, 1))
    labels = torch.randint(-1, 3, (2, 3, 4), generator=torch.Generator().manual_seed(3))

    values = similarity.values.detach().requires_grad_()
    assert gradcheck(lambda values: pair_loss(values, (3, 4), labels, 3), values)


def test_a_similarity_that_is_none_gives_a_loss_that_is_none():
    """Not an error, which on a GPU would end the process: nnU-Net's scaler then passes over the step."""
    values = torch.full((1, 2), torch.nan)
    assert pair_loss(values, (1, 3), torch.tensor([[[0, 0, 1]]]), 2).isnan()


def test_pairs_beyond_doubt_have_a_gradient():
    values = torch.tensor([[0.0, 1.0]], requires_grad=True)  # of the same class, and of two
    loss = pair_loss(values, (1, 3), torch.tensor([[[0, 0, 1]]]), 2)
    loss.backward()
    assert loss > 80
    assert values.grad.isfinite().all()


def test_grid_labels_by_hand():
    target = torch.full((1, 1, 4, 6), 9)
    target[0, 0, 0, 0] = 2  # a single scribbled pixel labels its cell
    target[0, 0, 1, 2], target[0, 0, 0, 3] = 1, 0  # two classes in one cell: unknown
    target[0, 0, 2:, :2] = 1
    target[0, 0, 3, 5] = -1  # padding is no annotation
    expected = [[2, -1, -1], [1, -1, -1]]
    labels, single = grid_labels(target, (2, 3), 3)
    assert labels[0].tolist() == expected
    assert single.tolist() == [False]
    target = torch.tensor([[[[0, 0, 2]]], [[[1, 9, -1]]], [[[9] * 3]], [[[1, 0, 0]]]], dtype=torch.uint8)
    assert grid_labels(target, (1, 1), 3)[1].tolist() == [False, True, True, False]
    assert grid_labels(target, (1, 3), 3)[1].tolist() == [False, True, True, False]


@given(
    shape=st.sampled_from([(5, 7), (8, 6), (3, 4, 5)]), grid=st.sampled_from([1, 2, 3]), seed=st.integers(0, 99),
    undrawn=st.sampled_from([0.3, 0.8, 0.95]),
)  # fmt: skip
def test_grid_labels_are_those_of_every_class_by_itself(shape, grid, seed, undrawn):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(-1, 5, (2, 1, *shape), generator=generator)
    target[torch.rand(target.shape, generator=generator) < undrawn] = 4
    cells, classes = (grid,) * len(shape), 4
    pool = torch.nn.functional.adaptive_max_pool2d if len(shape) == 2 else torch.nn.functional.adaptive_max_pool3d
    seen = torch.cat([pool((target == label).float(), cells) for label in range(classes)], dim=1) > 0
    expected = torch.where(seen.sum(dim=1) == 1, seen.int().argmax(dim=1), -1)
    labels, single = grid_labels(target, cells, classes)
    assert labels.equal(expected)
    assert single.equal(seen.flatten(2).any(dim=2).sum(dim=1) <= 1)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6), st.sampled_from([0, 0, 0, 1])), min_size=2, max_size=3),
    st.sampled_from([torch.int16, torch.int64, torch.float32]),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.integers(0, 10**6),
)
def test_cells_are_those_of_adaptive_pools(axes, dtype, share, seed):
    generator = torch.Generator().manual_seed(seed)
    grid = [cells for cells, _, _ in axes]
    shape = [cells * size + more for cells, size, more in axes]  # with more, the cells do not divide it
    adaptive = {kind: getattr(torch.nn.functional, f"adaptive_{kind}_pool{len(grid)}d") for kind in ("max", "avg")}
    values = torch.randint(-4, 5, (2, 1, *shape), generator=generator).to(dtype)
    assert torch.equal(
        attentive_similarity._pool("amax", values, grid).float(), adaptive["max"](values.float(), grid)[:, 0]
    )
    inside = torch.rand(2, 1, *shape, generator=generator) < share
    expected = adaptive["avg"](inside.double(), grid)[:, 0] >= 0.5
    assert torch.equal(attentive_similarity._pool("mean", inside, grid) >= 0.5, expected)


def test_labels_meet_a_grid_that_divides_them_without_floats():
    target = torch.randint(-1, 4, (2, 1, 4, 8, 8)).to(torch.int16)
    assert attentive_similarity._pool("amax", target, (2, 4, 4)).dtype == torch.int16
    assert grid_labels(target, (2, 4, 4), 3)[0].dtype == torch.int64


@pytest.mark.parametrize("name", ["attentive_similarity", "attentive_similarity_single_class"])
def test_reference_values(shared_folder, name):
    values = np.load(shared_folder / "golden" / f"{name}.npz")
    logits = torch.from_numpy(values["logits"]).requires_grad_()
    dense = torch.from_numpy(values["similarity"]).requires_grad_()
    radius = (int(values["radius"]),) * 2
    similarity = brute_force.from_matrix(dense, values["grid"].tolist(), radius)
    loss = AttentiveSimilarityLoss(radius, float(values["sigma_position"]))
    value = loss(logits.softmax(1), similarity, torch.from_numpy(values["single_class"]))
    value.backward()
    assert value.item() == pytest.approx(float(values["loss"]), rel=1e-4)
    torch.testing.assert_close(logits.grad, torch.from_numpy(values["grad_logits"]), atol=1e-7, rtol=1e-4)
    # Each pair stands once here and twice there: together both entries carry the same gradient.
    expected = torch.from_numpy(values["grad_similarity"])
    torch.testing.assert_close(
        dense.grad + dense.grad.transpose(1, 2), expected + expected.transpose(1, 2), atol=1e-7, rtol=1e-4
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    q, similarity = random_input((4, 4), (1, 1))
    similarity = similarity._replace(values=similarity.values.float())
    half = q.to(dtype).requires_grad_()
    value = AttentiveSimilarityLoss(1)(half, similarity)
    value.backward()
    assert value.dtype == torch.float32
    assert half.grad.dtype == dtype
    torch.testing.assert_close(value, AttentiveSimilarityLoss(1)(half.detach().float(), similarity))


def test_non_contiguous_input_and_a_single_class():
    q, similarity = random_input((3, 4), (1, 1))
    turned = q.transpose(2, 3).contiguous().transpose(2, 3)
    loss = AttentiveSimilarityLoss(1, 2.0)
    torch.testing.assert_close(loss(turned, similarity), loss(q, similarity))
    assert loss(torch.ones_like(q[:, :1]), similarity).item() == pytest.approx(0, abs=1e-9)
