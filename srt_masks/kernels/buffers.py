"""A plan -> the few flat tensors that the Triton kernels read of it.

    facts     (groups, columns) int64     queries, keys, constants, and where its keys, leaves and tables begin, with their sizes
    numbers   (groups, columns) float64   constants that are floats
    ints, flags, reals                    every leaf and table of every group, end to end, by type
    group_of  (batch * heads,) int32      which group a (batch row, query head) belongs to

and for each kernel a `Schedule`: its runs by row and section, as tiles of its own size. Everything a call's length, batch or params
decide lies in these tensors, so that no kernel is compiled for them. Leaves and tables that groups share are stored once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..compiler import ir
from ..compiler.bounds import Bound, Interval, Truth, bound, joined, of_groups
from ..compiler.evaluate import array
from ..compiler.ir import Expr, Load
from ..compiler.leaves import Leaves
from ..compiler.plan import Plan
from ..compiler.runs import Consumer, Runs
from ..grammar.checked import Type
from .emit import Columns

Section = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Buffers:
    facts: Tensor
    numbers: Tensor
    ints: Tensor
    flags: Tensor
    reals: Tensor
    group_of: Tensor

    @property
    def tensors(self) -> list[Tensor]:
        return [self.facts, self.numbers, self.ints, self.flags, self.reals, self.group_of]

    def by_name(self) -> dict[str, Tensor]:
        """What every kernel with a predicate reads; `group_of` only those that work on a call."""
        return {"facts": self.facts, "numbers": self.numbers, "ints": self.ints, "flags": self.flags, "reals": self.reals}

    def to(self, device: torch.device) -> Buffers:
        return Buffers(*(t.to(device) for t in self.tensors))


@dataclass(frozen=True, slots=True)
class Schedule:
    """The runs of one kernel. Section s of row r of group g is entry (g * rows + r) * sections + s of `ptr` and `size`."""

    ptr: Tensor  # (groups * rows * sections,) int32: its first run
    size: Tensor  # the same shape: how many tiles of the kernel it has
    first: Tensor  # (runs + 1,) int32: the first tile of a run, in tiles of the kernel
    stop: Tensor  # (runs + 1,) int32: the tile after its last
    order: Tensor  # (rows,) int32: rows of tiles of the plan, longest first

    @property
    def tensors(self) -> list[Tensor]:
        return [self.ptr, self.size, self.first, self.stop, self.order]

    def by_name(self) -> dict[str, Tensor]:
        return {"ptr": self.ptr, "size": self.size, "first": self.first, "stop": self.stop, "order": self.order}

    def to(self, device: torch.device) -> Schedule:
        return Schedule(*(t.to(device) for t in self.tensors))


def needs_wide(plan: Plan) -> bool:
    """Whether some whole number of the predicate may exceed 32 bits, by the bounds of everything it computes."""
    with np.errstate(all="ignore"):  # bounds may wrap on the way
        return any(_exceeds(g.leaves) for g in plan.groups)


def _exceeds(leaves: Leaves) -> bool:
    split = leaves.split
    of: dict[Expr, Bound] = {}
    for leaf in split.leaves:
        of[leaf] = _range(leaves.values[leaf])
    for node in split.pairs:
        match node:
            case Load(table=table):
                if leaves.tables[table].numel() >= 2**31:
                    return True
                of[node] = _or_filler(_range(leaves.tables[table]), 0)
            case ir.Gather(value=value, filler=filler):
                of[node] = _or_filler(of[value], filler)
            case _:
                of[node] = bound(node, [of[a] for a in ir.children(node)])
    # The constants of the text are leaves too.
    wholes = [b for n, b in of.items() if n.type in (Type.INT, Type.ROLE) and isinstance(b, Interval)]
    return any(bool((b.lo < -(2**31)).any()) or bool((b.hi >= 2**31).any()) for b in wholes)


def _range(values: Tensor) -> Bound:
    if values.numel() == 0:
        values = values.new_zeros(1)
    return of_groups(array(values).reshape(-1, 1))


def _or_filler(b: Bound, filler: int) -> Bound:
    """With what a subscript out of range reads."""
    match b:
        case Truth():
            return joined(b, Truth(np.array(False), np.array(False)))
        case Interval():
            return joined(b, Interval(np.array(filler), np.array(filler), filler, filler))


def buffers(plan: Plan, columns: Columns, wide: bool) -> Buffers:
    whole = torch.int64 if wide else torch.int32
    pools = {Type.BOOL: _Pool(torch.uint8), Type.INT: _Pool(whole), Type.FLOAT: _Pool(torch.float64)}
    pools[Type.ROLE] = pools[Type.INT]
    facts, numbers = [], []
    keys_before = 0
    for group in plan.groups:
        row = [group.queries, group.keys, keys_before]
        keys_before += group.keys
        row += [int(group.leaves.values[x].item()) for x in columns.whole]
        row += [pools[x.type].place(x, group.leaves.values[x]) for x in columns.vectors]
        for name, type, _ in columns.tables:
            table = group.leaves.tables[name]
            row += [pools[type].place(name, table), *table.shape]
        facts.append(row)
        numbers.append([float(group.leaves.values[x].item()) for x in columns.floats] or [0.0])
    return Buffers(
        _table(facts, columns.width, torch.int64), _table(numbers, max(1, len(columns.floats)), torch.float64),
        pools[Type.INT].joined(), pools[Type.BOOL].joined(), pools[Type.FLOAT].joined(), plan.group_of.flatten(),
    )  # fmt: skip


def _table(rows: list[list], width: int, dtype: torch.dtype) -> Tensor:
    return torch.tensor(rows, dtype=dtype).reshape(len(rows), width)


class _Pool:
    """Tensors end to end; one that equals what is already there under its name is not stored again."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype
        self.parts: list[Tensor] = []
        self.size = 0
        self.known: dict[object, list[tuple[Tensor, int]]] = {}

    def place(self, name: object, values: Tensor) -> int:
        for old, offset in self.known.setdefault(name, []):
            if old is values or (old.shape == values.shape and torch.equal(old, values)):
                return offset
        offset = self.size
        self.known[name].append((values, offset))
        self.parts.append(values.flatten().to(self.dtype))
        self.size += values.numel()
        return offset

    def joined(self) -> Tensor:
        """Never empty: a kernel is always given an address."""
        return torch.cat([*self.parts, torch.zeros(1, dtype=self.dtype)])


