"""A call -> its plan: rows of the batch and heads that share a mask are grouped, each group is given an order of tokens, and its boxes and runs.

Input: a `Compiled` text, the `Geometry` of a call and its rows of the batch. Output: a `Plan`. Non-goals: slices of a longer plan (`slices.py`),
what a plan may take (`memory.py`), and when one is used again (`numbers.py` and the cache of the kernels).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..grammar.checked import Layout
from .batch import BatchRow, alike_rows, check_asking, lay_out
from .boxes import classify
from .choice import AUTO, LEAST_TILES, NOT_ASKED, PROBE_TILES, Choice, Heads, Ordered, Ordering, Search
from .compiled import Compiled
from .evaluate import Environment
from .ir import Program
from .leaves import Leaves, evaluate, same
from .order import NATURAL
from .plan import Geometry, GroupPlan, Plan
from .runs import Consumer


def make_plan(
    compiled: Compiled, geometry: Geometry, rows: Sequence[BatchRow], scalars: Mapping[str, int | float],
    ordering: Ordering | None = None, like: Plan | None = None,
) -> Plan:  # fmt: skip
    """Plan one call. `rows` has an entry for each row of the batch; equal ones share a plan. `scalars` are `heads`, `layer` and `layers`.
    Tokens are visited as `ordering` finds best, or as in a plan of the same call that this one is to be `like`; else in the caller's order.

    The plan keeps the tensors it is given, on the CPU: they must not change. Raises InputError if q has not as many rows as tokens ask.
    """
    begin = time.perf_counter()
    program = compiled.program
    check_asking(program, geometry, rows, scalars)
    groups: list[GroupPlan] = []
    for members, row in alike_rows(rows):
        environment = lay_out(program, geometry, row, scalars)
        nq, nk = len(environment.queries), len(environment.keys)
        found = _head_groups(compiled, geometry.heads, environment)
        if like is not None:
            found, orders = _as_in(like, members[0], found)
        else:
            orders = _orders(compiled, geometry, ordering, len(members), found, row, scalars)
        for group, ordered in zip(found, orders, strict=True):
            leaves, order = group.leaves, ordered.order
            if order is not None:
                leaves = order.picked(leaves)
            boxes = ordered.boxes or classify(compiled.questions, leaves, nq, nk, geometry.tile)
            needed = Leaves(compiled.split, leaves.values, leaves.tables)
            made = GroupPlan(members, group.heads, nq, nk, geometry.tile, boxes, needed, order, ordered.choice)
            made.runs(Consumer.FORWARD)
            groups.append(made)
    return Plan(geometry, program, tuple(groups), time.perf_counter() - begin)


def _orders(
    compiled: Compiled, geometry: Geometry, ordering: Ordering | None, members: int, groups: Sequence[Heads], row: BatchRow,
    scalars: Mapping[str, int | float],
) -> list[Ordered]:  # fmt: skip
    """The order of each group of heads of one row of the batch."""
    program, first = compiled.program, groups[0].environment if groups else None
    if compiled.must_stay or not compiled.candidates:
        return [Ordered(None, Choice(NATURAL, compiled.must_stay or "no other order is worth a try"))] * len(groups)
    if ordering is None or ordering.wanted == NATURAL or first is None:
        return [Ordered(None, NOT_ASKED)] * len(groups)
    if row.asking is not None:
        return [Ordered(None, Choice(NATURAL, "keys are not moved for some rows of q alone"))] * len(groups)
    rows, cols = (-(-len(x) // geometry.tile) for x in (first.queries, first.keys))
    if ordering.wanted == AUTO and rows * cols < LEAST_TILES**2:
        return [Ordered(None, Choice(NATURAL, f"{rows} x {cols} tiles are too few to be worth a search"))] * len(groups)
    sizes = tuple(_shorter(layout, n, PROBE_TILES * geometry.tile) for layout, n in _axes(program, geometry, row))
    probe = replace(geometry, queries=sizes[0], keys=sizes[-1])
    numbers = (*sorted(scalars.items()), *sorted(row.params.items()))
    # What was found for a call of fewer tiles than are tried is found again for it alone.
    known = None if compiled.reads_data else (compiled.key, program.queries, program.keys, program.data, sizes, geometry.tile, numbers)
    search = Search(program, compiled.questions, compiled.candidates, geometry.tile, members, geometry.heads_per_key, ordering)

    def shorter() -> Environment:
        return lay_out(program, probe, replace(row, length=None if row.length is None else sizes[0]), scalars)

    return search.ordered(groups, shorter, known)


def _axes(program: Program, geometry: Geometry, row: BatchRow) -> list[tuple[Layout, int]]:
    """Each layout of a call, and its tokens."""
    if program.keys is None:
        return [(program.queries, geometry.keys if row.length is None else row.length)]
    return [(program.queries, geometry.queries), (program.keys, geometry.keys)]


def _shorter(layout: Layout, tokens: int, most: int) -> int:
    """Tokens of the layout, at most so many if it can have them."""
    if layout.given is not None:
        return min(tokens, most)
    if tokens <= most or not layout.rows_per_step or most < layout.tokens(1):
        return tokens
    return layout.tokens(layout.steps(most))


def _as_in(like: Plan, row: int, groups: Sequence[Heads]) -> tuple[list[Heads], list[Ordered]]:
    """The groups, parted where another plan's orders part them, and those orders."""
    found, orders = [], []
    for group in groups:
        for other in like.groups:
            heads = tuple(h for h in group.heads if h in other.heads)
            if heads and row in other.batch:
                found.append(replace(group, heads=heads))
                orders.append(Ordered(other.order, other.choice))
    return found, orders


def _head_groups(compiled: Compiled, heads: int, environment: Environment) -> list[Heads]:
    """Heads that share every leaf and table share a mask."""
    split = compiled.questions.split
    if not compiled.speaks_of_head:
        return [Heads(tuple(range(heads)), environment, evaluate(split, environment))]
    found: list[Heads] = []
    for head in range(heads):
        own = replace(environment, scalars={**environment.scalars, "head": head})
        leaves = evaluate(split, own)
        for number, known in enumerate(found):
            if same(known.leaves, leaves):
                found[number] = replace(known, heads=(*known.heads, head))
                break
        else:
            found.append(Heads((head,), own, leaves))
    return found
