"""How well a model says what it has not seen: bits per byte of the last row that predicts each data token, and the parts of the loss by role and slot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .loop import BITS
from .session import Session

MOST_WINDOWS = 64  # of the held-out data, that a run is judged by
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Score:
    """`bits_per_byte` is of the last row that predicts each data token, never the mean over rows; `loss` the weighted mean, and `parts` the plain means by
    role and slot, in nats a row."""

    bits_per_byte: float
    loss: float
    parts: Mapping[str, float]
    windows: int


@torch.no_grad()
def score(
    model: Any, windows: Tensor, *, bytes_per_token: float = 1.0, values: Mapping[str, int | float] | None = None,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext, mean: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Score:  # fmt: skip
    """Of windows (n, words) int64, on the model's device, a few at once. `values` are params of the call; `mean` is over the processes that share them."""
    sums = torch.zeros(4, dtype=torch.float64)
    parts: dict[str, float] = {}
    was_training = model.training
    model.eval()
    try:
        for batch in windows.split(AT_ONCE):
            with context():
                loss = model(batch, return_parts=True, **(values or {}))
            sums[:3] += torch.stack([loss.loss * loss.weight, loss.weight, loss.last * loss.count]).cpu().double()
            sums[3] += loss.count
            for name, part in loss.parts.items():
                parts[name] = parts.get(name, 0.0) + part.item() * len(batch) / len(windows)
    finally:
        model.train(was_training)
    errors, weights, nats, count = mean(sums).tolist()
    return Score(nats / max(count, 1) * BITS / bytes_per_token, errors / weights if weights else 0.0, parts, len(windows))


def held_out_score(session: Session) -> Score:
    """Of the held-out data of a run, evenly spread, with the params of its last step."""
    windows = session.corpus.held_out.spread(session.recipe.words, MOST_WINDOWS).to(session.device)
    return score(
        session.module, windows, bytes_per_token=session.corpus.bytes_per_token, values=session.values(session.step), context=session.autocast,
        mean=session.strategy.mean,
    )  # fmt: skip
