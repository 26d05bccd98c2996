"""Hypothesis strategies over a spec of yours: sizes, params, inputs, whole cases. They shrink towards few tokens, zeros and one head.

For random specs see `strategies.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Any

import numpy as np
import torch
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ..binding import batch_of
from ..diagnostics import InputError, SpecError
from ..grammar import checked as c
from ..grammar.checked import Type
from ..spec import Spec
from ..time_steps import Steps, each_axis, joined
from .case import Case
from .keeping import keeping_inputs, keeping_params

MOST_TOKENS = 40  # of a layout that repeats
MANY_TOKENS = 120, 300  # several tiles, whatever their size
MOST_FIXED = 2048  # of one that has one length
MOST_NUMBERS = 2048  # of an input that is drawn one by one
FLOATS = [0.0, 1.0, 0.5, -1.5, 0.25, 2.0]


class Reach(Enum):
    """Which sizes of a layout that repeats."""

    USUAL = "small"
    MANY = "of several tiles"
    BEYOND = "beyond the numbers of the text"


@st.composite
def params(draw: st.DrawFn, spec: Spec) -> Spec:
    """The spec with other values of its params: small ones, so that small layouts meet them, those of the text first among the small; all those
    of the text where others are refused."""
    values = keeping_params(spec, {param.name: draw(_values(param)) for param in spec.checked.params})
    try:
        return spec.with_params(**values)
    except SpecError:
        return spec


def _values(param: c.Param) -> st.SearchStrategy[int | float]:
    if param.type is Type.FLOAT:
        return st.sampled_from([param.value, 0.0, 0.25, 1.0])
    small = range(1, 5) if param.structural else range(7)
    first = [int(param.value)] if param.value in small else []
    last = [int(param.value)] if not first and not param.structural else []
    return st.sampled_from([*first, *(n for n in small if n != param.value), *last])


@st.composite
def call_params(draw: st.DrawFn, spec: Spec) -> dict[str, list[int | float]]:
    """Values of some of the params that may be given at the call: one, or one for each of two rows of the batch."""
    found = {}
    for param in spec.checked.params:
        if not param.structural and (count := draw(st.integers(0, 2))):
            found[param.name] = [draw(_values(param)) for _ in range(count)]
    # Each row of the batch keeps to what is stated of its own values; for that, one that was the same for both may have to differ.
    first, second = (keeping_params(spec, {name: values[row % len(values)] for name, values in found.items()}) for row in range(2))
    return {name: [first[name], second[name]] if len(values) > 1 or first[name] != second[name] else [first[name]] for name, values in found.items()}


def _by_row(values: list[int | float], batch: int) -> int | float | torch.Tensor:
    """The first, or as many as the batch has rows, as a vector."""
    if len(values) == 1 or batch == 1:
        return values[0]
    return torch.tensor([values[row % len(values)] for row in range(batch)], dtype=torch.float64 if isinstance(values[0], float) else torch.int64)


def no_size(spec: Spec) -> str:
    """Why a spec has no size that laws can be tried at, or nothing."""
    fixed = max(axis.fixed for axis in _axes(spec))
    return "" if fixed <= MOST_FIXED else f"this layout has {fixed:,} tokens at its smallest; laws are tried up to {MOST_FIXED:,}: give smaller params"


def _axes(spec: Spec) -> list[c.Layout]:
    return [spec.checked.queries, *([spec.checked.keys] if spec.checked.keys is not None else [])]


@st.composite
def sizes(
    draw: st.DrawFn, spec: Spec, *, steps: tuple[Steps, ...] | None = None, heads: int | None = None, batch: int | None = None,
    most_tokens: int = MOST_TOKENS, reach: Reach = Reach.USUAL,
) -> Case:  # fmt: skip
    """A size of a spec: a `Case` without inputs. Raises InputError if the spec has no small size. `steps` are the numbers of steps to choose from."""
    if why := no_size(spec):
        raise InputError(why)
    checked, axes = spec.checked, _axes(spec)
    chosen: Steps | None = None
    if checked.repeats:
        # With other params a text may have no such sizes any more.
        own = st.one_of(steps_of(spec, reach, most_tokens) or steps_of(spec, Reach.USUAL, most_tokens))
        if steps is not None:
            chosen = draw(st.sampled_from(steps))
        else:
            queries, differ = draw(own), len(axes) > 1 and all(axis.rows_per_step for axis in axes) and draw(st.booleans())
            chosen = joined(queries, draw(own)) if differ else queries
    wide = chosen is not None and max(axis.tokens(n or 0) for axis, n in zip(axes, each_axis(chosen), strict=False)) > 2 * MOST_TOKENS
    key_heads = draw(st.integers(1, 1 if wide else 2))
    query_heads = key_heads * draw(st.integers(1, 2 if wide else 3))
    # A claim may speak of layers where no rule does.
    claimed = any(isinstance(n, c.Global) and n.name in ("layer", "layers") for claim in checked.claims if claim.where for n in c.walk(claim.where))
    layers = draw(st.integers(1, 3)) if checked.speaks_of_layers or claimed else None
    layout = draw(given_layouts(spec)) if checked.queries.given is not None else None
    rows = draw(st.integers(1, 1 if wide else 2)) if batch is None else batch
    if heads is None:
        heads = query_heads if checked.speaks_of_heads or draw(st.booleans()) else key_heads
    else:
        key_heads = heads
    found = Case(spec, chosen, heads, key_heads, layers, rows, given=layout)
    return replace(found, tile=draw(st.sampled_from([16, 128])), seed=draw(st.integers(0, 2**16)))


def steps_of(spec: Spec, reach: Reach, most_tokens: int = MOST_TOKENS) -> list[st.SearchStrategy[int]]:
    """Numbers of time steps; nothing where the reach has none of its own."""
    axes = [a for a in _axes(spec) if a.rows_per_step]

    def within(tokens: int) -> int:
        return max(2, *((tokens - a.fixed) // a.rows_per_step for a in axes))

    match reach:
        case _ if not axes:
            return []
        case Reach.USUAL:
            return [st.integers(0, within(most_tokens))]
        case Reach.MANY:
            low, high = (within(n) for n in MANY_TOKENS)
            return [st.integers(low, high)] if low > within(MOST_TOKENS) else []
        case Reach.BEYOND:
            return [st.integers(low, low + 3) for low in sorted(_beyond(spec, axes)) if low + 3 > within(most_tokens)]


def _beyond(spec: Spec, axes: list[c.Layout]) -> set[int]:
    """Numbers of steps just beyond the largest number of the text that is not too large: as steps, and as tokens."""
    checked = spec.checked
    roots = [checked.attend, *(x.body for x in checked.lets), *(e for r in checked.rules for e in (r.where, r.factor) if e), *checked.token_roots]
    nodes = [n for root in (*roots, *(x.where for x in checked.claims if x.where)) for n in c.walk(root)]
    numbers = {n.value for n in nodes if isinstance(n, c.Literal) and n.type is Type.INT} | {p.value for p in checked.params if p.type is Type.INT}
    found = set()
    for axis in axes:
        for rows in (1, axis.rows_per_step):
            # So many rows show `number + 1` and three more of what is counted.
            wanted = [axis.fixed + (int(abs(n)) + 4) * rows for n in numbers]
            reach = max((n for n in wanted if n <= MANY_TOKENS[1]), default=0)
            found.add(max(0, -((axis.fixed - reach) // axis.rows_per_step) - 3))
    return found


@st.composite
def ragged(draw: st.DrawFn, case: Case) -> tuple[int, ...] | None:
    """Half the time, tokens of each row of the batch that the layout can have; not with two layouts, or one of one length."""
    layout = case.spec.checked.queries
    tokens = case.extents.tokens
    if case.spec.checked.keys is not None or not (layout.rows_per_step or layout.given is not None) or not draw(st.booleans()):
        return None
    if layout.given is not None:
        return tuple(draw(st.integers(0, tokens)) for _ in range(case.batch))
    return tuple(layout.tokens(draw(st.integers(0, each_axis(case.steps)[0] or 0))) for _ in range(case.batch))


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

    Whole numbers are small, negative ones and ones beyond every table among them, and half the time in runs, as documents are. They are what the
    text says of them (`given`); a size for which no such values were found is not drawn.
    """
    checked = spec.checked
    if size is None:
        size = Case(spec, 4 if checked.repeats else None, 2, None, 2 if checked.speaks_of_layers else None)
    extents = size.extents
    named: dict[str, int] = {}
    found = {}
    for declared in checked.inputs:
        for name in declared.sizes:
            if isinstance(name, str) and name not in named:
                named[name] = draw(st.integers(0, 5))
        shape = [size.extent(axis) for axis in declared.axes] + [named[n] if isinstance(n, str) else n for n in declared.sizes]
        if size.batch > 1 and draw(st.booleans()):
            shape.insert(0, size.batch)
        found[declared.name] = draw(tensors(declared, tuple(shape), max(extents.tokens, extents.keys)))
    if not checked.facts_of_inputs:
        return found
    kept = keeping_inputs(replace(size, inputs=found))
    assume(kept is not None)
    assert kept is not None
    return kept


