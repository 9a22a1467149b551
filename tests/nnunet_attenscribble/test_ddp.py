from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import torch

from tests.nnunet_attenscribble import ddp_worker

WORLD = 2


def test_two_processes_give_the_gradients_of_their_joint_batch(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    worker = Path(ddp_worker.__file__)
    out = tmp_path / "gradients.pt"
    processes = [
        subprocess.Popen(
            [sys.executable, str(worker), str(rank), str(WORLD), port, str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(WORLD)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output[-2000:]
    found = torch.load(out)

    batches = [ddp_worker.make_batch(rank) for rank in range(WORLD)]
    image = torch.cat([batch[0] for batch in batches])
    target = [torch.cat(scale) for scale in zip(*(batch[1] for batch in batches), strict=True)]
    expected = ddp_worker.gradients(ddp_worker.make_network(), image, target)
    assert [name for name, gradient in found.items() if gradient is None] == []
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, atol=1e-6, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
