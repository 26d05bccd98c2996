"""Which backend does a call. Triton is imported only when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache, lru_cache

import torch

from ..binding import NO_FLOAT64
from ..compiler.compiled import Compiled
from ..compiler.plan import Plan
from ..diagnostics import BackendError, warn_caller
from .backend import Backend, Operands
from .tiled import TiledBackend

# Where `auto` is `triton`: cards, as compute capabilities, and dtypes on which a card has shown it right, and several times faster than the
# float32 products that `tiled` is made of can be (benchmarks/results/gpu_attention.md).
MEASURED = {90: (torch.float16, torch.bfloat16)}


@cache
def backend_of(name: str) -> Backend:
    """The backend of a name. Raises BackendError where its package is missing."""
    match name:
        case "tiled":
            return TiledBackend()
        case "triton":
            try:
                from .launch import TritonBackend
            except ImportError as error:
                how = "pip install triton" if sys.platform == "linux" else "it is made for Linux alone"
                raise BackendError(f'backend="triton" needs the package triton ({error}): {how}; backend="tiled" runs the same spec on any device') from None
            return TritonBackend()
        case _:
            raise BackendError(f'no backend is called {name!r}; backend="tiled" runs on any device')


def pick(name: str, predicates: tuple[Compiled, ...], operands: Operands, tell: bool = True) -> Backend:
    """The backend of a call, whose predicates are that of k and v and, if the text has `stop hidden`, that of their twins. `auto` is `triton` on a
    card where it was measured, if that does all of them, and `tiled` elsewhere; on a GPU it tells why, once."""
    if name != "auto":
        return backend_of(name)
    why = why_tiled(predicates, operands)
    if why is None:
        return backend_of("triton")
    if tell and operands.device.type == "cuda":
        _warn(why)
    return backend_of("tiled")


def refusal(name: str, predicates: tuple[Compiled, ...], operands: Operands) -> BackendError | None:
    """What a backend that is asked for by name raises for such a call, the reference among them; None: it does it."""
    try:
        if name == "reference":
            check_reference(operands.device)
        else:
            _check_all(backend_of(name), predicates, operands)
    except BackendError as error:
        return error
    return None


def check_reference(device: torch.device) -> None:
    """Raises BackendError for a device without float64, in which the reference computes."""
    if device.type in NO_FLOAT64:
        raise BackendError(
            f'backend="reference" computes in float64, and {device.type} has none: backend="tiled" runs there, and the reference on q.cpu(), k.cpu(), v.cpu()'
        )


@lru_cache(maxsize=1024)
def why_tiled(predicates: tuple[Compiled, ...], operands: Operands) -> str | None:
    """Why `auto` is `tiled` for such a call; None where it is `triton`."""
    if operands.device.type != "cuda":
        return f"`triton` is for CUDA cards, and this is for {operands.device.type}"
    if operands.dtype not in MEASURED.get(operands.card, ()):
        return f'backend="triton" has not been timed on sm_{operands.card} with {str(operands.dtype).removeprefix("torch.")}'
    try:
        _check_all(backend_of("triton"), predicates, operands)
    except BackendError as error:
        return str(error)
    return None


def _check_all(backend: Backend, predicates: tuple[Compiled, ...], operands: Operands) -> None:
    """Raises BackendError for the first predicate that the backend cannot do."""
    for compiled in predicates:
        backend.tile(compiled, operands)


def settle(backend: Backend, planned: Iterable[tuple[Plan, Compiled]], operands: Operands) -> Backend:
    """The backend of an `auto` call that is planned. A plan may ask for another predicate (numbers of 64 bits, another order of tokens), for which
    the one that was picked may have no config: then it is `tiled`, which takes the same plan."""
    if backend.name == "triton":
        try:
            for plan, compiled in planned:
                backend.pack(plan, compiled, operands)
        except BackendError as error:
            _warn(str(error))
            return backend_of("tiled")
    return backend


@cache
def _warn(why: str) -> None:
    warn_caller(f'backend="auto" runs this on `tiled`: {why}')