def tensors(declared: c.Input, shape: tuple[int, ...], tokens: int) -> st.SearchStrategy[torch.Tensor]:
    """Small ones element by element, so that they shrink; of large ones only the seed is drawn."""
    most = max(4, tokens + 1)
    if math.prod(shape) > MOST_NUMBERS:
        return st.integers(0, 2**16).map(lambda seed: _seeded(declared.type, shape, most, seed))
    match declared.type:
        case Type.BOOL:
            return arrays.arrays(np.bool_, shape, fill=st.booleans()).map(_tensor)
        case Type.FLOAT:
            values = st.sampled_from(FLOATS)
            return arrays.arrays(np.float64, shape, elements=values, fill=values).map(_tensor)
        case _:
            values = st.integers(-2, most)
            loose = arrays.arrays(np.int64, shape, elements=values, fill=values)
            runs = arrays.arrays(np.bool_, shape, fill=st.just(False)).map(_runs)
            return (runs | loose).map(_tensor)


def _seeded(type: Type, shape: tuple[int, ...], most: int, seed: int) -> torch.Tensor:
    random = np.random.default_rng(seed)
    match type:
        case Type.BOOL:
            return _tensor(random.random(shape) < random.random())
        case Type.FLOAT:
            return _tensor(random.choice(FLOATS, shape))
        case _:
            return _tensor(_runs(random.random(shape) < 0.1) if seed % 2 else random.integers(-2, most, shape, endpoint=True))


