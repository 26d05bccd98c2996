"""What a plan will take, before any of it is taken.

Counted as if everything were made that may be: the attributes and leaves of every token, and as many boxes and runs as a mask may need. What is
made only when it is asked for may never be; a call that attends asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from ..diagnostics import InputError
from ..grammar.checked import Type
from . import ir
from .batch import BatchRow
from .boxes import MOST_BOXES
from .compiled import Compiled
from .ir import Expr, Field, Scalar, Side
from .plan import Geometry

PLAN_MEMORY = 4 * 2**30  # bytes a plan may take, unless the caller says otherwise

_BYTES = {Type.BOOL: 1, Type.INT: 8, Type.FLOAT: 8, Type.ROLE: 8}
_BOX = 64  # bytes, while it is worked on
_RUN = 9
_RUNS_A_ROW = 8  # of tiles; more where a mask is torn
_CONSUMERS = 5


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes, about."""

    attributes: int
    leaves: int
    boxes: int
    runs: int
    tables: int

    @property
    def total(self) -> int:
        return sum(getattr(self, f.name) for f in fields(self))

    def __str__(self) -> str:
        parts = [(f.name, getattr(self, f.name)) for f in fields(self)]
        return ", ".join(f"{name} {_size(count)}" for name, count in parts if count >= self.total / 100)


def footprint(compiled: Compiled, geometry: Geometry, rows: Sequence[BatchRow]) -> Footprint:
    """Of a plan for these rows of the batch, of which equal ones are planned once."""
    program, split = compiled.program, compiled.questions.split
    different = {_name(row) for row in rows}
    queries, keys = geometry.queries, geometry.keys
    heads = geometry.heads if compiled.speaks_of_head else 1
    read = {n.name for n in ir.postorder(*split.roots, program.asks) if isinstance(n, Field)}
    axis = keys + (queries if program.keys is not None else 0)
    attributes = 8 * axis * len(read | ({"role"} if "index" in read else set()))
    leaves = sum(_leaf(x, heads) * (queries if ir.sides(x) == {Side.QUERY} else keys) for x in (*split.query, *split.key))
    down, across = -(-queries // geometry.tile), -(-keys // geometry.tile)
    boxes = _BOX * min(MOST_BOXES, 2 * down * across)
    runs = _CONSUMERS * (_RUN * _RUNS_A_ROW + 4) * max(down, across)
    # A plan keeps a copy, and the cache another to know the caller's by.
    tables = 2 * sum(t.numel() * t.element_size() for t in _tensors(rows))
    count = len(different)
    return Footprint(attributes * count, leaves * count, boxes + runs * (count * heads - 1), runs * count * heads, tables)


def check_memory(compiled: Compiled, geometry: Geometry, rows: Sequence[BatchRow], allowed: int) -> int:
    """The bytes a plan will take, about. Raises InputError, with the estimate and what to do, where they are more than is allowed."""
    found = footprint(compiled, geometry, rows)
    if found.total > allowed:
        g = geometry
        part = "attend to fewer tokens a call (queries=range(...) takes a part of the rows), or " if g.asking is None and g.queries > g.tile else ""
        raise InputError(
            f"a plan for batch {g.batch}, heads {g.heads}, {g.queries:,} x {g.keys:,} tokens would take about {_size(found.total)} ({found}), and "
            f"plan_memory allows {_size(allowed)}: {part}give "
            f"srt_masks.compile(..., plan_memory={1 << (found.total - 1).bit_length()})"
        )
    return found.total


def _leaf(leaf: Expr, heads: int) -> int:
    """Bytes a token: once for each head where the head decides."""
    own = any(isinstance(n, Scalar) and n.name == "head" for n in ir.postorder(leaf))
    return 0 if isinstance(leaf, Field) else _BYTES[leaf.type] * (heads if own else 1)


def _name(row: BatchRow) -> tuple:
    tensors = (*row.inputs.values(), *row.layout.values())
    return row.length, row.asking, tuple(row.params.items()), tuple((t.data_ptr(), tuple(t.shape)) for t in tensors)


def _tensors(rows: Iterable[BatchRow]) -> Iterable:
    seen = {}
    for row in rows:
        for t in (*row.inputs.values(), *row.layout.values()):
            seen[t.data_ptr(), tuple(t.shape)] = t
    return seen.values()


def _size(count: int) -> str:
    for unit, bits in (("GiB", 30), ("MiB", 20)):
        if count >= 1 << (bits - 1):
            return f"{count / 2**bits:,.1f} {unit}"
    return f"{count / 2**10:,.1f} KiB"
