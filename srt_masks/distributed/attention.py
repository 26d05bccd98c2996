"""Attention of one rank's rows to those of all: keys and values are gathered, and their gradients added up and sent back to whom they belong.

What is gathered is let go of after each pass, and gathered anew for the backward: between the two, a rank keeps its own rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from ..kernels.attention import Attention, autocast
from ..kernels.backend import Attended, Operands
from ..kernels.planned import PlannedCall, planned_call
from .dealing import Dealt

ROWS = 2  # the axis of tokens in (batch, heads, tokens, head_dim)


@dataclass(frozen=True, slots=True)
class Exchange:
    """What goes between ranks for one call, along ROWS: `width` rows a rank."""

    mesh: DeviceMesh
    width: int
    sent: Tensor  # see `Dealt`, on the device

    def gathered(self, *own: Tensor) -> list[Tensor]:
        """Each (batch, heads, own rows, size) -> that of all rows, in the order in which plans visit them."""
        padded = F.pad(torch.cat(own, -1), (0, 0, 0, self.width - own[0].shape[ROWS]))
        whole = DTensor.from_local(padded, self.mesh, [Shard(ROWS)], run_check=False).redistribute(self.mesh, [Replicate()]).to_local()
        return list(whole.index_select(ROWS, self.sent).split([x.shape[-1] for x in own], -1))

    def added_up(self, rows: int, *whole: Tensor) -> list[Tensor]:
        """The way back: each (batch, heads, all rows, size), what this rank adds -> the sum over ranks of its own `rows`. In float32 at least."""
        wide = torch.cat([x.to(torch.promote_types(x.dtype, torch.float32)) for x in whole], -1)
        sent = wide.new_zeros(*wide.shape[:ROWS], self.width * self.mesh.size(), wide.shape[-1]).index_copy(ROWS, self.sent, wide)
        own = DTensor.from_local(sent, self.mesh, [Partial()], run_check=False).redistribute(self.mesh, [Shard(ROWS)]).to_local().narrow(ROWS, 0, rows)
        return [x.to(w.dtype) for x, w in zip(own.split([w.shape[-1] for w in whole], -1), whole, strict=True)]


@dataclass(frozen=True, slots=True)
class SharedAttention:
    """The attention of a model of which this rank has the rows that `dealt` says: called as a model's own is, on those rows."""

    attention: Attention
    dealt: Dealt
    exchange: Exchange

    @torch.compiler.disable
    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, layer: int, hidden_k: Tensor | None = None, hidden_v: Tensor | None = None, **_: Any) -> Tensor:
        """q (batch, heads, own rows, head_dim), k and v (batch, key_heads, own rows, head_dim) -> (batch, heads, own rows, head_dim). Inputs, params
        and lengths were read when the call was dealt."""
        q, k, v, hidden_k, hidden_v = autocast(q, k, v, hidden_k, hidden_v)
        found = self.dealt.layers[layer]
        # A call is made ready for keys that are not there yet.
        keys = k.new_empty(1).expand(*k.shape[:ROWS], len(self.dealt.sent), k.shape[-1])
        backend = self.attention.settled(found, Operands.of(q, k, v))
        call = planned_call(q, keys, keys, found.own, backend, q.shape[-1] ** -0.5, found.twins)
        return _Attend.apply(q, k, v, hidden_k, hidden_v, call, self.exchange)  # type: ignore[return-value]


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, hidden_k: Tensor | None, hidden_v: Tensor | None, call: PlannedCall, exchange: Exchange) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        found = call.forward(q, *exchange.gathered(k, v))
        ctx.call, ctx.exchange = call, exchange
        ctx.save_for_backward(q, k, v, found.out, found.lse, found.top, found.rest)
        return found.out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, *attended = ctx.saved_tensors
        call, exchange, needs = ctx.call, ctx.exchange, ctx.needs_input_grad[:5]
        dq, *of_keys = call.backward(dout, None, q, *exchange.gathered(k, v), Attended(*attended), needs)
        some = [x for x in of_keys if x is not None]
        own = iter(exchange.added_up(k.shape[ROWS], *some) if some else [])
        return dq, *(None if x is None else next(own) for x in of_keys), None, None
