"""`Attention`: a spec as a callable. It checks what it is given, plans, and hands both to a backend."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..binding import (
    Sizes,
    bind_inputs,
    bind_lengths,
    bind_params,
    mentions_layer,
    split_arguments,
    steps_of,
)
from ..compiler.pipeline import Compiled, Plan, front, make_plan
from ..compiler.plan import Geometry
from ..diagnostics import BackendError, InputError
from ..grammar.checked import Checked
from ..reference import attention as reference_attention
from ..reference import masks as reference_masks
from ..spec import Spec
from . import op

BACKENDS = ("auto", "reference", "tiled", "triton")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PLANS_KEPT = 16
TILE = 128


@dataclass(frozen=True, slots=True)
class Options:
    heads: int | None = None
    layers: int | None = None
    backend: str = "auto"
    tile: int | None = None
    precision: str = "ieee"


@dataclass(frozen=True, slots=True)
class _Call:
    """A call, checked: everything the planner and the backends need."""

    sizes: Sizes
    lengths: tuple[int, ...] | None
    inputs: dict[str, Tensor]
    scalars: dict[str, int | float]
    given: tuple[Any, ...]  # the caller's own input tensors, to know them again


class Attention:
    """Attention by a spec, for any length, batch, number of heads and device. It has no parameters and no state but a cache
    of plans; it can be copied, pickled and shared between threads."""

    def __init__(self, spec: Spec, options: Options):
        self.spec = spec
        self.options = options
        self.compiled: Compiled = front(spec.checked)
        self._plans: OrderedDict[Any, tuple[tuple[Any, ...], Plan]] = OrderedDict()

    def __reduce__(self):
        return Attention, (self.spec, self.options)

    def __deepcopy__(self, memo: dict[int, Any]) -> Attention:
        return Attention(self.spec, self.options)

    def to(self, *args: Any, **kwargs: Any) -> Attention:
        """Returns itself: there is nothing to move."""
        return self

    def __repr__(self) -> str:
        return f"<Attention by {self.spec.filename}, backend {self.options.backend}>"

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, /, *, layer: int | None = None, lengths: Sequence[int] | Tensor | None = None,
        queries: Any = None, given: Any = None, scale: float | None = None, return_lse: bool = False,
        hidden_k: Tensor | None = None, hidden_v: Tensor | None = None, inputs: Mapping[str, Any] | None = None, **inputs_and_params: Any,
    ) -> Any:  # fmt: skip
        """out (batch, heads, queries, value_dim) in q's dtype; with `return_lse` also lse (batch, heads, queries), float32.

        q (batch, heads, queries, head_dim); k (batch, key_heads, keys, head_dim); v (batch, key_heads, keys, value_dim): float16,
        bfloat16, float32 or float64 of one dtype and device. `heads` is a multiple of `key_heads`. `scale` is 1 / sqrt(head_dim)
        unless given. `lengths` counts the tokens of each row of the batch. Inputs and value params of the spec are given by name,
        or in `inputs`. Raises InputError naming the argument that is wrong, BackendError where the backend cannot do it.
        """
        _refuse_unserved(queries=queries, given=given, hidden_k=hidden_k, hidden_v=hidden_v)
        q, k, v = _autocast(q, k, v)
        _check_tensors(q, k, v)
        call = self._bind(q, k, layer, lengths, inputs, inputs_and_params)
        factor: float = q.shape[-1] ** -0.5 if scale is None else float(scale)
        if self.options.backend == "reference":
            out, lse = self._reference(q, k, v, call, layer, factor)
        else:
            plan = self._plan(call, str(q.device))
            out, lse = op.attend(q, k, v, plan, self.compiled, factor)
        return (out, lse) if return_lse else out

    def plan(
        self, tokens: int, /, *, heads: int = 1, layer: int | None = None, dtype: torch.dtype | None = None, head_dim: int = 64,
        lengths: Sequence[int] | Tensor | None = None, given: Any = None, inputs: Mapping[str, Any] | None = None, **inputs_and_params: Any,
    ) -> Plan:  # fmt: skip
        """The plan of a call on so many tokens: print it to see which tiles are visited. Two layouts: `tokens` counts queries,
        and the keys' layout has one length."""
        _refuse_unserved(given=given)
        checked = self.spec.checked
        keys = tokens if checked.keys is None else checked.keys.fixed
        batch = len(lengths) if lengths is not None else _batch_of(checked, {**(inputs or {}), **inputs_and_params})
        call = self._bind_sizes(Sizes(tokens, keys, heads, self.options.layers, batch), layer, lengths, inputs, inputs_and_params, "cpu")
        return self._plan(call, "cpu")

    # ------------------------------------------------------------------------------------------ arguments

    def _bind(self, q: Tensor, k: Tensor, layer: int | None, lengths: Any, inputs: Mapping[str, Any] | None, named: Mapping[str, Any]) -> _Call:
        checked, options = self.spec.checked, self.options
        batch, heads, nq, _ = q.shape
        swapped = _fits(checked, heads) and not _fits(checked, nq)
        hint = f"; if q is (batch, tokens, heads, head_dim), give q.transpose(1, 2), and k and v so: {tuple(q.shape)} came"
        if options.heads is not None and heads != options.heads:
            raise InputError(f"this attention was compiled for {options.heads} heads; q has {heads}{hint}")
        if checked.keys is None and k.shape[2] != nq:
            raise InputError(
                f"q has {nq} rows and k has {k.shape[2]}, and the spec has one layout for both: which rows does q hold? queries=range({max(0, k.shape[2] - nq)}, {k.shape[2]}) will say so; it is not served yet"
            )
        try:
            steps_of(checked.queries, nq, checked.roles, "rows of q")
            if checked.keys is not None:
                steps_of(checked.keys, k.shape[2], checked.roles, "rows of k")
        except InputError as error:
            raise InputError(str(error) + (hint if swapped else "")) from None
        return self._bind_sizes(Sizes(nq, k.shape[2], heads, options.layers, batch), layer, lengths, inputs, named, q.device)

    def _bind_sizes(self, sizes: Sizes, layer: int | None, lengths: Any, inputs: Mapping[str, Any] | None, named: Mapping[str, Any], device: Any) -> _Call:
        checked, layers = self.spec.checked, self.options.layers
        steps_of(checked.queries, sizes.queries, checked.roles)
        if mentions_layer(checked):
            if layers is None:
                raise InputError("this spec speaks of layers: srt_masks.compile(spec, layers=...) says how many there are")
            if layer is None or isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < layers:
                raise InputError(f"this spec speaks of layers: give layer=, from 0 to {layers - 1}; got {layer!r}")
        given, params = split_arguments(checked, inputs, named)
        bound = bind_params(checked, params)
        rows = bind_lengths(lengths, sizes.queries, sizes.batch)
        if rows is not None and checked.keys is not None:
            raise InputError("lengths= counts the tokens of one layout; with two, give an input per query or per key")
        for n in rows or ():
            steps_of(checked.queries, n, checked.roles, "of a row's tokens (lengths)")
        tensors = bind_inputs(checked, given, sizes, device)
        scalars = {**bound, "heads": sizes.heads, "layer": layer or 0, "layers": layers or 1}
        return _Call(sizes, rows, tensors, scalars, tuple(given[i.name] for i in checked.inputs))

    # ------------------------------------------------------------------------------------------ plans

    def _plan(self, call: _Call, device: str) -> Plan:
        """The plan of a call, kept while the caller's own input tensors live unchanged."""
        sizes = call.sizes
        geometry = Geometry(sizes.batch, sizes.heads, sizes.queries, sizes.keys, self.options.tile or TILE, call.lengths)
        used = tuple(sorted(call.scalars.items()))
        key = (geometry, used if mentions_layer(self.spec.checked) else tuple(x for x in used if x[0] != "layer"))
        marks = tuple(_mark(x) for x in call.given)
        found = self._plans.get(key)
        if found is not None and None not in marks and all(_unchanged(a, b) for a, b in zip(found[0], marks, strict=True)):
            self._plans.move_to_end(key)
            return found[1]
        plan = make_plan(self.compiled, geometry, call.inputs, call.scalars)
        if None not in marks:
            self._plans[key] = (marks, plan)
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
        return plan

    # ------------------------------------------------------------------------------------------ the reference as a backend

    def _reference(self, q: Tensor, k: Tensor, v: Tensor, call: _Call, layer: int | None, scale: float) -> tuple[Tensor, Tensor]:
        checked, sizes = self.spec.checked, call.sizes
        params = {p.name: call.scalars[p.name] for p in checked.params}
        dense = reference_masks.dense(
            checked, queries=sizes.queries, keys=sizes.keys, heads=sizes.heads, layers=sizes.layers or 1, lengths=call.lengths,
            inputs={n: t.cpu() for n, t in call.inputs.items()}, params=params,
        )  # fmt: skip
        pick = [m.select(-4, layer or 0).to(q.device) for m in (dense.attend, dense.gate_q, dense.gate_k, dense.gate_v)]
        out, lse = reference_attention.attention(q.double(), k.double(), v.double(), *pick, scale=scale)
        return out.to(q.dtype), lse if q.dtype is torch.float64 else lse.float()


