"""Layouts -> the built-in attributes of every token, as vectors.

Input: a `Layout` and a number of tokens it can have. Output: `Attributes`: int64 vectors of that length, each made when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..grammar.checked import Layout, Section


class Attributes:
    """`pos section step slot role index` of some tokens, each (tokens,) int64; of all up to some place, in order, if `whole`."""

    def __init__(self, tokens: int, make: Callable[[str], Tensor], whole: bool = False):
        self._tokens, self._make, self.whole = tokens, make, whole
        self._made: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return self._tokens

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def between(self, start: int, stop: int) -> Attributes:
        """Those of the tokens start .. stop."""
        return Attributes(stop - start, lambda name: self[name][start:stop])

    def picked(self, where: Tensor) -> Attributes:
        """Those of the tokens where a mask (tokens,) holds."""
        return Attributes(int(where.sum()), lambda name: self[name][where])


def attributes(layout: Layout, tokens: int, data: tuple[int, ...], given: Mapping[str, Tensor]) -> Attributes:
    """The attributes of a layout's first tokens: all of them, or up to the middle of a step. `given` are role, step and slot of a
    `layout given`, without batch axis.
    """

    def make(name: str) -> Tensor:
        match name:
            case "pos":
                return torch.arange(tokens)
            case "index":
                return torch.isin(found["role"], torch.tensor(data, dtype=torch.int64)).cumsum(0) - 1
            case "section" if layout.given is not None:
                return torch.zeros(tokens, dtype=torch.int64)
            case _ if layout.given is not None:
                return given[name][:tokens]
            case _:
                return _column(layout, layout.steps(layout.whole(tokens)), name)[:tokens]

    found = Attributes(tokens, make, whole=True)
    return found


def steps_of(layout: Layout, own: Attributes) -> int:
    """What `steps` means for these tokens."""
    if layout.given is not None:
        return int(own["step"].max()) + 1 if len(own) else 0
    return layout.steps(len(own))


def _column(layout: Layout, steps: int, name: str) -> Tensor:
    """One of section, step, slot and role, section by section."""
    parts = []
    for number, section in enumerate(layout.sections):
        count, rows = steps if section.count is None else section.count, section.rows_per_step
        match name:
            case "section":
                parts.append(torch.full((count * rows,), number))
            case "step":
                parts.append(torch.arange(count)[:, None].expand(count, rows).reshape(-1))
            case _:
                parts.append(_step(section)[name][None].expand(count, rows).reshape(-1))
    return parts[0] if len(parts) == 1 else torch.cat([*parts, torch.zeros(0, dtype=torch.int64)])


def _step(section: Section) -> dict[str, Tensor]:
    """Role and slot of each row of one step; slots count within their role."""
    first: list[int] = []  # the slot each entry begins with
    seen: dict[int, int] = {}
    for role, count in section.rows:
        first.append(seen.get(role, 0))
        seen[role] = first[-1] + count
    roles, counts, begins = (torch.tensor(x, dtype=torch.int64) for x in ([r for r, _ in section.rows], [n for _, n in section.rows], first))
    within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return {"role": roles.repeat_interleave(counts), "slot": begins.repeat_interleave(counts) + within}
