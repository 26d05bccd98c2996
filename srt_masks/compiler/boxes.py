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
class Questions:
    """What is asked of a box: the mask, and for each gate whether it is open anywhere, and everywhere, that is attended."""

    attend: Expr
    gates: tuple[tuple[Expr, Expr, Expr], ...]  # (attended and open, open or not attended, weight) for q, k, v
    split: Split


def questions(program: Program) -> Questions:
    attend = program.attend

    def ask(gate: Gate) -> tuple[Expr, Expr, Expr]:
        somewhere = simplified(ir.apply(Op.AND, attend, gate.open))
        everywhere = simplified(ir.apply(Op.OR, ir.apply(Op.NOT, attend), gate.open))
        return (attend if gate.open is ir.TRUE else somewhere), (ir.TRUE if gate.open is ir.TRUE else everywhere), gate.weight

    gates = tuple(ask(g) for g in program.gates)
    return Questions(attend, gates, split(*program.pair_roots, *(e for g in gates for e in g)))


def classify(ask: Questions, program: Program, leaves: Leaves, queries: int, keys: int, tile: int) -> Boxes:
    """The boxes of one (row of the batch, layer, head). `leaves` belong to `ask.split`."""
    rows, cols = -(-queries // tile), -(-keys // tile)
    kept: list[Tensor] = []
    evaluated = 0
    level = 0
    while max(rows, cols) > COARSEST << level:
        level += 1
    pyramid = _pyramid(leaves, tile, level)
    row, col = torch.meshgrid(torch.arange(-(-rows // (1 << level))), torch.arange(-(-cols // (1 << level))), indexing="ij")
    row, col = row.flatten(), col.flatten()
    inexact = 0
    while len(row):
        evaluated += len(row)
        attend, label = _label(ask, leaves, pyramid[level], row, col)
        side = tile << level
        whole = ((row + 1) * side <= queries) & ((col + 1) * side <= keys)
        settled = attend.must & whole & _settled(label)
        empty = ~attend.may
        if level == 0:
            label = label | torch.where(attend.must & whole, 0, PARTIAL)
            open = ~settled & ~empty
            if bool(open.any()):
                where = open.nonzero().flatten()
                exact = _refine(program, leaves, row[where], col[where], queries, keys, tile)
                label[where[: len(exact)]] = exact
                inexact = len(where) - len(exact)
                empty = empty | (label == EMPTY)
            keep = ~empty
            kept.append(_pack(level, row[keep], col[keep], label[keep]))
            break
        kept.append(_pack(level, row[settled], col[settled], label[settled]))
        undecided = ~settled & ~empty
        row, col = _children(row[undecided], col[undecided], level, rows, cols)
        level -= 1
    packed = torch.cat([*kept, torch.zeros(0, 4, dtype=torch.int64)])
    return Boxes(packed[:, 0].to(torch.uint8), packed[:, 1].int(), packed[:, 2].int(), packed[:, 3].to(torch.uint8), evaluated, inexact)


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
    short = -len(lo) % size
    if short:
        lo, hi = torch.cat([lo, lo[-1:].expand(short)]), torch.cat([hi, hi[-1:].expand(short)])
    if lo.dtype is torch.bool:
        lo, hi = lo.to(torch.uint8), hi.to(torch.uint8)
    return lo.view(-1, size).amin(1), hi.view(-1, size).amax(1)


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
    label = torch.zeros_like(row)
    for name, (somewhere, everywhere, weight) in zip("qkv", ask.gates, strict=True):
        w = of[weight]
        none = ~of[somewhere].may | ((w.lo == 0) & (w.hi == 0))
        all = of[everywhere].must & (w.lo == 1) & (w.hi == 1)
        label = label | (torch.where(none, State.NONE, torch.where(all, State.ALL, State.MIXED)) << SHIFTS[name])
    return of[ask.attend], label


def _settled(label: Tensor) -> Tensor:
    mixed = torch.zeros_like(label, dtype=torch.bool)
    for name in SHIFTS:
        mixed = mixed | (state(label, name) == State.MIXED)
    return ~mixed


# --------------------------------------------------------------------------------------------------- exact tiles


def _refine(program: Program, leaves: Leaves, row: Tensor, col: Tensor, queries: int, keys: int, tile: int) -> Tensor:
    """Exact labels of single tiles, in order, as many as the budget allows; EMPTY where no pair was found."""
    count = min(len(row), REFINE_PAIRS // tile**2)
    within = torch.arange(tile)
    labels = []
    for start in range(0, count, REFINE_TILES):
        end = min(count, start + REFINE_TILES)
        q = row[start:end, None] * tile + within  # (tiles, tile)
        k = col[start:end, None] * tile + within
        inside = (q < queries)[:, :, None] & (k < keys)[:, None, :]
        attend, *gates = leaves.pairs(q.clamp(max=queries - 1), k.clamp(max=keys - 1), *program.pair_roots)
        attend = attend & inside
        label = torch.where(attend.flatten(1).all(1), 0, PARTIAL)
        for i, name in enumerate("qkv"):
            label = label | (_exact_state(attend, gates[2 * i], gates[2 * i + 1]) << SHIFTS[name])
        labels.append(torch.where(attend.flatten(1).any(1), label, EMPTY))
    return torch.cat([*labels, row[:0]])


def _exact_state(attend: Tensor, open: Tensor, weight: Tensor) -> Tensor:
    gate = torch.where(open, weight, 0.0)
    every: Callable[[Tensor], Tensor] = lambda holds: (holds | ~attend).flatten(1).all(1)  # noqa: E731
    return torch.where(every(gate == 0), State.NONE, torch.where(every(gate == 1), State.ALL, State.MIXED))
