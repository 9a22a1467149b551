"""Trainers of published scribble losses, for comparison; nnU-Net finds them here too."""
