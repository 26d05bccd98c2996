"""Which backend does a call. Triton is imported only when it is asked for."""

from __future__ import annotations

from functools import cache

from ..diagnostics import BackendError
from .backend import Backend
from .tiled import TiledBackend

NAMES = ("tiled", "triton")


@cache
def backend_of(name: str) -> Backend:
    """The backend of a name; `auto` is `tiled`, until the GPU kernels have been timed on a card. Raises BackendError."""
    if name != "triton":
        return TiledBackend()
    try:
        from .launch import TritonBackend
    except ImportError as error:
        raise BackendError(f'backend="triton" needs the package triton ({error}); backend="tiled" runs the same spec on any device') from None
    return TritonBackend()
