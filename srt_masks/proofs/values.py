"""Values as z3 has them: whole numbers of 64 bits with a range, floats as real numbers that may be NaN, truths."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import Any, TypeAlias

import z3

from ..compiler.ir import Op
from ..grammar.checked import Type

# What z3 builds of terms; its own types do not say what their operators give.
Term: TypeAlias = Any  # a number
Truth: TypeAlias = Any
LONGEST = 2**31 - 1  # tokens, steps, heads and layers that are thought of
MOST_INT, LEAST_INT = 2**63 - 1, -(2**63)
WRAP = 2**64
EXACT = 2**53  # whole numbers up to it are floats


@dataclass(frozen=True, slots=True)
class Int:
    """A whole number, and a range that holds whatever z3 chooses."""

    term: Term
    least: int = LEAST_INT
    most: int = MOST_INT

    @property
    def only(self) -> int | None:
        """Its one value, if it has only one."""
        return self.least if self.least == self.most else None


def number(value: int) -> Int:
    return Int(z3.IntVal(value), value, value)


def count(name: str, least: int = 0) -> Int:
    return Int(z3.Int(name), least, LONGEST)


@dataclass(frozen=True, slots=True)
class Real:
    """A float: a real number, or none. Infinity is thought of as a number beyond all that it is compared with."""

    term: Term
    nan: Truth


Value = Int | Real | Truth


def wrapped(term: Term, least: int, most: int) -> Int:
    """A whole number of 64 bits: beyond them it wraps."""
    if least >= LEAST_INT and most <= MOST_INT:
        return Int(term, least, most)
    if least >= LEAST_INT - WRAP and most <= MOST_INT + WRAP:
        return Int(z3.If(term > MOST_INT, term - WRAP, z3.If(term < LEAST_INT, term + WRAP, term)))
    return Int((term - LEAST_INT) % WRAP + LEAST_INT)


def choose(condition: Truth, a: Value, b: Value) -> Value:
    if isinstance(a, Real) or isinstance(b, Real):
        a, b = to_real(a), to_real(b)
        return Real(z3.If(condition, a.term, b.term), z3.If(condition, a.nan, b.nan))
    if isinstance(a, Int) and isinstance(b, Int):
        return Int(z3.If(condition, a.term, b.term), min(a.least, b.least), max(a.most, b.most))
    return z3.If(condition, a, b)


def real(value: float) -> Real:
    if value != value:
        return Real(z3.RealVal(0), z3.BoolVal(True))
    # As a fraction, exactly; infinity as what no float is beyond.
    return Real(z3.RealVal(str(z3.Q(*value.as_integer_ratio()))) if isfinite(value) else z3.RealVal(2**1025 if value > 0 else -(2**1025)), z3.BoolVal(False))


def to_real(value: Value) -> Real:
    if isinstance(value, Real):
        return value
    found = int_of(value)
    return real(float(found.only)) if found.only is not None and abs(found.only) <= EXACT else Real(z3.ToReal(found.term), z3.BoolVal(False))


def cases(term: Term) -> list[tuple[Truth, float]]:
    """A choice among known numbers, as (when, number); nothing if it is none."""
    if z3.is_rational_value(term):
        value = float(term.as_fraction())  # type: ignore[union-attr]
        return [(z3.BoolVal(True), value)] if Fraction(value) == term.as_fraction() else []  # type: ignore[union-attr]
    if z3.is_app_of(term, z3.Z3_OP_ITE):
        when, then, otherwise = term.children()
        yes, no = cases(then), cases(otherwise)
        if yes and no:
            return [*((z3.And(when, c), v) for c, v in yes), *((z3.And(z3.Not(when), c), v) for c, v in no)]
    return []


def rounded(op: Op, *args: float) -> float:
    match op, args:
        case Op.ADD, (a, b):
            return a + b
        case Op.SUB, (a, b):
            return a - b
        case Op.MUL, (a, b):
            return a * b
        case Op.TRUEDIV, (a, b):
            return a / b if b else 0.0
    raise AssertionError(f"{op} of floats")


def unchanged(op: Op, args: list[Real]) -> Real | None:
    """What an operation of floats leaves as it is, rounded or not, NaN and infinity too: a factor or divisor of 1, a summand of 0. A zero may change its
    sign, which nothing in the language tells: the two are equal, and a division by either is 0."""
    match op, args, [_is_known(x, 1) for x in args], [_is_known(x, 0) for x in args]:
        case ((Op.MUL | Op.TRUEDIV), [a, _], [_, True], _):
            return a
        case Op.MUL, [_, b], [True, _], _:
            return b
        case ((Op.ADD | Op.SUB), [a, _], _, [_, True]):
            return a
        case Op.ADD, [_, b], _, [True, _]:
            return b
        case Op.SUB, [_, b], _, [True, _]:
            return Real(-b.term, b.nan)
    return None


def _is_known(x: Real, value: int) -> bool:
    return z3.is_rational_value(x.term) and x.term.as_fraction() == value and z3.is_false(x.nan)


def filler_of(type: Type, filler: int) -> Value:
    match type:
        case Type.BOOL:
            return z3.BoolVal(False)
        case Type.FLOAT:
            return real(float(filler))
        case _:
            return number(filler)


def int_of(value: Value) -> Int:
    assert isinstance(value, Int), value
    return value
