"""Single tiles, looked at pair by pair: a few pairs of each first, and all of them only where those are of one mind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .labels import EMPTY, PARTIAL, State, state
from .leaves import Leaves
from .questions import Questions

REFINE_PAIRS = 2_000_000  # pairs evaluated to settle tiles that bounds leave open
REFINE_TILES = 64  # tiles evaluated at once
SAMPLES = (2, 4, 8)  # pairs along a side of an undecided tile that are looked at first: its corners, then more where those are alike
SAMPLED_PAIRS = 262_144  # pairs sampled at once
PROBE_TILES = 4096
PROBE_SHARE = 0.97


@dataclass(frozen=True, slots=True)
class Exact:
    """The tiles of one mask."""

    ask: Questions
    leaves: Leaves
    queries: int
    keys: int
    tile: int
    most_pairs: int = REFINE_PAIRS

    def labels(self, row: Tensor, col: Tensor, label: Tensor) -> tuple[Tensor, int]:
        """Labels of undecided tiles, EMPTY where no pair was found, and how many are still those of the bounds, because the budget ended.

        What bounds have settled of a gate stays; two unlike pairs in a sample settle the rest.
        """
        done = label.clone()
        where = torch.arange(len(row))
        for count in SAMPLES:
            known = [self._is_known(row[part], col[part], label[part], count) for part in where.split(SAMPLED_PAIRS // count**2)]
            where = where[~torch.cat([*known, torch.zeros(0, dtype=torch.bool)])]
        count = min(len(where), self.most_pairs // self.tile**2)
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
        attend, _ = self._pairs(row, col, SAMPLES[-1])
        return float(_both(attend).double().mean()) >= PROBE_SHARE

    def _is_known(self, row: Tensor, col: Tensor, label: Tensor, count: int) -> Tensor:
        """Whether a sample of each tile shows all that its label leaves open."""
        attend, gates = self._pairs(row, col, count)
        return ((label & PARTIAL == 0) | _both(attend)) & self._gates_known(label, attend, gates)

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
