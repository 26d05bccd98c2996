"""The `tiled` backend: block-sparse attention in plain torch, forward and backward, on any device.

For each row of tiles it gathers the stretches of keys its runs name, and works on them with a few matmuls. Nothing N x N is ever
made: the largest tensor is (batch, heads, tile, attended keys), cut along batch and heads into chunks of at most CHUNK numbers (or
one head of one row of the batch, where that alone is more).

Notation is the field's: S scores, P probabilities, lse = log sum exp S, delta_i = sum_d dO_id O_id, dS = P * (dP - delta + dlse).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..compiler.choice import Costs
from ..compiler.compiled import Compiled
from ..compiler.ir import Program
from ..compiler.labels import PARTIAL, SHIFTS, State
from ..compiler.leaves import Leaves
from ..compiler.plan import Plan
from ..compiler.runs import Consumer, Runs
from .backend import Attended, Operands

CHUNK = 2**23
TILE = 128

Index = slice | Tensor


@dataclass(frozen=True, slots=True)
class Work:
    """One group of a plan as a kernel reads it: members, extents, and the runs of both passes (query-major)."""

    batch: tuple[int, ...]
    heads: tuple[int, ...]
    queries: int
    keys: int
    tile: int
    forward: Runs
    backward: Runs
    leaves: Leaves


class TiledBackend:
    name = "tiled"

    def __init__(self) -> None:
        self._packed: WeakKeyDictionary[Plan, list[Tensor]] = WeakKeyDictionary()

    def tile(self, compiled: Compiled, operands: Operands) -> int:
        return TILE

    def costs(self, operands: Operands, tile: int) -> Costs:
        # Measured with one thread at tile 128 and head_dim 64, where a FULL tile takes 92 us forward.
        area, dim = (128 / tile) ** 2, 128 / (operands.head_dim + operands.value_dim)
        return Costs(partial=1.14, operator=0.12 * dim, start=area * dim, row=0.3 * area * dim, run=0.05 * area, token=0.00055 * area)

    def pack(self, plan: Plan, compiled: Compiled, operands: Operands) -> list[Tensor]:
        if plan not in self._packed:
            self._packed[plan] = pack(plan)
        return self._packed[plan]

    def forward(self, q: Tensor, k: Tensor, v: Tensor, packed: list[Tensor], compiled: Compiled, scale: float) -> Attended:
        return forward(q, k, v, unpack(packed, compiled), compiled.program, scale)

    def backward(
        self, dout: Tensor | None, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, attended: Attended,
        packed: list[Tensor], compiled: Compiled, scale: float, needs: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
        return backward(dout, dlse, q, k, v, attended, unpack(packed, compiled), compiled.program, scale, needs)


# ------------------------------------------------------------------------------------------------ the plan as tensors


def pack(plan: Plan) -> list[Tensor]:
    """For each group: extents, members, the runs of both passes, the leaves of its predicate, the tables it reads."""
    packed: list[Tensor] = []
    for group in plan.groups:
        packed.append(torch.tensor([group.queries, group.keys, plan.geometry.tile]))
        packed += [torch.tensor(group.batch), torch.tensor(group.heads)]
        packed += group.runs(Consumer.FORWARD).tensors + group.runs(Consumer.BACKWARD).tensors
        packed += [group.leaves.values[x] for x in group.leaves.split.leaves]
        packed += [group.leaves.tables[t] for t in group.leaves.split.tables]
    return packed


def unpack(packed: list[Tensor], compiled: Compiled) -> list[Work]:
    works, rest = [], list(packed)
    stored, tables = compiled.split.leaves, compiled.split.tables
    size = 11 + len(stored) + len(tables)
    for begin in range(0, len(rest), size):
        extents, batch, heads, *others = rest[begin : begin + size]
        queries, keys, tile = extents.tolist()
        values = dict(zip(stored, others[8 : 8 + len(stored)], strict=True))
        leaves = Leaves(compiled.split, values, dict(zip(tables, others[8 + len(stored) :], strict=True)))
        works.append(Work(tuple(batch.tolist()), tuple(heads.tolist()), queries, keys, tile, Runs(*others[:4]), Runs(*others[4:8]), leaves))
    return works


# ------------------------------------------------------------------------------------------------ forward and backward


def forward(q: Tensor, k: Tensor, v: Tensor, works: list[Work], program: Program, scale: float) -> Attended:
    """q (batch, heads, queries, head_dim), k (batch, key_heads, keys, head_dim), v (batch, key_heads, keys, value_dim)."""
    exact = _exact_dtype(q)
    out = q.new_zeros(*q.shape[:3], v.shape[-1])
    top = torch.full(q.shape[:3], float("inf"), dtype=exact, device=q.device)
    rest = torch.zeros_like(top)
    for work in works:
        rows = list(_rows(work, work.forward))
        for members in _members(work, rows, q.shape[1] // max(1, k.shape[1]), q.device):
            for row, stretches in rows:
                # FULL first, so that the mask covers one contiguous block of columns.
                full = [s for s in stretches if not s.kind & PARTIAL]
                partial = [s for s in stretches if s.kind & PARTIAL]
                queries = (q[(*members.query, row)].to(exact)) * scale
                keys, values = (_columns(x, members.key, full + partial).to(exact) for x in (k, v))
                mask = None
                if partial:
                    mask = _mask(work.leaves, program, row, partial, q.device)
                    keys, values = _without_dead((keys, values), mask, _width(full))
                scores = queries @ keys.transpose(-1, -2)
                if mask is not None:
                    scores[..., _width(full) :].masked_fill_(~mask, float("-inf"))
                most = scores.amax(-1, keepdim=True)
                dead = most == float("-inf")
                weights = scores.sub_(torch.where(dead, 0.0, most)).exp_()
                total = weights.sum(-1, keepdim=True)
                total = torch.where(dead, 1.0, total)
                result = (weights @ values) / total
                out[(*members.query, row)] = result.to(out.dtype)
                top[(*members.query, row)] = torch.where(dead, float("inf"), most)[..., 0]
                rest[(*members.query, row)] = total.log()[..., 0]
    return Attended(out, torch.where(top == float("inf"), float("-inf"), top + rest), top, rest)


def backward(
    dout: Tensor | None, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, attended: Attended,
    works: list[Work], program: Program, scale: float, needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """dq, dk, dv in the dtypes of q, k, v; None where not needed. A tile whose gates are all 0 for what is needed is not visited."""
    exact = _exact_dtype(q)
    total = {n: torch.zeros(x.shape, dtype=exact, device=x.device) for n, x, need in zip("qkv", (q, k, v), needs, strict=True) if need}
    for work in works:
        rows = list(_rows(work, work.backward))
        for members in _members(work, rows, q.shape[1] // max(1, k.shape[1]), q.device):
            for row, stretches in rows:
                asking = _asking((*members.query, row), dout, dlse, q, attended, scale)
                for kind in sorted({s.kind for s in stretches}):
                    mine = [s for s in stretches if s.kind == kind]
                    flows = {g: state for g in total if (state := State((kind >> SHIFTS[g]) & 3)) is not State.NONE}
                    if dout is None:
                        flows.pop("v", None)
                    if not flows:
                        continue
                    keys, values = (_columns(x, members.key, mine).to(exact) for x in (k, v))
                    gates = _gates(work.leaves, program, row, mine, flows, exact, q.device)
                    mask = None
                    if kind & PARTIAL:
                        mask = _mask(work.leaves, program, row, mine, q.device)
                        keys, values = _without_dead((keys, values), mask, 0)
                    for gate, part in _tile_gradients(asking, keys, values, mask, flows, gates).items():
                        if gate == "q":
                            total["q"][(*members.query, row)] += part * scale
                        else:
                            _add(total[gate], members, mine, part)
    return tuple(total[n].to(x.dtype) if n in total else None for n, x in zip("qkv", (q, k, v), strict=True))  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class _Asking:
    """The query side of one row of tiles, (batch, heads, rows, ...): what every tile of the row needs of it."""

    queries: Tensor  # scaled
    upstream: Tensor | None  # dO
    delta: Tensor  # delta - dlse, (batch, heads, rows, 1)
    top: Tensor  # +inf where the row has no key
    rest: Tensor


def _asking(here: tuple[Index, Index, slice], dout: Tensor | None, dlse: Tensor | None, q: Tensor, attended: Attended, scale: float) -> _Asking:
    exact = _exact_dtype(q)
    top, rest = attended.top[here][..., None], attended.rest[here][..., None]
    # Rows without a key: exp(S - inf) is 0, and whatever they hold must not meet that 0 as a NaN.
    dead = top == float("inf")

    def alive(x: Tensor) -> Tensor:
        return torch.where(dead, 0.0, x.to(exact))

    delta = torch.zeros_like(top)
    upstream = None
    if dout is not None:
        upstream = alive(dout[here])
        delta = delta + (upstream * alive(attended.out[here])).sum(-1, keepdim=True)
    if dlse is not None:
        delta = delta - alive(dlse[here][..., None])
    return _Asking(alive(q[here]) * scale, upstream, delta, top, rest)


def _tile_gradients(asking: _Asking, keys: Tensor, values: Tensor, mask: Tensor | None, flows: dict[str, State], gates: dict[str, Tensor]) -> dict[str, Tensor]:
    """What some tiles of one kind add to dQ / scale, dK and dV, for the gates through which anything flows."""
    scores = asking.queries @ keys.transpose(-1, -2)
    if mask is not None:
        scores.masked_fill_(~mask, float("-inf"))
    weights = scores.sub_(asking.top).sub_(asking.rest).exp_()

    def gated(x: Tensor, gate: str) -> Tensor:
        if gate not in gates:
            return x
        # A gate may be anything, infinite too, where nothing is attended.
        return x * (gates[gate] if mask is None else torch.where(mask, gates[gate], 0.0))

    parts: dict[str, Tensor] = {}
    if "v" in flows and asking.upstream is not None:
        parts["v"] = gated(weights, "v").transpose(-1, -2) @ asking.upstream
    if "q" in flows or "k" in flows:
        if asking.upstream is None:
            dscores = weights * -asking.delta
        else:
            dscores = (asking.upstream @ values.transpose(-1, -2)).sub_(asking.delta).mul_(weights)
        if "q" in flows:
            parts["q"] = gated(dscores, "q") @ keys
        if "k" in flows:
            parts["k"] = gated(dscores, "k").transpose(-1, -2) @ asking.queries
    return parts


def _mask(leaves: Leaves, program: Program, row: slice, stretches: list[Stretch], device: torch.device) -> Tensor:
    """The attended pairs, bool (rows, width). Leaves lie where the plan was made; the result lies on `device`."""
    (mask,) = leaves.pairs(row, _picked(stretches), program.attend)
    return mask.expand(_length(row), _width(stretches)).to(device)


def _gates(
    leaves: Leaves, program: Program, row: slice, stretches: list[Stretch], flows: dict[str, State], dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """The gates that are MIXED, (rows, width)."""
    found = {}
    for name, gate in zip("qkv", program.gates, strict=True):
        if flows.get(name) is State.MIXED:
            open, weight = leaves.pairs(row, _picked(stretches), gate.open, gate.weight)
            found[name] = torch.where(open, weight, 0.0).expand(_length(row), _width(stretches)).to(dtype).to(device)
    return found


# ------------------------------------------------------------------------------------------------ rows and columns


@dataclass(frozen=True, slots=True)
class Stretch:
    """Keys start .. stop, of one kind."""

    start: int
    stop: int
    kind: int


def _rows(work: Work, runs: Runs) -> Iterator[tuple[slice, list[Stretch]]]:
    """Every row of tiles that has work, as a slice of queries, with its stretches of keys."""
    ptr, first, count, kind = (t.tolist() for t in runs.tensors)
    for row in range(len(ptr) - 1):
        own = range(ptr[row], ptr[row + 1])
        stretches = [Stretch(first[i] * work.tile, min(work.keys, (first[i] + count[i]) * work.tile), kind[i]) for i in own]
        if stretches:
            yield slice(row * work.tile, min(work.queries, (row + 1) * work.tile)), stretches


def _length(rows: slice) -> int:
    return rows.stop - rows.start


def _width(stretches: list[Stretch]) -> int:
    return sum(s.stop - s.start for s in stretches)


def _picked(stretches: list[Stretch]) -> Index:
    """The keys of some stretches: a slice, or their positions."""
    if len(stretches) == 1:
        return slice(stretches[0].start, stretches[0].stop)
    return torch.cat([torch.arange(s.start, s.stop) for s in stretches])


def _columns(x: Tensor, members: tuple[Index, Index], stretches: list[Stretch]) -> Tensor:
    """(batch, heads, width, dim): the rows of k or v that the stretches name."""
    parts = [x[(*members, slice(s.start, s.stop))] for s in stretches]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -2)


def _without_dead(tensors: tuple[Tensor, ...], mask: Tensor, before: int) -> tuple[Tensor, ...]:
    """Keys that none of these queries attends are zeroed, so that a NaN in them stays where it is."""
    alive = mask.any(0)
    if bool(alive.all()):
        return tensors
    alive = torch.cat([alive.new_ones(before), alive])[:, None]
    return tuple(torch.where(alive, t, 0.0) for t in tensors)


# ------------------------------------------------------------------------------------------------ batch and heads


@dataclass(frozen=True, slots=True)
class Members:
    """Some of a group's (batch, head) pairs: how to index query heads, and their key heads."""

    query: tuple[Index, Index]
    key: tuple[Index, Index]
    key_heads: tuple[int, ...]


