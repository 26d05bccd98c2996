"""Plan -> shards: the queries divided among ranks by whole tiles, so that forward and backward take each about as long.

Exact for any mask and any gradient rule: a rank attends with its own queries to all the keys it needs, and gradients of keys and values
are summed over ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..diagnostics import InputError
from .labels import State, state
from .runs import Consumer

if TYPE_CHECKING:
    from .order import Order
    from .plan import GroupPlan, Plan

# Products of a tile with head_dim that each pass makes: q k and p v; q k, dO v and ds k; and of the keys' gradients q k with dO v and both sums.
FORWARD, QUERIES, KEYS_AND_VALUES, KEYS, VALUES = 2.0, 3.0, 4.0, 3.0, 2.0
PARTIAL_COST = 1.13  # of a FULL tile's time, measured on a CPU


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Shard:
    """What one rank does of a plan. `work` counts products of tiles, forward and backward, over all rows of the batch and heads."""

    rank: int
    world: int
    tile: int
    rows: Tensor  # (tiles,) int64: the rows of tiles it owns, ascending, in the order in which the plan visits tokens
    queries: Tensor  # (owned,) int64: their rows of q, as the caller counts them
    keys: Tensor  # (needed,) int64: the keys of every tile that they visit, as the caller counts them
    work: float
    every_work: tuple[float, ...]  # of all ranks
    most: float  # work of the heaviest single row of tiles

    @property
    def imbalance(self) -> float:
        """The busiest rank's work over the mean: 1.0 is even. The busiest and the idlest differ by no more than the heaviest row of tiles."""
        total = sum(self.every_work)
        return max(self.every_work) * self.world / total if total else 1.0

    def __repr__(self) -> str:
        return f"<Shard {self}>"

    def __str__(self) -> str:
        total = sum(self.every_work)
        share = self.work / total if total else 1 / self.world
        return (
            f"rank {self.rank} of {self.world}: {len(self.queries):,} queries in {len(self.rows):,} rows of tiles, {len(self.keys):,} keys needed, "
            f"{share:.1%} of the work; the busiest rank has {self.imbalance:.3f} times the mean"
        )


def shard(plan: Plan, rank: int, world: int) -> Shard:
    """See `Plan.shard`."""
    for name, value in (("rank", rank), ("world", world)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputError(f"{name} is a whole number; got {value!r}")
    if world < 1:
        raise InputError(f"world is how many ranks there are, 1 or more; got {world}")
    if not 0 <= rank < world:
        raise InputError(f"rank is from 0 to world - 1; got rank {rank} of {world}")
    (plan,) = in_one_order([plan])
    g, order, work = plan.geometry, order_of(plan), work_of(plan)
    dealt = deal(work, world)
    rows = dealt[rank]
    queries, keys = tokens_of(rows, g.tile, g.queries), tokens_of(_columns(plan, rows), g.tile, g.keys)
    if order is not None:
        queries, keys = order.queries[queries], order.keys[keys]
    every = tuple(float(work[r].sum()) for r in dealt)
    most = float(work.max()) if len(work) else 0.0
    return Shard(rank, world, g.tile, rows, queries, keys, every[rank], every, most)


def work_of(plan: Plan, forward: bool = True) -> Tensor:
    """(rows,) float64: products of tiles in each row of tiles, over all rows of the batch and heads; without `forward`, those of the backward alone."""
    work = torch.zeros(-(-plan.geometry.queries // plan.geometry.tile), dtype=torch.float64)
    for group in plan.groups:
        own = work_of_rows(group, forward)
        work[: len(own)] += own * len(group.batch) * len(group.heads)
    return work


def work_of_rows(group: GroupPlan, with_forward: bool = True) -> Tensor:
    """(rows,) float64: products of tiles in each row of tiles, one row of the batch and head, forward and backward. What a gate stops is not done."""
    forward, backward = group.runs(Consumer.FORWARD), group.runs(Consumer.BACKWARD)
    work = torch.zeros(len(forward.ptr) - 1, dtype=torch.float64)
    keys, values = (state(backward.kind, x) != State.NONE for x in "kv")
    by_keys = torch.tensor([0.0, VALUES, KEYS, KEYS_AND_VALUES], dtype=torch.float64)[2 * keys.long() + values.long()]
    by_query = torch.tensor([0.0, QUERIES], dtype=torch.float64)[(state(backward.kind, "q") != State.NONE).long()]
    products_forward = torch.full((len(forward.kind),), FORWARD if with_forward else 0.0, dtype=torch.float64)
    for runs, products in ((forward, products_forward), (backward, by_query + by_keys)):
        factor = torch.tensor([1.0, PARTIAL_COST], dtype=torch.float64)[runs.is_partial.long()]
        work.index_add_(0, runs.row, runs.count * factor * products)
    return work


def deal(work: Tensor, world: int) -> list[Tensor]:
    """The rows of each rank, ascending: the heaviest are dealt first, `world` at a time, the heaviest of a round to the rank with least so far.

    Ranks own equally many rows, give or take one. A round never widens the gap between two ranks beyond the gap between two of its own rows,
    so the gap at the end is at most the heaviest row.
    """
    heaviest = work.argsort(descending=True, stable=True)
    load, owned = torch.zeros(world, dtype=torch.float64), []
    for begin in range(0, len(work), world):
        some = heaviest[begin : begin + world]
        ranks = load.argsort(stable=True)[: len(some)]
        load[ranks] += work[some]
        owned.append(torch.stack([ranks, some], 1))
    pairs = torch.cat(owned) if owned else torch.zeros(0, 2, dtype=torch.int64)
    return [pairs[pairs[:, 0] == r, 1].sort().values for r in range(world)]


def in_one_order(plans: Sequence[Plan]) -> list[Plan]:
    """The plans, if they have one order; else those of the caller's order."""
    return list(plans) if common_order(plans) is not None else [plan.natural for plan in plans]


def common_order(plans: Sequence[Plan]) -> Order | None:
    """The order in which every group of each plan visits the tokens of the whole call; None where there is no such one, or it is the caller's."""
    first = order_of(plans[0]) if plans else None
    groups = [(plan.geometry, group) for plan in plans for group in plan.groups]
    alike = all(x.order is not None and x.order.is_like(first) and (x.queries, x.keys) == (g.queries, g.keys) for g, x in groups)
    return first if alike else None


def order_of(plan: Plan) -> Order | None:
    """The order of a plan that has one; None: the caller's."""
    return plan.groups[0].order if plan.groups else None


def tokens_of(tiles: Tensor, tile: int, count: int) -> Tensor:
    """The places along an axis of `count` tokens that some tiles cover."""
    places = (tiles[:, None] * tile + torch.arange(tile)).flatten()
    return places[places < count]


def _columns(plan: Plan, rows: Tensor) -> Tensor:
    """The columns of tiles that some group visits in these rows."""
    g = plan.geometry
    seen = torch.zeros(-(-g.keys // g.tile) + 1, dtype=torch.int64)
    for group in plan.groups:
        runs = group.runs(Consumer.FORWARD)
        mine = torch.isin(runs.row, rows)
        first, count = runs.first[mine].long(), runs.count[mine].long()
        seen.index_add_(0, first, torch.ones_like(first))
        seen.index_add_(0, first + count, -torch.ones_like(first))
    return (seen[:-1].cumsum(0) > 0).nonzero().flatten()
