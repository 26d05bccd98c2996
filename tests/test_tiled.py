"""The two designs of `tiled` against each other and the reference; the rectangles that one of them works on, and what it does not do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from watching import Largest

import srt_masks as srt
from srt_masks.compiler.labels import PARTIAL, State, state
from srt_masks.compiler.runs import Consumer
from srt_masks.kernels import cpu_flash, tiled, tiled_rectangles, tiled_rows
from srt_masks.kernels.patterns import KEPT
from srt_masks.kernels.rectangles import cover
from srt_masks.kernels.tiled_plan import Task, pack, unpack
from srt_masks.testing.strategies import Case, cases

STOP = "layout repeat { token, reason * 2 }\nlet soon = k is reason and 0 < q.step - k.step <= 3\nattend causal\nstop k, v where soon"
TEXTS = [
    "attend causal", "attend causal and window(40)", STOP, "attend causal\nstop k, v where k.pos // 64 < q.pos // 64", "attend causal\nscale k by 0.5 where k.pos % 2 == 0",
    "attend q.pos // 70 == k.pos // 70 and k.pos % 3 != 1", "attend k.pos > q.pos + 5 or k.pos == 7", "attend full\nstop q where q.pos > 100\nstop v where head == 1",
]  # fmt: skip


def _inputs(tokens: int, heads: int = 2, dtype: torch.dtype = torch.float64, dim: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, heads, tokens, dim, generator=generator, dtype=dtype) for _ in range(4)]


def _works(text: str, tokens: int, tile: int = 16, heads: int = 2) -> tuple[Any, Any]:
    attend = srt.compile(srt.parse(text), tile=tile, order="natural")
    return unpack(pack(attend.plan(tokens, heads=heads), has_rectangles=True), attend.compiled), attend.compiled.program


@pytest.mark.parametrize("through_lse", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_either_backward_goes_with_either_forward(text: str, through_lse: bool):
    """And all four are the reference's."""
    tokens, scale = 300, 0.3
    works, program = _works(text, tokens)
    q, k, v, dout = _inputs(tokens)
    dlse = dout[..., 0].contiguous() if through_lse else None
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out, lse = srt.compile(srt.parse(text), backend="reference")(*leaves, return_lse=True, scale=scale)
    reached = torch.isfinite(lse)
    loss = (out * dout).sum() + (torch.where(reached, lse, 0.0) * dout[..., 0]).sum() * through_lse
    truth = torch.autograd.grad(loss, leaves)
    designs, task = (tiled_rectangles, tiled_rows), Task(q, k, v, works, program, scale)
    for first in designs:
        found = first.forward(task)
        torch.testing.assert_close((found.out, found.lse), (out.detach(), lse.detach()), rtol=1e-12, atol=1e-12)
        for second in designs:
            grads = second.backward(task, dout, dlse, found, (True, True, True))
            torch.testing.assert_close(grads, truth, rtol=1e-11, atol=1e-11)


@given(cases(), st.sampled_from([16, 128]))
def test_both_designs_agree_on_random_specs(case: Case, tile: int):
    attend = srt.compile(case.spec, tile=tile)
    tokens = case.spec.checked.queries.tokens(case.steps or 0)
    works = unpack(pack(attend.plan(tokens, heads=case.heads, inputs=case.inputs), has_rectangles=True), attend.compiled)
    q, k, v, dout = _inputs(tokens, case.heads)
    results, task = [], Task(q, k, v, works, attend.compiled.program, 0.3)
    for design in (tiled_rectangles, tiled_rows):
        found = design.forward(task)
        results.append([found.out, found.lse, *design.backward(task, dout, None, found, (True, True, True))])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(("tile", "members"), [(16, 1), (16, 8), (128, 8)])