def _runs(starts: np.ndarray) -> np.ndarray:
    """Whole numbers that rise by 1 at each start, as those of documents do."""
    return starts.cumsum(-1).astype(np.int64) if starts.ndim else starts.astype(np.int64)


def _tensor(array: Any) -> torch.Tensor:
    # In memory of its own: a plan made from another's is never kept, and what is never kept is never stale.
    return torch.from_numpy(np.ascontiguousarray(array).reshape(np.shape(array))).clone()


@st.composite
def cases_of(
    draw: st.DrawFn, spec: Spec, *, fixed: Mapping[str, Any] | None = None, steps: tuple[Steps, ...] | None = None, heads: int | None = None, batches: bool = True,
    vary_params: bool = True, most_tokens: int = MOST_TOKENS, reach: Reach = Reach.USUAL,
) -> Case:  # fmt: skip
    """A whole case of a spec. `fixed` are inputs that stay as they are, and params with them; `steps` the numbers of time steps to choose from;
    `batches` says whether there may be several rows, and rows of other lengths; `most_tokens` and `reach` are those of `sizes`."""
    vary = vary_params and fixed is None
    chosen = draw(params(spec)) if vary else spec
    at_call = draw(call_params(chosen)) if vary else {}
    told = batch_of(spec.checked, None, fixed, {})
    batch = told if told > 1 else None if batches else 1
    size = draw(sizes(chosen, steps=steps, heads=heads, batch=batch, most_tokens=most_tokens, reach=reach))
    if batches:
        size = replace(size, lengths=draw(ragged(size)))
    if at_call:
        size = replace(size, params={name: _by_row(values, size.batch) for name, values in at_call.items()})
    return replace(size, inputs=dict(fixed) if fixed is not None else draw(inputs(chosen, size)))
