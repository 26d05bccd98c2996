"""A call as one operator, for whatever watches it: torch.compile, torch.export, fake tensors, torch.func transforms, dispatch modes.

Such a watcher sees q, k and v, the run-time inputs and numbers of the call, and two strings: the form of these (`flat`) and the mask's own text with its
options, so that a graph holds all it needs and runs in another process too. What a call is checked for, planned and run by happens inside, at run
time, on the real tensors and through the cache of plans: nothing of it is traced, and a new length, input or number compiles nothing. The backward
is an operator as well, and finds the plan in the cache again.

The operators are differentiable, under vmap (`folding`) too; forward mode and double backward raise, naming themselves.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, is_fake
from torch.autograd.forward_ad import _set_fwd_grad_enabled
from torch.autograd.function import _SingleLevelFunction  # what torch.autograd.Function is, one level of torch.func at a time

from ..binding import check_input_is_constant
from ..diagnostics import BackendError, InputError
from ..values import check_constant
from .backend import Attended
from .flat import flatten, unflatten, unflatten_beside
from .folding import fold, fold_arguments, unfold
from .op import NO_FORWARD_MODE, NO_SECOND_ORDER, refuse_batched

if TYPE_CHECKING:
    from .attention import Attention

REBUILT_KEPT = 16
_PLAIN = getattr(Tensor, "__torch_dispatch__")  # noqa: B009 -- of tensors that are no subclass with operators of its own

_ARGUMENTS = "Tensor[] tensors, SymInt[] whole, str form, str identity"
torch.library.define(
    "srt_masks::attention",
    f"(Tensor q, Tensor k, Tensor v, Tensor? hidden_k, Tensor? hidden_v, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe),
)
torch.library.define(
    "srt_masks::attention_backward",
    f"(Tensor? dout, Tensor? dlse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor top, Tensor rest, {_ARGUMENTS}, bool[] needs)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe),
)


def is_watched(q: Any) -> bool:
    """Whether anything but autograd sees the operators of a call on q."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]
        or (getattr(type(q), "__torch_dispatch__", _PLAIN) is not _PLAIN and not q.is_nested)  # a nested tensor is refused as in any call
    )


def check_is_real(q: Any) -> None:
    """Raises BackendError for a call of the reference where only operators may be: autograd differentiates it, so it is not one."""
    if torch.compiler.is_compiling() or is_fake(q):
        raise BackendError(
            'backend="reference" is plain torch on real tensors, and not one operator: keep it out of torch.compile, torch.export and fake tensors '
            '(torch.compiler.disable(attend) does), or compile the spec for backend="tiled"'
        )


def refuse_fakes(named: Mapping[str, Any]) -> None:
    """Raises InputError for a fake tensor among what is given where numbers are read: beside a real q, or for a plan."""
    for name, x in named.items():
        if isinstance(x, FakeTensor):
            raise InputError(
                f"{name} is a fake tensor, which holds no numbers, and they are read here: give a real one, or, for a call of fake tensors, make q by the same mode"
            )
        if isinstance(x, dict):
            refuse_fakes(x)


