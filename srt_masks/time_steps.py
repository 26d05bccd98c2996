"""Time steps, as callers say them -> the tokens of both axes.

Where a text has one layout, or two that are of one length in steps, a number says it all; queries and keys of two lengths are said as a pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .binding import tokens_given
from .diagnostics import InputError
from .grammar.checked import Checked, Layout
from .values import counted, shape_of

Steps = int | tuple[int | None, int | None]  # of both axes, or of queries and of keys; None: that layout has one length


def tokens_of(checked: Checked, steps: Steps | None, given: Any = None) -> tuple[int, int]:
    """Tokens of both axes for `steps=` or `given=`. Raises InputError where they are needed and missing, or given and not wanted."""
    if isinstance(steps, tuple | list):
        own, others = _pair(checked, steps)
    else:
        own = others = steps
    if checked.queries.given is not None:
        if own is not None:
            raise InputError(f"steps={own} given; this layout takes its steps from given=")
        tokens = tokens_given(checked, given)
    else:
        if own is not None and not checked.repeats:
            text = checked.queries.describe(checked.roles)
            raise InputError(f"steps={own} given; the layout `{text}` has one length, {checked.queries.fixed} tokens")
        tokens = _tokens(checked, checked.queries, own)
    return tokens, tokens if checked.keys is None else _tokens(checked, checked.keys, others)


def _pair(checked: Checked, steps: Any) -> tuple[Any, Any]:
    if len(steps) != 2:
        raise InputError(f"steps is a whole number of time steps, or two: of the queries, and of the keys; got {steps!r}")
    if checked.keys is None:
        raise InputError(f"steps={tuple(steps)} are those of queries and those of keys, and this text has one layout for both: give one number")
    for layout, own, axis in zip((checked.queries, checked.keys), steps, ("queries", "keys"), strict=True):
        if own is not None and not layout.rows_per_step:
            text = layout.describe(checked.roles)
            raise InputError(
                f"steps={tuple(steps)} given; the layout of {axis}, `{text}`, has one length, {layout.fixed} tokens: give those of the other alone"
            )
    return steps[0], steps[1]


def _tokens(checked: Checked, layout: Layout, steps: int | None) -> int:
    if not layout.rows_per_step:
        return layout.fixed
    if steps is None:
        pair = ", or steps=(queries, keys) where they differ" if checked.keys is not None else ""
        raise InputError(f"how many time steps? The layout `{layout.describe(checked.roles)}` repeats: give steps={pair}")
    steps = counted("steps", steps, 0, "a whole number of time steps")
    if layout.tokens(steps) >= 2**31:
        raise InputError(f"steps={steps} makes {layout.tokens(steps):,} tokens; at most {2**31 - 1:,}")
    return layout.tokens(steps)


def each_axis(steps: Steps | None) -> tuple[int | None, int | None]:
    """Those of queries, and those of keys."""
    return (steps[0], steps[1]) if isinstance(steps, tuple | list) else (steps, steps)


def joined(queries: int | None, keys: int | None) -> Steps | None:
    """What `each_axis` takes apart. None is for a layout of one length, or steps that nobody knows: they are as many as the others."""
    if queries is None or keys is None or queries == keys:
        return keys if queries is None else queries
    return queries, keys


def steps_in(checked: Checked, inputs: Mapping[str, Any]) -> Steps | None:
    """The time steps that inputs along the layouts speak of, if any does. What is no tensor or fits no number of steps is refused where inputs are bound."""
    own = _along(checked, checked.queries, ("token", "step", "query"), inputs)
    return joined(own, None if checked.keys is None else _along(checked, checked.keys, ("key",), inputs))


def _along(checked: Checked, layout: Layout, axes: tuple[str, ...], inputs: Mapping[str, Any]) -> int | None:
    if not layout.rows_per_step:
        return None
    for declared in checked.inputs:
        along = next((axis for axis in declared.axes if axis in axes), None)
        if along is None or declared.name not in inputs:
            continue
        shape = shape_of(inputs[declared.name])
        before = len(shape) - len(declared.axes) - len(declared.sizes)  # a batch axis
        if before not in (0, 1):
            continue
        extent = shape[before + declared.axes.index(along)]
        steps, rest = (extent, 0) if along == "step" else divmod(extent - layout.fixed, layout.rows_per_step)
        if steps >= 0 and not rest:
            return steps
    return None
