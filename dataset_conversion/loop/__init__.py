"""Drawing in rounds: the slices to draw on next, the files to draw in, and strokes drawn since brought in."""
