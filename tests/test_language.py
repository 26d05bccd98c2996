"""The statements that are more than a mask: who asks, layouts given at run time, gates of the hidden state, params by row; on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import srt_masks as srt

SPECULATIVE = "layout cached * 5, draft * 3\nqueries where role is draft\nattend k is cached or k is draft and k.slot <= q.slot"
MEMORY = "layout memory * 3, repeat { token }\nqueries where role is token\nattend causal\nstop hidden where k is memory"
GIVEN = "layout given { word, thought }\ndata word\ninput doc: int per step\nattend causal and same(doc) and not (k is thought and q is word and same(slot))\nstop k where k is thought"


def data(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(s, dtype=dtype) for s in shapes]


def gradients(attend: Any, q: Tensor, k: Tensor, v: Tensor, twins: bool = False, **named: Any) -> list[Tensor]:
    """out, lse, and the gradients into q, k, v (and the twins of k and v) of a fixed function of both."""
    leaves = [x.detach().clone().requires_grad_() for x in ((q, k, v, k, v) if twins else (q, k, v))]
    hidden = {"hidden_k": leaves[3], "hidden_v": leaves[4]} if twins else {}
    out, lse = attend(*leaves[:3], return_lse=True, **hidden, **named)
    weights = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).reshape(out.shape)
    reached = torch.isfinite(lse)
    return [out, torch.where(reached, lse, 0), *torch.autograd.grad((out * weights).sum() + lse[reached].sum(), leaves)]


def agree(text: str, backend: str, q: Tensor, k: Tensor, v: Tensor, tile: int = 16, **named: Any) -> list[Tensor]:
    spec = srt.parse(text)
    twins = spec.checked.has_hidden_rules
    mine = gradients(srt.compile(spec, backend=backend, tile=tile), q, k, v, twins, **named)
    truth = gradients(srt.compile(spec, backend="reference"), q, k, v, twins, **named)
    for a, b in zip(mine, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    return mine


# ------------------------------------------------------------------------------------------------ queries where


def test_only_those_who_ask_have_a_row(backend: str):
    (k, v), (q,) = data((2, 2, 8, 8), (2, 2, 8, 8)), data((2, 2, 3, 8))
    out = agree(SPECULATIVE, backend, q, k, v)[0]
    everyone = torch.zeros(2, 2, 8, 8, dtype=torch.float64)
    everyone[:, :, 5:] = q
    whole = srt.compile(srt.parse(SPECULATIVE.replace("queries where role is draft\n", "")), backend="reference")(everyone, k, v)
    torch.testing.assert_close(out, whole[:, :, 5:])


def test_positions_of_those_who_ask_are_those_of_the_layout(backend: str):
    """q.pos is no row number, role[..] and inputs per query count all tokens; every second token asks."""
    text = (
        "input bias: int per query\ninput seen: bool per query, key\nqueries where pos % 2 == 1\n"
        "attend k.pos <= q.pos and (q.pos - k.pos) % 3 != 1 and q.bias > k.pos and seen and role[q.pos + 1] is token\nscale k by (q.pos - k.pos) / 7 where k.pos < q.pos"
    )
    n = 37
    inputs = {"bias": torch.randint(0, n, (n,)), "seen": torch.rand(n, n) > 0.2}
    k, v, q = data((1, 2, n, 8), (1, 2, n, 8), (1, 2, n // 2, 8))
    agree(text, backend, q, k, v, inputs=inputs)
    found = srt.dense(srt.parse(text), steps=n, inputs=inputs)
    full = srt.dense(srt.parse(text.replace("queries where pos % 2 == 1\n", "")), steps=n, inputs=inputs)
    assert torch.equal(found.attend, full.attend[..., 1::2, :]) and torch.equal(found.gate_k, full.gate_k[..., 1::2, :])
    assert len(found.position) == n and len(found.target) == n // 2
    plan = srt.compile(srt.parse(text), tile=16).plan(n, inputs=inputs)
    assert torch.equal(plan.to_dense(), found.attend)


def test_rows_of_their_own_length_ask_for_themselves(backend: str):
    text = "layout repeat { a }, repeat { b }\nqueries where role is b or pos == length - 1\nattend causal and k.pos > q.pos - 3"
    k, v, q = data((3, 1, 10, 4), (3, 1, 10, 4), (3, 1, 5, 4))
    out = agree(text, backend, q, k, v, lengths=[10, 4, 0])[0]
    alone = srt.compile(srt.parse(text))(q[1:2, :, :2], k[1:2, :, :4], v[1:2, :, :4])
    torch.testing.assert_close(out[1:2, :, :2], alone)
    assert bool((out[1, :, 2:] == 0).all()) and bool((out[2] == 0).all())


def test_a_wrong_number_of_rows_is_refused(backend: str):
    k, v, q = data((1, 1, 8, 4), (1, 1, 8, 4), (1, 1, 4, 4))
    for rows in (4, 8 - 8):
        with pytest.raises(srt.InputError, match=rf"q has {rows} rows, and 3 of the 8 tokens ask"):
            srt.compile(srt.parse(SPECULATIVE), backend=backend)(q[:, :, :rows], k, v)
    with pytest.raises(srt.InputError, match="ask"):
        srt.compile(srt.parse(SPECULATIVE), backend="reference")(q, k, v)


@pytest.mark.parametrize("where", ["true", "pos == pos", "not false"])
def test_a_condition_that_always_holds_still_counts_rows(where: str, backend: str):
    attend = srt.compile(srt.parse(f"queries where {where}\nattend causal"), backend=backend)
    k, v, q, more = data((1, 1, 8, 4), (1, 1, 8, 4), (1, 1, 3, 4), (1, 1, 10, 4))
    for wrong in (q, more):
        with pytest.raises(srt.InputError, match="and 8 of the 8 tokens ask"):
            attend(wrong, k, v)
    torch.testing.assert_close(attend(k, k, v), srt.compile(srt.parse("attend causal"))(k, k, v))


def test_two_texts_that_differ_in_who_asks_alone_are_two(backend: str):
    k, v, q = data((1, 1, 8, 4), (1, 1, 8, 4), (1, 1, 4, 4))
    for which in ("pos % 2 == 0", "pos >= 4", "pos < 4"):
        agree(f"queries where {which}\nattend causal", backend, q, k, v)


def test_who_asks_may_rest_on_a_param(backend: str):
    text = "param first = 4\nqueries where pos >= first\nattend causal and window(first)"
    k, v = data((1, 1, 8, 4), (1, 1, 8, 4))
    for first in (4, 6, 8):
        (q,) = data((1, 1, 8 - first, 4))
        agree(text, backend, q, k, v, first=first)


# ------------------------------------------------------------------------------------------------ layout given


def sample_layout(n: int) -> dict[str, Any]:
    role = [("word", "thought")[int(x)] for x in torch.rand(n) > 0.6]
    return {"role": role, "step": torch.rand(n).mul(1.7).long().cumsum(0), "slot": torch.randint(0, 3, (n,))}


def test_a_layout_given_is_the_layout(backend: str):
    n = 41
    layout = sample_layout(n)
    inputs = {"doc": torch.arange(int(layout["step"].max()) + 1) // 7}
    q, k, v = data(*[(1, 2, n, 8)] * 3)
    agree(GIVEN, backend, q, k, v, given=layout, **inputs)
    table = srt.tokens(srt.parse(GIVEN), given=layout, inputs=inputs)
    assert list(table.role) == layout["role"] and torch.equal(table.step, layout["step"])
    assert table.index.tolist() == [sum(r == "word" for r in layout["role"][: i + 1]) - 1 for i in range(n)]
    dense = srt.dense(srt.parse(GIVEN), given=layout, inputs=inputs)
    plan = srt.compile(srt.parse(GIVEN), tile=16).plan(n, given=layout, inputs=inputs)
    assert torch.equal(plan.to_dense()[0], dense.attend[0])


def test_the_same_layout_said_and_given_is_the_same(backend: str):
    rest = "input doc: int per step\nattend causal and same(doc) and (k is a or same(step)) and role[k.pos + 1] is not a\nstop v where q.slot < k.slot"
    said, handed = srt.parse("layout repeat { a, b * 2 }\n" + rest), srt.parse("layout given { a, b }\n" + rest)
    layout = {"role": ["a", "b", "b"] * 6, "step": torch.arange(18) // 3, "slot": torch.tensor([0, 0, 1] * 6)}
    inputs = {"doc": torch.tensor([0, 0, 1, 1, 1, 2])}
    q, k, v = data(*[(1, 1, 18, 8)] * 3)
    for a, b in zip(
        gradients(srt.compile(said, backend=backend), q, k, v, **inputs),
        gradients(srt.compile(handed, backend=backend), q, k, v, given=layout, **inputs),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_each_row_may_have_a_layout_of_its_own(backend: str):
    n = 20
    layouts = [sample_layout(n) for _ in range(3)]
    together = {"role": [x["role"] for x in layouts], "step": torch.stack([x["step"] for x in layouts]), "slot": torch.stack([x["slot"] for x in layouts])}
    text = GIVEN.replace("input doc: int per step\n", "").replace(" and same(doc)", "")
    q, k, v = data(*[(3, 2, n, 8)] * 3)
    out = agree(text, backend, q, k, v, given=together, lengths=[n, 7, 13])[0]
    attend = srt.compile(srt.parse(text), backend=backend)
    for b, length in enumerate((n, 7, 13)):
        one = {"role": layouts[b]["role"][:length], "step": layouts[b]["step"][:length], "slot": layouts[b]["slot"][:length]}
        torch.testing.assert_close(out[b : b + 1, :, :length], attend(*(x[b : b + 1, :, :length] for x in (q, k, v)), given=one))


@pytest.mark.parametrize(("change", "words"), [
    ({"role": ["word"] * 3}, "describes 3 tokens; this call has 4"), ({"role": ["word", "thougt", "word", "word"]}, "did you mean `thought`"), ({"role": torch.tensor([0, 1, 2, 0])}, "from 0 to 1"),
    ({"step": torch.tensor([0.0, 1, 2, 3])}, "one whole number a token"), ({"step": torch.tensor([0, 1, 2])}, "wants 4 tokens"), ({"slot": torch.tensor([0, 0, 0, -1])}, "from 0"), ({"slot": "abcd"}, "vector of whole numbers"),
    ({"role": 3}, "list of role names"), ({"role": [["word"] * 4, ["word"] * 3]}, "different lengths"), ({"step": torch.zeros(5, 4).long()}, "batch axis of 1 or 1"),
])  # fmt: skip
def test_a_layout_that_does_not_fit_is_refused(change: dict, words: str):
    spec = srt.parse("layout given { word, thought }\nattend causal")
    layout = {"role": ["word"] * 4, "step": torch.arange(4), "slot": torch.zeros(4).long()} | change
    q, k, v = data(*[(1, 1, 4, 4)] * 3)
    with pytest.raises(srt.InputError, match=words):
        srt.compile(spec)(q, k, v, given=layout)
    if "this call has" not in words and "batch axis" not in words:
        with pytest.raises(srt.InputError, match=words):
            srt.dense(spec, given=layout)


def test_given_is_wanted_exactly_where_the_text_says_so():
    q, k, v = data(*[(1, 1, 4, 4)] * 3)
    layout = {"role": ["a"] * 4, "step": [0, 1, 2, 3], "slot": [0] * 4}
    for call in (lambda s, **n: srt.compile(s)(q, k, v, **n), lambda s, **n: srt.dense(s, **n), lambda s, **n: srt.tokens(s, **n)):
        with pytest.raises(srt.InputError, match=r"give given=\{'role'"):
            call(srt.parse("layout given { a }\nattend causal"))
        with pytest.raises(srt.InputError, match="got the keys role"):
            call(srt.parse("layout given { a }\nattend causal"), given={"role": ["a"] * 4})
    with pytest.raises(srt.InputError, match="belongs to `layout given"):
        srt.compile(srt.parse("attend causal"))(q, k, v, given=layout)
    with pytest.raises(srt.InputError, match="takes its steps from given="):
        srt.dense(srt.parse("layout given { a }\nattend causal"), given=layout, steps=3)


# ------------------------------------------------------------------------------------------------ stop hidden


def test_the_state_learns_what_the_weights_do_but_for_stopped_pairs(backend: str):
    """Transformer-XL: through projections, W learns as if nothing were stopped; the state behind a stopped pair learns nothing of it."""
    attend, plain = srt.compile(srt.parse(MEMORY), backend=backend), srt.compile(srt.parse(MEMORY.rpartition("\n")[0]), backend="reference")
    states, w = data((1, 1, 9, 8), (8, 24))

    def run(call: Any, twins: bool) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = states.clone().requires_grad_(), w.clone().requires_grad_()
        q, k, v = (x @ weight).chunk(3, -1)
        _, hidden_k, hidden_v = (x.detach() @ weight).chunk(3, -1)
        out = call(q[:, :, 3:], k, v, **({"hidden_k": hidden_k, "hidden_v": hidden_v} if twins else {}))
        return out, *torch.autograd.grad(out.square().sum(), (x, weight))

    out, dx, dw = run(attend, True)
    plain_out, plain_dx, plain_dw = run(plain, False)
    torch.testing.assert_close(out, plain_out)
    torch.testing.assert_close(dw, plain_dw)
    assert bool((dx[:, :, :3] == 0).all()) and bool((plain_dx[:, :, :3] != 0).any())
    torch.testing.assert_close(dx[:, :, 3:], plain_dx[:, :, 3:])


@pytest.mark.parametrize("rules", [
    "stop hidden where k.pos < q.pos - 5", "stop hidden", "scale hidden by 1 / 4 where causal\nstop k where k.pos == 2", "scale hidden by (q.pos - k.pos) / 9\nscale v by 1 / 2\nstop q where window(2)",
    "scale hidden by 1", "stop v\nstop hidden where head == 0", "scale hidden, k by w where k.pos > 3",
])  # fmt: skip
def test_gates_of_the_hidden_state(rules: str, backend: str):
    n = 40
    text = "input w: float per query, key\nattend causal and head < 3\n" + rules
    q, k, v = data((2, 4, n, 8), (2, 2, n, 8), (2, 2, n, 4))
    agree(text, backend, q, k, v, w=torch.rand(n, n))


def test_only_the_twins_that_need_a_gradient_get_one(backend: str):
    n = 20
    spec = srt.parse("attend causal\nstop hidden where k.pos < 10")
    attend, truth = srt.compile(spec, backend=backend), srt.compile(spec, backend="reference")
    q, k, v = data(*[(1, 1, n, 8)] * 3)
    for needs in ((0, 0, 0, 1, 0), (0, 0, 0, 0, 1), (1, 0, 1, 0, 1), (0, 1, 0, 1, 0), (1, 1, 1, 0, 0)):
        results = []
        for call in (attend, truth):
            leaves = [x.clone().requires_grad_(bool(need)) for x, need in zip((q, k, v, k, v), needs, strict=True)]
            call(*leaves[:3], hidden_k=leaves[3], hidden_v=leaves[4]).square().sum().backward()
            results.append([x.grad for x in leaves])
        for a, b, need in zip(*results, needs, strict=True):
            assert (a is not None) == bool(need)
            if need:
                torch.testing.assert_close(a, b)


def test_a_hidden_rule_that_never_applies_leaves_the_twins_in_the_graph(backend: str):
    q, k, v = data(*[(1, 1, 6, 4)] * 3)
    twin = k.clone().requires_grad_()
    out = srt.compile(srt.parse("attend causal\nstop hidden where false"), backend=backend)(q, k, v, hidden_k=twin, hidden_v=v)
    (grad,) = torch.autograd.grad(out.sum(), twin)
    assert torch.equal(grad, torch.zeros_like(k))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_with_twins(reentrant: bool, backend: str):
    q, k, v, *twins = (x.requires_grad_() for x in data(*[(1, 1, 6, 4)] * 5))
    twins = [k.detach().clone().requires_grad_(), v.detach().clone().requires_grad_()]
    attend = srt.compile(srt.parse("attend causal\nstop hidden where k.pos < 3"), backend=backend)

    def call(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return attend(q, k, v, hidden_k=a, hidden_v=b)

    wanted = torch.autograd.grad(call(q, k, v, *twins).square().sum(), (q, k, v, *twins))
    checkpoint(call, q, k, v, *twins, use_reentrant=reentrant).square().sum().backward()
    for x, grad in zip((q, k, v, *twins), wanted, strict=True):
        assert torch.equal(x.grad, grad)


def test_twins_that_are_none_are_refused():
    q, k, v = data(*[(1, 1, 6, 4)] * 3)
    attend = srt.compile(srt.parse("attend causal\nstop hidden"))
    for twins, words in (
        ({}, "give hidden_k= and hidden_v="), ({"hidden_k": k}, "give hidden_k= and hidden_v="), ({"hidden_k": k, "hidden_v": v[:, :, :5]}, "hidden_v is v once more"),
        ({"hidden_k": k.float(), "hidden_v": v}, "hidden_k is k once more"), ({"hidden_k": k + 1, "hidden_v": v}, "hidden_k has the values of k"), ({"hidden_k": 3, "hidden_v": v}, "got int"),
    ):  # fmt: skip
        with pytest.raises(srt.InputError, match=words):
            attend(q, k, v, **twins)


def test_a_second_order_of_the_twins_is_refused():
    q, k, v = data(*[(1, 1, 6, 4)] * 3)
    twin = k.clone().requires_grad_()
    out = srt.compile(srt.parse("attend causal\nstop hidden"))(q, k, v, hidden_k=twin, hidden_v=v)
    (grad,) = torch.autograd.grad(out.square().sum(), twin, create_graph=True)
    with pytest.raises(srt.BackendError, match="double backward"):
        grad.sum().backward()


def test_a_model_with_hidden_rules_trains_its_weights_and_not_the_state():
    text = "layout repeat { token }\nattend causal\nposition step\npredict token -> index + 1\n"
    x = torch.randint(0, 11, (2, 12))
    grads = []
    for rule in ("", "stop hidden where k.pos < q.pos\n"):
        torch.manual_seed(0)
        model = srt.build_model(srt.parse(text + rule), dim=16, depth=2, heads=2, num_tokens=11)
        loss = model(x, return_loss=True)
        loss.backward()
        grads.append((loss.item(), model.blocks[1].attention.to_qkv.weight.grad.clone(), model.blocks[0].attention.to_qkv.weight.grad.clone()))
    (loss, last, first), (same_loss, same_last, other_first) = grads
    assert loss == pytest.approx(same_loss) and torch.allclose(last, same_last, atol=1e-6)
    assert not torch.allclose(first, other_first, atol=1e-4)


# ------------------------------------------------------------------------------------------------ params by row


@given(spans=st.lists(st.integers(0, 9), min_size=1, max_size=4), seed=st.integers(0, 9))
@settings(max_examples=15)
def test_a_param_may_differ_from_row_to_row(spans: list[int], seed: int):
    torch.manual_seed(seed)
    text = "param span = 3\nparam factor = 0.5\nattend causal and window(span)\nscale k by factor where k.pos % 2 == 0"
    batch = len(spans)
    q, k, v = data(*[(batch, 2, 12, 4)] * 3)
    factor = torch.linspace(0, 1, batch)
    out, *_ = agree(text, "tiled", q, k, v, span=torch.tensor(spans), factor=factor)
    attend = srt.compile(srt.parse(text))
    for b, span in enumerate(spans):
        one = gradients(attend, q[b : b + 1], k[b : b + 1], v[b : b + 1], span=span, factor=factor[b])
        torch.testing.assert_close(out[b : b + 1], one[0])
    dense = srt.dense(srt.parse(text), steps=12, inputs={"span": torch.tensor(spans)})
    assert dense.attend.shape[0] == batch


def test_params_by_row_in_the_interpreter():
    text = "param span = 3\nattend causal and window(span)"
    q, k, v = data(*[(3, 1, 20, 8)] * 3)
    agree(text, "triton", q, k, v, span=torch.tensor([1, 4, 19]))


def test_params_by_row_that_do_not_fit():
    spec = srt.parse("param span = 3\nparam size = 2\nlayout repeat { a * size }\nattend causal and window(span)")
    q, k, v = data(*[(3, 1, 8, 4)] * 3)
    for named, words in (
        ({"span": torch.tensor([1, 2])}, "one for each of the 3 rows"), ({"span": torch.tensor([1.5, 2, 3])}, "whole number"), ({"size": torch.tensor([1, 2, 3])}, "one number"),
        ({"span": torch.ones(3, requires_grad=True)}, "requires grad"), ({"span": torch.ones(3, 1).long()}, "one number"), ({"span": [1, 2, 3]}, "is a number"),
    ):  # fmt: skip
        with pytest.raises(srt.InputError, match=words):
            srt.compile(spec)(q, k, v, **named)


def test_a_hundred_values_of_a_param_read_the_text_once(monkeypatch: pytest.MonkeyPatch):
    """Numbers, scalar tensors, vectors. That no kernel is compiled for them is counted in test_triton."""
    from srt_masks.compiler import pipeline

    fronts = []
    monkeypatch.setattr(pipeline, "front", lambda checked, front=pipeline.front: fronts.append(1) or front(checked))
    attend = srt.compile(srt.parse("param span = 3\nparam factor = 0.5\nattend causal and window(span)\nscale k by factor"))
    q, k, v = data(*[(2, 1, 8, 4)] * 3)
    for i in range(100):
        span = (i, torch.tensor(i), torch.tensor([i, 2 * i]))[i % 3]
        attend(q, k, v, span=span, factor=i / 7)
    assert fronts == [1]


def test_numbers_and_lists_of_other_libraries():
    spec = srt.parse("param span = 3\ninput doc: int per token\nattend causal and window(span) and same(doc)")
    plain = srt.dense(spec, steps=3, inputs={"doc": torch.tensor([[0, 0, 0], [0, 0, 1]]), "span": 2})
    for doc in ([[0, 0, 0], [0, 0, 1]], np.array([[0, 0, 0], [0, 0, 1]])):
        assert torch.equal(srt.dense(spec, steps=3, inputs={"doc": doc, "span": np.int64(2)}).attend, plain.attend)
    q, k, v = data(*[(2, 1, 3, 4)] * 3)
    attend = srt.compile(spec)
    assert torch.equal(attend(q, k, v, lengths=np.array([3, 1]), doc=[0, 0, 0]), attend(q, k, v, lengths=[3, 1], doc=torch.zeros(3).long()))
    with pytest.raises(srt.InputError, match="64 bits and a sign"):
        attend(q, k, v, doc=torch.tensor([2**63 + 5, 1, 2], dtype=torch.uint64))


@pytest.mark.parametrize(("text", "table"), [
    ("input T: bool[n]\nattend causal and (2147483647 if not T[q.pos - k.pos] else 0) + 1 > 1", torch.tensor([True, True])),
    ("input T: float[n]\nattend causal and (0 if T[q.pos - k.pos] > 0.5 else 2147483647) + 1 > 1", torch.tensor([1.0, 1.0])),
    ("input T: int[n]\nattend causal and (0 if T[q.pos - k.pos] > 0 else 2147483647) + 1 > 1", torch.tensor([3, 3])),
])  # fmt: skip
def test_what_a_subscript_out_of_range_reads_counts_for_the_width_of_numbers(text: str, table: Tensor, backend: str):
    agree(text, backend, *data(*[(1, 1, 6, 4)] * 3), T=table)


# ------------------------------------------------------------------------------------------------ claims


def test_claims_are_kept_as_the_text_says_them():
    spec = srt.parse(
        "attend causal\npredict token -> index + 1\nassert k.pos <= q.pos\nassert no flow where k.pos > q.pos\nassert grad where causal\nassert every query attends\nassert no leak\nassert cacheable"
    )
    assert [c.kind.value for c in spec.checked.claims] == [
        "assert", "assert no flow", "assert grad", "assert every query attends", "assert no leak", "assert cacheable",
    ]  # fmt: skip
    assert [spec.text[c.span.start : c.span.end] for c in spec.checked.claims] == spec.text.splitlines()[2:]
    with pytest.raises(srt.SpecError, match="whose"):
        srt.parse("attend causal\nassert no flow where step > 3")
    assert srt.parse("attend causal\nassert layer == 0").checked.mentions("layer") is False
