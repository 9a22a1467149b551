import torch

from nnunet_attenscribble import similarity
from nnunet_attenscribble.losses import attentive_similarity
from nnunet_attenscribble.windows import sum_dtype


def test_sums_are_as_precise_as_the_device_allows():
    assert [sum_dtype(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [
        torch.float64,
        torch.float64,
        torch.float32,
    ]


def test_operations_keep_what_they_promise_of_any_layout_and_under_autocast():
    """Shapes, strides and gradients as they are announced to the compiler; halves as computed without autocast."""
    query, key = (torch.randn(2, 4, 20).half().transpose(1, 2) for _ in range(2))
    grid, radius = [4, 5], [1, 1]
    entries, normaliser = similarity._log_attention(query, key, grid, radius, 0.5)
    torch.library.opcheck(
        similarity._log_attention_backward, (torch.ones_like(entries), query, key, normaliser, grid, radius, 0.5)
    )
    values = torch.rand(entries.shape[1] // 2, 2).t().requires_grad_()
    q = torch.rand(2, 3, 4, 5, requires_grad=True)
    arguments = (q, values, torch.ones(2, 4, 5), torch.tensor(40.0), radius, [0.1, 0.1], False, True)
    torch.library.opcheck(attentive_similarity._energy, arguments)
    (gradient,) = torch.autograd.grad(attentive_similarity._energy(*arguments)[0], q, create_graph=True)
    assert not gradient.requires_grad  # a second derivative is refused, not 0
    with torch.autocast("cpu", torch.bfloat16):
        again = torch.cat(similarity.window_log_attention(query, key, grid, radius, 0.5), dim=1)
    assert torch.equal(again, entries)
