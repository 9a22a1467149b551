"""The Triton kernels against the formulas and against PyTorch's operations, which float64 always goes through.

On a GPU they run there. Elsewhere one test runs this file again under Triton's interpreter, which has to be asked for
before Triton is imported, so in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from importlib.util import find_spec
from math import prod
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import gradcheck

from nnunet_attenscribble import kernels, similarity
from nnunet_attenscribble.losses import AttentiveSimilarityLoss, MaskedCRFLoss, intensities
from nnunet_attenscribble.losses.attentive_similarity import DISAGREEMENTS
from nnunet_attenscribble.losses.intensities import rank_intensities, rescale_intensities
from nnunet_attenscribble.similarity import WindowSimilarity, window_log_attention
from nnunet_attenscribble.windows import pair_count
from tests.nnunet_attenscribble import brute_force

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
needs_kernels = pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="no GPU, and not interpreted")
needs_cuda = pytest.mark.skipif(DEVICE == "cpu", reason="no GPU")


@pytest.mark.skipif(DEVICE == "cuda" or INTERPRETED, reason="the tests below run here")
@pytest.mark.skipif(find_spec("triton") is None, reason="no Triton")
def test_under_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:randomly", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "1"})
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.skipif(DEVICE == "cuda" or INTERPRETED, reason="the tests below run here")
@pytest.mark.skipif(find_spec("triton") is None, reason="no Triton")
def test_kernels_compile_for_a_card_with_little_shared_memory(monkeypatch):
    """The interpreter does not compile. GeForce 30 and 40 lend a kernel 99 KiB."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from nnunet_attenscribble import triton_kernels

    shared = {}

    def compile_only(kernel, grid):
        def launch(*arguments, **options):
            compiled = kernel.warmup(*arguments, grid=grid, **options).metadata
            shared[kernel.__name__] = max(compiled.shared, shared.get(kernel.__name__, 0))
            assert compiled.enable_fp_fusion or kernel.__name__ == "_sum_rows"  # which only adds

        return launch

    target = GPUTarget("cuda", 86, 32)
    card = SimpleNamespace(
        get_current_device=lambda: 0, get_current_stream=lambda device: 0, get_current_target=lambda: target
    )
    monkeypatch.setattr(driver, "_active" if hasattr(driver, "_active") else "active", card)
    monkeypatch.setattr(JITFunction, "__getitem__", compile_only)
    monkeypatch.setattr(intensities, "kernels_take", lambda tensor: True)
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "0")  # as from 3.10 on
    ones = torch.ones(1, 4, 8, 8)
    triton_kernels.fused_crf_energy(ones, ones[:, :1], ones[:, :1], [5, 5], [0.1, 0.1])
    sizes = [8, 8], [3, 3]
    for channels in (256, 512):  # at once; in blocks
        query = torch.ones(1, 64, channels, dtype=torch.float16)
        entries, normaliser = triton_kernels.fused_log_attention(query, query, *sizes, 0.1)
        triton_kernels.fused_log_attention_backward(entries, query, query, normaliser, *sizes, 0.1)
    rescale_intensities(ones, ones[:, :1])
    rank_intensities(ones, ones[:, :1])
    values = torch.ones(1, pair_count(*sizes))
    triton_kernels.fused_similarity_energy(ones, values, ones[:, :1], torch.ones(()), [3, 3], [0.1, 0.1], False, True)
    names = ("_rescale", "_rank", "_crf", "_attention_forward", "_attention_backward", "_sum_rows", "_similarity")
    assert shared.keys() == set(names)
    assert all(size <= 99 * 1024 for size in shared.values()), shared


@pytest.mark.skipif(INTERPRETED, reason="asks for the kernels not to run")
def test_without_a_gpu_the_kernels_are_not_asked_for():
    code = "import sys, torch; from nnunet_attenscribble.losses import MaskedCRFLoss as L\n"
    code += "x = torch.rand(1, 1, 4, 4); L()(x, x, x); print(any('_kernel' in m for m in sys.modules if 'attens' in m))"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "False"


@needs_kernels
def test_float32_alone_goes_through_the_kernels():
    assert kernels.kernels_take(torch.zeros(1, device=DEVICE))
    assert not kernels.kernels_take(torch.zeros(1, device=DEVICE, dtype=torch.float64))
    assert not kernels.kernels_take(torch.zeros(1, device="meta"))


