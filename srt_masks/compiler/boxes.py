"""Leaves -> boxes: a quadtree over tiles, from coarse to fine, all boxes of a level at once.

A box that is EMPTY is dropped; one that is FULL with every gate settled is kept as it is; the others are split, down to single
tiles. Tiles still undecided there are evaluated pair by pair, within a budget; what is left beyond it stays PARTIAL, which is
right and only slower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from . import ir
from .bounds import Bound, bound, of_values
from .ir import Expr, Gate, Op, Program
from .leaves import Leaves, Split, split
from .simplify import simplified

COARSEST = 16  # boxes along an axis at the first level
REFINE_PAIRS = 2_000_000  # pairs evaluated to settle tiles that bounds leave open
REFINE_TILES = 64  # tiles evaluated at once
SAMPLE = 8  # pairs along a side of an undecided tile that are looked at first
SAMPLED_TILES = 4096  # tiles sampled at once
PROBE_BOXES = 20_000  # undecided boxes of one level, from which on a probe asks whether it is worth going on
PROBE_TILES = 4096
PROBE_SHARE = 0.97
MOST_BOXES = 2_000_000  # boxes looked at; what would take more is called PARTIAL as it is


class State(IntEnum):
    """A gate on the attended pairs of a box."""

    NONE = 0  # 0 on all of them: their work is skipped
    MIXED = 1
    ALL = 2  # 1 on all of them


PARTIAL = 1  # bit 0 of a label; FULL is 0
EMPTY = 255  # no label: a tile that turned out to hold no pair
SHIFTS = {"q": 1, "k": 3, "v": 5}  # two bits a gate


def state(label: Tensor, gate: str) -> Tensor:
    """The State of a gate in every label."""
    return (label >> SHIFTS[gate]) & 3


@dataclass(frozen=True, slots=True)
class Boxes:
    """The root of a plan. A box of level l covers 2**l x 2**l tiles from tile (row << l, col << l)."""

    level: Tensor  # (boxes,) uint8
    row: Tensor  # (boxes,) int32, in boxes of its level
    col: Tensor  # (boxes,) int32
    label: Tensor  # (boxes,) uint8: PARTIAL bit, then the states of q, k and v
    evaluated: int  # boxes looked at
    inexact: int  # tiles called PARTIAL, or MIXED, that nobody evaluated


@dataclass(frozen=True, slots=True)
class GateQuestion:
    """What is asked of a gate: whether it is open anywhere, and everywhere, that is attended. q, k and v of one gate are asked once."""

    names: str
    gate: Gate
    somewhere: Expr  # attended and open
    everywhere: Expr  # open or not attended

    def bits(self, states: Tensor) -> Tensor:
        """States as label bits."""
        label = torch.zeros_like(states)
        for name in self.names:
            label = label | (states << SHIFTS[name])
        return label


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked of a box: the mask, and the gates that some rule speaks of. `always` are the label bits of the others, which are 1."""

    attend: Expr
    gates: tuple[GateQuestion, ...]
    always: int
    split: Split

    @property
    def roots(self) -> tuple[Expr, ...]:
        """What is evaluated of single pairs: the mask, then open and weight of each gate asked about."""
        return (self.attend, *(e for g in self.gates for e in (g.gate.open, g.gate.weight)))


def questions(program: Program) -> Questions:
    attend = program.attend
    names: dict[Gate, str] = {}
    for name, gate in zip("qkv", program.gates, strict=True):
        names[gate] = names.get(gate, "") + name
    always = sum(State.ALL << SHIFTS[name] for name in names.pop(Gate(), ""))

    def ask(gate: Gate, names: str) -> GateQuestion:
        if gate.open is ir.TRUE:
            return GateQuestion(names, gate, attend, ir.TRUE)
        somewhere = simplified(ir.apply(Op.AND, attend, gate.open))
        return GateQuestion(names, gate, somewhere, simplified(ir.apply(Op.OR, ir.apply(Op.NOT, attend), gate.open)))

    gates = tuple(ask(gate, n) for gate, n in names.items())
    return Questions(attend, gates, always, split(*program.pair_roots, *(e for g in gates for e in (g.somewhere, g.everywhere, g.gate.weight))))


