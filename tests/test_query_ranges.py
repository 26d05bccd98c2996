"""`queries=`: a call on some rows of q is those rows of the whole call, in its values and in every gradient.

The truth is the dense masks of the whole call, of which rows (and, in mid-step, keys) are cut out here: not the way any backend finds them.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import srt_masks as srt
from srt_masks.reference.attention import attention
from srt_masks.testing import Case, whole

STOP = "layout repeat { token, reason * 2 }\nlet soon = k is reason and 0 < q.step - k.step <= 3\nattend causal\nstop k, v where soon"
SINKS = "param near = 9\nlayout sink * 3, repeat { word, note }\nattend causal and (k is sink or window(near))\nscale v by 0.5 where k is note"


def results(call: Any, tensors: list[Tensor], dout: Tensor, dlse: Tensor) -> list[Tensor]:
    """out, lse and the gradients of all tensors; `call` takes leaves."""
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    out, lse = call(*leaves)
    seen = torch.where(lse == float("-inf"), 0, lse)
    grads = torch.autograd.grad((out * dout).sum() + (seen * dlse).sum(), leaves, allow_unused=True, materialize_grads=True)
    return [out.detach(), seen.detach(), *grads]


def rows_of(case: Case, ranges: list[range]) -> list[Tensor] | None:
    """For each row of the batch, the rows of the whole call's masks that a range names; None where they are not of one number."""
    checked = case.spec.checked
    if checked.asks is None:
        return [torch.arange(r.start, r.stop) for r in ranges]
    if case.batch > 1 or case.lengths is not None:
        return None
    number = case.row().asks.long().cumsum(0) - 1
    asks = case.row().asks
    return [number[[i for i in ranges[0] if asks[i]]]]


