"""IR -> the source of a predicate module: what the Triton kernels ask of a mask, and nothing else of them.

    constants(facts, numbers)                          every scalar the module needs, loaded once a program
    queries(c, ints, flags, reals, at, inside)         the query leaves at some positions, a tuple of vectors
    keys(c, ints, flags, reals, at, inside)            likewise
    attended(c, q, k, ints, flags, reals, AXIS)        which pairs of the two attend
    gate_q, gate_k, gate_v(the same)                   where a gradient is open; or its factor, for a gate with weights

Leaves (expressions about one side) were evaluated when the plan was made; only what mentions both sides is computed here, as the
IR says it: 64-bit integers (32-bit where the plan has shown that nothing exceeds them), float64, division that floors. AXIS is 1
where queries run down and keys across, 0 where they are turned. The text is made of the typed IR alone: no name of the user's is
in it.

Input: a `Compiled`. Output: a `Source`. Non-goals: compiling it (`predicates.py`), filling its buffers (`buffers.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from ..compiler import ir
from ..compiler.compiled import Compiled
from ..compiler.ir import Apply, Const, Expr, Gate, Gather, Load, Op, Side
from ..compiler.leaves import Split
from ..grammar.checked import Type

LONGEST = 4096  # pair nodes: beyond that a kernel compiles for many minutes, however small its tiles


class Unfit(Exception):
    """Why a predicate is not for this backend, in words that complete `... because`."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the scalars of one group stand in its rows of `facts` (int64) and `numbers` (float64).

    `facts`: queries, keys, where its keys begin in `live`, then the constants that are whole numbers, the base of every leaf vector, and of every table its base
    and sizes. `numbers`: the constants that are floats.
    """

    whole: tuple[Expr, ...]
    floats: tuple[Expr, ...]
    vectors: tuple[Expr, ...]  # leaves that are read from a buffer, of either side, and those that a `Gather` lands on
    tables: tuple[tuple[str, Type, int], ...]  # name, type, axes

    FIRST = 3

    @property
    def width(self) -> int:
        """Columns of `facts`."""
        return self.FIRST + len(self.whole) + len(self.vectors) + sum(1 + axes for _, _, axes in self.tables)

    def of_constant(self, leaf: Expr) -> int:
        return self.FIRST + self.whole.index(leaf)

    def of_vector(self, leaf: Expr) -> int:
        return self.FIRST + len(self.whole) + self.vectors.index(leaf)

    def of_table(self, name: str) -> int:
        at = self.FIRST + len(self.whole) + len(self.vectors)
        for table, _, axes in self.tables:
            if table == name:
                return at
            at += 1 + axes
        raise KeyError(name)


@dataclass(frozen=True)
class Source:
    """The text of a predicate module, and how its buffers are laid out."""

    text: str
    columns: Columns
    wide: bool  # whole numbers are 64-bit
    floats: bool  # it computes with floats, whose every step must round as the planner's did
    numbered: frozenset[Side]  # the sides whose rows are numbered by their positions
    weighted: tuple[bool, bool, bool]  # whether a gate is a factor, and not only open or shut

    @cached_property
    def key(self) -> str:
        return sha256(self.text.encode()).hexdigest()[:24]


def row_numbers(numbered: frozenset[Side]) -> frozenset[Expr]:
    """Positions that are the number of the row itself: known where they are asked for, and never loaded."""
    return frozenset(ir.attribute(side, "pos") for side in numbered)


def columns(split: Split, numbered: frozenset[Expr]) -> Columns:
    landed = dict.fromkeys(n.value for n in split.pairs if isinstance(n, Gather))
    vectors = dict.fromkeys(x for x in (*split.query, *split.key, *landed) if x not in numbered)
    axes = {n.table: (n.table, n.type, len(n.indices)) for n in split.pairs if isinstance(n, Load)}
    whole = tuple(x for x in split.constants if x.type is not Type.FLOAT and not isinstance(x, Const))
    floats = tuple(x for x in split.constants if x.type is Type.FLOAT and not isinstance(x, Const))
    return Columns(whole, floats, tuple(vectors), tuple(axes.values()))


def emit(compiled: Compiled, wide: bool, numbered: frozenset[Side] | None = None) -> Source:
    """`numbered`: the sides whose rows are numbered by their positions (`Plan.numbered`); unless given, those of a call on all tokens.

    Raises Unfit if the predicate is too long for a kernel.
    """
    split, program = compiled.split, compiled.program
    if len(split.pairs) > LONGEST:
        raise Unfit(f"its rules about pairs have {len(split.pairs):,} operations, and a kernel of more than {LONGEST:,} compiles for many minutes")
    if numbered is None:
        numbered = frozenset(Side) if program.asks is ir.TRUE else frozenset({Side.KEY})
    positions = row_numbers(numbered)
    layout = columns(split, positions)
    floats = any(isinstance(n, Apply) and n.type is Type.FLOAT and n.op is not Op.SELECT for n in split.pairs)
    weighted = tuple(g.weight is not ir.ONE for g in program.gates)
    writer = _Writer(split, layout, positions, "tl.int64" if wide else "tl.int32")
    parts = [_HEADER, writer.constants(), writer.leaves("queries", split.query), writer.leaves("keys", split.key)]
    parts.append(writer.function("attended", program.attend))
    for name, gate in zip("qkv", program.gates, strict=True):
        parts.append(writer.function(f"gate_{name}", *_roots(gate)))
    return Source("\n\n\n".join(parts) + "\n", layout, wide, floats, numbered, weighted)  # type: ignore[arg-type]


def _roots(gate: Gate) -> tuple[Expr, ...]:
    """Where it is open, and its weight, as far as they say anything."""
    if gate.weight is ir.ONE:
        return (gate.open,)
    return (gate.weight,) if gate.open is ir.TRUE else (gate.open, gate.weight)


_HEADER = '''"""Emitted by srt_masks from a mask. Not to be edited."""

import triton
import triton.language as tl

from srt_masks.kernels.triton_arithmetic import floordiv, mod, power, ratio'''


class _Writer:
    """Writes functions; keeps which element of the tuples `c`, `q` and `k` holds what."""

    def __init__(self, split: Split, layout: Columns, numbered: frozenset[Expr], whole: str):
        self.split, self.layout, self.numbered, self.whole = split, layout, numbered, whole
        self.c: dict[Expr | int, int] = {}  # a constant, or a column of `facts`
        self.dtypes = {Type.BOOL: "tl.int1", Type.INT: whole, Type.ROLE: whole, Type.FLOAT: "tl.float64"}

    def constants(self) -> str:
        # Addresses are 64-bit whatever the numbers are.
        items = ["tl.load(facts + 1)"]  # keys: what a `Gather` may land on
        for leaf in self.layout.whole:
            self.c[leaf] = len(items)
            items.append(f"tl.load(facts + {self.layout.of_constant(leaf)})")
        for i, leaf in enumerate(self.layout.floats):
            self.c[leaf] = len(items)
            items.append(f"tl.load(numbers + {i})")
        for leaf in self.layout.vectors:
            self.c[self.layout.of_vector(leaf)] = len(items)
            items.append(f"tl.load(facts + {self.layout.of_vector(leaf)})")
        for name, _, axes in self.layout.tables:
            for column in range(self.layout.of_table(name), self.layout.of_table(name) + 1 + axes):
                self.c[column] = len(items)
                items.append(f"tl.load(facts + {column})")
        return _function("constants(facts, numbers)", [], _tuple(items))

    def leaves(self, name: str, leaves: tuple[Expr, ...]) -> str:
        items = [f"at.to({self.whole})"]
        for leaf in leaves:
            if leaf in self.numbered:
                continue
            buffer, other, after = self.buffer(leaf.type)
            items.append(f"tl.load({buffer} + c[{self.c[self.layout.of_vector(leaf)]}] + at, mask=inside, other={other}){after}")
        return _function(f"{name}(c, ints, flags, reals, at, inside)", [], _tuple(items))

    def buffer(self, type: Type) -> tuple[str, str, str]:
        """Where values of a type lie, what stands for a missing one, and how to read one."""
        match type:
            case Type.BOOL:
                return "flags", "0", " != 0"
            case Type.FLOAT:
                return "reals", "0.0", ""
            case _:
                return "ints", "0", f".to({self.whole})"

    def function(self, name: str, *roots: Expr) -> str:
        """Of two roots the second is a weight, which counts where the first holds."""
        names: dict[Expr, str] = {}
        lines: list[str] = []

        def define(node: Expr, text: str) -> None:
            names[node] = f"x{len(names)}"
            lines.append(f"{names[node]} = {text}")

        wanted = set(ir.postorder(*roots))
        mine = [n for n in self.split.pairs if n in wanted]
        used = {child for n in mine for child in (ir.children(n) if not isinstance(n, Gather) else (n.index,))} | set(roots)
        for leaf in self.split.constants:
            if leaf in used:
                define(leaf, self.constant(leaf))
        for leaf, text in [*self.across("q", self.split.query, "AXIS"), *self.across("k", self.split.key, "1 - AXIS")]:
            if leaf in used:
                define(leaf, text)
        for node in mine:
            match node:
                case Load(indices=indices, table=table):
                    define(node, self.load(table, node.type, [names[i] for i in indices], lines, f"x{len(names)}"))
                case Gather(value=value, index=index, filler=filler):
                    define(node, self.gather(value, names[index], filler, lines, f"x{len(names)}"))
                case Apply():
                    define(node, self.apply(node, names))
                case _:
                    raise AssertionError(f"no pair node: {node}")
        result = names[roots[-1]]
        if len(roots) == 2:
            result = f"tl.where({names[roots[0]]}, {result}, 0.0)"
        return _function(f"{name}(c, q, k, ints, flags, reals, AXIS: tl.constexpr)", lines, result)

    def across(self, side: str, leaves: tuple[Expr, ...], axis: str) -> list[tuple[Expr, str]]:
        found = []
        number = 1
        for leaf in leaves:
            here = 0 if leaf in self.numbered else number
            number += leaf not in self.numbered
            found.append((leaf, f"tl.expand_dims({side}[{here}], {axis})"))
        return found

    def constant(self, leaf: Expr) -> str:
        if isinstance(leaf, Const):
            return _block(_literal(leaf.value), self.dtypes[leaf.type])
        value = f"c[{self.c[leaf]}]"
        return f"{_block(value, self.whole)} != 0" if leaf.type is Type.BOOL else _block(value, self.dtypes[leaf.type])

    def load(self, table: str, type: Type, indices: list[str], lines: list[str], name: str) -> str:
        column = self.layout.of_table(table)
        sizes = [_block(f"c[{self.c[column + 1 + i]}]", self.whole) for i in range(len(indices))]
        inside = " & ".join(f"({i} >= 0) & ({i} < {size})" for i, size in zip(indices, sizes, strict=True))
        at = indices[0]
        for index, size in zip(indices[1:], sizes[1:], strict=True):
            at = f"({at} * {size} + {index})"
        lines.append(f"{name}_inside = {inside}")
        buffer, other, after = self.buffer(type)
        return f"tl.load({buffer} + c[{self.c[column]}] + {at}, mask={name}_inside, other={other}){after}"

    def gather(self, value: Expr, index: str, filler: int, lines: list[str], name: str) -> str:
        lines.append(f"{name}_inside = ({index} >= 0) & ({index} < {_block('c[0]', self.whole)})")
        if value in self.numbered:
            return f"tl.where({name}_inside, {index}, {_block(str(filler), self.whole)})"
        buffer, _, after = self.buffer(value.type)
        return f"tl.load({buffer} + c[{self.c[self.layout.of_vector(value)]}] + {index}, mask={name}_inside, other={filler}){after}"

    def apply(self, node: Apply, names: dict[Expr, str]) -> str:
        floats = any(x.type is Type.FLOAT for x in node.args)
        match node.op, [self.argument(node, x, names) for x in node.args]:
            case Op.NEG, [a]:
                return f"-{a}"
            case Op.ABS, [a]:
                return f"tl.abs({a})"
            case Op.NOT, [a]:
                return f"~{a}"
            case op, [a, b] if op in _INFIX:
                return f"{a} {_INFIX[op]} {b}"
            case Op.TRUEDIV, [a, b]:
                return f"ratio({a}, {b})"
            case Op.FLOORDIV, [a, b]:
                return f"floordiv({a}, {b})"
            case Op.MOD, [a, b]:
                return f"mod({a}, {b})"
            case Op.POW, [a, b]:
                return f"power({a}, {b}, {self.bits})"
            case (Op.MIN | Op.MAX) as op, [a, b]:
                sign = "<" if op is Op.MIN else ">"
                # A NaN stays one.
                return f"tl.where(({a} {sign} {b}) | ({a} != {a}), {a}, {b})" if floats else f"tl.where({a} {sign} {b}, {a}, {b})"
            case Op.SELECT, [condition, then, otherwise]:
                return f"tl.where({condition}, {then}, {otherwise})"
            case _:
                raise AssertionError(f"{node.op} of {len(node.args)} arguments")

    @property
    def bits(self) -> int:
        return 63 if self.whole == "tl.int64" else 31

    def argument(self, node: Apply, x: Expr, names: dict[Expr, str]) -> str:
        """An argument in the type the operator works in."""
        floats = node.type is Type.FLOAT or any(a.type is Type.FLOAT for a in node.args)
        if node.op is Op.SELECT:
            floats = node.type is Type.FLOAT and x is not node.args[0]
        if floats and x.type is not Type.FLOAT:
            return f"{names[x]}.to(tl.float64)"
        if x.type is Type.BOOL and node.op not in (Op.AND, Op.OR, Op.NOT, Op.SELECT, Op.EQ, Op.NE):
            return f"{names[x]}.to({self.whole})"
        return names[x]


_INFIX = {Op.ADD: "+", Op.SUB: "-", Op.MUL: "*", Op.LT: "<", Op.LE: "<=", Op.EQ: "==", Op.NE: "!=", Op.AND: "&", Op.OR: "|"}


def _block(value: str, dtype: str) -> str:
    """A number as a block of one: Triton's interpreter loses the type of a comparison of two scalars."""
    return f"tl.full([1, 1], {value}, {dtype})"


def _literal(value: int | float | bool) -> str:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f'float("{value}")'
    return repr(value)


def _tuple(items: list[str]) -> str:
    return "(" + ", ".join(items) + ("," if len(items) == 1 else "") + ")"


def _function(signature: str, lines: list[str], result: str) -> str:
    body = "\n".join(f"    {line}" for line in [*lines, f"return {result}"])
    return f"@triton.jit\ndef {signature}:\n{body}"
