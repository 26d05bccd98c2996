"""The masks of PARTIAL rectangles, looked at once a plan: those that are alike are kept once, and what is dead at their ends is cut off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..compiler.ir import Program
from ..compiler.labels import PARTIAL
from ..compiler.leaves import Leaves
from .rectangles import Rectangle, Stretch
from .tiled_products import mask_of

KEPT = 2**23  # pairs of a group, a byte each; other masks are made whenever they are needed
ALIGNED = 16  # keys: products of other widths are slower


@dataclass(frozen=True)
class Patterns:
    """The masks of one group's rectangles, forward and backward."""

    leaves: Leaves
    program: Program
    _masks: list[Tensor] = field(default_factory=list)
    _places: dict[tuple[int, int, bytes], int] = field(default_factory=dict)  # by what a mask looks like
    _looked: dict[tuple[int, int, tuple[Stretch, ...]], Rectangle | None] = field(default_factory=dict)

    @property
    def kept(self) -> Tensor:
        """bool, flat: one mask behind the other."""
        return torch.cat(self._masks) if self._masks else torch.zeros(0, dtype=torch.bool)

    def looked_at(self, rectangles: Sequence[Rectangle]) -> Iterator[Rectangle]:
        """The same with what their masks show; without those where no pair is attended."""
        for r in rectangles:
            if not r.kind & PARTIAL:
                yield replace(r, has_dead=False, has_blind=False)
                continue
            place = r.rows.start, r.rows.stop, r.stretches  # those of the forward come again in the backward
            if place not in self._looked:
                self._looked[place] = self._look(r)
            known = self._looked[place]
            if known is not None:
                yield replace(known, kind=r.kind, is_first=r.is_first)

    def _look(self, r: Rectangle) -> Rectangle | None:
        mask = mask_of(self.leaves, self.program, r.rows, r.stretches, torch.device("cpu"))
        live, sees = mask.any(0), mask.any(1)
        some = live.nonzero()
        if not len(some):
            return None
        first = int(some[0]) // ALIGNED * ALIGNED
        last = min(r.width, -(-(int(some[-1]) + 1) // ALIGNED) * ALIGNED)
        mask = mask[:, first:last]
        stretches = _trimmed(r.stretches, first, last)
        return replace(r, stretches=stretches, pattern=self._keep(mask), has_dead=len(some) < last - first, has_blind=not bool(sees.all()))

    def _keep(self, mask: Tensor) -> int:
        key = (mask.shape[0], mask.shape[1], np.packbits(mask.numpy()).tobytes())
        if key not in self._places:
            begin = sum(len(x) for x in self._masks)
            if begin + mask.numel() > KEPT:
                return -1
            self._masks.append(mask.flatten())
            self._places[key] = begin
        return self._places[key]


def _trimmed(stretches: tuple[Stretch, ...], first: int, last: int) -> tuple[Stretch, ...]:
    """Of the keys that stretches name, one after the other, number first to last."""
    kept, offset = [], 0
    for s in stretches:
        begin, end = max(first, offset), min(last, offset + s.stop - s.start)
        if begin < end:
            kept.append(Stretch(s.start + begin - offset, s.start + end - offset))
        offset += s.stop - s.start
    return tuple(kept)
