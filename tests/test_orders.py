"""Orders of tokens: whatever order a plan visits them in, results are the caller's; and the order taken is the one that pays."""

from __future__ import annotations

import copy
import itertools
import pickle
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_zoo import inputs_of, steps_of
from zoo_case import SCHEMES, Scheme

import srt_masks as srt
from srt_masks.compiler import choice
from srt_masks.compiler.choice import Costs
from srt_masks.compiler.curves import hilbert
from srt_masks.compiler.exact import Exact
from srt_masks.compiler.order import NATURAL
from srt_masks.compiler.runs import Consumer
from srt_masks.kernels.attention import Attention
from srt_masks.testing import compare
from srt_masks.testing.strategies import Case, cases

NEAR = "layout repeat { token, reason * 4 }\nattend causal and (k is token or q.step - k.step <= 16)"
STOP = "layout repeat { token, reason * 2 }\nlet soon = k is reason and 0 < q.step - k.step <= 3\nattend causal\nstop k, v where soon"


def orders_of(spec: srt.Spec) -> list[str]:
    """Every order that a caller may ask for: single sorts and curves, and a pair of them."""
    compiled = srt.compile(spec).compiled
    names = [c.name for c in compiled.candidates]
    sorts = [c for c in compiled.candidates if not c.curve]
    return names + [a.then(b).name for a, b in itertools.pairwise(sorts)]


def results(attend: Attention, q, k, v, dout, dlse, needs=(True, True, True), **options) -> list[torch.Tensor]:
    """out, lse, and the gradients of q, k and v and of their twins, with gradients into both out and lse."""
    leaves = [x.detach().clone().requires_grad_(need) for x, need in zip((q, k, v), needs, strict=True)]
    twins = [x.detach().clone().requires_grad_() for x in (k, v)] if attend.spec.checked.has_hidden_rules else []
    hidden = dict(zip(("hidden_k", "hidden_v"), twins, strict=True)) if twins else {}
    out, lse = attend(*leaves, return_lse=True, **hidden, **options)
    wanted = [x for x in leaves + twins if x.requires_grad]
    outputs = [(x, g) for x, g in ((out, dout), (lse, dlse)) if x.requires_grad and g is not None]
    grads = torch.autograd.grad([x for x, _ in outputs], wanted, [g for _, g in outputs], allow_unused=True, materialize_grads=True)
    return [out.detach(), lse.detach(), *grads]


def assert_equal(found: list[torch.Tensor], wanted: list[torch.Tensor], note: str = ""):
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=lambda m: f"{note}: {m}")


def is_reordered(attend: Attention, tokens: int, **options) -> bool:
    return any(g.order is not None for g in attend.plan(tokens, **options).groups)


# ------------------------------------------------------------------------------------------------ results are the caller's


@pytest.mark.parametrize("backend", ["tiled", "triton"])
@given(cases(most_steps=6), st.data(), st.integers(0, 6), st.sampled_from([1, 2]), st.sampled_from(["both", "out", "lse", "sum"]))
def test_random_specs_in_every_order(backend: str, case: Case, data: st.DataObject, short: int, group: int, through: str):
    """Values, lse and all gradients, ragged lengths and grouped heads, against the pairwise reference."""
    names = orders_of(case.spec)
    if not names:
        return
    name = data.draw(st.sampled_from(names))
    layout = case.spec.checked.queries
    steps = case.steps or 0
    tokens = layout.tokens(steps)
    lengths = [tokens, layout.tokens(min(short, steps))]
    heads = case.heads * group
    inputs = {n: t.repeat(group, 1, 1) if n == "weights" else t for n, t in case.inputs.items()}
    q, k, v = (torch.randn(2, h, tokens, 8, dtype=torch.float64) for h in (heads, case.heads, case.heads))
    dout, dlse = torch.randn_like(q), torch.randn(q.shape[:3], dtype=torch.float64)
    if through == "sum":
        dout = torch.ones(1, 1, 1, 1, dtype=torch.float64).expand(q.shape)
    given = (None if through == "lse" else dout, dlse if through in ("both", "lse") else None)

    def found(**options) -> list[torch.Tensor]:
        attend = srt.compile(case.spec, heads=heads, tile=16, **options)
        grads = given
        if grads[1] is not None:
            lse = attend(q, k, v, lengths=lengths, return_lse=True, inputs=inputs)[1]
            grads = (given[0], torch.where(torch.isfinite(lse), dlse, 0.0))
        return results(attend, q, k, v, *grads, lengths=lengths, inputs=inputs)

    assert_equal(found(backend=backend, order=name), found(backend="reference"), name)


