"""What the Triton kernels can do, and what they are compiled for."""

from __future__ import annotations

from functools import lru_cache

import torch

from ..compiler import ir
from ..compiler.compiled import Compiled
from ..compiler.ir import Side
from ..diagnostics import BackendError
from .backend import Operands
from .cards import CARDS, INTERPRETER, stand_in
from .configs import Kind, Target, splits
from .emit import Source, Unfit, emit
from .offline import current
from .run import INTERPRETED

LARGEST_DIM = 256
KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def target_of(compiled: Compiled, operands: Operands) -> Target:
    """What a call is compiled for. Raises BackendError, with the remedy, for a call that the kernels cannot do."""
    elsewhere = current()
    return _target(compiled, operands, None if elsewhere is None else elsewhere.capability)


@lru_cache(maxsize=1024)
def _target(compiled: Compiled, operands: Operands, elsewhere: int | None) -> Target:
    dtype, device, dim = operands.dtype, operands.device, max(operands.head_dim, operands.value_dim)
    interpreted = INTERPRETED and operands.capability is None
    remedy = 'backend="tiled" does the same call on any device'
    if device.type != "cuda" and not interpreted and elsewhere is None:
        raise BackendError(
            f'backend="triton" runs on a GPU, and this is for {device.type}: {remedy}; '
            "with TRITON_INTERPRET=1 in the environment, before Python starts, Triton's interpreter runs the kernels slowly"
        )
    if torch.version.hip and elsewhere is None and not interpreted:
        raise BackendError(f'backend="triton" has not been compiled for AMD cards: {remedy}')
    if dim > LARGEST_DIM:
        raise BackendError(f'backend="triton" takes a head_dim up to {LARGEST_DIM}; got {dim}: {remedy}')
    if dtype not in KERNEL_DTYPES and not (interpreted and dtype is torch.float64):
        raise BackendError(f'backend="triton" takes float16, bfloat16 and float32; got {name_of(dtype)}: {remedy}')
    try:
        source_of(compiled, True)
    except Unfit as why:
        raise BackendError(f'this mask is not for backend="triton", because {why}; {remedy}') from None
    capability = _capability(operands, elsewhere)
    if stand_in(capability) is None:
        known = ", ".join(f"sm_{c}" for c in CARDS)
        raise BackendError(f'backend="triton" has been compiled for {known}, and this card is sm_{capability}, of another generation: {remedy}')
    return Target(capability, dtype, block_of(dim), kind_of(compiled), operands.heads_per_key > 1)


def kind_of(compiled: Compiled) -> Kind:
    if any(isinstance(n, ir.Load | ir.Gather) for n in compiled.split.pairs):
        return Kind.LOOKUPS
    _, gate_k, gate_v = compiled.program.gates
    return Kind.PLAIN if gate_k == gate_v else Kind.APART


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _capability(operands: Operands, elsewhere: int | None) -> int:
    """90 for sm_90; 0 for the interpreter."""
    if operands.capability is None and elsewhere is not None:
        return elsewhere
    return INTERPRETER if operands.capability is None and INTERPRETED else operands.card


def launches_of(operands: Operands) -> tuple[str, ...]:
    """The gradients that each launch of the backward works out: dQ, and dK and dV together or, where their sums do not fit the registers, apart."""
    elsewhere = current()
    is_card = operands.device.type == "cuda" or elsewhere is not None
    apart = is_card and splits(_capability(operands, None if elsewhere is None else elsewhere.capability), max(operands.head_dim, operands.value_dim))
    return ("q", "k", "v") if apart else ("q", "kv")


def block_of(dim: int) -> int:
    """The smallest power of 2 from 16 that holds `dim`: a product of blocks takes no less."""
    return max(16, 1 << (dim - 1).bit_length())


@lru_cache(maxsize=256)
def source_of(compiled: Compiled, wide: bool, numbered: frozenset[Side] | None = None) -> Source:
    return emit(compiled, wide, numbered)
