from __future__ import annotations

from math import exp

import pytest

from nnunet_attenscribble.windows import in_plane_share


def test_the_share_of_the_plane_by_hand():
    # sigma 1, slices two pixels apart: in the plane 4 neighbours at a distance of 1 and 4 at root 2, in either slice
    # beside it one at 2, 4 at root 5 and 4 at root 6
    plane = 4 * exp(-1 / 2) + 4 * exp(-1)
    beside = exp(-2) + 4 * exp(-5 / 2) + 4 * exp(-3)
    assert in_plane_share((1, 1, 1), 1.0, (2.0, 1.0, 1.0)) == pytest.approx(plane / (plane + 2 * beside))


@pytest.mark.parametrize(
    ("radius", "spacing"),
    [((5, 5), (1.5, 1.5)), ((0, 5, 5), (10.0, 1.5, 1.5)), ((0, 0), (1.0, 1.0)), ((2, 0, 0), (1.0, 1.0, 1.0))],
)
def test_a_flat_window_or_none_weighs_as_it_is(radius, spacing):
    assert in_plane_share(radius, 6.0, spacing) == 1
