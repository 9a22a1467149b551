"""AttenScribble for nnU-Net: training from scribbles with a masked CRF and an attentive similarity loss."""

from typing import Any

__all__ = ["__version__"]

__version__: str


def __getattr__(name: str) -> Any:
    """The version, looked up when it is asked for: that takes longer than everything else that `--help` needs."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("nnunet-attenscribble")
