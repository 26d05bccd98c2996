"""What a few runs say of a mean: it, and a 95% interval by Student's t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Any


@dataclass(frozen=True, slots=True)
class Interval:
    """The mean of `count` numbers, and half the width of its 95% interval: None of a single number, which says nothing of its own spread."""

    mean: float
    half: float | None
    count: int

    @staticmethod
    def of(values: Sequence[float]) -> Interval:
        """Of one number or more. Of differences between runs of the same seeds it is the paired interval."""
        if len(values) == 1:
            return Interval(values[0], None, 1)
        return Interval(fmean(values), quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values)), len(values))

    def __str__(self) -> str:
        return f"{self.mean:.4f}" + ("" if self.half is None else f" ±{self.half:.4f}")


@cache
def quantile(freedom: int, tail: float = 0.025) -> float:
    """The t beyond which a share of `tail` lies, with so many degrees of freedom: where the regularised incomplete beta function is twice the tail
    (Abramowitz and Stegun 26.7.1)."""
    import mpmath

    def beyond(t: Any) -> Any:
        return mpmath.betainc(mpmath.mpf(freedom) / 2, 0.5, 0, freedom / (freedom + mpmath.mpf(t) ** 2), regularized=True) - 2 * tail

    return float(mpmath.findroot(beyond, (1, 20), solver="anderson"))
