"""What is known of a leaf over the tokens of a tile, and of 2, 4, 8 ... tiles: its bound, and the set of its values, hashed.

A leaf that rises or falls along a stretch is read at the ends of a tile; one that has a trend for every row of the step, at the first and last of each
row; one that is the same throughout a step, once a step. Only others are evaluated at every token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from ..grammar.checked import Type
from . import ir
from .bounds import Array, Bound, Interval, Truth, joined, met_in, of_groups
from .counts import Counts, selected
from .evaluate import Environment, array
from .ir import Side
from .layout import Attributes
from .leaves import Leaves, Vectors
from .terms import Term, term
from .trends import Trend, courses

SAMPLED = 64  # tiles of each side that are looked at to see whether sets of values tell anything
SETS_AT_ONCE = 4096  # tiles whose tokens are hashed at once
TELLING = 0.01  # the share of pairs of tiles that they must tell apart
SPREAD = -0x61C8864680B583EB  # 2**64 over the golden ratio: multiples of it spread over the high bits


@dataclass(frozen=True, slots=True, eq=False)
class Summaries:
    """Of the leaves of one (row of the batch, layer, head), by tiles of one size."""

    leaves: Leaves
    tile: int
    pyramids: dict[Term, list[Bound]] = field(default_factory=dict)
    sets: dict[Term, list[Array]] = field(default_factory=dict)
    telling: dict[tuple[Term, Term], bool] = field(default_factory=dict)
    counts: dict[tuple[str, tuple[int | None, ...]], Counts | None] = field(default_factory=dict)

    def bound(self, leaf: Term, level: int) -> Bound:
        """Of every box of 2**level tiles along the leaf's axis, (boxes,); of a constant, ()."""
        if leaf not in self.pyramids:
            self.pyramids[leaf] = [self._base(leaf)]
        pyramid = self.pyramids[leaf]
        while len(pyramid) <= level:
            pyramid.append(pyramid[-1] if leaf.side is None else _paired(pyramid[-1]))
        return pyramid[level]

    def disjoint(self, query: Term, key: Term, level: int, row: Array, col: Array) -> Array | None:
        """Which boxes have no value of the one leaf among those of the other; None if nobody needs to ask."""
        pair = query, key
        if pair not in self.telling:
            self.telling[pair] = self._tells(query, key)
        if not self.telling[pair]:
            return None
        mine, theirs = (self._set(leaf, level) for leaf in pair)
        return _apart(mine.take(row, 1), theirs.take(col, 1))

    def counted(self, table: str, fixed: tuple[int | None, ...]) -> Counts | None:
        """The counts of a table of truths at some fixed subscripts (None: not fixed); None if it has too many elements or subscripts."""
        name = table, fixed
        if name not in self.counts:
            self.counts[name] = Counts.of(selected(array(self.leaves.tables[table]), fixed))
        return self.counts[name]

    # ------------------------------------------------------------------------------------------ single tiles

    @property
    def _environment(self) -> Environment:
        return self.leaves.environment

    def _base(self, leaf: Term) -> Bound:
        if leaf.side is None:
            value = array(self.leaves.values[leaf.node]).reshape(1, 1)
            return _each(of_groups(value), lambda x: x[0])
        name = self.tile, self._environment.name(leaf.node), self._environment.name(leaf.guard)
        known = self._environment.summaries
        if name not in known:
            known[name] = self._guarded(leaf) if leaf.guard is not ir.TRUE else self._over(leaf, None)
        return known[name]

    def _guarded(self, leaf: Term) -> Bound:
        """Only a tile where some tokens meet the guard and some do not is looked at again."""
        guard = self.bound(term(leaf.guard), 0)
        plain = self.bound(Term(leaf.node), 0)
        assert isinstance(guard, Truth)
        mixed = np.flatnonzero(guard.may & ~guard.must)
        found = met_in(plain, guard.may)
        if len(mixed):
            found = _replaced(found, mixed, self._over(leaf, mixed))
        return found

    def _over(self, leaf: Term, tiles: Array | None) -> Bound:
        """Over some tiles, or all, from as few of their tokens as tell."""
        axis = self._environment.axis(leaf.side or Side.KEY)
        count = -(-len(axis) // self.tile)
        where = self._witnesses(leaf, axis)
        dense = np.arange(self.tile)
        if where is None:
            if tiles is not None and 2 * len(tiles) < count:
                return self._at(leaf, tiles, dense)
            found = self._whole(leaf)
            return found if tiles is None else _each(found, lambda x: x[tiles])
        found = self._at(leaf, np.arange(count) if tiles is None else tiles, where)
        # A tile where a stretch ends and another begins holds tokens of both.
        edges = np.unique([s.begin // self.tile for s in axis.stretches[1:] if s.begin % self.tile]).astype(np.int64)
        place = edges
        if tiles is not None:
            edges = edges[np.isin(edges, tiles)]
            place = np.searchsorted(tiles, edges)
        return _replaced(found, place, self._at(leaf, edges, dense)) if len(edges) else found

    def _witnesses(self, leaf: Term, axis: Attributes) -> Array | None:
        """Which tokens of a tile tell all of it, as places from its beginning (or, negative, from its end): (places,); None if all do."""
        periods = [s.period for s in axis.stretches]
        if not periods or len(periods) > len(axis) // self.tile // 8 + 8:
            return None
        known = courses(self._environment, leaf.node, leaf.guard)
        own, guard = known[leaf.node], known[leaf.guard]
        by_row, by_place = own.by_row or guard.by_row, own.by_place or guard.by_place
        found: list[Array] = []
        if own.trend is not Trend.ANY and guard.trend is Trend.LEVEL and (not by_row or min(periods) > 0):
            reach = max(periods) if by_row else 1
            found.append(np.concatenate([np.arange(reach), -1 - np.arange(reach)]))
        if not by_row and not by_place and min(periods) > 1:
            found.append(np.append(np.arange(0, self.tile, min(periods)), -1))
        few = min(found, key=len, default=None)
        return few if few is not None and 2 * len(few) <= self.tile else None

    def _at(self, leaf: Term, tiles: Array, where: Array) -> Bound:
        """Over some tiles, from some places of each."""
        return of_groups(*self._values(leaf, tiles, where))

    def _values(self, leaf: Term, tiles: Array, where: Array) -> tuple[Array, Array | None]:
        """The leaf at some places of some tiles, (places, tiles), and whether its guard is met there."""
        axis = self._environment.axis(leaf.side or Side.KEY)
        begin = tiles * self.tile
        last = np.minimum(begin + self.tile, len(axis)) - 1
        where = where[:, None]
        index = np.clip(np.where(where < 0, last + 1 + where, begin + where), begin, last)
        assert isinstance(self.leaves.values, Vectors) and leaf.side is not None
        wanted = [leaf.node] if leaf.guard is ir.TRUE else [leaf.node, leaf.guard]
        values = self.leaves.values.at(leaf.side, index, *wanted)
        return values[0], values[1] if len(values) > 1 else None

    def _whole(self, leaf: Term) -> Bound:
        """Over all tiles, from every token."""
        value = array(self.leaves.values[leaf.node])
        met = array(self.leaves.values[leaf.guard]) if leaf.guard is not ir.TRUE else None
        whole = len(value) // self.tile * self.tile
        parts = [x for x in (slice(0, whole), slice(whole, len(value))) if x.start < x.stop]
        found = [of_groups(self._groups(value[x]), None if met is None else self._groups(met[x])) for x in parts]
        return found[0] if len(found) == 1 else _cat(*found)

    def _groups(self, values: Array) -> Array:
        """Whole tiles of tokens, or one that is shorter: (tokens, tiles)."""
        return values.reshape(-1, min(self.tile, len(values))).T

    # ------------------------------------------------------------------------------------------ sets of values

    def _tells(self, query: Term, key: Term) -> bool:
        """Whether sets of values tell tiles apart that intervals do not; judged by some tiles."""
        if query.node.type not in (Type.INT, Type.ROLE) or key.node.type not in (Type.INT, Type.ROLE):
            return False
        environment = self._environment
        known = courses(environment, query.node, key.node)
        if all(known[x.node].trend is not Trend.ANY and not known[x.node].by_row for x in (query, key)):
            return False
        generator = np.random.default_rng(0)
        intervals, sets = [], []
        for leaf in (query, key):
            bound = self.bound(leaf, 0)
            assert isinstance(bound, Interval)
            some = generator.permutation(len(bound.lo))[:SAMPLED]
            intervals.append(Interval(bound.lo[some], bound.hi[some]))
            sets.append(_hashed(*self._values(leaf, some, np.arange(self.tile))))
        a, b = intervals
        meet = (a.lo[:, None] <= b.hi) & (b.lo <= a.hi[:, None])
        apart = _apart(sets[0][:, :, None], sets[1][:, None, :])
        return bool((meet & apart).sum() > TELLING * meet.sum())

    def _set(self, leaf: Term, level: int) -> Array:
        """The values of every box, hashed in two ways: (2, boxes) int64, a bit for each of 64."""
        if leaf not in self.sets:
            axis = self._environment.axis(leaf.side or Side.KEY)
            tiles = np.arange(-(-len(axis) // self.tile))
            _ = self.leaves.values[leaf.node]  # every token is looked at: made once, it is at hand
            parts = [tiles[begin : begin + SETS_AT_ONCE] for begin in range(0, len(tiles), SETS_AT_ONCE)]
            self.sets[leaf] = [np.concatenate([_hashed(*self._values(leaf, some, np.arange(self.tile))) for some in parts], 1)]
        pyramid = self.sets[leaf]
        while len(pyramid) <= level:
            below = pyramid[-1]
            whole = below.shape[1] // 2 * 2
            above = below[:, 0:whole:2] | below[:, 1:whole:2]
            pyramid.append(np.concatenate([above, below[:, whole:]], 1))
        return pyramid[level]


def _hashed(values: Array, met: Array | None) -> Array:
    """The sets of the values of each group (tokens, groups): (2, groups)."""
    with np.errstate(over="ignore"):
        bits = np.stack([values & 63, ((values * SPREAD) >> 58) & 63])
    bits = 1 << bits
    if met is not None:
        bits = np.where(met, bits, 0)
    return np.bitwise_or.reduce(bits, axis=1)


def _apart(mine: Array, theirs: Array) -> Array:
    """(2, ...) sets that share no value by either hash."""
    shared = mine & theirs
    return (shared[0] == 0) | (shared[1] == 0)


# ------------------------------------------------------------------------------------------------ many boxes at once


def _each(bound: Bound, change: Callable[[Array], Array]) -> Bound:
    match bound:
        case Truth(must=must, may=may):
            return Truth(change(must), change(may))
        case Interval(lo=lo, hi=hi):
            return replace(bound, lo=change(lo), hi=change(hi))


def _paired(bound: Bound) -> Bound:
    """Of every two neighbours; the last may be alone."""
    count = len(bound.may if isinstance(bound, Truth) else bound.lo)
    whole = count // 2 * 2
    above = joined(_each(bound, lambda x: x[0:whole:2]), _each(bound, lambda x: x[1:whole:2]))
    return above if whole == count else _cat(above, _each(bound, lambda x: x[whole:]))


def _cat(a: Bound, b: Bound) -> Bound:
    match a, b:
        case Truth(), Truth():
            return Truth(np.concatenate([a.must, b.must]), np.concatenate([a.may, b.may]))
        case Interval(), Interval():
            return Interval(np.concatenate([a.lo, b.lo]), np.concatenate([a.hi, b.hi]), min(a.least, b.least), max(a.most, b.most))
        case _:
            raise AssertionError("a mask and a number")


def _replaced(bound: Bound, where: Array, by: Bound) -> Bound:
    def put(values: Array, new: Array) -> Array:
        values = values.copy()
        values[where] = new
        return values

    match bound, by:
        case Truth(), Truth():
            return Truth(put(bound.must, by.must), put(bound.may, by.may))
        case Interval(), Interval():
            return Interval(put(bound.lo, by.lo), put(bound.hi, by.hi), min(bound.least, by.least), max(bound.most, by.most))
        case _:
            raise AssertionError("a mask and a number")
