"""The `triton` backend: one call after another, as launches of the kernels."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..compiler.choice import Costs
from ..compiler.compiled import Compiled
from ..compiler.plan import Plan
from .backend import Attended, Operands
from .call import Call, dense_rows
from .fit import choice, configs_of
from .packing import Packed, pack
from .target import launches_of, target_of


class TritonBackend:
    name = "triton"

    def __init__(self) -> None:
        self._packed: WeakKeyDictionary[Plan, dict[Any, list[Tensor]]] = WeakKeyDictionary()

    def tile(self, compiled: Compiled, operands: Operands) -> int:
        return configs_of(compiled, operands).tile

    def costs(self, operands: Operands, tile: int) -> Costs:
        # On an H200 (benchmarks/results/gpu_attention.md) a window of 9 tiles a row takes 1.24 times as long for each tile as causal, where nearly
        # all are FULL: that fits `partial` and `row`. The others are not measured.
        return Costs(partial=1.7, operator=0.0, start=0.0, row=0.9, run=0.13, token=0.013, launches=launches_of(operands))

    def pack(self, plan: Plan, compiled: Compiled, operands: Operands) -> list[Tensor]:
        known = self._packed.setdefault(plan, {})
        # What one stream writes, another may read too early.
        stream = torch.cuda.current_stream(operands.device).cuda_stream if operands.device.type == "cuda" else 0
        key = (target_of(compiled, operands), operands, stream)
        if key not in known:
            known[key] = pack(plan, compiled, choice(compiled, operands), operands.device).tensors
        return known[key]

    def forward(self, q: Tensor, k: Tensor, v: Tensor, packed: list[Tensor], compiled: Compiled, scale: float) -> Attended:
        # The forward takes the maximum of a row before it scales it; the same scores have a scale that is not negative.
        return _call(-q if scale < 0 else q, k, v, packed, compiled, abs(scale)).forward()

    def backward(
        self, dout: Tensor | None, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, attended: Attended,
        packed: list[Tensor], compiled: Compiled, scale: float, needs: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
        call = _call(q, k, v, packed, compiled, scale)
        dout = None if dout is None else dense_rows(dout)
        need_q, need_k, need_v = needs
        dv = None
        if dout is None:
            dout = q.new_zeros(v.shape[-1]).expand(attended.out.shape)
            dv, need_v = (v.new_zeros(v.shape) if need_v else None), False
        rows = call.prepare(attended, dout, dlse)
        dq = call.query_gradient(dout, rows) if need_q else None
        dk, dv_found = call.key_gradients(dout, rows, need_k, need_v) if need_k or need_v else (None, None)
        return dq, dk, dv if dv is not None else dv_found


def _call(q: Tensor, k: Tensor, v: Tensor, packed: list[Tensor], compiled: Compiled, scale: float) -> Call:
    return Call(q, k, v, Packed.of(packed), compiled, scale, choice(compiled, Operands.of(q, k, v)))
