"""Runs -> rectangles: a plan's tiles gathered into few pieces of work, each some rows of queries by stretches of keys.

An operator that works on whole pieces pays by the call, so tiles are gathered: what is FULL and evenly gated is taken in the tallest blocks of rows in
which it is so, from TALLEST tokens down; what is left, in blocks of rows that one mask covers. Every attended pair through which something flows lies in
exactly one rectangle. A rectangle may hold pairs that are not attended or not gated, and then it is PARTIAL, or the gate MIXED.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..compiler.labels import EMPTY, PARTIAL, SHIFTS, State
from ..compiler.runs import Runs

TALLEST = 1024  # tokens: a taller block of rows is no faster
LOWEST = 128  # tokens, for many heads; twice as many for few, where the number of calls counts
MANY = 4  # (batch, head) pairs
BAND = 2**22  # tiles looked at together
MASK = 2**21  # pairs of a mask made at a time
CALL = 20.0  # what a call costs, in masks of a 128 x 128 tile for one head: fewer FULL tiles join the masked rectangle beside them

Labels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Keys start .. stop."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Rectangle:
    rows: slice
    kind: int  # a label: PARTIAL or FULL, and the states of the gates that the consumer looks at
    is_first: bool  # nothing before it lies in its rows
    stretches: tuple[Stretch, ...]
    # Of a PARTIAL one, once its mask has been looked at (patterns.py):
    pattern: int = -1  # where the mask begins among those that are kept; -1: it is not
    has_dead: bool = True  # keys that none of the rows attends
    has_blind: bool = True  # rows that attend none of the keys

    @property
    def height(self) -> int:
        return self.rows.stop - self.rows.start

    @property
    def width(self) -> int:
        return sum(s.stop - s.start for s in self.stretches)


@dataclass(frozen=True, slots=True)
class Cover:
    """Rectangles as tensors: number i has the stretches ptr[i] .. ptr[i + 1]."""

    fields: Tensor  # (rectangles, 7) int64: first row, last row + 1, kind, is_first, pattern, has_dead, has_blind
    ptr: Tensor  # (rectangles + 1,) int64
    stretches: Tensor  # (stretches, 2) int64: start, stop

    @staticmethod
    def of(rectangles: Sequence[Rectangle]) -> Cover:
        fields = [(r.rows.start, r.rows.stop, r.kind, r.is_first, r.pattern, r.has_dead, r.has_blind) for r in rectangles]
        ptr = [0, *accumulate(len(r.stretches) for r in rectangles)]
        stretches = [(s.start, s.stop) for r in rectangles for s in r.stretches]
        return Cover(torch.tensor(fields, dtype=torch.int64).view(-1, 7), torch.tensor(ptr), torch.tensor(stretches, dtype=torch.int64).view(-1, 2))

    @property
    def tensors(self) -> list[Tensor]:
        return [self.fields, self.ptr, self.stretches]

    def __iter__(self) -> Iterator[Rectangle]:
        ptr, stretches = self.ptr.tolist(), [Stretch(*x) for x in self.stretches.tolist()]
        for i, (start, stop, kind, is_first, pattern, has_dead, has_blind) in enumerate(self.fields.tolist()):
            own = tuple(stretches[ptr[i] : ptr[i + 1]])
            yield Rectangle(slice(start, stop), kind, bool(is_first), own, pattern, bool(has_dead), bool(has_blind))


def cover(attended: Runs, flowing: Runs | None, queries: int, keys: int, tile: int, members: int) -> list[Rectangle]:
    """Rectangles of the tiles of `attended`, a forward; or those of `flowing`, a backward over the same tiles, its gates by their states.
    `members` is how many (batch, head) pairs share them."""
    rows, cols = -(-queries // tile), -(-keys // tile)
    lowest = max(1, (LOWEST if members >= MANY else 2 * LOWEST) // tile)
    tallest = max(lowest, TALLEST // tile)
    least = CALL / max(1, members) * (128 / tile) ** 2
    band = max(tallest, BAND // max(1, cols) // tallest * tallest)
    pieces: list[_Pieces] = []
    for top in range(0, rows, band):
        grid = _grid(attended, flowing, top, min(rows, top + band), cols)
        height = tallest
        while height > lowest:
            found = _even(grid, height, least, flowing is not None)
            pieces.append(_pieces(found, height, top, cols))
            height //= 2
        pieces.append(_pieces(_joined(grid, lowest, least, flowing is not None), lowest, top, max(1, MASK // (lowest * tile * tile))))
    return list(_rectangles(pieces, queries, keys, tile, rows))


# ------------------------------------------------------------------------------------------------ labels of tiles and of blocks


def _grid(attended: Runs, flowing: Runs | None, top: int, bottom: int, cols: int) -> Labels:
    """(rows, cols): the label of every tile, EMPTY where nothing is attended. Attended tiles through which nothing flows have all gates NONE."""
    grid = np.full((bottom - top, cols), EMPTY, np.uint8)
    for runs in (attended,) if flowing is None else (attended, flowing):
        ptr, first, count, kind = (np.asarray(x).tolist() for x in runs.tensors)
        for row in range(top, bottom):
            for i in range(ptr[row], ptr[row + 1]):
                grid[row - top, first[i] : first[i] + count[i]] = kind[i]
    return grid


def _blocks(grid: Labels, height: int) -> Labels:
    """(blocks, height, cols); the last row stands for those below it."""
    short = -len(grid) % height
    padded = np.concatenate([grid, np.repeat(grid[-1:], short, 0)]) if short else grid
    return padded.reshape(len(padded) // height, height, grid.shape[1])


def _even(grid: Labels, height: int, least: float, has_gates: bool) -> Labels:
    """(blocks, cols): the labels of columns that are FULL and gated alike in a whole block, at least so many tiles of it. They leave the grid."""
    blocks = _blocks(grid, height)
    found = blocks[:, 0].copy()
    is_even = (blocks == found[:, None]).all(1) & (found != EMPTY) & (found & PARTIAL == 0)
    if has_gates:
        for gate in SHIFTS:
            is_even &= _state(found, gate) != State.MIXED
    is_even &= (is_even.sum(1, keepdims=True) * height) >= least
    grid[np.repeat(is_even, height, 0)[: len(grid)]] = EMPTY
    found[~is_even] = EMPTY
    return _flowing(found, has_gates)


def _joined(grid: Labels, height: int, least: float, has_gates: bool) -> Labels:
    """(blocks, cols): one label for the tiles that a block has in a column: PARTIAL unless all are FULL, a gate MIXED unless all agree."""
    blocks = _blocks(grid, height)
    there = blocks != EMPTY
    is_partial = ~there.all(1) | (there & (blocks & PARTIAL == PARTIAL)).any(1)
    found = is_partial.astype(np.uint8) * PARTIAL
    for gate, shift in SHIFTS.items() if has_gates else ():
        states = _state(blocks, gate)
        low, high = np.where(there, states, 3).min(1), np.where(there, states, 0).max(1)
        found |= np.where(low == high, low, int(State.MIXED)).astype(np.uint8) << shift
    found[~there.any(1)] = EMPTY
    found = _flowing(found, has_gates)
    # A few FULL columns cost less under the mask of their neighbours than in a call of their own.
    for label in np.unique(found[(found != EMPTY) & (found & PARTIAL == 0)]).tolist():
        few = (found == label).sum(1, keepdims=True) * height < least
        found[(found == label) & few & (found == label | PARTIAL).any(1, keepdims=True)] = label | PARTIAL
    return found


def _state(labels: Labels, gate: str) -> Labels:
    return (labels >> np.uint8(SHIFTS[gate])) & np.uint8(3)


def _flowing(found: Labels, has_gates: bool) -> Labels:
    """In a backward, blocks through which nothing flows are nobody's."""
    if has_gates:
        found[(found != EMPTY) & (found & ~np.uint8(PARTIAL) == 0)] = EMPTY
    return found


