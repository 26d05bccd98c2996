"""Property tests for specs: a backend against the dense reference, and hypothesis strategies (which need the `test` extra)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .compare import Comparison, check, compare

__all__ = ["Comparison", "check", "compare"]  # and the strategies: cases, gates, layouts, masks, specs


def __getattr__(name: str) -> Any:
    if name in ("cases", "gates", "layouts", "masks", "specs"):
        return getattr(import_module(".strategies", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