def test_rectangles_cover_what_flows_once(text: str, tile: int, members: int):
    """Pair by pair: attended pairs lie in one rectangle, FULL ones hold nothing else, and a gate is NONE or ALL only where it is 0 or 1 everywhere."""
    tokens = 1500
    attend = srt.compile(srt.parse(text), tile=tile, order="natural")
    plan = attend.plan(tokens)
    group = plan.groups[0]
    (mask,) = group.leaves.pairs(slice(0, tokens), slice(0, tokens), attend.compiled.program.attend)
    mask = mask.expand(tokens, tokens)
    gates = {}
    for name, gate in zip("qkv", attend.compiled.program.gates, strict=True):
        open, weight = group.leaves.pairs(slice(0, tokens), slice(0, tokens), gate.open, gate.weight)
        gates[name] = torch.where(open, weight.double(), 0.0).expand(tokens, tokens)
    flowing = torch.stack([g != 0 for g in gates.values()]).any(0) & mask
    for consumer, wanted in ((Consumer.FORWARD, mask), (Consumer.BACKWARD, flowing)):
        runs = group.runs(consumer) if consumer is Consumer.BACKWARD else None
        count = torch.zeros(tokens, tokens, dtype=torch.uint8)
        for r in cover(group.runs(Consumer.FORWARD), runs, tokens, tokens, tile, members):
            for s in r.stretches:
                own = (r.rows, slice(s.start, s.stop))
                count[own] += 1
                if not r.kind & PARTIAL:
                    assert bool(mask[own].all())
                for name in gates if runs is not None else ():
                    here = gates[name][own][mask[own]]
                    match state(torch.tensor(r.kind), name):
                        case State.NONE:
                            assert not bool(here.any())
                        case State.ALL:
                            assert bool((here == 1).all())
        assert bool((count[wanted] == 1).all()) and int(count.max()) <= 1


class _Calls:
    """The operator, and the pairs it is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forward: list[int] = []
        self.backward: list[int] = []
        for name, calls in (("forward", self.forward), ("backward", self.backward)):
            honest = getattr(cpu_flash, name)

            def counted(*args: Any, honest: Any = honest, calls: list[int] = calls, first: int = int(name == "backward")) -> Any:
                calls.append(args[first].shape[2] * args[first + 1].shape[2])
                return honest(*args)

            monkeypatch.setattr(cpu_flash, name, counted)


def test_the_operator_is_given_little_more_than_what_is_attended(monkeypatch: pytest.MonkeyPatch):
    cpu_flash.works(torch.float32)
    calls, tokens = _Calls(monkeypatch), 2048
    q, k, v, dout = _inputs(tokens, 8, torch.float32)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    for text, pairs, most in (("attend causal", tokens * (tokens + 1) // 2, 1.07), ("attend causal and window(256)", 256 * tokens - 128 * 255, 1.5)):
        for counts in (calls.forward, calls.backward):
            counts.clear()
        torch.autograd.grad(srt.compile(srt.parse(text), backend="tiled")(*leaves), leaves, dout)
        for counts in (calls.forward, calls.backward):
            assert pairs <= sum(counts) <= most * pairs
            assert len(counts) <= 24


def test_stopped_pairs_are_not_given_to_the_operator(monkeypatch: pytest.MonkeyPatch):
    """Where k and v are stopped, three products find dq alone; where all three are, nothing is done."""
    cpu_flash.works(torch.float32)
    calls, tokens = _Calls(monkeypatch), 1024
    q, k, v, dout = _inputs(tokens, 8, torch.float32)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = srt.compile(srt.parse("attend causal\nstop q, k, v where k.pos // 512 < q.pos // 512"), backend="tiled")(*leaves)
    with monkeypatch.context() as alone:
        alone.setattr(tiled_rectangles, "tile_products", None)  # nothing is MIXED
        torch.autograd.grad(out, leaves, dout)
    assert sum(calls.backward) <= 1.3 * 2 * (512 * 513 // 2)
    calls.backward.clear()
    products = []
    honest = tiled_rectangles.tile_products
    monkeypatch.setattr(tiled_rectangles, "tile_products", lambda *args: products.append(set(args[4])) or honest(*args))
    out = srt.compile(srt.parse("attend causal\nstop k, v where k.pos // 512 < q.pos // 512"), backend="tiled")(*leaves)
    torch.autograd.grad(out, leaves, dout)
    assert sum(calls.backward) <= 1.3 * 2 * (512 * 513 // 2)
    assert products and all(flows == {"q"} for flows in products)


def test_masks_that_are_alike_are_kept_once():
    works, _ = _works("attend causal", 4096, 128, 8)
    assert works[0].patterns.numel() == 128 * 128 + 128 * 256
    assert _works("attend causal and (q.pos * k.pos) % 7 == 0", 4096, 128, 8)[0][0].patterns.numel() <= KEPT


def test_masks_that_are_not_kept_are_made(monkeypatch: pytest.MonkeyPatch):
    def results() -> list[Tensor]:
        works, program = _works(TEXTS[5], 300)
        q, k, v, dout = _inputs(300)
        task = Task(q, k, v, works, program, 0.3)
        found = tiled_rectangles.forward(task)
        assert found is not None
        return [found.out, *tiled_rectangles.backward(task, dout, None, found, (True, True, True))]

    kept = results()
    monkeypatch.setattr("srt_masks.kernels.patterns.KEPT", 0)
    assert all(torch.equal(a, b) for a, b in zip(kept, results(), strict=True))


def test_masks_for_the_operator_are_made_once_where_they_are_alike(monkeypatch: pytest.MonkeyPatch):
    cpu_flash.works(torch.float32)
    leaves = [x.requires_grad_() for x in _inputs(1024, 2, torch.float32)[:3]]
    honest, given = cpu_flash.forward, []
    monkeypatch.setattr(cpu_flash, "forward", lambda *args: given.append(args[3]) or honest(*args))

    def results(text: str) -> list[Tensor]:
        given.clear()
        out = srt.compile(srt.parse(text), backend="tiled")(*leaves)
        return [out.detach(), *torch.autograd.grad(out.sum(), leaves)]

    for text in ("attend causal", "attend causal and window(300)"):
        kept = results(text)
        masks = [x for x in given if x is not None]
        assert len({x.data_ptr() for x in masks}) == len({(x.shape, tuple(x.flatten().tolist())) for x in masks}) < len(masks)
        with monkeypatch.context() as small:
            small.setattr(tiled_rectangles, "ADDED", 256 * 256)  # one is kept, until another comes
            assert all(torch.equal(a, b) for a, b in zip(kept, results(text), strict=True))


def test_where_lse_is_large_the_other_design_takes_the_forward(monkeypatch: pytest.MonkeyPatch):
    """lse rounded to one number would make P wrong; the backward mends it, and is still the operator's."""
    cpu_flash.works(torch.float32)
    calls = _Calls(monkeypatch)
    q, k, v, dout = _inputs(200, 2, torch.float32)
    q = (q * 30).round()
    k, v = k.round(), v.round()  # scores are exact, and only lse is not
    attend, leaves = srt.compile(srt.parse("attend causal"), backend="tiled"), [x.requires_grad_() for x in (q, k, v)]
    out, lse = attend(*leaves, scale=1.0, return_lse=True)
    assert float(lse.detach().abs().max()) > 50
    grads = torch.autograd.grad(out, leaves, dout)
    assert calls.backward
    exact = [x.detach().double().requires_grad_() for x in leaves]
    truth = torch.autograd.grad(srt.compile(srt.parse("attend causal"), backend="reference")(*exact, scale=1.0), exact, dout.double())
    for a, b in zip(grads, truth, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-6, atol=1e-6 * float(b.abs().max()))