def attend(
    identity: str, q: Tensor, k: Tensor, v: Tensor, hidden_k: Tensor | None, hidden_v: Tensor | None, beside: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """out and lse of a call, by the operator. What is wrong with the call is raised when the operator runs."""
    if not torch.compiler.is_compiling():
        mode = next((x.fake_mode for x in (q, k, v) if isinstance(x, FakeTensor)), None)
        if mode is not None:
            return _among_fakes(mode, identity, q, k, v, hidden_k, hidden_v, beside)
    form, tensors, whole = flatten(beside)
    out, lse, _, _ = torch.ops.srt_masks.attention(q, k, v, hidden_k, hidden_v, tensors, whole, form, identity)
    return out, lse


def _among_fakes(
    mode: FakeTensorMode, identity: str, q: Tensor, k: Tensor, v: Tensor, hidden_k: Tensor | None, hidden_v: Tensor | None, beside: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """The same, of fake tensors. Raises InputError where tensors that hold numbers are among them, unless their mode takes those for fake."""
    with mode:  # what becomes of numbers is fake, too
        form, tensors, whole = flatten(beside)
    named = {"q": q, "k": k, "v": v, "hidden_k": hidden_k, "hidden_v": hidden_v, **{f"input {n}": x for n, x in enumerate(tensors)}}
    real = [name for name, x in named.items() if isinstance(x, Tensor) and not is_fake(x)]
    if real and not mode.allow_non_fake_inputs:
        fake = next(name for name, x in named.items() if is_fake(x))
        what = "an input" if real[0].startswith("input") else real[0]
        raise InputError(
            f"{fake} is a fake tensor, which holds no numbers, and {what} a real one: make all of them by one mode, or give FakeTensorMode(allow_non_fake_inputs=True)"
        )
    out, lse, _, _ = torch.ops.srt_masks.attention(q, k, v, hidden_k, hidden_v, tensors, whole, form, identity)
    return out, lse


# ------------------------------------------------------------------------------------------------ attentions by what they are

_ALIVE: WeakValueDictionary[str, Attention] = WeakValueDictionary()
_REBUILT: OrderedDict[str, Attention] = OrderedDict()
_LOCK = Lock()


def identify(attention: Attention) -> str:
    """The text of an attention and its options: the operators find it by that, or build it once more."""
    spec, options = attention.spec, asdict(attention.options)
    identity = json.dumps({"text": spec.text, "params": spec.params, **options})
    with _LOCK:
        _ALIVE.setdefault(identity, attention)
    return identity


def _attention(identity: str) -> Attention:
    with _LOCK:
        found = _ALIVE.get(identity) or _REBUILT.get(identity)
    if found is not None:
        return found
    from ..spec import parse
    from .attention import compile_spec

    options = json.loads(identity)
    made = compile_spec(parse(options.pop("text"), params=options.pop("params")), **options)
    with _LOCK:
        _REBUILT[identity] = made
        while len(_REBUILT) > REBUILT_KEPT:
            _REBUILT.popitem(last=False)
    return made


# ------------------------------------------------------------------------------------------------ the operators


def _forward(q, k, v, hidden_k, hidden_v, tensors, whole, form, identity) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    call = _attention(identity).planned_call(q, k, v, hidden_k, hidden_v, **unflatten(form, tensors, whole))
    found = call.forward(q, k, v)
    return found.out, found.lse, found.top, found.rest


def _backward(dout, dlse, q, k, v, out, lse, top, rest, tensors, whole, form, identity, needs) -> tuple[Tensor, ...]:
    attention = _attention(identity)
    # The twins of k and v equal them, and were looked at by the forward.
    twins = (k, v) if attention.spec.checked.has_hidden_rules else (None, None)
    call = attention.planned_call(q, k, v, *twins, **unflatten(form, tensors, whole))
    grads = call.backward(dout, dlse, q, k, v, Attended(out, lse, top, rest), tuple(needs))
    # An operator returns tensors: an empty one stands for a gradient nobody asked for.
    return tuple(g if g is not None else x.new_empty(0) for g, x in zip(grads, (q, k, v, k, v), strict=True))


torch.library.impl("srt_masks::attention", "CompositeExplicitAutograd", _forward)
torch.library.impl("srt_masks::attention_backward", "CompositeExplicitAutograd", _backward)


def _check_meta(q: Tensor, *others: Tensor | None) -> None:
    """Of shapes alone there is no result on a device: one tensor on meta would make numbers that nobody worked out."""
    if q.device.type != "meta" and any(x is not None and x.device.type == "meta" for x in others):
        raise InputError(f"q lies on {q.device}, and one of k, v and the inputs is a meta tensor, which holds no numbers: give x.to(q.device)")


@torch.library.register_fake("srt_masks::attention")
def _(q, k, v, hidden_k, hidden_v, tensors, whole, form, identity):
    _check_meta(q, k, v, hidden_k, hidden_v, *tensors)
    # Of any extents: what is wrong with them is said at run time, by the message of every other call.
    exact = torch.float64 if q.dtype is torch.float64 else torch.float32
    return q.new_empty((*q.shape[:-1], v.shape[-1])), *(q.new_empty(q.shape[:-1], dtype=exact) for _ in range(3))


@torch.library.register_fake("srt_masks::attention_backward")
def _(dout, dlse, q, k, v, out, lse, top, rest, tensors, whole, form, identity, needs):
    return tuple(x.new_empty(x.shape if need else 0) for x, need in zip((q, k, v, k, v), needs, strict=True))


# ------------------------------------------------------------------------------------------------ gradients


@contextmanager
def _below(modes: tuple[bool, bool]) -> Iterator[None]:
    """Beneath autograd, where the next level of torch.func waits: it must find reverse and forward mode as the caller set them, and not switched off as
    they are in the forward of an autograd function, or its own gradients would be zero."""
    reverse, forward = modes
    with torch.set_grad_enabled(reverse), _set_fwd_grad_enabled(forward), torch._C._AutoDispatchBelowAutograd():
        yield


def _modes() -> tuple[bool, bool]:
    return torch.is_grad_enabled(), torch._C._is_fwd_grad_enabled()


class _Attention(_SingleLevelFunction):
    @staticmethod
    def forward(ctx: Any, modes, q, k, v, hidden_k, hidden_v, whole, form, identity, *tensors) -> tuple[Tensor, ...]:
        with _below(modes):
            output = torch.ops.srt_masks.attention(q, k, v, hidden_k, hidden_v, tensors, whole, form, identity)
        ctx.whole, ctx.form, ctx.identity = whole, form, identity
        ctx.save_for_backward(q, k, v, *output, *tensors)
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    def backward(ctx: Any, dout, dlse, *_: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        refuse_batched(dout, dlse)
        needs = ctx.needs_input_grad[1:6]
        saved = ctx.saved_tensors  # checkpointing lets them be unpacked once
        rest = (None,) * (len(ctx.needs_input_grad) - 6)
        if dout is None and dlse is None:
            return (None,) * 6 + rest
        found = torch.ops.srt_masks.attention_backward(dout, dlse, *saved[:7], saved[7:], ctx.whole, ctx.form, ctx.identity, list(needs))
        return None, *(g if need else None for g, need in zip(found, needs, strict=True)), *rest

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise BackendError(NO_FORWARD_MODE)


class _Gradients(_SingleLevelFunction):
    """The gradients have no derivative: where one is asked for, it says so."""

    @staticmethod
    def forward(ctx: Any, modes, dout, dlse, q, k, v, out, lse, top, rest, tensors, *others) -> tuple[Tensor, ...]:
        with _below(modes):
            return torch.ops.srt_masks.attention_backward(dout, dlse, q, k, v, out, lse, top, rest, tensors, *others)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise BackendError(NO_SECOND_ORDER)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise BackendError(NO_FORWARD_MODE)


def _check_constants(tensors, whole, form, identity) -> None:
    """Raises InputError where a transform of torch.func asks for a gradient of anything beside q, k, v and their twins: it would be a silent zero. Below, where
    a call is bound and the same is said to plain autograd, the tensors of the transform are no longer there."""
    if torch._C._functorch.peek_interpreter_stack() is None or not any(x.requires_grad for x in tensors):  # pyright: ignore[reportAttributeAccessIssue]
        return
    spec, given = _attention(identity).spec, unflatten_beside(form, tensors, whole)
    inputs = given.pop("inputs", None)
    for name, value in [*given.items(), *(inputs.items() if isinstance(inputs, Mapping) else ())]:
        if name in spec.inputs:
            check_input_is_constant(name, value)
        check_constant(f"param `{name}`" if name in spec.params else name, value)


def _differentiable_forward(q, k, v, hidden_k, hidden_v, tensors, whole, form, identity):
    _check_constants(tensors, whole, form, identity)
    # Where torch.func is at work, this runs once for each of its levels.
    with enable_single_level_autograd_function():
        return _Attention.apply(_modes(), q, k, v, hidden_k, hidden_v, whole, form, identity, *tensors)  # pyright: ignore[reportAttributeAccessIssue]


def _differentiable_backward(*arguments):
    with enable_single_level_autograd_function():
        return _Gradients.apply(_modes(), *arguments)  # pyright: ignore[reportAttributeAccessIssue]


torch.library.impl("srt_masks::attention", "Autograd", _differentiable_forward)
torch.library.impl("srt_masks::attention_backward", "Autograd", _differentiable_backward)


# ------------------------------------------------------------------------------------------------ vmap


def _vmap_forward(info, dims, q, k, v, hidden_k, hidden_v, tensors, whole, form, identity):
    count, batch = info.batch_size, q.ndim and _batch_of(q, dims[0])
    folded = [None if x is None else fold(x, dim, count) for x, dim in zip((q, k, v, hidden_k, hidden_v), dims, strict=False)]
    arguments = fold_arguments(_attention(identity).spec.checked, form, tensors, dims[5], whole, batch, count)
    output = torch.ops.srt_masks.attention(*folded, *arguments, identity)
    return tuple(unfold(x, count, batch) for x in output), (0,) * 4


def _vmap_backward(info, dims, dout, dlse, q, k, v, out, lse, top, rest, tensors, whole, form, identity, needs):
    count, batch = info.batch_size, _batch_of(q, dims[2])
    folded = [None if x is None else fold(x, dim, count) for x, dim in zip((dout, dlse, q, k, v, out, lse, top, rest), dims, strict=False)]
    arguments = fold_arguments(_attention(identity).spec.checked, form, tensors, dims[9], whole, batch, count)
    grads = torch.ops.srt_masks.attention_backward(*folded, *arguments, identity, needs)
    return tuple(unfold(g, count, batch) if need else g for g, need in zip(grads, needs, strict=True)), tuple(0 if need else None for need in needs)


def _batch_of(q: Tensor, dim: int | None) -> int:
    return q.shape[0] if dim is None else q.movedim(dim, 0).shape[1]


torch.library.register_vmap("srt_masks::attention", _vmap_forward)
torch.library.register_vmap("srt_masks::attention_backward", _vmap_backward)
