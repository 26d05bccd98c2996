"""A planned call: its forward and its gradients, with no autograd in it and everything in the caller's order.

`op` and `traced` put it behind the two boundaries there are; whatever they are handed, what runs is this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compiler.compiled import Compiled
from ..compiler.plan import Plan
from ..diagnostics import BackendError
from .backend import Attended, Backend, Operands
from .reorder import Arrangement, arrangement, arrangement_of, reorder

Needs = tuple[bool, bool, bool, bool, bool]  # which gradients are wanted: of q, k, v, and of the twins of k and v
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what it was made from."""

    plan: Plan
    compiled: Compiled


@dataclass(frozen=True, slots=True)
class Found:
    """What a call is done by: the plan of k and v, that of their twins if they have one, and the backend picked for both."""

    backend: Backend
    own: Planned
    twins: Planned | None


@dataclass(frozen=True, slots=True)
class PackedPlan:
    """A plan as its backend reads it, and the predicate."""

    tensors: list[Tensor]
    compiled: Compiled


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """What a call comes to once it is planned. It holds none of q, k and v."""

    backend: Backend
    scale: float
    orders: Arrangement | None  # None: tokens are visited as they come
    own: PackedPlan
    twins: PackedPlan | None  # whose gradients are those of k and v under a plan of their own; None: they have none but 0

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Attended:
        """q (batch, heads, queries, head_dim), k (batch, key_heads, keys, head_dim), v (batch, key_heads, keys, value_dim)."""
        orders = self.orders
        if orders is not None:
            q, k, v = reorder(q, orders.queries.there), reorder(k, orders.keys.there), reorder(v, orders.keys.there)
        with _as_written(q.device):
            found = self.backend.forward(q, k, v, self.own.tensors, self.own.compiled, self.scale)
        if orders is None:
            return found
        return Attended(*(reorder(x, orders.queries.back) for x in (found.out, found.lse, found.top, found.rest)))

    def backward(self, dout: Tensor | None, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, attended: Attended, needs: Needs) -> Gradients:
        """The gradients that are needed, None for the others."""
        if dout is None and dlse is None:
            return None, None, None, None, None
        orders = self.orders
        shapes = k, v
        if orders is not None:
            there = orders.queries.there
            dout, dlse = (None if x is None else reorder(x, there) for x in (dout, dlse))
            q, k, v = reorder(q, there), reorder(k, orders.keys.there), reorder(v, orders.keys.there)
            attended = Attended(*(reorder(x, there) for x in (attended.out, attended.lse, attended.top, attended.rest)))

        def gradients(packed: PackedPlan, wanted: tuple[bool, bool, bool]) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
            if not any(wanted):
                return None, None, None
            dq, dk, dv = self.backend.backward(dout, dlse, q, k, v, attended, packed.tensors, packed.compiled, self.scale, wanted)
            if orders is None:
                return dq, dk, dv
            queries, keys = orders.queries.back, orders.keys.back
            return tuple(None if x is None else reorder(x, back) for x, back in ((dq, queries), (dk, keys), (dv, keys)))  # type: ignore[return-value]

        with _as_written(q.device):
            dq, dk, dv = gradients(self.own, needs[:3])
            if self.twins is None:
                twin_k, twin_v = (torch.zeros_like(x) if need else None for x, need in zip(shapes, needs[3:], strict=True))
            else:
                _, twin_k, twin_v = gradients(self.twins, (False, *needs[3:]))
        return dq, dk, dv, twin_k, twin_v


def planned_call(
    q: Tensor, k: Tensor, v: Tensor, planned: Planned, backend: Backend, scale: float, twins: Planned | None = None, visited: Tensor | None = None
) -> PlannedCall:  # fmt: skip
    """A plan, and that of the twins of k and v if they have one, made ready for these tensors, whose rows come in the caller's order, or as `visited` says,
    (tokens,) int64 on the CPU. Raises BackendError if one was made for another call, InputError for what is no order."""
    g = planned.plan.geometry
    if (g.batch, g.heads, g.queries, g.keys) != (*q.shape[:3], k.shape[2]):
        raise BackendError(f"a plan for batch {g.batch}, heads {g.heads}, {g.queries} x {g.keys} tokens was given to q {tuple(q.shape)} and k {tuple(k.shape)}")
    operands = Operands.of(q, k, v)

    def moves(plan: Plan) -> Arrangement | None:
        if visited is None:
            return arrangement(plan, operands.heads_per_key, q.device)
        return arrangement_of(plan, operands.heads_per_key, q.device, visited)

    orders = moves(planned.plan)
    if orders is not None and planned.compiled.speaks_of_head and g.heads_per_key != operands.heads_per_key:
        raise BackendError(f"a plan for {g.heads_per_key} heads a key head was given to {operands.heads_per_key}: they would not visit keys in one order")
    if twins is not None and _differ(orders, moves(twins.plan)):
        raise BackendError("the plan of the twins visits tokens in another order than that of k and v")
    own, others = (None if p is None else PackedPlan(backend.pack(p.plan, p.compiled, operands), p.compiled) for p in (planned, twins))
    assert own is not None
    return PlannedCall(backend, scale, orders, own, others)


def _differ(one: Arrangement | None, other: Arrangement | None) -> bool:
    return one is not other and (one is None or not one.is_like(other))


@contextmanager
def _as_written(device: torch.device) -> Iterator[None]:
    """float32 means IEEE float32: neither autocast nor a lower matmul precision, set for the rest of the model, reaches the kernels."""
    precision = torch.get_float32_matmul_precision()
    if precision == "highest" and not torch.is_autocast_enabled(device.type):
        yield
        return
    if precision != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        if precision != "highest":
            torch.set_float32_matmul_precision(precision)
