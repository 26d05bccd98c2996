"""Leaves -> boxes: a quadtree over tiles, from coarse to fine, all boxes of a level at once.

A box that is EMPTY is dropped; one that is FULL with every gate settled is kept as it is; the others are split, down to single
tiles. Tiles still undecided there are evaluated pair by pair, within a budget; what is left beyond it stays PARTIAL, which is
right and only slower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..grammar.checked import Type
from .bounds import Array, Bound, Interval, Truth, bound
from .exact import REFINE_PAIRS, Exact
from .ir import Apply, Expr, Load, Op, Side
from .labels import EMPTY, PARTIAL, State, state
from .leaves import Leaves
from .questions import GateQuestion, Questions
from .summaries import Summaries
from .terms import Step, Term

COARSEST = 32  # boxes along an axis at the first level
PROBE_BOXES = 20_000  # undecided boxes of one level, from which on a probe asks whether it is worth going on
MOST_BOXES = 2_000_000  # boxes looked at; what would take more is called PARTIAL as it is
MOST_FOR_NOTHING = 500_000  # the same where a level of them decided next to nothing
DECIDED_LITTLE = 0.9  # the share of a level's boxes that are still undecided


@dataclass(frozen=True, slots=True)
class Boxes:
    """The root of a plan. A box of level l covers 2**l x 2**l tiles from tile (row << l, col << l)."""

    level: Array  # (boxes,) uint8
    row: Array  # (boxes,) int32, in boxes of its level
    col: Array  # (boxes,) int32
    label: Array  # (boxes,) uint8: PARTIAL bit, then the states of q, k and v
    evaluated: int  # boxes looked at
    inexact: int  # tiles called PARTIAL, or MIXED, that nobody evaluated


@dataclass(frozen=True, slots=True)
class _Grid:
    """The tiles of a mask: how many tokens there are, and in tiles of which size."""

    queries: int
    keys: int
    tile: int

    @property
    def rows(self) -> int:
        return -(-self.queries // self.tile)

    @property
    def cols(self) -> int:
        return -(-self.keys // self.tile)

    @property
    def overhangs(self) -> bool:
        return self.queries % self.tile > 0 or self.keys % self.tile > 0

    def coarsest(self) -> int:
        level = 0
        while max(self.rows, self.cols) > COARSEST << level:
            level += 1
        return level

    def all(self, level: int) -> tuple[Array, Array]:
        """Every box of a level."""
        row, col = np.arange(-(-self.rows // (1 << level))), np.arange(-(-self.cols // (1 << level)))
        return row.repeat(len(col)), np.tile(col, len(row))

    def children(self, row: Array, col: Array, level: int) -> tuple[Array, Array]:
        """The four quarters of each box of a level, those that hold a tile."""
        row, col = 2 * row, 2 * col
        row, col = np.concatenate([row, row, row + 1, row + 1]), np.concatenate([col, col + 1, col, col + 1])
        if (self.rows | self.cols) & ((1 << level) - 1) == 0:
            return row, col
        inside = np.flatnonzero(((row << (level - 1)) < self.rows) & ((col << (level - 1)) < self.cols))
        return row[inside], col[inside]

    def within(self, row: Array, col: Array, level: int) -> Array:
        """Boxes that hold whole tiles alone."""
        side = self.tile << level
        return ((row + 1) * side <= self.queries) & ((col + 1) * side <= self.keys)

    def tiles(self, row: Array, col: Array, level: int) -> int:
        """Tiles in some boxes: the last box along an axis may hang over its edge."""
        high, wide = (np.minimum((x + 1) << level, n) - (x << level) for x, n in ((row, self.rows), (col, self.cols)))
        return int(high @ wide)


def classify(ask: Questions, leaves: Leaves, queries: int, keys: int, tile: int, most_pairs: int = REFINE_PAIRS) -> Boxes:
    """The boxes of one (row of the batch, layer, head). `leaves` belong to `ask.split`; `most_pairs` are evaluated to settle tiles."""
    with np.errstate(all="ignore"):  # whole numbers wrap, floats may be none
        return _classified(ask, leaves, queries, keys, tile, most_pairs)


def _classified(ask: Questions, leaves: Leaves, queries: int, keys: int, tile: int, most_pairs: int) -> Boxes:
    grid, summaries = _Grid(queries, keys, tile), Summaries(leaves, tile)
    exact = Exact(ask, leaves, queries, keys, tile, most_pairs)
    kept = [_Kept.of(0, *np.zeros((3, 0), np.int64))]
    evaluated = inexact = 0
    level = grid.coarsest()
    row, col = grid.all(level)
    while len(row):
        looked_at = len(row)
        evaluated += looked_at
        row, col, must, label = _labelled(ask, summaries, level, row, col)
        full = must & grid.within(row, col, level) if grid.overhangs else must
        label = np.where(full, label, label | PARTIAL)
        # A tile that hangs over the end is PARTIAL, and nothing is left to ask of it.
        settled = (must if level == 0 else full) & _settled(ask, label)
        done, open_boxes = np.flatnonzero(settled), np.flatnonzero(~settled)
        kept.append(_Kept.of(level, row[done], col[done], label[done]))
        row, col, label = row[open_boxes], col[open_boxes], label[open_boxes]
        if level == 0:
            label, inexact = exact.labels(row, col, label)
            some = np.flatnonzero(label != EMPTY)
            kept.append(_Kept.of(level, row[some], col[some], label[some]))
            break
        if _is_enough(exact, grid, row, col, level, looked_at, evaluated):
            inexact = grid.tiles(row, col, level)
            kept.append(_Kept.of(level, row, col, label))
            break
        row, col = grid.children(row, col, level)
        level -= 1
    level_of, row, col, label = (np.concatenate(x) for x in zip(*kept, strict=True))
    return Boxes(level_of, row, col, label, evaluated, inexact)


def _is_enough(exact: Exact, grid: _Grid, row: Array, col: Array, level: int, looked_at: int, evaluated: int) -> bool:
    """Whether the undecided boxes of a level stay as they are: masks that are PARTIAL everywhere would be split down to single tiles for nothing."""
    if len(row) <= PROBE_BOXES:
        return False
    most = MOST_FOR_NOTHING if len(row) > DECIDED_LITTLE * looked_at else MOST_BOXES
    return evaluated + 4 * len(row) > most or exact.mostly_partial(row, col, level, grid.rows, grid.cols)


class _Kept(NamedTuple):
    """Boxes of one level that are looked at no further, as `Boxes` has them."""

    level: Array
    row: Array
    col: Array
    label: Array

    @staticmethod
    def of(level: int, row: Array, col: Array, label: Array) -> _Kept:
        return _Kept(np.full(len(row), level, np.uint8), row.astype(np.int32), col.astype(np.int32), label.astype(np.uint8))


# --------------------------------------------------------------------------------------------------- bounds of boxes


def _labelled(ask: Questions, summaries: Summaries, level: int, row: Array, col: Array) -> tuple[Array, Array, Array, Array]:
    """Those of some boxes that may hold a pair: row and col, whether they hold all, and the states of the gates as label bits."""
    mask = _truth(_bounds(ask.mask, summaries, level, row, col)[ask.attend_term], row)
    some = np.flatnonzero(mask.may)
    if len(some) < len(row):
        row, col, must = row[some], col[some], mask.must[some]
    else:
        must = mask.must
    label = np.full(len(row), ask.always, np.uint8)
    if ask.gates and len(row):
        of = _bounds(ask.rules, summaries, level, row, col)
        for asked in ask.gates:
            label = label | asked.bits(_gate_state(asked, of))
    return row, col, must, label


def _gate_state(asked: GateQuestion, of: Mapping[Term, Bound]) -> Array:
    weight, somewhere, everywhere = of[asked.weight], of[asked.somewhere], of[asked.everywhere]
    assert isinstance(weight, Interval) and isinstance(somewhere, Truth) and isinstance(everywhere, Truth)
    none = ~somewhere.may | ((weight.lo == 0) & (weight.hi == 0))
    all = everywhere.must & (weight.lo == 1) & (weight.hi == 1)
    return np.where(none, _NONE, np.where(all, _ALL, _MIXED))


_NONE, _MIXED, _ALL = (np.uint8(s) for s in (State.NONE, State.MIXED, State.ALL))


def _truth(found: Bound, like: Array) -> Truth:
    assert isinstance(found, Truth)
    return Truth(np.broadcast_to(found.must, like.shape), np.broadcast_to(found.may, like.shape))


def _bounds(steps: tuple[Step, ...], summaries: Summaries, level: int, row: Array, col: Array) -> dict[Term, Bound]:
    """The bound of every term in every box."""
    of: dict[Term, Bound] = {}
    for step in steps:
        here = step.term
        if not step.is_leaf:
            of[here] = found = bound(here.node, [of[a] for a in step.args])
            if isinstance(here.node, Load) and here.node.type is Type.BOOL:
                of[here] = _looked_up(here.node, [of[a] for a in step.args], found, summaries)
            if step.compared is not None and (apart := summaries.disjoint(*step.compared, level, row, col)) is not None:
                of[here] = _told_apart(here.node, found, apart)
            continue
        found = summaries.bound(here, level)
        if step.side is not None:
            place = row if step.side is Side.QUERY else col
            match found:
                case Truth(must=must, may=may):
                    found = Truth(must.take(place), may.take(place))
                case Interval(lo=lo, hi=hi, least=least, most=most):
                    found = Interval(lo.take(place), hi.take(place), least, most)
        of[here] = found
    return of


def _told_apart(node: Expr, found: Bound, apart: Array) -> Bound:
    """`==` and `!=` of two leaves, by the sets of their values as well."""
    assert isinstance(found, Truth) and isinstance(node, Apply)
    return Truth(found.must, found.may & ~apart) if node.op is Op.EQ else Truth(found.must | apart, found.may)


def _looked_up(node: Load, indices: list[Bound], found: Bound, summaries: Summaries) -> Bound:
    """A table of truths, by how many of its elements hold between the ends of the subscripts. Those that are one number for all boxes choose a part of it."""
    ends = [x for x in indices if isinstance(x, Interval)]
    fixed = tuple(int(x.lo) if x.lo.ndim == x.hi.ndim == 0 and x.lo == x.hi else None for x in ends)
    counts = summaries.counted(node.table, fixed)
    return found if counts is None else counts.between([x for x, at in zip(ends, fixed, strict=True) if at is None])


def _settled(ask: Questions, label: Array) -> Array:
    settled = np.ones(len(label), bool)
    for asked in ask.gates:
        settled &= state(label, asked.names[0]) != State.MIXED
    return settled
