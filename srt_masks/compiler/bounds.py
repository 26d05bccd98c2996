"""What a pair expression can be inside a box of query and key tokens, without looking at its pairs.

The value of the lattice is a closed interval, for many boxes at once; masks are the numbers 0 and 1, so `must` is lo = 1 and
`may` is hi = 1. The default is *everything*: an operator that is not listed, a table read at a pair, a NaN, an interval that
would overflow 64 bits all widen to it. Leaves enter by their exact minimum and maximum over the tokens of the box; a box always
holds at least one query and one key, so the empty interval does not occur.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..grammar.checked import Type
from .ir import Apply, Expr, Op

LEAST, MOST = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Bound:
    """lo and hi, each (boxes,) or (): int64, or float64 for floats."""

    lo: Tensor
    hi: Tensor

    @property
    def must(self) -> Tensor:
        return self.lo == 1

    @property
    def may(self) -> Tensor:
        return self.hi == 1


def everything(type: Type, like: Tensor) -> Bound:
    match type:
        case Type.BOOL:
            ends: tuple[int | float, int | float] = (0, 1)
        case Type.FLOAT:
            ends = (-torch.inf, torch.inf)
        case _:
            ends = (LEAST, MOST)
    dtype = torch.float64 if type is Type.FLOAT else torch.int64
    return Bound(*(torch.full_like(like, e, dtype=dtype) for e in ends))


def of_values(values: Tensor, lo: Tensor, hi: Tensor) -> Bound:
    """A leaf from the minimum and maximum of its values; NaN anywhere in `lo` or `hi` means everything."""
    if values.is_floating_point():
        broken = lo.isnan() | hi.isnan()
        return Bound(torch.where(broken, -torch.inf, lo.double()), torch.where(broken, torch.inf, hi.double()))
    return Bound(lo.long(), hi.long())


def bound(node: Expr, of: Mapping[Expr, Bound], like: Tensor) -> Bound:
    """The bound of one pair node from those of its arguments. `like` has one entry a box."""
    if not isinstance(node, Apply):
        return everything(node.type, like)
    args = [of[a] for a in node.args]
    if any(a.type is Type.FLOAT for a in node.args):
        return _floats(node, args, like)
    match node.op, args:
        case Op.NOT, [a]:
            return Bound(1 - a.hi, 1 - a.lo)
        case Op.AND, [a, b]:
            return Bound(a.lo & b.lo, a.hi & b.hi)
        case Op.OR, [a, b]:
            return Bound(a.lo | b.lo, a.hi | b.hi)
        case ((Op.LT | Op.LE | Op.EQ | Op.NE), [a, b]):
            return _compare(node.op, a, b)
        case Op.NEG, [a]:
            return _unless(a.lo == LEAST, Bound(-a.hi, -a.lo))
        case Op.ABS, [a]:
            low = torch.where((a.lo <= 0) & (a.hi >= 0), 0, torch.minimum(a.lo.abs(), a.hi.abs()))
            return _unless(a.lo == LEAST, Bound(low, torch.maximum(a.lo.abs(), a.hi.abs())))
        case Op.ADD, [a, b]:
            return _sum(a, b)
        case Op.SUB, [a, b]:
            return _unless(b.lo == LEAST, _sum(a, Bound(-b.hi, -b.lo)))
        case Op.MUL, [a, b]:
            return _product(a, b)
        case Op.FLOORDIV, [a, b]:
            exact = (b.lo == b.hi) & (b.lo > 0)
            d = torch.where(exact, b.lo, 1)
            return _unless(~exact, Bound(torch.div(a.lo, d, rounding_mode="floor"), torch.div(a.hi, d, rounding_mode="floor")))
        case Op.MOD, [a, b]:
            return _remainder(a, b)
        case Op.MIN, [a, b]:
            return Bound(torch.minimum(a.lo, b.lo), torch.minimum(a.hi, b.hi))
        case Op.MAX, [a, b]:
            return Bound(torch.maximum(a.lo, b.lo), torch.maximum(a.hi, b.hi))
        case Op.SELECT, [condition, a, b]:
            return _select(condition, a, b)
        case _:
            return everything(node.type, like)


def _compare(op: Op, a: Bound, b: Bound) -> Bound:
    match op:
        case Op.LT:
            must, may = a.hi < b.lo, a.lo < b.hi
        case Op.LE:
            must, may = a.hi <= b.lo, a.lo <= b.hi
        case Op.EQ:
            must = (a.lo == a.hi) & (b.lo == b.hi) & (a.lo == b.lo)
            may = (a.lo <= b.hi) & (b.lo <= a.hi)
        case _:
            must = (a.hi < b.lo) | (b.hi < a.lo)
            may = ~((a.lo == a.hi) & (b.lo == b.hi) & (a.lo == b.lo))
    return Bound(must.long(), may.long())


def _floats(node: Apply, args: list[Bound], like: Tensor) -> Bound:
    """Floats: comparisons of finite intervals, choices, sums and products; rounding is monotone. Anything else is everything."""
    finite = torch.ones_like(like, dtype=torch.bool)
    for a in args:
        finite = finite & a.lo.isfinite() & a.hi.isfinite()
    as_float = [Bound(a.lo.double(), a.hi.double()) for a in args]
    match node.op, as_float:
        case ((Op.LT | Op.LE | Op.EQ | Op.NE), [a, b]):
            result = _compare(node.op, a, b)
        case Op.SELECT, [_, a, b]:
            result = _select(args[0], a, b)
        case Op.ADD, [a, b]:
            result = Bound(a.lo + b.lo, a.hi + b.hi)
        case Op.SUB, [a, b]:
            result = Bound(a.lo - b.hi, a.hi - b.lo)
        case Op.MUL, [a, b]:
            corners = torch.stack(torch.broadcast_tensors(a.lo * b.lo, a.lo * b.hi, a.hi * b.lo, a.hi * b.hi))
            result = Bound(corners.amin(0), corners.amax(0))
        case _:
            return everything(node.type, like)
    widest = everything(node.type, like)
    return Bound(torch.where(finite, result.lo, widest.lo), torch.where(finite, result.hi, widest.hi))


def _unless(lost: Tensor, bound: Bound) -> Bound:
    return Bound(torch.where(lost, LEAST, bound.lo), torch.where(lost, MOST, bound.hi))


def _sum(a: Bound, b: Bound) -> Bound:
    lo, hi = a.lo + b.lo, a.hi + b.hi
    wrapped = (((a.lo ^ lo) & (b.lo ^ lo)) < 0) | (((a.hi ^ hi) & (b.hi ^ hi)) < 0)
    return _unless(wrapped, Bound(lo, hi))


def _product(a: Bound, b: Bound) -> Bound:
    pairs = [(x, y) for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
    corners = torch.stack(torch.broadcast_tensors(*(x * y for x, y in pairs)))
    # A product beyond 2**62 by its float may wrap.
    large = torch.stack(torch.broadcast_tensors(*((x.double() * y.double()).abs() >= 2.0**62 for x, y in pairs))).any(0)
    return _unless(large, Bound(corners.amin(0), corners.amax(0)))


def _remainder(a: Bound, b: Bound) -> Bound:
    exact = (b.lo == b.hi) & (b.lo > 0)
    d = torch.where(exact, b.lo, 1)
    one_lap = torch.div(a.lo, d, rounding_mode="floor") == torch.div(a.hi, d, rounding_mode="floor")
    lo = torch.where(one_lap, torch.remainder(a.lo, d), 0)
    hi = torch.where(one_lap, torch.remainder(a.hi, d), d - 1)
    return _unless(~exact, Bound(lo, hi))


def _select(condition: Bound, a: Bound, b: Bound) -> Bound:
    lo = torch.where(condition.must, a.lo, torch.where(condition.may, torch.minimum(a.lo, b.lo), b.lo))
    hi = torch.where(condition.must, a.hi, torch.where(condition.may, torch.maximum(a.hi, b.hi), b.hi))
    return Bound(lo, hi)