def _members(work: Work, rows: list[tuple[slice, list[Stretch]]], group_size: int, device: torch.device) -> Iterator[Members]:
    """Chunks of the group small enough that one chunk's scores stay within CHUNK numbers."""
    if not work.batch or not work.heads:
        return
    widest = max((_width(s) for _, s in rows), default=0)
    room = max(1, CHUNK // max(1, work.tile * widest))
    heads_each = min(len(work.heads), room)
    batch_each = max(1, room // max(1, len(work.heads))) if heads_each == len(work.heads) else 1
    for b in range(0, len(work.batch), batch_each):
        for h in range(0, len(work.heads), heads_each):
            batch, heads = work.batch[b : b + batch_each], work.heads[h : h + heads_each]
            key_heads = tuple(x // group_size for x in heads)
            yield Members(_index(batch, heads, device), _index(batch, key_heads, device), key_heads)


def _index(batch: tuple[int, ...], heads: tuple[int, ...], device: torch.device) -> tuple[Index, Index]:
    """Slices where they can name the members, so that reading makes no copy; else an outer product of indices."""
    spans = [_as_slice(n) for n in (batch, heads)]
    if spans[0] is not None and spans[1] is not None:
        return spans[0], spans[1]
    return torch.tensor(batch, device=device)[:, None], torch.tensor(heads, device=device)[None, :]


def _as_slice(numbers: tuple[int, ...]) -> slice | None:
    if numbers and numbers == tuple(range(numbers[0], numbers[0] + len(numbers))):
        return slice(numbers[0], numbers[0] + len(numbers))
    return None


def _add(total: Tensor, members: Members, stretches: list[Stretch], part: Tensor) -> None:
    """Add (batch, heads, width, dim) to the keys it belongs to; the query heads of a key head are summed, in a fixed order."""
    distinct = sorted(set(members.key_heads))
    if len(distinct) < len(members.key_heads):
        columns = [[i for i, x in enumerate(members.key_heads) if x == head] for head in distinct]
        part = torch.stack([part[:, own].sum(1) for own in columns], 1)
    batch = members.key[0]
    heads = _as_slice(tuple(distinct)) if isinstance(batch, slice) else None
    if heads is not None:
        where: tuple[Index, Index] = (batch, heads)
    else:
        rows = batch if isinstance(batch, Tensor) else torch.arange(batch.start, batch.stop, device=total.device)[:, None]
        where = (rows, torch.tensor(distinct, device=total.device)[None, :])
    offset = 0
    for s in stretches:
        width = s.stop - s.start
        total[(*where, slice(s.start, s.stop))] += part[..., offset : offset + width, :]
        offset += width


def _exact_dtype(q: Tensor) -> torch.dtype:
    """float16 and bfloat16 are computed in float32."""
    return torch.float64 if q.dtype is torch.float64 else torch.float32
