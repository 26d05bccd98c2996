"""Sampling: one byte after another, each from a whole pass over the words so far."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..diagnostics import InputError
from .transformer import SpecTransformer


@torch.no_grad()
def sample(model: SpecTransformer, prompt: bytes, count: int, *, words: int, temperature: float = 0.8, seed: int = 0) -> Iterator[int]:
    """`count` tokens that follow `prompt`, as numbers. `temperature` 0 takes the likeliest.

    `words` is the length of the sequences the model was trained on. Each token sees the last `words - 1`: the last place of a
    training sequence has no label, so what is predicted there was never learnt.

    The state of the model is left as it was. Raises InputError for an empty prompt or a value out of range.
    """
    if not prompt:
        raise InputError("a sample needs at least one token to begin with")
    if words < 2:
        raise InputError(f"words is 2 or more; got {words}")
    if not (temperature == 0 or 1e-3 <= temperature <= 1e3):
        raise InputError(f"temperature is 0, or from 0.001 to 1000; got {temperature}")
    if count < 0 or not 0 <= seed < 2**63:
        raise InputError(f"count and seed are 0 or more; got {count} and {seed}")
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    text = list(prompt)
    was_training = model.training
    model.eval()
    try:
        for _ in range(count):
            logits = model.next_logits(torch.tensor([text[1 - words :]], device=device))[0].float().cpu()
            if not bool(logits.isfinite().all()):
                raise InputError("the model gives no finite numbers: its weights are broken")
            if temperature == 0:
                token = int(logits.argmax())
            else:
                token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))
            text.append(token)
            yield token
    finally:
        model.train(was_training)
