"""What both designs of `tiled` share: masks and gates of some pairs, and the gradients of a piece of work, in plain products.

Notation is the field's: S scores, P probabilities, lse = log sum exp S, delta_i = sum_d dO_id O_id, dS = P * (dP - delta + dlse).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compiler.ir import Program
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
    leaves: Leaves, program: Program, rows: slice, stretches: Sequence[Stretch], flows: dict[str, State], dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """The gates that are MIXED, (rows, width)."""
    found = {}
    for name, gate in zip("qkv", program.gates, strict=True):
        if flows.get(name) is State.MIXED:
            open, weight = leaves.pairs(rows, _picked(stretches), gate.open, gate.weight)
            found[name] = torch.where(open, weight, 0.0).expand(length(rows), width(stretches)).to(dtype).to(device)
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
    rest: Tensor

    @staticmethod
    def of(here: tuple[Index, Index, slice], dout: Tensor | None, dlse: Tensor | None, q: Tensor, attended: Attended, scale: float) -> Asking:
        exact = exact_dtype(q)
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
        return Asking(alive(q[here]) * scale, upstream, delta, top, rest)

    def part(self, batch: slice, heads: slice, rows: slice) -> Asking:
        def cut(x: Tensor) -> Tensor:
            return x[batch, heads, rows]

        return Asking(cut(self.queries), None if self.upstream is None else cut(self.upstream), cut(self.delta), cut(self.top), cut(self.rest))


def tile_gradients(asking: Asking, keys: Tensor, values: Tensor, mask: Tensor | None, flows: dict[str, State], gates: dict[str, Tensor]) -> dict[str, Tensor]:
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
