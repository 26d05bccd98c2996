"""The boundary to autograd of a call whose plan is known: one autograd function over a `PlannedCall`.

A plan travels with the call it was made for and is kept nowhere else, so checkpointing, copying and threads see what they were given. This is the
boundary of a call that nothing watches; `traced` is that of one inside torch.compile, torch.export, a torch.func transform or a dispatch mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..default_device import on_the_cpu
from ..diagnostics import BackendError
from .backend import Attended, Backend
from .planned import Needs, Planned, PlannedCall, planned_call

NO_SECOND_ORDER = 'the gradient of a gradient (double backward) is not served; backend="reference" has it, slowly'
NO_FORWARD_MODE = "forward-mode differentiation (jvp, jacfwd, hessian, dual numbers) is not served; reverse mode is: torch.func.vjp, grad and jacrev; backend='reference' has both"
NO_BATCHED_GRADIENTS = (
    "a backward for many gradients of the output at once (is_grads_batched=True, jacobian(vectorize=True)) is not served; a loop over them is, and so are "
    "torch.func.jacrev, and torch.vmap over what torch.func.vjp gives; backend='reference' has it"
)


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
    call = planned_call(q, k, v, planned, backend, scale, hidden.planned if hidden else None)
    return run(call, q, k, v, *((hidden.k, hidden.v) if hidden else (None, None)))


@on_the_cpu
def run(call: PlannedCall, q: Tensor, k: Tensor, v: Tensor, hidden_k: Tensor | None, hidden_v: Tensor | None) -> tuple[Tensor, Tensor]:
    """out and lse of a call that is ready for these very tensors."""
    out, lse, *_ = _Attend.apply(q, k, v, hidden_k, hidden_v, call)  # type: ignore[misc]
    return out, lse


def refuse_batched(*gradients: Tensor | None) -> None:
    """Raises BackendError for the tensors by which autograd stands for many at once; what they are is hidden from all that is written to outputs of its own."""
    if any(x is not None and torch._C._functorch.is_legacy_batchedtensor(x) for x in gradients):  # pyright: ignore[reportAttributeAccessIssue]
        raise BackendError(NO_BATCHED_GRADIENTS)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, hidden_k: Tensor | None, hidden_v: Tensor | None, call: PlannedCall) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        found = call.forward(q, k, v)
        output = found.out, found.lse, found.top, found.rest
        ctx.call = call
        ctx.save_for_backward(q, k, v, *output)
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    def backward(ctx: Any, dout: Tensor | None, dlse: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        refuse_batched(dout, dlse)
        # The twins equal k and v, so no backward needs them. Checkpointing lets what was saved be unpacked once.
        return *_Gradients.apply(dout, dlse, *ctx.saved_tensors, ctx.call, ctx.needs_input_grad[:5]), None  # type: ignore[misc]

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise BackendError(NO_FORWARD_MODE)


class _Gradients(torch.autograd.Function):
    """The gradients as a function of everything they depend on. It has no derivative: where one is asked for, it says so, and a
    second order that would be silently zero cannot arise."""

    @staticmethod
    def forward(ctx: Any, dout, dlse, q, k, v, out, lse, top, rest, call: PlannedCall, needs: Needs) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return call.backward(dout, dlse, q, k, v, Attended(out, lse, top, rest), needs)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise BackendError(NO_SECOND_ORDER)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise BackendError(NO_FORWARD_MODE)
