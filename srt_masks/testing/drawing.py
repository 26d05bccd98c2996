"""Hypothesis strategies over a spec of yours: sizes, params, inputs, whole cases. They shrink towards few tokens, zeros and one head.

Needs hypothesis. For random specs see `strategies.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ..binding import Sizes, axis_extent, bind_given, resolve_tokens
from ..diagnostics import InputError, SpecError
from ..grammar import checked as c
from ..grammar.checked import Type
from ..spec import Spec
from .case import Case

MOST_TOKENS = 40  # of a layout that repeats
MOST_FIXED = 2048  # of one that has one length


@st.composite
def params(draw: st.DrawFn, spec: Spec) -> Spec:
    """The spec with other values of its params: small ones, so that small layouts meet them, those of the text first among the small; all those
    of the text where others are refused."""
    values: dict[str, int | float] = {}
    for param in spec.checked.params:
        if param.type is Type.FLOAT:
            values[param.name] = draw(st.sampled_from([param.value, 0.0, 0.25, 1.0]))
        else:
            small = range(1, 5) if param.structural else range(7)
            first = [int(param.value)] if param.value in small else []
            last = [int(param.value)] if not first and not param.structural else []
            values[param.name] = draw(st.sampled_from([*first, *(n for n in small if n != param.value), *last]))
    try:
        return spec.with_params(**values)
    except SpecError:
        return spec


@st.composite
def sizes(draw: st.DrawFn, spec: Spec, *, most_tokens: int = MOST_TOKENS) -> Case:
    """A size of a spec: a `Case` without inputs. Raises InputError if the spec has no small size."""
    checked = spec.checked
    axes = [checked.queries, *([checked.keys] if checked.keys is not None else [])]
    if (fixed := max(axis.fixed for axis in axes)) > MOST_FIXED:
        raise InputError(f"this layout has {fixed:,} tokens at its smallest; laws are tried up to {MOST_FIXED:,}: give smaller params")
    steps = None
    if checked.repeats:
        steps = draw(st.integers(0, max(2, *((most_tokens - a.fixed) // a.rows_per_step for a in axes if a.rows_per_step))))
    key_heads = draw(st.integers(1, 2))
    heads = key_heads * draw(st.integers(1, 3))
    # A claim may speak of layers where no rule does.
    claimed = any(isinstance(n, c.Global) and n.name in ("layer", "layers") for claim in checked.claims if claim.where for n in c.walk(claim.where))
    layers = draw(st.integers(1, 3)) if checked.speaks_of_layers or claimed else None
    layout = draw(given_layouts(spec)) if checked.queries.given is not None else None
    batch = draw(st.integers(1, 2))
    found = Case(spec, steps, heads if checked.speaks_of_heads or draw(st.booleans()) else key_heads, key_heads, layers, batch, given=layout)
    return replace(found, tile=draw(st.sampled_from([16, 128])), seed=draw(st.integers(0, 2**16)))


@st.composite
def given_layouts(draw: st.DrawFn, spec: Spec) -> dict[str, Any]:
    """Role, step and slot of a `layout given`: steps that go on, slots that count."""
    roles = draw(st.lists(st.sampled_from(spec.checked.queries.given or ()), max_size=20))
    moves = [draw(st.booleans()) for _ in roles]
    slots = [draw(st.integers(0, 2)) for _ in roles]
    return {"role": [spec.roles[r] for r in roles], "step": torch.tensor(np.cumsum(moves), dtype=torch.int64), "slot": torch.tensor(slots, dtype=torch.int64)}


@st.composite
def inputs(draw: st.DrawFn, spec: Spec, size: Case | None = None) -> dict[str, torch.Tensor]:
    """A tensor for every input of a spec, at a size (4 time steps, 2 heads and 2 layers unless given).

    Whole numbers are small, negative ones and ones beyond every table among them, and half the time in runs, as documents are.
    """
    checked = spec.checked
    if size is None:
        size = Case(spec, 4 if checked.repeats else None, 2, None, 2 if checked.speaks_of_layers else None)
    tokens = resolve_tokens(checked, checked.queries, size.steps if checked.queries.given is None else None, size.given)
    keys = tokens if checked.keys is None else resolve_tokens(checked, checked.keys, size.steps)
    extents = Sizes(tokens, keys, size.heads, size.layers, size.batch)
    layout = bind_given(checked, size.given, extents)
    named: dict[str, int] = {}
    found = {}
    for declared in checked.inputs:
        for name in declared.sizes:
            if isinstance(name, str) and name not in named:
                named[name] = draw(st.integers(0, 5))
        shape = [axis_extent(checked, axis, extents, layout) for axis in declared.axes] + [named.get(n, n) for n in declared.sizes]  # type: ignore[arg-type]
        if size.batch > 1 and draw(st.booleans()):
            shape.insert(0, size.batch)
        found[declared.name] = draw(tensors(declared, tuple(shape), max(tokens, keys)))  # type: ignore[arg-type]
    return found


def tensors(declared: c.Input, shape: tuple[int, ...], tokens: int) -> st.SearchStrategy[torch.Tensor]:
    match declared.type:
        case Type.BOOL:
            return arrays.arrays(np.bool_, shape, fill=st.booleans()).map(_tensor)
        case Type.FLOAT:
            values = st.sampled_from([0.0, 1.0, 0.5, -1.5, 0.25, 2.0])
            return arrays.arrays(np.float64, shape, elements=values, fill=values).map(_tensor)
        case _:
            values = st.integers(-2, max(4, tokens + 1))
            loose = arrays.arrays(np.int64, shape, elements=values, fill=values)
            runs = arrays.arrays(np.bool_, shape, fill=st.just(False)).map(lambda x: x.cumsum(-1).astype(np.int64) if x.ndim else x.astype(np.int64))
            return (runs | loose).map(_tensor)


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array).reshape(np.shape(array)).copy())


@st.composite
def cases_of(
    draw: st.DrawFn, spec: Spec, *, fixed: Mapping[str, Any] | None = None, steps: tuple[int, ...] | None = None, heads: int | None = None, batches: bool = True,
    vary_params: bool = True, most_tokens: int = MOST_TOKENS,
) -> Case:  # fmt: skip
    """A whole case of a spec. `fixed` are inputs that stay as they are; `steps` the numbers of time steps to choose from."""
    chosen = draw(params(spec)) if vary_params and fixed is None else spec
    size = draw(sizes(chosen, most_tokens=most_tokens))
    if steps is not None and size.steps is not None:
        size = replace(size, steps=draw(st.sampled_from(steps)))
    if heads is not None:
        size = replace(size, heads=heads, key_heads=heads)
    if not batches:
        size = replace(size, batch=1)
    return replace(size, inputs=dict(fixed) if fixed is not None else draw(inputs(chosen, size)))