def compile_spec(
    spec: Spec, *, heads: int | None = None, layers: int | None = None, params: Mapping[str, int | float] | None = None,
    backend: str = "auto", tile: int | None = None, precision: str = "ieee",
) -> Attention:  # fmt: skip
    """A spec as a callable; see `Attention`. Raises InputError for an option that is wrong, BackendError for a backend that is
    not there."""
    if not isinstance(spec, Spec):
        raise InputError(f"compile takes a Spec; got {type(spec).__name__}. For a text: srt_masks.compile(srt_masks.parse(text))")
    if backend not in BACKENDS:
        raise InputError(f"backend is one of {', '.join(BACKENDS)}; got {backend!r}")
    if backend == "triton":
        raise BackendError('backend="triton" is not served yet; backend="tiled" runs the same spec on any device')
    if precision != "ieee":
        raise BackendError(f'precision={precision!r} is not served yet; precision="ieee" is')
    if tile is not None and tile not in (16, 32, 64, 128, 256, 512):
        raise InputError(f"tile is one of 16, 32, 64, 128, 256, 512 tokens; got {tile!r}")
    for name, value in (("heads", heads), ("layers", layers)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{name} is a whole number, 1 or more; got {value!r}")
    return Attention(spec.with_params(**params) if params else spec, Options(heads, layers, backend, tile, precision))


# ------------------------------------------------------------------------------------------------ helpers


def _refuse_unserved(**arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise InputError(f"{name}= is part of the surface and not served yet; it is refused, never ignored")


def _autocast(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if isinstance(q, Tensor) and torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = (x.to(dtype) if isinstance(x, Tensor) and x.dtype is torch.float32 else x for x in (q, k, v))
    return q, k, v


def _check_tensors(q: Tensor, k: Tensor, v: Tensor) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, Tensor):
            raise InputError(f"{name} is a tensor; got {type(x).__name__}")
        if x.ndim != 4:
            raise InputError(f"{name} is (batch, heads, tokens, head_dim); got shape {tuple(x.shape)}")
        if x.dtype not in DTYPES:
            raise InputError(f"{name} is float16, bfloat16, float32 or float64; got {str(x.dtype).removeprefix('torch.')}")
        if x.dtype is not q.dtype:
            raise InputError(f"q, k and v have one dtype; q is {str(q.dtype).removeprefix('torch.')}, {name} {str(x.dtype).removeprefix('torch.')}")
        if x.device != q.device:
            raise InputError(f"q, k and v lie on one device; q on {q.device}, {name} on {x.device}")
        if x.shape[0] != q.shape[0]:
            raise InputError(f"q, k and v have one batch; q has {q.shape[0]}, {name} {x.shape[0]}")
    if k.shape[:3] != v.shape[:3]:
        raise InputError(f"k and v have the same batch, heads and tokens; k is {tuple(k.shape)}, v {tuple(v.shape)}")
    if q.shape[-1] != k.shape[-1]:
        raise InputError(f"q and k have one head_dim; q has {q.shape[-1]}, k {k.shape[-1]}")
    if q.shape[-1] == 0:
        raise InputError("head_dim is at least 1; q has 0")
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise InputError(f"the heads of q are a multiple of those of k; q has {q.shape[1]}, k {k.shape[1]}")


def _fits(checked: Checked, tokens: int) -> bool:
    try:
        steps_of(checked.queries, tokens, checked.roles)
    except InputError:
        return False
    return True


def _batch_of(checked: Checked, given: Mapping[str, Any]) -> int:
    """The batch that inputs with a batch axis speak of; 1 if none does."""
    sizes = [1]
    for declared in checked.inputs:
        value = given.get(declared.name)
        if isinstance(value, Tensor) and value.ndim == len(declared.axes) + len(declared.sizes) + 1:
            sizes.append(value.shape[0])
    return max(sizes)


def _mark(value: Any) -> Any:
    """What to know a caller's input by: the tensor itself (weakly) and its version; a number by its value. None: not at all."""
    if isinstance(value, Tensor):
        return None if value.is_inference() else (weakref.ref(value), value._version)
    return ("number", value) if isinstance(value, bool | int | float) else None


def _unchanged(old: Any, new: Any) -> bool:
    if isinstance(old[0], str) or isinstance(new[0], str):
        return old == new and type(old[1]) is type(new[1])
    return old[0]() is not None and old[0]() is new[0]() and old[1] == new[1]
