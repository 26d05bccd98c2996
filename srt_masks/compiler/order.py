"""A candidate -> the order in which the tokens of one group are visited.

Leaves are evaluated in the caller's order and picked from by the permutation; boxes, runs and kernels see permuted tokens and know nothing of it.
Results come back in the caller's order at the boundary of the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from . import ir
from .candidates import Candidate
from .curves import hilbert
from .evaluate import Environment
from .ir import Gather, Program
from .leaves import Leaves, Split

NATURAL = "natural"


@dataclass(frozen=True, eq=False)
class Order:
    """The token at each place, in the order visited: `q[:, :, order.queries]` is what a kernel is given. Of the group's own tokens: what lies
    beyond them, in a row of the batch that is shorter than others, stays where it is."""

    name: str
    queries: Tensor  # (queries,) int64
    keys: Tensor  # (keys,) int64; the same tensor as `queries` where both sides are in one order

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """The place of each query and of each key: the inverse permutations."""
        places = inverse(self.queries)
        return places, places if self.keys is self.queries else inverse(self.keys)

    @property
    def nbytes(self) -> int:
        return 8 * (len(self.queries) + (0 if self.keys is self.queries else len(self.keys)))

    def picked(self, leaves: Leaves) -> Leaves:
        """The leaves of the tokens in this order."""
        environment = leaves.environment
        queries = environment.queries.at(self.queries)
        alike = self.keys is self.queries and environment.keys is environment.queries
        return leaves.over(queries, queries if alike else environment.keys.at(self.keys))

    def is_like(self, other: Order | None) -> bool:
        """Whether another visits the same tokens in the same order."""
        return other is not None and torch.equal(self.queries, other.queries) and torch.equal(self.keys, other.keys)


def inverse(permutation: Tensor) -> Tensor:
    places = torch.empty_like(permutation)
    places[permutation] = torch.arange(len(permutation))
    return places


def must_stay(program: Program, split: Split) -> str:
    """Why tokens can be visited in no order but the caller's; empty where they can."""
    if any(isinstance(n, Gather) for n in split.pairs):
        # It reads the leaf of a whole axis by position.
        return "an attribute is read at a position that query and key decide together"
    return ""


def arrange(candidate: Candidate, program: Program, environment: Environment, most: int | None = None) -> Order | None:
    """The candidate's order of the tokens, or of the first `most` of each side; None where it is the caller's own."""
    one_side = program.keys is None and program.asks is ir.TRUE
    keys = _sorted(candidate.keys, candidate.curve, environment, len(environment.keys), most)
    # One layout, whose tokens all ask: both sides read the same attributes, if the candidate treats them alike.
    alike = one_side and candidate.is_symmetric
    queries = keys if alike else _sorted(candidate.queries, candidate.curve, environment, len(environment.queries), most)
    if queries is None and keys is None:
        return None
    sizes = (len(environment.queries), len(environment.keys))
    whole = [torch.arange(n if most is None else min(n, most)) if x is None else x for x, n in zip((queries, keys), sizes, strict=True)]
    return Order(candidate.name, whole[0], whole[0] if alike else whole[1])


def _sorted(by: tuple[ir.Expr, ...], curve: bool, environment: Environment, tokens: int, most: int | None) -> Tensor | None:
    """The tokens, sorted; None where they are already."""
    values = [x.expand(tokens)[:most] for x in environment.evaluate(*by)]
    if curve:
        values = [hilbert(torch.stack([_dense(x) for x in values]))]
    order: Tensor | None = None
    for value in reversed(values):
        value = _ranks(value)
        value = value if order is None else value[order]
        if bool((value[1:] >= value[:-1]).all()):
            continue
        then = value.argsort(stable=True)
        order = then if order is None else order[then]
    if order is None or bool((order[1:] > order[:-1]).all()):
        return None
    return order


def _ranks(value: Tensor) -> Tensor:
    """A condition puts those that meet it first, unless they already stand at one end."""
    if value.dtype is not torch.bool:
        return value
    value = value.to(torch.uint8)
    return value if bool((value[1:] >= value[:-1]).all()) else 1 - value


def _dense(value: Tensor) -> Tensor:
    """Whole numbers from 0, small where the values lie close together."""
    if not len(value):
        return value
    least = value.min()
    return value - least if int(value.max()) - int(least) < len(value) else torch.unique(value, return_inverse=True)[1]
