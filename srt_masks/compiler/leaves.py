"""Where an expression about pairs falls apart into vectors: its leaves are evaluated once a token, the rest a tile at a time.

A *leaf* is a maximal sub-expression that reads at most one side. What is left between leaves and root are *pair nodes*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from . import ir
from .evaluate import Environment, read, step
from .ir import Expr, Gather, Load, Side


@dataclass(frozen=True, slots=True)
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
        values: dict[Expr, Tensor] = {}
        for leaf in self.split.constants:
            values[leaf] = self.values[leaf]
        for leaf in self.split.query:
            values[leaf] = self.values[leaf][queries].unsqueeze(-1)
        for leaf in self.split.key:
            values[leaf] = self.values[leaf][keys].unsqueeze(-2)
        wanted = set(ir.postorder(*roots)) if roots != self.split.roots else None
        for node in self.split.pairs:
            if wanted is not None and node not in wanted:
                continue
            match node:
                case Load(table=table, indices=indices):
                    values[node] = read(self.tables[table], [values[i] for i in indices])
                case Gather(value=value, index=index, filler=filler):
                    values[node] = read(self.values[value], [values[index]], filler)
                case _:
                    values[node] = step(node, values)
        return [values[r] for r in roots]


def evaluate(split: Split, environment: Environment) -> Leaves:
    """Every leaf over its whole axis."""
    wanted = split.leaves
    values = dict(zip(wanted, environment.evaluate(*wanted), strict=True))
    for leaf, side in [(x, environment.queries) for x in split.query] + [(x, environment.keys) for x in split.key]:
        values[leaf] = values[leaf].expand(len(side)).contiguous()
    return Leaves(split, values, {t: environment.inputs[t] for t in split.tables})


def same(a: Leaves, b: Leaves) -> bool:
    """Whether two heads (or rows) have one mask: equal leaves, and equal tables."""
    return all(torch.equal(a.values[x], b.values[x]) for x in a.split.leaves) and all(
        a.tables[t] is b.tables[t] or torch.equal(a.tables[t], b.tables[t]) for t in a.split.tables
    )
