"""What `attenscribble doctor` asks torch and nnU-Net, in a process of its own.

An installation that is broken must not break the doctor, and nnU-Net's search for trainers leaves traces in the process
that it ran in. Takes names of trainers and writes JSON to standard output.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any


def answer(names: Sequence[str]) -> dict[str, Any]:
    """What is asked.

    Returns:
        `error` where torch or nnU-Net cannot be imported; else `gpus`, name and bytes of each, `cuda`, the version that
        torch is built for or None, `mps`, and `trainers`: by name the folder that nnU-Net found it in, or `error`.
    """
    try:
        import torch
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    properties = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    found: dict[str, Any] = {}
    for name in names:
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                recursive_find_trainer_class_by_name(name)
            folder = re.search(rf"Using trainer '{name}' from: (.*)", printed.getvalue())
            found[name] = {"folder": folder and folder[1]}
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"}
    return {
        "gpus": [[device.name, device.total_memory] for device in properties],
        "cuda": torch.version.cuda,
        "mps": torch.backends.mps.is_available(),
        "trainers": found,
    }


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):
        content = answer(sys.argv[1:])
    print(json.dumps(content))
