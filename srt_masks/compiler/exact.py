"""Single tiles, looked at pair by pair: a few pairs of each first, and all of them only where those are of one mind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .evaluate import Array
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

    def labels(self, row: Array, col: Array, label: Array) -> tuple[Array, int]:
        """Labels of undecided tiles, EMPTY where no pair was found, and how many are still those of the bounds, because the budget ended.

        What bounds have settled of a gate stays; two unlike pairs in a sample settle the rest.
        """
        done = label.copy()
        where = np.arange(len(row))
        for count in SAMPLES:
            most = SAMPLED_PAIRS // count**2
            known = [self._is_known(row[part], col[part], label[part], count) for part in _parts(where, most)]
            where = where[~np.concatenate([*known, np.zeros(0, bool)])]
        count = min(len(where), self.most_pairs // self.tile**2)
        for some in _parts(where[:count], REFINE_TILES):
            attend, gates = self._pairs(row[some], col[some], self.tile)
            within = np.arange(self.tile)[:, None]
            attend = attend & (row[some] * self.tile + within < self.queries).repeat(self.tile, 0)
            attend &= np.tile(col[some] * self.tile + within < self.keys, (self.tile, 1))
            found = np.where(attend.all(0), self.ask.always, self.ask.always | PARTIAL)
            for asked, (open, weight) in zip(self.ask.gates, gates, strict=True):
                found = found | asked.bits(_exact_state(attend, open, weight))
            done[some] = np.where(attend.any(0), found, EMPTY)
        return done, len(where) - count

    def mostly_partial(self, row: Array, col: Array, level: int, rows: int, cols: int) -> bool:
        """Whether tiles under some boxes, picked at random, are nearly all PARTIAL. The same boxes give the same answer."""
        generator = np.random.default_rng(len(row))
        box = generator.integers(len(row), size=PROBE_TILES)
        down, right = generator.integers(1 << level, size=(2, PROBE_TILES))
        row, col = np.minimum((row[box] << level) + down, rows - 1), np.minimum((col[box] << level) + right, cols - 1)
        attend, _ = self._pairs(row, col, SAMPLES[-1])
        return float(_both(attend).mean()) >= PROBE_SHARE

    def _is_known(self, row: Array, col: Array, label: Array, count: int) -> Array:
        """Whether a sample of each tile shows all that its label leaves open."""
        attend, gates = self._pairs(row, col, count)
        known = (label & PARTIAL == 0) | _both(attend)
        for asked, (open, weight) in zip(self.ask.gates, gates, strict=True):
            # Seen to be both 1 and less, or 0 and more, on attended pairs.
            gate = np.where(open, weight, 0.0)
            mixed = (attend & (gate != 0)).any(0) & (attend & (gate != 1)).any(0)
            known &= (state(label, asked.names[0]) != State.MIXED) | mixed
        return known

    def _pairs(self, row: Array, col: Array, count: int) -> tuple[Array, list[tuple[Array, Array]]]:
        """The mask, and (open, weight) of each gate, at `count` x `count` pairs of each tile, spread over it, its corners among them: (pairs, tiles).

        Pairs beyond the end are those of the last token: they repeat.
        """
        within = np.linspace(0, self.tile - 1, count).round().astype(np.int64)[:, None]
        q = np.minimum(row * self.tile + within, self.queries - 1)
        k = np.minimum(col * self.tile + within, self.keys - 1)
        found = self.leaves.sampled(q[:, None], k[None], *self.ask.roots)
        attend, *gates = (np.broadcast_to(x, (count, count, len(row))).reshape(-1, len(row)) for x in found)
        return attend, list(zip(gates[::2], gates[1::2], strict=True))


def _parts(where: Array, most: int) -> list[Array]:
    return [where[begin : begin + most] for begin in range(0, len(where), most)]


def _both(holds: Array) -> Array:
    """Whether something holds on some pairs of a tile and fails on others."""
    return np.logical_or.reduce(holds) & ~np.logical_and.reduce(holds)


def _exact_state(attend: Array, open: Array, weight: Array) -> Array:
    gate = np.where(open, weight, 0.0)
    none, all = ((holds | ~attend).all(0) for holds in (gate == 0, gate == 1))
    return np.where(none, State.NONE, np.where(all, State.ALL, State.MIXED))