@given(cases(most_steps=10), st.data())
def test_plans_and_exports_are_in_the_callers_order(case: Case, data: st.DataObject):
    names = orders_of(case.spec)
    if not names:
        return
    tokens = case.spec.checked.queries.tokens(case.steps or 0)
    plan, natural = (
        srt.compile(case.spec, tile=16, order=order).plan(tokens, heads=case.heads, inputs=case.inputs)
        for order in (data.draw(st.sampled_from(names)), "natural")
    )
    masks = srt.dense(case.spec, steps=case.steps, heads=case.heads, inputs=case.inputs)
    assert torch.equal(plan.to_dense(), masks.attend) and torch.equal(natural.to_dense(), masks.attend)
    for found in plan.intervals():
        assert torch.equal(found.to_dense(), masks.attend[0, found.heads[0]])
    if tokens:
        flex, wanted = plan.to_flex(gradients="drop", device="cpu"), natural.to_flex(gradients="drop", device="cpu")
        assert torch.equal(flex.to_dense(), wanted.to_dense())
    for group, other in zip(plan.natural.groups, natural.groups, strict=True):
        assert group.order is None and all(torch.equal(group.leaves.values[x], other.leaves.values[x]) for x in other.leaves.split.leaves)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_the_zoo_in_every_order(scheme: Scheme):
    for case in scheme.cases[:2]:
        spec = srt.parse(scheme.text, params=case.params)
        if spec.checked.keys is not None and spec.checked.keys.rows_per_step:
            continue  # a plan by itself cannot know the length of its keys
        masks = srt.dense(spec, steps=steps_of(spec, case), heads=case.heads, layers=case.layers, inputs=inputs_of(spec, case), given=case.given)
        for name in orders_of(spec):
            attend = srt.compile(spec, layers=case.layers, tile=16, order=name)
            plan = attend.plan(len(masks.position), heads=case.heads, layer=0, inputs=inputs_of(spec, case), given=case.given)
            assert torch.equal(plan.to_dense()[0], masks.attend[0]), name


HIDDEN = """
layout repeat { token, reason * 2 }
input cluster: int per token, head
attend causal and (same(cluster) or k is token)
stop hidden where k is reason and q.step - k.step < 3 + head
stop v where head == 1 and k.pos < 4
"""


def test_twins_are_visited_as_their_keys_are(backend: str):
    spec, tokens = srt.parse(HIDDEN), 36 if backend == "tiled" else 21
    cluster = torch.randint(3, (tokens, 4))
    data = [torch.randn(1, h, tokens, 8, dtype=torch.float64) for h in (4, 4, 4, 4)]
    given = (*data, torch.randn(1, 4, tokens, dtype=torch.float64))
    truth = results(srt.compile(spec, backend="reference"), *given, cluster=cluster)
    assert len(truth) == 7
    moved = 0
    for name in orders_of(spec):
        attend = srt.compile(spec, backend=backend, tile=16, order=name)
        if is_reordered(attend, tokens, heads=4, cluster=cluster):
            assert_equal(results(attend, *given, cluster=cluster), truth, name)
            moved += 1
        if backend == "triton" and moved:
            return  # interpreted
    assert moved >= 3


def test_layers_share_twins_only_where_their_keys_are_visited_alike():
    """The twins' plan of one layer may serve another, unless k and v are visited in another order there."""
    text = (
        "layout repeat { token, reason * 3 }\nattend causal and (k is token or q.step - k.step <= (1 if layer == 0 else 9999))\nstop hidden where k is reason"
    )
    attend, truth = (srt.compile(srt.parse(text), layers=3, tile=16, backend=b) for b in ("tiled", "reference"))
    q, k, v, dout = (torch.randn(1, 1, 400, 8, dtype=torch.float64) for _ in range(4))
    assert {is_reordered(attend, 400, layer=n) for n in (0, 1)} == {True, False}
    for layer in (0, 1, 0, 2):
        assert_equal(results(attend, q, k, v, dout, None, layer=layer), results(truth, q, k, v, dout, None, layer=layer))


