"""The plain design of `tiled`: a row of tiles at a time, in matmuls, on any device.

For each row it gathers the stretches of keys its runs name. The largest tensor is (batch, heads, tile, attended keys), cut along batch and heads into
chunks of at most CHUNK numbers (or one head of one row of the batch, where that alone is more).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compiler.labels import PARTIAL
from ..compiler.runs import Runs
from .backend import Attended
from .members import Members, add_to_keys
from .rectangles import Stretch
from .tiled_plan import Task, Work
from .tiled_products import Asking, columns, exact_dtype, exp_, flows_of, gates_of, mask_of, tile_products, width, without_dead

CHUNK = 2**23


def forward(task: Task) -> Attended:
    q, k, v = task.q, task.k, task.v
    exact = exact_dtype(q)
    out = q.new_zeros(*q.shape[:3], v.shape[-1])
    top = torch.full(q.shape[:3], float("inf"), dtype=exact, device=q.device)
    rest = torch.zeros_like(top)
    for work in task.works:
        rows = list(_rows(work, work.forward))
        for members in _members(work, rows, task.heads_per_key, q.device):
            for row, pieces in rows:
                # FULL first, so that the mask covers one contiguous block of columns.
                full = [p.keys for p in pieces if not p.kind & PARTIAL]
                partial = [p.keys for p in pieces if p.kind & PARTIAL]
                queries = (q[(*members.query, row)].to(exact)) * task.scale
                keys, values = (columns(x, members.key, full + partial).to(exact) for x in (k, v))
                mask = None
                if partial:
                    mask = mask_of(work.leaves, task.program, row, partial, q.device)
                    keys, values = without_dead((keys, values), mask, width(full))
                scores = queries @ keys.transpose(-1, -2)
                if mask is not None:
                    scores[..., width(full) :].masked_fill_(~mask, float("-inf"))
                most = scores.amax(-1, keepdim=True)
                dead = most == float("-inf")
                weights = exp_(scores.sub_(torch.where(dead, 0.0, most)))
                total = weights.sum(-1, keepdim=True)
                total = torch.where(dead, 1.0, total)
                result = (weights @ values) / total
                out[(*members.query, row)] = result.to(out.dtype)
                top[(*members.query, row)] = torch.where(dead, float("inf"), most)[..., 0]
                rest[(*members.query, row)] = total.log()[..., 0]
    return Attended(out, torch.where(top == float("inf"), float("-inf"), top + rest), top, rest)


def backward(
    task: Task, dout: Tensor | None, dlse: Tensor | None, attended: Attended, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """dq, dk, dv in the dtypes of q, k, v; None where not needed. A tile whose gates are all 0 for what is needed is not visited."""
    q, k, v = task.q, task.k, task.v
    exact = exact_dtype(q)
    total = {n: torch.zeros(x.shape, dtype=exact, device=x.device) for n, x, need in zip("qkv", (q, k, v), needs, strict=True) if need}
    for work in task.works:
        rows = list(_rows(work, work.backward))
        for members in _members(work, rows, task.heads_per_key, q.device):
            for row, pieces in rows:
                asking = Asking.of((*members.query, row), dout, dlse, q, attended, task.scale)
                for kind in sorted({p.kind for p in pieces}):
                    mine = [p.keys for p in pieces if p.kind == kind]
                    flows = flows_of(kind, tuple(total), dout)
                    if not flows:
                        continue
                    keys, values = (columns(x, members.key, mine).to(exact) for x in (k, v))
                    mask = None
                    if kind & PARTIAL:
                        mask = mask_of(work.leaves, task.program, row, mine, q.device)
                        keys, values = without_dead((keys, values), mask, 0)
                    gates = gates_of(work.leaves, task.program, row, mine, flows, mask, keys)
                    for gate, a, b in tile_products(asking, keys, values, mask, flows, gates):
                        part = a @ b
                        if gate == "q":
                            total["q"][(*members.query, row)] += part * task.scale
                            continue
                        offset = 0
                        for s in mine:
                            add_to_keys(total[gate], members, slice(s.start, s.stop), part[..., offset : offset + s.stop - s.start, :])
                            offset += s.stop - s.start
    return tuple(total[n].to(x.dtype) if n in total else None for n, x in zip("qkv", (q, k, v), strict=True))  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Keys of one kind."""

    keys: Stretch
    kind: int


def _rows(work: Work, runs: Runs) -> Iterator[tuple[slice, list[_Piece]]]:
    """Every row of tiles that has work, as a slice of queries, with its stretches of keys."""
    ptr, first, count, kind = (t.tolist() for t in runs.tensors)
    for row in range(len(ptr) - 1):
        own = range(ptr[row], ptr[row + 1])
        pieces = [_Piece(Stretch(first[i] * work.tile, min(work.keys, (first[i] + count[i]) * work.tile)), kind[i]) for i in own]
        if pieces:
            yield slice(row * work.tile, min(work.queries, (row + 1) * work.tile)), pieces


def _members(work: Work, rows: list[tuple[slice, list[_Piece]]], heads_per_key: int, device: torch.device) -> Iterator[Members]:
    """Chunks of the group small enough that one chunk's scores stay within CHUNK numbers."""
    if not work.batch or not work.heads:
        return
    widest = max((width([p.keys for p in pieces]) for _, pieces in rows), default=0)
    room = max(1, CHUNK // max(1, work.tile * widest))
    heads_each = min(len(work.heads), room)
    batch_each = max(1, room // max(1, len(work.heads))) if heads_each == len(work.heads) else 1
    for b in range(0, len(work.batch), batch_each):
        for h in range(0, len(work.heads), heads_each):
            yield Members.of(work.batch[b : b + batch_each], work.heads[h : h + heads_each], heads_per_key, device)
