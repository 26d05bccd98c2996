"""What the words mean, densely: every mask, gate, position and label as a full tensor, straight from the checked tree.

Input: `Checked`, sizes, bound inputs. Output: `DenseMasks`, `TokenTable`. Non-goals: speed, memory below N x N.
It shares no code with the compiler or the kernels, which it judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
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
    """`attend` bool and the gates float64, each ([batch,] layers, heads, queries, keys); `position` ([batch,] tokens), `target` (-1: no
    target) and `weight` ([batch,] queries). Queries are the tokens that ask: all of them, but for `queries where`. The batch axis is there
    if lengths, an input, a param or a given layout had one."""

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


def lay_out(layout: Layout, tokens: int, data: tuple[int, ...], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The built-in attributes of a layout's first tokens (all, or up to the middle of a step), position by position. `given` are role, step
    and slot of a `layout given`.

    Raises InputError beyond MAX_TOKENS.
    """
    if tokens > MAX_TOKENS:
        raise InputError(f"the reference lays out at most {MAX_TOKENS:,} tokens, one by one; {tokens:,} were asked for")
    if layout.given is not None:
        columns = {n: given[n][:tokens] for n in ("role", "step", "slot")}
        index = torch.isin(columns["role"], torch.tensor(data, dtype=torch.int64)).cumsum(0) - 1
        return {"pos": torch.arange(tokens), "section": torch.zeros(tokens, dtype=torch.int64), "index": index, **columns}
    steps = layout.steps(layout.whole(tokens))
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
    table = torch.tensor(rows, dtype=torch.int64).reshape(-1, 5)[:tokens]
    columns = dict(zip(("section", "step", "slot", "role", "index"), table.unbind(1), strict=True))
    return {"pos": torch.arange(len(table)), **columns}


@dataclass
class Evaluator:
    """The evaluator of one row of the batch, one layer, one head: pair expressions over (queries, keys), token expressions over `own`."""

    checked: Checked
    params: Mapping[str, int | float]
    inputs: Mapping[str, Tensor]  # without batch axis
    scalars: Mapping[str, int]
    own: dict[str, Tensor]
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
                table = self.value(value).broadcast_to(self.own["pos"].shape)
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
                return self.own[name]

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


@dataclass(frozen=True)
class Row:
    """One row of the batch, laid out: its tokens, those that ask, its keys, and what the names mean in it."""

    checked: Checked
    own: dict[str, Tensor]
    queries: dict[str, Tensor]
    keys: dict[str, Tensor]
    inputs: Mapping[str, Tensor]
    params: Mapping[str, int | float]
    heads: int
    layers: int

    def words(self, head: int = 0, layer: int = 0, query: int | None = None, key: int | None = None) -> Evaluator:
        """An evaluator of one head of one layer; of one query (by its place among those that ask) and one key, if given."""
        tokens = len(self.own["pos"])
        steps = int(self.own["step"].max()) + 1 if self.checked.queries.given is not None and tokens else self.checked.queries.steps(tokens)
        scalars = {"head": head, "heads": self.heads, "layer": layer, "layers": self.layers, "steps": steps, "length": tokens}
        queries, keys = (
            side if chosen is None else {n: x[chosen : chosen + 1] for n, x in side.items()} for side, chosen in ((self.queries, query), (self.keys, key))
        )
        return Evaluator(self.checked, self.params, self.inputs, scalars, self.own, queries, keys)

    @property
    def asks(self) -> Tensor:
        """Which tokens ask, bool (tokens,)."""
        tokens = len(self.own["pos"])
        return torch.ones(tokens, dtype=torch.bool) if self.checked.asks is None else self.words().value(self.checked.asks).expand(tokens)


def lay_out_row(
    checked: Checked,
    *,
    tokens: int,
    keys: int,
    heads: int,
    layers: int,
    inputs: Mapping[str, Tensor],
    layout: Mapping[str, Tensor],
    params: Mapping[str, int | float],
    asking: range | None = None,
) -> Row:
    """A row of so many tokens, as if alone. `inputs` and `layout` (the tensors of a `layout given`) are without batch axis; of the tokens that ask
    only those at the positions `asking` are kept, if given."""
    own = lay_out(checked.queries, tokens, checked.data, layout)
    other = own if checked.keys is None else lay_out(checked.keys, keys, checked.data, layout)
    row = Row(checked, own, own, other, inputs, params, heads, layers)
    if checked.asks is None and asking is None:
        return row
    kept = row.asks
    if asking is not None:
        kept = kept & (own["pos"] >= asking.start) & (own["pos"] < asking.stop)
    return replace(row, queries={n: x[kept] for n, x in own.items()})


