"""What the Triton kernels can do, and what they are compiled for."""

from __future__ import annotations

from functools import lru_cache

import torch

from ..compiler import ir
from ..compiler.compiled import Compiled
from ..compiler.ir import Side
from ..diagnostics import BackendError
from .backend import Operands
from .configs import CAPABILITIES, Config, Kernel, Kind, Target, choose
from .emit import Source, Unfit, emit
from .offline import Offline, current
from .run import INTERPRETED

LARGEST_DIM = 256
KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def target_of(compiled: Compiled, operands: Operands) -> Target:
    """What a call is compiled for. Raises BackendError, with the remedy, for a call that the kernels cannot do."""
    return _target(compiled, operands, current())


@lru_cache(maxsize=1024)
def _target(compiled: Compiled, operands: Operands, elsewhere: Offline | None) -> Target:
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
        raise BackendError(f'backend="triton" takes float16, bfloat16 and float32; got {_name(dtype)}: {remedy}')
    try:
        source_of(compiled, True)
    except Unfit as why:
        raise BackendError(f'this mask is not for backend="triton", because {why}; {remedy}') from None
    capability = _capability(operands, elsewhere)
    if capability not in CAPABILITIES:
        known = ", ".join(f"sm_{c}" for c in CAPABILITIES if c)
        raise BackendError(f'backend="triton" has been compiled for {known}, and this card is sm_{capability}: {remedy}')
    target = Target(capability, dtype, block_of(dim), kind_of(compiled), operands.heads_per_key > 1)
    for kernel in Kernel:
        if choose(kernel, target) is None:
            heads = " and several query heads a key head" if target.grouped else ""
            raise BackendError(
                f'backend="triton" has no config for sm_{capability} whose {kernel.name} kernel does not spill with {_name(dtype)}, head_dim {dim}, '
                f"a mask of the kind `{target.kind.value}`{heads}: {remedy}"
            )
    return target


def config_of(kernel: Kernel, target: Target) -> Config:
    config = choose(kernel, target)
    assert config is not None, "target_of refuses such a target"
    return config


def kind_of(compiled: Compiled) -> Kind:
    if any(isinstance(n, ir.Load | ir.Gather) for n in compiled.split.pairs):
        return Kind.LOOKUPS
    _, gate_k, gate_v = compiled.program.gates
    return Kind.PLAIN if gate_k == gate_v else Kind.APART


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _capability(operands: Operands, elsewhere: Offline | None) -> int:
    """90 for sm_90; 0 for the interpreter."""
    if operands.capability is None and elsewhere is not None:
        return elsewhere.capability
    return 0 if operands.capability is None and INTERPRETED else operands.card


def block_of(dim: int) -> int:
    """The smallest power of 2 from 16 that holds `dim`: a product of blocks takes no less."""
    return max(16, 1 << (dim - 1).bit_length())


@lru_cache(maxsize=256)
def source_of(compiled: Compiled, wide: bool, numbered: frozenset[Side] | None = None) -> Source:
    return emit(compiled, wide, numbered)
