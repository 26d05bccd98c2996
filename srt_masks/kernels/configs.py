"""How large the tiles of each Triton kernel are, by what it runs on: one table.

Every entry was compiled for its target without spills and within shared memory (`make kernels-report`); none has been timed on a
card. `rows` x `cols` are the kernel's own tile: queries x keys in the forward and dQ kernels, keys x queries in dK/dV, whose
products have `rows` >= 16 * warps so that no warp repeats another's work. The tile of a plan is the largest of them all, so the
config is chosen first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import torch


class Kernel(Enum):
    FORWARD = "forward"
    DQ = "dQ"
    DKV = "dK/dV"


@dataclass(frozen=True, slots=True)
class Config:
    rows: int
    cols: int
    warps: int = 4
    stages: int = 2

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols} w{self.warps} s{self.stages}"

    def within(self, tile: int) -> Config:
        """The same, no larger than a tile of the plan."""
        rows, cols = min(self.rows, tile), min(self.cols, tile)
        return self if (rows, cols) == (self.rows, self.cols) else replace(self, rows=rows, cols=cols, warps=max(1, min(self.warps, rows // 16)))


@dataclass(frozen=True, slots=True)
class Target:
    """What a kernel is compiled for. Capability 0 is Triton's interpreter."""

    capability: int
    dtype: torch.dtype
    head_dim: int  # the larger of head_dim and value_dim, as a power of 2 from 16
    many_sections: bool = False  # whether dK and dV may part ways


def choose(kernel: Kernel, target: Target) -> Config:
    """The config of a kernel on a target: of the nearest capability below, and the nearest head_dim above."""
    if target.capability == 0:
        return _INTERPRETED[kernel]
    half = target.dtype in (torch.float16, torch.bfloat16)
    table = _HALF if half else _FLOAT
    capability = max((c for c in table if c <= target.capability), default=min(table))
    head_dim = min(d for d in (32, 64, 128, 256) if d >= target.head_dim)
    name = "dK/dV apart" if kernel is Kernel.DKV and target.many_sections else kernel.value
    row = table[capability].get(name) or table[capability][kernel.value]
    return row[(32, 64, 128, 256).index(head_dim)]


# Small and uneven, so that tests meet tiles of the plan that hold several of a kernel's.
_INTERPRETED = {Kernel.FORWARD: Config(32, 16), Kernel.DQ: Config(16, 32), Kernel.DKV: Config(32, 16)}

_Row = tuple[Config, Config, Config, Config]  # for head_dim 32, 64, 128, 256

_HALF: dict[int, dict[str, _Row]] = {
    80: {
        "forward": (Config(128, 128, 8, 3), Config(128, 128, 8, 3), Config(128, 64, 8, 3), Config(64, 32, 4, 2)),
        "dQ": (Config(128, 64, 8, 3), Config(128, 64, 8, 3), Config(64, 64, 4, 2), Config(64, 32, 4, 1)),
        "dK/dV": (Config(128, 64, 8, 2), Config(64, 64, 4, 2), Config(64, 32, 4, 2), Config(32, 32, 4, 2)),
    },
    90: {
        "forward": (Config(128, 128, 8, 3), Config(128, 128, 8, 3), Config(128, 64, 8, 3), Config(128, 64, 8, 2)),
        "dQ": (Config(128, 128, 8, 2), Config(128, 64, 8, 3), Config(128, 64, 8, 2), Config(128, 32, 8, 2)),
        "dK/dV": (Config(128, 64, 8, 3), Config(128, 64, 8, 3), Config(128, 32, 8, 3), Config(64, 32, 4, 1)),
        "dK/dV apart": (Config(128, 32, 8, 2), Config(128, 32, 8, 2), Config(128, 16, 8, 2), Config(64, 16, 4, 1)),
    },
    100: {
        "forward": (Config(128, 128, 8, 3), Config(128, 128, 8, 3), Config(128, 128, 8, 2), Config(128, 32, 8, 2)),
        "dQ": (Config(128, 64, 8, 3), Config(128, 64, 8, 3), Config(128, 64, 8, 2), Config(128, 32, 8, 2)),
        "dK/dV": (Config(128, 64, 8, 3), Config(128, 64, 8, 3), Config(128, 64, 8, 2), Config(64, 32, 8, 2)),
        "dK/dV apart": (Config(128, 32, 8, 2), Config(128, 32, 8, 2), Config(128, 32, 8, 2), Config(64, 32, 8, 2)),
    },
}  # fmt: skip
_FLOAT: dict[int, dict[str, _Row]] = {
    80: {
        "forward": (Config(64, 64, 4, 2), Config(32, 32, 4, 2), Config(32, 16, 2, 2), Config(32, 16, 2, 2)),
        "dQ": (Config(64, 64, 4, 2), Config(32, 32, 2, 2), Config(32, 16, 2, 2), Config(32, 16, 2, 2)),
        "dK/dV": (Config(32, 32, 2, 2), Config(32, 32, 2, 2), Config(32, 16, 2, 2), Config(16, 16, 1, 2)),
    },
}  # fmt: skip
