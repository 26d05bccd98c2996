"""Which configs a mask gets: those of the table, or the nearest smaller ones that its own predicate compiles to without spills.

What a predicate takes is known when it is compiled, so the kernels are compiled before a plan is made, whose tile their configs set, and what is
found is kept in the cache folder, by the content of everything it depends on. What a plan then decides (numbers of 64 bits, an order of tokens)
gives another predicate; its configs are looked for among those that the tile of the plan holds, so a plan is never made twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import astuple, dataclass
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import triton
from triton.runtime.errors import TritonError

from ..compiler.compiled import Compiled
from ..diagnostics import BackendError
from ..kept import keep, kept
from .backend import Operands
from .call import Call
from .cards import INTERPRETER, SHARED_BYTES, stand_in
from .configs import SMALLEST, Config, Configs, Kernel, Target, choose, splits
from .cubin import usage
from .emit import Source
from .offline import compiling, current
from .packing import blank
from .target import name_of, source_of, target_of

# Operations of a predicate that one thread is given, unrolled: what a compiler takes some ten seconds for.
MOST_EMITTED = 8192


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a config does not do."""

    what: str
    spills: bool = True  # else it is shared memory that it lacks


def configs_of(compiled: Compiled, operands: Operands, source: Source | None = None, tile: int | None = None) -> Configs:
    """The configs of a call. `source`: the predicate as planned, else what it most often is; `tile`: that of the plan. Raises BackendError, with the
    remedy, for a call that the kernels cannot do, or not without spilling."""
    target = target_of(compiled, operands)
    start = _start(target, operands, tile)
    # A card that is only spoken of is asked of the table: there is nothing to compile with.
    if target.capability == INTERPRETER or operands.capability is not None:
        return start
    return _fitted(compiled, operands, target, source or source_of(compiled, False), start)


def choice(compiled: Compiled, operands: Operands) -> Callable[[Source, int], Configs]:
    """What of a predicate and the tile of a plan tells the configs."""
    return lambda source, tile: configs_of(compiled, operands, source, tile)


@lru_cache(maxsize=1024)
def _start(target: Target, operands: Operands, tile: int | None) -> Configs:
    """Where the steps begin; asked for at every launch."""
    found = from_table(target, operands)
    return found if tile is None else found.within(tile)


def from_table(target: Target, operands: Operands) -> Configs:
    """What the table has. Raises BackendError where it leaves one open."""
    found = [choose(kernel, target) for kernel in Kernel]
    for kernel, config in zip(Kernel, found, strict=True):
        if config is None:
            raise _none(kernel, target, operands, "in the table: those that were tried spill")
    return Configs(*found, splits(target.capability, target.head_dim))  # type: ignore[arg-type]


def _none(kernel: Kernel, target: Target, operands: Operands, why: str) -> BackendError:
    heads = " and several query heads a key head" if target.grouped else ""
    dim = max(operands.head_dim, operands.value_dim)
    return BackendError(
        f'backend="triton" has no config for the {kernel.name} kernel of this mask on sm_{target.capability}, with {name_of(target.dtype)}, head_dim {dim}{heads}, '
        f'{why}; backend="tiled" does the same call on any device'
    )


# ------------------------------------------------------------------------------------------------ compiled until it fits


@lru_cache(maxsize=1024)
def _fitted(compiled: Compiled, operands: Operands, target: Target, source: Source, start: Configs) -> Configs:
    name = f"srt_masks_configs_{_key(compiled, operands, target, source, start)}.json"
    found: dict[str, Any] | None = _read(kept(name), start)
    if found is None:
        steps: dict[str, Any] = {kernel.name: _steps(kernel, compiled, operands, target, source, start) for kernel in Kernel}
        found = steps
        keep(name, json.dumps(found))
    for kernel in Kernel:
        if isinstance(found[kernel.name], str):
            raise _none(kernel, target, operands, f"not even the smallest: {found[kernel.name]}")
    forward, dq, dkv = (Config(*found[kernel.name]) for kernel in Kernel)
    return Configs(forward, dq, dkv, start.splits)


def _read(text: str | None, start: Configs) -> dict[str, Any] | None:
    """What was kept, if it is what `_steps` can have said: a file may be cut short, or somebody else's."""
    try:
        found = json.loads(text or "")
        return found if all(_is_a_step(found[kernel.name], start.of(kernel)) for kernel in Kernel) else None
    except (ValueError, TypeError, KeyError):
        return None