@needs_kernels
def test_where_triton_fails_a_warning_says_so_and_the_result_is_the_same(monkeypatch):
    import nnunet_attenscribble.triton_kernels

    def fail(device):
        raise RuntimeError("Failed to find C compiler.\nMore of it")

    crf_input = random_crf((4, 5))
    expected = MaskedCRFLoss(2)(*crf_input)
    monkeypatch.setattr(nnunet_attenscribble.triton_kernels, "probe", fail)
    kernels._run_on.cache_clear()
    try:
        with pytest.warns(
            UserWarning, match=r"Triton does not work here.*: RuntimeError: Failed to find C compiler\.$"
        ):
            value = MaskedCRFLoss(2)(*crf_input)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            MaskedCRFLoss(2)(*crf_input)  # it warns once
    finally:
        kernels._run_on.cache_clear()
    torch.testing.assert_close(value, expected)


def random_crf(shape, classes=3, channels=1, samples=2, dtype=torch.float32, seed=0):
    """Probabilities, image, mask on DEVICE."""
    generator = torch.Generator().manual_seed(seed)
    p = 0.9 * torch.randn(samples, classes, *shape, generator=generator).softmax(
        1
    )  # one class disagrees with itself too
    image = torch.rand(samples, channels, *shape, generator=generator)
    mask = (torch.rand(samples, 1, *shape, generator=generator) > 0.4).float()
    return [x.to(DEVICE, dtype) for x in (p, image, mask)]


def value_and_gradient(loss, p, *others):
    p = p.detach().clone().requires_grad_()
    value = loss(p, *others)
    value.backward()
    return value.detach(), p.grad


def in_float64(tensors):
    return [None if x is None else x.double().cpu() if x.is_floating_point() else x.cpu() for x in tensors]


def assert_as_precise_as_float32_is(ours, exact):
    """To 1e-6 of the value, and of the largest entry of the gradient."""
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one.cpu().double(), other, rtol=1e-6, atol=1e-6 * other.abs().max().item())


@needs_kernels
@pytest.mark.parametrize(
    ("shape", "radius", "spacing", "classes", "channels"),
    [
        ((3, 4), 4, None, 3, 1),  # the window is wider than the image
        ((1, 1), 2, None, 2, 1),
        ((1, 9), 2, None, 2, 1),
        ((9, 1), 2, None, 2, 1),
        ((3, 35), (1, 2), (1.0, 2.0), 4, 2),  # more than one tile across
        ((11, 2), (4, 1), None, 1, 4),  # and down
        ((4, 6), (2, 0), None, 2, 3),
        ((4, 6), (0, 3), None, 2, 1),
        ((4, 6), 0, None, 2, 1),
        ((1, 20), (0, 9), None, 2, 1),  # further than one round of the innermost loop
        ((3, 3), 1, None, 20, 1),
        ((3, 4, 5), (1, 1, 2), (5.0, 1.5, 1.5), 4, 1),
        ((3, 3, 2), (2, 0, 1), (1.0, 2.0, 2.0), 2, 2),
        ((2, 2, 3), (0, 1, 1), None, 9, 1),
    ],
)
def test_masked_crf_is_that_of_float64(shape, radius, spacing, classes, channels):
    loss = MaskedCRFLoss(radius, 3.0, 0.3, spacing)
    inputs = random_crf(shape, classes, channels)
    assert_as_precise_as_float32_is(value_and_gradient(loss, *inputs), value_and_gradient(loss, *in_float64(inputs)))


@needs_kernels
@pytest.mark.parametrize(
    ("shape", "radius", "spacing"), [((4, 5), (2, 1), (1.0, 1.0)), ((2, 3, 3), (1, 1, 2), (4, 1, 1))]
)
def test_masked_crf_is_that_of_the_formula(shape, radius, spacing):
    p, image, mask = random_crf(shape, channels=2)
    inside = torch.ones_like(mask, dtype=torch.bool)
    inside[0, ..., -1] = False
    expected = value_and_gradient(
        lambda p: brute_force.masked_crf(p, *in_float64([image, mask]), radius, 3.0, 0.3, spacing, inside.cpu()),
        p.double().cpu(),
    )
    ours = value_and_gradient(MaskedCRFLoss(radius, 3.0, 0.3, spacing), p, image, mask, inside)
    assert_as_precise_as_float32_is(ours, expected)


