"""Rows of memory, padded or packed -> sequences that each begin at 0 and have a length, and their results back in memory's order.

A spec speaks of a sequence by itself: padding is no part of it, wherever it stands, nor are the documents beside it.
Their types are tuples, as torch.compile makes no frozen dataclass.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Gather(NamedTuple):
    """`source` (rows, width) int64: the token of the flattened (batch * tokens) that stands there; `home` (batch, tokens) int64: where in the
    flattened (rows * width) each token went; `batch_row` (rows,) int64: whose tokens they are."""

    source: Tensor
    home: Tensor
    batch_row: Tensor

    def take(self, x: Tensor) -> Tensor:
        """(batch, heads, tokens, head_dim) -> (rows, heads, width, head_dim)."""
        return self.take_rows(x.transpose(1, 2)).transpose(1, 2)

    def take_rows(self, x: Tensor) -> Tensor:
        """(batch, tokens, ...) -> (rows, width, ...)."""
        return x.reshape(-1, *x.shape[2:])[self.source]

    def put_back(self, x: Tensor) -> Tensor:
        """(rows, heads, width, head_dim) -> (batch, heads, tokens, head_dim)."""
        flat = x.transpose(1, 2).reshape(-1, x.shape[1], x.shape[3])
        return flat[self.home].transpose(1, 2)


class Sequences(NamedTuple):
    """How the rows of a call are read. `keys` and `queries` are None where memory's order is the spec's; `lengths` (rows,) None where all tokens are real;
    `starts` (rows,) the position of the first query of each row, a number where they are one, None where every token asks."""

    keys: Gather | None = None
    queries: Gather | None = None
    lengths: Tensor | None = None
    starts: Tensor | int | None = None


def real_first(real: Tensor) -> Gather:
    """The real tokens (batch, tokens) of each row in front, in their order, and its padding behind."""
    batch, tokens = real.shape
    order = (~real).to(torch.int8).argsort(dim=1, stable=True)
    first = torch.arange(batch, device=real.device)[:, None] * tokens
    return Gather(order + first, order.argsort(dim=1) + first, torch.arange(batch, device=real.device))


def begin_anew(positions: Tensor, real: Tensor | None, often: bool) -> Tensor:
    """Where a document begins behind another: positions (batch, tokens) go back from one token of a row to its next, or stay, unless several tokens share one
    (`often`). Padding, where `real` is false, is stepped over."""
    place = torch.arange(positions.shape[1], device=positions.device).expand(positions.shape)
    last = (place if real is None else torch.where(real, place, -1)).cummax(1).values  # the last token up to here
    before = torch.nn.functional.pad(last[:, :-1], (1, 0), value=-1)
    step = positions - positions.gather(1, before.clamp(min=0))
    back = (before >= 0) & (step < 0 if often else step <= 0)
    return back if real is None else back & real


def documents_apart(documents: Tensor) -> tuple[Gather, Tensor]:
    """Each document a row of its own, and their lengths. `documents` (batch, tokens): neighbours of one number are one document."""
    batch, tokens = documents.shape
    device = documents.device
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    number = begins.flatten().cumsum(0) - 1  # of each token's document
    first = begins.flatten().nonzero()[:, 0]
    place = torch.arange(batch * tokens, device=device) - first[number]
    lengths = torch.bincount(number, minlength=len(first))
    width = int(lengths.max()) if len(lengths) else 0
    columns = torch.arange(width, device=device)
    # What stands behind a document's end is read by nobody: any token does.
    source = torch.where(columns < lengths[:, None], first[:, None] + columns, 0)
    return Gather(source, (number * width + place).view(batch, tokens), first // max(1, tokens)), lengths
