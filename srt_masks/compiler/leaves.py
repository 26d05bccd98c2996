"""Where an expression about pairs falls apart into vectors: its leaves are evaluated once a token, the rest a tile at a time.

A *leaf* is a maximal sub-expression that reads at most one side. What is left between leaves and root are *pair nodes*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from . import ir
from .evaluate import Array, Environment, Values, array, read, step
from .ir import Expr, Gather, Load, Side
from .layout import Attributes


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Split:
    """The leaves of some roots, sorted by side, the pair nodes in order, and the tables that pair nodes read."""

    roots: tuple[Expr, ...]
    constants: tuple[Expr, ...]
    query: tuple[Expr, ...]
    key: tuple[Expr, ...]
    pairs: tuple[Expr, ...]
    tables: tuple[str, ...]

    @property
    def leaves(self) -> tuple[Expr, ...]:
        return self.constants + self.query + self.key


def split(*roots: Expr) -> Split:
    leaves: dict[Expr, None] = {}
    pairs: list[Expr] = []
    inside: set[Expr] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node in inside or node in leaves:
            continue
        if len(ir.sides(node)) < 2:
            leaves[node] = None
            continue
        inside.add(node)
        # The token expression a `Gather` reads is a leaf of its own, over the whole axis.
        stack += ir.children(node)
    pairs = [n for n in ir.postorder(*roots) if n in inside]
    by_side = {s: tuple(x for x in leaves if ir.sides(x) == s) for s in (frozenset(), frozenset({Side.QUERY}), frozenset({Side.KEY}))}
    tables = tuple(dict.fromkeys(n.table for n in pairs if isinstance(n, Load)))
    return Split(roots, by_side[frozenset()], by_side[frozenset({Side.QUERY})], by_side[frozenset({Side.KEY})], tuple(pairs), tables)


@lru_cache(maxsize=256)
def _part(whole: Split, roots: tuple[Expr, ...]) -> Split:
    """What of a split is computed of a pair, for some of its roots. What a `Gather` lands on is not read at the pair's own tokens."""
    wanted = set(ir.postorder(*roots))
    pairs = tuple(n for n in whole.pairs if n in wanted)
    here = set(roots).union(*((n.index,) if isinstance(n, Gather) else ir.children(n) for n in pairs))
    constants, query, key = (tuple(x for x in leaves if x in here) for leaves in (whole.constants, whole.query, whole.key))
    return Split(roots, constants, query, key, pairs, whole.tables)


class Vectors(Mapping[Expr, Tensor]):
    """The values of leaves over whole axes, each made when it is first asked for; or at some tokens, made for these alone."""

    def __init__(self, environment: Environment, leaves: tuple[Expr, ...]):
        self.environment, self._leaves = environment, leaves

    def __getitem__(self, leaf: Expr) -> Tensor:
        return self.environment.vector(leaf)

    def __iter__(self) -> Iterator[Expr]:
        return iter(self._leaves)

    def __len__(self) -> int:
        return len(self._leaves)

    def at(self, side: Side, index: Array, *leaves: Expr) -> list[Array]:
        """Leaves of one side at places of its axis, each in the shape of `index`."""
        if index.size >= len(self.environment.axis(side)) or all(self.environment.name(x) in self.environment.vectors for x in leaves):
            return [array(self[x])[index] for x in leaves]
        return self.environment.at(side, index, *leaves)


@dataclass(frozen=True, slots=True)
class Leaves:
    """The values of a split's leaves: () for constants, (queries,) or (keys,) for the others; and its tables."""

    split: Split
    values: Mapping[Expr, Tensor]
    tables: Mapping[str, Tensor]

    def pairs(self, queries: Tensor | slice, keys: Tensor | slice, *roots: Expr) -> list[Tensor]:
        """Each root over some pairs. `queries` picks from the query axis: a slice, or indices (..., rows); `keys` likewise.

        Returns tensors that broadcast to (..., rows, columns).
        """
        part = _part(self.split, roots)
        values: dict[Expr, Tensor] = {leaf: self.values[leaf] for leaf in part.constants}
        for leaf, value in zip(part.query, self._some(Side.QUERY, queries, part.query), strict=True):
            values[leaf] = value.unsqueeze(-1)
        for leaf, value in zip(part.key, self._some(Side.KEY, keys, part.key), strict=True):
            values[leaf] = value.unsqueeze(-2)
        return _combined(part, values, self.tables, self._landed)

    def sampled(self, queries: Array, keys: Array, *roots: Expr) -> list[Array]:
        """Each root over a few pairs: places along each axis, which broadcast, and so do the results."""
        assert isinstance(self.values, Vectors)
        part = _part(self.split, roots)
        values = {leaf: array(self.values[leaf]) for leaf in part.constants}
        values |= zip(part.query, self.values.at(Side.QUERY, queries, *part.query), strict=True)
        values |= zip(part.key, self.values.at(Side.KEY, keys, *part.key), strict=True)
        with np.errstate(all="ignore"):  # whole numbers wrap, floats may be none
            return _combined(part, values, {t: array(self.tables[t]) for t in part.tables}, lambda x: array(self._landed(x)))

    @property
    def environment(self) -> Environment:
        """What leaves are evaluated in, unless they were handed over as tensors."""
        assert isinstance(self.values, Vectors)
        return self.values.environment

    def over(self, queries: Attributes, keys: Attributes) -> Leaves:
        """The same leaves over other tokens of the same axes, or in another order."""
        everyone = self.environment.everyone or self.environment.keys
        return evaluate(self.split, replace(self.environment, queries=queries, keys=keys, everyone=everyone))

    def _landed(self, value: Expr) -> Tensor:
        """What a `Gather` reads from: every key, in order."""
        return self.environment.landed(value) if isinstance(self.values, Vectors) else self.values[value]

    def _some(self, side: Side, place: Tensor | slice, leaves: tuple[Expr, ...]) -> list[Tensor]:
        if isinstance(self.values, Vectors) and isinstance(place, Tensor):
            return [torch.from_numpy(x if x.flags.writeable else x.copy()) for x in self.values.at(side, place.numpy(), *leaves)]
        return [self.values[x][place] for x in leaves]


def _combined(part: Split, values: dict[Expr, Values], tables: Mapping[str, Values], landed: Callable[[Expr], Values]) -> list[Values]:
    """The roots of a split, from the values of its leaves at some pairs."""
    for node in part.pairs:
        match node:
            case Load(table=table, indices=indices):
                values[node] = read(tables[table], [values[i] for i in indices])
            case Gather(value=value, index=index, filler=filler):
                values[node] = read(landed(value), [values[index]], filler)
            case _:
                values[node] = step(node, values)
    return [values[r] for r in part.roots]


def evaluate(split: Split, environment: Environment) -> Leaves:
    """Every leaf over its whole axis, when it is asked for."""
    return Leaves(split, Vectors(environment, split.leaves), {t: environment.inputs[t] for t in split.tables})


def same(a: Leaves, b: Leaves) -> bool:
    """Whether two heads (or layers, or rows) have one mask: equal leaves, and equal tables."""
    return all(_same_leaf(a, b, x) for x in a.split.leaves) and all(_equal(a.tables[t], b.tables[t]) for t in a.split.tables)


def _same_leaf(a: Leaves, b: Leaves, leaf: Expr) -> bool:
    match a.values, b.values:
        case (Vectors(environment=one), Vectors(environment=other)) if one.vectors is other.vectors and one.name(leaf) == other.name(leaf):
            return True  # it reads the same, and need not be evaluated
        case _:
            return _equal(a.values[leaf], b.values[leaf])


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or torch.equal(a, b)