def schedule(plan: Plan, consumer: Consumer, section: Section, sections: int, block: int) -> Schedule:
    """The runs of a consumer, each row's sorted by section. `section` maps kinds to sections; `block` is the size of
    the kernel's tiles along the axis it loops over."""
    g = plan.geometry
    rows = -(-(g.keys if consumer.key_major else g.queries) // g.tile)
    parts = [_no_runs()]
    for group in plan.groups:
        most = -(-(group.queries if consumer.key_major else group.keys) // block)
        parts.append(_group_schedule(group.runs(consumer), section, rows, sections, g.tile // block, most))
    counts, size, first, stop = (torch.cat(column) for column in zip(*parts, strict=True))
    work = size.view(len(plan.groups), rows, sections).sum((0, 2))
    order = work.argsort(descending=True, stable=True)
    # A kernel reads where a section begins before it knows that the section is empty: one entry more keeps that in bounds.
    entries = [torch.nn.functional.pad(x, (0, 1)) for x in (counts.cumsum(0) - counts, size, first, stop)]
    return Schedule(*(x.int() for x in (*entries, order)))


_Part = tuple[Tensor, Tensor, Tensor, Tensor]


def _group_schedule(runs: Runs, section: Section, rows: int, sections: int, per_tile: int, most: int) -> _Part:
    """Of one group: runs and tiles of each section of each row, and first and stop of every run, sorted by section."""
    first = runs.first.long() * per_tile
    stop = ((runs.first.long() + runs.count) * per_tile).clamp(max=most)
    entry = runs.row * sections + section(runs.kind.long())
    order = entry.argsort(stable=True)
    entry, first, stop = entry[order], first[order], stop[order]
    size = torch.zeros(rows * sections, dtype=torch.int64).index_add(0, entry, stop - first)
    return torch.bincount(entry, minlength=rows * sections), size, first, stop


def _no_runs() -> _Part:
    nothing = torch.zeros(0, dtype=torch.int64)
    return nothing, nothing, nothing, nothing
