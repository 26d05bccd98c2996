"""The (batch, head) pairs that share a plan: how to read q, k and v at them, and how to add to dk and dv."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Index = slice | Tensor


@dataclass(frozen=True, slots=True)
class Members:
    """Some of a group's (batch, head) pairs: how to index query heads, and their key heads."""

    query: tuple[Index, Index]
    key: tuple[Index, Index]
    key_heads: tuple[int, ...]

    @staticmethod
    def of(batch: tuple[int, ...], heads: tuple[int, ...], heads_per_key: int, device: torch.device) -> Members:
        key_heads = tuple(x // heads_per_key for x in heads)
        return Members(_index(batch, heads, device), _index(batch, key_heads, device), key_heads)


def _index(batch: tuple[int, ...], heads: tuple[int, ...], device: torch.device) -> tuple[Index, Index]:
    """Slices where they can name the members, so that reading makes no copy; else an outer product of indices."""
    spans = [_as_slice(n) for n in (batch, heads)]
    if spans[0] is not None and spans[1] is not None:
        return spans[0], spans[1]
    return torch.tensor(batch, device=device)[:, None], torch.tensor(heads, device=device)[None, :]


def _as_slice(numbers: tuple[int, ...]) -> slice | None:
    if numbers and numbers == tuple(range(numbers[0], numbers[0] + len(numbers))):
        return slice(numbers[0], numbers[0] + len(numbers))
    return None


def add_to_keys(total: Tensor, members: Members, keys: slice, part: Tensor) -> None:
    """Add (batch, heads, keys, dim) to the keys it belongs to; the query heads of a key head are summed, in a fixed order."""
    distinct = sorted(set(members.key_heads))
    if len(distinct) < len(members.key_heads):
        columns = [[i for i, x in enumerate(members.key_heads) if x == head] for head in distinct]
        part = torch.stack([part[:, own].sum(1) for own in columns], 1)
    batch = members.key[0]
    heads = _as_slice(tuple(distinct)) if isinstance(batch, slice) else None
    if heads is not None:
        where: tuple[Index, Index] = (batch, heads)
    else:
        rows = batch if isinstance(batch, Tensor) else torch.arange(batch.start, batch.stop, device=total.device)[:, None]
        where = (rows, torch.tensor(distinct, device=total.device)[None, :])
    total[(*where, keys)] += part
