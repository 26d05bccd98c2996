"""Facts: what a text states with an input or a param (`given`), and how one that does not hold is told.

Input: the expression behind `given`, and what it is stated with. Output: a `Fact`, or mistakes. A fact about a param rests on numbers alone, so
whether it `holds` is known here; one about an input is held to the tensors of a call, by the reference and by the kernels, each in its own way.
Non-goals: proving with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..diagnostics import listing
from . import checked as c
from . import syntax as t
from .checked import Kind, Op, Side, Type
from .expressions import Expressions
from .scope import POISON, Value
from .suggest import LONGEST, about_a_side, walk

MASK = (Type.BOOL,)
PER_TOKEN = frozenset({"token", "step", "query", "key"})  # axes with an entry for each token of a side

# ------------------------------------------------------------------------------------------------ what is stated


def fact_of_input(names: Expressions, expr: t.Expr, declared: c.Input) -> c.Fact | None:
    """A fact about the entries of an input: about a token where it has an entry for each, about a pair where it has one for each pair, else about
    the call, its heads and its layers."""
    mine = PER_TOKEN & {*declared.axes}
    if len(mine) > 1:
        value = names.pair(expr, MASK, "`given`")
        return _fact(names, declared.name, expr, value, value.expr)
    # With two layouts a token is one of the queries, or one of the keys, as the input is.
    names.own_axes = mine if names.two_axes else frozenset({"query", "key"})
    value = names.token(expr, MASK, "`given`")
    names.own_axes = frozenset()
    if not names.two_axes or value is POISON:
        return _fact(names, declared.name, expr, value, value.expr)
    if not mine and value.kind is Kind.TOKEN:
        label = f"`{declared.name}` is not given per query or per key: say it without attributes"
        names.mistake("two-axes", "with two layouts, a token of which?", value.span, label)
        return None
    return _fact(names, declared.name, expr, value, c.bind(value.expr, Side.QUERY if "query" in mine else Side.KEY))


def fact_of_param(names: Expressions, expr: t.Expr, param: c.Param) -> c.Fact | None:
    """A fact about a number: it rests on numbers that are known where the text is read."""
    value = names.check(expr, MASK)
    if value is POISON:
        return None
    reads = _read_at_a_call(value.expr, names.let_bodies)
    if value.kind is not Kind.CONSTANT or reads:
        side = about_a_side(expr)
        label = f"this rests on {listing(reads)}" if value.kind is Kind.CONSTANT else "this is about tokens"
        message = "a fact about a param is known when the text is read"
        names.mistake("not-constant", message, side[0] if side else value.span, label, "use numbers and the params above it")
        return None
    value = names.typed(value, MASK, "`given`")
    return _fact(names, param.name, expr, value, value.expr)


def _read_at_a_call(expr: c.Expr, bodies: Mapping[str, c.Expr]) -> list[str]:
    """The inputs and the numbers known everywhere that an expression reads, through lets."""
    found: dict[str, None] = {}
    stack, seen = [expr], set()
    while stack:
        for node in c.walk(stack.pop()):
            match node:
                case c.Read(input=name) | c.Global(name=name):
                    found[f"`{name}`"] = None
                case c.LetRef(name=name) if name not in seen:
                    seen.add(name)
                    stack.append(bodies[name])
    return list(found)


def _fact(names: Expressions, name: str, expr: t.Expr, value: Value, where: c.Expr) -> c.Fact | None:
    if value is POISON:
        return None
    if name not in [n.text if isinstance(n, t.Word) else n.name for n in walk(expr) if isinstance(n, t.Word | t.Name)]:
        message = f"a fact is about what it is stated with, and this one does not mention `{name}`"
        names.mistake("fact-elsewhere", message, expr.span, f"nothing about `{name}`", "state it with the input or param that it is about")
        return None
    text = " ".join(names.source.text[expr.span.start : expr.span.end].split()) or c.show(where)
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return c.Fact(name, where, expr.span, f"`given {text}` (line {names.source.place(expr.span.start)[0]})")


# ------------------------------------------------------------------------------------------------ of numbers

Number = int | float | bool


def holds(fact: c.Fact, params: Mapping[str, int | float], bodies: Mapping[str, c.Expr]) -> bool:
    """Whether a fact about a param holds of the values of all; `bodies` are those of the lets."""
    return bool(_number(fact.where, params, bodies))


def _number(expr: c.Expr, params: Mapping[str, int | float], bodies: Mapping[str, c.Expr]) -> Number:
    match expr:
        case c.Literal(value=value):
            return value
        case c.ParamRef(name=name):
            return params[name]
        case c.LetRef(name=name):
            return _number(bodies[name], params, bodies)
        case c.Apply(op=op, args=args):
            return _applied(op, [_number(a, params, bodies) for a in args])
        case _:
            raise AssertionError(f"not a number: {expr}")


def _applied(op: Op, args: Sequence[Any]) -> Number:
    """One operator, as at a call: whole numbers wrap, and by zero gives 0."""
    match op, args:
        case Op.NOT, [a]:
            return not a
        case Op.AND, _:
            return all(args)
        case Op.OR, _:
            return any(args)
        case Op.CHOOSE, [condition, a, b]:
            return a if condition else b
        case Op.LT, [a, b]:
            return a < b
        case Op.LE, [a, b]:
            return a <= b
        case Op.GT, [a, b]:
            return a > b
        case Op.GE, [a, b]:
            return a >= b
        case Op.EQ, [a, b]:
            return a == b
        case Op.NE, [a, b]:
            return a != b
        case ((Op.TRUEDIV | Op.FLOORDIV | Op.MOD), [_, 0]):
            return 0
        case Op.TRUEDIV, [a, b]:
            return a / b
        case Op.FLOORDIV, [a, b]:
            found = a // b
        case Op.MOD, [a, b]:
            return a % b
        case Op.POW, [a, b]:
            found = pow(a, b, 2**64) if b >= 0 else 0
        case Op.NEG, [a]:
            found = -a
        case Op.ABS, [a]:
            found = abs(a)
        case Op.ADD, [a, b]:
            found = a + b
        case Op.SUB, [a, b]:
            found = a - b
        case Op.MUL, [a, b]:
            found = a * b
        case Op.MIN, [a, b]:
            return min(a, b)
        case Op.MAX, [a, b]:
            return max(a, b)
        case _:
            raise AssertionError(f"{op} of {len(args)} arguments")
    return found if isinstance(found, float) else (found + 2**63) % 2**64 - 2**63


# ------------------------------------------------------------------------------------------------ broken ones


@dataclass(frozen=True, slots=True)
class Broken:
    """A fact that does not hold: which values its input or param has there (each with its place in the input's own sizes), and where that is.
    `places` are a token, or a query and a key; prints as what a caller is told."""

    fact: c.Fact
    values: tuple[tuple[tuple[int, ...], Number], ...]
    places: tuple[int, ...] = ()
    row: int | None = None
    head: int | None = None
    layer: int | None = None

    def __str__(self) -> str:
        match self.places:
            case (token,):
                where = f" at position {token}"
            case (query, key):
                where = f" for the query at position {query} and the key at {key}"
            case _:
                where = ""
        beside = [f"row {self.row} of the batch"] if self.row is not None else []
        beside += [f"{what} {n}" for what, n in (("head", self.head), ("layer", self.layer)) if n is not None]
        name = self.fact.name
        values = ", ".join(f"`{name}{list(at) if at else ''}` is {_shown(value)}" for at, value in self.values) or f"`{name}` breaks it"
        return f"{values}{where}{f' ({listing(beside)})' if beside else ''}; the text says {self.fact.said}"


def _shown(value: Number) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
