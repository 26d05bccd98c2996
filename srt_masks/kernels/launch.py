"""The `triton` backend: a plan as the kernels read it, and the launches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import triton
from torch import Tensor

from ..compiler import ir
from ..compiler.boxes import PARTIAL, State, state
from ..compiler.plan import Compiled, Plan
from ..compiler.runs import Consumer
from ..diagnostics import BackendError
from . import triton_backward, triton_forward
from .backend import Operands
from .buffers import Buffers, Schedule, buffers, needs_wide, schedule
from .configs import CAPABILITIES, Config, Kernel, Kind, Target, choose, splits
from .emit import Source, Unfit, emit
from .offline import Offline, current
from .predicates import module_of

LARGEST_DIM = 256
LARGEST_TILE = 512
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
INTERPRETED = not isinstance(triton_forward.forward_kernel, triton.JITFunction)
_INTERPRETER = Lock()


# ------------------------------------------------------------------------------------------------ what can be done


def target_of(compiled: Compiled, operands: Operands) -> Target:
    """What a call is compiled for. Raises BackendError, with the remedy, for a call that the kernels cannot do."""
    dtype, device, dim = operands.dtype, operands.device, max(operands.head_dim, operands.value_dim)
    remedy = 'backend="tiled" does the same call on any device'
    elsewhere = current()
    if device.type != "cuda" and not INTERPRETED and elsewhere is None:
        raise BackendError(
            f'backend="triton" runs on a GPU, and this is for {device.type}: {remedy}; '
            "with TRITON_INTERPRET=1 in the environment, before Python starts, Triton's interpreter runs the kernels slowly"
        )
    if dim > LARGEST_DIM:
        raise BackendError(f'backend="triton" takes a head_dim up to {LARGEST_DIM}; got {dim}: {remedy}')
    if dtype not in DTYPES and not (INTERPRETED and dtype is torch.float64):
        raise BackendError(f'backend="triton" takes float16, bfloat16 and float32; got {str(dtype).removeprefix("torch.")}: {remedy}')
    try:
        source_of(compiled, True)
    except Unfit as why:
        raise BackendError(f'this mask is not for backend="triton", because {why}; {remedy}') from None
    capability = _capability(device, elsewhere)
    if capability not in CAPABILITIES:
        known = ", ".join(f"sm_{c}" for c in CAPABILITIES if c)
        raise BackendError(f'backend="triton" has been compiled for {known}, and this card is sm_{capability}: {remedy}')
    target = Target(capability, dtype, block_of(dim), kind_of(compiled), operands.group > 1)
    if any(choose(kernel, target) is None for kernel in Kernel):
        raise BackendError(f'backend="triton" has no config for {dtype} at head_dim {dim} on sm_{capability} that does not spill: {remedy}')
    return target


def config_of(kernel: Kernel, target: Target, tile: int) -> Config:
    config = choose(kernel, target)
    assert config is not None, "target_of refuses such a target"
    return config.within(tile)


def kind_of(compiled: Compiled) -> Kind:
    if any(isinstance(n, ir.Load | ir.Gather) for n in compiled.split.pairs):
        return Kind.LOOKUPS
    _, gate_k, gate_v = compiled.program.gates
    return Kind.PLAIN if gate_k == gate_v else Kind.APART


def _capability(device: torch.device, elsewhere: Offline | None) -> int:
    """90 for sm_90; 0 for the interpreter."""
    if elsewhere is not None:
        return elsewhere.capability
    if INTERPRETED:
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def block_of(dim: int) -> int:
    """The smallest power of 2 from 16 that holds `dim`: a product of blocks takes no less."""
    return max(16, 1 << (dim - 1).bit_length())


@lru_cache(maxsize=256)
def source_of(compiled: Compiled, wide: bool) -> Source:
    return emit(compiled, wide)


# ------------------------------------------------------------------------------------------------ sections


def forward_section(kind: Tensor) -> Tensor:
    """FULL, PARTIAL"""
    return kind & PARTIAL


def query_section(kind: Tensor) -> Tensor:
    """plain, masked"""
    return torch.where((kind & PARTIAL == 0) & (state(kind, "q") == State.ALL), 0, 1)


def key_section(kind: Tensor) -> Tensor:
    """Both, dK alone, dV alone; of each plain, then masked."""
    k, v = state(kind, "k"), state(kind, "v")
    which = torch.where(v == State.NONE, 1, torch.where(k == State.NONE, 2, 0))
    masked = (kind & PARTIAL != 0) | (k == State.MIXED) | (v == State.MIXED)
    return 2 * which + masked.long()


def key_sections(compiled: Compiled, want_k: bool, want_v: bool) -> int:
    """A bit for every section of dK/dV that the mask can have and that feeds a wanted gradient. It follows from the text alone,
    so that no length decides what is compiled."""
    _, gate_k, gate_v = compiled.program.gates
    open_k, open_v = gate_k == ir.Gate(), gate_v == ir.Gate()  # never shut
    apart = gate_k != gate_v
    reached = (want_k or want_v, apart and not open_v and want_k, apart and not open_k and want_v)
    return sum(0b11 << 2 * i for i, bit in enumerate(reached) if bit)


# ------------------------------------------------------------------------------------------------ a plan, packed


@dataclass(frozen=True, slots=True)
class Packed:
    """A plan as the kernels read it. It travels through the operators as a list of tensors."""

    extents: Tensor  # on the host: tile, wide, rows of queries, rows of keys
    buffers: Buffers
    live: Tensor  # (keys of all groups + 1,) uint8: whether any query attends a key
    forward: Schedule
    dq: Schedule
    dkv: Schedule

    @property
    def tensors(self) -> list[Tensor]:
        return [self.extents, *self.buffers.tensors, self.live, *self.forward.tensors, *self.dq.tensors, *self.dkv.tensors]

    @staticmethod
    def of(tensors: list[Tensor]) -> Packed:
        return Packed(tensors[0], Buffers(*tensors[1:7]), tensors[7], Schedule(*tensors[8:13]), Schedule(*tensors[13:18]), Schedule(*tensors[18:23]))


def pack(plan: Plan, compiled: Compiled, target: Target, device: torch.device) -> Packed:
    g = plan.geometry
    wide = needs_wide(plan)
    source = source_of(compiled, wide)
    configs = {kernel: config_of(kernel, target, g.tile) for kernel in Kernel}
    made = buffers(plan, source.columns, wide).to(device)
    schedules = [
        schedule(plan, consumer, section, count, configs[kernel].cols).to(device)
        for kernel, consumer, section, count in (
            (Kernel.FORWARD, Consumer.FORWARD, forward_section, 2),
            (Kernel.DQ, Consumer.DQ, query_section, 2),
            (Kernel.DKV, Consumer.DKV, key_section, 6),
        )
    ]
    query_rows, key_rows = (-(-n // g.tile) for n in (g.queries, g.keys))
    live = _live(plan, source, made, configs[Kernel.DKV], device)
    return Packed(torch.tensor([g.tile, wide, query_rows, key_rows]), made, live, *schedules)


def _live(plan: Plan, source: Source, made: Buffers, config: Config, device: torch.device) -> Tensor:
    g, groups = plan.geometry, len(plan.groups)
    rows = -(-g.keys // g.tile)
    live = torch.zeros(sum(x.keys for x in plan.groups) + 1, dtype=torch.uint8, device=device)
    runs = schedule(plan, Consumer.SEEN, forward_section, 2, config.cols).to(device)
    module = module_of(source)
    _launch(
        triton_forward.live_kernel, groups * rows * (g.tile // config.rows), config, device, not source.floats, live=live, **made.by_name(), **runs.by_name(),
        rows=rows, groups=groups, CONSTANTS=module.constants, QUERIES=module.queries, KEYS=module.keys, ATTENDED=module.attended,
        FACTS=made.facts.shape[1], NUMBERS=made.numbers.shape[1], TILE=g.tile, BLOCK_M=config.cols, BLOCK_N=config.rows,
    )  # fmt: skip
    return live


# ------------------------------------------------------------------------------------------------ the backend


class TritonBackend:
    name = "triton"

    def __init__(self) -> None:
        self._packed: WeakKeyDictionary[Plan, dict[Any, list[Tensor]]] = WeakKeyDictionary()

    def tile(self, compiled: Compiled, operands: Operands) -> int:
        target = target_of(compiled, operands)
        configs = [config_of(kernel, target, LARGEST_TILE) for kernel in Kernel]
        return max(size for config in configs for size in (config.rows, config.cols))

    def pack(self, plan: Plan, compiled: Compiled, operands: Operands) -> list[Tensor]:
        target = target_of(compiled, operands)
        known = self._packed.setdefault(plan, {})
        # What one stream writes, another may read too early.
        stream = torch.cuda.current_stream(operands.device).cuda_stream if operands.device.type == "cuda" else 0
        key = (target, operands.device, stream)
        if key not in known:
            known[key] = pack(plan, compiled, target, operands.device).tensors
        return known[key]

    def forward(self, q: Tensor, k: Tensor, v: Tensor, packed: list[Tensor], compiled: Compiled, scale: float) -> tuple[Tensor, Tensor]:
        return _Call(q, k, v, Packed.of(packed), compiled, scale).forward()

    def backward(
        self, dout: Tensor | None, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
        packed: list[Tensor], compiled: Compiled, scale: float, needs: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
        call = _Call(q, k, v, Packed.of(packed), compiled, scale)
        dout = None if dout is None else _within_32_bits(dout)
        need_q, need_k, need_v = needs
        dv = None
        if dout is None:
            dout = out.new_zeros(()).expand(out.shape)
            dv, need_v = (v.new_zeros(v.shape) if need_v else None), False
        delta, log_sum = call.prepare(out, dout, lse, dlse)
        dq = call.query_gradient(dout, delta, log_sum) if need_q else None
        dk, dv_found = call.key_gradients(dout, delta, log_sum, need_k, need_v) if need_k or need_v else (None, None)
        return dq, dk, dv if dv is not None else dv_found


class _Call:
    """One call, and its arguments as the kernels name them."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, packed: Packed, compiled: Compiled, scale: float):
        self.q, self.k, self.v = (_within_32_bits(x) for x in (q, k, v))
        self.packed, self.compiled, self.scale = packed, compiled, scale
        self.tile, wide, self.query_rows, self.key_rows = packed.extents.tolist()
        self.source = source_of(compiled, bool(wide))
        self.module = module_of(self.source)
        operands = Operands.of(q, k, v)
        self.group = operands.group
        self.target = target_of(compiled, operands)

    def forward(self) -> tuple[Tensor, Tensor]:
        q, v = self.q, self.v
        out = q.new_empty(*q.shape[:3], v.shape[-1])
        lse = q.new_empty(q.shape[:3], dtype=torch.float64 if q.dtype is torch.float64 else torch.float32)
        config = self.config(Kernel.FORWARD)
        self.launch(
            triton_forward.forward_kernel, self.query_rows * (self.tile // config.rows), config, out=out, lse=lse, **self.operands(),
            live=self.packed.live, **self.packed.forward.by_name(), rows=self.query_rows, group_size=self.group, **self.shapes(), BLOCK_M=config.rows, BLOCK_N=config.cols,
        )  # fmt: skip
        return out, lse

    def prepare(self, out: Tensor, dout: Tensor, lse: Tensor, dlse: Tensor | None) -> tuple[Tensor, Tensor]:
        """delta - dlse, and lse in the unit of the scores."""
        delta, log_sum = torch.empty_like(lse), torch.empty_like(lse)
        value_dim = self.v.shape[-1]
        block = max(16, 4096 // block_of(value_dim))
        self.launch(
            triton_backward.prepare_kernel, -(-self.q.shape[2] // block), Config(block, block, 4, 1), out=out, dout=dout, **_strides("do", dout),
            lse=lse, dlse=lse if dlse is None else dlse.contiguous(), delta=delta, log_sum=log_sum, heads=self.q.shape[1], queries=self.q.shape[2],
            HAS_DLSE=dlse is not None, VALUE_DIM=value_dim, BLOCK_VALUE=block_of(value_dim), BLOCK_M=block, **self.unit(),
        )  # fmt: skip
        return delta, log_sum

    def query_gradient(self, dout: Tensor, delta: Tensor, log_sum: Tensor) -> Tensor:
        dq = self.q.new_empty(self.q.shape)
        config = self.config(Kernel.DQ)
        self.launch(
            triton_backward.query_gradient_kernel, self.query_rows * (self.tile // config.rows), config,
            dout=dout, **_strides("do", dout), delta=delta, log_sum=log_sum, dq=dq, **self.operands(), live=self.packed.live,
            **self.packed.dq.by_name(), rows=self.query_rows, group_size=self.group, **self.shapes(), GATE_Q=self.module.gate_q, WEIGHTED=self.source.weighted[0],
            BLOCK_M=config.rows, BLOCK_N=config.cols,
        )  # fmt: skip
        return dq

    def key_gradients(self, dout: Tensor, delta: Tensor, log_sum: Tensor, want_k: bool, want_v: bool) -> tuple[Tensor | None, Tensor | None]:
        # What is not wanted is not written: its address is never used.
        dk, dv = self.k.new_empty(self.k.shape if want_k else 1), self.v.new_empty(self.v.shape if want_v else 1)
        together = not splits(self.target) or not (want_k and want_v)
        for k_now, v_now in ((want_k, want_v),) if together else ((True, False), (False, True)):
            self.key_gradient(dout, delta, log_sum, dk, dv, k_now, v_now)
        return (dk if want_k else None), (dv if want_v else None)

    def key_gradient(self, dout: Tensor, delta: Tensor, log_sum: Tensor, dk: Tensor, dv: Tensor, want_k: bool, want_v: bool) -> None:
        config = self.config(Kernel.DKV)
        self.launch(
            triton_backward.key_gradient_kernel, self.key_rows * (self.tile // config.rows), config, members=self.k.shape[0] * self.k.shape[1],
            dout=dout, **_strides("do", dout), delta=delta, log_sum=log_sum, dk=dk, dv=dv, **self.operands(), keys_all=self.k.shape[2],
            **self.packed.dkv.by_name(), rows=self.key_rows, **self.shapes(), GATE_K=self.module.gate_k, GATE_V=self.module.gate_v,
            WANT_K=want_k, WANT_V=want_v, WEIGHTED_K=self.source.weighted[1], WEIGHTED_V=self.source.weighted[2],
            SECTIONS=key_sections(self.compiled, want_k, want_v), GROUP=self.group, BLOCK_M=config.cols, BLOCK_N=config.rows,
        )  # fmt: skip

    # -------------------------------------------------------------------------------------- arguments by name

    def config(self, kernel: Kernel) -> Config:
        return config_of(kernel, self.target, self.tile)

    def launch(self, kernel: Any, blocks: int, config: Config, **arguments: Any) -> None:
        """`blocks` programs for every member: (batch row, head), or (batch row, key head)."""
        members = arguments.setdefault("members", self.q.shape[0] * self.q.shape[1])
        _launch(kernel, members * blocks, config, self.q.device, not self.source.floats, **arguments)

    def operands(self) -> dict[str, Any]:
        q, k, v, b = self.q, self.k, self.v, self.packed.buffers
        return {"q": q, "k": k, "v": v, **_strides("q", q), **_strides("k", k), **_strides("v", v), **b.by_name(), "group_of": b.group_of}

    def unit(self) -> dict[str, bool]:
        wide = self.q.dtype in (torch.float32, torch.float64)
        return {"F64": self.q.dtype is torch.float64, "NATURAL": wide}

    def shapes(self) -> dict[str, Any]:
        head_dim, value_dim, b = self.q.shape[-1], self.v.shape[-1], self.packed.buffers
        return {
            "heads": self.q.shape[1], "queries": self.q.shape[2], "scale_given": self.scale,
            "CONSTANTS": self.module.constants, "QUERIES": self.module.queries, "KEYS": self.module.keys, "ATTENDED": self.module.attended,
            "FACTS": b.facts.shape[1], "NUMBERS": b.numbers.shape[1], "HEAD_DIM": head_dim, "VALUE_DIM": value_dim,
            "BLOCK_HEAD": block_of(head_dim), "BLOCK_VALUE": block_of(value_dim), "TILE": self.tile, "PRECISION": "ieee",
            # Products of bfloat16 are wrong in Triton's interpreter.
            "UPCAST": INTERPRETED and self.q.dtype is torch.bfloat16, **self.unit(),
        }  # fmt: skip


def _within_32_bits(x: Tensor) -> Tensor:
    """Offsets of rows have 64 bits in the kernels, those within a row 32: a row that is spread wider is brought together."""
    return x.contiguous() if x.shape[-1] * x.stride(-1) >= 2**31 else x


def _strides(name: str, x: Tensor) -> dict[str, int]:
    return dict(zip((f"{name}_batch", f"{name}_head", f"{name}_row", f"{name}_dim"), x.stride(), strict=True))


def _launch(kernel: Any, programs: int, config: Config, device: torch.device, fuse: bool, **arguments: Any) -> None:
    if programs == 0:
        return
    # Triton fuses a * b + c by default up to 3.9 and not from 3.10 on. A predicate that computes with floats must round as the planner did.
    options = {"num_warps": config.warps, "num_stages": config.stages, "enable_fp_fusion": fuse}
    elsewhere = current()
    if elsewhere is not None:
        elsewhere.record(kernel.fn.__name__, config, kernel.warmup(**arguments, grid=(programs,), **options))
        return
    if INTERPRETED:
        # It patches the language while it runs, so one call at a time; scores of pairs that do not attend may overflow, and are dropped.
        with _INTERPRETER, np.errstate(all="ignore"):
            kernel[(programs,)](**arguments, **options)
    else:
        with torch.cuda.device(device):
            kernel[(programs,)](**arguments, **options)
