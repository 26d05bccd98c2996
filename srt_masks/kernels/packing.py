"""A plan, packed for the Triton kernels: which section each kind of tile belongs to, and everything a kernel reads of a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compiler import ir
from ..compiler.compiled import Compiled
from ..compiler.ir import Side
from ..compiler.labels import PARTIAL, State, state
from ..compiler.plan import Plan
from ..compiler.runs import Consumer
from . import triton_common as common
from . import triton_forward
from .buffers import Buffers, Schedule, buffers, needs_wide, schedule
from .configs import Config, Configs, Kernel
from .emit import Source
from .predicates import module_of
from .run import run
from .target import source_of

PLAIN, MASKED = common.PLAIN.value, common.MASKED.value
BOTH, K_ALONE, V_ALONE = common.BOTH.value, common.K_ALONE.value, common.V_ALONE.value
QUERY_SECTIONS, KEY_SECTIONS = common.QUERY_SECTIONS.value, common.KEY_SECTIONS.value


def forward_section(kind: Tensor) -> Tensor:
    return torch.where(kind & PARTIAL == 0, PLAIN, MASKED)


def query_section(kind: Tensor) -> Tensor:
    return torch.where((kind & PARTIAL == 0) & (state(kind, "q") == State.ALL), PLAIN, MASKED)


def key_section(kind: Tensor) -> Tensor:
    k, v = state(kind, "k"), state(kind, "v")
    fed = torch.where(v == State.NONE, K_ALONE, torch.where(k == State.NONE, V_ALONE, BOTH))
    plain = (kind & PARTIAL == 0) & (k != State.MIXED) & (v != State.MIXED)
    return 2 * fed + torch.where(plain, PLAIN, MASKED)


def key_sections(compiled: Compiled, want_k: bool, want_v: bool) -> int:
    """A bit for every section of dK/dV that the mask can have and that feeds a wanted gradient. It follows from the text alone,
    so that no length decides what is compiled."""
    _, gate_k, gate_v = compiled.program.gates
    open_k, open_v = gate_k == ir.Gate(), gate_v == ir.Gate()  # never shut
    apart = gate_k != gate_v
    reached = {BOTH: want_k or want_v, K_ALONE: apart and not open_v and want_k, V_ALONE: apart and not open_k and want_v}
    return sum(1 << 2 * fed + section for fed, is_reached in reached.items() if is_reached for section in (PLAIN, MASKED))


# ------------------------------------------------------------------------------------------------ a plan, packed


@dataclass(frozen=True, slots=True)
class Packed:
    """A plan as the kernels read it. It travels through the operators as a list of tensors."""

    extents: Tensor  # on the host: tile, wide, whether rows of queries and of keys are numbered by position, and how many rows of tiles they make
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


def pack(plan: Plan, compiled: Compiled, choose: Callable[[Source, int], Configs], device: torch.device) -> Packed:
    """`choose` says which configs the kernels take, of a predicate and the tile of a plan."""
    g = plan.geometry
    wide = needs_wide(plan)
    source = source_of(compiled, wide, plan.numbered)
    configs = choose(source, g.tile)
    made = buffers(plan, source.columns, wide).to(device)
    schedules = [
        schedule(plan, consumer, section, count, configs.of(kernel).cols).to(device)
        for kernel, consumer, section, count in (
            (Kernel.FORWARD, Consumer.FORWARD, forward_section, QUERY_SECTIONS),
            (Kernel.DQ, Consumer.DQ, query_section, QUERY_SECTIONS),
            (Kernel.DKV, Consumer.DKV, key_section, KEY_SECTIONS),
        )
    ]
    query_rows, key_rows = (-(-n // g.tile) for n in (g.queries, g.keys))
    live = _live(plan, source, made, configs.of(Kernel.DKV), device)
    return Packed(_extents(g.tile, wide, plan.numbered, query_rows, key_rows), made, live, *schedules)


def blank(source: Source, tile: int) -> Packed:
    """What a kernel may be compiled with before there is a plan: tensors of the types that `pack` makes, and of no use but that."""
    c = source.columns
    whole = torch.int64 if source.wide else torch.int32
    columns = (c.width, torch.int64), (max(1, len(c.floats)), torch.float64)
    made = Buffers(*(torch.zeros(1, n, dtype=t) for n, t in columns), *(torch.zeros(1, dtype=t) for t in (whole, torch.uint8, torch.float64, torch.int32)))
    schedules = (Schedule(*(torch.zeros(1, dtype=torch.int32) for _ in range(5))) for _ in range(3))
    return Packed(_extents(tile, source.wide, source.numbered, 1, 1), made, torch.zeros(1, dtype=torch.uint8), *schedules)


def _extents(tile: int, wide: bool, numbered: frozenset[Side], query_rows: int, key_rows: int) -> Tensor:
    return torch.tensor([tile, wide, *(side in numbered for side in Side), query_rows, key_rows])


def _live(plan: Plan, source: Source, made: Buffers, config: Config, device: torch.device) -> Tensor:
    g, groups = plan.geometry, len(plan.groups)
    rows, parts = -(-g.keys // g.tile), g.tile // config.rows
    live = torch.zeros(sum(x.keys for x in plan.groups) + 1, dtype=torch.uint8, device=device)
    runs = schedule(plan, Consumer.SEEN, forward_section, QUERY_SECTIONS, config.cols).to(device)
    module = module_of(source)
    run(
        triton_forward.live_kernel, groups * rows * parts, config, device, not source.floats, live=live, **made.by_name(), **runs.by_name(),
        rows=rows, parts=parts, groups=groups, CONSTANTS=module.constants, QUERIES=module.queries, KEYS=module.keys, ATTENDED=module.attended,
        FACTS=made.facts.shape[1], NUMBERS=made.numbers.shape[1], BLOCK_M=config.cols, BLOCK_N=config.rows,
    )  # fmt: skip
    return live
