"""IR -> z3: what an expression says of a query and a key that z3 chooses, in a call whose sizes, params and inputs it chooses too.

Input: IR, tokens. Output: z3 terms, whole numbers of 64 bits that wrap, floats as real numbers that may be NaN. What z3 cannot decide (a product or
quotient of two unknowns, arithmetic of floats) becomes an unknown of which less is said: what is proved of it holds all the same, and the call
notes in `inexact` that a refutation may not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from math import isfinite, prod
from typing import Any

import z3

from ..compiler import ir
from ..compiler.ir import Apply, Const, Expr, Field, Gather, Load, Op, Program, Scalar, Side
from ..grammar.checked import Input, Type
from .claims import DATA_TOKENS
from .tokens import LEAST_INT, MOST_INT, Axis, Int, Term, Token, Truth, axis, count, number

WRAP = 2**64
MOST_CASES = 64


@dataclass(frozen=True, slots=True)
class Real:
    """A float: a real number, or none. Infinity is thought of as a number beyond all that it is compared with."""

    term: Term
    nan: Truth


Value = Int | Real | Truth


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

    def fresh(self, what: str) -> str:
        self.names += 1
        return f"{self.prefix}{what}!{self.names}"

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
        """a // b and a % b of two unknowns. For b > 0, and among quotients by the same b, all that is linear is said."""
        known = self.quotients.setdefault(b.term.sexpr(), [])
        for x, q, r in known:
            if x.eq(a.term):
                return q, r
        self.note("a quotient of two unknowns")
        x, d = a.term, b.term
        q, r = z3.Int(self.fresh("quotient")), z3.Int(self.fresh("rest"))
        for sign in (1, -1):  # x // d is -x // -d, and x % d is -(-x % -d)
            self.holds.append(z3.Implies(sign * d > 0, z3.And(_floored(sign * x, sign * d, q, sign * r, [(sign * y, p, sign * s) for y, p, s in known]))))
        self.holds += [z3.Implies(d == 0, z3.And(q == 0, r == 0)), LEAST_INT <= q, q <= MOST_INT]
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
    program: Program, fixed: Mapping[str, int | float] | None = None, exact: bool = False, facts: tuple[Expr, ...] = (), prefix: str = ""
) -> Call:  # fmt: skip
    """A call on a program, of which z3 chooses everything; the params, unless they are fixed. What has no prefix, two calls share: heads, layers,
    params, inputs, and the columns of a `layout given`."""
    steps, heads, layers = count(f"{prefix}steps"), count("heads", 1), count("layers", 1)
    queries = axis("queries", program.queries, program.data, steps)
    keys = queries if program.keys is None else axis("keys", program.keys, program.data, steps)
    holds = [1 <= heads.term, heads.term <= heads.most, 1 <= layers.term, layers.term <= layers.most]
    own = [*holds, *queries.holds, *(keys.holds if keys is not queries else [])]
    return Call(program, queries, keys, heads, layers, fixed, exact, facts, own, prefix=prefix)


