"""The fast design of `tiled`, on CPUs: ATen's flash attention over the rectangles of a plan, put together by lse.

Forward: out and lse of every rectangle, merged row by row. Backward: given the merged out and lse, the operator finds the exact gradients over each
rectangle. Where a gate is MIXED, or a rule stops one of the three gradients, products of our own do less than the operator would. Nothing N x N is ever made: masks
are those of one rectangle, and products are cut into chunks that stay in a core's cache.

The operator knows lse rounded to one number, and P = exp(S - lse) is wrong by as much. Rows whose lse is large are those of the other design's forward, which
keeps it in two parts, and the backward makes good for the rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from ..compiler.ir import Program
from ..compiler.labels import PARTIAL, State
from . import cpu_flash
from .backend import Attended
from .members import Index, Members, add_to_keys
from .rectangles import Rectangle, Stretch
from .tiled_plan import Task, Work
from .tiled_products import Asking, Room, below, columns, exact_dtype, flows_of, gates_of, length, mask_of, tile_products, without_dead

LARGEST_LSE = 16.0  # of a forward: its rounding is at most 4 units in the last place of P
CHUNK = 2**17  # numbers: with the one like it that is alive, they fit a core's own cache
ROWS, COLUMNS = 512, 256  # of a chunk, for one head
ADDED = 2**20  # numbers: of masks for the operator, kept for the rest of a pass
ALL = {gate: State.ALL for gate in "qkv"}
EVERYONE = (slice(None), slice(None))


def serves(q: Tensor, v: Tensor) -> bool:
    """Whether the operator can do a call's forward."""
    return q.device.type == "cpu" and q.shape[-1] == v.shape[-1] and cpu_flash.works(exact_dtype(q))


def is_moderate(lse: Tensor) -> Tensor:
    """Of every row, whether P = exp(S - lse) is right; -inf is a row without a key."""
    return (lse.abs() < LARGEST_LSE).logical_or_(lse == float("-inf"))


def forward(task: Task) -> Attended:
    """On the CPU, with v as wide as k. Right in the rows whose lse `is_moderate`."""
    q, k, v = task.q, task.k, task.v
    exact, is_finite = exact_dtype(q), _are_finite(k, v)
    out = torch.zeros(q.shape, dtype=exact, device=q.device)
    lse = torch.full(q.shape[:3], float("-inf"), dtype=exact, device=q.device)
    for work in task.works:
        if not work.batch or not work.heads:
            continue
        members = Members.of(work.batch, work.heads, task.heads_per_key, q.device)
        queries, keys, values = q[members.query].to(exact) * task.scale, k[members.key].to(exact), v[members.key].to(exact)
        group_out, group_lse = out[members.query], lse[members.query]
        masks = _Masks(work, task.program, exact, q.device)
        for rectangle in work.forward_cover:
            rows = rectangle.rows
            seen = _seen(masks, rectangle, keys, values, is_finite)
            part, part_lse = cpu_flash.forward(queries[:, :, rows], seen.keys, seen.values, seen.added)
            if seen.blind is not None:  # what the operator says of rows that see nothing differs from version to version
                part, part_lse = part.masked_fill(seen.blind[:, None], 0.0), part_lse.masked_fill(seen.blind, float("-inf"))
            _merge(group_out[:, :, rows], group_lse[:, :, rows], part, part_lse, rectangle.is_first)
        out[members.query], lse[members.query] = group_out, group_lse
    return Attended(out.to(q.dtype), lse, lse.masked_fill(lse == float("-inf"), float("inf")), torch.zeros_like(lse))


def _merge(out: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor, is_first: bool) -> None:
    """Two softmaxes over different keys of the same rows become one, in place. Where both are empty, so is theirs."""
    if is_first:
        out.copy_(part)
        lse.copy_(part_lse)
        return
    whole = torch.logaddexp(lse, part_lse)
    share = (part_lse - whole).exp_().nan_to_num_(0.0)  # -inf - -inf
    out.lerp_(part, share[..., None])
    lse.copy_(whole)


