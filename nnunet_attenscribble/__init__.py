"""AttenScribble for nnU-Net: training from scribbles with a masked CRF and an attentive similarity loss."""

from importlib.metadata import version

__version__ = version("nnunet-attenscribble")
__all__ = ["__version__"]
