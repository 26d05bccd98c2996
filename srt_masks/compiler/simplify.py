"""The simplifier: laws of masks and whole numbers, as data.

Input: a `Program`. Output: a `Program` of the same meaning. Non-goals: layouts, bounds.

Every rule is (law, left, right), both sides in the language of specs itself: `m n` stand for masks, `x y` for whole numbers,
`r` for a float, `f` and `g` for anything. A rule holds for 64-bit numbers that wrap; comparisons of floats are left alone, because of NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from ..diagnostics import Source
from ..grammar import syntax as t
from ..grammar.checked import Type
from ..grammar.parser import parse
from . import ir
from .ir import Apply, Const, Expr, Gate, Op, Program

LAWS: tuple[tuple[str, str, str], ...] = (
    ("identity of and", "m and true", "m"),
    ("zero of and", "m and false", "false"),
    ("identity of or", "m or false", "m"),
    ("zero of or", "m or true", "true"),
    ("idempotence of and", "m and m", "m"),
    ("idempotence of or", "m or m", "m"),
    ("absorption of or", "m and (m or n)", "m"),
    ("absorption of and", "m or (m and n)", "m"),
    ("contradiction", "m and not m", "false"),
    ("excluded middle", "m or not m", "true"),
    ("double negation", "not not m", "m"),
    ("negated <", "not x < y", "y <= x"),
    ("negated <=", "not x <= y", "y < x"),
    ("negated ==", "not x == y", "x != y"),
    ("negated !=", "not x != y", "x == y"),
    ("total order, either", "x < y or y <= x", "true"),
    ("total order, both", "x < y and y <= x", "false"),
    ("equal or not", "x == y or x != y", "true"),
    ("equal and not", "x == y and x != y", "false"),
    ("reflexive ==", "x == x", "true"),
    ("reflexive !=", "x != x", "false"),
    ("reflexive <=", "x <= x", "true"),
    ("irreflexive <", "x < x", "false"),
    ("zero of +", "x + 0", "x"),
    ("zero of -", "x - 0", "x"),
    ("self difference", "x - x", "0"),
    ("one of *", "x * 1", "x"),
    ("one of float *", "r * 1.0", "r"),
    ("zero of *", "x * 0", "0"),
    ("one of //", "x // 1", "x"),
    ("one of %", "x % 1", "0"),
    ("double minus", "--x", "x"),
    ("idempotence of min", "min(x, x)", "x"),
    ("idempotence of max", "max(x, x)", "x"),
    ("choice of true", "f if true else g", "f"),
    ("choice of false", "f if false else g", "g"),
    ("choice of one", "f if m else f", "f"),
    ("choice of a mask", "true if m else false", "m"),
)


@dataclass(frozen=True, slots=True)
class Rule:
    law: str
    left: t.Expr
    right: t.Expr


def simplify(program: Program) -> Program:
    def gate(g: Gate) -> Gate:
        return Gate(simplified(g.open), simplified(g.weight))

    labels = tuple(replace(x, target=simplified(x.target), weight=simplified(x.weight), where=simplified(x.where)) for x in program.labels)
    return replace(
        program,
        attend=simplified(program.attend), gate_q=gate(program.gate_q), gate_k=gate(program.gate_k), gate_v=gate(program.gate_v),
        gate_hidden=gate(program.gate_hidden), position=simplified(program.position), labels=labels, asks=simplified(program.asks),
    )  # fmt: skip


def simplified(root: Expr) -> Expr:
    """Bottom-up, each node rewritten until no rule fits. Every rule makes a node smaller, so this ends."""
    done: dict[Expr, Expr] = {}
    for node in ir.postorder(root):
        new = ir.rebuilt(node, done.__getitem__)
        while (better := _rewrite(new)) is not None:
            new = better
        done[node] = new
    return done[root]


def _rewrite(node: Expr) -> Expr | None:
    if not isinstance(node, Apply):
        return None
    folded = fold(node)
    if folded is not None:
        return folded
    for rule in rules_by_operator().get(node.op, ()):
        found = match_pattern(rule.left, node, {})
        if found is not None:
            result = instantiate(rule.right, found)
            # A choice between an int and a float is a float; a rule must not change a type.
            if result.type is node.type:
                return result
    return None


@cache
def rules_by_operator() -> dict[Op, tuple[Rule, ...]]:
    """The laws by the operator at the root of their left side."""
    table: dict[Op, list[Rule]] = {}
    for law, left, right in LAWS:
        tree, mistakes = parse(Source(f"let left = {left}\nlet right = {right}"))
        assert not mistakes
        sides = [s.body for s in tree.statements if isinstance(s, t.Let)]
        table.setdefault(_operator(sides[0])[0], []).append(Rule(law, *sides))
    return {op: tuple(rules) for op, rules in table.items()}


_BINARY = {"+": Op.ADD, "-": Op.SUB, "*": Op.MUL, "//": Op.FLOORDIV, "%": Op.MOD}
_COMPARE = {"<": Op.LT, "<=": Op.LE, "==": Op.EQ, "!=": Op.NE}


def _operator(pattern: t.Expr) -> tuple[Op, tuple[t.Expr, ...]]:
    match pattern:
        case t.Logic(op=op, operands=operands):
            return (Op.AND if op == "and" else Op.OR), operands
        case t.Not(operand=operand):
            return Op.NOT, (operand,)
        case t.Sign(operand=operand):
            return Op.NEG, (operand,)
        case t.Binary(op=op, left=left, right=right):
            return _BINARY[op], (left, right)
        case t.Chain(first=first, rest=((op, second),)):
            return _COMPARE[op], (first, second)
        case t.Choose(then=then, condition=condition, otherwise=otherwise):
            return Op.SELECT, (condition, then, otherwise)
        case t.Call(name=name, args=args):
            return (Op.MIN if name.text == "min" else Op.MAX), args
        case _:
            raise AssertionError(f"no pattern: {pattern}")


_VARIABLES = {
    "m": (Type.BOOL,),
    "n": (Type.BOOL,),
    "x": (Type.INT, Type.ROLE),
    "y": (Type.INT, Type.ROLE),
    "r": (Type.FLOAT,),
    "f": tuple(Type),
    "g": tuple(Type),
}

Bindings = dict[str, Expr]


def match_pattern(pattern: t.Expr, node: Expr, bound: Bindings) -> Bindings | None:
    """The values of the pattern's letters, or None. Operators that commute are tried both ways."""
    match pattern:
        case t.Name(name=name):
            if name in bound:
                return bound if bound[name] is node else None
            return {**bound, name: node} if node.type in _VARIABLES[name] else None
        case t.Truth(value=value):
            return bound if node is ir.const(value) else None
        case t.Number(text=text):
            return bound if node is _number(text) else None
    op, parts = _operator(pattern)
    if not isinstance(node, Apply) or node.op is not op:
        return None
    for args in (node.args, node.args[::-1]) if op in ir.COMMUTES else (node.args,):
        found: Bindings | None = bound
        for part, arg in zip(parts, args, strict=True):
            found = match_pattern(part, arg, found) if found is not None else None
        if found is not None:
            return found
    return None


