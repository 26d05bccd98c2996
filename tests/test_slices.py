"""Rows of a capacity plan: never a lie in a tile, the values and gradients of the rows asked for, and one plan for a thousand steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_query_ranges import SINKS, STOP, results

import srt_masks as srt
from srt_masks.compiler import slices
from srt_masks.compiler.labels import PARTIAL, State, state
from srt_masks.compiler.plan import Plan
from srt_masks.kernels import attention as kernels_attention
from srt_masks.kernels import planning
from srt_masks.reference.attention import attention

TEXTS = {
    "causal": "attend causal",
    "window": "param near = 40\nattend causal and window(near)",
    "stop": STOP,
    "sinks": SINKS,
    "heads": "attend causal and (head % 2 == 0 or window(20))\nstop q where head == 1 and k.pos < 30",
    "gates": "attend causal\nstop k where q.pos - k.pos > 50\nstop v where k.pos // 32 == q.pos // 32\nscale q by 0.5 where q.pos % 7 == 0",
    "table": "input t: int[m]\nattend causal and t[q.pos // 16] != t[k.pos // 16] or k.pos == q.pos\nstop k where t[k.pos % 5] == 1",
    "prefix": "input p: int per sequence\nattend causal or k.pos < p\nstop v where k.pos < p",
    "nobody": "attend q.pos % 50 > 25 and k.pos > 20 and causal",
    "one length": "layout sink * 4, repeat 90 { word, note * 2 }\nattend causal and (k is not note or same(step))\nstop k where k is sink",
    "dilated": "attend causal and dilated(8, 4)\nstop v where q.pos - k.pos == 4",
    "two layouts": "queries layout repeat { a, b }\nkeys layout repeat { c, d * 2 }\nattend k.step <= q.step and not (q is b and k.slot == 1)\nstop k where k is c and q.step - k.step < 9",
    "hidden": "attend causal\nstop hidden where q.pos - k.pos > 30",
    "documents": "input d: int per token\nattend causal and same(d)\nstop k where q.d == 3",
    "steps": "layout repeat { a, b }\ninput r: int per step\nattend k.r <= q.r and causal\nscale v by 0.5 where k.r == 2",
    "full": "attend full\nstop v where k.pos > 90\nstop k where q.pos > 100 or k.pos % 2 == 0",
}  # fmt: skip


def inputs_of(name: str, tokens: int) -> dict[str, torch.Tensor]:
    """Those of fewer tokens are the first of those of more."""
    match name:
        case "table":
            return {"t": torch.tensor([0, 1, 1, 2, 0, 3, 1, 0])}
        case "prefix":
            return {"p": torch.tensor([10, 70])}
        case "documents":
            return {"d": torch.arange(tokens) // 19 % 5}
        case "steps":
            return {"r": torch.arange(-(-tokens // 2)) // 11 % 4}
        case _:
            return {}


def call_of(name: str, data: st.DataObject, most: int = 270) -> tuple[srt.Spec, int, list[range], tuple[int, ...] | None]:
    """A spec, tokens of k, the positions asked for of two rows of the batch, and their lengths."""
    spec = srt.parse(TEXTS[name])
    tokens = data.draw(st.integers(20, min(most, spec.checked.queries.fixed if not spec.checked.queries.rows_per_step else most)))
    count = data.draw(st.sampled_from([1, 1, 2, 16, 17, 40]).filter(lambda n: 2 * n < tokens))
    starts = [data.draw(st.integers(0, tokens - count)) for _ in range(2)]
    lengths = tuple(data.draw(st.integers(0, tokens)) for _ in range(2)) if spec.checked.keys is None and data.draw(st.booleans()) else None
    return spec, tokens, [range(s, s + count) for s in starts], lengths


def planned(attend: Any, q: torch.Tensor, k: torch.Tensor, **options: Any) -> Plan:
    """The plan of a call."""
    found: list[Plan] = []
    original = kernels_attention.find_plan

    def spied(*asked: Any) -> Plan:
        found.append(original(*asked))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels_attention, "find_plan", spied)
        attend(q, k, k, **options)
    return found[0]


@pytest.mark.parametrize("name", TEXTS)
@given(data=st.data())
@settings(max_examples=12)
def test_tiles_of_a_slice_never_lie(name: str, data: st.DataObject):
    """FULL, NONE and ALL are what is found pair by pair, and what is not visited holds nothing; and the plan was a slice."""
    attend = srt.compile(srt.parse(TEXTS[name]), tile=16, backend="tiled")
    for _ in range(3):  # on one plan, or on several
        _never_lies(attend, name, *call_of(name, data, most=1500))


def _never_lies(attend: Any, name: str, spec: srt.Spec, tokens: int, asking: list[range], lengths: tuple[int, ...] | None) -> None:
    q, k = torch.zeros(2, 2, len(asking[0]), 4), torch.zeros(2, 2, tokens, 4)
    twins = {"hidden_k": k, "hidden_v": k} if spec.checked.has_hidden_rules else {}
    # Inputs of every token have to come again.
    _, plan = (planned(attend, q, k, queries=[r.start for r in asking], lengths=lengths, inputs=inputs_of(name, tokens), **twins) for _ in range(2))
    assert any(isinstance(kept.plan, slices.Capacity) for kept in attend.plans._plans.values())
    for group in plan.groups:
        allowed = group.leaves.pairs(slice(None), slice(None), plan.program.attend)[0].expand(group.queries, group.keys)
        gates = {g: _gate(group, plan, getattr(plan.program, f"gate_{g}")) for g in "qkv"}
        seen = torch.zeros_like(allowed)
        boxes = group.boxes
        for row, col, label in zip(boxes.row.tolist(), boxes.col.tolist(), boxes.label.tolist(), strict=True):
            at = slice(16 * row, 16 * row + 16), slice(16 * col, 16 * col + 16)
            tile, seen[at] = allowed[at], True
            if not label & PARTIAL:
                assert tile.all() and tile.shape == (16, 16)
            for g, values in gates.items():
                match State(int(state(torch.tensor(label), g))):
                    case State.NONE:
                        assert bool((values[at][tile] == 0).all())
                    case State.ALL:
                        assert bool((values[at][tile] == 1).all())
                    case State.MIXED:
                        pass
        assert not bool((allowed & ~seen).any()), "a pair that attends is not visited"


def _gate(group: Any, plan: Plan, gate: Any) -> torch.Tensor:
    opened, weight = group.leaves.pairs(slice(None), slice(None), gate.open, gate.weight)
    return torch.where(opened, weight, 0.0).expand(group.queries, group.keys)


@pytest.mark.parametrize("name", TEXTS)
@given(data=st.data())
@settings(max_examples=6)
def test_values_and_gradients_of_a_slice(name: str, data: st.DataObject):
    """Against the dense masks of a longer call, of which rows and keys are cut."""
    spec, tokens, asking, lengths = call_of(name, data)
    checked = spec.checked
    steps = 400 if checked.repeats else None
    masks = srt.dense(spec, steps=steps, heads=2, inputs=inputs_of(name, checked.queries.tokens(400)))
    q, dout = (torch.randn(2, 2, len(asking[0]), 4, dtype=torch.float64) for _ in range(2))
    k, v = (torch.randn(2, 1, tokens, 4, dtype=torch.float64) for _ in range(2))
    dlse = torch.randn(q.shape[:3], dtype=torch.float64)
    cut = [[_rows(m, b, r, tokens) for b, r in enumerate(asking)] for m in (masks.attend, masks.gate_q, masks.gate_k, masks.gate_v, masks.gate_hidden)]
    for b, n in enumerate(lengths or ()):
        inside = (torch.tensor(asking[b]) < n)[:, None] & (torch.arange(tokens) < n)
        cut[0][b] = cut[0][b] & inside
    truth_masks = [torch.stack(x) for x in cut]
    twins = [k.clone(), v.clone()] if checked.has_hidden_rules else []
    names = ("hidden_k", "hidden_v")[: len(twins)]
    attend = srt.compile(spec, tile=16, backend="tiled")
    options = {"queries": [r.start for r in asking], "lengths": lengths, "inputs": inputs_of(name, tokens), "return_lse": True}
    attend(q, k, v, **options, **dict(zip(names, twins, strict=True)))
    mine = results(lambda *x: attend(*x[:3], **options, **dict(zip(names, x[3:], strict=True))), [q, k, v, *twins], dout, dlse)
    truth = results(lambda *x: attention(*x[:3], *truth_masks, **dict(zip(names, x[3:], strict=True))), [q, k, v, *twins], dout, dlse)
    for a, b in zip(mine, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def _rows(masks: torch.Tensor, row: int, asking: range, keys: int) -> torch.Tensor:
    own = masks[row % len(masks)] if masks.ndim == 5 else masks
    return own[0].expand(2, -1, -1)[:, asking.start : asking.stop, :keys]


def test_slices_on_triton():
    for name in ("stop", "heads", "table"):
        q, k, v = (torch.randn(2, 2, n, 8) for n in (3, 70, 70))
        calls = [srt.compile(srt.parse(TEXTS[name]), tile=32, backend=b) for b in ("triton", "tiled", "reference")]
        options: dict[str, Any] = {"queries": [40, 67], "inputs": inputs_of(name, 70), "return_lse": True}
        found = [results(lambda *x, f=f, o=options: f(*x, **o), [q, k, v], q, q[..., 0]) for f in calls]
        for a, b, c in zip(*found, strict=True):
            torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(b, c, rtol=1e-4, atol=1e-5)


def test_a_thousand_steps_are_planned_once(monkeypatch):
    made = []
    honest = planning.make_plan
    monkeypatch.setattr(planning, "make_plan", lambda *a, **o: made.append(a[1]) or honest(*a, **o))
    attend = srt.compile(srt.parse(STOP), tile=128)
    for tokens in range(8193, 9193):
        attend.plan(tokens, queries=range(tokens - 1, tokens), heads=4)
    assert len(made) == 1 and made[0].keys == 16384
    assert (attend.plans.made, attend.plans.found) == (1, 999)
    whole = attend.plan(9192, queries=range(9000, 9192), heads=4).to_dense()
    monkeypatch.setattr(planning, "capacity", lambda *_: None)
    alone = srt.compile(srt.parse(STOP), tile=128).plan(9192, queries=range(9000, 9192), heads=4)
    assert len(made) == 2 and torch.equal(whole, alone.to_dense())


@pytest.mark.parametrize(("text", "inputs"), [
    ("layout repeat { a, b }\nattend causal and q.pos < length", {}), ("attend causal and q.pos < steps", {}), ("attend causal and role[q.pos + 1] is token", {}),
    ("layout a, repeat { b }, c\nattend causal", {}),
    ("queries where pos >= 0\nattend causal", {}),
])  # fmt: skip
def test_what_more_tokens_may_change_is_planned_alone(text: str, inputs: dict[str, torch.Tensor]):
    attend = srt.compile(srt.parse(text), tile=16)
    first = attend.plan(64, queries=range(60, 64), inputs=inputs)
    assert torch.equal(first.to_dense(), attend.plan(64, inputs=inputs).to_dense()[:, :, 60:])
    assert not any(isinstance(kept.plan, slices.Capacity) for kept in attend.plans._plans.values())


def test_a_capacity_beyond_the_budget_is_not_planned():
    spec = srt.parse("attend causal and window(9)")
    attend = srt.compile(spec, tile=16, plan_memory=300_000)
    plan = attend.plan(5000, queries=range(4000, 4001))
    assert torch.equal(plan.to_dense()[0, 0, 0].nonzero().flatten(), torch.arange(3992, 4001))
    assert not any(isinstance(kept.plan, slices.Capacity) for kept in attend.plans._plans.values())
    assert any(isinstance(kept.plan, slices.Capacity) for kept in _capacities(spec))


def _capacities(spec: srt.Spec) -> list[Any]:
    attend = srt.compile(spec, tile=16)
    attend.plan(5000, queries=range(4000, 4001))
    return list(attend.plans._plans.values())


def test_calls_that_end_in_one_tile_and_at_its_end_share_no_tiles():
    attend = srt.compile(srt.parse(TEXTS["full"]), tile=16, backend="tiled")
    for tokens in (48, 40, 48, 47):
        _never_lies(attend, "full", attend.spec, tokens, [range(16), range(16)], None)


def test_inputs_that_come_again_are_planned_once_and_those_that_change_are_not_trusted():
    attend, reference = (srt.compile(srt.parse(TEXTS["documents"]), tile=16, backend=b) for b in ("tiled", "reference"))
    k, doc = torch.randn(1, 2, 200, 8), torch.arange(200) // 30
    for step in range(100, 140):
        q = torch.randn(1, 2, 1, 8)
        call = {"queries": range(step, step + 1), "lengths": [step + 1], "d": doc}
        if step == 120:
            doc[90:] = 7
        torch.testing.assert_close(attend(q, k, k, **call), reference(q, k, k, **call), rtol=1e-5, atol=1e-6)
    assert attend.plans.made == 4, "one alone and one for all, before and after the change"
    for tokens in range(150, 160):
        attend.plan(tokens, queries=range(tokens - 1, tokens), d=doc[:tokens])
    assert attend.plans.made == 14, "inputs that grow come once each"
