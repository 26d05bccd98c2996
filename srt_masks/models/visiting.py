"""The order in which all layers of a model visit its rows: laid out in it, they are gathered by none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..kernels.attention import Attention


def visited_alike(attention: Attention, depth: int, q: Tensor, k: Tensor, beside: Mapping[str, Any]) -> Tensor | None:
    """(rows,) int64, on the CPU: the row of the layout at each place; None where that is the layout's own order, or layers, heads or rows of the batch
    have several. `q` and `k` stand for those of the call: their shapes, dtype and device are read, and no number. Raises as the call does."""
    first: Tensor | None = None
    for layer in range(depth if attention.spec.checked.speaks_of_layers else 1):
        found = attention.found(q, k, k, layer=layer, **beside)
        for planned in (found.own, found.twins):
            if planned is None:
                continue
            visited = planned.plan.own_visited
            if visited is None or not (first is None or first is visited or torch.equal(first, visited)):
                return None
            first = visited
    return first
