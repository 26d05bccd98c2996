"""The `tiled` backend: block-sparse attention in torch alone, forward and backward, on any device.

Two designs: `tiled_rectangles`, the fast one, on CPUs whose torch has the operator it needs, and `tiled_rows`, plain matmuls, everywhere else and where
numbers are too large for the other. Both read the same packed plan, and either's backward goes with either's forward.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..compiler.choice import Costs
from ..compiler.compiled import Compiled
from ..compiler.plan import Plan
from . import tiled_rectangles, tiled_rows
from .backend import Attended, Operands
from .tiled_plan import Task, pack, unpack

TILE = 128
FEW = 32  # queries


class TiledBackend:
    name = "tiled"

    def __init__(self) -> None:
        self._packed: WeakKeyDictionary[Plan, dict[bool, list[Tensor]]] = WeakKeyDictionary()

    def tile(self, compiled: Compiled, operands: Operands) -> int:
        return TILE

    def costs(self, operands: Operands, tile: int) -> Costs:
        # Measured with one thread at tile 128 and head_dim 64, where a FULL tile takes 92 us forward. All gradients are made of one S and one dP.
        area, dim = (128 / tile) ** 2, 128 / (operands.head_dim + operands.value_dim)
        return Costs(partial=1.14, operator=0.12 * dim, start=area * dim, row=0.3 * area * dim, run=0.05 * area, token=0.00055 * area)

    def pack(self, plan: Plan, compiled: Compiled, operands: Operands) -> list[Tensor]:
        # Looking for rectangles takes longer than a step of decoding does; and a GPU waits for small chunks, where a CPU's cache wants them.
        wanted = operands.device.type == "cpu" and plan.geometry.queries >= FEW
        kept = self._packed.setdefault(plan, {})
        if wanted not in kept:
            kept[wanted] = pack(plan, wanted)
        return kept[wanted]

    def forward(self, q: Tensor, k: Tensor, v: Tensor, packed: list[Tensor], compiled: Compiled, scale: float) -> Attended:
        return forward(Task(q, k, v, unpack(packed, compiled), compiled.program, scale))

    def backward(
        self, dout: Tensor | None, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, attended: Attended,
        packed: list[Tensor], compiled: Compiled, scale: float, needs: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
        return backward(Task(q, k, v, unpack(packed, compiled), compiled.program, scale), dout, dlse, attended, needs)


def forward(task: Task) -> Attended:
    if not (task.has_rectangles and tiled_rectangles.serves(task.q, task.v)):
        return tiled_rows.forward(task)
    found = tiled_rectangles.forward(task)
    right = tiled_rectangles.is_moderate(found.lse)
    if bool(right.all()):
        return found
    # Row by row, so that no row's bits depend on what others hold.
    exact = tiled_rows.forward(task)
    out = torch.where(right[..., None], found.out, exact.out)
    return Attended(out, *(torch.where(right, a, b) for a, b in ((found.lse, exact.lse), (found.top, exact.top), (found.rest, exact.rest))))


def backward(
    task: Task, dout: Tensor | None, dlse: Tensor | None, attended: Attended, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """dq, dk, dv in the dtypes of q, k, v; None where not needed. Work whose gates are all 0 for what is needed is not done."""
    design = tiled_rectangles if task.has_rectangles else tiled_rows
    return design.backward(task, dout, dlse, attended, needs)