@needs_kernels
def test_masked_crf_of_nothing():
    p, image, mask = random_crf((4, 5))
    nowhere, everywhere = torch.zeros_like(mask), torch.ones_like(mask)
    for arguments in ((nowhere,), (everywhere, nowhere)):  # all scribbled, all outside
        value, gradient = value_and_gradient(MaskedCRFLoss(2), p, image, *arguments)
        assert value.item() == 0
        assert (gradient == 0).all()


@needs_kernels
def test_masked_crf_is_the_same_every_time_and_for_any_strides():
    inputs = random_crf((4, 5), classes=4)
    loss = MaskedCRFLoss(2)
    value, gradient = value_and_gradient(loss, *inputs)
    for others in (inputs, [x.transpose(2, 3).contiguous().transpose(2, 3) for x in inputs]):
        again = value_and_gradient(loss, *others)
        assert torch.equal(again[0], value)
        assert torch.equal(again[1], gradient)


@needs_kernels
def test_masked_crf_gradient_by_differences():
    """Of a float64 function that rounds its input: the kernels know float32 alone, whence the coarse steps."""
    p, image, mask = random_crf((2, 2), classes=2, samples=1)
    loss = MaskedCRFLoss(1, 2.0, 0.3)
    function = lambda x: loss(x.float(), image, mask).double()  # noqa: E731
    assert gradcheck(function, p.double().requires_grad_(), eps=1e-2, atol=1e-4, rtol=1e-3)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_masked_crf_of_other_types(dtype):
    p, image, mask = random_crf((5, 4), dtype=dtype)
    value, gradient = value_and_gradient(MaskedCRFLoss(2), p, image, mask.bool())
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert gradient.dtype == dtype
    exact = value_and_gradient(MaskedCRFLoss(2), *in_float64([p, image, mask]))
    torch.testing.assert_close(value.cpu().double(), exact[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.cpu().double(), exact[1], rtol=1e-2, atol=1e-3)


@needs_kernels
def test_masked_crf_under_torch_compile():
    p, image, mask = random_crf((2, 3))
    loss = MaskedCRFLoss(1)
    compiled = torch.compile(lambda p: loss(p, image, mask), backend="aot_eager", fullgraph=True)
    for one, other in zip(value_and_gradient(compiled, p), value_and_gradient(loss, p, image, mask), strict=True):
        torch.testing.assert_close(one, other)


def random_similarity(grid, radius, classes=3, samples=2, seed=0):
    """A prediction on the grid, and similarities, on DEVICE."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.rand(samples, classes, *grid, generator=generator)
    values = torch.rand(samples, pair_count(grid, radius), generator=generator)
    return q.to(DEVICE), values.to(DEVICE)


def similarity_terms(loss, q, values, grid, radius, *others):
    """Value, and the gradients of the prediction and of the similarities."""
    q, values = (x.detach().clone().requires_grad_() for x in (q, values))
    value = loss(q, WindowSimilarity(values, grid, radius), *others)
    return value.detach(), *torch.autograd.grad(value, [q, values], allow_unused=True, materialize_grads=True)


@needs_kernels
@pytest.mark.parametrize("disagreement", DISAGREEMENTS)
@pytest.mark.parametrize(
    ("grid", "radius", "classes", "spacing"),
    [
        ((4, 3), (2, 1), 3, (1.0, 1.0)),
        ((3, 3), (5, 5), 20, (1.0, 1.0)),
        ((1, 9), (2, 2), 1, (1.0, 2.0)),
        ((9, 8), (0, 1), 4, (1.0, 1.0)),  # more than one block
        ((2, 3, 3), (1, 1, 1), 2, (4.0, 1.5, 1.5)),
        ((3, 2, 2), (2, 0, 1), 2, (1.0, 1.0, 1.0)),
    ],
)
def test_similarity_loss_is_that_of_float64(grid, radius, classes, spacing, disagreement):
    q, values = random_similarity(grid, radius, classes)
    single = torch.tensor([False, True], device=DEVICE)
    inside = torch.ones(2, 1, *grid, dtype=torch.bool, device=DEVICE)
    inside[0, ..., -1:] = grid[-1] == 3
    loss = AttentiveSimilarityLoss(radius, 2.0, spacing, disagreement=disagreement)
    for others in ((), (single, inside)):
        ours = similarity_terms(loss, q, values, grid, radius, *others)
        theirs = similarity_terms(loss, *in_float64([q, values]), grid, radius, *in_float64(others))
        assert_as_precise_as_float32_is(ours, theirs)


@needs_kernels
def test_similarity_loss_of_a_fixed_similarity_above_a_floor():
    q, values = random_similarity((4, 3), (1, 1))
    loss = AttentiveSimilarityLoss(1, 2.0, detach_similarity=True, floor=0.5)
    ours = similarity_terms(loss, q, values, (4, 3), (1, 1))
    assert_as_precise_as_float32_is(ours, similarity_terms(loss, *in_float64([q, values]), (4, 3), (1, 1)))
    assert (ours[2] == 0).all()


@needs_kernels
def test_similarity_loss_without_pairs_or_positions():
    for grid, inside in (((1, 1), torch.ones(2, 1, 1, 1)), ((3, 2), torch.zeros(2, 1, 3, 2))):
        q, values = random_similarity(grid, (2, 2))
        ours = similarity_terms(AttentiveSimilarityLoss(2), q, values, grid, (2, 2), None, inside.bool().to(DEVICE))
        assert all((x == 0).all() for x in ours)


@needs_kernels
def test_similarity_loss_is_the_same_every_time():
    q, values = random_similarity((3, 4), (1, 1))
    loss = AttentiveSimilarityLoss(1)
    once, again = (similarity_terms(loss, q, values, (3, 4), (1, 1)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


def log_attention_terms(query, key, grid, radius, weights):
    """log A of the window in both directions, and the gradients of query and key of a weighted sum of it."""
    query, key = (x.detach().clone().requires_grad_() for x in (query, key))
    entries = torch.cat(window_log_attention(query, key, grid, radius, 0.7), dim=1)
    return entries.detach(), *torch.autograd.grad((entries * weights.to(entries)).sum(), [query, key])


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=needs_cuda)])  # interpreted: wrong
@pytest.mark.parametrize(
    ("grid", "radius", "channels"),
    [
        ((4, 5), (2, 1), 3),
        ((3, 3), (7, 7), 16),
        ((9, 15), (1, 1), 20),  # 135 positions: more than one tile, and tiles that do not see each other
        ((2, 3, 4), (1, 1, 2), 5),
        ((3, 2, 2), (2, 0, 1), 130),  # channels beyond a power of 2
        ((3, 5, 5), (1, 2, 1), 320),  # in blocks, the last half empty
        ((1, 1), (5, 5), 4),
        ((1, 70), (2, 2), 4),
        ((4, 31), (1, 2), 4),  # 63, the last of a tile, sees 96, where a step begins
    ],
)
def test_log_attention_is_that_of_float64(grid, radius, channels, dtype):
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, prod(grid), channels, generator=generator).to(DEVICE, dtype) for _ in range(2))
    assert similarity._kernels_take(query, key)
    weights = torch.randn(2, 2 * pair_count(grid, radius), generator=generator).to(DEVICE)
    ours = log_attention_terms(query, key, grid, radius, weights)
    theirs = log_attention_terms(*in_float64([query, key]), grid, radius, *in_float64([weights]))
    assert [x.dtype for x in ours] == [torch.float32, dtype, dtype]
    torch.testing.assert_close(ours[0].cpu().double(), theirs[0], rtol=1e-6, atol=1e-5)
    rounding = torch.finfo(dtype).eps
    for one, other in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(one.cpu().double(), other, rtol=rounding, atol=rounding * other.abs().max().item())


@needs_kernels
def test_log_attention_of_large_logits():
    query, key = (50 * torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    query, key = query.half().to(DEVICE), key.half().to(DEVICE)
    ours = log_attention_terms(query, key, (4, 3), (1, 1), torch.ones(1, 1, device=DEVICE))
    theirs = log_attention_terms(*in_float64([query, key]), (4, 3), (1, 1), torch.ones(1, 1))
    torch.testing.assert_close(ours[0].cpu().double(), theirs[0], rtol=1e-5, atol=1e-2)
    assert all(x.isfinite().all() for x in ours)


@needs_kernels
@pytest.mark.parametrize("shift", [-20, -100])
def test_log_attention_where_all_logits_of_a_row_are_far_below_0(shift):
    query, key = (torch.randn(1, 20, 4, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    query[..., 0], key[..., 0] = 1, shift  # which no softmax sees
    query, key = query.half().to(DEVICE), key.half().to(DEVICE)
    weights = torch.linspace(-1, 1, 2 * pair_count((4, 5), (1, 1)), device=DEVICE)
    _, *ours = log_attention_terms(query, key, (4, 5), (1, 1), weights)
    _, *theirs = log_attention_terms(*in_float64([query, key]), (4, 5), (1, 1), *in_float64([weights]))
    for one, other in zip(ours, theirs, strict=True):
        # Rounded gradients of logits, whose sum is 0, meet keys of the size of the shift.
        torch.testing.assert_close(one.cpu().double(), other, rtol=0.01, atol=1e-3 * abs(shift))


@needs_kernels
def test_what_the_kernels_of_log_attention_leave_to_pytorch():
    half, single = torch.zeros(1, 4, 8, device=DEVICE).half(), torch.zeros(1, 4, 8, device=DEVICE)
    assert not similarity._kernels_take(single, single)
    assert not similarity._kernels_take(half, single)


@needs_kernels
@pytest.mark.parametrize("kernels_run", [True, False])
def test_log_attention_under_torch_compile(monkeypatch, kernels_run):
    monkeypatch.setattr(similarity, "tensor_cores_run_kernels", lambda device: kernels_run)
    query, key = (torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    query, key = query.half().to(DEVICE), key.half().to(DEVICE)
    weights = torch.ones(1, 1, device=DEVICE)

    def run(query, key):
        return torch.cat(window_log_attention(query, key, (2, 3), (1, 1), 0.7), dim=1).sum()

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    ours = torch.autograd.grad(compiled(query.requires_grad_(), key.requires_grad_()), [query, key])
    for one, other in zip(ours, log_attention_terms(query, key, (2, 3), (1, 1), weights)[1:], strict=True):
        torch.testing.assert_close(one, other)


@needs_kernels
@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (3, 30, 25)])
@pytest.mark.parametrize("kind", ["noise", "few values", "constant", "sparse", "a wrong pixel"])
@pytest.mark.parametrize("share", [None, 0.7])
def test_intensities_are_those_of_float64(shape, kind, share):
    generator = torch.Generator().manual_seed(7)
    image = torch.randn(2, 2, *shape, generator=generator)
    if kind == "few values":
        image = image.round()
    elif kind == "constant":
        image = torch.full_like(image, 5.0)
    elif kind == "sparse":  # fewer than a hundredth differ from what the others have in common
        image = torch.where(torch.rand(image.shape, generator=generator) < 0.008, image, 0.5)
    elif kind == "a wrong pixel":
        image[..., 0] += 1e6
    inside = None if share is None else torch.rand(2, 1, *shape, generator=generator) < share
    annotated = torch.rand(2, 1, *shape, generator=generator) < 0.5
    where = [None if tensor is None else tensor.to(DEVICE) for tensor in (inside, annotated)]
    ours = rescale_intensities(image.to(DEVICE), where[0])
    assert ours.dtype == torch.float32
    expected = rescale_intensities(image.double(), inside)
    torch.testing.assert_close(ours.cpu().double(), expected, rtol=0, atol=1e-5)
    ranks = rank_intensities(image.to(DEVICE), where[1], where[0])
    expected = rank_intensities(image.double(), annotated, inside)
    torch.testing.assert_close(ranks.cpu().double(), expected, rtol=0, atol=1e-5)


@needs_kernels
def test_intensities_where_nothing_is_inside_are_zero():
    image, inside = torch.randn(2, 1, 9, 9, device=DEVICE), torch.zeros(2, 1, 9, 9, dtype=torch.bool, device=DEVICE)
    inside[1] = True
    for scaled in (rescale_intensities(image, inside), rank_intensities(image, ~inside, inside)):
        assert (scaled[0] == 0).all()
        assert scaled[1].min() == 0
        assert scaled[1].max() == 1
