"""Some rows of tiles of a plan, as a plan of its own: what one rank does of a call.

Its q holds the tokens of those rows alone, its k and v all of them, and both as the plan visits them: nothing is left to be moved. Runs are the plan's
own, with other numbers: the tiles kept are ascending, so a stretch of columns stays a stretch when some rows are left out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import ir
from .leaves import Leaves
from .runs import Consumer, Runs
from .shard import order_of, tokens_of

if TYPE_CHECKING:
    from .plan import GroupPlan, Plan


def part(plan: Plan, rows: Tensor) -> Plan:
    """`rows` (tiles,) int64, ascending: the rows of tiles that are kept, of a plan whose groups have one order (`shard.in_one_order`)."""
    g = plan.geometry
    moved = frozenset({ir.Side.QUERY} if order_of(plan) is None else ir.Side)
    groups = tuple(_part_of(group, rows) for group in plan.groups)
    return replace(plan, geometry=replace(g, queries=len(tokens_of(rows, g.tile, g.queries))), groups=groups, moved=moved)


def _part_of(group: GroupPlan, rows: Tensor) -> GroupPlan:
    leaves, split = group.leaves, group.leaves.split
    # A row of the batch that is shorter than others ends in front of the last tiles: what it has is the beginning of what is kept.
    places = tokens_of(rows, group.tile, group.queries)
    values = {x: leaves.values[x] for x in (*split.constants, *split.key)} | {x: leaves.values[x][places] for x in split.query}
    kept = rows[rows * group.tile < group.queries]
    # All consumers: the boxes still have the numbers of the whole.
    emitted = {c: (_columns if c.key_major else _rows)(group.runs(c), kept) for c in Consumer}
    return replace(group, queries=len(places), leaves=Leaves(split, values, leaves.tables), order=None, emitted=emitted)


def _rows(runs: Runs, kept: Tensor) -> Runs:
    """The runs of the rows that are kept."""
    mine = torch.isin(runs.row, kept)
    counts = runs.ptr.diff()[kept]
    ptr = _begins(counts)
    return Runs(ptr, runs.first[mine], runs.count[mine], runs.kind[mine])


def _columns(runs: Runs, kept: Tensor) -> Runs:
    """The runs of every row, of the columns that are kept."""
    first = torch.searchsorted(kept, runs.first.long())
    count = torch.searchsorted(kept, runs.first.long() + runs.count) - first
    some = count > 0
    entries = torch.bincount(runs.row[some], minlength=len(runs.ptr) - 1)
    return Runs(_begins(entries), first[some].int(), count[some].int(), runs.kind[some])


def _begins(counts: Tensor) -> Tensor:
    """Where as many things of each row begin, and where the last end."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
