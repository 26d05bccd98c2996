"""Answers that must be prepared: sums of waves of earlier numbers, of no use to the answer beside those numbers. Each step comes twice: the word, and the
reasoning token behind it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

REACH = 5  # steps back that an answer reaches
FREQUENCY = 3.0


def make(count: int, words: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Numbers (count, words, 2), of each step x ~ N(0, 1) and 1; answers (count, words, 1), at step t the sum of sin(3 x[t - s]) over s = 1 .. 5. What lies
    before the first step counts as 0. Words are two a step, alike. float32."""
    x = torch.randn(count, words // 2, generator=generator)
    waves = nn.functional.pad((FREQUENCY * x).sin(), (REACH, 0))
    # Window t of the padded waves is steps t - 5 .. t - 1.
    answers = waves.unfold(1, REACH, 1)[:, : words // 2].sum(-1)
    return torch.stack([x, torch.ones_like(x)], -1).repeat_interleave(2, 1), answers[..., None].repeat_interleave(2, 1)
