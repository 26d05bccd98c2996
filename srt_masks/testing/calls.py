"""Laws about what a call must not notice: what nobody attends, and the calls before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..diagnostics import Error, InputError
from ..grammar.checked import Param, Type
from ..kernels.attention import Attention
from ..reference.attention import attention
from ..time_steps import Steps, each_axis, joined
from .case import Case
from .keeping import keeps
from .laws import TOLERANCE, Broken, Law

RESULTS = ("out", "lse", "dq", "dk", "dv")


def _results(case: Case, attend: Attention, tensors: list[Tensor], layer: int) -> list[Tensor]:
    """out, lse and the gradients of q, k and v."""
    leaves = [x.detach().clone().requires_grad_() for x in tensors[:3]]
    out, lse = case.call(attend, *leaves, layer=layer)  # type: ignore[arg-type]
    grads = torch.autograd.grad((out * tensors[3]).sum(), leaves, allow_unused=True, materialize_grads=True)
    return [out.detach(), lse.detach(), *grads]


def _differing(a: list[Tensor], b: list[Tensor]) -> str:
    """The first result that is not the same bits, or nothing."""
    for what, x, y in zip(RESULTS, a, b, strict=True):
        if not torch.equal(x, y):
            by = (x - y).abs().nan_to_num(float("inf"))
            return f"{what} differs by {by[torch.isfinite(x) | torch.isfinite(y)].max():.2e}" if x.shape == y.shape else f"{what} has another shape"
    return ""


# ------------------------------------------------------------------------------------------------ poison


def _poison(case: Case, backend: str) -> None:
    masks, attend = case.masks(), case.compile(backend)
    q, k, v, dout = case.tensors()
    for layer in range(case.depth):
        seen = masks.attend[:, layer].expand(*q.shape[:2], -1, -1)
        asks = ~seen.any(-1)  # rows past a row's length, and those that see nothing
        keys = ~seen.unflatten(1, (k.shape[1], -1)).any(2).any(-2)
        clean = _results(case, attend, [q, k, v, dout], layer)
        dirty = [x.masked_fill(dead[..., None], float("nan")) for x, dead in ((q, asks), (k, keys), (v, keys))]
        found = _results(case, attend, [*dirty, dout], layer)
        if differs := _differing(found, clean):
            raise Broken(f"NaN in what nobody attends reaches a result: {differs} (layer {layer})")
        for what, grad, dead in zip(RESULTS[2:], found[2:], (asks, keys, keys), strict=True):
            if bool((grad[dead] != 0).any()):
                raise Broken(f"{what} is not 0 where nobody attends (layer {layer})")


# ------------------------------------------------------------------------------------------------ reuse


def _reuse(case: Case, backend: str) -> None:
    own = {n: x.clone() if isinstance(x, Tensor) else x for n, x in case.inputs.items()}
    case = replace(case, inputs=own)
    attend, layer = case.compile(backend), case.seed % case.depth
    for what, other, at in (("the first call", case, layer), *_others(case, layer), ("the first call again", case, layer)):
        if keeps(other):
            _check_against_new(attend, other, at, backend, what)
    if _edit(own):
        what = "a call after its inputs were changed in place"
        if keeps(case):
            _check_against_new(attend, case, layer, backend, what)
        else:
            _check_refused(attend, case, layer, what)


def _check_against_new(attend: Attention, case: Case, layer: int, backend: str, what: str) -> None:
    tensors = case.tensors()
    fresh = _results(case, case.compile(backend), tensors, layer)
    try:
        found = _results(case, attend, tensors, layer)
    except Error as error:
        raise Broken(f"{what} fails on an attention that was called before, and not on a new one: {error}") from error
    if differs := _differing(found, fresh):
        raise Broken(f"{what} gives other bits than a new attention does: {differs} (layer {layer})")
    masks = case.masks()
    truth, _ = attention(*tensors[:3], *(m[:, layer] for m in (masks.attend, masks.gate_q, masks.gate_k, masks.gate_v)))
    if not torch.allclose(found[0], truth, rtol=TOLERANCE, atol=TOLERANCE):
        raise Broken(f"{what} differs from the reference by {(found[0] - truth).abs().max():.2e} (layer {layer})")


def _check_refused(attend: Attention, case: Case, layer: int, what: str) -> None:
    try:
        _results(case, attend, case.tensors(), layer)
    except InputError:
        return
    raise Broken(f"{what} is served, though they no longer are what the text says of them (layer {layer})")


def _others(case: Case, layer: int) -> Iterator[tuple[str, Case, int]]:
    """Calls that differ from a case in one thing."""
    if case.depth > 1:
        yield "a call of another layer", case, (layer + 1) % case.depth
    if case.steps is not None:
        yield "a call of another length", case.resized(_other_steps(case)), layer
    if case.lengths is not None and any(n != case.extents.tokens for n in case.lengths):
        yield "a call without lengths", replace(case, lengths=None), layer
    if changed := {p.name: _other_value(p, case) for p in case.spec.checked.params if not p.structural}:
        yield "a call with other params", replace(case, params=changed), layer
    if other := {n: x.clone() if isinstance(x, Tensor) else x for n, x in case.inputs.items()}:
        _edit(other)
        yield "a call with other inputs", replace(case, inputs=other), layer


def _other_steps(case: Case) -> Steps:
    queries, keys = (n if n is None else n + 1 if case.seed % 2 or n < 2 else n // 2 for n in each_axis(case.steps))
    found = joined(queries, keys)
    assert found is not None
    return found


def _other_value(param: Param, case: Case) -> int | float:
    before = case.params.get(param.name, param.value)
    before = before[0].item() if isinstance(before, Tensor) else before
    if param.type is not Type.INT:
        return 0.75 - before
    return before + 1 if before < torch.iinfo(torch.int64).max else before - 1


def _edit(inputs: Mapping[str, Any]) -> bool:
    """Changes every number of every tensor, in place; whether there is any."""
    tensors = [x for x in inputs.values() if isinstance(x, Tensor) and x.numel()]
    for x in tensors:
        x.copy_(~x if x.dtype is torch.bool else x.flip(-1) + 1 if x.ndim else x + 1)
    return bool(tensors)


poison = Law("poison", "what nobody attends, and what lies past a row's length, may hold NaN: nothing of it is seen", _poison)
reuse = Law("reuse", "an attention that was called before gives what a new one does, to the bit", _reuse)
