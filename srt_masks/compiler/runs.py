"""Boxes -> runs: for every row of tiles, the stretches of columns that a consumer works through.

Each consumer has an emission of its own from the same boxes; none is made by transposing another.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from .boxes import Boxes
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


def spread(counts: Tensor) -> tuple[Tensor, Tensor]:
    """For as many things as `counts` says: which of them, and the how-manieth of its kind."""
    which = torch.arange(len(counts)).repeat_interleave(counts)
    return which, torch.arange(len(which)) - (counts.cumsum(0) - counts)[which]


def emit(boxes: Boxes, consumer: Consumer, rows: int, cols: int) -> Runs:
    """`rows` and `cols` count the tiles of the consumer's own rows and columns."""
    label = boxes.label
    row, col = (boxes.col, boxes.row) if consumer.key_major else (boxes.row, boxes.col)
    mask = PARTIAL
    for gate in consumer.gates:
        mask |= 3 << SHIFTS[gate]
    level, row, col, kind = (x.long() for x in (boxes.level, row, col, label & mask))
    if consumer.gates:
        works = torch.zeros_like(label, dtype=torch.bool)
        for gate in consumer.gates:
            works = works | (state(label, gate) != State.NONE)
        keep = works.nonzero().flatten()
        level, row, col, kind = (x.index_select(0, keep) for x in (level, row, col, kind))
    strips = _strips(level, row, col, kind, rows, cols)
    # One segment for each row of tiles that a strip covers, in the order of rows and columns.
    height = strips.last_row - strips.first_row
    strip = torch.repeat_interleave(torch.arange(len(height)), height)
    segment_row = torch.arange(len(strip)) + (strips.first_row - (height.cumsum(0) - height)).index_select(0, strip)
    place = segment_row * cols + strips.first_col.index_select(0, strip)
    place, order = (place.int() if rows * cols < 2**31 else place).sort()
    strip = strip.index_select(0, order)
    last = segment_row.index_select(0, order) * cols + strips.last_col.index_select(0, strip)
    return _merge(place.long(), last, strips.kind.index_select(0, strip), rows, cols)


@dataclass(frozen=True, slots=True)
class _Strips:
    """Rectangles of tiles: boxes of one size and kind, side by side."""

    first_row: Tensor
    last_row: Tensor  # one more than the last
    first_col: Tensor
    last_col: Tensor
    kind: Tensor


def _strips(level: Tensor, row: Tensor, col: Tensor, kind: Tensor, rows: int, cols: int) -> _Strips:
    place = (level * rows + row) * cols + col
    place, order = place.sort()
    kind, level, row = (x.index_select(0, order) for x in (kind, level, row))
    # Nothing follows a box at the edge, but the next row may look as if it did.
    new = _new((place[1:] != place[:-1] + 1) | (kind[1:] != kind[:-1]) | (row[1:] != row[:-1]), len(place))
    begin = new.nonzero().flatten()
    end = torch.cat([begin[1:], torch.tensor([len(place)])])[: len(begin)] - 1
    level, first_row, kind = (x.index_select(0, begin) for x in (level, row, kind))
    first_col = place.index_select(0, begin) % max(1, cols)
    last_col = first_col + 1 + end - begin
    return _Strips(first_row << level, ((first_row + 1) << level).clamp(max=rows), first_col << level, (last_col << level).clamp(max=cols), kind)


def _new(differs: Tensor, count: int) -> Tensor:
    """Whether each of some things in a row differs from the one before it; the first does."""
    return torch.cat([torch.ones(min(1, count), dtype=torch.bool), differs])


def _merge(place: Tensor, last: Tensor, kind: Tensor, rows: int, cols: int) -> Runs:
    """Neighbours of one row and one kind become one run. `place` and `last` are row * cols + column; a run does not go on in the next row."""
    begin = _new((place[1:] != last[:-1]) | (kind[1:] != kind[:-1]) | (place[1:] % max(1, cols) == 0), len(place)).nonzero().flatten()
    end = torch.cat([begin[1:], torch.tensor([len(place)])])[: len(begin)] - 1
    place, last, kind = place.index_select(0, begin), last.index_select(0, end), kind.index_select(0, begin)
    ptr = torch.searchsorted(place, torch.arange(rows + 1) * cols)
    return Runs(ptr.int(), (place % max(1, cols)).int(), (last - place).int(), kind.to(torch.uint8))
