"""A plan as `tiled` reads it: packed into tensors once, unpacked by every call."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..compiler.compiled import Compiled
from ..compiler.ir import Program
from ..compiler.leaves import Leaves
from ..compiler.plan import GroupPlan, Plan
from ..compiler.runs import Consumer, Runs
from .patterns import Patterns
from .rectangles import Cover, cover

NOTHING = [*2 * Cover.of([]).tensors, torch.zeros(0, dtype=torch.bool)]


@dataclass(frozen=True, slots=True)
class Work:
    """One group of a plan: members, extents, and what both passes work through (query-major), as runs and as rectangles."""

    batch: tuple[int, ...]
    heads: tuple[int, ...]
    queries: int
    keys: int
    tile: int
    has_rectangles: bool
    forward: Runs
    backward: Runs
    forward_cover: Cover
    backward_cover: Cover
    patterns: Tensor  # bool, flat: the masks of rectangles
    leaves: Leaves


def pack(plan: Plan, has_rectangles: bool) -> list[Tensor]:
    """For each group: extents, members, the runs of both passes, their rectangles (or none) and the masks of these, the leaves of its predicate, the
    tables it reads."""
    packed: list[Tensor] = []
    for group in plan.groups:
        packed.append(torch.tensor([group.queries, group.keys, plan.geometry.tile, has_rectangles]))
        packed += [torch.tensor(group.batch), torch.tensor(group.heads)]
        packed += group.runs(Consumer.FORWARD).tensors + group.runs(Consumer.BACKWARD).tensors
        packed += _rectangles(group, plan.program) if has_rectangles else NOTHING
        packed += [group.leaves.values[x] for x in group.leaves.split.leaves]
        packed += [group.leaves.tables[t] for t in group.leaves.split.tables]
    return packed


def _rectangles(group: GroupPlan, program: Program) -> list[Tensor]:
    """The covers of both passes, and the masks in them."""
    forward, members = group.runs(Consumer.FORWARD), len(group.batch) * len(group.heads)
    patterns, packed = Patterns(group.leaves, program), []
    for flowing in (None, group.runs(Consumer.BACKWARD)):
        found = cover(forward, flowing, group.queries, group.keys, group.tile, members)
        packed += Cover.of(list(patterns.looked_at(found))).tensors
    return [*packed, patterns.kept]


def unpack(packed: list[Tensor], compiled: Compiled) -> list[Work]:
    works, rest = [], list(packed)
    stored, tables = compiled.split.leaves, compiled.split.tables
    size = 18 + len(stored) + len(tables)
    for begin in range(0, len(rest), size):
        extents, batch, heads, *others = rest[begin : begin + size]
        queries, keys, tile, has_rectangles = extents.tolist()
        values = dict(zip(stored, others[15 : 15 + len(stored)], strict=True))
        leaves = Leaves(compiled.split, values, dict(zip(tables, others[15 + len(stored) :], strict=True)))
        runs = Runs(*others[:4]), Runs(*others[4:8])
        covers = Cover(*others[8:11]), Cover(*others[11:14])
        works.append(Work(tuple(batch.tolist()), tuple(heads.tolist()), queries, keys, tile, bool(has_rectangles), *runs, *covers, others[14], leaves))
    return works
