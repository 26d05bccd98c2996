"""The public functions on specs that are more than one floor's business: arguments made regular, then handed down."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from .binding import Call, Sizes, batch_of, bind_call, resolve_heads, resolve_layers
from .default_device import on_the_cpu
from .diagnostics import InputError
from .grammar.checked import Checked
from .kernels.attention import PLAN_MEMORY, Attention, compile_spec
from .kernels.facts import hold_facts_by_reference, lay_out_call
from .proofs.guard import hold
from .reference import masks
from .reference.masks import DenseMasks, Row, TokenTable
from .spec import Spec
from .time_steps import Steps, tokens_of

__all__ = ["compile", "dense", "tokens"]


@on_the_cpu
def compile(
    spec: Spec, *, heads: int | None = None, layers: int | None = None, params: Mapping[str, int | float] | None = None, backend: str = "auto",
    tile: int | None = None, precision: str = "ieee", plan_memory: int = PLAN_MEMORY, order: str = "auto", proofs: str = "warn",
) -> Attention:  # fmt: skip
    """A spec as a callable, attend(q, k, v), for any length and device; see `Attention`.

    `heads` and `layers` are read off the call unless given (a text that mentions `layer` needs `layers`); `params` replaces values of the text;
    `backend` is "auto", "reference", "tiled" or "triton". `plan_memory` is how many bytes one plan, and all that are kept, may take: a call that would
    need more is refused before it takes any. `order` is that in which tokens are visited, results always being in the caller's: "auto" takes another
    than "natural" where it saves work, and any that `attend.plan(...)` lists may be asked for by its name.
    What the text claims (`assert`) is proved first, once: a claim that is refuted is refused, and one that is not proved is said in a warning; with
    `proofs="strict"` it is refused too, with "off" nothing is proved.
    Raises SpecError for a claim, InputError for an option that is wrong, BackendError for a backend that is not there."""
    made = compile_spec(
        spec, heads=heads, layers=layers, params=params, backend=backend, tile=tile, precision=precision, plan_memory=plan_memory, order=order
    )  # fmt: skip
    hold(made.spec, proofs)
    return made


@on_the_cpu
def dense(
    spec: Spec, *, steps: Steps | None = None, heads: int | None = None, layers: int | None = None,
    lengths: Sequence[int] | Tensor | None = None, inputs: Mapping[str, Any] | None = None, given: Any = None,
) -> DenseMasks:  # fmt: skip
    """Every mask, gate, position and label of a spec as full tensors, from the reference.

    `steps` counts time steps where the layout repeats, of queries and of keys as a pair where two layouts differ in it; `given` maps role, step and slot
    to one entry a token where the layout is given.
    `inputs` maps names to tensors (and value params to numbers, or to one for each row of the batch).
    `attend` is bool and the gates float64, each ([batch,] layers, heads, queries, keys). Raises InputError.
    """
    call = _bound(spec, steps, heads, layers, lengths, inputs, given)
    sizes = call.sizes
    return masks.dense(
        spec.checked, call.rows(), tokens=sizes.tokens, keys=sizes.keys, heads=sizes.heads, layers=sizes.layers or 1,
        lengths=call.lengths, has_batch=call.has_batch,
    )  # fmt: skip


@on_the_cpu
def tokens(
    spec: Spec, *, steps: Steps | None = None, heads: int | None = None, layers: int | None = None,
    lengths: Sequence[int] | Tensor | None = None, inputs: Mapping[str, Any] | None = None, given: Any = None,
) -> TokenTable:  # fmt: skip
    """Which rows are what: pos, section, step, slot, role, index, position, asks, target and weight of every token.

    With `lengths`, of the one row they describe. Prints as a table. Raises InputError.
    """
    # The table rests on layout, positions and labels: what `attend` alone reads need not be there.
    needed = spec.checked.reads(*spec.checked.token_roots) if isinstance(spec, Spec) else None
    return masks.token_table(lay_out_one(spec, steps=steps, heads=heads, layers=layers, lengths=lengths, inputs=inputs, given=given, needed=needed))


@on_the_cpu
def lay_out_one(
    spec: Spec, *, steps: Steps | None = None, heads: int | None = None, layers: int | None = None,
    lengths: Sequence[int] | Tensor | None = None, inputs: Mapping[str, Any] | None = None, given: Any = None, needed: Collection[str] | None = None,
) -> Row:  # fmt: skip
    """The one row of the batch that the arguments describe, for the reference. Raises InputError if they describe several, or an input that is
    needed (all, unless given) is missing."""
    call = _bound(spec, steps, heads, layers, lengths, inputs, given, needed)
    if call.sizes.batch != 1:
        raise InputError(f"one row of the batch is wanted; lengths, an input, a param or the given layout speak of {call.sizes.batch}")
    return lay_out_call(spec.checked, call, 0)


@on_the_cpu
def lay_out_rows(
    spec: Spec, *, steps: Steps | None = None, heads: int | None = None, layers: int | None = None,
    lengths: Sequence[int] | Tensor | None = None, inputs: Mapping[str, Any] | None = None, given: Any = None,
) -> tuple[list[Row], Sizes, int]:  # fmt: skip
    """Every row of the batch that the arguments describe, for the reference, the extents of the call, and how many rows q has. Raises InputError."""
    call = _bound(spec, steps, heads, layers, lengths, inputs, given)
    rows = _rows(spec.checked, call)
    if spec.checked.asks is None:
        return rows, call.sizes, call.sizes.tokens
    # q has a row for every token that asks in a row of full length; of what is padding the facts of the text say nothing.
    full = _rows(spec.checked, replace(call, lengths=None)) if call.lengths is not None else rows
    return rows, call.sizes, max((len(row.queries["pos"]) for row in (*rows, *full)), default=0)


def _rows(checked: Checked, call: Call) -> list[Row]:
    return [lay_out_call(checked, call, number) for number in range(call.sizes.batch)]


def _bound(
    spec: Spec, steps: Steps | None, heads: int | None, layers: int | None, lengths: Any, inputs: Mapping[str, Any] | None, given: Any,
    needed: Collection[str] | None = None,
) -> Call:  # fmt: skip
    if not isinstance(spec, Spec):
        raise InputError(f"this takes a Spec; got {type(spec).__name__}. For a text: srt_masks.parse(text)")
    checked = spec.checked
    tokens, keys = tokens_of(checked, steps, given)
    batch = batch_of(checked, lengths, inputs, {}, given)
    sizes = Sizes(tokens, keys, resolve_heads(checked, heads), resolve_layers(checked, layers), batch)
    call = bind_call(checked, sizes, lengths, inputs, {}, given, needed=needed, by_name=False)
    hold_facts_by_reference(checked, call)
    return call
