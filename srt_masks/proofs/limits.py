"""How long a claim may take: what builds a question looks at the clock as well as what answers it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


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
