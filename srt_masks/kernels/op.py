"""The boundary between autograd and the kernels: one operator a direction, one autograd function.

A plan crosses it as tensors, numbers and a string that names the predicate by its content; nothing about a call is kept
anywhere else, so checkpointing, copying and threads see what they were given. The raw operators have no gradient of their own:
only `attend` below is to be called. Forward-mode differentiation, vmap and double backward raise, naming themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ..compiler.compiled import Compiled
from ..compiler.plan import Plan
from ..diagnostics import BackendError
from .backend import Attended, Backend, Operands
from .dispatch import backend_of
from .reorder import Arrangement, arrangement, reorder

# Predicates by the hash of their content, held weakly: callables and the backwards they started keep theirs alive.
_PREDICATES: WeakValueDictionary[str, Compiled] = WeakValueDictionary()

torch.library.define(
    "srt_masks::forward", "(Tensor q, Tensor k, Tensor v, Tensor[] plan, str predicate, str backend, float scale) -> (Tensor, Tensor, Tensor, Tensor)"
)
torch.library.define(
    "srt_masks::backward",
    "(Tensor? dout, Tensor? dlse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor top, Tensor rest, Tensor[] plan, str predicate, str backend, float scale, bool[] needs) -> (Tensor, Tensor, Tensor)",
)


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what it was made from."""

    plan: Plan
    compiled: Compiled


@dataclass(frozen=True, slots=True)
class Hidden:
    """k and v once more, of equal value, from the detached hidden state, and the plan of their gradients; None: they have none but 0."""

    k: Tensor
    v: Tensor
    planned: Planned | None


def attend(q: Tensor, k: Tensor, v: Tensor, planned: Planned, backend: Backend, scale: float, hidden: Hidden | None = None) -> tuple[Tensor, Tensor]:
    """out and lse of the planned attention, both differentiable once in q, k and v, and in the twins of k and v; all in the caller's order,
    whatever order the plan visits tokens in.

    The twins cost no forward, and a second pass over dK and dV. Raises BackendError if the plan was made for another call.
    """
    g = planned.plan.geometry
    if (g.batch, g.heads, g.queries, g.keys) != (*q.shape[:3], k.shape[2]):
        raise BackendError(f"a plan for batch {g.batch}, heads {g.heads}, {g.queries} x {g.keys} tokens was given to q {tuple(q.shape)} and k {tuple(k.shape)}")
    operands = Operands.of(q, k, v)
    orders = arrangement(planned.plan, operands.heads_per_key, q.device)
    if orders is not None and planned.compiled.speaks_of_head and g.heads_per_key != operands.heads_per_key:
        raise BackendError(f"a plan for {g.heads_per_key} heads a key head was given to {operands.heads_per_key}: they would not visit keys in one order")
    if hidden and hidden.planned and _differ(orders, arrangement(hidden.planned.plan, operands.heads_per_key, q.device)):
        raise BackendError("the plan of the twins visits tokens in another order than that of k and v")
    if orders is not None:
        q, k, v = reorder(q, *orders.queries), reorder(k, *orders.keys), reorder(v, *orders.keys)
        hidden = hidden and Hidden(reorder(hidden.k, *orders.keys), reorder(hidden.v, *orders.keys), hidden.planned)
    works = tuple(_Work(backend.pack(p.plan, p.compiled, operands), p.compiled) for p in (planned, hidden.planned if hidden else None) if p is not None)
    twins = (hidden.k, hidden.v) if hidden else (None, None)
    out, lse, *_ = _Attend.apply(q, k, v, *twins, works, backend.name, scale)  # type: ignore[misc]
    if orders is not None:
        there, back = orders.queries
        out, lse = reorder(out, back, there), reorder(lse, back, there)
    return out, lse


def _differ(one: Arrangement | None, other: Arrangement | None) -> bool:
    return one is not other and (one is None or not one.is_like(other))


@dataclass(frozen=True, slots=True)
class _Work:
    """A packed plan and its predicate."""

    packed: list[Tensor]
    compiled: Compiled


def _named(compiled: Compiled) -> str:
    """The name under which the operators find a predicate, while it is alive."""
    _PREDICATES[compiled.key] = compiled
    return compiled.key


