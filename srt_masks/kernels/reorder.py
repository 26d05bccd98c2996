"""Tokens from the caller's order to a plan's, and results back: one gather each way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..compiler.order import inverse
from ..compiler.plan import Plan
from ..diagnostics import InputError


@dataclass(frozen=True)
class Permutation:
    """For every (batch row, head) or for all of them, the token at each place. `places` undoes it."""

    tokens: Tensor  # (tokens,), or (batch, heads, tokens) int64

    @cached_property
    def places(self) -> Tensor:
        if self.tokens.ndim == 1:
            return inverse(self.tokens)
        return torch.empty_like(self.tokens).scatter_(-1, self.tokens, torch.arange(self.tokens.shape[-1]).expand_as(self.tokens))

    def to(self, device: torch.device) -> Moves:
        return Moves(self.tokens.to(device), self.places.to(device))


@dataclass(frozen=True, slots=True)
class Moves:
    """A permutation as indices on a device: to the order of a plan, and back to the caller's."""

    there: Tensor
    back: Tensor


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A plan's orders on a device, of queries and of keys."""

    queries: Moves
    keys: Moves

    def is_like(self, other: Arrangement | None) -> bool:
        return other is not None and torch.equal(self.queries.there, other.queries.there) and torch.equal(self.keys.there, other.keys.there)


_ARRANGED: WeakKeyDictionary[Plan, dict[tuple[int, torch.device], Arrangement]] = WeakKeyDictionary()


def arrangement(plan: Plan, heads_per_key: int, device: torch.device) -> Arrangement | None:
    """None for a plan in the caller's order. Heads that share a key head must share its order, which `make_plan` sees to."""
    if all(g.order is None for g in plan.groups):
        return None
    known = _ARRANGED.setdefault(plan, {})
    if (heads_per_key, device) not in known:
        queries, keys = permutations(plan, heads_per_key)
        there = queries.to(device)
        known[heads_per_key, device] = Arrangement(there, there if keys is queries else keys.to(device))
    return known[heads_per_key, device]


def arrangement_of(plan: Plan, heads_per_key: int, device: torch.device, visited: Tensor) -> Arrangement | None:
    """The same for rows that come as `visited` says, (tokens,) int64 on the CPU; None where they come as the plan visits them. Raises InputError for what is
    no order."""
    own = plan.own_visited
    if own is not None and (own is visited or torch.equal(own, visited)):
        return None
    places = places_of(visited)
    if not plan.groups:  # a batch of none: no row that could be gathered
        return None
    queries, keys = (Permutation(places[p.tokens]) for p in permutations(plan, heads_per_key))
    return Arrangement(queries.to(device), keys.to(device))


def places_of(visited: Tensor) -> Tensor:
    """(tokens,) int64: the row of each token. Raises InputError unless `visited` names every token once."""
    if not torch.equal(visited.sort().values, torch.arange(len(visited))):
        raise InputError(
            f"visited holds the tokens of the rows of q, k and v, from 0 to {len(visited) - 1}, each of them once; another is among them, or one comes twice"
        )
    return inverse(visited)


def permutations(plan: Plan, heads_per_key: int) -> tuple[Permutation, Permutation]:
    """Of queries and of keys. What is padding, and heads in the caller's order, stay."""
    g = plan.geometry
    first = plan.groups[0].order
    if first is not None and len(plan.groups) == 1 and (len(first.queries), len(first.keys)) == (g.queries, g.keys):
        queries = Permutation(first.queries)
        return queries, queries if first.keys is first.queries else Permutation(first.keys)
    queries = torch.arange(g.queries).repeat(g.batch, g.heads, 1)
    keys = torch.arange(g.keys).repeat(g.batch, g.heads // heads_per_key, 1)
    for group in plan.groups:
        if group.order is None:
            continue
        rows = torch.tensor(group.batch)[:, None]
        queries[rows, torch.tensor(group.heads), : group.queries] = group.order.queries
        keys[rows, torch.tensor(sorted({h // heads_per_key for h in group.heads})), : group.keys] = group.order.keys
    return Permutation(queries), Permutation(keys)


def reorder(x: Tensor, there: Tensor) -> Tensor:
    """x (batch, heads, tokens, ...) with `there[i]` at place i, as a tensor of its own. A permutation: its gradient is the inverse one, a gather
    as well, so nothing is ever added up in an order of its own."""
    if there.ndim == 1:
        return x.index_select(2, there)
    batch, heads = (torch.arange(n, device=x.device) for n in x.shape[:2])
    return x[batch[:, None, None], heads[:, None], there]
