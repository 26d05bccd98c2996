"""What the words mean, densely: every mask, gate, position and label as a full tensor, straight from the checked tree.

Input: `Checked`, sizes, bound inputs. Output: `DenseMasks`, `TokenTable`. Non-goals: speed, memory below N x N.
It shares no code with the compiler or the kernels, which it judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import assert_never

import torch
from torch import Tensor

from ..diagnostics import InputError
from ..grammar.checked import (
    Apply,
    At,
    Attribute,
    Checked,
    Expr,
    Global,
    Kind,
    Layout,
    LetRef,
    Literal,
    Op,
    ParamRef,
    Read,
    Side,
    Type,
    bind,
)

MAX_BYTES = 8 * 2**30
MAX_TOKENS = 1_000_000
DTYPE = {Type.BOOL: torch.bool, Type.INT: torch.int64, Type.FLOAT: torch.float64, Type.ROLE: torch.int64}


@dataclass(frozen=True)
class DenseMasks:
    """`attend` bool and the gates float64, each ([batch,] layers, heads, queries, keys); `position`, `target` (-1: no target)
    and `weight` ([batch,] queries). The batch axis is there if lengths or an input had one."""

    attend: Tensor
    gate_q: Tensor
    gate_k: Tensor
    gate_v: Tensor
    gate_hidden: Tensor
    position: Tensor
    target: Tensor
    weight: Tensor


@dataclass(frozen=True)
class TokenTable:
    """Which rows are what: one entry a position."""

    pos: Tensor
    section: Tensor
    step: Tensor
    slot: Tensor
    role: tuple[str, ...]
    index: Tensor
    position: Tensor
    asks: Tensor
    target: Tensor
    weight: Tensor

    def __str__(self) -> str:
        columns = ("pos", "section", "step", "slot", "role", "index", "position", "asks", "target", "weight")
        rows: list[tuple[str, ...]] = [columns]
        for i in range(len(self.role)):
            rows.append(tuple(str(v[i] if isinstance(v, tuple) else v[i].item()) for v in (getattr(self, c) for c in columns)))
        widths = [max(len(r[i]) for r in rows) for i in range(len(columns))]
        return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)


def lay_out(layout: Layout, tokens: int, data: tuple[int, ...]) -> dict[str, Tensor]:
    """The built-in attributes of every token of a layout, position by position. Raises InputError beyond MAX_TOKENS."""
    if tokens > MAX_TOKENS:
        raise InputError(f"the reference lays out at most {MAX_TOKENS:,} tokens, one by one; {tokens:,} were asked for")
    steps = layout.steps(tokens)
    rows: list[tuple[int, int, int, int, int]] = []
    index = -1
    for number, section in enumerate(layout.sections):
        for step in range(steps if section.count is None else section.count):
            slots: dict[int, int] = {}
            for role, count in section.rows:
                for _ in range(count):
                    index += role in data
                    rows.append((number, step, slots.get(role, 0), role, index))
                    slots[role] = slots.get(role, 0) + 1
    table = torch.tensor(rows, dtype=torch.int64).reshape(-1, 5)
    columns = dict(zip(("section", "step", "slot", "role", "index"), table.unbind(1), strict=True))
    return {"pos": torch.arange(len(rows)), **columns}


@dataclass
class _Words:
    """The evaluator of one row of the batch, one layer, one head: pair expressions over (queries, keys)."""

    checked: Checked
    params: Mapping[str, int | float]
    inputs: Mapping[str, Tensor]  # without batch axis
    scalars: Mapping[str, int]
    queries: dict[str, Tensor]
    keys: dict[str, Tensor]
    memo: dict[tuple[str, Side], Tensor] = field(default_factory=dict)

    def value(self, expr: Expr) -> Tensor:
        match expr:
            case Literal(value=value, type=type):
                return torch.tensor(value, dtype=DTYPE[type])
            case ParamRef(name=name, type=type):
                return torch.tensor(self.params[name], dtype=DTYPE[type])
            case Global(name=name):
                return torch.tensor(self.scalars[name])
            case Attribute(side=side, name=name):
                return self.attribute(side, name)
            case LetRef(name=name, side=side):
                return self.let(name, side)
            case Read(input=name, indices=indices):
                return read(self.inputs[name], [self.value(i) for i in indices])
            case At(value=value, index=index):
                # Outside the layout there is no token, hence no role: -1 equals none.
                filler = -1 if expr.type is Type.ROLE else 0
                table = self.value(value).broadcast_to(self.queries["pos"].shape)
                return read(table, [self.value(index)], filler)
            case Apply(op=op, args=args):
                return apply(op, [self.value(a) for a in args])
            case _:
                assert_never(expr)

    def attribute(self, side: Side, name: str) -> Tensor:
        match side:
            case Side.QUERY:
                return self.queries[name][:, None]
            case Side.KEY:
                return self.keys[name][None, :]
            case Side.OWN:
                return self.queries[name]

    def let(self, name: str, side: Side) -> Tensor:
        """A let, worked out once a side; only token lets have sides."""
        let = next(x for x in self.checked.lets if x.name == name)
        side = side if let.kind is Kind.TOKEN else Side.OWN
        if (name, side) not in self.memo:
            self.memo[name, side] = self.value(bind(let.body, side))
        return self.memo[name, side]


def read(table: Tensor, indices: list[Tensor], filler: int = 0) -> Tensor:
    """table[i, j, ...]; where a subscript is out of range, 0 or false."""
    if not indices:
        return table
    indices = list(torch.broadcast_tensors(*indices))
    inside = torch.ones_like(indices[0], dtype=torch.bool)
    for i, size in zip(indices, table.shape, strict=True):
        inside = inside & (i >= 0) & (i < size)
    if table.numel() == 0:
        return torch.full(inside.shape, filler, dtype=table.dtype)
    safe = tuple(torch.where(inside, i, 0) for i in indices)
    return torch.where(inside, table[safe], torch.tensor(filler, dtype=table.dtype))


def apply(op: Op, args: list[Tensor]) -> Tensor:
    """One operator; integers are 64-bit and wrap."""
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
            a, b = torch.broadcast_tensors(a.double(), b.double())
            return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))
        case Op.FLOORDIV, [a, b]:
            # By -1 is negation, which wraps; the machine's own division traps at the smallest integer.
            safe = torch.where((b == 0) | (b == -1), 1, b)
            return torch.where(b == 0, 0, torch.where(b == -1, -a, a.div(safe, rounding_mode="floor")))
        case Op.MOD, [a, b]:
            safe = torch.where((b == 0) | (b == -1), 1, b)
            return torch.where((b == 0) | (b == -1), 0, a.remainder(safe))
        case Op.POW, [a, b]:
            return power(a, b)
        case Op.MIN, [a, b]:
            return torch.minimum(*_alike(a, b))
        case Op.MAX, [a, b]:
            return torch.maximum(*_alike(a, b))
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
        case Op.AND, args:
            result = args[0]
            for a in args[1:]:
                result = result & a
            return result
        case Op.OR, args:
            result = args[0]
            for a in args[1:]:
                result = result | a
            return result
        case Op.CHOOSE, [condition, a, b]:
            return torch.where(condition, *_alike(a, b))
        case _:
            raise AssertionError(f"{op} of {len(args)} arguments")


def power(a: Tensor, b: Tensor) -> Tensor:
    """a ** b in 64 bits that wrap, by repeated multiplication; a negative power is 0."""
    a, b = torch.broadcast_tensors(a, b)
    result, base, left = torch.ones_like(a), a.clone(), b.clone()
    while bool((left > 0).any()):
        result = torch.where((left > 0) & (left % 2 == 1), result * base, result)
        base, left = base * base, torch.where(left > 0, left // 2, left)
    return torch.where(b < 0, 0, result)


def _alike(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.dtype == b.dtype:
        return a, b
    return a.double(), b.double()


def dense(
    checked: Checked,
    *,
    queries: int,
    keys: int,
    heads: int,
    layers: int,
    lengths: tuple[int, ...] | None,
    inputs: Mapping[str, Tensor],
    params: Mapping[str, int | float],
) -> DenseMasks:
    """Every mask of a spec. `queries` and `keys` count tokens; `inputs` have a batch axis of 1 or more.

    Raises InputError if the result would exceed 8 GiB.
    """
    batch = len(lengths) if lengths is not None else max((t.shape[0] for t in inputs.values()), default=1)
    gates = len({t for r in checked.rules for t in r.targets})
    wanted = batch * layers * heads * queries * keys * (1 + 8 * gates)
    if wanted > MAX_BYTES:
        raise InputError(
            f"dense masks of {batch} x {layers} layers x {heads} heads x {queries} x {keys} pairs take {wanted / 2**30:,.0f} GiB; at most 8 are made: give fewer steps, heads or layers"
        )
    rows = []
    for b in range(batch):
        mine = {n: t[b if t.shape[0] > 1 else 0] for n, t in inputs.items()}
        length = lengths[b] if lengths is not None else None
        rows.append(_row(checked, queries, keys, heads, layers, length, mine, params))
    if len(rows) == 1 and lengths is None and all(t.shape[0] == 1 for t in inputs.values()):
        return rows[0]
    return DenseMasks(*(torch.stack([getattr(r, f.name) for r in rows]) for f in fields(DenseMasks)))


def _row(
    checked: Checked, queries: int, keys: int, heads: int, layers: int, length: int | None, inputs: Mapping[str, Tensor], params: Mapping[str, int | float]
) -> DenseMasks:
    """One row of the batch: laid out for its own length, as if alone, in front of its padding."""
    nq = queries if length is None else length
    nk = nq if checked.keys is None else keys
    q = lay_out(checked.queries, nq, checked.data)
    k = q if checked.keys is None else lay_out(checked.keys, nk, checked.data)
    per = {i.name: i for i in checked.inputs}
    speaks_of_layer = checked.mentions("layer") or any("layer" in i.axes for i in per.values())
    speaks_of_head = checked.mentions("head") or any("head" in i.axes for i in per.values())
    stacks = []
    for layer in range(layers if speaks_of_layer else 1):
        for head in range(heads if speaks_of_head else 1):
            words = _Words(checked, params, inputs, _scalars(checked, nq, head, heads, layer, layers), q, k)
            stacks.append(_pairs(checked, words, nq, nk))
    shape = (layers if speaks_of_layer else 1, heads if speaks_of_head else 1)
    attend, *gates = (torch.stack(parts).unflatten(0, shape) for parts in zip(*stacks, strict=True))
    pad = (0, keys - nk, 0, queries - nq)
    full = (layers, heads, queries, keys)
    attend = torch.nn.functional.pad(attend, pad, value=False).expand(full)
    gates = [(torch.nn.functional.pad(g, pad, value=1.0) if g.shape[-2:] == (nq, nk) else g).expand(full) for g in gates]
    position, target, weight = _labels(checked, params, inputs, q, nq, heads, layers)
    tail = (0, queries - nq)
    pads = (torch.nn.functional.pad(x, tail, value=filler) for x, filler in ((position, 0), (target, -1), (weight, 0.0)))
    return DenseMasks(attend, *gates, *pads)


def _scalars(checked: Checked, tokens: int, head: int, heads: int, layer: int, layers: int) -> dict[str, int]:
    return {"head": head, "heads": heads, "layer": layer, "layers": layers, "steps": checked.queries.steps(tokens), "length": tokens}


def _pairs(checked: Checked, words: _Words, nq: int, nk: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    attend = words.value(checked.attend).expand(nq, nk)
    gates = {t: torch.ones(1, 1, dtype=torch.float64) for t in ("q", "k", "v", "hidden")}
    for rule in checked.rules:
        where = words.value(rule.where)
        factor = torch.tensor(0.0) if rule.factor is None else words.value(rule.factor)
        for target in rule.targets:
            gates[target] = gates[target] * torch.where(where, factor.double(), torch.tensor(1.0, dtype=torch.float64)).expand(nq, nk)
    return attend, gates["q"], gates["k"], gates["v"], gates["hidden"]


def _labels(
    checked: Checked, params: Mapping[str, int | float], inputs: Mapping[str, Tensor], q: dict[str, Tensor], n: int, heads: int, layers: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Position id, target (a data token by index, -1 = none) and weight of every query."""
    words = _Words(checked, params, inputs, _scalars(checked, n, 0, heads, 0, layers), q, q)
    position = words.value(checked.position).expand(n) if checked.position is not None else q["step"]
    target = torch.full((n,), -1)
    weight = torch.zeros(n, dtype=torch.float64)
    count = int(torch.isin(q["role"], torch.tensor(checked.data, dtype=torch.int64)).sum()) if n else 0
    for p in checked.predictions:
        mine = q["role"] == p.role
        if p.where is not None:
            mine = mine & words.value(p.where)
        wanted = words.value(p.target).expand(n)
        mine = mine & (wanted >= 0) & (wanted < count)
        target = torch.where(mine, wanted, target)
        one = torch.tensor(1.0, dtype=torch.float64)
        weight = torch.where(mine, words.value(p.weight).double() if p.weight is not None else one, weight)
    return position, target, weight


def tokens(checked: Checked, *, queries: int, heads: int, layers: int, inputs: Mapping[str, Tensor], params: Mapping[str, int | float]) -> TokenTable:
    """The table of one row: which position is what."""
    q = lay_out(checked.queries, queries, checked.data)
    mine = {n: t[0] for n, t in inputs.items()}
    position, target, weight = _labels(checked, params, mine, q, queries, heads, layers)
    roles = tuple(checked.roles[r] for r in q["role"].tolist())
    return TokenTable(q["pos"], q["section"], q["step"], q["slot"], roles, q["index"], position, torch.ones(queries, dtype=torch.bool), target, weight)
