"""What machine code takes, read from it with the tools that Triton brings along."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import triton


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one thread: registers, and bytes of local memory, which are spills. Of a block: bytes of shared memory."""

    registers: int
    stack: int
    shared: int


@dataclass(frozen=True, slots=True)
class Code:
    """How many matrix instructions, loads straight into shared memory, other loads, and those of 16 bytes among them."""

    matrix: int
    async_loads: int
    loads: int
    vector_loads: int


def usage(compiled: Any) -> Usage:
    with _file(compiled) as path:
        said = _run("cuobjdump", "-res-usage", path)
    found = re.search(r"REG:(\d+)\s+STACK:(\d+)", said)
    if found is None:
        raise RuntimeError(f"cuobjdump says nothing of registers:\n{said}")
    return Usage(int(found[1]), int(found[2]), compiled.metadata.shared)


def code(compiled: Any) -> Code:
    with _file(compiled) as path:
        text = _run("cuobjdump", "-sass", path) or _run("nvdisasm", path)

    def count(pattern: str) -> int:
        return len(re.findall(pattern, text))

    return Code(count(r"\b(?:HGMMA|HMMA|DMMA|QGMMA|UTC\w*MMA)\b"), count(r"\b(?:LDGSTS|UTMALDG)\b"), count(r"\bLDG\b"), count(r"\bLDG\.E\.(?:\w+\.)*128\b"))


@contextmanager
def _file(compiled: Any) -> Iterator[str]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        yield file.name


def _run(tool: str, *arguments: str) -> str:
    return subprocess.run([_tools() / tool, *arguments], capture_output=True, text=True, check=False).stdout


@cache
def _tools() -> Path:
    return Path(triton.__path__[0]) / "backends" / "nvidia" / "bin"