def test_without_the_operator_all_is_as_before(monkeypatch: pytest.MonkeyPatch):
    q, k, v, dout = _inputs(150, 2, torch.float64)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    attend = srt.compile(srt.parse(STOP), backend="tiled")

    def results() -> list[Tensor]:
        out = attend(*leaves)
        return [out.detach(), *torch.autograd.grad(out, leaves, dout)]

    first = results()
    monkeypatch.setattr(cpu_flash, "works", lambda dtype: False)
    for name in ("forward", "backward"):
        monkeypatch.setattr(cpu_flash, name, None)
    torch.testing.assert_close(first, results(), rtol=1e-12, atol=1e-12)


def test_a_wrong_operator_is_found_out(monkeypatch: pytest.MonkeyPatch):
    assert cpu_flash._is_right(torch.float32) and cpu_flash._is_right(torch.float64)
    honest = cpu_flash.backward
    monkeypatch.setattr(cpu_flash, "backward", lambda *args: tuple(x * 1.001 for x in honest(*args)))
    assert not cpu_flash._is_right(torch.float32)


def test_nothing_is_queries_by_keys():
    tokens = 4096
    q, k, v, dout = _inputs(tokens, 1, torch.float32)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    for text in ("attend causal", "attend causal\nstop k, v where k.pos < q.pos"):
        attend = srt.compile(srt.parse(text), backend="tiled")
        attend.plan(tokens)
        with Largest() as seen:
            torch.autograd.grad(attend(*leaves), leaves, dout)
        assert seen.elements <= 2**21, seen.elements


def test_few_queries_look_for_no_rectangles():
    attend: Any = srt.compile(srt.parse("attend causal"), backend="tiled")
    backend = tiled.TiledBackend()
    operands = tiled.Operands(torch.float32, 8, 8, 1, torch.device("cpu"))
    for queries, has in ((1, False), (tiled.FEW, True)):
        plan = attend.plan(queries)
        assert unpack(backend.pack(plan, attend.compiled, operands), attend.compiled)[0].has_rectangles is has
