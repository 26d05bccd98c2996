"""One launch of a Triton kernel: on a card, in Triton's interpreter, or compiled only (`offline.py`)."""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
import torch
import triton

from . import triton_forward
from .configs import Config
from .offline import current

# Decided when Triton is imported, by TRITON_INTERPRET in the environment.
INTERPRETED = not isinstance(triton_forward.forward_kernel, triton.JITFunction)
_INTERPRETER = Lock()


def run(kernel: Any, programs: int, config: Config, device: torch.device, fuse: bool = True, **arguments: Any) -> None:
    """`programs` of them, on grid axis 0. `fuse`: whether a * b + c may be rounded once."""
    if programs == 0:
        return
    # Triton fuses by default up to 3.9 and not from 3.10 on.
    options = {"num_warps": config.warps, "num_stages": config.stages, "enable_fp_fusion": fuse}
    elsewhere = current()
    if elsewhere is not None:
        elsewhere.record(kernel.fn.__name__, config, kernel.warmup(**arguments, grid=(programs,), **options))
    elif INTERPRETED:
        # It patches the language while it runs, so one call at a time; scores of pairs that do not attend may overflow, and are dropped.
        with _INTERPRETER, np.errstate(all="ignore"):
            kernel[(programs,)](**arguments, **options)
    else:
        with torch.cuda.device(device):
            kernel[(programs,)](**arguments, **options)
