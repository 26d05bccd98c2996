"""Layouts -> the built-in attributes of every token, as vectors.

Input: a `Layout` and a number of tokens it can have. Output: int64 vectors of that length, one an attribute.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..diagnostics import InputError
from ..grammar.checked import Layout

Attributes = dict[str, Tensor]

MAX_TOKENS = 2**25  # six attributes of 8 bytes each: 1.5 GiB


def attributes(layout: Layout, tokens: int, data: tuple[int, ...]) -> Attributes:
    """`pos section step slot role index`, each (tokens,) int64. Raises InputError beyond MAX_TOKENS."""
    if tokens > MAX_TOKENS:
        raise InputError(f"{tokens:,} tokens are too many to plan: their attributes alone would take {48 * tokens / 2**30:.0f} GiB; at most {MAX_TOKENS:,}")
    steps = layout.steps(tokens)
    parts: dict[str, list[Tensor]] = {n: [] for n in ("section", "step", "slot", "role")}
    for number, section in enumerate(layout.sections):
        count = steps if section.count is None else section.count
        role, slot = _step(section.rows)
        parts["role"].append(role.repeat(count))
        parts["slot"].append(slot.repeat(count))
        parts["step"].append(torch.arange(count).repeat_interleave(len(role)))
        parts["section"].append(torch.full((count * len(role),), number))
    columns = {n: torch.cat(p) if p else torch.zeros(0, dtype=torch.int64) for n, p in parts.items()}
    is_data = torch.isin(columns["role"], torch.tensor(data, dtype=torch.int64))
    columns["index"] = is_data.long().cumsum(0) - 1
    columns["pos"] = torch.arange(len(is_data))
    return columns


def _step(rows: tuple[tuple[int, int], ...]) -> tuple[Tensor, Tensor]:
    """Role and slot of each row of one step; slots count within their role."""
    first: list[int] = []  # the slot each entry begins with
    seen: dict[int, int] = {}
    for role, count in rows:
        first.append(seen.get(role, 0))
        seen[role] = first[-1] + count
    roles, counts, begins = (torch.tensor(x, dtype=torch.int64) for x in ([r for r, _ in rows], [n for _, n in rows], first))
    within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return roles.repeat_interleave(counts), begins.repeat_interleave(counts) + within
