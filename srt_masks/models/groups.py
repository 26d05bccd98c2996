"""Rows that share weights: which set of weights each row of a call goes through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Groups:
    """A partition of some rows: `members[g]` are those of set g, in order; `back` undoes their concatenation. No members: all rows go through set 0."""

    members: tuple[Tensor, ...] = ()
    back: Tensor | None = None

    @staticmethod
    def of(number: Tensor, count: int, device: torch.device) -> Groups:
        """`number` (rows,): the set of each row, on the CPU; `count` sets there are."""
        if count == 1:
            return TOGETHER
        members = [(number == g).nonzero().flatten() for g in range(count)]
        return Groups(tuple(m.to(device) for m in members), torch.cat(members).argsort().to(device))

    def apply(self, layers: Sequence[Layer], x: Tensor) -> Tensor:
        """Each row of x (rows, ...) through the layer of its set. Gathers both ways, of every row once: gradients of one set never meet another's."""
        if self.back is None:
            return layers[0](x)
        return torch.cat([layer(x.index_select(0, rows)) for layer, rows in zip(layers, self.members, strict=True)]).index_select(0, self.back)


TOGETHER = Groups()