@pytest.mark.parametrize(("heads", "key_heads", "own", "reordered"), [(4, 4, 4, True), (4, 2, 2, True), (4, 2, 4, False), (6, 1, 1, True)])
def test_every_key_head_has_one_order(heads: int, key_heads: int, own: int, reordered: bool, backend: str):
    """`own` heads have clusters of their own: those that share keys and disagree stay in the caller's order."""
    spec, tokens = srt.parse("input cluster: int per token, head\nattend same(cluster) or diagonal"), 44
    cluster = torch.randint(4, (2, tokens, own)).repeat_interleave(heads // own, 2)
    q, k, v, dout = (torch.randn(2, h, tokens, 8, dtype=torch.float64) for h in (heads, key_heads, key_heads, heads))
    dlse = torch.randn(2, heads, tokens, dtype=torch.float64)
    lengths = [tokens, 31]
    dlse[1, :, 31:] = 0
    attend = srt.compile(spec, backend=backend, tile=16, order="by k.cluster")
    truth = results(srt.compile(spec, backend="reference"), q, k, v, dout, dlse, lengths=lengths, cluster=cluster)
    assert_equal(results(attend, q, k, v, dout, dlse, lengths=lengths, cluster=cluster), truth)
    (plan,) = (kept.plan for kept in attend.plans._plans.values())
    assert {g.order is not None for g in plan.groups} == {reordered}
    assert reordered or all("share keys" in g.choice.reason for g in plan.groups)


@pytest.mark.parametrize(
    ("text", "queries", "keys", "options"),
    [
        ("layout cached * 20, repeat { draft, note }\nqueries where role is draft\nattend k is cached and k.pos % 3 == 1 or k is draft and causal", 15, 50, {}),
        ("queries layout repeat { a, b }\nkeys layout repeat { c, d }\nattend k is d and q.step % 3 == k.step % 4\nstop v where q is b", 40, 52, {}),
        ("input parent: int per token\ninput node: int per token\nattend q.parent == k.node or diagonal", 40, 40, {"parent": torch.randint(5, (40,)), "node": torch.randint(5, (40,))}),
        ("input table: bool[n, n]\nattend (table[q.pos, k.pos] or diagonal) and (k.pos % 4 == 1 or q.pos % 3 == 0)", 40, 40, {"table": torch.rand(40, 40) > 0.5}),
        ("input pair: bool per query, key\nattend pair and (k.pos % 4 == 1 or q.pos % 3 == 0)", 40, 40, {"pair": torch.rand(40, 40) > 0.5}),
        ("input step: int per step\nlayout repeat { a, b }\nattend (k.step - q.step) % 3 == 0 and k is a".replace("input step: int per step\n", ""), 40, 40, {}),
        (
            "layout given { a, b }\nattend k is a and q.step >= k.step", 40, 40,
            {"given": {"role": [("a", "b")[i % 3 == 0] for i in range(40)], "step": [i // 2 for i in range(40)], "slot": [0] * 40}},
        ),
    ],
)  # fmt: skip
def test_layouts_and_inputs_of_every_form(text: str, queries: int, keys: int, options: dict, backend: str):
    spec = srt.parse(text)
    q, k, v, dout = (torch.randn(1, 2, n, 8, dtype=torch.float64) for n in (queries, keys, keys, queries))
    truth = results(srt.compile(spec, backend="reference"), q, k, v, dout, None, **options)
    names = orders_of(spec)
    moved = 0
    for name in names:
        attend = srt.compile(spec, backend=backend, tile=16, order=name)
        assert_equal(results(attend, q, k, v, dout, None, **options), truth, name)
        (kept,) = attend.plans._plans.values()
        moved += any(g.order is not None for g in kept.plan.groups)
        if backend == "triton" and moved:
            return  # interpreted
    assert moved, "no order but the caller's: this tests nothing"


def test_what_keys_that_nobody_attends_hold_reaches_no_result(backend: str):
    spec = srt.parse("input keep: bool per token\nattend k.keep and causal\nstop k where k.pos < q.pos")
    keep = torch.rand(60) > 0.4
    keep[0] = True
    q, k, v, dout = (torch.randn(1, 2, 60, 8, dtype=torch.float64) for _ in range(4))
    attend = srt.compile(spec, backend=backend, tile=16, order="by k.keep")
    assert is_reordered(attend, 60, keep=keep)
    clean = results(attend, q, k, v, dout, None, keep=keep)
    k[:, :, ~keep], v[:, :, ~keep] = float("nan"), float("inf")
    for a, b in zip(clean, results(attend, q, k, v, dout, None, keep=keep), strict=True):
        assert torch.equal(a, b)
    assert_equal(clean, results(srt.compile(spec, backend="reference"), q, k, v, dout, None, keep=keep))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_error_bound_holds_in_the_order_chosen(dtype: torch.dtype):
    spec = srt.parse(NEAR.replace("16", "4"))
    assert is_reordered(srt.compile(spec, tile=16), 300, heads=2, dtype=dtype)
    for c in compare(spec, steps=60, heads=2, key_heads=1, dtype=dtype, tile=16):
        assert c.holds, c


def test_the_same_call_gives_the_same_bits():
    q, k, v, dout = (torch.randn(1, 2, 600, 8) for _ in range(4))
    attend = srt.compile(srt.parse(NEAR), tile=16)
    assert is_reordered(attend, 600, heads=2)
    first = results(attend, q, k, v, dout, None)
    choice.forget()
    for other in (attend, srt.compile(srt.parse(NEAR), tile=16), copy.deepcopy(attend), pickle.loads(pickle.dumps(attend))):
        assert other.options == attend.options
        for a, b in zip(first, results(other, q, k, v, dout, None), strict=True):
            assert torch.equal(a, b)


def test_an_order_survives_copies_and_checkpoints():
    from torch.utils.checkpoint import checkpoint

    attend = srt.compile(srt.parse(NEAR), tile=16, order="by k is token")
    q, k, v = (torch.randn(1, 2, 45, 8, requires_grad=True) for _ in range(3))
    plain = torch.autograd.grad(attend(q, k, v).square().sum(), (q, k, v))
    for other in (copy.deepcopy(attend), pickle.loads(pickle.dumps(attend))):
        assert other.options.order == "by k is token" and is_reordered(other, 45)
        for reentrant in (False, True):
            out = checkpoint(other, q, k, v, use_reentrant=reentrant)
            q.grad = k.grad = v.grad = None
            out.square().sum().backward()
            assert all(torch.equal(x.grad, g) for x, g in zip((q, k, v), plain, strict=True))


def test_unneeded_gradients_strides_and_second_orders(backend: str):
    attend = srt.compile(srt.parse(STOP), backend=backend, tile=16, order="by role")
    data = [torch.randn(2, 33, 3, 8) for _ in range(3)]
    whole = [x.transpose(1, 2).contiguous().requires_grad_() for x in data]
    attend(*whole).sum().backward()
    for needs in itertools.product([False, True], repeat=3) if backend == "tiled" else [(True, False, False), (False, False, True)]:
        mine = [x.clone().transpose(1, 2).requires_grad_(need) for x, need in zip(data, needs, strict=True)]
        out = attend(*mine)
        assert out.requires_grad is any(needs)
        if any(needs):
            out.sum().backward()
        for x, w, need in zip(mine, whole, needs, strict=True):
            assert torch.equal(x.grad, w.grad) if need else x.grad is None
    x = torch.randn(1, 1, 6, 4, dtype=torch.float64, requires_grad=True)
    with pytest.raises(srt.BackendError, match="double backward"):
        torch.autograd.grad(attend(x, x, x).square().sum(), x, create_graph=True)[0].sum().backward()
    with pytest.raises(srt.BackendError, match="forward-mode differentiation"):
        torch.func.jvp(lambda y: attend(y, x.detach(), x.detach()), (x.detach(),), (torch.ones_like(x),))
    torch.testing.assert_close(torch.func.grad(lambda y: attend(y, y, y).square().sum())(x.detach()), torch.autograd.grad(attend(x, x, x).square().sum(), x)[0])


# ------------------------------------------------------------------------------------------------ which order is taken


def test_reason_seen_by_the_next_steps_alone_takes_886_tiles():
    plan = srt.compile(srt.parse(NEAR), tile=128).plan(2048 * 5)
    runs = plan.groups[0].runs(Consumer.FORWARD)
    assert (runs.tiles - runs.partial_tiles, runs.partial_tiles) == (600, 286)
    assert plan.active_tiles == 886 < 0.3 * srt.compile(srt.parse(NEAR), tile=128, order="natural").plan(2048 * 5).active_tiles
    found = plan.groups[0].choice
    assert found.name == plan.groups[0].order.name == "by role" and found.trial.work < 0.35
    text = str(plan)
    assert (
        "order: by role (" in text and "2080 natural; predicted 0." in text and "orders tried in" in text and "0 FULL + 2080 PARTIAL, 1.00 of the work" in text
    )


@pytest.mark.parametrize(
    ("text", "tokens", "options", "taken"),
    [
        ("attend causal", 2048, {}, NATURAL),
        ("attend causal and window(100)", 2048, {}, NATURAL),
        ("input doc: int per token\nattend causal and same(doc)", 2048, {"doc": torch.arange(2048) // 100}, NATURAL),
        (STOP, 1536, {}, NATURAL),
        (NEAR, 35, {}, NATURAL),
        ("layout repeat { token, thought * 8 }\nattend causal and (k is token or q.step == k.step)", 1152, {}, "by role"),
        ("attend same(pos % 64)", 1024, {}, "by k.pos % 64"),
        ("input cluster: int per token\nattend causal and same(cluster)", 1024, {"cluster": torch.randint(8, (1024,))}, "by k.cluster"),
        (
            "layout repeat { content, query }\ninput rank: int per step\nattend k is content and (k.rank < q.rank or q is content and k.rank == q.rank)", 1024,
            {"rank": torch.randperm(512)}, "by role, then k.rank",
        ),
        ("let row = pos // 45\nlet col = pos % 45\nattend abs(q.row - k.row) <= 3 and abs(q.col - k.col) <= 3", 2025, {}, "Hilbert over (k.pos % 45, k.pos // 45)"),
    ],
)  # fmt: skip
def test_the_order_that_is_taken(text: str, tokens: int, options: dict, taken: str):
    attend = srt.compile(srt.parse(text), tile=32)
    group = attend.plan(tokens, **options).groups[0]
    assert (NATURAL if group.order is None else group.order.name) == group.choice.name == taken
    work = {t.name: t.work for t in group.choice.trials}
    assert not work or work[taken] <= min(work.values()) / choice.GAIN
    if group.order is not None:
        assert torch.equal(group.order.queries.sort().values, torch.arange(tokens))
        assert srt.compile(srt.parse(text), tile=32, order="natural").plan(tokens, **options).active_tiles > attend.plan(tokens, **options).active_tiles


@pytest.mark.parametrize(
    ("rules", "products"),
    [("", (5, 7, 8)), ("stop v", (4, 6, 6)), ("stop k", (4, 5, 5)), ("stop q", (4, 4, 5)), ("stop q, k", (2, 2, 2)), ("stop k, v", (3, 3, 3)), ("stop q, k, v", (0, 0, 0))],
)  # fmt: skip
def test_the_products_of_a_tile_are_those_of_the_launches_there_are(rules: str, products: tuple[int, int, int]):
    """Backward, beside two forward: of one launch (`tiled`), of dQ and dK/dV, and of dQ, dK and dV; S and dP are worked out anew in each that needs them."""
    group = srt.compile(srt.parse(f"attend full\n{rules}"), tile=16).plan(32).groups[0]
    found = [choice._Count.of(group.boxes, 32, 32, 16, launches).products for launches in (("qkv",), ("q", "kv"), ("q", "k", "v"))]
    assert found == [4 * (2 + n) for n in products]


def test_moving_tokens_is_paid_for():
    """What is saved has to exceed the gathers and scatters."""
    spec, tokens = srt.parse(NEAR), 1600
    attend = srt.compile(spec, tile=16)
    compiled = attend.compiled
    from srt_masks.compiler.batch import BatchRow
    from srt_masks.compiler.choice import Ordering
    from srt_masks.compiler.make_plan import make_plan
    from srt_masks.compiler.plan import Geometry

    def taken(token: float) -> str:
        costs = Costs(partial=1.0, operator=0.0, start=0.0, row=0.0, run=0.0, token=token)
        row = BatchRow(None, {}, {}, {})
        return (
            make_plan(compiled, Geometry(1, 1, tokens, tokens, 16, None), [row], {"heads": 1, "layer": 0, "layers": 1}, Ordering("auto", costs))
            .groups[0]
            .choice.name
        )

    assert taken(0.0) == "by role" and taken(100.0) == NATURAL


def test_a_choice_that_the_text_decides_is_made_once(monkeypatch: pytest.MonkeyPatch):
    asked = []
    classify = choice.classify
    monkeypatch.setattr(choice, "classify", lambda *a: asked.append(1) or classify(*a))
    choice.forget()
    text = "layout repeat { token, reason * 4 }\nparam far = 16\nattend causal and (k is token or q.step - k.step <= far)"
    for _ in range(3):  # longer than what is tried
        for steps in (300, 400):
            assert srt.compile(srt.parse(text), tile=16).plan(5 * steps).groups[0].choice.name == "by role"
    once = len(asked)
    assert once == 2
    srt.compile(srt.parse(text), tile=16).plan(1500, far=17)
    assert len(asked) == 2 * once
    # Inputs decide anew.
    clusters = srt.compile(srt.parse("input cluster: int per token\nattend same(cluster)"), tile=16)
    before = len(asked)
    assert clusters.plan(512, cluster=torch.arange(512) // 64).groups[0].choice.name == NATURAL and len(asked) == before
    assert clusters.plan(512, cluster=torch.arange(512) % 8).groups[0].choice.name == "by k.cluster" and len(asked) == before + 2


def test_rows_of_the_batch_have_orders_of_their_own():
    spec = srt.parse("input cluster: int per token\nattend same(cluster)")
    cluster = torch.stack([torch.arange(300) // 60, torch.arange(300) % 5, torch.arange(300) % 7])
    attend = srt.compile(spec, tile=16)
    plan = attend.plan(300, cluster=cluster, lengths=[300, 300, 280])
    assert [g.order is not None for g in plan.groups] == [False, True, True] and not torch.equal(plan.groups[1].order.keys[:280], plan.groups[2].order.keys)
    data = [torch.randn(3, 1, 300, 8, dtype=torch.float64) for _ in range(4)]
    wanted = results(srt.compile(spec, backend="reference"), *data, None, cluster=cluster, lengths=[300, 300, 280])
    assert_equal(results(attend, *data, None, cluster=cluster, lengths=[300, 300, 280]), wanted)


def test_what_cannot_be_ordered_stays():
    text = "layout repeat { token, reason }\nattend k is token and role[k.pos - q.pos] is token"
    attend = srt.compile(srt.parse(text), tile=16)
    group = attend.plan(400).groups[0]
    assert group.order is None and "query and key decide together" in group.choice.reason
    with pytest.raises(srt.InputError, match="query and key decide together"):
        srt.compile(srt.parse(text), order="by role")
    some = srt.compile(srt.parse(NEAR), tile=16).plan(400, queries=range(100, 400)).groups[0]
    assert some.order is None and "some rows of q" in some.choice.reason


@pytest.mark.parametrize(
    ("order", "words"),
    [("by rank", "order is `auto`, `natural`, or of this text `by role`, `by k.step`, `by k is token`"), (None, "got None"), (3, "got 3"), ("", "got ''"), ("by role, then", "or two of them")],
)  # fmt: skip
def test_an_order_that_the_text_has_not(order, words: str):
    with pytest.raises(srt.InputError) as caught:
        srt.compile(srt.parse(NEAR), order=order)
    assert words in str(caught.value)
    with pytest.raises(srt.InputError, match="this text has no other orders"):
        srt.compile(srt.parse("attend causal"), order="by role")


def test_an_order_asked_for_is_taken_however_small():
    group = srt.compile(srt.parse(NEAR), order="by k is token, then k.step").plan(20).groups[0]
    assert group.order is not None and group.order.name == group.choice.name and group.choice.reason == "as asked for"
    same = srt.compile(srt.parse("input doc: int per token\nattend same(doc)"), order="by k.doc").plan(6, doc=torch.arange(6)).groups[0]
    assert same.order is None and same.choice.name == NATURAL and "is the order the tokens have" in same.choice.reason


@pytest.mark.parametrize(("axes", "side"), [(1, 8), (2, 16), (3, 8), (4, 4)])
def test_neighbours_on_the_curve_are_neighbours_in_the_grid(axes: int, side: int):
    grid = torch.stack(torch.meshgrid(*[torch.arange(side)] * axes, indexing="ij")).view(axes, -1)
    place = hilbert(grid)
    assert torch.equal(place.sort().values, torch.arange(side**axes))
    assert bool((grid[:, place.argsort()].diff(dim=1).abs().sum(0) == 1).all())


def test_curves_of_large_and_of_no_points():
    assert hilbert(torch.zeros(2, 0, dtype=torch.int64)).shape == (0,)
    far = torch.tensor([[0, 2**40, 2**40 + 2**30], [0, 2**40, 2**40 + 2**30]])
    place = hilbert(far)
    assert bool((place >= 0).all()) and len(place.unique()) == 3


def test_plans_that_do_not_go_together_are_refused():
    from srt_masks.kernels import op
    from srt_masks.kernels.dispatch import backend_of

    q = torch.randn(1, 2, 30, 8)
    one, other = (srt.compile(srt.parse(NEAR), tile=16, order=order) for order in ("by role", "natural"))
    first, second = (op.Planned(a.plan(30, heads=2), a.compiled) for a in (one, other))
    with pytest.raises(srt.BackendError, match="in another order"):
        op.attend(q, q, q, first, backend_of("tiled"), 0.5, op.Hidden(q, q, second))
    own = srt.compile(srt.parse("input cluster: int per token, head\nattend same(cluster) or diagonal"), tile=16, order="by k.cluster")
    apart = op.Planned(own.plan(30, heads=2, cluster=torch.randint(4, (30, 2))), own.compiled)
    with pytest.raises(srt.BackendError, match="one order"):
        op.attend(q, q[:, :1], q[:, :1], apart, backend_of("tiled"), 0.5)


SHARED = {  # a `let`, what each of those behind it makes of the one before, which it says twice, the mask, and how many
    "numbers": ("pos % 7", "{0} * {0} + {0}", "attend q.last < k.last", 12),
    "masks": ("pos % 7 == 0", "({0} and pos % 5 == 1) or (pos % 3 == 1 and not {0})", "attend q.last and k.last", 14),
    "residues": ("q.pos - k.pos", "{0} + abs({0})", "attend last % 7 == 0", 20),
}


@pytest.mark.parametrize("name", SHARED)
def test_lets_that_are_said_twice_cost_no_more_than_once(name: str):
    first, then, attend, count = SHARED[name]
    lines = [f"let a0 = {first}", *(f"let a{i + 1} = {then.format(f'a{i}')}" for i in range(count)), f"let last = a{count}", attend]
    begin = time.process_time()
    plan = srt.compile(srt.parse("\n".join(lines)), tile=16).plan(200)
    assert plan.active_tiles > 0 and time.process_time() - begin < 10
    assert all(len(c.name) < 2000 for c in srt.compile(srt.parse("\n".join(lines))).compiled.candidates)


def test_trials_settle_few_tiles_pair_by_pair(monkeypatch):
    """Many orders of a mask that no bound decides: each trial evaluates a tenth of what the plan may, or the search would take ten times as long."""
    chain = (f"let a{i} = (a{i - 1} and q.pos % {i + 2} == 1) or (k.pos % {i + 3} == 1 and not a{i - 1})" for i in range(1, 15))
    spec = srt.parse("\n".join(["let a0 = q.pos < k.pos", *chain, "attend a14"]))
    evaluated, look = [], Exact._pairs
    monkeypatch.setattr(Exact, "_pairs", lambda self, row, col, count: evaluated.append(len(row) * count**2) or look(self, row, col, count))
    plan = srt.compile(spec).plan(1500)
    trials = len(plan.groups[0].choice.trials)
    assert plan.inexact_tiles == 0 and trials > 5
    assert sum(evaluated) < 400_000 * trials + 2_500_000


def test_a_mask_of_many_operators_is_tried_in_fewer_orders(monkeypatch):
    """Blocks picked by each query: every tile is PARTIAL in any order, and each of the picks is one more to sort by. What is not tried is not sorted."""
    arranged, arrange = [], choice.arrange
    monkeypatch.setattr(choice, "arrange", lambda *a: arranged.append(a[0].name) or arrange(*a))
    for picks, fewest, most in ((2, 8, 25), (24, 2, 5), (200, 0, 0)):
        text = f"param picks = {picks}\ninput picked: int[picks] per query\nattend causal and any(q.picked[i] == k.pos // 16 for i in range(picks))"
        picked = torch.randint(64, (1024, picks), generator=torch.Generator().manual_seed(0))
        arranged.clear()
        attend = srt.compile(srt.parse(text), tile=16)
        found = attend.plan(1024, picked=picked).groups[0].choice
        assert fewest <= len(found.trials) <= most and len(arranged) <= 2 * most
        worked = sum(choice._operators(attend.compiled.questions)) * sum(t.partial for t in found.trials[:-1])
        assert worked < choice.MOST_LOOKED_AT or len(found.trials) == 2
