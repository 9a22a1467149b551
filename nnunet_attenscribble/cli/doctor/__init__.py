"""`attenscribble doctor`: the installation and the datasets, looked at, with advice."""

from nnunet_attenscribble.cli.doctor import command  # noqa: F401 - it registers
