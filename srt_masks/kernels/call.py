"""One call's launches: its arguments as the kernels name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..compiler.compiled import Compiled
from ..compiler.ir import Side
from . import triton_backward, triton_forward
from .backend import Attended, Operands
from .configs import Config, Configs, Kernel
from .emit import Source
from .packing import Packed, key_sections
from .predicates import module_of
from .run import INTERPRETED, run
from .target import block_of, source_of


class Call:
    """One call: `choose` says which configs it takes, of a predicate and the tile of a plan."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, packed: Packed, compiled: Compiled, scale: float, choose: Callable[[Source, int], Configs]):
        self.q, self.k, self.v = (dense_rows(x) for x in (q, k, v))
        self.packed, self.compiled, self.scale = packed, compiled, scale
        self.tile, wide, by_query, by_key, self.query_rows, self.key_rows = packed.extents.tolist()
        numbered = frozenset(side for side, is_numbered in zip(Side, (by_query, by_key), strict=True) if is_numbered)
        self.source = source_of(compiled, bool(wide), numbered)
        self.module = module_of(self.source)
        self.heads_per_key = Operands.of(q, k, v).heads_per_key
        self.configs = choose(self.source, self.tile)

    def forward(self) -> Attended:
        q, v = self.q, self.v
        out = q.new_empty(*q.shape[:3], v.shape[-1])
        lse, top, rest = (q.new_empty(q.shape[:3], dtype=torch.float64 if q.dtype is torch.float64 else torch.float32) for _ in range(3))
        self.walk(
            triton_forward.forward_kernel, Kernel.FORWARD, self.query_rows, out=out, lse=lse, top=top, rest=rest, **self.operands(),
            live=self.packed.live, **self.packed.forward.by_name(), heads_per_key=self.heads_per_key, **self.shapes(),
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
        self.walk(
            triton_backward.query_gradient_kernel, Kernel.DQ, self.query_rows,
            dout=dout, **_strides("do", dout), **rows, dq=dq, **self.operands(), live=self.packed.live,
            **self.packed.dq.by_name(), heads_per_key=self.heads_per_key, **self.shapes(), GATE_Q=self.module.gate_q, WEIGHTED=self.source.weighted[0],
        )  # fmt: skip
        return dq

    def key_gradients(self, dout: Tensor, rows: dict[str, Tensor], want_k: bool, want_v: bool) -> tuple[Tensor | None, Tensor | None]:
        # What is not wanted is not written: its address is never used.
        dk, dv = self.k.new_empty(self.k.shape if want_k else 1), self.v.new_empty(self.v.shape if want_v else 1)
        together = not self.configs.splits or not (want_k and want_v)
        for k_now, v_now in ((want_k, want_v),) if together else ((True, False), (False, True)):
            self.key_gradient(dout, rows, dk, dv, k_now, v_now)
        return (dk if want_k else None), (dv if want_v else None)

    def key_gradient(self, dout: Tensor, rows: dict[str, Tensor], dk: Tensor, dv: Tensor, want_k: bool, want_v: bool) -> None:
        self.walk(
            triton_backward.key_gradient_kernel, Kernel.DKV, self.key_rows, members=self.k.shape[0] * self.k.shape[1],
            dout=dout, **_strides("do", dout), **rows, dk=dk, dv=dv, **self.operands(), keys_all=self.k.shape[2],
            **self.packed.dkv.by_name(), **self.shapes(), GATE_K=self.module.gate_k, GATE_V=self.module.gate_v,
            WANT_K=want_k, WANT_V=want_v, WEIGHTED_K=self.source.weighted[1], WEIGHTED_V=self.source.weighted[2],
            SECTIONS=key_sections(self.compiled, want_k, want_v), HEADS_PER_KEY=self.heads_per_key,
        )  # fmt: skip

    # -------------------------------------------------------------------------------------- arguments by name

    def walk(self, kernel: Any, column: Kernel, rows: int, **arguments: Any) -> None:
        """Programs for all `rows` of tiles of the plan: as many for each as it holds of the config's."""
        config = self.configs.of(column)
        parts = self.tile // config.rows
        queries, keys = (config.cols, config.rows) if column is Kernel.DKV else config.sizes
        self.launch(kernel, rows * parts, config, rows=rows, parts=parts, BLOCK_M=queries, BLOCK_N=keys, **arguments)

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
            "BLOCK_HEAD": block_of(head_dim), "BLOCK_VALUE": block_of(value_dim), "PRECISION": "ieee",
            # Products of bfloat16 are wrong in Triton's interpreter.
            "UPCAST": INTERPRETED and self.q.dtype is torch.bfloat16, **self.unit(),
        }  # fmt: skip


def dense_rows(x: Tensor) -> Tensor:
    """The kernels read rows whose numbers lie side by side; any distance between rows, heads and batch rows, none too, serves them."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _strides(name: str, x: Tensor) -> dict[str, int]:
    return dict(zip((f"{name}_batch", f"{name}_head", f"{name}_row"), x.stride()[:3], strict=True))
