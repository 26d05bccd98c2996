"""A call that z3 chooses: its extents, params and inputs, shared by every expression about it.

What z3 cannot decide (a product or quotient of two unknowns, arithmetic of floats) becomes an unknown of which less is said: what is proved of it
holds all the same, and the call notes in `inexact` that a refutation may not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import z3

from ..compiler.ir import Expr, Program
from ..grammar.checked import Input, Type
from .claims import DATA_TOKENS
from .limits import Budget, check
from .tokens import Axis, Token, axis
from .values import LEAST_INT, MOST_INT, Int, Real, Term, Truth, Value, count, number, real


@dataclass
class Call:
    """The unknowns of one call, shared by every expression about it. `holds` grows as they are spoken of."""

    program: Program
    queries: Axis
    keys: Axis
    heads: Int
    layers: Int
    fixed: Mapping[str, int | float] | None = None  # the params; None: any values
    exact: bool = False  # products and quotients of unknowns as they are, of which z3 may decide nothing
    facts: tuple[Expr, ...] = ()  # what is known of inputs and params, of a query, or of a pair
    holds: list[Truth] = field(default_factory=list)
    inexact: list[str] = field(default_factory=list)
    loads: dict[str, list[Term]] = field(default_factory=dict)  # by input, every element that was read
    quotients: dict[str, list[tuple[Term, Term, Term]]] = field(default_factory=dict)
    landed: dict[str, tuple[Token, Truth]] = field(default_factory=dict)
    known: dict[str, Int] = field(default_factory=dict)  # params, and extents of inputs, that were spoken of
    assumed: set[tuple[Any, ...]] = field(default_factory=set)
    names: int = 0
    prefix: str = ""  # tells the tokens of two specs apart that share a call
    budget: Budget | None = None

    def fresh(self, what: str) -> str:
        self.names += 1
        return f"{self.prefix}{what}!{self.names}"

    def check_time(self) -> None:
        """Raises Undecided where speaking of the call has taken all the time there was."""
        check(self.budget)

    def note(self, what: str) -> None:
        if what not in self.inexact:
            self.inexact.append(what)

    def scalar(self, name: str, type: Type) -> Value:
        match name:
            case "heads":
                return self.heads
            case "layers":
                return self.layers
            case "steps":
                return self.queries.steps
            case "length":
                return self.queries.tokens
            case _ if name == DATA_TOKENS:
                return self.queries.count_data()
        if self.fixed is not None:
            return number(int(self.fixed[name])) if type is Type.INT else real(float(self.fixed[name]))
        if type is Type.INT:
            return self.bounded(Int(z3.Int(f"param {name}")), number(LEAST_INT))
        return Real(z3.Real(f"param {name}"), z3.BoolVal(False))

    def extent(self, declared: Input, place: int) -> Int:
        """How long an axis of an input is: rows of the batch may be shorter than their inputs."""
        if place >= len(declared.axes):
            size = declared.sizes[place - len(declared.axes)]
            return number(size) if isinstance(size, int) else self.bounded(count(f"size {size}"), number(0))
        match declared.axes[place]:
            case "token" | "query":
                return self.bounded(count("tokens given"), self.queries.tokens)
            case "key":
                return self.keys.tokens
            case "step":
                layout = self.queries.layout
                if layout.rows_per_step == 0 and layout.given is None:
                    return number(layout.longest(0))
                return self.bounded(count("steps given"), self.queries.steps, number(layout.longest(0)))
            case "head":
                return self.heads
            case _:
                return self.layers

    def bounded(self, value: Int, *least: Int) -> Int:
        if str(value.term) not in self.known:
            self.known[str(value.term)] = value
            self.holds += [value.term <= value.most, *(x.term <= value.term for x in least)]
        return value

    def element(self, declared: Input, indices: tuple[Int, ...]) -> Value:
        """What an input holds there, in range."""
        sorts = [z3.IntSort()] * len(indices)
        result = {Type.BOOL: z3.BoolSort(), Type.FLOAT: z3.RealSort()}.get(declared.type, z3.IntSort())
        terms = [i.term for i in indices]

        def read(name: str, sort: z3.SortRef) -> Any:
            return z3.Function(name, *sorts, sort)(*terms) if terms else z3.Const(name, sort)

        found = read(f"input {declared.name}", result)
        if not any(found.eq(x) for x in self.loads.setdefault(declared.name, [])):
            self.loads[declared.name].append(found)
            if declared.type is Type.INT:
                self.holds += [found >= LEAST_INT, found <= MOST_INT]
        match declared.type:
            case Type.BOOL:
                return found
            case Type.FLOAT:
                return Real(found, read(f"nan {declared.name}", z3.BoolSort()))
            case _:
                return Int(found)

    def land(self, axis: Axis, place: Term) -> tuple[Token, Truth]:
        """The token at a position, and whether there is one."""
        key = f"{axis.name} {place.sexpr()}"
        if key not in self.landed:
            token = axis.token(self.fresh("at"))
            inside = z3.And(0 <= place, place < axis.tokens.term)
            self.holds.append(z3.Implies(inside, z3.And(token.holds, token.pos == place)))
            self.landed[key] = token, inside
        return self.landed[key]

    def quotient(self, a: Int, b: Int) -> tuple[Term, Term]:
        """a // b, before it wraps, and a % b of two unknowns. For b > 0, and among quotients by the same b, all that is linear is said."""
        known = self.quotients.setdefault(b.term.sexpr(), [])
        for x, q, r in known:
            if x.eq(a.term):
                return q, r
        self.note("a quotient of two unknowns")
        x, d = a.term, b.term
        q, r = z3.Int(self.fresh("quotient")), z3.Int(self.fresh("rest"))
        for sign in (1, -1):  # x // d is -x // -d, and x % d is -(-x % -d)
            self.holds.append(z3.Implies(sign * d > 0, z3.And(_floored(sign * x, sign * d, q, sign * r, [(sign * y, p, sign * s) for y, p, s in known]))))
        self.holds += [z3.Implies(d == 0, z3.And(q == 0, r == 0)), LEAST_INT <= q, q <= MOST_INT + 1]
        known.append((x, q, r))
        return q, r

    def unknown(self, what: str, type: Type, args: list[Value]) -> Value:
        """A function of the arguments, of which nothing else is said."""
        self.note(what)
        parts: list[Any] = []
        for a in args:
            parts += [a.term, a.nan] if isinstance(a, Real) else [a.term] if isinstance(a, Int) else [a]
        name = f"{what} {' '.join(p.sort().name() for p in parts)}"

        def function(name: str, sort: z3.SortRef) -> Any:
            return z3.Function(name, *(p.sort() for p in parts), sort)(*parts)

        if type is Type.FLOAT:
            return Real(function(name, z3.RealSort()), function(f"{name} nan", z3.BoolSort()))
        found = function(name, z3.IntSort())
        self.holds += [LEAST_INT <= found, found <= MOST_INT]
        return Int(found)


