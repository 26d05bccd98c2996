"""How many time steps show what a text says of distances, where nobody says how many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..grammar.checked import Checked, Literal, Type, walk

LEAST = 8
BEYOND = 4  # steps past the farthest number, so that what lies behind it shows
MOST_TOKENS = 512  # of a layout whose steps are chosen here


def choose_steps(checked: Checked, params: Mapping[str, Any]) -> tuple[int | None, str]:
    """Steps, and why so many, in words; None for a layout of one length.

    As many as show the numbers that the text compares with, params and others, as far as MOST_TOKENS tokens reach.
    """
    axes = [axis for axis in (checked.queries, checked.keys) if axis is not None and axis.rows_per_step]
    if not axes:
        return None, ""
    room = max(LEAST, min((MOST_TOKENS - axis.fixed) // axis.rows_per_step for axis in axes))
    numbers = _numbers(checked, params)
    fit = {name: n for name, n in numbers.items() if n + BEYOND <= room}
    far = {name: n for name, n in numbers.items() if n + BEYOND > room}
    name, farthest = max(fit.items(), key=lambda x: x[1], default=("", 0))
    steps = max(LEAST, farthest + BEYOND)
    why = f"enough steps for {name} to show" if steps > LEAST else "steps by default"
    return steps, why + (f"; too few for {min(far, key=lambda name: far[name])}" if far else "")


def _numbers(checked: Checked, params: Mapping[str, Any]) -> dict[str, int]:
    """The whole numbers above 1 that may be distances, by what the text calls them."""
    named = {f"{p.name} = {params[p.name]}": params[p.name] for p in checked.params if p.type is Type.INT and not p.structural}
    roots = [checked.attend, *(let.body for let in checked.lets), *(rule.where for rule in checked.rules)]
    written = {f"the text's {e.value}": e.value for root in roots for e in walk(root) if isinstance(e, Literal) and e.type is Type.INT}
    numbers = {**named, **written}
    return {name: n for name, n in numbers.items() if isinstance(n, int) and not isinstance(n, bool) and n > 1}
