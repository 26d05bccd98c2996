"""How long a claim may take: what builds a question looks at the clock as well as what answers it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ..diagnostics import InputError

MOST_SECONDS = 7 * 24 * 60 * 60  # z3 counts milliseconds in 32 bits


class Undecided(Exception):
    """A limit was met, or z3 gave up; the message says which."""


@dataclass
class Budget:
    """Seconds for one claim."""

    seconds: float
    begun: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.begun)

    def check(self) -> None:
        """Raises Undecided when they are spent."""
        if self.left <= 0:
            raise Undecided(f"no answer within {self.seconds:g} s")


def check_seconds(seconds: Any) -> None:
    """Raises InputError for what is no number of seconds to think."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MOST_SECONDS:
        raise InputError(f"seconds is a number above 0, of at most {MOST_SECONDS:,} (a week); got {seconds!r}")
