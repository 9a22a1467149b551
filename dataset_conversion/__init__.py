"""Sources of scribbles and dense labels, written as nnU-Net raw datasets."""
