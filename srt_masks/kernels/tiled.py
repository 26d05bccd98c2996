"""The `tiled` backend: block-sparse attention in plain torch, forward and backward, on any device.

For each row of tiles it gathers the stretches of keys its runs name, and works on them with a few matmuls. Nothing N x N is ever
made: the largest tensor is (batch, heads, tile, attended keys), cut into chunks of at most CHUNK numbers.

Notation is the field's: S scores, P probabilities, lse = log sum exp S, delta_i = sum_d dO_id O_id, dS = P * (dP - delta + dlse).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compiler.boxes import PARTIAL, SHIFTS, State
from ..compiler.ir import Program
from ..compiler.leaves import Leaves
from ..compiler.runs import Runs

CHUNK = 2**23

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


def forward(q: Tensor, k: Tensor, v: Tensor, works: list[Work], program: Program, scale: float) -> tuple[Tensor, Tensor]:
    """out (batch, heads, queries, value_dim) in q's dtype, lse (batch, heads, queries) in float32 (float64 for float64).

    q (batch, heads, queries, head_dim), k (batch, key_heads, keys, head_dim), v (batch, key_heads, keys, value_dim).
    """
    exact = _exact_dtype(q)
    out = q.new_zeros(*q.shape[:3], v.shape[-1])
    lse = torch.full(q.shape[:3], float("-inf"), dtype=exact, device=q.device)
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
                    (mask,) = work.leaves.pairs(row, _picked(partial, q.device), program.attend)
                    mask = mask.expand(_length(row), _width(partial)).to(q.device)
                    keys, values = _without_dead((keys, values), mask, _width(full))
                scores = queries @ keys.transpose(-1, -2)
                if mask is not None:
                    scores[..., _width(full) :].masked_fill_(~mask, float("-inf"))
                top = scores.amax(-1, keepdim=True)
                top = torch.where(top == float("-inf"), 0.0, top)
                weights = scores.sub_(top).exp_()
                total = weights.sum(-1, keepdim=True)
                result = (weights @ values) / torch.where(total == 0, 1.0, total)
                out[(*members.query, row)] = result.to(out.dtype)
                lse[(*members.query, row)] = (top + total.log())[..., 0]
    return out, lse


def backward(
    dout: Tensor | None, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    works: list[Work], program: Program, scale: float, needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """dq, dk, dv in the dtypes of q, k, v; None where not needed. A tile whose gates are all 0 for what is needed is not visited."""
    exact = _exact_dtype(q)
    dq, dk, dv = (torch.zeros(x.shape, dtype=exact, device=x.device) if need else None for x, need in zip((q, k, v), needs, strict=True))
    gates = dict(zip("qkv", program.gates, strict=True))
    for work in works:
        rows = list(_rows(work, work.backward))
        for members in _members(work, rows, q.shape[1] // max(1, k.shape[1]), q.device):
            for row, stretches in rows:
                here = (*members.query, row)
                row_lse = lse[here][..., None]
                dead = row_lse == float("-inf")
                # Rows without a key: exp(S - inf) is 0, and whatever they hold must not meet that 0 as a NaN.
                row_lse = torch.where(dead, float("inf"), row_lse)
                queries = torch.where(dead, 0.0, q[here].to(exact))
                delta = torch.zeros_like(row_lse)
                upstream = None
                if dout is not None:
                    upstream = torch.where(dead, 0.0, dout[here].to(exact))
                    delta = delta + (upstream * torch.where(dead, 0.0, out[here].to(exact))).sum(-1, keepdim=True)
                if dlse is not None:
                    delta = delta - torch.where(dead, 0.0, dlse[here][..., None].to(exact))
                for kind in sorted({s.kind for s in stretches}):
                    states = {g: State((kind >> SHIFTS[g]) & 3) for g in "qkv"}
                    wanted = {g: s for (g, s), need in zip(states.items(), needs, strict=True) if need and s is not State.NONE}
                    if dout is None:
                        wanted.pop("v", None)
                    if not wanted:
                        continue
                    mine = [s for s in stretches if s.kind == kind]
                    picked = _picked(mine, q.device)
                    shape = (_length(row), _width(mine))
                    keys, values = (_columns(x, members.key, mine).to(exact) for x in (k, v))
                    mask = None
                    if kind & PARTIAL:
                        mask = work.leaves.pairs(row, picked, program.attend)[0].expand(shape).to(q.device)
                        keys, values = _without_dead((keys, values), mask, 0)
                    scores = (queries * scale) @ keys.transpose(-1, -2)
                    if mask is not None:
                        scores.masked_fill_(~mask, float("-inf"))
                    weights = scores.sub_(row_lse).exp_()

                    def gated(x: Tensor, gate: str, states=wanted, mask=mask, picked=picked, work=work, row=row, shape=shape) -> Tensor:
                        if states[gate] is State.ALL:
                            return x
                        open, weight = work.leaves.pairs(row, picked, gates[gate].open, gates[gate].weight)
                        attended = open if mask is None else open & mask
                        return x * torch.where(attended, weight, 0.0).expand(shape).to(x.dtype).to(x.device)

                    if "v" in wanted and dv is not None and upstream is not None:
                        _add(dv, members, mine, gated(weights, "v").transpose(-1, -2) @ upstream)
                    if "q" not in wanted and "k" not in wanted:
                        continue
                    if upstream is None:
                        dscores = weights * -delta
                    else:
                        dscores = (upstream @ values.transpose(-1, -2)).sub_(delta).mul_(weights)
                    if "q" in wanted and dq is not None:
                        dq[here] += (gated(dscores, "q") @ keys) * scale
                    if "k" in wanted and dk is not None:
                        _add(dk, members, mine, gated(dscores, "k").transpose(-1, -2) @ (queries * scale))
    return tuple(d.to(x.dtype) if d is not None else None for d, x in zip((dq, dk, dv), (q, k, v), strict=True))  # type: ignore[return-value]


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


def _picked(stretches: list[Stretch], device: torch.device) -> Index:
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
