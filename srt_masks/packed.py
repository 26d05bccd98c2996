"""Documents packed into one row, as the inputs that texts about them declare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .diagnostics import InputError

MOST_TOKENS = 2**27  # three vectors of 1 GiB


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
    if isinstance(value, np.ndarray) and value.dtype.kind in "iufb":
        value = torch.from_numpy(value.astype(np.float64 if value.dtype.kind == "f" else value.dtype))
    wrong = isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex() or value.dtype is torch.bool)
    if wrong or not isinstance(value, Tensor | Sequence) or isinstance(value, str):
        raise InputError(f"{name} is a vector of whole numbers; got {value.dtype if isinstance(value, Tensor) else repr(value)[:60]}")
    if isinstance(value, Sequence) and not all(isinstance(n, int) and not isinstance(n, bool) for n in value):
        raise InputError(f"{name} is a vector of whole numbers; got {value!r}"[:200])
    if isinstance(value, Sequence) and any(abs(n) > MOST_TOKENS for n in value):
        raise InputError(f"{name} counts at most {MOST_TOKENS:,} tokens; got {value!r}"[:200])
    if isinstance(value, Tensor) and (value.is_meta or value.dtype is torch.uint64):
        came = "a meta tensor" if value.is_meta else "uint64: give .long()"
        raise InputError(f"{name} is a vector of whole numbers, of 64 bits and with a sign at most; got {came}")
    numbers = torch.as_tensor(value, dtype=torch.int64).cpu()
    if numbers.ndim != 1:
        raise InputError(f"{name} is a vector of whole numbers; got shape {tuple(numbers.shape)}")
    return numbers
