"""Reports of kind C: plans that fit another call, tiles shown as the rule, empty axes, memory that nobody wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from calls import ANY_BACKEND, ANY_BLOCK_SPARSE, BACKENDS, BLOCK_SPARSE, FEW, assert_near, assert_nothing, assert_same_bits, call, qkv, run
from hypothesis import given
from hypothesis import strategies as st

import srt_masks as srt
from srt_masks.kernels import op
from srt_masks.kernels.dispatch import backend_of
from srt_masks.testing.strategies import Case, cases

REASONING = "param horizon = 2\nlayout repeat { token, reason }\nlet soon = k is reason and 0 < q.step - k.step <= horizon\nattend causal\nstop k, v where soon"


# ------------------------------------------------------------------------------------------------ C1: lengths


@FEW
@given(ANY_BACKEND, cases(most_steps=4), st.lists(st.integers(0, 5), min_size=2, max_size=4))
def test_C1_one_callable_serves_every_length(backend: str, case: Case, lengths: list[int]):
    """Whatever it was called with before, a callable gives the result of this length: that of a new one to the bit, that of the reference within TOL."""
    attend = case.compile(backend)
    for steps in (*lengths, lengths[0]):
        sized = case.resized(steps)
        tensors, options = sized.tensors(), {"inputs": dict(sized.inputs)}
        found = call(attend, tensors, **options)
        assert_same_bits(found, call(sized.compile(backend), tensors, **options))
        assert_near(found, call(sized.compile("reference"), tensors, **options))


@pytest.mark.parametrize("backend", BLOCK_SPARSE)
def test_C1_as_reported(backend: str):
    attend = srt.compile(srt.parse(REASONING), backend=backend, tile=32)
    for steps in (64, 32, 65, 64):
        tensors = qkv(2 * steps, heads=1, seed=steps)
        assert_near(call(attend, tensors), run(REASONING, "reference", tensors))


SIZES = st.fixed_dictionaries({"batch": st.integers(1, 3), "heads": st.integers(1, 3), "tokens": st.integers(1, 40)})


@given(ANY_BLOCK_SPARSE, SIZES, SIZES)
def test_C1_a_plan_for_another_call_is_refused_naming_both(backend: str, made_for: dict[str, int], called_with: dict[str, int]):
    attend = srt.compile(srt.parse("input doc: int per token\nattend causal and same(doc)"), tile=16)
    doc = torch.zeros(made_for["batch"], made_for["tokens"], dtype=torch.int64)
    plan = op.Planned(attend.plan(made_for["tokens"], heads=made_for["heads"], doc=doc), attend.compiled)
    q = qkv(**called_with)[0]

    def attempt() -> torch.Tensor:
        return op.attend(q, q, q, plan, backend_of(backend), 1.0)[0]

    if made_for == called_with:
        assert attempt().shape == q.shape
        return
    with pytest.raises(srt.BackendError) as refused:
        attempt()
    n = made_for["tokens"]
    assert f"batch {made_for['batch']}, heads {made_for['heads']}, {n} x {n} tokens" in str(refused.value) and str(tuple(q.shape)) in str(refused.value)


# ------------------------------------------------------------------------------------------------ C3: tiles are no rule


@given(cases(), st.sampled_from([16, 32, 64, 128, 256, 512]))
def test_C3_the_dense_view_of_a_plan_is_the_rule(case: Case, tile: int):
    plan = replace(case, tile=tile).compile().plan(case.extents.tokens, heads=case.heads, inputs=dict(case.inputs))
    dense = srt.dense(case.spec, **case.sizes).attend[0]
    assert torch.equal(plan.to_dense()[0], dense)


@given(st.integers(0, 60), st.integers(1, 20), st.sampled_from([16, 32, 128]))
def test_C3_blocks_smaller_than_a_tile(steps: int, block: int, tile: int):
    """Block diffusion, as reported: noisy tokens see their own block and earlier clean ones. Written out pair by pair, in Python."""
    spec = srt.zoo("block diffusion").with_params(size=block)
    plan = srt.compile(spec, tile=tile).plan(spec.checked.queries.tokens(steps))
    table = srt.tokens(spec, steps=steps)
    first, where = table.role[:1], [s // block for s in table.step.tolist()]
    noisy = [r == first[0] for r in table.role]
    for i, row in enumerate(plan.to_dense()[0, 0].tolist()):
        for j, sees in enumerate(row):
            same, earlier = where[i] == where[j], where[j] < where[i]
            rule = (noisy[i] and noisy[j] and same) or (noisy[i] and not noisy[j] and earlier) or (not noisy[i] and not noisy[j] and (same or earlier))
            assert sees == rule, (i, j)


# ------------------------------------------------------------------------------------------------ C6: empty axes


@FEW
@given(ANY_BACKEND, cases(most_steps=4), st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_C6_rows_of_no_tokens(backend: str, case: Case, steps: list[int]):
    """Sequences of no tokens, or of the fixed tokens alone, among others: nothing comes out of padding, and the rest is as alone."""
    layout = case.spec.checked.queries
    lengths = [layout.tokens(min(s, case.steps or 0)) if s else 0 if not layout.fixed else layout.fixed for s in steps]
    case = replace(case, batch=len(lengths), lengths=tuple(lengths))
    tensors, options = case.tensors(), {"lengths": lengths, "inputs": dict(case.inputs)}
    found = call(case.compile(backend), tensors, **options)
    assert_near(found, call(case.compile("reference"), tensors, **options))
    for row, length in enumerate(lengths):
        assert_nothing(type(found)(*(x[row : row + 1] for x in found)), slice(length, None))


EMPTY = {
    "no batch": ("attend causal", {"batch": 0, "tokens": 20}),
    "no tokens": ("attend causal\nstop k where q.pos > k.pos", {"tokens": 0}),
    "neither": ("attend causal", {"batch": 0, "tokens": 0}),
    "no keys": ("queries layout repeat { a }\nkeys layout repeat { b }\nattend full\nscale v by 0.5", {"tokens": 20, "keys": 0}),
    "no queries": ("queries layout repeat { a }\nkeys layout repeat { b }\nattend full\nstop q", {"tokens": 0, "keys": 20}),
    "no batch, some ask": ("queries where pos % 2 == 0\nattend causal", {"batch": 0, "tokens": 10, "keys": 20}),
    "no batch, heads": ("attend causal and (head == 0 or window(3))\nscale k by 0.5 where head == 1", {"batch": 0, "tokens": 20}),
    "nobody asks": ("queries where pos < 0\nattend causal", {"tokens": 0, "keys": 20}),
    "all padding": ("attend causal", {"tokens": 20, "batch": 3}),
    "empty table": ("input picked: bool[n]\nattend picked[k.pos]", {"tokens": 20}),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", EMPTY)
def test_C6_an_empty_axis_is_no_error(backend: str, name: str):
    text, sizes = EMPTY[name]
    options: dict = {"all padding": {"lengths": [0, 0, 0]}, "empty table": {"picked": torch.zeros(0, dtype=torch.bool)}}.get(name, {})
    for dtype in (torch.float64, torch.float32):
        tensors = qkv(**sizes, dtype=dtype)
        found = run(text, backend, tensors, **options)
        for result, like in zip(found, (tensors[3], tensors[0][..., 0], *tensors[:3]), strict=True):
            assert result.shape == like.shape
        assert_nothing(found)


@pytest.mark.parametrize("backend", BLOCK_SPARSE)
def test_C6_as_reported(backend: str):
    tensors = qkv(5, batch=4)
    assert_near(run("attend causal", backend, tensors, lengths=[0, 3, 0, 5]), run("attend causal", "reference", tensors, lengths=torch.tensor([0, 3, 0, 5])))


# ------------------------------------------------------------------------------------------------ C8: memory nobody wrote


@contextmanager
def filled() -> Iterator[None]:
    """torch fills new memory with NaN and the largest whole numbers, so that what is read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        assert bool(torch.empty(3).isnan().all())
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@FEW
@given(ANY_BLOCK_SPARSE, cases(most_steps=4), st.sampled_from([torch.float64, torch.float32, torch.bfloat16]), st.integers(0, 5))
def test_C8_nothing_is_read_before_it_is_written(backend: str, case: Case, dtype: torch.dtype, short: int):
    layout = case.spec.checked.queries
    lengths = [layout.tokens(case.steps or 0), layout.tokens(min(short, case.steps or 0))]
    case = replace(case, batch=2, lengths=tuple(lengths))
    tensors, options = case.tensors(dtype), {"lengths": lengths, "inputs": dict(case.inputs)}
    normal = call(case.compile(backend), tensors, **options)
    with filled():
        assert_same_bits(call(case.compile(backend), tensors, **options), normal)
    assert all(bool(torch.isfinite(x).all()) for x in (normal.out, normal.dq, normal.dk, normal.dv))


@pytest.mark.parametrize("backend", BLOCK_SPARSE)
def test_C8_as_reported(backend: str):
    tensors = qkv(64, batch=2, dtype=torch.bfloat16)
    normal = run("attend causal", backend, tensors, lengths=[64, 60])
    with filled():
        assert_same_bits(run("attend causal", backend, tensors, lengths=[64, 60]), normal)
    assert all(bool(torch.isfinite(x).all()) for x in (normal.out, normal.dq, normal.dk, normal.dv))


def test_C8_a_model_in_filled_memory():
    """Layout, positions, labels, loss and every weight's gradient, too."""

    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = srt.build_model(srt.load("examples/self_reasoning.mask"), dim=16, depth=2, heads=2, num_tokens=11)
        loss = model(torch.arange(22).view(2, 11) % 11, return_loss=True)
        loss.backward()
        return [loss.detach(), *(p.grad for p in model.parameters())]

    normal = gradients()
    with filled():
        assert all(torch.equal(a, b) for a, b in zip(gradients(), normal, strict=True))
