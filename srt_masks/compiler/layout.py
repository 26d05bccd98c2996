"""Layouts -> the built-in attributes of every token, as vectors.

Input: a `Layout` and a number of tokens it can have. Output: int64 vectors of that length, one an attribute.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..diagnostics import InputError
from ..grammar.checked import Layout

Attributes = dict[str, Tensor]

MAX_TOKENS = 2**25  # six attributes of 8 bytes each: 1.5 GiB


def attributes(layout: Layout, tokens: int, data: tuple[int, ...], given: Mapping[str, Tensor]) -> Attributes:
    """`pos section step slot role index`, each (tokens,) int64. `given` are role, step and slot of a `layout given`, without batch axis.

    Raises InputError beyond MAX_TOKENS.
    """
    if tokens > MAX_TOKENS:
        raise InputError(f"{tokens:,} tokens are too many to plan: their attributes alone would take {48 * tokens / 2**30:.0f} GiB; at most {MAX_TOKENS:,}")
    if layout.given is not None:
        columns = {n: given[n][:tokens] for n in ("role", "step", "slot")} | {"section": torch.zeros(tokens, dtype=torch.int64)}
        return _counted(columns, data)
    steps = layout.steps(tokens)
    parts: dict[str, list[Tensor]] = {n: [] for n in ("section", "step", "slot", "role")}
    for number, section in enumerate(layout.sections):
        count = steps if section.count is None else section.count
        role, slot = _step(section.rows)
        parts["role"].append(role.repeat(count))
        parts["slot"].append(slot.repeat(count))
        parts["step"].append(torch.arange(count).repeat_interleave(len(role)))
        parts["section"].append(torch.full((count * len(role),), number))
    return _counted({n: torch.cat(p) if p else torch.zeros(0, dtype=torch.int64) for n, p in parts.items()}, data)


def steps_of(layout: Layout, own: Attributes) -> int:
    """What `steps` means for these tokens."""
    if layout.given is not None:
        return int(own["step"].max()) + 1 if len(own["step"]) else 0
    return layout.steps(len(own["pos"]))


def _counted(columns: Attributes, data: tuple[int, ...]) -> Attributes:
    """With the two attributes that count over all sections."""
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
