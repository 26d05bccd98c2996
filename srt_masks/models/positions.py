"""Position ids in a model: rotated into queries and keys. Learned ones are an embedding like others (`ends.py`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class Rotation:
    """What turns q and k so that their product depends on the difference of their position ids (RoFormer; halves, not neighbours, are turned together)."""

    cosine: Tensor  # (batch or 1, 1, rows, dim_head / 2)
    sine: Tensor

    @staticmethod
    def of(position: Tensor, dim_head: int, dtype: torch.dtype, device: torch.device) -> Rotation:
        """`position` (batch or 1, rows), whole numbers of any size and sign, on the CPU: angles are found in float64 there."""
        frequency = BASE ** (-torch.arange(0, dim_head, 2, dtype=torch.float64, device="cpu") / dim_head)
        angle = position.double()[:, None, :, None] * frequency
        wide = torch.promote_types(dtype, torch.float32)
        return Rotation(angle.cos().to(wide).to(device), angle.sin().to(wide).to(device))

    def __call__(self, x: Tensor) -> Tensor:
        """x (batch, heads, rows, dim_head), in its own dtype."""
        a, b = x.chunk(2, -1)
        return torch.cat((a * self.cosine - b * self.sine, b * self.cosine + a * self.sine), -1).to(x.dtype)
