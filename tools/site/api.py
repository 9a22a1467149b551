"""Pages of the Python interface: one per folder, filled from docstrings by mkdocstrings."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

_PACKAGES = {
    "method": ("nnunet_attenscribble", "The method in plain PyTorch, and its settings."),
    "losses": ("nnunet_attenscribble.losses", "The losses in plain PyTorch."),
    "trainers": ("nnunet_attenscribble.trainers", "nnU-Net's trainers; nnU-Net finds them by their names."),
    "rivals": ("nnunet_attenscribble.trainers.rivals", "Published losses, each beside its trainer."),
    "dataset_conversion": ("nnunet_attenscribble.dataset_conversion", "What writes datasets."),
    "evaluation": ("nnunet_attenscribble.evaluation", "What scores and compares."),
    "benchmark": ("nnunet_attenscribble.evaluation.benchmark", "What runs and collects."),
    "report": ("nnunet_attenscribble.evaluation.report", "What makes a page of it."),
    "common": ("nnunet_attenscribble.common", "What all of these stand on."),
}


def describe_packages() -> dict[str, str]:
    """Pages by name. Every public module with something public in it has a place."""
    pages = {}
    for page, (package, text) in _PACKAGES.items():
        found = iter_modules(import_module(package).__path__)
        modules = sorted(module.name for module in found if not module.ispkg and not module.name.startswith("_"))
        parts = [f"# `{package}`", text, *(f"::: {package}.{module}" for module in modules)]
        pages[f"api/{page}.md"] = "\n\n".join(parts) + "\n"
    return pages
