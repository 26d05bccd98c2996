"""How long a claim may take: what builds a question looks at the clock as well as what answers it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from ..diagnostics import InputError

MOST_SECONDS = 7 * 24 * 60 * 60  # z3 counts milliseconds in 32 bits


class Undecided(Exception):
    """A limit was met, or z3 gave up; the message says which."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds for one claim. `spent`: what to say when there are none left; `is_share`: there would be more, were there fewer claims."""

    seconds: float
    spent: str
    begun: float = field(default_factory=time.monotonic)
    part: float = 1.0  # of the seconds, the first so much
    is_share: bool = False

    @property
    def until(self) -> float:
        """On the clock of `time.monotonic()`."""
        return self.begun + self.part * self.seconds

    @property
    def left(self) -> float:
        return self.until - time.monotonic()

    def first(self, part: float) -> Budget:
        """The same seconds, of which the rest is kept for what comes after."""
        return replace(self, part=part)

    def check(self) -> None:
        """Raises Undecided when they are spent."""
        if self.left <= 0:
            raise Undecided(self.spent)


def within(seconds: float) -> Budget:
    return Budget(seconds, f"no answer within {seconds:g} s")


def check(budget: Budget | None) -> None:
    """For what has a limit where it is part of a claim, and else none. Raises Undecided."""
    if budget is not None:
        budget.check()


def check_seconds(seconds: Any) -> None:
    """Raises InputError for what is no number of seconds to think."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MOST_SECONDS:
        raise InputError(f"seconds is a number above 0, of at most {MOST_SECONDS:,} (a week); got {seconds!r}")
