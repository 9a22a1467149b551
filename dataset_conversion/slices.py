"""Along which axis a volume is a stack of slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["slice_axis"]


def slice_axis(shape: Sequence[int], spacing: Sequence[float]) -> int:
    """The axis across which a volume is cut into slices.

    Args:
        shape: voxels per axis.
        spacing: mm per axis, in the same order.

    Returns:
        The axis that is one voxel long, as that of a 2D scan saved as a volume, whose spacing along it means nothing;
        where none is, or several are, that of the largest spacing, the first of equal ones.
    """
    single = [axis for axis, length in enumerate(shape) if length == 1]
    return single[0] if len(single) == 1 else int(np.argmax(spacing))
