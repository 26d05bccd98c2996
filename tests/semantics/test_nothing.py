"""What a query that sees nothing, a key that nobody sees, and what lies past a sequence's end come to: nothing, whatever they hold and meet."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from calls import ANY_BACKEND, ANY_BLOCK_SPARSE, BACKENDS, BLOCK_SPARSE, FEW, Results, assert_near, assert_same_bits, differentiate, qkv, run
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import srt_masks as srt
from srt_masks.testing.strategies import Case, cases

NO_NUMBER = [float("nan"), float("inf"), float("-inf")]


def ragged(case: Case, short: int) -> Case:
    """Two rows of the batch, the second with `short` steps or fewer."""
    layout, steps = case.spec.checked.queries, case.steps or 0
    return replace(case, batch=2, lengths=(layout.tokens(steps), layout.tokens(min(short, steps))))


def dead(case: Case, group: int = 1) -> tuple[Tensor, Tensor]:
    """(batch, heads, queries) that see nothing, (batch, key heads, keys) that no query of any head sees."""
    attend = case.masks().attend[:, 0].expand(case.batch, case.heads, -1, -1)
    return ~attend.any(-1), ~attend.unflatten(1, (-1, group)).any(2).any(-2)


# ------------------------------------------------------------------------------------------------ what they may hold


@given(ANY_BLOCK_SPARSE, cases(most_steps=5), st.integers(0, 5), st.sampled_from(NO_NUMBER), st.sampled_from(NO_NUMBER))
def test_what_nobody_attends_may_hold_anything(backend: str, case: Case, short: int, one: float, other: float):
    """NaN or infinities in keys and values, and in queries that see nothing and the gradients of their out and lse: the same bits, and zeros there."""
    case = ragged(case, short)
    queries, keys = dead(case)
    tensors, options = case.tensors(), {"lengths": case.lengths, "inputs": dict(case.inputs)}
    dlse = tensors[3].sum(-1)
    attend = case.compile(backend)
    clean = differentiate(attend, tensors, dlse, **options)
    q, k, v, dout = tensors
    poisoned = [
        q.masked_fill(queries[..., None], one),
        k.masked_fill(keys[..., None], one),
        v.masked_fill(keys[..., None], other),
        dout.masked_fill(queries[..., None], other),
    ]
    found = differentiate(attend, poisoned, dlse.masked_fill(queries, other), **options)
    assert_same_bits(found, clean)
    assert bool((found.lse[queries] == float("-inf")).all())
    for x, where in ((found.out, queries), (found.dq, queries), (found.dk, keys), (found.dv, keys)):
        assert bool((x[where] == 0).all())


@FEW
@given(cases(most_steps=6), st.integers(0, 6), st.sampled_from(NO_NUMBER))
def test_so_it_is_in_the_reference(case: Case, short: int, number: float):
    case = ragged(case, short)
    queries, keys = dead(case)
    (q, k, v, dout), options = case.tensors(), {"lengths": case.lengths, "inputs": dict(case.inputs)}
    clean = differentiate(case.compile("reference"), [q, k, v, dout], dout.sum(-1), **options)
    poisoned = [q.masked_fill(queries[..., None], number), k.masked_fill(keys[..., None], number), v.masked_fill(keys[..., None], number), dout]
    assert_same_bits(differentiate(case.compile("reference"), poisoned, dout.sum(-1), **options), clean)


@pytest.mark.parametrize("group", [2, 3])
@pytest.mark.parametrize("backend", BLOCK_SPARSE)
def test_a_key_is_dead_only_if_no_head_of_its_group_attends_it(backend: str, group: int):
    text = "attend causal and (k.pos % 3 == head % 3 or k.pos == q.pos - q.pos % 4) and k.pos != 5\nstop v where head == 1"
    case = Case(srt.parse(text), 20, 2 * group, 2)
    _, keys = dead(case, group)
    tensors = case.tensors()
    assert 0 < int(keys.sum()) < keys.numel()
    attend, dlse = case.compile(backend), tensors[3].sum(-1)
    poisoned = [tensors[0], *(x.masked_fill(keys[..., None], float("nan")) for x in tensors[1:3]), tensors[3]]
    assert_same_bits(differentiate(attend, poisoned, dlse), differentiate(attend, tensors, dlse))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["k", "v"])
def test_a_nan_that_is_attended_is_not_hidden(backend: str, name: str):
    """Every row that attends it is NaN: a mask that is not followed would show, and so would a kernel that drops what is no number."""
    text, tensors = "attend causal and (window(3) or k.pos == 2)", qkv(20, heads=1)
    tensors["qkv".index(name)][:, :, 2] = float("nan")
    out, lse = srt.compile(srt.parse(text), backend=backend, tile=16)(*tensors[:3], return_lse=True)
    assert bool(out[:, :, 2:].isnan().all()) and bool(lse[:, :, 2:].isnan().all()) is (name == "k")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [float("inf"), float("-inf"), 1e300])
def test_a_gate_may_be_anything_where_nothing_is_attended(backend: str, number: float):
    text = "input w: float per query, key\nattend causal and k.pos != 3\nscale q, k, v by w where q.pos > 2"
    gate = torch.rand(20, 20, dtype=torch.float64).tril()
    wild = gate.masked_fill(~torch.ones(20, 20).tril().bool(), number)
    wild[:, 3] = number
    tensors = qkv(20, heads=1)
    found = run(text, backend, tensors, w=wild)
    assert_same_bits(found, run(text, backend, tensors, w=gate))
    assert_near(found, run(text, "reference", tensors, w=gate))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [*NO_NUMBER, 1e300])
@pytest.mark.parametrize("stop_first", [True, False])
def test_a_factor_may_be_anything_where_a_pair_is_stopped(backend: str, number: float, stop_first: bool):
    """`stop` sets a gate to 0, in whichever order rules come: 0 times what is no number would be none, in the reference in values too."""
    rules = ["scale q, k, v by w", "stop q, k, v where k.pos == 3 or q.pos - k.pos > 5"]
    text = "\n".join(["input w: float per query, key", "attend causal", *rules[:: -1 if stop_first else 1]])
    at = torch.arange(20)
    stopped = (at[None] == 3) | (at[:, None] - at > 5)
    gate = torch.rand(20, 20, dtype=torch.float64)
    tensors, wild = qkv(20, heads=1), gate.masked_fill(stopped, number)
    found = run(text, backend, tensors, w=wild)
    assert_same_bits(found, run(text, backend, tensors, w=gate))
    assert_near(found, run(text, "reference", tensors, w=gate))
    masks = srt.dense(srt.parse(text), steps=20, inputs={"w": wild})
    for found_gate in (masks.gate_q, masks.gate_k, masks.gate_v):
        assert torch.equal(found_gate[0, 0], gate.masked_fill(stopped, 0.0))


# ------------------------------------------------------------------------------------------------ what they meet in the next layer


def stacked(case: Case, backend: str, start: Tensor) -> list[Tensor]:
    """Three layers with residual streams and norms between them: the last states, and the gradient of the first."""
    attend, x = case.compile(backend), start.clone().requires_grad_()
    state: Tensor = x
    for _ in range(3):
        normed = torch.nn.functional.rms_norm(state, (state.shape[-1],))
        out, lse = attend(normed, normed, normed, return_lse=True, inputs=dict(case.inputs))
        # lse enters the next layer where there is one.
        state = state + out + torch.where(torch.isfinite(lse), lse, 0.0)[..., None] / 8
    weights = torch.randn(state.shape, generator=torch.Generator().manual_seed(1), dtype=state.dtype)
    return [state.detach(), *torch.autograd.grad((state * weights).sum(), x)]


@FEW
@given(ANY_BLOCK_SPARSE, cases(most_steps=5))
def test_rows_without_a_key_are_as_nothing_in_the_next_layer(backend: str, case: Case):
    start = case.tensors()[0]
    for found, wanted in zip(stacked(case, backend, start), stacked(case, "reference", start), strict=True):
        assert bool(torch.isfinite(found).all())
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_without_a_key_passes_the_residual_stream_on(backend: str):
    case = Case(srt.parse("attend k.pos < q.pos - 17"), 20)
    start = case.tensors()[0]
    state, grad = stacked(case, backend, start)
    assert torch.equal(state[:, :, :18], start[:, :, :18]) and bool((state[:, :, 18:] != start[:, :, 18:]).all())
    assert bool((grad != 0).all())


# ------------------------------------------------------------------------------------------------ parts that are merged

WHOLE = ["causal", "window(4)", "causal and q.pos >= 3 and k.pos != 5", "k.pos < q.pos - 16", "not full"]
PART = ["k.pos % 2 == 0", "k.pos < 16", "q.pos < 10", "full", "q.pos // 4 == k.pos // 4"]


@FEW
@given(ANY_BACKEND, st.sampled_from(WHOLE), st.sampled_from(PART))
def test_two_parts_merged_by_lse_are_the_whole(backend: str, whole: str, part: str):
    """As users merge them, with NaN where both are empty: out, lse and the gradients through both, which are finite where rows are."""
    rules = "\nstop k where q.pos - k.pos > 3\nscale v by 0.5 where k.pos % 3 == 0"
    tensors = qkv(20)
    q, k, v, dout = tensors
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    pieces = [srt.compile(srt.parse(f"attend ({whole}) and {p}{rules}"), backend=backend, tile=16)(*leaves, return_lse=True) for p in (part, f"not ({part})")]
    lse = torch.logaddexp(pieces[0][1], pieces[1][1])
    out = sum((lse_of - lse).exp().nan_to_num()[..., None] * out_of for out_of, lse_of in pieces)
    assert isinstance(out, Tensor)
    alive = torch.isfinite(lse)
    loss = (out * dout).sum() + (torch.where(alive, lse, 0) * dout.sum(-1)).sum()
    found = Results(out.detach(), lse.detach(), *torch.autograd.grad(loss, leaves))
    assert all(bool(torch.isfinite(x).all()) for x in (found.out, found.dq, found.dk, found.dv))
    assert_near(found, run(f"attend {whole}{rules}", backend, tensors))
