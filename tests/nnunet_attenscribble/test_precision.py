import torch

from nnunet_attenscribble.windows import sum_dtype


def test_sums_are_as_precise_as_the_device_allows():
    assert [sum_dtype(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [
        torch.float64,
        torch.float64,
        torch.float32,
    ]
