"""What a backend is: it packs a plan once, and runs forward and backward from what it packed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..compiler.choice import Costs
from ..compiler.compiled import Compiled
from ..compiler.plan import Plan


@dataclass(frozen=True, slots=True)
class Operands:
    """What is known of q, k and v before a plan is made."""

    dtype: torch.dtype
    head_dim: int
    value_dim: int
    heads_per_key: int  # query heads of a key head
    device: torch.device
    capability: int | None = None  # 90 for sm_90, where a card is spoken of that need not be here; None: that of the device

    @staticmethod
    def of(q: Tensor, k: Tensor, v: Tensor) -> Operands:
        return Operands(q.dtype, q.shape[-1], v.shape[-1], q.shape[1] // max(1, k.shape[1]), q.device)

    @property
    def card(self) -> int:
        """The compute capability: the one named, or that of the device, which has to be a CUDA card."""
        if self.capability is not None:
            return self.capability
        major, minor = torch.cuda.get_device_capability(self.device)
        return 10 * major + minor


@dataclass(frozen=True, slots=True)
class Attended:
    """What a forward finds. The backward needs lse in two parts, its maximum and the logarithm of the rest: their sum is rounded where
    it is large, and P = exp(S - lse) would be wrong by as much in every pair of the row."""

    out: Tensor  # (batch, heads, queries, value_dim), q's dtype
    lse: Tensor  # (batch, heads, queries), float32 (float64 for float64): top + rest, -inf for a row without a key
    top: Tensor  # like lse; +inf for a row without a key. Natural, or in powers of 2: the backend's own
    rest: Tensor


class Backend(Protocol):
    """Operators get plain tensors, so a plan travels as a list of them; only the backend that packed it reads it."""

    name: str

    def tile(self, compiled: Compiled, operands: Operands) -> int:
        """The tile it wants of a plan. Raises BackendError where it cannot do such a call."""
        ...

    def costs(self, operands: Operands, tile: int) -> Costs:
        """What its work costs, for the choice of an order of tokens."""
        ...

    def pack(self, plan: Plan, compiled: Compiled, operands: Operands) -> list[Tensor]: ...

    def forward(self, q: Tensor, k: Tensor, v: Tensor, packed: list[Tensor], compiled: Compiled, scale: float) -> Attended: ...

    def backward(
        self, dout: Tensor | None, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, attended: Attended,
        packed: list[Tensor], compiled: Compiled, scale: float, needs: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
        """dq, dk, dv in the dtypes of q, k and v; None where not needed."""
        ...
