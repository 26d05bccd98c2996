"""The zoo's schemes and oracles, for tests beside test_zoo and for benchmarks; what a plan of one of them misses."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch

import srt_masks as srt
from srt_masks.compiler.labels import PARTIAL
from srt_masks.compiler.plan import GroupPlan, Plan
from srt_masks.compiler.runs import Consumer

sys.path.insert(0, str(Path(__file__).parent / "zoo"))

from at_8k import AT_8K
from zoo import SCHEMES, Scheme

__all__ = ["AT_8K", "SCHEMES", "Missed", "Scheme", "missed", "plan_of"]


@dataclass(frozen=True)
class Missed:
    """Tiles called PARTIAL: those that are, and those that are EMPTY or FULL."""

    partial: int
    empty: int
    full: int


def missed(scheme: Scheme) -> Missed:
    """Over all layers of the scheme at 8k, every tile called PARTIAL evaluated pair by pair."""
    case = AT_8K[scheme.name]
    counts = [_missed(group, plan) for layer in range(case.layers) for plan in [plan_of(scheme, case, layer)] for group in plan.groups]
    return Missed(*(sum(column) for column in zip(*counts, strict=True)))


def plan_of(scheme: Scheme, case: SimpleNamespace, layer: int, tile: int = 128) -> Plan:
    """In the order of the tokens."""
    spec = srt.parse(scheme.text, params=case.params)
    dtypes = {"bool": torch.bool, "int": torch.int64, "float": torch.float64}
    inputs = {i.name: torch.as_tensor(case.inputs[i.name]).to(dtypes[i.type.value]) for i in spec.checked.inputs}
    layout = spec.checked.queries
    tokens = len(case.given["role"]) if case.given else layout.tokens(case.steps if layout.rows_per_step else 0)
    return srt.compile(spec, layers=case.layers, tile=tile, order="natural").plan(tokens, heads=case.heads, layer=layer, inputs=inputs, given=case.given)


def _missed(group: GroupPlan, plan: Plan) -> tuple[int, int, int]:
    runs = group.runs(Consumer.FORWARD)
    row = torch.arange(len(runs.ptr) - 1).repeat_interleave(runs.ptr.diff())
    place = torch.arange(int(runs.count.sum())) - (runs.count.cumsum(0) - runs.count).repeat_interleave(runs.count)
    row, col, kind = (x.long().repeat_interleave(runs.count) for x in (row, runs.first, runs.kind))
    some = ((kind & PARTIAL) == PARTIAL).nonzero().flatten()
    row, col = row[some], (col + place)[some]
    within = torch.arange(group.tile)
    counts = torch.zeros(3, dtype=torch.int64)
    for part in torch.arange(len(some)).split(64):
        q, k = (x[part, None] * group.tile + within for x in (row, col))
        inside = ((q < group.queries)[:, :, None] & (k < group.keys)[:, None, :]).flatten(1)
        (attend,) = group.leaves.pairs(q.clamp(max=group.queries - 1), k.clamp(max=group.keys - 1), plan.program.attend)
        attend = attend.expand(len(part), group.tile, group.tile).flatten(1) & inside
        # A tile that hangs over the end is PARTIAL however full it is.
        empty, full = ~attend.any(1), attend.all(1)
        counts += torch.stack([(~empty & ~full).sum(), empty.sum(), full.sum()])
    return tuple(counts.tolist())
