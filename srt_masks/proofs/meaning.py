"""IR -> z3: what an expression says of a query and a key that z3 chooses, in a call whose sizes, params and inputs it chooses too.

Input: IR, tokens. Output: values of z3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from math import prod
from typing import Any

import z3

from ..compiler import ir
from ..compiler.ir import Apply, Const, Expr, Field, Gather, Load, Op, Scalar, Side
from ..grammar.checked import Type
from .call import Call
from .tokens import Token
from .values import (
    EXACT,
    LEAST_INT,
    MOST_INT,
    WRAP,
    Int,
    Real,
    Truth,
    Value,
    cases,
    choose,
    filler_of,
    int_of,
    number,
    real,
    rounded,
    to_real,
    unchanged,
    wrapped,
)

MOST_CASES = 64


@dataclass
class Meaning:
    """What expressions say in a call, of a query, a key, a head and a layer."""

    call: Call
    query: Token | None = None
    key: Token | None = None
    head: Int | None = None
    layer: Int | None = None
    assumes: bool = True  # the facts, at these tokens
    memo: dict[Expr, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for fact in self.call.facts if self.assumes else ():
            self._assume(fact)
            if self.call.program.keys is None and ir.sides(fact) == {Side.QUERY}:
                self._assume(ir.about(fact, Side.KEY))

    def _assume(self, fact: Expr) -> None:
        """What is known of the inputs at these tokens, once."""
        tokens = {side: self.query if side is Side.QUERY else self.key for side in ir.sides(fact)}
        places = [(self.head if name == "head" else self.layer) for name in ("head", "layer") if name in ir.scalars(fact)]
        if any(x is None for x in (*tokens.values(), *places)):
            return
        name = ir.mirrored(fact) if len(tokens) < 2 else fact, *(t.name for t in tokens.values() if t), *(str(p.term) for p in places if p)
        if name not in self.call.assumed:
            self.call.assumed.add(name)
            there = [t.holds for t in tokens.values() if t is not None]
            # Not at the tokens that a fact itself reads: from neighbour to neighbour there would be no end of it.
            said = Meaning(self.call, self.query, self.key, self.head, self.layer, assumes=False).truth(fact)
            self.call.holds.append(z3.Implies(z3.And(there), said) if there else said)

    def truth(self, expr: Expr) -> Truth:
        found = self.value(expr)
        assert not isinstance(found, Int | Real)
        return found

    def value(self, root: Expr) -> Value:
        for node in ir.postorder(root, land=False, but=self.memo):
            self.call.check_time()
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
        return z3.Or(found.nan, found.term != 0) if isinstance(found, Real) else int_of(found).term != 0

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
                token, inside = self.call.land(self.call.queries, int_of(self.memo[index]).term)
                found = Meaning(self.call, None, token, self.head, self.layer, self.assumes).value(value)
                return choose(inside, found, filler_of(type, filler))
            case Apply(op=op, args=args, type=type):
                return self._apply(op, type, [self.memo[a] for a in args])

    def _load(self, node: Load) -> Value:
        declared = next(i for i in self.call.program.inputs if i.name == node.table)
        indices = tuple(int_of(self.memo[i]) for i in node.indices)
        inside = []
        for place, (index, written) in enumerate(zip(indices, node.indices, strict=True)):
            if place < len(declared.axes) and self._is_own(declared.axes[place], written):
                self.call.extent(declared, place)
                continue  # a token's own place is in range
            inside += [0 <= index.term, index.term < self.call.extent(declared, place).term]
        found = self.call.element(declared, indices)
        return choose(z3.And(inside), found, filler_of(node.type, 0)) if inside else found

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
        match op, [int_of(a) for a in args]:
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
            return int_of(found)
        corners = [x * y for x in (a.least, a.most) for y in (b.least, b.most)]
        return wrapped(a.term * b.term, min(corners), max(corners))

    def _quotient(self, op: Op, a: Int, b: Int) -> Int:
        if b.only is None and not self.call.exact:
            q, r = self.call.quotient(a, b)
            within = (0, b.most - 1) if b.least > 0 else (min(b.least, 0), max(b.most, 0))
            # The smallest whole number by -1 is one too many, and wraps.
            most = MOST_INT + (a.least == LEAST_INT and b.least <= -1 <= b.most)
            return wrapped(q, LEAST_INT, most) if op is Op.FLOORDIV else Int(r, *within)
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
            return int_of(self.call.unknown("a power of an unknown", Type.INT, [a, b]))
        # Of a fixed base there are few powers that are not 0 in 64 bits, unless it is odd.
        if a.only % 2 and a.only not in (0, 1):
            return int_of(self.call.unknown("a power of an odd number", Type.INT, [a, b]))
        if a.only in (0, 1):
            return Int(z3.If(b.term < 0, 0, z3.If(b.term == 0, 1, a.only)), 0, 1)
        found: Any = z3.IntVal(0)
        for exponent in range(64):
            value = (pow(a.only, exponent) - LEAST_INT) % WRAP + LEAST_INT
            if value:
                found = z3.If(b.term == exponent, value, found)
        return Int(found)

    def _floats(self, op: Op, args: list[Value]) -> Value:
        numbers = [self._real(a) for a in args]
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
        if (same := unchanged(op, numbers)) is not None:
            return same
        known = [cases(x.term) for x in numbers]
        if all(known) and prod(map(len, known)) <= MOST_CASES:
            # Of known floats the result is known: as torch has it, rounded.
            found: Any = None
            for chosen in product(*known):
                value = z3.RealVal(str(Fraction(rounded(op, *(v for _, v in chosen)))))
                found = value if found is None else z3.If(z3.And([c for c, _ in chosen]), value, found)
            return Real(found, z3.Or([x.nan for x in numbers]))
        if op in ir.COMMUTES:
            numbers.sort(key=lambda x: x.term.sexpr())
        return self.call.unknown(f"arithmetic of floats ({op.symbol})", Type.FLOAT, list(numbers))

    def _real(self, value: Value) -> Real:
        """As a float: whole numbers beyond 2**53 are rounded, we do not say how."""
        if isinstance(value, Int) and not -EXACT <= value.least <= value.most <= EXACT:
            found = self.call.unknown("whole numbers beyond 2**53 as floats", Type.FLOAT, [value])
            assert isinstance(found, Real)
            self.call.holds += [z3.Not(found.nan), z3.Implies(z3.And(-EXACT <= value.term, value.term <= EXACT), found.term == value.term)]
            return found
        return to_real(value)

    def _is_own(self, axis: str, index: Expr) -> bool:
        """Whether a subscript is the place of the token (head, layer) at hand itself."""
        match axis, index:
            case ("token", Field(name="pos")):
                return self.call.program.keys is None
            case ("query", Field(name="pos", side=Side.QUERY)) | ("key", Field(name="pos", side=Side.KEY)):
                return True
            case "step", Field(name="step", side=side):
                return side is Side.QUERY or self.call.program.keys is None
            case (("head" | "layer"), Scalar(name=name)):
                return name == axis
        return False
