"""Checked tree -> IR: lets and sides disappear, rules become one gate each for q, k, v and the hidden state.

Input: `Checked`. Output: `Program`. Non-goals: making it smaller (`simplify.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from ..grammar import checked as c
from ..grammar.checked import Checked, Kind
from . import ir
from .ir import Expr, Gate, Label, Op, Program, Side

_SIDES = {c.Side.QUERY: Side.QUERY, c.Side.KEY: Side.KEY, c.Side.OWN: Side.QUERY}
_OPS = {
    c.Op.NEG: Op.NEG, c.Op.ABS: Op.ABS, c.Op.NOT: Op.NOT, c.Op.ADD: Op.ADD, c.Op.SUB: Op.SUB, c.Op.MUL: Op.MUL,
    c.Op.TRUEDIV: Op.TRUEDIV, c.Op.FLOORDIV: Op.FLOORDIV, c.Op.MOD: Op.MOD, c.Op.POW: Op.POW, c.Op.MIN: Op.MIN, c.Op.MAX: Op.MAX,
    c.Op.LT: Op.LT, c.Op.LE: Op.LE, c.Op.EQ: Op.EQ, c.Op.NE: Op.NE, c.Op.AND: Op.AND, c.Op.OR: Op.OR, c.Op.CHOOSE: Op.SELECT,
}  # fmt: skip


def translate(checked: Checked) -> Callable[[c.Expr], Expr]:
    """A function from the expressions of a spec to IR; what is alike in two of them is translated once."""
    lets: dict[tuple[str, c.Side], Expr] = {}
    bodies = {let.name: let for let in checked.lets}

    def expr(e: c.Expr) -> Expr:
        match e:
            case c.Literal(value=value, type=type):
                return ir.const(value, type)
            case c.ParamRef(name=name, type=type):
                param = next(p for p in checked.params if p.name == name)
                return ir.const(param.value, type) if param.structural else ir.scalar(name, type)
            case c.Global(name=name):
                return ir.scalar(name)
            case c.Attribute(side=side, name=name):
                return ir.attribute(_SIDES[side], name)
            case c.LetRef(name=name, side=side):
                let = bodies[name]
                side = side if let.kind is Kind.TOKEN else c.Side.OWN
                if (name, side) not in lets:
                    lets[name, side] = expr(c.bind(let.body, side))
                return lets[name, side]
            case c.Read(input=name, indices=indices, type=type):
                return ir.load(name, tuple(expr(i) for i in indices), type)
            case c.At(value=value, index=index):
                return ir.gather(expr(c.bind(value, c.Side.KEY)), expr(index))
            case c.Apply(op=c.Op.GT, args=(a, b)):
                return ir.apply(Op.LT, expr(b), expr(a))
            case c.Apply(op=c.Op.GE, args=(a, b)):
                return ir.apply(Op.LE, expr(b), expr(a))
            case c.Apply(op=(c.Op.AND | c.Op.OR) as op, args=args):
                return _balanced(_OPS[op], [expr(a) for a in args])
            case c.Apply(op=op, args=args):
                return ir.apply(_OPS[op], *(expr(a) for a in args))
            case _:
                assert_never(e)

    return expr


def lower(checked: Checked) -> Program:
    expr = translate(checked)

    def gate(target: str) -> Gate:
        opens: list[Expr] = []
        weights: list[Expr] = []
        for rule in checked.rules:
            if target not in rule.targets:
                continue
            where = expr(rule.where)
            if rule.factor is None:
                opens.append(ir.apply(Op.NOT, where))
            else:
                weights.append(ir.apply(Op.SELECT, where, expr(rule.factor), ir.ONE))
        return Gate(_balanced(Op.AND, opens or [ir.TRUE]), ir.apply(Op.MUL, ir.ONE, _balanced(Op.MUL, weights)) if weights else ir.ONE)

    def label(p: c.Prediction) -> Label:
        weight = ir.const(1.0) if p.weight is None else expr(p.weight)
        return Label(p.role, expr(p.target), weight, ir.TRUE if p.where is None else expr(p.where))

    position = ir.attribute(Side.QUERY, "step") if checked.position is None else expr(checked.position)
    return Program(
        checked.roles, checked.data, checked.queries, checked.keys, checked.params, checked.inputs,
        expr(checked.attend), gate("q"), gate("k"), gate("v"), gate("hidden"), position, tuple(label(p) for p in checked.predictions),
        ir.TRUE if checked.asks is None else expr(checked.asks),
    )  # fmt: skip


def _balanced(op: Op, args: list[Expr]) -> Expr:
    """A chain of `and`, `or` or `*` as a balanced tree: a thousand terms are ten levels deep."""
    if len(args) == 1:
        return args[0]
    half = len(args) // 2
    return ir.apply(op, _balanced(op, args[:half]), _balanced(op, args[half:]))
