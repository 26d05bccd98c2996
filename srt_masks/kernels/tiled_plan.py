"""A plan as `tiled` reads it: packed into tensors once, unpacked by every call."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import accumulate

import torch
from torch import Tensor

from ..compiler.compiled import Compiled
from ..compiler.ir import Program
from ..compiler.leaves import Leaves
from ..compiler.plan import GroupPlan, Plan
from ..compiler.runs import Consumer, Runs
from .patterns import Patterns
from .rectangles import Cover, cover

# Of each group, how many tensors there are of what, in the order in which they are packed; its leaves and tables come after them.
RUNS, COVER = len(fields(Runs)), len(fields(Cover))
PARTS = {"extents": 1, "batch": 1, "heads": 1, "forward": RUNS, "backward": RUNS, "forward_cover": COVER, "backward_cover": COVER, "patterns": 1}
FIXED = sum(PARTS.values())
PLACES = {name: slice(end - count, end) for (name, count), end in zip(PARTS.items(), accumulate(PARTS.values()), strict=True)}
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


@dataclass(frozen=True, slots=True)
class Task:
    """One call, as both designs are given it."""

    q: Tensor  # (batch, heads, queries, head_dim)
    k: Tensor  # (batch, key_heads, keys, head_dim)
    v: Tensor  # (batch, key_heads, keys, value_dim)
    works: list[Work]
    program: Program
    scale: float

    @property
    def heads_per_key(self) -> int:
        return self.q.shape[1] // max(1, self.k.shape[1])

    @property
    def has_rectangles(self) -> bool:
        return bool(self.works) and self.works[0].has_rectangles


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
    works = []
    stored, tables = compiled.split.leaves, compiled.split.tables
    read = FIXED + len(stored)  # and behind the leaves are the tables
    size = read + len(tables)
    for begin in range(0, len(packed), size):
        mine = packed[begin : begin + size]
        of = {name: mine[place] for name, place in PLACES.items()}
        (extents,), (batch,), (heads,), (patterns,) = (of[name] for name in ("extents", "batch", "heads", "patterns"))
        queries, keys, tile, has_rectangles = extents.tolist()
        leaves = Leaves(compiled.split, dict(zip(stored, mine[FIXED:read], strict=True)), dict(zip(tables, mine[read:], strict=True)))
        works.append(
            Work(
                tuple(batch.tolist()), tuple(heads.tolist()), queries, keys, tile, bool(has_rectangles), forward=Runs(*of["forward"]), backward=Runs(*of["backward"]),
                forward_cover=Cover(*of["forward_cover"]), backward_cover=Cover(*of["backward_cover"]), patterns=patterns, leaves=leaves,
            )
        )  # fmt: skip
    return works
