"""IR -> tensors: one operator at a time, any broadcastable shapes, 64-bit integers and floats.

Used three ways: per-token leaves, pairs of a tile, and position and labels of a model.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..grammar.checked import Type
from . import ir
from .ir import Apply, Const, Expr, Field, Gather, Load, Op, Scalar, Side
from .layout import Attributes

DTYPES = {Type.BOOL: torch.bool, Type.INT: torch.int64, Type.FLOAT: torch.float64, Type.ROLE: torch.int64}


@dataclass(frozen=True)
class Environment:
    """What the names mean for one row of the batch, one layer and one head.

    `vectors` keeps what was evaluated over whole axes, `summaries` what is known of its tiles. An environment made from another by `replace` shares
    them: the inputs must be the same.
    """

    scalars: Mapping[str, int | float]
    inputs: Mapping[str, Tensor]  # without batch axis
    queries: Attributes
    keys: Attributes
    everyone: Attributes | None = None  # every key in order, where `keys` are not: a `Gather` lands on these
    vectors: dict[Hashable, Tensor] = field(default_factory=dict, repr=False, compare=False)
    summaries: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def at(self, queries: Tensor, keys: Tensor) -> Environment:
        """The same names over some tokens alone: places along each axis."""
        everyone = self.keys if self.everyone is None else self.everyone
        return replace(self, queries=self.queries.at(queries), keys=self.keys.at(keys), everyone=everyone)

    def axis(self, side: Side) -> Attributes:
        return self.queries if side is Side.QUERY else self.keys

    def name(self, leaf: Expr) -> Hashable:
        """Leaves of one name are equal, among environments that share their `vectors`: the axis, the expression, the scalars it reads."""
        return (*(self.axis(side) for side in ir.sides(leaf)), ir.mirrored(leaf), *((s, self.scalars[s]) for s in ir.scalars(leaf)))

    def vector(self, leaf: Expr) -> Tensor:
        """A leaf over its whole axis, (tokens,), or a constant, (); kept."""
        own = [self.axis(side) for side in ir.sides(leaf)]
        name = self.name(leaf)
        if name not in self.vectors:
            (value,) = self.evaluate(leaf)
            self.vectors[name] = value.expand(len(own[0])).contiguous() if own else value
        return self.vectors[name]

    def landed(self, value: Expr) -> Tensor:
        """What a `Gather` reads from: a token expression over every key, in order."""
        return (self if self.everyone is None else replace(self, keys=self.everyone, everyone=None)).vector(value)

    def evaluate(self, *roots: Expr) -> list[Tensor]:
        """Each root over whole axes: one-sided expressions as (tokens,), constants as ()."""
        values: dict[Expr, Tensor] = {}
        for node in ir.postorder(*roots, land=False):
            match node:
                case Field(side=side, name=name):
                    values[node] = self.axis(side)[name]
                case Scalar(name=name, type=type):
                    values[node] = torch.tensor(self.scalars[name], dtype=DTYPES[type])
                case Load(table=table, indices=indices):
                    values[node] = self._load(node, [values[i] for i in indices], self.inputs[table])
                case Gather(value=value, index=index, filler=filler):
                    values[node] = read(self.landed(value), [values[index]], filler)
                case _:
                    values[node] = step(node, values)
        return [values[r] for r in roots]

    def _load(self, node: Load, indices: list[Tensor], table: Tensor) -> Tensor:
        """An input asked for at every position, in order, passes straight through."""
        match node.indices:
            case (Field(name="pos", side=side),) if self.axis(side).whole and table.shape[0] == len(self.axis(side)):
                return table
        return read(table, indices)


def step(node: Expr, values: Mapping[Expr, Tensor]) -> Tensor:
    """The value of a constant or an operator, from those of its arguments."""
    match node:
        case Const(value=value, type=type):
            return torch.tensor(value, dtype=DTYPES[type])
        case Apply(op=op, args=args, type=type):
            result = operate(op, [values[a] for a in args])
            return result.double() if type is Type.FLOAT else result
        case _:
            raise AssertionError(f"not an operator: {node}")


def read(table: Tensor, indices: list[Tensor], filler: int = 0) -> Tensor:
    """`table[i, j, ...]`; where a subscript is out of range, `filler`."""
    if not indices:
        return table
    inside: Tensor | None = None
    for index, size in zip(indices, table.shape, strict=True):
        here = (index >= 0) & (index < size)
        inside = here if inside is None else inside & here
    assert inside is not None
    if 0 in table.shape:
        return torch.full_like(inside, filler, dtype=table.dtype)
    found = table[tuple(i.clamp(0, size - 1) for i, size in zip(indices, table.shape, strict=True))]
    return torch.where(inside, found, found.new_full((), filler))


def operate(op: Op, args: list[Tensor]) -> Tensor:
    """One operator. Division and remainder floor and are 0 by zero; a negative whole power is 0."""
    if any(a.is_floating_point() for a in args) and op is not Op.SELECT:
        args = [a.double() for a in args]
    match op, args:
        case Op.NEG, [a]:
            return -a
        case Op.ABS, [a]:
            return a.abs()
        case Op.NOT, [a]:
            return ~a
        case Op.ADD, [a, b]:
            return a + b
        case Op.SUB, [a, b]:
            return a - b
        case Op.MUL, [a, b]:
            return a * b
        case Op.TRUEDIV, [a, b]:
            quotient = a.double() / torch.where(b == 0, 1, b).double()
            return torch.where(b == 0, 0.0, quotient)
        case Op.FLOORDIV, [a, b]:
            # The machine traps at the smallest integer divided by -1: negate instead, which wraps.
            odd = (b == 0) | (b == -1)
            quotient = torch.div(a, torch.where(odd, 1, b), rounding_mode="floor")
            return torch.where(odd, torch.where(b == 0, 0, -a), quotient)
        case Op.MOD, [a, b]:
            odd = (b == 0) | (b == -1)
            return torch.where(odd, 0, torch.remainder(a, torch.where(odd, 1, b)))
        case Op.POW, [a, b]:
            return _power(a, b)
        case Op.MIN, [a, b]:
            return torch.minimum(a, b)
        case Op.MAX, [a, b]:
            return torch.maximum(a, b)
        case Op.LT, [a, b]:
            return a < b
        case Op.LE, [a, b]:
            return a <= b
        case Op.EQ, [a, b]:
            return a == b
        case Op.NE, [a, b]:
            return a != b
        case Op.AND, [a, b]:
            return a & b
        case Op.OR, [a, b]:
            return a | b
        case Op.SELECT, [condition, a, b]:
            if a.dtype != b.dtype:
                a, b = a.double(), b.double()
            return torch.where(condition, a, b)
        case _:
            raise AssertionError(f"{op} of {len(args)} arguments")


def _power(a: Tensor, b: Tensor) -> Tensor:
    """Square and multiply, modulo 2**64."""
    result = torch.ones_like(a + b)
    exponent = b
    while bool((exponent > 0).any()):
        result = torch.where((exponent > 0) & (exponent & 1 == 1), result * a, result)
        a, exponent = a * a, exponent >> 1
    return torch.where(b < 0, 0, result)
