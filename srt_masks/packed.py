"""Documents packed into one row, as the inputs that texts about them declare."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .default_device import on_the_cpu
from .diagnostics import InputError
from .values import WHOLE, came, dense_tensor, describe, odd, of_array, vector, whole_number

MOST_TOKENS = 2**27  # three vectors of 1 GiB


@on_the_cpu
def documents(*, lengths: Any = None, cu_seqlens: Any = None) -> dict[str, Tensor]:
    """`doc` (its number), `start` (where it begins) and `position` (the place inside it) of every token of packed documents, each
    (tokens,) int64.

    Give `lengths`, tokens of each document, or `cu_seqlens`, their running sums from 0 (flash-attn's form). A text declares those it wants:
    `input doc: int per token`. Raises InputError.
    """
    if (lengths is None) == (cu_seqlens is None):
        raise InputError("documents takes lengths= or cu_seqlens=, one of the two")
    if cu_seqlens is not None:
        sums = _numbers("cu_seqlens", cu_seqlens)
        if not len(sums) or int(sums[0]) != 0 or bool((sums[1:] < sums[:-1]).any()):
            raise InputError(f"cu_seqlens are running sums that begin with 0; got {sums[:8].tolist()}")
        counts = sums[1:] - sums[:-1]
    else:
        counts = _numbers("lengths", lengths)
        if bool((counts < 0).any()):
            raise InputError(f"lengths are 0 or more; got {counts[:8].tolist()}")
    if bool((counts > MOST_TOKENS).any()) or int(counts.sum()) > MOST_TOKENS:
        raise InputError(f"documents lays out at most {MOST_TOKENS:,} tokens in all; got {counts[:8].tolist()}")
    begins = counts.cumsum(0) - counts
    start = begins.repeat_interleave(counts)
    return {"doc": torch.arange(len(counts)).repeat_interleave(counts), "start": start, "position": torch.arange(len(start)) - start}


def _numbers(name: str, value: Any) -> Tensor:
    given = of_array(value)
    if not isinstance(given, Tensor):
        numbers = None if (entries := vector(given)) is None else [whole_number(n) for n in entries]
        if numbers is None or any(n is None for n in numbers):
            raise InputError(f"{name} is a vector of whole numbers; got {came(value)}")
        if any(abs(n) > MOST_TOKENS for n in numbers if n is not None):
            raise InputError(f"{name} counts at most {MOST_TOKENS:,} tokens; got {came(value)}")
        return torch.tensor(numbers, dtype=torch.int64)
    if odd(given) or given.ndim != 1 or given.dtype not in WHOLE:
        raise InputError(f"{name} is a vector of whole numbers; got {describe(given)}")
    return dense_tensor(name, "a vector of whole numbers", given).to("cpu", torch.int64)