@dataclass
class Meaning:
    """What expressions say in a call, of a query, a key, a head and a layer."""

    call: Call
    query: Token | None = None
    key: Token | None = None
    head: Int | None = None
    layer: Int | None = None
    memo: dict[Expr, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for fact in self.call.facts:
            self._assume(fact)
            if self.call.program.keys is None and ir.sides(fact) == {Side.QUERY}:
                self._assume(ir.about(fact, Side.KEY))

    def _assume(self, fact: Expr) -> None:
        """What is known of the inputs at these tokens, once."""
        tokens = {side: self.query if side is Side.QUERY else self.key for side in ir.sides(fact)}
        places = [(self.head if name == "head" else self.layer) for name in ("head", "layer") if name in ir.scalars(fact)]
        if any(x is None for x in (*tokens.values(), *places)):
            return
        name = ir.mirrored(fact), *(t.name for t in tokens.values() if t), *(str(p.term) for p in places if p)
        if name not in self.call.assumed:
            self.call.assumed.add(name)
            there = [t.holds for t in tokens.values() if t is not None]
            self.call.holds.append(z3.Implies(z3.And(there), self.truth(fact)) if there else self.truth(fact))

    def truth(self, expr: Expr) -> Truth:
        found = self.value(expr)
        assert not isinstance(found, Int | Real)
        return found

    def value(self, root: Expr) -> Value:
        for node in ir.postorder(root, land=False, but=self.memo):
            self.memo[node] = self._value(node)
        return self.memo[root]

    def nonzero(self, root: Expr) -> Truth:
        """Whether a factor of a gradient is not 0. Factors are finite, and their product does not vanish by itself."""
        match root:
            case Apply(op=Op.MUL, args=(a, b)):
                return z3.And(self.nonzero(a), self.nonzero(b))
            case Apply(op=Op.SELECT, args=(condition, a, b)):
                return z3.If(self.truth(condition), self.nonzero(a), self.nonzero(b))
        found = self.value(root)
        return z3.Or(found.nan, found.term != 0) if isinstance(found, Real) else _int(found).term != 0

    def _value(self, node: Expr) -> Value:
        match node:
            case Const(value=value, type=Type.BOOL):
                return z3.BoolVal(bool(value))
            case Const(value=value, type=Type.FLOAT):
                return real(float(value))
            case Const(value=value):
                return number(int(value))
            case Scalar(name="head"):
                assert self.head is not None
                return self.head
            case Scalar(name="layer"):
                assert self.layer is not None
                return self.layer
            case Scalar(name=name, type=type):
                return self.call.scalar(name, type)
            case Field(side=side, name=name):
                token = self.query if side is Side.QUERY else self.key
                assert token is not None
                return token.fields[name]
            case Load():
                return self._load(node)
            case Gather(value=value, index=index, filler=filler, type=type):
                token, inside = self.call.land(self.call.queries, _int(self.memo[index]).term)
                found = Meaning(self.call, None, token, self.head, self.layer).value(value)
                return choose(inside, found, _filler(type, filler))
            case Apply(op=op, args=args, type=type):
                return self._apply(op, type, [self.memo[a] for a in args])

    def _load(self, node: Load) -> Value:
        declared = next(i for i in self.call.program.inputs if i.name == node.table)
        indices = tuple(_int(self.memo[i]) for i in node.indices)
        inside = []
        for place, (index, written) in enumerate(zip(indices, node.indices, strict=True)):
            if place < len(declared.axes) and _is_own(declared.axes[place], written):
                self.call.extent(declared, place)
                continue  # a token's own place is in range
            inside += [0 <= index.term, index.term < self.call.extent(declared, place).term]
        found = self.call.element(declared, indices)
        return choose(z3.And(inside), found, _filler(node.type, 0)) if inside else found

    def _apply(self, op: Op, type: Type, args: list[Value]) -> Value:
        if op is not Op.SELECT and any(isinstance(a, Real) for a in args):
            return self._floats(op, args)
        match op, args:
            case Op.TRUEDIV, _:
                return self._floats(op, args)
            case Op.NOT, [a]:
                return z3.Not(a)
            case Op.AND, [a, b]:
                return z3.And(a, b)
            case Op.OR, [a, b]:
                return z3.Or(a, b)
            case Op.SELECT, [condition, a, b]:
                assert not isinstance(condition, Int | Real)
                return choose(condition, a, b)
            case ((Op.EQ | Op.NE), [a, b]):
                equal = a.term == b.term if isinstance(a, Int) and isinstance(b, Int) else a == b
                return equal if op is Op.EQ else z3.Not(equal)
        match op, [_int(a) for a in args]:
            case Op.LT, [a, b]:
                return a.term < b.term
            case Op.LE, [a, b]:
                return a.term <= b.term
            case Op.NEG, [a]:
                return wrapped(-a.term, -a.most, -a.least)
            case Op.ABS, [a]:
                if a.least >= 0:
                    return a
                return wrapped(z3.If(a.term < 0, -a.term, a.term), max(0, -a.most), max(-a.least, a.most))
            case Op.ADD, [a, b]:
                return wrapped(a.term + b.term, a.least + b.least, a.most + b.most)
            case Op.SUB, [a, b]:
                return wrapped(a.term - b.term, a.least - b.most, a.most - b.least)
            case Op.MIN, [a, b]:
                return Int(z3.If(a.term <= b.term, a.term, b.term), min(a.least, b.least), min(a.most, b.most))
            case Op.MAX, [a, b]:
                return Int(z3.If(a.term >= b.term, a.term, b.term), max(a.least, b.least), max(a.most, b.most))
            case Op.MUL, [a, b]:
                return self._product(a, b)
            case ((Op.FLOORDIV | Op.MOD), [a, b]):
                return self._quotient(op, a, b)
            case Op.POW, [a, b]:
                return self._power(a, b)
        raise AssertionError(f"{op} of {len(args)} arguments")

    def _product(self, a: Int, b: Int) -> Int:
        if a.only is None and b.only is None and not self.call.exact:
            found = self.call.unknown("a product of two unknowns", Type.INT, [a, b])
            return _int(found)
        corners = [x * y for x in (a.least, a.most) for y in (b.least, b.most)]
        return wrapped(a.term * b.term, min(corners), max(corners))

    def _quotient(self, op: Op, a: Int, b: Int) -> Int:
        if b.only is None and not self.call.exact:
            q, r = self.call.quotient(a, b)
            within = (0, b.most - 1) if b.least > 0 else (min(b.least, 0), max(b.most, 0))
            return Int(q) if op is Op.FLOORDIV else Int(r, *within)
        if b.only is not None:
            d = b.only
            if d == 0:
                return number(0)
            # z3's own quotient floors where the divisor is above 0.
            over = a.term if d > 0 else -a.term
            if op is Op.FLOORDIV:
                ends = sorted((a.least // d, a.most // d))
                return wrapped(over / abs(d) if abs(d) > 1 else over, *ends)
            if 0 <= a.least and a.most < d:
                return a
            return Int(over % d, 0, d - 1) if d > 0 else Int(-(over % -d), d + 1, 0)
        zero, up = b.term == 0, b.term > 0
        if op is Op.FLOORDIV:
            return wrapped(z3.If(zero, 0, z3.If(up, a.term / b.term, (-a.term) / (-b.term))), LEAST_INT, MOST_INT + 1)
        return Int(z3.If(zero, 0, z3.If(up, a.term % b.term, -((-a.term) % (-b.term)))))

    def _power(self, a: Int, b: Int) -> Int:
        if b.only is not None and 0 <= b.only <= 64:
            found = number(1)
            for _ in range(b.only):
                found = self._product(found, a)
            return found
        if a.only is None:
            return _int(self.call.unknown("a power of an unknown", Type.INT, [a, b]))
        # Of a fixed base there are few powers that are not 0 in 64 bits, unless it is odd.
        if a.only % 2 and a.only not in (0, 1):
            return _int(self.call.unknown("a power of an odd number", Type.INT, [a, b]))
        if a.only in (0, 1):
            return Int(z3.If(b.term < 0, 0, z3.If(b.term == 0, 1, a.only)), 0, 1)
        found: Any = z3.IntVal(0)
        for exponent in range(64):
            value = (pow(a.only, exponent) - LEAST_INT) % WRAP + LEAST_INT
            if value:
                found = z3.If(b.term == exponent, value, found)
        return Int(found)

    def _floats(self, op: Op, args: list[Value]) -> Value:
        numbers = [to_real(a) for a in args]
        match op, numbers:
            case Op.LT, [a, b]:
                return z3.And(z3.Not(a.nan), z3.Not(b.nan), a.term < b.term)
            case Op.LE, [a, b]:
                return z3.And(z3.Not(a.nan), z3.Not(b.nan), a.term <= b.term)
            case Op.EQ, [a, b]:
                return z3.And(z3.Not(a.nan), z3.Not(b.nan), a.term == b.term)
            case Op.NE, [a, b]:
                return z3.Or(a.nan, b.nan, a.term != b.term)
            case Op.NEG, [a]:
                return Real(-a.term, a.nan)
            case Op.ABS, [a]:
                return Real(z3.If(a.term < 0, -a.term, a.term), a.nan)
            case Op.MIN, [a, b]:
                return Real(z3.If(a.term <= b.term, a.term, b.term), z3.Or(a.nan, b.nan))
            case Op.MAX, [a, b]:
                return Real(z3.If(a.term >= b.term, a.term, b.term), z3.Or(a.nan, b.nan))
        cases = [_cases(x.term) for x in numbers]
        if all(cases) and prod(map(len, cases)) <= MOST_CASES:
            # Of known floats the result is known: as torch has it, rounded.
            found: Any = None
            for chosen in product(*cases):
                value = z3.RealVal(str(Fraction(_rounded(op, *(v for _, v in chosen)))))
                found = value if found is None else z3.If(z3.And([c for c, _ in chosen]), value, found)
            return Real(found, z3.Or([x.nan for x in numbers]))
        if op in ir.COMMUTES:
            numbers.sort(key=lambda x: x.term.sexpr())
        return self.call.unknown(f"arithmetic of floats ({op.symbol})", Type.FLOAT, list(numbers))


def _is_own(axis: str, index: Expr) -> bool:
    """Whether a subscript is the place of the token (head, layer) at hand itself."""
    match axis, index:
        case (("token" | "query"), Field(name="pos", side=Side.QUERY)):
            return True
        case (("token" | "key"), Field(name="pos", side=Side.KEY)):
            return True
        case "step", Field(name="step"):
            return True
        case (("head" | "layer"), Scalar(name=name)):
            return name == axis
    return False


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
    return Real(z3.ToReal(_int(value).term), z3.BoolVal(False))


def _int(value: Value) -> Int:
    assert isinstance(value, Int), value
    return value


def _cases(term: Term) -> list[tuple[Truth, float]]:
    """A choice among known numbers, as (when, number); nothing if it is none."""
    if z3.is_rational_value(term):
        value = float(term.as_fraction())  # type: ignore[union-attr]
        return [(z3.BoolVal(True), value)] if Fraction(value) == term.as_fraction() else []  # type: ignore[union-attr]
    if z3.is_app_of(term, z3.Z3_OP_ITE):
        when, then, otherwise = term.children()
        yes, no = _cases(then), _cases(otherwise)
        if yes and no:
            return [*((z3.And(when, c), v) for c, v in yes), *((z3.And(z3.Not(when), c), v) for c, v in no)]
    return []


def _rounded(op: Op, *args: float) -> float:
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


def _filler(type: Type, filler: int) -> Value:
    match type:
        case Type.BOOL:
            return z3.BoolVal(False)
        case Type.FLOAT:
            return real(float(filler))
        case _:
            return number(filler)
