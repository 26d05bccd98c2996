"""Plan -> intervals: for every query, the stretches of keys it attends, exactly. Made on demand: FULL runs are read off the plan, PARTIAL
tiles are evaluated pair by pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..diagnostics import InputError
from .ir import Program
from .runs import Consumer, spread

if TYPE_CHECKING:
    from .plan import GroupPlan

MOST_INTERVALS = 2**26  # 0.5 GiB
TILES_AT_ONCE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """The keys of one group of heads and rows of the batch: query i attends start[j] <= key < end[j] for j in ptr[i] .. ptr[i + 1]. Those of a
    query are sorted, and neither overlap nor touch."""

    batch: tuple[int, ...]
    heads: tuple[int, ...]
    keys: int
    ptr: Tensor  # (queries + 1,) int32
    start: Tensor  # (intervals,) int32
    end: Tensor  # (intervals,) int32

    @property
    def queries(self) -> int:
        return len(self.ptr) - 1

    @property
    def pairs(self) -> int:
        """How many pairs are attended."""
        return int((self.end - self.start).sum())

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.ptr, self.start, self.end))

    def to_dense(self) -> Tensor:
        """The attended pairs, bool (queries, keys)."""
        steps = torch.zeros(self.queries, self.keys + 1, dtype=torch.int8)
        row = torch.repeat_interleave(torch.arange(self.queries), self.ptr.diff().long())
        steps[row, self.start.long()] = 1
        steps[row, self.end.long()] = -1
        return steps[:, :-1].cumsum(1) > 0

    def __repr__(self) -> str:
        return f"<Intervals: {len(self.start):,} of {self.queries:,} queries over {self.keys:,} keys, {self.pairs:,} pairs>"


def intervals(group: GroupPlan, program: Program) -> Intervals:
    """See `Plan.intervals`. Raises InputError where there are too many to hold."""
    runs, tile = group.runs(Consumer.FORWARD), group.tile
    row_of, partial = runs.row, runs.is_partial
    found = [_full(row_of[~partial], runs.first[~partial].long(), runs.count[~partial].long(), tile)]
    run, across = (torch.from_numpy(x) for x in spread(runs.count[partial].numpy()))
    col = runs.first[partial].long()[run] + across
    row = row_of[partial][run]
    total = len(found[0][0])
    for begin in range(0, len(row), TILES_AT_ONCE):
        some = slice(begin, begin + TILES_AT_ONCE)
        found.append(_partial(group, program, row[some], col[some]))
        total += len(found[-1][0])
        if total > MOST_INTERVALS:
            raise InputError(f"this mask has more than {MOST_INTERVALS:,} intervals: it is scattered; read its tiles from the plan, or plan fewer tokens")
    query, start, end = (torch.cat(parts) for parts in zip(*found, strict=True))
    order = (query * (group.keys + 1) + start).argsort()
    query, start, end = query[order], start[order], end[order]
    # Pieces that touch, from neighbouring tiles, become one.
    joins = (query[1:] == query[:-1]) & (start[1:] == end[:-1])
    edge = torch.ones(min(1, len(query)), dtype=torch.bool)
    first, last = torch.cat([edge, ~joins]), torch.cat([~joins, edge])
    ptr = torch.searchsorted(query[first], torch.arange(group.queries + 1))
    return Intervals(group.batch, group.heads, group.keys, ptr.int(), start[first].int(), end[last].int())


_Pieces = tuple[Tensor, Tensor, Tensor]  # query, start, end


def _full(row: Tensor, first: Tensor, count: Tensor, tile: int) -> _Pieces:
    query = (row[:, None] * tile + torch.arange(tile)).flatten()
    return query, (first * tile).repeat_interleave(tile), ((first + count) * tile).repeat_interleave(tile)


def _partial(group: GroupPlan, program: Program, row: Tensor, col: Tensor) -> _Pieces:
    """The stretches within some tiles, evaluated."""
    tile = group.tile
    q, k = (x[:, None] * tile + torch.arange(tile) for x in (row, col))
    (attend,) = group.leaves.pairs(q.clamp(max=group.queries - 1), k.clamp(max=group.keys - 1), program.attend)
    attend = attend.expand(len(row), tile, tile) & (q < group.queries)[:, :, None] & (k < group.keys)[:, None, :]
    change = torch.nn.functional.pad(attend.to(torch.int8), (1, 1)).diff(dim=-1)
    at, query, start = (change == 1).nonzero(as_tuple=True)
    end = (change == -1).nonzero(as_tuple=True)[2]  # in the same order: every stretch begins and ends within its line
    base = col[at] * tile
    return row[at] * tile + query, base + start, base + end
