"""A call -> its plan, made once: under what it is known again, whether the plan of a longer call holds it, and how many bytes it may take.

Non-goals: what a plan is (`compiler/plan.py`), and how it is kept (`cache.py`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..binding import Call
from ..compiler.batch import BatchRow, count_asking
from ..compiler.choice import Ordering
from ..compiler.compiled import Compiled
from ..compiler.facts import Facts
from ..compiler.make_plan import make_plan
from ..compiler.memory import check_memory, footprint
from ..compiler.numbers import come_to
from ..compiler.plan import Geometry, Plan
from ..compiler.slices import Capacity, capacity, reads_tokens
from .cache import PlanCache
from .facts import hold_facts


@dataclass(frozen=True)
class Asked:
    """What a plan is asked for."""

    compiled: Compiled
    call: Call
    geometry: Geometry
    scalars: Mapping[str, int | float]  # `heads`, `layer` and `layers`
    ordering: Ordering | None  # None: the text has one order
    like: Plan | None = None  # a plan of the same call, whose orders this one is to have
    facts: Facts | None = None  # what the text states of its inputs, to be held to the call; None: it was

    @cached_property
    def mask(self) -> Hashable:
        """What the call makes of the text, its tensors and extents apart. NaN is refused and -0.0 is 0.0 in every gate, so equal numbers are the
        same call; so are those that come to the same."""
        call = self.call
        numbers = {**self.scalars, **{name: value for name, value in call.params.items() if name not in call.row_params}}
        stated = () if not self.facts else tuple(numbers[name] for name in self.facts.numbers if name in numbers)
        return self.compiled, come_to(self.compiled, numbers, call.inputs), tuple(call.row_params.items()), stated


def find_plan(plans: PlanCache, asked: Asked) -> Plan:
    """The plan of a call: cut out of a longer one, known, or made. Raises InputError where it would take more bytes than the cache may hold."""
    longer = _find_longer(plans, asked)
    if longer is not None:
        if asked.facts:  # they may speak of this call alone: of its length, or of inputs that the mask does not read
            plans.find(("facts", asked.mask, asked.call.sizes, asked.call.lengths), asked.call.given, lambda: (_hold(asked), 0))
        return longer.rows(asked.geometry)
    orders = None if asked.like is None else asked.like.orders
    return plans.find((asked.mask, asked.geometry, asked.ordering, orders), asked.call.given, lambda: _make(asked, plans.most_bytes))


def rows_asking(plans: PlanCache, asked: Asked) -> int:
    """How many rows q has, where the tokens that ask decide; the geometry's `queries` are as many as there may be. Raises InputError where even
    to count them would take too many bytes."""
    rows = batch_rows(asked.call)
    check_memory(asked.compiled, asked.geometry, rows, plans.most_bytes)
    return count_asking(asked.compiled.program, replace(asked.geometry, queries=0), rows, asked.scalars)


def batch_rows(call: Call) -> list[BatchRow]:
    def one(values: tuple[Any, ...] | None, row: int) -> Any:
        return None if values is None else values[row]

    return [BatchRow(one(call.lengths, b), *row, one(call.asking, b)) for b, row in enumerate(call.rows())]


def _find_longer(plans: PlanCache, asked: Asked) -> Capacity | None:
    """A plan that this call's rows can be cut out of; None where it is planned alone."""
    wider = capacity(asked.compiled, asked.geometry)
    # Inputs of every token are those of one call; only where they come again is it worth while to plan for more than was asked.
    if wider is None or (reads_tokens(asked.compiled) and not plans.met((asked.mask, wider), asked.call.given)):
        return None
    call = replace(asked.call, lengths=None, asking=wider.asking)
    return plans.find(
        (asked.mask, wider),
        asked.call.given,
        lambda: _make_longer(replace(asked, call=call, geometry=wider, ordering=None, like=None, facts=None), plans.most_bytes),
    )


def _make_longer(asked: Asked, most_bytes: int) -> tuple[Capacity | None, int]:
    """None where it would take more than is allowed; the call alone may do."""
    wanted = footprint(asked.compiled, asked.geometry, batch_rows(asked.call))
    if wanted.total > most_bytes:
        return None, wanted.tables
    plan, nbytes = _make(asked, most_bytes)
    return Capacity(plan), nbytes


def _hold(asked: Asked) -> bool:
    assert asked.facts is not None
    hold_facts(asked.facts, batch_rows(asked.call.copied()), asked.call.sizes, asked.scalars)
    return True


def _make(asked: Asked, most_bytes: int) -> tuple[Plan, int]:
    """A plan, and its bytes. Raises InputError where they are more than is allowed."""
    nbytes = check_memory(asked.compiled, asked.geometry, batch_rows(asked.call), most_bytes)
    # The plan outlives the call, up to its backward: what the caller does to the inputs meanwhile must not reach it.
    rows = batch_rows(asked.call.copied())
    if asked.facts:
        hold_facts(asked.facts, rows, asked.call.sizes, asked.scalars)
    return make_plan(asked.compiled, asked.geometry, rows, asked.scalars, asked.ordering, asked.like), nbytes