def call(
    program: Program, fixed: Mapping[str, int | float] | None = None, exact: bool = False, facts: tuple[Expr, ...] = (), prefix: str = "",
    budget: Budget | None = None, heads_given: int | None = None, layers_given: int | None = None,
) -> Call:  # fmt: skip
    """A call on a program, of which z3 chooses everything but what is given; the params, unless they are fixed. What has no prefix, two calls share:
    heads, layers, params, inputs, and the columns of a `layout given`."""
    heads, layers = (count(name, 1) if given is None else number(given) for name, given in (("heads", heads_given), ("layers", layers_given)))
    queries = axis("queries", program.queries, program.data, count(f"{prefix}steps"))
    keys = queries if program.keys is None else axis("keys", program.keys, program.data, count(f"{prefix}steps of keys"))
    if keys is not queries:
        keys.holds.append(keys.tokens.term >= 1)  # without keys nothing is attended, and nothing said of it
    holds = [1 <= heads.term, heads.term <= heads.most, 1 <= layers.term, layers.term <= layers.most]
    own = [*holds, *queries.holds, *(keys.holds if keys is not queries else [])]
    return Call(program, queries, keys, heads, layers, fixed, exact, facts, own, prefix=prefix, budget=budget)


def _floored(
    x: Term, d: Term, q: Term, r: Term, others: list[tuple[Term, Term, Term]]
) -> list[Truth]:  # fmt: skip
    """What is linear in q = x // d and r = x % d, for d > 0, beside those of other numbers by the same d."""
    rules = [
        z3.Implies(x >= 0, z3.And(0 <= q, q <= x)), z3.Implies(x < 0, z3.And(x <= q, q < 0)), 0 <= r, r < d,
        z3.Implies(z3.And(0 <= x, x < d), z3.And(q == 0, r == x)), z3.Implies(x >= d, q >= 1), z3.Implies(d == 1, z3.And(q == x, r == 0)),
    ]  # fmt: skip
    for y, p, s in others:
        rules += [
            z3.Implies(x <= y, q <= p), z3.Implies(y <= x, p <= q), z3.Implies(x - y >= d, q >= p + 1), z3.Implies(y - x >= d, p >= q + 1),
            z3.Implies(x - y <= d, q <= p + 1), z3.Implies(y - x <= d, p <= q + 1), z3.Implies(q == p, r - s == x - y),
            z3.Implies(r == s, z3.Or(q == p, x - y >= d, y - x >= d)),
        ]  # fmt: skip
    return rules