def _is_a_step(said: Any, start: Config) -> bool:
    """Whether it is words, or the numbers of a config whose tile the one that the search began with holds."""
    if isinstance(said, str):
        return True
    if not (isinstance(said, list) and len(said) == 4 and all(type(x) is int and x > 0 and x & (x - 1) == 0 for x in said[:3]) and said[3] in range(1, 8)):
        return False
    rows, cols, warps, _ = said
    return SMALLEST <= rows <= start.rows and SMALLEST <= cols <= start.cols and warps <= 32


def _steps(kernel: Kernel, compiled: Compiled, operands: Operands, target: Target, source: Source, start: Configs) -> tuple[int, ...] | str:
    """The first that does, as numbers; or what is wrong with the smallest."""
    config = start.of(kernel)
    while (lighter := config.smaller(target, spills=True)) is not None and config.rows * config.cols * len(
        compiled.split.pairs
    ) > MOST_EMITTED * 32 * config.warps:
        config = lighter
    while True:
        found = problem(kernel, start.but(kernel, config), compiled, operands, target, source)
        if found is None:
            return astuple(config)
        following = config.smaller(target, found.spills)
        if following is None:
            return found.what
        config = following


def problem(kernel: Kernel, configs: Configs, compiled: Compiled, operands: Operands, target: Target, source: Source) -> Problem | None:
    """What is wrong with a kernel's config for a predicate, found by compiling it."""
    try:
        found = [usage(made) for made in compile_alone(kernel, configs, compiled, operands, source)]
    except (TritonError, RuntimeError) as error:
        return Problem(f"{type(error).__name__}, {next(iter(str(error).splitlines()), '')[:200]}")
    card = stand_in(target.capability)
    assert card is not None, "target_of refuses such a card"
    for taken in found:
        if taken.shared > SHARED_BYTES[card]:
            return Problem(f"it takes {taken.shared:,} bytes of shared memory, and a block has {SHARED_BYTES[card]:,}", spills=taken.stack > 0)
        if taken.stack:
            return Problem(f"it spills {taken.stack:,} bytes")
    return None


def compile_alone(kernel: Kernel, configs: Configs, compiled: Compiled, operands: Operands, source: Source) -> list[Any]:
    """A kernel as a call of these operands launches it, compiled only: what Triton makes of it, twice where dK and dV take a launch each."""
    found = []
    sizes = (operands.heads_per_key, operands.head_dim), (1, operands.head_dim), (1, operands.value_dim)
    q, k, v = (torch.empty(1, heads, 16, dim, dtype=operands.dtype) for heads, dim in sizes)
    row, dout = torch.empty(q.shape[:3], dtype=torch.float32), torch.empty(*q.shape[:3], operands.value_dim, dtype=operands.dtype)
    here = torch.cuda.device(operands.device) if operands.device.type == "cuda" and current() is None else nullcontext()
    with here, compiling(lambda _, __, made: found.append(made)):
        call = Call(q, k, v, blank(source, configs.tile), compiled, 1.0, lambda *_: configs)
        match kernel:
            case Kernel.FORWARD:
                call.forward()
            case Kernel.DQ:
                call.query_gradient(dout, {"delta": row, "top": row, "rest": row})
            case Kernel.DKV:
                call.key_gradients(dout, {"delta": row, "top": row, "rest": row}, True, True)
    return found


def _key(compiled: Compiled, operands: Operands, target: Target, source: Source, start: Configs) -> str:
    _, gate_k, gate_v = compiled.program.gates  # which sections dK/dV has
    about = (
        source.key,
        source.wide,
        sorted(side.name for side in source.numbered),
        gate_k == gate_v,
        operands.head_dim,
        operands.value_dim,
        operands.heads_per_key,
        target,
        start,
    )
    return sha256(repr((*about, triton.__version__, torch.version.cuda, _kernels())).encode()).hexdigest()[:24]


@cache
def _kernels() -> str:
    """The content of the kernels, and of what gives them their arguments and configs."""
    names = ("triton_forward", "triton_backward", "triton_common", "triton_arithmetic", "call", "fit", "configs")
    return sha256(b"\0".join((Path(__file__).parent / f"{name}.py").read_bytes() for name in names)).hexdigest()
