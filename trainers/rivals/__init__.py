"""Published scribble losses, for comparison in the same nnU-Net: each beside its trainer, which nnU-Net finds here."""