def instantiate(pattern: t.Expr, bound: Bindings) -> Expr:
    match pattern:
        case t.Name(name=name):
            return bound[name]
        case t.Truth(value=value):
            return ir.const(value)
        case t.Number(text=text):
            return _number(text)
    op, parts = _operator(pattern)
    return ir.apply(op, *(instantiate(p, bound) for p in parts))


def _number(text: str) -> Const:
    return ir.const(float(text) if "." in text else int(text))


def fold(node: Apply) -> Expr | None:
    """An operator of constants, in 64 bits that wrap; floats are left to run time."""
    if not all(isinstance(a, Const) and a.type is not Type.FLOAT for a in node.args) or node.type is Type.FLOAT:
        return None
    a, *rest = (a.value for a in node.args if isinstance(a, Const))
    b = rest[0] if rest else 0
    match node.op:
        case Op.NOT:
            return ir.const(not a)
        case Op.NEG:
            result = -a
        case Op.ABS:
            result = abs(a)
        case Op.ADD:
            result = a + b
        case Op.SUB:
            result = a - b
        case Op.MUL:
            result = a * b
        case Op.FLOORDIV:
            result = a // b if b else 0
        case Op.MOD:
            result = a % b if b else 0
        case Op.POW:
            result = pow(int(a), int(b), 2**64) if b >= 0 else 0
        case Op.MIN:
            result = min(a, b)
        case Op.MAX:
            result = max(a, b)
        case Op.LT:
            return ir.const(a < b)
        case Op.LE:
            return ir.const(a <= b)
        case Op.EQ:
            return ir.const(a == b)
        case Op.NE:
            return ir.const(a != b)
        case Op.AND:
            return ir.const(bool(a and b))
        case Op.OR:
            return ir.const(bool(a or b))
        case _:
            return None
    return ir.const((int(result) + 2**63) % 2**64 - 2**63, node.type)
