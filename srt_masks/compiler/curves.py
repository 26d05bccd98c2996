"""Points of a grid -> their places along a Hilbert curve: neighbours on the curve are neighbours in the grid.

After Skilling, "Programming the Hilbert curve" (2004): coordinates to the transposed index, all points at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

MOST_BITS = 62  # of a place along the curve


def hilbert(points: Tensor) -> Tensor:
    """points (axes, tokens), whole numbers from 0 -> (tokens,) int64. Coordinates that need too many bits lose their last ones."""
    axes = len(points)
    if points.numel() == 0:
        return torch.zeros(points.shape[1], dtype=torch.int64)
    bits = max(1, int(points.max()).bit_length())
    spare = max(0, bits - MOST_BITS // axes)
    bits -= spare
    x = list(points >> spare)
    for shift in range(bits - 1, 0, -1):
        below = (1 << shift) - 1
        for i in range(axes):
            here = x[i] >> shift & 1 == 1
            swap = torch.where(here, 0, (x[0] ^ x[i]) & below)
            x[0] = torch.where(here, x[0] ^ below, x[0] ^ swap)
            x[i] = x[i] ^ swap
    for i in range(1, axes):
        x[i] = x[i] ^ x[i - 1]
    turn = torch.zeros_like(x[0])
    for shift in range(bits - 1, 0, -1):
        turn = turn ^ torch.where(x[-1] >> shift & 1 == 1, (1 << shift) - 1, 0)
    place = torch.zeros_like(x[0])
    for shift in range(bits - 1, -1, -1):
        for part in x:
            place = place << 1 | ((part ^ turn) >> shift & 1)
    return place
