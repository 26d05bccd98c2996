"""What ranks do of a call, one after another in this process: rows dealt by whole tiles, each rank's plan, and what its attention adds up to.

Real processes, models and training stand in `test_distributed.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import srt_masks as srt
from srt_masks.compiler.runs import Consumer
from srt_masks.compiler.shard import work_of
from srt_masks.distributed.dealing import Dealer, Dealt
from srt_masks.kernels import op
from srt_masks.kernels.planned import planned_call

TILE = 16


@dataclass(frozen=True)
class Case:
    text: str
    tokens: int = 150
    key_heads: int = 2
    lengths: list[int] | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    layers: int = 1
    order: str = "auto"

    def operands(self) -> tuple[Tensor, ...]:
        shapes = [(2, heads, self.tokens, 16) for heads in (2, self.key_heads, self.key_heads)]
        q, k, v = (torch.randn(s, dtype=torch.float64) for s in shapes)
        twins = (k.clone(), v.clone()) if "hidden" in self.text else ()
        return tuple(x.requires_grad_() for x in (q, k, v, *twins))

    @property
    def beside(self) -> dict[str, Any]:
        return {"inputs": self.inputs, "lengths": self.lengths}


CASES = {
    "causal": Case("attend causal"),
    "stopped": Case("attend causal\nstop k, v where q.pos - k.pos > 20\nscale q by 0.5 where q.pos < 50", key_heads=1),
    "never": Case("attend causal and q.pos % 2 == 0\nstop v"),
    "documents": Case("input doc: int per token\nattend causal and same(doc)", inputs={"doc": torch.arange(150) // 37}),
    "lengths": Case("attend causal and (window(40) or k.pos > length - 20)\nstop k where k.pos < 30", lengths=[150, 40]),
    "heads": Case("attend causal and (head == 0 or window(30))\nstop v where head == 1 and q.pos - k.pos > 3"),
    "layers": Case("attend causal and (layer == 0 or window(20))\nstop k where layer == 1 and k.pos < 9", layers=2),
    "hidden": Case("attend causal\nstop hidden where q.pos - k.pos > 10\nstop v where k.pos % 3 == 0"),
    "by role": Case("layout repeat { token, reason * 4 }\nattend causal and not (k is reason and q.step - k.step > 3)", order="by role"),
    "landing": Case("input far: int per token\nattend causal and far[q.pos - k.pos] != 1", inputs={"far": torch.arange(150) % 5}),
}


def dealt(case: Case, world: int, backend: str = "tiled") -> list[tuple[Any, Dealt]]:
    attention = srt.compile(srt.parse(case.text), backend=backend, tile=TILE, order=case.order, layers=case.layers)
    q, k, *_ = case.operands()
    return [(attention, Dealer(attention, case.layers, rank, world).deal(q, k, case.beside)) for rank in range(world)]


SMALL = {
    "moved": Case(
        "layout repeat { token, reason * 4 }\nattend causal and not (k is reason and q.step - k.step > 3)\nstop k where k.pos < 9", 60, order="by role"
    ),
    "lengths": Case("attend causal and k.pos < length - 2\nstop v where k.pos < 9", 60, key_heads=1, lengths=[60, 20]),
}


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_ranks_together_are_the_whole_call(name: str, world: int):
    agrees(CASES[name], world, "tiled")


@pytest.mark.parametrize("name", SMALL)
def test_the_kernels_take_the_plan_of_a_rank(name: str):
    agrees(SMALL[name], 2, "triton")


def agrees(case: Case, world: int, backend: str) -> None:
    """Outputs and gradients of all ranks, put together, are those of one call."""
    operands, layer = case.operands(), case.layers - 1
    attention = srt.compile(srt.parse(case.text), backend="tiled", tile=TILE, layers=case.layers)
    twins = dict(zip(("hidden_k", "hidden_v"), operands[3:], strict=False))
    whole = attention(*operands[:3], layer=layer if case.layers > 1 else None, **twins, **case.beside)
    dout = torch.randn_like(whole)
    wanted = torch.autograd.grad(whole, operands, dout)
    shares = dealt(case, world, backend)
    out = torch.full_like(whole, torch.nan)
    found = [torch.zeros_like(x) for x in operands]
    width = shares[0][1].width
    everyone = torch.cat([torch.nn.functional.pad(d.rows, (0, width - len(d.rows)), value=-1) for _, d in shares])
    for _, d in shares:
        keys = everyone[d.sent]  # the keys in the order in which plans visit them
        assert torch.equal(keys.sort().values, torch.arange(case.tokens))
        picked = [x.detach()[:, :, d.rows if n == 0 else keys].requires_grad_() for n, x in enumerate(operands)]
        layered = d.layers[layer]
        call = planned_call(*picked[:3], layered.own, layered.backend, 16**-0.5, layered.twins)
        part, _ = op.run(call, *picked[:3], *(picked[3:] or (None, None)))
        out[:, :, d.rows] = part.detach()
        for n, gradient in enumerate(torch.autograd.grad(part, picked, dout[:, :, d.rows], allow_unused=True)):
            if gradient is not None:
                found[n][:, :, d.rows if n == 0 else keys] += gradient
    torch.testing.assert_close(out, whole, atol=1e-12, rtol=0)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_work_is_shared_evenly_and_none_is_lost(name: str):
    case = CASES[name]
    shares = dealt(case, 3)
    attention, first = shares[0]
    whole = [attention.found(*_three(case), layer=number, **case.beside).own.plan for number in range(case.layers)]
    for number, plan in enumerate(whole):
        for c in Consumer:
            assert sum(d.layers[number].own.plan.tiles(c) for _, d in shares) == plan.tiles(c)
    for rank, (_, d) in enumerate(shares):
        own = sum(float(work_of(f.own.plan).sum() + (0 if f.twins is None else work_of(f.twins.plan, forward=False).sum())) for f in d.layers)
        assert own == pytest.approx(d.work[rank]) and d.work == first.work
    assert first.imbalance < 1.35
    assert sorted(torch.cat([d.rows for _, d in shares]).tolist()) == list(range(case.tokens))


def _three(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, *_ = case.operands()
    return q, k, v


def test_a_part_numbers_no_side_that_was_moved():
    assert {s.name for s in dealt(CASES["causal"], 3)[0][1].layers[0].own.plan.numbered} == {"KEY"}
    assert not dealt(CASES["by role"], 3)[0][1].layers[0].own.plan.numbered


def test_tiles_are_dealt_in_the_order_in_which_they_are_visited():
    case = CASES["by role"]
    attention, d = dealt(case, 3)[1]
    order = attention.found(*_three(case), layer=0).own.plan.groups[0].order
    places = order.places[0][d.rows]
    assert bool((places.diff() > 0).all()) and len(set((places // TILE).tolist())) == -(-len(places) // TILE)
    assert not torch.equal(order.queries, torch.arange(case.tokens))


def test_calls_with_the_same_plans_are_dealt_once():
    attention = srt.compile(srt.parse("attend causal"), tile=TILE)
    dealer = Dealer(attention, 2, 0, 2)
    q, k, _ = _three(CASES["causal"])
    assert dealer.deal(q, k, {}) is dealer.deal(q.clone(), k, {})
    assert dealer.deal(q[:, :, :140], k[:, :, :140], {}) is not dealer.deal(q, k, {})


def test_more_ranks_than_tiles_are_refused():
    attention = srt.compile(srt.parse("attend causal"), tile=TILE)
    q, k, _ = _three(CASES["causal"])
    with pytest.raises(srt.InputError, match="150 rows are 10 tiles of 16, and 11 ranks share them by whole tiles: give longer sequences, a smaller tile="):
        Dealer(attention, 1, 0, 11).deal(q, k, {})
