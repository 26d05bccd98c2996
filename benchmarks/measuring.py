"""What the benchmarks share: times, peaks of memory, processes of their own, tables, and a line about the machine."""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def fastest(call: Callable[[], object], repeat: int) -> float:
    """Seconds of processor time, the least of several calls."""
    least = float("inf")
    for _ in range(repeat):
        begin = time.process_time()
        call()
        least = min(least, time.process_time() - begin)
    return least


def peak() -> int:
    """The most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def alone(call: Callable[..., T], *args: Any, method: str = "fork") -> T:
    """A call in a process of its own; `spawn` where this one has started threads."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        return pool.submit(call, *args).result()


def machine() -> str:
    return f"{os.cpu_count()} cores ({platform.machine()}), one used; Python {platform.python_version()}, torch {torch.__version__}"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def publish(page: list[str], out: Path | None) -> None:
    """Print a page of paragraphs and tables, and write it to a file if one is named."""
    text = "\n\n".join(page) + "\n"
    print(text)
    if out is not None:
        out.write_text(text)