def agree(case: Case, ranges: list[range], backend: str, layer: int = 0, **options: Any) -> None:
    """A call with queries= against the rows of the whole one, by the dense masks."""
    picked = rows_of(case, ranges)
    if picked is None:
        return
    masks = case.masks()
    q, k, v, dout = case.tensors()
    index = torch.stack(picked) if picked else torch.zeros(0, 0, dtype=torch.int64)
    batch = torch.arange(case.batch)[:, None]
    cut = [
        m[:, layer].expand(case.batch, *m.shape[2:])[batch, :, index].transpose(1, 2)
        for m in (masks.attend, masks.gate_q, masks.gate_k, masks.gate_v, masks.gate_hidden)
    ]
    dlse = torch.randn(q.shape[:3], dtype=torch.float64)
    q, dout, dlse = (x[batch, :, index].transpose(1, 2) for x in (q, dout, dlse))
    twins = [k.clone(), v.clone()] if case.spec.checked.has_hidden_rules else []
    names = ("hidden_k", "hidden_v")[: len(twins)]

    def mine(*x: Tensor) -> Any:
        return case.call(case.compile(backend), *x[:3], layer=layer, **options, **dict(zip(names, x[3:], strict=True)))

    def truth(*x: Tensor) -> Any:
        return attention(*x[:3], *cut, **dict(zip(names, x[3:], strict=True)))

    for name, a, b in zip(
        ("out", "lse", "dq", "dk", "dv", "dhk", "dhv"),
        results(mine, [q, k, v, *twins], dout, dlse),
        results(truth, [q, k, v, *twins], dout, dlse),
        strict=False,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


@given(whole(), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_random_ranges_of_random_texts(case: Case, data: st.DataObject):
    tokens = case.extents.tokens
    start = data.draw(st.integers(0, tokens))
    ranges = [range(start, data.draw(st.integers(start, tokens)))] * case.batch
    for backend in ("tiled", "reference"):
        agree(case, ranges, backend, layer=case.seed % case.depth, queries=ranges[0] if ranges else range(start, tokens))


@given(whole(), st.data())
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_random_ranges_on_triton(case: Case, data: st.DataObject):
    start = data.draw(st.integers(0, case.extents.tokens))
    ranges = [range(start, data.draw(st.integers(start, case.extents.tokens)))] * case.batch
    agree(case, ranges, "triton", layer=case.seed % case.depth, queries=ranges[0] if ranges else range(start, start))


@given(whole(), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_every_row_of_the_batch_may_start_elsewhere(case: Case, data: st.DataObject):
    if case.spec.checked.asks is not None:
        return
    tokens = case.extents.tokens
    count = data.draw(st.integers(0, tokens))
    starts = [data.draw(st.integers(0, tokens - count)) for _ in range(case.batch)]
    for backend, form in (("tiled", starts), ("tiled", torch.tensor(starts, dtype=torch.int32)), ("reference", tuple(starts))):
        agree(case, [range(s, s + count) for s in starts], backend, queries=form)


# ------------------------------------------------------------------------------------------------ in mid-step


MID_STEP = [STOP, SINKS, "layout token * 7\nattend causal", "attend causal and window(5)", "input t: int[n]\ninput s: int per step\nlayout a * 2, repeat { b, c * 3 }\nattend causal and t[k.slot] >= 0 and k.s != 1"]  # fmt: skip


@pytest.mark.parametrize("text", MID_STEP)
def test_tokens_may_end_in_mid_step(text: str, backend: str):
    """Against the whole layout, with the keys that are not there yet attended by nobody."""
    spec = srt.parse(text)
    checked = spec.checked
    for tokens, start in ((1, 0), (2, 1), (5, 5), (6, 2), (7, 0), (33, 30), (34, 17)):
        if not checked.queries.rows_per_step and tokens > 7:
            continue
        steps = checked.queries.steps(checked.queries.whole(tokens)) if checked.queries.rows_per_step else None
        inputs = {"t": torch.tensor([1, -1, 3]), "s": torch.arange(checked.queries.longest(steps or 0)) % 3} if checked.inputs else {}
        masks = srt.dense(spec, steps=steps, heads=2, inputs=inputs)
        cut = [m[0, :, start:tokens, :tokens] for m in (masks.attend, masks.gate_q, masks.gate_k, masks.gate_v)]
        q, dout = (torch.randn(2, 2, tokens - start, 8, dtype=torch.float64) for _ in range(2))
        k, v = (torch.randn(2, 1, tokens, 8, dtype=torch.float64) for _ in range(2))
        dlse = torch.randn(q.shape[:3], dtype=torch.float64)
        truth = results(lambda *x, cut=cut: attention(*x, *cut), [q, k, v], dout, dlse)
        for name in (backend, "reference"):
            attend = srt.compile(spec, tile=16, backend=name)
            for queries in (range(start, tokens), [start, start]):
                mine = results(lambda *x, q=queries, f=attend, i=inputs: f(*x, queries=q, return_lse=True, **i), [q, k, v], dout, dlse)
                for a, b in zip(mine, truth, strict=True):
                    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_lengths_may_end_in_mid_step_too(backend: str):
    spec, lengths, starts = srt.parse(STOP), (40, 13, 27, 0), (39, 12, 20, 3)
    q, k, v = (torch.randn(4, 2, n, 8, dtype=torch.float64) for n in (1, 41, 41))
    dout, dlse = torch.randn_like(q), torch.randn(q.shape[:3], dtype=torch.float64)
    masks = srt.dense(spec, steps=14, heads=2)
    rows = [torch.where(torch.arange(41) < n, masks.attend[0, :, s : s + 1, :41], False) & (s < n) for n, s in zip(lengths, starts, strict=True)]
    cut = [torch.stack(rows), *(torch.stack([m[0, :, s : s + 1, :41] for s in starts]) for m in (masks.gate_q, masks.gate_k, masks.gate_v))]
    truth = results(lambda *x: attention(*x, *cut), [q, k, v], dout, dlse)
    for name in (backend, "reference"):
        attend = srt.compile(spec, tile=16, backend=name)
        for a, b in zip(results(lambda *x, f=attend: f(*x, queries=starts, lengths=lengths, return_lse=True), [q, k, v], dout, dlse), truth, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        with pytest.raises(srt.InputError, match=r"13 of a row's tokens .lengths. is 4 steps and 1 tokens"):
            attend(k[:, :, :39], k[:, :, :39], v[:, :, :39], lengths=(39, 13, 27, 0))


def test_two_layouts(backend: str):
    """The queries' axis is as long as its last position says, or as its layout always is; the keys may end in mid-step."""
    spec = srt.parse(
        "queries layout repeat { a, b }\nkeys layout repeat { c, d * 2 }\nattend q.step * 2 >= k.step and not (q is b and k.slot == 1)\nstop k where q.slot == 0 and k is c"
    )
    masks = srt.dense(spec, steps=20)
    k, v = (torch.randn(1, 1, 50, 8, dtype=torch.float64) for _ in range(2))
    for r in (range(5, 6), range(0, 33), range(31, 40)):
        q = torch.randn(1, 1, len(r), 8, dtype=torch.float64)
        dout, dlse = torch.randn_like(q), torch.randn(q.shape[:3], dtype=torch.float64)
        cut = [m[0, :, r.start : r.stop, :50] for m in (masks.attend, masks.gate_q, masks.gate_k, masks.gate_v)]
        truth = results(lambda *x, cut=cut: attention(*x, *cut), [q, k, v], dout, dlse)
        for name in (backend, "reference"):
            attend = srt.compile(spec, tile=16, backend=name)
            for a, b in zip(results(lambda *x, f=attend, r=r: f(*x, queries=r, return_lse=True), [q, k, v], dout, dlse), truth, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    fixed = srt.compile(srt.parse("queries layout a * 9\nkeys layout repeat { c }\nattend q.pos < 7 or k.pos == q.pos"))
    everything = fixed(x := torch.randn(1, 1, 9, 8), k.float(), v.float())
    torch.testing.assert_close(fixed(x[:, :, 4:8], k.float(), v.float(), queries=range(4, 8)), everything[:, :, 4:8])


def test_what_is_given_per_query_ends_with_the_last_of_two_layouts():
    attend = srt.compile(srt.parse("queries layout repeat { a }\nkeys layout repeat { c }\ninput seen: int per query\nattend q.seen >= k.pos"))
    q, k = torch.randn(1, 1, 2, 8), torch.randn(1, 1, 6, 8)
    seen = torch.arange(20) % 5
    everything = attend(torch.cat([q] * 9, 2), k, k, seen=seen[:18])
    assert torch.equal(attend(q, k, k, queries=range(16, 18), seen=seen[:18]), everything[:, :, 16:])
    with pytest.raises(srt.InputError, match=r"\(query 18\); got int64 of shape \(20,\): queries= ends at position 17, and with it what is given per query"):
        attend(q, k, k, queries=range(16, 18), seen=seen)
    with pytest.raises(srt.InputError, match=r"\(query 2\); got int64 of shape \(20,\)$"):
        attend(q, k, k, seen=seen)


# ------------------------------------------------------------------------------------------------ what is refused

LENGTH = "layout repeat { token, reason }\nattend causal and q.pos < length - 1"
AHEAD = "layout repeat { token, reason }\nattend causal and role[q.pos + 1] is reason"
MIDDLE = "layout a, repeat { b, c }, d\nattend causal"
REFUSED = [
    ("attend causal", 2, 10, range(9, 11), "reaches position 10, and there are 10 rows of k"),
    ("attend causal", 1, 10, range(5, 9), r"queries=range\(5, 9\) are 4 positions, and q has 1 rows"),
    ("attend causal", 2, 10, range(0, 4, 2), r"without gaps; got range\(0, 4, 2\)"),
    ("attend causal", 2, 10, range(5, 3), r"upwards; got range\(5, 3\)"),
    ("attend causal", 2, 10, range(5, 3, -1), r"without gaps; got range\(5, 3, -1\)"),
    ("attend causal", 2, 10, range(-2, 0), r"counted from 0 and upwards; got range\(-2, 0\)"),
    ("attend causal", 1, 10, 5, r"got 5; for one position, range\(5, 6\)"),
    ("attend causal", 1, 10, 5.0, "where each row of the batch starts; got 5.0"),
    ("attend causal", 1, 10, True, "got True"),
    ("attend causal", 1, 10, "9", "got '9'"),
    ("attend causal", 1, 10, slice(3, 4), r"write range\(3, 4\)"),
    ("attend causal", 1, 10, torch.tensor([1.0]), r"got float32 of shape \(1,\)"),
    ("attend causal", 1, 10, torch.tensor([[1]]), r"got int64 of shape \(1, 1\)"),
    ("attend causal", 1, 10, [1.5], r"got \[1.5\]"),
    ("attend causal", 1, 10, [1, 2], "wanted 1, got 2"),
    ("attend causal", 1, 10, torch.tensor([], dtype=torch.int64), "wanted 1, got 0"),
    ("attend causal", 2, 10, [9], "reaches position 10"),
    ("attend causal", 2, 10, [-1], "counted from 0; got -1"),
    ("queries where pos % 2 == 0\nattend causal", 2, 10, [4], "give a range"),
    ("queries where pos % 2 == 0\nattend causal", 2, 10, range(4, 6), "q has 2 rows, and 1 of the 2 tokens"),
    (LENGTH, 1, 9, range(8, 9), "4 steps and 1 tokens.*reads `length`, `steps` or the token at a position"),
    (AHEAD, 1, 9, range(8, 9), "4 steps and 1 tokens.*the token at a position"),
    (MIDDLE, 1, 9, range(8, 9), "3 steps and 1 tokens.*where its repeat is its last part"),
    ("layout token * 4\nattend causal", 1, 9, range(8, 9), "9 rows of k given; the layout `token \\* 4` has 4, always"),
    ("queries layout a * 5\nkeys layout repeat { b }\nattend full", 1, 9, range(8, 9), "there are 5 queries in the layout"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "rows", "keys", "queries", "words"), REFUSED, ids=[f"{r[0][:24]!r} {r[3]}"[:70] for r in REFUSED])
def test_queries_that_do_not_fit(text: str, rows: int, keys: int, queries: Any, words: str):
    q, k = torch.randn(1, 1, rows, 4), torch.randn(1, 1, keys, 4)
    for backend in ("tiled", "reference"):
        with pytest.raises(srt.InputError, match=words):
            srt.compile(srt.parse(text), backend=backend)(q, k, k, queries=queries)


def test_tensors_the_other_way_round_are_recognised():
    q = torch.randn(1, 9, 2, 8)
    with pytest.raises(srt.InputError, match=r"q.transpose\(1, 2\)"):
        srt.compile(srt.parse("attend causal"))(q, q, q, queries=range(9))


def test_a_plan_of_a_range():
    attend = srt.compile(srt.parse(STOP), tile=16)
    everything = attend.plan(300).to_dense()
    assert torch.equal(attend.plan(300, queries=range(100, 217)).to_dense(), everything[:, :, 100:217])
    assert torch.equal(attend.plan(299, queries=[3, 298]).to_dense(), everything[:, :, [3, 298], :299].transpose(0, 2))
    some = srt.compile(srt.parse("queries where pos % 3 == 1\nattend causal"), tile=16)
    assert torch.equal(some.plan(90, queries=range(10, 40)).to_dense(), some.plan(90).to_dense()[:, :, 3:13])
    with pytest.raises(srt.InputError, match="reaches position 300"):
        attend.plan(300, queries=range(200, 301))


def test_a_table_is_not_taken_for_an_axis_because_it_is_as_long():
    cases: tuple[tuple[str, dict[str, Any], int], ...] = (("queries where pos % 2 == 1\n", {}, 5), ("", {"queries": range(4, 9)}, 5))
    for rule, options, rows in cases:
        spec = srt.parse(f"input t: bool[n]\n{rule}attend causal and t[q.pos]")
        q, k, t = torch.randn(1, 1, rows, 4), torch.randn(1, 1, 10, 4), torch.tensor([True, True, True, False, True])
        a, b = (srt.compile(spec, backend=name)(q, k, k, t=t, **options) for name in ("tiled", "reference"))
        torch.testing.assert_close(a, b)
