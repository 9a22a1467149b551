"""Experiments of several rows, folds and repetitions: read from a file, planned, run and collected."""
