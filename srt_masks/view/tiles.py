"""The tiles of a plan as a small map in characters: which of them the forward works through, and how."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import torch

from ..compiler.runs import Consumer

if TYPE_CHECKING:
    from ..compiler.plan import GroupPlan

MOST_ROWS = 32


class Shade(Enum):
    """Plain character, colour in a terminal, and the word of the legend."""

    FULL = ("#", "\x1b[48;5;71m  \x1b[0m")
    PARTIAL = ("+", "\x1b[48;5;179m  \x1b[0m")
    EMPTY = (".", "\x1b[38;5;240m··\x1b[0m")

    @property
    def character(self) -> str:
        return self.value[0]

    @property
    def colour(self) -> str:
        return self.value[1]


@dataclass(frozen=True, slots=True)
class TileMap:
    """Cells of `side` x `side` tiles, in the order that the plan visits tokens. A cell is FULL or EMPTY where all its tiles are."""

    side: int
    cells: tuple[tuple[Shade, ...], ...]

    @property
    def plain(self) -> tuple[str, ...]:
        return tuple("".join(s.character for s in row) for row in self.cells)

    def lines(self, colour: bool) -> list[str]:
        size = "" if self.side == 1 else f"a cell is {self.side} x {self.side} tiles, and PARTIAL where they are not all alike:"
        return [*([size] if size else []), *("".join(_cell(s, colour) for s in row).rstrip() for row in self.cells)]


def legend(colour: bool) -> str:
    return "   ".join(f"{_cell(s, colour).rstrip()} {s.name}" for s in Shade)


def _cell(shade: Shade, colour: bool) -> str:
    return shade.colour if colour else f"{shade.character} "


def tile_map(group: GroupPlan, most: int = MOST_ROWS) -> TileMap:
    """At most `most` rows and columns of cells."""
    rows, cols = (-(-n // group.tile) for n in (group.queries, group.keys))
    side = max(1, -(-max(rows, cols) // most))
    runs = group.runs(Consumer.FORWARD)
    row, partial = runs.row // side, runs.is_partial
    wide = -(-cols // side) * side
    tall = -(-rows // side)

    def tiles(which: torch.Tensor) -> torch.Tensor:
        """How many tiles of a kind each cell has: where runs begin less where they end, added up along the columns."""
        changes = torch.zeros(tall * (wide + 1), dtype=torch.int64)
        place = row[which] * (wide + 1) + runs.first[which]
        changes += torch.bincount(place, minlength=len(changes)) - torch.bincount(place + runs.count[which], minlength=len(changes))
        return changes.view(tall, wide + 1).cumsum(1)[:, :wide].reshape(tall, wide // side if wide else 0, side).sum(2)

    full, part = tiles(~partial), tiles(partial)
    down, across = (torch.tensor([min(side, n - at) for at in range(0, n, side)], dtype=torch.int64) for n in (rows, cols))
    every = down[:, None] * across
    shade = torch.where(full + part == 0, 2, torch.where(full == every, 0, 1)).tolist()
    return TileMap(side, tuple(tuple((Shade.FULL, Shade.PARTIAL, Shade.EMPTY)[c] for c in line) for line in shade))
