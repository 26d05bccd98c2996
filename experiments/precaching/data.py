"""The task of Wu, Morris and Levine (2024, arXiv 2404.00859), smaller: numbers of which a later answer is made, and of no use to the answer beside them."""

from __future__ import annotations

import torch
from torch import Tensor

REACH = 5  # steps back that an answer reaches
FREQUENCY = 3.0


def make(count: int, words: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Numbers (count, words, 2), of each step x ~ N(0, 1) and 1; answers (count, words, 1), at step t the sum of sin(3 x[t - s]) over s = 1 .. 5. What lies
    before the first step counts as 0. float32."""
    x = torch.randn(count, words, generator=generator)
    waves = torch.nn.functional.pad((FREQUENCY * x).sin(), (REACH, 0))
    # Window t of the padded waves is steps t - 5 .. t - 1.
    answers = waves.unfold(1, REACH, 1)[:, :words].sum(-1)
    return torch.stack([x, torch.ones_like(x)], -1), answers[..., None]
