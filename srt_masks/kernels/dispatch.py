"""Which backend does a call. Triton is imported only when it is asked for."""

from __future__ import annotations

from functools import cache

from ..diagnostics import BackendError
from .backend import Backend
from .tiled import TiledBackend


@cache
def backend_of(name: str) -> Backend:
    """The backend of a name; `auto` is `tiled`, until the GPU kernels have been timed on a card. Raises BackendError."""
    match name:
        case "auto":
            return backend_of("tiled")
        case "tiled":
            return TiledBackend()
        case "triton":
            try:
                from .launch import TritonBackend
            except ImportError as error:
                raise BackendError(
                    f'backend="triton" needs the package triton ({error}): pip install triton; backend="tiled" runs the same spec on any device'
                ) from None
            return TritonBackend()
        case _:
            raise BackendError(f'no backend is called {name!r}; backend="tiled" runs on any device')
