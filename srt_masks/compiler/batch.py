"""The rows of a batch, each laid out: what the names of a text mean in it, and which tokens have a row of q.

Input: a `BatchRow` of a call. Output: its `Environment`. Rows that were given the same are laid out, and planned, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..diagnostics import InputError
from . import ir
from .evaluate import Environment
from .ir import Program
from .layout import attributes, steps_of
from .plan import Geometry


@dataclass(frozen=True)
class BatchRow:
    """What tells the rows of a batch apart: its length (None: all tokens), inputs, the layout given for it, params, and the positions that q
    holds of it (None: all)."""

    length: int | None
    inputs: Mapping[str, Tensor]
    layout: Mapping[str, Tensor]
    params: Mapping[str, int | float]
    asking: range | None = None


def lay_out(program: Program, geometry: Geometry, row: BatchRow, scalars: Mapping[str, int | float]) -> Environment:
    """What the names mean in one row of the batch: its queries are the tokens that ask, at the positions that q holds."""
    tokens = _positions(program, geometry) if row.length is None else row.length
    own = attributes(program.queries, tokens, program.data, row.layout)
    keys = own if program.keys is None else attributes(program.keys, geometry.keys, program.data, row.layout)
    numbers = {**scalars, **row.params, "length": tokens, "steps": steps_of(program.queries, own)}
    environment = Environment(numbers, row.inputs, own, keys)
    start, stop = (0, tokens) if row.asking is None else (min(row.asking.start, tokens), min(row.asking.stop, tokens))
    if program.asks is not ir.TRUE:
        (asks,) = environment.evaluate(program.asks)
        where = asks.expand(tokens).clone()
        where[:start] = where[stop:] = False
        return replace(environment, queries=own.picked(where))
    return environment if row.asking is None else replace(environment, queries=own.between(start, stop))


def _positions(program: Program, geometry: Geometry) -> int:
    """Tokens of the axis that queries stand in, in a row of full length."""
    if program.keys is None:
        return geometry.keys
    if geometry.asking is None:
        return geometry.queries
    return max((r.stop for r in geometry.asking), default=0) if program.queries.rows_per_step else program.queries.fixed


def count_asking(program: Program, geometry: Geometry, rows: Sequence[BatchRow], scalars: Mapping[str, int | float]) -> int:
    """Rows that q has: as many as ask in a row of full length, or more if some row of the batch has more."""
    full = [replace(row, length=None) for row in rows]
    return max((len(lay_out(program, geometry, row, scalars).queries) for _, row in alike_rows([*rows, *full])), default=0)


def check_asking(program: Program, geometry: Geometry, rows: Sequence[BatchRow], scalars: Mapping[str, int | float]) -> None:
    """Raises InputError if q has not as many rows as tokens ask."""
    if not rows or program.keys is not None:
        return
    everybody = geometry.keys if geometry.asking is None else max(len(r) for r in geometry.asking)
    asking = everybody if program.asks is ir.TRUE else count_asking(program, geometry, rows, scalars)
    if asking != geometry.queries:
        among = f"the {geometry.keys} tokens" if geometry.asking is None else f"the {everybody} tokens of queries="
        raise InputError(f"q has {geometry.queries} rows, and {asking} of {among} ask (`queries where`): q holds the rows of those, in order; k and v hold all")


def alike_rows(rows: Sequence[BatchRow]) -> list[tuple[tuple[int, ...], BatchRow]]:
    """Rows of the batch that share everything: length, positions asked for, params, and the values of every tensor."""
    found: dict[Any, list[list[int]]] = {}
    for number, row in enumerate(rows):
        tensors = (*row.inputs.values(), *row.layout.values())
        # Rows that may be alike have a few values in common: only those are compared.
        some = tuple(tuple(t.flatten()[:: max(1, t.numel() // 8)].tolist()) for t in tensors)
        alike = found.setdefault((row.length, row.asking, some, tuple(row.params.items())), [])
        for members in alike:
            if _equal(row, rows[members[0]]):
                members.append(number)
                break
        else:
            alike.append([number])
    return sorted(((tuple(members), rows[members[0]]) for alike in found.values() for members in alike), key=lambda group: group[0])


def _equal(one: BatchRow, other: BatchRow) -> bool:
    """Whether two rows were given the same values."""
    pairs = [*zip(one.inputs.values(), other.inputs.values(), strict=True), *zip(one.layout.values(), other.layout.values(), strict=True)]
    return all(a is b or a.data_ptr() == b.data_ptr() or torch.equal(a, b) for a, b in pairs)
