"""How large the tiles of each Triton kernel are, by what it runs on: one table.

Each entry compiled for its card with a predicate of its kind, without spills and within shared memory (triton 3.9, bfloat16 and float32). Those of half
precision, head_dim 64, `plain` on sm_90 (but for grouped heads) are the fastest without spills of those that an H200 has timed
(`benchmarks/results/tune_kernels.md`); no other has been compared. `make kernels-report ARGS=--full` compiles every entry again. A mask whose own predicate
spills gets a smaller one (`fit.py`). The tile of a plan is the largest that its three kernels use, so configs are chosen before a plan is made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache

import torch

from .cards import INTERPRETER, stand_in


class Kernel(Enum):
    """A column of the table."""

    FORWARD = 0
    DQ = 1
    DKV = 2


class Kind(Enum):
    """What weighs on registers: the predicate of a mask."""

    PLAIN = "plain"
    APART = "apart"  # dK and dV may go different ways: up to six sections
    LOOKUPS = "lookups"  # tables are read at every pair; compiled with dK and dV apart


@dataclass(frozen=True, slots=True)
class Config:
    """`rows` the program owns, `cols` it takes a step: queries and keys in the forward and dQ, keys and queries in dK/dV. In half
    precision on sm_90 `rows` is 16 * warps or more, so that no warp repeats another's products; float32 uses no matrix unit."""

    rows: int
    cols: int
    warps: int = 4
    stages: int = 2

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols} w{self.warps} s{self.stages}"

    @property
    def sizes(self) -> tuple[int, int]:
        return self.rows, self.cols

    def within(self, tile: int) -> Config:
        """The same, no larger than a tile of the plan."""
        rows, cols = min(self.rows, tile), min(self.cols, tile)
        if (rows, cols) == (self.rows, self.cols):
            return self
        return replace(self, rows=rows, cols=cols, warps=min(self.warps, max(4, rows // 16)))

    def smaller(self, target: Target, spills: bool) -> Config | None:
        """What to try where this one spills, or else needs too much shared memory: fewer tiles on their way, more warps for the same tile, fewer
        columns, fewer rows. None: it is the smallest."""
        # On sm_90 a warp has 16 rows of its own, and four of them share a product: a tile below 64 rows would waste some.
        alike = target.generation == 9 and target.dtype is not torch.float32
        if not spills and self.stages > 2:
            return replace(self, stages=self.stages - 1)
        if spills and self.warps < 8 and not (alike and self.rows < 128):
            return replace(self, warps=8)
        if self.cols > SMALLEST:
            return replace(self, cols=self.cols // 2, stages=min(self.stages, 2))
        if self.rows > (64 if alike else SMALLEST):
            rows = self.rows // 2
            return replace(self, rows=rows, warps=rows // 16 if alike else self.warps)
        return None


SMALLEST = 16  # rows or columns of a product of blocks


@dataclass(frozen=True, slots=True)
class Configs:
    """What the three kernels of a call take."""

    forward: Config
    dq: Config
    dkv: Config
    splits: bool = False  # whether dK and dV take a launch each

    def of(self, kernel: Kernel) -> Config:
        return (self.forward, self.dq, self.dkv)[kernel.value]

    def but(self, kernel: Kernel, config: Config) -> Configs:
        return replace(self, **{("forward", "dq", "dkv")[kernel.value]: config})

    def within(self, tile: int) -> Configs:
        """The same, none larger than a tile of the plan."""
        return Configs(self.forward.within(tile), self.dq.within(tile), self.dkv.within(tile), self.splits)

    @property
    def tile(self) -> int:
        """The smallest tile of a plan that holds whole ones of all of them."""
        return max(size for kernel in Kernel for size in self.of(kernel).sizes)


@dataclass(frozen=True, slots=True)
class Target:
    """What kernels are compiled for."""

    capability: int  # of the card; the table may have it under another (`cards.stand_in`)
    dtype: torch.dtype
    head_dim: int  # the larger of head_dim and value_dim, as a power of 2 from 16
    kind: Kind = Kind.PLAIN
    grouped: bool = False  # whether a key head has several query heads

    @property
    def generation(self) -> int:
        return self.capability // 10


@cache
def choose(kernel: Kernel, target: Target) -> Config | None:
    """The config that the table has for a kernel on a target: that of the nearest head_dim above. None: none is known that does not spill."""
    card = stand_in(target.capability)
    if card == INTERPRETER:
        return _INTERPRETED[kernel]
    dtype = "float" if target.dtype is torch.float32 else "half"
    for row in _table():
        if (row.card, row.dtype, row.kind) == (card, dtype, target.kind) and row.head_dim >= target.head_dim:
            return row.configs[3 if kernel is Kernel.DKV and target.grouped else kernel.value]
    return None


def splits(capability: int, head_dim: int) -> bool:
    """Whether dK and dV take a launch each, five products instead of four. On sm_90 and sm_100 a product has 64 rows or more for four
    warps, and two sums of 256 columns do not fit their registers; on the others 32 rows do."""
    return capability // 10 in (9, 10) and head_dim > 128


# Small and uneven, so that tests meet tiles of the plan that hold several of a kernel's.
_INTERPRETED = {Kernel.FORWARD: Config(32, 16), Kernel.DQ: Config(16, 32), Kernel.DKV: Config(32, 16)}


@dataclass(frozen=True, slots=True)
class _Row:
    card: int
    dtype: str
    head_dim: int
    kind: Kind
    configs: tuple[Config | None, ...]  # forward, dQ, dK/dV, dK/dV of grouped heads; None: all that were tried spill


@cache
def _table() -> tuple[_Row, ...]:
    rows = []
    for line in _TABLE.strip().splitlines()[1:]:
        card, dtype, head_dim, kind, *_ = line.split()
        cells = re.findall(r"(\d+)x(\d+) w(\d+) s(\d+)|-", line.split(kind)[1])
        configs = tuple(Config(*map(int, cell)) if cell[0] else None for cell in cells)
        rows.append(_Row(int(card), dtype, int(head_dim), Kind(kind), configs))
    return tuple(rows)


_TABLE = """
card dtype head_dim kind     forward        dQ             dK/dV          dK/dV, grouped heads
80   half  32       plain    128x128 w8 s3  128x128 w8 s3  64x64 w8 s2    64x32 w8 s2
80   half  32       apart    128x128 w8 s3  128x128 w8 s3  64x64 w8 s2    128x32 w8 s2
80   half  32       lookups  64x64 w8 s3    64x64 w8 s3    64x64 w8 s2    64x32 w8 s2
80   half  64       plain    128x128 w8 s3  128x64 w8 s3   32x64 w8 s2    32x64 w8 s2
80   half  64       apart    128x64 w8 s2   128x64 w8 s3   64x32 w8 s2    64x32 w8 s2
80   half  64       lookups  64x64 w8 s3    64x64 w8 s3    32x64 w8 s2    32x64 w8 s2
80   half  128      plain    64x64 w8 s3    64x64 w8 s3    64x32 w8 s2    64x32 w8 s2
80   half  128      apart    64x64 w8 s3    64x64 w8 s3    64x32 w8 s2    64x32 w8 s2
80   half  128      lookups  64x32 w8 s3    64x64 w8 s3    64x64 w8 s2    64x64 w8 s2
80   half  256      plain    64x32 w8 s2    64x32 w8 s2    32x32 w8 s2    32x32 w8 s2
80   half  256      apart    64x32 w8 s2    64x32 w8 s2    32x32 w8 s2    32x32 w8 s2
80   half  256      lookups  64x32 w8 s2    64x32 w8 s2    32x64 w8 s2    32x32 w8 s2
80   float 32       plain    64x64 w8 s2    64x64 w8 s2    64x64 w8 s2    64x32 w8 s2
80   float 32       apart    64x64 w8 s2    64x64 w8 s2    64x32 w8 s2    32x16 w8 s2
80   float 32       lookups  32x16 w8 s2    32x16 w8 s2    64x64 w8 s2    16x16 w8 s2
80   float 64       plain    64x32 w8 s2    64x32 w8 s2    64x16 w8 s2    64x16 w8 s2
80   float 64       apart    64x32 w8 s2    64x32 w8 s2    64x16 w8 s2    32x16 w8 s2
80   float 64       lookups  64x16 w8 s2    64x16 w8 s2    32x16 w8 s2    32x16 w8 s2
80   float 128      plain    64x16 w8 s2    32x32 w8 s2    32x32 w8 s2    64x16 w8 s2
80   float 128      apart    64x16 w8 s2    32x32 w8 s2    64x16 w8 s2    64x16 w8 s2
80   float 128      lookups  16x16 w8 s2    32x32 w8 s2    64x16 w8 s2    64x16 w8 s2
80   float 256      plain    32x16 w8 s2    16x16 w8 s2    32x16 w8 s2    32x16 w8 s2
80   float 256      apart    16x16 w8 s2    16x16 w8 s2    32x16 w8 s2    32x16 w8 s2
80   float 256      lookups  16x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
86   half  32       plain    128x128 w8 s3  128x64 w8 s3   64x64 w8 s2    64x32 w8 s2
86   half  32       apart    128x128 w8 s3  128x64 w8 s3   64x64 w8 s2    128x32 w8 s2
86   half  32       lookups  64x64 w8 s3    64x64 w8 s3    64x64 w8 s2    64x32 w8 s2
86   half  64       plain    128x128 w8 s3  128x64 w8 s3   32x32 w8 s2    32x64 w8 s2
86   half  64       apart    128x64 w8 s3   128x64 w8 s3   64x32 w8 s2    32x32 w8 s2
86   half  64       lookups  64x64 w8 s3    64x64 w8 s3    32x64 w8 s2    32x64 w8 s2
86   half  128      plain    64x64 w8 s3    64x64 w8 s2    64x32 w8 s2    64x32 w8 s2
86   half  128      apart    64x64 w8 s3    64x64 w8 s2    64x64 w8 s2    64x32 w8 s2
86   half  128      lookups  64x32 w8 s3    64x64 w8 s2    64x64 w8 s2    64x64 w8 s2
86   half  256      plain    64x32 w8 s2    64x16 w8 s2    32x32 w8 s2    32x32 w8 s2
86   half  256      apart    64x32 w8 s2    32x16 w8 s2    32x32 w8 s2    32x32 w8 s2
86   half  256      lookups  64x32 w8 s2    32x16 w8 s2    32x32 w8 s2    32x32 w8 s2
86   float 32       plain    64x64 w8 s2    64x64 w8 s2    64x32 w8 s2    64x16 w8 s2
86   float 32       apart    64x32 w8 s2    64x64 w8 s2    64x32 w8 s2    32x32 w8 s2
86   float 32       lookups  32x32 w8 s2    32x32 w8 s2    64x32 w8 s2    64x32 w8 s2
86   float 64       plain    64x32 w8 s2    64x32 w8 s2    64x16 w8 s2    64x16 w8 s2
86   float 64       apart    64x32 w8 s2    64x32 w8 s2    64x16 w8 s2    64x16 w8 s2
86   float 64       lookups  64x32 w8 s2    64x32 w8 s2    64x16 w8 s2    64x16 w8 s2
86   float 128      plain    64x16 w8 s2    32x32 w8 s2    32x16 w8 s2    64x16 w8 s2
86   float 128      apart    64x16 w8 s2    32x32 w8 s2    32x16 w8 s2    64x16 w8 s2
86   float 128      lookups  32x16 w8 s2    32x32 w8 s2    32x16 w8 s2    64x16 w8 s2
86   float 256      plain    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
86   float 256      apart    32x16 w8 s2    32x16 w8 s2    16x16 w8 s2    32x16 w8 s2
86   float 256      lookups  32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
89   half  32       plain    128x128 w8 s3  128x64 w8 s3   64x64 w8 s2    64x32 w8 s2
89   half  32       apart    128x128 w8 s3  128x64 w8 s3   64x64 w8 s2    128x32 w8 s2
89   half  32       lookups  64x64 w8 s3    64x64 w8 s3    64x64 w8 s2    64x32 w8 s2
89   half  64       plain    128x128 w8 s3  128x64 w8 s3   32x32 w8 s2    32x64 w8 s2
89   half  64       apart    128x64 w8 s2   128x64 w8 s3   64x32 w8 s2    32x32 w8 s2
89   half  64       lookups  64x64 w8 s3    64x64 w8 s3    32x64 w8 s2    32x64 w8 s2
89   half  128      plain    64x64 w8 s3    64x64 w8 s2    64x32 w8 s2    64x32 w8 s2
89   half  128      apart    64x64 w8 s3    64x64 w8 s2    64x64 w8 s2    64x32 w8 s2
89   half  128      lookups  64x32 w8 s3    64x64 w8 s2    64x64 w8 s2    64x64 w8 s2
89   half  256      plain    64x32 w8 s2    64x16 w8 s2    32x32 w8 s2    32x32 w8 s2
89   half  256      apart    64x32 w8 s2    32x16 w8 s2    32x32 w8 s2    32x32 w8 s2
89   half  256      lookups  64x32 w8 s2    32x16 w8 s2    32x32 w8 s2    32x32 w8 s2
89   float 32       plain    64x64 w8 s2    64x64 w8 s2    64x32 w8 s2    64x16 w8 s2
89   float 32       apart    64x32 w8 s2    64x64 w8 s2    64x32 w8 s2    32x32 w8 s2
89   float 32       lookups  32x32 w8 s2    32x32 w8 s2    64x32 w8 s2    64x32 w8 s2
89   float 64       plain    64x32 w8 s2    64x32 w8 s2    64x16 w8 s2    64x16 w8 s2
89   float 64       apart    64x32 w8 s2    64x32 w8 s2    64x16 w8 s2    64x16 w8 s2
89   float 64       lookups  64x32 w8 s2    64x32 w8 s2    64x16 w8 s2    64x16 w8 s2
89   float 128      plain    64x16 w8 s2    32x32 w8 s2    32x16 w8 s2    64x16 w8 s2
89   float 128      apart    64x16 w8 s2    32x32 w8 s2    32x16 w8 s2    64x16 w8 s2
89   float 128      lookups  32x16 w8 s2    32x32 w8 s2    32x16 w8 s2    64x16 w8 s2
89   float 256      plain    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
89   float 256      apart    32x16 w8 s2    32x16 w8 s2    16x16 w8 s2    32x16 w8 s2
89   float 256      lookups  32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
90   half  32       plain    128x128 w8 s3  128x128 w8 s3  128x64 w8 s3   128x64 w8 s3
90   half  32       apart    128x128 w8 s3  128x128 w8 s3  64x64 w4 s2    128x32 w8 s3
90   half  32       lookups  128x32 w8 s3   64x64 w4 s3    64x64 w4 s2    64x64 w4 s2
90   half  64       plain    128x64 w4 s3   128x64 w4 s3   64x32 w4 s2    128x64 w8 s3
90   half  64       apart    128x64 w4 s3   128x128 w8 s3  128x32 w8 s3   64x32 w4 s2
90   half  64       lookups  64x64 w4 s3    64x64 w4 s3    64x32 w4 s2    128x32 w8 s3
90   half  128      plain    128x128 w8 s2  128x128 w8 s2  128x32 w8 s3   128x32 w8 s3
90   half  128      apart    128x128 w8 s2  128x128 w8 s2  128x16 w8 s2   128x16 w8 s2
90   half  128      lookups  128x32 w8 s3   128x32 w8 s3   128x32 w8 s3   128x16 w8 s2
90   half  256      plain    128x64 w8 s2   128x32 w8 s2   128x16 w8 s2   128x16 w8 s2
90   half  256      apart    128x32 w8 s2   128x32 w8 s2   128x32 w8 s2   128x16 w8 s2
90   half  256      lookups  128x16 w8 s2   128x16 w8 s2   128x32 w8 s2   -
90   float 32       plain    64x64 w8 s2    64x64 w8 s2    32x32 w8 s2    64x16 w8 s2
90   float 32       apart    64x16 w8 s2    64x64 w8 s2    32x16 w8 s2    64x16 w8 s2
90   float 32       lookups  64x32 w8 s2    64x32 w8 s2    64x32 w8 s2    64x32 w8 s2
90   float 64       plain    64x32 w8 s2    64x32 w8 s2    32x32 w8 s2    32x32 w8 s2
90   float 64       apart    64x32 w8 s2    64x32 w8 s2    32x32 w8 s2    64x16 w8 s2
90   float 64       lookups  64x32 w8 s2    32x32 w8 s2    32x32 w8 s2    64x16 w8 s2
90   float 128      plain    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x32 w8 s2
90   float 128      apart    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
90   float 128      lookups  32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
90   float 256      plain    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
90   float 256      apart    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
90   float 256      lookups  32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
100  half  32       plain    128x128 w8 s3  128x64 w8 s3   128x64 w8 s3   128x64 w8 s3
100  half  32       apart    128x128 w8 s3  128x64 w8 s3   128x32 w8 s2   128x32 w8 s2
100  half  32       lookups  128x32 w8 s3   64x64 w4 s3    64x64 w4 s2    128x32 w8 s3
100  half  64       plain    128x128 w8 s3  128x64 w8 s3   128x64 w8 s3   128x64 w8 s2
100  half  64       apart    128x128 w8 s3  128x64 w8 s3   128x32 w8 s2   128x32 w8 s3
100  half  64       lookups  64x64 w4 s3    64x64 w4 s3    64x64 w4 s2    128x32 w8 s3
100  half  128      plain    128x64 w8 s3   128x64 w8 s3   128x64 w8 s2   64x32 w8 s2
100  half  128      apart    128x64 w8 s3   128x64 w8 s3   128x32 w8 s3   32x32 w4 s2
100  half  128      lookups  64x64 w8 s2    64x64 w4 s3    128x32 w8 s3   32x32 w4 s2
100  half  256      plain    128x32 w8 s2   64x64 w4 s2    64x64 w8 s2    32x32 w4 s2
100  half  256      apart    128x32 w8 s2   64x64 w4 s2    64x64 w8 s2    32x32 w4 s2
100  half  256      lookups  64x32 w8 s2    128x32 w8 s2   32x16 w8 s2    32x16 w8 s2
100  float 32       plain    64x64 w8 s2    64x64 w8 s2    64x32 w8 s2    64x16 w8 s2
100  float 32       apart    64x64 w8 s2    64x64 w8 s2    64x16 w8 s2    64x16 w8 s2
100  float 32       lookups  64x32 w8 s2    64x32 w8 s2    64x32 w8 s2    64x32 w8 s2
100  float 64       plain    64x32 w8 s2    64x32 w8 s2    32x32 w8 s2    32x32 w8 s2
100  float 64       apart    64x32 w8 s2    64x32 w8 s2    32x32 w8 s2    64x16 w8 s2
100  float 64       lookups  64x32 w8 s2    32x32 w8 s2    32x32 w8 s2    64x16 w8 s2
100  float 128      plain    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x32 w8 s2
100  float 128      apart    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
100  float 128      lookups  32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
100  float 256      plain    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
100  float 256      apart    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
100  float 256      lookups  32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
120  half  32       plain    128x128 w8 s3  128x64 w8 s3   64x64 w8 s2    64x32 w8 s2
120  half  32       apart    128x128 w8 s3  128x64 w8 s3   64x64 w8 s2    128x32 w8 s2
120  half  32       lookups  64x64 w8 s3    64x64 w8 s3    64x64 w8 s2    64x32 w8 s2
120  half  64       plain    128x128 w8 s3  128x64 w8 s3   32x64 w8 s2    32x64 w8 s2
120  half  64       apart    128x64 w8 s2   128x64 w8 s3   64x32 w8 s2    32x64 w8 s2
120  half  64       lookups  64x64 w8 s3    64x64 w8 s3    32x64 w8 s2    32x64 w8 s2
120  half  128      plain    64x64 w8 s3    64x64 w8 s2    64x32 w8 s2    64x32 w8 s2
120  half  128      apart    64x64 w8 s3    64x64 w8 s2    64x32 w8 s2    64x32 w8 s2
120  half  128      lookups  64x32 w8 s3    64x64 w8 s2    64x64 w8 s2    64x64 w8 s2
120  half  256      plain    64x32 w8 s2    64x16 w8 s2    32x32 w8 s2    32x32 w8 s2
120  half  256      apart    64x32 w8 s2    64x16 w8 s2    32x32 w8 s2    32x32 w8 s2
120  half  256      lookups  64x32 w8 s2    64x16 w8 s2    32x32 w8 s2    32x32 w8 s2
120  float 32       plain    64x64 w8 s2    64x64 w8 s2    64x32 w8 s2    64x16 w8 s2
120  float 32       apart    64x32 w8 s2    64x64 w8 s2    64x16 w8 s2    32x32 w8 s2
120  float 32       lookups  32x32 w8 s2    32x32 w8 s2    64x32 w8 s2    16x16 w8 s2
120  float 64       plain    64x32 w8 s2    64x32 w8 s2    64x16 w8 s2    64x16 w8 s2
120  float 64       apart    64x32 w8 s2    64x32 w8 s2    64x16 w8 s2    64x16 w8 s2
120  float 64       lookups  64x32 w8 s2    64x16 w8 s2    64x16 w8 s2    64x16 w8 s2
120  float 128      plain    64x16 w8 s2    32x16 w8 s2    32x16 w8 s2    64x16 w8 s2
120  float 128      apart    64x16 w8 s2    32x16 w8 s2    32x16 w8 s2    64x16 w8 s2
120  float 128      lookups  32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    64x16 w8 s2
120  float 256      plain    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
120  float 256      apart    32x16 w8 s2    32x16 w8 s2    16x16 w8 s2    32x16 w8 s2
120  float 256      lookups  32x16 w8 s2    32x16 w8 s2    32x16 w8 s2    32x16 w8 s2
"""