# ------------------------------------------------------------------------------------------------ labels -> rectangles


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Stretches of tiles, those of one rectangle side by side: the block's first row, its height, a label, the part of its columns."""

    row: NDArray[np.int64]
    height: int
    kind: NDArray[np.int64]
    part: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]  # one more than the last


def _pieces(found: Labels, height: int, top: int, widest: int) -> _Pieces:
    """The stretches of equal labels; none crosses a multiple of `widest` columns, and those between two multiples are one part."""
    blocks, cols = found.shape
    new = np.ones(found.shape, bool)
    new[:, 1:] = found[:, 1:] != found[:, :-1]
    new[:, :: max(1, widest)] = True
    begin = np.flatnonzero(new)
    end = np.append(begin[1:], blocks * cols)
    kind = found.reshape(-1)[begin].astype(np.int64)
    kept = np.flatnonzero(kind != EMPTY)
    begin, end, kind = begin[kept], end[kept], kind[kept]
    block, first = np.divmod(begin, max(1, cols))
    order = np.lexsort((first, first // max(1, widest), kind, block))
    block, first, kind, width = block[order], first[order], kind[order], (end - begin)[order]
    return _Pieces(top + block * height, height, kind, first // max(1, widest), first, first + width)


def _rectangles(pieces: list[_Pieces], queries: int, keys: int, tile: int, rows: int) -> Iterator[Rectangle]:
    seen = [False] * rows
    for p in pieces:
        new = np.ones(len(p.row), bool)
        new[1:] = (p.row[1:] != p.row[:-1]) | (p.kind[1:] != p.kind[:-1]) | (p.part[1:] != p.part[:-1])
        begin = np.flatnonzero(new).tolist()
        stretches = [Stretch(*x) for x in zip((p.first * tile).tolist(), np.minimum(p.last * tile, keys).tolist(), strict=True)]
        for i, j in pairwise([*begin, len(stretches)]):
            row = int(p.row[i])
            yield Rectangle(slice(row * tile, min(queries, (row + p.height) * tile)), int(p.kind[i]), not seen[row], tuple(stretches[i:j]))
            seen[row : row + p.height] = [True] * (min(rows, row + p.height) - row)