def backward(
    task: Task, dout: Tensor | None, dlse: Tensor | None, attended: Attended, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """dq, dk, dv in the dtypes of q, k, v; None where not needed. Rectangles whose gates are all 0 for what is needed are not visited."""
    q, k, v = task.q, task.k, task.v
    exact = exact_dtype(q)
    total = {n: torch.zeros(x.shape, dtype=exact, device=x.device) for n, x, need in zip("qkv", (q, k, v), needs, strict=True) if need}
    is_finite = _are_finite(k, v)
    by_operator = dlse is None and serves(q, v)
    for work in task.works:
        if not work.batch or not work.heads:
            continue
        members = Members.of(work.batch, work.heads, task.heads_per_key, q.device)
        shared = len(set(members.key_heads)) < len(members.key_heads)
        keys, values = k[members.key].to(exact), v[members.key].to(exact)
        masks = _Masks(work, task.program, exact, q.device)
        group = _Group((*members.query, slice(0, work.queries)), keys, values, is_finite, masks, (dout, dlse, q, attended, task.scale))
        # Gradients of the group: parts of the whole where slices name its members, else its own.
        grads = {"q": total["q"][members.query]} if "q" in total else {}
        grads |= {n: torch.zeros_like(x) if shared else total[n][members.key] for n, x in (("k", keys), ("v", values)) if n in total}
        for rectangle in work.backward_cover:
            flows = flows_of(rectangle.kind, tuple(total), dout)
            # The operator finds all three or none. It is taken for any of them, so that a gradient has the same bits whatever else is asked for.
            if by_operator and flows and flows_of(rectangle.kind, "qkv", dout) == ALL:
                _by_operator(group, rectangle, grads, task.scale)
            elif flows:
                _by_products(group, rectangle, flows, grads, task.scale)
        if "q" in total:
            total["q"][members.query] = grads["q"]
        for n in grads.keys() - {"q"}:
            if shared:
                add_to_keys(total[n], members, slice(0, k.shape[2]), grads[n])
            else:
                total[n][members.key] = grads[n]
    return tuple(total[n].to(x.dtype) if n in total else None for n, x in zip("qkv", (q, k, v), strict=True))  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class _Operands:
    """What the operator reads of whole rows, (batch, heads, queries, ...). Rows without a key are zero: their P is 0, and must not meet a NaN."""

    dout: Tensor
    queries: Tensor  # scaled
    out: Tensor
    lse: Tensor

    def rows(self, rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.dout[:, :, rows], self.queries[:, :, rows], self.out[:, :, rows], self.lse[:, :, rows]


@dataclass(frozen=True)
class _Group:
    """What a backward reads of the members of one group."""

    here: tuple[Index, Index, slice]  # their queries
    keys: Tensor  # (batch, heads, keys, head_dim)
    values: Tensor
    is_finite: bool
    masks: _Masks
    given: tuple[Tensor | None, Tensor | None, Tensor, Attended, float]  # dout, dlse, q, what the forward found, scale

    @cached_property
    def asking(self) -> Asking:
        """For products of our own."""
        asking = Asking.of(self.here, *self.given)
        return asking if asking.rest is not None and bool(asking.rest.any()) else replace(asking, rest=None)

    @cached_property
    def room(self) -> Room:
        scores, dscores = self.keys.new_empty(2, CHUNK).unbind()
        return scores, dscores

    @cached_property
    def operands(self) -> _Operands:
        """For the operator."""
        dout, _, q, attended, scale = self.given
        assert dout is not None
        dout, queries, out = (x[self.here].to(exact_dtype(q)) for x in (dout, q, attended.out))
        queries = queries * scale
        lse = attended.lse[self.here]
        dead = lse == float("-inf")
        if bool(dead.any()):
            dout, queries, out = (x.masked_fill(dead[..., None], 0.0) for x in (dout, queries, out))
            lse = lse.masked_fill(dead, 0.0)
        rest = attended.rest[self.here]
        if bool(rest.any()):
            # The operator's P is too large by the factor exp(top + rest - lse), and all it adds up holds P * dO or P * (dP - delta), linear in dO.
            dout = dout * (lse - attended.top[self.here] - rest).exp_().masked_fill_(dead, 0.0)[..., None]
        return _Operands(dout, queries, out, lse)


def _by_operator(group: _Group, rectangle: Rectangle, grads: dict[str, Tensor], scale: float) -> None:
    seen = _seen(group.masks, rectangle, group.keys, group.values, group.is_finite)
    dout, queries, out, lse = group.operands.rows(rectangle.rows)
    dq, dk, dv = cpu_flash.backward(dout, queries, seen.keys, seen.values, out, lse, seen.added)
    if "q" in grads:
        grads["q"][:, :, rectangle.rows].add_(dq, alpha=scale)
    for name, part in (("k", dk), ("v", dv)):
        offset = 0
        for s in rectangle.stretches if name in grads else ():
            grads[name][:, :, s.start : s.stop] += part[:, :, offset : (offset := offset + s.stop - s.start)]


def _by_products(group: _Group, rectangle: Rectangle, flows: dict[str, State], grads: dict[str, Tensor], scale: float) -> None:
    mask = group.masks.attended(rectangle) if rectangle.kind & PARTIAL else None
    gates = gates_of(group.masks.work.leaves, group.masks.program, rectangle.rows, rectangle.stretches, flows, mask, group.keys)
    pieces = _pieces(rectangle.stretches)
    widest = max(length(cols) for _, cols in pieces)
    for top in range(0, rectangle.height, ROWS):
        own = slice(top, min(rectangle.height, top + ROWS))
        rows = slice(rectangle.rows.start + own.start, rectangle.rows.start + own.stop)
        for batch, heads in _chunks(group.keys.shape[0], group.keys.shape[1], length(rows) * widest):
            asking = group.asking.part(batch, heads, rows)
            for keys, cols in pieces:
                own_mask = mask[own, cols] if mask is not None else None
                if own_mask is not None and not bool(own_mask.any()):
                    continue
                own_gates = {n: gate[own, cols] for n, gate in gates.items()}
                k, v = (x[batch, heads, keys].flatten(0, 1) for x in (group.keys, group.values))
                if own_mask is not None and not group.is_finite:
                    k, v = without_dead((k, v), own_mask, 0)
                for gate, a, b in tile_products(asking, k, v, own_mask, flows, own_gates, group.room):
                    where, factor = (rows, scale) if gate == "q" else (keys, 1.0)
                    _add_product(grads[gate][batch, heads, where], a, b, factor)


def _add_product(total: Tensor, a: Tensor, b: Tensor, factor: float) -> None:
    """total (batch, heads, rows, dim) += factor * a @ b, whose members are one axis."""
    if total.shape[0] == 1:
        total[0].baddbmm_(a, b, alpha=factor)
    else:  # members of several batch rows need not lie evenly
        total.add_((a @ b).view(total.shape), alpha=factor)


def _pieces(stretches: Sequence[Stretch]) -> list[tuple[slice, slice]]:
    """Keys of stretches, at most COLUMNS together, and where they lie among the keys of all stretches."""
    pieces, offset = [], 0
    for s in stretches:
        for start in range(s.start, s.stop, COLUMNS):
            stop = min(s.stop, start + COLUMNS)
            pieces.append((slice(start, stop), slice(offset, offset := offset + stop - start)))
    return pieces


def _chunks(batch: int, heads: int, pairs: int) -> list[tuple[slice, slice]]:
    """Members, so many that their pairs are at most CHUNK, or one by one."""
    room = max(1, CHUNK // max(1, pairs))
    heads_each = min(heads, room)
    batch_each = max(1, room // heads) if heads_each == heads else 1
    return [(slice(b, b + batch_each), slice(h, h + heads_each)) for b in range(0, batch, batch_each) for h in range(0, heads, heads_each)]


# ------------------------------------------------------------------------------------------------ a rectangle


@dataclass(frozen=True, slots=True)
class _Seen:
    """The keys of a rectangle, and how its rows attend them."""

    keys: Tensor
    values: Tensor
    added: Tensor | None  # 0 where a pair is attended, -inf elsewhere; None: all are
    blind: Tensor | None  # (rows,): those that attend none of these keys; None: no row is


@dataclass(frozen=True, slots=True)
class _Masks:
    """The masks of one group's PARTIAL rectangles, for one pass."""

    work: Work
    program: Program
    dtype: torch.dtype
    device: torch.device
    _added: dict[int, Tensor] = field(default_factory=dict)  # by their patterns

    def attended(self, rectangle: Rectangle) -> Tensor:
        """The attended pairs, bool (rows, width): as it was kept, or made."""
        if rectangle.pattern < 0:
            return mask_of(self.work.leaves, self.program, rectangle.rows, rectangle.stretches, self.device)
        pairs = rectangle.height * rectangle.width
        return self.work.patterns[rectangle.pattern : rectangle.pattern + pairs].view(rectangle.height, rectangle.width)

    def added(self, rectangle: Rectangle, attended: Tensor) -> Tensor:
        """0 where a pair is attended, -inf elsewhere; made once where rectangles look alike."""
        found = self._added.get(rectangle.pattern)
        if found is None:
            found = below(attended, self.dtype).clamp_(max=0.0)  # five times as fast as torch.where, if the mask has no pattern
            if rectangle.pattern >= 0:
                if sum(x.numel() for x in self._added.values()) + found.numel() > ADDED:
                    self._added.clear()
                self._added[rectangle.pattern] = found
        return found


def _seen(masks: _Masks, rectangle: Rectangle, keys: Tensor, values: Tensor, is_finite: bool) -> _Seen:
    k, v = (columns(x, EVERYONE, rectangle.stretches) for x in (keys, values))
    if not rectangle.kind & PARTIAL:
        return _Seen(k, v, None, None)
    attended = masks.attended(rectangle)
    if rectangle.has_dead and not is_finite:
        k, v = without_dead((k, v), attended, 0)
    return _Seen(k, v, masks.added(rectangle, attended), ~attended.any(1) if rectangle.has_blind else None)


def _are_finite(*tensors: Tensor) -> bool:
    """Then no 0 of a masked pair meets a NaN, and dead keys may stay. A sum that overflows says no, which costs time only."""
    return all(bool(x.sum(dtype=exact_dtype(x)).isfinite()) for x in tensors)