def dense(
    checked: Checked, rows: Sequence[tuple[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, int | float]]], *,
    tokens: int, keys: int, heads: int, layers: int, lengths: tuple[int, ...] | None, has_batch: bool, asking: tuple[range, ...] | None = None,
) -> DenseMasks:  # fmt: skip
    """Every mask of a spec, for rows of the batch given as (inputs, layout, params), each without a batch axis. `asking`: the positions that q
    holds, by row of the batch; all, unless given.

    Raises InputError if the result would exceed 8 GiB.
    """
    gates = len({t for r in checked.rules for t in r.targets})
    longest = tokens if asking is None else max((len(r) for r in asking), default=0)
    wanted = len(rows) * layers * heads * longest * keys * (1 + 8 * gates)
    if wanted > MAX_BYTES:
        raise InputError(
            f"dense masks of {len(rows)} x {layers} layers x {heads} heads x {longest} x {keys} pairs take {wanted / 2**30:,.0f} GiB; at most 8 are made: give fewer steps, heads or layers"
        )

    def one(number: int, length: int) -> Row:
        inputs, layout, params = rows[number]
        own = None if asking is None else asking[number]
        return lay_out_row(checked, tokens=length, keys=keys, heads=heads, layers=layers, inputs=inputs, layout=layout, params=params, asking=own)

    own = [one(b, tokens if lengths is None else lengths[b]) for b in range(len(rows))]
    # q has a row for every token that asks in a row of full length, in the row of the batch where most do.
    most = max((len(row.queries["pos"]) for row in own), default=0)
    if lengths is not None and checked.asks is not None:
        most = max([most, *(len(one(b, tokens).queries["pos"]) for b in range(len(rows)))])
    shape = (most if checked.asks is not None else longest, keys, tokens)
    masks = [_masks(row, *shape) for row in own]
    if not has_batch:
        return masks[0]
    if not masks:
        pairs, row = (0, layers, heads, *shape[:2]), (0, shape[0])
        ones = torch.ones(pairs, dtype=torch.float64)
        return DenseMasks(
            ones > 0,
            ones,
            ones,
            ones,
            ones,
            torch.zeros(0, tokens, dtype=torch.int64),
            torch.zeros(row, dtype=torch.int64),
            torch.zeros(row, dtype=torch.float64),
        )
    return DenseMasks(*(torch.stack([getattr(m, f.name) for m in masks]) for f in fields(DenseMasks)))


def _masks(row: Row, queries: int, keys: int, tokens: int) -> DenseMasks:
    """One row of the batch, in front of its padding."""
    checked = row.checked
    layers, heads = (row.layers if checked.speaks_of_layers else 1), (row.heads if checked.speaks_of_heads else 1)
    nq, nk = len(row.queries["pos"]), len(row.keys["pos"])
    stacks = [pairs(checked, row.words(head, layer), nq, nk) for layer in range(layers) for head in range(heads)]
    attend, q, k, v, hidden = (torch.stack(parts).unflatten(0, (layers, heads)) for parts in zip(*stacks, strict=True))
    pad = (0, keys - nk, 0, queries - nq)
    full = (row.layers, row.heads, queries, keys)
    attend = torch.nn.functional.pad(attend, pad, value=False).expand(full)
    q, k, v, hidden = ((torch.nn.functional.pad(g, pad, value=1.0) if g.shape[-2:] == (nq, nk) else g).expand(full) for g in (q, k, v, hidden))
    position, target, weight = _labels(row)
    position = torch.nn.functional.pad(position, (0, tokens - len(position)), value=0)
    target, weight = (torch.nn.functional.pad(x[row.queries["pos"]], (0, queries - nq), value=filler) for x, filler in ((target, -1), (weight, 0.0)))
    return DenseMasks(attend, q, k, v, hidden, position, target, weight)


def pairs(checked: Checked, words: Evaluator, nq: int, nk: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Who attends, bool (queries, keys), and the gates of q, k, v and hidden, float64, each (queries, keys) or (1, 1)."""
    attend = words.value(checked.attend).expand(nq, nk)
    gates = {t: torch.ones(1, 1, dtype=torch.float64) for t in ("q", "k", "v", "hidden")}
    # Factors first: what is stopped is 0 whatever they are there, and 0 times what is no number would be none.
    for rule in sorted(checked.rules, key=lambda rule: rule.factor is None):
        where = words.value(rule.where)
        factor = None if rule.factor is None else words.value(rule.factor).double()
        for target in rule.targets:
            gate = gates[target]
            gates[target] = torch.where(where, 0.0 if factor is None else gate * factor, gate).expand(nq, nk)
    return attend, gates["q"], gates["k"], gates["v"], gates["hidden"]


def _labels(row: Row) -> tuple[Tensor, Tensor, Tensor]:
    """Position id, target (a data token by index, -1 = none) and weight of every token; one that does not ask has no target."""
    checked, own, words = row.checked, row.own, row.words()
    n = len(own["pos"])
    position = words.value(checked.position).expand(n) if checked.position is not None else own["step"]
    target = torch.full((n,), -1)
    weight = torch.zeros(n, dtype=torch.float64)
    count = int(torch.isin(own["role"], torch.tensor(checked.data, dtype=torch.int64)).sum()) if n else 0
    for p in checked.predictions:
        mine = (own["role"] == p.role) & row.asks
        if p.where is not None:
            mine = mine & words.value(p.where)
        wanted = words.value(p.target).expand(n)
        mine = mine & (wanted >= 0) & (wanted < count)
        target = torch.where(mine, wanted, target)
        one = torch.tensor(1.0, dtype=torch.float64)
        weight = torch.where(mine, words.value(p.weight).double() if p.weight is not None else one, weight)
    return position, target, weight


def token_table(row: Row) -> TokenTable:
    """The table of one row: which position is what."""
    own = row.own
    position, target, weight = _labels(row)
    roles = tuple(row.checked.roles[r] for r in own["role"].tolist())
    return TokenTable(own["pos"], own["section"], own["step"], own["slot"], roles, own["index"], position, row.asks, target, weight)
