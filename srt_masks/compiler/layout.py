"""Layouts -> the built-in attributes of every token.

Input: a `Layout` and a number of tokens it can have. Output: `Attributes`: int64 vectors, each made when it is first asked for, whole or for some
tokens alone; and where they are regular: `Stretch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..grammar.checked import ATTRIBUTES, Layout, Section

Array = NDArray[Any]
AtPlaces = Callable[[Array], Callable[[str], Array]]  # places -> the attribute of a name there


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens begin .. stop of one section, in which pos, step and index never fall, and role and slot are the same again every `period` tokens.

    Where a section is a single step, each of its entries is a stretch: one role, and a slot that rises. A period of 0: nothing is the same again.
    """

    begin: int
    stop: int
    period: int


class Attributes:
    """`pos section step slot role index` of some tokens, each (tokens,) int64.

    `whole`: every token up to some place, in order. `stretches` cover the tokens in order; there are none where the order is any. `regular` are the
    attributes that keep what a `Stretch` promises.
    """

    def __init__(
        self, tokens: int, make: Callable[[str], Tensor], at_places: AtPlaces, *,
        total: int | None = None, stretches: tuple[Stretch, ...] = (), regular: frozenset[str] = frozenset(),
    ):  # fmt: skip
        self._tokens, self._make, self.at_places = tokens, make, at_places
        self._made: dict[str, Tensor] = {}
        self.whole = total is None
        self.total = tokens if total is None else total  # one more than the last position
        self.stretches, self.regular = stretches, regular

    def __len__(self) -> int:
        return self._tokens

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def at(self, index: Tensor, stretches: tuple[Stretch, ...] = ()) -> Attributes:
        """Those of some tokens, in the order of `index` (any number,), which may name a token twice."""
        places = index.numpy()
        return Attributes(
            len(index), lambda name: torch.from_numpy(self.at_places(places)(name)), lambda more: self.at_places(places[more]), total=self.total,
            stretches=stretches, regular=self.regular if stretches else frozenset(),
        )  # fmt: skip

    def between(self, start: int, stop: int) -> Attributes:
        """Those of the tokens start .. stop."""
        clipped = (Stretch(max(s.begin, start) - start, min(s.stop, stop) - start, s.period) for s in self.stretches)
        return self.at(torch.arange(start, stop), tuple(s for s in clipped if s.begin < s.stop))

    def picked(self, where: Tensor) -> Attributes:
        """Those of the tokens where a mask (tokens,) holds. They keep their order, and what rises still does; rows no longer repeat."""
        index = where.nonzero().flatten()
        edges = torch.searchsorted(index, torch.tensor([[s.begin, s.stop] for s in self.stretches], dtype=torch.int64).reshape(-1, 2)).tolist()
        kept = tuple(Stretch(begin, stop, int(s.period == 1)) for s, (begin, stop) in zip(self.stretches, edges, strict=True) if begin < stop)
        return self.at(index, kept)


def attributes(layout: Layout, tokens: int, data: tuple[int, ...], given: Mapping[str, Tensor]) -> Attributes:
    """The attributes of a layout's first tokens: all of them, or up to the middle of a step. `given` are role, step and slot of a
    `layout given`, without batch axis.
    """
    if layout.given is not None:
        return _given(tokens, data, given)
    sections = _Sections(layout, tokens, data)
    return Attributes(tokens, sections.column, sections.at_places, stretches=sections.stretches, regular=frozenset(ATTRIBUTES))


def _given(tokens: int, data: tuple[int, ...], given: Mapping[str, Tensor]) -> Attributes:
    """Role, step and slot are what they are; pos and index rise."""

    def make(name: str) -> Tensor:
        match name:
            case "pos":
                return torch.arange(tokens)
            case "section":
                return torch.zeros(tokens, dtype=torch.int64)
            case "index":
                return torch.isin(found["role"], torch.tensor(data, dtype=torch.int64)).cumsum(0) - 1
            case _:
                return given[name][:tokens]

    def at_places(index: Array) -> Callable[[str], Array]:
        return lambda name: index if name == "pos" else found[name].numpy()[index]

    found = Attributes(tokens, make, at_places, stretches=(Stretch(0, tokens, 0),) if tokens else (), regular=frozenset({"pos", "section", "index"}))
    return found


def steps_of(layout: Layout, own: Attributes) -> int:
    """What `steps` means for these tokens."""
    if layout.given is not None:
        return int(own["step"].max()) + 1 if len(own) else 0
    return layout.steps(len(own))


