"""Two tasks of one sequence: A of every number, at the backbone; B of every third number, at the actions behind it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

BACKBONE, ACTIONS = 12, 4
FREQUENCY = 3.0


def make(count: int, words: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Numbers (count, 16, 1): x ~ N(0, 1) at the backbone, 0 at the actions. Answers (count, 16, 1): A, sin(3 x[t]) + sin(3 x[t - 1]), at the backbone (what
    lies before the first number counts as 0); B, cos(3 x[3 j]), at action j. `words` is 16. float32."""
    if words != BACKBONE + ACTIONS:
        raise ValueError(f"a sequence has {BACKBONE + ACTIONS} data tokens; got {words}")
    x = torch.randn(count, BACKBONE, generator=generator)
    waves = (FREQUENCY * x).sin()
    a = waves + nn.functional.pad(waves[:, :-1], (1, 0))
    b = (FREQUENCY * x[:, :: BACKBONE // ACTIONS]).cos()
    return nn.functional.pad(x, (0, ACTIONS))[..., None], torch.cat([a, b], 1)[..., None]


@dataclass(frozen=True, slots=True)
class Errors:
    """Of a model, on some sequences: the mean squared error over the variance of the answers, of each task; and what it says at the backbone, (count, 12, 1)."""

    a: float
    b: float
    backbone: Tensor

    @staticmethod
    @torch.no_grad()
    def of(model: nn.Module, numbers: Tensor, answers: Tensor) -> Errors:
        said = torch.cat([model(numbers=part, return_values=True) for part in numbers.split(256)])
        a, b = (((s - y).square().mean() / y.var()).item() for s, y in zip(_by_task(said), _by_task(answers), strict=True))
        return Errors(a, b, said[:, :BACKBONE])


def _by_task(x: Tensor) -> tuple[Tensor, ...]:
    return x.split([BACKBONE, ACTIONS], 1)
