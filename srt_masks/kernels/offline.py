"""Compiling kernels for a card that is not there, and reading from the machine code what it takes.

    with offline(90, record):
        attend(q, k, v)         # on CPU tensors: compiles what an sm_90 would run, launches nothing

Compiling asks Triton's driver for a target and little else, so a driver that names one is enough; `warmup` then goes through the launcher's own
binder, and a compile key here is a compile key there.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from ..diagnostics import BackendError
from .configs import Config

# Bytes of shared memory that one block of threads may have (CUDA C programming guide, table of compute capabilities).
SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}


@dataclass(frozen=True, slots=True)
class Offline:
    """`record` gets the kernel's name, its config and what was compiled."""

    capability: int
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


@dataclass(frozen=True, slots=True)
class Resources:
    """Of one thread: registers, and bytes of local memory, which are spills. Of a block: bytes of shared memory. Of the code:
    how many matrix instructions, loads straight into shared memory, other loads, and those of 16 bytes among them."""

    registers: int
    stack: int
    shared: int
    matrix: int
    async_loads: int
    loads: int
    vector_loads: int


def resources(compiled: Any) -> Resources:
    """Read from the cubin with the tools that Triton brings along."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _run("cuobjdump", "-res-usage", file.name)
        code = _run("cuobjdump", "-sass", file.name) or _run("nvdisasm", file.name)
    found = re.search(r"REG:(\d+)\s+STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump says nothing of registers:\n{usage}")

    def count(pattern: str) -> int:
        return len(re.findall(pattern, code))

    return Resources(
        int(found[1]), int(found[2]), compiled.metadata.shared,
        count(r"\b(?:HGMMA|HMMA|DMMA|QGMMA|UTC\w*MMA)\b"), count(r"\b(?:LDGSTS|UTMALDG)\b"), count(r"\bLDG\b"), count(r"\bLDG\.E\.(?:\w+\.)*128\b"),
    )  # fmt: skip


def _run(tool: str, *arguments: str) -> str:
    return subprocess.run([_tools() / tool, *arguments], capture_output=True, text=True, check=False).stdout


@cache
def _tools() -> Path:
    return Path(triton.__path__[0]) / "backends" / "nvidia" / "bin"