@dataclass(frozen=True)
class _Sections:
    """The attributes of a layout that has sections, of all its first tokens or at some positions."""

    layout: Layout
    tokens: int
    data: tuple[int, ...]

    @cached_property
    def parts(self) -> list[tuple[Section, int, int]]:
        """Each section, its steps, and the position it begins at."""
        steps, begin, found = self.layout.steps(self.layout.whole(self.tokens)), 0, []
        for section in self.layout.sections:
            count = steps if section.count is None else section.count
            found.append((section, count, begin))
            begin += count * section.rows_per_step
        return found

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        found: list[Stretch] = []
        for section, count, begin in self.parts:
            if count == 1:
                for _, rows in section.rows:
                    found.append(Stretch(begin, begin + rows, 1))
                    begin += rows
            else:
                found.append(Stretch(begin, begin + count * section.rows_per_step, section.rows_per_step))
        return tuple(replace(s, stop=min(s.stop, self.tokens)) for s in found if s.begin < min(s.stop, self.tokens))

    def column(self, name: str) -> Tensor:
        """One attribute of every token, section by section."""
        if name == "pos":
            return torch.arange(self.tokens)
        if name == "index":
            return torch.isin(self.column("role"), torch.tensor(self.data, dtype=torch.int64)).cumsum(0) - 1
        found = []
        for number, (section, count, _) in enumerate(self.parts):
            rows = section.rows_per_step
            match name:
                case "section":
                    found.append(torch.full((count * rows,), number))
                case "step":
                    found.append(torch.arange(count)[:, None].expand(count, rows).reshape(-1))
                case _:
                    found.append(torch.from_numpy(_step(section)[name])[None].expand(count, rows).reshape(-1))
        return (found[0] if len(found) == 1 else torch.cat([*found, torch.zeros(0, dtype=torch.int64)]))[: self.tokens]

    def at_places(self, index: Array) -> Callable[[str], Array]:
        """The attributes at some positions, computed from them."""
        return _Places(self, index).attribute

    # A section that has no token is never looked up: the last of several that begin at one position is the one that has it.

    @cached_property
    def begins(self) -> Array:
        return np.array([begin for _, _, begin in self.parts], dtype=np.int64)

    @cached_property
    def rows(self) -> Array:
        return np.array([section.rows_per_step for section, _, _ in self.parts], dtype=np.int64)

    @cached_property
    def offsets(self) -> Array:
        return self.rows.cumsum() - self.rows

    @cached_property
    def flat(self) -> dict[str, Array]:
        """Role and slot of the rows of one step of each section, end to end; and the data tokens of that step up to each row."""
        steps = [_step(section) for section, _, _ in self.parts]
        counts = [np.isin(s["role"], self.data).cumsum() for s in steps]
        return {"role": np.concatenate([s["role"] for s in steps]), "slot": np.concatenate([s["slot"] for s in steps]), "data": np.concatenate(counts)}

    @cached_property
    def data_per_step(self) -> Array:
        return np.array([sum(n for role, n in section.rows if role in self.data) for section, _, _ in self.parts])

    @cached_property
    def data_before(self) -> Array:
        found = self.data_per_step * np.array([count for _, count, _ in self.parts])
        return found.cumsum() - found


@dataclass(frozen=True, eq=False)
class _Places:
    """Some positions of the sections of a layout."""

    sections: _Sections
    index: Array

    @cached_property
    def section(self) -> Array | int:
        if len(self.sections.parts) == 1:
            return 0
        return np.searchsorted(self.sections.begins, self.index, side="right") - 1

    @cached_property
    def within(self) -> Array:
        """The place in the section."""
        return self.index if isinstance(self.section, int) else self.index - self.sections.begins[self.section]

    @cached_property
    def step(self) -> Array:
        return self.within // self.sections.rows[self.section]

    @cached_property
    def row(self) -> Array:
        """The row of the step, in the steps of all sections end to end."""
        row = self.within - self.step * self.sections.rows[self.section]
        return row if isinstance(self.section, int) else row + self.sections.offsets[self.section]

    def attribute(self, name: str) -> Array:
        match name:
            case "pos":
                return self.index
            case "section":
                return np.full_like(self.index, self.section)
            case "step":
                return self.step
            case "index":
                sections = self.sections
                return sections.data_before[self.section] + self.step * sections.data_per_step[self.section] + sections.flat["data"][self.row] - 1
            case _:
                return self.sections.flat[name][self.row]


def _step(section: Section) -> dict[str, Array]:
    """Role and slot of each row of one step; slots count within their role."""
    first: list[int] = []  # the slot each entry begins with
    seen: dict[int, int] = {}
    for role, count in section.rows:
        first.append(seen.get(role, 0))
        seen[role] = first[-1] + count
    roles, counts, begins = (np.array(x, dtype=np.int64) for x in ([r for r, _ in section.rows], [n for _, n in section.rows], first))
    within = np.arange(counts.sum()) - (counts.cumsum() - counts).repeat(counts)
    return {"role": roles.repeat(counts), "slot": begins.repeat(counts) + within}
