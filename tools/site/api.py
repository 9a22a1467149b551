"""Pages of the Python interface: one per folder, filled from docstrings by mkdocstrings."""

from __future__ import annotations

from pathlib import Path

_PACKAGES = {
    "method": ("nnunet_attenscribble", "nnunet_attenscribble", "The method in plain PyTorch, and its settings."),
    "losses": ("nnunet_attenscribble/losses", "nnunet_attenscribble.losses", "The losses in plain PyTorch."),
    "trainers": ("trainers", "nnunet_attenscribble.trainers", "nnU-Net's trainers; nnU-Net finds them by their names."),
    "rivals": (
        "trainers/rivals",
        "nnunet_attenscribble.trainers.rivals",
        "Published losses, each beside its trainer.",
    ),
    "dataset_conversion": ("dataset_conversion", "nnunet_attenscribble.dataset_conversion", "What writes datasets."),
    "evaluation": ("evaluation", "nnunet_attenscribble.evaluation", "What scores and compares."),
    "benchmark": ("evaluation/benchmark", "nnunet_attenscribble.evaluation.benchmark", "What runs and collects."),
    "report": ("evaluation/report", "nnunet_attenscribble.evaluation.report", "What makes a page of it."),
    "common": ("nnunet_attenscribble/common", "nnunet_attenscribble.common", "What all of these stand on."),
}


def describe_packages(root: Path) -> dict[str, str]:
    """Pages by name. Every public module with something public in it has a place."""
    pages = {}
    for page, (folder, package, text) in _PACKAGES.items():
        modules = sorted(file.stem for file in (root / folder).glob("*.py") if not file.stem.startswith("_"))
        parts = [f"# `{package}`", text, *(f"::: {package}.{module}" for module in modules)]
        pages[f"api/{page}.md"] = "\n\n".join(parts) + "\n"
    return pages
