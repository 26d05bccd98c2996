"""Compiling kernels without launching them: for a card that is not there, or for this one before a plan is made.

    with offline(90, record):
        attend(q, k, v)         # on CPU tensors: compiles what an sm_90 would run, launches nothing

Compiling asks Triton's driver for a target and little else, so a driver that names one is enough; `warmup` then goes through the launcher's own
binder, and a compile key here is a compile key there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from ..diagnostics import BackendError
from .configs import Config


@dataclass(frozen=True, slots=True)
class Offline:
    """`record` gets the kernel's name, its config and what was compiled. `capability`: None for the card that is here."""

    capability: int | None
    record: Callable[[str, Config, Any], None]


_CURRENT: ContextVar[Offline | None] = ContextVar("offline", default=None)


def current() -> Offline | None:
    return _CURRENT.get()


@contextmanager
def offline(capability: int, record: Callable[[str, Config, Any], None]) -> Iterator[None]:
    """While it lasts, calls on CPU tensors compile what they would launch. Results of such calls are whatever memory held.

    Triton's driver is replaced for the whole process; where there is a card, it is put back.
    """
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise BackendError("nothing is compiled in Triton's interpreter: start Python without TRITON_INTERPRET")
    triton.runtime.driver.set_active(_Driver(capability))  # type: ignore[arg-type]
    token = _CURRENT.set(Offline(capability, record))
    try:
        yield
    finally:
        _CURRENT.reset(token)
        if torch.cuda.is_available():
            triton.runtime.driver.reset_active()


@contextmanager
def compiling(record: Callable[[str, Config, Any], None]) -> Iterator[None]:
    """While it lasts, what would be launched is compiled only, for the card that calls are for now."""
    outer = current()
    token = _CURRENT.set(Offline(None if outer is None else outer.capability, record))
    try:
        yield
    finally:
        _CURRENT.reset(token)


class _Driver:
    def __init__(self, capability: int):
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        # Kernels are kept by device: a capability is one.
        return self.capability

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")
