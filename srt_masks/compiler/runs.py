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
    def tiles(self) -> int:
        return int(self.count.sum())

    @property
    def partial_tiles(self) -> int:
        return int(self.count[(self.kind & PARTIAL) == PARTIAL].sum())

    def tiles_where(self, gate: str) -> int:
        """Tiles where a gate is not NONE."""
        return int(self.count[state(self.kind, gate) != State.NONE].sum())

    def partial_tiles_where(self, gate: str) -> int:
        """Those of them that are PARTIAL."""
        return int(self.count[(state(self.kind, gate) != State.NONE) & ((self.kind & PARTIAL) == PARTIAL)].sum())

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.ptr, self.first, self.count, self.kind))

    @property
    def tensors(self) -> list[Tensor]:
        return [self.ptr, self.first, self.count, self.kind]


def emit(boxes: Boxes, consumer: Consumer, rows: int, cols: int) -> Runs:
    """`rows` and `cols` count the tiles of the consumer's own rows and columns."""
    level, label = boxes.level.long(), boxes.label.long()
    row, col = (boxes.col, boxes.row) if consumer.key_major else (boxes.row, boxes.col)
    keep = torch.ones_like(label, dtype=torch.bool)
    mask = PARTIAL
    if consumer.gates:
        keep = torch.zeros_like(keep)
        for gate in consumer.gates:
            keep = keep | (state(label, gate) != State.NONE)
            mask |= 3 << SHIFTS[gate]
    level, kind = level[keep], label[keep] & mask
    first_row, first_col = row[keep].long() << level, col[keep].long() << level
    side = 1 << level
    last_col = (first_col + side).clamp(max=cols)
    # One segment for each row of tiles that a box covers, in the order of rows and columns.
    height = (first_row + side).clamp(max=rows) - first_row
    box = torch.arange(len(side)).repeat_interleave(height)
    segment_row = (first_row - (height.cumsum(0) - height))[box] + torch.arange(len(box))
    place = segment_row * cols + first_col[box]
    order = (place.int() if rows * cols < 2**31 else place).argsort()
    box = box[order]
    return _merge(segment_row[order], first_col[box], last_col[box], kind[box], rows)


def _merge(row: Tensor, first: Tensor, last: Tensor, kind: Tensor, rows: int) -> Runs:
    """Neighbours of one row and one kind become one run."""
    joins = (row[1:] == row[:-1]) & (first[1:] == last[:-1]) & (kind[1:] == kind[:-1])
    edge = torch.ones(min(1, len(row)), dtype=torch.bool)
    starts, ends = torch.cat([edge, ~joins]), torch.cat([~joins, edge])
    first, last, kind, row = first[starts], last[ends], kind[starts], row[starts]
    ptr = torch.searchsorted(row, torch.arange(rows + 1))
    return Runs(ptr.int(), first.int(), (last - first).int(), kind.to(torch.uint8))
