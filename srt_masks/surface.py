"""The public functions on specs that are more than one floor's business: arguments made regular, then handed down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .binding import Call, Sizes, batch_of, bind_call, resolve_heads, resolve_layers, resolve_tokens
from .diagnostics import InputError
from .kernels.attention import compile_spec as compile
from .reference import masks
from .reference.masks import DenseMasks, TokenTable
from .spec import Spec

__all__ = ["compile", "dense", "tokens"]


def dense(
    spec: Spec, *, steps: int | None = None, heads: int | None = None, layers: int | None = None,
    lengths: Sequence[int] | Tensor | None = None, inputs: Mapping[str, Any] | None = None, given: Any = None,
) -> DenseMasks:  # fmt: skip
    """Every mask, gate, position and label of a spec as full tensors, from the reference.

    `steps` counts time steps where the layout repeats. `inputs` maps names to tensors (and value params to numbers).
    `attend` is bool and the gates float64, each ([batch,] layers, heads, queries, keys). Raises InputError.
    """
    call = _bound(spec, steps, heads, layers, lengths, inputs, given)
    sizes = call.sizes
    return masks.dense(
        spec.checked,
        queries=sizes.queries,
        keys=sizes.keys,
        heads=sizes.heads,
        layers=sizes.layers or 1,
        lengths=call.lengths,
        inputs=call.inputs,
        params=call.params,
    )


def tokens(
    spec: Spec, *, steps: int | None = None, heads: int | None = None, layers: int | None = None,
    lengths: Sequence[int] | Tensor | None = None, inputs: Mapping[str, Any] | None = None, given: Any = None,
) -> TokenTable:  # fmt: skip
    """Which rows are what: pos, section, step, slot, role, index, position, asks, target and weight of every token.

    With `lengths`, of the one row they describe. Prints as a table. Raises InputError.
    """
    call = _bound(spec, steps, heads, layers, lengths, inputs, given)
    if call.sizes.batch != 1:
        raise InputError(f"tokens describes one row; lengths or an input speak of {call.sizes.batch}")
    queries = call.lengths[0] if call.lengths else call.sizes.queries
    return masks.tokens(spec.checked, queries=queries, heads=call.sizes.heads, layers=call.sizes.layers or 1, inputs=call.inputs, params=call.params)


def _bound(spec: Spec, steps: int | None, heads: int | None, layers: int | None, lengths: Any, inputs: Mapping[str, Any] | None, given: Any) -> Call:
    if not isinstance(spec, Spec):
        raise InputError(f"this takes a Spec; got {type(spec).__name__}. For a text: srt_masks.parse(text)")
    if given is not None:
        raise InputError("given= is part of the surface and not served yet; it is refused, never ignored")
    checked = spec.checked
    queries = resolve_tokens(checked, checked.queries, steps)
    keys = queries if checked.keys is None else resolve_tokens(checked, checked.keys, steps)
    batch = batch_of(checked, lengths, inputs, {})
    return bind_call(checked, Sizes(queries, keys, resolve_heads(checked, heads), resolve_layers(checked, layers), batch), lengths, inputs, {})
