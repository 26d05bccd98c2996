"""How a leaf goes along its axis, from its expression alone: where it can be known of a tile from few of its tokens.

Input: leaves, and what the names mean. Output: a `Course` each. Inside a `Stretch` pos, step, index and slot never fall and the role of a row is
the same in every step; from there the trend of an expression follows by its operators. All numbers are exact here: an operator whose result may
pass 64 bits, and would wrap, has no trend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from ..grammar.checked import Type
from . import ir
from .evaluate import Environment
from .ir import Apply, Const, Expr, Field, Gather, Load, Op, Scalar


class Trend(Enum):
    """Along the tokens of a stretch; where an expression reads the row of the step, along every period-th token."""

    LEVEL = 0
    UP = 1
    DOWN = -1
    ANY = None

    def __neg__(self) -> Trend:
        return Trend(None if self.value is None else -self.value)

    def __and__(self, other: Trend) -> Trend:
        """What both do."""
        if self is Trend.LEVEL or other is Trend.ANY:
            return other
        return self if other in (self, Trend.LEVEL) else Trend.ANY


@dataclass(frozen=True, slots=True)
class Course:
    """The trend of a leaf, and what it depends on within a step: its row (role and slot), its place (pos and index), or neither.

    `low` and `high` hold every value of a whole number; they are one where it is a constant.
    """

    trend: Trend
    by_row: bool
    by_place: bool
    low: int
    high: int


LEAST, MOST = -(2**63), 2**63 - 1
_FIELDS = {"pos": Trend.UP, "step": Trend.UP, "index": Trend.UP, "slot": Trend.UP, "section": Trend.LEVEL, "role": Trend.LEVEL}


def courses(environment: Environment, *leaves: Expr) -> dict[Expr, Course]:
    """The course of every leaf, and of all below it."""
    found: dict[Expr, Course] = {}
    for node in ir.postorder(*leaves, land=False):
        found[node] = _course(node, environment, found)
    return found


def _course(node: Expr, environment: Environment, found: Mapping[Expr, Course]) -> Course:
    match node:
        case Field(side=side, name=name):
            axis = environment.axis(side)
            trend = _FIELDS[name] if name in axis.regular else Trend.ANY
            # What is not regular may change with every token.
            by_row, by_place = name in ("role", "slot"), name in ("pos", "index") or trend is Trend.ANY
            low, high = (-1 if name in ("index", "role") else 0), max(axis.total, 2**31)
            return Course(trend, by_row, by_place, *((low, high) if trend is not Trend.ANY else (LEAST, MOST)))
        case _ if not ir.sides(node):
            value = _whole_number(node, environment)
            return Course(Trend.LEVEL, False, False, *((LEAST, MOST) if value is None else (value, value)))
        case Load(indices=parts):
            return _reading(parts, found)
        case Gather(index=index):
            return _reading((index,), found)
        case Apply(args=args):
            parts = [found[a] for a in args]
            by_row, by_place = any(p.by_row for p in parts), any(p.by_place for p in parts)
            trend, low, high = _operated(node, parts)
            if node.type in (Type.INT, Type.ROLE) and not LEAST <= low <= high <= MOST:
                trend, low, high = (trend if trend is Trend.LEVEL else Trend.ANY), LEAST, MOST
            return Course(trend, by_row, by_place, low, high)
        case _:
            raise AssertionError(f"no leaf: {node}")


def _whole_number(node: Expr, environment: Environment) -> int | None:
    """The value of a constant, of any type but float."""
    if node.type is Type.FLOAT:
        return None
    match node:
        case Const(value=value):
            return int(value)
        case Scalar(name=name):
            return int(environment.scalars[name])
        case _:
            return int(environment.vector(node))


def _reading(indices: tuple[Expr, ...], found: Mapping[Expr, Course]) -> Course:
    """An element of a table: any number, the same wherever the subscripts are."""
    parts = [found[i] for i in indices]
    level = all(p.trend is Trend.LEVEL for p in parts)
    return Course(Trend.LEVEL if level else Trend.ANY, any(p.by_row for p in parts), any(p.by_place for p in parts), LEAST, MOST)


def _operated(node: Apply, parts: list[Course]) -> tuple[Trend, int, int]:
    """Trend and exact range; the range of a mask is 0 .. 1, that of a float is not looked at."""
    low, high = (0, 1) if node.type is Type.BOOL else (LEAST, MOST)
    if all(p.trend is Trend.LEVEL for p in parts):
        whole = node.type in (Type.INT, Type.ROLE) and node.op in (Op.ADD, Op.SUB, Op.NEG, Op.MIN, Op.MAX)
        low, high = _operated_range(node.op, parts) if whole else (low, high)
        return Trend.LEVEL, low, high
    if any(a.type is Type.FLOAT for a in node.args):
        return Trend.ANY, low, high  # NaN has no order
    match node.op, parts:
        case Op.NOT, [a]:
            return -a.trend, low, high
        case ((Op.AND | Op.OR), [a, b]):
            return a.trend & b.trend, low, high
        case ((Op.LT | Op.LE), [a, b]):
            return -a.trend & b.trend, low, high
        case ((Op.ADD | Op.MIN | Op.MAX), [a, b]):
            return (a.trend & b.trend, *_operated_range(node.op, parts))
        case Op.SUB, [a, b]:
            return (a.trend & -b.trend, *_operated_range(node.op, parts))
        case Op.NEG, [a]:
            return (-a.trend, *_operated_range(node.op, parts))
        case Op.ABS, [a] if a.low >= 0:
            return a.trend, a.low, a.high
        case Op.MUL, [a, b] if a.low == a.high or b.low == b.high:
            x, factor = (b, a.low) if a.low == a.high else (a, b.low)
            ends = sorted((x.low * factor, x.high * factor))
            return (x.trend if factor >= 0 else -x.trend), ends[0], ends[1]
        case Op.FLOORDIV, [a, b] if b.low == b.high > 0:
            return a.trend, a.low // b.low, a.high // b.low
        case Op.MOD, [a, b] if b.low == b.high > 0:
            lap = a.low // b.low == a.high // b.low  # it never starts anew
            return (a.trend, a.low % b.low, a.high % b.low) if lap else (Trend.ANY, 0, b.low - 1)
        case Op.SELECT, [condition, a, b]:
            # A choice that is made once for a row: what both do.
            trend = a.trend & b.trend if condition.trend is Trend.LEVEL else Trend.ANY
            return trend, min(a.low, b.low), max(a.high, b.high)
        case _:
            return Trend.ANY, low, high


def _operated_range(op: Op, parts: list[Course]) -> tuple[int, int]:
    match op, parts:
        case Op.NEG, [a]:
            return -a.high, -a.low
        case Op.ADD, [a, b]:
            return a.low + b.low, a.high + b.high
        case Op.SUB, [a, b]:
            return a.low - b.high, a.high - b.low
        case Op.MIN, [a, b]:
            return min(a.low, b.low), min(a.high, b.high)
        case _:
            a, b = parts
            return max(a.low, b.low), max(a.high, b.high)
