"""Boxes -> runs: for every row of tiles, the stretches of columns that a consumer works through.

Each consumer has an emission of its own from the same boxes; none is made by transposing another.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from .boxes import Boxes
from .evaluate import Array
from .labels import PARTIAL, SHIFTS, State, state


class Consumer(Enum):
    """Who reads runs: its gates (a tile where all of them are NONE is skipped), and whether keys are the rows.

    The forward does not look at gates at all.
    """

    FORWARD = ("forward", "", False)
    DQ = ("dQ", "q", False)
    DKV = ("dK/dV", "kv", True)
    BACKWARD = ("backward", "qkv", False)  # all three gradients in one query-major pass
    SEEN = ("seen", "", True)  # by whom a key is attended

    @property
    def gates(self) -> str:
        return self.value[1]

    @property
    def key_major(self) -> bool:
        return self.value[2]


@dataclass(frozen=True, slots=True)
class Runs:
    """Row r owns the runs ptr[r] .. ptr[r + 1]; run i covers tiles first[i] .. first[i] + count[i], all of one kind."""

    ptr: Tensor  # (rows + 1,) int32
    first: Tensor  # (runs,) int32
    count: Tensor  # (runs,) int32
    kind: Tensor  # (runs,) uint8: the label bits that the consumer looks at

    @property
    def row(self) -> Tensor:
        """(runs,) int64: the row of every run."""
        return torch.arange(len(self.ptr) - 1).repeat_interleave(self.ptr.diff())

    @property
    def is_partial(self) -> Tensor:
        """(runs,) bool: the others are FULL."""
        return (self.kind & PARTIAL) == PARTIAL

    @property
    def tiles(self) -> int:
        return int(self.count.sum())

    @property
    def partial_tiles(self) -> int:
        return int(self.count[self.is_partial].sum())

    def tiles_where(self, gate: str) -> int:
        """Tiles where a gate is not NONE."""
        return int(self.count[state(self.kind, gate) != State.NONE].sum())

    def partial_tiles_where(self, gate: str) -> int:
        """Those of them that are PARTIAL."""
        return int(self.count[(state(self.kind, gate) != State.NONE) & self.is_partial].sum())

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.ptr, self.first, self.count, self.kind))

    @property
    def tensors(self) -> list[Tensor]:
        return [self.ptr, self.first, self.count, self.kind]


def spread(counts: Array) -> tuple[Array, Array]:
    """For as many things as `counts` says: which of them, and the how-manieth of its kind."""
    which = np.arange(len(counts)).repeat(counts)
    return which, np.arange(len(which)) - (counts.cumsum() - counts)[which]


def emit(boxes: Boxes, consumer: Consumer, rows: int, cols: int) -> Runs:
    """`rows` and `cols` count the tiles of the consumer's own rows and columns."""
    row, col = (boxes.col, boxes.row) if consumer.key_major else (boxes.row, boxes.col)
    mask = PARTIAL
    for gate in consumer.gates:
        mask |= 3 << SHIFTS[gate]
    level, row, col, kind = boxes.level.astype(np.int64), row.astype(np.int64), col.astype(np.int64), boxes.label & np.uint8(mask)
    if consumer.gates:
        works = np.zeros(len(kind), bool)
        for gate in consumer.gates:
            works |= state(kind, gate) != State.NONE
        level, row, col, kind = (x[works] for x in (level, row, col, kind))
    strips = _strips(level, row, col, kind, rows, cols)
    # One segment for each row of tiles that a strip covers, in the order of rows and columns.
    strip, down = spread(strips.last_row - strips.first_row)
    place, order = _sorted((strips.first_row.take(strip) + down) * cols + strips.first_col.take(strip), rows * cols)
    strip = strip.take(order)
    last = place + (strips.last_col - strips.first_col).take(strip)
    return _merge(place, last, strips.kind.take(strip), rows, cols)


@dataclass(frozen=True, slots=True)
class _Strips:
    """Rectangles of tiles: boxes of one size and kind, side by side."""

    first_row: Array
    last_row: Array  # one more than the last
    first_col: Array
    last_col: Array
    kind: Array


def _strips(level: Array, row: Array, col: Array, kind: Array, rows: int, cols: int) -> _Strips:
    levels = int(level.max(initial=0)) + 1
    place, order = _sorted((level * rows + row) * cols + col, levels * rows * cols)
    level, row, col, kind = (x.take(order) for x in (level, row, col, kind))
    # Nothing follows a box at the edge, but the next row may look as if it did.
    begin, end = _stretches((place[1:] != place[:-1] + 1) | (kind[1:] != kind[:-1]) | (row[1:] != row[:-1]), len(place))
    level, first_row, first_col, kind = (x.take(begin) for x in (level, row, col, kind))
    last_col = first_col + (end - begin)
    return _Strips(first_row << level, np.minimum((first_row + 1) << level, rows), first_col << level, np.minimum(last_col << level, cols), kind)


def _sorted(place: Array, most: int) -> tuple[Array, Array]:
    """Whole numbers from 0 to `most`, sorted, and where each was. torch sorts by digits, several times faster than NumPy."""
    order = torch.from_numpy(place.astype(np.int32) if most < 2**31 else place).argsort().numpy()
    return place.take(order), order


def _stretches(differs: Array, count: int) -> tuple[Array, Array]:
    """The first, and one more than the last, of each stretch of some things in a row; `differs`: each but the first from the one before it."""
    begin = np.flatnonzero(np.concatenate([np.ones(min(1, count), bool), differs]))
    return begin, np.append(begin[1:], count)[: len(begin)]


def _merge(place: Array, last: Array, kind: Array, rows: int, cols: int) -> Runs:
    """Neighbours of one row and one kind become one run. `place` and `last` are row * cols + column; a run does not go on in the next row."""
    row = place // max(1, cols)
    begin, end = _stretches((place[1:] != last[:-1]) | (kind[1:] != kind[:-1]) | (row[1:] != row[:-1]), len(place))
    row, first, count, kind = row.take(begin), place.take(begin), last.take(end - 1), kind.take(begin)
    found = np.searchsorted(row, np.arange(rows + 1)), first - row * cols, count - first
    ptr, first, count = (torch.from_numpy(x.astype(np.int32)) for x in found)
    return Runs(ptr, first, count, torch.from_numpy(kind))