def _predicate(name: str) -> Compiled:
    found = _PREDICATES.get(name)
    if found is None:
        raise BackendError("the mask of this operator is no longer alive: call what srt_masks.compile returned, not the operator")
    return found


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, hidden_k: Tensor | None, hidden_v: Tensor | None, works: tuple[_Work, ...], backend: str, scale: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return torch.ops.srt_masks.forward(q, k, v, works[0].packed, _named(works[0].compiled), backend, scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        q, k, v, _, _, ctx.works, ctx.backend, ctx.scale = inputs
        ctx.save_for_backward(q, k, v, *output)
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, dout: Tensor | None, dlse: Tensor | None, *_: None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        grads: list[Tensor | None] = [None] * 8
        needs, saved = ctx.needs_input_grad, ctx.saved_tensors  # checkpointing lets them be unpacked once
        # The twins equal k and v, so their gradients are those of k and v under the second plan.
        for work, first in zip(ctx.works, (1, 3), strict=False):
            wanted = (needs[0] and first == 1, needs[first], needs[first + 1])
            if (dout is None and dlse is None) or not any(wanted):
                continue
            found = _Gradients.apply(dout, dlse, *saved, work.packed, work.compiled, ctx.backend, ctx.scale, wanted)
            for place, want, grad in zip((0, first, first + 1), wanted, found, strict=True):  # type: ignore[arg-type]
                if want:
                    grads[place] = grad
        if len(ctx.works) == 1:
            grads[3:5] = (torch.zeros_like(x) if need else None for x, need in zip(saved[1:3], needs[3:5], strict=True))
        return tuple(grads)


class _Gradients(torch.autograd.Function):
    """dq, dk, dv as a function of everything they depend on. It has no derivative: where one is asked for, it says so, and a
    second order that would be silently zero cannot arise."""

    @staticmethod
    def forward(dout, dlse, q, k, v, out, lse, top, rest, plan, compiled, backend, scale, needs) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ops.srt_masks.backward(dout, dlse, q, k, v, out, lse, top, rest, plan, _named(compiled), backend, scale, list(needs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise BackendError('the gradient of a gradient (double backward) is not served; backend="reference" has it, slowly')


# torch asks for the signature of a forward at every call; to read it off the function takes as long as a launch.
for _function in (_Attend, _Gradients):
    _function.forward.__signature__ = inspect.signature(_function.forward)  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------ the operators


def _forward(q: Tensor, k: Tensor, v: Tensor, plan: list[Tensor], predicate: str, backend: str, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with _as_written(q.device):
        found = backend_of(backend).forward(q, k, v, plan, _predicate(predicate), scale)
    return found.out, found.lse, found.top, found.rest


def _backward(dout, dlse, q, k, v, out, lse, top, rest, plan, predicate, backend, scale, needs) -> tuple[Tensor, Tensor, Tensor]:
    with _as_written(q.device):
        grads = backend_of(backend).backward(dout, dlse, q, k, v, Attended(out, lse, top, rest), plan, _predicate(predicate), scale, tuple(needs))
    # An operator returns tensors: an empty one stands for a gradient nobody asked for.
    return tuple(g if g is not None else x.new_empty(0) for g, x in zip(grads, (q, k, v), strict=True))  # type: ignore[return-value]


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


torch.library.impl("srt_masks::forward", "CompositeExplicitAutograd", _forward)
torch.library.impl("srt_masks::backward", "CompositeExplicitAutograd", _backward)


@torch.library.register_fake("srt_masks::forward")
def _(q, k, v, plan, predicate, backend, scale):
    exact = torch.float64 if q.dtype is torch.float64 else torch.float32
    return q.new_empty(*q.shape[:3], v.shape[-1]), *(q.new_empty(q.shape[:3], dtype=exact) for _ in range(3))


@torch.library.register_fake("srt_masks::backward")
def _(dout, dlse, q, k, v, out, lse, top, rest, plan, predicate, backend, scale, needs):
    return tuple(torch.empty_like(x) if need else x.new_empty(0) for x, need in zip((q, k, v), needs, strict=True))
