"""Plan -> a pair that looks ahead: a query that attends a key beyond what is there when it is computed. Made on demand, as a cache of keys and values asks.

Of all tiles that are visited only those are evaluated that reach beyond some query's bound: of a causal mask the diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .ir import Program
from .runs import Consumer, spread

if TYPE_CHECKING:
    from .plan import GroupPlan, Plan

TILES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Ahead:
    """A pair that is attended, in a row of the batch and a head."""

    batch: int
    head: int
    query: int
    key: int


def look_ahead(plan: Plan, bounds: Sequence[Tensor]) -> Ahead | None:
    """The first pair of a key at or beyond the bound of its query. `bounds` hold one vector (queries,) int64 for each row of the batch of a call; a plan
    of one row of the batch is that of all of them."""
    for group in plan.natural.groups:
        rows = range(len(bounds)) if plan.geometry.batch == 1 else group.batch
        asked: list[Tensor] = []
        for row in rows:
            if any(torch.equal(bounds[row], known) for known in asked):
                continue
            asked.append(bounds[row])
            if (pair := _beyond(group, plan.program, bounds[row])) is not None:
                return Ahead(row, group.heads[0], *pair)
    return None


def _beyond(group: GroupPlan, program: Program, bound: Tensor) -> tuple[int, int] | None:
    tile, runs = group.tile, group.runs(Consumer.FORWARD)
    if not group.queries or not group.keys:
        return None
    run, across = (torch.from_numpy(x) for x in spread(runs.count.numpy()))
    row, col = runs.row.long()[run], runs.first.long()[run] + across
    filled = torch.nn.functional.pad(bound, (0, -group.queries % tile), value=group.keys)
    least = filled.unflatten(0, (-1, tile)).amin(1)
    reaches = (col + 1) * tile > least[row]
    row, col = row[reaches], col[reaches]
    for begin in range(0, len(row), TILES_AT_ONCE):
        some = slice(begin, begin + TILES_AT_ONCE)
        q, k = (x[some, None] * tile + torch.arange(tile) for x in (row, col))
        inside = ((q < group.queries)[:, :, None] & (k < group.keys)[:, None, :]) & (k[:, None, :] >= filled[q][:, :, None])
        q, k = q.clamp(max=group.queries - 1), k.clamp(max=group.keys - 1)
        (attend,) = group.leaves.pairs(q, k, program.attend)
        found = (attend.expand(len(q), tile, tile) & inside).nonzero()
        if len(found):
            at, query, key = found[0].tolist()
            return int(q[at, query]), int(k[at, key])
    return None
