"""A table of truths read at pairs: whether any, and whether every, element between two ends of each subscript holds, by counting them once.

The sums over all corners are made when a table is first asked about; each box then takes four (two, one) of them. A subscript out of range reads false.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bounds import Array, Interval, Truth

MOST = 2**22  # elements of a table that is counted
AXES = 2  # subscripts that differ from box to box


@dataclass(frozen=True, slots=True)
class Counts:
    """`sums[i, j]`: how many elements before row i and column j hold, (rows + 1, columns + 1); of a table of one axis, columns + 1 is 2."""

    sums: Array

    @staticmethod
    def of(table: Array) -> Counts | None:
        """Of a table of at most AXES axes; None where it is too large to be counted."""
        if table.ndim > AXES or table.size > MOST:
            return None
        flat = table.reshape(*table.shape, *[1] * (AXES - table.ndim))
        sums = np.zeros((flat.shape[0] + 1, flat.shape[1] + 1), dtype=np.int64)
        sums[1:, 1:] = flat.cumsum(0).cumsum(1)
        return Counts(sums)

    def between(self, ends: list[Interval]) -> Truth:
        """Of the elements whose subscripts lie between some ends."""
        whole = np.array(0)
        ends = ends + [Interval(whole, whole)] * (AXES - len(ends))
        (top, bottom, high), (left, right, wide) = (_clipped(x, n - 1) for x, n in zip(ends, self.sums.shape, strict=True))
        held = self.sums[bottom, right] - self.sums[top, right] - self.sums[bottom, left] + self.sums[top, left]
        area = (bottom - top) * (right - left)
        return Truth(high & wide & (held == area), held > 0)


def _clipped(ends: Interval, size: int) -> tuple[Array, Array, Array]:
    """First, one more than last, and whether all of them are in range."""
    first = np.clip(ends.lo, 0, size)
    # The largest number has no successor.
    last = np.maximum(np.clip(ends.hi, -1, size - 1) + 1, first)
    return first, last, (ends.lo >= 0) & (ends.hi < size)


def selected(table: Array, fixed: tuple[int | None, ...]) -> Array:
    """The part of a table at subscripts that are the same for all; all false where one of them is out of range."""
    for axis in reversed(range(len(fixed))):
        index = fixed[axis]
        if index is None:
            continue
        if 0 <= index < table.shape[axis]:
            table = table.take(index, axis)
        else:
            table = np.zeros([n for i, n in enumerate(table.shape) if i != axis], dtype=table.dtype)
    return table
