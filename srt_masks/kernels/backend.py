"""What a backend is: it packs a plan once, and runs forward and backward from what it packed."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..compiler.plan import Compiled, Plan


class Backend(Protocol):
    """Operators get plain tensors, so a plan travels as a list of them; only the backend that packed it reads it."""

    name: str

    def tile(self, compiled: Compiled, dtype: torch.dtype, dim: int, device: torch.device) -> int:
        """The tile it wants of a plan; `dim` is the larger of head_dim and value_dim. Raises BackendError where it cannot do such a call."""
        ...

    def pack(self, plan: Plan, compiled: Compiled, q: Tensor, v: Tensor) -> list[Tensor]: ...

    def forward(self, q: Tensor, k: Tensor, v: Tensor, packed: list[Tensor], compiled: Compiled, scale: float) -> tuple[Tensor, Tensor]:
        """out (batch, heads, queries, value_dim) in q's dtype, lse (batch, heads, queries) in float32 (float64 for float64)."""
        ...

    def backward(
        self, dout: Tensor | None, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
        packed: list[Tensor], compiled: Compiled, scale: float, needs: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
        """dq, dk, dv in the dtypes of q, k and v; None where not needed."""
        ...
