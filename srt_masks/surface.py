"""The public functions on specs that are more than one floor's business: arguments made regular, then handed down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .binding import (
    Sizes,
    bind_inputs,
    bind_lengths,
    bind_params,
    resolve_heads,
    resolve_layers,
    resolve_tokens,
    split_arguments,
)
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
    sizes, rows, bound, params = _bound(spec, steps, heads, layers, lengths, inputs, given)
    return masks.dense(
        spec.checked, queries=sizes.queries, keys=sizes.keys, heads=sizes.heads, layers=sizes.layers or 1, lengths=rows, inputs=bound, params=params
    )


def tokens(
    spec: Spec, *, steps: int | None = None, heads: int | None = None, layers: int | None = None,
    lengths: Sequence[int] | Tensor | None = None, inputs: Mapping[str, Any] | None = None, given: Any = None,
) -> TokenTable:  # fmt: skip
    """Which rows are what: pos, section, step, slot, role, index, position, asks, target and weight of every token.

    With `lengths`, of the one row they describe. Prints as a table. Raises InputError.
    """
    if lengths is not None and len(lengths) != 1:
        raise InputError(f"tokens describes one row; lengths has {len(lengths)}")
    sizes, rows, bound, params = _bound(spec, steps, heads, layers, lengths, inputs, given)
    queries = rows[0] if rows else sizes.queries
    return masks.tokens(spec.checked, queries=queries, heads=sizes.heads, layers=sizes.layers or 1, inputs=bound, params=params)


def _bound(
    spec: Spec, steps: int | None, heads: int | None, layers: int | None, lengths: Any, inputs: Mapping[str, Any] | None, given: Any
) -> tuple[Sizes, tuple[int, ...] | None, dict[str, Tensor], dict[str, int | float]]:
    if not isinstance(spec, Spec):
        raise InputError(f"this takes a Spec; got {type(spec).__name__}. For a text: srt_masks.parse(text)")
    if given is not None:
        raise InputError("given= is part of the surface and not served yet; it is refused, never ignored")
    checked = spec.checked
    queries = resolve_tokens(checked, checked.queries, steps)
    keys = queries if checked.keys is None else resolve_tokens(checked, checked.keys, steps)
    rows = bind_lengths(lengths, queries, None)
    if rows is not None and checked.keys is not None:
        raise InputError("lengths= counts the tokens of one layout; this spec has two")
    tensors, params = split_arguments(checked, inputs, {})
    batch = len(rows) if rows is not None else 1
    for declared in checked.inputs:
        value = tensors.get(declared.name)
        if isinstance(value, Tensor) and value.ndim == len(declared.axes) + len(declared.sizes) + 1:
            batch = max(batch, value.shape[0])
    sizes = Sizes(queries, keys, resolve_heads(checked, heads), resolve_layers(checked, layers), batch)
    return sizes, rows, bind_inputs(checked, tensors, sizes), bind_params(checked, params)
