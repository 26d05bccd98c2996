"""From logits to a data token: temperature, the likeliest few (top-k), the likeliest mass (top-p), a draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..diagnostics import InputError
from ..values import whole_number


@dataclass(frozen=True, slots=True)
class Choice:
    """How the next data token is chosen. A `temperature` of 0 takes the likeliest; `top_k` draws among so many likeliest; `top_p` among the fewest
    likeliest that together have this probability, after `top_k` and the temperature. Raises InputError for a value out of range."""

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        t, k, p = self.temperature, self.top_k, self.top_p
        if not _is_number(t) or not (t == 0 or 1e-3 <= t <= 1e3):
            raise InputError(f"temperature is 0, or from 0.001 to 1000; got {t!r}")
        if k is not None and (whole_number(k) or 0) < 1:
            raise InputError(f"top_k is a whole number of tokens, 1 or more; got {k!r}")
        if p is not None and (not _is_number(p) or not 0 < p <= 1):
            raise InputError(f"top_p is a probability, above 0 and up to 1; got {p!r}")

    def probabilities(self, logits: Tensor) -> Tensor:
        """(num_tokens,) -> (num_tokens,) float32, on the CPU; those that are not to be drawn are 0. Raises InputError unless all are finite."""
        logits = logits.detach().float().cpu()
        if not bool(logits.isfinite().all()):
            raise InputError("the model gives no finite numbers: its weights are broken")
        likeliest = logits.argsort(descending=True, stable=True)
        if self.temperature == 0:
            return torch.zeros_like(logits).index_fill(0, likeliest[:1], 1.0)
        kept = torch.zeros_like(logits, dtype=torch.bool)
        kept[likeliest[: self.top_k]] = True
        p = (logits / self.temperature).masked_fill(~kept, -torch.inf).softmax(-1)
        if self.top_p is not None:
            before = p[likeliest].cumsum(0) - p[likeliest]
            p = p.index_fill(0, likeliest[1:][before[1:] >= self.top_p], 0.0)
        return p / p.sum()

    def draw(self, logits: Tensor, generator: torch.Generator) -> int:
        return int(torch.multinomial(self.probabilities(logits), 1, generator=generator))


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)
