"""Measure everything, one process at a time, and write a table and JSON."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

#: Title, workload and its options; measured as it is here and as its plain reference.
WORK: list[tuple[str, str, dict]] = [
    ("masked CRF, 12 x 4 x 256 x 256", "crf", {"shape": [12, 4, 256, 256]}),
    (
        "masked CRF, 2 x 4 x 10 x 256 x 224, radius 0, 5, 5 (10 mm slices)",
        "crf",
        {"shape": [2, 4, 10, 256, 224], "radius": [0, 5, 5], "repeats": 1},
    ),
    ("similarity and block, 12 x 64 x 64 tokens, paper", "similarity", {"samples": 12, "grid": [64, 64]}),
    (
        "similarity and block, 12 x 64 x 64 tokens, anchored",
        "similarity",
        {"samples": 12, "grid": [64, 64], "mode": "anchored"},
    ),
    ("iteration, 2d_cpu, batch 12", "iteration", {"plan": "2d_cpu", "batch": 12}),
    ("iteration, 2d (stock plan), batch 4", "iteration", {"plan": "2d", "batch": 4, "repeats": 2}),
    (
        "iteration, 2d (stock plan), batch 4, attention at 1/4 resolution",
        "iteration",
        {"plan": "2d", "batch": 4, "repeats": 2, "max_tokens": 4096},
    ),
    *(
        (
            f"iteration, {plan}, 2 x {' x '.join(map(str, patch))}",
            "iteration",
            {"plan": plan, "batch": 2, "patch": patch, "repeats": 1},
        )
        for plan, patch in (
            ("3d_fullres", [10, 128, 128]),
            ("3d_fullres", [10, 192, 160]),
            ("3d_fullres", [10, 256, 224]),
            ("3d_fullres", [16, 256, 224]),
            ("3d_isotropic", [64, 64, 64]),
            ("3d_isotropic", [96, 96, 96]),
        )
    ),
]


def measure(name: str, options: dict, threads: int) -> dict:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "tools.timing.measure", name, json.dumps({**options, "threads": threads})]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(ours: dict, reference: dict) -> dict:
    """Ratios of time and memory, and the relative differences of loss and gradient norm."""
    ratios = {key: ours[key] / reference[key] for key in ("seconds", "wall", "megabytes")}
    errors = {key: abs(ours[key] / reference[key] - 1) for key in ("loss", "gradient") if key in reference}
    return {"ratio": ratios, "error": errors}


def show(title: str, result: dict) -> None:
    """One line of the table."""
    ours, reference, ratio = result["ours"], result["reference"], result["ratio"]
    line = f"{title:66} {ours['seconds']:8.2f} s {ours['megabytes']:8.0f} MB"
    line += f"  against {reference['seconds']:8.2f} s {reference['megabytes']:8.0f} MB"
    line += f"  time x {ratio['seconds']:.3f}, memory x {ratio['megabytes']:.3f}"
    line += "".join(f", {key} {value:.0e}" for key, value in result["error"].items())
    print(line, flush=True)


def main() -> None:
    """Run the suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("build/timing.json"))
    parser.add_argument("--only", default="", help="measure what contains this text")
    arguments = parser.parse_args()
    results: dict[str, dict] = {}
    for title, name, options in WORK:
        if arguments.only in title:
            plain = {**options, "reference": True} | ({} if name == "iteration" else {"repeats": 1})  # which take long
            ours, reference = (measure(name, some, arguments.threads) for some in (options, plain))
            results[title] = {"ours": ours, "reference": reference, **compare(ours, reference)}
            show(title, results[title])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
