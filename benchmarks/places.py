"""Where the benchmarks of a card run: on the card that is here, or, with `--dry-run`, on this CPU, where every path runs once at tiny sizes.

A dry run finds what is broken before there is a card. Triton's interpreter runs the kernels (a script asks for it before it imports Triton), nothing
is repeated, and no time means anything.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

IS_DRY = "--dry-run" in sys.argv


class Card:
    device = "cuda"

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name()

    def milliseconds(self, call: Callable[[], Any], rep: int, warmup: int) -> float:
        """The median of calls that take `rep` milliseconds together, after `warmup`."""
        from triton.testing import do_bench

        return do_bench(call, warmup=warmup, rep=rep, return_mode="median")

    def peak(self, call: Callable[[], Any]) -> int:
        """Bytes that a call holds at most, beyond those held before it."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - held

    def tidy(self) -> None:
        torch.cuda.empty_cache()


class Dry:
    device = "cpu"
    name = "no card: a dry run on a CPU, of which no time means anything"

    def milliseconds(self, call: Callable[[], Any], rep: int, warmup: int) -> float:
        begin = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - begin)

    def peak(self, call: Callable[[], Any]) -> int:
        return 0  # nobody counts bytes here, and the same call is timed

    def tidy(self) -> None:
        pass


PLACE = Dry() if IS_DRY else Card()


def folder(out: Path | None) -> Path | None:
    """Where results go: where they were asked for; those of a dry run to a temporary place else."""
    if out is None and IS_DRY:
        out = Path(tempfile.mkdtemp(prefix="dry-run-"))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    return out
