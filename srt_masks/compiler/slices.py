"""Rows of a plan that was made once for more tokens than are there: what decoding asks for at every step, without planning at every step.

Where nothing that is said of two tokens changes as others are added behind them, the plan of a longer call holds those of all shorter ones: the
tiles of some rows, cut where the keys end. A row of tiles that begins in the middle of one lies over two: what both agree on stays as it is, and
the rest is PARTIAL or MIXED, which is right and only slower.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import Lock

import numpy as np

from . import ir
from .boxes import Boxes
from .compiled import Compiled
from .evaluate import Array
from .labels import EMPTY, PARTIAL, SHIFTS, State, state
from .leaves import Leaves
from .plan import Geometry, GroupPlan, Plan
from .runs import Consumer, Runs, spread

ROWS_KEPT = 64  # cuts of the tiles: as many as rows of the batch may differ
PLANS_KEPT = 16
_AXES = {"token", "step", "query", "key"}  # what grows as tokens are added


def capacity(compiled: Compiled, geometry: Geometry) -> Geometry | None:
    """What to plan once for a call on some rows and those that follow it: the next power of two of tiles; all rows of this very call, where inputs
    have an entry for each token. None where the call is to be planned alone: because the text does not allow it, or because it asks for half of
    all rows or more."""
    program, asking = compiled.program, geometry.asking
    if asking is None or not _is_open(compiled) or max(map(len, asking), default=0) * 2 >= geometry.keys:
        return None
    if reads_tokens(compiled):
        return replace(geometry, queries=geometry.keys, lengths=None, asking=(range(geometry.keys),) * geometry.batch)
    keys = _rounded(geometry.keys, geometry.tile)
    layout = program.queries if program.keys is None else program.keys
    if not layout.rows_per_step:
        keys = layout.fixed
    queries = keys
    if program.keys is not None:
        queries = _rounded(max(r.stop for r in asking), geometry.tile) if program.queries.rows_per_step else program.queries.fixed
    return replace(geometry, queries=queries, keys=keys, lengths=None, asking=(range(queries),) * geometry.batch)


@lru_cache(maxsize=256)
def _is_open(compiled: Compiled) -> bool:
    """Whether the plan of more tokens holds those of fewer."""
    program = compiled.program
    if compiled.reads_length or program.asks is not ir.TRUE:
        return False
    if program.keys is None:
        return program.queries.ends_open and program.queries.given is None
    return program.queries.ends_open and program.keys.ends_open and not reads_tokens(compiled)


@lru_cache(maxsize=256)
def reads_tokens(compiled: Compiled) -> bool:
    """Whether an input is read that has an entry for each token, or step: no other call has it."""
    grows = {i.name for i in compiled.program.inputs if _AXES & set(i.axes)}
    return any(isinstance(n, ir.Load) and n.table in grows for n in ir.postorder(*compiled.program.pair_roots))


def _rounded(tokens: int, tile: int) -> int:
    return tile << (max(1, -(-tokens // tile)) - 1).bit_length()


@dataclass(frozen=True, slots=True)
class _Cut:
    """The tiles of some rows, and the runs emitted from them so far."""

    boxes: Boxes
    emitted: dict[Consumer, Runs] = field(default_factory=dict)


class Capacity:
    """A plan for more tokens than there are. Calls on some of its rows find theirs in it; shared between threads."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self._leaves = [_made(group.leaves) for group in plan.groups]
        self._lock = Lock()
        self._cuts: OrderedDict[tuple[int, ...], _Cut] = OrderedDict()
        self._plans: OrderedDict[Geometry, Plan] = OrderedDict()

    def rows(self, geometry: Geometry) -> Plan:
        """The plan of a call, as `capacity` said it could be found here."""
        with self._lock:
            plan = self._plans.pop(geometry, None) or self._sliced(geometry)
            self._plans[geometry] = plan
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
            return plan

    def _sliced(self, geometry: Geometry) -> Plan:
        begin = time.perf_counter()
        assert geometry.asking is not None
        groups = []
        for number, group in enumerate(self.plan.groups):
            alike: dict[tuple[int, int, int], list[int]] = {}
            for row in group.batch:
                keys = geometry.keys if geometry.lengths is None else geometry.lengths[row]
                # With two layouts a row's length is that of neither.
                most = keys if self.plan.program.keys is None else group.queries
                asking = geometry.asking[row]
                alike.setdefault((min(asking.start, most), min(asking.stop, most), keys), []).append(row)
            for (start, stop, keys), members in alike.items():
                cut = self._cut(number, start, stop, keys)
                leaves = _between(self._leaves[number], start, stop, keys)
                groups.append(GroupPlan(tuple(members), group.heads, stop - start, keys, group.tile, cut.boxes, leaves, emitted=cut.emitted))
        return Plan(geometry, self.plan.program, tuple(groups), time.perf_counter() - begin)

    def _cut(self, number: int, start: int, stop: int, keys: int) -> _Cut:
        """Calls that lie alike in the tiles share what is made here."""
        tile = self.plan.groups[number].tile
        hangs_over = (stop - start) % tile != 0
        key = (number, start // tile, start % tile if stop - start > 1 else 0, stop - start, -(-keys // tile), keys % tile != 0, hangs_over)
        if key not in self._cuts:
            self._cuts[key] = _Cut(_boxes(self.plan.groups[number], start, stop, keys))
        self._cuts.move_to_end(key)
        while len(self._cuts) > ROWS_KEPT:
            self._cuts.popitem(last=False)
        return self._cuts[key]


def _made(leaves: Leaves) -> Leaves:
    """All of them over their whole axes, so that a slice of one costs no more than slicing."""
    return Leaves(leaves.split, {x: leaves.values[x] for x in leaves.split.leaves}, leaves.tables)


def _between(leaves: Leaves, start: int, stop: int, keys: int) -> Leaves:
    """Those of the queries start .. stop and of the first `keys`."""
    split = leaves.split
    values = {x: leaves.values[x] for x in split.constants}
    values |= {x: leaves.values[x][start:stop] for x in split.query} | {x: leaves.values[x][:keys] for x in split.key}
    return Leaves(split, values, leaves.tables)


# ------------------------------------------------------------------------------------------------ tiles


def _boxes(group: GroupPlan, start: int, stop: int, keys: int) -> Boxes:
    """Single tiles of the queries start .. stop, counted from `start`, and of the first `keys`."""
    tile, count = group.tile, stop - start
    rows, cols = -(-count // tile), -(-keys // tile)
    begins = start + np.arange(rows) * tile
    ends = np.minimum(begins + tile, stop)
    first, last = begins // tile, (ends - 1) // tile
    base = start // tile
    grid = _grid(group.boxes, base, (int(last[-1]) if rows else base - 1) + 1, cols)
    label, inherited = _merged(grid[first - base], grid[last - base])
    # A tile that hangs over the end is PARTIAL.
    over = np.zeros((rows, cols), bool)
    over[ends - begins < tile] = True
    if keys % tile:
        over[:, cols - 1] = True
    label = np.where((label != EMPTY) & over, label | PARTIAL, label)
    row, col = np.nonzero(label != EMPTY)
    # Taken whole, a row of tiles is what it was; of a part of one, nobody has looked what it holds.
    parts = inherited & (first != last)[:, None] | inherited & ((ends - begins < tile) | (begins % tile != 0))[:, None]
    return Boxes(np.zeros(len(row), np.uint8), row.astype(np.int32), col.astype(np.int32), label[row, col].astype(np.uint8), 0, int(parts.sum()))


def _grid(boxes: Boxes, begin: int, end: int, cols: int) -> Array:
    """The labels of the rows of tiles begin .. end, (rows, cols) uint8; EMPTY where there is no box."""
    level = boxes.level.astype(np.int64)
    top, left, side = boxes.row << level, boxes.col << level, 1 << level
    found = np.flatnonzero((top < end) & (top + side > begin) & (left < cols))
    top, left, side, label = top[found], left[found], side[found], boxes.label[found]
    upper, lower, right = np.maximum(top, begin), np.minimum(top + side, end), np.minimum(left + side, cols)
    box, down = spread(lower - upper)
    segment, across = spread((right - left)[box])
    box, down = box[segment], down[segment]
    grid = np.full((max(0, end - begin), cols), EMPTY, np.uint8)
    grid[upper[box] + down - begin, left[box] + across] = label[box]
    return grid


def _merged(upper: Array, lower: Array) -> tuple[Array, Array]:
    """The label of a tile that lies over two others, and whether one of them is PARTIAL. Each may be the same as the other."""
    no_upper, no_lower = upper == EMPTY, lower == EMPTY
    label = np.where(no_upper ^ no_lower, PARTIAL, (upper | lower) & PARTIAL)
    for gate in SHIFTS:
        a, b = state(upper, gate), state(lower, gate)
        # Gates are judged on attended pairs: an EMPTY tile has no say.
        either = np.where(no_upper, b, np.where(no_lower | (a == b), a, State.MIXED))
        label = label | (either << SHIFTS[gate])
    partial = (~no_upper & (upper & PARTIAL != 0)) | (~no_lower & (lower & PARTIAL != 0))
    return np.where(no_upper & no_lower, EMPTY, label), partial
