"""What both designs of `tiled` share: masks and gates of some pairs, and the gradients of a piece of work, in plain products.

Notation is the field's: S scores, P probabilities, lse = log sum exp S, delta_i = sum_d dO_id O_id, dS = P * (dP - delta + dlse).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compiler.ir import ONE, Gate, Program
from ..compiler.labels import SHIFTS, State
from ..compiler.leaves import Leaves
from .backend import Attended
from .members import Index
from .rectangles import Stretch


def exact_dtype(q: Tensor) -> torch.dtype:
    """float16 and bfloat16 are computed in float32."""
    return torch.float64 if q.dtype is torch.float64 else torch.float32


# ------------------------------------------------------------------------------------------------ pairs


def mask_of(leaves: Leaves, program: Program, rows: slice, stretches: Sequence[Stretch], device: torch.device) -> Tensor:
    """The attended pairs, bool (rows, width). Leaves lie where the plan was made; the result lies on `device`."""
    (mask,) = leaves.pairs(rows, _picked(stretches), program.attend)
    return mask.expand(length(rows), width(stretches)).to(device)


def gates_of(
    leaves: Leaves, program: Program, rows: slice, stretches: Sequence[Stretch], flows: dict[str, State], mask: Tensor | None, like: Tensor
) -> dict[str, Tensor]:
    """The gates that are MIXED, (rows, width), finite wherever P is 0 for the `mask`; in the dtype and on the device of `like`."""
    found: dict[str, Tensor] = {}
    known: dict[Gate, Tensor] = {}  # k and v often have one rule
    for name, gate in zip("qkv", program.gates, strict=True):
        if flows.get(name) is not State.MIXED:
            continue
        if gate not in known:
            open, weight = leaves.pairs(rows, _picked(stretches), gate.open, gate.weight)
            value = open if gate.weight == ONE else torch.where(open, weight, 0.0)
            known[gate] = value.expand(length(rows), width(stretches)).to(like.dtype).to(like.device)
            if mask is not None and gate.weight != ONE:
                # A weight may be anything, infinite too, where nothing is attended.
                known[gate] = torch.where(mask, known[gate], 0.0)
        found[name] = known[gate]
    return found


def flows_of(kind: int, wanted: Sequence[str], dout: Tensor | None) -> dict[str, State]:
    """The gates of tiles of one kind through which something flows to a wanted gradient."""
    return {g: s for g in wanted if (s := State((kind >> SHIFTS[g]) & 3)) is not State.NONE and (g != "v" or dout is not None)}


def length(rows: slice) -> int:
    return rows.stop - rows.start


def width(stretches: Sequence[Stretch]) -> int:
    return sum(s.stop - s.start for s in stretches)


def _picked(stretches: Sequence[Stretch]) -> Index:
    """The keys of some stretches: a slice, or their positions."""
    if len(stretches) == 1:
        return slice(stretches[0].start, stretches[0].stop)
    return torch.cat([torch.arange(s.start, s.stop) for s in stretches])


def columns(x: Tensor, members: tuple[Index, Index], stretches: Sequence[Stretch]) -> Tensor:
    """(batch, heads, width, dim): the rows of k or v that the stretches name."""
    parts = [x[(*members, slice(s.start, s.stop))] for s in stretches]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -2)


def without_dead(tensors: tuple[Tensor, ...], mask: Tensor, before: int) -> tuple[Tensor, ...]:
    """Keys that none of these queries attends are zeroed, so that a NaN in them stays where it is. `before` them lie others."""
    alive = mask.any(0)
    if bool(alive.all()):
        return tensors
    # By index: torch.where with a row of truths takes three times as long, most of a decoding step.
    dead = (~alive).nonzero()[:, 0] + before
    return tuple(t.index_fill(-2, dead, 0.0) for t in tensors)


# ------------------------------------------------------------------------------------------------ gradients


@dataclass(frozen=True, slots=True)
class Asking:
    """The query side of some rows, (batch, heads, rows, ...): what every tile of them needs of it."""

    queries: Tensor  # scaled
    upstream: Tensor | None  # dO
    delta: Tensor  # delta - dlse, (batch, heads, rows, 1)
    top: Tensor  # +inf where the row has no key
    rest: Tensor | None  # None: it is 0 everywhere

    @staticmethod
    def of(here: tuple[Index, Index, slice], dout: Tensor | None, dlse: Tensor | None, q: Tensor, attended: Attended, scale: float) -> Asking:
        exact = exact_dtype(q)
        top, rest = attended.top[here][..., None], attended.rest[here][..., None]
        dead = top == float("inf")
        has_dead = dead.device.type != "cpu" or bool(dead.any())  # a GPU is not waited for

        def alive(x: Tensor) -> Tensor:
            # Rows without a key: exp(S - inf) is 0, and whatever they hold must not meet that 0 as a NaN.
            return torch.where(dead, 0.0, x.to(exact)) if has_dead else x.to(exact)

        delta = torch.zeros_like(top)
        upstream = None
        if dout is not None:
            upstream = alive(dout[here])
            delta = (upstream * alive(attended.out[here])).sum(-1, keepdim=True)
        if dlse is not None:
            delta = delta - alive(dlse[here][..., None])
        return Asking(alive(q[here]) * scale, upstream, delta, top, rest)

    def part(self, batch: slice, heads: slice, rows: slice) -> Asking:
        """Some members and rows, (members, rows, ...)."""

        def cut(x: Tensor) -> Tensor:
            return x[batch, heads, rows].flatten(0, 1)

        upstream, rest = (None if x is None else cut(x) for x in (self.upstream, self.rest))
        return Asking(cut(self.queries), upstream, cut(self.delta), cut(self.top), rest)


Room = tuple[Tensor, Tensor]  # flat, for the most scores that are asked for at a time: memory used again stays in the cache
LOG2_E = 1 / math.log(2)


def exp_(x: Tensor) -> Tensor:
    """exp(x) in place. On CPUs torch's own takes twice this time, and a hundred times where results are too small to be normal numbers."""
    return x.mul_(LOG2_E).exp2_()


