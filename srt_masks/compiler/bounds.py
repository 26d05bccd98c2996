"""What a pair expression can be inside a box of query and key tokens, without looking at its pairs.

The lattice: a mask is a `Truth` (whether it holds on all pairs; whether it may hold on any), a number an `Interval`. The default is *everything*: an
operator that is not listed, a table read at a pair, a NaN, an interval that would overflow 64 bits all widen to it. Leaves enter by what is known of
them over the tokens of a box that meet a guard. Where no token does, there is nothing to be said, and that is a value of its own, *bottom*: the mask
that holds on all of no pairs and may hold on none, the interval whose ends are crossed. Whatever follows from it is said of no pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..grammar.checked import Type
from .ir import Apply, Expr, Op

LEAST, MOST = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Truth:
    """A mask in many boxes, each bool (boxes,) or (): whether it holds on all pairs, whether it may hold on some."""

    must: Tensor
    may: Tensor

    @property
    def bottom(self) -> Tensor:
        return self.must & ~self.may


@dataclass(frozen=True, slots=True)
class Interval:
    """A number in many boxes: lo <= it <= hi; each (boxes,) or (), int64, or float64 for floats."""

    lo: Tensor
    hi: Tensor

    @property
    def bottom(self) -> Tensor:
        return self.lo > self.hi


Bound = Truth | Interval


def everything(type: Type, like: Tensor) -> Bound:
    match type:
        case Type.BOOL:
            return Truth(torch.zeros_like(like, dtype=torch.bool), torch.ones_like(like, dtype=torch.bool))
        case Type.FLOAT:
            return Interval(*(torch.full_like(like, e, dtype=torch.float64) for e in (-torch.inf, torch.inf)))
        case _:
            return Interval(*(torch.full_like(like, e, dtype=torch.int64) for e in (LEAST, MOST)))


def of_groups(values: Tensor, met: Tensor | None = None) -> Bound:
    """A leaf from its values in each group (groups, tokens), those where a guard is met alone; bottom where that is nowhere.

    NaN among them means everything.
    """
    if values.dtype is torch.bool:
        if met is None:
            return Truth(values.all(1), values.any(1))
        return Truth((values | ~met).all(1), (values & met).any(1))
    floats = values.is_floating_point()
    values = values.double() if floats else values.long()
    if met is None:
        lo, hi = torch.aminmax(values, dim=1)
    else:
        least, most = (-torch.inf, torch.inf) if floats else (LEAST, MOST)
        lo, hi = torch.where(met, values, most).amin(1), torch.where(met, values, least).amax(1)
    if floats:
        broken = lo.isnan() | hi.isnan()
        lo, hi = torch.where(broken, -torch.inf, lo), torch.where(broken, torch.inf, hi)
    return Interval(lo, hi)


def joined(a: Bound, b: Bound) -> Bound:
    """What holds of two boxes together."""
    match a, b:
        case Truth(), Truth():
            return Truth(a.must & b.must, a.may | b.may)
        case Interval(), Interval():
            return Interval(torch.minimum(a.lo, b.lo), torch.maximum(a.hi, b.hi))
        case _:
            raise AssertionError("a mask and a number")


def _numbers(x: Bound) -> Interval:
    """A mask as the number 0 or 1."""
    return x if isinstance(x, Interval) else Interval(x.must.long(), x.may.long())


def bound(node: Expr, args: list[Bound], like: Tensor) -> Bound:
    """The bound of one pair node from those of its arguments; of a chain from all its links. `like` has one entry a box."""
    if not isinstance(node, Apply):
        return everything(node.type, like)
    if any(a.type is Type.FLOAT for a in node.args):
        return _floats(node, args, like)
    if node.op in (Op.AND, Op.OR, Op.NOT) or (node.op is Op.SELECT and node.type is Type.BOOL):
        return _logic(node.op, [x for x in args if isinstance(x, Truth)])
    if node.op is Op.SELECT:
        return _select(args[0], *(_numbers(x) for x in args[1:]))
    match node.op, [_numbers(x) for x in args]:
        case ((Op.LT | Op.LE | Op.EQ | Op.NE), [a, b]):
            return _compare(node.op, a, b)
        case Op.NEG, [a]:
            return _unless(a.lo == LEAST, Interval(-a.hi, -a.lo))
        case Op.ABS, [a]:
            low = torch.where((a.lo <= 0) & (a.hi >= 0), 0, torch.minimum(a.lo.abs(), a.hi.abs()))
            return _unless(a.lo == LEAST, Interval(low, torch.maximum(a.lo.abs(), a.hi.abs())))
        case Op.ADD, [a, b]:
            return _sum(a, b)
        case Op.SUB, [a, b]:
            return _difference(a, b)
        case Op.MUL, [a, b]:
            return _product(a, b)
        case Op.FLOORDIV, [a, b]:
            exact = (b.lo == b.hi) & (b.lo > 0)
            d = torch.where(exact, b.lo, 1)
            return _unless(~exact, Interval(torch.div(a.lo, d, rounding_mode="floor"), torch.div(a.hi, d, rounding_mode="floor")))
        case Op.MOD, [a, b]:
            return _remainder(a, b)
        case Op.MOD, [a, b, left, right]:
            # (A - B) % m is (A % m - B % m) % m too, unless A - B wraps.
            direct, other = _remainder(a, b), _remainder(_difference(left, right), b)
            known = (a.lo > LEAST) & (a.hi < MOST) & (b.lo == b.hi) & (b.lo > 0)
            lo = torch.where(known, torch.maximum(direct.lo, other.lo), direct.lo)
            return Interval(lo, torch.where(known, torch.minimum(direct.hi, other.hi), direct.hi))
        case Op.MIN, [a, b]:
            return Interval(torch.minimum(a.lo, b.lo), torch.minimum(a.hi, b.hi))
        case Op.MAX, [a, b]:
            return Interval(torch.maximum(a.lo, b.lo), torch.maximum(a.hi, b.hi))
        case _:
            return everything(node.type, like)


def _logic(op: Op, args: list[Truth]) -> Truth:
    must, may = args[0].must, args[0].may
    match op:
        case Op.NOT:
            return Truth(~may, ~must)
        case Op.AND:
            for x in args[1:]:
                must, may = must & x.must, may & x.may
        case Op.OR:
            for x in args[1:]:
                must, may = must | x.must, may | x.may
        case _:
            condition, a, b = args
            must = (a.must & b.must) | (condition.must & a.must) | (~condition.may & b.must)
            may = (condition.may & a.may) | (~condition.must & b.may)
    return Truth(must, may)


def _compare(op: Op, a: Interval, b: Interval) -> Truth:
    match op:
        case Op.LT:
            return Truth(a.hi < b.lo, a.lo < b.hi)
        case Op.LE:
            return Truth(a.hi <= b.lo, a.lo <= b.hi)
        case _:
            equal = (a.lo == a.hi) & (b.lo == b.hi) & (a.lo == b.lo)
            meet = (a.lo <= b.hi) & (b.lo <= a.hi)
            return Truth(equal, meet) if op is Op.EQ else Truth(~meet, ~equal)


def _floats(node: Apply, args: list[Bound], like: Tensor) -> Bound:
    """Floats: comparisons of finite intervals, choices, sums and products; rounding is monotone. Anything else is everything."""
    condition, numbers = (args[0], args[1:]) if node.op is Op.SELECT else (None, args)
    numbers = [_numbers(x) for x in numbers]
    finite = torch.ones_like(like, dtype=torch.bool)
    for a in numbers:
        finite = finite & a.lo.isfinite() & a.hi.isfinite()
    result: Bound
    match node.op, [Interval(a.lo.double(), a.hi.double()) for a in numbers]:
        case ((Op.LT | Op.LE | Op.EQ | Op.NE), [a, b]):
            result = _compare(node.op, a, b)
        case Op.SELECT, [a, b]:
            assert condition is not None
            result = _select(condition, a, b)
        case Op.ADD, [a, b]:
            result = Interval(a.lo + b.lo, a.hi + b.hi)
        case Op.SUB, [a, b]:
            result = Interval(a.lo - b.hi, a.hi - b.lo)
        case Op.MUL, [a, b]:
            corners = torch.stack(torch.broadcast_tensors(a.lo * b.lo, a.lo * b.hi, a.hi * b.lo, a.hi * b.hi))
            result = Interval(corners.amin(0), corners.amax(0))
        case _:
            return everything(node.type, like)
    if isinstance(result, Truth):
        return Truth(result.must & finite, result.may | ~finite)
    return Interval(torch.where(finite, result.lo, -torch.inf), torch.where(finite, result.hi, torch.inf))


def _unless(lost: Tensor, bound: Interval) -> Interval:
    return Interval(torch.where(lost, LEAST, bound.lo), torch.where(lost, MOST, bound.hi))


def _sum(a: Interval, b: Interval) -> Interval:
    lo, hi = a.lo + b.lo, a.hi + b.hi
    wrapped = (((a.lo ^ lo) & (b.lo ^ lo)) | ((a.hi ^ hi) & (b.hi ^ hi))) < 0
    return _unless(wrapped, Interval(lo, hi))


def _difference(a: Interval, b: Interval) -> Interval:
    lo, hi = a.lo - b.hi, a.hi - b.lo
    wrapped = (((a.lo ^ b.hi) & (a.lo ^ lo)) | ((a.hi ^ b.lo) & (a.hi ^ hi))) < 0
    return _unless(wrapped, Interval(lo, hi))


def _product(a: Interval, b: Interval) -> Interval:
    pairs = [(x, y) for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
    corners = torch.stack(torch.broadcast_tensors(*(x * y for x, y in pairs)))
    # A product beyond 2**62 by its float may wrap.
    large = torch.stack(torch.broadcast_tensors(*((x.double() * y.double()).abs() >= 2.0**62 for x, y in pairs))).any(0)
    return _unless(large, Interval(corners.amin(0), corners.amax(0)))


def _remainder(a: Interval, b: Interval) -> Interval:
    exact = (b.lo == b.hi) & (b.lo > 0)
    d = torch.where(exact, b.lo, 1)
    one_lap = torch.div(a.lo, d, rounding_mode="floor") == torch.div(a.hi, d, rounding_mode="floor")
    lo = torch.where(one_lap, torch.remainder(a.lo, d), 0)
    hi = torch.where(one_lap, torch.remainder(a.hi, d), d - 1)
    return _unless(~exact, Interval(lo, hi))


def _select(condition: Bound, a: Interval, b: Interval) -> Interval:
    assert isinstance(condition, Truth)
    lo = torch.where(condition.must, a.lo, torch.where(condition.may, torch.minimum(a.lo, b.lo), b.lo))
    hi = torch.where(condition.must, a.hi, torch.where(condition.may, torch.maximum(a.hi, b.hi), b.hi))
    return Interval(lo, hi)
