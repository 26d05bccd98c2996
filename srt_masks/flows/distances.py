"""How far behind the row that reads lies the row it reads, in words: `0`, `1 to 16`, `17 and more`, `1 to 3 ahead`, `itself`, `any`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

MOST_SPANS = 4  # in words; the ranges themselves are all kept


class Unit(StrEnum):
    STEPS = "steps"  # q.step - k.step
    TOKENS = "tokens"  # q.pos - k.pos, within a section of a single step
    NONE = ""  # rows whose steps are not of one clock: sections of which one has a single step


@dataclass(frozen=True, slots=True)
class Distances:
    """Some of the distances that there are between two groups of rows; positive where the row that is read comes first.

    `ranges` ascend, both ends included, and no range passes zero. `least` and `most` are the outermost that there are in this call.
    """

    unit: Unit
    ranges: tuple[tuple[int, int], ...]
    least: int
    most: int
    is_every: bool  # all distances that there are
    is_itself: bool = False  # only rows that read themselves

    def __str__(self) -> str:
        """As a cell of a table whose head names the unit and the direction."""
        if self.is_itself:
            return "itself"
        if self.unit is Unit.NONE or (self.is_every and self.least < self.most):
            return "any"
        spans = [_span(a, b, self.most) for a, b in self.ranges if a >= 0]
        spans += [f"{_span(-b, -a, -self.least)} ahead" for a, b in reversed(self.ranges) if b < 0]
        return ", ".join(_first(spans))

    def after(self) -> str:
        """How far after the row that is read its reader stands: `1 to 16 steps after it`. Empty where that says nothing."""
        if self.unit is Unit.NONE or (self.is_every and self.least < self.most):
            return ""
        if self.is_itself:
            return "that is the row itself"
        same = "in the same step" if self.unit is Unit.STEPS else "at the same place"
        spans = [same for a, _ in self.ranges if a == 0]
        spans += [f"{_counted(max(a, 1), b, self.most, self.unit)} after it" for a, b in self.ranges if b > 0]
        spans += [f"{_counted(-b, -a, -self.least, self.unit)} before it" for a, b in reversed(self.ranges) if b < 0]
        return " or ".join(_first(spans))


def among(unit: Unit, chosen: Collection[int], there: Sequence[int], is_itself: bool = False) -> Distances:
    """Those chosen of the distances that there are (ascending): neighbours among these are one range."""
    ranges: list[list[int]] = []
    follows = False
    for distance in there:
        if distance in chosen:
            if follows and (ranges[-1][0] >= 0) == (distance >= 0):
                ranges[-1][1] = distance
            else:
                ranges.append([distance, distance])
        follows = distance in chosen
    return Distances(unit, tuple((a, b) for a, b in ranges), there[0], there[-1], len(chosen) == len(there), is_itself)


def _span(first: int, last: int, farthest: int) -> str:
    if first == last:
        return str(first)
    return f"{first} and more" if last == farthest else f"{first} to {last}"


def _counted(first: int, last: int, farthest: int, unit: Unit) -> str:
    if first < last and last != farthest:
        return f"{first} to {last} {unit}"
    return f"{first} {unit if first != 1 else unit.removesuffix('s')}{' or more' if first < last else ''}"


def _first(spans: list[str]) -> list[str]:
    return spans if len(spans) <= MOST_SPANS else [*spans[: MOST_SPANS - 1], f"{len(spans) - MOST_SPANS + 1} more ranges"]
