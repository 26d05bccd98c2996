"""The `triton` backend: one call after another, as launches of the kernels."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..compiler.choice import Costs
from ..compiler.compiled import Compiled
from ..compiler.ir import Side
from ..compiler.plan import Plan
from . import triton_backward, triton_forward
from .backend import Attended, Operands
from .configs import Config, Kernel, splits
from .packing import Packed, key_sections, pack
from .predicates import module_of
from .run import INTERPRETED, run
from .target import block_of, config_of, source_of, target_of


class TritonBackend:
    name = "triton"

    def __init__(self) -> None:
        self._packed: WeakKeyDictionary[Plan, dict[Any, list[Tensor]]] = WeakKeyDictionary()

    def tile(self, compiled: Compiled, operands: Operands) -> int:
        target = target_of(compiled, operands)
        return max(size for kernel in Kernel for size in config_of(kernel, target).sizes)

    def costs(self, operands: Operands, tile: int) -> Costs:
        # On an H200 (benchmarks/results/gpu_attention.md) a window of 9 tiles a row takes 1.24 times as long for each tile as causal, where nearly
        # all are FULL: that fits these two. The others are not measured.
        return Costs(partial=1.7, operator=0.0, start=0.0, row=0.7, run=0.1, token=0.01)

    def pack(self, plan: Plan, compiled: Compiled, operands: Operands) -> list[Tensor]:
        target = target_of(compiled, operands)
        known = self._packed.setdefault(plan, {})
        # What one stream writes, another may read too early.
        stream = torch.cuda.current_stream(operands.device).cuda_stream if operands.device.type == "cuda" else 0
        key = (target, operands.device, stream)
        if key not in known:
            known[key] = pack(plan, compiled, target, operands.device).tensors
        return known[key]

    def forward(self, q: Tensor, k: Tensor, v: Tensor, packed: list[Tensor], compiled: Compiled, scale: float) -> Attended:
        # The forward takes the maximum of a row before it scales it; the same scores have a scale that is not negative.
        return _Call(-q if scale < 0 else q, k, v, Packed.of(packed), compiled, abs(scale)).forward()

    def backward(
        self, dout: Tensor | None, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, attended: Attended,
        packed: list[Tensor], compiled: Compiled, scale: float, needs: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
        call = _Call(q, k, v, Packed.of(packed), compiled, scale)
        dout = None if dout is None else _within_32_bits(dout)
        need_q, need_k, need_v = needs
        dv = None
        if dout is None:
            dout = q.new_zeros(()).expand(attended.out.shape)
            dv, need_v = (v.new_zeros(v.shape) if need_v else None), False
        rows = call.prepare(attended, dout, dlse)
        dq = call.query_gradient(dout, rows) if need_q else None
        dk, dv_found = call.key_gradients(dout, rows, need_k, need_v) if need_k or need_v else (None, None)
        return dq, dk, dv if dv is not None else dv_found


class _Call:
    """One call, and its arguments as the kernels name them."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, packed: Packed, compiled: Compiled, scale: float):
        self.q, self.k, self.v = (_within_32_bits(x) for x in (q, k, v))
        self.packed, self.compiled, self.scale = packed, compiled, scale
        self.tile, wide, by_query, by_key, self.query_rows, self.key_rows = packed.extents.tolist()
        numbered = frozenset(side for side, is_numbered in zip(Side, (by_query, by_key), strict=True) if is_numbered)
        self.source = source_of(compiled, bool(wide), numbered)
        self.module = module_of(self.source)
        operands = Operands.of(q, k, v)
        self.heads_per_key = operands.heads_per_key
        self.target = target_of(compiled, operands)

    def forward(self) -> Attended:
        q, v = self.q, self.v
        out = q.new_empty(*q.shape[:3], v.shape[-1])
        lse, top, rest = (q.new_empty(q.shape[:3], dtype=torch.float64 if q.dtype is torch.float64 else torch.float32) for _ in range(3))
        config = self.config(Kernel.FORWARD)
        self.launch(
            triton_forward.forward_kernel, self.query_rows * (self.tile // config.rows), config, out=out, lse=lse, top=top, rest=rest, **self.operands(),
            live=self.packed.live, **self.packed.forward.by_name(), rows=self.query_rows, heads_per_key=self.heads_per_key, **self.shapes(), BLOCK_M=config.rows, BLOCK_N=config.cols,
        )  # fmt: skip
        return Attended(out, lse, top, rest)

    def prepare(self, attended: Attended, dout: Tensor, dlse: Tensor | None) -> dict[str, Tensor]:
        """What the gradients need of every row of queries, by the kernels' names."""
        delta = torch.empty_like(attended.lse)
        value_dim = self.v.shape[-1]
        block = max(16, 4096 // block_of(value_dim))  # 16 numbers a thread of `out`, and of dO
        self.launch(
            triton_backward.prepare_kernel, -(-self.q.shape[2] // block), Config(block, block, 4, 1), out=attended.out, dout=dout, **_strides("do", dout),
            top=attended.top, dlse=delta if dlse is None else dlse.contiguous(), delta=delta, heads=self.q.shape[1], queries=self.q.shape[2],
            HAS_DLSE=dlse is not None, VALUE_DIM=value_dim, BLOCK_VALUE=block_of(value_dim), BLOCK_M=block, F64=self.q.dtype is torch.float64,
        )  # fmt: skip
        return {"delta": delta, "top": attended.top, "rest": attended.rest}

    def query_gradient(self, dout: Tensor, rows: dict[str, Tensor]) -> Tensor:
        dq = self.q.new_empty(self.q.shape)
        config = self.config(Kernel.DQ)
        self.launch(
            triton_backward.query_gradient_kernel, self.query_rows * (self.tile // config.rows), config,
            dout=dout, **_strides("do", dout), **rows, dq=dq, **self.operands(), live=self.packed.live,
            **self.packed.dq.by_name(), rows=self.query_rows, heads_per_key=self.heads_per_key, **self.shapes(), GATE_Q=self.module.gate_q, WEIGHTED=self.source.weighted[0],
            BLOCK_M=config.rows, BLOCK_N=config.cols,
        )  # fmt: skip
        return dq

    def key_gradients(self, dout: Tensor, rows: dict[str, Tensor], want_k: bool, want_v: bool) -> tuple[Tensor | None, Tensor | None]:
        # What is not wanted is not written: its address is never used.
        dk, dv = self.k.new_empty(self.k.shape if want_k else 1), self.v.new_empty(self.v.shape if want_v else 1)
        together = not splits(self.target) or not (want_k and want_v)
        for k_now, v_now in ((want_k, want_v),) if together else ((True, False), (False, True)):
            self.key_gradient(dout, rows, dk, dv, k_now, v_now)
        return (dk if want_k else None), (dv if want_v else None)

    def key_gradient(self, dout: Tensor, rows: dict[str, Tensor], dk: Tensor, dv: Tensor, want_k: bool, want_v: bool) -> None:
        config = self.config(Kernel.DKV)
        self.launch(
            triton_backward.key_gradient_kernel, self.key_rows * (self.tile // config.rows), config, members=self.k.shape[0] * self.k.shape[1],
            dout=dout, **_strides("do", dout), **rows, dk=dk, dv=dv, **self.operands(), keys_all=self.k.shape[2],
            **self.packed.dkv.by_name(), rows=self.key_rows, **self.shapes(), GATE_K=self.module.gate_k, GATE_V=self.module.gate_v,
            WANT_K=want_k, WANT_V=want_v, WEIGHTED_K=self.source.weighted[1], WEIGHTED_V=self.source.weighted[2],
            SECTIONS=key_sections(self.compiled, want_k, want_v), HEADS_PER_KEY=self.heads_per_key, BLOCK_M=config.cols, BLOCK_N=config.rows,
        )  # fmt: skip

    # -------------------------------------------------------------------------------------- arguments by name

    def config(self, kernel: Kernel) -> Config:
        return config_of(kernel, self.target).within(self.tile)

    def launch(self, kernel: Any, blocks: int, config: Config, **arguments: Any) -> None:
        """`blocks` programs for every member: (batch row, head), or (batch row, key head)."""
        members = arguments.setdefault("members", self.q.shape[0] * self.q.shape[1])
        # A predicate that computes with floats must round as the planner did.
        run(kernel, members * blocks, config, self.q.device, not self.source.floats, **arguments)

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
