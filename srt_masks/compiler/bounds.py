"""What a pair expression can be inside a box of query and key tokens, without looking at its pairs.

The lattice: a mask is a `Truth` (whether it holds on all pairs; whether it may hold on any), a number an `Interval`. The default is *everything*: an
operator that is not listed, a table read at a pair, a NaN, an interval that would overflow 64 bits all widen to it. Leaves enter by what is known of
them over the tokens of a box that meet a guard. Where no token does, there is nothing to be said, and that is a value of its own, *bottom*: the mask
that holds on all of no pairs and may hold on none, the interval whose ends are crossed. Whatever follows from it is said of no pair.

All boxes of a level are bounded at once, as NumPy arrays: there are many small steps, and a call of NumPy's takes a fifth of one of torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grammar.checked import Type
from .ir import Apply, Expr, Op

LEAST, MOST = -(2**63), 2**63 - 1

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Truth:
    """A mask in many boxes, each bool (boxes,) or (): whether it holds on all pairs, whether it may hold on some."""

    must: Array
    may: Array

    @property
    def bottom(self) -> Array:
        return self.must & ~self.may


@dataclass(frozen=True, slots=True)
class Interval:
    """A number in many boxes: lo <= it <= hi; each (boxes,) or (), int64, or float64 for floats.

    Of whole numbers, no end of any box lies outside `least` .. `most`: where a sum of those does not overflow, nor does one of the ends.
    """

    lo: Array
    hi: Array
    least: int = LEAST
    most: int = MOST

    @property
    def bottom(self) -> Array:
        return self.lo > self.hi

    @property
    def constant(self) -> int | None:
        return self.least if self.least == self.most else None


Bound = Truth | Interval


def everything(type: Type) -> Bound:
    match type:
        case Type.BOOL:
            return Truth(np.array(False), np.array(True))
        case Type.FLOAT:
            return Interval(np.array(-np.inf), np.array(np.inf))
        case _:
            return Interval(np.array(LEAST), np.array(MOST))


def of_groups(values: Array, met: Array | None = None) -> Bound:
    """A leaf from its values in each group (tokens, groups), those where a guard is met alone; bottom where that is nowhere.

    NaN among them means everything.
    """
    if values.dtype == np.bool_:
        if met is None:
            return Truth(_every(values), _any(values))
        return Truth(_every(values | ~met), _any(values & met))
    if values.dtype.kind == "f":
        values = values.astype(np.float64, copy=False)
        lo, hi = (values, values) if met is None else (np.where(met, values, np.inf), np.where(met, values, -np.inf))
        lo, hi = lo.min(0), hi.max(0)
        broken = np.isnan(lo) | np.isnan(hi)
        return Interval(np.where(broken, -np.inf, lo), np.where(broken, np.inf, hi))
    values = values.astype(np.int64, copy=False)
    if met is None:
        lo, hi = values.min(0), values.max(0)
        return Interval(lo, hi, int(lo.min(initial=MOST)), int(hi.max(initial=LEAST))) if lo.size else Interval(lo, hi, 0, 0)
    lo, hi = np.where(met, values, MOST).min(0), np.where(met, values, LEAST).max(0)
    said = _any(met)
    return met_in(Interval(lo, hi, int(lo.min(initial=MOST, where=said)), int(hi.max(initial=LEAST, where=said))), said)


_every, _any = np.logical_and.reduce, np.logical_or.reduce


def met_in(bound: Bound, where: Array) -> Bound:
    """The bound in some boxes, and bottom in the others: the ends cross just beyond those of all boxes, so that others take no part in a join."""
    match bound:
        case Truth(must=must, may=may):
            return Truth(must | ~where, may & where)
        case Interval(lo=lo, hi=hi) if np.asarray(lo).dtype.kind == "f":
            return Interval(np.where(where, lo, np.inf), np.where(where, hi, -np.inf))
        case Interval(lo=lo, hi=hi, least=least, most=most):
            if least > most:  # bottom everywhere
                least, most = 0, 0
            below, above = max(least - 1, LEAST), min(most + 1, MOST)
            return Interval(np.where(where, lo, above), np.where(where, hi, below), below, above)


def joined(a: Bound, b: Bound) -> Bound:
    """What holds of two boxes together."""
    match a, b:
        case Truth(), Truth():
            return Truth(a.must & b.must, a.may | b.may)
        case Interval(), Interval():
            return Interval(np.minimum(a.lo, b.lo), np.maximum(a.hi, b.hi), min(a.least, b.least), max(a.most, b.most))
        case _:
            raise AssertionError("a mask and a number")


def bound(node: Expr, args: Sequence[Bound]) -> Bound:
    """The bound of one pair node from those of its arguments; of a chain from all its links. Ends may wrap on the way: NumPy must not warn of it."""
    if not isinstance(node, Apply):
        return everything(node.type)
    if any(a.type is Type.FLOAT for a in node.args):
        return _floats(node, args)
    if node.op in _LOGIC:
        return _LOGIC[node.op]([x for x in args if isinstance(x, Truth)])
    if node.op is Op.SELECT:
        condition, a, b = args
        assert isinstance(condition, Truth)
        if isinstance(a, Truth) and isinstance(b, Truth):
            return _chosen(condition, a, b)
        return _select(condition, _number(a), _number(b))
    rule = _RULES.get(node.op)
    return everything(node.type) if rule is None else rule(*(_number(x) for x in args))


def _number(x: Bound) -> Interval:
    """A mask as the number 0 or 1."""
    return x if isinstance(x, Interval) else Interval(x.must.astype(np.int64), x.may.astype(np.int64), 0, 1)


# ------------------------------------------------------------------------------------------------ masks


def _all_of(args: list[Truth]) -> Truth:
    must, may = args[0].must, args[0].may
    for x in args[1:]:
        must, may = must & x.must, may & x.may
    return Truth(must, may)


def _any_of(args: list[Truth]) -> Truth:
    must, may = args[0].must, args[0].may
    for x in args[1:]:
        must, may = must | x.must, may | x.may
    return Truth(must, may)


def _not(args: list[Truth]) -> Truth:
    return Truth(~args[0].may, ~args[0].must)


def _chosen(condition: Truth, a: Truth, b: Truth) -> Truth:
    must = (a.must & b.must) | (condition.must & a.must) | (~condition.may & b.must)
    return Truth(must, (condition.may & a.may) | (~condition.must & b.may))


def _less(a: Interval, b: Interval) -> Truth:
    return Truth(a.hi < b.lo, a.lo < b.hi)


def _at_most(a: Interval, b: Interval) -> Truth:
    return Truth(a.hi <= b.lo, a.lo <= b.hi)


def _equal(a: Interval, b: Interval) -> Truth:
    return Truth((a.lo == a.hi) & (b.lo == b.hi) & (a.lo == b.lo), (a.lo <= b.hi) & (b.lo <= a.hi))


def _unequal(a: Interval, b: Interval) -> Truth:
    return _not([_equal(a, b)])


_LOGIC: Mapping[Op, Callable[[list[Truth]], Truth]] = {Op.AND: _all_of, Op.OR: _any_of, Op.NOT: _not}


# ------------------------------------------------------------------------------------------------ whole numbers


def _fits(least: int, most: int) -> bool:
    return least >= LEAST and most <= MOST


def _unless(lost: Array, lo: Array, hi: Array) -> Interval:
    """Everything where 64 bits did not hold the ends."""
    return Interval(np.where(lost, LEAST, lo), np.where(lost, MOST, hi))


def _negative(a: Interval) -> Interval:
    if a.least > LEAST:
        return Interval(-a.hi, -a.lo, -a.most, -a.least)
    return _unless(a.lo == LEAST, -a.hi, -a.lo)


def _absolute(a: Interval) -> Interval:
    ends = abs(a.lo), abs(a.hi)
    low = np.where((a.lo <= 0) & (a.hi >= 0), 0, np.minimum(*ends))
    if a.least > LEAST:
        return Interval(low, np.maximum(*ends), 0, max(abs(a.least), abs(a.most)))
    return _unless(a.lo == LEAST, low, np.maximum(*ends))


def _sum(a: Interval, b: Interval) -> Interval:
    least, most = a.least + b.least, a.most + b.most
    if _fits(least, most):
        return Interval(a.lo + b.lo, a.hi + b.hi, least, most)
    lo, hi = a.lo + b.lo, a.hi + b.hi
    return _unless((((a.lo ^ lo) & (b.lo ^ lo)) | ((a.hi ^ hi) & (b.hi ^ hi))) < 0, lo, hi)


def _difference(a: Interval, b: Interval) -> Interval:
    least, most = a.least - b.most, a.most - b.least
    if _fits(least, most):
        return Interval(a.lo - b.hi, a.hi - b.lo, least, most)
    lo, hi = a.lo - b.hi, a.hi - b.lo
    return _unless((((a.lo ^ b.hi) & (a.lo ^ lo)) | ((a.hi ^ b.lo) & (a.hi ^ hi))) < 0, lo, hi)


def _product(a: Interval, b: Interval) -> Interval:
    most = [x * y for x in (a.least, a.most) for y in (b.least, b.most)]
    fits = _fits(min(most), max(most))
    if fits and b.constant is not None:
        ends = (a.lo * b.constant, a.hi * b.constant) if b.constant >= 0 else (a.hi * b.constant, a.lo * b.constant)
        return Interval(*ends, min(most), max(most))
    pairs = [(x, y) for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
    lo, hi = _extremes([x * y for x, y in pairs])
    if fits:
        return Interval(lo, hi, min(most), max(most))
    # A product beyond 2**62 by its float may wrap.
    large = [abs(x.astype(np.float64) * y.astype(np.float64)) >= 2.0**62 for x, y in pairs]
    return _unless(large[0] | large[1] | large[2] | large[3], lo, hi)


def _extremes(corners: list[Array]) -> tuple[Array, Array]:
    a, b, c, d = corners
    return np.minimum(np.minimum(a, b), np.minimum(c, d)), np.maximum(np.maximum(a, b), np.maximum(c, d))


def _quotient(a: Interval, b: Interval) -> Interval:
    if b.constant is not None and b.constant > 0:
        return Interval(a.lo // b.constant, a.hi // b.constant, a.least // b.constant, a.most // b.constant)
    exact = (b.lo == b.hi) & (b.lo > 0)
    d = np.where(exact, b.lo, 1)
    return _unless(~exact, a.lo // d, a.hi // d)


def _remainder(a: Interval, b: Interval, left: Interval | None = None, right: Interval | None = None) -> Interval:
    """Of `left` - `right`, if they are given: (A - B) % m is (A % m - B % m) % m too, unless A - B wraps."""
    direct = _within_a_lap(a, b)
    if left is None or right is None:
        return direct
    other = _within_a_lap(_difference(left, right), b)
    known = (b.lo == b.hi) & (b.lo > 0)
    if a.least == LEAST or a.most == MOST:
        known = known & (a.lo > LEAST) & (a.hi < MOST)
    return replace(direct, lo=np.where(known, np.maximum(direct.lo, other.lo), direct.lo), hi=np.where(known, np.minimum(direct.hi, other.hi), direct.hi))


def _within_a_lap(a: Interval, b: Interval) -> Interval:
    if b.constant is not None and b.constant > 0:
        d = b.constant
        low, high = a.lo // d, a.hi // d
        one_lap = low == high
        return Interval(np.where(one_lap, a.lo - low * d, 0), np.where(one_lap, a.hi - high * d, d - 1), 0, d - 1)
    exact = (b.lo == b.hi) & (b.lo > 0)
    d = np.where(exact, b.lo, 1)
    one_lap = a.lo // d == a.hi // d
    return _unless(~exact, np.where(one_lap, a.lo % d, 0), np.where(one_lap, a.hi % d, d - 1))


def _least(a: Interval, b: Interval) -> Interval:
    return Interval(np.minimum(a.lo, b.lo), np.minimum(a.hi, b.hi), min(a.least, b.least), min(a.most, b.most))


def _greatest(a: Interval, b: Interval) -> Interval:
    return Interval(np.maximum(a.lo, b.lo), np.maximum(a.hi, b.hi), max(a.least, b.least), max(a.most, b.most))


def _select(condition: Truth, a: Interval, b: Interval) -> Interval:
    lo = np.where(condition.must, a.lo, np.where(condition.may, np.minimum(a.lo, b.lo), b.lo))
    hi = np.where(condition.must, a.hi, np.where(condition.may, np.maximum(a.hi, b.hi), b.hi))
    return Interval(lo, hi, min(a.least, b.least), max(a.most, b.most))


_RULES: Mapping[Op, Callable[..., Bound]] = {
    Op.LT: _less,
    Op.LE: _at_most,
    Op.EQ: _equal,
    Op.NE: _unequal,
    Op.NEG: _negative,
    Op.ABS: _absolute,
    Op.ADD: _sum,
    Op.SUB: _difference,
    Op.MUL: _product,
    Op.FLOORDIV: _quotient,
    Op.MOD: _remainder,
    Op.MIN: _least,
    Op.MAX: _greatest,
}


# ------------------------------------------------------------------------------------------------ floats


def _floats(node: Apply, args: Sequence[Bound]) -> Bound:
    """Comparisons of finite intervals, choices, sums and products; rounding is monotone. Anything else is everything."""
    condition, numbers = (args[0], args[1:]) if node.op is Op.SELECT else (None, args)
    numbers = [_number(x) for x in numbers]
    numbers = [Interval(a.lo.astype(np.float64), a.hi.astype(np.float64)) for a in numbers]
    finite = np.array(True)
    for a in numbers:
        finite = finite & np.isfinite(a.lo) & np.isfinite(a.hi)
    result: Bound
    match node.op, numbers:
        case ((Op.LT | Op.LE | Op.EQ | Op.NE) as op, [a, b]):
            result = _RULES[op](a, b)
        case Op.SELECT, [a, b]:
            assert isinstance(condition, Truth)
            result = _select(condition, a, b)
        case Op.ADD, [a, b]:
            result = Interval(a.lo + b.lo, a.hi + b.hi)
        case Op.SUB, [a, b]:
            result = Interval(a.lo - b.hi, a.hi - b.lo)
        case Op.MUL, [a, b]:
            result = Interval(*_extremes([x * y for x in (a.lo, a.hi) for y in (b.lo, b.hi)]))
        case _:
            return everything(node.type)
    if isinstance(result, Truth):
        return Truth(result.must & finite, result.may | ~finite)
    return Interval(np.where(finite, result.lo, -np.inf), np.where(finite, result.hi, np.inf))
