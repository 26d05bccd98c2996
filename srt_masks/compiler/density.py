"""How many pairs a plan attends: FULL tiles by their area, PARTIAL tiles evaluated pair by pair, within a budget.

A tile that is worked through says nothing of how full it is: a mask of one tile may hold two pairs. Beyond the budget the rest is estimated
from tiles picked at random, and the count says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .ir import Expr
from .plan import GroupPlan, Plan
from .runs import Consumer

BUDGET = 2**28  # pairs evaluated for one plan
AT_ONCE = 2**20  # pairs evaluated at once


@dataclass(frozen=True, slots=True)
class Pairs:
    """Attended pairs among all of some rows of the batch and heads."""

    attended: int
    of: int
    exact: bool  # else an estimate from as many tiles as the budget allowed

    @property
    def density(self) -> float:
        return self.attended / self.of if self.of else 0.0


def attended(plan: Plan, budget: int = BUDGET) -> Pairs:
    """Over every row of the batch and every head."""
    return total(plan, [attended_by(group, plan.program.attend, budget // len(plan.groups)) for group in plan.groups])


def total(plan: Plan, found: Sequence[Pairs]) -> Pairs:
    """What was found of each group, over all its rows of the batch and heads. Padding past a row's length counts in `of`: a dense mask works on it."""
    times = [len(g.batch) * len(g.heads) for g in plan.groups]
    of = plan.geometry.queries * plan.geometry.keys * sum(times)
    return Pairs(sum(p.attended * n for p, n in zip(found, times, strict=True)), of, all(p.exact for p in found))


def attended_by(group: GroupPlan, attend: Expr, budget: int = BUDGET) -> Pairs:
    """In one row of the batch and one head of a group, its padding left out."""
    runs, tile = group.runs(Consumer.FORWARD), group.tile
    partial = runs.is_partial
    full = int(runs.count[~partial].sum()) * tile**2  # a FULL tile lies inside both lengths
    row = runs.row[partial]
    first, count = runs.first[partial].long(), runs.count[partial].long()
    ends = count.cumsum(0)
    tiles = int(count.sum())
    most = max(1, budget // tile**2)
    exact = tiles <= most
    # The same plan gives the same estimate. Picks repeat rarely, and evenly spaced ones would beat with a mask that does.
    number = torch.arange(tiles) if exact else torch.randint(tiles, (most,), generator=torch.Generator().manual_seed(tiles))
    run = torch.searchsorted(ends, number, right=True)
    found = _attended_in(group, attend, row[run], first[run] + number - (ends - count)[run])
    return Pairs(full + (found if exact else round(found * tiles / most)), group.queries * group.keys, exact)


def _attended_in(group: GroupPlan, attend: Expr, row: torch.Tensor, col: torch.Tensor) -> int:
    """Attended pairs of some tiles."""
    within, found, step = torch.arange(group.tile), 0, max(1, AT_ONCE // group.tile**2)
    for q, k in zip(row.split(step), col.split(step), strict=True):
        q, k = q[:, None] * group.tile + within, k[:, None] * group.tile + within
        inside = (q < group.queries)[:, :, None] & (k < group.keys)[:, None, :]
        (holds,) = group.leaves.pairs(q.clamp(max=group.queries - 1), k.clamp(max=group.keys - 1), attend)
        found += int((holds & inside).sum())
    return found
