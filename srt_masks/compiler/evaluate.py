"""IR -> values: one operator at a time, any broadcastable shapes, 64-bit integers and floats.

Used three ways: per-token leaves, pairs of a tile, and position and labels of a model. Whole axes and the pairs that a kernel asks for are torch
tensors; the few tokens and pairs that the planner looks at, NumPy arrays. An operator is written once for both.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..grammar.checked import Type
from . import ir
from .ir import Apply, Const, Expr, Field, Gather, Load, Op, Scalar, Side
from .layout import Attributes

DTYPES = {Type.BOOL: torch.bool, Type.INT: torch.int64, Type.FLOAT: torch.float64, Type.ROLE: torch.int64}
NUMPY_DTYPES = {Type.BOOL: np.bool_, Type.INT: np.int64, Type.FLOAT: np.float64, Type.ROLE: np.int64}

Array = NDArray[Any]
Values = TypeVar("Values", Tensor, Array)


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
        values |= {node: found for node in ir.postorder(*roots, land=False) if (found := self._in_order(node)) is not None}
        for node in ir.postorder(*roots, land=False, but=set(values)):
            match node:
                case Field(side=side, name=name):
                    values[node] = self.axis(side)[name]
                case Scalar(name=name, type=type):
                    values[node] = torch.tensor(self.scalars[name], dtype=DTYPES[type])
                case Const(value=value, type=type):
                    values[node] = torch.tensor(value, dtype=DTYPES[type])
                case Load(table=table, indices=indices):
                    values[node] = read(self.inputs[table], [values[i] for i in indices])
                case Gather(value=value, index=index, filler=filler):
                    values[node] = read(self.landed(value), [values[index]], filler)
                case _:
                    values[node] = step(node, values)
        return [values[r] for r in roots]

    def at(self, side: Side, index: Array, *leaves: Expr) -> list[Array]:
        """Leaves of one side at some places of its axis, from those alone; each in the shape of `index`."""
        field = self.axis(side).at_places(index)
        values: dict[Expr, Array] = {}
        with np.errstate(all="ignore"):  # whole numbers wrap, floats may be none
            for node in _postorder(leaves):
                match node:
                    case Field(name=name):
                        values[node] = field(name)
                    case Scalar(name=name, type=type):
                        values[node] = np.asarray(self.scalars[name], NUMPY_DTYPES[type])
                    case Const(value=value, type=type):
                        values[node] = np.asarray(value, NUMPY_DTYPES[type])
                    case Load(table=table, indices=indices):
                        values[node] = read(array(self.inputs[table]), [values[i] for i in indices])
                    case Gather(value=value, index=place, filler=filler):
                        values[node] = read(array(self.landed(value)), [values[place]], filler)
                    case _:
                        values[node] = step(node, values)
        return [np.broadcast_to(values[x], index.shape) for x in leaves]

    def _in_order(self, node: Expr) -> Tensor | None:
        """What is read at every position, or at one equally far from each: a stretch of what lies there. None for anything else."""
        match node:
            case Load(indices=(index,)) | Gather(index=index):
                found = _distance(index)
            case _:
                return None
        if found is None or not self.axis(found[0]).whole:
            return None
        side, first = found
        count = len(self.axis(side))
        if isinstance(node, Gather):
            return stretch(self.landed(node.value), first, count, node.filler)
        return stretch(self.inputs[node.table], first, count)


def _distance(index: Expr) -> tuple[Side, int] | None:
    """Of a position, or one that lies so far from it: whose, and how far."""
    match index:
        case Field(name="pos", side=side):
            return side, 0
        case Apply(op=Op.ADD, args=(Field(name="pos", side=side), Const(value=int(far))) | (Const(value=int(far)), Field(name="pos", side=side))):
            return side, far
        case Apply(op=Op.SUB, args=(Field(name="pos", side=side), Const(value=int(far)))):
            return side, -far
        case _:
            return None


def stretch(table: Tensor, first: int, count: int, filler: int = 0) -> Tensor:
    """`table` (places,) at the places `first` .. `first + count`, as `read` finds it; where there is no place, `filler`."""
    begin, end = max(0, -first), min(count, len(table) - first)
    if (begin, end) == (0, count):
        return table[first : first + count]
    found = table.new_full((count,), filler)
    if begin < end:
        found[begin:end] = table[first + begin : first + end]
    return found


@lru_cache(maxsize=256)
def _postorder(leaves: tuple[Expr, ...]) -> tuple[Expr, ...]:
    return tuple(ir.postorder(*leaves, land=False))


def step(node: Expr, values: Mapping[Expr, Values]) -> Values:
    """The value of an operator, from those of its arguments."""
    match node:
        case Apply(op=op, args=args, type=type):
            result = operate(op, [values[a] for a in args])
            return _double(result) if type is Type.FLOAT else result
        case _:
            raise AssertionError(f"not an operator: {node}")


def array(values: Tensor) -> Array:
    """The same values, in the same memory."""
    return values.detach().numpy()


def read(table: Values, indices: list[Values], filler: int = 0) -> Values:
    """`table[i, j, ...]`; where a subscript is out of range, `filler`."""
    if not indices:
        return table
    xp = _library(table)
    inside = None
    for index, size in zip(indices, table.shape, strict=True):
        here = (index >= 0) & (index < size)
        inside = here if inside is None else inside & here
    if 0 in table.shape:
        return xp.full_like(inside, filler, dtype=table.dtype)
    found = table[tuple(xp.clip(i, 0, size - 1) for i, size in zip(indices, table.shape, strict=True))]
    return xp.where(inside, found, xp.full_like(found, filler))


def _library(values: Tensor | Array) -> Any:
    """Where the functions are that both have by one name."""
    return torch if isinstance(values, Tensor) else np


def _double(values: Values) -> Values:
    return values.double() if isinstance(values, Tensor) else values.astype(np.float64, copy=False)


def _is_float(values: Tensor | Array) -> bool:
    return values.is_floating_point() if isinstance(values, Tensor) else values.dtype.kind == "f"


def operate(op: Op, args: list[Values]) -> Values:
    """One operator. Division and remainder floor and are 0 by zero; a negative whole power is 0."""
    if op is not Op.SELECT and any(_is_float(a) for a in args):
        args = [_double(a) for a in args]
    xp = _library(args[0])
    match op, args:
        case Op.NEG, [a]:
            return -a
        case Op.ABS, [a]:
            return xp.abs(a)
        case Op.NOT, [a]:
            return ~a
        case Op.ADD, [a, b]:
            return a + b
        case Op.SUB, [a, b]:
            return a - b
        case Op.MUL, [a, b]:
            return a * b
        case Op.TRUEDIV, [a, b]:
            return xp.where(b == 0, 0.0, _double(a) / _double(xp.where(b == 0, 1, b)))
        case Op.FLOORDIV, [a, b]:
            # The machine traps at the smallest integer divided by -1: negate instead, which wraps.
            odd = (b == 0) | (b == -1)
            if xp is np and not odd.any():
                return a // b
            return xp.where(odd, xp.where(b == 0, 0, -a), a // xp.where(odd, 1, b))
        case Op.MOD, [a, b]:
            odd = (b == 0) | (b == -1)
            if xp is np and not odd.any():
                return a % b
            return xp.where(odd, 0, a % xp.where(odd, 1, b))
        case Op.POW, [a, b]:
            return _power(a, b)
        case Op.MIN, [a, b]:
            return xp.minimum(a, b)
        case Op.MAX, [a, b]:
            return xp.maximum(a, b)
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
                a, b = _double(a), _double(b)
            return xp.where(condition, a, b)
        case _:
            raise AssertionError(f"{op} of {len(args)} arguments")


def _power(a: Values, b: Values) -> Values:
    """Square and multiply, modulo 2**64."""
    xp = _library(a)
    result, exponent = xp.ones_like(a + b), b
    while bool((exponent > 0).any()):
        result = xp.where((exponent > 0) & (exponent & 1 == 1), result * a, result)
        a, exponent = a * a, exponent >> 1
    return xp.where(b < 0, 0, result)