def classify(ask: Questions, leaves: Leaves, queries: int, keys: int, tile: int) -> Boxes:
    """The boxes of one (row of the batch, layer, head). `leaves` belong to `ask.split`."""
    rows, cols = -(-queries // tile), -(-keys // tile)
    kept: list[Tensor] = []
    evaluated = inexact = level = 0
    while max(rows, cols) > COARSEST << level:
        level += 1
    pyramid = _pyramid(leaves, tile, level)
    row, col = torch.meshgrid(torch.arange(-(-rows // (1 << level))), torch.arange(-(-cols // (1 << level))), indexing="ij")
    row, col = row.flatten(), col.flatten()
    exact = _Exact(ask, leaves, queries, keys, tile)
    while len(row):
        evaluated += len(row)
        attend, label = _label(ask, leaves, pyramid[level], row, col)
        side = tile << level
        full = attend.must & ((row + 1) * side <= queries) & ((col + 1) * side <= keys)
        label = label | torch.where(full, 0, PARTIAL)
        # A tile that hangs over the end is PARTIAL, and nothing is left to ask of it.
        settled = (full | (attend.must & (level == 0))) & _settled(ask, label)
        undecided = ~settled & attend.may
        stop = level == 0
        waiting = int(undecided.sum())
        if not stop and waiting > PROBE_BOXES:
            # Masks that are PARTIAL everywhere would be split down to single tiles for nothing.
            stop = evaluated + 4 * waiting > MOST_BOXES or exact.mostly_partial(row[undecided], col[undecided], level, rows, cols)
        if not stop:
            kept.append(_pack(level, row[settled], col[settled], label[settled]))
            row, col = _children(row[undecided], col[undecided], level, rows, cols)
            level -= 1
            continue
        keep = settled | undecided
        if level == 0:
            where = undecided.nonzero().flatten()
            known, left = exact.labels(row[where], col[where], label[where])
            label[where] = known
            inexact = left
            keep = keep & (label != EMPTY)
        else:
            inexact = int(_tiles(row[undecided], level, rows) @ _tiles(col[undecided], level, cols))
        kept.append(_pack(level, row[keep], col[keep], label[keep]))
        break
    packed = torch.cat([*kept, torch.zeros(0, 4, dtype=torch.int64)])
    return Boxes(packed[:, 0].to(torch.uint8), packed[:, 1].int(), packed[:, 2].int(), packed[:, 3].to(torch.uint8), evaluated, inexact)


def _tiles(place: Tensor, level: int, count: int) -> Tensor:
    """How many tiles along an axis each box has: the last may hang over the edge."""
    return ((place + 1) << level).clamp(max=count) - (place << level)


def _pack(level: int, row: Tensor, col: Tensor, label: Tensor) -> Tensor:
    return torch.stack([torch.full_like(row, level), row, col, label], 1)


def _children(row: Tensor, col: Tensor, level: int, rows: int, cols: int) -> tuple[Tensor, Tensor]:
    """The four quarters of each box that lie inside the grid of tiles."""
    down = torch.tensor([0, 0, 1, 1])
    right = torch.tensor([0, 1, 0, 1])
    row, col = (2 * row[:, None] + down).flatten(), (2 * col[:, None] + right).flatten()
    inside = ((row << (level - 1)) < rows) & ((col << (level - 1)) < cols)
    return row[inside], col[inside]


# --------------------------------------------------------------------------------------------------- bounds of boxes

Pyramid = list[dict[Expr, Bound]]


def _pyramid(leaves: Leaves, tile: int, levels: int) -> Pyramid:
    """Minimum and maximum of every leaf over the tokens of each tile, and of each 2, 4, 8 ... tiles."""
    base: dict[Expr, Bound] = {}
    for leaf in leaves.split.constants:
        value = leaves.values[leaf]
        base[leaf] = of_values(value, value, value)
    for leaf in leaves.split.query + leaves.split.key:
        value = leaves.values[leaf]
        lo, hi = _grouped(value, value, tile)
        base[leaf] = of_values(value, lo, hi)
    pyramid = [base]
    for _ in range(levels):
        below = pyramid[-1]
        pyramid.append({x: b if b.lo.ndim == 0 else Bound(*_grouped(b.lo, b.hi, 2)) for x, b in below.items()})
    return pyramid


def _grouped(lo: Tensor, hi: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Minimum of lo and maximum of hi over groups of `size`; the last group may be short."""
    if lo.dtype is torch.bool:
        lo, hi = lo.view(torch.uint8), hi.view(torch.uint8)
    whole = len(lo) // size * size
    least, most = lo[:whole].view(-1, size).amin(1), hi[:whole].view(-1, size).amax(1)
    if whole < len(lo):
        # The tail apart: padding would copy the whole vector.
        least, most = torch.cat([least, lo[whole:].amin()[None]]), torch.cat([most, hi[whole:].amax()[None]])
    return least, most


def _label(ask: Questions, leaves: Leaves, floor: dict[Expr, Bound], row: Tensor, col: Tensor) -> tuple[Bound, Tensor]:
    """The bound of the mask in every box, and the states of the gates as label bits."""
    parts = leaves.split
    of: dict[Expr, Bound] = {}
    for leaf in parts.constants:
        b = floor[leaf]
        of[leaf] = Bound(b.lo.expand(len(row)), b.hi.expand(len(row)))
    for leaf in parts.query:
        of[leaf] = Bound(floor[leaf].lo[row], floor[leaf].hi[row])
    for leaf in parts.key:
        of[leaf] = Bound(floor[leaf].lo[col], floor[leaf].hi[col])
    for node in parts.pairs:
        of[node] = bound(node, of, row)
    label = torch.full_like(row, ask.always)
    for asked in ask.gates:
        w = of[asked.gate.weight]
        none = ~of[asked.somewhere].may | ((w.lo == 0) & (w.hi == 0))
        all = of[asked.everywhere].must & (w.lo == 1) & (w.hi == 1)
        label = label | asked.bits(torch.where(none, State.NONE, torch.where(all, State.ALL, State.MIXED)))
    return of[ask.attend], label


def _settled(ask: Questions, label: Tensor) -> Tensor:
    settled = torch.ones_like(label, dtype=torch.bool)
    for asked in ask.gates:
        settled = settled & (state(label, asked.names[0]) != State.MIXED)
    return settled


# --------------------------------------------------------------------------------------------------- exact tiles


@dataclass(frozen=True, slots=True)
class _Exact:
    """Single tiles, looked at pair by pair: a few pairs of each first, and all of them only where those are of one mind."""

    ask: Questions
    leaves: Leaves
    queries: int
    keys: int
    tile: int

    def labels(self, row: Tensor, col: Tensor, label: Tensor) -> tuple[Tensor, int]:
        """Labels of undecided tiles, EMPTY where no pair was found, and how many are still those of the bounds, because the budget ended.

        What bounds have settled of a gate stays; two unlike pairs in a sample settle the rest.
        """
        done = label.clone()
        open_tiles = torch.ones_like(label, dtype=torch.bool)
        for start in range(0, len(row), SAMPLED_TILES):
            part = slice(start, start + SAMPLED_TILES)
            attend, gates = self._pairs(row[part], col[part], SAMPLE)
            seen = (label[part] & PARTIAL == 0) | _both(attend)
            open_tiles[part] = ~(seen & self._gates_known(label[part], attend, gates))
        where = open_tiles.nonzero().flatten()
        count = min(len(where), REFINE_PAIRS // self.tile**2)
        for start in range(0, count, REFINE_TILES):
            some = where[start : min(count, start + REFINE_TILES)]
            attend, gates = self._pairs(row[some], col[some], self.tile)
            inside = (row[some, None] * self.tile + torch.arange(self.tile) < self.queries)[:, :, None] & (
                col[some, None] * self.tile + torch.arange(self.tile) < self.keys
            )[:, None, :]
            attend = attend & inside
            found = torch.where(attend.flatten(1).all(1), self.ask.always, self.ask.always | PARTIAL)
            for asked, (open, weight) in zip(self.ask.gates, gates, strict=True):
                found = found | asked.bits(_exact_state(attend, open, weight))
            done[some] = torch.where(attend.flatten(1).any(1), found, EMPTY)
        return done, len(where) - count

    def mostly_partial(self, row: Tensor, col: Tensor, level: int, rows: int, cols: int) -> bool:
        """Whether tiles under some boxes, picked at random, are nearly all PARTIAL. The same boxes give the same answer."""
        generator = torch.Generator().manual_seed(len(row))
        box = torch.randint(len(row), (PROBE_TILES,), generator=generator)
        down, right = (torch.randint(1 << level, (PROBE_TILES,), generator=generator) for _ in range(2))
        row, col = ((row[box] << level) + down).clamp(max=rows - 1), ((col[box] << level) + right).clamp(max=cols - 1)
        attend, _ = self._pairs(row, col, SAMPLE)
        return float(_both(attend).double().mean()) >= PROBE_SHARE

    def _gates_known(self, label: Tensor, attend: Tensor, gates: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Whether every gate is settled by its bounds, or seen to be both 1 and less, or 0 and more, on attended pairs."""
        known = torch.ones_like(label, dtype=torch.bool)
        for asked, (open, weight) in zip(self.ask.gates, gates, strict=True):
            gate = torch.where(open, weight, 0.0)
            mixed = (attend & (gate != 0)).flatten(1).any(1) & (attend & (gate != 1)).flatten(1).any(1)
            known = known & ((state(label, asked.names[0]) != State.MIXED) | mixed)
        return known

    def _pairs(self, row: Tensor, col: Tensor, count: int) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The mask, and (open, weight) of each gate, at `count` x `count` pairs of each tile, spread over it, its corners among them.

        Pairs beyond the end are those of the last token: they repeat.
        """
        within = torch.linspace(0, self.tile - 1, count).round().long()
        q = (row[:, None] * self.tile + within).clamp(max=self.queries - 1)
        k = (col[:, None] * self.tile + within).clamp(max=self.keys - 1)
        attend, *gates = (x.expand(len(row), count, count) for x in self.leaves.pairs(q, k, *self.ask.roots))
        return attend, list(zip(gates[::2], gates[1::2], strict=True))


def _both(holds: Tensor) -> Tensor:
    """Whether something holds on some pairs of a tile and fails on others."""
    return holds.flatten(1).any(1) & ~holds.flatten(1).all(1)


def _exact_state(attend: Tensor, open: Tensor, weight: Tensor) -> Tensor:
    gate = torch.where(open, weight, 0.0)
    every: Callable[[Tensor], Tensor] = lambda holds: (holds | ~attend).flatten(1).all(1)  # noqa: E731
    return torch.where(every(gate == 0), State.NONE, torch.where(every(gate == 1), State.ALL, State.MIXED))