def _scores(a: Tensor, b: Tensor, room: Tensor | None) -> Tensor:
    """(members, rows, width): the products of every row of one with every row of the other. Without room there may be more axes in front."""
    if room is None:
        return a @ b.transpose(-1, -2)
    members, rows, width = a.shape[0], a.shape[1], b.shape[1]
    return torch.bmm(a, b.transpose(1, 2), out=room[: members * rows * width].view(members, rows, width))


def below(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """+inf where a pair is attended, -inf elsewhere: the least of this and the scores is what `masked_fill` finds, in an eighth of its time."""
    return mask.to(dtype).sub_(0.5).mul_(float("inf"))


def tile_products(
    asking: Asking, keys: Tensor, values: Tensor, mask: Tensor | None, flows: dict[str, State], gates: dict[str, Tensor], room: Room | None = None
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What some tiles of one kind add to dQ / scale, dK and dV, as a gate's name and two factors to be multiplied, for the gates through which anything
    flows. One factor lies in `room`, and in memory that is used again: each product is to be made before the next is asked for."""
    scores = _scores(asking.queries, keys, room and room[0])
    if mask is not None:
        torch.minimum(scores, below(mask, scores.dtype), out=scores)
    scores.sub_(asking.top)
    if asking.rest is not None:
        scores.sub_(asking.rest)
    weights = exp_(scores)

    dscores = None
    if "q" in flows or "k" in flows:
        if asking.upstream is None:
            dscores = weights * -asking.delta
        else:
            dscores = _scores(asking.upstream, values, room and room[1]).sub_(asking.delta).mul_(weights)

    def gated(x: Tensor, gate: str, is_last: bool) -> Tensor:
        if gate not in gates:
            return x
        return x.mul_(gates[gate]) if is_last else x * gates[gate]

    if "v" in flows and asking.upstream is not None:
        yield "v", gated(weights, "v", True).transpose(-1, -2), asking.upstream
    if "q" in flows and dscores is not None:
        yield "q", gated(dscores, "q", "k" not in flows), keys
    if "k" in flows and dscores is not None:
        yield "k", gated(dscores, "k", True).transpose(-1, -2), asking.queries
