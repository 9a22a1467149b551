from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_attenscribble import network, similarity
from nnunet_attenscribble.network import SpatialSelfAttention
from tests.nnunet_attenscribble import brute_force


def block(ndim=2, mode="anchored", channels=8):
    torch.manual_seed(0)
    return SpatialSelfAttention(channels, ndim, mode, radius=2)


@pytest.mark.parametrize(("ndim", "grid"), [(2, (5, 4)), (3, (2, 4, 3))])
@pytest.mark.parametrize("mode", ["paper", "anchored", None])
def test_features_keep_their_shape_and_every_parameter_gets_a_gradient(ndim, grid, mode):
    module = block(ndim, mode)
    out, compact = module(torch.randn(2, 8, *grid))
    assert out.shape == (2, 8, *grid)
    total = (out**3).sum()
    if mode is None:
        assert compact is None
    else:
        assert compact.grid == grid
        total = total + (compact.values**2).sum()
    total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("mode", "grid"), [("paper", (5, 4)), ("anchored", (5, 4)), (None, (2, 4, 3))])
def test_equals_the_formula(mode, grid, training):
    module = block(len(grid), mode).train(training)
    for parameter in module.parameters():  # norms, too, begin with what does nothing
        torch.nn.init.normal_(parameter, std=0.5)
    features = torch.randn(2, 8, *grid)
    with torch.no_grad():
        torch.testing.assert_close(module(features)[0], brute_force.attention_block(module, features))


@pytest.mark.parametrize("mode", ["paper", "anchored"])
def test_inference_does_no_similarity_work(monkeypatch, mode):
    def refuse(*_):
        raise AssertionError("computed in inference")

    monkeypatch.setattr(similarity, "window_log_attention", refuse)
    monkeypatch.setattr(similarity, "attend_with_window", refuse)
    module = block(mode=mode)
    features = torch.randn(1, 8, 4, 4)
    assert module.eval()(features)[1] is None
    with pytest.raises(AssertionError):
        module.train()(features)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_pass_over_the_attention_equals_two(monkeypatch, dtype):
    """The CPU reads output and similarity off one q k^T; elsewhere they are computed one after the other."""
    module = block().to(dtype)
    features = torch.randn(2, 8, 4, 5).to(dtype)

    def run():
        module.zero_grad()
        out, compact = module(features)
        (out.square().mean() + compact.values.mean()).backward()
        return out, compact.values, *(p.grad.clone() for p in module.parameters())

    one_pass = run()

    def two_passes(query, key, value, *window):
        return network._attention(query, key, value), similarity.log_similarity(query, key, *window)

    monkeypatch.setattr(network, "attend_with_log_similarity", two_passes)
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.02}
    for one, other in zip(one_pass, run(), strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("mode", ["paper", "anchored"])
def test_autocast_leaves_the_similarity_in_float32_and_the_gradients_finite(mode):
    module = block(mode=mode)
    with torch.autocast("cpu", torch.bfloat16):
        out, compact = module(torch.randn(2, 8, 4, 5))
        (out.square().mean() + compact.values.mean()).backward()
    assert out.dtype == compact.values.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_attention_map_is_a_row_of_the_attention():
    module = block()
    features = torch.randn(2, 8, 3, 4)
    tokens = module.norm1(features.flatten(2).transpose(1, 2))
    query, key = module.query(tokens), module.key(tokens)
    expected = (query @ key.transpose(1, 2) / 8**0.5).softmax(2)[:, 1 * 4 + 2].view(2, 3, 4)
    torch.testing.assert_close(module.attention_map(features, (1, 2)), expected)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_under_torch_compile(backend):
    module = block()
    features = torch.randn(2, 8, 4, 3)
    out, compact = module(features)
    compiled_out, compiled_compact = torch.compile(module, backend=backend)(features)
    torch.testing.assert_close(compiled_out, out)
    torch.testing.assert_close(compiled_compact.values, compact.values)


def test_refuses_an_unknown_mode():
    with pytest.raises(ValueError, match="paper, anchored"):
        SpatialSelfAttention(8, 2, "released")


def test_reference_values(shared_folder):
    values = np.load(shared_folder / "golden" / "attention_block.npz")
    module = SpatialSelfAttention(16, 2, "paper", 5)
    weights = {}
    for key in set(values) - {"features", "output", "similarity"}:
        layer, _, kind = key.rpartition("_")
        weights[key if layer == "similarity" else f"{layer}.{kind}"] = torch.from_numpy(values[key])
    module.load_state_dict(weights)
    out, compact = module(torch.from_numpy(values["features"]))
    torch.testing.assert_close(out, torch.from_numpy(values["output"]), atol=1e-5, rtol=1e-4)
    expected = brute_force.from_matrix(torch.from_numpy(values["similarity"]), (12, 10), (5, 5))
    torch.testing.assert_close(compact.values, expected.values, atol=1e-5, rtol=1e-4)
